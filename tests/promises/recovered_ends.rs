//! Goal: what a rolled-back database forgot the end of has ended after `keybroker recover` as it had ended before: its VNFCI
//! is shown so, its receipt says why and what is known of the holder's copy, there is one receipt per key, and the log tells
//! a whole story of each key.
//! Method: after a backup VNFCIs give back, renew, are armed anew and ended; then the backup is restored and recovered, with
//! SQLite and with PostgreSQL. Both logs, the one that was put aside and the new one, are verified and read offline.

use super::recovery::{backup, names, recover, restore};
use crate::support::mano::{By, request_id};
use crate::support::postgres::{Cluster, Database};
use crate::support::site::{Options, Site};
use crate::support::vnfci::{Claimed, Initial, Vnfci};
use keybroker::api::proto;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::audit::AuditPublicKey;
use keybroker::audit::history::{KeyHistory, prove};
use keybroker::nfv::Sha256Hash;
use serde_json::Value;
use std::path::{Path, PathBuf};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// MANO arms a VNFCI anew, with a token.
pub(crate) async fn rearm(site: &Site, vnfci: &Vnfci) -> Vnfci {
    let kind = proto::initial_credential::Kind::Token(proto::TokenInitialCredential {});
    let request = proto::RearmVnfcisRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfcis: vec![proto::Rearming {
            vnfci_id: vnfci.id.clone(),
            initial_credential: Some(proto::InitialCredential { kind: Some(kind), expires_at: None }),
        }],
    };
    let mut client = LifecycleServiceClient::new(site.management("nfvo").await);
    let mut results = client.rearm_vnfcis(request).await.unwrap().into_inner().results;
    let result = results.remove(0);
    assert_eq!(result.error, "");
    let credential = crate::support::ca::Credential::self_made(&vnfci.id);
    Vnfci::new(&vnfci.id, Initial { credential, token: Some(result.token.into()) })
}

async fn terminate_wiped(site: &Site, id: &str) {
    let request = proto::TerminateVnfciRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfci_id: id.into(),
        storage_wiped: true,
    };
    let mut client = LifecycleServiceClient::new(site.management("nfvo").await);
    client.terminate_vnfci(request).await.unwrap();
}

pub(crate) async fn state(site: &Site, id: &str) -> proto::VnfciState {
    site.vnfci(id).await.state()
}

/// The receipt that stands, once it says that the key is shredded, or that there was none to shred.
async fn receipt(site: &mut Site, claimed: &Claimed) -> Value {
    let credential = claimed.keys[0].credential_id.clone();
    site.until("a receipt of shredding in the log", async |site| {
        let receipts = site.events("DESTRUCTION_RECEIPT").await;
        let mut of_key =
            receipts.into_iter().filter(|event| event["credentials"][0]["id"] == credential.as_str());
        let only = of_key.next()?["details"].clone();
        assert!(of_key.next().is_none(), "two receipts for {credential}");
        let told = site.cli_as("auditor", &["audit", "receipt", &credential]).await.ok().object();
        assert_eq!(told["receipt"], only["receipt"]);
        assert_eq!(told["receipt"]["broker_copy"]["state"], "SHREDDED", "{told}");
        Some(told)
    })
    .await
}

/// A key's story as a log tells it, which contradicts nothing.
fn story(site: &Site, log: &Path, claimed: &Claimed) -> KeyHistory {
    let key = AuditPublicKey::from_pem(&std::fs::read(site.audit_key()).unwrap()).unwrap();
    let history = prove(log, &key, claimed.keys[0].facts.public_key).unwrap();
    assert_eq!(history.problems, Vec::<String>::new(), "{history:#?}");
    history
}

fn mirror(site: &Site) -> PathBuf {
    site.path().join("audit-mirror")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_after_the_backup_has_ended_so_after_recovery_and_has_one_receipt() {
    ended_after_the_backup(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_after_the_dump_has_ended_so_after_recovery_and_has_one_receipt() {
    ended_after_the_backup(Some(&Cluster::common().database())).await;
}

async fn ended_after_the_backup(database: Option<&Database>) {
    let more_toml = "renewal_overlap = \"2s\"\n".to_owned();
    let mut options = Options { more_toml, ..Options::default() };
    if let Some(database) = database {
        options.store_url = database.url();
    }
    let mut site = Site::start_with(options).await;
    site.full_pool(POOL, 10).await;
    let ids = [
        "released",
        "receipted",
        "renewed",
        "rearmed",
        "returned",
        "wiped",
        "redrawn",
        "open",
        "kept",
        "back",
    ];
    let vnfcis = site.register(&ids, &SLOTS, By::Token).await;
    let [
        releasing,
        receipting,
        renewing,
        rearming,
        returning,
        wiping,
        redrawing,
        opening,
        keeping,
        coming_back,
    ] = &vnfcis[..]
    else {
        panic!()
    };
    let released = releasing.boot(&site).await;
    let receipted = receipting.boot(&site).await;
    let renewed = renewing.boot(&site).await;
    let rearmed = rearming.boot(&site).await;
    let returned = returning.boot(&site).await;
    let wiped = wiping.boot(&site).await;
    let redrawn = redrawing.claim(&site).await.unwrap();
    let open = opening.claim(&site).await.unwrap();
    let kept = keeping.boot(&site).await;
    coming_back.boot(&site).await.release(&site).await.unwrap();
    let file = site.path().join("backup.db");
    backup(&site, database, &file).await;

    released.release(&site).await.unwrap();
    receipted.release(&site).await.unwrap();
    let receipt_before = receipt(&mut site, &receipted).await;
    let renewal = renewing.rebooted().renew(&site, &renewed.keys[0]).await.unwrap();
    assert!(renewal.confirm_by(&site, &renewed.keys[0]).await.unwrap().newly_confirmed);
    rearm(&site, rearming).await.boot(&site).await;
    returned.release(&site).await.unwrap();
    rearm(&site, returning).await.boot(&site).await;
    rearm(&site, coming_back).await;
    terminate_wiped(&site, "wiped").await;
    redrawing.rebooted().claim(&site).await.unwrap();
    // Claimed before the backup, confirmed and given back after it.
    assert!(opening.confirm(&site, &open).await.unwrap());
    open.release(&site).await.unwrap();
    site.stop().await;

    restore(&site, database, &file);
    let done = recover(&site, &["--yes"]).await;
    let outcome = &done["outcome"];
    assert_eq!(names(&outcome["terminated"]), ["default/wiped"].into());
    let rearm = ["renewed", "rearmed", "returned", "redrawn", "back"].map(|id| format!("default/{id}"));
    assert_eq!(names(&outcome["rearm"]), rearm.iter().map(String::as_str).collect(), "{outcome}");
    site.serve().await;
    for (id, expected) in [
        ("released", proto::VnfciState::Released),
        ("receipted", proto::VnfciState::Released),
        ("open", proto::VnfciState::Released),
        ("renewed", proto::VnfciState::Active),
        ("rearmed", proto::VnfciState::Active),
        ("returned", proto::VnfciState::Registered),
        ("back", proto::VnfciState::Registered),
        ("wiped", proto::VnfciState::Terminated),
        ("kept", proto::VnfciState::Active),
    ] {
        assert_eq!(state(&site, id).await, expected, "{id}");
    }

    let ended = [
        (&released, "RELEASED", "RELEASED_SIGNED"),
        (&receipted, "RELEASED", "RELEASED_SIGNED"),
        (&open, "RELEASED", "RELEASED_SIGNED"),
        (&returned, "RELEASED", "RELEASED_SIGNED"),
        (&renewed, "SUPERSEDED", "UNKNOWN"),
        (&rearmed, "SUPERSEDED", "UNKNOWN"),
        (&wiped, "TERMINATED", "WIPED_PER_MANO"),
        (&redrawn, "NEW_RECIPIENT", "UNKNOWN"),
    ];
    for (claimed, reason, holder_copy) in ended {
        let receipt = receipt(&mut site, claimed).await;
        assert_eq!(receipt["receipt"]["reason"], reason, "{receipt}");
        assert_eq!(receipt["receipt"]["holder_copy"], holder_copy, "{receipt}");
        assert_eq!(receipt["receipt"]["vnfci"], claimed.response.vnfci_id.as_str(), "{receipt}");
    }
    assert_eq!(receipt(&mut site, &receipted).await, receipt_before, "the one that was given out stands");
    // What nobody ended goes on.
    kept.keys[0].trust_chain(&site).await.unwrap();

    let archived = PathBuf::from(done["plan"]["archive"].as_str().unwrap());
    site.verify(&archived, &[]).await.ok();
    let log = site.export("recovered").await;
    site.verify(&log, &[]).await.ok();
    site.verify(&mirror(&site), &[]).await.ok();
    for (claimed, reason, _) in ended {
        let history = story(&site, &log, claimed);
        assert!(history.generated_in_hsm() && history.sealed_to_one_recipient(), "{history:#?}");
        assert!(history.is_shredded() && history.revoked.is_some(), "{history:#?}");
        assert_eq!(history.receipts.len(), 1, "{history:#?}");
        let before = story(&site, &archived, claimed);
        assert_eq!(history.recipients, before.recipients);
        assert_eq!(history.released.is_some(), reason == "RELEASED", "{history:#?}");
        assert_eq!(history.released.is_some(), before.released.is_some(), "{history:#?}");
    }
    // The holder's signatures are kept with it.
    let given_back = site.events("RELEASED").await;
    let released_again: Vec<&Value> =
        given_back.iter().filter(|event| event["vnfci"] == "released").collect();
    let [event] = released_again[..] else { panic!("{given_back:?}") };
    assert_eq!(event["actor"], "broker");
    let fingerprint = Sha256Hash::of(&released.keys[0].certificate_der).to_string();
    assert!(event["details"]["certificates"][0].as_str().unwrap().contains(&fingerprint), "{event}");
    assert!(!event["details"]["signatures"][0].as_str().unwrap().is_empty(), "{event}");
}

/// Found by the simulation: the log that the first recovery had put aside said that the VNFCI was armed anew, so that a
/// release after that counted as one of an earlier arming.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_recovery_brought_back_says_nothing_at_the_next_one() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 3).await;
    let vnfci = site.register_one("amf-1", &SLOTS, By::Token).await;
    vnfci.boot(&site).await;
    let file = site.path().join("backup.db");
    backup(&site, None, &file).await;
    rearm(&site, &vnfci).await;
    site.stop().await;
    restore(&site, None, &file);
    let done = recover(&site, &["--yes"]).await;
    assert_eq!(names(&done["outcome"]["rearm"]), ["default/amf-1"].into(), "{done}");

    site.serve().await;
    site.until_available(POOL, 3).await;
    let again = rearm(&site, &vnfci).await.boot(&site).await;
    backup(&site, None, &file).await;
    again.release(&site).await.unwrap();
    site.stop().await;
    restore(&site, None, &file);
    let done = recover(&site, &["--yes"]).await;
    assert_eq!(names(&done["outcome"]["rearm"]), [].into(), "{done}");
    site.serve().await;
    assert_eq!(state(&site, "amf-1").await, proto::VnfciState::Released);
    let receipt = receipt(&mut site, &again).await;
    assert_eq!(receipt["receipt"]["holder_copy"], "RELEASED_SIGNED", "{receipt}");
}
