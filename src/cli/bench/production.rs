//! `production_p256`: the broker fills a pool, certificates and durable insert included, held against a plain PKCS#11
//! loop on the same token. `production_p256_two_workers`: two bulk workers against one.

use super::Bench;
use super::figures::{Found, Series, median, rounded};
use super::machine::{IdleGate, Spent, Ticks};
use super::site::Site;
use crate::audit::event::Event;
use crate::cli::failure::Failure;
use crate::cli::processes::until;
use crate::cli::software_ca::SoftwareCa;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::hsm::production_floor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Names and goals.
pub(super) const ONE: &str = "production_p256";
pub(super) const TWO: &str = "production_p256_two_workers";
const GOAL_ONE: f64 = 0.85;
const GOAL_TWO: f64 = 1.6;
/// Keys that the broker has the HSM make in one call.
const BATCH: u32 = 64;
/// How often a pool is looked at while it is filled.
const PERIOD: Duration = Duration::from_millis(20);
/// A floor that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(300);
const VALIDITY: Duration = Duration::from_secs(24 * 3_600);

/// `bench-part production`: the floor, in a process of its own.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct FloorArgs {
    /// The broker's configuration
    #[arg(long)]
    config: PathBuf,
    /// Batches of keys
    #[arg(long)]
    batches: u32,
}

/// What the floor came to: milliseconds per batch.
#[derive(Serialize, Deserialize)]
struct Floor {
    batches_ms: Vec<f64>,
}

impl FloorArgs {
    /// Runs it. To be called where no other thread runs.
    pub(super) fn run(&self) -> Result<(), Failure> {
        let config = Config::load(&self.config)?.hsm(std::path::Path::new(""));
        let batches = production_floor(&config, self.batches, BATCH)?;
        let floor = Floor { batches_ms: batches.iter().map(|batch| batch.as_secs_f64() * 1_000.0).collect() };
        crate::cli::output::line(&serde_json::to_string(&floor).map_err(Failure::failed)?);
        Ok(())
    }
}

/// One worker against the plain loop.
pub(super) async fn one_worker(bench: &Bench) -> Result<Value, Failure> {
    let batches = bench.batches();
    let mut idle = bench.gate();
    let mut filler = Filler::start(bench, 1).await?;
    let (mut floor, mut ours) = (Series::default(), Series::default());
    for number in 1..=bench.rounds {
        idle.pass().await?;
        let plain = plain_loop(bench, &filler.site, batches).await?;
        let seconds = plain.batches_ms.iter().sum::<f64>() / 1_000.0;
        floor.add(f64::from(batches * BATCH) / seconds, plain.batches_ms);
        idle.pass().await?;
        ours.add(filler.fill(batches).await?, []);
        bench.round(ONE, number, &floor, &ours);
    }
    ours.latencies = filler.gaps(batches).await?;
    let cost = filler.cost;
    filler.site.end().await?;
    let more = cost.fields();
    Ok(found(ONE, GOAL_ONE, &ours, &floor, &idle, more))
}

/// Two workers against one: two brokers, filled in turn.
pub(super) async fn two_workers(bench: &Bench) -> Result<Value, Failure> {
    let batches = bench.batches();
    let mut idle = bench.gate();
    let (mut one, mut two) = (Filler::start(bench, 1).await?, Filler::start(bench, 2).await?);
    let (mut floor, mut ours) = (Series::default(), Series::default());
    for number in 1..=bench.rounds {
        idle.pass().await?;
        floor.add(one.fill(batches).await?, []);
        idle.pass().await?;
        ours.add(two.fill(batches).await?, []);
        bench.round(TWO, number, &floor, &ours);
    }
    floor.latencies = one.gaps(batches).await?;
    ours.latencies = two.gaps(batches).await?;
    let more = two.cost.fields();
    one.site.end().await?;
    two.site.end().await?;
    Ok(found(TWO, GOAL_TWO, &ours, &floor, &idle, more))
}

fn found(
    scenario: &str,
    goal: f64,
    ours: &Series,
    floor: &Series,
    idle: &IdleGate,
    mut more: Value,
) -> Value {
    more["batch"] = json!(BATCH);
    more["latency_of"] = json!(format!("{BATCH} credentials: from one commit to the next"));
    Found { scenario, goal, unit: "credentials/s", ours, floor, idle, more }.line()
}

/// The plain loop on the token of a site, which has a KEK and a CA.
async fn plain_loop(bench: &Bench, site: &Site, batches: u32) -> Result<Floor, Failure> {
    let running = Command::new(&bench.program.0)
        .args(["bench-part", "production", "--batches", &batches.to_string(), "--config"])
        .arg(site.config())
        .envs(site.hsm()?.environment)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LONGEST, running)
        .await
        .map_err(|_| Failure::failed(format!("the plain loop took longer than {LONGEST:?}")))?
        .map_err(|error| Failure::failed(format!("the plain loop: {error}")))?;
    if !output.status.success() {
        return Err(Failure::failed(format!("the plain loop ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(Failure::failed)
}

/// A broker that fills one new pool per round.
struct Filler {
    site: Site,
    workers: u8,
    filled: usize,
    cost: Cost,
}

/// Processor time of all rounds.
#[derive(Debug, Clone, Default)]
struct Cost {
    keys: u32,
    seconds: f64,
    broker_s: f64,
    workers_s: f64,
    workers: u8,
    busy: Vec<f64>,
}

impl Filler {
    async fn start(bench: &Bench, workers: u8) -> Result<Self, Failure> {
        bench.say(ONE, format!("a broker with {workers} bulk worker(s) is started"));
        let mano = SoftwareCa::new("bench initial CA", VALIDITY, SystemClock.now())?;
        let site = Site::start(&bench.program, workers, &mano).await?;
        let mut filler = Self { site, workers, filled: 0, cost: Cost::default() };
        // Makes the first epoch and warms everything up; not counted.
        filler.fill(2 * u32::from(workers)).await?;
        filler.cost = Cost { workers, ..Cost::default() };
        Ok(filler)
    }

    /// Credentials per second, from the order to the last commit.
    async fn fill(&mut self, batches: u32) -> Result<f64, Failure> {
        let keys = batches * BATCH;
        let pool = format!("round-{}", self.filled);
        self.filled += 1;
        let (before, machine) = (Spent::by(self.site.pid()), Ticks::now()?);
        let begun = Instant::now();
        self.site.order(&pool, keys).await?;
        self.site.filled(&pool, keys, PERIOD).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let spent = Spent::by(self.site.pid()).since(before);
        self.cost.keys += keys;
        self.cost.seconds += seconds;
        self.cost.broker_s += spent.own.as_secs_f64();
        self.cost.workers_s += spent.children.as_secs_f64();
        self.cost.busy.push(Ticks::now()?.busy_since(machine));
        Ok(f64::from(keys) / seconds)
    }

    /// Milliseconds from one commit to the next within a pool, from the audit log; the warm-up left out.
    async fn gaps(&self, batches: u32) -> Result<Vec<f64>, Failure> {
        // Everything that was committed is chained within a moment.
        let wanted = 2 * usize::from(self.workers) + batches as usize * (self.filled - 1);
        let events = until(Duration::from_secs(30), "chaining of the events of production", async || {
            let events = self.site.production().await?;
            Ok((events.len() >= wanted).then_some(events))
        })
        .await?;
        let warm_up = events.first().map(|event| event.details["pool"].clone());
        let counted: Vec<&Event> =
            events.iter().filter(|event| Some(&event.details["pool"]) != warm_up.as_ref()).collect();
        let same_pool = counted.windows(2).filter(|pair| pair[0].details["pool"] == pair[1].details["pool"]);
        Ok(same_pool.map(|pair| pair[1].time.since(pair[0].time).as_secs_f64() * 1_000.0).collect())
    }
}

impl Cost {
    fn fields(&self) -> Value {
        let per_key = |seconds: f64| seconds * 1e6 / f64::from(self.keys.max(1));
        let (broker, workers) = (per_key(self.broker_s), per_key(self.workers_s));
        let load = self.workers_s / self.seconds.max(f64::MIN_POSITIVE) / f64::from(self.workers.max(1));
        let busy = median(&self.busy);
        let limited_by = format!(
            "{}: each worker is busy {:.0} % of the time, all processors {:.0} %; a credential costs {workers:.0} us in \
             the workers and {broker:.0} us in the broker",
            if load > 0.85 {
                "the HSM's workers"
            } else if busy > 0.9 {
                "processor time"
            } else {
                "waiting (commits, round trips to the worker)"
            },
            load * 100.0,
            busy * 100.0,
        );
        json!({
            "workers": self.workers,
            "worker_us": rounded(workers, 0),
            "server_us": rounded(broker, 0),
            "worker_busy_share": rounded(load, 3),
            "busy_share": rounded(busy, 3),
            "limited_by": limited_by,
        })
    }
}
