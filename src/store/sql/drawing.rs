//! Drawing where many draw at a time: each takes other keys, none waits for another, and a pool is called empty only when it
//! is.

use super::claims::{CLAIMED_COLUMNS, next_keys};
use super::connection::{Connection, Queue};
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
/// has fewer.
///
/// Keys that others are drawing are skipped. If too few are left that way though the pool has enough, some may come free
/// again (their drawers find another pool empty, or fail): then the transaction is made again as one that draws from these
/// pools alone and waits for those who were before it.
pub(super) async fn draw(tx: &mut Connection, wanted: &Wanted, now: Timestamp) -> Result<Vec<Row>> {
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
