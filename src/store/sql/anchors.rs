//! Table `anchors`.

use super::connection::Connection;
use super::statement::{Row, query};
use super::{anchor_crls, tenants};
use crate::nfv::{AnchorName, TenantId};
use crate::store::records::Anchor;
use crate::store::{Result, StoreError};

/// Adds an anchor: no certificate and no public key is an anchor twice, in whatever tenants.
pub(super) async fn add(tx: &mut Connection, anchor: &Anchor) -> Result<()> {
    tenants::require(tx, &anchor.tenant).await?;
    let same = query(
        "SELECT tenant, name FROM anchors
         WHERE (tenant = $1 AND name = $2) OR fingerprint = $3 OR public_key = $4
         ORDER BY (tenant = $1 AND name = $2) DESC LIMIT 1",
    )
    .bind(anchor.tenant.as_str())
    .bind(anchor.name.as_str())
    .bind(anchor.fingerprint.0.as_slice())
    .bind(anchor.public_key.0.as_slice())
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(row) = same {
        let (tenant, name): (TenantId, AnchorName) = (row.parsed("tenant")?, row.parsed("name")?);
        if (&tenant, &name) == (&anchor.tenant, &anchor.name) {
            return Err(StoreError::AlreadyExists(format!("anchor {name} of tenant {tenant}")));
        }
        return Err(StoreError::Conflict(format!(
            "the same certificate or public key is anchor {name} of tenant {tenant}: an anchor belongs to one \
             tenant and has one name"
        )));
    }
    query(
        "INSERT INTO anchors (tenant, name, certificate_der, fingerprint, public_key, revocation, policies,
             strict, issuers, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(anchor.tenant.as_str())
    .bind(anchor.name.as_str())
    .bind(anchor.certificate_der.as_slice())
    .bind(anchor.fingerprint.0.as_slice())
    .bind(anchor.public_key.0.as_slice())
    .bind(anchor.revocation.as_str())
    .bind(anchor.policies.join(" "))
    .bind(i64::from(anchor.strict))
    .bind(certificates(&anchor.issuers_der))
    .bind(anchor.created_at.unix_micros())
    .execute(tx)
    .await?;
    Ok(())
}

/// The anchors of a tenant, or of all, by tenant and name.
pub(super) async fn list(tx: &mut Connection, tenant: Option<&TenantId>) -> Result<Vec<Anchor>> {
    let rows = query("SELECT * FROM anchors WHERE $1 IS NULL OR tenant = $1 ORDER BY tenant, name")
        .bind(tenant.map(TenantId::as_str))
        .fetch_all(tx)
        .await?;
    rows.iter().map(read).collect()
}

/// Certificates as the table has them.
pub(super) fn certificates(ders: &[Vec<u8>]) -> String {
    ders.iter().map(hex::encode).collect::<Vec<_>>().join(" ")
}

fn read(row: &Row) -> Result<Anchor> {
    let issuers = row.text("issuers")?;
    let issuers_der = issuers.split_whitespace().map(hex::decode).collect::<Result<_, _>>();
    Ok(Anchor {
        issuers_der: issuers_der
            .map_err(|error| StoreError::Unusable(format!("certificates below an anchor: {error}")))?,
        tenant: row.parsed("tenant")?,
        name: row.parsed("name")?,
        certificate_der: row.blob("certificate_der")?,
        fingerprint: row.hash("fingerprint")?,
        public_key: row.hash("public_key")?,
        revocation: row.parsed("revocation")?,
        policies: row.text("policies")?.split_whitespace().map(str::to_owned).collect(),
        strict: row.int("strict")? != 0,
        created_at: row.time("created_at")?,
    })
}

/// Removes an anchor and voids the open initial credentials under it.
pub(super) async fn remove(tx: &mut Connection, tenant: &TenantId, name: &AnchorName) -> Result<()> {
    tenants::serialise(tx, tenant).await?;
    anchor_crls::remove_all(tx, tenant, name).await?;
    let removed = query("DELETE FROM anchors WHERE tenant = $1 AND name = $2")
        .bind(tenant.as_str())
        .bind(name.as_str())
        .execute(&mut *tx)
        .await?;
    if removed == 0 {
        return Err(StoreError::NotFound(format!("anchor {name} of tenant {tenant}")));
    }
    query(
        "UPDATE initial_credentials SET state = 'VOID' WHERE tenant = $1 AND anchor = $2 AND state = 'OPEN'",
    )
    .bind(tenant.as_str())
    .bind(name.as_str())
    .execute(tx)
    .await?;
    Ok(())
}
