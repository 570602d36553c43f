//! Goal: a credential goes to one VNFCI only, to one recipient key only, and only to who proves itself.
//! Method: VNFCIs in this process claim over new connections, many at once, again, with other keys, too late.

use crate::support::mano::By;
use crate::support::site::Site;
use std::collections::HashSet;
use tokio::task::JoinSet;

const SLOTS: [(&str, &str); 1] = [("transport", "amf-transport")];

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_goes_to_two_vnfcis_when_64_claim_at_once() {
    let mut site = Site::start().await;
    site.full_pool("amf-transport", 64).await;
    let ids: Vec<String> = (0..64).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let site = std::sync::Arc::new(site);
    let mut claims = JoinSet::new();
    for vnfci in vnfcis {
        let site = site.clone();
        claims.spawn(async move { vnfci.claim_patiently(&site).await });
    }
    let mut credentials = HashSet::new();
    let mut keys = HashSet::new();
    for claimed in claims.join_all().await {
        for key in claimed.keys {
            assert!(credentials.insert(key.credential_id.clone()), "{} twice", key.credential_id);
            assert!(keys.insert(key.facts.public_key), "a key twice");
        }
    }
    assert_eq!(credentials.len(), 64);
}
