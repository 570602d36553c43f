//! What only the PostgreSQL store promises: what it needs of the server, what it does when the server is away, and that
//! many at a time do not get in each other's way.

use super::fixture::{Fixture, end, manual_clock, postgres_options, silent, vnfci_id};
use crate::postgres::{Cluster, Database};
use keybroker::audit::event::{Actor, Event, EventKind};
use keybroker::audit::receipt::DestructionReason;
use keybroker::ca::pem;
use keybroker::credential::{EpochChange, EpochState, HolderCopy};
use keybroker::nfv::EpochId;
use keybroker::store::postgres::{PostgresOptions, PostgresStore};
use keybroker::store::records::{ClaimOutcome, ConfirmOutcome, InitialCredentialKind, Quotas, Rearming};
use keybroker::store::{Store, StoreError};
use sqlx::{Connection, PgConnection};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

async fn open(options: PostgresOptions) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(options, Some(manual_clock())).await
}

/// What opening fails with, as text.
async fn unusable(options: PostgresOptions) -> String {
    match open(options).await {
        Err(StoreError::Unusable(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was opened"),
    }
}

fn database(f: &Fixture) -> &Database {
    f.database.as_ref().unwrap()
}

#[tokio::test]
async fn a_newer_schema_is_unusable_and_says_what_to_do() {
    let f = Fixture::postgres().await;
    database(&f).sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '\\x00', 0)",
    );
    let why = unusable(postgres_options(database(&f))).await;
    assert!(why.contains("9999") && why.contains("newer keybroker"), "{why}");
}

#[tokio::test]
async fn a_database_or_role_that_is_not_there_is_unusable_and_says_what_to_do() {
    let database = Cluster::common().database();
    let url = database.url();
    let why = unusable(PostgresOptions::parse(&url.replace(database.name(), "nowhere")).unwrap()).await;
    assert!(why.contains("nowhere") && why.contains("create it"), "{why}");
    let why = unusable(PostgresOptions::parse(&url.replace("keybroker@", "nobody@")).unwrap()).await;
    assert!(why.contains("nobody") && why.contains("password_file"), "{why}");
}

#[tokio::test]
async fn a_server_that_would_lose_what_was_acknowledged_is_refused() {
    let database = Cluster::own("fsync = off").database();
    let why = unusable(postgres_options(&database)).await;
    assert!(why.contains("fsync = off"), "{why}");
}

#[tokio::test]
async fn a_roles_laxer_setting_does_not_make_commits_lazy() {
    let f = Fixture::postgres().await;
    let database = database(&f);
    database.sql(&format!("ALTER DATABASE {} SET synchronous_commit = off", database.name()));
    let store = open(postgres_options(database)).await.unwrap();
    store.set_mark("x", "y").await.unwrap();
    // A function that the store's own connections run when they write shows what they run with.
    database.sql(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN NEW.value := current_setting('synchronous_commit'); RETURN NEW; END $$;
         CREATE TRIGGER note BEFORE INSERT OR UPDATE ON marks FOR EACH ROW EXECUTE FUNCTION note()",
    );
    store.set_mark("setting", "").await.unwrap();
    assert_eq!(store.mark("setting").await.unwrap().as_deref(), Some("on"));
}

#[tokio::test]
async fn while_the_server_is_away_the_store_says_so_and_afterwards_works_again() {
    let database = Cluster::own("").database();
    let mut options = postgres_options(&database);
    options.acquire_timeout = Duration::from_millis(500);
    let clock = manual_clock();
    let store = PostgresStore::open(options, Some(clock.clone())).await.unwrap();
    let f = Arc::new(Fixture::on(Arc::new(store), clock).await);
    f.fill(20).await;
    let initial = f.register("a", &["s"]).await;
    // Several connections, all of which the restart breaks.
    let several = |n: usize| {
        let f = f.clone();
        async move {
            let mut all = JoinSet::new();
            for place in 0..n {
                let f = f.clone();
                all.spawn(async move { f.store.set_mark(&format!("mark-{place}"), "x").await });
            }
            all.join_all().await
        }
    };
    assert!(several(16).await.iter().all(Result::is_ok));
    for how in ["fast", "immediate"] {
        database.cluster().stop(how);
        let error = f.store.check().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        let error = f.store.tenants().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        database.cluster().start();
        // At once: a change that finds its connection broken takes another one.
        let outcomes = several(16).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!(f.store.tenants().await.unwrap().len(), 1);
    }
    f.claim(initial.id, 1).await;
}

#[tokio::test]
async fn a_database_that_was_full_counts_as_full_until_something_can_be_added() {
    let f = Fixture::postgres().await;
    let full = "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
                CREATE TRIGGER no_room BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION no_room()";
    database(&f).sql(full);
    // There is room for what is changed in place.
    f.store.check().await.unwrap();
    let now = f.store.now().await.unwrap();
    let event = || Event::new(now, EventKind::PoolUpdated, Actor::broker());
    for _ in 0..2 {
        let refused = f.store.append_events(vec![event()]).await;
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
        let checked = f.store.check().await;
        assert!(matches!(&checked, Err(StoreError::Full(why)) if why.contains("make room")), "{checked:?}");
    }
    database(&f).sql("DROP TRIGGER no_room ON events");
    let before = f.store.unchained_events(1).await.unwrap().1;
    f.store.check().await.unwrap();
    assert_eq!(f.store.unchained_events(1).await.unwrap().1, before, "what was tried is undone");
    f.store.append_events(vec![event()]).await.unwrap();
}

#[tokio::test]
async fn a_server_without_a_connection_left_is_named_as_the_cause() {
    let database = Cluster::own("max_connections = 8").database();
    let mut options = postgres_options(&database);
    options.acquire_timeout = Duration::from_secs(1);
    let store = PostgresStore::open(options, None).await.unwrap();
    let mut others = Vec::new();
    while let Ok(other) = PgConnection::connect(&database.url()).await {
        others.push(other);
    }
    match store.now().await {
        // In the server's words: of the last slots, which are the superuser's, or of all.
        Err(StoreError::Unavailable(why)) => {
            assert!(why.contains("connection slots") || why.contains("too many clients"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    drop(others);
}

#[tokio::test]
async fn the_time_is_the_databases() {
    let database = Cluster::common().database();
    let store = PostgresStore::open(postgres_options(&database), None).await.unwrap();
    let seconds =
        || database.sql("SELECT FLOOR(EXTRACT(EPOCH FROM clock_timestamp()))").parse::<i64>().unwrap();
    let before = seconds();
    let now = store.now().await.unwrap().unix_micros() / 1_000_000;
    assert!((before..=seconds()).contains(&now), "{now}");
    // And what a change is made at.
    store.acquire_lease("producer", "a", Duration::from_secs(60)).await.unwrap().unwrap();
    let ends = database.sql("SELECT expires_at / 1000000 FROM leases").parse::<i64>().unwrap();
    assert!((before + 60..=seconds() + 60).contains(&ends), "{ends}");
}

#[tokio::test]
async fn an_event_that_commits_late_is_not_passed_over() {
    let f = Fixture::postgres().await;
    let url = database(&f).url();
    f.store.append_events(vec![f.event()]).await.unwrap();
    // A transaction that writes an event first and commits last.
    let mut slow = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut slow).await.unwrap();
    let late = f.event();
    sqlx::query("INSERT INTO events (id, time, kind, actor, json) VALUES ($1, 0, 'REFUSED', 'broker', $2)")
        .bind(late.id.as_bytes().as_slice())
        .bind(serde_json::to_string(&late).unwrap())
        .execute(&mut slow)
        .await
        .unwrap();
    let quick = f.event();
    f.store.append_events(vec![quick.clone()]).await.unwrap();
    let (settled, waiting) = f.store.unchained_events(10).await.unwrap();
    assert_eq!((settled.len(), waiting), (1, 2), "nothing after the one that may still come");
    assert_eq!(f.chain_all().await.size, 1);
    sqlx::raw_sql("COMMIT").execute(&mut slow).await.unwrap();
    let (settled, waiting) = f.store.unchained_events(10).await.unwrap();
    assert_eq!(waiting, 2);
    assert_eq!(settled.iter().map(|e| e.event.id).collect::<Vec<_>>(), [late.id, quick.id]);
    assert_eq!(f.chain_all().await.size, 3);
}

#[tokio::test]
async fn events_go_on_after_a_restore_to_another_server() {
    let f = Fixture::postgres().await;
    f.store.append_events(vec![f.event(), f.event()]).await.unwrap();
    assert_eq!(f.chain_all().await.size, 2);
    f.store.append_events(vec![f.event()]).await.unwrap();
    // What a dump brings along: numbers that this server is far from.
    database(&f).sql("UPDATE events SET xact = xact + 1000000000000");
    let store = open(postgres_options(database(&f))).await.unwrap();
    store.append_events(vec![f.event()]).await.unwrap();
    assert_eq!(store.unchained_events(10).await.unwrap().0.len(), 2);
    assert_eq!(f.chain_all().await.size, 4);
    // Once is enough.
    let base = || database(&f).sql("SELECT event_base()");
    let first = base();
    open(postgres_options(database(&f))).await.unwrap();
    assert_eq!(base(), first);
}

#[tokio::test]
async fn keys_are_moved_to_another_epoch_without_waiting_for_those_who_erase_keys() {
    let f = Fixture::postgres().await;
    f.fill(2).await;
    let next = EpochId::generate();
    f.advance(f.epoch, EpochChange::Close).await;
    f.open_epoch(next).await;
    let keys = f.store.live_keys(f.epoch, 2).await.unwrap();
    let [erased, moved] = [0, 1].map(|n: usize| keys[n].credential.id);
    // Who erases a key has it first, and then notes so at the epochs.
    let mut erasing = <sqlx::PgConnection as sqlx::Connection>::connect(&database(&f).url()).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE epochs SET first_erasure_at = 1").execute(&mut erasing).await.unwrap();
    sqlx::query("UPDATE credentials SET key_state = key_state WHERE id = $1")
        .bind(erased.0.as_bytes().as_slice())
        .execute(&mut erasing)
        .await
        .unwrap();
    let blobs = [erased, moved].map(|id| (id, b"rewrapped".to_vec())).to_vec();
    let done = f.store.rewrapped(f.epoch, next, blobs.clone(), silent()).await.unwrap();
    assert_eq!(done, [moved]);
    sqlx::raw_sql("ROLLBACK").execute(&mut erasing).await.unwrap();
    assert_eq!(f.store.rewrapped(f.epoch, next, blobs, silent()).await.unwrap(), [erased], "the next round");
}

#[tokio::test]
async fn a_password_and_tls_are_asked_for_as_the_url_says_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let ca = rcgen::CertifiedIssuer::self_signed(
        {
            let mut parameters = rcgen::CertificateParams::default();
            parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            parameters
        },
        rcgen::KeyPair::generate().unwrap(),
    )
    .unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&key, &ca).unwrap();
    let root = directory.path().join("root.pem");
    std::fs::write(&root, pem("CERTIFICATE", ca.der())).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cluster = Cluster::own_on(port, "listen_addresses = '127.0.0.1'");
    cluster.require_password_and_tls(
        &pem("CERTIFICATE", server.der()),
        &pem("PRIVATE KEY", &key.serialize_der()),
    );
    let database = cluster.database();
    let at = |host: &str, options: &str| {
        let url = format!("postgres://keybroker@{host}:{port}/{}?{options}", database.name());
        PostgresOptions::parse(&url).unwrap()
    };
    let verified = format!("sslmode=verify-full&sslrootcert={}", root.display());
    open(at("127.0.0.1", &verified).password("tell-nobody")).await.unwrap();
    let why = unusable(at("127.0.0.1", &verified).password("guessed-wrong")).await;
    assert!(why.contains("password") && !why.contains("guessed-wrong"), "{why}");
    for (host, options) in [
        ("127.0.0.1", "sslmode=disable"),
        ("127.0.0.1", "sslmode=verify-full"),
        ("localhost", verified.as_str()),
    ] {
        let refused = open(at(host, options).password("tell-nobody")).await;
        let error = refused.err().unwrap_or_else(|| panic!("{host} with {options} was connected to"));
        assert!(!error.to_string().contains("tell-nobody"), "{error}");
    }
    assert!(!format!("{:?}", at("127.0.0.1", &verified).password("tell-nobody")).contains("tell-nobody"));
}

/// Two brokers' stores on one database.
async fn two(f: &Fixture) -> [Arc<dyn Store>; 2] {
    let other = PostgresStore::open(postgres_options(database(f)), Some(f.clock.clone())).await.unwrap();
    [f.store.clone(), Arc::new(other)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_that_do_everything_at_once_break_nothing_and_never_deadlock() {
    let f = Arc::new(Fixture::postgres().await);
    let stores = two(&f).await;
    let vnfcis: Vec<_> = (0..60).map(|n| f.vnfci(&format!("v-{n:03}"), &["a", "b"])).collect();
    let mut initials: Vec<_> = vnfcis.iter().map(|v| v.initial_credential).collect();
    f.register_all(vnfcis).await;
    f.fill(150).await;
    let claims = Arc::new(std::sync::Mutex::new(Vec::new()));
    let drawn = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut work = JoinSet::new();
    let expected = |outcome: Result<(), StoreError>| match outcome {
        Ok(()) | Err(StoreError::Conflict(_) | StoreError::NotFound(_)) => {}
        Err(other) => panic!("{other:?}"),
    };
    // Claims, each by two brokers and with changing keys; every other one is confirmed, some destroyed.
    initials.extend(initials.clone());
    for (n, initial) in initials.into_iter().enumerate() {
        let (f, store) = (f.clone(), stores[n % 2].clone());
        let (claims, drawn) = (claims.clone(), drawn.clone());
        work.spawn(async move {
            let request = f.claim_request(initial, u8::try_from(n % 3).unwrap());
            let outcome = store.reserve_claim(request, f.intend(), silent()).await.unwrap();
            if let ClaimOutcome::Reserved { claim, .. } = outcome {
                drawn.lock().unwrap().extend(claim.credentials.iter().map(|c| c.credential.id));
                claims.lock().unwrap().push(claim.id);
                if n % 2 == 0 {
                    let confirmed = store.confirm_claim(claim.id, silent()).await.unwrap();
                    assert!(!matches!(confirmed, ConfirmOutcome::AlreadyConfirmed));
                } else if n % 5 == 0 {
                    let unconfirmed = end(DestructionReason::Unconfirmed, HolderCopy::Unknown);
                    expected(store.destroy_claim(claim.id, unconfirmed, silent()).await.map(drop));
                }
            }
        });
    }
    // Production, erasure, re-wrapping into the next epoch, and the end and re-arming of VNFCIs meanwhile.
    for store in stores.clone() {
        let f = f.clone();
        work.spawn(async move {
            for _ in 0..10 {
                expected(store.insert_credentials(f.produce(5), silent()).await);
                let reduced = end(DestructionReason::PoolReduced, HolderCopy::NeverDelivered);
                expected(store.erase_unclaimed(f.pool.id, None, reduced, 2, silent()).await.map(drop));
            }
        });
    }
    let (rewrapping, store) = (f.clone(), stores[1].clone());
    let next = EpochId::generate();
    work.spawn(async move {
        let f = rewrapping;
        f.advance(f.epoch, EpochChange::Close).await;
        f.open_epoch(next).await;
        for _ in 0..10 {
            let keys = f.store.live_keys(f.epoch, 20).await.unwrap();
            let keys = keys.into_iter().map(|key| (key.credential.id, b"rewrapped".to_vec())).collect();
            expected(store.rewrapped(f.epoch, next, keys, silent()).await.map(drop));
        }
    });
    for (n, store) in stores.iter().cycle().take(6).enumerate() {
        let (f, store) = (f.clone(), store.clone());
        work.spawn(async move {
            // In the one order and in the other.
            let mut ids: Vec<_> = (0..20).map(|n| vnfci_id(&format!("v-{n:03}"))).collect();
            if n % 2 == 0 {
                ids.reverse();
            }
            let ended = end(DestructionReason::Terminated, HolderCopy::Unknown);
            if n < 3 {
                let rearmings = ids
                    .into_iter()
                    .map(|id| Rearming {
                        id,
                        vnf_instance: "vnf-1".parse().unwrap(),
                        initial_credential: keybroker::nfv::InitialCredentialId::generate(),
                        kind: InitialCredentialKind::Token,
                        expires_at: f.now().plus(Duration::from_secs(3_600)),
                    })
                    .collect();
                expected(
                    store
                        .rearm_vnfcis(&f.tenant, rearmings, &Quotas::default(), ended, silent())
                        .await
                        .map(drop),
                );
            } else {
                let items = ids.into_iter().take(5 * n).map(|id| (id, None)).collect();
                expected(store.terminate_vnfcis(&f.tenant, items, ended, silent()).await.map(drop));
            }
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    let mut drawn = Arc::into_inner(drawn).unwrap().into_inner().unwrap();
    let total = drawn.len();
    assert!(total > 60, "{total} were drawn");
    assert_eq!(drawn.drain(..).collect::<HashSet<_>>().len(), total, "none was drawn twice");
    // The counts are what there is.
    let d = database(&f);
    let counted = d.sql("SELECT key_state, COUNT(*) FROM credentials GROUP BY 1 ORDER BY 1");
    let kept = d.sql(
        "SELECT key_state, SUM(keys) FROM pool_levels WHERE key_state <> 'DRAWN' GROUP BY 1 HAVING SUM(keys) > 0 ORDER BY 1",
    );
    assert_eq!(kept, counted);
    assert_eq!(d.sql("SELECT SUM(keys) FROM pool_levels WHERE key_state = 'DRAWN'"), total.to_string());
    for epoch in f.store.epochs(None, EpochState::ALL).await.unwrap() {
        let live = f.store.live_keys(epoch.id, 10_000).await.unwrap().len();
        assert_eq!(epoch.live, u64::try_from(live).unwrap());
    }
    assert_eq!(
        d.sql("SELECT COUNT(*) FROM key_blobs"),
        d.sql("SELECT COUNT(*) FROM credentials WHERE erased_at IS NULL")
    );
    let deadlocks = d.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    assert_eq!(deadlocks, "0", "{}", d.cluster().log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_counts_of_connections_that_ended_are_folded() {
    let f = Fixture::postgres().await;
    f.fill(5).await;
    let d = database(&f);
    let stripes = || d.sql("SELECT COUNT(*) FROM pool_levels WHERE stripe <> 0").parse::<u32>().unwrap();
    let clock = f.clock.clone();
    let (pool, before) = (f.pool.id, f.store.pool_levels(f.pool.id).await.unwrap());
    assert!(stripes() > 0);
    f.store.close().await;
    let store = PostgresStore::open(postgres_options(d), Some(clock.clone())).await.unwrap();
    store.forget_requests(f.now()).await.unwrap();
    assert_eq!(stripes(), 0);
    assert_eq!(store.pool_levels(pool).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drawing_from_a_pool_that_was_refilled_often_walks_over_little_that_is_gone() {
    const CYCLES: usize = 6;
    // `make decay` draws more, and shows the figures of docs/benchmarks.md.
    let times = std::env::var("KEYBROKER_DECAY").map_or(1, |text| text.parse().expect("a number"));
    let claims: usize = 400 * times;
    let f = Arc::new(Fixture::postgres().await);
    // Nobody cleans up: the worst case.
    database(&f).sql("ALTER TABLE credentials SET (autovacuum_enabled = false)");
    for cycle in 0..CYCLES {
        f.fill(claims).await;
        let vnfcis: Vec<_> = (0..claims).map(|n| f.vnfci(&format!("v-{cycle}-{n}"), &["a"])).collect();
        let initials: Arc<Vec<_>> = Arc::new(vnfcis.iter().map(|v| v.initial_credential).collect());
        f.register_all(vnfcis).await;
        let place = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let mut work = JoinSet::new();
        for _ in 0..32 {
            let (f, initials, place) = (f.clone(), initials.clone(), place.clone());
            work.spawn(async move {
                while let Some(initial) = initials.get(place.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = f.try_claim(*initial, 1).await;
                    assert!(matches!(outcome, ClaimOutcome::Reserved { .. }), "{outcome:?}");
                }
            });
        }
        work.join_all().await;
        println!("cycle {cycle}: {:.0} claims/s", claims as f64 / begun.elapsed().as_secs_f64());
    }
    f.store.close().await;
    // The server's processes hand in their statistics when they end.
    let ended =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'keybroker'";
    while database(&f).sql(ended) != "0" {}
    let reads = database(&f).sql(
        "SELECT indexrelname, idx_scan, idx_tup_read FROM pg_stat_user_indexes WHERE relname = 'credentials' ORDER BY 1",
    );
    println!("{reads}");
    let read = reads.lines().find_map(|line| line.strip_prefix("credentials_draw|")).unwrap();
    let read: usize = read.split_once('|').unwrap().1.parse().unwrap();
    let per_claim = read / (CYCLES * claims);
    println!("{per_claim} index entries per claim");
    // From the front it would be half of all that were ever drawn: 1,200.
    assert!(per_claim > 0, "the draw reads another index");
    assert!(per_claim < 100, "{per_claim} index entries are read per claim");
}

#[tokio::test]
async fn every_table_column_index_and_trigger_is_explained_in_the_documentation() {
    let f = Fixture::postgres().await;
    let page = include_str!("../../docs/schema.md");
    let names = database(&f).sql(
        "SELECT table_name, column_name FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%'
         UNION SELECT tablename, indexname FROM pg_indexes
         WHERE schemaname = 'public' AND tablename NOT LIKE '\\_sqlx%' AND indexname NOT LIKE '%\\_pkey'
         UNION SELECT event_object_table, trigger_name FROM information_schema.triggers",
    );
    assert!(names.lines().count() > 150, "{names}");
    for line in names.lines() {
        let (table, name) = line.split_once('|').unwrap();
        let heading = format!("\n### `{table}`\n");
        let (_, rest) = page.split_once(&heading).unwrap_or_else(|| panic!("no section for {table}"));
        let section = rest.split("\n### ").next().unwrap();
        assert!(section.contains(&format!("`{name}`")), "{name} of {table}");
    }
}

#[tokio::test]
async fn both_databases_have_the_same_tables_columns_and_indexes() {
    let (postgres, sqlite) = (Fixture::postgres().await, Fixture::sqlite().await);
    let of_postgres: BTreeSet<(String, String)> = database(&postgres)
        .sql(
            "SELECT table_name, column_name FROM information_schema.columns
             WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%'
             UNION SELECT tablename, indexname FROM pg_indexes
             WHERE schemaname = 'public' AND tablename NOT LIKE '\\_sqlx%' AND indexname NOT LIKE '%\\_pkey'",
        )
        .lines()
        .map(|line| line.split_once('|').unwrap())
        .map(|(table, name)| (table.to_owned(), name.to_owned()))
        .collect();
    let file = sqlite.directory.as_ref().unwrap().path().join("store.db");
    let url = format!("sqlite:{}", file.display());
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    let mut of_sqlite: BTreeSet<(String, String)> = sqlx::query_as(
        "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE '_sqlx%'
         UNION SELECT tbl_name, name FROM sqlite_master
         WHERE type = 'index' AND name NOT LIKE 'sqlite_%' AND tbl_name NOT LIKE '_sqlx%'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
    .into_iter()
    .collect();
    // Only where many write at a time the order of commits is something to be kept.
    for name in ["xact", "events_xact"] {
        assert!(of_sqlite.insert(("events".to_owned(), name.to_owned())));
    }
    assert_eq!(of_postgres, of_sqlite);
}
