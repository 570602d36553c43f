//! Table `anchor_crls`, and changes of an anchor.

use super::anchors::certificates;
use super::connection::Connection;
use super::statement::{Row, query};
use super::tenants;
use crate::clock::Timestamp;
use crate::nfv::{AnchorName, Sha256Hash, TenantId};
use crate::store::records::{AnchorCrl, AnchorUpdate};
use crate::store::{Result, StoreError};

/// Changes an anchor. A CRL that it has already is not added again.
pub(super) async fn update(tx: &mut Connection, update: &AnchorUpdate, now: Timestamp) -> Result<()> {
    tenants::serialise(tx, &update.tenant).await?;
    let issuers = update.issuers_der.as_deref().map(certificates);
    let found = query(
        "UPDATE anchors SET revocation = COALESCE($1, revocation), issuers = COALESCE($2, issuers)
         WHERE tenant = $3 AND name = $4",
    )
    .bind(update.revocation.map(|revocation| revocation.as_str()))
    .bind(issuers.as_deref())
    .bind(update.tenant.as_str())
    .bind(update.name.as_str())
    .execute(&mut *tx)
    .await?;
    if found == 0 {
        return Err(StoreError::NotFound(format!("anchor {} of tenant {}", update.name, update.tenant)));
    }
    for fingerprint in &update.removed {
        query("DELETE FROM anchor_crls WHERE tenant = $1 AND anchor = $2 AND fingerprint = $3")
            .bind(update.tenant.as_str())
            .bind(update.name.as_str())
            .bind(fingerprint.0.as_slice())
            .execute(&mut *tx)
            .await?;
    }
    for der in &update.added {
        query(
            "INSERT INTO anchor_crls (tenant, anchor, fingerprint, der, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (tenant, anchor, fingerprint) DO NOTHING",
        )
        .bind(update.tenant.as_str())
        .bind(update.name.as_str())
        .bind(Sha256Hash::of(der).0.as_slice())
        .bind(der.as_slice())
        .bind(now.unix_micros())
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Which anchor has which CRLs.
pub(super) async fn list(tx: &mut Connection) -> Result<Vec<AnchorCrl>> {
    let rows =
        query("SELECT tenant, anchor, fingerprint FROM anchor_crls ORDER BY tenant, anchor, fingerprint")
            .fetch_all(tx)
            .await?;
    let read = |row: &Row| {
        Ok(AnchorCrl {
            tenant: row.parsed("tenant")?,
            anchor: row.parsed("anchor")?,
            fingerprint: row.hash("fingerprint")?,
        })
    };
    rows.iter().map(read).collect()
}

/// One CRL, DER.
pub(super) async fn one(tx: &mut Connection, fingerprint: Sha256Hash) -> Result<Option<Vec<u8>>> {
    query("SELECT der FROM anchor_crls WHERE fingerprint = $1 LIMIT 1")
        .bind(fingerprint.0.as_slice())
        .fetch_optional(tx)
        .await?
        .map(|row| row.blob("der"))
        .transpose()
}

/// Removes every CRL of an anchor.
pub(super) async fn remove_all(tx: &mut Connection, tenant: &TenantId, anchor: &AnchorName) -> Result<()> {
    query("DELETE FROM anchor_crls WHERE tenant = $1 AND anchor = $2")
        .bind(tenant.as_str())
        .bind(anchor.as_str())
        .execute(tx)
        .await?;
    Ok(())
}
