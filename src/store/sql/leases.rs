//! Tables `leases` and `marks`.

use super::connection::Connection;
use super::statement::{Row, query};
use crate::clock::Timestamp;
use crate::store::records::{Lease, ORIGIN, PRESENCE, ROLLED_BACK};
use crate::store::{Result, StoreError};
use std::time::Duration;

/// Fails with `Fenced` unless the lease is held as it says, now.
pub(super) async fn check(tx: &mut Connection, lease: &Lease, now: Timestamp) -> Result<()> {
    let held =
        query("SELECT 1 FROM leases WHERE name = $1 AND holder = $2 AND fence = $3 AND expires_at > $4")
            .bind(&lease.name)
            .bind(&lease.holder)
            .bind(super::value::bigint(lease.fence))
            .bind(now.unix_micros())
            // Who takes the lease over waits until this change is committed.
            .locking("FOR SHARE")
            .fetch_optional(tx)
            .await?;
    held.map(|_| ()).ok_or_else(|| StoreError::Fenced(lease.name.clone()))
}

/// Renews a lease that nobody else took since, also one that ran out: a long change holds its row all the time. Fails with
/// `Fenced` otherwise, or if it was given back.
pub(super) async fn keep(
    tx: &mut Connection,
    lease: &Lease,
    duration: Duration,
    now: Timestamp,
) -> Result<()> {
    let kept = query(
        "UPDATE leases SET expires_at = $1 WHERE name = $2 AND holder = $3 AND fence = $4 AND expires_at > 0",
    )
    .bind(now.plus(duration).unix_micros())
    .bind(&lease.name)
    .bind(&lease.holder)
    .bind(super::value::bigint(lease.fence))
    .execute(tx)
    .await?;
    if kept == 0 { Err(StoreError::Fenced(lease.name.clone())) } else { Ok(()) }
}

/// Takes or renews a lease. One that had run out is a new holding, even by the same holder: its number grows.
pub(super) async fn acquire(
    tx: &mut Connection,
    name: &str,
    holder: &str,
    duration: Duration,
    now: Timestamp,
) -> Result<Option<Lease>> {
    let row = query(
        "INSERT INTO leases (name, holder, fence, expires_at) VALUES ($1, $2, 1, $3)
         ON CONFLICT (name) DO UPDATE SET
             fence = CASE WHEN leases.expires_at > $4 THEN leases.fence ELSE leases.fence + 1 END,
             holder = excluded.holder,
             expires_at = excluded.expires_at
         WHERE leases.holder = excluded.holder OR leases.expires_at <= $4
         RETURNING fence",
    )
    .bind(name)
    .bind(holder)
    .bind(now.plus(duration).unix_micros())
    .bind(now.unix_micros())
    .fetch_optional(tx)
    .await?;
    row.map(|row| Ok(Lease { name: name.to_owned(), holder: holder.to_owned(), fence: row.number("fence")? }))
        .transpose()
}

/// Lets a lease run out now. Its row stays, so that the fencing number goes on growing.
pub(super) async fn release(tx: &mut Connection, lease: &Lease) -> Result<()> {
    query("UPDATE leases SET expires_at = 0 WHERE name = $1 AND holder = $2 AND fence = $3")
        .bind(&lease.name)
        .bind(&lease.holder)
        .bind(super::value::bigint(lease.fence))
        .execute(tx)
        .await?;
    Ok(())
}

/// Leases that somebody has now, by name.
pub(super) async fn held(tx: &mut Connection, now: Timestamp) -> Result<Vec<Lease>> {
    let rows = query("SELECT name, holder, fence FROM leases WHERE expires_at > $1 ORDER BY name")
        .bind(now.unix_micros())
        .fetch_all(tx)
        .await?;
    let lease = |row: &Row| {
        Ok(Lease { name: row.text("name")?, holder: row.text("holder")?, fence: row.number("fence")? })
    };
    rows.iter().map(lease).collect()
}

/// Forgets brokers that showed themselves last before `before`: every start has a name of its own, and nothing is fenced by it.
pub(super) async fn forget_presences(tx: &mut Connection, before: Timestamp) -> Result<()> {
    query("DELETE FROM leases WHERE name LIKE $1 AND expires_at < $2")
        .bind(format!("{PRESENCE}%"))
        .bind(before.unix_micros())
        .execute(tx)
        .await?;
    Ok(())
}

/// Notes that the database was rolled back, if its log is still the one that this was found of. Who recovers it meanwhile is
/// waited for.
pub(super) async fn note_rollback(tx: &mut Connection, origin: &str, sentence: &str) -> Result<()> {
    let same = query("SELECT 1 FROM marks WHERE name = $1 AND value = $2")
        .bind(ORIGIN)
        .bind(origin)
        .locking("FOR SHARE")
        .fetch_optional(&mut *tx)
        .await?;
    match same {
        Some(_) => set_mark(tx, ROLLED_BACK, sentence).await,
        None => Ok(()),
    }
}

/// The value of a mark.
pub(super) async fn mark(tx: &mut Connection, name: &str) -> Result<Option<String>> {
    let row = query("SELECT value FROM marks WHERE name = $1").bind(name).fetch_optional(tx).await?;
    row.map(|row| row.text("value")).transpose()
}

/// Sets a mark.
pub(super) async fn set_mark(tx: &mut Connection, name: &str, value: &str) -> Result<()> {
    query(
        "INSERT INTO marks (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(tx)
    .await?;
    Ok(())
}
