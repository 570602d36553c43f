//! Tables `claims` and `vnfcis`: renewals. Drawing and confirming them is in `claims`; here is what is theirs alone.

use super::change::Done;
use super::claims::close;
use super::connection::Connection;
use super::statement::{Row, Statement, query};
use super::value::{CHUNK, text_list};
use super::{tenants, vnfcis};
use crate::clock::Timestamp;
use crate::nfv::{ClaimId, InitialCredentialId, TenantId, VnfInstanceId, VnfciId};
use crate::store::records::{
    ClaimRecord, ClaimRefusal, ClaimState, CustodyEnd, DestroyedKeys, Renewal, RenewalRequestOutcome,
    VnfciState,
};
use crate::store::{Result, StoreError};
use std::collections::HashMap;
use std::time::Duration;

/// Claims of one VNFCI that may be in their overlap when it renews again: a VNFCI in wrong hands does not drain pools.
const OVERLAPS_MAX: i64 = 3;

/// Where a claim stands that is to be renewed.
pub(super) struct Standing {
    state: ClaimState,
    arming: InitialCredentialId,
    /// Recipient keys that its renewals gave up.
    pub(super) redraws: u32,
    /// Claims of its arming that are in their overlap.
    overlaps: i64,
}

pub(super) async fn standing(tx: &mut Connection, claim: ClaimId, now: Timestamp) -> Result<Standing> {
    // A renewal that was destroyed before its deadline was redrawn; one that was not confirmed in time does not count.
    let row = query(
        "SELECT cl.state AS state, cl.initial_credential AS initial_credential,
                (SELECT COUNT(*) FROM claims r WHERE r.renews = cl.id AND r.state = 'DESTROYED'
                 AND r.ended_at < r.deadline) AS redraws,
                (SELECT COUNT(*) FROM claims o WHERE o.tenant = cl.tenant AND o.vnfci = cl.vnfci
                 AND o.initial_credential = cl.initial_credential AND o.state = 'RENEWED'
                 AND o.overlap_ends_at > $2) AS overlaps
         FROM claims cl WHERE cl.id = $1",
    )
    .bind(claim.0.as_bytes().as_slice())
    .bind(now.unix_micros())
    .fetch_optional(tx)
    .await?
    .ok_or_else(|| StoreError::NotFound(format!("claim {claim}")))?;
    Ok(Standing {
        state: row.parsed("state")?,
        arming: InitialCredentialId(row.uuid("initial_credential")?),
        redraws: row.number("redraws")?,
        overlaps: row.int("overlaps")?,
    })
}

/// Why a claim cannot be renewed.
pub(super) fn refusal(
    standing: &Standing,
    vnfci: VnfciState,
    arming: InitialCredentialId,
) -> Option<ClaimRefusal> {
    if matches!(vnfci, VnfciState::Released | VnfciState::Terminated) {
        return Some(ClaimRefusal::VnfciEnded);
    }
    if standing.state != ClaimState::Confirmed || standing.arming != arming {
        return Some(ClaimRefusal::NotRenewable);
    }
    (standing.overlaps >= OVERLAPS_MAX).then_some(ClaimRefusal::TooManyRenewals)
}

/// What a claim renews, from its row.
pub(super) fn read(row: &Row) -> Result<Option<Renewal>> {
    let Some(of) = row.uuid_or_null("renews")? else { return Ok(None) };
    let micros = row.int_or_null("overlap")?.unwrap_or_default();
    // Never negative: it was written from a duration.
    let overlap = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    Ok(Some(Renewal { of: ClaimId(of), overlap }))
}

/// The renewal of a claim is being confirmed: its overlap begins. False if it is not valid any more.
pub(super) async fn renewed(tx: &mut Connection, renewal: Renewal, now: Timestamp) -> Result<bool> {
    let changed = query(
        "UPDATE claims SET state = 'RENEWED', overlap_ends_at = $1 WHERE state = 'CONFIRMED' AND id = $2",
    )
    .bind(now.plus(renewal.overlap).unix_micros())
    .bind(renewal.of.0.as_bytes().as_slice())
    .execute(tx)
    .await?;
    Ok(changed != 0)
}

/// A claim is being confirmed: whatever else is valid in its slots, of the claim that it renews or enrolled for beside it,
/// is superseded.
pub(super) async fn supersede_held(
    tx: &mut Connection,
    confirmed: &ClaimRecord,
    now: Timestamp,
) -> Result<()> {
    query(
        "UPDATE certificates SET state = 'SUPERSEDED', superseded_at = $1 WHERE state = 'VALID' AND credential IN
             (SELECT c.id FROM claims cl JOIN credentials c ON c.claim_id = cl.id
              WHERE cl.tenant = $2 AND cl.vnfci = $3 AND cl.id <> $4 AND cl.state IN ('CONFIRMED', 'RENEWED')
              AND c.slot IN (SELECT n.slot FROM credentials n WHERE n.claim_id = $4))",
    )
    .bind(now.unix_micros())
    .bind(confirmed.tenant.as_str())
    .bind(confirmed.vnfci.as_str())
    .bind(confirmed.id.0.as_bytes().as_slice())
    .execute(tx)
    .await?;
    Ok(())
}

/// Adds to a statement that MANO waits no more, if it asked before `made`: what was made since is in use.
pub(super) fn answer_request(sql: &mut Statement, tenant: &TenantId, vnfci: &VnfciId, made: Timestamp) {
    sql.then("UPDATE vnfcis SET renewal_requested_at = NULL WHERE renewal_requested_at <= ");
    sql.push_bind(made.unix_micros());
    sql.push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
    sql.push(" AND id = ").push_bind(vnfci.as_str().to_owned());
}

/// Renewed claims whose overlap has ended, oldest first.
pub(super) async fn ended_overlaps(
    tx: &mut Connection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<ClaimRecord>> {
    let rows = query(
        "SELECT id FROM claims WHERE state = 'RENEWED' AND overlap_ends_at <= $1
         ORDER BY overlap_ends_at, id LIMIT $2",
    )
    .bind(now.unix_micros())
    .bind(i64::from(limit))
    .fetch_all(&mut *tx)
    .await?;
    let ids = rows.iter().map(|row| row.uuid("id")).collect::<Result<Vec<_>>>()?;
    let mut claims = Vec::with_capacity(ids.len());
    for ids in ids.chunks(CHUNK) {
        claims.extend(super::claims::by_ids(tx, ids).await?);
    }
    Ok(claims)
}

/// Withdraws what a renewal replaced.
pub(super) async fn end_overlap(
    tx: &mut Connection,
    claim: ClaimId,
    end: &CustodyEnd,
    now: Timestamp,
) -> Result<DestroyedKeys> {
    vnfcis::lock_of_claim(tx, claim).await?;
    let due = query("SELECT id FROM claims WHERE id = $1 AND state = 'RENEWED' AND overlap_ends_at <= $2")
        .bind(claim.0.as_bytes().as_slice())
        .bind(now.unix_micros())
        .fetch_optional(&mut *tx)
        .await?;
    if due.is_none() {
        return Err(StoreError::Conflict(format!("claim {claim} has no overlap that ended")));
    }
    close(tx, claim, ClaimState::Superseded, end, now).await
}

/// Marks VNFCIs that are to renew.
pub(super) async fn request(
    tx: &mut Connection,
    tenant: &TenantId,
    items: &[(VnfciId, Option<VnfInstanceId>)],
    now: Timestamp,
) -> Result<Done<Vec<RenewalRequestOutcome>>> {
    tenants::serialise(tx, tenant).await?;
    let mut known: HashMap<String, (VnfInstanceId, VnfciState, bool)> = HashMap::new();
    for items in items.chunks(CHUNK) {
        let mut sql = Statement::new(
            "SELECT id, vnf_instance, state, renewal_requested_at FROM vnfcis WHERE tenant = ",
        );
        sql.push_bind(tenant.as_str()).push(" AND id IN ");
        text_list(&mut sql, items.iter().map(|(id, _)| id.as_str()));
        // As everything that happens to VNFCIs: in one order.
        sql.push(" ORDER BY id").lock("FOR NO KEY UPDATE");
        for row in sql.fetch_all(&mut *tx).await? {
            let requested = row.time_or_null("renewal_requested_at")?.is_some();
            known.insert(row.text("id")?, (row.parsed("vnf_instance")?, row.parsed("state")?, requested));
        }
    }
    let mut outcomes = Vec::with_capacity(items.len());
    let mut marked = Vec::new();
    for (id, vnf_instance) in items {
        outcomes.push(match known.get_mut(id.as_str()) {
            None => RenewalRequestOutcome::NotFound,
            Some((of, ..)) if vnf_instance.as_ref().is_some_and(|named| named != of) => {
                RenewalRequestOutcome::NotFound
            }
            Some((_, state, _)) if *state != VnfciState::Active => RenewalRequestOutcome::NotActive,
            Some((.., true)) => RenewalRequestOutcome::AlreadyRequested,
            Some((.., requested)) => {
                *requested = true;
                marked.push(id);
                RenewalRequestOutcome::Requested
            }
        });
    }
    for ids in marked.chunks(CHUNK) {
        let mut sql = Statement::new("UPDATE vnfcis SET renewal_requested_at = ");
        sql.push_bind(now.unix_micros()).push(" WHERE tenant = ").push_bind(tenant.as_str());
        sql.push(" AND id IN ");
        text_list(&mut sql, ids.iter().map(|id| id.as_str()));
        sql.execute(&mut *tx).await?;
    }
    Ok(if marked.is_empty() { Done::unchanged(outcomes) } else { outcomes.into() })
}
