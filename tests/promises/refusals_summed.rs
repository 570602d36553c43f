//! Goal: whoever is refused does not decide how fast the log grows, and none of its refusals goes uncounted.
//! Method: a stranger with certificates of its own floods the listeners, a known caller asks for what it may not; after a
//! clean stop and after a SIGKILL the rows of the log are counted.

use crate::support::ca::Credential;
use crate::support::mano::{By, request_id};
use crate::support::site::{Options, Site};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::nfv::RequestId;
use serde_json::Value;
use std::collections::BTreeMap;
use tonic::Code;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
/// Recorded one by one: of one source, of all together.
const LIMITS: (u32, u32) = (5, 20);

async fn site() -> Site {
    Site::start_with(Options { refusals: LIMITS, ..Options::default() }).await
}

/// Management calls of a stranger with a certificate of its own: refused, each for `IDENTITY_UNKNOWN`.
async fn foreign_certificates(site: &Site, calls: usize) {
    let channel = site.connect(&site.management_url(), &Credential::self_made("stranger")).await.channel;
    let mut client = AdminServiceClient::new(channel);
    for _ in 0..calls {
        let refused = client.list_tenants(proto::ListTenantsRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    }
}

/// Claims of a stranger by a certificate that leads nowhere: refused, each for one reason.
async fn foreign_claims(site: &Site, calls: usize) {
    let vnfci = site.register_one("amf-1", &SLOTS, By::Certificate).await;
    let connection = site.connect(&site.bootstrap_url(), &Credential::self_made("stranger")).await;
    let mut client = CredentialServiceClient::new(connection.channel.clone());
    for _ in 0..calls {
        let request = vnfci.claim_request(&connection, RequestId::generate());
        let refused = client.claim(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    }
}

/// What an NFVO may not do.
async fn denied(site: &Site, calls: usize) {
    let mut client = AdminServiceClient::new(site.management("nfvo").await);
    for _ in 0..calls {
        let request = proto::RemoveTenantRequest { request_id: request_id(), tenant: "default".into() };
        assert_eq!(client.remove_tenant(request).await.unwrap_err().code(), Code::PermissionDenied);
    }
}

/// Refusals by reason: recorded one by one, and summed.
fn by_reason(singly: &[Value], summed: &[Value]) -> BTreeMap<String, (u64, u64)> {
    let mut found: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for event in singly {
        found.entry(text(&event["details"]["reason_code"])).or_default().0 += 1;
    }
    for event in summed {
        let sums = event["details"]["sums"].as_array().unwrap();
        let of = |sum: &Value| sum["refusals"].as_u64().unwrap();
        assert_eq!(event["details"]["refusals"], sums.iter().map(of).sum::<u64>(), "{event}");
        assert!(event["details"]["since"].as_i64() <= event["details"]["until"].as_i64(), "{event}");
        assert_eq!(event["actor"], "broker");
        for sum in sums {
            found.entry(text(&sum["reason_code"])).or_default().1 += of(sum);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_makes_a_bounded_number_of_rows_whose_sum_is_exact() {
    let mut site = site().await;
    site.full_pool(POOL, 1).await;
    foreign_certificates(&site, 100).await;
    foreign_certificates(&site, 100).await;
    foreign_claims(&site, 50).await;
    denied(&site, 30).await;
    let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
    let counted = |line: &&str| {
        line.starts_with("keybroker_refusals_total")
            && line.contains("summed")
            && line.contains("NOT_AUTHORISED")
    };
    assert!(metrics.lines().find(counted).is_some_and(|line| line.ends_with(" 25")), "{metrics}");
    site.stop().await;
    site.serve().await;
    let (singly, summed) = (site.events("REFUSED").await, site.events("REFUSALS_SUMMED").await);
    let found = by_reason(&singly, &summed);
    assert_eq!(found["NOT_AUTHORISED"], (5, 25), "{found:?}");
    // The first 5 of the source, then the first for the other reason only.
    assert_eq!(found["IDENTITY_UNKNOWN"], (5, 195), "{found:?}");
    let claims = found.iter().find(|(code, _)| code.starts_with("CERTIFICATE")).unwrap().1;
    assert_eq!(*claims, (1, 49), "{found:?}");
    assert_eq!(found.len(), 3, "{found:?}");
    // The first one says everything; the sum is the tenant's auditor's where a tenant is concerned.
    assert!(singly[0]["details"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", singly[0]);
    let of_tenant: Vec<_> = summed.iter().filter(|event| event["tenant"] == "default").collect();
    assert!(
        of_tenant.iter().any(|event| event["details"]["sums"][0]["source"] == "nfvo:default/nfvo"),
        "{summed:?}"
    );
    assert!(summed.iter().any(|event| event["details"]["sums"][0]["source"] == "127.0.0.1"), "{summed:?}");
    let export = site.export("flooded").await;
    assert_eq!(site.verify(&export, &[]).await.ok().object()["verified"], true);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_the_sums_of_one_interval_at_most_and_no_refusal_that_was_recorded() {
    let mut site = site().await;
    foreign_certificates(&site, 30).await;
    site.kill();
    site.serve().await;
    // It counts anew: what begins now is recorded one by one again.
    foreign_certificates(&site, 30).await;
    site.stop().await;
    site.serve().await;
    let (singly, summed) = (site.events("REFUSED").await, site.events("REFUSALS_SUMMED").await);
    let (singly, summed) = by_reason(&singly, &summed)["IDENTITY_UNKNOWN"];
    assert_eq!(singly, 10);
    // Those that the second one counted are there; of the first's, all or none: an interval may have ended before.
    assert!((25..=50).contains(&summed), "{summed}");
    let export = site.export("killed").await;
    assert_eq!(site.verify(&export, &[]).await.ok().object()["verified"], true);
    site.stop().await;
}
