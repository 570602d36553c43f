//! Tables `epochs` and `key_epochs`.

use super::connection::Connection;
use super::statement::{Row, Statement, query};
use super::tenants;
use super::value::{CHUNK, id_list, text_list, value_by_id};
use crate::audit::event::EventCredential;
use crate::clock::Timestamp;
use crate::credential::{EpochChange, EpochState};
use crate::nfv::{CredentialId, EpochId, TenantId};
use crate::store::records::{Epoch, LiveKey};
use crate::store::{Result, StoreError};
use std::collections::HashSet;
use uuid::Uuid;

/// What an epoch's row is read with; the condition is the caller's.
const SELECT: &str = "SELECT e.*,
    (SELECT CAST(COALESCE(SUM(l.inserted), 0) AS BIGINT) FROM epoch_levels l WHERE l.epoch = e.id) AS keys_inserted,
    (SELECT CAST(COALESCE(SUM(l.live), 0) AS BIGINT) FROM epoch_levels l WHERE l.epoch = e.id) AS keys_live
    FROM epochs e";

/// Inserts an epoch in `CREATING`.
pub(super) async fn create(
    tx: &mut Connection,
    epoch: EpochId,
    tenant: &TenantId,
    now: Timestamp,
) -> Result<Epoch> {
    tenants::require(tx, tenant).await?;
    let current = query("SELECT id, state FROM epochs WHERE tenant = $1 AND state IN ('CREATING', 'OPEN')")
        .bind(tenant.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    if let Some(row) = current {
        return Err(StoreError::Conflict(format!(
            "tenant {tenant} has epoch {} in {}: one takes keys at a time",
            EpochId(row.uuid("id")?),
            row.text("state")?
        )));
    }
    query("INSERT INTO epochs (id, tenant, state, created_at) VALUES ($1, $2, 'CREATING', $3)")
        .bind(epoch.0.as_bytes().as_slice())
        .bind(tenant.as_str())
        .bind(now.unix_micros())
        .execute(&mut *tx)
        .await?;
    by_id(tx, epoch).await
}

/// One epoch.
pub(super) async fn by_id(tx: &mut Connection, epoch: EpochId) -> Result<Epoch> {
    let mut sql = Statement::new(SELECT);
    sql.push(" WHERE e.id = ").push_bind(epoch.0.as_bytes().as_slice());
    let row = sql.fetch_optional(tx).await?;
    row.as_ref().map_or_else(|| Err(missing(epoch)), read)
}

/// Epochs in these states, oldest first.
pub(super) async fn list(
    tx: &mut Connection,
    tenant: Option<&TenantId>,
    states: &[EpochState],
) -> Result<Vec<Epoch>> {
    let mut sql = Statement::new(SELECT);
    sql.push(" WHERE e.state IN ");
    text_list(&mut sql, states.iter().map(|s| s.as_str()));
    if let Some(tenant) = tenant {
        sql.push(" AND e.tenant = ").push_bind(tenant.as_str());
    }
    sql.push(" ORDER BY e.id");
    let rows = sql.fetch_all(tx).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Epoch> {
    Ok(Epoch {
        id: EpochId(row.uuid("id")?),
        tenant: row.parsed("tenant")?,
        state: row.parsed("state")?,
        created_at: row.time("created_at")?,
        first_erasure_at: row.time_or_null("first_erasure_at")?,
        destroyed_at: row.time_or_null("destroyed_at")?,
        token_serial: row.text_or_null("token_serial")?,
        keys: row.number("keys_inserted")?,
        live: row.number("keys_live")?,
    })
}

/// One transition.
pub(super) async fn advance(
    tx: &mut Connection,
    epoch: EpochId,
    change: EpochChange,
    token_serial: Option<&str>,
    now: Timestamp,
) -> Result<Epoch> {
    // Waits for those who are putting keys into it.
    let locked = query("SELECT 1 FROM epochs WHERE id = $1").bind(epoch.0.as_bytes().as_slice());
    locked.locking("FOR UPDATE").fetch_optional(tx).await?;
    let mut record = by_id(tx, epoch).await?;
    let state = record
        .state
        .after(change)
        .map_err(|invalid| StoreError::Conflict(format!("epoch {epoch}: {invalid}")))?;
    // The keys themselves are asked, not the count of them: what is shredded does not come back.
    if change == EpochChange::Shred && !live_keys(tx, epoch, 1).await?.is_empty() {
        return Err(StoreError::Conflict(format!(
            "epoch {epoch} still has {} live keys: re-wrap or erase them first",
            record.live
        )));
    }
    if change == EpochChange::Verify {
        record.destroyed_at = Some(now);
        record.token_serial = token_serial.map(str::to_owned);
    }
    record.state = state;
    query("UPDATE epochs SET state = $1, destroyed_at = $2, token_serial = $3 WHERE id = $4")
        .bind(record.state.as_str())
        .bind(record.destroyed_at.map(Timestamp::unix_micros))
        .bind(record.token_serial.as_deref())
        .bind(epoch.0.as_bytes().as_slice())
        .execute(tx)
        .await?;
    Ok(record)
}

/// Fails unless the epoch takes keys, and sees to it that it goes on doing so until the transaction ends. Gives its tenant.
/// Waits for who changes its state, not for who erases keys and then notes so at their epochs: they may wait for this one.
pub(super) async fn admit(tx: &mut Connection, epoch: EpochId) -> Result<TenantId> {
    let row = query("SELECT tenant, state FROM epochs WHERE id = $1")
        .bind(epoch.0.as_bytes().as_slice())
        .locking("FOR KEY SHARE")
        .fetch_optional(tx)
        .await?
        .ok_or_else(|| missing(epoch))?;
    match row.parsed("state")? {
        EpochState::Open => row.parsed("tenant"),
        state => Err(StoreError::Conflict(format!(
            "epoch {epoch} is {state} and takes no keys: wrap under the open epoch"
        ))),
    }
}

fn missing(epoch: EpochId) -> StoreError {
    StoreError::NotFound(format!("epoch {epoch}"))
}

/// Live keys of an epoch, oldest first.
pub(super) async fn live_keys(tx: &mut Connection, epoch: EpochId, limit: u32) -> Result<Vec<LiveKey>> {
    let rows = query(
        "SELECT c.id AS id, c.public_key_sha256 AS public_key, b.dek_blob AS dek_blob
         FROM credentials c JOIN key_blobs b ON b.credential = c.id
         WHERE c.epoch = $1 AND c.erased_at IS NULL ORDER BY c.id LIMIT $2",
    )
    .bind(epoch.0.as_bytes().as_slice())
    .bind(i64::from(limit))
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(LiveKey {
                credential: EventCredential {
                    id: CredentialId(row.uuid("id")?),
                    public_key: row.hash("public_key")?,
                },
                dek_blob: row.blob("dek_blob")?,
            })
        })
        .collect()
}

/// Moves keys that are still live in `from` to `to`, with their new DEK blobs. What somebody else is changing is left to the
/// next round.
pub(super) async fn rewrapped(
    tx: &mut Connection,
    from: EpochId,
    to: EpochId,
    keys: Vec<(CredentialId, Vec<u8>)>,
) -> Result<Vec<CredentialId>> {
    let left = by_id(tx, from).await?;
    // Before anything is moved: fails unless `to` is open.
    if admit(tx, to).await? != left.tenant {
        return Err(StoreError::Conflict(format!("epochs {from} and {to} belong to different tenants")));
    }
    let mut moved = Vec::new();
    for keys in keys.chunks(CHUNK) {
        let mut sql = Statement::new("SELECT id FROM credentials");
        sql.push(" WHERE key_state IN ('GENERATED', 'AVAILABLE', 'CLAIMED') AND epoch = ");
        sql.push_bind(from.0.as_bytes().as_slice());
        sql.push(" AND id IN ");
        id_list(&mut sql, keys.iter().map(|(id, _)| &id.0));
        sql.lock("FOR NO KEY UPDATE SKIP LOCKED");
        let rows = sql.fetch_all(&mut *tx).await?;
        let ids = rows.iter().map(|row| row.uuid("id")).collect::<Result<HashSet<Uuid>>>()?;
        let keys: Vec<_> = keys.iter().filter(|(id, _)| ids.contains(&id.0)).collect();
        if keys.is_empty() {
            continue;
        }
        let mut sql = Statement::new("UPDATE credentials SET epoch = ");
        sql.push_bind(to.0.as_bytes().as_slice());
        sql.push(" WHERE id IN ");
        id_list(&mut sql, keys.iter().map(|(id, _)| &id.0));
        sql.then("UPDATE key_blobs SET dek_blob = ");
        value_by_id(&mut sql, "credential", keys.iter().map(|(id, blob)| (&id.0, blob.as_slice())));
        sql.push(" WHERE credential IN ");
        id_list(&mut sql, keys.iter().map(|(id, _)| &id.0));
        sql.then("");
        // A copy wrapped for the old epoch lives on in backups until that epoch is shredded too.
        sql.push("INSERT INTO key_epochs (credential, epoch) ");
        sql.push_values(&keys, |mut row, (id, _)| {
            row.push_bind(id.0.as_bytes().as_slice()).push_bind(from.0.as_bytes().as_slice());
        });
        sql.push(" ON CONFLICT (credential, epoch) DO NOTHING");
        sql.execute(&mut *tx).await?;
        moved.extend(keys.iter().map(|(id, _)| *id));
    }
    Ok(moved)
}
