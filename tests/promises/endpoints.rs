//! Goal: what relying parties and the operator's monitoring fetch is there, and nothing that is thrown at a port stops
//! the broker.
//! Method: plain HTTP and gRPC from outside; garbage, half handshakes and wrong protocols on all five ports; 200 clients
//! at once.

use crate::support::mano::By;
use crate::support::process::run;
use crate::support::site::Site;
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::ca::certificates_from_pem;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

#[tokio::test(flavor = "multi_thread")]
async fn crl_chain_metrics_and_health_answer() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let claimed = vnfci.boot(&site).await;
    let issuer = site.vnfci("amf-0001").await.credentials[0].issuer_id.clone();

    let chain = site.get(false, "/chain/default.pem").await;
    let ders = certificates_from_pem(&chain).unwrap();
    let mut delivered = claimed.keys[0].chain_der.clone();
    delivered.push(claimed.keys[0].root_der.clone());
    assert_eq!(ders, delivered);
    let ca = site.get(false, &format!("/ca/{issuer}.cer")).await;
    assert_eq!(ca, claimed.keys[0].chain_der[0]);
    let crl = site.get(false, &format!("/crl/{issuer}.crl")).await;
    let file = site.path().join("default.crl");
    std::fs::write(&file, &crl).unwrap();
    let chain_file = site.path().join("chain.pem");
    std::fs::write(&chain_file, &chain).unwrap();
    let (file, chain_file) = (file.display().to_string(), chain_file.display().to_string());
    let arguments = ["crl", "-inform", "DER", "-in", &file, "-noout", "-CAfile", &chain_file];
    let checked = run("openssl", arguments).await.ok();
    assert!(checked.err.contains("verify OK") || checked.out.contains("verify OK"), "{checked:?}");

    assert_eq!(site.get(true, "/healthz").await, b"alive\n");
    assert_eq!(site.get(true, "/readyz").await, b"ready\n");
    let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
    for name in [
        "keybroker_claims_total",
        "keybroker_rpc_total",
        "keybroker_rpc_seconds",
        "keybroker_confirmations_total",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    let mut health = HealthClient::new(site.management("operator").await);
    let status = health.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(status.status(), ServingStatus::Serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_port_leaves_the_broker_serving() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let addresses = site.addresses;
    // A TLS 1.2 ClientHello's beginning, HTTP, HTTP/2's preface in clear, a record of the greatest length, noise.
    let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let pieces: [&[u8]; 7] = [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x16\x03\x03\xff\xff",
        b"GET /crl/../../pin HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        &noise,
    ];
    let mut throwing = JoinSet::new();
    for address in
        [addresses.bootstrap, addresses.vnfci, addresses.management, addresses.http, addresses.admin]
    {
        for piece in pieces {
            let piece = piece.to_vec();
            throwing.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // The broker may have hung up already: that is its answer.
                let _ = stream.write_all(&piece).await;
                let mut answer = [0; 1024];
                let _ = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut answer)).await;
            });
        }
    }
    throwing.join_all().await;
    site.check();
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let claimed = vnfci.boot(&site).await;
    claimed.release(&site).await.unwrap();
    assert_eq!(site.get(true, "/healthz").await, b"alive\n");
    site.get(false, "/chain/default.pem").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_at_once_are_served() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 200).await;
    let ids: Vec<String> = (0..200).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let site = Arc::new(site);
    let mut clients = JoinSet::new();
    for vnfci in vnfcis {
        let site = Arc::clone(&site);
        clients.spawn(async move {
            let connection =
                vnfci.connect(&site).await.unwrap_or_else(|error| panic!("{}: {error}", vnfci.id));
            let request = vnfci.claim_request(&connection, keybroker::nfv::RequestId::generate());
            let claimed = vnfci.send_claim(&connection, request).await;
            claimed.map(|claimed| claimed.keys[0].credential_id.clone())
        });
    }
    let mut credentials = clients.join_all().await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    credentials.sort();
    credentials.dedup();
    assert_eq!(credentials.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_that_are_added_at_once_are_all_in_use() {
    let site = Arc::new(Site::start().await);
    let names: BTreeSet<String> = (0..24).map(|number| format!("at-once-{number}")).collect();
    let mut adding = JoinSet::new();
    for name in names.clone() {
        let site = Arc::clone(&site);
        adding.spawn(async move { site.add_profile(&name, "").await });
    }
    adding.join_all().await;
    let mut operator = AdminServiceClient::new(site.management("operator").await);
    let listed = operator.list_profiles(proto::ListProfilesRequest {}).await.unwrap().into_inner().profiles;
    let listed: BTreeSet<String> = listed.into_iter().map(|profile| profile.name).collect();
    assert!(listed.is_superset(&names), "missing: {:?}", names.difference(&listed).collect::<Vec<_>>());
}
