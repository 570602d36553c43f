//! Table `tenant_levels`, and what else a tenant has that is bounded.

use super::connection::Connection;
use super::statement::query;
use crate::nfv::TenantId;
use crate::store::Result;
use crate::store::records::{Quota, QuotaExceeded, Quotas};
use std::collections::BTreeMap;

/// Fails unless the tenant may have `asked` more VNFCIs. The caller has the tenant to itself ([`super::tenants::serialise`]):
/// nobody else adds one until its transaction ends. One that ends meanwhile may be counted still.
pub(super) async fn more_vnfcis(
    tx: &mut Connection,
    tenant: &TenantId,
    quotas: &Quotas,
    asked: usize,
) -> Result<()> {
    if asked == 0 {
        return Ok(());
    }
    let row = query(
        "SELECT CAST(COALESCE(SUM(vnfcis), 0) AS BIGINT) AS vnfcis FROM tenant_levels WHERE tenant = $1",
    )
    .bind(tenant.as_str())
    .fetch_one(tx)
    .await?;
    Ok(QuotaExceeded::check(tenant, Quota::Vnfcis, quotas, row.number("vnfcis")?, asked as u64)?)
}

/// Fails unless the tenant may have `pools` more pools with `keys` more keys in all. The caller has the tenant to itself.
pub(super) async fn more_pools(
    tx: &mut Connection,
    tenant: &TenantId,
    quotas: &Quotas,
    pools: u64,
    keys: u64,
) -> Result<()> {
    // A walk over the tenant's pools: as many as the quota allows, at most.
    let row = query(
        "SELECT COUNT(*) AS pools, CAST(COALESCE(SUM(target), 0) AS BIGINT) AS pooled_keys
         FROM pools WHERE tenant = $1 AND deleted_at IS NULL",
    )
    .bind(tenant.as_str())
    .fetch_one(tx)
    .await?;
    QuotaExceeded::check(tenant, Quota::Pools, quotas, row.number("pools")?, pools)?;
    Ok(QuotaExceeded::check(tenant, Quota::PooledKeys, quotas, row.number("pooled_keys")?, keys)?)
}

/// What every tenant has that is not removed.
pub(super) async fn used(tx: &mut Connection) -> Result<BTreeMap<TenantId, Quotas>> {
    let rows = query(
        "SELECT t.id AS tenant,
             (SELECT CAST(COALESCE(SUM(l.vnfcis), 0) AS BIGINT) FROM tenant_levels l WHERE l.tenant = t.id) AS vnfcis,
             (SELECT COUNT(*) FROM pools p WHERE p.tenant = t.id AND p.deleted_at IS NULL) AS pools,
             (SELECT CAST(COALESCE(SUM(p.target), 0) AS BIGINT) FROM pools p
              WHERE p.tenant = t.id AND p.deleted_at IS NULL) AS pooled_keys
         FROM tenants t WHERE t.removed_at IS NULL",
    )
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            let used = Quotas {
                vnfcis: row.number("vnfcis")?,
                pools: row.number("pools")?,
                pooled_keys: row.number("pooled_keys")?,
            };
            Ok((row.parsed("tenant")?, used))
        })
        .collect()
}
