//! The order of events goes on where it was when a dump is restored to another server.

use crate::store::Result;
use sqlx::{Acquire, AssertSqlSafe, PgConnection, Row};

/// Bits that the numbers of a server's transactions have at most: 35 years of a million transactions a second.
const ERA_BITS: u32 = 50;

/// Events are ordered by the number of their transaction (column `xact`). Another server counts its transactions anew: its
/// events would come before those that are there, and never be chained. If that is so, the numbers from now on are counted
/// above all that there are. To be called with nobody else at work on the restored database.
pub(super) async fn go_on(connection: &mut PgConnection) -> Result<()> {
    let mut tx = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(CAST($1 AS INTEGER), 0)")
        .bind(crate::store::sql::connection::Queue::Chain as i64)
        .execute(&mut *tx)
        .await?;
    let row = sqlx::query(
        "SELECT COALESCE(MAX(xact), 0) AS latest,
                event_base() + CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT) AS next
         FROM events",
    )
    .fetch_one(&mut *tx)
    .await?;
    let (latest, next): (i64, i64) = (row.try_get("latest")?, row.try_get("next")?);
    if latest >= next {
        let base = ((latest >> ERA_BITS) + 1) << ERA_BITS;
        tracing::warn!(
            "the database was restored to another server: its events go on after those that are there"
        );
        // A number that was computed here: nothing from outside.
        let replace = format!(
            "CREATE OR REPLACE FUNCTION event_base() RETURNS BIGINT LANGUAGE sql STABLE AS \
             $$ SELECT CAST({base} AS BIGINT) $$"
        );
        sqlx::query(AssertSqlSafe(replace)).execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}
