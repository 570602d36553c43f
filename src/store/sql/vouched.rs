//! Tables `credentials` and `certificates`: certificates for keys that a registration authority vouches for.
//!
//! Such a key is `EXTERNAL` and has no claim: no VNFCI of it is known here. Its pool lends it tenant, VNF instance and
//! profile, by which it is found and withdrawn like any other.

use super::certificates::{self, NewRow};
use super::change::Done;
use super::connection::Connection;
use super::enrolments::is_known;
use super::statement::{Statement, query};
use crate::audit::event::EventCredential;
use crate::clock::Timestamp;
use crate::credential::{CertificateState, KeyState};
use crate::nfv::{CredentialId, IssuerId, PoolId, Sha256Hash};
use crate::store::records::{DestroyedKeys, EnrolmentOutcome, EnrolmentRefusal, NewVouched, Vouched};
use crate::store::{Result, StoreError};

/// The certificate of a key that was vouched for.
pub(super) async fn by_key(tx: &mut Connection, public_key: Sha256Hash) -> Result<Option<Vouched>> {
    let row = query(
        "SELECT c.id AS id, c.public_key_sha256 AS public_key, c.pool AS pool, ce.issuer AS issuer, ce.der AS der,
                ce.state AS state, ce.not_after AS not_after
         FROM credentials c JOIN certificates ce ON ce.credential = c.id AND ce.turn = 0
         WHERE c.public_key_sha256 = $1 AND c.key_state = 'EXTERNAL' AND c.claim_id IS NULL",
    )
    .bind(public_key.0.as_slice())
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(Vouched {
            pool: PoolId(row.uuid("pool")?),
            credential: EventCredential {
                id: CredentialId(row.uuid("id")?),
                public_key: row.hash("public_key")?,
            },
            issuer: IssuerId(row.uuid("issuer")?),
            certificate_der: row.blob("der")?,
            state: row.parsed("state")?,
            not_after: row.time("not_after")?,
        })
    })
    .transpose()
}

/// Records a signed certificate.
pub(super) async fn record(
    tx: &mut Connection,
    new: &NewVouched,
    now: Timestamp,
) -> Result<Done<EnrolmentOutcome>> {
    let refused = |refusal| Ok(Done::unchanged(EnrolmentOutcome::Refused(refusal)));
    let key = &new.credential;
    // Of one pool one after the other: what is decided below is still so when it is written.
    query("SELECT 1 FROM pools WHERE id = $1")
        .bind(new.pool.0.as_bytes().as_slice())
        .locking("FOR NO KEY UPDATE")
        .fetch_optional(&mut *tx)
        .await?;
    if let Some(before) = by_key(tx, key.public_key).await? {
        if before.pool == new.pool && before.state == CertificateState::Valid && before.not_after > now {
            return Ok(EnrolmentOutcome::Replayed(before.certificate_der).into());
        }
        return refused(EnrolmentRefusal::KeyUsed);
    }
    if is_known(tx, key.public_key).await? {
        return refused(EnrolmentRefusal::KeyUsed);
    }
    let id = key.id.0.as_bytes().as_slice();
    if query("SELECT id FROM credentials WHERE id = $1").bind(id).fetch_optional(&mut *tx).await?.is_some() {
        return refused(EnrolmentRefusal::NameUsed);
    }
    // The pool is looked at again: it may have been deleted since its names were taken.
    let inserted = query(
        "INSERT INTO credentials (id, tenant, pool, key_state, public_key_sha256, public_key_der, created_at)
         SELECT $1, tenant, id, $2, $3, $4, $5 FROM pools WHERE id = $6 AND deleted_at IS NULL",
    )
    .bind(id)
    .bind(KeyState::External.as_str())
    .bind(key.public_key.0.as_slice())
    .bind(new.public_key_der.as_slice())
    .bind(now.unix_micros())
    .bind(new.pool.0.as_bytes().as_slice())
    .execute(&mut *tx)
    .await?;
    if inserted == 0 {
        return Err(StoreError::NotFound(format!("pool {}", new.pool)));
    }
    let mut sql = Statement::new("");
    certificates::insert(&mut sql, &[NewRow::signed(key.id, &new.certificate)]);
    sql.execute(tx).await?;
    Ok(EnrolmentOutcome::Enrolled {
        credential: key.clone(),
        replaced: DestroyedKeys::default(),
        superseded: DestroyedKeys::default(),
        spent: false,
    }
    .into())
}
