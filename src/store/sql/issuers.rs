//! Tables `issuers` and `crls`.

use super::connection::Connection;
use super::error::unreadable;
use super::statement::{Row, Statement, query};
use super::value::{CHUNK, bigint};
use crate::clock::Timestamp;
use crate::nfv::IssuerId;
use crate::store::records::{CrlEntry, CrlRecord, IssuerRecord};
use crate::store::{Result, StoreError};

/// Adds a CA certificate.
pub(super) async fn add(tx: &mut Connection, issuer: &IssuerRecord) -> Result<()> {
    let chain: Vec<String> = issuer.chain_der.iter().map(hex::encode).collect();
    query(
        "INSERT INTO issuers (id, tenant, generation, key_object, certificate_der, chain_der, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(issuer.id.0.as_bytes().as_slice())
    .bind(issuer.tenant.as_ref().map(|t| t.as_str()))
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
    let rows = query("SELECT * FROM issuers ORDER BY COALESCE(tenant, ''), generation").fetch_all(tx).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<IssuerRecord> {
    let chain = row.text("chain_der")?;
    Ok(IssuerRecord {
        id: IssuerId(row.uuid("id")?),
        tenant: row.parsed_or_null("tenant")?,
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

/// How many certificates wait for a CRL.
pub(super) async fn pending_revocations(tx: &mut Connection, issuer: IssuerId) -> Result<u64> {
    query("SELECT COUNT(*) AS n FROM certificates WHERE issuer = $1 AND state = 'REVOCATION_PENDING'")
        .bind(issuer.0.as_bytes().as_slice())
        .fetch_one(tx)
        .await?
        .number("n")
}

/// What the issuer's next CRL lists, by serial number.
pub(super) async fn crl_entries(
    tx: &mut Connection,
    issuer: IssuerId,
    now: Timestamp,
) -> Result<Vec<CrlEntry>> {
    let rows = query(
        "SELECT serial, revoked_at, reason FROM certificates
         WHERE issuer = $1 AND state IN ('REVOCATION_PENDING', 'REVOKED') AND not_after > $2 ORDER BY serial",
    )
    .bind(issuer.0.as_bytes().as_slice())
    .bind(now.unix_micros())
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(CrlEntry {
                serial: row.blob("serial")?,
                revoked_at: row.time("revoked_at")?,
                reason: row.parsed("reason")?,
            })
        })
        .collect()
}

/// Keeps a CRL, if its number is new, and calls what it lists revoked.
pub(super) async fn record_crl(tx: &mut Connection, crl: &CrlRecord, serials: &[Vec<u8>]) -> Result<u64> {
    let kept = query(
        "INSERT INTO crls (issuer, number, der, this_update, next_update) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (issuer) DO UPDATE SET number = excluded.number, der = excluded.der,
             this_update = excluded.this_update, next_update = excluded.next_update
         WHERE crls.number < excluded.number",
    )
    .bind(crl.issuer.0.as_bytes().as_slice())
    .bind(bigint(crl.number))
    .bind(crl.der.as_slice())
    .bind(crl.this_update.unix_micros())
    .bind(crl.next_update.unix_micros())
    .execute(&mut *tx)
    .await
    .map_err(|error| match error {
        StoreError::NotFound(_) => StoreError::NotFound(format!("issuer {}", crl.issuer)),
        other => other,
    })?;
    if kept == 0 {
        return Err(StoreError::Conflict(format!(
            "CRL number {} of issuer {} is not greater than that of the CRL before: sign one with a greater number",
            crl.number, crl.issuer
        )));
    }
    let mut revoked = 0;
    for serials in serials.chunks(CHUNK) {
        let mut sql = Statement::new(
            "UPDATE certificates SET state = 'REVOKED' WHERE state = 'REVOCATION_PENDING' AND issuer = ",
        );
        sql.push_bind(crl.issuer.0.as_bytes().as_slice()).push(" AND serial IN (NULL");
        for serial in serials {
            sql.push(", ").push_bind(serial.as_slice());
        }
        sql.push(")");
        revoked += sql.execute(&mut *tx).await?;
    }
    Ok(revoked)
}

/// The issuer's latest CRL.
pub(super) async fn latest_crl(tx: &mut Connection, issuer: IssuerId) -> Result<Option<CrlRecord>> {
    let row = query("SELECT * FROM crls WHERE issuer = $1")
        .bind(issuer.0.as_bytes().as_slice())
        .fetch_optional(tx)
        .await?;
    row.map(|row| {
        Ok(CrlRecord {
            issuer,
            number: row.number("number")?,
            der: row.blob("der")?,
            this_update: row.time("this_update")?,
            next_update: row.time("next_update")?,
        })
    })
    .transpose()
}
