//! Tables `events`, `event_credentials`, `audit_chain` and `heads`.

use super::connection::{Connection, Dialect, Queue};
use super::error::unreadable;
use super::statement::{Row, Statement, query};
use super::value::{CHUNK, bigint};
use crate::audit::event::Event;
use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use crate::store::records::{AuditEntry, AuditQuery, ChainTip, UnchainedEvent};
use crate::store::{Result, StoreError};
use std::collections::BTreeSet;
use uuid::Uuid;

/// How often events that are not settled yet are looked for at once. Transactions that end between the two looks that
/// [`next`] takes, at those that run and at whose they are, hold back more than need be.
const LOOKS: u32 = 3;

/// Appends events, not chained yet, with the index by key.
pub(super) async fn insert(tx: &mut Connection, events: &[Event]) -> Result<()> {
    for events in events.chunks(CHUNK) {
        let mut sql =
            Statement::new("INSERT INTO events (id, time, kind, actor, tenant, vnf_instance, vnfci, json) ");
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
            sql.then("");
            index_keys(&mut sql, first);
        }
        sql.execute(&mut *tx).await?;
        for chunk in chunks {
            let mut sql = Statement::new("");
            index_keys(&mut sql, chunk);
            sql.execute(&mut *tx).await?;
        }
    }
    Ok(())
}

fn index_keys(sql: &mut Statement, keys: &[(Sha256Hash, Uuid)]) {
    sql.push("INSERT INTO event_credentials (public_key, event_id) ");
    sql.push_values(keys, |mut row, (key, event)| {
        row.push_bind(key.0.as_slice()).push_bind(event.as_bytes().as_slice());
    });
}

/// Size and hash of the chain.
pub(super) async fn tip(tx: &mut Connection) -> Result<ChainTip> {
    let row = query("SELECT idx, hash FROM audit_chain ORDER BY idx DESC LIMIT 1").fetch_optional(tx).await?;
    match row {
        Some(row) => Ok(ChainTip { size: row.number::<u64>("idx")? + 1, hash: Some(row.hash("hash")?) }),
        None => Ok(ChainTip { size: 0, hash: None }),
    }
}

/// Where in the commit order the last chained event is: its transaction and its own number. SQLite, with one writer, has no
/// need of the former.
async fn last_chained(tx: &mut Connection) -> Result<(i64, i64)> {
    let mut sql = Statement::new(match tx.dialect() {
        Dialect::Sqlite => "SELECT 0 AS xact, e.seq AS seq",
        Dialect::Postgres => "SELECT e.xact AS xact, e.seq AS seq",
    });
    sql.push(" FROM audit_chain a JOIN events e ON e.id = a.event_id ORDER BY a.idx DESC LIMIT 1");
    let row = sql.fetch_optional(tx).await?;
    row.map_or(Ok((-1, -1)), |row| Ok((row.int("xact")?, row.int("seq")?)))
}

/// Adds which events come after the last chained one.
fn after(sql: &mut Statement, dialect: Dialect, last: (i64, i64)) {
    match dialect {
        Dialect::Sqlite => sql.push(" FROM events WHERE seq > ").push_bind(last.1),
        Dialect::Postgres => {
            sql.push(" FROM events WHERE (xact, seq) > (").push_bind(last.0).push(", ");
            sql.push_bind(last.1).push(")")
        }
    };
}

/// One column of the next events in commit order, of those before which none can come any more.
async fn next(tx: &mut Connection, column: &str, last: (i64, i64), limit: i64) -> Result<Vec<Row>> {
    let mut sql = Statement::new("SELECT ");
    sql.push(column);
    after(&mut sql, tx.dialect(), last);
    sql.push(match tx.dialect() {
        Dialect::Sqlite => " ORDER BY seq LIMIT ",
        Dialect::Postgres => " AND xact < (SELECT settled_before()) ORDER BY xact, seq LIMIT ",
    });
    sql.push_bind(limit).fetch_all(tx).await
}

/// Events that are not chained yet, in commit order, and how many there are.
pub(super) async fn unchained(tx: &mut Connection, limit: u32) -> Result<(Vec<UnchainedEvent>, u64)> {
    let last = last_chained(tx).await?;
    let mut looks = LOOKS;
    let (rows, count) = loop {
        let rows = next(tx, "json", last, i64::from(limit)).await?;
        let mut sql = Statement::new("SELECT COUNT(*) AS n");
        after(&mut sql, tx.dialect(), last);
        let count: u64 = sql.fetch_one(tx).await?.number("n")?;
        looks -= 1;
        if looks == 0 || rows.len() as u64 >= count.min(u64::from(limit)) {
            break (rows, count);
        }
    };
    let events = rows
        .iter()
        .map(|row| {
            let json = row.text("json")?;
            let event = serde_json::from_str(&json).map_err(|e| unreadable(&e))?;
            Ok(UnchainedEvent { event, json })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((events, count))
}

/// Gives the next events in commit order their index and hash.
pub(super) async fn chain(
    tx: &mut Connection,
    expected: &ChainTip,
    entries: &[(Uuid, Sha256Hash)],
) -> Result<()> {
    tx.one_at_a_time(Queue::Chain, &[]).await?;
    let found = tip(tx).await?;
    if found != *expected {
        return Err(StoreError::Conflict(format!(
            "the audit chain has {} entries, not {}: another sequencer extended it; read it again",
            found.size, expected.size
        )));
    }
    let last = last_chained(tx).await?;
    let mut looks = LOOKS;
    let next = loop {
        let rows = next(tx, "id", last, bigint(entries.len() as u64)).await?;
        looks -= 1;
        if looks == 0 || rows.len() >= entries.len() {
            break rows;
        }
    };
    let next = next.iter().map(|row| row.uuid("id")).collect::<Result<Vec<_>>>()?;
    if !next.iter().eq(entries.iter().map(|(id, _)| id)) {
        // An event that is skipped would never be chained.
        return Err(StoreError::Conflict(
            "the events to be chained are not the next ones in commit order; read them again".to_owned(),
        ));
    }
    let mut index = bigint(expected.size);
    for entries in entries.chunks(CHUNK) {
        let mut sql = Statement::new("INSERT INTO audit_chain (idx, event_id, hash) ");
        sql.push_values(entries, |mut row, (event, hash)| {
            row.push_bind(index).push_bind(event.as_bytes().as_slice()).push_bind(hash.0.as_slice());
            index += 1;
        });
        sql.execute(&mut *tx).await?;
    }
    Ok(())
}

/// Keeps a signed head, if the chain has what was signed: a recovery may have begun another one meanwhile.
pub(super) async fn record_head(
    tx: &mut Connection,
    signed: &ChainTip,
    signed_head: &str,
    now: Timestamp,
) -> Result<()> {
    tx.one_at_a_time(Queue::Chain, &[]).await?;
    let there = query("SELECT 1 FROM audit_chain WHERE idx = $1 AND hash = $2")
        .bind(bigint(signed.size) - 1)
        .bind(signed.hash.map(|hash| hash.0.to_vec()).unwrap_or_default())
        .fetch_optional(&mut *tx)
        .await?;
    if there.is_none() {
        return Err(StoreError::Conflict(format!(
            "the audit chain is not the one whose {} entries were signed: the head is not kept",
            signed.size
        )));
    }
    query(
        "INSERT INTO heads (size, signed_head, created_at) VALUES ($1, $2, $3)
         ON CONFLICT (size) DO UPDATE SET signed_head = excluded.signed_head, created_at = excluded.created_at",
    )
    .bind(bigint(signed.size))
    .bind(signed_head)
    .bind(now.unix_micros())
    .execute(tx)
    .await?;
    Ok(())
}

/// The latest signed head.
pub(super) async fn latest_head(tx: &mut Connection) -> Result<Option<String>> {
    let row = query("SELECT signed_head FROM heads ORDER BY size DESC LIMIT 1").fetch_optional(tx).await?;
    row.map(|row| row.text("signed_head")).transpose()
}

/// Chained events that match.
pub(super) async fn entries(tx: &mut Connection, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
    let mut sql = Statement::new(
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
    let rows = sql.fetch_all(tx).await?;
    rows.iter()
        .map(|row| {
            Ok(AuditEntry { index: row.number("idx")?, hash: row.hash("hash")?, json: row.text("json")? })
        })
        .collect()
}
