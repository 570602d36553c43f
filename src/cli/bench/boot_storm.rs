//! `boot_storm_64`: 64 VNFCIs at a time claim over new mTLS connections, each claim sealed in the HSM, durable and
//! audited; held against a bare tonic server that answers as many bytes from memory.

use super::Bench;
use super::bare::BareServer;
use super::figures::{Found, Series, median, percentile, rounded};
use super::load::{self, Client, Phase, Plan};
use super::machine::IdleGate;
use super::site::Site;
use crate::cli::failure::Failure;
use crate::cli::software_ca::SoftwareCa;
use crate::clock::{Clock, SystemClock};
use crate::nfv::Sha256Hash;
use serde_json::{Value, json};
use std::time::Duration;

/// Its name.
pub(super) const NAME: &str = "boot_storm_64";
const GOAL: f64 = 0.70;
/// The broker's 99th percentile may be so many times the floor's.
const GOAL_P99: f64 = 2.0;
/// Clients at the same time.
const PARALLEL: usize = 64;
/// Validity of everything in software.
const VALIDITY: Duration = Duration::from_secs(24 * 3_600);
const POOL: &str = "storm";

/// Runs the scenario.
///
/// 1. Start the bare server and the broker; fill the pool; register all VNFCIs.
/// 2. One small load on each, not counted.
/// 3. Rounds: bare server, broker, with an idle machine before each.
pub(super) async fn run(bench: &Bench) -> Result<Value, Failure> {
    let (calls, warm_up) = if bench.quick { (32, 8) } else { (1_500, 200) };
    let mut idle = bench.gate();
    // 1.
    let mano = SoftwareCa::new("bench initial CA", VALIDITY, SystemClock.now())?;
    let bare = BareServer::start(&bench.program, &mano, VALIDITY).await?;
    let mut site = Site::start(&bench.program, 1, &mano).await?;
    let total = warm_up + calls * bench.rounds;
    bench.say(NAME, format!("a pool of {total} credentials is filled, {total} VNFCIs are registered"));
    // One more than are claimed: the pool is never empty, so that it is not refilled during the storm.
    let target = u32::try_from(total + 1).map_err(Failure::usage)?;
    site.order(POOL, target).await?;
    let Vnfcis { clients, registered } = vnfcis(&mano, total)?;
    site.register(&registered, POOL).await?;
    site.filled(POOL, target, Duration::from_millis(200)).await?;
    let (warming, measured) = clients.split_at(warm_up);
    // 2.
    let to_bare = |clients: &[Client]| Plan {
        server: bare.url.clone(),
        trust_anchor_pem: bare.trust_anchor_pem.clone(),
        parallel: PARALLEL,
        server_pid: bare.pid(),
        confirm: false,
        clients: clients.to_vec(),
    };
    let root = site.trust_anchor_pem()?;
    let to_broker = |clients: &[Client]| Plan {
        server: site.url(),
        trust_anchor_pem: root.clone(),
        parallel: PARALLEL,
        server_pid: site.pid(),
        confirm: true,
        clients: clients.to_vec(),
    };
    load::run_in_a_process(&bench.program, &to_bare(warming)).await?;
    load::run_in_a_process(&bench.program, &to_broker(warming)).await?;
    // 3.
    let mut rounds = Rounds::default();
    for (number, clients) in measured.chunks(calls).enumerate() {
        idle.pass().await?;
        let floor = load::run_in_a_process(&bench.program, &to_bare(clients)).await?;
        idle.pass().await?;
        let ours = load::run_in_a_process(&bench.program, &to_broker(clients)).await?;
        bench.say(
            NAME,
            format!(
                "round {} of {}: bare {:.0}/s, claims {:.0}/s",
                number + 1,
                bench.rounds,
                floor.calls.rate(),
                ours.calls.rate()
            ),
        );
        rounds.answer_bytes = ours.answer_bytes;
        rounds.floor_answer_bytes = floor.answer_bytes;
        rounds.add(floor.calls, ours.calls, ours.confirms.unwrap_or_default());
    }
    site.end().await?;
    Ok(rounds.found(&idle))
}

/// VNFCIs: what each proves itself with, and what is registered of it (id and its certificate's fingerprint).
#[derive(Default)]
struct Vnfcis {
    clients: Vec<Client>,
    registered: Vec<(String, Sha256Hash)>,
}

/// So many VNFCIs.
fn vnfcis(mano: &SoftwareCa, count: usize) -> Result<Vnfcis, Failure> {
    let now = SystemClock.now();
    let mut made = Vnfcis::default();
    for number in 0..count {
        let id = format!("bench-{number:06}");
        let client = mano.client(&id, "vnfci", VALIDITY, now)?;
        made.registered.push((id, Sha256Hash::of(&client.certificate_der)));
        made.clients.push(Client {
            certificate: hex::encode(&client.certificate_der),
            key: hex::encode(&*client.pkcs8_der),
        });
    }
    Ok(made)
}

/// All rounds.
#[derive(Default)]
struct Rounds {
    floor: Series,
    ours: Series,
    confirms: Series,
    floor_cost: Cost,
    cost: Cost,
    answer_bytes: usize,
    floor_answer_bytes: usize,
}

/// Processor time and the machine's busy share.
#[derive(Default)]
struct Cost {
    calls: usize,
    server_s: f64,
    hsm_s: f64,
    clients_s: f64,
    busy: Vec<f64>,
}

impl Cost {
    fn add(&mut self, phase: &Phase) {
        self.calls += phase.latencies_ms.len();
        self.server_s += phase.server_s;
        self.hsm_s += phase.children_s;
        self.clients_s += phase.clients_s;
        self.busy.push(phase.busy);
    }

    /// Microseconds per call.
    fn per_call(&self, seconds: f64) -> f64 {
        seconds * 1e6 / self.calls.max(1) as f64
    }
}

impl Rounds {
    fn add(&mut self, floor: Phase, ours: Phase, confirms: Phase) {
        self.floor_cost.add(&floor);
        self.cost.add(&ours);
        self.floor.add(floor.rate(), floor.latencies_ms);
        self.ours.add(ours.rate(), ours.latencies_ms);
        self.confirms.add(confirms.rate(), confirms.latencies_ms);
    }

    fn found(&self, idle: &IdleGate) -> Value {
        let (cost, floor) = (&self.cost, &self.floor_cost);
        let server = cost.per_call(cost.server_s);
        let hsm = cost.per_call(cost.hsm_s);
        let bare = floor.per_call(floor.server_s);
        let busy = median(&cost.busy);
        let floor_p99 = percentile(&self.floor.latencies, 0.99).max(f64::MIN_POSITIVE);
        let limited_by = format!(
            "{}: {:.0} % of all processors busy (clients included); a claim costs {server:.0} us in the broker and \
             {hsm:.0} us in the HSM's workers, a bare call {bare:.0} us",
            if busy > 0.8 { "processor time" } else { "waiting (disk, HSM round trips)" },
            busy * 100.0,
        );
        let more = json!({
            "p99_ratio": rounded(percentile(&self.ours.latencies, 0.99) / floor_p99, 2),
            "p99_goal": GOAL_P99,
            "clients": PARALLEL,
            "calls_per_round": cost.calls / cost.busy.len().max(1),
            "confirm_median": rounded(median(&self.confirms.rates), 1),
            "confirm_p50_ms": rounded(median(&self.confirms.latencies), 2),
            "confirm_p99_ms": rounded(percentile(&self.confirms.latencies, 0.99), 2),
            "server_us": rounded(server, 0),
            "hsm_us": rounded(hsm, 0),
            "client_us": rounded(cost.per_call(cost.clients_s), 0),
            "floor_server_us": rounded(bare, 0),
            "floor_client_us": rounded(floor.per_call(floor.clients_s), 0),
            "busy_share": rounded(busy, 3),
            "floor_busy_share": rounded(median(&floor.busy), 3),
            "answer_bytes": self.answer_bytes,
            "floor_answer_bytes": self.floor_answer_bytes,
            "limited_by": limited_by,
        });
        let (ours, floor) = (&self.ours, &self.floor);
        Found { scenario: NAME, goal: GOAL, unit: "claims/s", ours, floor, idle, more }.line()
    }
}
