//! Goal: an answer that was lost shuts no VNFCI out, and nobody mints certificates without end by a key that is over.
//! Method: curl repeats, in turn and at the same time, what it asked; MANO asks for renewals; gRPC and EST take turns.

use crate::est::{certificates, curl, post, request, sh, site, site_with};
use crate::support::mano::By;
use crate::support::settlement::count;
use crate::support::site::{Options, Site};
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::api::proto::{GetTrustChainRequest, GetTrustChainResponse};
use keybroker::ca::certificates_from_pem;
use keybroker::clock::{Clock, SystemClock};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
const ENROL: &str = "/.well-known/est/simpleenroll";
const AGAIN: &str = "/.well-known/est/simplereenroll";
const SUBJECT: &str = "/O=keybroker/OU=default/CN=amf-worker.amf-1";

/// Enrols `NAME.csr.b64`; its certificate is `NAME.cert.pem`.
async fn enrolled(site: &Site, by: &str, path: &str, name: &str) {
    let (status, message) = post(site, by, path, &format!("{name}.csr.b64")).await;
    assert_eq!(status, 200, "{name}: {message}");
    certificates(site.path(), &message, &format!("{name}.cert.pem")).await;
}

/// What the VNFCI listener tells the holder of `NAME.cert.pem`.
async fn told(site: &Site, name: &str) -> GetTrustChainResponse {
    let read = |file: String| std::fs::read(site.path().join(file)).unwrap();
    let mut chain_der = certificates_from_pem(&read(format!("{name}.cert.pem"))).unwrap();
    chain_der.truncate(1);
    sh(
        site.path(),
        &format!("openssl pkcs8 -topk8 -nocrypt -in {name}.key.pem -outform DER -out {name}.key.der"),
    )
    .await
    .ok();
    let key_der = read(format!("{name}.key.der")).into();
    let credential = crate::support::ca::Credential { chain_der, key_der };
    let connection = site.connect(&site.vnfci_url(), &credential).await;
    let mut client = CredentialServiceClient::new(connection.channel);
    client.get_trust_chain(GetTrustChainRequest {}).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_at_the_same_time_gets_the_same_certificate_and_one_is_issued() {
    let site = site().await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    request(site.path(), "one", "/CN=amf-0001", "").await;
    let twin = || post(&site, "initial", ENROL, "one.csr.b64");
    let (a, b, c, d) = tokio::join!(twin(), twin(), twin(), twin());
    for other in [&a, &b, &c, &d] {
        assert_eq!((other.0, &other.1), (200, &a.1));
    }
    // The answers were lost: by the agent it is the same as by the VNFCI.
    assert_eq!(twin().await, a);
    let clients = site.path().join("clients/vnfm");
    std::fs::copy(clients.join("cert.pem"), site.path().join("vnfm.cert.pem")).unwrap();
    std::fs::copy(clients.join("key.pem"), site.path().join("vnfm.key.pem")).unwrap();
    assert_eq!(post(&site, "vnfm", &format!("{ENROL}?vnfci=amf-0001"), "one.csr.b64").await, a);
    assert_eq!(site.vnfci("amf-0001").await.credentials.len(), 1);
    // Another key is another matter.
    request(site.path(), "two", "/CN=amf-0001", "").await;
    assert_eq!(post(&site, "initial", ENROL, "two.csr.b64").await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_certificate_is_good_for_its_overlap_and_a_slot_for_so_many() {
    let tenant = "renewal_overlap = \"6s\"\n".to_owned();
    let mut site = site_with(Options { more_toml: tenant, ..Options::default() }).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    for name in ["one", "two", "three", "four", "five"] {
        request(site.path(), name, SUBJECT, "").await;
    }
    enrolled(&site, "initial", ENROL, "one").await;
    enrolled(&site, "one", AGAIN, "two").await;
    // Once the overlap is over the old key is nobody's any more, not even for what it got.
    site.until("the end of the overlap", async |site| {
        (post(site, "one", AGAIN, "two.csr.b64").await.0 == 403).then_some(())
    })
    .await;
    assert_eq!(post(&site, "one", AGAIN, "three.csr.b64").await.0, 403);
    site.until("the reason in the log", async |site| {
        let mut events = site.events("REFUSED").await.into_iter();
        events.find(|event| event["details"]["reason_code"] == "CERTIFICATE_SUPERSEDED")
    })
    .await;
    enrolled(&site, "two", AGAIN, "three").await;
    enrolled(&site, "three", AGAIN, "four").await;
    let body = "--data-binary @five.csr.b64 -H 'Content-Type: application/pkcs10' -D headers";
    let (status, sentence) = curl(&site, "four", AGAIN, body).await;
    assert!(status == 429 && sentence.contains("too many"), "{status}: {sentence}");
    let headers = std::fs::read_to_string(site.path().join("headers")).unwrap().to_lowercase();
    let wait = headers.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((3_000..=3_600).contains(&wait.trim().parse::<u32>().unwrap()), "{headers}");
    site.until("the reason in the log", async |site| {
        let mut events = site.events("REFUSED").await.into_iter();
        events.find(|event| event["details"]["reason_code"] == "TOO_MANY_RENEWALS")
    })
    .await;
    let started = site.events("ENROLMENT_STARTED").await.len();
    assert_eq!(started, 4, "nothing was signed in vain");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mano_requests_is_told_to_an_enrolled_vnfci_until_it_has_followed() {
    let site = site().await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    request(site.path(), "one", "/CN=amf-0001", "").await;
    enrolled(&site, "initial", ENROL, "one").await;
    let seconds = async |name: &str| told(&site, name).await.renew_after.unwrap().seconds;
    assert!(seconds("one").await > SystemClock.now().unix_seconds(), "by its validity");
    // What was issued says when to the second: a request in the same second is told at the next one.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    site.cli_as("nfvo", &["vnfci", "renew", "amf-0001"]).await.ok();
    assert!(seconds("one").await <= SystemClock.now().unix_seconds());
    request(site.path(), "two", SUBJECT, "").await;
    enrolled(&site, "one", AGAIN, "two").await;
    assert!(site.vnfci("amf-0001").await.renewal_requested_at.is_none());
    assert!(seconds("two").await > SystemClock.now().unix_seconds());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_has_one_valid_certificate_whoever_renewed_it_last() {
    let mut site = site().await;
    site.create_pool_of("vnfci-transport", "more", 2).await;
    site.until_available("more", 2).await;
    let vnfci = site.register_one("amf-0001", &[("transport", "more")], By::Certificate).await;
    let delivered = vnfci.boot(&site).await.keys.remove(0);
    delivered.credential().write(site.path(), "held");
    request(site.path(), "own", SUBJECT, "").await;
    enrolled(&site, "held", AGAIN, "own").await;
    let renewed = vnfci.rebooted().renew(&site, &delivered).await.unwrap();
    renewed.confirm_by(&site, &delivered).await.unwrap();
    let valid = "SELECT count(*) FROM certificates JOIN credentials ON credentials.id = credential
                 WHERE claim_id IS NOT NULL AND certificates.state = 'VALID'";
    assert_eq!(count(&site, valid).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_another_vnfci_or_carries_a_password_is_refused() {
    let mut site = site().await;
    let vnfcis = site.register(&["amf-0001", "amf-0002"], &SLOTS, By::Certificate).await;
    vnfcis[0].initial.credential.write(site.path(), "initial");
    let clients = site.path().join("clients/vnfm");
    std::fs::copy(clients.join("cert.pem"), site.path().join("vnfm.cert.pem")).unwrap();
    std::fs::copy(clients.join("key.pem"), site.path().join("vnfm.key.pem")).unwrap();
    request(site.path(), "other", "/CN=amf-0002", "").await;
    assert_eq!(post(&site, "initial", ENROL, "other.csr.b64").await.0, 403);
    assert_eq!(post(&site, "vnfm", &format!("{ENROL}?vnfci=amf-0001"), "other.csr.b64").await.0, 403);
    let said = site
        .until("both refusals", async |site| {
            let mut events = site.events("REFUSED").await;
            events.retain(|event| event["details"]["reason_code"] == "VNFCI_FOREIGN");
            (events.len() == 2).then_some(events)
        })
        .await;
    assert!(said[0]["details"]["reason"].as_str().unwrap().contains("names VNFCI amf-0002"), "{}", said[0]);
    let config = "[req]\nprompt = no\ndistinguished_name = dn\nattributes = more\n[dn]\nCN = amf-0001\n\
                  [more]\nchallengePassword = tls-unique-of-nothing\n";
    std::fs::write(site.path().join("password.cnf"), config).unwrap();
    let script = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout password.key.pem \
                  -config password.cnf -outform DER | openssl base64 -out password.csr.b64";
    sh(site.path(), script).await.ok();
    let (status, sentence) = post(&site, "initial", ENROL, "password.csr.b64").await;
    assert!(status == 400 && sentence.contains("challengePassword"), "{status}: {sentence}");
    // A body that never comes to its end is answered, too.
    let script = "(cat; sleep 20) < password.csr.b64 | timeout 60 curl -sS --cacert root.pem --cert initial.cert.pem \
                  --key initial.key.pem -H 'Content-Type: application/pkcs10' -T . -X POST -w '\\n%{http_code}'";
    let slow = sh(site.path(), &format!("{script} {}{ENROL}", site.est_url())).await;
    assert!(slow.out.ends_with("\n408") && slow.out.contains("did not come"), "{slow:?}");
    // Nothing of this spent anything.
    request(site.path(), "whoever", "/CN=whoever", "").await;
    enrolled(&site, "initial", ENROL, "whoever").await;
}
