//! Goal: SIGKILL in the middle of anything loses nothing: afterwards every claim ends delivered or destroyed, none
//! twice, no key material is left behind, what ended is revoked and receipted, and the log verifies.
//! Method: production, 200 concurrent claims, confirmations, terminations and shredding are each struck twice: SIGKILL
//! for every HSM worker when a quarter is done, SIGKILL for the broker when half is done. Clients try again, over new
//! connections, while it is away. `support::settlement` then looks at database, token, CRL and log.
//!
//! `make storm` runs the same with more (KEYBROKER_STORM times as many).

use crate::support::PATIENCE;
use crate::support::mano::{By, request_id};
use crate::support::process::Broker;
use crate::support::settlement::{Held, assert_settled, count};
use crate::support::site::Site;
use crate::support::vnfci::{Claimed, Vnfci, transient};
use keybroker::api::client::connect;
use keybroker::api::proto;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// How many times the usual number.
fn factor() -> usize {
    std::env::var("KEYBROKER_STORM").map_or(1, |text| text.parse().expect("KEYBROKER_STORM is a number"))
}

fn vnfcis() -> usize {
    200 * factor()
}

/// A site whose broker is killed while clients share it.
struct Storm {
    site: Arc<Site>,
    broker: Option<Broker>,
    head_before: PathBuf,
}

impl Storm {
    /// A site with a full pool, and so many VNFCIs.
    async fn prepare(pool: usize, vnfcis: usize) -> (Self, Vec<Vnfci>) {
        let mut site = Site::start().await;
        if pool > 0 {
            site.full_pool(POOL, u32::try_from(pool).unwrap()).await;
        }
        let ids: Vec<String> = (0..vnfcis).map(|n| format!("amf-{n:05}")).collect();
        let mut registered = Vec::new();
        for ids in ids.chunks(1_000) {
            registered.extend(site.register(ids, &SLOTS, By::Certificate).await);
        }
        let head_before = site.export("before").await.join("head.json");
        let broker = Some(site.take_broker());
        (Self { site: Arc::new(site), broker, head_before }, registered)
    }

    /// SIGKILL for every process that has the module loaded.
    fn strike_workers(&self) {
        let workers = self.broker.as_ref().unwrap().workers();
        assert!(!workers.is_empty(), "no worker to kill");
        for pid in workers {
            // It may have ended by itself in between.
            let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
        }
    }

    /// SIGKILL for the broker, and another one on the same files.
    async fn strike_broker(&mut self) {
        self.broker.take().unwrap().kill();
        self.broker = Some(self.site.start_broker().await);
    }

    /// Workers when a quarter of `total` is done, the broker when half is.
    async fn strike_both(&mut self, progress: &watch::Sender<usize>, total: usize) {
        let mut seen = progress.subscribe();
        let reached = |threshold: usize| move |done: &usize| *done >= threshold;
        let patience = PATIENCE * 2;
        tokio::time::timeout(patience, seen.wait_for(reached(total / 4))).await.expect("a quarter").unwrap();
        self.strike_workers();
        let done =
            *tokio::time::timeout(patience, seen.wait_for(reached(total / 2))).await.expect("half").unwrap();
        assert!(done < total, "all was done before the broker was struck");
        self.strike_broker().await;
    }

    /// After the storm: nobody else holds the site any more.
    fn over(self) -> (Site, PathBuf) {
        let mut site = Arc::into_inner(self.site).expect("no task has the site any more");
        site.return_broker(self.broker.unwrap());
        site.check();
        (site, self.head_before)
    }
}

/// What is tried until it gets through.
struct Attempts {
    what: String,
    begun: Instant,
}

impl Attempts {
    fn at(what: &str) -> Self {
        Self { what: what.to_owned(), begun: Instant::now() }
    }

    /// Waits before the next attempt; panics unless the last one failed for a passing reason.
    async fn again(&self, status: Status) {
        assert!(transient(&status), "{}: {status:?}", self.what);
        assert!(self.begun.elapsed() < PATIENCE * 2, "{} never got through: {status:?}", self.what);
        tokio::time::sleep(Duration::from_millis(rand::random_range(10..60))).await;
    }
}

/// One task per item at once (or `at_once` of them); `progress` counts those that are done.
fn all<I: Send + 'static, T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    items: Vec<I>,
    at_once: usize,
    progress: &watch::Sender<usize>,
    weight: usize,
    work: impl Fn(I) -> F,
) -> JoinSet<T> {
    let places = Arc::new(Semaphore::new(at_once));
    let mut tasks = JoinSet::new();
    for item in items {
        let (work, progress, places) = (work(item), progress.clone(), Arc::clone(&places));
        tasks.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let outcome = work.await;
            progress.send_modify(|done| *done += weight);
            outcome
        });
    }
    tasks
}

async fn management(site: &Site) -> Result<Channel, Status> {
    let connected = connect(&site.management_url(), &site.role("nfvo")).await;
    connected.map(|connection| connection.channel).map_err(|error| Status::unavailable(error.to_string()))
}

async fn claim(site: Arc<Site>, vnfci: Vnfci) -> (Vnfci, Claimed) {
    let attempts = Attempts::at(&vnfci.id);
    loop {
        match vnfci.claim(&site).await {
            Ok(claimed) => return (vnfci, claimed),
            Err(status) => attempts.again(status).await,
        }
    }
}

/// Confirms until it is acknowledged: a repetition of what was committed is acknowledged, too.
async fn confirm(site: Arc<Site>, vnfci: Vnfci, claimed: Claimed) -> (Vnfci, Claimed) {
    let attempts = Attempts::at(&vnfci.id);
    loop {
        match vnfci.confirm(&site, &claimed).await {
            Ok(_) => return (vnfci, claimed),
            Err(status) => attempts.again(status).await,
        }
    }
}

/// Claims and confirms, 64 at a time; nothing strikes.
async fn boot_all(storm: &Storm, vnfcis: Vec<Vnfci>, held: &mut Held) {
    let site = &storm.site;
    let calm = watch::Sender::new(0);
    let booted = all(vnfcis, 64, &calm, 1, |vnfci| {
        let site = Arc::clone(site);
        async move {
            let (vnfci, claimed) = claim(Arc::clone(&site), vnfci).await;
            confirm(site, vnfci, claimed).await
        }
    });
    for (vnfci, claimed) in booted.join_all().await {
        held.unsealed(&vnfci.id, &claimed);
        held.acknowledged(&claimed);
    }
}

/// Ends VNFCIs by one request, the same one until it is answered.
async fn scale_in(site: &Site, ids: Vec<String>) -> usize {
    let request = proto::ScaleInRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfci_ids: ids,
        storage_wiped: false,
    };
    let attempts = Attempts::at("a scale-in");
    let answer = loop {
        let answer = match management(site).await {
            Ok(channel) => LifecycleServiceClient::new(channel).scale_in(request.clone()).await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(answer) => break answer.into_inner(),
            Err(status) => attempts.again(status).await,
        }
    };
    for result in &answer.results {
        // Repeated or not: the outcome is that of the first time.
        assert_eq!((result.error.as_str(), result.newly_terminated), ("", true), "{}", result.vnfci_id);
    }
    answer.results.len()
}

fn ids(vnfcis: &[Vnfci]) -> Vec<String> {
    vnfcis.iter().map(|vnfci| vnfci.id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn production_struck_by_sigkill_fills_the_pool_with_keys_that_can_be_delivered() {
    let (mut storm, _) = Storm::prepare(0, 0).await;
    let target = 1_000 * factor();
    // Refilled whenever one is drawn: full once, it is full again.
    let full = u32::try_from(target).unwrap();
    storm.site.create_pool(POOL, full, Some(full)).await;
    let progress = watch::Sender::new(0);
    let counting = tokio::spawn({
        let (site, progress) = (Arc::clone(&storm.site), progress.clone());
        async move {
            let mut made = 0;
            while made < target {
                made = usize::try_from(count(&site, "SELECT count(*) FROM credentials").await).unwrap();
                progress.send_replace(made);
            }
        }
    });
    storm.strike_both(&progress, target).await;
    counting.await.unwrap();
    // What was made before, between and after the strikes is good.
    let ids: Vec<String> = (0..100).map(|n| format!("amf-{n:05}")).collect();
    let vnfcis = storm.site.register(&ids, &SLOTS, By::Certificate).await;
    let mut held = Held::default();
    boot_all(&storm, vnfcis, &mut held).await;
    let (mut site, head_before) = storm.over();
    site.until_available(POOL, full).await;
    assert_settled(&mut site, &held, &[], &head_before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_struck_by_sigkill_deliver_every_credential_once() {
    let total = vnfcis();
    // Production goes on, too: more is claimed than is ready.
    let (mut storm, vnfcis) = Storm::prepare(total * 3 / 4, total).await;
    let progress = watch::Sender::new(0);
    let site = Arc::clone(&storm.site);
    let claims = all(vnfcis, total, &progress, 1, |vnfci| claim(Arc::clone(&site), vnfci));
    drop(site);
    storm.strike_both(&progress, total).await;
    let mut claimed = claims.join_all().await;

    // Some never confirm: MANO ends them, and what they had claimed is destroyed.
    let silent = claimed.split_off(total * 9 / 10);
    let mut held = Held::default();
    for (vnfci, claimed) in &silent {
        held.unsealed(&vnfci.id, claimed);
    }
    for (vnfci, claimed) in claimed {
        held.unsealed(&vnfci.id, &claimed);
        let (_, claimed) = confirm(Arc::clone(&storm.site), vnfci, claimed).await;
        held.acknowledged(&claimed);
    }
    assert_eq!(held.keys(), total);
    let silent: Vec<String> = silent.into_iter().map(|(vnfci, _)| vnfci.id).collect();
    scale_in(&storm.site, silent.clone()).await;
    let (mut site, head_before) = storm.over();
    assert_settled(&mut site, &held, &silent, &head_before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmations_struck_by_sigkill_are_all_acknowledged_in_the_end() {
    let total = vnfcis();
    let (mut storm, vnfcis) = Storm::prepare(total, total).await;
    let calm = watch::Sender::new(0);
    let site = Arc::clone(&storm.site);
    let claimed = all(vnfcis, 64, &calm, 1, |vnfci| claim(Arc::clone(&site), vnfci)).join_all().await;
    let progress = watch::Sender::new(0);
    let confirmations =
        all(claimed, total, &progress, 1, |(vnfci, claimed)| confirm(Arc::clone(&site), vnfci, claimed));
    drop(site);
    storm.strike_both(&progress, total).await;
    let mut held = Held::default();
    for (vnfci, claimed) in confirmations.join_all().await {
        held.unsealed(&vnfci.id, &claimed);
        held.acknowledged(&claimed);
    }
    assert_eq!(held.keys(), total);
    let (mut site, head_before) = storm.over();
    assert_settled(&mut site, &held, &[], &head_before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminations_struck_by_sigkill_revoke_and_receipt_every_key() {
    let total = vnfcis();
    let (mut storm, vnfcis) = Storm::prepare(total, total).await;
    let ended = ids(&vnfcis);
    let mut held = Held::default();
    boot_all(&storm, vnfcis, &mut held).await;
    let progress = watch::Sender::new(0);
    let site = Arc::clone(&storm.site);
    let batches: Vec<Vec<String>> = ended.chunks(5).map(<[String]>::to_vec).collect();
    let terminations = all(batches, 8, &progress, 5, |ids| {
        let site = Arc::clone(&site);
        async move { scale_in(&site, ids).await }
    });
    drop(site);
    storm.strike_both(&progress, total).await;
    assert_eq!(terminations.join_all().await.into_iter().sum::<usize>(), total);
    let (mut site, head_before) = storm.over();
    assert_settled(&mut site, &held, &ended, &head_before).await;
    assert_eq!(
        count(&site, "SELECT count(*) FROM credentials WHERE receipt IS NOT NULL").await,
        total as u64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn shredding_struck_by_sigkill_is_taken_up_and_verified() {
    let (mut storm, mut vnfcis) = Storm::prepare(600, 240 * factor()).await;
    let mut held = Held::default();
    let mut ended = Vec::new();
    let strikes = [("CLOSED", true), ("SHREDDING", true), ("CLOSED", false), ("SHREDDING", false)];
    for (state, workers_only) in strikes.into_iter().cycle().take(strikes.len() * factor()) {
        // An epoch is in these states for some 10 ms: it may be missed, and then more come and go.
        loop {
            assert!(vnfcis.len() >= 10, "no epoch was seen {state}");
            // The oldest epoch is to be shredded, and what lives in it to be moved before that.
            let some = vnfcis.split_off(vnfcis.len() - 10);
            let gone = ids(&some);
            boot_all(&storm, some, &mut held).await;
            scale_in(&storm.site, gone.clone()).await;
            ended.extend(gone);
            if is_seen(&storm.site, state).await {
                break;
            }
        }
        if workers_only {
            storm.strike_workers();
        } else {
            storm.strike_broker().await;
        }
    }
    let (mut site, head_before) = storm.over();
    assert_settled(&mut site, &held, &ended, &head_before).await;
}

/// Whether an epoch with an erased key is seen in a state, before the horizon (2 s) has passed twice.
async fn is_seen(site: &Site, state: &str) -> bool {
    let sql = format!("SELECT count(*) FROM epochs WHERE state = '{state}' AND first_erasure_at IS NOT NULL");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        if count(site, &sql).await > 0 {
            return true;
        }
    }
    false
}
