//! Goal: a credential goes to one VNFCI only and is sealed to one recipient key only; what is not confirmed in time is
//! destroyed and never comes back.
//! Method: VNFCIs in this process claim over new connections: many at once, again, with other keys, too late, and
//! while the broker is away.

use crate::support::mano::By;
use crate::support::site::{Options, Site};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::Code;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
const TWO_SLOTS: [(&str, &str); 2] = [("client", POOL), ("server", POOL)];

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_goes_to_two_vnfcis_when_64_claim_at_once() {
    let mut site = Site::start().await;
    // More is claimed than is ready: production goes on during the storm.
    site.full_pool(POOL, 64).await;
    let ids: Vec<String> = (0..64).map(|n| format!("amf-{n:04}")).collect();
    let mut vnfcis = site.register(&ids[..32], &TWO_SLOTS, By::Certificate).await;
    vnfcis.extend(site.register(&ids[32..], &TWO_SLOTS, By::Token).await);
    let site = Arc::new(site);
    let mut claims = JoinSet::new();
    for vnfci in vnfcis {
        let site = Arc::clone(&site);
        claims.spawn(async move {
            let claimed = vnfci.claim_patiently(&site).await;
            assert!(vnfci.confirm(&site, &claimed).await.unwrap());
            claimed
        });
    }
    let mut credentials = HashSet::new();
    let mut keys = HashSet::new();
    for claimed in claims.join_all().await {
        assert_eq!(claimed.keys.len(), 2);
        for key in claimed.keys {
            assert!(
                keys.insert(key.facts.public_key),
                "the key of {} was given out twice",
                key.credential_id
            );
            assert!(
                credentials.insert(key.credential_id.clone()),
                "{} was given out twice",
                key.credential_id
            );
        }
    }
    assert_eq!(credentials.len(), 128);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_recipient_key_gets_the_same_credentials_again() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 4).await;
    let vnfci = site.register_one("amf-0001", &TWO_SLOTS, By::Certificate).await;
    let first = vnfci.claim(&site).await.unwrap();
    let before = site.levels(POOL).await;
    let again = vnfci.claim(&site).await.unwrap();
    assert_eq!(again.response.claim_id, first.response.claim_id);
    for (old, new) in first.keys.iter().zip(&again.keys) {
        assert_eq!((&old.slot, &old.certificate_der), (&new.slot, &new.certificate_der));
        assert_eq!(old.private_key, new.private_key);
    }
    let claimed = site.levels(POOL).await.claimed;
    assert_eq!(claimed, before.claimed, "the replay drew further credentials");
    assert!(vnfci.confirm(&site, &first).await.unwrap());
    assert!(!vnfci.confirm(&site, &again).await.unwrap(), "it was confirmed a second time");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_recipient_key_destroys_and_redraws_three_times_at_most() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 6).await;
    let mut vnfci = site.register_one("amf-0001", &SLOTS, By::Token).await;
    let mut seen = Vec::new();
    for attempt in 0..4 {
        let claimed = vnfci.claim_patiently(&site).await;
        let credential = claimed.keys[0].credential_id.clone();
        assert!(!seen.contains(&credential), "attempt {attempt} got {credential} again");
        seen.push(credential);
        vnfci = vnfci.rebooted();
    }
    let refused = vnfci.claim(&site).await.err().expect("a fifth recipient key is refused");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    let shown = site.vnfci("amf-0001").await;
    for credential in &shown.credentials {
        let last = credential.credential_id == seen[3];
        let (key, certificate) = (credential.key_state.as_str(), credential.certificate_state.as_str());
        if last {
            assert_eq!((key, certificate), ("CLAIMED", "VALID"));
        } else {
            assert_eq!(key, "DESTROYED", "{credential:?}");
            assert!(["REVOCATION_PENDING", "REVOKED"].contains(&certificate), "{credential:?}");
        }
    }
    assert_eq!(shown.credentials.len(), 4);
    let refusal = site
        .until("the refusal in the audit log", async |site| site.events("REFUSED").await.into_iter().next())
        .await;
    assert_eq!(refusal["vnfci"], "amf-0001", "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_claim_is_destroyed_at_its_deadline_and_never_restocked() {
    let mut site = Site::start_with(Options { confirm_deadline: "2s", ..Options::default() }).await;
    site.full_pool(POOL, 3).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let late = vnfci.claim(&site).await.unwrap();
    let credential = late.keys[0].credential_id.clone();
    site.until("the destruction of what was not confirmed", async |site| {
        let shown = site.vnfci("amf-0001").await;
        let one = shown.credentials.iter().find(|one| one.credential_id == credential)?;
        (one.key_state == "DESTROYED" && one.certificate_state == "REVOKED").then_some(())
    })
    .await;
    let refused = vnfci.confirm(&site, &late).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    // Whoever claims now gets another one, the late VNFCI itself included.
    let others = site.register(&["amf-0002", "amf-0003", "amf-0004"], &SLOTS, By::Certificate).await;
    for other in others.iter().chain([&vnfci]) {
        let claimed = other.claim_patiently(&site).await;
        assert_ne!(claimed.keys[0].credential_id, credential);
        assert!(other.confirm(&site, &claimed).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_does_not_run_while_the_broker_is_away() {
    let mut site = Site::start_with(Options { confirm_deadline: "4s", ..Options::default() }).await;
    site.full_pool(POOL, 2).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let claimed = vnfci.claim(&site).await.unwrap();
    let begun = Instant::now();
    site.kill();
    // The absence itself is what is tested: it must be longer than the deadline.
    tokio::time::sleep_until((begun + Duration::from_secs(6)).into()).await;
    site.serve().await;
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
}
