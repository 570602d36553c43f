//! Custody and destruction receipts: columns of `credentials`, with the epochs that a key was ever in.

use super::connection::Connection;
use super::statement::{Row, Statement};
use super::value::{CHUNK, id_list, value_by_id};
use crate::audit::event::EventCredential;
use crate::clock::Timestamp;
use crate::nfv::{CredentialId, EpochId, TenantId};
use crate::store::records::{Custody, CustodyEnd};
use crate::store::{Result, StoreError};

/// What a [`Custody`] is read with; the condition is the caller's.
const SELECT: &str = "SELECT c.*, ce.serial AS serial, ce.state AS certificate_state, cl.vnfci AS vnfci,
    e.destroyed_at AS epoch_destroyed_at, e.token_serial AS token_serial,
    (SELECT COUNT(*) FROM key_epochs k JOIN epochs ke ON ke.id = k.epoch
        WHERE k.credential = c.id AND ke.state <> 'DESTROYED') AS epochs_left,
    (SELECT MAX(ke.destroyed_at) FROM key_epochs k JOIN epochs ke ON ke.id = k.epoch
        WHERE k.credential = c.id) AS former_destroyed_at
    FROM credentials c LEFT JOIN epochs e ON e.id = c.epoch
    LEFT JOIN certificates ce ON ce.credential = c.id AND ce.turn = 0
    LEFT JOIN claims cl ON cl.id = c.claim_id";

/// What is known of one key.
pub(super) async fn of(
    tx: &mut Connection,
    tenant: Option<&TenantId>,
    credential: CredentialId,
) -> Result<Custody> {
    let mut sql = Statement::new(SELECT);
    sql.push(" WHERE c.id = ").push_bind(credential.0.as_bytes().as_slice());
    if let Some(tenant) = tenant {
        sql.push(" AND c.tenant = ").push_bind(tenant.as_str());
    }
    let row = sql.fetch_optional(tx).await?;
    row.as_ref().map_or_else(|| Err(StoreError::NotFound(format!("credential {credential}"))), read)
}

/// Keys that went out and of which nothing is left anywhere, without a receipt. Of a claim that a rolled-back database
/// forgot, the mirror alone told that they went out. Those that ended first come first.
pub(super) async fn receipts_due(tx: &mut Connection, limit: u32) -> Result<Vec<Custody>> {
    let mut sql = Statement::new(SELECT);
    sql.push(
        " WHERE c.custody_ended_at IS NOT NULL AND c.custody_holder_copy <> 'NEVER_DELIVERED' AND c.receipt IS NULL
          AND (c.key_state = 'EXTERNAL' OR c.erased_at IS NOT NULL AND e.state = 'DESTROYED'
              AND NOT EXISTS (SELECT 1 FROM key_epochs k JOIN epochs ke ON ke.id = k.epoch
                  WHERE k.credential = c.id AND ke.state <> 'DESTROYED'))
          ORDER BY c.custody_ended_at, c.id LIMIT ",
    );
    sql.push_bind(i64::from(limit));
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Custody> {
    let ended = match row.time_or_null("custody_ended_at")? {
        Some(at) => {
            let end = CustodyEnd {
                reason: row.parsed("custody_reason")?,
                holder_copy: row.parsed("custody_holder_copy")?,
                revocation: row.parsed("custody_revocation")?,
            };
            Some((end, at))
        }
        None => None,
    };
    let former: Option<Timestamp> = row.time_or_null("former_destroyed_at")?;
    let shredded_at = match row.time_or_null("epoch_destroyed_at")? {
        Some(at) if row.int("epochs_left")? == 0 => Some(former.map_or(at, |former| former.max(at))),
        _ => None,
    };
    Ok(Custody {
        tenant: row.parsed("tenant")?,
        credential: EventCredential {
            id: CredentialId(row.uuid("id")?),
            public_key: row.hash("public_key_sha256")?,
        },
        serial: row.blob_or_null("serial")?.map(hex::encode),
        vnfci: row.parsed_or_null("vnfci")?,
        key_state: row.parsed("key_state")?,
        certificate_state: row.parsed_or_null("certificate_state")?,
        erased_at: row.time_or_null("erased_at")?,
        ended,
        epoch: row.uuid_or_null("epoch")?.map(EpochId),
        shredded_at,
        token_serial: row.text_or_null("token_serial")?,
        receipt: row.text_or_null("receipt")?,
    })
}

/// Keeps receipts; one that exists is left.
pub(super) async fn record_receipts(tx: &mut Connection, receipts: &[(CredentialId, String)]) -> Result<()> {
    for receipts in receipts.chunks(CHUNK) {
        let mut sql = Statement::new("UPDATE credentials SET receipt = ");
        value_by_id(&mut sql, "id", receipts.iter().map(|(id, receipt)| (&id.0, receipt.as_str())));
        sql.push(" WHERE receipt IS NULL AND id IN ");
        id_list(&mut sql, receipts.iter().map(|(id, _)| &id.0));
        sql.execute(&mut *tx).await?;
    }
    Ok(())
}
