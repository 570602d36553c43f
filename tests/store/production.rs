//! Insertion, levels, erasure of what nobody claimed.

use super::fixture::{DAY, Fixture, audited, end, pool_named, silent, unaudited};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::{CertificateState, EpochChange, EpochState, HolderCopy, KeyState};
use keybroker::nfv::{CredentialId, EpochId, IssuerId, PoolId, Sha256Hash};
use keybroker::store::StoreError;
use keybroker::store::records::{CertificateSelector, NewCredential, Quotas};

promises![
    produced_credentials_are_available_or_wait_for_a_certificate,
    a_batch_with_one_bad_credential_leaves_nothing,
    no_two_credentials_share_a_public_key,
    an_issuer_uses_no_serial_number_twice,
    only_an_open_epoch_takes_keys,
    a_deleted_pool_takes_no_keys_and_loses_those_it_has,
    a_pool_is_resized_and_its_surplus_erased_to_the_number,
    a_pool_counts_what_was_ever_drawn,
    a_key_stays_in_its_tenant,
    aged_keys_are_erased_and_fresh_ones_left,
    a_certificate_is_found_by_fingerprint_and_by_serial_number,
];

async fn produced_credentials_are_available_or_wait_for_a_certificate(f: Fixture) {
    let mut credentials = f.produce(3);
    credentials[1].certificate = None;
    f.store.insert_credentials(credentials, audited()).await.unwrap();
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    assert_eq!((levels.available, levels.generated), (2, 1));
    let epoch = f.store.epochs(Some(&f.tenant), &[EpochState::Open]).await.unwrap().remove(0);
    assert_eq!((epoch.keys, epoch.live), (3, 3));
    assert_eq!(f.events().await, 1);
}

async fn rejected(f: &Fixture, credentials: Vec<NewCredential>) -> StoreError {
    let before = f.store.epochs(None, EpochState::ALL).await.unwrap();
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    let error = f.store.insert_credentials(credentials, unaudited()).await.unwrap_err();
    assert_eq!(f.store.epochs(None, EpochState::ALL).await.unwrap(), before);
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap(), levels);
    assert_eq!(f.events().await, 0);
    error
}

async fn a_batch_with_one_bad_credential_leaves_nothing(f: Fixture) {
    let mut credentials = f.produce(3);
    credentials[2].pool = PoolId::generate();
    let error = rejected(&f, credentials).await;
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
    let mut credentials = f.produce(2);
    credentials[1].certificate.as_mut().unwrap().issuer = IssuerId::generate();
    let error = rejected(&f, credentials).await;
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
}

async fn no_two_credentials_share_a_public_key(f: Fixture) {
    let first = f.produce(1);
    f.store.insert_credentials(first.clone(), silent()).await.unwrap();
    let mut credentials = f.produce(2);
    credentials[1].public_key = first[0].public_key;
    let error = rejected(&f, credentials).await;
    assert_eq!(error, StoreError::AlreadyExists("a credential with the same public key".into()));
}

async fn an_issuer_uses_no_serial_number_twice(f: Fixture) {
    let mut credentials = f.produce(2);
    let serial = credentials[0].certificate.as_ref().unwrap().serial.clone();
    credentials[1].certificate.as_mut().unwrap().serial = serial;
    let error = rejected(&f, credentials).await;
    let text = "a certificate of this issuer with the same serial number";
    assert_eq!(error, StoreError::AlreadyExists(text.into()));
}

async fn only_an_open_epoch_takes_keys(f: Fixture) {
    let second = EpochId::generate();
    let of = |epoch| vec![f.produce_one(f.pool.id, epoch)];
    assert!(matches!(rejected(&f, of(second)).await, StoreError::NotFound(_)));
    f.advance(f.epoch, EpochChange::Close).await;
    let conflict = |error: StoreError, state: &str| {
        assert!(matches!(&error, StoreError::Conflict(text) if text.contains(state)), "{error}");
    };
    conflict(rejected(&f, of(f.epoch)).await, "CLOSED");
    f.store.create_epoch(second, &f.tenant, silent()).await.unwrap();
    conflict(rejected(&f, of(second)).await, "CREATING");
    f.advance(f.epoch, EpochChange::Shred).await;
    conflict(rejected(&f, of(f.epoch)).await, "SHREDDING");
    f.advance(f.epoch, EpochChange::Verify).await;
    conflict(rejected(&f, of(f.epoch)).await, "DESTROYED");
    f.advance(second, EpochChange::Open).await;
    f.store.insert_credentials(of(second), silent()).await.unwrap();
}

async fn a_deleted_pool_takes_no_keys_and_loses_those_it_has(f: Fixture) {
    let mut credentials = f.produce(3);
    credentials[2].certificate = None;
    let ids: Vec<_> = credentials.iter().map(|c| c.id).collect();
    f.store.insert_credentials(credentials, silent()).await.unwrap();
    assert!(f.store.deleted_pools_with_keys().await.unwrap().is_empty());
    f.store.delete_pool(&f.tenant, &f.pool.name, silent()).await.unwrap();
    assert!(matches!(rejected(&f, f.produce(1)).await, StoreError::Conflict(_)));
    assert_eq!(f.store.deleted_pools_with_keys().await.unwrap(), std::slice::from_ref(&f.pool));

    let reduced = end(DestructionReason::PoolReduced, HolderCopy::NeverDelivered);
    let erase = async |limit, mutation| {
        f.store.erase_unclaimed(f.pool.id, None, reduced.clone(), limit, mutation).await.unwrap().keys.len()
    };
    assert_eq!((erase(2, audited()).await, erase(2, audited()).await), (2, 1));
    assert_eq!(erase(2, unaudited()).await, 0, "nothing erased, nothing audited");
    assert!(f.store.deleted_pools_with_keys().await.unwrap().is_empty());
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().destroyed, 3);
    let custody = f.store.custody(Some(&f.tenant), ids[0]).await.unwrap();
    assert_eq!((custody.key_state, custody.ended), (KeyState::Destroyed, Some((reduced.clone(), f.now()))));
    assert_eq!(custody.certificate_state, Some(CertificateState::Valid), "it retires by shredding");
    let epoch = f.store.epochs(None, &[EpochState::Open]).await.unwrap().remove(0);
    assert_eq!((epoch.live, epoch.first_erasure_at), (0, Some(f.now())));
}

async fn a_pool_is_resized_and_its_surplus_erased_to_the_number(f: Fixture) {
    f.fill(10).await;
    let resized =
        f.store.update_pool(&f.tenant, &f.pool.name, 4, 2, &Quotas::default(), audited()).await.unwrap();
    assert_eq!((resized.target, resized.refill_below, resized.id), (4, 2, f.pool.id));
    assert_eq!(f.store.pool(&f.tenant, &f.pool.name).await.unwrap(), resized);
    let reduced = end(DestructionReason::PoolReduced, HolderCopy::NeverDelivered);
    let erased = f.store.erase_unclaimed(f.pool.id, None, reduced, 6, audited()).await.unwrap();
    assert_eq!(erased.keys.len(), 6);
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    assert_eq!((levels.ready(resized.issue), levels.destroyed, levels.produced()), (4, 6, 10));
    let ghost = f
        .store
        .update_pool(&f.tenant, &"ghost".parse().unwrap(), 1, 1, &Quotas::default(), unaudited())
        .await;
    assert!(matches!(ghost, Err(StoreError::NotFound(_))));
}

async fn a_pool_counts_what_was_ever_drawn(f: Fixture) {
    f.fill(5).await;
    f.deliver("a", &["s", "t"]).await;
    let initial = f.register("b", &["s"]).await;
    let open = f.claim(initial.id, 1).await;
    let unconfirmed = end(DestructionReason::Unconfirmed, HolderCopy::Unknown);
    f.store.destroy_claim(open.id, unconfirmed, silent()).await.unwrap();
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    assert_eq!((levels.drawn, levels.delivered, levels.destroyed, levels.produced()), (3, 2, 1, 5));
}

async fn a_key_stays_in_its_tenant(f: Fixture) {
    let other = f.add_tenant("other").await;
    let pool = f
        .store
        .create_pool(pool_named(&other, "p", "vnf-1", f.now()), &Quotas::default(), silent())
        .await
        .unwrap();
    let error = rejected(&f, vec![f.produce_one(pool.id, f.epoch)]).await;
    assert!(matches!(error, StoreError::Conflict(_)), "{error}");
}

async fn aged_keys_are_erased_and_fresh_ones_left(f: Fixture) {
    let aged = f.fill(2).await;
    f.clock.advance(DAY);
    f.fill(2).await;
    let mut waiting = f.produce(1);
    waiting[0].certificate = None;
    f.store.insert_credentials(waiting, silent()).await.unwrap();
    f.clock.advance(DAY);
    let end = end(DestructionReason::Aged, HolderCopy::NeverDelivered);
    let erased = f.store.erase_unclaimed(f.pool.id, Some(f.now()), end.clone(), 10, audited()).await.unwrap();
    let mut ids: Vec<_> = erased.keys.iter().map(|k| k.id).collect();
    ids.sort();
    assert_eq!(ids, aged);
    assert!(erased.revoked.is_empty());
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    assert_eq!((levels.available, levels.aged, levels.generated, levels.destroyed), (2, 0, 1, 2));
    f.store.erase_unclaimed(f.pool.id, Some(f.now()), end, 10, unaudited()).await.unwrap();
}

async fn a_certificate_is_found_by_fingerprint_and_by_serial_number(f: Fixture) {
    let credential = f.produce(1).remove(0);
    let certificate = credential.certificate.clone().unwrap();
    f.store.insert_credentials(vec![credential.clone()], silent()).await.unwrap();
    let find = async || f.store.certificate_by_fingerprint(Sha256Hash::of(&certificate.der)).await.unwrap();
    let pooled = find().await.unwrap();
    assert_eq!((pooled.vnfci, pooled.claim, pooled.key_state), (None, None, KeyState::Available));
    assert_eq!((pooled.issuer, pooled.serial), (f.issuer, hex::encode(&certificate.serial)));
    assert_eq!((pooled.not_before, pooled.not_after), (certificate.not_before, certificate.not_after));
    let claim = f.deliver("a", &["s"]).await;
    let delivered = find().await.unwrap();
    assert_eq!(delivered.credential, claim.credentials[0].credential);
    assert_eq!((delivered.claim, delivered.vnfci.clone()), (Some(claim.id), Some(claim.vnfci.clone())));
    assert_eq!((delivered.key_state, delivered.state), (KeyState::Delivered, CertificateState::Valid));
    assert_eq!((delivered.tenant.clone(), delivered.vnf_instance.as_str()), (f.tenant.clone(), "vnf-1"));
    let other = "other".parse().unwrap();
    let serial = |issuer| CertificateSelector::Serial(issuer, certificate.serial.clone());
    let selectors = [
        serial(IssuerId::generate()),
        CertificateSelector::Vnfci("a".parse().unwrap()),
        serial(f.issuer),
        CertificateSelector::Credential(delivered.credential.id),
        CertificateSelector::Credential(CredentialId::generate()),
        CertificateSelector::Vnfci("b".parse().unwrap()),
    ];
    let selected = f.store.select_certificates(&f.tenant, &selectors).await.unwrap();
    let one = vec![delivered];
    assert_eq!(selected, [vec![], one.clone(), one.clone(), one, vec![], vec![]]);
    assert!(f.store.select_certificates(&other, &selectors).await.unwrap().iter().all(Vec::is_empty));
    assert_eq!(f.store.certificate_by_fingerprint(Sha256Hash::of(b"no")).await.unwrap(), None);
}
