//! Goal: a database server that dies takes nothing with it, and one that is set up anew from a dump goes on where the old one
//! ended.
//! Method: PostgreSQL is killed by SIGKILL in the middle of claims, and started again; the same broker process serves before and
//! after. Then a dump, restored to another server. `support::settlement` looks at database, token, CRL and log.

use crate::support::PATIENCE;
use crate::support::mano::{By, http_exchange};
use crate::support::postgres::{Cluster, Database};
use crate::support::settlement::{Held, assert_settled};
use crate::support::site::{Options, Site};
use crate::support::vnfci::{Claimed, Vnfci, transient};
use keybroker::api::proto;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 2] = [("client", POOL), ("server", POOL)];
const VNFCIS: usize = 40;

async fn site_on(database: &Database) -> Site {
    Site::start_with(Options { store_url: database.url(), ..Options::default() }).await
}

/// Refilled whenever one is drawn: a pool that was full once is full again.
async fn refilled_pool(site: &mut Site, target: u32) {
    site.create_pool(POOL, target, Some(target)).await;
    site.until_available(POOL, target).await;
}

/// Claims, then confirms, each until it gets through.
async fn boot(site: Arc<Site>, vnfci: Vnfci, confirmed: watch::Sender<usize>) -> (Vnfci, Claimed) {
    let begun = Instant::now();
    let again = async |status: Status| {
        assert!(transient(&status), "{}: {status:?}", vnfci.id);
        assert!(begun.elapsed() < PATIENCE * 2, "{} never got through: {status:?}", vnfci.id);
        tokio::time::sleep(Duration::from_millis(30)).await;
    };
    let claimed = loop {
        match vnfci.claim(&site).await {
            Ok(claimed) => break claimed,
            Err(status) => again(status).await,
        }
    };
    while let Err(status) = vnfci.confirm(&site, &claimed).await {
        again(status).await;
    }
    confirmed.send_modify(|number| *number += 1);
    (vnfci, claimed)
}

fn assert_says_that_the_store_is_away(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let reason = status.get_details_error_info().map(|info| info.reason);
    assert_eq!(reason.as_deref(), Some("STORE_UNAVAILABLE"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_dead_calls_fail_closed_and_then_the_same_broker_goes_on() {
    let database = Cluster::own("").database();
    let mut site = site_on(&database).await;
    refilled_pool(&mut site, 30).await;
    let ids: Vec<String> = (0..VNFCIS).map(|n| format!("amf-{n:04}")).collect();
    let mut vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let late = vnfcis.pop().unwrap();
    let head_before = site.export("before").await.join("head.json");
    let pid = site.broker().pid();
    let broker = site.take_broker();

    let site = Arc::new(site);
    let confirmed = watch::Sender::new(0);
    let mut booting = JoinSet::new();
    for vnfci in vnfcis {
        booting.spawn(boot(Arc::clone(&site), vnfci, confirmed.clone()));
    }
    confirmed.subscribe().wait_for(|number| *number >= 5).await.unwrap();
    database.cluster().kill();
    assert!(*confirmed.borrow() < VNFCIS - 1, "all was done before the server died");

    // Whatever is asked is refused in bounded time, by name; nothing is answered from memory.
    let asked = Instant::now();
    assert_says_that_the_store_is_away(&late.claim(&site).await.err().expect("a refusal"));
    let mut pools = PoolServiceClient::new(site.management("nfvo").await);
    let request = proto::GetPoolRequest { tenant: String::new(), name: POOL.into() };
    assert_says_that_the_store_is_away(&pools.get_pool(request).await.unwrap_err());
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    let admin = site.addresses.admin;
    crate::support::until(PATIENCE, "unreadiness", async || {
        let (head, body) = http_exchange(&format!("http://{admin}/readyz")).await;
        let body = String::from_utf8_lossy(&body).into_owned();
        (head.starts_with("HTTP/1.1 503") && body.contains("database")).then_some(())
    })
    .await;
    // It lives: nobody is to restart it for this.
    let (head, _) = http_exchange(&format!("http://{admin}/healthz")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");

    database.cluster().start();
    booting.spawn(boot(Arc::clone(&site), late, confirmed));
    let mut held = Held::default();
    for (vnfci, claimed) in booting.join_all().await {
        held.unsealed(&vnfci.id, &claimed);
        held.acknowledged(&claimed);
    }
    assert_eq!(held.keys(), VNFCIS * SLOTS.len());
    let mut site = Arc::into_inner(site).expect("no task has the site any more");
    site.return_broker(broker);
    site.check();
    assert_eq!(site.broker().pid(), pid);
    site.until("readiness", async |site| {
        let answer = http_exchange(&format!("http://{}/readyz", site.addresses.admin)).await;
        answer.0.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    // Production goes on, too, and nothing is left half done.
    site.until_available(POOL, 30).await;
    assert_settled(&mut site, &held, &[], &head_before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restored_to_another_server_goes_on_with_pool_and_log() {
    let old = Cluster::own("").database();
    let mut site = site_on(&old).await;
    refilled_pool(&mut site, 6).await;
    let [first, second] =
        site.register(&["amf-1", "amf-2"], &SLOTS, By::Certificate).await.try_into().ok().unwrap();
    let mut held = Held::default();
    let claimed = first.boot(&site).await;
    held.unsealed(&first.id, &claimed);
    held.acknowledged(&claimed);
    let head_before = site.export("before").await.join("head.json");
    site.stop().await;

    let file = site.path().join("keybroker.dump");
    old.dump(&file);
    drop(old);
    let new = Cluster::own("").restore(&file);
    site.options.store_url = new.url();
    site.write_config();
    site.serve().await;
    // Whom the old one knew gets its keys, and the other way round nobody gets them twice.
    let claimed = second.claim_patiently(&site).await;
    assert!(second.confirm(&site, &claimed).await.unwrap());
    held.unsealed(&second.id, &claimed);
    held.acknowledged(&claimed);
    assert_eq!(first.claim(&site).await.err().expect("a refusal").code(), Code::Unauthenticated);
    site.until_available(POOL, 6).await;
    assert_settled(&mut site, &held, &[], &head_before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_a_database_that_is_away_for_a_moment() {
    let database = Cluster::own("").database();
    let mut site = site_on(&database).await;
    refilled_pool(&mut site, 2).await;
    let vnfci = site.register_one("amf-0", &SLOTS, By::Certificate).await;
    site.stop().await;
    database.cluster().stop("fast");
    let broker = site.spawn_broker();
    let log = site.log();
    crate::support::until(PATIENCE, "a word on the database", async || {
        std::fs::read_to_string(&log).unwrap().contains("not started yet").then_some(())
    })
    .await;
    database.cluster().start();
    site.return_broker(broker);
    site.until("the first answer", async |site| vnfci.claim(site).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_start_at_once_from_one_directory_make_its_files_once() {
    let database = Cluster::common().database();
    let mut site = site_on(&database).await;
    let mut replica = site.prepare_replica("replica");
    let tls = site.path().join("tls");
    site.stop().await;
    for _ in 0..3 {
        std::fs::remove_dir_all(&tls).unwrap();
        let (one, other) = tokio::join!(site.start_broker(), replica.start_broker());
        site.return_broker(one);
        replica.return_broker(other);
        site.stop().await;
        replica.stop().await;
        let files = std::fs::read_dir(&tls).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, ["bootstrap.pem", "server-key.pem", "server.pem"]);
    }
}
