//! Events, chain, heads, queries.

use super::fixture::{Fixture, MINUTE, audited};
use super::promises;
use keybroker::audit::event::{Actor, Event, EventCredential, EventKind};
use keybroker::nfv::{CredentialId, Sha256Hash};
use keybroker::store::records::{AuditQuery, ChainTip};
use keybroker::store::{Mutation, StoreError};
use std::sync::Arc;

promises![
    events_wait_in_commit_order_with_their_exact_text,
    the_chain_grows_by_compare_and_swap,
    no_event_is_chained_twice_or_skipped,
    two_sequencers_do_not_both_extend_the_chain,
    the_latest_head_is_the_one_of_the_greatest_size,
    a_change_and_its_events_commit_together,
    a_change_whose_events_panic_leaves_nothing_and_the_store_works_on,
    entries_are_found_by_every_filter,
    a_keys_whole_history_is_found_by_its_hash,
];

const EVERYTHING: AuditQuery = AuditQuery {
    from_index: 0,
    limit: 1_000,
    tenant: None,
    vnfci: None,
    public_key: None,
    actor: None,
    kind: None,
    since: None,
    until: None,
};

async fn events_wait_in_commit_order_with_their_exact_text(f: Fixture) {
    let events: Vec<_> = (0..5).map(|_| f.event()).collect();
    f.store.append_events(events[..2].to_vec()).await.unwrap();
    f.store.append_events(Vec::new()).await.unwrap();
    f.store.append_events(events[2..].to_vec()).await.unwrap();
    let (waiting, count) = f.store.unchained_events(3).await.unwrap();
    assert_eq!(count, 5);
    assert_eq!(waiting.iter().map(|e| e.event.clone()).collect::<Vec<_>>(), events[..3]);
    assert_eq!(waiting[0].json, serde_json::to_string(&events[0]).unwrap());
}

async fn the_chain_grows_by_compare_and_swap(f: Fixture) {
    let empty = ChainTip { size: 0, hash: None };
    assert_eq!(f.store.chain_tip().await.unwrap(), empty);
    let events = [f.event(), f.event()];
    f.store.append_events(events.to_vec()).await.unwrap();
    let entry = |n: usize| (events[n].id, Sha256Hash::of(&[u8::try_from(n).unwrap()]));
    f.store.chain_events(&empty, vec![entry(0)]).await.unwrap();
    let tip = f.store.chain_tip().await.unwrap();
    assert_eq!(tip, ChainTip { size: 1, hash: Some(entry(0).1) });
    for stale in [empty, ChainTip { size: 1, hash: Some(Sha256Hash::of(b"other")) }] {
        let error = f.store.chain_events(&stale, vec![entry(1)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    }
    f.store.chain_events(&tip, vec![entry(1)]).await.unwrap();
    assert_eq!(f.store.unchained_events(10).await.unwrap(), (Vec::new(), 0));
    let entries = f.store.audit_entries(&EVERYTHING).await.unwrap();
    assert_eq!(
        entries.iter().map(|e| (e.index, e.hash)).collect::<Vec<_>>(),
        [(0, entry(0).1), (1, entry(1).1)]
    );
}

async fn no_event_is_chained_twice_or_skipped(f: Fixture) {
    let events = [f.event(), f.event(), f.event()];
    f.store.append_events(events.to_vec()).await.unwrap();
    let entry = |n: usize| (events[n].id, Sha256Hash::of(b"x"));
    let tip = f.store.chain_tip().await.unwrap();
    for entries in [vec![entry(1)], vec![entry(0), entry(2)], vec![entry(0), entry(0)]] {
        let error = f.store.chain_events(&tip, entries).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    }
    assert_eq!(f.store.chain_tip().await.unwrap(), tip);
    f.store.chain_events(&tip, vec![entry(0), entry(1), entry(2)]).await.unwrap();
}

async fn two_sequencers_do_not_both_extend_the_chain(f: Fixture) {
    f.store.append_events((0..100).map(|_| f.event()).collect()).await.unwrap();
    let f = Arc::new(f);
    let sequencers: Vec<_> = (0..2)
        .map(|_| {
            let f = f.clone();
            tokio::spawn(async move {
                loop {
                    let tip = f.store.chain_tip().await.unwrap();
                    let (events, _) = f.store.unchained_events(7).await.unwrap();
                    if events.is_empty() {
                        return;
                    }
                    let entries = events.iter().map(|e| (e.event.id, Sha256Hash::of(b"x"))).collect();
                    match f.store.chain_events(&tip, entries).await {
                        Ok(()) | Err(StoreError::Conflict(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for sequencer in sequencers {
        sequencer.await.unwrap();
    }
    let entries = f.store.audit_entries(&EVERYTHING).await.unwrap();
    assert_eq!(entries.len(), 100);
    assert!(entries.iter().enumerate().all(|(n, e)| e.index == n as u64));
}

async fn the_latest_head_is_the_one_of_the_greatest_size(f: Fixture) {
    assert_eq!(f.store.latest_head().await.unwrap(), None);
    f.store.append_events((0..9).map(|_| f.event()).collect()).await.unwrap();
    f.chain_all().await;
    let entries = f.store.audit_entries(&EVERYTHING).await.unwrap();
    for (size, head) in [(3, "three"), (9, "nine"), (5, "five"), (9, "nine again")] {
        let signed = ChainTip { size, hash: Some(entries[usize::try_from(size).unwrap() - 1].hash) };
        f.store.record_head(&signed, head.into()).await.unwrap();
    }
    assert_eq!(f.store.latest_head().await.unwrap().as_deref(), Some("nine again"));
}

async fn a_change_and_its_events_commit_together(f: Fixture) {
    let twice = f.event();
    let mutation = |event: &Event| {
        let event = event.clone();
        Mutation::new(move |()| vec![event])
    };
    f.store.insert_credentials(f.produce(1), mutation(&twice)).await.unwrap();
    // The event's id exists: the event cannot be written, so the keys are not either.
    let error = f.store.insert_credentials(f.produce(1), mutation(&twice)).await.unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists(_)), "{error}");
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().available, 1);
    assert_eq!(f.events().await, 1);
}

async fn a_change_whose_events_panic_leaves_nothing_and_the_store_works_on(f: Fixture) {
    f.fill(2).await;
    let initial = f.register("a", &["s"]).await;
    let f = Arc::new(f);
    // Others share the commit with the one that panics.
    let others: Vec<_> = (0..20)
        .map(|n| {
            let f = f.clone();
            tokio::spawn(async move {
                f.store.set_mark(&format!("mark-{n}"), "set").await.unwrap();
                f.store.append_events(vec![f.event()]).await.unwrap();
            })
        })
        .collect();
    let panicking = Mutation::new(|_| panic!("a bug in an events closure"));
    let error =
        f.store.reserve_claim(f.claim_request(initial.id, 1), f.intend(), panicking).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(f.events().await, 20);
    assert_eq!(f.store.mark("mark-19").await.unwrap().as_deref(), Some("set"));
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().claimed, 0);
    f.claim(initial.id, 1).await;
}

async fn entries_are_found_by_every_filter(f: Fixture) {
    let start = f.now();
    let other = f.add_tenant("other").await;
    let mut events = Vec::new();
    for n in 0..4_u8 {
        let kind = if n % 2 == 0 { EventKind::Claimed } else { EventKind::Confirmed };
        let tenant = if n < 2 { &f.tenant } else { &other };
        let vnfci = format!("v-{n}").parse().unwrap();
        events.push(Event::new(f.now(), kind, Actor(format!("vnfci:v-{n}"))).tenant(tenant).vnfci(&vnfci));
        f.clock.advance(MINUTE);
    }
    f.store.append_events(events).await.unwrap();
    assert!(f.store.audit_entries(&EVERYTHING).await.unwrap().is_empty(), "only what is chained is shown");
    assert_eq!(f.chain_all().await.size, 4);
    let find = async |query: AuditQuery| -> Vec<u64> {
        f.store.audit_entries(&query).await.unwrap().iter().map(|e| e.index).collect()
    };
    let all = || EVERYTHING.clone();
    assert_eq!(find(all()).await, [0, 1, 2, 3]);
    assert_eq!(find(AuditQuery { from_index: 2, ..all() }).await, [2, 3]);
    assert_eq!(find(AuditQuery { limit: 1, ..all() }).await, [0]);
    assert_eq!(find(AuditQuery { tenant: Some(f.tenant.clone()), ..all() }).await, [0, 1]);
    assert_eq!(find(AuditQuery { vnfci: Some("v-3".parse().unwrap()), ..all() }).await, [3]);
    assert_eq!(find(AuditQuery { actor: Some("vnfci:v-1".into()), ..all() }).await, [1]);
    assert_eq!(find(AuditQuery { kind: Some(EventKind::Confirmed), ..all() }).await, [1, 3]);
    assert_eq!(find(AuditQuery { since: Some(start.plus(MINUTE)), ..all() }).await, [1, 2, 3]);
    assert_eq!(find(AuditQuery { until: Some(start.plus(MINUTE)), ..all() }).await, [0]);
    let both = AuditQuery { tenant: Some(other), kind: Some(EventKind::Claimed), ..all() };
    assert_eq!(find(both).await, [2]);
}

async fn a_keys_whole_history_is_found_by_its_hash(f: Fixture) {
    // More keys in one event than fit one statement, and one key named twice in one event.
    let keys: Vec<_> = (0..1_100_u32)
        .map(|n| EventCredential {
            id: CredentialId::generate(),
            public_key: Sha256Hash::of(&n.to_be_bytes()),
        })
        .collect();
    let produced = f.event().credentials(keys.clone());
    let claimed = f.event().credentials([keys[1_099].clone(), keys[1_099].clone()]);
    f.store.insert_credentials(f.produce(1), audited()).await.unwrap();
    f.store.append_events(vec![produced, claimed]).await.unwrap();
    f.chain_all().await;
    let find = async |n: usize| -> Vec<u64> {
        let query = AuditQuery { public_key: Some(keys[n].public_key), ..EVERYTHING };
        f.store.audit_entries(&query).await.unwrap().iter().map(|e| e.index).collect()
    };
    assert_eq!(find(0).await, [1]);
    assert_eq!(find(1_099).await, [1, 2]);
}
