//! Goal: a VNFCI has fresh credentials before the old ones expire, and never a moment without any: the old certificate
//! works until the new one is confirmed and for the overlap after that, and not longer.
//! Method: delivered certificates knock at the VNFCI listener before, within and after the overlap; `openssl` verifies what
//! was renewed and reads the CRL; the broker is killed between drawing and confirming; MANO asks by its own commands.

use super::certificates::{Files, crl_pem, verify};
use crate::support::mano::By;
use crate::support::process::run;
use crate::support::site::{Options, Site};
use crate::support::vnfci::{Claimed, Delivered, Vnfci};
use keybroker::api::client::describe;
use keybroker::clock::{Clock, SystemClock};
use std::os::unix::fs::PermissionsExt;
use tonic::{Code, Status};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// A site whose default tenant has this overlap, with a full pool and a VNFCI that has booted.
async fn site(overlap: &str) -> (Site, Vnfci, Claimed) {
    let more_toml = format!("renewal_overlap = {overlap:?}\n");
    let mut site = Site::start_with(Options { more_toml, ..Options::default() }).await;
    site.full_pool(POOL, 6).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let claimed = vnfci.boot(&site).await;
    (site, vnfci, claimed)
}

fn refused(outcome: Result<Claimed, Status>) -> Status {
    match outcome {
        Ok(_) => panic!("it was renewed"),
        Err(status) => status,
    }
}

/// The certificate states of a VNFCI as MANO sees them, by credential.
async fn certificate_state(site: &Site, key: &Delivered) -> String {
    let shown = site.vnfci("amf-0001").await.credentials;
    shown.into_iter().find(|one| one.credential_id == key.credential_id).unwrap().certificate_state
}

fn seconds(time: Option<prost_types::Timestamp>) -> i64 {
    time.expect("a time").seconds
}

fn now() -> i64 {
    SystemClock.now().unix_micros() / 1_000_000
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_certificate_works_until_the_overlap_ends_and_is_then_revoked() {
    let (mut site, vnfci, first) = site("3s").await;
    let old = first.keys[0].clone();
    let due = seconds(first.response.renew_after);
    let (from, until) = (now(), old.facts.not_after.unix_micros() / 1_000_000);
    assert!(due > from + (until - from) / 2 && due < from + (until - from) * 7 / 10, "{from} {due} {until}");

    let renewed = vnfci.rebooted().renew(&site, &old).await.unwrap();
    let new = renewed.keys[0].clone();
    assert_ne!(new.facts.public_key, old.facts.public_key, "who renews gets a new key");
    assert_eq!(
        (&renewed.response.vnfci_id, &renewed.response.tenant),
        (&"amf-0001".into(), &"default".into())
    );
    // Nothing is replaced before the confirmation.
    assert_eq!(certificate_state(&site, &old).await, "VALID");
    let confirmed = renewed.confirm_by(&site, &old).await.unwrap();
    assert!(confirmed.newly_confirmed && seconds(confirmed.renew_after) > from);
    // An acknowledgement that was lost is repeated, by the old certificate as by the new one.
    for by in [&old, &new] {
        assert!(!renewed.confirm_by(&site, by).await.unwrap().newly_confirmed);
    }
    old.trust_chain(&site).await.expect("the old certificate within the overlap");
    let files = Files::write(site.path(), "new", &new);
    let crl = site.path().join("crl.pem");
    std::fs::write(&crl, crl_pem(&new).await).unwrap();
    verify(&files, &crl).await.ok();

    site.until("the end of the overlap", async |site| {
        (certificate_state(site, &old).await == "REVOKED").then_some(())
    })
    .await;
    assert_eq!(old.trust_chain(&site).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(certificate_state(&site, &new).await, "VALID");
    std::fs::write(&crl, crl_pem(&new).await).unwrap();
    verify(&files, &crl).await.ok();
    let listed = run("openssl", ["crl", "-noout", "-text", "-in", &crl.display().to_string()]).await.ok().out;
    assert!(listed.contains("Superseded"), "{listed}");
    // The log tells it: what was drawn for what, and what was withdrawn.
    let withdrawn =
        site.until("the withdrawal in the log", async |site| site.events("REVOCATION_REQUESTED").await.pop());
    assert_eq!(withdrawn.await["details"]["reason"], "SUPERSEDED");
    for kind in ["CLAIMED", "CONFIRMED"] {
        let events = site.events(kind).await;
        assert_eq!(events[1]["details"]["renews"], first.response.claim_id.as_str(), "{kind}");
    }
    // The broker holds nothing of either key.
    let credential = old.credential_id.clone();
    site.until("a receipt for the old key", async |site| {
        let receipt = site.cli_as("auditor", &["audit", "receipt", &credential]).await;
        (receipt.code == 0 && receipt.object()["receipt"]["broker_copy"]["state"] == "SHREDDED").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_outlives_the_broker_and_a_lost_recipient_key() {
    let (mut site, vnfci, first) = site("1h").await;
    let old = &first.keys[0];
    let renewing = vnfci.rebooted();
    let drawn = renewing.renew(&site, old).await.unwrap();
    site.kill_and_restart().await;
    let again = renewing.renew(&site, old).await.unwrap();
    assert_eq!(again.response.claim_id, drawn.response.claim_id);
    assert_eq!(
        again.keys[0].certificate_der, drawn.keys[0].certificate_der,
        "the same key finds the renewal again"
    );
    assert_eq!(again.response.renew_after, drawn.response.renew_after);
    // Another recipient key draws afresh, at most three times.
    let mut last = again;
    for _ in 0..3 {
        let fresh = vnfci.rebooted().renew(&site, old).await.unwrap();
        assert_ne!(fresh.response.claim_id, last.response.claim_id);
        assert!(last.confirm_by(&site, old).await.is_err(), "what was given up is not confirmed");
        last = fresh;
    }
    assert_eq!(refused(vnfci.rebooted().renew(&site, old).await).code(), Code::Unauthenticated);
    assert!(last.confirm_by(&site, &last.keys[0]).await.unwrap().newly_confirmed);
    // What was renewed is not renewed again; the renewal is.
    assert_eq!(refused(vnfci.rebooted().renew(&site, old).await).code(), Code::Unauthenticated);
    vnfci.rebooted().renew(&site, &last.keys[0]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_renewed_vnfci_revokes_the_superseded_certificate_too() {
    let (site, vnfci, first) = site("1h").await;
    let renewed = vnfci.rebooted().renew(&site, &first.keys[0]).await.unwrap();
    renewed.confirm_by(&site, &first.keys[0]).await.unwrap();
    let under_way = vnfci.rebooted().renew(&site, &renewed.keys[0]).await.unwrap();
    assert_eq!(site.terminate_vnfci("amf-0001").await.serials.len(), 3);
    for key in [&first.keys[0], &renewed.keys[0], &under_way.keys[0]] {
        assert_eq!(refused(vnfci.rebooted().renew(&site, key).await).code(), Code::Unauthenticated);
    }
    // Given back: the same.
    let other = site.register_one("amf-0002", &SLOTS, By::Certificate).await;
    let first = other.boot(&site).await;
    let renewed = other.rebooted().renew(&site, &first.keys[0]).await.unwrap();
    renewed.confirm_by(&site, &first.keys[0]).await.unwrap();
    assert_eq!(renewed.release(&site).await.unwrap().len(), 2);
    assert_eq!(renewed.release(&site).await.unwrap().len(), 2, "releasing again tells the same");
    for key in [&first.keys[0], &renewed.keys[0]] {
        assert_eq!(refused(other.rebooted().renew(&site, key).await).code(), Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mano_requests_is_seen_by_the_vnfci_until_it_has_renewed() {
    let (site, vnfci, first) = site("1h").await;
    let old = &first.keys[0];
    assert!(seconds(old.trust_chain(&site).await.unwrap().renew_after) > now());
    let waiting = site.register_one("amf-0002", &SLOTS, By::Token).await;
    let asked = site.cli_as("nfvo", &["vnfci", "renew", "amf-0001", &waiting.id, "nobody"]).await;
    assert_eq!(asked.code, 1, "{asked:?}");
    for (id, requested, says) in
        [("amf-0001", true, ""), ("amf-0002", false, "nothing to renew"), ("nobody", false, "does not exist")]
    {
        let line = asked.objects().into_iter().find(|one| one["vnfci_id"] == id).unwrap();
        assert_eq!(line["requested"], requested);
        assert!(line["error"].as_str().unwrap_or_default().contains(says), "{line}");
    }
    let again = site.cli_as("vnfm", &["vnfci", "renew", "amf-0001"]).await.ok().objects();
    assert_eq!(again[0]["newly_requested"], false);
    assert!(site.vnfci("amf-0001").await.renewal_requested_at.is_some());
    assert!(seconds(old.trust_chain(&site).await.unwrap().renew_after) <= now());

    let renewed = vnfci.rebooted().renew(&site, old).await.unwrap();
    assert!(seconds(renewed.response.renew_after) > now(), "what is drawn now is the answer");
    assert!(seconds(old.trust_chain(&site).await.unwrap().renew_after) <= now(), "not confirmed yet");
    renewed.confirm_by(&site, old).await.unwrap();
    assert!(seconds(renewed.keys[0].trust_chain(&site).await.unwrap().renew_after) > now());
    assert!(site.vnfci("amf-0001").await.renewal_requested_at.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_told_that_mano_has_to_rearm() {
    let mut site = Site::start().await;
    // Each certificate ends at a random moment within five minutes: of many, one ends soon.
    let lines = "validity = \"5m\"\nvalidity_jitter = \"4m57s\"\nmin_remaining_at_claim = \"1s\"";
    site.add_profile("minutes", lines).await;
    let names: Vec<String> = (0..16).map(|n| format!("s{n}")).collect();
    site.create_pool_of("minutes", "minutes", 64).await;
    let slots: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "minutes")).collect();
    let ids = ["amf-0001", "amf-0002", "amf-0003", "amf-0004"];
    let mut booted = Vec::new();
    for vnfci in site.register(&ids, &slots, By::Certificate).await {
        let claimed = vnfci.claim_patiently(&site).await;
        assert!(vnfci.confirm(&site, &claimed).await.unwrap());
        booted.push((vnfci, claimed));
    }
    let end = |claimed: &Claimed| claimed.keys.iter().map(|key| key.facts.not_after).min();
    let (vnfci, claimed) = booted.into_iter().min_by_key(|(_, claimed)| end(claimed)).unwrap();
    let soonest = claimed.keys.iter().min_by_key(|key| key.facts.not_after).unwrap();
    let status = site
        .until("the expiry of a certificate", async |site| {
            if SystemClock.now() < soonest.facts.not_after {
                return None;
            }
            Some(refused(vnfci.rebooted().renew(site, soonest).await))
        })
        .await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("have MANO re-arm the VNFCI"), "{status:?}");
    assert_eq!(describe(&status).reason.as_deref(), Some("REARM_NEEDED"));
    // Other calls say no more than they say to strangers, and one that is still valid renews all slots.
    assert_eq!(soonest.trust_chain(&site).await.unwrap_err().code(), Code::Unauthenticated);
    let latest = claimed.keys.iter().max_by_key(|key| key.facts.not_after).unwrap();
    let renewing = vnfci.rebooted();
    let renewed = site.until("a refilled pool", async |site| renewing.renew(site, latest).await.ok()).await;
    assert_eq!(renewed.keys.len(), 16);
    let told = site
        .until("the refusal in the log", async |site| {
            site.events("REFUSED").await.into_iter().find(|one| one["details"]["rpc"] == "Renew")
        })
        .await;
    assert_eq!(
        (&told["vnfci"], &told["details"]["reason_code"]),
        (&vnfci.id.clone().into(), &"CERTIFICATE_EXPIRED".into())
    );
    // MANO does as it was told, and the VNFCI has certificates again.
    let tokens = site.path().display().to_string();
    site.cli_as("nfvo", &["vnfci", "rearm", &vnfci.id, "--token", "--token-dir", &tokens]).await.ok();
    let (root, url, file) = (site.root_pem(), site.bootstrap_url(), format!("{tokens}/{}.token", vnfci.id));
    let (root, out) = (root.display().to_string(), site.path().join("rearmed").display().to_string());
    let claim = ["claim", "--server", &url, "--trust-anchor", &root, "--token-file", &file, "--out", &out];
    let claimed = site.cli(claim).await.ok().object();
    assert_eq!(claimed["slots"].as_array().unwrap().len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_keeps_the_old_key_until_the_new_one_is_acknowledged() {
    let (site, ..) = site("1h").await;
    let vnfci = site.register_one("amf-0002", &SLOTS, By::Token).await;
    let token = site.path().join("token");
    std::fs::write(&token, vnfci.initial.token.as_ref().unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (token, root) = (token.display().to_string(), site.root_pem().display().to_string());
    let directory = site.path().join("amf-0002");
    let (out, bootstrap, server) = (directory.display().to_string(), site.bootstrap_url(), site.vnfci_url());
    let claim =
        ["claim", "--server", &bootstrap, "--trust-anchor", &root, "--token-file", &token, "--out", &out];
    let claimed = site.cli(claim).await.ok().object();
    let renew = |more: &[&str]| {
        let all = ["renew", "--server", &server, "--out", &out].into_iter().chain(more.iter().copied());
        let all: Vec<String> = all.map(str::to_owned).collect();
        let site = &site;
        async move { site.cli(all).await.ok().object() }
    };
    let read = |file: &str| std::fs::read_to_string(directory.join(file)).unwrap();
    let (old_key, old_cert) = (read("transport/key.pem"), read("transport/cert.pem"));

    assert_eq!(renew(&["--when-due"]).await["renewed"], false);
    assert_eq!(site.vnfci("amf-0002").await.credentials.len(), 1, "nothing is drawn before it is time");
    assert_eq!(renew(&["--no-confirm"]).await["renewed"], false);
    assert_eq!((read("transport/key.pem"), read("transport/cert.pem")), (old_key.clone(), old_cert.clone()));
    assert!(directory.join("renewal/transport/key.pem").exists());
    let renewed = renew(&[]).await;
    assert_eq!(renewed["renewed"], true);
    assert_ne!(renewed["claim_id"], claimed["claim_id"]);
    assert!(read("transport/key.pem") != old_key && read("transport/cert.pem") != old_cert);
    let mode = std::fs::metadata(directory.join("transport/key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!directory.join("renewal").exists(), "the old key and the recipient key are gone");
    let (cert, key) = (directory.join("transport/cert.pem"), directory.join("transport/key.pem"));
    let public = async |arguments: &[&str]| run("openssl", arguments).await.ok().out;
    let certified = public(&["x509", "-noout", "-pubkey", "-in", &cert.display().to_string()]).await;
    assert_eq!(certified, public(&["pkey", "-pubout", "-in", &key.display().to_string()]).await);

    // MANO's wish makes it due, once.
    site.cli_as("nfvo", &["vnfci", "renew", "amf-0002"]).await.ok();
    let asked = renew(&["--when-due"]).await;
    assert_eq!(asked["renewed"], true);
    assert_eq!(renew(&["--when-due"]).await["renewed"], false);
    // And it is given back as a claim is.
    let released = site.cli(["release", "--server", &server, "--out", &out]).await.ok().object();
    assert_eq!(released["claim_id"], asked["claim_id"]);
    assert_eq!(released["serials"].as_array().unwrap().len(), 3);
    let ended = site.cli(["renew", "--server", &server, "--out", &out]).await;
    assert_eq!(ended.code, 2, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vnfci_in_wrong_hands_does_not_drain_the_pool_by_renewing() {
    let (mut site, vnfci, first) = site("1h").await;
    let mut held = first;
    for _ in 0..3 {
        let renewed = vnfci.rebooted().renew(&site, &held.keys[0]).await.unwrap();
        renewed.confirm_by(&site, &held.keys[0]).await.unwrap();
        held = renewed;
    }
    assert_eq!(refused(vnfci.rebooted().renew(&site, &held.keys[0]).await).code(), Code::Unauthenticated);
    held.keys[0].trust_chain(&site).await.expect("what it has works on");
    site.until("the reason in the log", async |site| {
        let mut events = site.events("REFUSED").await.into_iter();
        events.find(|event| event["details"]["reason_code"] == "TOO_MANY_RENEWALS")
    })
    .await;
}
