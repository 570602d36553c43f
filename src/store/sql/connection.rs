//! A connection to either database, and what a transaction on it needs to know.

use super::drawing::Places;
use super::statement::query;
use crate::nfv::Sha256Hash;
use crate::store::postgres::{answered, is_passing};
use crate::store::{Result, StoreError};
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection, Transaction};
use std::sync::Arc;
use std::time::Duration;

/// Which SQL a connection speaks, for the few texts that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite: one writer, nothing to lock.
    Sqlite,
    /// PostgreSQL: rows are locked before they are judged.
    Postgres,
}

/// A connection, with or without a transaction that was begun on it.
#[allow(clippy::large_enum_variant, reason = "one per call, on the stack of its task")]
pub enum Connection {
    /// The one that writes to SQLite.
    SqliteWriter(SqliteConnection),
    /// One that reads one statement.
    SqliteReader(PoolConnection<Sqlite>),
    /// One that reads several statements of one state.
    SqliteSnapshot(Transaction<'static, Sqlite>),
    /// One with a transaction of a change, or that reads one statement.
    Postgres(Session),
    /// One that reads several statements of one state.
    PostgresSnapshot(Snapshot),
}

/// A connection to PostgreSQL and what went wrong on it since its transaction was begun.
pub struct Session {
    /// The connection.
    pub connection: PoolConnection<Postgres>,
    /// How long the server may say nothing to a statement before it counts as gone.
    pub silence: Duration,
    /// The first error of the database: from then on its transaction can only be rolled back.
    pub failed: Option<Trouble>,
    /// Whether its transaction is made again in a way that waits for others.
    pub patient: bool,
    /// Where the draws of this process are.
    pub places: Arc<Places>,
}

/// A connection to PostgreSQL with a transaction that only reads. One that was not ended is closed.
pub struct Snapshot {
    /// The connection.
    pub connection: PoolConnection<Postgres>,
    /// As [`Session::silence`].
    pub silence: Duration,
    /// Whether its transaction was ended.
    pub ended: bool,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

/// An error of the database inside a transaction.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// What the caller gets.
    pub error: StoreError,
    /// Whether the same change may succeed when it is made again at once: it lost against another one.
    pub passing: bool,
    /// Whether it is to be made again in a way that waits for others.
    pub patient: bool,
    /// Whether the connection is lost, and the transaction with it.
    pub gone: bool,
}

/// A database's own connection.
pub(super) enum Handle<'c> {
    /// To SQLite.
    Sqlite(&'c mut SqliteConnection),
    /// To PostgreSQL, and how long the server may say nothing.
    Postgres(&'c mut PgConnection, Duration),
}

impl Connection {
    /// Which SQL it speaks.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::SqliteWriter(_) | Self::SqliteReader(_) | Self::SqliteSnapshot(_) => Dialect::Sqlite,
            Self::Postgres(_) | Self::PostgresSnapshot(_) => Dialect::Postgres,
        }
    }

    /// The database's own connection.
    pub(super) fn handle(&mut self) -> Handle<'_> {
        match self {
            Self::SqliteWriter(connection) => Handle::Sqlite(connection),
            Self::SqliteReader(connection) => Handle::Sqlite(connection),
            Self::SqliteSnapshot(transaction) => Handle::Sqlite(transaction),
            Self::Postgres(session) => Handle::Postgres(&mut session.connection, session.silence),
            Self::PostgresSnapshot(snapshot) => Handle::Postgres(&mut snapshot.connection, snapshot.silence),
        }
    }

    /// Runs a text without values that is not kept prepared: the beginning and the end of transactions.
    pub async fn command(&mut self, sql: &'static str) -> Result<()> {
        let outcome = match self.handle() {
            Handle::Sqlite(connection) => sqlx::raw_sql(sql).execute(connection).await.map(|_| ()),
            Handle::Postgres(connection, silence) => {
                answered(silence, sqlx::raw_sql(sql).execute(connection)).await.map(|_| ())
            }
        };
        outcome.map_err(|error| self.note(error))
    }

    /// Ends a snapshot.
    pub async fn end(self) -> Result<()> {
        match self {
            Self::SqliteSnapshot(transaction) => Ok(transaction.commit().await?),
            Self::PostgresSnapshot(mut snapshot) => {
                let commit = sqlx::raw_sql("COMMIT").execute(&mut *snapshot.connection);
                answered(snapshot.silence, commit).await?;
                snapshot.ended = true;
                Ok(())
            }
            Self::SqliteWriter(_) | Self::SqliteReader(_) | Self::Postgres(_) => Ok(()),
        }
    }

    /// Keeps the first error of a transaction and gives it on. A connection that does not answer is not used again.
    pub(super) fn note(&mut self, error: sqlx::Error) -> StoreError {
        let passing = is_passing(&error);
        let gone = matches!(error, sqlx::Error::Io(_));
        if let Self::Postgres(session) = self
            && gone
        {
            session.connection.close_on_drop();
        }
        let error = StoreError::from(error);
        if let Self::Postgres(session) = self
            && session.failed.is_none()
        {
            session.failed = Some(Trouble { error: error.clone(), passing, patient: false, gone });
        }
        error
    }

    /// Whether the transaction is made again in a way that waits for others.
    pub fn is_patient(&self) -> bool {
        matches!(self, Self::Postgres(session) if session.patient)
    }

    /// The transaction is to be made again, in a way that waits for others.
    pub fn lost_patiently(&mut self) -> StoreError {
        let error = StoreError::Unavailable("others hold what is needed; try again".to_owned());
        if let Self::Postgres(session) = self {
            session.failed =
                Some(Trouble { error: error.clone(), passing: true, patient: true, gone: false });
        }
        error
    }

    /// Where the draws of this process are, in PostgreSQL.
    pub(super) fn places(&self) -> Option<Arc<Places>> {
        match self {
            Self::Postgres(session) => Some(Arc::clone(&session.places)),
            _ => None,
        }
    }

    /// Until the transaction ends, nobody else gets past this point with the same `name` and `part`. SQLite has one writer
    /// anyway.
    pub async fn one_at_a_time(&mut self, name: Queue, part: &[u8]) -> Result<()> {
        if self.dialect() == Dialect::Sqlite {
            return Ok(());
        }
        let hash = Sha256Hash::of(part).0;
        let part = i32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        query("SELECT pg_advisory_xact_lock(CAST($1 AS INTEGER), CAST($2 AS INTEGER))")
            .bind(name as i64)
            .bind(i64::from(part))
            .execute(self)
            .await?;
        Ok(())
    }
}

/// What is done one at a time ([`Connection::one_at_a_time`]).
#[derive(Debug, Clone, Copy)]
pub enum Queue {
    /// Extending the audit chain.
    Chain = 1,
    /// Drawing the last keys of a pool.
    Draw = 2,
    /// Folding counts.
    Fold = 3,
}
