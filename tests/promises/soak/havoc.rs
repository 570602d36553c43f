//! Rounds of disturbances: in each, one to three things fail at once; then all is healed, and it is measured how long it takes
//! until both brokers serve again and the next claim is confirmed.

use super::{Place, RECOVERY, spread};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What the module is told to do wrong, until the disturbance is over.
const MODULE: [&str; 19] = [
    "* delay 30",
    "C_UnwrapKey delay 400 times 20",
    "C_UnwrapKey return 0x30 times 3",
    "C_Sign return 0x5 times 5",
    "C_GenerateKeyPair return 0x30 times 4",
    "* return 0x5",
    "* return 0xb3",
    "* return 0x101",
    "* return 0x31",
    "* absent",
    "C_DeriveKey hang times 2",
    "C_Sign hang times 2",
    "C_GenerateKeyPair hang times 1",
    "C_WrapKey crash times 3",
    "C_Initialize crash times 3\nC_DeriveKey crash times 1",
    "* invalidate times 8",
    "C_GenerateKey:token return 0x31",
    "C_DestroyObject pretend",
    "C_DestroyObject hang times 1",
];
/// CKR_PIN_INCORRECT: no log-in before a reload.
const WRONG_PIN: &str = "C_DeriveKey crash times 1\nC_Sign crash times 1\nC_Login return 0xa0";

/// Something that fails for a while.
#[derive(Debug, Clone, Copy)]
enum Disturbance {
    Kill(usize),
    KillBoth,
    Pause(usize),
    Terminate(usize),
    Reload(usize),
    KillWorkers(usize),
    KillBackends,
    KillDatabase,
    PauseDatabase,
    Module(&'static str),
    WrongPin,
}

impl Disturbance {
    fn thrown(dice: &mut StdRng) -> Self {
        let broker = dice.random_range(0..2);
        match dice.random_range(0..24) {
            0..=3 => Self::Kill(broker),
            4 => Self::KillBoth,
            5..=6 => Self::Pause(broker),
            7..=8 => Self::Terminate(broker),
            9 => Self::Reload(broker),
            10..=11 => Self::KillWorkers(broker),
            12..=13 => Self::KillBackends,
            14..=15 => Self::KillDatabase,
            16 => Self::PauseDatabase,
            17 => Self::WrongPin,
            _ => Self::Module(MODULE.choose(dice).unwrap()),
        }
    }

    /// Two that strike the same thing are not thrown together.
    fn target(self) -> &'static str {
        match self {
            Self::Kill(0) | Self::Pause(0) | Self::Terminate(0) | Self::Reload(0) => "first broker",
            Self::Kill(_) | Self::Pause(_) | Self::Terminate(_) | Self::Reload(_) => "second broker",
            Self::KillBoth => "brokers",
            Self::KillWorkers(_) => "workers",
            Self::KillBackends | Self::KillDatabase | Self::PauseDatabase => "database",
            Self::Module(_) | Self::WrongPin => "module",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "SIGKILL of a broker",
            Self::KillBoth => "SIGKILL of both brokers",
            Self::Pause(_) => "SIGSTOP of a broker",
            Self::Terminate(_) => "SIGTERM of a broker",
            Self::Reload(_) => "SIGHUP",
            Self::KillWorkers(_) => "SIGKILL of HSM workers",
            Self::KillBackends => "SIGKILL of a database connection",
            Self::KillDatabase => "SIGKILL of the database",
            Self::PauseDatabase => "SIGSTOP of the database",
            Self::Module(_) => "a failing module",
            Self::WrongPin => "a PIN that is refused",
        }
    }

    /// Strikes, and heals what it struck.
    async fn strike(self, place: &Arc<Place>, dice: &mut StdRng) {
        let mut lasting =
            |shortest: u64, longest: u64| Duration::from_millis(dice.random_range(shortest..longest));
        match self {
            Self::Kill(which) => place.keepers[which].kill_for(lasting(0, 6_000)).await,
            Self::KillBoth => {
                let (first, second) = (lasting(0, 4_000), lasting(0, 4_000));
                tokio::join!(place.keepers[0].kill_for(first), place.keepers[1].kill_for(second));
            }
            Self::Pause(which) => place.keepers[which].pause_for(lasting(200, 9_000)).await,
            Self::Terminate(which) => {
                if let Some(wrong) = place.keepers[which].terminate_for(lasting(0, 3_000)).await {
                    place.ledger.fault(wrong);
                }
            }
            Self::Reload(which) => place.keepers[which].signal(Signal::HUP).await,
            Self::KillWorkers(which) => {
                let (one, all) = (dice.random_range(0..3), dice.random_bool(0.5));
                place.keepers[which].kill_workers(|index| all || index == one).await;
            }
            Self::KillBackends => {
                for _ in 0..dice.random_range(1..3) {
                    signal_all(Signal::KILL, &backend(place, dice));
                    tokio::time::sleep(Duration::from_millis(dice.random_range(0..1_500))).await;
                }
            }
            Self::KillDatabase => {
                let away = lasting(0, 5_000);
                on_database(place, |place| place.database.cluster().kill()).await;
                tokio::time::sleep(away).await;
                on_database(place, |place| place.database.cluster().start()).await;
            }
            Self::PauseDatabase => {
                let all: Vec<i32> =
                    place.database.cluster().processes().into_iter().map(|(pid, _)| pid).collect();
                signal_all(Signal::STOP, &all);
                tokio::time::sleep(lasting(500, 9_000)).await;
                signal_all(Signal::CONT, &all);
            }
            Self::Module(rules) => {
                place.sites[0].faults().set(rules);
                tokio::time::sleep(lasting(300, 7_000)).await;
                place.ledger.count(format!("[{}]", rules.replace('\n', "; ")));
                place.sites[0].faults().clear();
            }
            Self::WrongPin => {
                place.sites[0].faults().set(WRONG_PIN);
                tokio::time::sleep(lasting(300, 4_000)).await;
                place.sites[0].faults().clear();
                // As the operator is to do once the PIN is right again. Both may have tried it.
                for keeper in &place.keepers {
                    keeper.signal(Signal::HUP).await;
                }
            }
        }
    }
}

/// One of the server's processes that work for a broker.
fn backend(place: &Place, dice: &mut StdRng) -> Vec<i32> {
    let mut all = place.database.cluster().processes();
    all.retain(|(_, title)| title.starts_with("postgres: keybroker"));
    all.choose(dice).map(|(pid, _)| *pid).into_iter().collect()
}

fn signal_all(signal: Signal, processes: &[i32]) {
    for pid in processes {
        // It may have ended in between.
        let _ = kill_process(Pid::from_raw(*pid).unwrap(), signal);
    }
}

async fn on_database(place: &Arc<Place>, work: impl FnOnce(&Place) + Send + 'static) {
    let place = Arc::clone(place);
    tokio::task::spawn_blocking(move || work(&place)).await.expect("the database's server");
}

/// What came of a round.
pub(super) struct Round {
    struck: Vec<&'static str>,
    /// From the end of the last disturbance until both brokers said that they serve.
    ready: Option<Duration>,
    /// Until the next confirmation of a claim was acknowledged.
    served: Option<Duration>,
}

/// Rounds until the time is up. Then all is well.
pub(super) async fn wreak(place: &Arc<Place>, until: Instant) -> Vec<Round> {
    let mut dice = place.dice("havoc");
    let mut rounds = Vec::new();
    while Instant::now() < until {
        let mut thrown: Vec<Disturbance> = Vec::new();
        for _ in 0..*[1, 1, 2, 3].choose(&mut dice).unwrap() {
            let next = Disturbance::thrown(&mut dice);
            let clashes = |other: &Disturbance| {
                let (a, b) = (other.target(), next.target());
                a == b
                    || (a == "brokers" && b.ends_with("broker"))
                    || (b == "brokers" && a.ends_with("broker"))
            };
            if !thrown.iter().any(clashes) {
                thrown.push(next);
            }
        }
        eprintln!("soak: round {} {thrown:?}", rounds.len());
        let mut striking = JoinSet::new();
        for disturbance in thrown.clone() {
            let (place, mut own) = (Arc::clone(place), place.dice(("strike", dice.random::<u64>())));
            striking.spawn(async move {
                tokio::time::sleep(Duration::from_millis(own.random_range(0..2_000))).await;
                disturbance.strike(&place, &mut own).await;
            });
        }
        striking.join_all().await;
        let mut struck: Vec<&str> = thrown.into_iter().map(Disturbance::name).collect();
        struck.sort_unstable();
        rounds.push(heal(place, struck).await);
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..3_000))).await;
    }
    rounds
}

/// Waits until everything that was struck works again.
async fn heal(place: &Arc<Place>, struck: Vec<&'static str>) -> Round {
    let healed = Instant::now();
    let mut round = Round { struck, ready: None, served: None };
    let (first, second) = tokio::join!(place.keepers[0].until_ready(), place.keepers[1].until_ready());
    match first.and_then(|first| second.map(|second| first.max(second))) {
        Ok(ready) => round.ready = Some(ready),
        Err(said) => place.ledger.fault(format!("after {:?}: {said}", round.struck)),
    }
    while healed.elapsed() < RECOVERY && round.served.is_none() {
        let confirmed_at = place.ledger.notes().confirmed_at;
        round.served = confirmed_at.filter(|at| *at > healed).map(|at| at - healed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if round.served.is_none() {
        place.ledger.fault(format!("after {:?}: no claim was confirmed within {RECOVERY:?}", round.struck));
    }
    round
}

/// How long recovery took, by what had failed.
pub(super) fn told(rounds: &[Round]) -> String {
    let mut by_what: BTreeMap<String, Vec<&Round>> = BTreeMap::new();
    for round in rounds {
        let alone = round.struck.len() == 1;
        let what = if alone { round.struck[0].to_owned() } else { "several at once".to_owned() };
        by_what.entry(what).or_default().push(round);
        by_what.entry("all rounds".to_owned()).or_default().push(round);
    }
    let mut lines = vec!["soak: after what failed was well again".to_owned()];
    for (what, rounds) in by_what {
        let ready = spread(rounds.iter().filter_map(|round| round.ready).collect());
        let served = spread(rounds.iter().filter_map(|round| round.served).collect());
        lines.push(format!("  {what}: both ready {ready}; a claim confirmed {served}"));
    }
    lines.join("\n")
}
