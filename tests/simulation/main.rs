//! Goal: whatever VNFCIs, MANO, time, crashes, a failing HSM, replicas that stop and come back and backups that are restored
//! do in whatever order, a credential has at most one holder, what has ended never comes back, what was acknowledged stays, a
//! request has the same outcome every time, token and store name the same KEKs, and the log's chain is whole.
//! Method: brokers in this process on a real store and a real token under a manual clock; steps at random from a seed, each
//! answer held against a model (`model.rs`), store, token and log against each other every fifty steps; in the end everything
//! comes to rest, is shredded and receipted, and everybody can be served.
//!
//! KEYBROKER_SIMULATION_SEED repeats a run's steps, KEYBROKER_SIMULATION_SECONDS makes it longer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests panic")]

mod ask;
#[allow(dead_code, unreachable_pub, reason = "shared with other test programs")]
#[path = "../support/faults.rs"]
mod faults;
mod look;
mod model;
#[allow(dead_code, unreachable_pub, reason = "shared with other test programs")]
#[path = "../support/postgres.rs"]
mod postgres_server;
mod renewals;
mod rollback;
mod steps;
#[allow(dead_code, unreachable_pub, reason = "shared with other test programs")]
#[path = "../support/ca.rs"]
mod support_ca;
mod world;

use keybroker::store::Store;
use keybroker::store::postgres::{PostgresOptions, PostgresStore};
use keybroker::store::sqlite::SqliteStore;
use postgres_server::{Cluster, Database};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use steps::Simulation;
use world::{OpenStore, Stores, World};

/// Replicas on one store.
const REPLICAS: usize = 2;
/// Steps between two looks at everything.
const LOOK: u32 = 50;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

async fn simulate(stores: Stores) {
    let seed = variable("KEYBROKER_SIMULATION_SEED").unwrap_or_else(rand::random);
    let time = Duration::from_secs(variable("KEYBROKER_SIMULATION_SECONDS").unwrap_or(20));
    println!("KEYBROKER_SIMULATION_SEED={seed}");
    let mut simulation = Simulation::begin(World::make(stores, REPLICAS).await, seed).await;
    let begun = Instant::now();
    let mut steps = 0;
    while begun.elapsed() < time {
        simulation.step().await;
        steps += 1;
        if steps % LOOK == 0 {
            simulation.look().await;
        }
    }
    println!("{steps} steps: {:?}", simulation.model.counts);
    simulation.end().await;
}

/// Polls a future so many times and then drops it, as a process that dies leaves what it was doing.
pub(crate) async fn cut_off<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn random_steps_on_sqlite_keep_every_promise() {
    simulate(sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_steps_on_postgres_keep_every_promise() {
    let database = Cluster::common().database();
    simulate(postgres(Rc::new(database))).await;
}

fn sqlite() -> Stores {
    let open: OpenStore = Box::new(|directory: PathBuf, clock| {
        Box::pin(async move {
            let store = SqliteStore::open(&directory.join("store.db"), clock).await.unwrap();
            Arc::new(store) as Arc<dyn Store>
        })
    });
    let backup = |directory: &Path, file: &Path| {
        let mut backup = Command::new("sqlite3");
        backup.arg(directory.join("store.db")).arg(format!(".backup '{}'", file.display()));
        let status = backup.status().unwrap();
        assert!(status.success(), "{backup:?}: {status}");
    };
    let restore = |directory: &Path, file: &Path| {
        for newer in ["store.db-wal", "store.db-shm"] {
            let _ = std::fs::remove_file(directory.join(newer));
        }
        std::fs::copy(file, directory.join("store.db")).unwrap();
    };
    Stores { open, backup: Box::new(backup), restore: Box::new(restore) }
}

fn postgres(database: Rc<Database>) -> Stores {
    let url = database.url();
    let open: OpenStore = Box::new(move |_, clock| {
        let options = PostgresOptions::parse(&url).unwrap();
        Box::pin(async move {
            Arc::new(PostgresStore::open(options, Some(clock)).await.unwrap()) as Arc<dyn Store>
        })
    });
    let restored = Rc::clone(&database);
    Stores {
        open,
        backup: Box::new(move |_, file| database.dump(file)),
        restore: Box::new(move |_, file| restored.restore(file)),
    }
}

/// Found by the simulation: each start moved the deadlines by the whole absence again.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_starts_twice_moves_deadlines_by_its_absence_once() {
    let mut simulation = Simulation::begin(World::make(sqlite(), REPLICAS).await, 0).await;
    let before = simulation.one_open_claim().await;
    let world = &mut simulation.world;
    let absence = Duration::from_secs(3_600);
    world.clock.advance(absence);
    for index in 0..REPLICAS {
        world.restart(index).await;
    }
    let overdue = async |at| world.store.overdue_claims(at, 10).await.unwrap().len();
    let moved = before.plus(absence);
    assert_eq!(overdue(moved.minus(Duration::from_secs(1))).await, 0, "not moved");
    assert_eq!(overdue(moved.plus(Duration::from_secs(1))).await, 1, "moved twice");
}
