//! Leases, fencing, marks.

use super::fixture::{Fixture, MINUTE, audited, silent, unaudited};
use super::promises;
use keybroker::store::records::Lease;
use keybroker::store::{Mutation, StoreError};

promises![
    a_lease_has_one_holder_at_a_time,
    the_fencing_number_grows_with_every_change_of_holder,
    a_change_under_a_lost_lease_is_fenced_and_changes_nothing,
    a_lease_given_back_is_free_at_once,
    a_lease_that_is_not_ours_is_not_given_back,
    a_mark_keeps_its_last_value,
    a_store_that_can_be_written_to_says_so,
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
