//! Table `identities`.

use super::connection::Connection;
use super::error::unreadable;
use super::statement::{Row, query};
use super::tenants;
use crate::nfv::{IdentityName, Sha256Hash};
use crate::store::records::Identity;
use crate::store::{Result, StoreError};

/// Registers an identity.
pub(super) async fn add(tx: &mut Connection, identity: &Identity) -> Result<()> {
    if let Some(tenant) = &identity.tenant {
        tenants::require(tx, tenant).await?;
    }
    let same = query("SELECT name FROM identities WHERE name = $1 OR fingerprint = $2")
        .bind(identity.name.as_str())
        .bind(identity.fingerprint.0.as_slice())
        .fetch_optional(&mut *tx)
        .await?;
    if let Some(row) = same {
        let name: IdentityName = row.parsed("name")?;
        return Err(StoreError::AlreadyExists(if name == identity.name {
            format!("identity {name}")
        } else {
            format!("identity {name} with the same certificate")
        }));
    }
    let granted = serde_json::to_string(&identity.granted_vnfs).map_err(|e| unreadable(&e))?;
    query(
        "INSERT INTO identities (name, role, tenant, granted_vnfs, certificate_der, fingerprint, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(identity.name.as_str())
    .bind(identity.role.as_str())
    .bind(identity.tenant.as_ref().map(|t| t.as_str()))
    .bind(granted)
    .bind(identity.certificate_der.as_slice())
    .bind(identity.fingerprint.0.as_slice())
    .bind(identity.created_at.unix_micros())
    .execute(tx)
    .await?;
    Ok(())
}

/// All identities, by name.
pub(super) async fn list(tx: &mut Connection) -> Result<Vec<Identity>> {
    let rows = query("SELECT * FROM identities ORDER BY name").fetch_all(tx).await?;
    rows.iter().map(read).collect()
}

/// The identity of a certificate.
pub(super) async fn by_fingerprint(tx: &mut Connection, fingerprint: Sha256Hash) -> Result<Option<Identity>> {
    let row = query("SELECT * FROM identities WHERE fingerprint = $1")
        .bind(fingerprint.0.as_slice())
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &Row) -> Result<Identity> {
    Ok(Identity {
        name: row.parsed("name")?,
        role: row.parsed("role")?,
        tenant: row.parsed_or_null("tenant")?,
        granted_vnfs: serde_json::from_str(&row.text("granted_vnfs")?).map_err(|e| unreadable(&e))?,
        certificate_der: row.blob("certificate_der")?,
        fingerprint: row.hash("fingerprint")?,
        created_at: row.time("created_at")?,
    })
}

/// Removes an identity.
pub(super) async fn remove(tx: &mut Connection, name: &IdentityName) -> Result<()> {
    let removed = query("DELETE FROM identities WHERE name = $1").bind(name.as_str()).execute(tx).await?;
    if removed == 1 { Ok(()) } else { Err(StoreError::NotFound(format!("identity {name}"))) }
}
