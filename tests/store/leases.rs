//! Leases, fencing, marks.

use super::fixture::{DAY, Fixture, MINUTE, audited, silent, unaudited};
use super::promises;
use keybroker::store::continuity::Standing;
use keybroker::store::records::{Lease, ORIGIN, PRESENCE, RECOVERY, ROLLED_BACK};
use keybroker::store::{Mutation, StoreError};

promises![
    a_lease_has_one_holder_at_a_time,
    the_fencing_number_grows_with_every_change_of_holder,
    a_change_under_a_lost_lease_is_fenced_and_changes_nothing,
    a_lease_given_back_is_free_at_once,
    a_lease_that_is_not_ours_is_not_given_back,
    a_mark_keeps_its_last_value,
    a_store_that_can_be_written_to_says_so,
    leases_that_are_held_are_listed,
    brokers_that_are_gone_for_a_day_are_forgotten_and_other_leases_are_not,
    a_process_whose_lease_another_one_took_changes_nothing_more,
    a_rollback_is_noted_only_of_the_log_that_it_was_found_of,
    what_delivers_is_made_on_no_other_log,
    what_delivers_is_not_made_during_a_recovery_nor_after_it,
];

async fn take(f: &Fixture, holder: &str) -> Option<Lease> {
    f.store.acquire_lease("producer", holder, MINUTE).await.unwrap()
}

async fn a_lease_has_one_holder_at_a_time(f: Fixture) {
    let lease = take(&f, "a").await.unwrap();
    assert_eq!((lease.name.as_str(), lease.holder.as_str()), ("producer", "a"));
    assert_eq!(take(&f, "b").await, None);
    assert!(f.store.acquire_lease("sweeper", "b", MINUTE).await.unwrap().is_some(), "another lease");
    f.clock.advance(MINUTE / 2);
    assert_eq!(take(&f, "a").await, Some(lease), "renewed");
    f.clock.advance(MINUTE / 2);
    assert_eq!(take(&f, "b").await, None, "the renewal counts from when it was made");
}

async fn the_fencing_number_grows_with_every_change_of_holder(f: Fixture) {
    let mut fences = Vec::new();
    for holder in ["a", "b", "a", "a"] {
        fences.push(take(&f, holder).await.unwrap().fence);
        f.clock.advance(MINUTE);
    }
    assert!(fences.windows(2).all(|pair| pair[0] < pair[1]), "{fences:?}: running out counts as a change");
}

async fn a_change_under_a_lost_lease_is_fenced_and_changes_nothing(f: Fixture) {
    let lease = take(&f, "a").await.unwrap();
    f.store.insert_credentials(f.produce(1), audited().lease(&lease)).await.unwrap();
    f.clock.advance(MINUTE);
    let fenced = Err(StoreError::Fenced("producer".into()));
    let after_running_out = unaudited().lease(&lease);
    assert_eq!(f.store.insert_credentials(f.produce(1), after_running_out).await, fenced);
    let taken = take(&f, "b").await.unwrap();
    assert_eq!(f.store.insert_credentials(f.produce(1), unaudited().lease(&lease)).await, fenced);
    let forged = Lease { fence: taken.fence, ..lease };
    assert_eq!(f.store.insert_credentials(f.produce(1), unaudited().lease(&forged)).await, fenced);
    f.store.insert_credentials(f.produce(1), silent().lease(&taken)).await.unwrap();
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().available, 2);
    assert_eq!(f.events().await, 1);
}

async fn a_lease_given_back_is_free_at_once(f: Fixture) {
    let lease = take(&f, "a").await.unwrap();
    f.store.release_lease(&lease).await.unwrap();
    let late: Mutation<()> = unaudited().lease(&lease);
    assert!(matches!(f.store.insert_credentials(f.produce(1), late).await, Err(StoreError::Fenced(_))));
    assert!(take(&f, "b").await.unwrap().fence > lease.fence);
}

async fn a_lease_that_is_not_ours_is_not_given_back(f: Fixture) {
    let old = take(&f, "a").await.unwrap();
    f.clock.advance(MINUTE);
    let new = take(&f, "b").await.unwrap();
    f.store.release_lease(&old).await.unwrap();
    f.store.release_lease(&Lease { name: "no such lease".into(), ..old }).await.unwrap();
    assert_eq!(take(&f, "a").await, None);
    assert_eq!(take(&f, "b").await, Some(new));
}

async fn a_mark_keeps_its_last_value(f: Fixture) {
    assert_eq!(f.store.mark("incarnation").await.unwrap(), None);
    for value in ["1", "2"] {
        f.store.set_mark("incarnation", value).await.unwrap();
        assert_eq!(f.store.mark("incarnation").await.unwrap().as_deref(), Some(value));
    }
}

async fn a_store_that_can_be_written_to_says_so(f: Fixture) {
    f.store.check().await.unwrap();
    assert_eq!(f.store.now().await.unwrap(), f.now());
}

async fn leases_that_are_held_are_listed(f: Fixture) {
    let names = async || {
        let held = f.store.held_leases().await.unwrap();
        held.into_iter().map(|lease| format!("{}:{}", lease.name, lease.holder)).collect::<Vec<_>>()
    };
    let lease = take(&f, "a").await.unwrap();
    f.store.acquire_lease("sweeper", "b", MINUTE / 2).await.unwrap();
    assert_eq!(names().await, ["producer:a", "sweeper:b"]);
    f.clock.advance(MINUTE / 2);
    assert_eq!(names().await, ["producer:a"]);
    f.store.release_lease(&lease).await.unwrap();
    assert!(names().await.is_empty());
}

async fn brokers_that_are_gone_for_a_day_are_forgotten_and_other_leases_are_not(f: Fixture) {
    let lease = take(&f, "a").await.unwrap();
    let presence = format!("{PRESENCE}a");
    let fence = async || f.store.acquire_lease(&presence, "a", MINUTE).await.unwrap().unwrap().fence;
    let first = fence().await;
    f.clock.advance(MINUTE);
    f.store.forget_requests(f.now()).await.unwrap();
    assert_eq!(fence().await, first + 1, "its row is there");
    f.clock.advance(DAY + MINUTE * 2);
    f.store.forget_requests(f.now()).await.unwrap();
    assert_eq!(fence().await, first, "a new row");
    assert!(take(&f, "b").await.unwrap().fence > lease.fence);
}

async fn a_process_whose_lease_another_one_took_changes_nothing_more(f: Fixture) {
    let lease = take(&f, "a").await.unwrap();
    f.store.continuity().work_under(Some((lease.clone(), MINUTE)));
    f.store.insert_credentials(f.produce(1), silent()).await.unwrap();
    f.store.insert_credentials(f.produce(1), silent().lease(&lease)).await.unwrap();
    f.clock.advance(MINUTE / 2);
    f.store.set_mark("mark", "renewed").await.unwrap();
    f.clock.advance(MINUTE / 2);
    assert_eq!(f.store.held_leases().await.unwrap(), std::slice::from_ref(&lease));
    // It ran out, and nobody wants it.
    f.clock.advance(MINUTE);
    f.store.insert_credentials(f.produce(1), silent().lease(&lease)).await.unwrap();
    f.store.set_mark("mark", "held").await.unwrap();
    // Another process takes it.
    f.clock.advance(MINUTE);
    f.store.continuity().work_under(None);
    take(&f, "b").await.unwrap();
    f.store.continuity().work_under(Some((lease.clone(), MINUTE)));
    let fenced = Err(StoreError::Fenced("producer".into()));
    assert_eq!(f.store.set_mark("mark", "lost").await, fenced);
    assert_eq!(f.store.append_events(vec![f.event()]).await, fenced);
    assert_eq!(f.store.insert_credentials(f.produce(1), unaudited()).await, fenced);
    // Nor is it taken back, even once it is free.
    f.clock.advance(MINUTE * 2);
    assert!(f.store.acquire_lease("producer", "a", MINUTE).await.is_err());
    f.store.continuity().work_under(None);
    assert_eq!(f.store.mark("mark").await.unwrap().as_deref(), Some("held"));
    f.store.set_mark("mark", "free").await.unwrap();
}

async fn a_rollback_is_noted_only_of_the_log_that_it_was_found_of(f: Fixture) {
    f.store.set_mark(ORIGIN, "keybroker/2").await.unwrap();
    f.store.note_rollback("keybroker/1", "of the log before").await.unwrap();
    assert_eq!(f.store.mark(ROLLED_BACK).await.unwrap(), None);
    f.store.note_rollback("keybroker/2", "of this one").await.unwrap();
    assert_eq!(f.store.mark(ROLLED_BACK).await.unwrap().as_deref(), Some("of this one"));
}

async fn deliver(f: &Fixture) -> Result<(), StoreError> {
    f.store.insert_credentials(f.produce(1), silent().delivering()).await
}

async fn what_delivers_is_made_on_no_other_log(f: Fixture) {
    f.store.set_mark(ORIGIN, "keybroker/2").await.unwrap();
    deliver(&f).await.unwrap();
    f.store.set_mark(ORIGIN, "keybroker/3").await.unwrap();
    assert!(matches!(deliver(&f).await, Err(StoreError::Changed(_))));
    assert!(matches!(f.store.continuity().standing(), Standing::Recovered(_)));
}

async fn what_delivers_is_not_made_during_a_recovery_nor_after_it(f: Fixture) {
    f.store.set_mark(ORIGIN, "keybroker/2").await.unwrap();
    deliver(&f).await.unwrap();
    f.store.set_mark(RECOVERY, "{}").await.unwrap();
    assert!(matches!(deliver(&f).await, Err(StoreError::RolledBack(_))));
    // It is done, and began a new log: that is what counts.
    f.store.set_mark(RECOVERY, "").await.unwrap();
    f.store.set_mark(ORIGIN, "keybroker/3").await.unwrap();
    f.store.look_back().await.unwrap();
    assert!(matches!(deliver(&f).await, Err(StoreError::Changed(_))));
}
