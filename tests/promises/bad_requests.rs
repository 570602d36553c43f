//! Goal: bad input, and a part that is away, get the documented status with a sentence that helps; refusals are in the
//! audit log; nothing is drawn or lost; the broker goes on.
//! Method: requests as they must not be, over real connections; the database locked and its disk filled; the HSM's
//! workers stopped and its token taken away. After each the same VNFCI is served.

use crate::support::ca::{Credential, SoftwareCa};
use crate::support::mano::{By, announcement, http_exchange, request_id};
use crate::support::process::run;
use crate::support::settlement::count;
use crate::support::site::{Options, Site, VDU, VNF};
use crate::support::vnfci::{Initial, Vnfci};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use keybroker::nfv::RequestId;
use proto::initial_credential::Kind;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// Panics unless it has this code and reason and its sentence says all of this.
fn said(status: &Status, code: Code, reason: &str, all: &[&str]) {
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "keybroker"), "{status:?}");
    for part in all {
        assert!(status.message().contains(part), "{part:?} is not in {:?}", status.message());
    }
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        let delay = details.retry_info().and_then(|retry| retry.retry_delay);
        assert!(delay.is_some_and(|delay| delay > Duration::ZERO), "no RetryInfo: {status:?}");
    }
}

/// As [`said`], for a field: it is named in `BadRequest`, too.
fn names_field(status: &Status, field: &str, all: &[&str]) {
    said(status, Code::InvalidArgument, "INVALID_ARGUMENT", all);
    let details = status.get_error_details();
    let fields: Vec<&str> = details
        .bad_request()
        .iter()
        .flat_map(|bad| &bad.field_violations)
        .map(|one| one.field.as_str())
        .collect();
    assert_eq!(fields, [field], "{status:?}");
}

/// How many credentials were ever drawn.
async fn drawn(site: &Site) -> u64 {
    count(site, "SELECT count(*) FROM credentials WHERE claim_id IS NOT NULL").await
}

/// Changes the running configuration's text before the broker is started.
fn reconfigure(site: &Site, from: &str, to: &str) {
    let text = std::fs::read_to_string(site.config()).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    std::fs::write(site.config(), text.replacen(from, to, 1)).unwrap();
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_claim_names_its_field_and_draws_nothing() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 4).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let connection = vnfci.connect(&site).await.unwrap();
    let mut client = CredentialServiceClient::new(connection.channel.clone());
    let good = || vnfci.claim_request(&connection, RequestId::generate());
    let right = good().recipient_public_key;

    // Points: the generator of P-256 with its last bit changed, compressed, of P-384, at infinity, nothing, too much.
    let mut off_curve = right.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let compressed: Vec<u8> = std::iter::once(2).chain(right[1..33].iter().copied()).collect();
    let mut hybrid = right.clone();
    hybrid[0] = 6;
    let beyond_the_field: Vec<u8> = std::iter::once(4).chain([0xff; 64]).collect();
    let points: [(&str, Vec<u8>, &str); 9] = [
        ("off the curve", off_curve, "not on the curve P-256"),
        ("zeros", std::iter::once(4).chain([0; 64]).collect(), "not on the curve P-256"),
        ("beyond the field", beyond_the_field, "not on the curve P-256"),
        ("hybrid", hybrid, "uncompressed"),
        ("compressed", compressed, "65 bytes"),
        ("P-384", std::iter::once(4).chain([7; 96]).collect(), "97 bytes"),
        ("infinity", vec![0], "65 bytes"),
        ("empty", Vec::new(), "65 bytes"),
        ("long", vec![4; 10_000], "65 bytes"),
    ];
    for (what, point, hint) in points {
        let request = proto::ClaimRequest { recipient_public_key: point, ..good() };
        let refused = client.claim(request).await.expect_err(what);
        names_field(&refused, "recipient_public_key", &[hint]);
    }
    for suites in [vec![], vec!["ROT13".to_owned()], vec![String::new(); 17]] {
        let refused = client.claim(proto::ClaimRequest { suites, ..good() }).await.unwrap_err();
        names_field(&refused, "suites", &[]);
    }
    // A suite that the broker knows and this token cannot do.
    let suites = vec!["ECDH_P256_X963SHA256_KWP".to_owned()];
    let refused = client.claim(proto::ClaimRequest { suites, ..good() }).await.unwrap_err();
    names_field(&refused, "suites", &["ECDH_P256_CBCENC_KWP_V1"]);
    for id in ["", "7", "not-a-uuid", &"f".repeat(5_000)] {
        let request = proto::ClaimRequest { request_id: id.to_owned(), ..good() };
        names_field(&client.claim(request).await.unwrap_err(), "request_id", &["UUID"]);
    }
    for (token_id, proof, field) in [
        ("nonsense".to_owned(), vec![0; 32], "token.token_id"),
        (request_id(), vec![0; 31], "token.proof"),
        (request_id(), vec![0; 4_000], "token.proof"),
    ] {
        let token = Some(proto::TokenProof { token_id, proof });
        let refused = client.claim(proto::ClaimRequest { token, ..good() }).await.unwrap_err();
        names_field(&refused, field, &[]);
    }
    // Larger than the listener takes: refused before it is read.
    let long = proto::ClaimRequest { recipient_public_key: vec![4; 65 * 1024], ..good() };
    assert_eq!(client.claim(long).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(drawn(&site).await, 0);

    let claimed = vnfci.claim(&site).await.unwrap();
    let mut client = CredentialServiceClient::new(vnfci.connect(&site).await.unwrap().channel);
    let confirm = || proto::ConfirmRequest {
        request_id: request_id(),
        claim_id: claimed.response.claim_id.clone(),
        signatures: claimed.confirm_signatures(),
        token: None,
    };
    let signed = |slot: &str, signature: Vec<u8>| vec![proto::KeySignature { slot: slot.into(), signature }];
    let right = confirm().signatures.remove(0).signature;
    let mut changed = right.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (what, signatures, field) in [
        ("none", vec![], "signatures"),
        ("of another slot", signed("other", right.clone()), "signatures"),
        ("garbage DER", signed("transport", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 2]), "signatures"),
        ("changed", signed("transport", changed), "signatures"),
        ("empty", signed("transport", vec![]), "signatures[0].signature"),
        ("long", signed("transport", vec![0x30; 2_000]), "signatures[0].signature"),
        ("of a slot without a name", signed("", right.clone()), "signatures[0].slot"),
        (
            "twice",
            [signed("transport", right.clone()), signed("transport", right)].concat(),
            "signatures[1].slot",
        ),
    ] {
        let request = proto::ConfirmRequest { signatures, ..confirm() };
        names_field(&client.confirm(request).await.expect_err(what), field, &[]);
    }
    let request = proto::ConfirmRequest { claim_id: "7".into(), ..confirm() };
    names_field(&client.confirm(request).await.unwrap_err(), "claim_id", &[]);
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_certificate_anchor_or_profile_is_told_from_a_good_one() {
    let site = Site::start().await;
    let mut client = AdminServiceClient::new(site.management("operator").await);
    let good = SoftwareCa::new("another CA").certificate_der;
    let leaf = site.mano_ca.client("leaf").certificate_der().to_vec();
    // RSA of 1,024 bits, of which no path is ever accepted.
    let (key, small) = (site.path().join("small.key"), site.path().join("small.der"));
    let flags = "req -x509 -newkey rsa:1024 -nodes -days 30 -subj /CN=small -outform DER".split(' ');
    let files = ["-keyout".into(), key.display().to_string(), "-out".into(), small.display().to_string()];
    run("openssl", flags.map(str::to_owned).chain(files)).await.ok();
    let mut longer = good.clone();
    longer.push(0);
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("empty", vec![], "X.509 certificate in DER"),
        ("garbage", vec![0x30; 500], "not an X.509 certificate in DER"),
        ("cut", good[..good.len() / 2].to_vec(), "not an X.509 certificate in DER"),
        ("longer", longer, "not an X.509 certificate in DER"),
        ("PEM", keybroker::ca::pem("CERTIFICATE", &good).into_bytes(), "openssl x509 -outform DER"),
        ("huge", vec![0x30; 20_000], "16 KiB"),
        ("no CA", leaf, "no CA certificate"),
        ("RSA-1024", std::fs::read(&small).unwrap(), "2048"),
    ];
    for (what, certificate_der, hint) in cases {
        let request = proto::AddAnchorRequest {
            request_id: request_id(),
            tenant: "default".into(),
            name: "bad".into(),
            certificate_der,
        };
        let refused = client.add_anchor(request).await.expect_err(what);
        names_field(&refused, "certificate_der", &[hint]);
    }
    for (toml, hint) in [
        ("", "empty"),
        ("subject = \"CN={credential}\"\nkey_type = \"RSA_1024\"", "RSA_1024"),
        ("subject = \"CN={credential}\"\nkey_type = \"EC_P192\"", "EC_P192"),
        ("subject = \"CN={nonsense}\"", "nonsense"),
        ("subject = \"CN={credential}\"\nissuer = \"nobody\"", "nobody"),
        ("subject = \"CN={credential}\"\nvalidity = \"0s\"", "validity"),
        ("subject = \"CN={credential}\"\nunknown = 1", "unknown"),
    ] {
        let profile = Some(proto::Profile { name: "bad".into(), toml: toml.into() });
        let request = proto::AddProfileRequest { request_id: request_id(), profile };
        let refused = client.add_profile(request).await.expect_err(toml);
        names_field(&refused, "profile.toml", &[hint]);
    }
    assert!(!site.path().join("profiles/bad.toml").exists(), "a refused profile was written");
    // Management takes batches, and no more than 4 MiB.
    let request = proto::AddAnchorRequest { certificate_der: vec![0x30; 5 << 20], ..Default::default() };
    assert_eq!(client.add_anchor(request).await.unwrap_err().code(), Code::OutOfRange);
    site.add_anchor("default", "good", &SoftwareCa::new("a third CA")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_tenant_or_with_garbage_in_its_chain_is_refused_and_audited() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 4).await;
    let tenant = site.add_tenant("tenant-b").await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let by = |credential: Credential| Vnfci::new("amf-0001", Initial { credential, token: None });

    let mut with_garbage = vnfci.initial.credential.clone();
    with_garbage.chain_der = vec![tenant.ca.client("amf-0001").chain_der.remove(0)];
    with_garbage.key_der = tenant.ca.client("x").key_der;
    assert!(by(with_garbage).connect(&site).await.is_err(), "a key that is not the certificate's");

    let mut refused = Vec::new();
    let mut try_claim = async |credential: Credential, reason: &'static str| {
        let other = by(credential);
        let connection = other.connect(&site).await.unwrap();
        let request = other.claim_request(&connection, RequestId::generate());
        refused.push((request.request_id.clone(), reason));
        let status = CredentialServiceClient::new(connection.channel).claim(request).await.unwrap_err();
        said(&status, Code::Unauthenticated, "NOT_AUTHENTICATED", &["not authenticated"]);
    };
    // The same name, from the CA of another tenant: found in that tenant, where nobody is registered by it.
    try_claim(tenant.ca.client("amf-0001"), "NOT_REGISTERED").await;
    // A stranger's leaf over bytes that are no certificate.
    let mut garbage = Credential::self_made("amf-0001");
    garbage.chain_der.push(vec![0x30, 0x82, 0xff, 0xff, 0x00]);
    garbage.chain_der.push(vec![0xa5; 3_000]);
    try_claim(garbage, "CERTIFICATE_MALFORMED").await;

    let events = site
        .until("the refusals in the audit log", async |site| {
            let events = site.events("REFUSED").await;
            let found = |id: &str| events.iter().any(|event| event["request"] == id);
            refused.iter().all(|(id, _)| found(id)).then_some(events)
        })
        .await;
    for (id, reason) in &refused {
        let event = events.iter().find(|event| event["request"] == id.as_str()).unwrap();
        assert_eq!(event["details"]["reason_code"], *reason, "{event}");
    }
    assert_eq!(drawn(&site).await, 0);
    vnfci.boot(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_with_another_body_is_refused_and_with_the_same_one_replayed() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 4).await;
    let reused = |status: &Status| {
        said(status, Code::FailedPrecondition, "REQUEST_REUSED", &[]);
        assert!(status.get_error_details().precondition_failure().is_some(), "{status:?}");
    };
    // A mutation of MANO's.
    let mut pools = PoolServiceClient::new(site.management("nfvo").await);
    let create = proto::CreatePoolRequest {
        request_id: request_id(),
        tenant: String::new(),
        name: "another".into(),
        vnf_instance_id: VNF.into(),
        vdu_id: VDU.into(),
        profile: "vnfci-transport".into(),
        target: 1,
        refill_below: None,
    };
    let first = pools.create_pool(create.clone()).await.unwrap().into_inner();
    let again = pools.create_pool(create.clone()).await.unwrap().into_inner();
    assert_eq!(first.pool.unwrap().created_at, again.pool.unwrap().created_at);
    reused(&pools.create_pool(proto::CreatePoolRequest { target: 2, ..create.clone() }).await.unwrap_err());
    // The id with another RPC is another body, too.
    let mut lifecycle = LifecycleServiceClient::new(site.management("nfvo").await);
    let item = announcement("amf-0009", &SLOTS, Kind::Token(proto::TokenInitialCredential {}), None);
    let register = proto::RegisterVnfcisRequest {
        request_id: create.request_id.clone(),
        tenant: String::new(),
        vnfcis: vec![item],
    };
    reused(&lifecycle.register_vnfcis(register.clone()).await.unwrap_err());
    // A token is given out once more to the same request, and not to another body under its id.
    let register = proto::RegisterVnfcisRequest { request_id: request_id(), ..register };
    let first = lifecycle.register_vnfcis(register.clone()).await.unwrap().into_inner();
    let again = lifecycle.register_vnfcis(register.clone()).await.unwrap().into_inner();
    assert_eq!(first.results[0].token, again.results[0].token);
    assert!(first.results[0].token.starts_with("kb1."));
    let mut other = register.clone();
    other.vnfcis[0].vnfci_id = "amf-0010".into();
    reused(&lifecycle.register_vnfcis(other).await.unwrap_err());

    // A claim: the same one is the same credential, another recipient key under its id is refused.
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let connection = vnfci.connect(&site).await.unwrap();
    let request = vnfci.claim_request(&connection, RequestId::generate());
    let first = vnfci.send_claim(&connection, request.clone()).await.unwrap();
    let again = vnfci.send_claim(&connection, request.clone()).await.unwrap();
    assert_eq!(first.keys[0].credential_id, again.keys[0].credential_id);
    let recipient_public_key = vnfci.rebooted().recipient.public_key().as_bytes().to_vec();
    let other = proto::ClaimRequest { recipient_public_key, ..request };
    let mut client = CredentialServiceClient::new(connection.channel.clone());
    reused(&client.claim(other).await.unwrap_err());
    assert_eq!(drawn(&site).await, 1);
    assert!(vnfci.confirm(&site, &again).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_pool_says_when_to_ask_again_and_draws_nothing() {
    let mut site = Site::start().await;
    let toml = "subject = \"CN={credential}\"\neku = [\"clientAuth\"]\non_empty = \"RETRY\"\n";
    let profile = Some(proto::Profile { name: "patient".into(), toml: toml.into() });
    let request = proto::AddProfileRequest { request_id: request_id(), profile };
    AdminServiceClient::new(site.management("operator").await).add_profile(request).await.unwrap();
    let create = proto::CreatePoolRequest {
        request_id: request_id(),
        tenant: String::new(),
        name: "patient".into(),
        vnf_instance_id: VNF.into(),
        vdu_id: VDU.into(),
        profile: "patient".into(),
        target: 2,
        refill_below: None,
    };
    PoolServiceClient::new(site.management("nfvo").await).create_pool(create).await.unwrap();
    site.until_available("patient", 2).await;
    site.full_pool(POOL, 2).await;
    // Three slots, of which one pool has two: all or nothing.
    let slots = [("a", "patient"), ("b", "patient"), ("c", "patient"), ("d", POOL)];
    let vnfci = site.register_one("amf-0001", &slots, By::Certificate).await;
    let refused = vnfci.claim(&site).await.err().expect("an empty pool");
    said(&refused, Code::ResourceExhausted, "POOL_EMPTY", &["try again"]);
    assert_eq!(drawn(&site).await, 0);
    // It asks again, unchanged, and is served once MANO made the pool larger.
    let update = proto::UpdatePoolRequest {
        request_id: request_id(),
        tenant: String::new(),
        name: "patient".into(),
        target: 3,
        refill_below: Some(3),
    };
    PoolServiceClient::new(site.management("nfvo").await).update_pool(update).await.unwrap();
    let claimed = vnfci.claim_patiently(&site).await;
    assert_eq!(claimed.keys.len(), 4);
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_hsm_claims_are_unavailable_terminations_pending_and_both_are_completed_later() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 4).await;
    let gone = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    gone.boot(&site).await;
    let vnfci = site.register_one("amf-0002", &SLOTS, By::Certificate).await;
    let connection = vnfci.connect(&site).await.unwrap();

    let (tokens, unplugged) = (site.path().join("tokens"), site.path().join("unplugged"));
    std::fs::rename(&tokens, &unplugged).unwrap();
    std::fs::create_dir(&tokens).unwrap();
    signal(&site.broker().workers(), Signal::KILL);
    let request = vnfci.claim_request(&connection, RequestId::generate());
    let mut client = CredentialServiceClient::new(connection.channel.clone());
    let refused = client.claim(request.clone()).await.unwrap_err();
    said(&refused, Code::Unavailable, "HSM_UNAVAILABLE", &["try again"]);
    assert!(!refused.message().contains("token"), "{refused:?}");
    // New connections need the TLS key on the token: they fail as what may be tried again.
    let begun = Instant::now();
    let unreachable = vnfci.claim(&site).await.err().expect("no HSM, no handshake");
    assert_eq!(unreachable.code(), Code::Unavailable, "{unreachable:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "it hung for {:?}", begun.elapsed());
    let ready = site
        .until("the readiness probe to tell", async |site| {
            let answer = http_answer(&format!("http://{}/readyz", site.addresses.admin)).await;
            (answer.0 != 200).then(|| (answer.0, String::from_utf8(answer.1).unwrap()))
        })
        .await;
    assert_eq!(ready.0, 503, "{ready:?}");
    assert!(ready.1.contains("HSM"), "{ready:?}");
    // MANO's side works on: nothing of it needs the HSM.
    let ended = site.terminate_vnfci("amf-0001").await;
    assert_eq!(ended.serials.len(), 1);
    let shown = site.vnfci("amf-0001").await;
    assert_eq!(shown.credentials[0].certificate_state, "REVOCATION_PENDING");
    site.check();

    std::fs::remove_dir(&tokens).unwrap();
    std::fs::rename(&unplugged, &tokens).unwrap();
    let claimed = vnfci.claim_patiently(&site).await;
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
    site.until("the revocation", async |site| {
        (site.vnfci("amf-0001").await.credentials[0].certificate_state == "REVOKED").then_some(())
    })
    .await;
}

/// Status and body of a GET.
async fn http_answer(url: &str) -> (u16, Vec<u8>) {
    let (head, body) = http_exchange(url).await;
    (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an HTTP status"), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_deadline_passes_finds_its_outcome_under_the_same_request_id() {
    let mut site = Site::start_with(Options { call_deadline: "3s", ..Options::default() }).await;
    site.full_pool(POOL, 4).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let connection = vnfci.connect(&site).await.unwrap();
    let id = RequestId::generate();

    let workers = site.broker().workers();
    signal(&workers, Signal::STOP);
    // The client's own deadline passes first; what was begun goes on.
    let mut request = tonic::Request::new(vnfci.claim_request(&connection, id));
    request.set_timeout(Duration::from_millis(500));
    let late = CredentialServiceClient::new(connection.channel.clone()).claim(request).await.unwrap_err();
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    // The broker's deadline for the HSM passes: the caller is told, and the worker that hangs is replaced.
    let request = vnfci.claim_request(&connection, RequestId::generate());
    let late = CredentialServiceClient::new(connection.channel.clone()).claim(request).await.unwrap_err();
    said(&late, Code::Unavailable, "HSM_UNAVAILABLE", &["try again"]);
    site.until("another worker", async |site| {
        site.broker().workers().iter().any(|pid| !workers.contains(pid)).then_some(())
    })
    .await;
    let connection = loop {
        if let Ok(connection) = vnfci.connect(&site).await {
            break connection;
        }
        site.check();
    };
    let claimed = vnfci.send_claim(&connection, vnfci.claim_request(&connection, id)).await.unwrap();
    assert_eq!(drawn(&site).await, 1, "every attempt is the same claim");
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_unavailable_until_it_is_free() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 4).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let mut other = Command::new("sqlite3")
        .args(["-cmd", ".timeout 10000"])
        .arg(site.database())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = other.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"BEGIN IMMEDIATE;\n.print locked\n").unwrap();
    let mut line = String::new();
    let output = other.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    assert_eq!(line, "locked\n");

    let refused = vnfci.claim(&site).await.err().expect("the database is locked");
    said(&refused, Code::Unavailable, "STORE_UNAVAILABLE", &["try again"]);
    // Reading goes on.
    assert_eq!(site.vnfci("amf-0001").await.state(), proto::VnfciState::Registered);
    site.check();
    drop(input);
    other.wait().unwrap();
    let claimed = vnfci.claim_patiently(&site).await;
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
    assert_eq!(drawn(&site).await, 1);
    let export = site.export("after").await;
    site.verify(&export, &[]).await.ok();
}

/// A disk of its own, taken away when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// A tmpfs; none, with the reason, where mounting is not permitted.
    async fn mount(at: &Path, size: &str) -> Result<Self, String> {
        std::fs::create_dir(at).unwrap();
        let size = format!("size={size}");
        let at_text = at.display().to_string();
        let mounted = run("mount", ["-t", "tmpfs", "-o", &size, "tmpfs", &at_text]).await;
        if mounted.code == 0 { Ok(Self(at.to_owned())) } else { Err(mounted.err) }
    }

    /// Fills it to the last block.
    fn fill(&self) {
        use std::io::Write;
        let mut ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        for size in [64 * 1024, 4096, 512, 1] {
            while ballast.write_all(&vec![7; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_changes_are_refused_and_go_on_once_there_is_room() {
    let mut site = Site::prepare(Options::default());
    // As root only; the store's own suite tries the same with SQLite's page limit.
    let disk = match SmallDisk::mount(&site.path().join("small"), "8m").await {
        Ok(disk) => disk,
        Err(reason) => return eprintln!("SKIPPED: no disk can be mounted here: {reason}"),
    };
    reconfigure(&site, "sqlite:keybroker.db", "sqlite:small/keybroker.db");
    site.init().await;
    site.serve().await;
    site.add_anchor("default", crate::support::site::ANCHOR, &site.mano_ca).await;
    site.full_pool(POOL, 20).await;
    let ids: Vec<String> = (0..12).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let before = vnfcis[0].boot(&site).await;
    let head_before = site.export("before").await.join("head.json");

    disk.fill();
    // The log's pages that exist take a few changes more.
    let mut claimed = Vec::new();
    let mut refused = None;
    for vnfci in &vnfcis[1..] {
        match vnfci.claim(&site).await {
            Ok(claim) => claimed.push((vnfci, claim)),
            Err(status) => {
                refused.get_or_insert((vnfci, status));
            }
        }
    }
    let (vnfci, status) = refused.expect("eleven claims fitted on a full disk");
    said(&status, Code::Unavailable, "STORE_FULL", &["try again"]);
    site.check();
    // What only reads goes on, and says how things are.
    assert_eq!(site.vnfci(&vnfci.id).await.state(), proto::VnfciState::Registered);
    let ready = site
        .until("the readiness probe to tell", async |site| {
            let answer = http_answer(&format!("http://{}/readyz", site.addresses.admin)).await;
            (answer.0 != 200).then(|| (answer.0, String::from_utf8(answer.1).unwrap()))
        })
        .await;
    assert_eq!(ready.0, 503, "{ready:?}");
    // Killed while its disk is full, it does not start and harms nothing, or it starts and serves what it can.
    disk.make_room();
    for (vnfci, claimed) in &claimed {
        let begun = Instant::now();
        while let Err(status) = vnfci.confirm(&site, claimed).await {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            assert!(begun.elapsed() < crate::support::PATIENCE, "{status:?}");
        }
    }
    let last = vnfci.claim_patiently(&site).await;
    assert!(vnfci.confirm(&site, &last).await.unwrap());
    before.release(&site).await.unwrap();
    site.until("the readiness probe", async |site| {
        (http_answer(&format!("http://{}/readyz", site.addresses.admin)).await.0 == 200).then_some(())
    })
    .await;
    let export = site.export("after").await;
    let report = site.verify(&export, &[&head_before]).await.ok().object();
    assert_eq!((&report["verified"], &report["extends"]), (&true.into(), &1.into()), "{report}");
    site.stop().await;
    drop(disk);
}
