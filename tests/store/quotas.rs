//! What a tenant may have is never exceeded, and what ended gives its place back.

use super::fixture::{
    Fixture, audited, end, pool_named, postgres_options, request, silent, unaudited, vnfci_id,
};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::HolderCopy;
use keybroker::nfv::{InitialCredentialId, RequestId};
use keybroker::store::postgres::PostgresStore;
use keybroker::store::records::{
    CustodyEnd, InitialCredentialKind, NewVnfci, Pool, Quota, QuotaExceeded, Quotas, RearmOutcome, Rearming,
    RegisterOutcome,
};
use keybroker::store::{Mutation, Store, StoreError};
use std::sync::Arc;

promises![
    as_many_vnfcis_as_the_quota_and_no_more,
    what_ended_gives_its_place_back_and_a_rearming_takes_none_twice,
    a_released_vnfci_that_is_rearmed_needs_a_place_again,
    pools_and_their_targets_are_bounded,
    a_lowered_quota_refuses_new_ones_only,
    a_repeated_request_has_its_outcome_whatever_the_quota_is_by_now,
    one_tenants_use_is_not_anothers,
    nobody_exceeds_a_quota_by_being_quick,
];

fn vnfcis(most: u64) -> Quotas {
    Quotas { vnfcis: most, ..Quotas::default() }
}

fn some(f: &Fixture, ids: &[&str]) -> Vec<NewVnfci> {
    ids.iter().map(|id| f.vnfci(id, &["s"])).collect()
}

async fn used(f: &Fixture) -> Quotas {
    f.store.quotas_used().await.unwrap()[&f.tenant]
}

fn exceeded(error: StoreError) -> QuotaExceeded {
    match error {
        StoreError::QuotaExceeded(exceeded) => exceeded,
        other => panic!("not because of a quota: {other}"),
    }
}

fn rearming(f: &Fixture, id: &str) -> Rearming {
    Rearming {
        id: vnfci_id(id),
        vnf_instance: f.pool.vnf_instance.clone(),
        initial_credential: InitialCredentialId::generate(),
        kind: InitialCredentialKind::Token,
        expires_at: f.now().plus(super::fixture::DAY),
    }
}

fn ended() -> CustodyEnd {
    end(DestructionReason::Terminated, HolderCopy::Unknown)
}

async fn terminate(f: &Fixture, id: &str) {
    f.store.terminate_vnfcis(&f.tenant, vec![(vnfci_id(id), None)], ended(), silent()).await.unwrap();
}

async fn rearm(f: &Fixture, id: &str, most: u64) -> Result<Vec<RearmOutcome>, StoreError> {
    f.store.rearm_vnfcis(&f.tenant, vec![rearming(f, id)], &vnfcis(most), ended(), silent()).await
}

async fn as_many_vnfcis_as_the_quota_and_no_more(f: Fixture) {
    f.store.register_vnfcis(&f.tenant, some(&f, &["a", "b"]), &vnfcis(3), audited()).await.unwrap();
    // Two more are one too many: neither is registered, and nothing is told.
    let refused = f.store.register_vnfcis(&f.tenant, some(&f, &["c", "d"]), &vnfcis(3), unaudited()).await;
    let refused = exceeded(refused.unwrap_err());
    let expected =
        QuotaExceeded { tenant: f.tenant.clone(), quota: Quota::Vnfcis, limit: 3, used: 2, asked: 2 };
    assert_eq!(refused, expected);
    assert!(f.store.vnfci(&f.tenant, &vnfci_id("c")).await.is_err());
    assert_eq!(used(&f).await.vnfcis, 2);
    // What is refused for another reason needs no place.
    let batch = some(&f, &["a", "b", "c"]);
    let outcomes = f.store.register_vnfcis(&f.tenant, batch, &vnfcis(3), audited()).await.unwrap();
    assert!(matches!(
        &outcomes[..],
        [RegisterOutcome::Refused(_), RegisterOutcome::Refused(_), RegisterOutcome::Registered(_)]
    ));
    assert_eq!(used(&f).await.vnfcis, 3);
}

async fn what_ended_gives_its_place_back_and_a_rearming_takes_none_twice(f: Fixture) {
    f.store.register_vnfcis(&f.tenant, some(&f, &["a", "b"]), &vnfcis(2), silent()).await.unwrap();
    // In use and re-armed, they have the places that they had.
    let initial = f.store.vnfci(&f.tenant, &vnfci_id("a")).await.unwrap().initial_credential;
    f.fill(3).await;
    let claim = f.claim(initial.id, 1).await;
    f.confirm(claim.id).await;
    for id in ["a", "b"] {
        let outcomes = rearm(&f, id, 2).await.unwrap();
        assert!(matches!(outcomes[0], RearmOutcome::Rearmed { .. }), "{outcomes:?}");
    }
    assert_eq!(used(&f).await.vnfcis, 2);
    // Ended twice, one place is free.
    terminate(&f, "a").await;
    terminate(&f, "a").await;
    assert_eq!(used(&f).await.vnfcis, 1);
    f.store.register_vnfcis(&f.tenant, some(&f, &["c"]), &vnfcis(2), silent()).await.unwrap();
    let vnf = f.pool.vnf_instance.clone();
    f.store.terminate_vnf(&f.tenant, &vnf, 2, ended(), silent()).await.unwrap();
    assert_eq!(used(&f).await.vnfcis, 0);
}

async fn a_released_vnfci_that_is_rearmed_needs_a_place_again(f: Fixture) {
    f.fill(1).await;
    let claim = f.deliver("a", &["s"]).await;
    assert_eq!(used(&f).await.vnfcis, 1);
    f.store
        .release_claim(claim.id, end(DestructionReason::Released, HolderCopy::ReleasedSigned), silent())
        .await
        .unwrap();
    assert_eq!(used(&f).await.vnfcis, 0);
    f.register("b", &["s"]).await;
    let refused = exceeded(rearm(&f, "a", 1).await.unwrap_err());
    assert_eq!((refused.limit, refused.used, refused.asked), (1, 1, 1));
    rearm(&f, "a", 2).await.unwrap();
    // Registered again, a further arming takes no further place.
    rearm(&f, "a", 2).await.unwrap();
    assert_eq!(used(&f).await.vnfcis, 2);
}

async fn pools_and_their_targets_are_bounded(f: Fixture) {
    let of_fixture = u64::from(f.pool.target);
    let quotas = Quotas { pools: 2, pooled_keys: of_fixture + 10, ..Quotas::default() };
    let pool = |name: &str, target| Pool { target, ..pool_named(&f.tenant, name, "vnf-1", f.now()) };
    let create = async |name: &str, target| f.store.create_pool(pool(name, target), &quotas, silent()).await;
    let refused = exceeded(create("p", 11).await.unwrap_err());
    assert_eq!((refused.quota, refused.used, refused.asked), (Quota::PooledKeys, of_fixture, 11));
    create("p", 8).await.unwrap();
    let refused = exceeded(create("q", 1).await.unwrap_err());
    assert_eq!((refused.quota, refused.limit, refused.used), (Quota::Pools, 2, 2));
    let name = "p".parse().unwrap();
    let resize =
        async |target| f.store.update_pool(&f.tenant, &name, target, 1, &quotas, silent()).await.map(drop);
    resize(10).await.unwrap();
    let refused = exceeded(resize(11).await.unwrap_err());
    assert_eq!((refused.used, refused.asked), (of_fixture + 10, 1));
    assert_eq!(used(&f).await, Quotas { vnfcis: 0, pools: 2, pooled_keys: of_fixture + 10 });
    f.store.delete_pool(&f.tenant, &name, silent()).await.unwrap();
    assert_eq!(used(&f).await, Quotas { vnfcis: 0, pools: 1, pooled_keys: of_fixture });
    create("q", 10).await.unwrap();
}

async fn a_lowered_quota_refuses_new_ones_only(f: Fixture) {
    f.store.register_vnfcis(&f.tenant, some(&f, &["a", "b"]), &vnfcis(2), silent()).await.unwrap();
    let refused = f.store.register_vnfcis(&f.tenant, some(&f, &["c"]), &vnfcis(1), unaudited()).await;
    assert_eq!(exceeded(refused.unwrap_err()).used, 2);
    // What is there is claimed, re-armed and ended as ever.
    rearm(&f, "a", 1).await.unwrap();
    terminate(&f, "a").await;
    let none = Quotas { pools: 0, pooled_keys: 0, ..Quotas::default() };
    let lowered =
        f.store.update_pool(&f.tenant, &f.pool.name, f.pool.target - 1, 1, &none, silent()).await.unwrap();
    assert_eq!(lowered.target, f.pool.target - 1);
}

async fn a_repeated_request_has_its_outcome_whatever_the_quota_is_by_now(f: Fixture) {
    let id = RequestId::generate();
    let ask = async |most| {
        let mutation = Mutation::new(|_| Vec::new()).request(request("mano", id, "a"));
        f.store.register_vnfcis(&f.tenant, some(&f, &["a"]), &vnfcis(most), mutation).await
    };
    // Refused, it leaves nothing behind: the same request is made once there is room.
    exceeded(ask(0).await.unwrap_err());
    let first = ask(1).await.unwrap();
    assert!(matches!(first[..], [RegisterOutcome::Registered(_)]), "{first:?}");
    assert_eq!(ask(0).await.unwrap(), first);
    assert_eq!(used(&f).await.vnfcis, 1);
}

async fn one_tenants_use_is_not_anothers(f: Fixture) {
    let other = f.add_tenant("other").await;
    f.register("a", &["s"]).await;
    let all = f.store.quotas_used().await.unwrap();
    assert_eq!((all[&f.tenant].vnfcis, all[&f.tenant].pools), (1, 1));
    assert_eq!(all[&other], Quotas::NONE);
    f.store.remove_tenant(&other, silent()).await.unwrap();
    assert!(!f.store.quotas_used().await.unwrap().contains_key(&other));
}

/// Two stores on one database, as replicas have them, where the database allows it.
async fn nobody_exceeds_a_quota_by_being_quick(f: Fixture) {
    let mut stores = vec![Arc::clone(&f.store)];
    if let Some(database) = &f.database {
        let options = postgres_options(database);
        let second = PostgresStore::open(options, Some(f.clock.clone())).await.unwrap();
        stores.push(Arc::new(second));
    }
    let quotas = Quotas { vnfcis: 10, pools: 4, pooled_keys: 1_000 };
    let mut asked = tokio::task::JoinSet::new();
    for turn in 0..12 {
        let store: Arc<dyn Store> = Arc::clone(&stores[turn % stores.len()]);
        let tenant = f.tenant.clone();
        let ids: Vec<_> = (0..3).map(|n| format!("v{turn}-{n}")).collect();
        let batch = some(&f, &ids.iter().map(String::as_str).collect::<Vec<_>>());
        let pool = pool_named(&f.tenant, &format!("p{turn}"), "vnf-1", f.now());
        // One ends while others begin: a place that is given back late is never given twice.
        let last = vec![(vnfci_id(&ids[0]), None)];
        asked.spawn(async move {
            let created = store.create_pool(pool, &quotas, silent()).await;
            let registered = store.register_vnfcis(&tenant, batch, &quotas, silent()).await;
            let done = (created.is_ok(), registered.is_ok());
            for error in created.err().into_iter().chain(registered.err()) {
                exceeded(error);
            }
            if done.1 {
                store.terminate_vnfcis(&tenant, last, ended(), silent()).await.unwrap();
            }
            let used = store.quotas_used().await.unwrap()[&tenant];
            assert!(used.vnfcis <= 10 && used.pools <= 4, "{used:?}");
            done
        });
    }
    let done = asked.join_all().await;
    let (created, registered) =
        (done.iter().filter(|done| done.0).count(), done.iter().filter(|done| done.1).count());
    // Beside the fixture's pool there were places for three, and for three batches at least.
    assert_eq!(created, 3, "{done:?}");
    assert!(registered >= 3, "{done:?}");
    let expected = Quotas { vnfcis: 2 * registered as u64, pools: 4, ..used(&f).await };
    assert_eq!(used(&f).await, expected);
    assert!(expected.vnfcis <= 10);
    for store in stores.iter().skip(1) {
        store.close().await;
    }
}
