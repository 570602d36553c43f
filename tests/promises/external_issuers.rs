//! Pools whose certificates come from the operator's enrolment server: by EST, from openssl.

use crate::support::est_server::{Behaviour, EstServer};
use crate::support::mano::{By, pool_request, request_id};
use crate::support::process::openssl;
use crate::support::site::{ANCHOR, Options, Site};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use keybroker::ca::{CertificateFacts, certificates_from_pem, pem};
use keybroker::nfv::Sha256Hash;
use std::collections::BTreeSet;
use std::time::Duration;

const POOL: &str = "operator-pki";

async fn site(server: &EstServer) -> Site {
    site_on(server, Site::prepare).await
}

/// A broker with the issuer `pki`, and profiles `enrolled` (3 days) and `lasting` (30 days) that name it.
pub(crate) async fn site_on(server: &EstServer, prepare: fn(Options) -> Site) -> Site {
    let (mut site, request) = prepared(server, prepare).await;
    let certificate = server.client_certificate(&request).await;
    std::fs::write(site.path().join("est-client.pem"), certificate).unwrap();
    serve(&mut site).await;
    site
}

/// The same before it is started and has a client certificate; with the request for that.
pub(crate) async fn prepared(server: &EstServer, prepare: fn(Options) -> Site) -> (Site, String) {
    let more_toml = format!(
        "[issuer.pki]\nkind = \"est\"\nurl = {:?}\ntrust_anchor = {:?}\nclient_certificate = \"est-client.pem\"\n",
        server.url(),
        server.root_pem(),
    );
    let site = prepare(Options { more_toml, ..Options::default() });
    site.init().await;
    let config = site.config().display().to_string();
    let requested = site.cli(["issuer", "request", "pki", "--config", &config]).await.ok().object();
    let request = requested["request"].as_str().unwrap().to_owned();
    (site, request)
}

pub(crate) async fn serve(site: &mut Site) {
    site.serve().await;
    site.add_anchor("default", ANCHOR, &site.mano_ca).await;
    for (name, validity) in [("enrolled", "3d"), ("lasting", "30d")] {
        let toml = format!(
            "issuer = \"pki\"\nsubject = \"CN={{vdu}}.{{vnf_instance}},O=Operator\"\n\
             san = [\"uri:urn:uuid:{{credential}}\"]\nvalidity = {validity:?}\n"
        );
        let profile = Some(proto::Profile { name: name.into(), toml });
        let request = proto::AddProfileRequest { request_id: request_id(), profile };
        AdminServiceClient::new(site.management("operator").await).add_profile(request).await.unwrap();
    }
}

/// Public keys that were produced for pools.
async fn produced(site: &Site) -> BTreeSet<String> {
    let events = site.events("KEYS_PRODUCED").await;
    let keys = events.iter().flat_map(|event| event["credentials"].as_array().unwrap().clone());
    keys.map(|key| key["public_key"].as_str().unwrap().to_owned()).collect()
}

/// The same, once the log tells of so many.
async fn until_produced(site: &mut Site, count: usize) -> BTreeSet<String> {
    site.until("the log's account of production", async |site| {
        Some(produced(site).await).filter(|keys| keys.len() >= count)
    })
    .await
}

async fn until_generated(site: &mut Site, count: u64) {
    site.until("keys that wait", async |site| (site.levels(POOL).await.generated >= count).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_filled_by_an_enrolment_server_and_openssl_verifies_what_is_delivered() {
    let server = EstServer::start(Duration::from_millis(50)).await;
    server.behave(Behaviour { pending_once: true, failures: 2, attributes: true, ..Behaviour::default() });
    let mut site = site(&server).await;
    site.full_pool_of("enrolled", POOL, 24).await;
    assert!(server.most_under_way() >= 4, "{} requests at a time", server.most_under_way());

    let vnfci = site.register_one("amf-0001", &[("transport", POOL)], By::Certificate).await;
    let claimed = vnfci.boot(&site).await;
    let [key] = claimed.keys.as_slice() else { panic!("{} keys", claimed.keys.len()) };
    assert_eq!(pem("CERTIFICATE", &key.root_der), std::fs::read_to_string(server.root_pem()).unwrap());
    let directory = site.path();
    std::fs::write(directory.join("leaf.pem"), pem("CERTIFICATE", &key.certificate_der)).unwrap();
    let chain: String = key.chain_der.iter().map(|der| pem("CERTIFICATE", der)).collect();
    std::fs::write(directory.join("chain.pem"), chain).unwrap();
    std::fs::write(directory.join("root-of-pki.pem"), pem("CERTIFICATE", &key.root_der)).unwrap();
    let verified =
        "verify -x509_strict -purpose sslclient -CAfile root-of-pki.pem -untrusted chain.pem leaf.pem";
    assert!(openssl(directory, verified).await.contains("leaf.pem: OK"));
    assert_eq!(key.facts.uris, [format!("urn:uuid:{}", key.credential_id)]);

    // Nobody can revoke it: it stays to be revoked, and no CRL of ours lists it.
    let terminated = site.terminate_vnfci("amf-0001").await;
    assert_eq!(terminated.serials.len(), 1, "{terminated:?}");
    let shown = site.vnfci("amf-0001").await;
    assert_eq!(shown.credentials[0].certificate_state, "REVOCATION_PENDING", "{shown:?}");
    let issued = site.events("CERTIFICATES_ISSUED").await;
    assert!(issued.iter().all(|event| event["details"]["claim"].is_null()), "{issued:?}");
    site.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_made_for_an_enrolment_server_of_another_root() {
    let server = EstServer::start(Duration::ZERO).await;
    server.behave(Behaviour { foreign_cas: true, ..Behaviour::default() });
    let mut site = site(&server).await;
    site.create_pool_of("enrolled", POOL, 3).await;
    site.until("two attempts", async |site| {
        let log = std::fs::read_to_string(site.log()).unwrap();
        (log.matches("do not lead to the configured root").count() >= 2).then_some(())
    })
    .await;
    let levels = site.levels(POOL).await;
    assert_eq!((levels.generated, levels.ready), (0, 0));
    // The pool's creation is in the log, and nothing that came after it would be missing.
    site.until("the log", async |site| site.events("POOL_CREATED").await.into_iter().next()).await;
    assert_eq!(produced(&site).await, BTreeSet::new());
    // The right one after all: nothing has to be restarted.
    server.behave(Behaviour::default());
    site.until_available(POOL, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_wait_for_certificates_survive_a_restart_and_none_is_made_twice() {
    let server = EstServer::start(Duration::ZERO).await;
    server.behave(Behaviour { never_ready: true, ..Behaviour::default() });
    let mut site = site(&server).await;
    site.create_pool_of("enrolled", POOL, 5).await;
    until_generated(&mut site, 5).await;
    site.kill();
    server.behave(Behaviour::default());
    site.serve().await;
    site.until_available(POOL, 5).await;
    assert_eq!(until_produced(&mut site, 5).await.len(), 5);
    assert_eq!(site.levels(POOL).await.generated, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_not_asked_for_is_refused_and_told_to_the_auditor() {
    let server = EstServer::start(Duration::ZERO).await;
    server.behave(Behaviour { wrong_key: true, ..Behaviour::default() });
    let mut site = site(&server).await;
    site.create_pool_of("enrolled", POOL, 2).await;
    let rejected = site
        .until("a rejected certificate", async |site| {
            site.events("CERTIFICATE_REJECTED").await.into_iter().next()
        })
        .await;
    assert_eq!(rejected["details"]["reason"], "it is for another key", "{rejected}");
    assert_eq!(site.levels(POOL).await.ready, 0);
    server.behave(Behaviour::default());
    site.until_available(POOL, 2).await;
    assert_eq!(until_produced(&mut site, 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_whose_requests_are_not_wanted_any_more_are_retired() {
    let server = EstServer::start(Duration::ZERO).await;
    server.behave(Behaviour { never_ready: true, ..Behaviour::default() });
    let mut site = site(&server).await;
    site.create_pool_of("enrolled", POOL, 3).await;
    until_generated(&mut site, 3).await;
    let before = until_produced(&mut site, 3).await;
    server.behave(Behaviour { attributes: true, ..Behaviour::default() });
    site.until_available(POOL, 3).await;
    let erased = site.events("KEYS_ERASED").await;
    let outdated: Vec<_> =
        erased.iter().filter(|event| event["details"]["reason"] == "REQUEST_OUTDATED").collect();
    let retired: BTreeSet<String> = outdated
        .iter()
        .flat_map(|event| event["credentials"].as_array().unwrap().clone())
        .map(|key| key["public_key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(retired, before);
    assert_eq!(until_produced(&mut site, 6).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_certificates_nobody_could_revoke_is_refused_with_the_remedy() {
    let server = EstServer::start(Duration::ZERO).await;
    let site = site(&server).await;
    let pool = proto::CreatePoolRequest { profile: "lasting".into(), ..pool_request(POOL, 1) };
    let refused = PoolServiceClient::new(site.management("nfvo").await).create_pool(pool).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    for part in ["nobody can revoke", "7d", "out-of-band"] {
        assert!(refused.message().contains(part), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tls_client_certificate_is_followed_by_another_one_before_it_ends() {
    let server = EstServer::start(Duration::ZERO).await;
    // Asked again when the server says so, with the same request.
    server.behave(Behaviour { pending_once: true, ..Behaviour::default() });
    let (mut site, request) = prepared(&server, Site::prepare).await;
    let file = site.path().join("est-client.pem");
    let aged = server.aged_client_certificate(&request).await;
    std::fs::write(&file, &aged).unwrap();
    serve(&mut site).await;
    let renewed = site
        .until("another client certificate", async |_| {
            let now = std::fs::read_to_string(&file).unwrap();
            (now != aged).then_some(now)
        })
        .await;
    let [before, after] = [&aged, &renewed].map(|text| {
        let chain = certificates_from_pem(text.as_bytes()).unwrap();
        assert_eq!(chain.len(), 2, "leaf and sub-CA");
        CertificateFacts::parse(&chain[0]).unwrap()
    });
    assert_eq!((&after.public_key, &after.subject), (&before.public_key, &before.subject));
    assert!(after.not_after > before.not_after);
    let shown = server.followed();
    assert!(shown.len() >= 2 && shown.iter().all(|der| Sha256Hash::of(der) == before.fingerprint));
    let event = site
        .until("the renewal in the log", async |site| {
            site.events("ISSUER_CLIENT_RENEWED").await.into_iter().next()
        })
        .await;
    assert_eq!(event["details"]["certificate"], after.fingerprint.to_string().as_str(), "{event}");
    assert_eq!(event["details"]["key_label"], "keybroker:est:pki");
    // It is in use without a restart, and not renewed again.
    site.full_pool_of("enrolled", POOL, 3).await;
    assert_eq!(site.events("ISSUER_CLIENT_RENEWED").await.len(), 1);
    assert!(server.shown().contains(&after.fingerprint.to_string()), "the old certificate is still shown");
}
