//! Goal: through a long run of everything at once, with everything failing, no credential has two holders, none is lost,
//! what has ended is revoked and receipted, and the log extends every head that was seen of it.
//! Method: two brokers as processes on one PostgreSQL server and one SoftHSM2 token behind the module that fails on command.
//! VNFCIs, MANO, auditors and relying parties ask whichever of the two answers, and repeat at the other what the first did not
//! answer; meanwhile brokers, workers, database and module are killed, stopped and made to fail, by dice whose seed is printed.
//! Then all is healed, everything must come to rest, and `verdict` looks at database, token, CRLs, OCSP, log, metrics, processes
//! and at what the VNFCIs hold.
//!
//! `make soak` runs it for longer: KEYBROKER_SOAK seconds of load, KEYBROKER_SOAK_SEED for the dice of an earlier run.

mod auditor;
mod brokers;
mod havoc;
mod ledger;
mod lives;
mod mano;
mod verdict;

use crate::support::PATIENCE;
use crate::support::mano::By;
use crate::support::postgres::{Cluster, Database};
use crate::support::site::{Options, Site};
use brokers::Keeper;
use ledger::Ledger;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Groups of VNFCIs that live at the same time.
const COHORTS: usize = 10;
/// How long a client waits for one broker before it asks the other one; less than the broker's own deadlines.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long a client goes on asking: longer than several faults in a row, a lease and a hung call.
const LONGEST: Duration = Duration::from_secs(240);
/// How long what was renewed stays valid.
const OVERLAP: Duration = Duration::from_secs(5);
/// From the end of the last fault until every broker serves.
const RECOVERY: Duration = Duration::from_secs(60);

/// Pools that are there all the time, with their profiles and targets. `scarce` sends away whom it cannot serve.
const POOLS: [(&str, &str, u32); 3] =
    [("transport", "vnfci-transport", 12), ("named", "vnfci-named", 8), ("scarce", "patient", 6)];

/// VNF instances of which only the pools come and go.
const VNFS: [&str; 2] = ["passing-1", "passing-2"];

/// Seconds of load.
fn seconds() -> u64 {
    std::env::var("KEYBROKER_SOAK")
        .map_or(30, |text| text.parse().expect("KEYBROKER_SOAK is a number of seconds"))
}

fn seed() -> u64 {
    std::env::var("KEYBROKER_SOAK_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse().expect("KEYBROKER_SOAK_SEED is a number"))
}

/// Where it all happens: what every task shares.
struct Place {
    sites: [Arc<Site>; 2],
    keepers: [Arc<Keeper>; 2],
    database: Arc<Database>,
    ledger: Arc<Ledger>,
    /// Of every certificate.
    issuer: String,
    seed: u64,
    /// Nothing new is begun any more.
    over: AtomicBool,
}

impl Place {
    /// Dice of their own for each task: what one does, does not move the others'.
    fn dice(&self, of: impl Hash) -> StdRng {
        let mut hasher = DefaultHasher::new();
        (self.seed, of).hash(&mut hasher);
        StdRng::seed_from_u64(hasher.finish())
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Any of the brokers.
    fn any(&self, dice: &mut StdRng) -> &Arc<Site> {
        &self.sites[dice.random_range(0..self.sites.len())]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_load_on_two_brokers_survives_everything_that_can_fail() {
    let (load, seed) = (Duration::from_secs(seconds()), seed());
    eprintln!("soak: {load:?} of load, KEYBROKER_SOAK_SEED={seed}");
    let (place, head_before) = prepare(seed).await;

    let mut running = JoinSet::new();
    for keeper in &place.keepers {
        running.spawn(Arc::clone(keeper).keep(Arc::clone(&place)));
    }
    let mut load_tasks = JoinSet::new();
    for cohort in 0..COHORTS {
        load_tasks.spawn(lives::cohorts(Arc::clone(&place), cohort));
    }
    load_tasks.spawn(mano::pools_come_and_go(Arc::clone(&place)));
    running.spawn(auditor::heads(Arc::clone(&place)));
    running.spawn(auditor::tail(Arc::clone(&place)));
    running.spawn(auditor::relying_party(Arc::clone(&place)));

    let rounds = havoc::wreak(&place, Instant::now() + load).await;
    // All is well again: whoever has begun comes to an end.
    place.over.store(true, Ordering::Relaxed);
    let healed = Instant::now();
    while let Some(ended) = load_tasks.join_next().await {
        ended.expect("a client");
    }
    eprintln!("soak: every client came to its end {:?} after the last fault", healed.elapsed());
    for keeper in &place.keepers {
        keeper.leave_alone();
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("an onlooker");
    }
    eprintln!("{}", havoc::told(&rounds));
    let place = Arc::into_inner(place).expect("every task has ended");
    verdict::judge(place, &head_before).await;
}

/// Two running brokers with full pools, and a signed head of the log from before anything failed.
async fn prepare(seed: u64) -> (Arc<Place>, std::path::PathBuf) {
    let database = Cluster::own("").database();
    let options = Options {
        store_url: database.url(),
        destruction_horizon: "5s",
        confirm_deadline: "30s",
        more_toml: format!("renewal_overlap = \"{}s\"\n", OVERLAP.as_secs()),
        call_deadline: "2s",
        workers: (2, 1),
        faulty: true,
        est: true,
        ..Options::default()
    };
    let mut first = Site::start_with(options).await;
    first.add_profile("patient", "on_empty = \"RETRY\"").await;
    for (name, profile, target) in POOLS {
        first.full_pool_of(profile, name, target).await;
    }
    let warm_up = first.register_one("warm-up", &[("a", "transport")], By::Token).await.boot(&first).await;
    let issuer = first.vnfci("warm-up").await.credentials[0].issuer_id.clone();
    let head_before = first.export("before").await.join("head.json");
    let mut second = first.replica().await;
    let keepers = [Arc::new(Keeper::of(&mut first)), Arc::new(Keeper::of(&mut second))];
    let ledger = Ledger::default();
    ledger.unsealed("warm-up", &warm_up);
    ledger.acknowledged("warm-up", &warm_up);
    let place = Place {
        sites: [Arc::new(first), Arc::new(second)],
        keepers,
        database: Arc::new(database),
        ledger: Arc::new(ledger),
        issuer,
        seed,
        over: AtomicBool::new(false),
    };
    (Arc::new(place), head_before)
}

/// Median and longest of some durations.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    match times.last() {
        None => "never".to_owned(),
        Some(longest) => format!(
            "{} times, half within {:.1?}, all within {longest:.1?}",
            times.len(),
            times[times.len() / 2]
        ),
    }
}

/// Numbers by name, in one line.
fn counted<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    counts.iter().map(|(name, number)| format!("{name} {number}")).collect::<Vec<_>>().join(", ")
}

/// As long as anything that settles may take: a lease that somebody took to his grave, and then the work itself.
const SETTLING: Duration = Duration::from_secs(2 * PATIENCE.as_secs());
