//! Goal: a VNFM gets, as an agent, what its VNFCIs need over their whole life (SEC 005 8.1.2.2, 8.2), from clients that only
//! know `simplereenroll` too, and no more.
//! Method: strongSwan's `pki` and curl with the VNFM's certificate; MANO asks for renewals; openssl checks what came.

use crate::est::{certificates, post, public_key, request, site, verified};
use crate::est_clients::pki;
use crate::support::mano::By;
use crate::support::site::Site;

const ENROL: &str = "/.well-known/est/simpleenroll";
const AGAIN: &str = "/.well-known/est/simplereenroll";

/// A site with the VNFM's certificate and key as `vnfm.*.pem`, and a VNFCI with one slot of this profile.
async fn agency(profile: &str) -> Site {
    let site = site().await;
    let clients = site.path().join("clients/vnfm");
    std::fs::copy(clients.join("cert.pem"), site.path().join("vnfm.cert.pem")).unwrap();
    std::fs::copy(clients.join("key.pem"), site.path().join("vnfm.key.pem")).unwrap();
    site.create_pool_of(profile, "of-agent", 1).await;
    site.register_one("amf-0001", &[("transport", "of-agent")], By::Token).await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_enrols_and_renews_as_an_agent() {
    let mut site = agency("vnfci-named").await;
    let url = site.est_url();
    let estca = format!("--estca --url {url} --cacert root.pem --caout ca.pem --outform pem --force");
    pki(&site, "1.3", &estca).await.ok();
    let ask = async |site: &Site, name: &str, tls: &str| {
        let est = format!(
            "--est --url {url} --in {name}.csr --cacert root.pem --cacert ca-1.pem --cert vnfm.cert.pem \
             --key vnfm.key.pem --outform pem > {name}.cert.pem"
        );
        pki(site, tls, &est).await
    };
    let subject = "O=keybroker, OU=amf-1, CN=amf-0001";
    for name in ["one", "two"] {
        pki(&site, "1.3", &format!("--gen --type ecdsa --size 256 --outform pem > {name}.key.pem"))
            .await
            .ok();
        pki(&site, "1.3", &format!("--req --in {name}.key.pem --dn '{subject}' > {name}.csr")).await.ok();
    }
    ask(&site, "one", "1.2").await.ok();
    let first = verified(&site, &site.path().join("one.cert.pem")).await;
    assert_eq!(first.subject, "CN=amf-0001,OU=amf-1,O=keybroker");
    assert_eq!(first.public_key, public_key(&site, "one.key.pem").await);
    // It has its certificate, and nobody asked for another one.
    assert_ne!(ask(&site, "two", "1.3").await.code, 0);

    site.cli_as("nfvo", &["vnfci", "renew", "amf-0001"]).await.ok();
    ask(&site, "two", "1.3").await.ok();
    let second = verified(&site, &site.path().join("two.cert.pem")).await;
    assert_eq!(second.public_key, public_key(&site, "two.key.pem").await);
    assert_eq!(second.subject, first.subject);
    let states: Vec<_> = site.vnfci("amf-0001").await.credentials;
    let states: Vec<_> = states.iter().map(|held| held.certificate_state.as_str()).collect();
    assert_eq!(states, ["VALID", "SUPERSEDED"]);
    assert!(site.vnfci("amf-0001").await.renewal_requested_at.is_none(), "MANO waits no more");
    let events = site
        .until("both in the log", async |site| {
            let events = site.events("ENROLLED").await;
            (events.len() == 2).then_some(events)
        })
        .await;
    for (event, basis) in events.iter().zip(["AGENT", "CERTIFICATE"]) {
        assert_eq!((&event["actor"], &event["vnfci"]), (&"vnfm:default/vnfm".into(), &"amf-0001".into()));
        assert_eq!(event["details"]["basis"], basis, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_renews_what_is_due_once_with_the_names_that_it_has() {
    let site = agency("vnfci-transport").await;
    let (enrol, again) = (format!("{ENROL}?vnfci=amf-0001"), format!("{AGAIN}?vnfci=amf-0001"));
    let subject = "/O=keybroker/OU=default/CN=amf-worker.amf-1";
    for name in ["one", "two", "three"] {
        request(site.path(), name, subject, "").await;
    }
    request(site.path(), "other", "/CN=amf-worker.amf-1", "").await;
    // An open initial credential is used, whichever way was taken; the same key is told the same again.
    let (status, first) = post(&site, "vnfm", &again, "one.csr.b64").await;
    assert_eq!(status, 200, "{first}");
    for path in [&enrol, &again] {
        assert_eq!(post(&site, "vnfm", path, "one.csr.b64").await, (200, first.clone()));
        assert_eq!(post(&site, "vnfm", path, "two.csr.b64").await.0, 403, "{path}");
    }
    site.cli_as("nfvo", &["vnfci", "renew", "amf-0001"]).await.ok();
    // A first enrolment is still none, and a certificate is followed with its own names only.
    assert_eq!(post(&site, "vnfm", &enrol, "two.csr.b64").await.0, 403);
    let (status, sentence) = post(&site, "vnfm", &again, "other.csr.b64").await;
    assert_eq!(status, 400, "{sentence}");
    let (status, second) = post(&site, "vnfm", &again, "two.csr.b64").await;
    assert_eq!(status, 200, "{second}");
    let facts = verified(&site, &certificates(site.path(), &second, "two.cert.pem").await).await;
    assert_eq!(facts.public_key, public_key(&site, "two.key.pem").await);
    // The answer was lost; what is renewed is not due any more.
    assert_eq!(post(&site, "vnfm", &again, "two.csr.b64").await, (200, second));
    assert_eq!(post(&site, "vnfm", &again, "three.csr.b64").await.0, 403);
    assert_eq!(site.vnfci("amf-0001").await.credentials.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_renews_with_the_same_key_within_its_cryptoperiod() {
    let site = agency("vnfci-transport").await;
    let again = format!("{AGAIN}?vnfci=amf-0001");
    request(site.path(), "one", "/O=keybroker/OU=default/CN=amf-worker.amf-1", "").await;
    let (status, first) = post(&site, "vnfm", &again, "one.csr.b64").await;
    assert_eq!(status, 200, "{first}");
    site.cli_as("nfvo", &["vnfci", "renew", "amf-0001"]).await.ok();
    let (status, second) = post(&site, "vnfm", &again, "one.csr.b64").await;
    assert_eq!(status, 200, "{second}");
    let first = verified(&site, &certificates(site.path(), &first, "first.pem").await).await;
    let second = verified(&site, &certificates(site.path(), &second, "second.pem").await).await;
    assert_eq!(second.public_key, first.public_key);
    assert_ne!(second.serial, first.serial);
}
