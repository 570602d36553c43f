//! Goal: brokers on one database and one token lose nothing and do nothing twice when one of them is gone: killed, paused or
//! cut off from the network.
//! Method: two or three brokers in containers; VNFCIs claim at all of them. `support::settlement` looks at database, token and
//! log afterwards.

use crate::place::{LEASE, POOL, Place, SLOTS, kill, until_it_serves, until_ready};
use crate::support::mano::By;
use crate::support::settlement::{Held, assert_settled, count, query};
use crate::support::site::Site;
use crate::support::{PATIENCE, until};

/// Of the lease of a kind of work: its holder and its fencing number.
async fn lease(site: &Site, name: &str) -> (String, i64) {
    let sql = format!("SELECT holder, fence FROM leases WHERE name = '{name}'");
    let line = query(site, &sql).await.remove(0);
    let (holder, fence) = line.rsplit_once('|').unwrap();
    (holder.to_owned(), fence.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_go_on_where_one_of_three_brokers_is_killed_and_no_credential_has_two_holders() {
    let Some(mut place) = Place::start(3).await else { return };
    place.refilled_pool(30).await;
    let ids: Vec<String> = (0..60).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = place.site(0).register(&ids, &SLOTS, By::Certificate).await;
    let head_before = place.site_mut(0).export("before").await.join("head.json");

    let booting = place.boot(vnfcis);
    booting.until_confirmed(10).await;
    // The first one has had every lease since it started.
    kill(place.broker(0)).await;
    let held = booting.all().await;
    assert_eq!(held.keys(), ids.len() * SLOTS.len());
    // Production goes on by another one, and what the killed one had begun is settled without it.
    place.site_mut(1).until_available(POOL, 30).await;
    assert_settled(place.site_mut(1), &held, &[], &head_before).await;

    // It comes back as one of three.
    place.broker(0).start().await.unwrap();
    until_it_serves(place.site(0)).await;
    let vnfci = place.site(1).register_one("amf-late", &SLOTS, By::Token).await;
    vnfci.boot(place.site(0)).await;
}

/// The ways to be gone and to come back without having noticed.
#[derive(Clone, Copy, PartialEq)]
enum Gone {
    Paused,
    CutOff,
}

async fn gone_for_longer_than_its_leases(gone: Gone) {
    let Some(mut place) = Place::start(2).await else { return };
    place.refilled_pool(12).await;
    let ids: Vec<String> = (0..30).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = place.site(0).register(&ids, &SLOTS, By::Certificate).await;
    let head_before = place.site_mut(0).export("before").await.join("head.json");
    let before = lease(place.site(0), "producer").await;

    // In the middle of claims and of the production that they cause.
    let booting = place.boot(vnfcis);
    booting.until_confirmed(5).await;
    match gone {
        Gone::Paused => place.broker(0).pause().await.unwrap(),
        Gone::CutOff => place.cut_off(place.broker(0)).await,
    }
    let held = booting.all().await;
    assert_eq!(held.keys(), ids.len() * SLOTS.len());
    // What it holds in the database in the middle of a transaction is given up for it after a minute.
    let taken = until(PATIENCE + LEASE + LEASE, "the leases at the other one", async || {
        let now = lease(place.site(1), "producer").await;
        (now.0 != before.0).then_some(now)
    })
    .await;
    assert!(taken.1 > before.1, "{before:?}, then {taken:?}");
    place.site_mut(1).until_available(POOL, 12).await;
    let started = place.started_at().await;

    // Back, and in the belief that it is still at work.
    match gone {
        Gone::Paused => place.broker(0).unpause().await.unwrap(),
        Gone::CutOff => place.reconnect(place.broker(0)).await,
    }
    until_it_serves(place.site(0)).await;
    until_ready(place.site(0), true).await;
    place.site_mut(0).full_pool("after", 4).await;
    assert_eq!(lease(place.site(0), "producer").await, taken, "it took back what it had lost");
    let vnfci = place.site(0).register_one("amf-late", &SLOTS, By::Token).await;
    let mut held: Held = held;
    let claimed = vnfci.boot(place.site(0)).await;
    held.unsealed(&vnfci.id, &claimed);
    held.acknowledged(&claimed);
    place.site_mut(0).until_available(POOL, 12).await;

    // Production was by one at a time: every key that is there was produced and recorded once; one chain.
    assert_settled(place.site_mut(0), &held, &[], &head_before).await;
    let produced: usize = (place.site(0).events("KEYS_PRODUCED").await.iter())
        .map(|event| event["credentials"].as_array().unwrap().len())
        .sum();
    let recorded = count(place.site(0), "SELECT count(*) FROM credentials").await;
    assert_eq!(recorded, u64::try_from(produced).unwrap());
    assert_eq!(place.started_at().await, started, "it was started again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_paused_for_longer_than_its_leases_comes_back_fenced_and_does_nothing_twice() {
    gone_for_longer_than_its_leases(Gone::Paused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_cut_off_for_longer_than_its_leases_comes_back_fenced_and_does_nothing_twice() {
    gone_for_longer_than_its_leases(Gone::CutOff).await;
}
