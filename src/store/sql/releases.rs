//! Tables `claims`, `credentials` and `vnfcis`: a VNFCI gives its credentials back.

use super::change::Done;
use super::claims::{close, standing};
use super::connection::Connection;
use super::statement::{Statement, query};
use super::vnfcis;
use crate::audit::event::EventCredential;
use crate::audit::receipt::DestructionReason;
use crate::clock::Timestamp;
use crate::credential::{HolderCopy, RevocationReason};
use crate::nfv::{ClaimId, CredentialId, InitialCredentialId, IssuerId};
use crate::store::records::{ClaimState, CustodyEnd, DestroyedKeys, VnfciState};
use crate::store::{Result, StoreError};

/// Takes the credentials of a confirmed claim back.
pub(super) async fn release(
    tx: &mut Connection,
    claim: ClaimId,
    end: &CustodyEnd,
    now: Timestamp,
) -> Result<Done<DestroyedKeys>> {
    vnfcis::lock_of_claim(tx, claim).await?;
    let (state, initial_credential, ended_at) = standing(tx, claim).await?;
    match (state, ended_at) {
        (ClaimState::Confirmed, _) => {
            let mut outcome = close(tx, claim, ClaimState::Released, end, now).await?;
            let others = end_others(tx, initial_credential, now).await?;
            outcome.keys.extend(others.keys);
            outcome.revoked.extend(others.revoked);
            let mut sql = Statement::new("");
            vnfcis::move_to(&mut sql, VnfciState::Released, initial_credential, now);
            sql.execute(tx).await?;
            Ok(outcome.into())
        }
        (ClaimState::Released, Some(at)) => Ok(Done::unchanged(released(tx, initial_credential, at).await?)),
        (state, _) => Err(StoreError::Conflict(format!(
            "claim {claim} is {state}: only a confirmed claim can be released"
        ))),
    }
}

/// What the release at this time came to.
async fn released(tx: &mut Connection, arming: InitialCredentialId, at: Timestamp) -> Result<DestroyedKeys> {
    let rows = query(
        "SELECT c.id AS id, c.public_key_sha256 AS public_key, c.custody_ended_at AS custody_ended_at,
                ce.issuer AS issuer, ce.serial AS serial, ce.revoked_at AS revoked_at
         FROM credentials c JOIN certificates ce ON ce.credential = c.id
         JOIN claims cl ON cl.id = c.claim_id
         WHERE cl.initial_credential = $1 AND cl.ended_at = $2
         ORDER BY cl.state = 'RELEASED' DESC, cl.id, c.slot, ce.id",
    )
    .bind(arming.0.as_bytes().as_slice())
    .bind(at.unix_micros())
    .fetch_all(tx)
    .await?;
    let mut outcome = DestroyedKeys::default();
    for row in &rows {
        let key = EventCredential { id: CredentialId(row.uuid("id")?), public_key: row.hash("public_key")? };
        if row.time_or_null("custody_ended_at")? == Some(at) && !outcome.keys.contains(&key) {
            outcome.keys.push(key);
        }
        if row.time_or_null("revoked_at")? == Some(at) {
            outcome.revoked.push((IssuerId(row.uuid("issuer")?), hex::encode(row.blob("serial")?)));
        }
    }
    Ok(outcome)
}

/// Ends what a VNFCI that gives its latest credentials back has left: earlier ones in their overlap, a renewal under way,
/// certificates for keys of its own.
pub(super) async fn end_others(
    tx: &mut Connection,
    arming: InitialCredentialId,
    now: Timestamp,
) -> Result<DestroyedKeys> {
    let rows = query(
        "SELECT cl.id AS id, cl.state AS state FROM claims cl JOIN initial_credentials i
             ON i.id = cl.initial_credential AND i.tenant = cl.tenant AND i.vnfci = cl.vnfci
         WHERE i.id = $1 AND cl.state IN ('OPEN', 'CONFIRMED', 'RENEWED') ORDER BY cl.id",
    )
    .bind(arming.0.as_bytes().as_slice())
    .fetch_all(&mut *tx)
    .await?;
    let end = CustodyEnd {
        reason: DestructionReason::Released,
        // The VNFCI signed for the latest keys only.
        holder_copy: HolderCopy::Unknown,
        revocation: RevocationReason::CessationOfOperation,
    };
    let mut outcome = DestroyedKeys::default();
    for row in &rows {
        let state = match row.parsed("state")? {
            ClaimState::Open => ClaimState::Destroyed,
            _ => ClaimState::Superseded,
        };
        let ended = close(tx, ClaimId(row.uuid("id")?), state, &end, now).await?;
        outcome.keys.extend(ended.keys);
        outcome.revoked.extend(ended.revoked);
    }
    Ok(outcome)
}
