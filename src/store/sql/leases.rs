//! Tables `leases` and `marks`.

use super::connection::Connection;
use super::statement::query;
use crate::clock::Timestamp;
use crate::store::records::Lease;
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
