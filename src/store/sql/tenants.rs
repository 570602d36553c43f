//! Table `tenants`.

use super::connection::{Connection, Dialect};
use super::statement::query;
use crate::clock::Timestamp;
use crate::nfv::TenantId;
use crate::store::records::Tenant;
use crate::store::{Result, StoreError};

/// Adds a tenant.
pub(super) async fn add(tx: &mut Connection, tenant: &Tenant) -> Result<()> {
    let added = query("INSERT INTO tenants (id, created_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING")
        .bind(tenant.id.as_str())
        .bind(tenant.created_at.unix_micros())
        .execute(tx)
        .await?;
    if added == 1 { Ok(()) } else { Err(StoreError::AlreadyExists(format!("tenant {}", tenant.id))) }
}

/// All tenants that are not removed, by name.
pub(super) async fn list(tx: &mut Connection) -> Result<Vec<Tenant>> {
    let rows = query("SELECT id, created_at FROM tenants WHERE removed_at IS NULL ORDER BY id")
        .fetch_all(tx)
        .await?;
    rows.iter().map(|row| Ok(Tenant { id: row.parsed("id")?, created_at: row.time("created_at")? })).collect()
}

/// What operators and MANO configure and register in a tenant happens one after the other: until the transaction ends,
/// nobody else gets past this point. Claims do.
pub(super) async fn serialise(tx: &mut Connection, tenant: &TenantId) -> Result<()> {
    if tx.dialect() == Dialect::Postgres {
        query("SELECT 1 FROM tenants WHERE id = $1")
            .bind(tenant.as_str())
            .locking("FOR NO KEY UPDATE")
            .fetch_optional(tx)
            .await?;
    }
    Ok(())
}

/// Fails unless the tenant exists and is not removed; goes on as [`serialise`] does.
pub(super) async fn require(tx: &mut Connection, tenant: &TenantId) -> Result<()> {
    query("SELECT 1 FROM tenants WHERE id = $1 AND removed_at IS NULL")
        .bind(tenant.as_str())
        .locking("FOR NO KEY UPDATE")
        .fetch_optional(tx)
        .await?
        .map(|_| ())
        .ok_or_else(|| StoreError::NotFound(format!("tenant {tenant}")))
}

/// Marks a tenant removed.
pub(super) async fn remove(tx: &mut Connection, tenant: &TenantId, now: Timestamp) -> Result<()> {
    require(tx, tenant).await?;
    let row = query(
        "SELECT (SELECT COUNT(*) FROM pools WHERE tenant = $1 AND deleted_at IS NULL) AS pools,
                (SELECT COUNT(*) FROM vnfcis WHERE tenant = $1 AND state IN ('REGISTERED', 'ACTIVE')) AS vnfcis",
    )
    .bind(tenant.as_str())
    .fetch_one(&mut *tx)
    .await?;
    let (pools, vnfcis) = (row.int("pools")?, row.int("vnfcis")?);
    if pools > 0 || vnfcis > 0 {
        return Err(StoreError::Conflict(format!(
            "tenant {tenant} still has {pools} pools and {vnfcis} VNFCIs: delete and terminate them first"
        )));
    }
    query("UPDATE tenants SET removed_at = $1 WHERE id = $2")
        .bind(now.unix_micros())
        .bind(tenant.as_str())
        .execute(tx)
        .await?;
    Ok(())
}
