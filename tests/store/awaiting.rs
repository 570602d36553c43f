//! Keys that wait for the certificate of a CA outside of the broker.

use super::fixture::{Fixture, audited, end};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::HolderCopy;
use keybroker::nfv::{CredentialId, Sha256Hash};
use keybroker::store::records::{NewCredential, NewRequest};

promises![
    keys_wait_with_their_requests_until_they_are_certified,
    keys_whose_requests_were_made_for_something_else_are_erased,
];

/// Keys with requests for a basis, not inserted.
fn waiting(f: &Fixture, count: usize, basis: &[u8]) -> Vec<NewCredential> {
    let request = |key: &NewCredential| NewRequest {
        der: [b"request of ", key.id.0.as_bytes().as_slice()].concat(),
        basis: Sha256Hash::of(basis),
    };
    let keys = f.produce(count).into_iter();
    keys.map(|key| NewCredential { request: Some(request(&key)), certificate: None, ..key }).collect()
}

async fn ids(f: &Fixture, after: Option<CredentialId>, limit: u32) -> Vec<CredentialId> {
    let keys = f.store.awaiting_keys(f.pool.id, after, limit).await.unwrap();
    keys.into_iter().map(|key| key.credential).collect()
}

async fn keys_wait_with_their_requests_until_they_are_certified(f: Fixture) {
    let certified = f.produce(4);
    let keys = waiting(&f, 3, b"now");
    let inserted: Vec<_> = keys.iter().map(|key| key.id).collect();
    f.store.insert_credentials(keys.clone(), audited()).await.unwrap();
    // A key without a request waits for a claim and not for a CA.
    f.store
        .insert_credentials(vec![NewCredential { certificate: None, ..f.produce(1).remove(0) }], audited())
        .await
        .unwrap();
    let first = f.store.awaiting_keys(f.pool.id, None, 1).await.unwrap().remove(0);
    assert_eq!((first.credential, &first.public_key_der), (keys[0].id, &keys[0].public_key_der));
    assert_eq!(first.request_der, keys[0].request.as_ref().unwrap().der);
    assert_eq!(ids(&f, None, 10).await, inserted);
    assert_eq!(ids(&f, Some(inserted[0]), 1).await, inserted[1..2]);

    let answer = vec![(inserted[1], certified[0].certificate.clone().unwrap())];
    f.store.record_certificates(answer, audited()).await.unwrap();
    assert_eq!(ids(&f, None, 10).await, [inserted[0], inserted[2]]);
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    assert_eq!((levels.available, levels.generated), (1, 3));
}

async fn keys_whose_requests_were_made_for_something_else_are_erased(f: Fixture) {
    let (old, new) = (waiting(&f, 3, b"before"), waiting(&f, 2, b"now"));
    let kept: Vec<_> = new.iter().map(|key| key.id).collect();
    for keys in [old.clone(), new] {
        f.store.insert_credentials(keys, audited()).await.unwrap();
    }
    let events = f.events().await;
    let erase = async |limit| {
        let end = end(DestructionReason::RequestOutdated, HolderCopy::NeverDelivered);
        f.store.erase_awaiting(f.pool.id, Sha256Hash::of(b"now"), end, limit, audited()).await.unwrap()
    };
    assert_eq!((erase(2).await.keys.len(), erase(2).await.keys.len()), (2, 1));
    assert_eq!(f.events().await, events + 2);
    // Nothing is left to do, and nothing to be told.
    assert_eq!(erase(2).await.keys.len(), 0);
    assert_eq!(f.events().await, events + 2);
    assert_eq!(ids(&f, None, 10).await, kept);
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().destroyed, 3);
}
