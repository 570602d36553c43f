//! Table `issuers`.

use super::connection::Connection;
use super::error::unreadable;
use super::statement::{Row, query};
use crate::nfv::IssuerId;
use crate::store::records::IssuerRecord;
use crate::store::{Result, StoreError};

/// Adds a CA certificate.
pub(super) async fn add(tx: &mut Connection, issuer: &IssuerRecord) -> Result<()> {
    let chain: Vec<String> = issuer.chain_der.iter().map(hex::encode).collect();
    query(
        "INSERT INTO issuers (id, tenant, name, external, generation, key_object, certificate_der, chain_der, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(issuer.id.0.as_bytes().as_slice())
    .bind(issuer.tenant.as_ref().map(|t| t.as_str()))
    .bind(issuer.name.as_str())
    .bind(issuer.external.as_ref().map(|name| name.as_str()))
    .bind(i64::from(issuer.generation))
    .bind(&issuer.key)
    .bind(issuer.certificate_der.as_slice())
    .bind(chain.join(" "))
    .bind(issuer.created_at.unix_micros())
    .execute(tx)
    .await
    .map_err(|error| match error {
        StoreError::AlreadyExists(what) => StoreError::AlreadyExists(match &issuer.tenant {
            Some(tenant) => format!("{what} (tenant {tenant}, generation {})", issuer.generation),
            None => format!("{what} (root, generation {})", issuer.generation),
        }),
        other => other,
    })?;
    Ok(())
}

/// All CA certificates, roots first, by tenant and generation.
pub(super) async fn list(tx: &mut Connection) -> Result<Vec<IssuerRecord>> {
    let rows =
        query("SELECT * FROM issuers ORDER BY COALESCE(tenant, ''), COALESCE(external, ''), generation")
            .fetch_all(tx)
            .await?;
    rows.iter().map(read).collect()
}

/// How many there are.
pub(super) async fn count(tx: &mut Connection) -> Result<u64> {
    query("SELECT COUNT(*) AS n FROM issuers").fetch_one(tx).await?.number("n")
}

fn read(row: &Row) -> Result<IssuerRecord> {
    let chain = row.text("chain_der")?;
    Ok(IssuerRecord {
        id: IssuerId(row.uuid("id")?),
        tenant: row.parsed_or_null("tenant")?,
        name: row.parsed("name")?,
        external: row.parsed_or_null("external")?,
        generation: row.number("generation")?,
        key: row.text("key_object")?,
        certificate_der: row.blob("certificate_der")?,
        chain_der: chain
            .split_whitespace()
            .map(|der| hex::decode(der).map_err(|e| unreadable(&e)))
            .collect::<Result<_>>()?,
        created_at: row.time("created_at")?,
    })
}
