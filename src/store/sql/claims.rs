//! Table `claims`: claim, confirm, release, destroy.

use super::certificates::{self, NewRow};
use super::change::{Done, Once};
use super::connection::Connection;
use super::credentials::{self, erase_keys, held_by_claim};
use super::statement::{Row, Statement, query};
use super::value::{CHUNK, STATE_OF_ROW, id_list, value_by_id};
use super::{drawing, leases, renewals, vnfcis};
use crate::audit::event::EventCredential;
use crate::audit::receipt::DestructionReason;
use crate::clock::Timestamp;
use crate::credential::{HolderCopy, Issue, KeyState, RevocationReason};
use crate::nfv::{
    ClaimId, CredentialId, EpochId, InitialCredentialId, IssuerId, PoolName, ProfileName, RequestId,
    Sha256Hash, SlotName, TenantId, VduId, VnfInstanceId, VnfciId,
};
use crate::store::records::{
    CertificateIntent, ClaimOutcome, ClaimRecord, ClaimRefusal, ClaimRequest, ClaimState, ClaimedCertificate,
    ClaimedCredential, ConfirmOutcome, CustodyEnd, DestroyedKeys, InitialCredentialState, UncertifiedKey,
    VnfciState,
};
use crate::store::{Intend, Result, StoreError};
use std::collections::{HashMap, VecDeque};
use uuid::Uuid;

/// Draws credentials for all slots of a VNFCI, or none, and binds them to one recipient key.
pub(super) async fn reserve(
    tx: &mut Connection,
    request: &ClaimRequest,
    intend: &Once<Intend>,
    now: Timestamp,
) -> Result<ClaimOutcome> {
    vnfcis::lock_of_arming(tx, request.initial_credential).await?;
    let mut arming = arming(tx, request.initial_credential).await?;
    let refusal = match request.renews {
        None => arming.refusal(now),
        Some(renewal) => {
            let standing = renewals::standing(tx, renewal.of, now).await?;
            arming.redraws = standing.redraws;
            renewals::refusal(&standing, arming.vnfci_state, request.initial_credential)
        }
    };
    if let Some(refusal) = refusal {
        return Ok(ClaimOutcome::Refused(refusal));
    }
    if let Some((open, recipient)) = &arming.open {
        if *recipient == request.recipient_key {
            let record = by_id(tx, *open).await?.ok_or_else(|| missing(*open))?;
            return Ok(ClaimOutcome::Replayed(record));
        }
        if arming.redraws >= request.redraws_allowed {
            return Ok(ClaimOutcome::Refused(ClaimRefusal::TooManyRedraws));
        }
    }
    // Drawn before anything is destroyed: an empty pool changes nothing.
    let drawn = match draw(tx, &arming.slots, now).await? {
        Ok(rows) => certified(&arming, &rows, intend)?,
        Err(pool) => return Ok(ClaimOutcome::Empty { pool }),
    };
    let mut redrawn = DestroyedKeys::default();
    if let Some((open, _)) = arming.open {
        let end = CustodyEnd {
            reason: DestructionReason::NewRecipient,
            holder_copy: HolderCopy::Unknown,
            revocation: RevocationReason::Superseded,
        };
        redrawn = close(tx, open, ClaimState::Destroyed, &end, now).await?;
        // Those of a renewal are counted by the claims that it left.
        if request.renews.is_none() {
            query("UPDATE initial_credentials SET redraws = redraws + 1 WHERE id = $1")
                .bind(request.initial_credential.0.as_bytes().as_slice())
                .execute(&mut *tx)
                .await?;
        }
    }
    let claim = ClaimRecord {
        id: request.claim,
        initial_credential: request.initial_credential,
        renews: request.renews,
        tenant: arming.tenant,
        vnf_instance: arming.vnf_instance,
        vnfci: arming.vnfci,
        request: request.request,
        recipient_key: request.recipient_key,
        state: ClaimState::Open,
        deadline: request.deadline,
        created_at: now,
        credentials: drawn,
    };
    bind(tx, &claim, now).await?;
    Ok(ClaimOutcome::Reserved { claim, redrawn })
}

/// An initial credential with what a claim by it depends on.
pub(super) struct Arming {
    pub(super) tenant: TenantId,
    pub(super) vnf_instance: VnfInstanceId,
    pub(super) vnfci: VnfciId,
    vdu: VduId,
    state: InitialCredentialState,
    pub(super) expires_at: Timestamp,
    /// Of the arming; of a renewal those of the claim that it renews.
    pub(super) redraws: u32,
    vnfci_state: VnfciState,
    /// The open claim and its recipient key.
    pub(super) open: Option<(ClaimId, Sha256Hash)>,
    /// By name.
    pub(super) slots: Vec<SlotSource>,
}

pub(super) struct SlotSource {
    pub(super) name: SlotName,
    pub(super) pool: Uuid,
    pool_name: PoolName,
    issue: Issue,
    profile: ProfileName,
}

impl Arming {
    /// The VNFCI's end comes first: an auditor wants to read that rather than what followed from it.
    pub(super) fn refusal(&self, now: Timestamp) -> Option<ClaimRefusal> {
        if matches!(self.vnfci_state, VnfciState::Released | VnfciState::Terminated) {
            return Some(ClaimRefusal::VnfciEnded);
        }
        match self.state {
            InitialCredentialState::Spent => Some(ClaimRefusal::Spent),
            InitialCredentialState::Void => Some(ClaimRefusal::Void),
            InitialCredentialState::Open if self.expires_at <= now => Some(ClaimRefusal::Expired),
            InitialCredentialState::Open => None,
        }
    }
}

pub(super) async fn arming(tx: &mut Connection, id: InitialCredentialId) -> Result<Arming> {
    let rows = query(
        "SELECT i.tenant AS tenant, i.vnf_instance AS vnf_instance, i.vnfci AS vnfci, i.state AS state,
                i.expires_at AS expires_at, i.redraws AS redraws, v.state AS vnfci_state, v.vdu AS vdu,
                s.name AS slot, s.pool AS pool, s.pool_name AS pool_name, p.issue AS issue, p.profile AS profile,
                o.id AS open_claim, o.recipient_key AS recipient_key
         FROM initial_credentials i
         JOIN vnfcis v ON v.tenant = i.tenant AND v.id = i.vnfci
         JOIN slots s ON s.tenant = i.tenant AND s.vnfci = i.vnfci
         JOIN pools p ON p.id = s.pool
         LEFT JOIN claims o ON o.initial_credential = i.id AND o.state = 'OPEN'
         WHERE i.id = $1 ORDER BY s.name",
    )
    .bind(id.0.as_bytes().as_slice())
    .fetch_all(tx)
    .await?;
    let first = rows.first().ok_or_else(|| StoreError::NotFound(format!("initial credential {id}")))?;
    Ok(Arming {
        tenant: first.parsed("tenant")?,
        vnf_instance: first.parsed("vnf_instance")?,
        vnfci: first.parsed("vnfci")?,
        vdu: first.parsed("vdu")?,
        state: first.parsed("state")?,
        expires_at: first.time("expires_at")?,
        redraws: first.number("redraws")?,
        vnfci_state: first.parsed("vnfci_state")?,
        open: match first.uuid_or_null("open_claim")? {
            Some(claim) => Some((ClaimId(claim), first.hash("recipient_key")?)),
            None => None,
        },
        slots: rows
            .iter()
            .map(|row| {
                Ok(SlotSource {
                    name: row.parsed("slot")?,
                    pool: row.uuid("pool")?,
                    pool_name: row.parsed("pool_name")?,
                    issue: row.parsed("issue")?,
                    profile: row.parsed("profile")?,
                })
            })
            .collect::<Result<_>>()?,
    })
}

/// The columns of a [`ClaimedCredential`], from `c`, its certificate `ce` and its blobs `b`.
pub(super) const CLAIMED_COLUMNS: &str =
    "c.id AS id, c.public_key_sha256 AS public_key, c.public_key_der AS public_key_der,
    c.pool AS pool, c.epoch AS epoch, c.slot AS slot, ce.issuer AS issuer, ce.der AS der, ce.serial AS serial,
    ce.tbs_der AS tbs_der, ce.crl_shard AS crl_shard, ce.not_before AS not_before, ce.not_after AS not_after,
    ce.usable_until AS usable_until, b.key_blob AS key_blob, b.dek_blob AS dek_blob";

/// For each slot the row of the next key of its pool: of the oldest epoch, usable now. `Err` names the first pool
/// that has too few. Changes nothing.
async fn draw(
    tx: &mut Connection,
    slots: &[SlotSource],
    now: Timestamp,
) -> Result<Result<Vec<Row>, PoolName>> {
    let mut wanted: Vec<(Uuid, Issue, i64)> = Vec::new();
    for slot in slots {
        match wanted.iter_mut().find(|(pool, ..)| *pool == slot.pool) {
            Some((.., count)) => *count += 1,
            None => wanted.push((slot.pool, slot.issue, 1)),
        }
    }
    let rows = drawing::draw(tx, &wanted, now).await?;
    let mut by_pool: HashMap<Uuid, VecDeque<Row>> = HashMap::new();
    for row in rows {
        by_pool.entry(row.uuid("pool")?).or_default().push_back(row);
    }
    let mut drawn = Vec::with_capacity(slots.len());
    for slot in slots {
        match by_pool.get_mut(&slot.pool).and_then(VecDeque::pop_front) {
            Some(row) => drawn.push(row),
            None => return Ok(Err(slot.pool_name.clone())),
        }
    }
    Ok(Ok(drawn))
}

/// The credentials of drawn rows, one per slot. What is to be signed for those without certificate is asked of `intend`.
fn certified(arming: &Arming, rows: &[Row], intend: &Once<Intend>) -> Result<Vec<ClaimedCredential>> {
    let mut uncertified = Vec::new();
    for (slot, row) in arming.slots.iter().zip(rows) {
        if slot.issue == Issue::AtClaim {
            uncertified.push(UncertifiedKey {
                credential: CredentialId(row.uuid("id")?),
                public_key_der: row.blob("public_key_der")?,
                profile: slot.profile.clone(),
                tenant: arming.tenant.clone(),
                vnf_instance: arming.vnf_instance.clone(),
                vdu: arming.vdu.clone(),
                vnfci: arming.vnfci.clone(),
            });
        }
    }
    let intents = if uncertified.is_empty() {
        Vec::new()
    } else {
        intend.take()?(&uncertified).map_err(StoreError::Conflict)?
    };
    let mut intents = intents.into_iter();
    let mut claimed = Vec::with_capacity(rows.len());
    for (slot, row) in arming.slots.iter().zip(rows) {
        let certificate = match slot.issue {
            Issue::Ahead => read_certificate(row)?,
            Issue::AtClaim => ClaimedCertificate::Intended(intents.next().ok_or_else(|| {
                StoreError::Conflict(format!("nothing is to be signed for slot {}", slot.name))
            })?),
        };
        claimed.push(read_claimed(row, slot.name.clone(), certificate)?);
    }
    Ok(claimed)
}

/// Writes a claim and binds its credentials to it.
async fn bind(tx: &mut Connection, claim: &ClaimRecord, now: Timestamp) -> Result<()> {
    let mut sql = Statement::new(
        "INSERT INTO claims (id, initial_credential, renews, overlap, tenant, vnf_instance, vnfci, request, recipient_key,
             state, deadline, created_at) ",
    );
    sql.push_values([claim], |mut row, claim| {
        row.push_bind(claim.id.0.as_bytes().as_slice())
            .push_bind(claim.initial_credential.0.as_bytes().as_slice())
            .push_bind(claim.renews.as_ref().map(|renewal| renewal.of.0.as_bytes().as_slice()))
            .push_bind(
                claim.renews.map(|renewal| i64::try_from(renewal.overlap.as_micros()).unwrap_or(i64::MAX)),
            )
            .push_bind(claim.tenant.as_str())
            .push_bind(claim.vnf_instance.as_str())
            .push_bind(claim.vnfci.as_str())
            .push_bind(claim.request.0.as_bytes().as_slice())
            .push_bind(claim.recipient_key.0.as_slice())
            .push_bind(claim.state.as_str())
            .push_bind(claim.deadline.unix_micros())
            .push_bind(now.unix_micros());
    });
    sql.then("UPDATE credentials SET key_state = ").push_bind(KeyState::Claimed.as_str());
    sql.push(", claim_id = ").push_bind(claim.id.0.as_bytes().as_slice());
    sql.push(", claimed_at = ").push_bind(now.unix_micros());
    sql.push(", slot = ");
    let slots = claim.credentials.iter().map(|c| (&c.credential.id.0, c.slot.as_str()));
    value_by_id(&mut sql, "id", slots);
    sql.push(" WHERE ").push(STATE_OF_ROW).push(" IN ('GENERATED', 'AVAILABLE') AND id IN ");
    id_list(&mut sql, claim.credentials.iter().map(|c| &c.credential.id.0));
    let intents: Vec<_> = claim
        .credentials
        .iter()
        .filter_map(|c| match &c.certificate {
            ClaimedCertificate::Intended(intent) => Some(NewRow::intent(c.credential.id, intent)),
            ClaimedCertificate::Signed(_) => None,
        })
        .collect();
    if !intents.is_empty() {
        sql.then("");
        certificates::insert(&mut sql, &intents);
    }
    sql.execute(tx).await?;
    Ok(())
}

/// A claim with its credentials as they are now.
pub(super) async fn by_id(tx: &mut Connection, claim: ClaimId) -> Result<Option<ClaimRecord>> {
    Ok(by_ids(tx, &[claim.0]).await?.pop())
}

/// Claims with their credentials, by deadline.
pub(super) async fn by_ids(tx: &mut Connection, ids: &[Uuid]) -> Result<Vec<ClaimRecord>> {
    let mut sql = Statement::new(
        "SELECT cl.id AS claim, cl.initial_credential AS initial_credential,
        cl.tenant AS tenant, cl.vnf_instance AS vnf_instance, cl.vnfci AS vnfci, cl.request AS request,
        cl.recipient_key AS recipient_key, cl.state AS state, cl.deadline AS deadline,
        cl.created_at AS claimed_at, cl.renews AS renews, cl.overlap AS overlap, ",
    );
    sql.push(CLAIMED_COLUMNS);
    sql.push(
        " FROM claims cl CROSS JOIN credentials c CROSS JOIN certificates ce
          LEFT JOIN key_blobs b ON b.credential = c.id
          WHERE c.claim_id = cl.id AND c.epoch IS NOT NULL AND ce.credential = c.id AND cl.id IN ",
    );
    id_list(&mut sql, ids);
    sql.push(" ORDER BY cl.deadline, cl.id, c.slot");
    let mut claims: Vec<ClaimRecord> = Vec::new();
    for row in sql.fetch_all(tx).await? {
        let id = ClaimId(row.uuid("claim")?);
        let credential = read_claimed(&row, row.parsed("slot")?, read_certificate(&row)?)?;
        match claims.last_mut() {
            Some(claim) if claim.id == id => claim.credentials.push(credential),
            _ => claims.push(ClaimRecord {
                id,
                initial_credential: InitialCredentialId(row.uuid("initial_credential")?),
                renews: renewals::read(&row)?,
                tenant: row.parsed("tenant")?,
                vnf_instance: row.parsed("vnf_instance")?,
                vnfci: row.parsed("vnfci")?,
                request: RequestId(row.uuid("request")?),
                recipient_key: row.hash("recipient_key")?,
                state: row.parsed("state")?,
                deadline: row.time("deadline")?,
                created_at: row.time("claimed_at")?,
                credentials: vec![credential],
            }),
        }
    }
    Ok(claims)
}

fn read_certificate(row: &Row) -> Result<ClaimedCertificate> {
    if let Some(der) = row.blob_or_null("der")? {
        return Ok(ClaimedCertificate::Signed(der));
    }
    Ok(ClaimedCertificate::Intended(CertificateIntent {
        issuer: IssuerId(row.uuid("issuer")?),
        serial: row.blob("serial")?,
        tbs_der: row.blob("tbs_der")?,
        not_before: row.time("not_before")?,
        not_after: row.time("not_after")?,
        usable_until: row.time("usable_until")?,
        crl_shard: row.number("crl_shard")?,
    }))
}

fn read_claimed(row: &Row, slot: SlotName, certificate: ClaimedCertificate) -> Result<ClaimedCredential> {
    let (issuer, not_after) = match &certificate {
        ClaimedCertificate::Intended(intent) => (intent.issuer, intent.not_after),
        ClaimedCertificate::Signed(_) => (IssuerId(row.uuid("issuer")?), row.time("not_after")?),
    };
    Ok(ClaimedCredential {
        slot,
        credential: EventCredential {
            id: CredentialId(row.uuid("id")?),
            public_key: row.hash("public_key")?,
        },
        public_key_der: row.blob("public_key_der")?,
        issuer,
        certificate,
        not_after,
        epoch: EpochId(row.uuid("epoch")?),
        key_blob: row.blob_or_null("key_blob")?.unwrap_or_default(),
        dek_blob: row.blob_or_null("dek_blob")?.unwrap_or_default(),
    })
}

fn missing(claim: ClaimId) -> StoreError {
    StoreError::NotFound(format!("claim {claim}"))
}

/// Confirms an open claim in time.
pub(super) async fn confirm(
    tx: &mut Connection,
    claim: ClaimId,
    now: Timestamp,
) -> Result<Done<ConfirmOutcome>> {
    vnfcis::lock_of_claim(tx, claim).await?;
    let mut record = by_id(tx, claim).await?.ok_or_else(|| missing(claim))?;
    match record.state {
        ClaimState::Confirmed | ClaimState::Renewed => {
            return Ok(Done::unchanged(ConfirmOutcome::AlreadyConfirmed));
        }
        ClaimState::Destroyed | ClaimState::Released | ClaimState::Superseded => {
            return Ok(ConfirmOutcome::TooLate.into());
        }
        ClaimState::Open if record.deadline <= now => return Ok(ConfirmOutcome::TooLate.into()),
        ClaimState::Open if record.credentials.iter().any(|c| c.certificate.der().is_none()) => {
            return Err(StoreError::Conflict(format!(
                "claim {claim} has a certificate that is not signed yet"
            )));
        }
        ClaimState::Open => {}
    }
    if let Some(renewal) = record.renews
        && !renewals::renewed(tx, renewal, now).await?
    {
        return Ok(ConfirmOutcome::TooLate.into());
    }
    renewals::supersede_held(tx, &record, now).await?;
    let ids: Vec<Uuid> = record.credentials.iter().map(|c| c.credential.id.0).collect();
    erase_keys(tx, &ids, KeyState::Delivered, now).await?;
    let mut sql = Statement::new("UPDATE claims SET state = 'CONFIRMED', confirmed_at = ");
    sql.push_bind(now.unix_micros()).push(" WHERE state = 'OPEN' AND id = ");
    sql.push_bind(claim.0.as_bytes().as_slice());
    sql.then("UPDATE initial_credentials SET state = 'SPENT' WHERE state = 'OPEN' AND id = ");
    sql.push_bind(record.initial_credential.0.as_bytes().as_slice());
    sql.then("");
    vnfcis::move_to(&mut sql, VnfciState::Active, record.initial_credential, now);
    renewals::answer_request(&mut sql, &record.tenant, &record.vnfci, record.created_at);
    sql.execute(&mut *tx).await?;
    record.state = ClaimState::Confirmed;
    for credential in &mut record.credentials {
        credential.key_blob.clear();
        credential.dek_blob.clear();
    }
    let superseded = supersede(tx, &record.tenant, &record.vnfci, record.initial_credential, now).await?;
    Ok(ConfirmOutcome::Confirmed { claim: record, superseded }.into())
}

/// Withdraws what earlier armings of a VNFCI than that of this initial credential had delivered. Later ones stay: until they
/// are confirmed, what is in force may be renewed.
pub(super) async fn supersede(
    tx: &mut Connection,
    tenant: &TenantId,
    vnfci: &VnfciId,
    current: InitialCredentialId,
    now: Timestamp,
) -> Result<DestroyedKeys> {
    let rows = query(
        "SELECT cl.id AS id, cl.state AS state FROM claims cl
         JOIN initial_credentials i ON i.id = cl.initial_credential
         JOIN initial_credentials latest ON latest.id = $3
         WHERE cl.tenant = $1 AND cl.vnfci = $2 AND i.generation < latest.generation
         AND cl.state IN ('OPEN', 'CONFIRMED', 'RENEWED')",
    )
    .bind(tenant.as_str())
    .bind(vnfci.as_str())
    .bind(current.0.as_bytes().as_slice())
    .fetch_all(&mut *tx)
    .await?;
    let end = CustodyEnd {
        reason: DestructionReason::Superseded,
        holder_copy: HolderCopy::Unknown,
        revocation: RevocationReason::Superseded,
    };
    let mut superseded = DestroyedKeys::default();
    for row in &rows {
        let state = match row.parsed("state")? {
            // A renewal of what is withdrawn.
            ClaimState::Open => ClaimState::Destroyed,
            _ => ClaimState::Superseded,
        };
        let ended = close(tx, ClaimId(row.uuid("id")?), state, &end, now).await?;
        superseded.keys.extend(ended.keys);
        superseded.revoked.extend(ended.revoked);
    }
    Ok(superseded)
}

/// Open claims whose deadline has passed, oldest first.
pub(super) async fn overdue(tx: &mut Connection, now: Timestamp, limit: u32) -> Result<Vec<ClaimRecord>> {
    let rows =
        query("SELECT id FROM claims WHERE state = 'OPEN' AND deadline <= $1 ORDER BY deadline, id LIMIT $2")
            .bind(now.unix_micros())
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
    let ids = rows.iter().map(|row| row.uuid("id")).collect::<Result<Vec<_>>>()?;
    let mut claims = Vec::with_capacity(ids.len());
    for ids in ids.chunks(CHUNK) {
        claims.extend(by_ids(tx, ids).await?);
    }
    Ok(claims)
}

/// Moves the deadline of every open claim by the time since a mark was set, and sets it to now.
pub(super) async fn end_absence(tx: &mut Connection, mark: &str, now: Timestamp) -> Result<u64> {
    // Brokers that start together wait here for each other: each reads what the one before has set.
    query("UPDATE marks SET value = value WHERE name = $1").bind(mark).execute(&mut *tx).await?;
    let alive = leases::mark(&mut *tx, mark).await?.and_then(|alive| alive.parse().ok());
    leases::set_mark(&mut *tx, mark, &now.unix_micros().to_string()).await?;
    let Some(alive) = alive else { return Ok(0) };
    let absence = now.since(Timestamp::from_unix_micros(alive));
    query("UPDATE claims SET deadline = deadline + $1 WHERE state = 'OPEN'")
        .bind(i64::try_from(absence.as_micros()).unwrap_or(i64::MAX))
        .execute(tx)
        .await
}

/// Ends the custody of a claim's keys and the claim itself.
pub(super) async fn close(
    tx: &mut Connection,
    claim: ClaimId,
    state: ClaimState,
    end: &CustodyEnd,
    now: Timestamp,
) -> Result<DestroyedKeys> {
    let held = held_by_claim(tx, claim).await?;
    let outcome = credentials::end(tx, &held, end, now).await?;
    query("UPDATE claims SET state = $1, ended_at = $2 WHERE id = $3")
        .bind(state.as_str())
        .bind(now.unix_micros())
        .bind(claim.0.as_bytes().as_slice())
        .execute(tx)
        .await?;
    Ok(outcome)
}

/// Where a claim stands, whose it is, and when it ended.
pub(super) async fn standing(
    tx: &mut Connection,
    claim: ClaimId,
) -> Result<(ClaimState, InitialCredentialId, Option<Timestamp>)> {
    let row = query("SELECT state, initial_credential, ended_at FROM claims WHERE id = $1")
        .bind(claim.0.as_bytes().as_slice())
        .fetch_optional(tx)
        .await?
        .ok_or_else(|| missing(claim))?;
    Ok((
        row.parsed("state")?,
        InitialCredentialId(row.uuid("initial_credential")?),
        row.time_or_null("ended_at")?,
    ))
}

/// Destroys an open claim.
pub(super) async fn destroy(
    tx: &mut Connection,
    claim: ClaimId,
    end: &CustodyEnd,
    now: Timestamp,
) -> Result<DestroyedKeys> {
    vnfcis::lock_of_claim(tx, claim).await?;
    match standing(tx, claim).await? {
        (ClaimState::Open, ..) => close(tx, claim, ClaimState::Destroyed, end, now).await,
        (state, ..) => Err(StoreError::Conflict(format!("claim {claim} is {state}, not open"))),
    }
}
