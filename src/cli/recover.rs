//! `keybroker recover`: after a backup of the database was restored, or the database was rolled back otherwise.

use super::assembly;
use super::failure::Failure;
use super::output::OutputArgs;
use super::serve::only_process;
use crate::broker::Broker;
use crate::broker::recovering::Recovering;
use crate::config::{Config, StoreUrl};
use crate::telemetry;
use serde_json::json;
use std::path::PathBuf;

/// `recover`.
#[derive(Debug, clap::Args)]
pub(super) struct RecoverArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "keybroker.toml")]
    config: PathBuf,
    /// Do it; without this, say only what was found and what would be done
    #[arg(long)]
    yes: bool,
    /// Recover although nothing shows that the database was rolled back (you know that it was), or although the mirror is
    /// damaged (nobody has a good copy)
    #[arg(long)]
    force: bool,
}

/// Runs the command; no broker may serve meanwhile.
pub(super) async fn command(args: RecoverArgs, output: OutputArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    telemetry::init_logging(&config.log).map_err(Failure::usage)?;
    assembly::refuse_lost_database(&config)?;
    let _only = only_process(&config)?;
    let broker = assembly::open(&config).await?;
    let recovered = in_turn(&broker, &config, &args, output).await;
    broker.close().await;
    recovered
}

/// What is to be done is looked at once nobody else can be doing it.
async fn in_turn(
    broker: &Broker,
    config: &Config,
    args: &RecoverArgs,
    output: OutputArgs,
) -> Result<(), Failure> {
    if !args.yes {
        return recover(broker, args.force, output, None).await;
    }
    let shared = matches!(config.store.url, StoreUrl::Postgres(_));
    let recovering = broker.begin_recovering(broker.holder(), shared).await?;
    let recovered = recover(broker, args.force, output, Some(&recovering)).await;
    broker.end_recovering(recovering).await;
    recovered
}

/// Without the right to recover, says only what would be done.
async fn recover(
    broker: &Broker,
    force: bool,
    output: OutputArgs,
    recovering: Option<&Recovering>,
) -> Result<(), Failure> {
    let plan = broker.plan_recovery().await?;
    if plan.findings.is_empty() && !force {
        let last = broker.last_recovery().await?;
        output.object(&json!({ "done": false, "needed": false, "plan": plan, "last": last }));
        if recovering.is_some() {
            return Err(Failure::failed(
                "nothing was recovered: nothing shows that the database was rolled back; if a backup was restored all the \
                 same, give --force",
            ));
        }
        return Ok(());
    }
    if !plan.damage.is_empty() && !force {
        output.object(&json!({ "done": false, "needed": true, "plan": plan }));
        return Err(Failure::failed(format!(
            "nothing was recovered: {}. Put back a good copy of the mirror's files (`keybroker audit verify` tells which is \
             good) and run it again. If there is none give --force: what the damaged rows tell of is not brought back then, and \
             certificates that nothing else names stay valid",
            plan.damage.join("; ")
        )));
    }
    let Some(recovering) = recovering else {
        eprintln!(
            "keybroker: nothing was changed; every key that waits would be destroyed and every open initial credential \
             voided: give --yes to do it"
        );
        output.object(&json!({ "done": false, "needed": true, "plan": plan }));
        return Ok(());
    };
    if plan.token_differs && !force {
        output.object(&json!({ "done": false, "needed": true, "plan": plan }));
        return Err(Failure::failed(
            "nothing was recovered: the database has everything that the mirror has, and the token lacks keys of it. If the \
             token is a copy from another time, put back the one that was used last: a recovery would destroy its \
             pools. If database and mirror were rolled back together, give --force",
        ));
    }
    let outcome = broker.recover(plan.clone(), recovering).await?;
    if outcome.unreadable_rows > 0 {
        let damage = match &plan.damage[..] {
            [] => "they verify, and this version does not know what they say".to_owned(),
            damage => damage.join("; "),
        };
        eprintln!(
            "keybroker: {} rows of the mirror could not be read in full, and what only they tell of was not brought back \
             (docs/operations.md): {damage}",
            outcome.unreadable_rows
        );
    }
    for lost in &outcome.lost_issuers {
        eprintln!("keybroker: {lost}");
    }
    output.object(&json!({ "done": true, "needed": true, "plan": plan, "outcome": outcome }));
    Ok(())
}
