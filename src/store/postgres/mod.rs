//! The store of several brokers: PostgreSQL, many transactions at a time.
//!
//! A change is one transaction on a connection of its own, in a task of its own, so that nothing that happens to its caller
//! leaves one half done. It is made again when it lost against another one. The statements are in [`sql`](super::sql), the
//! schema in `migrations/postgres`.

mod error;
mod open;
mod order;

pub use open::PostgresOptions;

use super::continuity::{Continuity, Identity};
use super::sql::SqlStore;
use super::sql::connection::{Connection, Session, Snapshot};
use super::sql::drawing::Places;
use super::sql::engine::Engine;
use super::{Result, StoreError};
use crate::clock::{Clock, Timestamp};
pub(super) use error::{answered, is_passing, meaning};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::RngExt;
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions, Row};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A store in a PostgreSQL database.
pub type PostgresStore = SqlStore<Postgres>;

/// How often a change is made before its caller learns that it lost against others.
const ATTEMPTS: u32 = 6;
/// Longest pause before the second attempt; it doubles with each.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a server that has no connection left is asked why.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

/// The database's clock, in microseconds since 1970.
const NOW: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS now";

/// The [`Engine`] of a PostgreSQL database.
pub struct Postgres {
    pool: sqlx::PgPool,
    /// Whose threads read and write the connections. Callers live in runtimes that may end before the store: a connection that
    /// was made in one of them would end with it.
    home: Handle,
    /// The tests' clock; the database's is used if there is none.
    clock: Option<Arc<dyn Clock>>,
    changes: TaskTracker,
    places: Arc<Places>,
    silence: Silence,
    continuity: Arc<Continuity>,
}

/// How long the server may say nothing before it counts as gone.
#[derive(Clone, Copy)]
struct Silence {
    /// To what takes it no time: the beginning of a transaction, one statement that reads.
    short: Duration,
    /// To a statement of a change: longer than the server works on one, so that it would have said at least that.
    long: Duration,
}

impl Engine for Postgres {
    async fn now(&self) -> Result<Timestamp> {
        match &self.clock {
            Some(clock) => Ok(clock.now()),
            None => {
                let mut connection = self.connection().await?;
                let answer = answered(self.silence.short, sqlx::query(NOW).fetch_one(&mut *connection)).await;
                if answer.is_err() {
                    connection.close_on_drop();
                }
                time(&answer?)
            }
        }
    }

    fn generation(&self) -> Option<u64> {
        None
    }

    fn continuity(&self) -> &Arc<Continuity> {
        &self.continuity
    }

    async fn change<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> BoxFuture<'c, Result<T>> + Clone + Send + 'static,
    {
        let (pool, clock, places) = (self.pool.clone(), self.clock.clone(), Arc::clone(&self.places));
        let silence = self.silence;
        let task = async move { change(&pool, clock.as_deref(), silence, &places, body).await };
        let task = self.changes.spawn_on(task, &self.home);
        // A child of what asks, in the traces; work that nobody asked for has none.
        let span = if tracing::Span::current().is_none() {
            tracing::Span::none()
        } else {
            tracing::trace_span!("store commit", db.system = "postgresql")
        };
        task.instrument(span)
            .await
            .unwrap_or_else(|_| Err(unavailable("the change failed inside the broker; it was undone")))
    }

    async fn reader(&self) -> Result<Connection> {
        Ok(Connection::Postgres(Session {
            connection: self.connection().await?,
            silence: self.silence.short,
            failed: None,
            patient: false,
            places: Arc::clone(&self.places),
        }))
    }

    async fn snapshot(&self) -> Result<Connection> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let connection = self.connection().await?;
        let mut snapshot = Snapshot { connection, silence: self.silence.long, ended: false };
        let begun = sqlx::raw_sql(begin).execute(&mut *snapshot.connection);
        answered(self.silence.short, begun).await?;
        Ok(Connection::PostgresSnapshot(snapshot))
    }

    async fn close(&self) {
        self.changes.close();
        self.changes.wait().await;
        self.pool.close().await;
    }
}

/// Which database a connection leads to. A standby is none to work on: what it says now it may not say later.
async fn identity(connection: &mut sqlx::PgConnection) -> sqlx::Result<Identity> {
    const ASK: &str = "SELECT CONCAT_WS(' ',
               'system', (SELECT system_identifier FROM pg_control_system()),
               'timeline', CASE WHEN NOT pg_is_in_recovery()
                           THEN SUBSTR(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
               'database', (SELECT oid FROM pg_database WHERE datname = current_database()),
               'table', CAST(CAST(to_regclass('events') AS OID) AS TEXT)) AS database,
           pg_is_in_recovery() AS standby,
           CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000 AS BIGINT) AS started";
    let row = sqlx::raw_sql(ASK).fetch_one(connection).await?;
    if row.try_get("standby")? {
        return Err(sqlx::Error::Protocol(
            "the server is a standby: connect to the primary server".to_owned(),
        ));
    }
    Ok(Identity { database: row.try_get("database")?, started: row.try_get("started")? })
}

impl Postgres {
    /// A connection to read by; made at home, if one has to be made.
    async fn connection(&self) -> Result<PoolConnection<sqlx::Postgres>> {
        let pool = self.pool.clone();
        let acquired = self.home.spawn(async move { acquire(&pool).await }).await;
        acquired.map_err(|_| unavailable("the broker is ending"))?
    }
}

/// A connection. The broker has worked on the database: whatever is said of it now, that it does not exist or lets nobody in, it
/// may be back soon, as when another one takes its place.
async fn acquire(pool: &sqlx::PgPool) -> Result<PoolConnection<sqlx::Postgres>> {
    let error = match pool.acquire().await {
        Ok(connection) => return Ok(connection),
        // The pool tries again while the server takes no further connection, and then knows only that time ran out.
        Err(sqlx::Error::PoolTimedOut) if pool.size() < pool.options().get_max_connections() => {
            refused(pool).await.unwrap_or(sqlx::Error::PoolTimedOut)
        }
        Err(error) => error,
    };
    Err(match StoreError::from(error) {
        StoreError::Unusable(why) => StoreError::Unavailable(why),
        other => other,
    })
}

/// What the server says to a connection more, if it refuses one soon.
async fn refused(pool: &sqlx::PgPool) -> Option<sqlx::Error> {
    let connecting = pool.connect_options();
    tokio::time::timeout(REFUSED_WITHIN, connecting.connect()).await.ok()?.err()
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}

fn time(row: &sqlx::postgres::PgRow) -> Result<Timestamp> {
    Ok(Timestamp::from_unix_micros(row.try_get("now")?))
}

/// What came of one attempt.
enum Attempt<T> {
    Done(Result<T>),
    /// It lost against another transaction; whether the next attempt is to wait for others.
    Lost(StoreError, bool),
}

async fn change<T, F>(
    pool: &sqlx::PgPool,
    clock: Option<&dyn Clock>,
    silence: Silence,
    places: &Arc<Places>,
    body: F,
) -> Result<T>
where
    F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> BoxFuture<'c, Result<T>> + Clone,
{
    let mut pause = PAUSE;
    let mut patient = false;
    for number in 1.. {
        match attempt(pool, clock, silence, patient, places, body.clone()).await {
            Attempt::Done(outcome) => return outcome,
            Attempt::Lost(error, _) if number == ATTEMPTS => return Err(error),
            Attempt::Lost(_, true) => patient = true,
            Attempt::Lost(_, false) => {
                let part: f64 = rand::rng().random_range(0.2..1.0);
                tokio::time::sleep(pause.mul_f64(part)).await;
                pause *= 2;
            }
        }
    }
    Err(unavailable("the change lost against others"))
}

async fn attempt<T, F>(
    pool: &sqlx::PgPool,
    clock: Option<&dyn Clock>,
    silence: Silence,
    patient: bool,
    places: &Arc<Places>,
    body: F,
) -> Attempt<T>
where
    F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> BoxFuture<'c, Result<T>>,
{
    let (mut session, now) = match begin(pool, clock, silence).await {
        Ok(begun) => begun,
        Err(error) => return Attempt::Done(Err(error)),
    };
    session.patient = patient;
    session.places = Arc::clone(places);
    let mut connection = Connection::Postgres(session);
    // Unwind safety: the body's own state is dropped, and what it wrote is rolled back.
    let outcome = AssertUnwindSafe(async { body(&mut connection, now).await })
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(unavailable("the change failed inside the broker; it was undone")));
    let Connection::Postgres(mut session) = connection else {
        return Attempt::Done(Err(unavailable("its connection was lost")));
    };
    // What was written before an error is gone, whatever the body made of the error.
    let outcome = match (outcome, session.failed.take()) {
        (Ok(_), Some(trouble)) => Err((trouble.error.clone(), Some(trouble))),
        (Err(error), trouble) => Err((error, trouble)),
        (Ok(outcome), None) => Ok(outcome),
    };
    match outcome {
        Ok(outcome) => match end(&mut session, "COMMIT").await {
            Ok(_) => Attempt::Done(Ok(outcome)),
            Err(error) => {
                session.connection.close_on_drop();
                let passing = is_passing(&error);
                let error = StoreError::from(error);
                if passing { Attempt::Lost(error, false) } else { Attempt::Done(Err(error)) }
            }
        },
        Err((error, trouble)) => {
            session.silence = silence.short;
            let gone = trouble.as_ref().is_some_and(|trouble| trouble.gone);
            if !gone && end(&mut session, "ROLLBACK").await.is_err() {
                session.connection.close_on_drop();
            }
            match trouble {
                Some(trouble) if trouble.passing => Attempt::Lost(error, trouble.patient),
                _ => Attempt::Done(Err(error)),
            }
        }
    }
}

async fn end(session: &mut Session, how: &'static str) -> sqlx::Result<()> {
    let done = sqlx::raw_sql(how).execute(&mut *session.connection);
    answered(session.silence, done).await.map(|_| ())
}

/// Begins a transaction. A connection that does not answer any more is let go of and another one taken: nothing was begun on
/// it.
async fn begin(
    pool: &sqlx::PgPool,
    clock: Option<&dyn Clock>,
    silence: Silence,
) -> Result<(Session, Timestamp)> {
    // Some may be left of before the server was restarted, and one more is made.
    let mut left = pool.size() + 1;
    loop {
        let mut connection = acquire(pool).await?;
        let begun = match clock {
            Some(clock) => {
                let begin = sqlx::raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED").execute(&mut *connection);
                answered(silence.short, begin).await.map(|_| Ok(clock.now()))
            }
            // One round trip for both.
            None => answered(silence.short, begin_now(&mut connection)).await,
        };
        match begun {
            Ok(now) => {
                let silence = silence.long;
                return Ok((
                    Session { connection, silence, failed: None, patient: false, places: Arc::default() },
                    now?,
                ));
            }
            Err(error) => {
                connection.close_on_drop();
                left -= 1;
                // Silence is no connection's own: the next one would wait as long.
                let silent = matches!(&error, sqlx::Error::Io(io) if io.kind() == io::ErrorKind::TimedOut);
                if left == 0 || silent {
                    return Err(error.into());
                }
            }
        }
    }
}

async fn begin_now(
    connection: &mut sqlx::PgConnection,
) -> std::result::Result<Result<Timestamp>, sqlx::Error> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS now";
    let row = sqlx::raw_sql(BEGIN).fetch_one(connection).await?;
    Ok(time(&row))
}
