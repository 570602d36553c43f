//! `keybroker bench`: what the broker does per second, held against a floor that the same program measures in turn with
//! it on the same machine. `docs/benchmarks.md` has the method.

mod bare;
mod boot_storm;
mod figures;
mod load;
mod machine;
mod production;
mod revocation;
mod site;

use super::failure::Failure;
use super::output::{Format, OutputArgs};
use super::processes::Program;
use crate::clock::HumaneDuration;
use figures::Series;
use machine::IdleGate;
use serde_json::Value;
use std::fmt::Display;
use std::time::Duration;

/// `bench`.
#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    /// What to measure [default: everything]
    #[arg(value_enum, value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// Rounds of each scenario, floor and broker in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    rounds: u8,
    /// How long to wait for an idle machine at most, before a scenario
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    idle_wait: HumaneDuration,
    /// One small round that only shows that everything works; its figures mean nothing
    #[arg(long, conflicts_with_all = ["rounds", "idle_wait"])]
    quick: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// 64 VNFCIs at a time claim over new connections, against a bare tonic server
    #[value(name = boot_storm::NAME)]
    BootStorm,
    /// The broker fills a pool with one bulk worker, against a plain PKCS#11 loop
    #[value(name = production::ONE)]
    Production,
    /// Two bulk workers against one
    #[value(name = production::TWO)]
    TwoWorkers,
    /// The OCSP responder, against `openssl ocsp`
    #[value(name = revocation::OCSP)]
    Ocsp,
    /// 10,000 revocations in one batch until their CRL is served, against single ones
    #[value(name = revocation::REVOKE)]
    Revoke,
}

/// The processes that a scenario needs beside the broker.
#[derive(Debug, clap::Subcommand)]
pub(super) enum BenchPart {
    /// Clients
    Load,
    /// The bare server
    Server,
    /// The plain PKCS#11 loop
    Production(production::FloorArgs),
}

impl BenchPart {
    /// Runs the plain loop, if this is it: the module is loaded where no other thread runs.
    pub(super) fn run_alone(&self) -> Option<Result<(), Failure>> {
        match self {
            Self::Production(args) => Some(args.run()),
            Self::Load | Self::Server => None,
        }
    }

    /// Runs one of the others.
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Load => load::command().await,
            Self::Server => bare::command().await,
            Self::Production(args) => args.run(),
        }
    }
}

/// How scenarios are run.
struct Bench {
    program: Program,
    rounds: usize,
    quick: bool,
    idle_wait: Duration,
}

/// Runs the command.
pub(super) async fn run(args: BenchArgs, output: OutputArgs) -> Result<(), Failure> {
    let bench = Bench {
        program: Program::of_this_process()?,
        rounds: if args.quick { 1 } else { args.rounds.into() },
        quick: args.quick,
        idle_wait: args.idle_wait.0,
    };
    if cfg!(debug_assertions) {
        eprintln!("warning: this is not a release build; its figures mean nothing");
    }
    let all =
        [Scenario::BootStorm, Scenario::Production, Scenario::TwoWorkers, Scenario::Ocsp, Scenario::Revoke];
    let chosen = if args.scenarios.is_empty() { all.to_vec() } else { args.scenarios };
    let mut lines = Vec::new();
    for scenario in chosen {
        // Dropping a scenario's future ends the processes that it started.
        let line = tokio::select! {
            line = bench.measure(scenario) => line?,
            _ = tokio::signal::ctrl_c() => return Err(Failure::failed("interrupted")),
        };
        if output.format() == Format::Json {
            output.object(&line);
        }
        lines.push(line);
    }
    if output.format() == Format::Table {
        let columns = [
            "scenario",
            "ratio",
            "goal",
            "median",
            "min",
            "max",
            "unit",
            "p50_ms",
            "p99_ms",
            "floor_median",
            "floor_p99_ms",
            "idle_share",
        ];
        output.list(&columns, &lines);
        for line in &lines {
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            super::output::line(&format!("{}: limited by {}", text("scenario"), text("limited_by")));
        }
    }
    Ok(())
}

impl Bench {
    async fn measure(&self, scenario: Scenario) -> Result<Value, Failure> {
        match scenario {
            Scenario::BootStorm => boot_storm::run(self).await,
            Scenario::Production => production::one_worker(self).await,
            Scenario::TwoWorkers => production::two_workers(self).await,
            Scenario::Ocsp => revocation::ocsp(self).await,
            Scenario::Revoke => revocation::revoke(self).await,
        }
    }

    /// A new gate.
    fn gate(&self) -> IdleGate {
        if self.quick {
            IdleGate::new(Duration::from_millis(100), Duration::ZERO)
        } else {
            IdleGate::new(Duration::from_secs(1), self.idle_wait)
        }
    }

    /// Batches of keys in one round of production.
    fn batches(&self) -> u32 {
        if self.quick { 4 } else { 96 }
    }

    /// Progress, on standard error.
    fn say(&self, scenario: &str, text: impl Display) {
        eprintln!("{scenario}: {text}");
    }

    /// A round's progress.
    fn round(&self, scenario: &str, number: usize, floor: &Series, ours: &Series) {
        let last = |series: &Series| series.rates.last().copied().unwrap_or_default();
        let rounds = self.rounds;
        self.say(
            scenario,
            format!("round {number} of {rounds}: floor {:.0}/s, broker {:.0}/s", last(floor), last(ours)),
        );
    }
}
