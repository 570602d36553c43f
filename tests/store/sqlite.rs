//! What only the SQLite store promises: its file, its limits, what an erased blob leaves.

use super::fixture::{Fixture, end, manual_clock, silent};
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::HolderCopy;
use keybroker::store::sqlite::{SqliteOptions, SqliteStore};
use keybroker::store::{Store, StoreError};
use sqlx::{Connection, SqliteConnection};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The fixture's database file.
fn file(f: &Fixture) -> PathBuf {
    f.directory.as_ref().unwrap().path().join("store.db")
}

/// A connection beside the store, as a backup or a curious operator has it.
async fn beside(path: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap()
}

/// Moves everything from the log into the database file and empties the log.
async fn checkpoint(path: &Path) {
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut beside(path).await).await.unwrap();
}

/// Whether the bytes are in any of the database's files.
fn on_disk(path: &Path, bytes: &[u8]) -> bool {
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap();
    files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .any(|content| content.windows(bytes.len()).any(|window| window == bytes))
}

#[tokio::test]
async fn the_database_and_its_log_are_for_their_owner_only() {
    let f = Fixture::sqlite().await;
    for file in std::fs::read_dir(file(&f).parent().unwrap()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.path().display());
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let f = Fixture::sqlite().await;
    f.fill(3).await;
    let claim = f.deliver("a", &["s"]).await;
    let (clock, path) = (f.clock.clone(), file(&f));
    let again = SqliteStore::open(&path, clock).await.unwrap();
    assert_eq!(again.claim(claim.id).await.unwrap(), Some(claim));
    assert_eq!(again.pool_levels(f.pool.id).await.unwrap(), f.store.pool_levels(f.pool.id).await.unwrap());
}

#[tokio::test]
async fn erased_blobs_are_gone_from_the_file_and_its_log_after_a_checkpoint() {
    let f = Fixture::sqlite().await;
    let credentials = f.produce(200);
    f.store.insert_credentials(credentials.clone(), silent()).await.unwrap();
    let path = file(&f);
    checkpoint(&path).await;
    let present = |n: usize| {
        let credential = &credentials[n];
        (on_disk(&path, &credential.key_blob), on_disk(&path, &credential.dek_blob))
    };
    assert_eq!(present(0), (true, true), "the search finds what is there");
    let delivered = f.deliver("a", &["s"]).await;
    assert_eq!(delivered.credentials[0].credential.id, credentials[0].id);
    let reduced = end(DestructionReason::PoolReduced, HolderCopy::NeverDelivered);
    f.store.erase_unclaimed(f.pool.id, None, reduced, 150, silent()).await.unwrap();
    checkpoint(&path).await;
    let live = f.store.live_keys(f.epoch, 1_000).await.unwrap();
    assert_eq!(live.len(), 49);
    for (n, credential) in credentials.iter().enumerate() {
        let is_live = live.iter().any(|key| key.credential.id == credential.id);
        assert_eq!(present(n), (is_live, is_live), "credential {n}");
    }
}

#[tokio::test]
async fn a_full_database_says_so_still_reads_and_goes_on_with_more_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let clock = manual_clock();
    let options = SqliteOptions { max_pages: Some(150), ..SqliteOptions::default() };
    let store = SqliteStore::open_with(&path, clock.clone(), options).await.unwrap();
    let f = Fixture::on(Arc::new(store), clock.clone()).await;
    let mut kept = 0;
    let error = loop {
        match f.store.insert_credentials(f.produce(20), silent()).await {
            Ok(()) => kept += 20,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert!(kept > 0 && f.store.pool_levels(f.pool.id).await.unwrap().available == kept);
    // Many changes that share commits, each of which finds the disk full: each is told, none is half done.
    let f = {
        let f = Arc::new(f);
        let writers: Vec<_> = (0..32)
            .map(|_| {
                let f = f.clone();
                // More than the few that a page's last bytes may still take.
                tokio::spawn(async move { f.store.insert_credentials(f.produce(200), silent()).await })
            })
            .collect();
        for writer in writers {
            assert!(matches!(writer.await.unwrap(), Err(StoreError::Full(_))));
        }
        Arc::into_inner(f).unwrap()
    };
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().available, kept);

    let Fixture { store, .. } = f;
    let pool = store.pools(&Default::default(), &super::fixture::page(1)).await.unwrap().remove(0);
    drop(store);
    let store = Arc::new(SqliteStore::open(&path, clock.clone()).await.unwrap());
    assert_eq!(store.pool_levels(pool.id).await.unwrap().available, kept);
    let f = fixture_again(store, clock, pool).await;
    f.fill(500).await;
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().available, kept + 500);
}

/// A fixture on a store that has the fixture's rows already.
async fn fixture_again(
    store: Arc<SqliteStore>,
    clock: Arc<keybroker::clock::ManualClock>,
    pool: keybroker::store::records::Pool,
) -> Fixture {
    let issuer = store.issuers().await.unwrap().remove(0).id;
    let epoch = store.epochs(None, &[keybroker::credential::EpochState::Open]).await.unwrap().remove(0).id;
    Fixture {
        tenant: pool.tenant.clone(),
        store,
        clock,
        issuer,
        pool,
        epoch,
        directory: None,
        database: None,
    }
}

#[tokio::test]
async fn a_database_held_by_another_process_is_unavailable_until_it_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let options = SqliteOptions { busy_timeout: Duration::from_millis(20), ..SqliteOptions::default() };
    let store = SqliteStore::open_with(&path, manual_clock(), options).await.unwrap();
    let mut other = beside(&path).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let error = store.check().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(store.tenants().await.unwrap().is_empty(), "reading goes on");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    store.check().await.unwrap();
}

/// What opening fails with, as text.
async fn unusable(path: &Path) -> String {
    match SqliteStore::open(path, manual_clock()).await {
        Err(StoreError::Unusable(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{} was opened", path.display()),
    }
}

#[tokio::test]
async fn a_newer_schema_is_unusable_and_says_what_to_do() {
    let f = Fixture::sqlite().await;
    let path = file(&f);
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', 1, x'00', 0)",
    )
    .execute(&mut beside(&path).await)
    .await
    .unwrap();
    let why = unusable(&path).await;
    assert!(why.contains("9999") && why.contains("newer keybroker"), "{why}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_unusable_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let text = "these are somebody's notes, not a database\n".repeat(200);
    std::fs::write(&path, &text).unwrap();
    let why = unusable(&path).await;
    assert!(why.contains("not a keybroker database"), "{why}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let why = unusable(&directory.path().join("no/such/directory/store.db")).await;
    assert!(why.contains("directory exists"), "{why}");
}

#[tokio::test]
async fn every_table_column_index_and_trigger_is_explained_in_the_documentation() {
    let f = Fixture::sqlite().await;
    let page = include_str!("../../docs/schema.md");
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT type, name, tbl_name FROM sqlite_master
         WHERE name NOT LIKE 'sqlite_%' AND tbl_name NOT LIKE '_sqlx%'",
    )
    .fetch_all(&mut beside(&file(&f)).await)
    .await
    .unwrap();
    assert!(rows.len() > 40, "{rows:?}");
    let section = |table: &str| {
        let heading = format!("\n### `{table}`\n");
        let (_, rest) = page.split_once(&heading).unwrap_or_else(|| panic!("no section for {table}"));
        rest.split("\n### ").next().unwrap_or(rest)
    };
    for (kind, name, table) in &rows {
        assert!(section(table).contains(&format!("`{name}`")) || kind == "table", "{kind} {name}");
        if kind == "table" {
            let columns: Vec<(String,)> = sqlx::query_as("SELECT name FROM pragma_table_info($1)")
                .bind(name)
                .fetch_all(&mut beside(&file(&f)).await)
                .await
                .unwrap();
            for (column,) in columns {
                assert!(section(name).contains(&format!("`{column}`")), "column {column} of {name}");
            }
        }
    }
}
