//! Goal: a tenant has as much as its operator allows and no more; who is refused learns what is allowed, what is there and
//! what to do; what ends gives its place back.
//! Method: a tenant with small quotas, many callers at once, quotas lowered by SIGHUP.

use crate::support::mano::{By, announcement, pool_request, request_id};
use crate::support::site::{Options, Site};
use keybroker::api::proto;
use keybroker::api::proto::initial_credential::Kind;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use rustix::process::Signal;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

fn quotas(vnfcis: u32) -> String {
    format!("max_vnfcis = {vnfcis}\nmax_pools = 2\nmax_pooled_keys = 6\n")
}

async fn site() -> Site {
    let mut site = Site::start_with(Options { more_toml: quotas(3), ..Options::default() }).await;
    site.full_pool(POOL, 4).await;
    site
}

async fn register(site: &Site, ids: &[&str]) -> Result<Vec<proto::RegisterResult>, Status> {
    let announce = |id: &&str| announcement(id, &SLOTS, Kind::Token(proto::TokenInitialCredential {}), None);
    let request = proto::RegisterVnfcisRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfcis: ids.iter().map(announce).collect(),
    };
    let mut client = LifecycleServiceClient::new(site.management("nfvo").await);
    Ok(client.register_vnfcis(request).await?.into_inner().results)
}

/// Panics unless it was refused for this quota, with these numbers: limit, used, asked.
fn exceeded(status: &Status, quota: &str, numbers: [&str; 3]) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["quota"].as_str()), ("QUOTA_EXCEEDED", quota));
    assert_eq!(["limit", "used", "asked"].map(|name| info.metadata[name].as_str()), numbers);
    assert!(details.quota_failure().is_some() && details.retry_info().is_none(), "{status:?}");
    for told in [quota, "have an operator raise", "[tenant.default]"] {
        assert!(status.message().contains(told), "{status:?}");
    }
}

/// The tenant as `keybroker tenant show` has it.
async fn shown(site: &Site) -> Value {
    site.cli_as("operator", &["tenant", "show", "default"]).await.ok().object()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_no_more_than_its_quotas_and_is_told_what_it_has() {
    let mut site = site().await;
    // Pools and the keys that they keep ready.
    let mut pools = PoolServiceClient::new(site.management("nfvo").await);
    exceeded(
        &pools.create_pool(pool_request("second", 3)).await.unwrap_err(),
        "max_pooled_keys",
        ["6", "4", "3"],
    );
    pools.create_pool(pool_request("second", 1)).await.unwrap();
    exceeded(&pools.create_pool(pool_request("third", 1)).await.unwrap_err(), "max_pools", ["2", "2", "1"]);
    let resize = |target| proto::UpdatePoolRequest {
        request_id: request_id(),
        tenant: String::new(),
        name: "second".into(),
        target,
        refill_below: None,
    };
    exceeded(&pools.update_pool(resize(3)).await.unwrap_err(), "max_pooled_keys", ["6", "5", "2"]);
    pools.update_pool(resize(2)).await.unwrap();

    // VNFCIs: a batch that does not fit registers none; of many callers at once only as many as fit are served.
    assert_eq!(register(&site, &["a", "b"]).await.unwrap().len(), 2);
    exceeded(&register(&site, &["c", "d"]).await.unwrap_err(), "max_vnfcis", ["3", "2", "2"]);
    let ids: Vec<String> = (0..8).map(|n| format!("quick-{n}")).collect();
    let outcomes = futures_util::future::join_all(ids.iter().map(|id| {
        let site = &site;
        async move { register(site, &[id]).await }
    }))
    .await;
    let registered = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(registered, 1, "{outcomes:?}");
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        exceeded(refused, "max_vnfcis", ["3", "3", "1"]);
    }

    // The operator sees it, and so does whoever watches; the auditor sees who was refused.
    let tenant = shown(&site).await;
    for (name, number) in [
        ("vnfcis", 3),
        ("max_vnfcis", 3),
        ("pools", 2),
        ("max_pools", 2),
        ("pooled_keys", 6),
        ("max_pooled_keys", 6),
    ] {
        assert_eq!(tenant[name], number, "{name}: {tenant}");
    }
    site.until("the use in the metrics", async |site| {
        let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
        let line = |name: &str, value: u32| {
            let has = |line: &str| {
                line.starts_with(name)
                    && line.contains("quota=\"max_vnfcis\"")
                    && line.contains("tenant=\"default\"")
                    && line.ends_with(&format!(" {value}"))
            };
            metrics.lines().any(has)
        };
        (line("keybroker_quota_used", 3) && line("keybroker_quota_limit", 3)).then_some(())
    })
    .await;
    let refusal = site
        .until("the refusals in the audit log", async |site| {
            let of_quotas = |event: &Value| event["details"]["reason_code"] == "QUOTA_EXCEEDED";
            let events: Vec<_> = site.events("REFUSED").await.into_iter().filter(of_quotas).collect();
            (events.len() == 11).then(|| events[0].clone())
        })
        .await;
    assert_eq!(
        (&refusal["tenant"], &refusal["actor"]),
        (&"default".into(), &"nfvo:default/nfvo".into()),
        "{refusal}"
    );
    assert!(refusal["details"]["reason"].as_str().unwrap().contains("may have 6 pooled keys"), "{refusal}");

    // A command fails, it does not ask to be tried again later.
    let create =
        ["pool", "create", "more", "--vnf-instance", "amf-1", "--vdu", "amf-worker", "--target", "1"];
    let finished = site.cli_as("nfvo", &create).await;
    assert_eq!(finished.code, 1, "{}", finished.err);
    assert!(finished.err.contains("max_pools"), "{}", finished.err);

    // What ends gives its place back.
    site.terminate_vnfci("a").await;
    assert_eq!(register(&site, &["c"]).await.unwrap().len(), 1);
    exceeded(&register(&site, &["d"]).await.unwrap_err(), "max_vnfcis", ["3", "3", "1"]);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_quota_refuses_new_ones_only_and_doctor_says_so() {
    let mut site = site().await;
    let vnfci = site.register_one("a", &SLOTS, By::Certificate).await;
    site.register_one("b", &SLOTS, By::Certificate).await;
    site.options.more_toml = quotas(1);
    site.write_config();
    site.broker().signal(Signal::HUP);
    site.until("the lowered quota", async |site| (shown(site).await["max_vnfcis"] == 1).then_some(())).await;
    assert_eq!(shown(&site).await["vnfcis"], 2);
    exceeded(&register(&site, &["c"]).await.unwrap_err(), "max_vnfcis", ["1", "2", "1"]);
    // Who is there is served and re-armed as before.
    vnfci.boot(&site).await;
    let rearm = proto::RearmVnfcisRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnfcis: vec![proto::Rearming {
            vnfci_id: "b".into(),
            initial_credential: Some(proto::InitialCredential {
                kind: Some(Kind::Token(proto::TokenInitialCredential {})),
                ..Default::default()
            }),
        }],
    };
    let mut client = LifecycleServiceClient::new(site.management("nfvo").await);
    let rearmed = client.rearm_vnfcis(rearm).await.unwrap().into_inner();
    assert_eq!(rearmed.results[0].error, "");
    let config = site.config().display().to_string();
    let rows = site.cli(["doctor", "--config", &config]).await.objects();
    let said =
        |row: &&Value| row["check"] == "quotas of tenant default" && row["finding"] == "2 of max_vnfcis = 1";
    let row = rows.iter().find(said).unwrap_or_else(|| panic!("{rows:#?}"));
    assert_eq!(row["status"], "warn", "{row}");
    assert!(row["remedy"].as_str().unwrap().contains("more is refused"), "{row}");
    site.stop().await;
}
