//! Goal: two brokers on one database and one token are as one: they share the work, and one goes on where the other was killed.
//! Method: two processes with the same configuration but their ports, on PostgreSQL; VNFCIs that claim at both.

use super::restart::{each_once, persistent};
use crate::support::fresh_token::fresh_token;
use crate::support::mano::{By, http_exchange};
use crate::support::postgres::{Cluster, Database};
use crate::support::process::{keybroker, run};
use crate::support::settlement::{Held, assert_settled};
use crate::support::site::{Options, Site};
use crate::support::{PATIENCE, until};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use keybroker::ca::certificates_from_pem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 2] = [("client", POOL), ("server", POOL)];
const VNFCIS: usize = 40;
/// How long a broker that was killed keeps its leases.
const LEASE: Duration = Duration::from_secs(30);

async fn site_on_postgres() -> (Site, Database) {
    let database = Cluster::common().database();
    let options = Options { store_url: database.url(), ..Options::default() };
    (Site::start_with(options).await, database)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broker_goes_on_with_everything_where_the_other_was_killed() {
    let (mut first, _database) = site_on_postgres().await;
    first.full_pool(POOL, 30).await;
    let replica = first.replica().await;
    let ids: Vec<String> = (0..VNFCIS).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = first.register(&ids, &SLOTS, By::Certificate).await;
    let head_before = first.export("before").await.join("head.json");

    let sites = [Arc::new(RwLock::new(first)), Arc::new(RwLock::new(replica))];
    let confirmed = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for (n, vnfci) in vnfcis.into_iter().enumerate() {
        let mut sites = sites.to_vec();
        sites.rotate_left(n % 2);
        running.spawn(persistent(vnfci, sites, Arc::clone(&confirmed)));
    }
    until(PATIENCE, "the storm", async || (confirmed.load(Ordering::Relaxed) >= 10).then_some(())).await;
    // The one that has had all leases since it started; at once, with calls under way.
    let pid = sites[0].read().await.broker().pid();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let killed = Instant::now();
    sites[0].write().await.kill();
    let seen = running.join_all().await.into_iter().flatten().collect();
    let [first, replica] = sites.map(|site| Arc::into_inner(site).expect("all have ended").into_inner());
    let (mut first, mut replica) = (first, replica);
    each_once(&replica, &ids, &seen).await;
    // Production goes on, by the other one.
    replica.until_available(POOL, 30).await;
    let took = killed.elapsed();
    assert!(took < LEASE + Duration::from_secs(30), "after {took:?}");
    // And the log: one chain, whoever wrote it.
    first.serve().await;
    let export = first.export("after").await;
    let report = first.verify(&export, &[&head_before]).await.ok().object();
    assert_eq!((&report["verified"], &report["extends"]), (&true.into(), &1.into()), "{report}");
    replica.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_ends_gives_its_leases_back_and_leaves_no_event_unchained() {
    let (mut site, database) = site_on_postgres().await;
    site.full_pool(POOL, 60).await;
    let ids: Vec<String> = (0..30).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    // So many at once that the store makes connections while it serves them.
    let shared = Arc::new(site);
    let mut booting = JoinSet::new();
    for vnfci in vnfcis {
        let site = Arc::clone(&shared);
        booting.spawn(async move { vnfci.boot(&site).await });
    }
    booting.join_all().await;
    site = Arc::into_inner(shared).expect("all have ended");
    site.stop().await;
    assert_eq!(database.sql("SELECT name FROM leases WHERE expires_at > 0"), "");
    assert_eq!(
        database.sql("SELECT kind FROM events WHERE id NOT IN (SELECT event_id FROM audit_chain)"),
        ""
    );
    let log = std::fs::read_to_string(site.log()).unwrap();
    assert!(!log.contains("being shutdown"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_sleeps_through_its_leases_changes_nothing_under_them_afterwards() {
    let (mut first, database) = site_on_postgres().await;
    first.full_pool(POOL, 4).await;
    let head_before = first.export("before").await.join("head.json");
    let mut replica = first.replica().await;
    let holders = || database.sql("SELECT name, holder, fence FROM leases ORDER BY name");
    let fence = |holders: &str, name: &str| {
        let line = holders.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        let (rest, fence) = line.rsplit_once('|').unwrap();
        (rest.to_owned(), fence.parse::<i64>().unwrap())
    };
    let before = fence(&holders(), "producer");
    first.broker().signal(rustix::process::Signal::STOP);
    // What it holds in the database in the middle of a transaction is given up for it after a minute.
    replica.create_pool("meanwhile", 4, None).await;
    until(PATIENCE + LEASE + LEASE, "production at the other one", async || {
        (replica.levels("meanwhile").await.ready >= 4).then_some(())
    })
    .await;
    let taken = fence(&holders(), "producer");
    assert!(taken.0 != before.0 && taken.1 > before.1, "{before:?}, then {taken:?}");
    // It wakes up in the belief that it is still at work.
    first.broker().signal(rustix::process::Signal::CONT);
    first.full_pool("after", 4).await;
    assert_eq!(fence(&holders(), "producer"), taken, "it took back what it had lost");
    // Nor does it go on telling what it saw when it did that work.
    let tells = async |site: &Site| String::from_utf8(site.get(true, "/metrics").await).unwrap();
    until(PATIENCE * 2, "silence about pools", async || {
        (!tells(&first).await.contains("keybroker_pool_credentials{")).then_some(())
    })
    .await;
    assert!(tells(&replica).await.contains("pool=\"meanwhile\""));
    let request_id = crate::support::mano::request_id();
    let delete = proto::DeletePoolRequest { request_id, tenant: String::new(), name: "meanwhile".into() };
    PoolServiceClient::new(first.management("nfvo").await).delete_pool(delete).await.unwrap();
    until(PATIENCE * 2, "silence about the pool that is gone", async || {
        (!tells(&replica).await.contains("pool=\"meanwhile\"")).then_some(())
    })
    .await;
    assert!(tells(&replica).await.contains("keybroker_pool_credentials{"));
    first.check();
    replica.check();
    // All that was done is in the log before this is.
    first.export("after").await;
    // Production was by one at a time: every key that is there was produced and recorded once; one chain.
    let produced: usize = first
        .events("KEYS_PRODUCED")
        .await
        .iter()
        .map(|event| event["credentials"].as_array().unwrap().len())
        .sum();
    assert_eq!(database.sql("SELECT count(*) FROM credentials"), produced.to_string());
    assert_settled(&mut first, &Held::default(), &[], &head_before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_produces_under_the_open_epoch_after_another_one_shredded_the_one_it_knew() {
    let (mut first, database) = site_on_postgres().await;
    let replica = first.replica().await;
    first.full_pool(POOL, 1).await;
    // More slots than keys: the claim at the replica has the rest produced, by the replica.
    let slots = [("a", POOL), ("b", POOL), ("c", POOL), ("d", POOL)];
    let vnfci = first.register_one("amf-1", &slots, By::Certificate).await;
    vnfci.boot(&replica).await;
    let known = database.sql("SELECT max(upper(encode(id, 'hex'))) FROM epochs");
    // Something is erased: the one that sweeps moves the rest, and shreds.
    first.terminate_vnfci("amf-1").await;
    let shredded = format!("SELECT state FROM epochs WHERE upper(encode(id, 'hex')) = '{known}'");
    until(PATIENCE, "the end of the epoch", async || (database.sql(&shredded) == "DESTROYED").then_some(()))
        .await;
    let vnfci = first.register_one("amf-2", &slots, By::Certificate).await;
    vnfci.boot(&replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_ends_hands_its_work_over_at_once() {
    let (mut first, _database) = site_on_postgres().await;
    let mut replica = first.replica().await;
    first.full_pool(POOL, 4).await;
    first.stop().await;
    let begun = Instant::now();
    replica.full_pool("after", 4).await;
    let took = begun.elapsed();
    assert!(took < LEASE / 2, "the leases were not given back: {took:?}");
    // An upgrade of one after the other: each serves while the other is away.
    first.serve().await;
    replica.stop().await;
    first.full_pool("upgraded", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_added_at_one_broker_is_served_by_the_other() {
    let (first, _database) = site_on_postgres().await;
    let mut replica = first.replica().await;
    first.add_tenant("other").await;
    first.create_pool(POOL, 4, None).await;
    replica.until_available(POOL, 4).await;
    let vnfci = first.register_one("amf-1", &SLOTS, By::Token).await;
    vnfci.boot(&replica).await;
    assert_eq!(first.vnfci("amf-1").await.initial_credential_state, "SPENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_sees_another_token_is_refused_with_an_explanation() {
    let (mut first, _database) = site_on_postgres().await;
    let other = first.path().join("other");
    let token = fresh_token(&other, keybroker());
    let text = std::fs::read_to_string(first.config()).unwrap();
    let text = text
        .replace(&*first.token.configuration.to_string_lossy(), &token.configuration.to_string_lossy())
        .replace("pin_file = \"pin\"", &format!("pin_file = {:?}", token.pin_file.display().to_string()))
        .replace("127.0.0.1:", "127.0.0.2:");
    let config = first.path().join("other.toml");
    std::fs::write(&config, text).unwrap();
    let refused = first.cli(["serve", "--config", &config.display().to_string()]).await;
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("belongs to the token with serial number"), "{refused:?}");
    assert!(refused.err.contains("--adopt-token"), "{refused:?}");
    let refused = first.cli(["init", "--config", &config.display().to_string()]).await;
    assert!(
        refused.code != 0 && refused.err.contains("belongs to the token with serial number"),
        "{refused:?}"
    );
    let looked = first.cli(["doctor", "--config", &config.display().to_string()]).await;
    assert_eq!(looked.code, 1, "{looked:?}");
    let found = |check: &str| looked.objects().into_iter().find(|row| row["check"] == check).unwrap();
    let serial = found("token of the database");
    assert_eq!(serial["status"], "fail");
    assert!(
        serial["finding"].as_str().unwrap().contains("belongs to the token with serial number"),
        "{serial}"
    );
    assert_eq!(found("token objects")["objects"], serde_json::json!([]), "init made something on it");
    first.check();
}

/// Whoever looks while another one is making a key finds none on the token: it must not make a second one of that name.
#[tokio::test(flavor = "multi_thread")]
async fn two_brokers_that_need_an_epoch_at_once_make_one_key_for_it() {
    for slowly in [Duration::from_secs(4), Duration::from_secs(20)] {
        let database = Cluster::common().database();
        let store_url = database.url();
        let options =
            Options { store_url, faulty: true, call_deadline: "40s", workers: (1, 1), ..Options::default() };
        let mut first = Site::start_with(options).await;
        let replica = first.replica().await;
        let head_before = first.export("before").await.join("head.json");
        // The producer has recorded an epoch, and the HSM takes its time with the key.
        first.faults().set(&format!("C_GenerateKey:token delay {} times 1", slowly.as_millis()));
        first.create_pool(POOL, 2, None).await;
        first
            .until("a key under way", async |site| (!site.faults().injected().is_empty()).then_some(()))
            .await;
        assert_eq!(database.sql("SELECT state FROM epochs"), "CREATING");
        // Meanwhile VNFCIs ask the other one, which would produce what the pool lacks.
        let vnfci = first.register_one("amf-1", &SLOTS, By::Certificate).await;
        let mut held = Held::default();
        let claimed = vnfci.claim_patiently(&replica).await;
        held.unsealed("amf-1", &claimed);
        assert!(vnfci.confirm(&replica, &claimed).await.unwrap());
        held.acknowledged(&claimed);
        // The slow one works, too, whether it was waited for or given up.
        first.until_available(POOL, 2).await;
        assert_settled(&mut first, &held, &[], &head_before).await;
        let shredding = first.events("EPOCH_SHREDDING").await;
        let given_up = shredding.iter().filter(|event| event["details"]["reason"] == "ABANDONED").count();
        assert_eq!(given_up, usize::from(slowly.as_secs() > 15), "{slowly:?}");
    }
}

/// The certificates that a listener shows.
async fn shown(listener: SocketAddr) -> Vec<Vec<u8>> {
    let ask = format!("openssl s_client -showcerts -connect {listener} </dev/null 2>/dev/null");
    let said = run("sh", ["-c", &ask]).await.out;
    certificates_from_pem(said.as_bytes()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_see_of_another_ca_is_soon_the_same_at_every_broker() {
    let (first, _database) = site_on_postgres().await;
    let replica = first.replica().await;
    for (at, other) in [(&first, &replica), (&replica, &first)] {
        let request = proto::IssueCaRequest {
            request_id: crate::support::mano::request_id(),
            tenant: "default".into(),
            name: "main".into(),
            ..Default::default()
        };
        let mut client = AdminServiceClient::new(at.management("operator").await);
        let ca = client.issue_ca(request).await.unwrap().into_inner().ca.unwrap();
        let addresses = other.addresses;
        for listener in [addresses.bootstrap, addresses.vnfci, addresses.management] {
            until(PATIENCE, "the new CA at the other broker's listeners", async || {
                shown(listener).await.contains(&ca.certificate_der).then_some(())
            })
            .await;
        }
        // Whoever publishes, it knows the CA, too.
        until(PATIENCE, "the new CA's list", async || {
            let list = format!("http://{}/crl/{}.crl", other.addresses.http, ca.issuer_id);
            http_exchange(&list).await.0.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
    }
}
