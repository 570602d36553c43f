//! Goal: whatever stands in the way of an EST client, it is told what to do, in EST's words.
//! Method: curl asks while the module sleeps, before it knows a profile, and for what is certified elsewhere.

use crate::est::{curl, post, request, sh, site, site_with};
use crate::external_issuers::site_on;
use crate::support::est_server::EstServer;
use crate::support::mano::By;
use crate::support::site::{Options, Site};
use std::time::Duration;

const POOL: &str = "amf-transport";
const ENROL: &str = "/.well-known/est/simpleenroll";

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_slow_hsm_is_told_when_to_come_again_and_then_gets_its_certificate() {
    let options = Options { faulty: true, call_deadline: "40s", ..Options::default() };
    let mut site = site_with(options).await;
    let vnfci = site.register_one("amf-0001", &[("transport", POOL)], By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    request(site.path(), "one", "/CN=amf-0001", "").await;
    // The handshake signs, too: the module sleeps from when the request's head is on its way.
    let script = "(while [ ! -e go ]; do sleep 0.05; done; cat one.csr.b64) | curl -sS -v --cacert root.pem \
                  --cert initial.cert.pem --key initial.key.pem -H 'Content-Type: application/pkcs10' -H 'Expect:' -T . -X POST \
                  -D headers -w '\\n%{http_code}'";
    let script = format!("{script} {}{ENROL} 2> trace", site.est_url());
    let directory = site.path().to_owned();
    let asked = tokio::spawn(async move { sh(&directory, &script).await });
    site.until("the request's head", async |site| {
        let trace = std::fs::read_to_string(site.path().join("trace")).unwrap_or_default();
        trace.contains("> POST").then_some(())
    })
    .await;
    site.faults().set("C_Sign delay 12000");
    std::fs::write(site.path().join("go"), "").unwrap();
    let answered = asked.await.unwrap().ok();
    assert!(answered.out.ends_with("\n503") && answered.out.contains("ask again"), "{answered:?}");
    let headers = std::fs::read_to_string(site.path().join("headers")).unwrap().to_lowercase();
    assert!(headers.contains("retry-after: 5"), "{headers}");
    assert!(!site.faults().injected().is_empty());
    site.faults().clear();
    // It went on: the same request gets what came of it, once the module does not sleep in handshakes any more.
    let script = format!(
        "curl -sS --cacert root.pem --cert initial.cert.pem --key initial.key.pem -H 'Content-Type: application/pkcs10' \
         --data-binary @one.csr.b64 -w '\\n%{{http_code}}' {}{ENROL}",
        site.est_url()
    );
    site.until("the certificate", async |site| {
        sh(site.path(), &script).await.out.ends_with("\n200").then_some(())
    })
    .await;
    assert_eq!(site.vnfci("amf-0001").await.credentials.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_client_learns_without_a_label_what_its_one_profile_wants() {
    let site = site().await;
    site.add_profile("larger", "key_type = \"EC_P384\"").await;
    site.create_pool_of("larger", "large", 1).await;
    let csrattrs = "/.well-known/est/csrattrs";
    let of = async |profile: &str| curl(&site, "", &format!("/.well-known/est/{profile}/csrattrs"), "").await;
    let (small, large) = (of("vnfci-transport").await, of("larger").await);
    assert!(small.0 == 200 && large.0 == 200 && small != large);
    for (id, slots, expected) in [
        ("one", &[("transport", POOL)][..], small.clone()),
        ("two", &[("a", "large"), ("b", "large")], large.clone()),
        // Of several it is for the client to say which.
        ("three", &[("a", "large"), ("b", POOL)], (204, String::new())),
    ] {
        let vnfci = site.register_one(id, slots, By::Certificate).await;
        vnfci.initial.credential.write(site.path(), id);
        assert_eq!(curl(&site, id, csrattrs, "").await, expected, "{id}");
        assert_eq!(curl(&site, id, "/.well-known/est/larger/csrattrs", "").await, large, "{id}");
    }
    // Who has a certificate of a slot learns what the next one of it needs.
    let more = "-pkeyopt ec_paramgen_curve:P-384";
    request(site.path(), "held", "/CN=three", more).await;
    let (status, message) =
        post(&site, "three", "/larger/.well-known/est/simpleenroll", "held.csr.b64").await;
    assert_eq!(status, 200, "{message}");
    crate::est::certificates(site.path(), &message, "held.cert.pem").await;
    assert_eq!(curl(&site, "held", csrattrs, "").await, large);
    // Nobody, a stranger, an agent: it is public, and says nothing of anyone.
    crate::support::ca::Credential::self_made("stranger").write(site.path(), "stranger");
    let clients = site.path().join("clients/vnfm");
    std::fs::copy(clients.join("cert.pem"), site.path().join("vnfm.cert.pem")).unwrap();
    std::fs::copy(clients.join("key.pem"), site.path().join("vnfm.key.pem")).unwrap();
    for who in ["", "stranger", "vnfm"] {
        assert_eq!(curl(&site, who, csrattrs, "").await, (204, String::new()), "{who}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_ca_certifies_is_refused_with_a_sentence_and_is_no_fault_of_the_brokers() {
    let server = EstServer::start(Duration::ZERO).await;
    let site = site_on(&server, |options| Site::prepare(Options { est: true, ..options })).await;
    site.create_pool_of("enrolled", "elsewhere", 1).await;
    let vnfci = site.register_one("amf-0001", &[("transport", "elsewhere")], By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    request(site.path(), "one", "/CN=amf-0001", "").await;
    let (status, sentence) = post(&site, "initial", ENROL, "one.csr.b64").await;
    assert!(status == 400 && sentence.contains("certified by issuer pki"), "{status}: {sentence}");
    let log = std::fs::read_to_string(site.log()).unwrap();
    assert!(!log.contains("an EST request failed"), "{log}");
}
