//! Goal: where another database takes the place of the one that running brokers work on, or the mirror that would show it
//! lags, no key is delivered twice, and what was delivered all the same is withdrawn by `keybroker recover`.
//! Method: an older dump is swapped in by renaming databases, a standby that was cut off is promoted, SQLite's file is
//! replaced, under brokers that run; the mirror is kept from being written to, so that it shows nothing.

use crate::support::mano::{By, http_exchange, request_id};
use crate::support::postgres::{Cluster, Database};
use crate::support::settlement::{count, query};
use crate::support::site::{Options, Site};
use crate::support::vnfci::{Claimed, Vnfci, transient};
use crate::support::{PATIENCE, until};
use keybroker::api::proto;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(crate) const POOL: &str = "amf-transport";
pub(crate) const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
/// Nothing but what a test is about stops deliveries.
pub(crate) const PATIENT_MIRROR: &str = "max_lag = \"1h\"";

async fn readiness(site: &Site) -> (bool, String) {
    let (head, body) = http_exchange(&format!("http://{}/readyz", site.addresses.admin)).await;
    (head.starts_with("HTTP/1.1 200"), String::from_utf8(body).unwrap())
}

pub(crate) async fn until_ready(site: &mut Site) {
    site.until("readiness", async |site| readiness(site).await.0.then_some(())).await;
}

/// Until `/readyz` is 503 and says this.
pub(crate) async fn until_not_ready(site: &mut Site, why: &str) -> String {
    site.until(why, async |site| {
        let (ready, body) = readiness(site).await;
        (!ready && body.contains(why)).then_some(body)
    })
    .await
}

pub(crate) async fn until_logged(site: &mut Site, what: &str) {
    let log = site.log();
    site.until(what, async |_| std::fs::read_to_string(&log).unwrap().contains(what).then_some(())).await;
}

pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

pub(crate) fn names(list: &Value) -> BTreeSet<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

pub(crate) fn mirror(site: &Site) -> PathBuf {
    site.path().join("audit-mirror")
}

/// The mirror has everything that was committed.
pub(crate) async fn until_mirrored(site: &Site) {
    until(PATIENCE, "the mirror", async || {
        let position = std::fs::read(mirror(site).join("position.json")).ok()?;
        let position: Value = serde_json::from_slice(&position).unwrap();
        let events = count(site, "SELECT COUNT(*) FROM events").await;
        (position["size"].as_u64() == Some(events)).then_some(())
    })
    .await;
}

/// From now on nothing can be appended to the mirror, which stays readable otherwise.
pub(crate) fn block_mirror(site: &Site) {
    let events = mirror(site).join("events.jsonl");
    std::fs::rename(&events, site.path().join("events.aside")).unwrap();
    std::fs::create_dir(&events).unwrap();
}

pub(crate) fn unblock_mirror(site: &Site) {
    let events = mirror(site).join("events.jsonl");
    std::fs::remove_dir(&events).unwrap();
    std::fs::rename(site.path().join("events.aside"), &events).unwrap();
}

/// The pages of delivery notes, with their sizes.
pub(crate) fn pages(site: &Site) -> BTreeMap<PathBuf, u64> {
    let entries = std::fs::read_dir(mirror(site)).unwrap().map(|entry| entry.unwrap());
    let pages = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("delivered."));
    pages.map(|page| (page.path(), page.metadata().unwrap().len())).collect()
}

/// As if the machine had lost its power: what was noted is gone.
fn forget_notes(site: &Site) {
    for page in pages(site).into_keys() {
        File::options().write(true).open(page).unwrap().set_len(0).unwrap();
    }
}

pub(crate) async fn recover(site: &Site, flags: &[&str]) -> Value {
    let config = site.config().display().to_string();
    until(PATIENCE, "the end of leases", async || {
        let arguments = ["recover", "--config", &config, "--yes"].into_iter().chain(flags.iter().copied());
        let finished = site.cli(arguments).await;
        (finished.code != 4).then(|| finished.ok().object())
    })
    .await
}

/// An older state of a database, and how it takes the place of the present one under brokers that run.
enum Older {
    /// A dump that was restored under another name: databases are renamed.
    Database(String),
    /// A standby that got nothing since: the primary dies, it is promoted.
    Standby(PathBuf),
}

impl Older {
    fn of_dump(site: &Site, database: &Database) -> Self {
        let file = site.path().join("old.dump");
        database.dump(&file);
        let name = format!("{}_old", database.name());
        database.cluster().restore_as(&name, &file);
        Self::Database(name)
    }

    fn take_over(&self, database: &Database) {
        match self {
            Self::Standby(data) => database.cluster().fail_over(data),
            Self::Database(name) => database.swap(name),
        }
    }
}

pub(crate) async fn two_brokers(audit: &'static str) -> (Site, Site, Database) {
    let database = Cluster::own("").database();
    let options = Options { store_url: database.url(), audit, ..Options::default() };
    let site = Site::start_with(options).await;
    let replica = site.replica().await;
    (site, replica, database)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_swapped_in_under_two_brokers_delivers_nothing_a_second_time() {
    older_database(Older::of_dump).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_lagged_delivers_nothing_a_second_time_when_it_is_promoted() {
    older_database(|_, database| Older::Standby(database.cluster().standby())).await;
}

/// The mirror shows nothing, and the second broker knows nothing of what the first one delivered.
async fn older_database(older: impl FnOnce(&Site, &Database) -> Older) {
    let (mut first, mut second, database) = two_brokers(PATIENT_MIRROR).await;
    first.full_pool(POOL, 2).await;
    let ids: Vec<String> = (0..6).map(|n| format!("amf-{n}")).collect();
    let vnfcis = first.register(&ids, &SLOTS, By::Certificate).await;
    until_mirrored(&first).await;
    block_mirror(&first);
    let older = older(&first, &database);
    // All that it has is given out after it.
    let mut held = BTreeSet::new();
    for vnfci in &vnfcis[..2] {
        let claimed = vnfci.boot(&first).await;
        assert!(held.insert(claimed.keys[0].credential_id.clone()));
    }
    forget_notes(&first);
    older.take_over(&database);
    // Whoever asks whom, from the first moment on.
    let asking = vnfcis[2..].iter().enumerate().map(async |(n, vnfci)| {
        let site = if n % 2 == 0 { &first } else { &second };
        until(PATIENCE, "the verdict", async || {
            let refused = vnfci.claim(site).await.err().expect("nothing is to be delivered");
            assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
            (reason(&refused) == "ROLLED_BACK").then_some(())
        })
        .await;
    });
    futures_util::future::join_all(asking).await;
    for site in [&mut first, &mut second] {
        until_not_ready(site, "rolled back").await;
        site.check();
    }
    // It is remembered where it belongs: a start that knows nothing finds it.
    second.kill_and_restart().await;
    until_not_ready(&mut second, "rolled back: of the last").await;
    let refused = vnfcis[5].claim(&second).await.err().unwrap();
    assert_eq!(reason(&refused), "ROLLED_BACK");
    // And nothing was drawn from the old state by anyone.
    assert_eq!(count(&first, "SELECT COUNT(*) FROM claims").await, 0);
    first.stop().await;
    second.stop().await;
    unblock_mirror(&first);
    let done = recover(&first, &[]).await;
    assert_eq!(done["done"], true, "{done}");
    let rearm = names(&done["outcome"]["rearm"]);
    assert!(ids.iter().all(|id| rearm.contains(format!("default/{id}").as_str())), "{done}");
    first.serve().await;
    first.until_available(POOL, 2).await;
    let fresh = first.register_one("fresh", &SLOTS, By::Certificate).await.claim_patiently(&first).await;
    assert!(!held.contains(&fresh.keys[0].credential_id), "delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_that_lacks_nothing_is_accepted_by_itself() {
    let (mut first, mut second, database) = two_brokers("").await;
    first.full_pool(POOL, 3).await;
    let vnfcis = first.register(&["amf-0", "amf-1", "amf-2"], &SLOTS, By::Certificate).await;
    vnfcis[0].boot(&first).await;
    first.until_available(POOL, 2).await;
    until_mirrored(&first).await;
    // Whatever they do by themselves, such as filling the pool again, is in the dump or comes after the swap.
    for site in [&first, &second] {
        site.broker().signal(Signal::STOP);
    }
    let at_work = format!(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{}' AND state <> 'idle'",
        database.name()
    );
    until(PATIENCE, "the end of what the server was told to do", async || {
        (database.cluster().sql("postgres", &at_work).trim() == "0").then_some(())
    })
    .await;
    let older = Older::of_dump(&first, &database);
    older.take_over(&database);
    for site in [&first, &second] {
        site.broker().signal(Signal::CONT);
    }
    assert_eq!(count(&first, "SELECT COUNT(*) FROM claims").await, 1);
    for site in [&mut first, &mut second] {
        until_logged(site, "another database answers").await;
    }
    for (site, vnfci) in [(&first, &vnfcis[1]), (&second, &vnfcis[2])] {
        let claimed = vnfci.claim_patiently(site).await;
        assert!(vnfci.confirm(site, &claimed).await.unwrap());
    }
    for site in [&mut first, &mut second] {
        until_ready(site).await;
    }
    // A start on it is nothing new.
    first.kill_and_restart().await;
    until_ready(&mut first).await;
}

/// Claims until it is served, or told that nothing is delivered any more.
async fn claim_to_the_end(
    site: Arc<Site>,
    vnfci: Vnfci,
    served: Arc<AtomicUsize>,
) -> Option<(String, Claimed)> {
    let begun = Instant::now();
    loop {
        match vnfci.claim(&site).await {
            Ok(claimed) => {
                served.fetch_add(1, Ordering::SeqCst);
                if let Err(status) = vnfci.confirm(&site, &claimed).await {
                    assert!(transient(&status), "{}: {status:?}", vnfci.id);
                }
                return Some((vnfci.id, claimed));
            }
            Err(status) if reason(&status) == "ROLLED_BACK" => return None,
            Err(status) => {
                assert!(transient(&status) && begun.elapsed() < PATIENCE * 2, "{}: {status:?}", vnfci.id);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_in_the_middle_of_a_storm_leaves_no_key_with_two_holders() {
    const VNFCIS: usize = 60;
    let (mut first, second, database) = two_brokers("").await;
    first.full_pool(POOL, 40).await;
    let ids: Vec<String> = (0..VNFCIS).map(|n| format!("amf-{n:03}")).collect();
    let mut vnfcis = first.register(&ids, &SLOTS, By::Certificate).await.into_iter();
    let sites = [Arc::new(first), Arc::new(second)];
    let served = Arc::new(AtomicUsize::new(0));
    let mut claiming = JoinSet::new();
    let start = |claiming: &mut JoinSet<_>, vnfcis: &mut dyn Iterator<Item = Vnfci>| {
        for (n, vnfci) in vnfcis.enumerate() {
            claiming.spawn(claim_to_the_end(Arc::clone(&sites[n % 2]), vnfci, Arc::clone(&served)));
        }
    };
    start(&mut claiming, &mut vnfcis.by_ref().take(10));
    let first_served = Arc::clone(&served);
    until(PATIENCE, "some claims", async || (first_served.load(Ordering::SeqCst) >= 10).then_some(())).await;
    let older = Older::of_dump(&sites[0], &database);
    start(&mut claiming, &mut vnfcis.by_ref().take(20));
    until(PATIENCE, "more claims", async || (first_served.load(Ordering::SeqCst) >= 20).then_some(())).await;
    start(&mut claiming, &mut vnfcis);
    older.take_over(&database);
    let mut holders: BTreeMap<String, String> = BTreeMap::new();
    for (holder, claimed) in claiming.join_all().await.into_iter().flatten() {
        let key = claimed.keys[0].facts.public_key.to_string();
        if let Some(other) = holders.insert(key, holder.clone()) {
            panic!("{holder} and {other} have the same key");
        }
    }
    assert!(holders.len() >= 20, "{}", holders.len());
    let [mut first, mut second] = sites.map(|site| Arc::into_inner(site).expect("all have ended"));
    for site in [&mut first, &mut second] {
        until_not_ready(site, "rolled back").await;
        site.stop().await;
    }
    let done = recover(&first, &[]).await;
    assert_eq!(done["done"], true, "{done}");
    // Whoever was served after the dump is to be armed anew.
    let rearm = names(&done["outcome"]["rearm"]);
    let confirmed = query(&first, "SELECT vnfci FROM claims WHERE state = 'CONFIRMED'").await;
    for holder in holders.values().filter(|holder| !confirmed.contains(holder)) {
        assert!(rearm.contains(format!("default/{holder}").as_str()), "{holder}: {done}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_is_noticed_and_goes_on_by_itself() {
    let (mut first, second, database) = two_brokers("").await;
    first.full_pool(POOL, 2).await;
    let vnfcis = first.register(&["amf-0", "amf-1"], &SLOTS, By::Certificate).await;
    vnfcis[0].boot(&first).await;
    database.cluster().stop("fast");
    database.cluster().start();
    until_logged(&mut first, "the database's server was restarted").await;
    vnfcis[1].claim_patiently(&second).await;
    until_ready(&mut first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_takes_the_place_of_the_database_is_not_worked_on() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let vnfcis = site.register(&["amf-0", "amf-1"], &SLOTS, By::Certificate).await;
    let copy = site.path().join("copy.db");
    let command = format!(".backup '{}'", copy.display());
    let database = site.database().display().to_string();
    crate::support::process::run("sqlite3", [database, command]).await.ok();
    vnfcis[0].boot(&site).await;
    std::fs::rename(&copy, site.database()).unwrap();
    let refused = vnfcis[1].claim(&site).await.err().expect("what is written would be gone");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"));
    until_not_ready(&mut site, "was replaced or removed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_lags_too_far_stops_deliveries_until_it_has_caught_up() {
    let audit = "max_lag = \"10s\"";
    let mut site = Site::start_with(Options { audit, ..Options::default() }).await;
    site.full_pool(POOL, 4).await;
    let vnfcis = site.register(&["amf-0", "amf-1", "amf-2"], &SLOTS, By::Certificate).await;
    vnfcis[0].claim_patiently(&site).await;
    until_mirrored(&site).await;
    block_mirror(&site);
    let claimed = vnfcis[1].claim_patiently(&site).await;
    let body = until_not_ready(&mut site, "lacks what was committed").await;
    assert!(body.contains("max_lag"), "{body}");
    let refused = vnfcis[2].claim(&site).await.err().expect("too much is missing in the mirror");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "MIRROR_BEHIND"));
    // It is measured now and then.
    site.until("the gauge", async |site| {
        let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
        metrics.lines().any(|line| line == "keybroker_deliveries_withheld 1").then_some(())
    })
    .await;
    // What was delivered is confirmed and ended all the same: that takes nothing out of the pool.
    assert!(vnfcis[1].confirm(&site, &claimed).await.unwrap());
    assert!(site.terminate_vnfci("amf-1").await.newly_terminated);
    unblock_mirror(&site);
    vnfcis[2].claim_patiently(&site).await;
    until_ready(&mut site).await;
    until_mirrored(&site).await;
    site.verify(&mirror(&site), &[]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_frozen_with_the_mirrors_lease_holds_up_no_other_and_damages_nothing_when_it_wakes()
{
    const MAX_LAG: Duration = Duration::from_secs(25);
    let (mut first, second, _database) = two_brokers("max_lag = \"25s\"").await;
    first.full_pool(POOL, 4).await;
    until_mirrored(&first).await;
    // Each has a log of its own process: whose pid is in the lease's name has the turn.
    let held = "SELECT holder FROM leases WHERE name = 'mirror' AND expires_at > 0";
    let holder = query(&first, held).await.remove(0);
    let has_it = holder.starts_with(&format!("{}-", first.broker().pid()));
    let (frozen, mut other) = if has_it { (first, second) } else { (second, first) };
    frozen.broker().signal(Signal::STOP);
    // Other work rests for other reasons: as if it had no lease but this one.
    let others = format!("UPDATE leases SET expires_at = 0 WHERE holder = '{holder}' AND name <> 'mirror'");
    query(&other, &others).await;
    let (frozen_at, mut turn) = (Instant::now(), 0);
    while frozen_at.elapsed() < MAX_LAG + Duration::from_secs(15) {
        // Something to mirror, and something to deliver.
        let vnfci = other.register_one(&format!("amf-{turn}"), &SLOTS, By::Certificate).await;
        let claimed = vnfci.claim_patiently(&other).await;
        assert!(vnfci.confirm(&other, &claimed).await.unwrap());
        turn += 1;
        other.until_available(POOL, 1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    until_mirrored(&other).await;
    frozen.broker().signal(Signal::CONT);
    let vnfci = other.register_one("amf-awake", &SLOTS, By::Certificate).await;
    vnfci.claim_patiently(&frozen).await;
    until_ready(&mut other).await;
    until_mirrored(&other).await;
    // The replica's mirror is the one of the site that it is a replica of.
    other.verify(&mirror(&other), &[]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_cannot_be_written_to_at_the_start_stops_deliveries_until_it_can() {
    let audit = "mirror = \"storage/mirror\"";
    let mut site = Site::prepare(Options { audit, ..Options::default() });
    let storage = site.path().join("storage");
    // Where nobody, whoever it is, can make a directory.
    std::os::unix::fs::symlink("/proc", &storage).unwrap();
    site.init().await;
    site.serve().await;
    site.add_anchor("default", crate::support::site::ANCHOR, &site.mano_ca).await;
    site.full_pool(POOL, 1).await;
    let vnfci = site.register_one("amf-0", &SLOTS, By::Certificate).await;
    until_not_ready(&mut site, "was not written to yet").await;
    let refused = vnfci.claim(&site).await.err().expect("there is no mirror");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "MIRROR_BEHIND"));
    std::fs::remove_file(&storage).unwrap();
    std::fs::create_dir(&storage).unwrap();
    vnfci.claim_patiently(&site).await;
    until_ready(&mut site).await;
}

async fn backup(site: &Site, file: &Path) {
    let command = format!(".backup '{}'", file.display());
    let database = site.database().display().to_string();
    crate::support::process::run("sqlite3", [database, command]).await.ok();
}

fn put_back(site: &Site, file: &Path) {
    for end in ["-wal", "-shm"] {
        let mut beside = site.database().into_os_string();
        beside.push(end);
        let _ = std::fs::remove_file(beside);
    }
    std::fs::copy(file, site.database()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rolled_back_database_delivered_unnoticed_is_withdrawn_and_its_holder_armed_anew() {
    let options = Options { audit: PATIENT_MIRROR, ..Options::default() };
    let mut site = Site::start_with(options).await;
    site.full_pool(POOL, 1).await;
    let vnfcis = site.register(&["first", "second"], &SLOTS, By::Certificate).await;
    until_mirrored(&site).await;
    block_mirror(&site);
    let file = site.path().join("backup.db");
    backup(&site, &file).await;
    let first = vnfcis[0].boot(&site).await;
    // The one that knows dies, and neither mirror nor notes show anything: the same key goes out again.
    site.kill();
    forget_notes(&site);
    put_back(&site, &file);
    site.serve().await;
    let second = vnfcis[1].boot(&site).await;
    assert_eq!(first.keys[0].credential_id, second.keys[0].credential_id, "the case that this is about");
    site.kill();
    unblock_mirror(&site);
    let done = recover(&site, &["--force"]).await;
    let rearm = names(&done["outcome"]["rearm"]);
    assert_eq!(rearm, ["default/first", "default/second"].into(), "{done}");
    assert_eq!(done["outcome"]["revoked"], 1, "{done}");
    let pending = "SELECT lower(hex(credential)) FROM certificates WHERE state = 'REVOCATION_PENDING'";
    assert_eq!(query(&site, pending).await, [second.keys[0].credential_id.replace('-', "")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_rolled_back_database_does_not_know_is_told_to_try_again() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let file = site.path().join("backup.db");
    backup(&site, &file).await;
    let by_certificate = site.register_one("amf-0", &SLOTS, By::Certificate).await;
    let by_token = site.register_one("amf-1", &SLOTS, By::Token).await;
    let renewing = site.register_one("amf-2", &SLOTS, By::Certificate).await;
    let delivered = renewing.boot(&site).await;
    site.stop().await;
    put_back(&site, &file);
    site.serve().await;
    let refused = by_certificate.claim(&site).await.err().unwrap();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "ROLLED_BACK"));
    // Of these nothing shows that they are no strangers.
    let refused = by_token.claim(&site).await.err().unwrap();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"));
    let refused = renewing.rebooted().renew(&site, &delivered.keys[0]).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rolled_back_database_forgot_may_be_ended_later_and_is_refused_to_nobody_for_good() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 3).await;
    let vnfcis = site.register(&["open-then", "known"], &SLOTS, By::Certificate).await;
    let claimed = vnfcis[0].claim_patiently(&site).await;
    let file = site.path().join("backup.db");
    backup(&site, &file).await;
    assert!(vnfcis[0].confirm(&site, &claimed).await.unwrap());
    site.register_one("forgotten", &SLOTS, By::Certificate).await;
    site.stop().await;
    put_back(&site, &file);
    site.serve().await;
    until_not_ready(&mut site, "rolled back").await;
    let mut nfvo = LifecycleServiceClient::new(site.management("nfvo").await);
    let terminate = |id: &str| proto::TerminateVnfciRequest {
        request_id: request_id(),
        vnfci_id: id.into(),
        ..Default::default()
    };
    let scale_in = |ids: &[&str]| proto::ScaleInRequest {
        request_id: request_id(),
        vnfci_ids: ids.iter().map(|id| (*id).into()).collect(),
        ..Default::default()
    };
    let of_one = nfvo.terminate_vnfci(terminate("forgotten")).await.err();
    // Otherwise it would never hear of the one that it does not know.
    let of_several = nfvo.scale_in(scale_in(&["known", "forgotten"])).await.err();
    // In the backup its claim is open.
    let release = claimed.release(&site).await.err();
    for refused in [of_one, of_several, release] {
        let refused = refused.expect("the answer may be another one after the recovery");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "ROLLED_BACK"));
    }
    // Whoever asks is told what there is.
    let reading = proto::GetVnfciRequest { vnfci_id: "forgotten".into(), ..Default::default() };
    assert_eq!(nfvo.get_vnfci(reading).await.unwrap_err().code(), Code::NotFound);
    nfvo.scale_in(scale_in(&["known"])).await.unwrap();
    assert_eq!(site.vnfci("known").await.state, proto::VnfciState::Terminated as i32);
    site.stop().await;
    recover(&site, &[]).await;
    site.serve().await;
    until_ready(&mut site).await;
    let mut nfvo = LifecycleServiceClient::new(site.management("nfvo").await);
    let refused = nfvo.terminate_vnfci(terminate("forgotten")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "now it is for good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_another_time_is_not_taken_for_a_rolled_back_database() {
    let mut site = Site::start().await;
    let tokens = site.path().join("tokens");
    let copy = |from: &Path, to: &Path| {
        let arguments = ["-a", from.to_str().unwrap(), to.to_str().unwrap()];
        assert!(std::process::Command::new("cp").args(arguments).status().unwrap().success());
    };
    let (clone, good) = (site.path().join("clone"), site.path().join("good"));
    copy(&tokens, &clone);
    // Its KEK is made now.
    site.full_pool(POOL, 1).await;
    let vnfci = site.register_one("amf-0", &SLOTS, By::Certificate).await;
    site.stop().await;
    std::fs::rename(&tokens, &good).unwrap();
    copy(&clone, &tokens);
    site.serve().await;
    let body = until_not_ready(&mut site, "is missing on the token").await;
    assert!(body.contains("a copy from another time") && body.contains("rolled back together"), "{body}");
    let refused = vnfci.claim(&site).await.err().unwrap();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "TOKEN_DIFFERS"));
    site.stop().await;
    let config = site.config().display().to_string();
    let refused = site.cli(["recover", "--config", &config, "--yes"]).await;
    assert!(refused.code == 1 && refused.err.contains("--force"), "{refused:?}");
    let said = refused.object();
    assert_eq!((&said["done"], &said["needed"]), (&false.into(), &true.into()), "{said}");
    assert_eq!(said["plan"]["token_differs"], true, "{said}");
    std::fs::remove_dir_all(&tokens).unwrap();
    std::fs::rename(&good, &tokens).unwrap();
    site.serve().await;
    vnfci.claim_patiently(&site).await;
}
