//! Epochs, re-wrapping, receipts.

use super::fixture::{Fixture, MINUTE, audited, end, silent, unaudited};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::{EpochChange, EpochState, HolderCopy};
use keybroker::nfv::{CredentialId, EpochId};
use keybroker::store::StoreError;
use keybroker::store::records::ClaimOutcome;

promises![
    a_tenant_has_one_epoch_that_is_creating_or_open,
    an_epoch_passes_every_state_once_and_remembers_its_token,
    an_epoch_with_live_keys_is_not_shredded,
    live_keys_come_oldest_first,
    rewrapped_keys_move_with_their_blobs,
    a_key_that_is_gone_or_moved_is_not_rewrapped,
    keys_are_rewrapped_into_an_open_epoch_only,
    a_claimed_key_is_sealed_from_its_new_epoch_after_a_rewrap,
    receipts_are_due_once_every_epoch_of_the_key_is_destroyed,
    a_receipt_is_kept_once,
    only_keys_that_went_out_get_receipts,
];

async fn a_tenant_has_one_epoch_that_is_creating_or_open(f: Fixture) {
    let second = EpochId::generate();
    let conflict = async |epoch| {
        let error = f.store.create_epoch(epoch, &f.tenant, unaudited()).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    };
    conflict(second).await;
    f.advance(f.epoch, EpochChange::Close).await;
    let epoch = f.store.create_epoch(second, &f.tenant, audited()).await.unwrap();
    assert_eq!((epoch.state, epoch.created_at, epoch.keys), (EpochState::Creating, f.now(), 0));
    conflict(EpochId::generate()).await;
    let other = f.add_tenant("other").await;
    f.store.create_epoch(EpochId::generate(), &other, silent()).await.unwrap();
    let ids: Vec<_> = f.store.epochs(None, EpochState::ALL).await.unwrap().iter().map(|e| e.id).collect();
    assert!(ids.len() == 3 && ids.is_sorted(), "oldest first");
    assert_eq!(f.store.epochs(Some(&f.tenant), &[EpochState::Closed]).await.unwrap().len(), 1);
    assert!(f.store.epochs(Some(&other), &[EpochState::Open]).await.unwrap().is_empty());
}

async fn an_epoch_passes_every_state_once_and_remembers_its_token(f: Fixture) {
    let refused = async |change| {
        let error = f.store.advance_epoch(f.epoch, change, None, unaudited()).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    };
    refused(EpochChange::Open).await;
    refused(EpochChange::Shred).await;
    f.shred(f.epoch).await;
    for &change in EpochChange::ALL {
        refused(change).await;
    }
    let epoch = f.store.epochs(None, &[EpochState::Destroyed]).await.unwrap().remove(0);
    assert_eq!((epoch.destroyed_at, epoch.token_serial.as_deref()), (Some(f.now()), Some("token-1")));
    let missing = f.store.advance_epoch(EpochId::generate(), EpochChange::Open, None, unaudited()).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))), "{missing:?}");
}

async fn an_epoch_with_live_keys_is_not_shredded(f: Fixture) {
    f.fill(2).await;
    let initial = f.register("a", &["s"]).await;
    let claim = f.claim(initial.id, 1).await;
    f.advance(f.epoch, EpochChange::Close).await;
    let shred = async || f.store.advance_epoch(f.epoch, EpochChange::Shred, None, silent()).await;
    let error = shred().await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(text) if text.contains("2 live keys")), "{error}");
    f.confirm(claim.id).await;
    assert!(matches!(shred().await, Err(StoreError::Conflict(_))), "one still waits in its pool");
    let aged = end(DestructionReason::PoolReduced, HolderCopy::NeverDelivered);
    f.store.erase_unclaimed(f.pool.id, None, aged, 10, silent()).await.unwrap();
    assert_eq!(shred().await.unwrap().state, EpochState::Shredding);
}

async fn live_keys_come_oldest_first(f: Fixture) {
    let ids = f.fill(4).await;
    let initial = f.register("a", &["s"]).await;
    let claim = f.claim(initial.id, 1).await;
    f.confirm(claim.id).await;
    let live = f.store.live_keys(f.epoch, 2).await.unwrap();
    assert_eq!(live.iter().map(|k| k.credential.id).collect::<Vec<_>>(), ids[1..3]);
    assert_eq!(live[0].dek_blob, [b"dek-blob-of", ids[1].0.as_bytes().as_slice()].concat());
    assert_eq!(f.store.live_keys(f.epoch, 10).await.unwrap().len(), 3);
}

/// Closes the fixture's epoch and opens another.
async fn next_epoch(f: &Fixture) -> EpochId {
    let next = EpochId::generate();
    f.advance(f.epoch, EpochChange::Close).await;
    f.open_epoch(next).await;
    next
}

fn new_blobs(ids: &[CredentialId]) -> Vec<(CredentialId, Vec<u8>)> {
    ids.iter().map(|id| (*id, b"rewrapped".to_vec())).collect()
}

async fn rewrapped_keys_move_with_their_blobs(f: Fixture) {
    let ids = f.fill(3).await;
    let to = next_epoch(&f).await;
    let moved = f.store.rewrapped(f.epoch, to, new_blobs(&ids[..2]), audited()).await.unwrap();
    assert_eq!(moved, ids[..2]);
    let live = f.store.live_keys(to, 10).await.unwrap();
    assert!(live.len() == 2 && live.iter().all(|k| k.dek_blob == b"rewrapped"));
    let epochs = f.store.epochs(None, EpochState::ALL).await.unwrap();
    let counts: Vec<_> = epochs.iter().map(|e| (e.keys, e.live)).collect();
    assert_eq!(counts, [(3, 1), (2, 2)]);
}

async fn a_key_that_is_gone_or_moved_is_not_rewrapped(f: Fixture) {
    let ids = f.fill(3).await;
    let claim = f.deliver("a", &["s"]).await;
    assert_eq!(claim.credentials[0].credential.id, ids[0]);
    let to = next_epoch(&f).await;
    f.store.rewrapped(f.epoch, to, new_blobs(&ids[1..2]), silent()).await.unwrap();
    let ghost = CredentialId::generate();
    let again = [ids[0], ids[1], ids[2], ghost].map(|id| (id, b"second".to_vec())).to_vec();
    let moved = f.store.rewrapped(f.epoch, to, again, audited()).await.unwrap();
    assert_eq!(moved, ids[2..]);
    let live = f.store.live_keys(to, 10).await.unwrap();
    assert_eq!(live[0].dek_blob, b"rewrapped", "the one that had moved keeps its blob");
    let delivered = f.store.claim(claim.id).await.unwrap().unwrap();
    assert!(delivered.credentials[0].dek_blob.is_empty(), "a re-wrap brings no blob back");
}

async fn keys_are_rewrapped_into_an_open_epoch_only(f: Fixture) {
    let ids = f.fill(1).await;
    let to = EpochId::generate();
    f.advance(f.epoch, EpochChange::Close).await;
    let conflict = async |to| {
        let error = f.store.rewrapped(f.epoch, to, new_blobs(&ids), unaudited()).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    };
    conflict(f.epoch).await;
    f.store.create_epoch(to, &f.tenant, silent()).await.unwrap();
    conflict(to).await;
    let other = f.add_tenant("other").await;
    let foreign = EpochId::generate();
    f.store.create_epoch(foreign, &other, silent()).await.unwrap();
    f.advance(foreign, EpochChange::Open).await;
    conflict(foreign).await;
    assert_eq!(f.store.live_keys(f.epoch, 10).await.unwrap()[0].credential.id, ids[0]);
}

async fn a_claimed_key_is_sealed_from_its_new_epoch_after_a_rewrap(f: Fixture) {
    let ids = f.fill(1).await;
    let initial = f.register("a", &["s"]).await;
    f.claim(initial.id, 1).await;
    let to = next_epoch(&f).await;
    f.store.rewrapped(f.epoch, to, new_blobs(&ids), silent()).await.unwrap();
    let ClaimOutcome::Replayed(claim) = f.try_claim(initial.id, 1).await else { panic!("no replay") };
    assert_eq!(
        (claim.credentials[0].epoch, claim.credentials[0].dek_blob.as_slice()),
        (to, &b"rewrapped"[..])
    );
    f.advance(f.epoch, EpochChange::Shred).await;
}

async fn receipts_are_due_once_every_epoch_of_the_key_is_destroyed(f: Fixture) {
    let ids = f.fill(1).await;
    let initial = f.register("a", &["s"]).await;
    let claim = f.claim(initial.id, 1).await;
    let to = next_epoch(&f).await;
    f.store.rewrapped(f.epoch, to, new_blobs(&ids), silent()).await.unwrap();
    f.confirm(claim.id).await;
    let due = async || f.store.receipts_due(10).await.unwrap();
    f.advance(to, EpochChange::Close).await;
    f.advance(to, EpochChange::Shred).await;
    f.advance(to, EpochChange::Verify).await;
    assert!(due().await.is_empty(), "custody has not ended");
    let released = end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    f.store.release_claim(claim.id, released.clone(), silent()).await.unwrap();
    assert!(due().await.is_empty(), "the epoch before the re-wrap still has its KEK");
    let epochs = f.store.epochs(None, EpochState::ALL).await.unwrap();
    assert_eq!(epochs[0].first_erasure_at, Some(f.now()), "its horizon runs too: it holds an older copy");
    assert_eq!(f.store.custody(Some(&f.tenant), ids[0]).await.unwrap().shredded_at, None);
    f.clock.advance(MINUTE);
    f.advance(f.epoch, EpochChange::Shred).await;
    f.advance(f.epoch, EpochChange::Verify).await;
    let custody = due().await.remove(0);
    assert_eq!((custody.credential.id, custody.epoch), (ids[0], Some(to)));
    assert_eq!((custody.shredded_at, custody.token_serial.as_deref()), (Some(f.now()), Some("token-1")));
    assert_eq!(custody.ended.unwrap().0, released);
    assert_eq!(custody.serial, Some(hex::encode(ids[0].0.as_bytes())));
}

async fn a_receipt_is_kept_once(f: Fixture) {
    f.fill(2).await;
    let claim = f.deliver("a", &["s", "t"]).await;
    f.shred(f.epoch).await;
    let released = end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    f.store.release_claim(claim.id, released, silent()).await.unwrap();
    assert_eq!(f.store.receipts_due(1).await.unwrap().len(), 1);
    let due = f.store.receipts_due(10).await.unwrap();
    assert_eq!(due.len(), 2);
    let id = due[0].credential.id;
    for text in ["first", "second"] {
        f.store.record_receipts(vec![(id, text.into())], audited()).await.unwrap();
    }
    assert_eq!(f.store.custody(Some(&f.tenant), id).await.unwrap().receipt.as_deref(), Some("first"));
    assert_eq!(f.store.receipts_due(10).await.unwrap(), due[1..]);
}

async fn only_keys_that_went_out_get_receipts(f: Fixture) {
    let ids = f.fill(1).await;
    let aged = end(DestructionReason::PoolReduced, HolderCopy::NeverDelivered);
    f.store.erase_unclaimed(f.pool.id, None, aged, 10, silent()).await.unwrap();
    f.shred(f.epoch).await;
    assert!(f.store.receipts_due(10).await.unwrap().is_empty());
    assert_eq!(f.store.custody(Some(&f.tenant), ids[0]).await.unwrap().shredded_at, Some(f.now()));
    let other = f.store.custody(Some(&"other".parse().unwrap()), ids[0]).await;
    assert!(matches!(other, Err(StoreError::NotFound(_))), "{other:?}");
}
