//! `keybroker demo`: the whole story against a fresh SoftHSM2 token and an embedded store, with real sockets and
//! processes. Every step is checked from outside; the exit code is 0 only if every step was verified.

mod endings;
mod handshake;
mod revocation_list;
mod site;
mod story;
mod vnfcis;

use super::failure::Failure;
use super::files::{self, Readers};
use super::output::{Format, OutputArgs};
use serde_json::{Value, json};
use site::{SLOTS, Site, Vnfci};
use std::path::PathBuf;
use story::Story;

/// Credentials per slot that are ready beyond those that the VNFCIs claim.
const SPARE: usize = 4;

/// `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// How many VNFCIs boot (one more is made to be released)
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(3..=1000))]
    vnfcis: u16,
    /// Leave configuration, token, database, credentials, audit log and summary in this new directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Who ended, for the summary.
#[derive(Default)]
struct Ended {
    released: Vec<String>,
    terminated: Vec<String>,
}

/// Runs the command.
pub(super) async fn run(args: DemoArgs, output: OutputArgs) -> Result<(), Failure> {
    let site = Site::prepare(args.keep.as_deref())?;
    let mut story = Story::default();
    let mut ended = Ended::default();
    // Dropping the story's future ends the processes that it started.
    let told = tokio::select! {
        told = tell(&site, usize::from(args.vnfcis), &mut story, &mut ended) => told,
        _ = tokio::signal::ctrl_c() => Err(Failure::failed("interrupted")),
    };
    let verified = told.is_ok() && story.verified();
    let summary = json!({
        "verified": verified,
        "vnfcis": args.vnfcis,
        "slots": SLOTS.map(|(slot, _)| slot),
        "released": ended.released,
        "terminated": ended.terminated,
        "figures": story.figures,
        "steps": story.steps,
        "directory": args.keep.as_ref().map(|_| &site.directory),
    });
    let written = match &args.keep {
        Some(_) => write_summary(&site, &summary),
        None => Ok(()),
    };
    site.clean_up();
    match output.format() {
        Format::Json => output.object(&summary),
        Format::Table => {
            output.list(&["step", "verified", "detail", "seconds"], &story.steps);
            output.object(&Value::Object(story.figures.clone()));
        }
    }
    written?;
    told.map_err(|failure| failure.during("the demo ended early"))?;
    let failed = story.steps.iter().filter(|step| step["verified"] != json!(true)).count();
    if verified { Ok(()) } else { Err(Failure::failed(format!("{failed} steps were not verified"))) }
}

/// The story, in the order of docs: every `step` is needed by later ones, a `check` is not.
async fn tell(site: &Site, count: usize, story: &mut Story, ended: &mut Ended) -> Result<(), Failure> {
    let named =
        |number: usize| Vnfci { id: format!("vnfci-{number:04}"), by_token: number.is_multiple_of(2) };
    let everyone: Vec<Vnfci> = (1..=count + 1).map(named).collect();
    // `count` VNFCIs keep their keys; the one more gives them back.
    let (Some((leaver, staying)), [living, doomed, ..]) = (everyone.split_last(), everyone.as_slice()) else {
        return Err(Failure::usage("the demo needs three VNFCIs"));
    };
    let ready = everyone.len() + SPARE;
    let unit = |detail: String| ((), detail);

    story.step("fresh SoftHSM2 token", async { site.create_token().map(unit) }).await?;
    story.step("keybroker init", async { site.init().await.map(unit) }).await?;
    let mut broker = story.step("keybroker serve", site.serve()).await?;
    story.step("trust anchor of MANO", async { site.add_anchor().await.map(unit) }).await?;
    story.step("pools", async { site.create_pools(ready).await.map(unit) }).await?;
    story
        .step("production in the HSM", async { site.fill_pools(&mut broker, ready).await.map(unit) })
        .await?;
    story.step("scale-out announced", async { site.register(&everyone).await.map(unit) }).await?;
    story.check("wrong credentials refused", site.try_wrong_credentials(&everyone)).await;
    let (claims, rate) = story.step("boot: claim and confirm", site.claim_all(&everyone)).await?;
    story.figures.insert("claims_per_second".to_owned(), json!((rate * 10.0).round() / 10.0));
    story.check("keys and certificates", async { site.check_credentials(&everyone) }).await;
    story.check("mutual TLS between VNFCIs", site.handshake(living, doomed)).await;
    story.check("spent credentials refused", site.try_spent_credentials(staying)).await;
    story.check("confirmation repeated", site.confirm_again(living)).await;
    story.step("release", async { site.release(leaver).await.map(unit) }).await?;
    ended.released.push(leaver.id.clone());
    story.step("termination", async { site.terminate(doomed).await.map(unit) }).await?;
    ended.terminated.push(doomed.id.clone());
    story.check("revocation list", site.check_crl(&[leaver, doomed], living)).await;
    let released = claims.last().cloned().unwrap_or_default();
    story.check("destruction verified", site.check_receipts(&released)).await;
    let last = story.step("refusals in the audit log", site.check_refusals()).await?;
    let events = story.step("audit log exported and verified", site.check_log(last)).await?;
    story.figures.insert("audit_events".to_owned(), json!(events));
    let objects = story.step("objects on the token", site.check_token()).await?;
    story.figures.insert("token_objects".to_owned(), json!(objects));
    story
        .check("orderly end", async {
            broker.check()?;
            broker.terminate().await?;
            Ok("SIGTERM, exit code 0".to_owned())
        })
        .await;
    Ok(())
}

fn write_summary(site: &Site, summary: &Value) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(summary).map_err(Failure::failed)?;
    text.push(b'\n');
    files::replace(&site.directory.join("summary.json"), &text, Readers::Everyone)
}
