//! Goal: a certificate that its CA has withdrawn is accepted nowhere, whoever's CA it is: initial certificates by the CRLs
//! that the operator gives, delivered ones by the broker's own knowledge, on connections that are open already.
//! Method: MANO's CA in software with its CRLs on the bootstrap listener; one open connection to the VNFCI listener over a
//! revocation. The auditor sees the reason, the VNFCI does not.

use crate::support::ca::{Shape, SoftwareCa};
use crate::support::mano::{By, register, request_id};
use crate::support::site::{ANCHOR, Site};
use crate::support::vnfci::Vnfci;
use keybroker::api::proto;
use keybroker::ca::pem;
use keybroker::clock::{Clock, SystemClock};
use proto::credential_service_client::CredentialServiceClient;
use proto::lifecycle_service_client::LifecycleServiceClient;
use serde_json::Value;
use tonic::{Code, Status};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// `keybroker anchor update` of MANO's anchor.
async fn update(site: &Site, crl: Option<&[u8]>, policy: Option<&str>) -> (bool, String) {
    let mut arguments = vec!["anchor", "update", ANCHOR];
    let file = site.path().join("mano.crl.pem").display().to_string();
    if let Some(der) = crl {
        std::fs::write(&file, pem("X509 CRL", der)).unwrap();
        arguments.extend(["--crl", &file]);
    }
    arguments.extend(policy.iter().flat_map(|policy| ["--crl-policy", policy]));
    let finished = site.cli_as("operator", &arguments).await;
    (finished.code == 0, format!("{}{}", finished.out, finished.err))
}

/// Gives the anchor the certificate of a CA below it.
async fn give_issuer(site: &Site, ca: &SoftwareCa) -> (bool, String) {
    let file = site.path().join("below.pem");
    std::fs::write(&file, pem("CERTIFICATE", &ca.certificate_der)).unwrap();
    let file = file.display().to_string();
    let finished = site.cli_as("operator", &["anchor", "update", ANCHOR, "--ca", &file]).await;
    (finished.code == 0, format!("{}{}", finished.out, finished.err))
}

/// Asserts a generic refusal, and the reason in the audit log.
async fn refused(site: &mut Site, vnfci: &Vnfci, reason: &str) {
    let before = site.events("REFUSED").await.len();
    let status = vnfci.claim(site).await.err().expect("claimed");
    generic(&status);
    let events = site
        .until("the refusal in the audit log", async |site| {
            let events = site.events("REFUSED").await;
            (events.len() > before).then_some(events)
        })
        .await;
    let has_reason = |event: &Value| event["details"]["reason_code"] == reason;
    let last = events.iter().max_by_key(|event| event["index"].as_u64());
    assert!(last.is_some_and(has_reason), "{reason}: {last:?}");
}

fn generic(status: &Status) {
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "not authenticated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initial_certificate_on_its_cas_crl_is_refused_and_a_stale_crl_is_enough_where_none_is_required() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 4).await;
    let revoked = site.register_one("revoked", &SLOTS, By::Certificate).await;
    let good = site.register_one("good", &SLOTS, By::Certificate).await;

    // Required and there is none: nobody.
    assert!(update(&site, None, Some("require")).await.0);
    refused(&mut site, &good, "CERTIFICATE_REVOCATION_UNKNOWN").await;

    // One that is over.
    let stale = site.mano_ca.crl(1, 1, &[&revoked.initial.credential]);
    let (done, shown) = update(&site, Some(&stale), None).await;
    assert!(done && shown.contains("MANO initial CA"), "{shown}");
    refused(&mut site, &good, "CERTIFICATE_REVOCATION_UNKNOWN").await;
    refused(&mut site, &revoked, "CERTIFICATE_REVOKED").await;
    assert!(update(&site, None, Some("if-present")).await.0);
    refused(&mut site, &revoked, "CERTIFICATE_REVOKED").await;

    // A current one replaces it, and nothing older comes back.
    let current = site.mano_ca.crl(3, 30, &[&revoked.initial.credential]);
    assert!(update(&site, Some(&current), Some("require")).await.0);
    let (done, shown) = update(&site, Some(&site.mano_ca.crl(2, 30, &[])), None).await;
    assert!(!done && shown.contains("older"), "{shown}");
    refused(&mut site, &revoked, "CERTIFICATE_REVOKED").await;
    good.boot(&site).await;

    // Nor does one that another key has signed in the CA's name.
    let forged = SoftwareCa::new("MANO initial CA").crl(9, 30, &[]);
    let (_, shown) = update(&site, Some(&forged), None).await;
    refused(&mut site, &revoked, "CERTIFICATE_REVOKED").await;
    assert!(shown.contains("MANO initial CA"), "{shown}");
    let events = site.events("ANCHOR_UPDATED").await;
    assert!(events.iter().any(|event| event["details"]["crls_removed"].as_array().unwrap().len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crl_that_its_ca_did_not_sign_displaces_no_genuine_one() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    // Of this CA the broker sees a certificate only where a client presents it.
    let below = site.mano_ca.below("below");
    let forger = below.impostor("below");
    let vnfcis = register(
        site.management("nfvo").await,
        "",
        &below,
        ANCHOR,
        &["revoked", "good"],
        &SLOTS,
        By::Certificate,
    )
    .await;
    let [revoked, good] = vnfcis.as_slice() else { panic!() };
    assert!(update(&site, Some(&site.mano_ca.crl(1, 30, &[])), Some("require")).await.0);

    // The forged list is the newer one, and comes after and before the genuine ones.
    assert!(update(&site, Some(&below.crl(1, 30, &[&revoked.initial.credential])), None).await.0);
    let (done, shown) = update(&site, Some(&forger.crl(40, 30, &[])), None).await;
    assert!(done, "{shown}");
    refused(&mut site, revoked, "CERTIFICATE_REVOKED").await;
    let (done, shown) = update(&site, Some(&below.crl(2, 30, &[&revoked.initial.credential])), None).await;
    assert!(done, "a forged list locks the genuine one out: {shown}");
    refused(&mut site, revoked, "CERTIFICATE_REVOKED").await;
    good.claim(&site).await.map(|_| ()).expect("a certificate that is on no list of its CA");

    // How many may wait is bounded, and none of them makes room for a forged one.
    for number in 41..=45 {
        assert!(update(&site, Some(&forger.crl(number, 30, &[])), None).await.0);
    }
    let (done, shown) = update(&site, Some(&forger.crl(46, 30, &[])), None).await;
    assert!(!done && shown.contains("--ca"), "{shown}");
    refused(&mut site, revoked, "CERTIFICATE_REVOKED").await;

    // With the CA's certificate the newest genuine one is left, and what it did not sign is refused.
    let stranger = SoftwareCa::new("stranger").below("below");
    let (done, shown) = give_issuer(&site, &stranger).await;
    assert!(!done && shown.contains("not below the anchor"), "{shown}");
    let (done, shown) = give_issuer(&site, &below).await;
    assert!(done, "{shown}");
    let anchor = site.cli_as("operator", &["anchor", "show", ANCHOR]).await;
    let anchor: Value = serde_json::from_str(&anchor.out).unwrap();
    assert_eq!(anchor["crls"].as_array().unwrap().len(), 2, "{anchor}");
    let (done, shown) = update(&site, Some(&forger.crl(47, 30, &[])), None).await;
    assert!(!done && shown.contains("signature"), "{shown}");
    refused(&mut site, revoked, "CERTIFICATE_REVOKED").await;
    // A certificate may come off the list (removal from hold): the newest one counts.
    assert!(update(&site, Some(&below.crl(3, 30, &[])), None).await.0);
    revoked.boot(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crl_of_the_future_is_refused() {
    let site = Site::start().await;
    // 49 hours from two days ago.
    let (done, shown) = update(&site, Some(&site.mano_ca.crl(49, 30, &[])), None).await;
    assert!(!done && shown.contains("is of the future"), "{shown}");
    assert!(update(&site, Some(&site.mano_ca.crl(48, 30, &[])), None).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_certificate_that_is_revoked_is_refused_at_once_on_its_open_connection() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let delivered = vnfci.boot(&site).await;
    let connection = site.connect(&site.vnfci_url(), &delivered.keys[0].credential()).await;
    let mut open = CredentialServiceClient::new(connection.channel);
    open.get_trust_chain(proto::GetTrustChainRequest {}).await.unwrap();

    let known = site.vnfci("amf-0001").await;
    let request = proto::RevokeCertificateRequest {
        request_id: request_id(),
        tenant: String::new(),
        issuer_id: known.credentials[0].issuer_id.clone(),
        serial: known.credentials[0].serial.clone(),
        reason: proto::RevocationReason::KeyCompromise.into(),
        ..Default::default()
    };
    let mut nfvo = LifecycleServiceClient::new(site.management("nfvo").await);
    nfvo.revoke_certificate(request).await.unwrap();
    generic(&open.get_trust_chain(proto::GetTrustChainRequest {}).await.unwrap_err());
    let anew = site.connect(&site.vnfci_url(), &delivered.keys[0].credential()).await;
    let mut anew = CredentialServiceClient::new(anew.channel);
    generic(&anew.get_trust_chain(proto::GetTrustChainRequest {}).await.unwrap_err());
    let events = site
        .until("both refusals in the audit log", async |site| {
            let events = site.events("REFUSED").await;
            (events.len() >= 2).then_some(events)
        })
        .await;
    for event in &events {
        assert_eq!(event["details"]["reason_code"], "CERTIFICATE_REVOKED", "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_certificate_is_refused_from_its_expiry_on_its_open_connection() {
    let mut site = Site::start().await;
    let shape = Shape { lifetime: Some(4), ..Shape::default() };
    let short = site.mano_ca.issue("short", shape);
    let over = SystemClock.now().unix_seconds() + 5;
    site.add_identity("short", proto::Role::Auditor, "default", &[], &short).await;
    let connection = site.connect(&site.management_url(), &short).await;
    let mut open = proto::audit_service_client::AuditServiceClient::new(connection.channel);
    open.list_events(proto::ListEventsRequest::default()).await.unwrap();
    site.until("the certificate's expiry", async |_| (SystemClock.now().unix_seconds() > over).then_some(()))
        .await;
    generic(&open.list_events(proto::ListEventsRequest::default()).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_ca_can_be_an_anchor() {
    let site = Site::start().await;
    let leaf = site.mano_ca.client("leaf");
    let (file, _) = leaf.write(site.path(), "leaf");
    let file = file.display().to_string();
    let finished = site.cli_as("operator", &["anchor", "add", "leaf", "--certificate", &file]).await;
    assert!(finished.code != 0);
    assert!(finished.err.contains("basicConstraints does not say cA"), "{}", finished.err);
}
