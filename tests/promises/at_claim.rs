//! Goal: where certificates are issued at the claim, each names its VNFCI, is announced in the log before it is signed,
//! and is the only one that its key ever gets, whatever dies in between.
//! Method: `openssl` reads what is delivered and the CRL; the broker is killed while its signatures are outstanding.

use super::certificates::{Files, crl_pem, verify};
use crate::support::mano::{By, announcement, pool_request, request_id};
use crate::support::process::run;
use crate::support::site::Site;
use crate::support::vnfci::{Claimed, Delivered, Vnfci};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use keybroker::audit::AuditPublicKey;
use keybroker::audit::history::prove;
use keybroker::nfv::{RequestId, Sha256Hash};
use proto::initial_credential::Kind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use tokio::task::JoinSet;
use tonic::Code;

const PROFILE: &str = "vnfci-named";
const OWN: &str = "amf-own-name";
const AHEAD: &str = "amf-ahead";
const SLOT: [(&str, &str); 1] = [("own", OWN)];
const BOTH: [(&str, &str); 2] = [("ahead", AHEAD), ("own", OWN)];

fn key_of<'c>(claimed: &'c Claimed, slot: &str) -> &'c Delivered {
    claimed.keys.iter().find(|key| key.slot == slot).unwrap()
}

async fn openssl(arguments: &[&str]) -> String {
    run("openssl", arguments).await.ok().out.trim().to_owned()
}

/// What the log announced for a slot of the VNFCI's latest claim, once it did.
async fn announced(site: &mut Site, vnfci: &str, slot: &str) -> Value {
    site.until("the claim in the log", async |site| {
        let events = site.events("CLAIMED").await;
        let event = events.iter().rev().find(|event| event["vnfci"] == vnfci)?;
        let found = event["details"]["slots"].as_array().unwrap().iter().find(|one| one["slot"] == slot);
        found.cloned()
    })
    .await
}

async fn crl_text(site: &Site, key: &Delivered) -> String {
    let file = site.path().join("crl.pem");
    std::fs::write(&file, crl_pem(key).await).unwrap();
    openssl(&["crl", "-noout", "-text", "-in", &file.display().to_string()]).await
}

/// Serial numbers as openssl writes them.
fn upper(serial: &Value) -> String {
    serial.as_str().unwrap().to_uppercase()
}

/// SHA-256 of a certificate's TBSCertificate, cut out by openssl.
async fn tbs_hash(directory: &Path, certificate: &Path) -> Sha256Hash {
    let tbs = directory.join("tbs.der");
    let (certificate, out) = (certificate.display().to_string(), tbs.display().to_string());
    openssl(&["asn1parse", "-in", &certificate, "-strparse", "4", "-noout", "-out", &out]).await;
    Sha256Hash::of(&std::fs::read(&tbs).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_names_its_vnfci_and_is_the_one_that_was_announced() {
    let mut site = Site::start().await;
    site.full_pool_of(PROFILE, OWN, 2).await;
    site.full_pool(AHEAD, 2).await;
    let levels = site.levels(OWN).await;
    assert_eq!((levels.ready, levels.generated, levels.available), (2, 2, 0));

    let vnfci = site.register_one("amf-0001", &BOTH, By::Certificate).await;
    let claimed = vnfci.boot(&site).await;
    let own = key_of(&claimed, "own");
    let files = Files::write(site.path(), "own", own);
    let (cert, private_key) = (files.cert.display().to_string(), files.key.display().to_string());
    let subject = openssl(&["x509", "-in", &cert, "-noout", "-subject", "-nameopt", "RFC2253"]).await;
    assert_eq!(subject, "subject=CN=amf-0001,OU=amf-1,O=keybroker");
    let names = openssl(&["x509", "-in", &cert, "-noout", "-ext", "subjectAltName"]).await;
    assert!(names.contains(&format!("URI:urn:uuid:{}", own.credential_id)), "{names}");
    let certified = openssl(&["x509", "-in", &cert, "-noout", "-pubkey"]).await;
    assert_eq!(certified, openssl(&["pkey", "-in", &private_key, "-pubout"]).await);
    let ahead = Files::write(site.path(), "ahead", key_of(&claimed, "ahead"));
    let crl = site.path().join("before.crl.pem");
    std::fs::write(&crl, crl_pem(own).await).unwrap();
    for files in [&files, &ahead] {
        verify(files, &crl).await.ok();
    }

    // Announced before it was signed: serial number and the very bytes.
    let slot = announced(&mut site, "amf-0001", "own").await;
    let serial = openssl(&["x509", "-in", &cert, "-noout", "-serial"]).await;
    assert_eq!(serial, format!("serial={}", upper(&slot["intent"]["serial"])));
    assert_eq!(slot["intent"]["tbs"], tbs_hash(site.path(), &files.cert).await.to_string());
    assert_eq!(slot["certificate"], Value::Null);
    assert_eq!(announced(&mut site, "amf-0001", "ahead").await["intent"], Value::Null);
    let issued = site.events("CERTIFICATES_ISSUED").await;
    assert_eq!((issued.len(), &issued[0]["vnfci"]), (1, &"amf-0001".into()));
    let issued = &issued[0]["details"];
    assert_eq!(issued["certificates"].as_array().unwrap().len(), 1);
    assert_eq!(issued["certificates"][0]["certificate"], own.facts.fingerprint.to_string());

    // Given back, it is revoked, its key shredded, and the log tells the whole story.
    claimed.release(&site).await.unwrap();
    site.until("the released certificate on the CRL", async |site| {
        crl_text(site, own).await.contains(&upper(&slot["intent"]["serial"])).then_some(())
    })
    .await;
    let credential = own.credential_id.clone();
    site.until("a receipt of shredding", async |site| {
        let receipt = site.cli_as("auditor", &["audit", "receipt", &credential]).await.ok().object();
        (receipt["receipt"]["broker_copy"]["state"] == "SHREDDED").then_some(())
    })
    .await;
    let export = site.export("audit").await;
    site.verify(&export, &[]).await.ok();
    let key = AuditPublicKey::from_pem(&std::fs::read(site.audit_key()).unwrap()).unwrap();
    let history = prove(&export, &key, own.facts.public_key).unwrap();
    assert!(history.generated_in_hsm() && history.sealed_to_one_recipient(), "{history:#?}");
    assert!(history.confirmed.is_some() && history.released.is_some() && history.is_shredded());
    assert_eq!(history.problems, Vec::<String>::new());
}

/// SIGSTOP for the HSM's workers: what is asked of them stays unanswered.
fn stop_workers(site: &Site) -> Vec<Pid> {
    let workers: Vec<Pid> = site
        .broker()
        .workers()
        .into_iter()
        .filter_map(|pid| Pid::from_raw(i32::try_from(pid).unwrap()))
        .collect();
    for worker in &workers {
        kill_process(*worker, Signal::STOP).unwrap();
    }
    workers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_between_announcing_and_signing_signs_what_it_announced_or_revokes_it() {
    let mut site = Site::start().await;
    site.full_pool_of(PROFILE, OWN, 4).await;
    let [patient, rebooting] =
        <[Vnfci; 2]>::try_from(site.register(&["amf-0001", "amf-0002"], &SLOT, By::Certificate).await)
            .unwrap_or_else(|_| panic!("two VNFCIs"));
    // The handshakes need the HSM: they are done before it stops answering.
    let mut outstanding = JoinSet::new();
    let mut connections = Vec::new();
    for vnfci in [&patient, &rebooting] {
        connections.push((vnfci.clone(), vnfci.connect(&site).await.unwrap()));
    }
    let workers = stop_workers(&site);
    for (vnfci, connection) in connections {
        outstanding.spawn(async move {
            let request = vnfci.claim_request(&connection, RequestId::generate());
            CredentialServiceClient::new(connection.channel).claim(request).await
        });
    }
    let first = announced(&mut site, "amf-0001", "own").await;
    let second = announced(&mut site, "amf-0002", "own").await;
    assert!(site.events("CERTIFICATES_ISSUED").await.is_empty());
    site.kill();
    for worker in workers {
        let _ = kill_process(worker, Signal::KILL);
    }
    assert!(outstanding.join_all().await.iter().all(Result::is_err), "a killed broker answered");
    site.serve().await;

    // The same recipient key gets the key and the serial number that were announced for it.
    let claimed = patient.claim_patiently(&site).await;
    let own = key_of(&claimed, "own");
    assert_eq!(own.credential_id, first["credential"].as_str().unwrap());
    assert_eq!(hex::encode(&own.facts.serial), first["intent"]["serial"].as_str().unwrap());
    let files = Files::write(site.path(), "own", own);
    assert_eq!(first["intent"]["tbs"], tbs_hash(site.path(), &files.cert).await.to_string());
    assert!(patient.confirm(&site, &claimed).await.unwrap());

    // Another one gets a new key; the serial number that may have been signed for the old one is revoked.
    let rebooted = rebooting.rebooted();
    let redrawn = rebooted.claim_patiently(&site).await;
    assert_ne!(key_of(&redrawn, "own").credential_id, second["credential"].as_str().unwrap());
    assert!(rebooted.confirm(&site, &redrawn).await.unwrap());
    let lost = upper(&second["intent"]["serial"]);
    site.until("the announced serial number on the CRL", async |site| {
        let text = crl_text(site, own).await;
        (text.contains(&lost) && !text.contains(&upper(&first["intent"]["serial"]))).then_some(())
    })
    .await;
    let crl = site.path().join("after.crl.pem");
    std::fs::write(&crl, crl_pem(own).await).unwrap();
    verify(&files, &crl).await.ok();
    let export = site.export("audit").await;
    site.verify(&export, &[]).await.ok();
    // One certificate for each key, ever. (Once exported, everything so far is in the log.)
    let mut certified = HashSet::new();
    for event in site.events("CERTIFICATES_ISSUED").await {
        for certificate in event["details"]["certificates"].as_array().unwrap() {
            assert!(certified.insert(certificate["credential"].to_string()), "a second one: {certificate}");
        }
    }
    assert_eq!(certified.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_from_an_empty_pool_generate_their_keys_and_name_their_vnfcis() {
    let mut site = Site::start().await;
    site.full_pool_of(PROFILE, OWN, 1).await;
    let ids: Vec<String> = (0..12).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = site.register(&ids, &SLOT, By::Certificate).await;
    let site = std::sync::Arc::new(site);
    let mut claims = JoinSet::new();
    for vnfci in vnfcis {
        let site = std::sync::Arc::clone(&site);
        claims.spawn(async move { (vnfci.id.clone(), vnfci.boot(&site).await) });
    }
    let mut keys = HashSet::new();
    for (id, claimed) in claims.join_all().await {
        let own = key_of(&claimed, "own");
        assert!(own.facts.subject.contains(&format!("CN={id}")), "{}", own.facts.subject);
        assert!(keys.insert(own.facts.public_key), "the key of {id} was given out twice");
    }
    let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
    let generated =
        metrics.lines().find(|line| line.starts_with("keybroker_credentials_generated_at_claim_total"));
    assert!(generated.is_some_and(|line| !line.ends_with(" 0")), "{generated:?}");
}

/// Adds a profile as the operator does.
async fn add_profile(site: &Site, name: &str, toml: &str) -> Result<(), tonic::Status> {
    let profile = Some(proto::Profile { name: name.into(), toml: toml.into() });
    let request = proto::AddProfileRequest { request_id: request_id(), profile };
    AdminServiceClient::new(site.management("operator").await).add_profile(request).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_times_that_do_not_fit_are_refused_before_a_vnfci_meets_them() {
    let site = Site::start().await;
    let dns = "subject = \"CN={vnfci}\"\nsan = [\"dns:{vnfci}.amf.example\"]\nissue = \"at_claim\"\n";
    add_profile(&site, "dns", dns).await.unwrap();
    let request = proto::CreatePoolRequest { profile: "dns".into(), ..pool_request(OWN, 1) };
    let pool = PoolServiceClient::new(site.management("nfvo").await).create_pool(request).await.unwrap();
    assert_eq!(pool.into_inner().pool.unwrap().issue, "at_claim");

    let token = || Kind::Token(proto::TokenInitialCredential {});
    let request = proto::RegisterVnfcisRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfcis: ["amf-0001", "amf/0002"].iter().map(|id| announcement(id, &SLOT, token(), None)).collect(),
    };
    let mut lifecycle = LifecycleServiceClient::new(site.management("nfvo").await);
    let results = lifecycle.register_vnfcis(request).await.unwrap().into_inner().results;
    assert_eq!(results[0].error, "");
    assert!(results[1].error.contains("slot own") && results[1].error.contains("{vnfci}"), "{results:?}");

    // A pool stays with the time at which it began to issue.
    let ahead = dns.replace("at_claim", "ahead").replace("{vnfci}", "{credential}");
    let refused = add_profile(&site, "dns", &ahead).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains(OWN), "{refused:?}");
    let unnamed = add_profile(&site, "bad", "subject = \"CN={vnfci},OU={credential}\"\n").await.unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument, "{unnamed:?}");
    assert!(unnamed.message().contains("at_claim"), "{unnamed:?}");
}
