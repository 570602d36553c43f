//! Goal: brokers on one database and one token make every key once: whoever asks at two of them at the same moment is told one
//! outcome, or that another one was quicker, and whatever was made can be used.
//! Method: two processes on PostgreSQL; the module takes its time with a key while the other broker is asked for the same, and
//! many ask at once without that; then the token's objects are counted by name.

use crate::support::mano::{By, request_id};
use crate::support::pkcs11::objects;
use crate::support::postgres::{Cluster, Database};
use crate::support::process::run;
use crate::support::settlement::query;
use crate::support::site::{Options, Site};
use crate::support::vnfci::transient;
use crate::support::{PATIENCE, until};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

const POOL: &str = "amf-transport";
/// How long a key takes whose making the other broker is to see nothing of.
const SLOWLY: &str = "delay 2000 times 1";

async fn two_brokers(call_deadline: &'static str) -> (Site, Site, Database) {
    let database = Cluster::common().database();
    let store_url = database.url();
    let options = Options { store_url, faulty: true, call_deadline, workers: (2, 2), ..Options::default() };
    let site = Site::start_with(options).await;
    let replica = site.replica().await;
    (site, replica, database)
}

/// The module has begun to make a key.
async fn until_under_way(site: &mut Site) {
    site.until("a key under way", async |site| (!site.faults().injected().is_empty()).then_some(())).await;
}

/// Every name is that of one secret key, or of one public and one private key.
async fn assert_each_made_once(site: &Site) {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for object in objects(site).await {
        by_name.entry(object.label().to_owned()).or_default().push(object.class);
    }
    for (name, classes) in &by_name {
        let secret = [":hmac:", ":kek:"].iter().any(|kind| name.contains(kind));
        assert_eq!(classes.len(), if secret { 1 } else { 2 }, "{name}: {classes:?}");
    }
    // Every CA has a responder's key beside its own, and no key is left over.
    let named =
        "SELECT key_object FROM issuers WHERE key_object <> '' UNION SELECT key_object FROM ocsp_responders";
    let named: BTreeSet<String> = query(site, named).await.into_iter().collect();
    let of_cas = |name: &&String| [":ca:", ":ocsp:", ":root:"].iter().any(|kind| name.contains(kind));
    assert_eq!(by_name.keys().filter(of_cas).cloned().collect::<BTreeSet<_>>(), named);
}

/// Every CA but roots has an OCSP responder.
async fn until_responders(site: &mut Site) {
    let lacking = "SELECT count(*) FROM issuers WHERE tenant IS NOT NULL AND id NOT IN (SELECT issuer FROM ocsp_responders)";
    site.until("OCSP responders", async |site| (query(site, lacking).await == ["0"]).then_some(())).await;
}

/// Asked until there is an answer that is final.
async fn finally<T, F: Future<Output = Result<T, Status>>>(ask: impl Fn() -> F) -> Result<T, Status> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(status) if transient(&status) && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answer => return answer,
        }
    }
}

async fn add_tenant(channel: Channel, name: String, id: String) -> Result<proto::Tenant, Status> {
    let request = proto::AddTenantRequest { request_id: id, tenant: name };
    finally(|| {
        let (mut client, request) = (AdminServiceClient::new(channel.clone()), request.clone());
        async move { Ok(client.add_tenant(request).await?.into_inner().tenant.unwrap()) }
    })
    .await
}

async fn issue_ca(channel: Channel, name: String, new: bool, id: String) -> Result<proto::Ca, Status> {
    let request =
        proto::IssueCaRequest { request_id: id, tenant: "default".into(), name, new, ..Default::default() };
    finally(|| {
        let (mut client, request) = (AdminServiceClient::new(channel.clone()), request.clone());
        async move { Ok(client.issue_ca(request).await?.into_inner().ca.unwrap()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_added_at_two_brokers_at_once_has_each_of_its_keys_once() {
    let (mut first, replica, _database) = two_brokers("10s").await;
    for (tenant, slow) in [("slow-mac", "C_GenerateKey:token"), ("slow-ca", "C_GenerateKeyPair:token")] {
        first.faults().set(&format!("{slow} {SLOWLY}"));
        let id = request_id();
        let at_first =
            tokio::spawn(add_tenant(first.management("operator").await, tenant.into(), id.clone()));
        until_under_way(&mut first).await;
        // The same request, as by a client that gave up, and another operator's.
        let management = replica.management("operator").await;
        let again = add_tenant(management.clone(), tenant.into(), id).await.unwrap();
        let other = add_tenant(management, tenant.into(), request_id()).await.unwrap_err();
        assert_eq!(other.code(), Code::AlreadyExists, "{other:?}");
        let added = at_first.await.unwrap().unwrap();
        assert_eq!(added.created_at, again.created_at);
    }
    first.faults().clear();
    // Many at once, nothing slowed down.
    let mut adding = JoinSet::new();
    for n in 0..4 {
        let id = request_id();
        for site in [&first, &replica, &first, &replica] {
            adding.spawn(add_tenant(site.management("operator").await, format!("tenant-{n}"), id.clone()));
            adding.spawn(add_tenant(site.management("operator").await, format!("tenant-{n}"), request_id()));
        }
    }
    let mut added: BTreeMap<String, usize> = BTreeMap::new();
    while let Some(answer) = adding.join_next().await {
        match answer.unwrap() {
            Ok(tenant) => *added.entry(tenant.tenant).or_default() += 1,
            Err(status) => assert_eq!(status.code(), Code::AlreadyExists, "{status:?}"),
        }
    }
    // The one that was quickest, and whoever asked under the same id.
    assert_eq!(added.len(), 4, "{added:?}");
    assert!(added.values().all(|told| [1, 4].contains(told)), "{added:?}");
    until_responders(&mut first).await;
    assert_each_made_once(&first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cas_that_are_asked_for_at_two_brokers_at_once_have_a_key_and_a_generation_each() {
    let (mut first, replica, _database) = two_brokers("10s").await;
    first.faults().set(&format!("C_GenerateKeyPair:token {SLOWLY}"));
    let id = request_id();
    let at_first = first.management("operator").await;
    let at_first = tokio::spawn(issue_ca(at_first, "inside".into(), true, id.clone()));
    until_under_way(&mut first).await;
    let management = replica.management("operator").await;
    let again = issue_ca(management.clone(), "inside".into(), true, id).await.unwrap();
    let same_name = issue_ca(management.clone(), "inside".into(), true, request_id()).await.unwrap_err();
    assert_eq!(same_name.code(), Code::AlreadyExists, "{same_name:?}");
    let issued = at_first.await.unwrap().unwrap();
    assert_eq!(issued, again);
    first.faults().clear();
    // Two operators each: other CAs, and the next generation of one.
    let mut asking = JoinSet::new();
    for n in 0..4 {
        for site in [&first, &replica] {
            let (name, id) = (format!("slice-{n}-{}", site.addresses.http.port()), request_id());
            asking.spawn(issue_ca(site.management("operator").await, name, true, id));
            asking.spawn(issue_ca(site.management("operator").await, "inside".into(), false, request_id()));
        }
    }
    let issued: Vec<proto::Ca> = asking.join_all().await.into_iter().map(Result::unwrap).collect();
    let generations: BTreeSet<u32> = issued.iter().map(|ca| ca.generation).collect();
    assert_eq!(generations.len(), 16, "{generations:?}");
    until_responders(&mut first).await;
    assert_each_made_once(&first).await;
    // The CA whose key was slow issues.
    first.full_pool(POOL, 2).await;
    first.register_one("amf-1", &[("transport", POOL)], By::Token).await.boot(&replica).await;
}

/// Whoever publishes sits in a slow call for longer than its lease lasts, and another broker publishes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_responders_key_is_made_once_although_the_publisher_changes_meanwhile() {
    let (mut first, replica, database) = two_brokers("60s").await;
    until_responders(&mut first).await;
    let publisher = || database.sql("SELECT holder FROM leases WHERE name = 'publisher'");
    let before = publisher();
    // After the CA's own key comes its responder's.
    let rule = |milliseconds: u32| format!("C_GenerateKeyPair:token delay {milliseconds} times 1");
    first.faults().set(&format!("{}\n{}", rule(1), rule(40_000)));
    let operator = replica.management("operator").await;
    issue_ca(operator, "slow".to_owned(), true, request_id()).await.unwrap();
    first
        .until("the responder's key under way", async |site| {
            (site.faults().injected().len() == 2).then_some(())
        })
        .await;
    until(PATIENCE, "another publisher", async || (publisher() != before).then_some(())).await;
    until_responders(&mut first).await;
    // The slow one has made its key, too, or was told of the other's: it learns that it is the publisher no more.
    let logs = || [&first, &replica].map(|site| std::fs::read_to_string(site.log()).unwrap()).concat();
    until(PATIENCE, "the end of the slow call", async || {
        logs().contains("the lease publisher was taken over").then_some(())
    })
    .await;
    assert_each_made_once(&first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_that_are_initialised_at_once_make_one_set_of_keys_and_one_log() {
    for slow in ["C_GenerateKeyPair:token", "C_GenerateKey:token"] {
        let database = Cluster::common().database();
        let options = Options { store_url: database.url(), faulty: true, ..Options::default() };
        let site = Site::prepare(options);
        // The other host has its own files, and PIN and token in common.
        let there = site.path().join("there");
        std::fs::create_dir(&there).unwrap();
        let pin = format!("pin_file = {:?}", site.path().join("pin").display().to_string());
        let text = std::fs::read_to_string(site.config()).unwrap().replace("pin_file = \"pin\"", &pin);
        std::fs::write(there.join("keybroker.toml"), text).unwrap();
        let init = async |directory: &Path| {
            let config = directory.join("keybroker.toml").display().to_string();
            site.cli(["init", "--config", &config]).await
        };
        site.faults().set(&format!("{slow} {SLOWLY}"));
        let (here, there) = tokio::join!(init(site.path()), init(&there));
        // The roles' certificates are those of whoever was quicker, and the other one says so.
        let (won, lost) = if here.code == 0 { (here, there) } else { (there, here) };
        won.ok();
        assert!(lost.code == 0 || lost.err.contains("is registered with another key"), "{lost:?}");
        let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
        for object in objects(&site).await {
            *by_name.entry(object.label().to_owned()).or_default() += 1;
        }
        let twice: Vec<_> = by_name
            .iter()
            .filter(|(name, count)| **count != if name.contains(":hmac:") { 1 } else { 2 })
            .collect();
        assert!(twice.is_empty(), "{twice:?}");
        assert_eq!(database.sql("SELECT count(*) FROM issuers"), "2");
        assert_eq!(database.sql("SELECT count(*) FROM events WHERE kind = 'LOG_STARTED'"), "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_for_an_enrolment_server_is_made_once_although_it_is_asked_for_at_two_hosts() {
    let database = Cluster::common().database();
    let more_toml = "[issuer.pki]\nkind = \"est\"\nurl = \"https://127.0.0.1:1\"\ntrust_anchor = \"root.pem\"\n\
                     client_certificate = \"est-client.pem\"\n";
    let options = Options {
        store_url: database.url(),
        faulty: true,
        more_toml: more_toml.into(),
        ..Options::default()
    };
    let site = Site::prepare(options);
    site.init().await;
    site.faults().set(&format!("C_GenerateKeyPair:token {SLOWLY}"));
    let config = site.config().display().to_string();
    let request = async || {
        let requested = site.cli(["issuer", "request", "pki", "--config", &config]).await.ok().object();
        let file = site.path().join(format!("{}.csr", request_id()));
        std::fs::write(&file, requested["request"].as_str().unwrap()).unwrap();
        let file = file.display().to_string();
        run("openssl", ["req", "-verify", "-noout", "-pubkey", "-in", &file]).await.ok().out
    };
    let (one, other) = tokio::join!(request(), request());
    assert_eq!(one, other);
    let made = objects(&site).await.into_iter().filter(|object| object.label() == "keybroker:est:pki");
    assert_eq!(made.count(), 2, "a private and a public object of one key");
}
