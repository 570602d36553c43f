//! Tables `credentials`, `certificates` and `key_blobs`: production, erasure, revocation.

use super::certificates::{self, NewRow};
use super::change::Done;
use super::connection::Connection;
use super::epochs;
use super::statement::{Row, Statement, query};
use super::value::{CHUNK, STATE_OF_ROW, id_list, number_list, text_list};
use crate::audit::event::EventCredential;
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::credential::{CertificateChange, CertificateState, Issue, KeyChange, KeyState, RevocationReason};
use crate::nfv::{ClaimId, CredentialId, EpochId, IssuerId, PoolId, Sha256Hash, TenantId, VnfciId};
use crate::store::records::{
    CertificateRecord, CertificateSelector, CustodyEnd, DestroyedKeys, NewCredential, RevokeOutcome,
};
use crate::store::{Result, StoreError};
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

/// Inserts produced credentials.
pub(super) async fn insert(tx: &mut Connection, credentials: &[NewCredential], now: Timestamp) -> Result<()> {
    let epochs: BTreeSet<EpochId> = credentials.iter().map(|credential| credential.epoch).collect();
    let pools: BTreeSet<PoolId> = credentials.iter().map(|credential| credential.pool).collect();
    let mut tenants: HashMap<EpochId, TenantId> = HashMap::new();
    for epoch in epochs {
        tenants.insert(epoch, epochs::admit(tx, epoch).await?);
    }
    let mut of_pools: HashMap<PoolId, (TenantId, Issue)> = HashMap::new();
    for pool in pools {
        of_pools.insert(pool, live_pool(tx, pool).await?);
    }
    for credential in credentials {
        let Some((tenant, issue)) = of_pools.get(&credential.pool) else { continue };
        if tenants.get(&credential.epoch) != Some(tenant) {
            return Err(StoreError::Conflict(format!(
                "credential {} is wrapped under an epoch of another tenant than its pool's",
                credential.id
            )));
        }
        if *issue == Issue::AtClaim && credential.certificate.is_some() {
            return Err(StoreError::Conflict(format!(
                "pool {} issues at the claim and takes keys without certificates",
                credential.pool
            )));
        }
    }
    for credentials in credentials.chunks(CHUNK) {
        let mut sql = Statement::new(
            "INSERT INTO credentials (id, tenant, pool, epoch, key_state, public_key_sha256, public_key_der,
                 usable_until, created_at) ",
        );
        sql.push_values(credentials, |mut row, credential| {
            let state = match credential.certificate {
                Some(_) => KeyState::Available,
                None => KeyState::Generated,
            };
            row.push_bind(credential.id.0.as_bytes().as_slice())
                .push_bind(tenants.get(&credential.epoch).map(TenantId::as_str))
                .push_bind(credential.pool.0.as_bytes().as_slice())
                .push_bind(credential.epoch.0.as_bytes().as_slice())
                .push_bind(state.as_str())
                .push_bind(credential.public_key.0.as_slice())
                .push_bind(credential.public_key_der.as_slice())
                .push_bind(credential.certificate.as_ref().map(|c| c.usable_until.unix_micros()))
                .push_bind(now.unix_micros());
        });
        sql.then("INSERT INTO key_blobs (credential, key_blob, dek_blob) ");
        sql.push_values(credentials, |mut row, credential| {
            row.push_bind(credential.id.0.as_bytes().as_slice())
                .push_bind(credential.key_blob.as_slice())
                .push_bind(credential.dek_blob.as_slice());
        });
        let requests: Vec<_> =
            credentials.iter().filter_map(|c| c.request.as_ref().map(|request| (c.id, request))).collect();
        if !requests.is_empty() {
            sql.then("INSERT INTO certificate_requests (credential, der, basis) ");
            sql.push_values(requests, |mut row, (credential, request)| {
                row.push_bind(credential.0.as_bytes().as_slice())
                    .push_bind(request.der.as_slice())
                    .push_bind(request.basis.0.as_slice());
            });
        }
        let certified =
            credentials.iter().filter_map(|c| c.certificate.as_ref().map(|ce| NewRow::signed(c.id, ce)));
        let certificates: Vec<_> = certified.collect();
        if !certificates.is_empty() {
            sql.then("");
            certificates::insert(&mut sql, &certificates);
        }
        sql.execute(&mut *tx).await?;
    }
    crash::reached(Point::ProductionInserted);
    Ok(())
}

/// Whose a pool that is not deleted is, and when it issues.
async fn live_pool(tx: &mut Connection, pool: PoolId) -> Result<(TenantId, Issue)> {
    let row = query("SELECT tenant, issue, deleted_at FROM pools WHERE id = $1")
        .bind(pool.0.as_bytes().as_slice())
        .locking("FOR SHARE")
        .fetch_optional(tx)
        .await?
        .ok_or_else(|| StoreError::NotFound(format!("pool {pool}")))?;
    if row.time_or_null("deleted_at")?.is_some() {
        return Err(StoreError::Conflict(format!("pool {pool} is deleted and takes no keys")));
    }
    Ok((row.parsed("tenant")?, row.parsed("issue")?))
}

/// A credential with its certificates, as far as ending it needs.
pub(super) struct Held {
    /// The credential.
    pub(super) credential: EventCredential,
    key_state: KeyState,
    custody_ended: bool,
    certificate: Option<HeldCertificate>,
}

struct HeldCertificate {
    row: i64,
    issuer: IssuerId,
    serial: Vec<u8>,
    state: CertificateState,
    not_after: Timestamp,
}

/// The columns of a [`Held`], of a credential `c` with its certificate `ce`.
const HELD_COLUMNS: &str = "c.id AS id, c.public_key_sha256 AS public_key,
    c.key_state AS key_state, c.custody_ended_at AS custody_ended_at, ce.id AS certificate,
    ce.issuer AS issuer, ce.serial AS serial, ce.state AS state, ce.not_after AS not_after";

/// A statement that reads [`Held`]s of credentials; the condition is the caller's.
pub(super) fn select_held() -> Statement {
    let mut sql = Statement::new("SELECT ");
    sql.push(HELD_COLUMNS).push(" FROM credentials c LEFT JOIN certificates ce ON ce.credential = c.id");
    sql
}

/// Which claims' keys are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Claims {
    /// Of whatever state.
    Every,
    /// Those not confirmed yet.
    Open,
}

/// The credentials of VNFCIs, by VNFCI.
pub(super) async fn held_by_vnfcis<'i>(
    tx: &mut Connection,
    tenant: &TenantId,
    vnfcis: impl IntoIterator<Item = &'i VnfciId>,
    claims: Claims,
) -> Result<HashMap<String, Vec<Held>>> {
    let ids: Vec<&str> = vnfcis.into_iter().map(VnfciId::as_str).collect();
    let mut held: HashMap<String, Vec<Held>> = HashMap::new();
    for ids in ids.chunks(CHUNK) {
        // CROSS JOIN keeps SQLite from starting at the credentials.
        let mut sql = Statement::new("SELECT cl.vnfci AS vnfci, ");
        sql.push(HELD_COLUMNS);
        sql.push(
            " FROM claims cl CROSS JOIN credentials c LEFT JOIN certificates ce ON ce.credential = c.id
              WHERE c.claim_id = cl.id AND cl.tenant = ",
        );
        sql.push_bind(tenant.as_str()).push(" AND cl.vnfci IN ");
        text_list(&mut sql, ids.iter().copied());
        if claims == Claims::Open {
            sql.push(" AND cl.state = 'OPEN'");
        }
        for row in sql.fetch_all(&mut *tx).await? {
            held.entry(row.text("vnfci")?).or_default().push(read_held(&row)?);
        }
    }
    Ok(held)
}

/// Reads a row with [`HELD_COLUMNS`].
pub(super) fn read_held(row: &Row) -> Result<Held> {
    let certificate = match row.int_or_null("certificate")? {
        Some(certificate) => Some(HeldCertificate {
            row: certificate,
            issuer: IssuerId(row.uuid("issuer")?),
            serial: row.blob("serial")?,
            state: row.parsed("state")?,
            not_after: row.time("not_after")?,
        }),
        None => None,
    };
    Ok(Held {
        credential: EventCredential {
            id: CredentialId(row.uuid("id")?),
            public_key: row.hash("public_key")?,
        },
        key_state: row.parsed("key_state")?,
        custody_ended: row.int_or_null("custody_ended_at")?.is_some(),
        certificate,
    })
}

/// The credentials of a claim, by slot.
pub(super) async fn held_by_claim(tx: &mut Connection, claim: ClaimId) -> Result<Vec<Held>> {
    let mut sql = select_held();
    sql.push(" WHERE c.claim_id = ").push_bind(claim.0.as_bytes().as_slice()).push(" ORDER BY c.slot");
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read_held).collect()
}

/// Ends the custody of keys: copies that are left are erased, unexpired certificates are to be withdrawn. A key
/// whose custody had ended keeps how and when.
pub(super) async fn end(
    tx: &mut Connection,
    held: &[Held],
    end: &CustodyEnd,
    now: Timestamp,
) -> Result<DestroyedKeys> {
    let mut ending = Ending::default();
    let outcome = ending.add(held, now);
    ending.write(tx, end, now).await?;
    Ok(outcome)
}

/// What the end of several holders' custody comes to, decided before anything is written: thousands of them take a
/// few statements.
#[derive(Default)]
pub(super) struct Ending {
    erase: Vec<Uuid>,
    close: Vec<Uuid>,
    withdraw: Vec<i64>,
}

impl Ending {
    /// Adds what one holder has; says what becomes of it.
    pub(super) fn add(&mut self, held: &[Held], now: Timestamp) -> DestroyedKeys {
        let mut outcome = DestroyedKeys::default();
        for key in held {
            let id = key.credential.id.0;
            let erased = key.key_state.after(KeyChange::Destroy).is_ok();
            if erased {
                self.erase.push(id);
            }
            if !key.custody_ended {
                self.close.push(id);
            }
            if (erased || !key.custody_ended) && !outcome.keys.contains(&key.credential) {
                outcome.keys.push(key.credential.clone());
            }
            if let Some(certificate) = &key.certificate
                && certificate.not_after > now
                && certificate.state.after(CertificateChange::Revoke).is_ok()
            {
                self.withdraw.push(certificate.row);
                outcome.revoked.push((certificate.issuer, hex::encode(&certificate.serial)));
            }
        }
        outcome
    }

    /// Writes it.
    pub(super) async fn write(self, tx: &mut Connection, end: &CustodyEnd, now: Timestamp) -> Result<()> {
        for ids in self.erase.chunks(CHUNK) {
            erase_keys(tx, ids, KeyState::Destroyed, now).await?;
        }
        for ids in self.close.chunks(CHUNK) {
            end_custody(tx, ids, end, now).await?;
        }
        withdraw_certificates(tx, &self.withdraw, end.revocation, now).await
    }
}

/// Deletes the blobs of keys whose state allows it (the caller has looked, in this transaction) and starts the
/// destruction horizon of every epoch that holds a copy of them.
pub(super) async fn erase_keys(
    tx: &mut Connection,
    ids: &[Uuid],
    state: KeyState,
    now: Timestamp,
) -> Result<()> {
    let from = match state {
        KeyState::Delivered => "('CLAIMED')",
        _ => "('GENERATED', 'AVAILABLE', 'CLAIMED')",
    };
    let mut sql = Statement::new("UPDATE credentials SET key_state = ");
    sql.push_bind(state.as_str()).push(", erased_at = ").push_bind(now.unix_micros());
    sql.push(" WHERE ").push(STATE_OF_ROW).push(" IN ").push(from).push(" AND id IN ");
    id_list(&mut sql, ids);
    sql.then("DELETE FROM key_blobs WHERE credential IN ");
    id_list(&mut sql, ids);
    sql.then("UPDATE epochs SET first_erasure_at = ").push_bind(now.unix_micros());
    sql.push(" WHERE first_erasure_at IS NULL AND id IN (SELECT epoch FROM credentials WHERE id IN ");
    id_list(&mut sql, ids);
    sql.push(" UNION SELECT epoch FROM key_epochs WHERE credential IN ");
    id_list(&mut sql, ids);
    sql.push(")");
    sql.execute(tx).await?;
    Ok(())
}

async fn end_custody(tx: &mut Connection, ids: &[Uuid], end: &CustodyEnd, now: Timestamp) -> Result<()> {
    let mut sql = Statement::new("UPDATE credentials SET custody_ended_at = ");
    sql.push_bind(now.unix_micros());
    sql.push(", custody_reason = ").push_bind(end.reason.as_str());
    sql.push(", custody_holder_copy = ").push_bind(end.holder_copy.as_str());
    sql.push(", custody_revocation = ").push_bind(end.revocation.as_str());
    sql.push(" WHERE custody_ended_at IS NULL AND id IN ");
    id_list(&mut sql, ids);
    sql.execute(tx).await?;
    Ok(())
}

async fn withdraw_certificates(
    tx: &mut Connection,
    rows: &[i64],
    reason: RevocationReason,
    now: Timestamp,
) -> Result<()> {
    for rows in rows.chunks(CHUNK) {
        let mut sql = Statement::new("UPDATE certificates SET state = 'REVOCATION_PENDING', revoked_at = ");
        sql.push_bind(now.unix_micros()).push(", reason = ").push_bind(reason.as_str());
        sql.push(" WHERE state IN ('VALID', 'SUPERSEDED') AND id IN ");
        number_list(&mut sql, rows);
        sql.execute(&mut *tx).await?;
    }
    Ok(())
}

/// Erases keys that nobody claimed.
pub(super) async fn erase_unclaimed(
    tx: &mut Connection,
    pool: PoolId,
    unusable_at: Option<Timestamp>,
    custody_end: &CustodyEnd,
    limit: u32,
    now: Timestamp,
) -> Result<Done<DestroyedKeys>> {
    let mut sql = Statement::new("SELECT id, public_key_sha256 AS public_key FROM credentials WHERE pool = ");
    sql.push_bind(pool.0.as_bytes().as_slice());
    sql.push(" AND claim_id IS NULL AND erased_at IS NULL");
    if let Some(at) = unusable_at {
        // A key without certificate has no such time and does not age.
        sql.push(" AND usable_until <= ").push_bind(at.unix_micros());
    }
    sql.push(" LIMIT ").push_bind(i64::from(limit));
    // What is being drawn is left to who draws it.
    sql.lock("FOR UPDATE SKIP LOCKED");
    let rows = sql.fetch_all(&mut *tx).await?;
    destroy_waiting(tx, &rows, custody_end, now).await
}

/// Erases keys (rows with `id` and `public_key`) that nobody claimed, in this transaction; their custody ends.
pub(super) async fn destroy_waiting(
    tx: &mut Connection,
    rows: &[Row],
    custody_end: &CustodyEnd,
    now: Timestamp,
) -> Result<Done<DestroyedKeys>> {
    let keys = rows
        .iter()
        .map(|row| {
            Ok(EventCredential { id: CredentialId(row.uuid("id")?), public_key: row.hash("public_key")? })
        })
        .collect::<Result<Vec<_>>>()?;
    let ids: Vec<Uuid> = keys.iter().map(|key| key.id.0).collect();
    for ids in ids.chunks(CHUNK) {
        erase_keys(tx, ids, KeyState::Destroyed, now).await?;
        end_custody(tx, ids, custody_end, now).await?;
    }
    let none = keys.is_empty();
    let outcome = DestroyedKeys { keys, revoked: Vec::new() };
    Ok(if none { Done::unchanged(outcome) } else { outcome.into() })
}

/// Marks certificates of a tenant for withdrawal.
pub(super) async fn revoke(
    tx: &mut Connection,
    tenant: &TenantId,
    certificates: &[(IssuerId, Vec<u8>)],
    reason: RevocationReason,
    now: Timestamp,
) -> Result<Vec<RevokeOutcome>> {
    let mut found = HashMap::new();
    for certificates in by_issuer(certificates) {
        // From the certificates, by their index: a LEFT JOIN would have SQLite read every credential.
        let mut sql = Statement::new("SELECT ");
        sql.push(HELD_COLUMNS)
            .push(" FROM certificates ce JOIN credentials c ON c.id = ce.credential WHERE ");
        serial_list(&mut sql, certificates);
        sql.push(" AND c.tenant = ").push_bind(tenant.as_str());
        for row in sql.fetch_all(&mut *tx).await? {
            let held = read_held(&row)?;
            if let Some(certificate) = held.certificate {
                found
                    .insert((certificate.issuer, certificate.serial.clone()), (held.credential, certificate));
            }
        }
    }
    let mut rows = Vec::new();
    let mut waiting = Vec::new();
    let mut outcomes = Vec::with_capacity(certificates.len());
    for key in certificates {
        let Some((credential, certificate)) = found.get_mut(key) else {
            outcomes.push(RevokeOutcome::NotFound);
            continue;
        };
        outcomes.push(match certificate.state {
            CertificateState::RevocationPending | CertificateState::Revoked => RevokeOutcome::AlreadyRevoked,
            CertificateState::Expired => RevokeOutcome::Expired,
            _ if certificate.not_after <= now => RevokeOutcome::Expired,
            _ => {
                rows.push(certificate.row);
                waiting.push(credential.id.0);
                // The same certificate named twice is withdrawn once.
                certificate.state = CertificateState::RevocationPending;
                RevokeOutcome::Pending(credential.clone())
            }
        });
    }
    withdraw_certificates(tx, &rows, reason, now).await?;
    for ids in waiting.chunks(CHUNK) {
        // Nobody is to draw a withdrawn certificate: its key counts as too old and is erased with those.
        let mut sql = Statement::new("UPDATE credentials SET usable_until = 0 WHERE ");
        sql.push(STATE_OF_ROW).push(" = 'AVAILABLE' AND id IN ");
        id_list(&mut sql, ids);
        sql.execute(&mut *tx).await?;
    }
    Ok(outcomes)
}

/// Certificates in pieces of one issuer each, none too long for a statement.
fn by_issuer(certificates: &[(IssuerId, Vec<u8>)]) -> impl Iterator<Item = &[(IssuerId, Vec<u8>)]> {
    certificates.chunk_by(|one, next| one.0 == next.0).flat_map(|certificates| certificates.chunks(CHUNK))
}

/// The condition that a certificate `ce` is one of these, which have the same issuer.
fn serial_list(sql: &mut Statement, certificates: &[(IssuerId, Vec<u8>)]) {
    let issuer = certificates.first().map_or(&[][..], |(issuer, _)| issuer.0.as_bytes().as_slice());
    sql.push("ce.issuer = ").push_bind(issuer.to_vec()).push(" AND ce.serial IN (NULL");
    for (_, serial) in certificates {
        sql.push(", ").push_bind(serial.clone());
    }
    sql.push(")");
}

/// Marks certificates whose time has passed.
pub(super) async fn expire(tx: &mut Connection, now: Timestamp, limit: u32) -> Result<u64> {
    let mut expired = 0;
    for due in [
        "UPDATE certificates SET state = 'EXPIRED' WHERE state IN ('VALID', 'SUPERSEDED') AND id IN (
             SELECT id FROM certificates WHERE state IN ('VALID', 'SUPERSEDED') AND not_after <= $1
             ORDER BY not_after LIMIT $2)",
        // Nobody will list it any more: no CRL of ours is its issuer's.
        "UPDATE certificates SET state = 'EXPIRED' WHERE state = 'REVOCATION_PENDING' AND id IN (
             SELECT ce.id FROM issuers i CROSS JOIN certificates ce WHERE i.external IS NOT NULL
             AND ce.issuer = i.id AND ce.state = 'REVOCATION_PENDING' AND ce.not_after <= $1 LIMIT $2)",
    ] {
        expired += query(due).bind(now.unix_micros()).bind(i64::from(limit)).execute(&mut *tx).await?;
    }
    Ok(expired)
}

/// What a [`CertificateRecord`] is read with; the condition is the caller's.
const SELECT_RECORD: &str = "SELECT c.tenant AS tenant, c.id AS id, c.public_key_sha256 AS public_key,
    p.vnf_instance AS vnf_instance, cl.vnfci AS vnfci, c.claim_id AS claim_id, c.slot AS slot,
    c.key_state AS key_state, ce.state AS state, ce.issuer AS issuer, ce.serial AS serial,
    ce.sha256 AS sha256, ce.not_before AS not_before, ce.not_after AS not_after
    FROM certificates ce JOIN credentials c ON c.id = ce.credential JOIN pools p ON p.id = c.pool
    LEFT JOIN claims cl ON cl.id = c.claim_id";

/// The certificate with this SHA-256.
pub(super) async fn by_fingerprint(
    tx: &mut Connection,
    fingerprint: Sha256Hash,
) -> Result<Option<CertificateRecord>> {
    let mut sql = Statement::new(SELECT_RECORD);
    sql.push(" WHERE ce.sha256 = ").push_bind(fingerprint.0.as_slice());
    let row = sql.fetch_optional(tx).await?;
    row.as_ref().map(read_record).transpose()
}

/// The certificates of a tenant that selectors name, one list per selector in their order.
pub(super) async fn selected(
    tx: &mut Connection,
    tenant: &TenantId,
    selectors: &[CertificateSelector],
) -> Result<Vec<Vec<CertificateRecord>>> {
    let mut serials = Vec::new();
    let mut ids = Vec::new();
    let mut vnfcis = Vec::new();
    for selector in selectors {
        match selector {
            CertificateSelector::Serial(issuer, serial) => serials.push((*issuer, serial.clone())),
            CertificateSelector::Credential(credential) => ids.push(credential.0),
            CertificateSelector::Vnfci(vnfci) => vnfcis.push(vnfci.as_str()),
        }
    }
    let mut found: HashMap<CertificateSelector, Vec<CertificateRecord>> = HashMap::new();
    serials.sort();
    let mut statements = Vec::new();
    for serials in by_issuer(&serials) {
        let mut sql = Statement::new(SELECT_RECORD);
        sql.push(" WHERE ");
        serial_list(&mut sql, serials);
        statements.push(sql);
    }
    for ids in ids.chunks(CHUNK) {
        let mut sql = Statement::new(SELECT_RECORD);
        sql.push(" WHERE c.id IN ");
        id_list(&mut sql, ids);
        statements.push(sql);
    }
    for vnfcis in vnfcis.chunks(CHUNK) {
        let mut sql = Statement::new(SELECT_RECORD);
        sql.push(" WHERE cl.tenant = ").push_bind(tenant.as_str()).push(" AND cl.vnfci IN ");
        text_list(&mut sql, vnfcis.iter().copied());
        statements.push(sql);
    }
    let (by_serial, by_credential) = (!serials.is_empty(), !ids.is_empty());
    for mut sql in statements {
        sql.push(" AND c.tenant = ").push_bind(tenant.as_str());
        for row in sql.fetch_all(&mut *tx).await? {
            let record = read_record(&row)?;
            let mut keys = Vec::with_capacity(3);
            if by_serial {
                keys.push(CertificateSelector::Serial(record.issuer, row.blob("serial")?));
            }
            if by_credential {
                keys.push(CertificateSelector::Credential(record.credential.id));
            }
            keys.extend(record.vnfci.clone().map(CertificateSelector::Vnfci));
            for key in keys {
                let records = found.entry(key).or_default();
                // One that is named in several ways is read as often.
                let same = |known: &CertificateRecord| {
                    (known.issuer, &known.serial) == (record.issuer, &record.serial)
                };
                if !records.iter().any(same) {
                    records.push(record.clone());
                }
            }
        }
    }
    Ok(selectors.iter().map(|selector| found.get(selector).cloned().unwrap_or_default()).collect())
}

/// Every certificate that a VNFCI was ever drawn, newest first.
pub(super) async fn of_vnfci(
    tx: &mut Connection,
    tenant: &TenantId,
    vnfci: &str,
) -> Result<Vec<CertificateRecord>> {
    let mut sql = Statement::new(SELECT_RECORD);
    sql.push(" WHERE cl.tenant = ").push_bind(tenant.as_str()).push(" AND cl.vnfci = ").push_bind(vnfci);
    sql.push(" ORDER BY cl.created_at DESC, cl.id DESC, c.slot");
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read_record).collect()
}

fn read_record(row: &Row) -> Result<CertificateRecord> {
    Ok(CertificateRecord {
        tenant: row.parsed("tenant")?,
        credential: EventCredential {
            id: CredentialId(row.uuid("id")?),
            public_key: row.hash("public_key")?,
        },
        vnf_instance: row.parsed("vnf_instance")?,
        vnfci: row.parsed_or_null("vnfci")?,
        claim: row.uuid_or_null("claim_id")?.map(ClaimId),
        slot: row.parsed_or_null("slot")?,
        key_state: row.parsed("key_state")?,
        state: row.parsed("state")?,
        issuer: IssuerId(row.uuid("issuer")?),
        serial: hex::encode(row.blob("serial")?),
        fingerprint: row.hash_or_null("sha256")?,
        not_before: row.time("not_before")?,
        not_after: row.time("not_after")?,
    })
}
