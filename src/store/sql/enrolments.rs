//! Tables `claims`, `credentials` and `certificates`: certificates for keys that their holders made.
//!
//! An enrolment is kept as a claim that was confirmed at once, has no recipient key and one credential, whose key was
//! never here (`EXTERNAL`, no epoch): what ends a VNFCI, revokes certificates or makes receipts finds it like any other.

use super::certificates::{self, NewRow};
use super::change::Done;
use super::claims::{self, Arming};
use super::connection::Connection;
use super::statement::{Row, Statement, query};
use super::{renewals, vnfcis};
use crate::audit::event::EventCredential;
use crate::audit::receipt::DestructionReason;
use crate::clock::Timestamp;
use crate::credential::{CertificateState, HolderCopy, KeyState, RevocationReason};
use crate::nfv::{
    ClaimId, CredentialId, InitialCredentialId, IssuerId, PoolId, Sha256Hash, TenantId, VnfInstanceId,
    VnfciId,
};
use crate::store::records::{
    ClaimRefusal, ClaimState, CustodyEnd, DestroyedKeys, Enrolment, EnrolmentBasis, EnrolmentOutcome,
    EnrolmentRefusal, NewEnrolment, VnfciState, next_reenrolment,
};
use crate::store::{Result, StoreError};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The columns of an [`Enrolment`].
const COLUMNS: &str = "SELECT cl.tenant AS tenant, cl.vnfci AS vnfci, cl.vnf_instance AS vnf_instance,
    cl.id AS claim, cl.state AS claim_state, cl.initial_credential AS initial_credential, c.slot AS slot,
    c.id AS id, c.public_key_sha256 AS public_key, c.key_state AS key_state, c.pool AS pool,
    c.created_at AS key_since, c.custody_ended_at AS custody_ended_at, ce.id AS certificate, ce.der AS der,
    ce.issuer AS issuer, ce.state AS state, ce.superseded_at AS superseded_at, ce.not_after AS not_after, v.state AS vnfci_state";

/// Reads [`Enrolment`]s from the tables in this order (CROSS JOIN keeps SQLite to it); the condition is the caller's.
fn select(from: &str, condition: &str) -> Statement {
    let mut sql = Statement::new(COLUMNS);
    sql.push(from).push(" CROSS JOIN vnfcis v WHERE c.id = ce.credential AND cl.id = c.claim_id");
    sql.push(" AND v.tenant = cl.tenant AND v.id = cl.vnfci AND ").push(condition);
    sql
}

const FROM_CERTIFICATE: &str = " FROM certificates ce CROSS JOIN credentials c CROSS JOIN claims cl";
const FROM_CLAIM: &str = " FROM claims cl CROSS JOIN credentials c CROSS JOIN certificates ce";

fn read(row: &Row) -> Result<Enrolment> {
    Ok(Enrolment {
        tenant: row.parsed("tenant")?,
        vnfci: row.parsed("vnfci")?,
        id: ClaimId(row.uuid("claim")?),
        initial_credential: InitialCredentialId(row.uuid("initial_credential")?),
        slot: row.parsed("slot")?,
        credential: EventCredential {
            id: CredentialId(row.uuid("id")?),
            public_key: row.hash("public_key")?,
        },
        own_key: row.parsed::<KeyState>("key_state")? == KeyState::External,
        key_since: row.time("key_since")?,
        certificate_der: row.blob("der")?,
        issuer: IssuerId(row.uuid("issuer")?),
        state: row.parsed("state")?,
        superseded_at: row.time_or_null("superseded_at")?,
        not_after: row.time("not_after")?,
    })
}

/// The certificate with this SHA-256, if a VNFCI has it.
pub(super) async fn by_certificate(
    tx: &mut Connection,
    fingerprint: Sha256Hash,
) -> Result<Option<Enrolment>> {
    Ok(presented(tx, fingerprint).await?.map(|(enrolment, _)| enrolment))
}

/// What an arming was enrolled for, oldest first.
pub(super) async fn of_arming(
    tx: &mut Connection,
    tenant: &TenantId,
    vnfci: &VnfciId,
    arming: InitialCredentialId,
) -> Result<Vec<Enrolment>> {
    let mut sql = select(FROM_CLAIM, "cl.state = 'CONFIRMED' AND c.key_state = 'EXTERNAL' AND cl.tenant = ");
    sql.push_bind(tenant.as_str()).push(" AND cl.vnfci = ").push_bind(vnfci.as_str());
    sql.push(" AND cl.initial_credential = ")
        .push_bind(arming.0.as_bytes().as_slice())
        .push(" ORDER BY ce.id");
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read).collect()
}

async fn presented(tx: &mut Connection, fingerprint: Sha256Hash) -> Result<Option<(Enrolment, Row)>> {
    let mut sql = select(FROM_CERTIFICATE, "ce.sha256 = ");
    sql.push_bind(fingerprint.0.as_slice());
    let row = sql.fetch_optional(tx).await?;
    row.map(|row| Ok((read(&row)?, row))).transpose()
}

async fn newest(tx: &mut Connection, public_key: Sha256Hash) -> Result<Option<(Enrolment, Row)>> {
    let from = " FROM credentials c CROSS JOIN certificates ce CROSS JOIN claims cl";
    // Without intents: nobody has those.
    let mut sql = select(from, "ce.turn = 0 AND ce.der IS NOT NULL AND c.public_key_sha256 = ");
    sql.push_bind(public_key.0.as_slice());
    let row = sql.fetch_optional(tx).await?;
    row.map(|row| Ok((read(&row)?, row))).transpose()
}

/// Whether any credential has this key, also one that waits in a pool.
pub(super) async fn is_known(tx: &mut Connection, public_key: Sha256Hash) -> Result<bool> {
    let row = query("SELECT id FROM credentials WHERE public_key_sha256 = $1")
        .bind(public_key.0.as_slice())
        .fetch_optional(tx)
        .await?;
    Ok(row.is_some())
}

/// Records a signed certificate.
pub(super) async fn record(
    tx: &mut Connection,
    new: &NewEnrolment,
    now: Timestamp,
) -> Result<Done<EnrolmentOutcome>> {
    match new.basis {
        EnrolmentBasis::InitialCredential(id) => first(tx, new, id, false, now).await,
        EnrolmentBasis::Agent(id) => first(tx, new, id, true, now).await,
        EnrolmentBasis::Certificate(fingerprint) => again(tx, new, fingerprint, now).await,
    }
}

fn refused(refusal: EnrolmentRefusal) -> Done<EnrolmentOutcome> {
    Done::unchanged(EnrolmentOutcome::Refused(refusal))
}

/// The first certificates of an arming.
async fn first(
    tx: &mut Connection,
    new: &NewEnrolment,
    initial_credential: InitialCredentialId,
    agent: bool,
    now: Timestamp,
) -> Result<Done<EnrolmentOutcome>> {
    vnfcis::lock_of_arming(tx, initial_credential).await?;
    let arming = claims::arming(tx, initial_credential).await?;
    if let Some(refusal) = refusal(&arming, agent, now) {
        // The answer was lost, or this is its twin: the same key is told again what it got.
        if refusal == EnrolmentRefusal::Spent && now < arming.expires_at {
            let enrolled = of_arming(tx, &arming.tenant, &arming.vnfci, initial_credential).await?;
            let same = enrolled.into_iter().rfind(|found| {
                found.slot == new.slot
                    && found.credential.public_key == new.credential.public_key
                    && found.is_in_force(now)
            });
            if let Some(same) = same {
                return Ok(EnrolmentOutcome::Replayed(same.certificate_der).into());
            }
        }
        return Ok(refused(refusal));
    }
    let Some(source) = arming.slots.iter().find(|slot| slot.name == new.slot) else {
        return Err(StoreError::NotFound(format!("slot {} of VNFCI {}", new.slot, arming.vnfci)));
    };
    let enrolled = of_arming(tx, &arming.tenant, &arming.vnfci, initial_credential).await?;
    let mut of_slot = enrolled.iter().filter(|enrolment| enrolment.slot == new.slot);
    let mut replaced = DestroyedKeys::default();
    if let Some(before) = of_slot.next_back() {
        if before.credential.public_key == new.credential.public_key && before.is_in_force(now) {
            return Ok(EnrolmentOutcome::Replayed(before.certificate_der.clone()).into());
        }
        if arming.redraws >= new.redraws_allowed {
            return Ok(refused(EnrolmentRefusal::TooManyKeys));
        }
        if is_known(tx, new.credential.public_key).await? {
            return Ok(refused(EnrolmentRefusal::KeyUsed));
        }
        let end = CustodyEnd {
            reason: DestructionReason::Superseded,
            holder_copy: HolderCopy::Unknown,
            revocation: RevocationReason::Superseded,
        };
        replaced = claims::close(tx, before.id, ClaimState::Superseded, &end, now).await?;
        query("UPDATE initial_credentials SET redraws = redraws + 1 WHERE id = $1")
            .bind(initial_credential.0.as_bytes().as_slice())
            .execute(&mut *tx)
            .await?;
    } else if is_known(tx, new.credential.public_key).await? {
        return Ok(refused(EnrolmentRefusal::KeyUsed));
    }
    let owner = Owner {
        initial_credential,
        tenant: &arming.tenant,
        vnf_instance: &arming.vnf_instance,
        vnfci: &arming.vnfci,
        pool: PoolId(source.pool),
    };
    insert(tx, &owner, new, now).await?;
    let mut filled: BTreeSet<_> = enrolled.iter().map(|enrolment| &enrolment.slot).collect();
    filled.insert(&new.slot);
    let complete = filled.len() == arming.slots.len();
    let spent = complete && new.spend;
    let mut sql = Statement::new("");
    vnfcis::move_to(&mut sql, VnfciState::Active, initial_credential, now);
    if spent {
        sql.then("UPDATE initial_credentials SET state = 'SPENT' WHERE state = 'OPEN' AND id = ");
        sql.push_bind(initial_credential.0.as_bytes().as_slice());
    }
    if complete {
        // Of a slot that is filled again the former certificate does not count.
        let kept = enrolled.iter().filter(|enrolment| enrolment.slot != new.slot);
        let oldest = kept.map(|enrolment| enrolment.key_since).min().unwrap_or(now);
        renewals::answer_request(&mut sql, &arming.tenant, &arming.vnfci, oldest);
    }
    sql.execute(&mut *tx).await?;
    let superseded = if complete {
        claims::supersede(tx, &arming.tenant, &arming.vnfci, initial_credential, now).await?
    } else {
        DestroyedKeys::default()
    };
    Ok(EnrolmentOutcome::Enrolled { credential: new.credential.clone(), replaced, superseded, spent }.into())
}

fn refusal(arming: &Arming, agent: bool, now: Timestamp) -> Option<EnrolmentRefusal> {
    match arming.refusal(now) {
        Some(ClaimRefusal::Spent) => Some(EnrolmentRefusal::Spent),
        Some(ClaimRefusal::Void) => Some(EnrolmentRefusal::Void),
        Some(ClaimRefusal::Expired) if !agent => Some(EnrolmentRefusal::Expired),
        Some(ClaimRefusal::VnfciEnded) => Some(EnrolmentRefusal::VnfciEnded),
        Some(ClaimRefusal::TooManyRedraws) => Some(EnrolmentRefusal::TooManyKeys),
        // Those of a renewal are not an arming's.
        Some(ClaimRefusal::Expired | ClaimRefusal::NotRenewable | ClaimRefusal::TooManyRenewals) | None => {
            arming.open.is_some().then_some(EnrolmentRefusal::ClaimOpen)
        }
    }
}

/// A certificate that follows another one.
async fn again(
    tx: &mut Connection,
    new: &NewEnrolment,
    fingerprint: Sha256Hash,
    now: Timestamp,
) -> Result<Done<EnrolmentOutcome>> {
    vnfcis::lock_of_certificate(tx, fingerprint).await?;
    let Some((held, row)) = presented(tx, fingerprint).await? else {
        return Err(StoreError::NotFound(format!("certificate sha256:{fingerprint}")));
    };
    match row.parsed::<VnfciState>("vnfci_state")? {
        VnfciState::Registered | VnfciState::Active => {}
        VnfciState::Released | VnfciState::Terminated => {
            return Ok(refused(EnrolmentRefusal::VnfciEnded));
        }
    }
    match row.parsed("claim_state")? {
        ClaimState::Open => return Ok(refused(EnrolmentRefusal::ClaimOpen)),
        // What followed it would outlive the overlap.
        ClaimState::Renewed => return Ok(refused(EnrolmentRefusal::CertificateEnded)),
        ClaimState::Confirmed | ClaimState::Destroyed | ClaimState::Released | ClaimState::Superseded => {}
    }
    let good = matches!(held.state, CertificateState::Valid | CertificateState::Superseded);
    if !good || held.not_after <= now || row.time_or_null("custody_ended_at")?.is_some() {
        return Ok(refused(EnrolmentRefusal::CertificateEnded));
    }
    if held.superseded_at.is_some_and(|since| now >= since.plus(new.overlap)) {
        return Ok(refused(EnrolmentRefusal::CertificateSuperseded));
    }
    let next = next_reenrolment(superseded(tx, &held).await?, new.overlap, now);
    let credential = match newest(tx, new.credential.public_key).await? {
        Some((known, known_row)) => {
            let own = (&known.tenant, &known.vnfci, &known.slot) == (&held.tenant, &held.vnfci, &held.slot);
            let follows = Sha256Hash::of(&known.certificate_der) != fingerprint;
            if own && follows && known.is_in_force(now) {
                return Ok(EnrolmentOutcome::Replayed(known.certificate_der).into());
            }
            // Another credential's key, one that was made here, or this one's after it was given up.
            if known.credential.id != held.credential.id
                || !known.own_key
                || known_row.time_or_null("custody_ended_at")?.is_some()
            {
                return Ok(refused(EnrolmentRefusal::KeyUsed));
            }
            if let Some(until) = next {
                return Ok(Done::unchanged(EnrolmentOutcome::TooMany { until }));
            }
            certificates::insert_again(tx, held.credential.id, &new.certificate).await?;
            held.credential.clone()
        }
        None if is_known(tx, new.credential.public_key).await? => {
            return Ok(refused(EnrolmentRefusal::KeyUsed));
        }
        None if next.is_some() => {
            return Ok(Done::unchanged(EnrolmentOutcome::TooMany { until: next.unwrap_or(now) }));
        }
        None => {
            let vnf_instance: VnfInstanceId = row.parsed("vnf_instance")?;
            let owner = Owner {
                initial_credential: held.initial_credential,
                tenant: &held.tenant,
                vnf_instance: &vnf_instance,
                vnfci: &held.vnfci,
                pool: PoolId(row.uuid("pool")?),
            };
            insert(tx, &owner, new, now).await?;
            new.credential.clone()
        }
    };
    // Still valid until their end, and withdrawn with all others when the VNFCI ends.
    query(
        "UPDATE certificates SET state = 'SUPERSEDED', superseded_at = $5
         WHERE state = 'VALID' AND sha256 <> $1 AND credential IN
             (SELECT c.id FROM claims cl JOIN credentials c ON c.claim_id = cl.id
              WHERE cl.tenant = $2 AND cl.vnfci = $3 AND cl.state = 'CONFIRMED' AND c.slot = $4)",
    )
    .bind(Sha256Hash::of(&new.certificate.der).0.to_vec())
    .bind(held.tenant.as_str())
    .bind(held.vnfci.as_str())
    .bind(held.slot.as_str())
    .bind(now.unix_micros())
    .execute(&mut *tx)
    .await?;
    answer_request(tx, &held).await?;
    let nothing = DestroyedKeys::default();
    Ok(EnrolmentOutcome::Enrolled {
        credential,
        replaced: nothing.clone(),
        superseded: nothing,
        spent: false,
    }
    .into())
}

/// When the former certificates of a certificate's slot were superseded.
async fn superseded(tx: &mut Connection, held: &Enrolment) -> Result<Vec<Timestamp>> {
    let rows = query(
        "SELECT ce.superseded_at AS superseded_at FROM claims cl JOIN credentials c ON c.claim_id = cl.id
         JOIN certificates ce ON ce.credential = c.id
         WHERE cl.tenant = $1 AND cl.vnfci = $2 AND c.slot = $3 AND ce.superseded_at IS NOT NULL",
    )
    .bind(held.tenant.as_str())
    .bind(held.vnfci.as_str())
    .bind(held.slot.as_str())
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| row.time("superseded_at")).collect()
}

/// MANO waits no more for a renewal once every slot has a certificate that followed another one since it asked; this one
/// has.
async fn answer_request(tx: &mut Connection, held: &Enrolment) -> Result<()> {
    query(
        "UPDATE vnfcis SET renewal_requested_at = NULL
         WHERE tenant = $1 AND id = $2 AND renewal_requested_at IS NOT NULL AND NOT EXISTS
             (SELECT 1 FROM slots s WHERE s.tenant = $1 AND s.vnfci = $2 AND s.name <> $3 AND NOT EXISTS
                 (SELECT 1 FROM claims cl JOIN credentials c ON c.claim_id = cl.id
                  JOIN certificates ce ON ce.credential = c.id
                  WHERE cl.tenant = $1 AND cl.vnfci = $2 AND c.slot = s.name
                  AND ce.superseded_at >= vnfcis.renewal_requested_at))",
    )
    .bind(held.tenant.as_str())
    .bind(held.vnfci.as_str())
    .bind(held.slot.as_str())
    .execute(tx)
    .await?;
    Ok(())
}

/// Whom an enrolment belongs to.
struct Owner<'a> {
    initial_credential: InitialCredentialId,
    tenant: &'a TenantId,
    vnf_instance: &'a VnfInstanceId,
    vnfci: &'a VnfciId,
    pool: PoolId,
}

async fn insert(tx: &mut Connection, owner: &Owner<'_>, new: &NewEnrolment, now: Timestamp) -> Result<()> {
    let at = now.unix_micros();
    let (id, key) = (new.id.0.as_bytes().as_slice(), &new.credential);
    let mut sql = Statement::new(
        "INSERT INTO claims (id, initial_credential, tenant, vnf_instance, vnfci, request, recipient_key,
             state, deadline, created_at, confirmed_at) ",
    );
    sql.push_values([owner], |mut row, owner| {
        row.push_bind(id)
            .push_bind(owner.initial_credential.0.as_bytes().as_slice())
            .push_bind(owner.tenant.as_str())
            .push_bind(owner.vnf_instance.as_str())
            .push_bind(owner.vnfci.as_str())
            .push_bind(Uuid::now_v7().as_bytes().to_vec())
            .push_bind([0_u8; 0].as_slice())
            .push_bind(ClaimState::Confirmed.as_str())
            .push_bind(at)
            .push_bind(at)
            .push_bind(at);
    });
    sql.then(
        "INSERT INTO credentials (id, tenant, pool, key_state, public_key_sha256, public_key_der, created_at,
             claim_id, slot, claimed_at) ",
    );
    sql.push_values([owner], |mut row, owner| {
        row.push_bind(key.id.0.as_bytes().as_slice())
            .push_bind(owner.tenant.as_str())
            .push_bind(owner.pool.0.as_bytes().as_slice())
            .push_bind(KeyState::External.as_str())
            .push_bind(key.public_key.0.as_slice())
            .push_bind(new.public_key_der.as_slice())
            .push_bind(at)
            .push_bind(id)
            .push_bind(new.slot.as_str())
            .push_bind(at);
    });
    sql.then("");
    certificates::insert(&mut sql, &[NewRow::signed(key.id, &new.certificate)]);
    sql.execute(tx).await?;
    Ok(())
}
