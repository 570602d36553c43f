//! Drawing where many draw at a time: each takes other keys, none waits for another, and a pool is called empty only when it
//! is.

use super::claims::{CLAIMED_COLUMNS, next_keys};
use super::connection::{Connection, Queue};
use super::statement::{Row, Statement};
use super::value::id_list;
use crate::clock::Timestamp;
use crate::store::Result;
use uuid::Uuid;

/// The next keys of each (pool, count) with all that a claim gives out, locked until the transaction ends; fewer if a pool
/// has fewer.
///
/// Keys that others are drawing are skipped. If too few are left that way though the pool has enough, some may come free
/// again (their drawers find another pool empty, or fail): then the transaction is made again as one that draws from these
/// pools alone and waits for those who were before it.
pub(super) async fn draw(tx: &mut Connection, wanted: &[(Uuid, i64)], now: Timestamp) -> Result<Vec<Row>> {
    if tx.is_patient() {
        return draw_alone(tx, wanted, now).await;
    }
    let ids = lock(tx, wanted, now, " FOR UPDATE SKIP LOCKED").await?;
    if !enough(&ids, wanted) && there_are(tx, wanted, now).await? {
        return Err(tx.lost_patiently());
    }
    read(tx, &ids).await
}

async fn draw_alone(tx: &mut Connection, wanted: &[(Uuid, i64)], now: Timestamp) -> Result<Vec<Row>> {
    let mut pools: Vec<_> = wanted.iter().map(|(pool, _)| *pool).collect();
    pools.sort_unstable();
    for pool in pools {
        tx.one_at_a_time(Queue::Draw, pool.as_bytes()).await?;
    }
    loop {
        // Waits for keys that are being drawn; those that were taken drop out, and the next look sees what comes after them.
        let ids = lock(tx, wanted, now, " FOR UPDATE").await?;
        if enough(&ids, wanted) || !there_are(tx, wanted, now).await? {
            return read(tx, &ids).await;
        }
    }
}

fn enough(ids: &[Uuid], wanted: &[(Uuid, i64)]) -> bool {
    i64::try_from(ids.len()).is_ok_and(|found| found >= wanted.iter().map(|(_, count)| count).sum())
}

async fn lock(tx: &mut Connection, wanted: &[(Uuid, i64)], now: Timestamp, how: &str) -> Result<Vec<Uuid>> {
    let mut sql = Statement::new("");
    next_keys(&mut sql, wanted, now, how);
    sql.fetch_all(tx).await?.iter().map(|row| row.uuid("id")).collect()
}

/// Whether every pool has as many keys as are wanted, those included that others are drawing.
async fn there_are(tx: &mut Connection, wanted: &[(Uuid, i64)], now: Timestamp) -> Result<bool> {
    for pool in wanted {
        let mut sql = Statement::new("");
        next_keys(&mut sql, &[*pool], now, "");
        let found = sql.fetch_all(tx).await?.len();
        if i64::try_from(found).is_ok_and(|found| found < pool.1) {
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
        " FROM credentials c CROSS JOIN certificates ce CROSS JOIN key_blobs b
         WHERE b.credential = c.id
         AND ce.id = (SELECT MAX(n.id) FROM certificates n WHERE n.credential = c.id) AND c.id IN ",
    );
    id_list(&mut sql, ids);
    sql.push(" ORDER BY c.epoch, c.id");
    sql.fetch_all(tx).await
}
