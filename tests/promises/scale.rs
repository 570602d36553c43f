//! Goal: a scale-out of any size is served to the end, and what waits in pools costs the token, the memory and the start
//! next to nothing.
//! Method: VNFCIs registered in one call claim through 64 connections at a time and confirm; half are ended by one call;
//! `openssl` judges every certificate, `keybroker audit` every receipt and the log, `sqlite3` whether the horizon was kept.
//! A large pool is held against a small one: objects by `pkcs11-tool`, memory by /proc, and the time of a start.
//!
//! The usual run is a tenth of what the issue asks for; `make scale` runs all of it (KEYBROKER_SCALE=10) and shows the
//! figures.

use crate::support::mano::By;
use crate::support::pkcs11::objects;
use crate::support::process::run;
use crate::support::settlement::{Held, assert_settled, count};
use crate::support::site::{Options, Site};
use crate::support::vnfci::Delivered;
use keybroker::api::proto;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::ca::pem;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
/// Connections at a time.
const AT_ONCE: usize = 64;
/// Files for one `openssl verify`.
const FILES: usize = 200;

/// How many times the usual number.
fn factor() -> usize {
    std::env::var("KEYBROKER_SCALE").map_or(1, |text| text.parse().expect("KEYBROKER_SCALE is a number"))
}

/// Which of these certificates `openssl verify` accepts with this CRL; of the others it must say that they are revoked.
async fn accepted(files: &[PathBuf], site: &Site, key: &Delivered, crl: &Path) -> HashSet<PathBuf> {
    let (root, issuers) = (site.path().join("scale.root.pem"), site.path().join("scale.issuers.pem"));
    std::fs::write(&root, pem("CERTIFICATE", &key.root_der)).unwrap();
    std::fs::write(&issuers, key.chain_der.iter().map(|der| pem("CERTIFICATE", der)).collect::<String>())
        .unwrap();
    let mut good = HashSet::new();
    for files in files.chunks(FILES) {
        let flags = ["verify", "-x509_strict", "-crl_check", "-CAfile"].map(PathBuf::from);
        let mut arguments = flags.to_vec();
        arguments.extend([root.clone(), "-untrusted".into(), issuers.clone(), "-CRLfile".into(), crl.into()]);
        arguments.extend(files.iter().cloned());
        let finished = run("openssl", arguments).await;
        for file in files {
            if finished.out.lines().any(|line| line == format!("{}: OK", file.display())) {
                good.insert(file.clone());
            } else {
                let failed = format!("error {}: verification failed", file.display());
                assert!(finished.err.contains(&failed), "{}: {}", file.display(), finished.err);
            }
        }
        let failures = finished.err.matches(": verification failed").count();
        let revoked = finished.err.matches("certificate revoked").count();
        assert_eq!(failures, revoked, "a certificate failed for another reason: {}", finished.err);
    }
    good
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scale_out_is_delivered_half_ended_and_all_shredded_within_the_horizon() {
    const HORIZON: &str = "8s";
    let total = 100 * factor();
    let begun = Instant::now();
    let options = Options { destruction_horizon: HORIZON, ..Options::default() };
    let mut site = Site::start_with(options).await;
    site.full_pool(POOL, u32::try_from(total).unwrap()).await;
    let head_before = site.export("before").await.join("head.json");
    let filled = begun.elapsed();

    // One call for all of them.
    let ids: Vec<String> = (0..total).map(|n| format!("amf-{n:05}")).collect();
    let begun = Instant::now();
    let vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let registered = begun.elapsed();

    let begun = Instant::now();
    let shared = Arc::new(site);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut boots = JoinSet::new();
    for vnfci in vnfcis {
        let (site, places) = (Arc::clone(&shared), Arc::clone(&places));
        boots.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let claimed = vnfci.claim_patiently(&site).await;
            assert!(vnfci.confirm(&site, &claimed).await.unwrap(), "{}", vnfci.id);
            (vnfci.id, claimed)
        });
    }
    let mut claims = boots.join_all().await;
    let booted = begun.elapsed();
    let mut site = Arc::into_inner(shared).expect("no task has the site any more");
    claims.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut held = Held::default();
    for (id, claimed) in &claims {
        held.unsealed(id, claimed);
        held.acknowledged(claimed);
    }
    assert_eq!(held.keys(), total);

    let ended = &ids[..total / 2];
    let request = proto::ScaleInRequest {
        request_id: crate::support::mano::request_id(),
        tenant: String::new(),
        vnfci_ids: ended.to_vec(),
        storage_wiped: true,
    };
    let begun = Instant::now();
    let mut client = LifecycleServiceClient::new(site.management("nfvo").await);
    let answer = client.scale_in(request).await.unwrap().into_inner();
    assert!(answer.results.iter().all(|result| result.error.is_empty() && result.newly_terminated));
    // What was delivered and what was ended: no copy is left, and no KEK that could open one.
    site.until("the shredding of every epoch that a delivered key was in", async |site| {
        let sql = "SELECT count(*) FROM key_epochs JOIN epochs ON epochs.id = key_epochs.epoch
                   JOIN credentials ON credentials.id = credential
                   WHERE claim_id IS NOT NULL AND state <> 'DESTROYED'";
        let last = "SELECT count(*) FROM epochs JOIN credentials ON epoch = epochs.id
                    WHERE claim_id IS NOT NULL AND state <> 'DESTROYED'";
        (count(site, sql).await == 0 && count(site, last).await == 0).then_some(())
    })
    .await;
    let shredded = begun.elapsed();
    let late = "SELECT count(*) FROM epochs WHERE destroyed_at - first_erasure_at > 8 * 1000000";
    assert_eq!(count(&site, late).await, 0, "epochs that were shredded after their horizon");
    let log = std::fs::read_to_string(site.log()).unwrap();
    assert!(!log.contains("horizon was missed"), "the alarm was raised");
    let begun = Instant::now();
    assert_settled(&mut site, &held, ended, &head_before).await;

    // Every certificate, as a relying party sees it.
    let directory = site.path().join("certificates");
    std::fs::create_dir(&directory).unwrap();
    let files: Vec<PathBuf> = claims
        .iter()
        .map(|(id, claimed)| {
            let file = directory.join(format!("{id}.pem"));
            std::fs::write(&file, pem("CERTIFICATE", &claimed.keys[0].certificate_der)).unwrap();
            file
        })
        .collect();
    let crl = site.path().join("scale.crl.pem");
    std::fs::write(&crl, pem("X509 CRL", &std::fs::read(site.path().join("settled.crl")).unwrap())).unwrap();
    let good = accepted(&files, &site, &claims[0].1.keys[0], &crl).await;
    assert_eq!(good, files[total / 2..].iter().cloned().collect(), "who is accepted");

    // Every receipt, by the command that an auditor has.
    let public_key = site.audit_key().display().to_string();
    let mut receipts = 0;
    for line in std::fs::read_to_string(site.path().join("settled/events.jsonl")).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        if row["event"]["kind"] != "DESTRUCTION_RECEIPT" {
            continue;
        }
        let details = &row["event"]["details"];
        let text = details.as_str().map_or_else(|| details.to_string(), str::to_owned);
        let file = site.path().join("scale.receipt.json");
        std::fs::write(&file, &text).unwrap();
        let file = file.display().to_string();
        site.cli(["audit", "receipt", "--file", &file, "--public-key", &public_key]).await.ok();
        let receipt: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(receipt["receipt"]["broker_copy"]["state"], "SHREDDED", "{text}");
        assert_eq!(receipt["receipt"]["holder_copy"], "WIPED_PER_MANO", "{text}");
        receipts += 1;
    }
    assert_eq!(receipts, total / 2);
    eprintln!(
        "scale-out of {total}: pool filled in {filled:.1?}, registered in {registered:.2?}, claimed and confirmed in \
         {booted:.1?} ({:.0} per second), half ended and all shredded in {shredded:.1?} (horizon {HORIZON}), checked \
         in {:.1?}",
        total as f64 / booted.as_secs_f64(),
        begun.elapsed()
    );
}

/// What a started broker costs.
#[derive(Debug)]
struct Footprint {
    objects: usize,
    broker_kib: u64,
    workers_kib: u64,
    /// From the start of the process to answers on every listener.
    start: Duration,
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

impl Footprint {
    /// Of a broker that is started anew, the fastest start of three.
    async fn of(site: &mut Site) -> Self {
        let mut start = Duration::MAX;
        for _ in 0..3 {
            site.stop().await;
            let begun = Instant::now();
            site.serve().await;
            start = start.min(begun.elapsed());
        }
        let objects = objects(site).await.len();
        let broker = site.broker();
        let workers_kib = broker.workers().into_iter().map(resident_kib).sum();
        Self { objects, broker_kib: resident_kib(broker.pid()), workers_kib, start }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_pool_costs_the_token_the_memory_and_the_start_next_to_nothing() {
    let (few, many) = (100, 2_000 * factor());
    let mut site = Site::start().await;
    site.full_pool("few", u32::try_from(few).unwrap()).await;
    let small = Footprint::of(&mut site).await;
    let begun = Instant::now();
    site.create_pool("many", u32::try_from(many - few).unwrap(), None).await;
    site.until("a full pool", async |site| {
        let sql = "SELECT count(*) FROM credentials WHERE key_state = 'AVAILABLE'";
        (count(site, sql).await >= many as u64).then_some(())
    })
    .await;
    let filled = begun.elapsed();
    let large = Footprint::of(&mut site).await;
    eprintln!(
        "{many} pooled against {few}: token objects {} against {}; start to ready {:?} against {:?} (ratio {:.2}); \
         broker's memory {} KiB against {} KiB (ratio {:.2}); its workers' {} KiB against {} KiB; filled in {filled:.1?}",
        large.objects,
        small.objects,
        large.start,
        small.start,
        large.start.as_secs_f64() / small.start.as_secs_f64(),
        large.broker_kib,
        small.broker_kib,
        large.broker_kib as f64 / small.broker_kib as f64,
        large.workers_kib,
        small.workers_kib,
    );
    // The bound is the same whatever is pooled: 32 KEKs of the tenant, and the few objects beside them.
    assert!(large.objects <= small.objects + 31, "{large:?} against {small:?}");
    assert!(large.broker_kib <= small.broker_kib + 64 * 1024, "{large:?} against {small:?}");
    assert!(large.workers_kib <= small.workers_kib + 64 * 1024, "{large:?} against {small:?}");
    // It still delivers.
    let vnfci = site.register_one("amf-0001", &[("transport", "many")], By::Certificate).await;
    vnfci.boot(&site).await;
}
