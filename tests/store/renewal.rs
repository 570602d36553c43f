//! Renewals: fresh credentials beside the old ones, which end after the overlap.

use super::fixture::{DAY, Fixture, MINUTE, audited, end, silent, unaudited, vnfci_id};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::{CertificateState, HolderCopy, KeyState};
use keybroker::nfv::{ClaimId, InitialCredentialId};
use keybroker::store::StoreError;
use keybroker::store::records::{
    ClaimOutcome, ClaimRecord, ClaimRefusal, ClaimRequest, ClaimState, ConfirmOutcome, CustodyEnd,
    InitialCredentialKind, Quotas, RearmOutcome, Rearming, Renewal, RenewalRequestOutcome,
};
use std::time::Duration;

promises![
    a_renewal_leaves_the_old_credentials_until_its_overlap_ends,
    a_renewal_is_replayed_redrawn_and_bounded_like_a_claim,
    only_the_latest_confirmed_claim_of_a_living_vnfci_is_renewed,
    of_renewals_in_their_overlap_there_are_three,
    an_overlap_ends_once_and_not_before_its_time,
    the_end_of_a_vnfci_covers_every_renewal,
    a_renewal_by_what_is_in_force_leaves_a_new_armings_open_claim,
    a_new_arming_withdraws_renewals_too,
    what_mano_requests_is_answered_by_what_is_drawn_after_it,
    random_renewals_never_leave_a_vnfci_without_credentials,
];

const OVERLAP: Duration = Duration::from_secs(3_600);

fn ended() -> CustodyEnd {
    end(DestructionReason::Superseded, HolderCopy::Unknown)
}

fn renewal_of(f: &Fixture, claim: &ClaimRecord, recipient: u8) -> ClaimRequest {
    let renews = Some(Renewal { of: claim.id, overlap: OVERLAP });
    ClaimRequest { renews, ..f.claim_request(claim.initial_credential, recipient) }
}

async fn try_renew(f: &Fixture, claim: &ClaimRecord, recipient: u8) -> ClaimOutcome {
    f.store.reserve_claim(renewal_of(f, claim, recipient), f.intend(), silent()).await.unwrap()
}

async fn renew(f: &Fixture, claim: &ClaimRecord, recipient: u8) -> ClaimRecord {
    match try_renew(f, claim, recipient).await {
        ClaimOutcome::Reserved { claim, .. } => claim,
        other => panic!("nothing was drawn: {other:?}"),
    }
}

async fn confirmed(f: &Fixture, claim: ClaimId) -> ClaimRecord {
    match f.confirm(claim).await {
        ConfirmOutcome::Confirmed { claim, superseded } => {
            assert!(superseded.keys.is_empty());
            claim
        }
        other => panic!("not confirmed: {other:?}"),
    }
}

async fn renewed(f: &Fixture, claim: &ClaimRecord) -> ClaimRecord {
    let renewal = renew(f, claim, 7).await;
    confirmed(f, renewal.id).await
}

async fn states(f: &Fixture, claim: &ClaimRecord) -> (ClaimState, KeyState, CertificateState) {
    let id = claim.credentials[0].credential.id;
    let custody = f.store.custody(Some(&f.tenant), id).await.unwrap();
    let claim = f.store.claim(claim.id).await.unwrap().unwrap();
    (claim.state, custody.key_state, custody.certificate_state.unwrap())
}

const VALID: (ClaimState, KeyState, CertificateState) =
    (ClaimState::Confirmed, KeyState::Delivered, CertificateState::Valid);
const OVERLAPPING: (ClaimState, KeyState, CertificateState) =
    (ClaimState::Renewed, KeyState::Delivered, CertificateState::Superseded);
const WITHDRAWN: (ClaimState, KeyState, CertificateState) =
    (ClaimState::Superseded, KeyState::Delivered, CertificateState::RevocationPending);

async fn a_renewal_leaves_the_old_credentials_until_its_overlap_ends(f: Fixture) {
    f.fill(2).await;
    let first = f.deliver("a", &["s"]).await;
    let second = renew(&f, &first, 7).await;
    assert_eq!(second.renews, Some(Renewal { of: first.id, overlap: OVERLAP }));
    assert_eq!(
        f.store.claim(second.id).await.unwrap(),
        Some(second.clone()),
        "read back as it was given out"
    );
    assert_eq!(states(&f, &first).await, VALID);
    confirmed(&f, second.id).await;
    assert_eq!((states(&f, &first).await, states(&f, &second).await), (OVERLAPPING, VALID));
    assert_eq!(f.confirm(first.id).await, ConfirmOutcome::AlreadyConfirmed);
    assert!(f.store.ended_overlaps(f.now(), 10).await.unwrap().is_empty());
    f.clock.advance(OVERLAP);
    let due = f.store.ended_overlaps(f.now(), 10).await.unwrap();
    assert_eq!(due.iter().map(|claim| claim.id).collect::<Vec<_>>(), [first.id]);
    let outcome = f.store.end_overlap(first.id, ended(), audited()).await.unwrap();
    assert_eq!((outcome.keys.len(), outcome.revoked.len()), (1, 1));
    assert_eq!((states(&f, &first).await, states(&f, &second).await), (WITHDRAWN, VALID));
    assert!(f.store.ended_overlaps(f.now(), 10).await.unwrap().is_empty());
}

async fn a_renewal_is_replayed_redrawn_and_bounded_like_a_claim(f: Fixture) {
    f.fill(9).await;
    let first = f.deliver("a", &["s"]).await;
    let renewal = renew(&f, &first, 10).await;
    assert_eq!(try_renew(&f, &first, 10).await, ClaimOutcome::Replayed(renewal));
    for recipient in 11..14 {
        let ClaimOutcome::Reserved { redrawn, .. } = try_renew(&f, &first, recipient).await else { panic!() };
        assert_eq!(redrawn.keys.len(), 1);
    }
    assert_eq!(try_renew(&f, &first, 14).await, ClaimOutcome::Refused(ClaimRefusal::TooManyRedraws));
    assert_eq!(states(&f, &first).await, VALID, "whatever becomes of renewals");
    assert_eq!(f.store.vnfci(&f.tenant, &first.vnfci).await.unwrap().redraws, 0);
    // One that is only late does not count.
    let open = f.store.overdue_claims(f.now().plus(DAY), 10).await.unwrap().remove(0);
    f.clock.advance(16 * MINUTE);
    assert_eq!(f.confirm(open.id).await, ConfirmOutcome::TooLate);
    f.store.destroy_claim(open.id, ended(), silent()).await.unwrap();
    let last = renew(&f, &first, 20).await;
    confirmed(&f, last.id).await;
}

async fn only_the_latest_confirmed_claim_of_a_living_vnfci_is_renewed(f: Fixture) {
    f.fill(4).await;
    let initial = f.register("a", &["s"]).await;
    let open = f.claim(initial.id, 1).await;
    let not_renewable = ClaimOutcome::Refused(ClaimRefusal::NotRenewable);
    assert_eq!(try_renew(&f, &open, 7).await, not_renewable);
    let first = confirmed(&f, open.id).await;
    let second = renewed(&f, &first).await;
    assert_eq!(try_renew(&f, &first, 8).await, not_renewable);
    // Another VNFCI's arming does not renew it.
    let other = f.register("b", &["s"]).await;
    let stolen = ClaimRequest { initial_credential: other.id, ..renewal_of(&f, &second, 9) };
    let outcome = f.store.reserve_claim(stolen, f.intend(), silent()).await.unwrap();
    assert_eq!(outcome, not_renewable);
    // Empty pools leave everything as it is.
    let third = renew(&f, &second, 7).await;
    f.store.destroy_claim(third.id, ended(), silent()).await.unwrap();
    f.fill(0).await;
    let fourth = renew(&f, &second, 8).await;
    f.store.destroy_claim(fourth.id, ended(), silent()).await.unwrap();
    assert_eq!(try_renew(&f, &second, 9).await, ClaimOutcome::Empty { pool: f.pool.name.clone() });
    assert_eq!(states(&f, &second).await, VALID);
    f.store.release_claim(second.id, ended(), silent()).await.unwrap();
    assert_eq!(try_renew(&f, &second, 9).await, ClaimOutcome::Refused(ClaimRefusal::VnfciEnded));
}

async fn of_renewals_in_their_overlap_there_are_three(f: Fixture) {
    f.fill(6).await;
    let mut held = f.deliver("a", &["s"]).await;
    for _ in 0..3 {
        held = renewed(&f, &held).await;
    }
    assert_eq!(try_renew(&f, &held, 7).await, ClaimOutcome::Refused(ClaimRefusal::TooManyRenewals));
    f.clock.advance(OVERLAP);
    renew(&f, &held, 7).await;
}

async fn an_overlap_ends_once_and_not_before_its_time(f: Fixture) {
    f.fill(2).await;
    let first = f.deliver("a", &["s"]).await;
    let conflict = async |claim: ClaimId| {
        let error = f.store.end_overlap(claim, ended(), unaudited()).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    };
    conflict(first.id).await;
    let second = renewed(&f, &first).await;
    conflict(first.id).await;
    f.clock.advance(OVERLAP);
    f.store.end_overlap(first.id, ended(), silent()).await.unwrap();
    conflict(first.id).await;
    conflict(second.id).await;
}

async fn the_end_of_a_vnfci_covers_every_renewal(f: Fixture) {
    f.fill(6).await;
    for terminate in [true, false] {
        let id = if terminate { "a" } else { "b" };
        let first = f.deliver(id, &["s"]).await;
        let second = renewed(&f, &first).await;
        let open = renew(&f, &second, 9).await;
        if terminate {
            let items = vec![(vnfci_id(id), None)];
            f.store.terminate_vnfcis(&f.tenant, items, ended(), silent()).await.unwrap();
        } else {
            let ended_now = f.store.release_claim(second.id, ended(), silent()).await.unwrap();
            assert_eq!((ended_now.keys.len(), ended_now.revoked.len()), (3, 3));
            let again = f.store.release_claim(second.id, ended(), unaudited()).await.unwrap();
            assert_eq!(again.keys.len(), 3);
            assert_eq!(again.revoked, ended_now.revoked, "in the same order");
        }
        for claim in [&first, &second] {
            assert_eq!(states(&f, claim).await.2, CertificateState::RevocationPending);
        }
        let gone = (ClaimState::Destroyed, KeyState::Destroyed, CertificateState::RevocationPending);
        assert_eq!(states(&f, &open).await, gone);
        assert_eq!(f.confirm(open.id).await, ConfirmOutcome::TooLate);
    }
    // The sweeper finds nothing left to withdraw.
    f.clock.advance(OVERLAP);
    for claim in f.store.ended_overlaps(f.now(), 10).await.unwrap() {
        let outcome = f.store.end_overlap(claim.id, ended(), silent()).await.unwrap();
        assert!(outcome.keys.is_empty() && outcome.revoked.is_empty());
    }
}

async fn rearm(f: &Fixture, id: &str) -> InitialCredentialId {
    let item = Rearming {
        id: vnfci_id(id),
        vnf_instance: f.pool.vnf_instance.clone(),
        initial_credential: InitialCredentialId::generate(),
        kind: InitialCredentialKind::Token,
        expires_at: f.now().plus(DAY),
    };
    match f
        .store
        .rearm_vnfcis(&f.tenant, vec![item], &Quotas::default(), ended(), silent())
        .await
        .unwrap()
        .remove(0)
    {
        RearmOutcome::Rearmed { credential, .. } => credential.id,
        RearmOutcome::Refused(why) => panic!("{why}"),
    }
}

async fn a_new_arming_withdraws_renewals_too(f: Fixture) {
    f.fill(5).await;
    let first = f.deliver("a", &["s"]).await;
    let second = renewed(&f, &first).await;
    let before = renew(&f, &second, 8).await;
    let arming = rearm(&f, "a").await;
    assert_eq!(states(&f, &before).await.0, ClaimState::Destroyed);
    // Until the new arming is confirmed, what it has is renewed as ever.
    let open = renew(&f, &second, 9).await;
    let claim = f.claim(arming, 1).await;
    let ConfirmOutcome::Confirmed { superseded, .. } = f.confirm(claim.id).await else { panic!() };
    assert_eq!((superseded.keys.len(), superseded.revoked.len()), (3, 3));
    assert_eq!((states(&f, &first).await, states(&f, &second).await), (WITHDRAWN, WITHDRAWN));
    assert_eq!(f.confirm(open.id).await, ConfirmOutcome::TooLate);
    assert_eq!(states(&f, &claim).await, VALID);
}

/// Found by the simulation: the open claim of the new arming was destroyed, as if it were of an earlier one.
async fn a_renewal_by_what_is_in_force_leaves_a_new_armings_open_claim(f: Fixture) {
    f.fill(4).await;
    let first = f.deliver("a", &["s"]).await;
    let arming = rearm(&f, "a").await;
    let open = f.claim(arming, 7).await;
    let second = renewed(&f, &first).await;
    assert_eq!(states(&f, &second).await, VALID);
    assert_eq!(f.store.claim(open.id).await.unwrap().unwrap().state, ClaimState::Open);
    let ConfirmOutcome::Confirmed { superseded, .. } = f.confirm(open.id).await else { panic!() };
    assert_eq!(superseded.keys.len(), 2, "what was renewed, and what it was renewed to");
    assert_eq!(states(&f, &open).await, VALID);
    assert_eq!((states(&f, &first).await, states(&f, &second).await), (WITHDRAWN, WITHDRAWN));
}

async fn what_mano_requests_is_answered_by_what_is_drawn_after_it(f: Fixture) {
    use RenewalRequestOutcome::{AlreadyRequested, NotActive, NotFound, Requested};
    f.fill(4).await;
    let first = f.deliver("a", &["s"]).await;
    f.register("b", &["s"]).await;
    let ask = async |ids: &[(&str, Option<&str>)], audited_one: bool| {
        let items = ids.iter().map(|(id, vnf)| (vnfci_id(id), vnf.map(|vnf| vnf.parse().unwrap()))).collect();
        let mutation = if audited_one { audited() } else { unaudited() };
        f.store.request_renewals(&f.tenant, items, mutation).await.unwrap()
    };
    let requested_at = async || f.store.vnfci(&f.tenant, &first.vnfci).await.unwrap().renewal_requested_at;
    let early = renew(&f, &first, 7).await;
    f.clock.advance(MINUTE);
    let asked =
        ask(&[("a", Some("vnf-1")), ("b", None), ("c", None), ("a", Some("vnf-2")), ("a", None)], true).await;
    assert_eq!(asked, [Requested, NotActive, NotFound, NotFound, AlreadyRequested]);
    assert_eq!(requested_at().await, Some(f.now()));
    assert_eq!(ask(&[("a", None)], false).await, [AlreadyRequested]);
    // Drawn before MANO asked: it still waits.
    let second = confirmed(&f, early.id).await;
    assert!(requested_at().await.is_some());
    f.clock.advance(MINUTE);
    renewed(&f, &second).await;
    assert_eq!(requested_at().await, None);
    assert_eq!(ask(&[("a", None)], true).await, [Requested]);
}

/// A small generator: the sequence is the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

async fn random_renewals_never_leave_a_vnfci_without_credentials(f: Fixture) {
    for seed in 1..=6 {
        let mut dice = Dice(seed);
        f.fill(45).await;
        let id = format!("v-{seed}");
        let mut held = f.deliver(&id, &["s"]).await;
        let mut open: Option<ClaimRecord> = None;
        for step in 0..40 {
            match dice.throw(5) {
                0 | 1 => {
                    let recipient = u8::try_from(dice.throw(3)).unwrap();
                    match try_renew(&f, &held, recipient).await {
                        ClaimOutcome::Reserved { claim, .. } | ClaimOutcome::Replayed(claim) => {
                            open = Some(claim)
                        }
                        ClaimOutcome::Refused(
                            ClaimRefusal::TooManyRedraws | ClaimRefusal::TooManyRenewals,
                        ) => {}
                        other => panic!("seed {seed} step {step}: {other:?}"),
                    }
                }
                2 => {
                    if let Some(claim) = open.take()
                        && let ConfirmOutcome::Confirmed { claim, .. } = f.confirm(claim.id).await
                    {
                        held = claim;
                    }
                }
                3 => f.clock.advance(Duration::from_secs(60 * dice.throw(40))),
                _ => {
                    for claim in f.store.overdue_claims(f.now(), 10).await.unwrap() {
                        f.store.destroy_claim(claim.id, ended(), silent()).await.unwrap();
                    }
                    for claim in f.store.ended_overlaps(f.now(), 10).await.unwrap() {
                        f.store.end_overlap(claim.id, ended(), silent()).await.unwrap();
                    }
                }
            }
            assert_eq!(states(&f, &held).await, VALID, "seed {seed} step {step}");
            let shown = f.store.vnfci(&f.tenant, &held.vnfci).await.unwrap().credentials;
            let valid = shown
                .iter()
                .filter(|one| one.key_state == KeyState::Delivered && one.state == CertificateState::Valid);
            assert_eq!(valid.count(), 1, "seed {seed} step {step}: one is the latest");
        }
        f.store.terminate_vnfcis(&f.tenant, vec![(vnfci_id(&id), None)], ended(), silent()).await.unwrap();
        let shown = f.store.vnfci(&f.tenant, &held.vnfci).await.unwrap().credentials;
        let alive = |state| matches!(state, CertificateState::Valid | CertificateState::Superseded);
        assert!(!shown.iter().any(|one| alive(one.state)), "seed {seed}");
    }
}
