//! Tables `vnfcis`, `claims` and `credentials`: the end of VNFCIs.

use super::connection::Connection;
use super::credentials::{self, Claims, Ending};
use super::statement::{Statement, query};
use super::tenants;
use super::value::{CHUNK, text_list};
use crate::clock::Timestamp;
use crate::nfv::{TenantId, VnfInstanceId, VnfciId};
use crate::store::records::{CustodyEnd, TerminateOutcome, TerminatedVnf, VnfciState};
use crate::store::{Result, StoreError};
use std::collections::HashMap;

/// Ends every live VNFCI of a VNF instance, if there are as many as expected.
pub(super) async fn whole_vnf(
    tx: &mut Connection,
    tenant: &TenantId,
    vnf_instance: &VnfInstanceId,
    expected_count: u64,
    end: &CustodyEnd,
    now: Timestamp,
) -> Result<TerminatedVnf> {
    tenants::serialise(tx, tenant).await?;
    let rows = query(
        "SELECT id FROM vnfcis WHERE tenant = $1 AND vnf_instance = $2 AND state IN ('REGISTERED', 'ACTIVE')
         ORDER BY id",
    )
    .bind(tenant.as_str())
    .bind(vnf_instance.as_str())
    .fetch_all(&mut *tx)
    .await?;
    let live = rows.len() as u64;
    if live != expected_count {
        return Err(StoreError::Conflict(format!(
            "VNF instance {vnf_instance} has {live} live VNFCIs, {expected_count} were expected: nothing was \
             terminated; compare the lists and repeat with the right number"
        )));
    }
    let items = rows.iter().map(|row| Ok((row.parsed("id")?, None))).collect::<Result<Vec<_>>>()?;
    let outcomes = each(tx, tenant, &items, end, now).await?;
    let ended: Vec<_> = items
        .into_iter()
        .zip(outcomes)
        .filter_map(|((id, _), outcome)| match outcome {
            TerminateOutcome::Terminated(keys) => Some((id, keys)),
            TerminateOutcome::AlreadyTerminated | TerminateOutcome::NotFound => None,
        })
        .collect();
    let certificates = ended.iter().map(|(_, keys)| keys.revoked.len() as u64).sum();
    Ok(TerminatedVnf { vnfcis: ended.len() as u64, certificates, ended })
}

/// Ends VNFCIs with everything that they hold.
pub(super) async fn each(
    tx: &mut Connection,
    tenant: &TenantId,
    items: &[(VnfciId, Option<VnfInstanceId>)],
    end: &CustodyEnd,
    now: Timestamp,
) -> Result<Vec<TerminateOutcome>> {
    tenants::serialise(tx, tenant).await?;
    let mut states: HashMap<String, (VnfInstanceId, VnfciState)> = HashMap::new();
    for items in items.chunks(CHUNK) {
        let mut sql = Statement::new("SELECT id, vnf_instance, state FROM vnfcis WHERE tenant = ");
        sql.push_bind(tenant.as_str()).push(" AND id IN ");
        text_list(&mut sql, items.iter().map(|(id, _)| id.as_str()));
        sql.lock("FOR NO KEY UPDATE");
        for row in sql.fetch_all(&mut *tx).await? {
            states.insert(row.text("id")?, (row.parsed("vnf_instance")?, row.parsed("state")?));
        }
    }
    let mut held =
        credentials::held_by_vnfcis(tx, tenant, items.iter().map(|(id, _)| id), Claims::Every).await?;
    let mut outcomes = Vec::with_capacity(items.len());
    let mut ended = Vec::new();
    let mut ending = Ending::default();
    for (id, vnf_instance) in items {
        let outcome = match states.get_mut(id.as_str()) {
            None => TerminateOutcome::NotFound,
            Some((of, _)) if vnf_instance.as_ref().is_some_and(|named| named != of) => {
                TerminateOutcome::NotFound
            }
            Some((_, VnfciState::Terminated)) => TerminateOutcome::AlreadyTerminated,
            Some((_, state)) => {
                *state = VnfciState::Terminated;
                ended.push(id);
                let keys = held.remove(id.as_str()).unwrap_or_default();
                TerminateOutcome::Terminated(ending.add(&keys, now))
            }
        };
        outcomes.push(outcome);
    }
    ending.write(tx, end, now).await?;
    for ids in ended.chunks(CHUNK) {
        let mut sql = Statement::new("UPDATE vnfcis SET state = 'TERMINATED', ended_at = ");
        sql.push_bind(now.unix_micros()).push(" WHERE tenant = ").push_bind(tenant.as_str());
        sql.push(" AND id IN ");
        text_list(&mut sql, ids.iter().map(|id| id.as_str()));
        sql.then("UPDATE initial_credentials SET state = 'VOID' WHERE state = 'OPEN' AND tenant = ");
        sql.push_bind(tenant.as_str()).push(" AND vnfci IN ");
        text_list(&mut sql, ids.iter().map(|id| id.as_str()));
        sql.then("UPDATE claims SET state = 'DESTROYED', ended_at = ").push_bind(now.unix_micros());
        sql.push(" WHERE state = 'OPEN' AND tenant = ").push_bind(tenant.as_str()).push(" AND vnfci IN ");
        text_list(&mut sql, ids.iter().map(|id| id.as_str()));
        sql.execute(&mut *tx).await?;
    }
    Ok(outcomes)
}
