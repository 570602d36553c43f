//! Tables `events`, `event_credentials`, `audit_chain` and `heads`.

use super::error::unreadable;
use super::value::{CHUNK, Columns, bigint, statement};
use crate::audit::event::Event;
use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use crate::store::records::{AuditEntry, AuditQuery, ChainTip, UnchainedEvent};
use crate::store::{Result, StoreError};
use sqlx::{QueryBuilder, SqliteConnection};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Appends events, not chained yet, with the index by key.
pub(super) async fn insert(tx: &mut SqliteConnection, events: &[Event]) -> Result<()> {
    for events in events.chunks(CHUNK) {
        let mut sql = QueryBuilder::new(
            "INSERT INTO events (id, time, kind, actor, tenant, vnf_instance, vnfci, json) ",
        );
        let mut keys = BTreeSet::new();
        let mut rows = Vec::with_capacity(events.len());
        for event in events {
            let json = serde_json::to_string(event)
                .map_err(|e| StoreError::Unusable(format!("an audit event cannot be written: {e}")))?;
            rows.push((event, json));
            keys.extend(event.credentials.iter().map(|c| (c.public_key, event.id)));
        }
        sql.push_values(rows, |mut row, (event, json)| {
            row.push_bind(event.id.as_bytes().as_slice())
                .push_bind(event.time.unix_micros())
                .push_bind(event.kind.as_str())
                .push_bind(&event.actor.0)
                .push_bind(event.tenant.as_ref().map(|t| t.as_str()))
                .push_bind(event.vnf_instance.as_ref().map(|v| v.as_str()))
                .push_bind(event.vnfci.as_ref().map(|v| v.as_str()))
                .push_bind(json);
        });
        let keys: Vec<_> = keys.into_iter().collect();
        let mut chunks = keys.chunks(CHUNK);
        // The first rows travel with the events: one statement less for every claim.
        if let Some(first) = chunks.next() {
            sql.push("; ");
            index_keys(&mut sql, first);
        }
        statement(&mut sql).execute(&mut *tx).await?;
        for chunk in chunks {
            let mut sql = QueryBuilder::new("");
            index_keys(&mut sql, chunk);
            statement(&mut sql).execute(&mut *tx).await?;
        }
    }
    Ok(())
}

fn index_keys(sql: &mut QueryBuilder<sqlx::Sqlite>, keys: &[(Sha256Hash, Uuid)]) {
    sql.push("INSERT INTO event_credentials (public_key, event_id) ");
    sql.push_values(keys, |mut row, (key, event)| {
        row.push_bind(key.0.as_slice()).push_bind(event.as_bytes().as_slice());
    });
}

/// Size and hash of the chain.
pub(super) async fn tip(tx: &mut SqliteConnection) -> Result<ChainTip> {
    let row =
        sqlx::query("SELECT idx, hash FROM audit_chain ORDER BY idx DESC LIMIT 1").fetch_optional(tx).await?;
    match row {
        Some(row) => Ok(ChainTip { size: row.number::<u64>("idx")? + 1, hash: Some(row.hash("hash")?) }),
        None => Ok(ChainTip { size: 0, hash: None }),
    }
}

/// The commit order's number of the last chained event; -1 if none is.
async fn last_chained(tx: &mut SqliteConnection) -> Result<i64> {
    let row = sqlx::query(
        "SELECT e.seq AS seq FROM audit_chain a JOIN events e ON e.id = a.event_id ORDER BY a.idx DESC LIMIT 1",
    )
    .fetch_optional(tx)
    .await?;
    row.map_or(Ok(-1), |row| row.int("seq"))
}

/// Events that are not chained yet, in commit order, and how many there are.
pub(super) async fn unchained(tx: &mut SqliteConnection, limit: u32) -> Result<(Vec<UnchainedEvent>, u64)> {
    let last = last_chained(tx).await?;
    let rows = sqlx::query("SELECT json FROM events WHERE seq > $1 ORDER BY seq LIMIT $2")
        .bind(last)
        .bind(i64::from(limit))
        .fetch_all(&mut *tx)
        .await?;
    let events = rows
        .iter()
        .map(|row| {
            let json = row.text("json")?;
            let event = serde_json::from_str(&json).map_err(|e| unreadable(&e))?;
            Ok(UnchainedEvent { event, json })
        })
        .collect::<Result<Vec<_>>>()?;
    let count =
        sqlx::query("SELECT COUNT(*) AS n FROM events WHERE seq > $1").bind(last).fetch_one(tx).await?;
    Ok((events, count.number("n")?))
}

/// Gives the next events in commit order their index and hash.
pub(super) async fn chain(
    tx: &mut SqliteConnection,
    expected: &ChainTip,
    entries: &[(Uuid, Sha256Hash)],
) -> Result<()> {
    let found = tip(tx).await?;
    if found != *expected {
        return Err(StoreError::Conflict(format!(
            "the audit chain has {} entries, not {}: another sequencer extended it; read it again",
            found.size, expected.size
        )));
    }
    let last = last_chained(tx).await?;
    let next = sqlx::query("SELECT id FROM events WHERE seq > $1 ORDER BY seq LIMIT $2")
        .bind(last)
        .bind(bigint(entries.len() as u64))
        .fetch_all(&mut *tx)
        .await?;
    let next = next.iter().map(|row| row.uuid("id")).collect::<Result<Vec<_>>>()?;
    if !next.iter().eq(entries.iter().map(|(id, _)| id)) {
        // An event that is skipped would never be chained.
        return Err(StoreError::Conflict(
            "the events to be chained are not the next ones in commit order; read them again".to_owned(),
        ));
    }
    let mut index = bigint(expected.size);
    for entries in entries.chunks(CHUNK) {
        let mut sql = QueryBuilder::new("INSERT INTO audit_chain (idx, event_id, hash) ");
        sql.push_values(entries, |mut row, (event, hash)| {
            row.push_bind(index).push_bind(event.as_bytes().as_slice()).push_bind(hash.0.as_slice());
            index += 1;
        });
        statement(&mut sql).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Keeps a signed head.
pub(super) async fn record_head(
    tx: &mut SqliteConnection,
    size: u64,
    signed_head: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO heads (size, signed_head, created_at) VALUES ($1, $2, $3)
         ON CONFLICT (size) DO UPDATE SET signed_head = excluded.signed_head, created_at = excluded.created_at",
    )
    .bind(bigint(size))
    .bind(signed_head)
    .bind(now.unix_micros())
    .execute(tx)
    .await?;
    Ok(())
}

/// The latest signed head.
pub(super) async fn latest_head(tx: &mut SqliteConnection) -> Result<Option<String>> {
    let row =
        sqlx::query("SELECT signed_head FROM heads ORDER BY size DESC LIMIT 1").fetch_optional(tx).await?;
    row.map(|row| row.text("signed_head")).transpose()
}

/// Chained events that match.
pub(super) async fn entries(tx: &mut SqliteConnection, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
    let mut sql = QueryBuilder::new(
        "SELECT a.idx AS idx, a.hash AS hash, e.json AS json
         FROM audit_chain a JOIN events e ON e.id = a.event_id WHERE a.idx >= ",
    );
    sql.push_bind(bigint(query.from_index));
    if let Some(key) = &query.public_key {
        sql.push(" AND a.event_id IN (SELECT event_id FROM event_credentials WHERE public_key = ");
        sql.push_bind(key.0.as_slice()).push(")");
    }
    if let Some(tenant) = &query.tenant {
        sql.push(" AND e.tenant = ").push_bind(tenant.as_str());
    }
    if let Some(vnfci) = &query.vnfci {
        sql.push(" AND e.vnfci = ").push_bind(vnfci.as_str());
    }
    if let Some(actor) = &query.actor {
        sql.push(" AND e.actor = ").push_bind(actor);
    }
    if let Some(kind) = query.kind {
        sql.push(" AND e.kind = ").push_bind(kind.as_str());
    }
    if let Some(since) = query.since {
        sql.push(" AND e.time >= ").push_bind(since.unix_micros());
    }
    if let Some(until) = query.until {
        sql.push(" AND e.time < ").push_bind(until.unix_micros());
    }
    sql.push(" ORDER BY a.idx LIMIT ").push_bind(i64::from(query.limit));
    let rows = statement(&mut sql).fetch_all(tx).await?;
    rows.iter()
        .map(|row| {
            Ok(AuditEntry { index: row.number("idx")?, hash: row.hash("hash")?, json: row.text("json")? })
        })
        .collect()
}
