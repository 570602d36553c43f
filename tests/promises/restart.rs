//! Goal: a broker that is killed at any moment loses nothing and gives nothing out twice.
//! Method: SIGKILL for the broker and for its HSM workers in the middle of claims and of production; afterwards every
//! claim ends delivered or destroyed, none twice, the audit log extends the head seen before, the pool refills.

use crate::support::ca::SoftwareCa;
use crate::support::mano::{By, announcement, pool_request, request_id};
use crate::support::pkcs11::objects;
use crate::support::postgres::Cluster;
use crate::support::site::{Options, Site};
use crate::support::vnfci::{Vnfci, transient};
use crate::support::{PATIENCE, until};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use keybroker::clock::{Clock, SystemClock};
use keybroker::nfv::Sha256Hash;
use proto::initial_credential::Kind;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 2] = [("client", POOL), ("server", POOL)];
const VNFCIS: usize = 48;

/// Whom a credential was seen by: VNFCI and recipient key.
pub(super) type Seen = Vec<(String, String, Sha256Hash)>;

/// A VNFCI that claims and confirms, at one broker after the other, until it is acknowledged; gives everything that it ever unsealed.
pub(super) async fn persistent(
    vnfci: Vnfci,
    sites: Vec<Arc<RwLock<Site>>>,
    confirmed: Arc<AtomicUsize>,
) -> Seen {
    let begun = Instant::now();
    let mut seen = Vec::new();
    for site in sites.iter().cycle() {
        assert!(begun.elapsed() < PATIENCE * 2, "{} never got through", vnfci.id);
        let attempt = async {
            let site = site.read().await;
            let claimed = vnfci.claim(&site).await?;
            for key in &claimed.keys {
                seen.push((key.credential_id.clone(), vnfci.id.clone(), vnfci.recipient_key()));
            }
            vnfci.confirm(&site, &claimed).await
        };
        match attempt.await {
            Ok(_) => {
                confirmed.fetch_add(1, Ordering::Relaxed);
                return seen;
            }
            Err(status) if transient(&status) => tokio::time::sleep(Duration::from_millis(30)).await,
            // The confirmation was committed and its answer lost: the initial credential is spent.
            Err(status) if status.code() == tonic::Code::Unauthenticated && !seen.is_empty() => return seen,
            Err(status) => panic!("{}: {status:?}", vnfci.id),
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_in_the_middle_of_claims_and_production_delivers_everything_once() {
    killed_in_the_middle(Site::start().await, "vnfci-transport").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_on_postgres_killed_in_the_middle_of_claims_and_production_delivers_everything_once() {
    let database = Cluster::common().database();
    let options = Options { store_url: database.url(), ..Options::default() };
    killed_in_the_middle(Site::start_with(options).await, "vnfci-transport").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_in_the_middle_of_issuing_at_the_claim_certifies_every_key_once() {
    let mut site = killed_in_the_middle(Site::start().await, "vnfci-named").await;
    let mut certified = HashMap::new();
    for event in site.events("CERTIFICATES_ISSUED").await {
        for one in event["details"]["certificates"].as_array().unwrap() {
            let before = certified.insert(one["credential"].clone(), one["serial"].clone());
            assert_eq!(before, None, "a second certificate for one key");
        }
    }
    // What is delivered was issued once; what was announced and not delivered is withdrawn.
    let mut announced = HashMap::new();
    for event in site.events("CLAIMED").await {
        for slot in event["details"]["slots"].as_array().unwrap() {
            let serial = slot["intent"]["serial"].clone();
            assert_eq!(announced.insert(slot["credential"].clone(), serial), None, "drawn twice");
        }
    }
    for n in 0..VNFCIS {
        let shown = site.vnfci(&format!("amf-{n:04}")).await;
        for one in &shown.credentials {
            let credential = Value::from(one.credential_id.clone());
            assert_eq!(announced[&credential], one.serial.as_str(), "{one:?}");
            if one.key_state == "DELIVERED" {
                assert_eq!(certified[&credential], one.serial.as_str(), "{one:?}");
            } else {
                let state = one.certificate_state.as_str();
                assert!(["REVOCATION_PENDING", "REVOKED"].contains(&state), "{one:?}");
            }
        }
    }
    site.check();
}

/// Claims from a pool of a profile while broker and workers are killed; gives the site once all is quiet.
async fn killed_in_the_middle(mut site: Site, profile: &str) -> Site {
    // Refilled whenever one is drawn: a pool that was full once during the storm is full again after it.
    let request = proto::CreatePoolRequest {
        profile: profile.into(),
        refill_below: Some(40),
        ..pool_request(POOL, 40)
    };
    PoolServiceClient::new(site.management("nfvo").await).create_pool(request).await.unwrap();
    site.until_available(POOL, 40).await;
    let ids: Vec<String> = (0..VNFCIS).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let head_before = site.export("before").await.join("head.json");

    let site = Arc::new(RwLock::new(site));
    let confirmed = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for vnfci in vnfcis {
        running.spawn(persistent(vnfci, vec![Arc::clone(&site)], Arc::clone(&confirmed)));
    }
    // Production goes on all the time: the VNFCIs need 96 credentials and 40 were ready.
    for (threshold, worker_only) in [(4, true), (10, false), (20, true), (28, false)] {
        until(PATIENCE, "the storm", async || (confirmed.load(Ordering::Relaxed) >= threshold).then_some(()))
            .await;
        let pid = site.read().await.broker().pid();
        if worker_only {
            for index in 0..2 {
                site.read().await.broker().kill_worker(index);
            }
        } else {
            // At once, with calls under way; the lock is only needed to start the next one.
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            let mut site = site.write().await;
            site.kill();
            site.serve().await;
        }
    }
    let seen: Seen = running.join_all().await.into_iter().flatten().collect();
    let mut site = Arc::into_inner(site).expect("no task has the site any more").into_inner();
    site.check();

    each_once(&site, &ids, &seen).await;
    site.until_available(POOL, 40).await;
    let export = site.export("after").await;
    let report = site.verify(&export, &[&head_before]).await.ok().object();
    assert_eq!((&report["verified"], &report["extends"]), (&true.into(), &1.into()), "{report}");
    site
}

/// None twice, neither to another VNFCI nor to another recipient key; and every claim ended: two delivered keys each, and
/// whatever else was drawn is destroyed.
pub(super) async fn each_once(site: &Site, ids: &[String], seen: &Seen) {
    let mut holders: HashMap<&str, HashSet<(&str, Sha256Hash)>> = HashMap::new();
    for (credential, vnfci, recipient) in seen {
        holders.entry(credential).or_default().insert((vnfci, *recipient));
    }
    for (credential, holders) in &holders {
        assert_eq!(holders.len(), 1, "{credential}: {holders:?}");
    }
    for id in ids {
        let shown = site.vnfci(id).await;
        assert_eq!(shown.initial_credential_state, "SPENT", "{id}");
        let states: Vec<&str> = shown.credentials.iter().map(|one| one.key_state.as_str()).collect();
        assert_eq!(states.iter().filter(|state| **state == "DELIVERED").count(), 2, "{id}: {states:?}");
        assert!(states.iter().all(|state| ["DELIVERED", "DESTROYED"].contains(state)), "{id}: {states:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_on_the_same_database_does_not_start() {
    let mut site = Site::start().await;
    let text = std::fs::read_to_string(site.config()).unwrap();
    let other = site.path().join("other.toml");
    // Every port is another one: only the database is shared.
    std::fs::write(&other, text.replace("127.0.0.1:", "127.0.0.2:")).unwrap();
    let refused = site.cli(["serve", "--config", &other.display().to_string()]).await;
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.err.contains("another broker works on"), "{refused:?}");
    site.check();
    site.full_pool(POOL, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_broker_works_at_once() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 6).await;
    for orderly in [true, false] {
        if orderly {
            site.stop().await;
        } else {
            site.kill();
        }
        site.serve().await;
        // Production and the log go on without waiting for anything of the process before.
        let begun = Instant::now();
        let name = format!("after-{orderly}");
        site.full_pool(&name, 2).await;
        site.export(&name).await;
        assert!(begun.elapsed() < Duration::from_secs(15), "after {:?}", begun.elapsed());
    }
}

/// A crash point or a lost answer may come long before the repetition: what was granted then is told then, and no token
/// stands beside another VNFCI's id.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_repeated_after_some_of_it_expired_has_the_same_outcome() {
    let site = Site::start().await;
    site.create_pool(POOL, 1, None).await;
    let token = || Kind::Token(proto::TokenInitialCredential {});
    let lifetime = Duration::from_secs(2);
    let soon = || Some(prost_types::Timestamp::from(SystemTime::from(SystemClock.now().plus(lifetime))));
    let mut client = LifecycleServiceClient::new(site.management("nfvo").await);
    let (first, second) = ("amf-0001", "amf-0002");
    let register = proto::RegisterVnfcisRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfcis: vec![
            announcement(first, &SLOTS, token(), soon()),
            announcement(second, &SLOTS, token(), None),
        ],
    };
    let registered = client.register_vnfcis(register.clone()).await.unwrap().into_inner();
    let rearming = |id: &str, expires_at| proto::Rearming {
        vnfci_id: id.into(),
        initial_credential: Some(proto::InitialCredential { kind: Some(token()), expires_at }),
    };
    let rearm = proto::RearmVnfcisRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfcis: vec![rearming(first, soon()), rearming(second, None)],
    };
    let rearmed = client.rearm_vnfcis(rearm.clone()).await.unwrap().into_inner();
    let begun = Instant::now();
    until(PATIENCE, "the expiry", async || (begun.elapsed() > lifetime).then_some(())).await;
    assert_eq!(client.register_vnfcis(register).await.unwrap().into_inner(), registered);
    assert_eq!(client.rearm_vnfcis(rearm).await.unwrap().into_inner(), rearmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_of_a_pool_is_told_the_same_after_the_pool_is_gone() {
    let site = Site::start().await;
    site.create_pool(POOL, 2, None).await;
    let mut client = PoolServiceClient::new(site.management("nfvo").await);
    let (tenant, name) = (String::new(), POOL.to_owned());
    let update = proto::UpdatePoolRequest {
        request_id: request_id(),
        tenant: tenant.clone(),
        name: name.clone(),
        target: 3,
        refill_below: None,
    };
    let updated = client.update_pool(update.clone()).await.unwrap().into_inner().pool.unwrap();
    let delete = proto::DeletePoolRequest { request_id: request_id(), tenant, name };
    client.delete_pool(delete).await.unwrap();
    // The answer may have been lost, and the client asks again late.
    let again = client.update_pool(update.clone()).await.unwrap().into_inner().pool.unwrap();
    assert_eq!((&again.pool_id, again.target), (&updated.pool_id, 3));
    let other = proto::UpdatePoolRequest { request_id: request_id(), ..update };
    assert_eq!(client.update_pool(other).await.unwrap_err().code(), tonic::Code::NotFound);
}

/// Objects of CAs on the token. Their OCSP responders get keys by themselves.
async fn ca_keys(site: &Site) -> usize {
    objects(site).await.iter().filter(|object| object.label().starts_with("keybroker:ca:")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_adds_is_told_the_same_when_its_request_is_repeated() {
    let mut site = Site::start().await;
    let mut client = AdminServiceClient::new(site.management("operator").await);
    let tenant = proto::AddTenantRequest { request_id: request_id(), tenant: "other".into() };
    let added = client.add_tenant(tenant.clone()).await.unwrap().into_inner();
    assert_eq!(client.add_tenant(tenant).await.unwrap().into_inner(), added);

    let ca = SoftwareCa::new("another CA");
    let anchor = proto::AddAnchorRequest {
        request_id: request_id(),
        tenant: "other".into(),
        name: "another".into(),
        certificate_der: ca.certificate_der.clone(),
        ..Default::default()
    };
    let added = client.add_anchor(anchor.clone()).await.unwrap().into_inner();
    assert_eq!(client.add_anchor(anchor).await.unwrap().into_inner(), added);

    let identity = proto::Identity {
        name: "another".into(),
        role: proto::Role::Auditor.into(),
        tenant: "other".into(),
        certificate_der: ca.client("another").certificate_der().to_vec(),
        ..Default::default()
    };
    let identity = Some(identity);
    let identity = proto::AddIdentityRequest { request_id: request_id(), identity, ..Default::default() };
    let added = client.add_identity(identity.clone()).await.unwrap().into_inner();
    assert_eq!(client.add_identity(identity).await.unwrap().into_inner(), added);

    // A CA key is made once, and what came after it does not change what it was.
    for new in [true, false] {
        let request = |new| proto::IssueCaRequest {
            request_id: request_id(),
            tenant: "other".into(),
            name: "inside".into(),
            new,
            ..Default::default()
        };
        let asked = request(new);
        let mut issued = client.issue_ca(asked.clone()).await.unwrap().into_inner().ca.unwrap();
        client.issue_ca(request(false)).await.unwrap();
        let keys = ca_keys(&site).await;
        let repeated = client.issue_ca(asked.clone()).await.unwrap().into_inner().ca.unwrap();
        // Which one issues is told as it is now.
        issued.issuing = false;
        assert_eq!(repeated, issued);
        assert_eq!(ca_keys(&site).await, keys);
        let other = proto::IssueCaRequest { name: "else".into(), ..asked };
        let refused = client.issue_ca(other).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
    }
    site.check();
}
