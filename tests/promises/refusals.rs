//! Goal: whoever does not prove itself gets one answer that says nothing, and the auditor gets the reason.
//! Method: every kind of wrong initial credential is tried on the bootstrap listener. The answers are compared byte by
//! byte, the audit log is searched for each request.

use crate::support::ca::{Credential, Shape, SoftwareCa};
use crate::support::mano::{By, announcement, request_id};
use crate::support::site::{ANCHOR, Site};
use crate::support::vnfci::{Initial, Vnfci};
use keybroker::api::proto;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::clock::{Clock, SystemClock};
use keybroker::nfv::{RequestId, Sha256Hash};
use proto::initial_credential::Kind;
use proto::x509_initial_credential::Pin;
use std::collections::BTreeMap;
use tonic::{Code, Status};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// A claim by a certificate alone; gives the request id and the refusal.
async fn refused_claim(site: &Site, vnfci: &Vnfci) -> (String, Status) {
    let connection = vnfci.connect(site).await.unwrap();
    let request = vnfci.claim_request(&connection, RequestId::generate());
    let id = request.request_id.clone();
    let answer = CredentialServiceClient::new(connection.channel).claim(request).await;
    (id, answer.expect_err("a wrong initial credential was accepted"))
}

/// Registers a VNFCI whose certificate is pinned by fingerprint.
async fn pinned(site: &Site, id: &str, credential: &Credential, expires_at: Option<i64>) -> Vnfci {
    let kind = Kind::X509(proto::X509InitialCredential {
        anchor: ANCHOR.into(),
        pin: Some(Pin::CertificateSha256(Sha256Hash::of(credential.certificate_der()).0.to_vec())),
    });
    let expires_at = expires_at.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
    let request = proto::RegisterVnfcisRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfcis: vec![announcement(id, &SLOTS, kind, expires_at)],
    };
    let mut client = LifecycleServiceClient::new(site.management("nfvo").await);
    let answer = client.register_vnfcis(request).await.unwrap().into_inner();
    assert_eq!(answer.results[0].error, "", "{id}");
    Vnfci::new(id, Initial { credential: credential.clone(), token: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_initial_credential_gets_the_same_refusal_and_the_auditor_the_reason() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 8).await;
    let mut refusals: BTreeMap<&str, (&str, (String, Status))> = BTreeMap::new();
    let by = |credential: Credential| Vnfci::new("x", Initial { credential, token: None });

    let soon = SystemClock.now().unix_micros() / 1_000_000 + 2;
    let overdue = pinned(&site, "overdue", &site.mano_ca.client("overdue"), Some(soon)).await;

    let spent = site.register_one("spent", &SLOTS, By::Certificate).await;
    let delivered = spent.boot(&site).await;
    refusals.insert("spent", ("SPENT", refused_claim(&site, &spent).await));
    refusals.insert("spent, after a reboot", ("SPENT", refused_claim(&site, &spent.rebooted()).await));
    let spent_token = site.register_one("spent-token", &SLOTS, By::Token).await;
    spent_token.boot(&site).await;
    refusals.insert("spent token", ("SPENT", refused_claim(&site, &spent_token.rebooted()).await));

    for (name, shape, reason) in [
        ("expired", Shape::EXPIRED, "CERTIFICATE_EXPIRED"),
        ("not yet valid", Shape::NOT_YET_VALID, "CERTIFICATE_NOT_YET_VALID"),
        ("wrong EKU", Shape::SERVER_ONLY, "CERTIFICATE_WRONG_USAGE"),
    ] {
        let id = name.replace(' ', "-");
        let vnfci = pinned(&site, &id, &site.mano_ca.issue(&id, shape), None).await;
        refusals.insert(name, (reason, refused_claim(&site, &vnfci).await));
    }

    // The right name in a certificate of somebody else's, registered and not.
    let open = site.register_one("open", &SLOTS, By::Certificate).await;
    let foreign = SoftwareCa::new("MANO initial CA").client("open");
    refusals.insert("foreign", ("CERTIFICATE_UNKNOWN_ISSUER", refused_claim(&site, &by(foreign)).await));
    let self_made = Credential::self_made("open");
    refusals.insert("self-made", ("CERTIFICATE_UNKNOWN_ISSUER", refused_claim(&site, &by(self_made)).await));
    let other_certificate = site.mano_ca.client("open");
    refusals.insert("not registered", ("NOT_REGISTERED", refused_claim(&site, &by(other_certificate)).await));
    let of_the_broker = delivered.keys[0].credential();
    refusals
        .insert("delivered", ("CERTIFICATE_UNKNOWN_ISSUER", refused_claim(&site, &by(of_the_broker)).await));

    let ended = site.register_one("ended", &SLOTS, By::Certificate).await;
    site.terminate_vnfci("ended").await;
    refusals.insert("terminated", ("VOIDED", refused_claim(&site, &ended).await));

    let token = site.register_one("token", &SLOTS, By::Token).await;
    let text = token.initial.token.as_ref().unwrap().to_string();
    let mut changed = text.clone().into_bytes();
    let at = changed.len() - 10;
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    let with_token = |text: String| {
        Vnfci::new("token", Initial { credential: Credential::self_made("token"), token: Some(text.into()) })
    };
    let wrong = with_token(String::from_utf8(changed).unwrap());
    refusals.insert("wrong token", ("TOKEN_PROOF_WRONG", refused_claim(&site, &wrong).await));
    let secret = text.rsplit_once('.').unwrap().1;
    let unknown = with_token(format!("kb1.{}.{secret}", uuid::Uuid::now_v7()));
    refusals.insert("unknown token", ("NOT_REGISTERED", refused_claim(&site, &unknown).await));

    site.until("the expiry of a registration", async |_| {
        (SystemClock.now().unix_micros() / 1_000_000 > soon).then_some(())
    })
    .await;
    refusals.insert("overdue", ("EXPIRED", refused_claim(&site, &overdue).await));

    let answer = |status: &Status| (status.code(), status.message().to_owned(), status.details().to_vec());
    let same = answer(&refusals["spent"].1.1);
    assert_eq!((same.0, same.1.as_str()), (Code::Unauthenticated, "not authenticated"));
    for (name, (_, (_, status))) in &refusals {
        assert_eq!(answer(status), same, "{name}");
    }
    let ids: Vec<&str> = refusals.values().map(|(_, (id, _))| id.as_str()).collect();
    let events = site
        .until("the refusals in the audit log", async |site| {
            let events = site.events("REFUSED").await;
            let found = |id: &&str| events.iter().any(|event| event["request"] == **id);
            ids.iter().all(found).then_some(events)
        })
        .await;
    for (name, (reason, (id, _))) in &refusals {
        let event = events.iter().find(|event| event["request"] == id.as_str()).unwrap();
        assert_eq!(event["details"]["reason_code"], *reason, "{name}: {event}");
        assert_eq!(event["details"]["rpc"], "Claim", "{name}: {event}");
    }
    // Nobody's attempt harmed the rightful ones.
    open.boot(&site).await;
    token.boot(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_proof_is_worth_nothing_on_another_connection_request_or_key() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Token).await;
    let seen = vnfci.connect(&site).await.unwrap();
    let captured = vnfci.claim_request(&seen, RequestId::generate());

    // The same client key, even: only the connection is another.
    let other = vnfci.connect(&site).await.unwrap();
    let replayed = CredentialServiceClient::new(other.channel).claim(captured.clone()).await;
    assert_eq!(replayed.unwrap_err().code(), Code::Unauthenticated);
    // On its own connection it fits neither another request nor another recipient key.
    let mut client = CredentialServiceClient::new(seen.channel.clone());
    let mut changed = captured.clone();
    changed.request_id = request_id();
    assert_eq!(client.claim(changed).await.unwrap_err().code(), Code::Unauthenticated);
    let mut changed = captured.clone();
    changed.recipient_public_key = vnfci.rebooted().recipient.public_key().as_bytes().to_vec();
    assert_eq!(client.claim(changed).await.unwrap_err().code(), Code::Unauthenticated);
    // As it was made it is right.
    vnfci.send_claim(&seen, captured).await.unwrap();
}
