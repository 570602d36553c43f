//! Table `pools`.

use super::connection::{Connection, Dialect, Queue};
use super::statement::{Row, Statement, query};
use super::value::text_list;
use super::{quotas, tenants};
use crate::clock::Timestamp;
use crate::credential::KeyState;
use crate::nfv::{PoolId, PoolName, TenantId};
use crate::store::records::{Page, Pool, PoolFilter, PoolLevels, Quotas};
use crate::store::{Result, StoreError};

/// Creates a pool.
pub(super) async fn create(tx: &mut Connection, pool: Pool, quotas: &Quotas) -> Result<Pool> {
    tenants::require(tx, &pool.tenant).await?;
    let same = query("SELECT 1 FROM pools WHERE tenant = $1 AND name = $2 AND deleted_at IS NULL")
        .bind(pool.tenant.as_str())
        .bind(pool.name.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    if same.is_some() {
        return Err(StoreError::AlreadyExists(format!("pool {} of tenant {}", pool.name, pool.tenant)));
    }
    quotas::more_pools(tx, &pool.tenant, quotas, 1, u64::from(pool.target)).await?;
    query(
        "INSERT INTO pools (id, tenant, name, vnf_instance, vdu, profile, target, refill_below, issue,
             created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(pool.id.0.as_bytes().as_slice())
    .bind(pool.tenant.as_str())
    .bind(pool.name.as_str())
    .bind(pool.vnf_instance.as_str())
    .bind(pool.vdu.as_str())
    .bind(pool.profile.as_str())
    .bind(i64::from(pool.target))
    .bind(i64::from(pool.refill_below))
    .bind(pool.issue.as_str())
    .bind(pool.created_at.unix_micros())
    .execute(tx)
    .await?;
    Ok(pool)
}

/// A pool that is not deleted.
pub(super) async fn by_name(tx: &mut Connection, tenant: &TenantId, name: &PoolName) -> Result<Pool> {
    let row = query("SELECT * FROM pools WHERE tenant = $1 AND name = $2 AND deleted_at IS NULL")
        .bind(tenant.as_str())
        .bind(name.as_str())
        .fetch_optional(tx)
        .await?;
    row.as_ref().map_or_else(|| Err(StoreError::NotFound(format!("pool {name} of tenant {tenant}"))), read)
}

/// Pools of these names that are not deleted.
pub(super) async fn by_names<'n>(
    tx: &mut Connection,
    tenant: &TenantId,
    names: impl IntoIterator<Item = &'n PoolName>,
) -> Result<Vec<Pool>> {
    let mut sql = Statement::new("SELECT * FROM pools WHERE deleted_at IS NULL AND tenant = ");
    sql.push_bind(tenant.as_str()).push(" AND name IN ");
    text_list(&mut sql, names.into_iter().map(PoolName::as_str));
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read).collect()
}

/// Pools that are not deleted, by tenant and name.
pub(super) async fn list(tx: &mut Connection, filter: &PoolFilter, page: &Page) -> Result<Vec<Pool>> {
    let mut sql = Statement::new("SELECT * FROM pools WHERE deleted_at IS NULL");
    if let Some(tenant) = &filter.tenant {
        sql.push(" AND tenant = ").push_bind(tenant.as_str());
    }
    if let Some(vnf_instances) = &filter.vnf_instances {
        sql.push(" AND vnf_instance IN ");
        text_list(&mut sql, vnf_instances.iter().map(|v| v.as_str()));
    }
    if let Some(after) = &page.after {
        // A tenant's name has no '/', so the key splits in one way only.
        let (tenant, name) = after.split_once('/').unwrap_or((after, ""));
        sql.push(" AND (tenant, name) > (").push_bind(tenant).push(", ").push_bind(name).push(")");
    }
    sql.push(" ORDER BY tenant, name LIMIT ").push_bind(i64::from(page.limit));
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read).collect()
}

/// Deleted pools that still have keys to erase.
pub(super) async fn deleted_with_keys(tx: &mut Connection) -> Result<Vec<Pool>> {
    let rows = query(
        "SELECT * FROM pools p WHERE deleted_at IS NOT NULL AND EXISTS (
             SELECT 1 FROM credentials c WHERE c.pool = p.id AND c.claim_id IS NULL AND c.erased_at IS NULL)
         ORDER BY tenant, name, id",
    )
    .fetch_all(tx)
    .await?;
    rows.iter().map(read).collect()
}

/// Changes how many credentials a pool keeps ready.
pub(super) async fn update(
    tx: &mut Connection,
    tenant: &TenantId,
    name: &PoolName,
    target: u32,
    refill_below: u32,
    quotas: &Quotas,
) -> Result<Pool> {
    tenants::serialise(tx, tenant).await?;
    let pool = by_name(tx, tenant, name).await?;
    quotas::more_pools(tx, tenant, quotas, 0, u64::from(target.saturating_sub(pool.target))).await?;
    query("UPDATE pools SET target = $1, refill_below = $2 WHERE id = $3")
        .bind(i64::from(target))
        .bind(i64::from(refill_below))
        .bind(pool.id.0.as_bytes().as_slice())
        .execute(tx)
        .await?;
    Ok(Pool { target, refill_below, ..pool })
}

/// Marks a pool deleted.
pub(super) async fn delete(
    tx: &mut Connection,
    tenant: &TenantId,
    name: &PoolName,
    now: Timestamp,
) -> Result<Pool> {
    tenants::serialise(tx, tenant).await?;
    let pool = by_name(tx, tenant, name).await?;
    let user = query(
        "SELECT v.id AS id FROM slots s JOIN vnfcis v ON v.tenant = s.tenant AND v.id = s.vnfci
         WHERE s.pool = $1 AND v.state IN ('REGISTERED', 'ACTIVE') LIMIT 1",
    )
    .bind(pool.id.0.as_bytes().as_slice())
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(user) = user {
        return Err(StoreError::Conflict(format!(
            "pool {name} serves a slot of VNFCI {}: terminate the VNFCIs that use the pool first",
            user.text("id")?
        )));
    }
    query("UPDATE pools SET deleted_at = $1 WHERE id = $2")
        .bind(now.unix_micros())
        .bind(pool.id.0.as_bytes().as_slice())
        .execute(tx)
        .await?;
    Ok(pool)
}

/// Stands in `pool_levels` beside the key states: how many keys were ever claimed.
const DRAWN: &str = "DRAWN";

/// How many keys of the pool are in which state: kept counts, and a look at those that are too old.
pub(super) async fn levels(tx: &mut Connection, pool: PoolId, now: Timestamp) -> Result<PoolLevels> {
    let rows = query(
        "SELECT key_state, CAST(SUM(keys) AS BIGINT) AS keys, (
             SELECT COUNT(*) FROM credentials c WHERE c.pool = $1
             AND c.claim_id IS NULL AND c.erased_at IS NULL AND c.usable_until <= $2) AS aged
         FROM pool_levels WHERE pool = $1 GROUP BY key_state",
    )
    .bind(pool.0.as_bytes().as_slice())
    .bind(now.unix_micros())
    .fetch_all(tx)
    .await?;
    let mut levels = PoolLevels::default();
    for row in &rows {
        let keys: u64 = row.number("keys")?;
        if row.text("key_state")? == DRAWN {
            levels.drawn = keys;
            continue;
        }
        match row.parsed::<KeyState>("key_state")? {
            KeyState::Generated => levels.generated = keys,
            KeyState::Available => {
                levels.aged = row.number("aged")?;
                levels.available = keys.saturating_sub(levels.aged);
            }
            KeyState::Claimed => levels.claimed = keys,
            KeyState::Delivered => levels.delivered = keys,
            KeyState::Destroyed => levels.destroyed = keys,
            // Never in the pool: it lends its profile only.
            KeyState::External => {}
        }
    }
    Ok(levels)
}

/// Adds the counts of connections that ended to stripe 0, in PostgreSQL, where each connection counts in a stripe of its own.
pub(super) async fn fold(tx: &mut Connection) -> Result<()> {
    if tx.dialect() == Dialect::Sqlite {
        return Ok(());
    }
    tx.one_at_a_time(Queue::Fold, &[]).await?;
    query(
        "WITH gone AS (
             DELETE FROM pool_levels WHERE stripe <> 0 AND stripe NOT IN (SELECT pid FROM pg_stat_activity)
             RETURNING pool, key_state, keys)
         INSERT INTO pool_levels (pool, key_state, stripe, keys)
             SELECT pool, key_state, 0, SUM(keys) FROM gone GROUP BY pool, key_state
         ON CONFLICT (pool, key_state, stripe) DO UPDATE SET keys = pool_levels.keys + excluded.keys",
    )
    .execute(&mut *tx)
    .await?;
    query(
        "WITH gone AS (
             DELETE FROM epoch_levels WHERE stripe <> 0 AND stripe NOT IN (SELECT pid FROM pg_stat_activity)
             RETURNING epoch, inserted, live)
         INSERT INTO epoch_levels (epoch, stripe, inserted, live)
             SELECT epoch, 0, SUM(inserted), SUM(live) FROM gone GROUP BY epoch
         ON CONFLICT (epoch, stripe) DO UPDATE SET
             inserted = epoch_levels.inserted + excluded.inserted, live = epoch_levels.live + excluded.live",
    )
    .execute(&mut *tx)
    .await?;
    query(
        "WITH gone AS (
             DELETE FROM tenant_levels WHERE stripe <> 0 AND stripe NOT IN (SELECT pid FROM pg_stat_activity)
             RETURNING tenant, vnfcis)
         INSERT INTO tenant_levels (tenant, stripe, vnfcis) SELECT tenant, 0, SUM(vnfcis) FROM gone GROUP BY tenant
         ON CONFLICT (tenant, stripe) DO UPDATE SET vnfcis = tenant_levels.vnfcis + excluded.vnfcis",
    )
    .execute(tx)
    .await?;
    Ok(())
}

fn read(row: &Row) -> Result<Pool> {
    Ok(Pool {
        id: PoolId(row.uuid("id")?),
        tenant: row.parsed("tenant")?,
        name: row.parsed("name")?,
        vnf_instance: row.parsed("vnf_instance")?,
        vdu: row.parsed("vdu")?,
        profile: row.parsed("profile")?,
        target: row.number("target")?,
        refill_below: row.number("refill_below")?,
        issue: row.parsed("issue")?,
        created_at: row.time("created_at")?,
    })
}
