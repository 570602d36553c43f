//! Table `certificates`: signed ones, and intents, whose signature is recorded later.

use super::change::Done;
use super::connection::{Connection, Dialect};
use super::statement::{Statement, query};
use crate::audit::event::EventCredential;
use crate::clock::Timestamp;
use crate::credential::{CertificateState, Issue, KeyChange, KeyState};
use crate::nfv::{CredentialId, IssuerId, Sha256Hash};
use crate::store::records::{CertificateIntent, NewCertificate, RecordOutcome};
use crate::store::{Result, StoreError};
use uuid::Uuid;

/// A row to be inserted: signed or an intent.
pub(super) struct NewRow<'a> {
    credential: CredentialId,
    issuer: IssuerId,
    serial: &'a [u8],
    der: Option<&'a [u8]>,
    tbs_der: Option<&'a [u8]>,
    not_before: Timestamp,
    not_after: Timestamp,
    usable_until: Timestamp,
    crl_shard: u32,
}

impl<'a> NewRow<'a> {
    /// A signed certificate.
    pub(super) fn signed(credential: CredentialId, certificate: &'a NewCertificate) -> Self {
        Self {
            credential,
            issuer: certificate.issuer,
            serial: &certificate.serial,
            der: Some(&certificate.der),
            tbs_der: None,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            usable_until: certificate.usable_until,
            crl_shard: certificate.crl_shard,
        }
    }

    /// What is about to be signed. `VALID` like a signed one: its serial number counts as issued.
    pub(super) fn intent(credential: CredentialId, intent: &'a CertificateIntent) -> Self {
        Self {
            credential,
            issuer: intent.issuer,
            serial: &intent.serial,
            der: None,
            tbs_der: Some(&intent.tbs_der),
            not_before: intent.not_before,
            not_after: intent.not_after,
            usable_until: intent.usable_until,
            crl_shard: intent.crl_shard,
        }
    }
}

/// Adds to a statement that the rows are inserted. At least one.
pub(super) fn insert(sql: &mut Statement, rows: &[NewRow<'_>]) {
    sql.push(
        "INSERT INTO certificates (credential, issuer, serial, sha256, der, tbs_der, state, not_before,
             not_after, usable_until, crl_shard) ",
    );
    sql.push_values(rows, |mut values, row| {
        values
            .push_bind(row.credential.0.as_bytes().to_vec())
            .push_bind(row.issuer.0.as_bytes().to_vec())
            .push_bind(row.serial.to_vec())
            .push_bind(row.der.map(|der| Sha256Hash::of(der).0.to_vec()))
            .push_bind(row.der.map(<[u8]>::to_vec))
            .push_bind(row.tbs_der.map(<[u8]>::to_vec))
            .push_bind(CertificateState::Valid.as_str())
            .push_bind(row.not_before.unix_micros())
            .push_bind(row.not_after.unix_micros())
            .push_bind(row.usable_until.unix_micros())
            .push_bind(i64::from(row.crl_shard));
    });
}

/// Inserts a further certificate of a key that its holder made.
pub(super) async fn insert_again(
    tx: &mut Connection,
    credential: CredentialId,
    certificate: &NewCertificate,
) -> Result<()> {
    let id = credential.0.as_bytes().as_slice();
    // The one before makes room: rows are inserted with turn 0.
    query(
        "UPDATE certificates SET turn = 1 + (SELECT MAX(n.turn) FROM certificates n WHERE n.credential = $1)
         WHERE credential = $1 AND turn = 0",
    )
    .bind(id)
    .execute(&mut *tx)
    .await?;
    let mut sql = Statement::new("");
    insert(&mut sql, &[NewRow::signed(credential, certificate)]);
    sql.execute(tx).await?;
    Ok(())
}

/// Records certificates that were signed after their keys were stored.
pub(super) async fn record(
    tx: &mut Connection,
    certificates: &[(CredentialId, NewCertificate)],
) -> Result<Done<Vec<RecordOutcome>>> {
    let mut outcomes = Vec::with_capacity(certificates.len());
    for (credential, certificate) in certificates {
        outcomes.push(record_one(tx, *credential, certificate).await?);
    }
    let none = !outcomes.iter().any(|outcome| matches!(outcome, RecordOutcome::Recorded(_)));
    Ok(if none { Done::unchanged(outcomes) } else { outcomes.into() })
}

/// A key to which a certificate comes, with the row that it has.
struct Certified {
    public_key: Sha256Hash,
    key_state: KeyState,
    issue: Issue,
    row: Option<Current>,
}

struct Current {
    id: i64,
    issuer: IssuerId,
    serial: Vec<u8>,
    der: Option<Vec<u8>>,
}

async fn read(tx: &mut Connection, id: CredentialId) -> Result<Certified> {
    // The first writer wins, also among brokers.
    let locked = query("SELECT 1 FROM credentials WHERE id = $1").bind(id.0.as_bytes().as_slice());
    if tx.dialect() == Dialect::Postgres {
        locked.locking("FOR UPDATE").fetch_optional(tx).await?;
    }
    let row = query(
        "SELECT c.public_key_sha256 AS public_key, c.key_state AS key_state, p.issue AS issue, ce.id AS certificate,
                ce.issuer AS issuer, ce.serial AS serial, ce.der AS der
         FROM credentials c JOIN pools p ON p.id = c.pool LEFT JOIN certificates ce ON ce.credential = c.id
         WHERE c.id = $1",
    )
    .bind(id.0.as_bytes().as_slice())
    .fetch_optional(tx)
    .await?
    .ok_or_else(|| StoreError::NotFound(format!("credential {id}")))?;
    let certificate = match row.int_or_null("certificate")? {
        Some(id) => Some(Current {
            id,
            issuer: IssuerId(row.uuid("issuer")?),
            serial: row.blob("serial")?,
            der: row.blob_or_null("der")?,
        }),
        None => None,
    };
    Ok(Certified {
        public_key: row.hash("public_key")?,
        key_state: row.parsed("key_state")?,
        issue: row.parsed("issue")?,
        row: certificate,
    })
}

async fn record_one(
    tx: &mut Connection,
    id: CredentialId,
    certificate: &NewCertificate,
) -> Result<RecordOutcome> {
    let Certified { public_key, key_state, issue, row } = read(tx, id).await?;
    if key_state == KeyState::Destroyed {
        return Ok(RecordOutcome::Ended);
    }
    match row {
        Some(Current { der: Some(der), .. }) => return Ok(RecordOutcome::Before(der)),
        Some(intent) => {
            if (intent.issuer, &intent.serial) != (certificate.issuer, &certificate.serial) {
                return Err(StoreError::Conflict(format!(
                    "credential {id} is to be certified with serial number {}, not {}",
                    hex::encode(&intent.serial),
                    hex::encode(&certificate.serial)
                )));
            }
            query(
                "UPDATE certificates SET der = $1, sha256 = $2, tbs_der = NULL WHERE id = $3 AND der IS NULL",
            )
            .bind(certificate.der.as_slice())
            .bind(Sha256Hash::of(&certificate.der).0.as_slice())
            .bind(intent.id)
            .execute(tx)
            .await?;
        }
        None if issue == Issue::AtClaim => {
            return Err(StoreError::Conflict(format!(
                "credential {id} gets its certificate at the claim, with an intent first"
            )));
        }
        None => {
            let state = key_state
                .after(KeyChange::Certify)
                .map_err(|invalid| StoreError::Conflict(format!("credential {id}: {invalid}")))?;
            certify(tx, &id.0, state, certificate).await?;
        }
    }
    Ok(RecordOutcome::Recorded(EventCredential { id, public_key }))
}

/// Writes the certificate of a key that waited for it in its pool.
async fn certify(
    tx: &mut Connection,
    id: &Uuid,
    state: KeyState,
    certificate: &NewCertificate,
) -> Result<()> {
    let mut sql = Statement::new("");
    insert(&mut sql, &[NewRow::signed(CredentialId(*id), certificate)]);
    sql.execute(&mut *tx).await?;
    query("UPDATE credentials SET key_state = $1, usable_until = $2 WHERE id = $3")
        .bind(state.as_str())
        .bind(certificate.usable_until.unix_micros())
        .bind(id.as_bytes().as_slice())
        .execute(tx)
        .await?;
    Ok(())
}
