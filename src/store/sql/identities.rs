//! Tables `identities` and `identity_certificates`.

use super::connection::Connection;
use super::error::unreadable;
use super::statement::{Row, query};
use super::tenants;
use crate::clock::Timestamp;
use crate::nfv::{IdentityName, Sha256Hash};
use crate::store::records::{Identity, IdentityRenewal};
use crate::store::{IDENTITY_CERTIFICATES_MAX, Result, StoreError};

/// Registers an identity.
pub(super) async fn add(tx: &mut Connection, identity: &Identity) -> Result<()> {
    if let Some(tenant) = &identity.tenant {
        tenants::require(tx, tenant).await?;
    }
    let same = query(
        "SELECT name FROM identities WHERE name = $1 OR fingerprint = $2
         UNION SELECT identity AS name FROM identity_certificates WHERE fingerprint = $2",
    )
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

/// Gives an identity another certificate.
pub(super) async fn renew(tx: &mut Connection, renewal: &IdentityRenewal, now: Timestamp) -> Result<()> {
    let name = renewal.name.as_str();
    let row = query("SELECT fingerprint FROM identities WHERE name = $1")
        .bind(name)
        .locking("FOR NO KEY UPDATE")
        .fetch_optional(&mut *tx)
        .await?;
    let row = row.ok_or_else(|| StoreError::NotFound(format!("identity {name}")))?;
    if row.hash("fingerprint")? != renewal.follows {
        return Err(StoreError::Conflict(format!("identity {name} has another certificate by now")));
    }
    query("DELETE FROM identity_certificates WHERE identity = $1 AND not_after < $2")
        .bind(name)
        .bind(now.unix_micros())
        .execute(&mut *tx)
        .await?;
    let before = query("SELECT COUNT(*) AS number FROM identity_certificates WHERE identity = $1")
        .bind(name)
        .fetch_one(&mut *tx)
        .await?;
    if before.int("number")? >= i64::from(IDENTITY_CERTIFICATES_MAX) {
        let problem =
            format!("identity {name} has {IDENTITY_CERTIFICATES_MAX} certificates that have not ended");
        return Err(StoreError::Conflict(problem));
    }
    query("INSERT INTO identity_certificates (fingerprint, identity, not_after) VALUES ($1, $2, $3)")
        .bind(renewal.follows.0.as_slice())
        .bind(name)
        .bind(renewal.followed_until.unix_micros())
        .execute(&mut *tx)
        .await?;
    query("UPDATE identities SET certificate_der = $1, fingerprint = $2 WHERE name = $3")
        .bind(renewal.certificate_der.as_slice())
        .bind(Sha256Hash::of(&renewal.certificate_der).0.as_slice())
        .bind(name)
        .execute(tx)
        .await?;
    Ok(())
}

/// The identity of a certificate, its present one or one before.
pub(super) async fn by_fingerprint(tx: &mut Connection, fingerprint: Sha256Hash) -> Result<Option<Identity>> {
    let row = query(
        "SELECT * FROM identities
         WHERE fingerprint = $1 OR name = (SELECT identity FROM identity_certificates WHERE fingerprint = $1)",
    )
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
    query("DELETE FROM identity_certificates WHERE identity = $1")
        .bind(name.as_str())
        .execute(&mut *tx)
        .await?;
    let removed = query("DELETE FROM identities WHERE name = $1").bind(name.as_str()).execute(tx).await?;
    if removed == 1 { Ok(()) } else { Err(StoreError::NotFound(format!("identity {name}"))) }
}
