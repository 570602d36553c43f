//! Goal: scripts can rely on the command line: exit codes 0 to 4 and JSON with stable names.
//! Method: each exit code is provoked against a running broker (and one that is away); results are parsed.

use crate::support::mano::By;
use crate::support::process::Finished;
use crate::support::site::{Options, Site, VDU, VNF};
use serde_json::Value;

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
