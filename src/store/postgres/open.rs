//! Connecting to the database: its settings and its schema.

use super::{Postgres, PostgresStore, Silence, answered, identity, order};
use crate::clock::Clock;
use crate::store::continuity::Continuity;
use crate::store::sql::error::{newer, refuse_newer};
use crate::store::{Result, StoreError};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// The schema, embedded. A change of the schema is a new file: files that were released are never edited. Brokers of two
/// versions work on one database while they are upgraded one by one: a release only adds (expand); what nothing uses any
/// more is taken away by the release after it (contract).
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// The oldest server that the conformance suite is run against.
const OLDEST: i32 = 150_000;
/// A connection that was idle for longer is asked whether it is alive before it is used.
const TRUSTED: Duration = Duration::from_secs(1);

/// How long a transaction may be left open between its statements: whoever was stopped there holds up the chain of the log,
/// which goes no further than what was committed before it.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(15);
/// How often the server looks, while a statement runs or waits for a lock, whether the broker that asked is there still: what
/// one that was killed holds locked is free then.
const GONE: Duration = Duration::from_secs(2);
/// The longest that a start waits for its schema.
const MIGRATED: Duration = Duration::from_secs(300);

/// Where the database is and how it is used.
#[derive(Clone)]
pub struct PostgresOptions {
    connect: PgConnectOptions,
    /// Most connections at a time.
    pub connections: u32,
    /// How long a call waits for a connection before it fails with [`StoreError::Unavailable`].
    pub acquire_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// How long one statement waits for a lock.
    pub lock_timeout: Duration,
}

impl std::fmt::Debug for PostgresOptions {
    /// Without the password, which the driver's own would show.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions").field("place", &self.place()).finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// Of a URL `postgres://ROLE@HOST[:PORT]/DATABASE[?sslmode=verify-full&sslrootcert=FILE]`, with the defaults for the
    /// rest: 16 connections, 5 s, 30 s, 10 s. Without `sslmode`, a host that is not this one must prove its name by TLS.
    ///
    /// # Errors
    /// A sentence without the URL, which may have a password in it.
    pub fn parse(url: &str) -> Result<Self, String> {
        const FORM: &str =
            "the store's url is not of the form postgres://ROLE@HOST[:PORT]/DATABASE[?OPTION=VALUE]";
        let connect = PgConnectOptions::from_str(url).map_err(|_| FORM.to_owned())?;
        if connect.get_database().is_none_or(str::is_empty) {
            return Err(FORM.to_owned());
        }
        let host = connect.get_host();
        let here = connect.get_socket().is_some()
            || host.starts_with('/')
            || host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        // Over a network nothing less, unless the URL says so: names and events travel there.
        let connect = if here || url.contains("sslmode=") || url.contains("ssl-mode=") {
            connect
        } else {
            connect.ssl_mode(PgSslMode::VerifyFull)
        };
        Ok(Self {
            connect,
            connections: 16,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
        })
    }

    /// With this password, instead of one of the URL or of `PGPASSFILE`.
    pub fn password(mut self, password: &str) -> Self {
        self.connect = self.connect.password(password);
        self
    }

    /// Host and database, for messages.
    pub fn place(&self) -> String {
        let host = match self.connect.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => self.connect.get_host().to_owned(),
        };
        let port = self.connect.get_port();
        format!("PostgreSQL database {} at {host}:{port}", self.connect.get_database().unwrap_or_default())
    }

    /// How long a statement may go without an answer: longer than the server gives it.
    fn silence(&self) -> Duration {
        self.statement_timeout + self.acquire_timeout
    }

    fn session(&self) -> PgConnectOptions {
        let millis = |duration: Duration| duration.as_millis().to_string();
        self.connect
            .clone()
            .application_name("keybroker")
            .statement_cache_capacity(256)
            .disable_statement_logging()
            .options([
                // Whatever the role's or the database's default is: what was acknowledged is on stable storage.
                ("synchronous_commit", "on".to_owned()),
                ("statement_timeout", millis(self.statement_timeout)),
                ("lock_timeout", millis(self.lock_timeout)),
                ("idle_in_transaction_session_timeout", millis(IDLE_IN_TRANSACTION)),
                ("client_connection_check_interval", millis(GONE)),
                // A connection that was cut off frees its place within a minute, not after two hours.
                ("tcp_keepalives_idle", "30".to_owned()),
                ("tcp_keepalives_interval", "10".to_owned()),
                ("tcp_keepalives_count", "3".to_owned()),
                ("timezone", "UTC".to_owned()),
                // That a table is there already is nothing to be told.
                ("client_min_messages", "warning".to_owned()),
            ])
    }
}

impl PostgresStore {
    /// Connects and brings the schema up to date. `clock` is for tests; without one the database's clock counts. To be called
    /// inside a Tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] with what to do: the schema is newer than this program's or was changed, the server is too
    /// old or not durable, the database or the role does not exist or has no rights.
    /// [`StoreError::Unavailable`] if the server does not answer.
    pub async fn open(options: PostgresOptions, clock: Option<Arc<dyn Clock>>) -> Result<Self> {
        let mut connection = connect(&options).await?;
        look_at(&mut connection, &options).await?;
        let brought_up = async {
            migrate(&mut connection, &options).await?;
            order::go_on(&mut connection).await
        };
        tokio::time::timeout(MIGRATED, brought_up).await.unwrap_or_else(|_| Err(silent(&options)))?;
        // Whatever happens to this connection, the pool makes its own.
        drop(connection.close().await);
        Ok(Self::over(&options, options.session(), clock))
    }

    /// Connects to look at the database, beside brokers or without one: every change fails, and the schema stays as it is.
    ///
    /// # Errors
    /// As [`PostgresStore::open`]; [`StoreError::Unusable`], too, if there is no schema yet.
    pub async fn open_to_read(options: PostgresOptions) -> Result<Self> {
        let mut connection = connect(&options).await?;
        look_at(&mut connection, &options).await?;
        let newest = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations");
        let newest: Option<i64> = answered(options.silence(), newest.fetch_one(&mut connection)).await?;
        refuse_newer(&MIGRATIONS, newest, &options.place())?;
        drop(connection.close().await);
        let session = options.session().options([("default_transaction_read_only", "on")]);
        Ok(Self::over(&options, session, None))
    }

    fn over(options: &PostgresOptions, session: PgConnectOptions, clock: Option<Arc<dyn Clock>>) -> Self {
        let continuity = Arc::new(Continuity::default());
        let (connected, acquired) = (Arc::clone(&continuity), Arc::clone(&continuity));
        let silence = Silence { short: options.acquire_timeout, long: options.silence() };
        let pool = PgPoolOptions::new()
            .max_connections(options.connections)
            .acquire_timeout(options.acquire_timeout)
            // The counts are kept per connection of the server: few that live long.
            .max_lifetime(None)
            .idle_timeout(None)
            .test_before_acquire(false)
            // Before anything is asked of it.
            .after_connect(move |connection, _| {
                let continuity = Arc::clone(&connected);
                Box::pin(async move {
                    continuity.connected(answered(silence.short, identity(connection)).await?);
                    Ok(())
                })
            })
            .before_acquire(move |connection, meta| {
                let current = acquired.is_current(meta.age);
                Box::pin(async move {
                    if !current {
                        return Ok(false);
                    }
                    if meta.idle_for > TRUSTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(session);
        let (changes, places) = (TaskTracker::new(), Arc::default());
        Self::on(Postgres { pool, home: Handle::current(), clock, changes, places, silence, continuity })
    }

    /// Whether a broker could work on the database, and what it finds there; changes nothing.
    ///
    /// # Errors
    /// As [`PostgresStore::open`].
    pub async fn look(options: &PostgresOptions) -> Result<String> {
        let mut connection = connect(options).await?;
        look_at(&mut connection, options).await?;
        let found = sqlx::query(
            "SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS initialised,
                    (SELECT s.ssl FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()) AS tls,
                    current_setting('server_version') AS version",
        );
        let row = answered(options.silence(), found.fetch_one(&mut connection)).await?;
        drop(connection.close().await);
        let place = options.place();
        if !row.try_get::<bool, _>("initialised")? {
            return Err(StoreError::Unusable(format!("{place} is empty: run keybroker init")));
        }
        let tls = if row.try_get::<bool, _>("tls")? { "TLS" } else { "no TLS" };
        Ok(format!("{place}, server {}, {tls}", row.try_get::<String, _>("version")?))
    }
}

async fn connect(options: &PostgresOptions) -> Result<PgConnection> {
    match tokio::time::timeout(options.acquire_timeout, options.session().connect()).await {
        Ok(connected) => connected.map_err(|error| cannot_connect(options, error)),
        Err(_) => Err(silent(options)),
    }
}

fn silent(options: &PostgresOptions) -> StoreError {
    StoreError::Unavailable(format!("{} does not answer", options.place()))
}

fn cannot_connect(options: &PostgresOptions, error: sqlx::Error) -> StoreError {
    let place = options.place();
    match error {
        sqlx::Error::Configuration(why) | sqlx::Error::Tls(why) => {
            StoreError::Unusable(format!("{place} cannot be connected to as store.url says: {why}"))
        }
        error => match StoreError::from(error) {
            StoreError::Unusable(why) => StoreError::Unusable(format!("{place}: {why}")),
            other => StoreError::Unavailable(format!("{place}: {other}")),
        },
    }
}

/// Refuses a server that is not what the promises need.
async fn look_at(connection: &mut PgConnection, options: &PostgresOptions) -> Result<()> {
    let settings = sqlx::query(
        "SELECT CAST(current_setting('server_version_num') AS INTEGER) AS version,
                current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
                current_setting('synchronous_commit') AS synchronous_commit,
                current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby",
    );
    let row = answered(options.silence(), settings.fetch_one(connection)).await?;
    let place = options.place();
    let unusable = |why: String| Err(StoreError::Unusable(format!("{place}: {why}")));
    let version: i32 = row.try_get("version")?;
    if version < OLDEST {
        return unusable(format!(
            "the server is PostgreSQL {}: at least {} is needed",
            version / 10_000,
            OLDEST / 10_000
        ));
    }
    if row.try_get::<bool, _>("standby")? {
        return Err(StoreError::Unavailable(format!("{place} is a standby: connect to the primary server")));
    }
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let value: String = row.try_get(setting)?;
        if value != "on" {
            return unusable(format!(
                "the server runs with {setting} = {value}, so that a crash loses what was acknowledged: set it to on"
            ));
        }
    }
    let encoding: String = row.try_get("encoding")?;
    if encoding != "UTF8" {
        return unusable(format!("the database's encoding is {encoding}: create it with ENCODING 'UTF8'"));
    }
    Ok(())
}

async fn migrate(connection: &mut PgConnection, options: &PostgresOptions) -> Result<()> {
    let place = options.place();
    match MIGRATIONS.run(connection).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => Err(newer(version, &place)),
        Err(MigrateError::VersionMismatch(version)) => Err(StoreError::Unusable(format!(
            "{place} was made with another schema version {version} than this program's: start the keybroker that wrote it"
        ))),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(cannot_connect(options, error))
        }
        Err(other) => Err(StoreError::Unusable(format!(
            "the schema of {place} cannot be brought up to date ({other}): restore a backup"
        ))),
    }
}
