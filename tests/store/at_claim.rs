//! Certificates that are issued at the claim, and those that a CA sends later.

use super::fixture::{DAY, Fixture, MINUTE, audited, end, silent, unaudited};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::{CertificateState, EpochChange, HolderCopy, Issue, KeyState};
use keybroker::nfv::{CredentialId, EpochId, Sha256Hash};
use keybroker::store::StoreError;
use keybroker::store::records::{
    ClaimOutcome, ClaimRecord, ClaimedCertificate, ConfirmOutcome, NewCertificate, RecordOutcome,
};
use std::sync::Arc;

promises![
    a_pool_that_issues_at_the_claim_counts_its_keys_as_ready,
    a_pool_that_issues_at_the_claim_takes_no_certificates,
    a_claim_records_what_is_to_be_signed,
    a_claim_of_both_kinds_draws_all_or_nothing,
    an_intent_that_cannot_be_made_changes_nothing,
    a_replay_finds_the_intent_and_then_the_certificate,
    of_16_concurrent_signers_one_records_and_all_give_out_the_same,
    a_certificate_that_was_not_intended_is_refused,
    an_intent_without_a_signature_is_not_confirmed,
    what_may_have_been_signed_is_revoked_when_its_claim_ends,
    a_signature_that_comes_after_the_end_is_not_recorded,
    a_certified_claim_is_confirmed_and_released,
    a_redraw_makes_a_new_key_and_a_new_intent,
    the_oldest_epoch_is_drawn_first_without_certificates_too,
    a_key_whose_ca_answers_later_becomes_available_once,
];

fn slot<'c>(claim: &'c ClaimRecord, name: &str) -> &'c keybroker::store::records::ClaimedCredential {
    claim.credentials.iter().find(|slot| slot.slot.as_str() == name).unwrap()
}

fn states(custody: &keybroker::store::records::Custody) -> (KeyState, Option<CertificateState>) {
    (custody.key_state, custody.certificate_state)
}

async fn custody(f: &Fixture, id: CredentialId) -> keybroker::store::records::Custody {
    f.store.custody(Some(&f.tenant), id).await.unwrap()
}

async fn a_pool_that_issues_at_the_claim_counts_its_keys_as_ready(f: Fixture) {
    let (pool, _) = f.pool_at_claim("keys", 5).await;
    assert_eq!(f.store.pool(&f.tenant, &pool.name).await.unwrap().issue, Issue::AtClaim);
    f.clock.advance(30 * DAY);
    let levels = f.store.pool_levels(pool.id).await.unwrap();
    assert_eq!((levels.ready(pool.issue), levels.generated, levels.aged, levels.produced()), (5, 5, 0, 5));
    let aged = end(DestructionReason::Aged, HolderCopy::NeverDelivered);
    let erased =
        f.store.erase_unclaimed(pool.id, Some(f.now()), aged.clone(), 10, unaudited()).await.unwrap();
    assert!(erased.keys.is_empty(), "keys without certificates do not age");
    let reduced = f.store.erase_unclaimed(pool.id, None, aged, 2, audited()).await.unwrap();
    assert_eq!(reduced.keys.len(), 2);
    assert_eq!(f.store.pool_levels(pool.id).await.unwrap().ready(pool.issue), 3);
}

async fn a_pool_that_issues_at_the_claim_takes_no_certificates(f: Fixture) {
    let (pool, keys) = f.pool_at_claim("keys", 1).await;
    let certified = vec![f.produce_one(pool.id, f.epoch)];
    let error = f.store.insert_credentials(certified, unaudited()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(text) if text.contains("without certificates")), "{error}");
    let certificate = f.produce_one(pool.id, f.epoch).certificate.unwrap();
    let early = f.store.record_certificates(vec![(keys[0], certificate)], unaudited()).await.unwrap_err();
    assert!(matches!(early, StoreError::Conflict(_)), "{early}");
}

async fn a_claim_records_what_is_to_be_signed(f: Fixture) {
    let (pool, keys) = f.pool_at_claim("keys", 1).await;
    let initial = f.register_with("amf-0001", &[("s", &pool)]).await;
    let claim = f.claim(initial.id, 1).await;
    let drawn = slot(&claim, "s");
    let ClaimedCertificate::Intended(intent) = &drawn.certificate else { panic!("{drawn:?}") };
    assert_eq!(drawn.credential.id, keys[0]);
    let named = format!("tbs of {} for amf-0001 of vdu-1", keys[0]);
    assert_eq!((&intent.tbs_der, intent.issuer), (&named.into_bytes(), f.issuer));
    assert_eq!((drawn.issuer, drawn.not_after), (intent.issuer, intent.not_after));
    assert!(!drawn.key_blob.is_empty() && !drawn.dek_blob.is_empty());
    assert_eq!(f.store.claim(claim.id).await.unwrap(), Some(claim.clone()), "read back as it was given out");
    let kept = custody(&f, keys[0]).await;
    assert_eq!(states(&kept), (KeyState::Claimed, Some(CertificateState::Valid)));
    assert_eq!(kept.serial, Some(hex::encode(&intent.serial)));
    let levels = f.store.pool_levels(pool.id).await.unwrap();
    assert_eq!((levels.ready(pool.issue), levels.claimed, levels.drawn), (0, 1, 1));
    let shown = f.store.vnfci(&f.tenant, &claim.vnfci).await.unwrap().credentials;
    assert_eq!((shown.len(), shown[0].fingerprint), (1, None));
}

async fn a_claim_of_both_kinds_draws_all_or_nothing(f: Fixture) {
    let (pool, keys) = f.pool_at_claim("keys", 0).await;
    assert!(keys.is_empty());
    let ahead = f.fill(1).await;
    let initial = f.register_with("a", &[("ahead", &f.pool), ("own", &pool)]).await;
    assert_eq!(f.try_claim(initial.id, 1).await, ClaimOutcome::Empty { pool: pool.name.clone() });
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().available, 1);

    let keys = f.keys_only(&pool, 1).await;
    let claim = f.claim(initial.id, 1).await;
    assert_eq!(slot(&claim, "ahead").credential.id, ahead[0]);
    assert!(slot(&claim, "ahead").certificate.der().is_some());
    assert_eq!(slot(&claim, "own").credential.id, keys[0]);
    assert!(slot(&claim, "own").certificate.der().is_none());
    assert!(
        matches!(f.certify(&claim).await.as_slice(), [RecordOutcome::Recorded(one)] if one.id == keys[0])
    );
    assert!(matches!(f.confirm(claim.id).await, ConfirmOutcome::Confirmed { .. }));
}

async fn an_intent_that_cannot_be_made_changes_nothing(f: Fixture) {
    let (pool, keys) = f.pool_at_claim("keys", 1).await;
    let initial = f.register_with("a", &[("s", &pool)]).await;
    let before = f.events().await;
    let request = f.claim_request(initial.id, 1);
    let refused = f.store.reserve_claim(request, Box::new(|_| Err("no such name".into())), unaudited()).await;
    assert_eq!(refused.unwrap_err(), StoreError::Conflict("no such name".into()));
    let too_few =
        f.store.reserve_claim(f.claim_request(initial.id, 1), Box::new(|_| Ok(Vec::new())), unaudited());
    assert!(matches!(too_few.await.unwrap_err(), StoreError::Conflict(_)));
    assert_eq!(states(&custody(&f, keys[0]).await), (KeyState::Generated, None));
    assert_eq!(f.events().await, before);
    // Keys with certificates do not ask.
    f.fill(1).await;
    let initial = f.register("b", &["s"]).await;
    let request = f.claim_request(initial.id, 1);
    let asked =
        f.store.reserve_claim(request, Box::new(|_| panic!("nothing is to be signed")), silent()).await;
    assert!(matches!(asked.unwrap(), ClaimOutcome::Reserved { .. }));
}

async fn a_replay_finds_the_intent_and_then_the_certificate(f: Fixture) {
    let (pool, _) = f.pool_at_claim("keys", 3).await;
    let initial = f.register_with("a", &[("s", &pool)]).await;
    let claim = f.claim(initial.id, 1).await;
    assert_eq!(f.try_claim(initial.id, 1).await, ClaimOutcome::Replayed(claim.clone()));
    f.certify(&claim).await;
    let ClaimOutcome::Replayed(again) = f.try_claim(initial.id, 1).await else { panic!("not replayed") };
    let (_, signed) = f.signed(&claim, "the CA").remove(0);
    assert_eq!(slot(&again, "s").certificate, ClaimedCertificate::Signed(signed.der.clone()));
    assert_eq!(slot(&again, "s").not_after, signed.not_after);
    let found = f.store.certificate_by_fingerprint(Sha256Hash::of(&signed.der)).await.unwrap().unwrap();
    assert_eq!((found.serial, found.claim), (hex::encode(&signed.serial), Some(claim.id)));
    assert_eq!(f.store.pool_levels(pool.id).await.unwrap().ready(pool.issue), 2);
}

async fn of_16_concurrent_signers_one_records_and_all_give_out_the_same(f: Fixture) {
    let (pool, keys) = f.pool_at_claim("keys", 1).await;
    let initial = f.register_with("a", &[("s", &pool)]).await;
    let claim = f.claim(initial.id, 1).await;
    let before = f.events().await;
    let f = Arc::new(f);
    let signers: Vec<_> = (0..16)
        .map(|n| {
            let (f, claim) = (f.clone(), claim.clone());
            tokio::spawn(async move {
                let signed = f.signed(&claim, &format!("signer {n}"));
                let outcome = f.store.record_certificates(signed.clone(), audited()).await.unwrap().remove(0);
                match outcome {
                    RecordOutcome::Recorded(_) => (true, signed[0].1.der.clone()),
                    RecordOutcome::Before(der) => (false, der),
                    RecordOutcome::Ended => panic!("nothing ended"),
                }
            })
        })
        .collect();
    let mut given = Vec::new();
    for signer in signers {
        given.push(signer.await.unwrap());
    }
    assert_eq!(given.iter().filter(|(recorded, _)| *recorded).count(), 1);
    let stored = f.store.claim(claim.id).await.unwrap().unwrap();
    let stored = slot(&stored, "s").certificate.der().unwrap();
    assert!(given.iter().all(|(_, der)| der == stored), "two certificates for one key");
    assert_eq!(f.events().await, before + 1, "who recorded nothing has no event");
    assert_eq!(custody(&f, keys[0]).await.serial, Some(hex::encode(keys[0].0.as_bytes())));
}

async fn a_certificate_that_was_not_intended_is_refused(f: Fixture) {
    let (pool, keys) = f.pool_at_claim("keys", 1).await;
    let initial = f.register_with("a", &[("s", &pool)]).await;
    let claim = f.claim(initial.id, 1).await;
    let mut other = f.signed(&claim, "the CA");
    other[0].1.serial = vec![1; 16];
    let error = f.store.record_certificates(other, unaudited()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(text) if text.contains("serial number")), "{error}");
    let ghost = vec![(CredentialId::generate(), f.signed(&claim, "the CA").remove(0).1)];
    let error = f.store.record_certificates(ghost, unaudited()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
    assert!(slot(&f.store.claim(claim.id).await.unwrap().unwrap(), "s").certificate.der().is_none());
    assert_eq!(states(&custody(&f, keys[0]).await), (KeyState::Claimed, Some(CertificateState::Valid)));
}

async fn an_intent_without_a_signature_is_not_confirmed(f: Fixture) {
    let (pool, keys) = f.pool_at_claim("keys", 1).await;
    let initial = f.register_with("a", &[("s", &pool)]).await;
    let claim = f.claim(initial.id, 1).await;
    let error = f.store.confirm_claim(claim.id, unaudited()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(text) if text.contains("not signed")), "{error}");
    assert_eq!(custody(&f, keys[0]).await.key_state, KeyState::Claimed);
}

async fn what_may_have_been_signed_is_revoked_when_its_claim_ends(f: Fixture) {
    let (pool, _) = f.pool_at_claim("keys", 4).await;
    let unconfirmed = end(DestructionReason::Unconfirmed, HolderCopy::Unknown);
    // Overdue, terminated: each with an intent whose signature never came.
    let overdue = f.register_with("a", &[("s", &pool)]).await;
    let overdue = f.claim(overdue.id, 1).await;
    let terminated = f.register_with("b", &[("s", &pool)]).await;
    let terminated = f.claim(terminated.id, 1).await;
    f.clock.advance(16 * MINUTE);
    let due: Vec<_> =
        f.store.overdue_claims(f.now(), 10).await.unwrap().iter().map(|claim| claim.id).collect();
    assert_eq!(due, [overdue.id, terminated.id]);
    f.store.destroy_claim(overdue.id, unconfirmed.clone(), audited()).await.unwrap();
    let items = vec![(terminated.vnfci.clone(), None)];
    f.store.terminate_vnfcis(&f.tenant, items, unconfirmed, audited()).await.unwrap();
    let mut expected = Vec::new();
    for claim in [&overdue, &terminated] {
        let id = slot(claim, "s").credential.id;
        assert_eq!(
            states(&custody(&f, id).await),
            (KeyState::Destroyed, Some(CertificateState::RevocationPending))
        );
        expected.push(hex::encode(id.0.as_bytes()));
    }
    assert_eq!(f.listed_serials().await, expected);
}

async fn a_signature_that_comes_after_the_end_is_not_recorded(f: Fixture) {
    let (pool, _) = f.pool_at_claim("keys", 1).await;
    let initial = f.register_with("a", &[("s", &pool)]).await;
    let claim = f.claim(initial.id, 1).await;
    let unconfirmed = end(DestructionReason::Unconfirmed, HolderCopy::Unknown);
    f.store.destroy_claim(claim.id, unconfirmed, silent()).await.unwrap();
    let late = f.store.record_certificates(f.signed(&claim, "late"), unaudited()).await.unwrap();
    assert_eq!(late, [RecordOutcome::Ended]);
    let der = f.signed(&claim, "late").remove(0).1.der;
    assert_eq!(f.store.certificate_by_fingerprint(Sha256Hash::of(&der)).await.unwrap(), None);
    assert_eq!(f.listed_serials().await.len(), 1);
}

async fn a_certified_claim_is_confirmed_and_released(f: Fixture) {
    let (pool, keys) = f.pool_at_claim("keys", 1).await;
    let initial = f.register_with("a", &[("s", &pool)]).await;
    let claim = f.claim(initial.id, 1).await;
    f.certify(&claim).await;
    assert!(matches!(f.confirm(claim.id).await, ConfirmOutcome::Confirmed { .. }));
    let delivered = custody(&f, keys[0]).await;
    assert_eq!(states(&delivered), (KeyState::Delivered, Some(CertificateState::Valid)));
    let released = end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    let ended = f.store.release_claim(claim.id, released, silent()).await.unwrap();
    let serial = hex::encode(keys[0].0.as_bytes());
    assert_eq!(ended.revoked, [(f.issuer, serial.clone())]);
    assert_eq!(f.listed_serials().await, [serial]);
    f.shred(f.epoch).await;
    let due = f.store.receipts_due(10).await.unwrap();
    assert_eq!(due.iter().map(|one| one.credential.id).collect::<Vec<_>>(), keys);
}

async fn a_redraw_makes_a_new_key_and_a_new_intent(f: Fixture) {
    let (pool, _) = f.pool_at_claim("keys", 2).await;
    let initial = f.register_with("a", &[("s", &pool)]).await;
    let first = f.claim(initial.id, 1).await;
    let second = f.claim(initial.id, 2).await;
    let (old, new) = (slot(&first, "s").credential.id, slot(&second, "s").credential.id);
    assert_ne!(old, new);
    let revoked = (KeyState::Destroyed, Some(CertificateState::RevocationPending));
    assert_eq!(states(&custody(&f, old).await), revoked);
    assert_eq!(
        f.store.record_certificates(f.signed(&first, "x"), unaudited()).await.unwrap(),
        [RecordOutcome::Ended]
    );
    assert!(matches!(f.certify(&second).await.as_slice(), [RecordOutcome::Recorded(one)] if one.id == new));
}

async fn the_oldest_epoch_is_drawn_first_without_certificates_too(mut f: Fixture) {
    let (pool, old) = f.pool_at_claim("keys", 2).await;
    f.advance(f.epoch, EpochChange::Close).await;
    f.epoch = EpochId::generate();
    f.open_epoch(f.epoch).await;
    let new = f.keys_only(&pool, 1).await;
    let initial = f.register_with("a", &[("r", &pool), ("s", &pool), ("t", &pool)]).await;
    let claim = f.claim(initial.id, 1).await;
    let drawn: Vec<_> = claim.credentials.iter().map(|one| one.credential.id).collect();
    assert_eq!(drawn, [old, new].concat());
}

async fn a_key_whose_ca_answers_later_becomes_available_once(f: Fixture) {
    let keys = f.keys_only(&f.pool, 2).await;
    let initial = f.register("a", &["s"]).await;
    assert!(matches!(f.try_claim(initial.id, 1).await, ClaimOutcome::Empty { .. }), "it has no certificate");
    let answer = |text: &[u8]| NewCertificate {
        der: text.to_vec(),
        ..f.produce_one(f.pool.id, f.epoch).certificate.unwrap()
    };
    let (first, second) = (answer(b"first"), answer(b"second"));
    let record = async |certificate: &NewCertificate| {
        f.store.record_certificates(vec![(keys[0], certificate.clone())], silent()).await.unwrap().remove(0)
    };
    assert!(matches!(record(&first).await, RecordOutcome::Recorded(one) if one.id == keys[0]));
    assert_eq!(record(&second).await, RecordOutcome::Before(first.der.clone()));
    let levels = f.store.pool_levels(f.pool.id).await.unwrap();
    assert_eq!((levels.available, levels.generated, levels.ready(f.pool.issue)), (1, 1, 1));
    let claim = f.claim(initial.id, 1).await;
    assert_eq!(slot(&claim, "s").certificate, ClaimedCertificate::Signed(first.der));
    let reduced = end(DestructionReason::PoolReduced, HolderCopy::NeverDelivered);
    f.store.erase_unclaimed(f.pool.id, None, reduced, 10, silent()).await.unwrap();
    let late = f.store.record_certificates(vec![(keys[1], second)], unaudited()).await.unwrap();
    assert_eq!(late, [RecordOutcome::Ended]);
}
