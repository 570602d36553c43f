//! Goal: while brokers cannot reach their database they say so, and go on by themselves when they can; a database that dies in
//! the middle of claims takes nothing with it.
//! Method: two brokers in containers; the database's container is cut off from the network, paused, killed.

use crate::place::{POOL, Place, SLOTS, kill, until_ready};
use crate::support::mano::{By, http_exchange};
use crate::support::settlement::assert_settled;
use crate::support::site::Site;
use crate::support::vnfci::Vnfci;
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn assert_says_that_the_store_is_away(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let reason = status.get_details_error_info().map(|info| info.reason);
    assert_eq!(reason.as_deref(), Some("STORE_UNAVAILABLE"), "{status:?}");
}

/// A broker whose database does not answer refuses a claim by name and in bounded time, is not ready, and lives.
async fn assert_fails_closed(site: &Site, vnfci: &Vnfci) {
    let asked = Instant::now();
    assert_says_that_the_store_is_away(&vnfci.claim(site).await.err().expect("a refusal"));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    until_ready(site, false).await;
    let (head, _) = http_exchange(&format!("http://{}/healthz", site.addresses.admin)).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_whose_database_is_cut_off_or_paused_refuse_by_name_and_recover_without_a_restart() {
    let Some(mut place) = Place::start(2).await else { return };
    place.refilled_pool(10).await;
    let ids: Vec<String> = (0..8).map(|n| format!("amf-{n:04}")).collect();
    let mut vnfcis = place.site(0).register(&ids, &SLOTS, By::Certificate).await;
    let head_before = place.site_mut(0).export("before").await.join("head.json");
    let started = place.started_at().await;
    let (cut_off, paused) = (vnfcis.split_off(4), vnfcis);

    // Its name leads nowhere, its packets are lost; no connection is closed.
    place.cut_off(&place.database).await;
    tokio::join!(
        assert_fails_closed(place.site(0), &cut_off[0]),
        assert_fails_closed(place.site(1), &cut_off[1])
    );
    place.reconnect(&place.database).await;
    let mut held = place.boot(cut_off).all().await;
    for broker in 0..2 {
        until_ready(place.site(broker), true).await;
    }

    // Connections are made for it by its kernel, and nobody answers.
    place.database.pause().await.unwrap();
    tokio::join!(
        assert_fails_closed(place.site(0), &paused[0]),
        assert_fails_closed(place.site(1), &paused[1])
    );
    place.database.unpause().await.unwrap();
    held.join(place.boot(paused).all().await);
    for broker in 0..2 {
        until_ready(place.site(broker), true).await;
    }

    assert_eq!(held.keys(), ids.len() * SLOTS.len());
    assert_eq!(place.started_at().await, started, "a broker was started again");
    place.site_mut(0).until_available(POOL, 10).await;
    assert_settled(place.site_mut(0), &held, &[], &head_before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_killed_in_the_middle_of_claims_and_started_again_has_lost_nothing() {
    let Some(mut place) = Place::start(2).await else { return };
    place.refilled_pool(20).await;
    let ids: Vec<String> = (0..40).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = place.site(0).register(&ids, &SLOTS, By::Certificate).await;
    let head_before = place.site_mut(0).export("before").await.join("head.json");
    let started = place.started_at().await;

    let booting = place.boot(vnfcis);
    booting.until_confirmed(8).await;
    kill(&place.database).await;
    for broker in 0..2 {
        until_ready(place.site(broker), false).await;
    }
    assert!(booting.confirmed() < ids.len(), "all was done before the database died");
    place.database.start().await.unwrap();
    let held = booting.all().await;
    assert_eq!(held.keys(), ids.len() * SLOTS.len());

    for broker in 0..2 {
        until_ready(place.site(broker), true).await;
    }
    assert_eq!(place.started_at().await, started, "a broker was started again");
    place.site_mut(1).until_available(POOL, 20).await;
    assert_settled(place.site_mut(1), &held, &[], &head_before).await;
}
