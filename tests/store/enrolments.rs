//! Certificates for keys that their holders made.

use super::fixture::{DAY, Fixture, MINUTE, REDRAWS, audited, end, silent, unaudited, vnfci_id};
use super::promises;
use keybroker::audit::event::EventCredential;
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::{CertificateState, HolderCopy, KeyState, RevocationReason};
use keybroker::nfv::{ClaimId, CredentialId, PoolId, Sha256Hash};
use keybroker::store::StoreError;
use keybroker::store::records::{
    ClaimOutcome, ClaimRecord, ClaimRequest, ConfirmOutcome, EnrolmentBasis, EnrolmentOutcome,
    EnrolmentRefusal, InitialCredential, InitialCredentialState, NewCertificate, NewEnrolment, NewVouched,
    Quotas, Renewal, RevokeOutcome, TerminateOutcome, VnfciState,
};

promises![
    an_enrolment_spends_the_initial_credential_with_the_last_slot,
    an_initial_credential_that_is_kept_takes_other_keys_in_bounds,
    a_certificate_that_ended_is_not_given_out_again,
    a_key_belongs_to_one_credential,
    an_agents_word_needs_an_open_initial_credential_of_any_age,
    an_enrolment_waits_for_an_open_claim_and_stops_with_the_vnfci,
    a_certificate_is_followed_while_it_is_good,
    what_is_superseded_is_followed_within_its_overlap_only,
    a_slot_gets_so_many_certificates_in_an_hour,
    what_mano_requests_is_answered_when_every_slot_has_followed,
    a_renewal_leaves_one_valid_certificate_in_a_slot,
    a_renewal_of_what_is_in_force_leaves_what_a_new_arming_enrolled,
    the_next_arming_ends_what_the_one_before_enrolled,
    a_terminated_enrolment_is_revoked_and_needs_no_shredding,
    what_is_given_back_covers_what_was_enrolled_beside_it,
    what_a_renewal_has_replaced_is_not_followed,
    a_key_that_is_vouched_for_is_certified_once_in_one_pool,
];

fn enrolment(f: &Fixture, basis: EnrolmentBasis, slot: &str, key: &str) -> NewEnrolment {
    let id = ClaimId::generate();
    NewEnrolment {
        id,
        basis,
        slot: slot.parse().unwrap(),
        credential: EventCredential {
            id: CredentialId::generate(),
            public_key: Sha256Hash::of(key.as_bytes()),
        },
        public_key_der: key.as_bytes().to_vec(),
        certificate: NewCertificate {
            issuer: f.issuer,
            serial: id.0.as_bytes().to_vec(),
            der: [b"certificate", id.0.as_bytes().as_slice()].concat(),
            not_before: f.now(),
            not_after: f.now().plus(7 * DAY),
            usable_until: f.now().plus(7 * DAY),
            crl_shard: 0,
        },
        redraws_allowed: REDRAWS,
        spend: true,
        overlap: DAY,
    }
}

/// Records it, with an event only if it is a change.
async fn enrol(f: &Fixture, new: NewEnrolment) -> EnrolmentOutcome {
    let before = f.events().await;
    let outcome = f.store.record_enrolment(new, audited()).await.unwrap();
    let unchanged = matches!(outcome, EnrolmentOutcome::Refused(_) | EnrolmentOutcome::TooMany { .. });
    let events = u64::from(!unchanged);
    assert_eq!(f.events().await - before, events, "{outcome:?}");
    outcome
}

fn by(initial: &InitialCredential) -> EnrolmentBasis {
    EnrolmentBasis::InitialCredential(initial.id)
}

fn refused(refusal: EnrolmentRefusal) -> EnrolmentOutcome {
    EnrolmentOutcome::Refused(refusal)
}

async fn state(f: &Fixture, initial: &InitialCredential) -> InitialCredentialState {
    f.store.initial_credential(initial.id).await.unwrap().unwrap().state
}

async fn an_enrolment_spends_the_initial_credential_with_the_last_slot(f: Fixture) {
    let initial = f.register("v", &["s", "t"]).await;
    let first = enrolment(&f, by(&initial), "s", "one");
    let outcome = enrol(&f, first.clone()).await;
    assert!(
        matches!(&outcome, EnrolmentOutcome::Enrolled { spent: false, credential, .. } if *credential == first.credential)
    );
    assert_eq!(state(&f, &initial).await, InitialCredentialState::Open);
    assert_eq!(f.store.vnfci(&f.tenant, &vnfci_id("v")).await.unwrap().state, VnfciState::Active);
    // The same key again: the same certificate, not the one that was signed in vain.
    let outcome = enrol(&f, enrolment(&f, by(&initial), "s", "one")).await;
    assert_eq!(outcome, EnrolmentOutcome::Replayed(first.certificate.der.clone()));
    let last = enrolment(&f, by(&initial), "t", "two");
    let outcome = enrol(&f, last.clone()).await;
    assert!(matches!(outcome, EnrolmentOutcome::Enrolled { spent: true, .. }), "{outcome:?}");
    assert_eq!(state(&f, &initial).await, InitialCredentialState::Spent);
    // Whose answer was lost is told again, and nothing else; not by the key of another slot either.
    for (slot, key, before) in [("s", "one", &first), ("t", "two", &last)] {
        let again = enrol(&f, enrolment(&f, by(&initial), slot, key)).await;
        assert_eq!(again, EnrolmentOutcome::Replayed(before.certificate.der.clone()));
    }
    for (slot, key) in [("s", "two"), ("t", "one"), ("s", "three")] {
        let again = f.store.record_enrolment(enrolment(&f, by(&initial), slot, key), unaudited()).await;
        assert_eq!(again.unwrap(), refused(EnrolmentRefusal::Spent));
    }
    let vnfci = f.store.vnfci(&f.tenant, &vnfci_id("v")).await.unwrap();
    assert!(vnfci.credentials.iter().all(|one| one.key_state == KeyState::External));
    assert_eq!(vnfci.credentials.len(), 2);
    // The pool neither gained nor lost anything, and it is no claim that could be confirmed or sealed.
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().produced(), 0);
    assert_eq!(f.store.claim(first.id).await.unwrap(), None);
    assert_eq!(f.store.enrolments(&initial).await.unwrap().len(), 2);
    f.clock.advance(2 * DAY);
    let late = enrol(&f, enrolment(&f, by(&initial), "s", "one")).await;
    assert_eq!(
        late,
        refused(EnrolmentRefusal::Spent),
        "only until the initial credential would have expired"
    );
    let unknown = f.store.record_enrolment(enrolment(&f, by(&initial), "x", "four"), unaudited()).await;
    assert!(matches!(unknown, Ok(EnrolmentOutcome::Refused(_)) | Err(StoreError::NotFound(_))));
}

async fn an_initial_credential_that_is_kept_takes_other_keys_in_bounds(f: Fixture) {
    let initial = f.register("v", &["s"]).await;
    let keep = |key: &str| NewEnrolment { spend: false, ..enrolment(&f, by(&initial), "s", key) };
    let mut last = keep("key-0");
    enrol(&f, last.clone()).await;
    for turn in 1..=REDRAWS {
        let next = keep(&format!("key-{turn}"));
        match enrol(&f, next.clone()).await {
            EnrolmentOutcome::Enrolled { replaced, spent: false, .. } => {
                assert_eq!(replaced.keys, [last.credential]);
                assert_eq!(replaced.revoked, [(f.issuer, hex::encode(&last.certificate.serial))]);
            }
            other => panic!("{other:?}"),
        }
        last = next;
    }
    assert_eq!(enrol(&f, keep("key-more")).await, refused(EnrolmentRefusal::TooManyKeys));
    assert_eq!(enrol(&f, keep("key-3")).await, EnrolmentOutcome::Replayed(last.certificate.der.clone()));
    assert_eq!(f.listed_serials().await.len(), 3);
    f.clock.advance(2 * DAY);
    assert_eq!(enrol(&f, keep("key-3")).await, refused(EnrolmentRefusal::Expired));
}

async fn a_certificate_that_ended_is_not_given_out_again(f: Fixture) {
    let initial = f.register("v", &["s", "t"]).await;
    let [revoked, expired] = [("s", "one"), ("t", "two")]
        .map(|(slot, key)| NewEnrolment { spend: false, ..enrolment(&f, by(&initial), slot, key) });
    for new in [&revoked, &expired] {
        enrol(&f, new.clone()).await;
        assert_eq!(enrol(&f, new.clone()).await, EnrolmentOutcome::Replayed(new.certificate.der.clone()));
    }
    let serial = (f.issuer, revoked.certificate.serial.clone());
    let reason = RevocationReason::KeyCompromise;
    f.store.revoke_certificates(&f.tenant, vec![serial], reason, audited()).await.unwrap();
    assert_eq!(enrol(&f, revoked).await, refused(EnrolmentRefusal::KeyUsed));
    let short = NewCertificate { not_after: f.now().plus(MINUTE), ..expired.certificate.clone() };
    let short = NewCertificate { serial: vec![7], der: b"short".to_vec(), ..short };
    let short = NewEnrolment {
        id: ClaimId::generate(),
        certificate: short,
        spend: false,
        ..enrolment(&f, by(&initial), "t", "three")
    };
    assert!(matches!(enrol(&f, short.clone()).await, EnrolmentOutcome::Enrolled { .. }));
    f.clock.advance(2 * MINUTE);
    assert_eq!(enrol(&f, short).await, refused(EnrolmentRefusal::KeyUsed));
    // Another key is taken.
    let next = NewEnrolment { spend: false, ..enrolment(&f, by(&initial), "s", "four") };
    assert!(matches!(enrol(&f, next).await, EnrolmentOutcome::Enrolled { .. }));
}

async fn a_key_belongs_to_one_credential(f: Fixture) {
    f.fill(1).await;
    let pooled = f.produce(1).remove(0);
    f.store.insert_credentials(vec![pooled.clone()], silent()).await.unwrap();
    let (one, other) = (f.register("one", &["s"]).await, f.register("other", &["s"]).await);
    enrol(&f, enrolment(&f, by(&one), "s", "key")).await;
    assert_eq!(enrol(&f, enrolment(&f, by(&other), "s", "key")).await, refused(EnrolmentRefusal::KeyUsed));
    let waiting = NewEnrolment {
        credential: EventCredential { id: CredentialId::generate(), public_key: pooled.public_key },
        ..enrolment(&f, by(&other), "s", "x")
    };
    assert_eq!(enrol(&f, waiting).await, refused(EnrolmentRefusal::KeyUsed));
}

async fn an_agents_word_needs_an_open_initial_credential_of_any_age(f: Fixture) {
    let initial = f.register("v", &["s"]).await;
    f.clock.advance(2 * DAY);
    assert_eq!(enrol(&f, enrolment(&f, by(&initial), "s", "a")).await, refused(EnrolmentRefusal::Expired));
    let agent = EnrolmentBasis::Agent(initial.id);
    let outcome = enrol(&f, enrolment(&f, agent, "s", "a")).await;
    assert!(matches!(outcome, EnrolmentOutcome::Enrolled { spent: true, .. }), "{outcome:?}");
    assert_eq!(enrol(&f, enrolment(&f, agent, "s", "b")).await, refused(EnrolmentRefusal::Spent));
}

async fn an_enrolment_waits_for_an_open_claim_and_stops_with_the_vnfci(f: Fixture) {
    f.fill(1).await;
    let initial = f.register("v", &["s"]).await;
    f.claim(initial.id, 1).await;
    assert_eq!(enrol(&f, enrolment(&f, by(&initial), "s", "a")).await, refused(EnrolmentRefusal::ClaimOpen));
    let ended = end(DestructionReason::Terminated, HolderCopy::Unknown);
    f.store.terminate_vnfcis(&f.tenant, vec![(vnfci_id("v"), None)], ended, silent()).await.unwrap();
    assert_eq!(enrol(&f, enrolment(&f, by(&initial), "s", "a")).await, refused(EnrolmentRefusal::VnfciEnded));
}

async fn a_certificate_is_followed_while_it_is_good(f: Fixture) {
    let initial = f.register("v", &["s"]).await;
    let first = enrolment(&f, by(&initial), "s", "one");
    enrol(&f, first.clone()).await;
    let shown = Sha256Hash::of(&first.certificate.der);
    let follow = |key: &str| enrolment(&f, EnrolmentBasis::Certificate(shown), "s", key);
    let second = follow("two");
    assert!(matches!(enrol(&f, second.clone()).await, EnrolmentOutcome::Enrolled { .. }));
    let held = f.store.enrolment_by_certificate(shown).await.unwrap().unwrap();
    assert_eq!((held.state, held.credential), (CertificateState::Superseded, first.credential.clone()));
    assert_eq!(enrol(&f, follow("two")).await, EnrolmentOutcome::Replayed(second.certificate.der.clone()));
    // The same key gets another certificate: one credential, two certificates.
    let shown_second = Sha256Hash::of(&second.certificate.der);
    let same = enrolment(&f, EnrolmentBasis::Certificate(shown_second), "s", "two");
    let outcome = enrol(&f, same.clone()).await;
    assert!(
        matches!(&outcome, EnrolmentOutcome::Enrolled { credential, .. } if *credential == second.credential)
    );
    let newest = f.store.enrolment_by_certificate(Sha256Hash::of(&same.certificate.der)).await.unwrap();
    assert_eq!(newest.unwrap().state, CertificateState::Valid);
    // Another VNFCI's key.
    let other = f.register("other", &["s"]).await;
    enrol(&f, enrolment(&f, by(&other), "s", "foreign")).await;
    assert_eq!(enrol(&f, follow("foreign")).await, refused(EnrolmentRefusal::KeyUsed));
    f.clock.advance(8 * DAY);
    assert_eq!(enrol(&f, follow("three")).await, refused(EnrolmentRefusal::CertificateEnded));
    let nothing = enrolment(&f, EnrolmentBasis::Certificate(Sha256Hash([7; 32])), "s", "four");
    let unknown = f.store.record_enrolment(nothing, unaudited()).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))), "{unknown:?}");
}

async fn what_is_superseded_is_followed_within_its_overlap_only(f: Fixture) {
    let initial = f.register("v", &["s"]).await;
    let first = enrolment(&f, by(&initial), "s", "one");
    enrol(&f, first.clone()).await;
    let shown = EnrolmentBasis::Certificate(Sha256Hash::of(&first.certificate.der));
    let second = enrolment(&f, shown, "s", "two");
    enrol(&f, second.clone()).await;
    f.clock.advance(DAY - MINUTE);
    let again = enrol(&f, enrolment(&f, shown, "s", "two")).await;
    assert_eq!(again, EnrolmentOutcome::Replayed(second.certificate.der.clone()));
    f.clock.advance(MINUTE);
    for key in ["two", "three"] {
        let late = enrol(&f, enrolment(&f, shown, "s", key)).await;
        assert_eq!(late, refused(EnrolmentRefusal::CertificateSuperseded), "{key}");
    }
    let shown = EnrolmentBasis::Certificate(Sha256Hash::of(&second.certificate.der));
    assert!(matches!(enrol(&f, enrolment(&f, shown, "s", "three")).await, EnrolmentOutcome::Enrolled { .. }));
}

async fn a_slot_gets_so_many_certificates_in_an_hour(f: Fixture) {
    let initial = f.register("v", &["s"]).await;
    // The overlap may be shorter: the bound is not.
    let short = |basis, key: &str| NewEnrolment { overlap: MINUTE, ..enrolment(&f, basis, "s", key) };
    let mut last = short(by(&initial), "key-0");
    enrol(&f, last.clone()).await;
    let begun = f.now();
    for turn in 1..=3 {
        let shown = EnrolmentBasis::Certificate(Sha256Hash::of(&last.certificate.der));
        let next = short(shown, &format!("key-{turn}"));
        assert!(matches!(enrol(&f, next.clone()).await, EnrolmentOutcome::Enrolled { .. }), "{turn}");
        last = next;
    }
    let shown = EnrolmentBasis::Certificate(Sha256Hash::of(&last.certificate.der));
    let hour = 60 * MINUTE;
    for key in ["key-4", "key-3"] {
        let outcome = enrol(&f, short(shown, key)).await;
        assert_eq!(outcome, EnrolmentOutcome::TooMany { until: begun.plus(hour) }, "{key}");
    }
    f.clock.advance(hour);
    assert!(matches!(enrol(&f, short(shown, "key-4")).await, EnrolmentOutcome::Enrolled { .. }));
}

async fn what_mano_requests_is_answered_when_every_slot_has_followed(f: Fixture) {
    let initial = f.register("v", &["s", "t"]).await;
    let (s, t) = (enrolment(&f, by(&initial), "s", "s-1"), enrolment(&f, by(&initial), "t", "t-1"));
    enrol(&f, s.clone()).await;
    enrol(&f, t.clone()).await;
    let requested = async || f.store.vnfci(&f.tenant, &vnfci_id("v")).await.unwrap().renewal_requested_at;
    let ask = async || {
        f.store.request_renewals(&f.tenant, vec![(vnfci_id("v"), None)], audited()).await.unwrap();
        assert_eq!(requested().await, Some(f.now()));
    };
    let follow = |before: &NewEnrolment, key: &str| {
        let shown = EnrolmentBasis::Certificate(Sha256Hash::of(&before.certificate.der));
        enrolment(&f, shown, before.slot.as_str(), key)
    };
    f.clock.advance(MINUTE);
    ask().await;
    f.clock.advance(MINUTE);
    enrol(&f, follow(&s, "s-2")).await;
    assert!(requested().await.is_some(), "the other slot has not followed");
    // The same key again, too.
    enrol(&f, follow(&t, "t-1")).await;
    assert_eq!(requested().await, None);
    // A new arming answers it as well, once every slot is filled.
    f.clock.advance(MINUTE);
    ask().await;
    let armed = rearm(&f).await;
    f.clock.advance(MINUTE);
    enrol(&f, enrolment(&f, armed, "s", "s-3")).await;
    assert!(requested().await.is_some());
    enrol(&f, enrolment(&f, armed, "t", "t-3")).await;
    assert_eq!(requested().await, None);
}

async fn a_renewal_leaves_one_valid_certificate_in_a_slot(f: Fixture) {
    f.fill(2).await;
    let delivered = f.deliver("v", &["s"]).await;
    let own = following(&f, &delivered, "own");
    enrol(&f, own.clone()).await;
    let renews = Some(Renewal { of: delivered.id, overlap: DAY });
    let request = ClaimRequest { renews, ..f.claim_request(delivered.initial_credential, 7) };
    let outcome = f.store.reserve_claim(request, f.intend(), silent()).await.unwrap();
    let ClaimOutcome::Reserved { claim: renewal, .. } = outcome else { panic!("{outcome:?}") };
    let state =
        async |fingerprint| f.store.enrolment_by_certificate(fingerprint).await.unwrap().unwrap().state;
    let own = Sha256Hash::of(&own.certificate.der);
    assert_eq!(state(own).await, CertificateState::Valid, "until the renewal is confirmed");
    f.confirm(renewal.id).await;
    let fingerprint = |claim: &ClaimRecord| claim.credentials[0].certificate.fingerprint().unwrap();
    assert_eq!(state(own).await, CertificateState::Superseded);
    assert_eq!(state(fingerprint(&delivered)).await, CertificateState::Superseded);
    assert_eq!(state(fingerprint(&renewal)).await, CertificateState::Valid);
}

/// Arms `v` again.
async fn rearm(f: &Fixture) -> EnrolmentBasis {
    let next = keybroker::store::records::Rearming {
        id: vnfci_id("v"),
        vnf_instance: "vnf-1".parse().unwrap(),
        initial_credential: keybroker::nfv::InitialCredentialId::generate(),
        kind: keybroker::store::records::InitialCredentialKind::Token,
        expires_at: f.now().plus(DAY),
    };
    let armed = EnrolmentBasis::InitialCredential(next.initial_credential);
    let rearmed = end(DestructionReason::Rearmed, HolderCopy::Unknown);
    f.store.rearm_vnfcis(&f.tenant, vec![next], &Quotas::default(), rearmed, silent()).await.unwrap();
    armed
}

async fn a_renewal_of_what_is_in_force_leaves_what_a_new_arming_enrolled(f: Fixture) {
    f.fill(4).await;
    let delivered = f.deliver("v", &["s", "t"]).await;
    let renews = Some(Renewal { of: delivered.id, overlap: DAY });
    let request = ClaimRequest { renews, ..f.claim_request(delivered.initial_credential, 7) };
    let outcome = f.store.reserve_claim(request, f.intend(), silent()).await.unwrap();
    let ClaimOutcome::Reserved { claim: renewal, .. } = outcome else { panic!("{outcome:?}") };
    let newer = enrolment(&f, rearm(&f).await, "s", "newer");
    let newer_certificate = Sha256Hash::of(&newer.certificate.der);
    let enrolled = enrol(&f, newer).await;
    assert!(matches!(enrolled, EnrolmentOutcome::Enrolled { .. }), "{enrolled:?}");
    // The enrolment ended what the renewal would have renewed.
    let confirmed = f.confirm(renewal.id).await;
    assert!(matches!(confirmed, ConfirmOutcome::TooLate), "{confirmed:?}");
    let shown = f.store.enrolment_by_certificate(newer_certificate).await.unwrap().unwrap();
    assert_eq!(shown.state, CertificateState::Valid);
}

async fn the_next_arming_ends_what_the_one_before_enrolled(f: Fixture) {
    let initial = f.register("v", &["s"]).await;
    let first = enrolment(&f, by(&initial), "s", "one");
    enrol(&f, first.clone()).await;
    let armed = rearm(&f).await;
    assert_eq!(f.listed_serials().await, Vec::<String>::new());
    f.clock.advance(MINUTE);
    let again = enrolment(&f, armed, "s", "two");
    match enrol(&f, again).await {
        EnrolmentOutcome::Enrolled { superseded, spent: true, .. } => {
            assert_eq!(superseded.keys, [first.credential]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(f.listed_serials().await, [hex::encode(&first.certificate.serial)]);
}

async fn a_terminated_enrolment_is_revoked_and_needs_no_shredding(f: Fixture) {
    let initial = f.register("v", &["s"]).await;
    let first = enrolment(&f, by(&initial), "s", "one");
    enrol(&f, first.clone()).await;
    assert!(f.store.receipts_due(10).await.unwrap().is_empty());
    f.clock.advance(MINUTE);
    let ended = end(DestructionReason::Terminated, HolderCopy::WipedPerMano);
    let items = vec![(vnfci_id("v"), None)];
    let outcome = f.store.terminate_vnfcis(&f.tenant, items, ended, silent()).await.unwrap().remove(0);
    let TerminateOutcome::Terminated(keys) = outcome else { panic!("{outcome:?}") };
    assert_eq!((keys.keys, keys.revoked.len()), (vec![first.credential.clone()], 1));
    // Though the epoch is open: nothing of this key is in it.
    let due = f.store.receipts_due(10).await.unwrap();
    let [custody] = &due[..] else { panic!("{due:?}") };
    assert_eq!((custody.key_state, custody.epoch, custody.erased_at), (KeyState::External, None, None));
    assert_eq!(custody.vnfci, Some(vnfci_id("v")));
    let shown = Sha256Hash::of(&first.certificate.der);
    let follow = enrolment(&f, EnrolmentBasis::Certificate(shown), "s", "two");
    assert_eq!(enrol(&f, follow).await, refused(EnrolmentRefusal::VnfciEnded));
}

/// A delivered certificate is followed by one for this key of the VNFCI's own.
fn following(f: &Fixture, delivered: &ClaimRecord, key: &str) -> NewEnrolment {
    let shown = delivered.credentials[0].certificate.fingerprint().unwrap();
    enrolment(f, EnrolmentBasis::Certificate(shown), "s", key)
}

async fn what_is_given_back_covers_what_was_enrolled_beside_it(f: Fixture) {
    f.fill(1).await;
    let delivered = f.deliver("v", &["s"]).await;
    let followed = following(&f, &delivered, "own");
    assert!(matches!(enrol(&f, followed.clone()).await, EnrolmentOutcome::Enrolled { .. }));
    let ended = || end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    let outcome = f.store.release_claim(delivered.id, ended(), silent()).await.unwrap();
    let keys: Vec<_> = outcome.keys.iter().map(|key| key.id).collect();
    assert_eq!(keys, [delivered.credentials[0].credential.id, followed.credential.id]);
    assert_eq!(outcome.revoked.len(), 2);
    assert_eq!(f.store.release_claim(delivered.id, ended(), unaudited()).await.unwrap(), outcome);
    let held = Sha256Hash::of(&followed.certificate.der);
    let held = f.store.enrolment_by_certificate(held).await.unwrap().unwrap();
    assert_eq!(held.state, CertificateState::RevocationPending);
}

async fn what_a_renewal_has_replaced_is_not_followed(f: Fixture) {
    f.fill(2).await;
    let delivered = f.deliver("v", &["s"]).await;
    let renews = Some(Renewal { of: delivered.id, overlap: DAY });
    let request = ClaimRequest { renews, ..f.claim_request(delivered.initial_credential, 7) };
    let outcome = f.store.reserve_claim(request, f.intend(), silent()).await.unwrap();
    let ClaimOutcome::Reserved { claim: renewal, .. } = outcome else { panic!("{outcome:?}") };
    f.confirm(renewal.id).await;
    let late = following(&f, &delivered, "late");
    assert_eq!(enrol(&f, late).await, refused(EnrolmentRefusal::CertificateEnded));
    assert!(matches!(enrol(&f, following(&f, &renewal, "own")).await, EnrolmentOutcome::Enrolled { .. }));
}

async fn a_key_that_is_vouched_for_is_certified_once_in_one_pool(f: Fixture) {
    let initial = f.register("v", &["s"]).await;
    let of = |key: &str| {
        let NewEnrolment { credential, public_key_der, certificate, .. } =
            enrolment(&f, by(&initial), "s", key);
        NewVouched { pool: f.pool.id, credential, public_key_der, certificate }
    };
    let record = async |new: &NewVouched, events: u64| {
        let before = f.events().await;
        let outcome = f.store.record_vouched(new.clone(), audited()).await.unwrap();
        assert_eq!(f.events().await - before, events, "{outcome:?}");
        outcome
    };
    let first = of("one");
    let outcome = record(&first, 1).await;
    assert!(
        matches!(&outcome, EnrolmentOutcome::Enrolled { credential, spent: false, .. } if *credential == first.credential)
    );
    assert_eq!(record(&of("one"), 1).await, EnrolmentOutcome::Replayed(first.certificate.der.clone()));
    let taken = NewVouched {
        credential: EventCredential { id: first.credential.id, ..of("two").credential },
        ..of("two")
    };
    assert_eq!(record(&taken, 0).await, refused(EnrolmentRefusal::NameUsed));
    // A VNFCI's own key is nobody else's, and the other way round.
    enrol(&f, enrolment(&f, by(&initial), "s", "of-v")).await;
    assert_eq!(record(&of("of-v"), 0).await, refused(EnrolmentRefusal::KeyUsed));
    let other = f.register("w", &["s"]).await;
    assert_eq!(enrol(&f, enrolment(&f, by(&other), "s", "one")).await, refused(EnrolmentRefusal::KeyUsed));
    let nowhere = NewVouched { pool: PoolId::generate(), ..of("three") };
    let unknown = f.store.record_vouched(nowhere, unaudited()).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))), "{unknown:?}");

    let key = first.credential.public_key;
    let kept = f.store.vouched(key).await.unwrap().unwrap();
    assert_eq!((kept.pool, kept.credential), (f.pool.id, first.credential.clone()));
    assert_eq!((kept.certificate_der, kept.state), (first.certificate.der.clone(), CertificateState::Valid));
    assert_eq!(f.store.vouched(Sha256Hash::of(b"of-v")).await.unwrap(), None);
    // It waits in no pool, is withdrawn like any other, and is not given out again then.
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().produced(), 0);
    let serial = (f.issuer, first.certificate.serial.clone());
    let outcomes = f
        .store
        .revoke_certificates(&f.tenant, vec![serial], RevocationReason::KeyCompromise, audited())
        .await;
    assert_eq!(outcomes.unwrap(), [RevokeOutcome::Pending(first.credential.clone())]);
    assert_eq!(record(&of("one"), 0).await, refused(EnrolmentRefusal::KeyUsed));
}
