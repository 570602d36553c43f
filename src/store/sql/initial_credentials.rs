//! Table `initial_credentials`.

use super::connection::Connection;
use super::error::unreadable;
use super::statement::{Row, Statement, query};
use super::value::{CHUNK, text_list};
use crate::clock::Timestamp;
use crate::nfv::{AnchorName, InitialCredentialId, Sha256Hash, TenantId};
use crate::store::Result;
use crate::store::records::{InitialCredential, InitialCredentialKind};

/// The columns of a kind: its text, anchor, fingerprint and name.
fn columns(kind: &InitialCredentialKind) -> (&'static str, Option<&str>, Option<&[u8]>, Option<&str>) {
    match kind {
        InitialCredentialKind::X509Fingerprint { anchor, fingerprint } => {
            ("X509_FINGERPRINT", Some(anchor.as_str()), Some(fingerprint.0.as_slice()), None)
        }
        InitialCredentialKind::X509Name { anchor, name } => {
            ("X509_NAME", Some(anchor.as_str()), None, Some(name.as_str()))
        }
        InitialCredentialKind::Token => ("TOKEN", None, None, None),
    }
}

/// Inserts initial credentials.
pub(super) async fn insert(
    tx: &mut Connection,
    credentials: &[InitialCredential],
    now: Timestamp,
) -> Result<()> {
    for credentials in credentials.chunks(CHUNK) {
        let mut sql = Statement::new(
            "INSERT INTO initial_credentials (id, tenant, vnf_instance, vnfci, generation, kind, anchor,
                 fingerprint, name, state, redraws, expires_at, created_at) ",
        );
        sql.push_values(credentials, |mut row, credential| {
            let (kind, anchor, fingerprint, name) = columns(&credential.kind);
            row.push_bind(credential.id.0.as_bytes().as_slice())
                .push_bind(credential.tenant.as_str())
                .push_bind(credential.vnf_instance.as_str())
                .push_bind(credential.vnfci.as_str())
                .push_bind(i64::from(credential.generation))
                .push_bind(kind)
                .push_bind(anchor)
                .push_bind(fingerprint)
                .push_bind(name)
                .push_bind(credential.state.as_str())
                .push("0")
                .push_bind(credential.expires_at.unix_micros())
                .push_bind(now.unix_micros());
        });
        sql.execute(&mut *tx).await?;
    }
    Ok(())
}

/// Reads a row of the table.
pub(super) fn read(row: &Row) -> Result<InitialCredential> {
    let kind = match row.text("kind")?.as_str() {
        "X509_FINGERPRINT" => InitialCredentialKind::X509Fingerprint {
            anchor: row.parsed("anchor")?,
            fingerprint: row.hash("fingerprint")?,
        },
        "X509_NAME" => {
            InitialCredentialKind::X509Name { anchor: row.parsed("anchor")?, name: row.parsed("name")? }
        }
        "TOKEN" => InitialCredentialKind::Token,
        other => return Err(unreadable(&other)),
    };
    Ok(InitialCredential {
        id: InitialCredentialId(row.uuid("id")?),
        tenant: row.parsed("tenant")?,
        vnf_instance: row.parsed("vnf_instance")?,
        vnfci: row.parsed("vnfci")?,
        generation: row.number("generation")?,
        kind,
        state: row.parsed("state")?,
        expires_at: row.time("expires_at")?,
    })
}

/// One initial credential.
pub(super) async fn by_id(tx: &mut Connection, id: InitialCredentialId) -> Result<Option<InitialCredential>> {
    let row = query("SELECT * FROM initial_credentials WHERE id = $1")
        .bind(id.0.as_bytes().as_slice())
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(read).transpose()
}

/// Those of X.509 that a certificate may stand for, newest first.
pub(super) async fn x509(
    tx: &mut Connection,
    tenant: &TenantId,
    anchor: &AnchorName,
    fingerprint: Sha256Hash,
    names: &[String],
) -> Result<Vec<InitialCredential>> {
    // Two searches by index instead of one OR that would read everything under the anchor.
    let mut sql = Statement::new("SELECT * FROM (SELECT * FROM initial_credentials WHERE tenant = ");
    sql.push_bind(tenant.as_str()).push(" AND anchor = ").push_bind(anchor.as_str());
    sql.push(" AND fingerprint = ").push_bind(fingerprint.0.as_slice());
    sql.push(" UNION ALL SELECT * FROM initial_credentials WHERE tenant = ").push_bind(tenant.as_str());
    sql.push(" AND anchor = ").push_bind(anchor.as_str()).push(" AND name IN ");
    text_list(&mut sql, names.iter().map(String::as_str));
    sql.push(") AS found ORDER BY created_at DESC, id DESC");
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read).collect()
}

/// Those that a new one of a tenant could be confused with: the same certificate that is open or was used, or
/// the same name that a VNFCI which has not ended goes by.
pub(super) async fn rivals(
    tx: &mut Connection,
    tenant: &TenantId,
    kinds: &[&InitialCredentialKind],
) -> Result<Vec<InitialCredential>> {
    let mut sql = Statement::new(
        "SELECT i.* FROM initial_credentials i JOIN vnfcis v ON v.tenant = i.tenant AND v.id = i.vnfci
         WHERE i.state IN ('OPEN', 'SPENT') AND i.tenant = ",
    );
    sql.push_bind(tenant.as_str());
    sql.push(" AND (i.fingerprint IN (NULL");
    for kind in kinds {
        if let InitialCredentialKind::X509Fingerprint { fingerprint, .. } = kind {
            sql.push(", ").push_bind(fingerprint.0.as_slice());
        }
    }
    sql.push(") OR (v.state IN ('REGISTERED', 'ACTIVE') AND i.name IN ");
    text_list(
        &mut sql,
        kinds.iter().filter_map(|kind| match kind {
            InitialCredentialKind::X509Name { name, .. } => Some(name.as_str()),
            _ => None,
        }),
    );
    sql.push("))");
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read).collect()
}
