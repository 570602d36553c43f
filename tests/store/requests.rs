//! Idempotency by request id.

use super::fixture::{DAY, Fixture, end, pool_named, request, silent, unaudited, vnfci_id};
use super::promises;
use keybroker::audit::event::{Actor, Event, EventKind};
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::HolderCopy;
use keybroker::nfv::RequestId;
use keybroker::store::records::{ConfirmOutcome, Pool, Quotas};
use keybroker::store::{Mutation, StoreError};
use std::sync::Arc;

promises![
    a_repeated_request_gets_the_first_outcome_without_change_or_event,
    a_request_id_with_another_body_is_refused,
    two_callers_may_use_the_same_id,
    a_request_that_failed_may_be_repeated,
    concurrent_repetitions_change_once,
    requests_are_forgotten_after_24_hours,
    claims_confirmations_and_releases_run_again,
];

fn create(f: &Fixture, name: &str) -> Pool {
    pool_named(&f.tenant, name, "vnf-1", f.now())
}

fn mutation<T>(f: &Fixture, caller: &str, id: RequestId, body: &str) -> Mutation<T> {
    let event = Event::new(f.now(), EventKind::PoolCreated, Actor(caller.into()));
    Mutation::new(move |_: &T| vec![event]).request(request(caller, id, body))
}

async fn a_repeated_request_gets_the_first_outcome_without_change_or_event(f: Fixture) {
    let id = RequestId::generate();
    let first = f
        .store
        .create_pool(create(&f, "p"), &Quotas::default(), mutation(&f, "mano", id, "p"))
        .await
        .unwrap();
    f.clock.advance(DAY / 2);
    let repeated = unaudited().request(request("mano", id, "p"));
    let again = f.store.create_pool(create(&f, "p"), &Quotas::default(), repeated).await.unwrap();
    assert_eq!(again, first, "with the first one's id and time");
    assert_eq!(f.events().await, 1);

    let id = RequestId::generate();
    let ask = || mutation(&f, "mano", id, "terminate");
    let ended = || end(DestructionReason::Terminated, HolderCopy::Unknown);
    f.register("a", &["s"]).await;
    let items = vec![(vnfci_id("a"), None), (vnfci_id("ghost"), None)];
    let first = f.store.terminate_vnfcis(&f.tenant, items.clone(), ended(), ask()).await.unwrap();
    let again = f.store.terminate_vnfcis(&f.tenant, items, ended(), ask()).await.unwrap();
    assert_eq!(again, first, "not 'was terminated before'");
}

async fn a_request_id_with_another_body_is_refused(f: Fixture) {
    let id = RequestId::generate();
    f.store.create_pool(create(&f, "p"), &Quotas::default(), mutation(&f, "mano", id, "p")).await.unwrap();
    let other = unaudited().request(request("mano", id, "q"));
    let error = f.store.create_pool(create(&f, "q"), &Quotas::default(), other).await.unwrap_err();
    assert_eq!(error, StoreError::RequestReused(id));
    assert!(f.store.pool(&f.tenant, &"q".parse().unwrap()).await.is_err());
}

async fn two_callers_may_use_the_same_id(f: Fixture) {
    let id = RequestId::generate();
    f.store.create_pool(create(&f, "p"), &Quotas::default(), mutation(&f, "mano-1", id, "p")).await.unwrap();
    f.store.create_pool(create(&f, "q"), &Quotas::default(), mutation(&f, "mano-2", id, "q")).await.unwrap();
    assert_eq!(f.events().await, 2);
}

async fn a_request_that_failed_may_be_repeated(f: Fixture) {
    let id = RequestId::generate();
    f.store.create_pool(create(&f, "p"), &Quotas::default(), silent()).await.unwrap();
    let ask = || mutation(&f, "mano", id, "p");
    let error = f.store.create_pool(create(&f, "p"), &Quotas::default(), ask()).await.unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists(_)), "{error}");
    f.store.delete_pool(&f.tenant, &"p".parse().unwrap(), silent()).await.unwrap();
    f.store.create_pool(create(&f, "p"), &Quotas::default(), ask()).await.unwrap();
}

async fn concurrent_repetitions_change_once(f: Fixture) {
    let id = RequestId::generate();
    let f = Arc::new(f);
    let callers: Vec<_> = (0..32)
        .map(|_| {
            let f = f.clone();
            tokio::spawn(async move {
                f.store
                    .create_pool(create(&f, "p"), &Quotas::default(), mutation(&f, "mano", id, "p"))
                    .await
                    .unwrap()
                    .id
            })
        })
        .collect();
    let mut ids = Vec::new();
    for caller in callers {
        ids.push(caller.await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(f.events().await, 1);
}

async fn requests_are_forgotten_after_24_hours(f: Fixture) {
    let id = RequestId::generate();
    f.store.create_pool(create(&f, "p"), &Quotas::default(), mutation(&f, "mano", id, "p")).await.unwrap();
    f.clock.advance(DAY);
    assert_eq!(f.store.forget_requests(f.now()).await.unwrap(), 0, "24 hours are kept");
    f.clock.advance(DAY / 1000);
    assert_eq!(f.store.forget_requests(f.now()).await.unwrap(), 1);
    let error = f
        .store
        .create_pool(create(&f, "p"), &Quotas::default(), mutation(&f, "mano", id, "p"))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists(_)), "{error}");
}

async fn claims_confirmations_and_releases_run_again(f: Fixture) {
    f.fill(1).await;
    let initial = f.register("a", &["s"]).await;
    let claim = f.claim(initial.id, 1).await;
    let (confirm, release) = (RequestId::generate(), RequestId::generate());
    let ask = || silent().request(request("vnfci:a", confirm, "confirm"));
    let first = f.store.confirm_claim(claim.id, ask()).await.unwrap();
    assert!(matches!(first, ConfirmOutcome::Confirmed { .. }));
    assert_eq!(f.store.confirm_claim(claim.id, ask()).await.unwrap(), ConfirmOutcome::AlreadyConfirmed);
    let ended = || end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    let ask = |body: &str| silent().request(request("vnfci:a", release, body));
    let first = f.store.release_claim(claim.id, ended(), ask("release")).await.unwrap();
    let again = f.store.release_claim(claim.id, ended(), ask("release")).await.unwrap();
    assert_eq!(again, first);
    let reused = f.store.release_claim(claim.id, ended(), ask("another")).await;
    assert_eq!(reused, Err(StoreError::RequestReused(release)));
}
