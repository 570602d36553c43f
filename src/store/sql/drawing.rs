//! The next keys of pools. Where many draw at a time each takes other keys, none waits for another, and a pool is called empty
//! only when it is.

use super::claims::CLAIMED_COLUMNS;
use super::connection::{Connection, Dialect, Queue};
use super::statement::{Row, Statement};
use super::value::id_list;
use crate::clock::Timestamp;
use crate::credential::Issue;
use crate::store::Result;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

/// How many keys of which pools are wanted, and when these issue.
type Wanted = [(Uuid, Issue, i64)];

/// The next keys of each pool with all that a claim gives out, locked until the transaction ends; fewer if a pool
/// has fewer. SQLite, where nobody else is at it, reads all by one statement.
///
/// Keys that others are drawing are skipped. If too few are left that way though the pool has enough, some may come free
/// again (their drawers find another pool empty, or fail): then the transaction is made again as one that draws from these
/// pools alone and waits for those who were before it.
pub(super) async fn draw(tx: &mut Connection, wanted: &Wanted, now: Timestamp) -> Result<Vec<Row>> {
    if tx.dialect() == Dialect::Sqlite {
        return draw_statement(wanted, now).fetch_all(tx).await;
    }
    if tx.is_patient() {
        return draw_alone(tx, wanted, now).await;
    }
    let places = tx.places().unwrap_or_default();
    let from = places.of(wanted);
    let mut ids = lock(tx, wanted, &from, now, " FOR UPDATE SKIP LOCKED").await?;
    if !enough(&ids, wanted) && !from.is_empty() {
        ids = lock(tx, wanted, &[], now, " FOR UPDATE SKIP LOCKED").await?;
    }
    if !enough(&ids, wanted) && there_are(tx, wanted, now).await? {
        return Err(tx.lost_patiently());
    }
    let rows = read(tx, &ids).await?;
    places.note(&rows)?;
    Ok(rows)
}

/// Draws in a row that begin where the one before was.
const IN_A_ROW: u32 = 64;

/// Where the draws of this process are in each pool. The index from which keys are drawn keeps the entries of drawn ones until
/// vacuum has been there: a draw that began at the front would walk over all of them, on a pool that is refilled all day over
/// hundreds of thousands. Every now and then one does, for keys that were left behind (by a transaction that drew and was
/// rolled back, or that inserted late).
#[derive(Debug, Default)]
pub struct Places(Mutex<HashMap<Uuid, Place>>);

#[derive(Debug)]
struct Place {
    epoch: Uuid,
    key: Uuid,
    uses: u32,
}

impl Places {
    /// (pool, epoch, key) where to begin, of those pools that have one.
    fn of(&self, wanted: &Wanted) -> Vec<(Uuid, Uuid, Uuid)> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut from = Vec::new();
        for (pool, ..) in wanted {
            if let Some(place) = places.get_mut(pool) {
                place.uses += 1;
                if place.uses < IN_A_ROW {
                    from.push((*pool, place.epoch, place.key));
                } else {
                    places.remove(pool);
                }
            }
        }
        from
    }

    /// Remembers the keys that were drawn, which come in order.
    fn note(&self, rows: &[Row]) -> Result<()> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let (epoch, key) = (row.uuid("epoch")?, row.uuid("id")?);
            let place = places.entry(row.uuid("pool")?).or_insert(Place { epoch, key, uses: 0 });
            (place.epoch, place.key) = (epoch, key);
        }
        Ok(())
    }
}

/// The next keys of each (pool, when it issues, count), with all that a claim gives out: one statement for all pools.
/// The inner selects read nothing but the indexes `credentials_draw` and `credentials_draw_uncertified`; CROSS JOIN
/// keeps SQLite from starting at another table.
fn draw_statement(wanted: &Wanted, now: Timestamp) -> Statement {
    let mut sql = Statement::new("SELECT ");
    sql.push(CLAIMED_COLUMNS).push(" FROM (");
    next_keys(&mut sql, wanted, &[], now, "");
    sql.push(
        ") AS d CROSS JOIN credentials c CROSS JOIN key_blobs b
         LEFT JOIN certificates ce ON ce.credential = c.id
         WHERE c.id = d.id AND b.credential = c.id ORDER BY c.epoch, c.id",
    );
    sql
}

/// Adds a selection of the ids of the next keys of each (pool, when it issues, count), in the order in which they are drawn;
/// of pools in `from` beginning with that (epoch, key).
fn next_keys(sql: &mut Statement, wanted: &Wanted, from: &[(Uuid, Uuid, Uuid)], now: Timestamp, lock: &str) {
    for (place, (pool, issue, count)) in wanted.iter().enumerate() {
        if place > 0 {
            sql.push(" UNION ALL ");
        }
        sql.push("SELECT * FROM (SELECT id FROM credentials WHERE key_state = ");
        match issue {
            Issue::Ahead => {
                // The plus keeps SQLite from searching by time and then sorting the whole pool.
                sql.push("'AVAILABLE' AND +usable_until > ").push_bind(now.unix_micros());
            }
            Issue::AtClaim => {
                sql.push("'GENERATED'");
            }
        }
        sql.push(" AND pool = ").push_bind(pool.as_bytes().as_slice());
        if let Some((_, epoch, key)) = from.iter().find(|(of, ..)| of == pool) {
            sql.push(" AND (epoch, id) >= (").push_bind(epoch.as_bytes().as_slice());
            sql.push(", ").push_bind(key.as_bytes().as_slice()).push(")");
        }
        // In the text, not bound: SQLite looks at the value of a bound LIMIT when it plans, and so prepares the
        // statement again at every execution. There are no more texts than slots of a VNFCI.
        sql.push(" ORDER BY epoch, id LIMIT ").push(*count).push(lock).push(") AS d").push(place);
    }
}

async fn draw_alone(tx: &mut Connection, wanted: &Wanted, now: Timestamp) -> Result<Vec<Row>> {
    let mut pools: Vec<_> = wanted.iter().map(|(pool, ..)| *pool).collect();
    pools.sort_unstable();
    for pool in pools {
        tx.one_at_a_time(Queue::Draw, pool.as_bytes()).await?;
    }
    loop {
        // Waits for keys that are being drawn; those that were taken drop out, and the next look sees what comes after them.
        let ids = lock(tx, wanted, &[], now, " FOR UPDATE").await?;
        if enough(&ids, wanted) || !there_are(tx, wanted, now).await? {
            return read(tx, &ids).await;
        }
    }
}

fn enough(ids: &[Uuid], wanted: &Wanted) -> bool {
    i64::try_from(ids.len()).is_ok_and(|found| found >= wanted.iter().map(|(.., count)| count).sum())
}

async fn lock(
    tx: &mut Connection,
    wanted: &Wanted,
    from: &[(Uuid, Uuid, Uuid)],
    now: Timestamp,
    how: &str,
) -> Result<Vec<Uuid>> {
    let mut sql = Statement::new("");
    next_keys(&mut sql, wanted, from, now, how);
    sql.fetch_all(tx).await?.iter().map(|row| row.uuid("id")).collect()
}

/// Whether every pool has as many keys as are wanted, those included that others are drawing.
async fn there_are(tx: &mut Connection, wanted: &Wanted, now: Timestamp) -> Result<bool> {
    for pool in wanted {
        let mut sql = Statement::new("");
        next_keys(&mut sql, &[*pool], &[], now, "");
        let found = sql.fetch_all(tx).await?.len();
        if i64::try_from(found).is_ok_and(|found| found < pool.2) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a claim gives out of keys that are locked, as it is now: a key may have been re-wrapped until it was locked.
async fn read(tx: &mut Connection, ids: &[Uuid]) -> Result<Vec<Row>> {
    let mut sql = Statement::new("SELECT ");
    sql.push(CLAIMED_COLUMNS);
    sql.push(
        " FROM credentials c CROSS JOIN key_blobs b LEFT JOIN certificates ce ON ce.credential = c.id
         WHERE b.credential = c.id AND c.id IN ",
    );
    id_list(&mut sql, ids);
    sql.push(" ORDER BY c.epoch, c.id");
    sql.fetch_all(tx).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::store::sql::engine::Engine;
    use crate::store::sqlite::SqliteStore;
    use std::sync::Arc;

    /// SQLite's plan for a statement, one line per step.
    async fn plan(sql: Statement) -> String {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(0)));
        let store = SqliteStore::open(&directory.path().join("store.db"), clock).await.unwrap();
        let mut reader = store.engine.reader().await.unwrap();
        let rows = sql.explained().fetch_all(&mut reader).await.unwrap();
        rows.iter().map(|row| row.text("detail").unwrap()).collect::<Vec<_>>().join("\n")
    }

    #[tokio::test]
    async fn drawing_from_a_pool_of_any_size_reads_its_index_in_order() {
        let pools = [
            (Uuid::now_v7(), Issue::Ahead, 1),
            (Uuid::now_v7(), Issue::Ahead, 3),
            (Uuid::now_v7(), Issue::AtClaim, 2),
        ];
        let plan = plan(draw_statement(&pools, Timestamp::from_unix_seconds(0))).await;
        // Each inner select is one search of the index, in its order: no sort of the pool.
        for (pool, index) in
            [("d0", "credentials_draw"), ("d1", "credentials_draw"), ("d2", "credentials_draw_uncertified")]
        {
            let steps = format!(
                "CO-ROUTINE {pool}\nSEARCH credentials USING COVERING INDEX {index} (pool=?)\nSCAN {pool}"
            );
            assert!(plan.contains(&steps), "{plan}");
        }
        assert!(!plan.contains("SCAN credentials") && !plan.contains("SCAN ce"), "{plan}");
    }
}
