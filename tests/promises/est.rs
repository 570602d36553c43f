//! Goal: VNFCIs with keys of their own, and VNFMs as their agents, get certificates from EST clients that know nothing of
//! keybroker (SEC 005 8.1.2.1, 8.1.2.2), and nobody else gets any.
//! Method: curl enrols and re-enrols; openssl checks what it got. Other EST clients: `est_clients`.

use crate::support::ca::Credential;
use crate::support::mano::{By, announcement, create_pool, request_id};
use crate::support::process::{Finished, run};
use crate::support::site::{Options, Site};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::audit::history::prove;
use keybroker::audit::signature::AuditPublicKey;
use keybroker::ca::CertificateFacts;
use keybroker::nfv::Sha256Hash;
use proto::initial_credential::Kind;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(crate) const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

pub(crate) async fn site() -> Site {
    site_with(Options::default()).await
}

pub(crate) async fn site_with(options: Options) -> Site {
    let site = Site::start_with(Options { est: true, ..options }).await;
    site.create_pool(POOL, 1, None).await;
    site
}

/// Runs a program in a directory; its relative paths are there.
pub(crate) async fn sh(directory: &Path, script: &str) -> Finished {
    run("sh", ["-c".to_owned(), format!("cd {} && {script}", directory.display())]).await
}

/// A key and a request for it: `NAME.key.pem`, `NAME.csr` (DER), `NAME.csr.b64`.
pub(crate) async fn request(directory: &Path, name: &str, subject: &str, more: &str) {
    let script = format!(
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key.pem \
         -subj '{subject}' {more} -outform DER -out {name}.csr && openssl base64 -in {name}.csr -out {name}.csr.b64"
    );
    sh(directory, &script).await.ok();
}

/// A POST by curl; (status, body).
pub(crate) async fn post(site: &Site, as_: &str, path: &str, body: &str) -> (u16, String) {
    curl(site, as_, path, &format!("--data-binary @{body} -H 'Content-Type: application/pkcs10'")).await
}

/// A request by curl with `NAME.cert.pem` and `NAME.key.pem` of the site's directory; (status, body).
pub(crate) async fn curl(site: &Site, as_: &str, path: &str, more: &str) -> (u16, String) {
    let identity = match as_ {
        "" => String::new(),
        name => format!("--cert {name}.cert.pem --key {name}.key.pem"),
    };
    let script = format!(
        "curl -sS --cacert root.pem {identity} {more} -w '\\n%{{http_code}}' '{}{path}'",
        site.est_url()
    );
    let finished = sh(site.path(), &script).await.ok();
    let (body, status) = finished.out.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// The certificates of a base64 certs-only message, by openssl; PEM.
pub(crate) async fn certificates(directory: &Path, message: &str, file: &str) -> PathBuf {
    std::fs::write(directory.join("message.b64"), message).unwrap();
    let script = format!(
        "openssl base64 -d -A -in message.b64 | openssl pkcs7 -inform DER -print_certs | \
         sed '/^subject\\|^issuer\\|^$/d' > {file}"
    );
    sh(directory, &script).await.ok();
    directory.join(file)
}

/// A certificate under the site's root, checked by openssl with the trust chain that EST gives; its facts.
pub(crate) async fn verified(site: &Site, certificate: &Path) -> CertificateFacts {
    let (status, chain) = curl(site, "", "/.well-known/est/cacerts", "").await;
    assert_eq!(status, 200);
    let chain = certificates(site.path(), &chain, "chain.pem").await;
    let root = site.root_pem();
    run(
        "openssl",
        ["verify", "-x509_strict", "-CAfile"].map(PathBuf::from).into_iter().chain([
            root,
            "-untrusted".into(),
            chain,
            certificate.to_owned(),
        ]),
    )
    .await
    .ok();
    let ders = keybroker::ca::certificates_from_pem(&std::fs::read(certificate).unwrap()).unwrap();
    CertificateFacts::parse(&ders[0]).unwrap()
}

/// SHA-256 of the SubjectPublicKeyInfo of a key file.
pub(crate) async fn public_key(site: &Site, key: &str) -> Sha256Hash {
    let script = format!("openssl pkey -in {key} -pubout -outform DER -out pub.der");
    sh(site.path(), &script).await.ok();
    Sha256Hash::of(&std::fs::read(site.path().join("pub.der")).unwrap())
}

/// Serial numbers on the CRL of the CA that issued for this VNFCI, by openssl.
pub(crate) async fn revoked(site: &Site, vnfci: &str) -> Vec<String> {
    let issuer = site.vnfci(vnfci).await.credentials[0].issuer_id.clone();
    std::fs::write(site.path().join("crl"), site.get(false, &format!("/crl/{issuer}.crl")).await).unwrap();
    let text = sh(site.path(), "openssl crl -inform DER -in crl -noout -text").await.ok().out;
    let serials = text.lines().filter_map(|line| line.trim().strip_prefix("Serial Number: "));
    serials.map(str::to_lowercase).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_enrols_the_vnfcis_that_were_granted_to_it_and_no_others() {
    let mut site = site().await;
    let vnfm = site.path().join("clients/vnfm");
    std::fs::copy(vnfm.join("cert.pem"), site.path().join("vnfm.cert.pem")).unwrap();
    std::fs::copy(vnfm.join("key.pem"), site.path().join("vnfm.key.pem")).unwrap();
    let nfvo = site.path().join("clients/nfvo");
    std::fs::copy(nfvo.join("cert.pem"), site.path().join("nfvo.cert.pem")).unwrap();
    std::fs::copy(nfvo.join("key.pem"), site.path().join("nfvo.key.pem")).unwrap();
    site.register(&["amf-0001", "amf-0002"], &SLOTS, By::Token).await;
    create_pool(site.management("nfvo").await, "", "other", "smf-1", 1, None).await;
    let kind = Kind::Token(proto::TokenInitialCredential {});
    let mut other = announcement("smf-0001", &[("transport", "other")], kind, None);
    other.vnf_instance_id = "smf-1".into();
    let answer = LifecycleServiceClient::new(site.management("nfvo").await)
        .register_vnfcis(proto::RegisterVnfcisRequest {
            request_id: request_id(),
            tenant: String::new(),
            vnfcis: vec![other],
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.results[0].error, "");

    for (name, subject, query) in
        [("amf-0001", "/CN=amf-0001", ""), ("amf-0002", "/CN=whoever", "?vnfci=amf-0002")]
    {
        request(site.path(), name, subject, "").await;
        let path = format!("/.well-known/est/simpleenroll{query}");
        let (status, message) = post(&site, "vnfm", &path, &format!("{name}.csr.b64")).await;
        assert_eq!(status, 200, "{message}");
        let file = certificates(site.path(), &message, &format!("{name}.cert.pem")).await;
        let facts = verified(&site, &file).await;
        assert_eq!(facts.public_key, public_key(&site, &format!("{name}.key.pem")).await);
        assert_eq!(site.vnfci(name).await.state(), proto::VnfciState::Active);
        // Once: its initial credential is spent.
        request(site.path(), "more", subject, "").await;
        let (status, _) = post(&site, "vnfm", &path, "more.csr.b64").await;
        assert_eq!(status, 403);
    }
    request(site.path(), "smf-0001", "/CN=smf-0001", "").await;
    request(site.path(), "nobody", "/CN=nobody", "").await;
    let mut answers = Vec::new();
    for (by, body) in [("vnfm", "smf-0001"), ("vnfm", "nobody"), ("nfvo", "amf-0001"), ("nfvo", "smf-0001")] {
        let (status, text) =
            post(&site, by, "/.well-known/est/simpleenroll", &format!("{body}.csr.b64")).await;
        assert_eq!(status, 403, "{by} enrolled {body}: {text}");
        answers.push(text);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "a refusal says more than another");
    // An agent shows no certificate that could be followed: it is told again what it got, and nobody else is.
    let again = "/.well-known/est/simplereenroll";
    let (status, message) = post(&site, "vnfm", again, "amf-0001.csr.b64").await;
    assert_eq!(status, 200, "{message}");
    let replayed = certificates(site.path(), &message, "replayed.pem").await;
    let held = std::fs::read(site.path().join("amf-0001.cert.pem")).unwrap();
    assert_eq!(std::fs::read(replayed).unwrap(), held);
    let (status, _) = post(&site, "nfvo", again, "amf-0001.csr.b64").await;
    assert_eq!(status, 403);

    let events = site
        .until("two enrolments in the log", async |site| {
            let events = site.events("ENROLLED").await;
            (events.len() == 2).then_some(events)
        })
        .await;
    assert_eq!(events[0]["actor"], "vnfm:default/vnfm", "{}", events[0]);
    assert_eq!(events[0]["vnfci"], "amf-0001");
    assert_eq!(events[0]["details"]["basis"], "AGENT");
    assert_eq!(events[0]["details"]["custody"], "HOLDER");
    let codes = site
        .until("seven refusals in the log", async |site| {
            let events = site.events("REFUSED").await;
            let code = |event: &Value| event["details"]["reason_code"].as_str().unwrap().to_owned();
            (events.len() == 7).then(|| events.iter().map(code).collect::<BTreeSet<_>>())
        })
        .await;
    let expected = ["NOT_AUTHORISED", "SPENT", "VNFCI_UNKNOWN"].map(str::to_owned);
    assert_eq!(codes, BTreeSet::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initial_credential_is_good_for_one_key_and_its_slots() {
    let mut site = site().await;
    site.create_pool("amf-om", 1, None).await;
    let slots = [("om", "amf-om"), ("transport", POOL)];
    let vnfci = site.register_one("amf-0001", &slots, By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    for name in ["one", "two", "three"] {
        request(site.path(), name, &format!("/CN={name}"), "").await;
    }
    let enrol = "/.well-known/est/vnfci-transport/simpleenroll";
    let (status, first) = post(&site, "initial", enrol, "one.csr.b64").await;
    assert_eq!(status, 200, "{first}");
    // Not spent while a slot is empty: the same key gets the same certificate, another one the next slot.
    assert_eq!(post(&site, "initial", enrol, "one.csr.b64").await, (200, first.clone()));
    let (status, second) = post(&site, "initial", enrol, "two.csr.b64").await;
    assert_eq!(status, 200, "{second}");
    assert_ne!(first, second);
    // The answer may have been lost: who has the key is told again. Nobody else is.
    assert_eq!(post(&site, "initial", enrol, "one.csr.b64").await, (200, first.clone()));
    assert_eq!(post(&site, "initial", enrol, "two.csr.b64").await, (200, second.clone()));
    let (status, _) = post(&site, "initial", enrol, "three.csr.b64").await;
    assert_eq!(status, 403, "a spent credential was accepted");
    let held = site.vnfci("amf-0001").await;
    let slots: BTreeSet<_> = held.credentials.iter().map(|one| one.slot.as_str()).collect();
    assert_eq!(slots, BTreeSet::from(["om", "transport"]));
    // And the gRPC face knows that, too.
    let refused = vnfci.claim(&site).await.err().expect("a spent credential claimed");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);

    // What is issued is issued by the profile: no name of the request is in it.
    let file = certificates(site.path(), &first, "one.cert.pem").await;
    let facts = verified(&site, &file).await;
    assert_eq!(facts.common_names, ["amf-worker.amf-1"]);
    // The last thing that is to be in the log.
    site.until("three replays in the log", async |site| {
        (site.events("ENROLMENT_REPLAYED").await.len() == 3).then_some(())
    })
    .await;
    let (started, enrolled) = (site.events("ENROLMENT_STARTED").await, site.events("ENROLLED").await);
    assert_eq!(enrolled.len(), 2, "{enrolled:?}");
    assert_eq!(started.len(), 2, "{started:?}");
    assert_eq!(enrolled[0]["details"]["serial"], hex::encode(&facts.serial));
    assert_eq!(enrolled[0]["details"]["spent"], false);
    assert_eq!(enrolled[1]["details"]["spent"], true);
    assert_eq!(enrolled[0]["details"]["tbs"], started[0]["details"]["tbs"]);

    // The receipt says that the key was never here.
    let credential = held.credentials[0].credential_id.clone();
    site.terminate_vnfci("amf-0001").await;
    let receipt = site
        .until("a receipt", async |site| {
            let events = site.events("DESTRUCTION_RECEIPT").await;
            events.into_iter().find(|event| event["credentials"][0]["id"] == credential.as_str())
        })
        .await;
    let copy = &receipt["details"]["receipt"]["broker_copy"];
    assert_eq!(copy["state"], "NEVER_HELD", "{receipt}");
    assert!(copy["erased_at"].is_null() && copy["epoch"].is_null(), "{receipt}");
    assert_eq!(receipt["details"]["receipt"]["holder_copy"], "UNKNOWN");
    let export = site.export("audit").await;
    let key = AuditPublicKey::from_pem(&std::fs::read(site.audit_key()).unwrap()).unwrap();
    let history = prove(&export, &key, facts.public_key).unwrap();
    assert_eq!(history.problems, Vec::<String>::new());
    assert!(history.enrolled.is_some() && !history.generated_in_hsm(), "{history:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_followed_by_one_with_its_names_while_it_is_good() {
    let mut site = site().await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    request(site.path(), "one", "/CN=whoever", "").await;
    let enrol = "/.well-known/est/simpleenroll";
    let again = "/.well-known/est/simplereenroll";
    let (status, message) = post(&site, "initial", enrol, "one.csr.b64").await;
    assert_eq!(status, 200, "{message}");
    let file = certificates(site.path(), &message, "one.cert.pem").await;
    let first = verified(&site, &file).await;

    let subject = "/O=keybroker/OU=default/CN=amf-worker.amf-1";
    let san = format!("-addext 'subjectAltName=URI:{}'", first.uris[0]);
    for (name, subject, more) in [
        ("other-subject", "/O=keybroker/OU=default/CN=amf-worker.amf-2", ""),
        ("other-name", subject, "-addext 'subjectAltName=DNS:amf.example'"),
        ("more-names", subject, &format!("-addext 'subjectAltName=URI:{},DNS:amf.example'", first.uris[0])),
        ("p384", subject, "-pkeyopt ec_paramgen_curve:P-384"),
    ] {
        request(site.path(), name, subject, more).await;
        let (status, text) = post(&site, "one", again, &format!("{name}.csr.b64")).await;
        assert_eq!(status, 400, "{name}: {text}");
    }
    request(site.path(), "two", subject, &san).await;
    let (status, message) = post(&site, "one", again, "two.csr.b64").await;
    assert_eq!(status, 200, "{message}");
    // The answer was lost.
    assert_eq!(post(&site, "one", again, "two.csr.b64").await, (200, message.clone()));
    let second = verified(&site, &certificates(site.path(), &message, "two.cert.pem").await).await;
    assert_eq!((&second.subject, &second.uris), (&first.subject, &first.uris));
    // The same key again, within its cryptoperiod.
    let (status, message) = post(&site, "two", again, "two.csr.b64").await;
    assert_eq!(status, 200, "{message}");
    let third = verified(&site, &certificates(site.path(), &message, "three.cert.pem").await).await;
    assert_eq!(third.public_key, second.public_key);
    assert_ne!(third.serial, second.serial);
    // And not beyond it.
    site.add_profile("once", "validity = \"7d\"\ncryptoperiod = \"7d\"").await;
    site.create_pool_of("once", "once", 1).await;
    let once = site.register_one("amf-0003", &[("once", "once")], By::Certificate).await;
    once.initial.credential.write(site.path(), "once-initial");
    request(site.path(), "once", "/O=keybroker/CN=amf-worker.amf-1", "").await;
    let (status, message) = post(&site, "once-initial", enrol, "once.csr.b64").await;
    assert_eq!(status, 200, "{message}");
    certificates(site.path(), &message, "once.cert.pem").await;
    let (status, text) = post(&site, "once", again, "once.csr.b64").await;
    assert!(status == 400 && text.contains("cryptoperiod"), "{status}: {text}");
    // A key that is another VNFCI's, or a pool's, is nobody else's.
    let other = site.register_one("amf-0002", &SLOTS, By::Certificate).await;
    other.initial.credential.write(site.path(), "other");
    assert_eq!(post(&site, "other", enrol, "two.csr.b64").await.0, 403);
    // A certificate that was issued before is no initial credential.
    assert_eq!(post(&site, "two", enrol, "two.csr.b64").await.0, 403);

    site.terminate_vnfci("amf-0001").await;
    request(site.path(), "late", subject, &san).await;
    let (status, text) = post(&site, "two", again, "late.csr.b64").await;
    assert_eq!(status, 403, "a revoked certificate was followed: {text}");
    let refused = site
        .until("the reason", async |site| {
            let events = site.events("REFUSED").await;
            events.into_iter().find(|event| event["details"]["reason_code"] == "CERTIFICATE_REVOKED")
        })
        .await;
    assert_eq!(refused["vnfci"], "amf-0001", "{refused}");
    assert_eq!(refused["details"]["rpc"], "simplereenroll");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_certificate_is_renewed_by_a_request_of_the_vnfcis_own() {
    let mut site = site().await;
    site.until_available(POOL, 1).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let delivered = vnfci.boot(&site).await.keys.remove(0);
    delivered.credential().write(site.path(), "held");
    let subject = "/O=keybroker/OU=default/CN=amf-worker.amf-1";
    let again = "/.well-known/est/simplereenroll";
    // A key from the HSM is certified once, whoever asks.
    let same = "openssl req -new -key held.key.pem -subj '/O=keybroker/OU=default/CN=amf-worker.amf-1' -outform DER | \
                openssl base64 -out same.csr.b64";
    sh(site.path(), same).await.ok();
    let (status, text) = post(&site, "held", again, "same.csr.b64").await;
    assert!(status == 400 && text.contains("came from a pool"), "{status}: {text}");
    request(site.path(), "own", subject, "").await;
    let (status, message) = post(&site, "held", again, "own.csr.b64").await;
    assert_eq!(status, 200, "{message}");
    let own = verified(&site, &certificates(site.path(), &message, "own.cert.pem").await).await;
    assert_eq!((&own.subject, &own.uris), (&delivered.facts.subject, &delivered.facts.uris));
    assert_eq!(own.public_key, public_key(&site, "own.key.pem").await);
    delivered.trust_chain(&site).await.expect("the old certificate beside the new one");
    // The end of the VNFCI covers the superseded certificate, too.
    assert_eq!(site.terminate_vnfci("amf-0001").await.serials.len(), 2);
    site.until("both certificates on the CRL", async |site| {
        let listed = revoked(site, "amf-0001").await;
        [&own, &delivered.facts]
            .iter()
            .all(|facts| listed.contains(&hex::encode(&facts.serial)))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_profile_names_the_vnfci_or_refuses_other_names() {
    let mut site = site().await;
    site.create_pool_of("vnfci-named", "named", 1).await;
    let toml = "issue = \"at_claim\"\nsubject = \"CN={vnfci},O=keybroker\"\n\
                san = [\"dns:{vnfci}.example\"]\nrequested_names = \"REFUSE\"\n";
    let profile = Some(proto::Profile { name: "strict".into(), toml: toml.into() });
    let request_id = request_id();
    AdminServiceClient::new(site.management("operator").await)
        .add_profile(proto::AddProfileRequest { request_id, profile })
        .await
        .unwrap();
    site.create_pool_of("strict", "strict", 1).await;
    let named = site.register_one("amf-0001", &[("transport", "named")], By::Certificate).await;
    named.initial.credential.write(site.path(), "named");
    request(site.path(), "one", "/CN=root", "").await;
    let (status, message) = post(&site, "named", "/.well-known/est/simpleenroll", "one.csr.b64").await;
    assert_eq!(status, 200, "{message}");
    let facts = verified(&site, &certificates(site.path(), &message, "one.cert.pem").await).await;
    assert_eq!(facts.subject, "CN=amf-0001,OU=amf-1,O=keybroker");

    let strict = site.register_one("amf-0002", &[("transport", "strict")], By::Certificate).await;
    strict.initial.credential.write(site.path(), "strict");
    let enrol = "/strict/.well-known/est/simpleenroll";
    for (name, subject, more) in [
        ("other", "/O=keybroker/CN=amf-0003", ""),
        (
            "more",
            "/O=keybroker/CN=amf-0002",
            "-addext 'subjectAltName=DNS:amf-0002.example,DNS:admin.example'",
        ),
    ] {
        request(site.path(), name, subject, more).await;
        let (status, text) = post(&site, "strict", enrol, &format!("{name}.csr.b64")).await;
        assert_eq!(status, 400, "{name}: {text}");
    }
    let names = "-addext 'subjectAltName=DNS:amf-0002.example'";
    request(site.path(), "two", "/O=keybroker/CN=amf-0002", names).await;
    let (status, message) = post(&site, "strict", enrol, "two.csr.b64").await;
    assert_eq!(status, 200, "{message}");
    let facts = verified(&site, &certificates(site.path(), &message, "two.cert.pem").await).await;
    assert_eq!(
        (facts.subject.as_str(), &facts.dns_names[..]),
        ("CN=amf-0002,O=keybroker", &["amf-0002.example".to_owned()][..])
    );
    site.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_key_on_another_curve_is_told_which_curve_is_wrong() {
    let site = site().await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    for (name, more, told) in [
        ("small", "-pkeyopt ec_paramgen_curve:P-192", "on curve"),
        ("less", "-pkeyopt ec_paramgen_curve:P-224", "on curve"),
        ("koblitz", "-pkeyopt ec_paramgen_curve:secp256k1", "on curve"),
        ("explicit", "-pkeyopt ec_param_enc:explicit", "explicit parameters"),
    ] {
        request(site.path(), name, "/CN=amf-0001", more).await;
        let (status, text) =
            post(&site, "initial", "/.well-known/est/simpleenroll", &format!("{name}.csr.b64")).await;
        assert!(
            status == 400 && text.contains(told) && text.contains("use P-256 or P-384"),
            "{name}: {status}: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_gets_an_answer_of_the_protocol() {
    let mut site = site().await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    Credential::self_made("stranger").write(site.path(), "stranger");
    request(site.path(), "good", "/CN=amf-0001", "").await;
    let directory = site.path().to_owned();
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    let good = std::fs::read(directory.join("good.csr")).unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let base64 = |bytes: &[u8]| keybroker::ca::cms::to_base64(bytes).into_bytes();
    write("empty", b"");
    write("noise", &(0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>());
    write("binary", &good);
    write("forged", &base64(&forged));
    write("half", &base64(&good[..good.len() / 2]));
    write("text", &base64(b"hello"));
    write("huge", &vec![b'M'; 100_000]);
    let enrol = "/.well-known/est/simpleenroll";
    let pkcs10 = "-H 'Content-Type: application/pkcs10'";
    for (path, more, expected) in [
        ("/", "", 404),
        ("/.well-known/est/", "", 404),
        ("/.well-known/est/nothing", "", 404),
        ("/.well-known/est/no-such-profile/cacerts", "", 404),
        ("/.well-known/est/no-such-tenant/vnfci-transport/cacerts", "", 404),
        ("/.well-known/est/a/b/c/d/cacerts", "", 404),
        ("/.well-known/est/%ff%00/cacerts", "", 404),
        ("/.well-known/est/cacerts", "", 200),
        ("/.well-known/est/default/vnfci-transport/cacerts", "", 200),
        ("/vnfci-transport/.well-known/est/cacerts", "", 200),
        ("/.well-known/est/cacerts", "-X POST -d x", 405),
        ("/.well-known/est/csrattrs", "", 200),
        ("/.well-known/est/vnf-om/csrattrs", "", 200),
        ("/.well-known/est/no-such-profile/csrattrs", "", 404),
        (
            "/.well-known/est/no-such-profile/simpleenroll",
            &format!("{pkcs10} --data-binary @good.csr.b64"),
            404,
        ),
        ("/.well-known/est/cacerts", "-I", 200),
        ("/.well-known/est/serverkeygen", &format!("{pkcs10} --data-binary @good.csr.b64"), 501),
        ("/.well-known/est/fullcmc", "-d x", 501),
        (enrol, "", 405),
        (enrol, "-X DELETE", 405),
        (enrol, "--data-binary @good.csr.b64", 415),
        (enrol, &format!("{pkcs10} --data-binary @empty"), 400),
        (enrol, &format!("{pkcs10} --data-binary @noise"), 400),
        (enrol, &format!("{pkcs10} --data-binary @binary"), 400),
        (enrol, &format!("{pkcs10} --data-binary @forged"), 400),
        (enrol, &format!("{pkcs10} --data-binary @half"), 400),
        (enrol, &format!("{pkcs10} --data-binary @text"), 400),
        (enrol, &format!("{pkcs10} --data-binary @huge"), 413),
        (&format!("{enrol}?vnfci=%00"), &format!("{pkcs10} --data-binary @good.csr.b64"), 400),
        (&format!("{enrol}?vnfci=amf-0002"), &format!("{pkcs10} --data-binary @good.csr.b64"), 403),
        ("/.well-known/est/vnf-om/simpleenroll", &format!("{pkcs10} --data-binary @good.csr.b64"), 400),
        (
            "/.well-known/est/red/vnfci-transport/simpleenroll",
            &format!("{pkcs10} --data-binary @good.csr.b64"),
            403,
        ),
    ] {
        let (status, text) = curl(&site, "initial", path, more).await;
        assert_eq!(status, expected, "{path} {more}: {text}");
        assert!(
            expected < 400 || text.ends_with('\n') && text.len() > 5,
            "{path} {more}: no sentence: {text:?}"
        );
        site.check();
    }
    // Who shows nothing or nothing known is refused, in the same words.
    let nothing = post(&site, "", enrol, "good.csr.b64").await;
    let stranger = post(&site, "stranger", enrol, "good.csr.b64").await;
    assert_eq!(nothing.0, 403);
    assert_eq!(nothing, stranger);
    // Nothing of this spent the initial credential.
    assert_eq!(post(&site, "initial", enrol, "good.csr.b64").await.0, 200);
    let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
    let counted = |outcome: &str| {
        let line =
            format!("keybroker_est_requests_total{{operation=\"simpleenroll\",outcome=\"{outcome}\"}}");
        metrics.lines().find_map(|found| found.strip_prefix(&line)).map(|count| count.trim().to_owned())
    };
    assert_eq!(counted("ok").as_deref(), Some("1"), "{metrics}");
    assert!(counted("refused").is_some() && counted("malformed").is_some(), "{metrics}");
}
