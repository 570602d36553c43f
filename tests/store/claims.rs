//! Claim, confirm, release, destroy.

use super::fixture::{DAY, Fixture, MINUTE, REDRAWS, audited, end, request, silent, unaudited};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::clock::Clock;
use keybroker::credential::{CertificateState, EpochChange, HolderCopy, KeyState, RevocationReason};
use keybroker::nfv::{ClaimId, EpochId, InitialCredentialId, RequestId, Sha256Hash};
use keybroker::store::records::{
    ClaimOutcome, ClaimRefusal, ClaimState, ConfirmOutcome, InitialCredentialState, VnfciState,
};
use keybroker::store::{Mutation, StoreError};
use std::collections::HashSet;
use std::sync::Arc;

promises![
    a_claim_draws_all_slots_or_none,
    a_claim_gives_blobs_and_certificates_of_its_slots,
    no_credential_goes_to_two_of_64_concurrent_claimers,
    concurrent_claims_by_one_initial_credential_make_one_claim,
    the_same_recipient_key_replays_its_claim,
    another_recipient_key_destroys_and_redraws_at_most_the_allowed_times,
    an_empty_pool_leaves_an_earlier_claim_untouched,
    a_spent_initial_credential_is_refused,
    a_void_initial_credential_is_refused,
    an_expired_initial_credential_is_refused,
    an_ended_vnfci_is_refused,
    an_unknown_initial_credential_is_not_found,
    an_aged_credential_is_not_drawn,
    a_revoked_credential_is_not_drawn,
    the_oldest_epoch_is_drawn_first,
    a_repeated_claim_request_replays_and_a_reused_one_is_refused,
    a_confirmation_delivers_and_erases,
    a_second_confirmation_changes_nothing,
    a_confirmation_after_the_deadline_is_too_late,
    an_absence_of_the_broker_does_not_count,
    an_overdue_claim_is_destroyed_and_its_initial_credential_stays_open,
    a_released_claim_is_withdrawn_and_answers_the_same_again,
    only_a_confirmed_claim_is_released,
];

async fn a_claim_draws_all_slots_or_none(f: Fixture) {
    let initial = f.register("a", &["one", "three", "two"]).await;
    f.fill(2).await;
    let outcome = f.try_claim(initial.id, 1).await;
    assert_eq!(outcome, ClaimOutcome::Empty { pool: f.pool.name.clone() });
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    assert_eq!((levels.available, levels.claimed), (2, 0));

    f.fill(1).await;
    let claim = f.claim(initial.id, 1).await;
    let slots: Vec<_> = claim.credentials.iter().map(|c| c.slot.as_str()).collect();
    assert_eq!(slots, ["one", "three", "two"], "slots come by name");
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    assert_eq!((levels.available, levels.claimed), (0, 3));
}

async fn a_claim_gives_blobs_and_certificates_of_its_slots(f: Fixture) {
    let produced = f.produce(1);
    f.store.insert_credentials(produced.clone(), silent()).await.unwrap();
    let initial = f.register("a", &["s"]).await;
    let request = f.claim_request(initial.id, 7);
    let ClaimOutcome::Reserved { claim, redrawn } =
        f.store.reserve_claim(request.clone(), f.intend(), audited()).await.unwrap()
    else {
        panic!("nothing was drawn");
    };
    assert!(redrawn.keys.is_empty());
    assert_eq!((claim.id, claim.request, claim.state), (request.claim, request.request, ClaimState::Open));
    assert_eq!((&claim.recipient_key, claim.deadline), (&request.recipient_key, request.deadline));
    let (drawn, made) = (&claim.credentials[0], &produced[0]);
    let certificate = made.certificate.as_ref().unwrap();
    assert_eq!((drawn.credential.id, drawn.credential.public_key), (made.id, made.public_key));
    assert_eq!((&drawn.key_blob, &drawn.dek_blob), (&made.key_blob, &made.dek_blob));
    assert_eq!(
        (drawn.certificate.der(), drawn.not_after),
        (Some(certificate.der.as_slice()), certificate.not_after)
    );
    assert_eq!((drawn.issuer, drawn.epoch), (f.issuer, f.epoch));
    assert_eq!(drawn.public_key_der, made.public_key_der);
    assert_eq!(f.store.claim(claim.id).await.unwrap(), Some(claim), "read back as it was given out");
    assert_eq!(f.store.claim(ClaimId::generate()).await.unwrap(), None);
    assert_eq!(f.events().await, 1);
}

async fn no_credential_goes_to_two_of_64_concurrent_claimers(f: Fixture) {
    let vnfcis = (0..64).map(|n| f.vnfci(&format!("v-{n}"), &["client", "server"])).collect::<Vec<_>>();
    let initials: Vec<_> = vnfcis.iter().map(|v| v.initial_credential).collect();
    f.register_all(vnfcis).await;
    // Too few for all: some find the pool empty, and what is drawn adds up.
    f.fill(100).await;
    let f = Arc::new(f);
    let claimers: Vec<_> = initials
        .into_iter()
        .map(|initial| {
            let f = f.clone();
            tokio::spawn(async move { f.try_claim(initial, 1).await })
        })
        .collect();
    let (mut drawn, mut empty) = (Vec::new(), 0);
    for claimer in claimers {
        match claimer.await.unwrap() {
            ClaimOutcome::Reserved { claim, .. } => {
                drawn.extend(claim.credentials.iter().map(|c| c.credential.id));
            }
            ClaimOutcome::Empty { .. } => empty += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((drawn.len(), empty), (100, 14));
    assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 100);
}

async fn concurrent_claims_by_one_initial_credential_make_one_claim(f: Fixture) {
    f.fill(64).await;
    let initial = f.register("a", &["s"]).await;
    let f = Arc::new(f);
    let claimers: Vec<_> = (0..16)
        .map(|_| {
            let (f, initial) = (f.clone(), initial.id);
            tokio::spawn(async move { f.try_claim(initial, 9).await })
        })
        .collect();
    let (mut claims, mut reserved) = (HashSet::new(), 0);
    for claimer in claimers {
        match claimer.await.unwrap() {
            ClaimOutcome::Reserved { claim, .. } => {
                reserved += 1;
                claims.insert(claim.id);
            }
            ClaimOutcome::Replayed(claim) => {
                claims.insert(claim.id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((reserved, claims.len()), (1, 1));
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().claimed, 1);
}

async fn the_same_recipient_key_replays_its_claim(f: Fixture) {
    f.fill(4).await;
    let initial = f.register("a", &["s", "t"]).await;
    let claim = f.claim(initial.id, 1).await;
    f.clock.advance(MINUTE);
    assert_eq!(f.try_claim(initial.id, 1).await, ClaimOutcome::Replayed(claim));
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().available, 2);
}

async fn another_recipient_key_destroys_and_redraws_at_most_the_allowed_times(f: Fixture) {
    f.fill(10).await;
    let initial = f.register("a", &["s"]).await;
    let mut before = f.claim(initial.id, 0).await;
    for recipient in 1..=REDRAWS {
        f.clock.advance(MINUTE);
        let ClaimOutcome::Reserved { claim, redrawn } =
            f.try_claim(initial.id, u8::try_from(recipient).unwrap()).await
        else {
            panic!("no redraw");
        };
        let old = before.credentials[0].credential.clone();
        assert_eq!(redrawn.keys, std::slice::from_ref(&old));
        assert_eq!(redrawn.revoked.len(), 1);
        assert_ne!(claim.credentials[0].credential.id, old.id);
        let destroyed = f.store.claim(before.id).await.unwrap().unwrap();
        assert_eq!(destroyed.state, ClaimState::Destroyed);
        assert!(destroyed.credentials[0].key_blob.is_empty() && destroyed.credentials[0].dek_blob.is_empty());
        let custody = f.store.custody(Some(&f.tenant), old.id).await.unwrap();
        assert_eq!(custody.key_state, KeyState::Destroyed);
        assert_eq!(custody.certificate_state, Some(CertificateState::RevocationPending));
        let (ended, at) = custody.ended.unwrap();
        assert_eq!((ended.reason, ended.holder_copy), (DestructionReason::NewRecipient, HolderCopy::Unknown));
        assert_eq!((at, custody.erased_at), (f.now(), Some(f.now())));
        before = claim;
    }
    let refused = f.try_claim(initial.id, 200).await;
    assert_eq!(refused, ClaimOutcome::Refused(ClaimRefusal::TooManyRedraws));
    assert_eq!(f.store.claim(before.id).await.unwrap().unwrap().state, ClaimState::Open);
    assert_eq!(f.store.vnfci(&f.tenant, &initial.vnfci).await.unwrap().redraws, REDRAWS);
    let replayed = f.try_claim(initial.id, u8::try_from(REDRAWS).unwrap()).await;
    assert!(matches!(replayed, ClaimOutcome::Replayed(claim) if claim.id == before.id));
}

async fn an_empty_pool_leaves_an_earlier_claim_untouched(f: Fixture) {
    f.fill(1).await;
    let initial = f.register("a", &["s"]).await;
    let claim = f.claim(initial.id, 1).await;
    assert!(matches!(f.try_claim(initial.id, 2).await, ClaimOutcome::Empty { .. }));
    assert_eq!(f.store.claim(claim.id).await.unwrap(), Some(claim));
    assert_eq!(f.store.vnfci(&f.tenant, &initial.vnfci).await.unwrap().redraws, 0);
}

async fn a_spent_initial_credential_is_refused(f: Fixture) {
    f.fill(3).await;
    let claim = f.deliver("a", &["s"]).await;
    for recipient in [1, 2] {
        let outcome = f.try_claim(claim.initial_credential, recipient).await;
        assert_eq!(outcome, ClaimOutcome::Refused(ClaimRefusal::Spent));
    }
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().available, 2);
}

async fn a_void_initial_credential_is_refused(f: Fixture) {
    f.fill(1).await;
    f.store.add_anchor(f.anchor(&f.tenant, "oem", b"ca", b"key"), silent()).await.unwrap();
    let mut vnfci = f.vnfci("a", &["s"]);
    vnfci.kind = keybroker::store::records::InitialCredentialKind::X509Fingerprint {
        anchor: "oem".parse().unwrap(),
        fingerprint: Sha256Hash::of(b"leaf"),
    };
    let initial = vnfci.initial_credential;
    f.register_all(vec![vnfci]).await;
    f.store.remove_anchor(&f.tenant, &"oem".parse().unwrap(), silent()).await.unwrap();
    assert_eq!(f.try_claim(initial, 1).await, ClaimOutcome::Refused(ClaimRefusal::Void));
}

async fn an_expired_initial_credential_is_refused(f: Fixture) {
    let initial = f.register("a", &["s"]).await;
    f.clock.advance(DAY);
    f.fill(1).await;
    assert_eq!(f.try_claim(initial.id, 1).await, ClaimOutcome::Refused(ClaimRefusal::Expired));
}

async fn an_ended_vnfci_is_refused(f: Fixture) {
    f.fill(3).await;
    let terminated = f.register("terminated", &["s"]).await;
    let items = vec![(terminated.vnfci.clone(), None)];
    f.store
        .terminate_vnfcis(&f.tenant, items, end(DestructionReason::Terminated, HolderCopy::Unknown), silent())
        .await
        .unwrap();
    assert_eq!(f.try_claim(terminated.id, 1).await, ClaimOutcome::Refused(ClaimRefusal::VnfciEnded));
    let released = f.deliver("released", &["s"]).await;
    f.store
        .release_claim(released.id, end(DestructionReason::Released, HolderCopy::ReleasedSigned), silent())
        .await
        .unwrap();
    let outcome = f.try_claim(released.initial_credential, 1).await;
    assert_eq!(outcome, ClaimOutcome::Refused(ClaimRefusal::VnfciEnded));
}

async fn an_unknown_initial_credential_is_not_found(f: Fixture) {
    let request = f.claim_request(InitialCredentialId::generate(), 1);
    let error = f.store.reserve_claim(request, f.intend(), unaudited()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
}

async fn an_aged_credential_is_not_drawn(f: Fixture) {
    let aged = f.fill(2).await;
    f.clock.advance(2 * DAY);
    let initial = f.register("a", &["s"]).await;
    assert!(matches!(f.try_claim(initial.id, 1).await, ClaimOutcome::Empty { .. }));
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    assert_eq!((levels.available, levels.aged), (0, 2));
    let fresh = f.fill(1).await;
    assert!(fresh[0] > aged[1]);
    assert_eq!(f.claim(initial.id, 1).await.credentials[0].credential.id, fresh[0]);
}

async fn a_revoked_credential_is_not_drawn(f: Fixture) {
    let ids = f.fill(2).await;
    let serial = ids[0].0.as_bytes().to_vec();
    f.store
        .revoke_certificates(&f.tenant, vec![(f.issuer, serial)], RevocationReason::KeyCompromise, silent())
        .await
        .unwrap();
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    assert_eq!((levels.available, levels.aged), (1, 1), "it is erased with what is too old");
    let initial = f.register("a", &["s"]).await;
    assert_eq!(f.claim(initial.id, 1).await.credentials[0].credential.id, ids[1]);
}

async fn the_oldest_epoch_is_drawn_first(f: Fixture) {
    // Keys of the younger epoch are inserted with older ids than some of the older epoch.
    let (first, second) = (f.epoch, EpochId::generate());
    let younger = f.produce(2);
    f.fill(2).await;
    f.advance(first, EpochChange::Close).await;
    f.open_epoch(second).await;
    let younger =
        younger.into_iter().map(|c| keybroker::store::records::NewCredential { epoch: second, ..c });
    f.store.insert_credentials(younger.collect(), silent()).await.unwrap();
    let initial = f.register("a", &["1", "2", "3"]).await;
    let claim = f.claim(initial.id, 1).await;
    let epochs: Vec<_> = claim.credentials.iter().map(|c| c.epoch).collect();
    assert_eq!(epochs, [first, first, second]);
}

async fn a_repeated_claim_request_replays_and_a_reused_one_is_refused(f: Fixture) {
    f.fill(4).await;
    let initial = f.register("a", &["s"]).await;
    let id = RequestId::generate();
    let ask = |body: &str| Mutation::new(|_| Vec::new()).request(request("vnfci:a", id, body));
    let first =
        f.store.reserve_claim(f.claim_request(initial.id, 1), f.intend(), ask("claim")).await.unwrap();
    let ClaimOutcome::Reserved { claim, .. } = first else { panic!("{first:?}") };
    let again =
        f.store.reserve_claim(f.claim_request(initial.id, 1), f.intend(), ask("claim")).await.unwrap();
    assert_eq!(again, ClaimOutcome::Replayed(claim));
    let reused = f.store.reserve_claim(f.claim_request(initial.id, 2), f.intend(), ask("another")).await;
    assert_eq!(reused, Err(StoreError::RequestReused(id)));
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().claimed, 1);
}

async fn a_confirmation_delivers_and_erases(f: Fixture) {
    f.fill(2).await;
    let initial = f.register("a", &["s", "t"]).await;
    let claim = f.claim(initial.id, 1).await;
    f.clock.advance(MINUTE);
    let ConfirmOutcome::Confirmed { claim: confirmed, superseded } =
        f.store.confirm_claim(claim.id, audited()).await.unwrap()
    else {
        panic!("not confirmed");
    };
    assert!(superseded.keys.is_empty() && superseded.revoked.is_empty());
    assert_eq!(confirmed.state, ClaimState::Confirmed);
    assert!(confirmed.credentials.iter().all(|c| c.key_blob.is_empty() && c.dek_blob.is_empty()));
    assert_eq!(f.store.claim(claim.id).await.unwrap(), Some(confirmed));
    assert_eq!(f.events().await, 1);
    for credential in &claim.credentials {
        let custody = f.store.custody(Some(&f.tenant), credential.credential.id).await.unwrap();
        assert_eq!((custody.key_state, custody.erased_at), (KeyState::Delivered, Some(f.now())));
        assert_eq!(custody.ended, None, "the holder has it now");
        assert_eq!(custody.vnfci, Some(initial.vnfci.clone()));
    }
    let vnfci = f.store.vnfci(&f.tenant, &initial.vnfci).await.unwrap();
    assert_eq!(vnfci.state, VnfciState::Active);
    assert_eq!(vnfci.initial_credential.state, InitialCredentialState::Spent);
    let epoch = f.store.epochs(None, &[keybroker::credential::EpochState::Open]).await.unwrap().remove(0);
    assert_eq!((epoch.keys, epoch.live, epoch.first_erasure_at), (2, 0, Some(f.now())));
}

async fn a_second_confirmation_changes_nothing(f: Fixture) {
    f.fill(1).await;
    let claim = f.deliver("a", &["s"]).await;
    f.clock.advance(DAY);
    let again = f.store.confirm_claim(claim.id, unaudited()).await.unwrap();
    assert_eq!(again, ConfirmOutcome::AlreadyConfirmed);
}

async fn a_confirmation_after_the_deadline_is_too_late(f: Fixture) {
    f.fill(1).await;
    let initial = f.register("a", &["s"]).await;
    let claim = f.claim(initial.id, 1).await;
    f.clock.advance(15 * MINUTE);
    assert_eq!(f.confirm(claim.id).await, ConfirmOutcome::TooLate);
    f.store
        .destroy_claim(claim.id, end(DestructionReason::Unconfirmed, HolderCopy::Unknown), silent())
        .await
        .unwrap();
    assert_eq!(f.confirm(claim.id).await, ConfirmOutcome::TooLate);
    let error = f.store.confirm_claim(ClaimId::generate(), unaudited()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
}

async fn an_absence_of_the_broker_does_not_count(f: Fixture) {
    f.fill(1).await;
    let initial = f.register("a", &["s"]).await;
    let claim = f.claim(initial.id, 1).await;
    f.clock.advance(20 * MINUTE);
    assert_eq!(f.store.overdue_claims(f.now(), 10).await.unwrap().len(), 1);
    let alive = f.now().minus(10 * MINUTE).unix_micros();
    f.store.set_mark("last_alive", &alive.to_string()).await.unwrap();
    let (one, other) = tokio::join!(f.store.end_absence("last_alive"), f.store.end_absence("last_alive"));
    assert_eq!((one.unwrap(), other.unwrap()), (1, 1));
    assert!(f.store.overdue_claims(f.now(), 10).await.unwrap().is_empty());
    assert_eq!(f.store.overdue_claims(f.now().plus(6 * MINUTE), 10).await.unwrap().len(), 1, "counted twice");
    assert!(matches!(f.confirm(claim.id).await, ConfirmOutcome::Confirmed { .. }));
    assert_eq!(f.store.end_absence("last_alive").await.unwrap(), 0);
    assert_eq!(f.store.end_absence("never_set").await.unwrap(), 0);
}

async fn an_overdue_claim_is_destroyed_and_its_initial_credential_stays_open(f: Fixture) {
    f.fill(3).await;
    let (first, second) = (f.register("a", &["s"]).await, f.register("b", &["s"]).await);
    let old = f.claim(first.id, 1).await;
    f.clock.advance(MINUTE);
    let young = f.claim(second.id, 1).await;
    f.clock.advance(20 * MINUTE);
    let overdue = f.store.overdue_claims(f.now(), 10).await.unwrap();
    assert_eq!(overdue, [old.clone(), young], "oldest first");
    assert_eq!(f.store.overdue_claims(f.now(), 1).await.unwrap().len(), 1);

    let end = end(DestructionReason::Unconfirmed, HolderCopy::Unknown);
    let destroyed = f.store.destroy_claim(old.id, end.clone(), audited()).await.unwrap();
    assert_eq!(destroyed.keys, [old.credentials[0].credential.clone()]);
    assert_eq!(destroyed.revoked.len(), 1);
    let custody = f.store.custody(Some(&f.tenant), old.credentials[0].credential.id).await.unwrap();
    assert_eq!((custody.key_state, custody.ended), (KeyState::Destroyed, Some((end.clone(), f.now()))));
    let initial = f.store.initial_credential(first.id).await.unwrap().unwrap();
    assert_eq!(initial.state, InitialCredentialState::Open);
    let error = f.store.destroy_claim(old.id, end, unaudited()).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    f.claim(first.id, 1).await;
}

async fn a_released_claim_is_withdrawn_and_answers_the_same_again(f: Fixture) {
    f.fill(2).await;
    let claim = f.deliver("a", &["s", "t"]).await;
    f.clock.advance(MINUTE);
    let end = end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    let released = f.store.release_claim(claim.id, end.clone(), audited()).await.unwrap();
    assert_eq!((released.keys.len(), released.revoked.len()), (2, 2));
    assert_eq!(f.store.claim(claim.id).await.unwrap().unwrap().state, ClaimState::Released);
    assert_eq!(f.store.vnfci(&f.tenant, &claim.vnfci).await.unwrap().state, VnfciState::Released);
    assert_eq!(f.store.pending_revocations(f.issuer).await.unwrap(), 2);
    f.clock.advance(MINUTE);
    let again = f.store.release_claim(claim.id, end.clone(), unaudited()).await.unwrap();
    assert_eq!(again, released);
    let custody = f.store.custody(Some(&f.tenant), claim.credentials[0].credential.id).await.unwrap();
    assert_eq!(custody.key_state, KeyState::Delivered, "delivered is final; custody says the rest");
    assert_eq!(custody.ended, Some((end, f.clock.now().minus(MINUTE))));
}

async fn only_a_confirmed_claim_is_released(f: Fixture) {
    f.fill(1).await;
    let initial = f.register("a", &["s"]).await;
    let claim = f.claim(initial.id, 1).await;
    let end = end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    let error = f.store.release_claim(claim.id, end.clone(), unaudited()).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    let error = f.store.release_claim(ClaimId::generate(), end, unaudited()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
}
