//! Goal: nobody acts beyond its role, tenant, VNF instances or itself, and every attempt is in the audit log.
//! Method: every RPC of the proto's descriptor set is called for another tenant's things by every role of a tenant, and
//! by strangers. A new RPC without a case here fails the test.

use crate::attacks::{Victim, attack, call, rpcs};
use crate::support::ca::{Credential, Shape, SoftwareCa};
use crate::support::mano::{By, Tenant, announcement, create_pool, register, request_id};
use crate::support::site::{ANCHOR, Options, Site, VNF};
use crate::support::vnfci::Claimed;
use keybroker::api::client::connect;
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::audit_service_client::AuditServiceClient;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use keybroker::nfv::RequestId;
use proto::initial_credential::Kind;
use std::collections::{BTreeMap, BTreeSet};
use tonic::{Code, Status};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
const OTHER_VNF: &str = "smf-1";
const MANO_ROLES: [&str; 5] = ["nfvo", "vnfm", "auditor", "security-operator", "registration-authority"];

fn is_refusal(status: &Status) -> bool {
    matches!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "not permitted") | (Code::Unauthenticated, "not authenticated")
    )
}

/// The tenant `default` with a VNFCI that has a delivered credential, and the tenant `rival` with as much, on the broker's
/// token or on its own.
async fn two_tenants(own_token: bool) -> (Site, Victim, Tenant, Claimed) {
    let mut options = Options::default();
    if own_token {
        options.more_toml = "[tenant.rival]\ntoken = \"rival\"\npin_file = \"rival.pin\"\n".to_owned();
    }
    let mut site = Site::prepare(options);
    if own_token {
        site.add_token("rival").await;
    }
    site.init().await;
    site.serve().await;
    site.add_anchor("default", ANCHOR, &site.mano_ca).await;
    site.full_pool(POOL, 4).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let claimed = vnfci.boot(&site).await;
    let shown = site.vnfci("amf-0001").await.credentials.remove(0);
    let victim = Victim { claimed, vnfci, issuer: shown.issuer_id, serial: shown.serial };

    let rival = site.add_tenant("rival").await;
    let nfvo = site.connect(&site.management_url(), &rival.identities["nfvo"]).await.channel;
    // The same names as in the other tenant: nothing but the tenant tells them apart.
    create_pool(nfvo.clone(), "", POOL, VNF, 2, None).await;
    let theirs =
        register(nfvo, "", &rival.ca, "mano", &["amf-0001"], &SLOTS, By::Certificate).await.remove(0);
    let claimed = theirs.claim_patiently(&site).await;
    assert_eq!(claimed.response.tenant, "rival");
    assert!(theirs.confirm(&site, &claimed).await.unwrap());
    (site, victim, rival, claimed)
}

/// Every attempt, as the audit log names it: actor and RPC.
type Attempts = BTreeSet<(String, String)>;

async fn until_logged(site: &mut Site, attempts: &Attempts) {
    let missing = |events: &[serde_json::Value]| {
        let logged: Attempts = events
            .iter()
            .map(|event| {
                let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                (text(&event["actor"]), text(&event["details"]["rpc"]))
            })
            .collect();
        attempts.difference(&logged).cloned().collect::<Vec<_>>()
    };
    let begun = std::time::Instant::now();
    loop {
        let missing = missing(&site.events("REFUSED").await);
        if missing.is_empty() {
            return;
        }
        assert!(begun.elapsed() < crate::support::PATIENCE, "not in the audit log: {missing:?}");
        site.check();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_role_of_a_tenant_reaches_another_tenant_by_any_rpc() {
    attack_by_every_rpc(two_tenants(false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_role_of_a_tenant_with_its_own_token_reaches_another_tenant_by_any_rpc() {
    attack_by_every_rpc(two_tenants(true).await).await;
}

async fn attack_by_every_rpc((mut site, victim, rival, rival_claim): (Site, Victim, Tenant, Claimed)) {
    // The head of the log is nobody's: it says nothing of a tenant.
    let for_all = ["auditor AuditService/GetCheckpoint", "security-operator AuditService/GetCheckpoint"];
    let mut attempts = Attempts::new();
    for role in MANO_ROLES {
        let credential = &rival.identities[role];
        let channel = site.connect(&site.management_url(), credential).await.channel;
        for rpc in rpcs().iter().filter(|rpc| !rpc.starts_with("CredentialService")) {
            let body = attack(rpc, &victim).unwrap_or_else(|| panic!("{rpc} has no case in this test"));
            let answer = call(channel.clone(), rpc, body).await;
            if for_all.contains(&format!("{role} {rpc}").as_str()) {
                // There may be no head yet.
                let let_in = answer.err().is_none_or(|status| status.code() == Code::NotFound);
                assert!(let_in, "{role} {rpc}");
                continue;
            }
            let refused = answer.expect_err(&format!("{role} of a rival tenant was let into {rpc}"));
            assert!(is_refusal(&refused), "{role} {rpc}: {refused:?}");
            let method = rpc.split_once('/').unwrap().1.to_owned();
            attempts.insert((format!("{role}:rival/{role}-rival"), method));
        }
    }
    // On the listener for VNFCIs a rival's VNFCI touches what is not its own; MANO is no VNFCI.
    let vnfci = rival_claim.keys[0].credential();
    for rpc in rpcs().iter().filter(|rpc| rpc.starts_with("CredentialService")) {
        let body = || attack(rpc, &victim).unwrap_or_else(|| panic!("{rpc} has no case in this test"));
        let method = rpc.split_once('/').unwrap().1.to_owned();
        let channel = site.connect(&site.vnfci_url(), &vnfci).await.channel;
        let answer = call(channel, rpc, body()).await;
        match method.as_str() {
            "Claim" => assert_eq!(answer.unwrap_err().code(), Code::Unimplemented),
            // They name no tenant and no VNFCI: everyone gets its own, see below.
            "GetTrustChain" | "Renew" => answer.unwrap(),
            _ => {
                let refused = answer.expect_err(&format!("a rival's VNFCI was let into {rpc}"));
                assert!(is_refusal(&refused), "{rpc}: {refused:?}");
                attempts.insert(("vnfci:rival/amf-0001".to_owned(), method.clone()));
            }
        }
        for role in MANO_ROLES {
            let channel = site.connect(&site.vnfci_url(), &rival.identities[role]).await.channel;
            let refused = call(channel, rpc, body()).await.expect_err(&format!("{role} was let into {rpc}"));
            assert!(is_refusal(&refused) || method == "Claim", "{role} {rpc}: {refused:?}");
        }
        // The bootstrap listener: a rival's initial credential claims and confirms nothing of the victim's.
        let initial = rival.ca.client("amf-0001");
        let channel = site.connect(&site.bootstrap_url(), &initial).await.channel;
        let answer = call(channel, rpc, body()).await;
        match method.as_str() {
            "Release" | "Renew" => assert_eq!(answer.unwrap_err().code(), Code::Unimplemented),
            "GetTrustChain" => {}
            _ => assert!(is_refusal(&answer.expect_err(rpc)), "{rpc}"),
        }
    }
    until_logged(&mut site, &attempts).await;

    // Nothing was changed by all this.
    let shown = site.vnfci("amf-0001").await;
    assert_eq!(shown.state(), proto::VnfciState::Active);
    assert_eq!((shown.credentials.len(), shown.credentials[0].certificate_state.as_str()), (1, "VALID"));
    let pools = PoolServiceClient::new(site.management("nfvo").await)
        .list_pools(proto::ListPoolsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .pools;
    assert_eq!(pools.len(), 1, "{pools:?}");
    // A list without a tenant is the caller's own.
    let channel = site.connect(&site.management_url(), &rival.identities["auditor"]).await.channel;
    let events = AuditServiceClient::new(channel)
        .list_events(proto::ListEventsRequest { page_size: 1_000, ..Default::default() })
        .await
        .unwrap()
        .into_inner()
        .events;
    assert!(!events.is_empty());
    for event in events {
        let event: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        assert_eq!(event["tenant"], "rival", "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_by_every_rpc_of_the_management_listener() {
    let (mut site, victim, rival, _) = two_tenants(false).await;
    let delivered = victim.claimed.keys[0].credential();
    let look_alike = SoftwareCa::new("keybroker root, token keybroker").client("operator");
    let strangers = BTreeMap::from([
        ("a certificate of an anchor, never registered", rival.ca.client("nfvo-rival")),
        ("a self-made look-alike of the operator", Credential::self_made("operator")),
        ("a look-alike of the operator by a look-alike of the root", look_alike),
        ("an expired certificate", Credential::self_made_of("operator", Shape::EXPIRED)),
        ("a VNFCI's delivered certificate", delivered),
    ]);
    let before = site.events("REFUSED").await.len();
    let mut calls = 0;
    for (who, credential) in &strangers {
        let channel = site.connect(&site.management_url(), credential).await.channel;
        for rpc in rpcs().iter().filter(|rpc| !rpc.starts_with("CredentialService")) {
            let body = attack(rpc, &victim).unwrap_or_else(|| panic!("{rpc} has no case in this test"));
            let refused = call(channel.clone(), rpc, body).await.expect_err(&format!("{who}: {rpc}"));
            assert_eq!(refused.code(), Code::Unauthenticated, "{who}: {rpc}: {refused:?}");
            assert!(is_refusal(&refused), "{who}: {rpc}: {refused:?}");
            calls += 1;
        }
    }
    site.until("every attempt in the audit log", async |site| {
        (site.events("REFUSED").await.len() >= before + calls).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vnfm_manages_only_the_vnf_instances_granted_to_it() {
    let mut site = Site::start().await;
    let nfvo = site.management("nfvo").await;
    create_pool(nfvo.clone(), "", "smf", OTHER_VNF, 2, None).await;
    site.full_pool(POOL, 2).await;
    let mut other = announcement("smf-0001", &[("transport", "smf")], token(), None);
    other.vnf_instance_id = OTHER_VNF.into();
    let announce = |vnfcis: Vec<proto::NewVnfci>| proto::RegisterVnfcisRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfcis,
    };
    let mut lifecycle = LifecycleServiceClient::new(nfvo.clone());
    let registered = lifecycle.register_vnfcis(announce(vec![other.clone()])).await.unwrap().into_inner();
    assert_eq!(registered.results[0].error, "");
    let granted = announcement("amf-0001", &SLOTS, token(), None);

    let vnfm = site.management("vnfm").await;
    let mut pools = PoolServiceClient::new(vnfm.clone());
    let mut lifecycle = LifecycleServiceClient::new(vnfm);
    let refused = |status: Status| assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let mut create = proto::CreatePoolRequest {
        request_id: request_id(),
        tenant: String::new(),
        name: "smf-more".into(),
        vnf_instance_id: OTHER_VNF.into(),
        vdu_id: "x".into(),
        profile: "vnfci-transport".into(),
        target: 1,
        refill_below: None,
    };
    refused(pools.create_pool(create.clone()).await.unwrap_err());
    let by_name = |name: &str| proto::GetPoolRequest { tenant: String::new(), name: name.into() };
    refused(pools.get_pool(by_name("smf")).await.unwrap_err());
    let delete =
        proto::DeletePoolRequest { request_id: request_id(), tenant: String::new(), name: "smf".into() };
    refused(pools.delete_pool(delete).await.unwrap_err());
    let by_id = |id: &str| proto::GetVnfciRequest { tenant: String::new(), vnfci_id: id.into() };
    refused(lifecycle.get_vnfci(by_id("smf-0001")).await.unwrap_err());
    let terminate = proto::TerminateVnfciRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfci_id: "smf-0001".into(),
        storage_wiped: true,
    };
    refused(lifecycle.terminate_vnfci(terminate).await.unwrap_err());
    let mut more = other;
    more.vnfci_id = "smf-0002".into();
    refused(lifecycle.register_vnfcis(announce(vec![more.clone()])).await.unwrap_err());
    // One item beyond its reach spoils the batch: what it may do, it asks for by itself.
    refused(lifecycle.register_vnfcis(announce(vec![granted.clone(), more])).await.unwrap_err());
    // Lists are cut down to what it manages.
    let listed = pools.list_pools(proto::ListPoolsRequest::default()).await.unwrap().into_inner().pools;
    assert_eq!(listed.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), [POOL]);
    let listed =
        lifecycle.list_vnfcis(proto::ListVnfcisRequest::default()).await.unwrap().into_inner().vnfcis;
    assert!(listed.iter().all(|vnfci| vnfci.vnf_instance_id == VNF), "{listed:?}");
    // And within it, it works.
    create.vnf_instance_id = VNF.into();
    create.name = "amf-more".into();
    create.request_id = request_id();
    pools.create_pool(create).await.unwrap();
    let done = lifecycle.register_vnfcis(announce(vec![granted])).await.unwrap().into_inner();
    assert_eq!(done.results[0].error, "");
    lifecycle.get_vnfci(by_id("amf-0001")).await.unwrap();
}

fn token() -> Kind {
    Kind::Token(proto::TokenInitialCredential {})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vnfci_acts_for_itself_only() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 3).await;
    let vnfcis = site.register(&["amf-0001", "amf-0002"], &SLOTS, By::Certificate).await;
    let one = vnfcis[0].boot(&site).await;
    let two = vnfcis[1].claim(&site).await.unwrap();
    let with_one = site.connect(&site.vnfci_url(), &one.keys[0].credential()).await.channel;
    let mut client = CredentialServiceClient::new(with_one);
    // With the right signatures, even: what counts is who calls.
    let confirm = proto::ConfirmRequest {
        request_id: request_id(),
        claim_id: two.response.claim_id.clone(),
        signatures: two.confirm_signatures(),
        token: None,
    };
    let refused = client.confirm(confirm.clone()).await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");
    // By the initial credential of another, too.
    let connection = vnfcis[0].connect(&site).await.unwrap();
    let refused = CredentialServiceClient::new(connection.channel).confirm(confirm).await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");
    assert!(vnfcis[1].confirm(&site, &two).await.unwrap());
    let release = proto::ReleaseRequest {
        request_id: request_id(),
        claim_id: two.response.claim_id.clone(),
        signatures: two.release_signatures(),
    };
    let refused = client.release(release).await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");
    assert_eq!(site.vnfci("amf-0002").await.state(), proto::VnfciState::Active);
    // A signature of another's key confirms nothing.
    let mut mixed = one.release_signatures();
    mixed[0].signature = two.release_signatures().remove(0).signature;
    let release = proto::ReleaseRequest {
        request_id: RequestId::generate().to_string(),
        claim_id: one.response.claim_id.clone(),
        signatures: mixed,
    };
    assert_eq!(client.release(release).await.unwrap_err().code(), Code::InvalidArgument);
    one.release(&site).await.unwrap();
    // What was released opens nothing any more, on open connections either.
    let refused = client.get_trust_chain(proto::GetTrustChainRequest {}).await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_identity_is_refused_at_once_on_its_open_connection() {
    let site = Site::start().await;
    let ca = SoftwareCa::new("MANO clients");
    let leaver = ca.client("leaver");
    site.add_identity("leaver", proto::Role::Nfvo, "default", &[], &leaver).await;
    let open = site.connect(&site.management_url(), &leaver).await.channel;
    let mut pools = PoolServiceClient::new(open);
    pools.list_pools(proto::ListPoolsRequest::default()).await.unwrap();
    site.remove_identity("leaver").await;
    let refused = pools.list_pools(proto::ListPoolsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_refused_from_its_certificates_expiry_on() {
    let mut site = Site::start().await;
    let ca = SoftwareCa::new("MANO clients");
    let identity = |credential: &Credential| proto::AddIdentityRequest {
        request_id: request_id(),
        identity: Some(proto::Identity {
            name: "late".into(),
            role: proto::Role::Nfvo.into(),
            tenant: "default".into(),
            certificate_der: credential.certificate_der().to_vec(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut admin = AdminServiceClient::new(site.management("operator").await);
    let refused = admin.add_identity(identity(&ca.issue("late", Shape::EXPIRED))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");

    let soon = ca.issue("late", Shape { lifetime: Some(4), ..Shape::default() });
    admin.add_identity(identity(&soon)).await.unwrap();
    let connection = connect(&site.management_url(), &site.tls(&soon)).await.unwrap();
    let mut pools = PoolServiceClient::new(connection.channel);
    pools.list_pools(proto::ListPoolsRequest::default()).await.unwrap();
    let refused = site
        .until("the refusal of an expired identity", async |_| {
            pools.list_pools(proto::ListPoolsRequest::default()).await.err()
        })
        .await;
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}
