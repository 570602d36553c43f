//! Goal: a claim that finds too little in a pool either has the rest made at once, or is told when to come again, as the
//! profile says; it never gets a part.
//! Method: pools that hold fewer credentials than the VNFCI has slots, so that every claim finds them empty.

use crate::support::mano::By;
use crate::support::site::Site;
use keybroker::api::client::describe;
use keybroker::api::proto;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use keybroker::nfv::RequestId;
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::Code;

/// The value of a counter of the broker, all its labels together.
async fn counter(site: &Site, name: &str) -> f64 {
    let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn generate_makes_what_the_slots_lack_during_the_claim() {
    const GENERATED: &str = "keybroker_credentials_generated_at_claim_total";
    let mut site = Site::start().await;
    site.add_profile("generate", "on_empty = \"GENERATE\"\nkey_type = \"EC_P384\"").await;
    site.create_pool_of("generate", "small", 1).await;
    site.until_available("small", 1).await;
    let slots = [("a", "small"), ("b", "small"), ("c", "small"), ("d", "small")];
    let vnfci = site.register_one("amf-0001", &slots, By::Token).await;
    assert!(counter(&site, GENERATED).await.abs() < f64::EPSILON);
    // At the first attempt: nothing is asked again.
    let claimed = vnfci.boot(&site).await;
    let keys: BTreeSet<_> = claimed.keys.iter().map(|key| key.facts.public_key.to_string()).collect();
    assert_eq!(keys.len(), 4);
    // The producer may have been quicker for one of them.
    assert!(counter(&site, GENERATED).await >= 2.0);
    site.until_available("small", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_says_when_to_come_again_and_draws_nothing() {
    let mut site = Site::start().await;
    site.add_profile("retry", "on_empty = \"RETRY\"").await;
    site.create_pool_of("retry", "small", 1).await;
    site.full_pool("large", 2).await;
    site.until_available("small", 1).await;
    let slots = [("a", "small"), ("b", "small"), ("c", "large")];
    let vnfci = site.register_one("amf-0001", &slots, By::Certificate).await;
    let mut waits = BTreeSet::new();
    for _ in 0..6 {
        let refused = vnfci.claim(&site).await.err().expect("there is one for two slots");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        let explained = describe(&refused);
        assert_eq!(explained.reason.as_deref(), Some("POOL_EMPTY"), "{refused:?}");
        let wait = explained.retry_after.expect("RetryInfo");
        assert!(wait >= Duration::from_millis(200) && wait <= Duration::from_secs(45), "{wait:?}");
        waits.insert(wait);
    }
    // A herd is sent away for different times.
    assert!(waits.len() >= 3, "no jitter: {waits:?}");
    for (pool, ready) in [("small", 1), ("large", 2)] {
        let levels = site.levels(pool).await;
        assert_eq!((levels.available, levels.claimed), (ready, 0), "{pool}");
    }
    // Once there is enough, the same VNFCI gets it.
    let update = proto::UpdatePoolRequest {
        request_id: RequestId::generate().to_string(),
        tenant: String::new(),
        name: "small".into(),
        target: 2,
        refill_below: Some(2),
    };
    PoolServiceClient::new(site.management("nfvo").await).update_pool(update).await.unwrap();
    let claimed = vnfci.claim_patiently(&site).await;
    assert_eq!(claimed.keys.len(), 3);
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
}

/// Found by the simulation: one is above a watermark of one, and too few for two slots, and stayed so for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_vnfci_with_more_slots_than_are_ready_is_served_although_the_pool_is_above_its_watermark() {
    let mut site = Site::start().await;
    site.add_profile("retry", "on_empty = \"RETRY\"").await;
    site.create_pool_of("retry", "pool", 4).await;
    site.until_available("pool", 4).await;
    let three =
        site.register_one("amf-0001", &[("a", "pool"), ("b", "pool"), ("c", "pool")], By::Token).await;
    three.boot(&site).await;
    assert_eq!(site.levels("pool").await.ready, 1, "a quarter of four is left and enough");
    let two = site.register_one("amf-0002", &[("a", "pool"), ("b", "pool")], By::Token).await;
    assert_eq!(two.claim_patiently(&site).await.keys.len(), 2);
    site.check();
}
