//! Goal: a database of the first schema is brought up to date with nothing lost.
//! Method: `tests/vectors/first-schema.*.sql` is what a broker wrote whose VNFCIs were registered, had claimed, renewed,
//! released and been terminated (`make_first_schema.sh` says how). It is loaded, opened, and every row that was in it is looked
//! for, column by column.

use super::fixture::{manual_clock, postgres_options};
use crate::postgres::Cluster;
use keybroker::credential::EpochState;
use keybroker::nfv::{PoolName, TenantId};
use keybroker::store::Store;
use keybroker::store::postgres::PostgresStore;
use keybroker::store::sqlite::SqliteStore;
use sqlx::{Connection, Row, SqliteConnection};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// Of each table: its columns, and its rows as text.
type Content = BTreeMap<String, (String, Vec<String>)>;

/// Every row is still there; what came since is beside it.
fn assert_kept(before: &Content, after: &Content) {
    assert!(before.len() > 20, "{:?}", before.keys());
    for (table, (_, rows)) in before {
        let (_, now) = &after[table];
        for row in rows {
            assert!(now.contains(row), "{table}: {row} is not among {now:#?}");
        }
    }
}

/// What it told its callers, it tells.
async fn assert_serves(store: &dyn Store, events: usize) {
    let tenant: TenantId = "default".parse().unwrap();
    let pool: PoolName = "amf-transport".parse().unwrap();
    let pool = store.pool(&tenant, &pool).await.unwrap();
    let levels = store.pool_levels(pool.id).await.unwrap();
    // By the tests' clock the two that wait may be too old to be drawn.
    assert_eq!((levels.available + levels.aged, levels.delivered), (2, 4), "{levels:?}");
    assert_eq!(store.epochs(Some(&tenant), &[EpochState::Open]).await.unwrap().len(), 1);
    assert_eq!(store.chain_tip().await.unwrap().size, u64::try_from(events).unwrap());
}

/// What is in a SQLite file; of tables that were there before only the columns of then.
async fn sqlite(path: &Path, before: Option<&Content>) -> Content {
    let mut file = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let tables = "SELECT t.name, group_concat('quote(\"' || c.name || '\")', ' || ''|'' || ') AS columns
         FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table' GROUP BY t.name";
    let mut content = Content::new();
    for table in sqlx::query(tables).fetch_all(&mut file).await.unwrap() {
        let (name, columns): (String, String) = (table.get("name"), table.get("columns"));
        let columns = before.and_then(|before| Some(before.get(&name)?.0.clone())).unwrap_or(columns);
        let select = sqlx::AssertSqlSafe(format!("SELECT {columns} AS line FROM \"{name}\""));
        let rows = sqlx::query(select).fetch_all(&mut file).await.unwrap();
        content.insert(name, (columns, rows.iter().map(|row| row.get("line")).collect()));
    }
    file.close().await.unwrap();
    content
}

#[tokio::test]
async fn a_sqlite_file_of_the_first_schema_is_brought_up_to_date_with_nothing_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keybroker.db");
    let mut file = SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", path.display())).await.unwrap();
    let dump = std::fs::read_to_string(vector("first-schema.sqlite.sql")).unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(dump)).execute(&mut file).await.unwrap();
    file.close().await.unwrap();
    let before = sqlite(&path, None).await;

    let store = SqliteStore::open(&path, manual_clock()).await.unwrap();
    assert_serves(&store, before["events"].1.len()).await;
    store.close().await;
    assert_kept(&before, &sqlite(&path, Some(&before)).await);
}

#[tokio::test]
async fn a_postgresql_database_of_the_first_schema_is_brought_up_to_date_with_nothing_lost() {
    let database = Cluster::common().database();
    database.load(&vector("first-schema.postgres.sql"));
    let content = |before: Option<&Content>| -> Content {
        let tables = "SELECT table_name, string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position)
             FROM information_schema.columns WHERE table_schema = 'public' GROUP BY 1";
        let tables = database.sql(tables);
        let tables = tables.lines().map(|line| line.split_once('|').unwrap());
        let read = |(name, columns): (&str, &str)| {
            let then = before.and_then(|before| Some(before.get(name)?.0.clone()));
            let columns = then.unwrap_or_else(|| columns.to_owned());
            // As one field, so that a line break in a text stays inside of its row.
            let rows = database
                .sql(&format!("SELECT CAST(ROW({columns}) AS TEXT) COLLATE \"C\" || chr(30) FROM {name}"));
            let rows = rows.split('\u{1e}').map(|row| row.trim().to_owned()).filter(|row| !row.is_empty());
            (name.to_owned(), (columns, rows.collect()))
        };
        tables.map(read).collect()
    };
    let before = content(None);

    let store = PostgresStore::open(postgres_options(&database), Some(manual_clock())).await.unwrap();
    assert_serves(&store, before["events"].1.len()).await;
    store.close().await;
    assert_kept(&before, &content(Some(&before)));
}
