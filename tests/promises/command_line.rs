//! Goal: scripts can rely on the command line: exit codes 0 to 4 and JSON with stable names.
//! Method: each exit code is provoked against a running broker (and one that is away); results are parsed.

use crate::support::mano::By;
use crate::support::process::Finished;
use crate::support::site::{ANCHOR, Options, Site, VDU, VNF};
use crate::support::{PATIENCE, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const POOL: &str = "amf-transport";

fn ends_with(finished: Finished, code: i32) -> Finished {
    assert_eq!(finished.code, code, "{finished:?}");
    if code != 0 {
        let said =
            finished.err.lines().any(|line| line.starts_with("keybroker: ") || line.starts_with("error: "));
        assert!(said, "{finished:?}");
        // Progress and reasons go to standard error only.
        assert!(finished.objects().iter().all(serde_json::Value::is_object), "{finished:?}");
    }
    finished
}

fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_trials_has_the_label_that_is_configured() {
    let site = Site::prepare(Options::default());
    // Only SoftHSM has such tokens.
    if site.token.variable != "SOFTHSM2_CONF" {
        return;
    }
    let directory = site.path().join("trial");
    let (old, new) = (site.token.configuration.display().to_string(), directory.join("softhsm2.conf"));
    let text = std::fs::read_to_string(site.config()).unwrap();
    let text = text
        .replace(&format!("token = {:?}", site.token.label), "token = \"offline\"")
        .replace(&old, &new.display().to_string())
        .replace("pin_file = \"pin\"", "pin_file = \"trial/pin\"");
    std::fs::write(site.config(), text).unwrap();
    let (config, directory) = (site.config().display().to_string(), directory.display().to_string());
    site.cli(["init", "--config", &config, "--softhsm", &directory]).await.ok();
    let again = site.cli(["init", "--config", &config]).await.ok().object();
    assert_eq!(again["created"].as_array().unwrap().len(), 0, "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exit_code_says_what_the_design_says() {
    let mut site = Site::start().await;
    // 0, with JSON of stable names on standard output.
    let create = ["pool", "create", POOL, "--vnf-instance", VNF, "--vdu", VDU, "--target", "3"];
    let created = ends_with(site.cli_as("nfvo", &create).await, 0).object();
    for name in
        ["name", "tenant", "vnf_instance_id", "vdu_id", "profile", "target", "refill_below", "available"]
    {
        assert!(names(&created).contains(&name), "{name}: {created}");
    }
    site.until_available(POOL, 3).await;
    let listed = ends_with(site.cli_as("nfvo", &["pool", "list"]).await, 0).objects();
    assert_eq!((listed.len(), &listed[0]["name"], &listed[0]["available"]), (1, &POOL.into(), &3.into()));
    let slot = format!("transport={POOL}");
    let tokens = site.path().join("tokens").display().to_string();
    let announce = |id: &'static str| {
        let flags = ["vnfci", "register", id, "--vnf-instance", VNF, "--vdu", VDU, "--slot", &slot];
        flags.map(str::to_owned).into_iter().chain(["--token", "--token-dir", &tokens].map(str::to_owned))
    };
    let announce = |id| announce(id).collect::<Vec<String>>();
    let arguments = announce("amf-0001");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let registered = ends_with(site.cli_as("nfvo", &arguments).await, 0).object();
    assert_eq!(registered["registered"], true, "{registered}");
    let token_file = registered["token_file"].as_str().unwrap().to_owned();

    let (server, root) = (site.bootstrap_url(), site.root_pem().display().to_string());
    let out = site.path().join("amf-0001").display().to_string();
    let claim = |token: &str, out: &str| {
        ["claim", "--server", &server, "--trust-anchor", &root, "--token-file", token, "--out", out]
            .map(str::to_owned)
    };
    let claimed = ends_with(site.cli(claim(&token_file, &out)).await, 0).object();
    assert_eq!((&claimed["vnfci_id"], &claimed["newly_confirmed"]), (&"amf-0001".into(), &true.into()));
    for file in ["key.pem", "cert.pem", "chain.pem"] {
        assert!(site.path().join("amf-0001/transport").join(file).exists(), "{file}");
    }

    // 1: it was tried and failed.
    ends_with(site.cli_as("nfvo", &["pool", "show", "nowhere"]).await, 1);
    ends_with(site.cli_as("nfvo", &create).await, 1);
    ends_with(site.cli_as("nfvo", &arguments).await, 1);
    // 2: wrong usage, nothing was tried.
    ends_with(site.cli_as("nfvo", &["pool", "show", "Not A Name"]).await, 2);
    ends_with(site.cli(["pool", "list"]).await, 2);
    ends_with(site.cli(["pool", "list", "--profile", "/nonexistent"]).await, 2);
    ends_with(site.cli(["serve", "--config", "/nonexistent"]).await, 2);
    // 3: refused, and the sentence does not say why.
    ends_with(site.cli_as("nfvo", &["tenant", "list"]).await, 3);
    ends_with(site.cli_as("operator", &["pool", "list", "--tenant", "default"]).await, 3);
    let again = site.path().join("again").display().to_string();
    let refused = ends_with(site.cli(claim(&token_file, &again)).await, 3);
    assert!(!refused.err.to_lowercase().contains("spent"), "{refused:?}");
    // 4: not available now.
    let other = site.register_one("amf-0002", &[("transport", POOL)], By::Token).await;
    let token_file = site.path().join("amf-0002.token");
    let text = other.initial.token.as_ref().unwrap();
    keybroker::cli::create_new(&token_file, text.as_bytes(), keybroker::cli::Readers::Owner).unwrap();
    site.stop().await;
    ends_with(site.cli_as("nfvo", &["pool", "list"]).await, 4);
    // The broker is back before the VNFCI gives up, or it says that it is away.
    let out = site.path().join("amf-0002").display().to_string();
    let mut waiting = claim(&token_file.display().to_string(), &out).to_vec();
    waiting.extend(["--patience".to_owned(), "1s".to_owned()]);
    ends_with(site.cli(waiting).await, 4);
    site.serve().await;
    ends_with(site.cli(claim(&token_file.display().to_string(), &out)).await, 0);
    site.check();
}

/// What each VNFCI of a finished command has in its token's file, if it has one.
fn tokens(told: &[Value]) -> BTreeMap<String, String> {
    let token = |row: &Value| {
        let file = row["token_file"].as_str()?;
        Some((row["vnfci_id"].as_str().unwrap().to_owned(), std::fs::read_to_string(file).unwrap()))
    };
    told.iter().filter_map(token).collect()
}

/// An item of a file, as if a machine's certificate were pinned; one in a hundred gets a token instead.
fn item(id: &str, more: Value) -> Value {
    let mut item = match id.ends_with("00") {
        true => json!({ "token": true }),
        false => json!({ "anchor": ANCHOR, "name": format!("dns:{id}.example") }),
    };
    item["vnfci_id"] = id.into();
    item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    item
}

fn vnfcis_file(site: &Site, name: &str, items: impl Iterator<Item = Value>) -> String {
    let file = site.path().join(name);
    std::fs::write(&file, items.map(|item| format!("{item}\n")).collect::<String>()).unwrap();
    file.display().to_string()
}

/// Whom a command told something about, in order.
fn told(finished: &Finished) -> Vec<String> {
    finished.objects().iter().map(|row| row["vnfci_id"].as_str().unwrap().to_owned()).collect()
}

/// The id that a command said when it failed in between.
fn id_to_go_on(finished: &Finished) -> String {
    let (_, after) = finished.err.split_once("--request-id ").unwrap_or_else(|| panic!("{finished:?}"));
    after.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_the_first_thousand_is_told_although_the_next_call_fails() {
    let quota = |vnfcis: u32| format!("max_vnfcis = {vnfcis}\n");
    let mut site = Site::start_with(Options { more_toml: quota(1_500), ..Options::default() }).await;
    site.create_pool(POOL, 1, None).await;
    let ids: Vec<String> = (0..2_100).map(|n| format!("amf-{n:04}")).collect();
    // The last one is of another VNF instance, which the VNFM is not granted.
    let pool = ["pool", "create", "smf", "--vnf-instance", "smf-1", "--vdu", VDU, "--target", "1"];
    ends_with(site.cli_as("nfvo", &pool).await, 0);
    let announced = ids.iter().map(|id| {
        let (vnf, pool) = if *id == ids[2_099] { ("smf-1", "smf") } else { (VNF, POOL) };
        let slots = json!({ "transport": pool });
        item(id, json!({ "vnf_instance_id": vnf, "vdu_id": VDU, "slots": slots }))
    });
    let announced = vnfcis_file(&site, "announced.json", announced);
    let directory = site.path().join("tokens").display().to_string();
    let register =
        ["vnfci", "register", "--file", &announced, "--token-dir", &directory, "--expires-in", "2h"];
    let stopped = ends_with(site.cli_as("nfvo", &register).await, 1);
    assert!(stopped.err.contains("of 1000 of 2100 VNFCIs is told"), "{stopped:?}");
    assert!(stopped.err.contains("max_vnfcis"), "{stopped:?}");
    assert_eq!(told(&stopped), ids[..1_000]);
    let first = tokens(&stopped.objects());
    assert_eq!(first.len(), 10);
    // It goes on when the operator has made room: who was registered before is told again, with the same token.
    site.options.more_toml = quota(5_000);
    site.write_config();
    site.broker().signal(rustix::process::Signal::HUP);
    let id = id_to_go_on(&stopped);
    let go_on = [&register[..], &["--request-id", &id]].concat();
    let finished = until(PATIENCE, "room for all", async || {
        let finished = site.cli_as("nfvo", &go_on).await;
        let no_room = finished.err.contains("max_vnfcis");
        (!no_room).then(|| ends_with(finished, 0))
    })
    .await;
    assert_eq!(told(&finished), ids);
    let all = tokens(&finished.objects());
    assert!(first.iter().all(|(id, token)| all[id] == *token));
    assert_eq!(site.vnfci(&ids[0]).await.initial_credential_state, "OPEN");
    // Re-armed: whoever of the first two thousand has a token has a new one, and who refuses the rest says why as always.
    let items = ids.iter().map(|id| item(id, json!({})));
    let again = vnfcis_file(&site, "again.json", items);
    let rearm = ["vnfci", "rearm", "--file", &again, "--token-dir", &directory];
    let stopped = ends_with(site.cli_as("vnfm", &rearm).await, 3);
    assert!(stopped.err.contains("of 2000 of 2100 VNFCIs is told"), "{stopped:?}");
    let rearmed = tokens(&stopped.objects());
    assert_eq!((told(&stopped).len(), rearmed.len()), (2_000, 20));
    assert!(rearmed.iter().all(|(id, token)| all[id] != *token));
    // A token that has no place keeps no other one from it.
    let blocked = site.path().join("tokens").join(format!("{}.token", ids[0]));
    std::fs::remove_file(&blocked).unwrap();
    std::fs::create_dir(&blocked).unwrap();
    let two = ["vnfci", "rearm", &ids[0], &ids[1], "--token", "--token-dir", &directory];
    let stopped = ends_with(site.cli_as("nfvo", &two).await, 1);
    let rows = stopped.objects();
    assert_eq!((rows.len(), &rows[0]["rearmed"], &rows[0]["token_file"]), (2, &true.into(), &Value::Null));
    std::fs::remove_dir(&blocked).unwrap();
    let id = id_to_go_on(&stopped);
    let finished = ends_with(site.cli_as("nfvo", &[&two[..], &["--request-id", &id]].concat()).await, 0);
    let both = tokens(&finished.objects());
    assert_eq!(both[&ids[1]], tokens(&rows[1..])[&ids[1]]);
    site.check();
}
