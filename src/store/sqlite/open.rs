//! Opening the database file: its mode, its settings and its schema.

use super::writer::{File, Writer};
use super::{Sqlite, SqliteStore};
use crate::clock::Clock;
use crate::store::sql::error::{newer, refuse_newer};
use crate::store::{Result, StoreError};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection, SqlitePool};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The schema, embedded. A change of the schema is a new file: files that were released are never edited.
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// Connections that only read.
const READERS: u32 = 4;
/// How long a read waits for one of them.
const READER_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings for tests and small devices. The defaults are right for production.
#[derive(Debug, Clone, Copy)]
pub struct SqliteOptions {
    /// How long a change waits for another process that holds the database (a backup, the command line) before
    /// it fails with [`StoreError::Unavailable`]. 5 seconds if not set.
    pub busy_timeout: Duration,
    /// The database never grows beyond this many pages of 4,096 bytes: a change that needs more fails with
    /// [`StoreError::Full`]. No limit if absent. SQLite does not go below the pages that there are.
    pub max_pages: Option<u32>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(5), max_pages: None }
    }
}

impl SqliteStore {
    /// Opens the database at `path`, creating it (mode 0600) if there is none, and brings its schema up to
    /// date. One process at a time: see `docs/schema.md`. To be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] with what to do: the schema is newer than this program's or was changed, the
    /// file is no database, its directory does not exist, or it may not be read and written.
    /// [`StoreError::Unavailable`] if another process holds the database.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_with(path, clock, SqliteOptions::default()).await
    }

    /// As [`SqliteStore::open`], with settings.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_with(path: &Path, clock: Arc<dyn Clock>, options: SqliteOptions) -> Result<Self> {
        create_private(path)?;
        let base = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(options.busy_timeout)
            .foreign_keys(true)
            .statement_cache_capacity(256)
            .disable_statement_logging();
        let mut writing = base
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // Overwrites what is deleted with zeros, so that an erased blob does not stay in a free page.
            .pragma("secure_delete", "ON")
            // 16 MiB of log between checkpoints: pages that many claims touch are copied once, not each time.
            .pragma("wal_autocheckpoint", "4096")
            // Negative: KiB. Inserts into the indexes by hash touch pages all over the place.
            .pragma("cache_size", "-16384");
        if let Some(pages) = options.max_pages {
            writing = writing.pragma("max_page_count", pages.to_string());
        }
        let mut connection = writing.connect().await.map_err(|error| cannot_open(path, error))?;
        migrate(&mut connection, path).await?;
        let readers = readers(base.read_only(true)).await.map_err(|error| cannot_open(path, error))?;
        Self::over(path, connection, readers, clock)
    }

    /// Opens the database at `path` to look at it, beside a broker or without one: every change fails, and the schema stays
    /// as it is.
    ///
    /// # Errors
    /// [`StoreError`] if there is none or it cannot be read.
    pub async fn open_to_read(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        // Without a log nobody has the database open, and SQLite would leave one behind.
        let unused = !Path::new(&log).exists();
        let reading = SqliteConnectOptions::new().filename(path).read_only(true).immutable(unused);
        let reading = reading.disable_statement_logging();
        let mut connection = reading.connect().await.map_err(|error| cannot_open(path, error))?;
        let place = format!("the database {}", path.display());
        let newest: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await
            .map_err(|error| cannot_open(path, error))?;
        refuse_newer(&MIGRATIONS, newest, &place)?;
        let readers = readers(reading).await.map_err(|error| cannot_open(path, error))?;
        Self::over(path, connection, readers, clock)
    }

    fn over(
        path: &Path,
        connection: SqliteConnection,
        readers: SqlitePool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let file = File::of(path).map_err(|error| {
            StoreError::Unusable(format!("the database {} cannot be looked at ({error})", path.display()))
        })?;
        let writer = Writer::start(connection, file);
        Ok(Self::on(Sqlite { writer, readers, clock, continuity: Arc::default() }))
    }
}

async fn readers(reading: SqliteConnectOptions) -> sqlx::Result<SqlitePool> {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(READER_TIMEOUT)
        // A reader is a file handle, not a network connection: it does not go stale.
        .test_before_acquire(false)
        .connect_with(reading)
        .await
}

/// Creates the file for its owner only, before SQLite would create it for more. SQLite gives its log the same
/// mode.
fn create_private(path: &Path) -> Result<()> {
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::Unusable(format!(
            "the database {} cannot be created ({error}): check that its directory exists and may be written to",
            path.display()
        ))),
    }
}

fn cannot_open(path: &Path, error: sqlx::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Unavailable(why) if why.contains("unable to open") => StoreError::Unusable(format!(
            "the database {} cannot be opened ({why}): check that it is a file that this user may read and write",
            path.display()
        )),
        other => other,
    }
}

async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<()> {
    match MIGRATIONS.run(connection).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => {
            Err(newer(version, &format!("the database {}", path.display())))
        }
        Err(MigrateError::VersionMismatch(version)) => Err(StoreError::Unusable(format!(
            "the database {} was made with another schema version {version} than this program's: start the \
             keybroker that wrote it",
            path.display()
        ))),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(cannot_open(path, error))
        }
        Err(other) => Err(StoreError::Unusable(format!(
            "the schema of the database {} cannot be brought up to date ({other}): restore a backup",
            path.display()
        ))),
    }
}
