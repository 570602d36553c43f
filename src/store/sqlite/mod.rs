//! The embedded store: SQLite, one process, group commit.
//!
//! Changes run in the one writing task ([`writer`]), reads on a few read-only connections. The statements are in
//! [`sql`](super::sql), the schema in `migrations/sqlite`.

mod error;
mod open;
mod writer;

pub use open::SqliteOptions;

use super::Result;
use super::continuity::Continuity;
use super::sql::SqlStore;
use super::sql::connection::Connection;
use super::sql::engine::Engine;
use crate::clock::{Clock, Timestamp};
pub(super) use error::meaning;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use writer::Writer;

/// A store in one SQLite file.
pub type SqliteStore = SqlStore<Sqlite>;

/// The [`Engine`] of one SQLite file.
pub struct Sqlite {
    writer: Writer,
    readers: sqlx::SqlitePool,
    clock: Arc<dyn Clock>,
    continuity: Arc<Continuity>,
}

impl Engine for Sqlite {
    async fn now(&self) -> Result<Timestamp> {
        Ok(self.clock.now())
    }

    fn generation(&self) -> Option<u64> {
        Some(self.writer.commits())
    }

    fn continuity(&self) -> &Arc<Continuity> {
        &self.continuity
    }

    async fn change<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> BoxFuture<'c, Result<T>> + Clone + Send + 'static,
    {
        let clock = Arc::clone(&self.clock);
        self.writer
            .run(move |tx| {
                let now = clock.now();
                body(tx, now)
            })
            .await
    }

    async fn reader(&self) -> Result<Connection> {
        Ok(Connection::SqliteReader(self.readers.acquire().await?))
    }

    async fn snapshot(&self) -> Result<Connection> {
        Ok(Connection::SqliteSnapshot(self.readers.begin().await?))
    }

    async fn close(&self) {
        // The writer last: the last connection that closes empties the write-ahead log into the file.
        self.readers.close().await;
        self.writer.close().await;
    }
}
