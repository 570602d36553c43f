//! Tables `crls` and `ocsp_responders`, and what of `certificates` they publish.

use super::connection::Connection;
use super::statement::{Row, Statement, query};
use super::value::{CHUNK, bigint};
use crate::clock::Timestamp;
use crate::nfv::IssuerId;
use crate::store::records::{CertificateStatus, CrlEntry, CrlHead, CrlRecord, OcspResponder};
use crate::store::{Result, StoreError};

/// How many certificates wait for a CRL.
pub(super) async fn pending_revocations(tx: &mut Connection, issuer: IssuerId) -> Result<u64> {
    query("SELECT COUNT(*) AS n FROM certificates WHERE issuer = $1 AND state = 'REVOCATION_PENDING'")
        .bind(issuer.0.as_bytes().as_slice())
        .fetch_one(tx)
        .await?
        .number("n")
}

/// What the issuer's next CRLs list, by serial number.
pub(super) async fn crl_entries(
    tx: &mut Connection,
    issuer: IssuerId,
    unexpired_at: Timestamp,
) -> Result<Vec<CrlEntry>> {
    let rows = query(
        // Two statements in one: each has an index of its own, so that what is not revoked is never read.
        "SELECT serial, revoked_at, reason, crl_shard, not_after, state FROM certificates
         WHERE issuer = $1 AND state = 'REVOCATION_PENDING'
         UNION ALL
         SELECT serial, revoked_at, reason, crl_shard, not_after, state FROM certificates
         WHERE issuer = $1 AND state = 'REVOKED' AND not_after > $2
         UNION ALL
         SELECT serial, revoked_at, reason, $3, not_after, 'REVOKED' FROM revoked_serials
         WHERE issuer = $1 AND not_after > $2
         ORDER BY serial",
    )
    .bind(issuer.0.as_bytes().as_slice())
    .bind(unexpired_at.unix_micros())
    .bind(i64::from(CrlEntry::EVERY_SHARD))
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(CrlEntry {
                serial: row.blob("serial")?,
                revoked_at: row.time("revoked_at")?,
                reason: row.parsed("reason")?,
                shard: row.number("crl_shard")?,
                not_after: row.time("not_after")?,
                pending: row.text("state")? == "REVOCATION_PENDING",
            })
        })
        .collect()
}

/// Keeps CRLs of one issuer, if their numbers are new, and calls what they list revoked.
pub(super) async fn record_crls(
    tx: &mut Connection,
    issuer: IssuerId,
    crls: &[CrlRecord],
    serials: &[Vec<u8>],
) -> Result<u64> {
    for crl in crls {
        let kept = query(
            "INSERT INTO crls (issuer, shard, number, entries, der, this_update, next_update)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (issuer, shard) DO UPDATE SET number = excluded.number, entries = excluded.entries,
                 der = excluded.der, this_update = excluded.this_update, next_update = excluded.next_update
             WHERE crls.number < excluded.number",
        )
        .bind(issuer.0.as_bytes().as_slice())
        .bind(i64::from(crl.head.shard))
        .bind(bigint(crl.head.number))
        .bind(bigint(crl.head.entries))
        .bind(crl.der.as_slice())
        .bind(crl.head.this_update.unix_micros())
        .bind(crl.head.next_update.unix_micros())
        .execute(&mut *tx)
        .await
        .map_err(|error| match error {
            StoreError::NotFound(_) => StoreError::NotFound(format!("issuer {issuer}")),
            other => other,
        })?;
        if kept == 0 {
            return Err(StoreError::Conflict(format!(
                "CRL number {} of issuer {issuer} is not greater than that of the CRL before: sign one with a greater \
                 number",
                crl.head.number
            )));
        }
    }
    let mut revoked = 0;
    for serials in serials.chunks(CHUNK) {
        let mut sql = Statement::new(
            "UPDATE certificates SET state = 'REVOKED' WHERE state = 'REVOCATION_PENDING' AND issuer = ",
        );
        sql.push_bind(issuer.0.as_bytes().as_slice()).push(" AND serial IN (NULL");
        for serial in serials {
            sql.push(", ").push_bind(serial.as_slice());
        }
        sql.push(")");
        revoked += sql.execute(&mut *tx).await?;
    }
    Ok(revoked)
}

/// The latest CRL of every shard of an issuer, without their content.
pub(super) async fn crl_heads(tx: &mut Connection, issuer: IssuerId) -> Result<Vec<CrlHead>> {
    let rows = query(
        "SELECT shard, number, entries, this_update, next_update FROM crls WHERE issuer = $1 ORDER BY shard",
    )
    .bind(issuer.0.as_bytes().as_slice())
    .fetch_all(tx)
    .await?;
    rows.iter().map(read_head).collect()
}

/// The latest CRL of a shard.
pub(super) async fn latest_crl(
    tx: &mut Connection,
    issuer: IssuerId,
    shard: u32,
) -> Result<Option<CrlRecord>> {
    let row = query("SELECT * FROM crls WHERE issuer = $1 AND shard = $2 AND next_update > 0")
        .bind(issuer.0.as_bytes().as_slice())
        .bind(i64::from(shard))
        .fetch_optional(tx)
        .await?;
    row.map(|row| Ok(CrlRecord { head: read_head(&row)?, der: row.blob("der")? })).transpose()
}

fn read_head(row: &Row) -> Result<CrlHead> {
    Ok(CrlHead {
        shard: row.number("shard")?,
        number: row.number("number")?,
        entries: row.number("entries")?,
        this_update: row.time("this_update")?,
        next_update: row.time("next_update")?,
    })
}

/// Where a certificate stands, by issuer and serial number.
pub(super) async fn status(
    tx: &mut Connection,
    issuer: IssuerId,
    serial: &[u8],
) -> Result<Option<CertificateStatus>> {
    let row = query(
        "SELECT state, revoked_at, reason FROM certificates WHERE issuer = $1 AND serial = $2
         UNION ALL SELECT 'REVOKED', revoked_at, reason FROM revoked_serials WHERE issuer = $1 AND serial = $2",
    )
    .bind(issuer.0.as_bytes().as_slice())
    .bind(serial)
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        let revoked = match row.time_or_null("revoked_at")? {
            Some(at) => Some((at, row.parsed("reason")?)),
            None => None,
        };
        Ok(CertificateStatus { state: row.parsed("state")?, revoked })
    })
    .transpose()
}

/// Keeps the certificate of an issuer's OCSP responder in place of the one before.
pub(super) async fn record_responder(tx: &mut Connection, responder: &OcspResponder) -> Result<()> {
    query(
        "INSERT INTO ocsp_responders (issuer, key_object, certificate_der, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (issuer) DO UPDATE SET key_object = excluded.key_object,
             certificate_der = excluded.certificate_der, created_at = excluded.created_at",
    )
    .bind(responder.issuer.0.as_bytes().as_slice())
    .bind(&responder.key)
    .bind(responder.certificate_der.as_slice())
    .bind(responder.created_at.unix_micros())
    .execute(tx)
    .await?;
    Ok(())
}

/// The OCSP responders of all issuers.
pub(super) async fn responders(tx: &mut Connection) -> Result<Vec<OcspResponder>> {
    let rows = query("SELECT * FROM ocsp_responders ORDER BY issuer").fetch_all(tx).await?;
    rows.iter()
        .map(|row| {
            Ok(OcspResponder {
                issuer: IssuerId(row.uuid("issuer")?),
                key: row.text("key_object")?,
                certificate_der: row.blob("certificate_der")?,
                created_at: row.time("created_at")?,
            })
        })
        .collect()
}
