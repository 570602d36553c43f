//! Goal: whatever is done in whatever order, what must never happen does not.
//! Method: random sequences of operations; after each, what the store shows is held against the invariants.

use super::fixture::{Fixture, MINUTE, end, silent, vnfci_id};
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::{
    CertificateState, EpochChange, EpochState, HolderCopy, KeyState, RevocationReason,
};
use keybroker::nfv::{ClaimId, CredentialId, EpochId, InitialCredentialId};
use keybroker::store::StoreError;
use keybroker::store::records::{ClaimOutcome, NewCertificate, Pool, RecordOutcome};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;

/// One step. Indexes are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Fill(usize),
    FillWithoutCertificate,
    /// Into the pool that issues at the claim.
    FillKeys(usize),
    Register(usize),
    Claim(usize, u8),
    /// What a claim has to be signed.
    Certify(usize),
    /// A CA answers for a key in its pool.
    CertifyLate(usize),
    Confirm(usize),
    Destroy(usize),
    Release(usize),
    Terminate(usize),
    EraseUnclaimed(u32),
    EraseAged,
    Revoke(usize),
    NextEpoch,
    Rewrap(usize),
    Shred,
    Wait(u32),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..4_usize).prop_map(Step::Fill),
        1 => Just(Step::FillWithoutCertificate),
        3 => (1..4_usize).prop_map(Step::FillKeys),
        4 => (1..5_usize).prop_map(Step::Register),
        8 => (any::<usize>(), 0..3_u8).prop_map(|(n, recipient)| Step::Claim(n, recipient)),
        4 => any::<usize>().prop_map(Step::Certify),
        1 => any::<usize>().prop_map(Step::CertifyLate),
        4 => any::<usize>().prop_map(Step::Confirm),
        2 => any::<usize>().prop_map(Step::Destroy),
        2 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Terminate),
        1 => (1..3_u32).prop_map(Step::EraseUnclaimed),
        1 => Just(Step::EraseAged),
        1 => any::<usize>().prop_map(Step::Revoke),
        2 => Just(Step::NextEpoch),
        2 => any::<usize>().prop_map(Step::Rewrap),
        2 => Just(Step::Shred),
        2 => prop_oneof![1..30_u32, 600..1_600_u32].prop_map(Step::Wait),
        1 => Just(Step::Expire),
    ]
}

/// What was done so far, as far as the next step or an invariant needs it.
struct World {
    f: Fixture,
    /// Issues at the claim.
    at_claim: Pool,
    credentials: Vec<CredentialId>,
    /// Those of them that are in `at_claim`.
    keys_only: HashSet<CredentialId>,
    /// The certificates that were recorded after their keys.
    signed: HashMap<CredentialId, Vec<u8>>,
    serials: HashMap<CredentialId, String>,
    initials: Vec<InitialCredentialId>,
    claims: Vec<ClaimId>,
    /// The claim that each credential was drawn for.
    drawn: HashMap<CredentialId, ClaimId>,
    key_states: HashMap<CredentialId, KeyState>,
}

fn pick<T: Copy>(of: &[T], n: usize) -> Option<T> {
    of.get(n.checked_rem(of.len())?).copied()
}

/// Refusals by state are part of the game; anything else is not.
fn allowed<T: Debug>(outcome: Result<T, StoreError>) -> Option<T> {
    match outcome {
        Ok(outcome) => Some(outcome),
        Err(StoreError::Conflict(_) | StoreError::NotFound(_)) => None,
        Err(other) => panic!("{other}"),
    }
}

impl World {
    async fn take(&mut self, step: Step) {
        let f = &self.f;
        let custody_end = end(DestructionReason::Released, HolderCopy::Unknown);
        match step {
            Step::Fill(count) => self.credentials.extend(f.fill(count).await),
            Step::FillWithoutCertificate => {
                let mut credentials = f.produce(1);
                credentials[0].certificate = None;
                self.credentials.push(credentials[0].id);
                f.store.insert_credentials(credentials, silent()).await.unwrap();
            }
            Step::FillKeys(count) => {
                let keys = f.keys_only(&self.at_claim, count).await;
                self.keys_only.extend(&keys);
                self.credentials.extend(keys);
            }
            Step::Register(kind) => {
                let id = format!("v-{}", self.initials.len());
                let (ahead, own) = (&f.pool, &self.at_claim);
                let slots = [("a", ahead), ("b", ahead), ("c", own), ("d", own)];
                let slots = [&slots[..1], &slots[..2], &slots[1..3], &slots[2..]][kind - 1];
                self.initials.push(f.register_with(&id, slots).await.id);
            }
            Step::Certify(n) => {
                let Some(claim) = pick(&self.claims, n) else { return };
                let record = f.store.claim(claim).await.unwrap().unwrap();
                let certificates = f.signed(&record, &n.to_string());
                self.record(certificates).await;
            }
            Step::CertifyLate(n) => {
                let Some(id) = pick(&self.credentials, n) else { return };
                let certificate = f.produce_one(f.pool.id, f.epoch).certificate.unwrap();
                let certificate = NewCertificate { serial: id.0.as_bytes().to_vec(), ..certificate };
                self.record(vec![(id, certificate)]).await;
            }
            Step::Claim(n, recipient) => {
                let Some(initial) = pick(&self.initials, n) else { return };
                if let ClaimOutcome::Reserved { claim, .. } = f.try_claim(initial, recipient).await {
                    for credential in &claim.credentials {
                        let before = self.drawn.insert(credential.credential.id, claim.id);
                        assert_eq!(before, None, "drawn twice");
                    }
                    self.claims.push(claim.id);
                }
            }
            Step::Confirm(n) => {
                let Some(claim) = pick(&self.claims, n) else { return };
                allowed(f.store.confirm_claim(claim, silent()).await);
            }
            Step::Destroy(n) => {
                let Some(claim) = pick(&self.claims, n) else { return };
                allowed(f.store.destroy_claim(claim, custody_end, silent()).await);
            }
            Step::Release(n) => {
                let Some(claim) = pick(&self.claims, n) else { return };
                allowed(f.store.release_claim(claim, custody_end, silent()).await);
            }
            Step::Terminate(n) => {
                let Some(n) = n.checked_rem(self.initials.len()) else { return };
                let items = vec![(vnfci_id(&format!("v-{n}")), None)];
                f.store.terminate_vnfcis(&f.tenant, items, custody_end, silent()).await.unwrap();
            }
            Step::EraseUnclaimed(limit) => {
                f.store.erase_unclaimed(f.pool.id, None, custody_end, limit, silent()).await.unwrap();
            }
            Step::EraseAged => {
                let now = Some(f.now());
                f.store.erase_unclaimed(f.pool.id, now, custody_end, 10, silent()).await.unwrap();
            }
            Step::Revoke(n) => {
                let Some(credential) = pick(&self.credentials, n) else { return };
                let named = vec![(f.issuer, credential.0.as_bytes().to_vec())];
                let reason = RevocationReason::Unspecified;
                f.store.revoke_certificates(&f.tenant, named, reason, silent()).await.unwrap();
            }
            Step::NextEpoch => {
                let next = EpochId::generate();
                f.advance(f.epoch, EpochChange::Close).await;
                f.open_epoch(next).await;
                self.f.epoch = next;
            }
            Step::Rewrap(n) => {
                let closed = f.store.epochs(None, &[EpochState::Closed]).await.unwrap();
                let from: Vec<_> = closed.iter().map(|epoch| epoch.id).collect();
                let Some(from) = pick(&from, n) else { return };
                // Some of the keys that are asked for are not there: they are not moved.
                let some: Vec<_> = self.credentials.iter().skip(n % 3).step_by(2).copied().collect();
                let keys = some.iter().map(|id| (*id, b"rewrapped".to_vec())).collect();
                allowed(f.store.rewrapped(from, f.epoch, keys, silent()).await);
            }
            Step::Shred => {
                for epoch in f.store.epochs(None, &[EpochState::Closed]).await.unwrap() {
                    let shred = f.store.advance_epoch(epoch.id, EpochChange::Shred, None, silent()).await;
                    assert_eq!(allowed(shred).is_some(), epoch.live == 0);
                    if epoch.live == 0 {
                        f.advance(epoch.id, EpochChange::Verify).await;
                    }
                }
            }
            Step::Wait(minutes) => f.clock.advance(minutes * MINUTE),
            Step::Expire => {
                f.store.expire_certificates(f.now(), 10).await.unwrap();
            }
        }
    }

    /// The first certificate of a key is its only one.
    async fn record(&mut self, certificates: Vec<(CredentialId, NewCertificate)>) {
        let recorded = self.f.store.record_certificates(certificates.clone(), silent()).await;
        let Some(outcomes) = allowed(recorded) else { return };
        for ((id, certificate), outcome) in certificates.into_iter().zip(outcomes) {
            match outcome {
                RecordOutcome::Recorded(one) => {
                    assert_eq!(one.id, id);
                    assert_eq!(self.signed.insert(id, certificate.der), None, "a second certificate");
                }
                RecordOutcome::Before(der) => {
                    if let Some(first) = self.signed.get(&id) {
                        assert_eq!(&der, first, "another certificate than was recorded");
                    }
                }
                RecordOutcome::Ended => assert_eq!(self.key_states[&id], KeyState::Destroyed),
            }
        }
    }

    async fn check(&mut self) {
        let f = &self.f;
        let mut live: BTreeMap<EpochId, HashSet<CredentialId>> = BTreeMap::new();
        let mut counts = BTreeMap::<(bool, KeyState), u64>::new();
        for &id in &self.credentials {
            let custody = f.store.custody(Some(&f.tenant), id).await.unwrap();
            if let Some(before) = self.key_states.insert(id, custody.key_state) {
                assert!(before <= custody.key_state, "{before} went back to {}", custody.key_state);
            }
            *counts.entry((self.keys_only.contains(&id), custody.key_state)).or_default() += 1;
            if let Some(serial) = custody.serial {
                let first = self.serials.entry(id).or_insert_with(|| serial.clone());
                assert_eq!(*first, serial, "a second serial number for one key");
            }
            assert_eq!(custody.key_state.is_live(), custody.erased_at.is_none());
            assert_eq!(self.drawn.contains_key(&id), custody.vnfci.is_some());
            if custody.key_state.is_live() {
                live.entry(custody.epoch.unwrap()).or_default().insert(id);
            }
        }
        for epoch in f.store.epochs(None, EpochState::ALL).await.unwrap() {
            let expected = live.remove(&epoch.id).unwrap_or_default();
            // `live_keys` joins the blobs: a live key without one would be missing here.
            let keys = f.store.live_keys(epoch.id, 10_000).await.unwrap();
            let found: HashSet<_> = keys.iter().map(|key| key.credential.id).collect();
            assert_eq!(found, expected);
            assert_eq!(epoch.live, u64::try_from(expected.len()).unwrap());
            assert!(epoch.live <= epoch.keys);
            if matches!(epoch.state, EpochState::Shredding | EpochState::Destroyed) {
                assert_eq!(epoch.live, 0, "shredded with live keys");
            }
        }
        assert!(live.is_empty(), "a live key in no epoch");
        for &id in &self.claims {
            let claim = f.store.claim(id).await.unwrap().unwrap();
            assert!(!claim.credentials.is_empty());
            for credential in &claim.credentials {
                assert_eq!(self.drawn.get(&credential.credential.id), Some(&id), "moved to another claim");
                let is_live = self.key_states[&credential.credential.id].is_live();
                assert_eq!(!credential.key_blob.is_empty(), is_live, "blob without a live key or without it");
                assert_eq!(!credential.dek_blob.is_empty(), is_live);
                let id = credential.credential.id;
                if let Some(der) = self.signed.get(&id) {
                    assert_eq!(
                        credential.certificate.der(),
                        Some(der.as_slice()),
                        "not what was signed first"
                    );
                }
                match self.key_states[&id] {
                    KeyState::Delivered => assert!(credential.certificate.der().is_some()),
                    // Signed or only about to be: whoever may have it is not to be believed.
                    KeyState::Destroyed if credential.not_after > f.now() => {
                        let state = f.store.custody(Some(&f.tenant), id).await.unwrap().certificate_state;
                        assert_eq!(state, Some(CertificateState::RevocationPending));
                    }
                    _ => {}
                }
            }
        }
        for (pool, keys_only) in [(&f.pool, false), (&self.at_claim, true)] {
            let levels = f.store.pool_levels(pool.id).await.unwrap();
            let count = |state| counts.get(&(keys_only, state)).copied().unwrap_or_default();
            assert_eq!(levels.available + levels.aged, count(KeyState::Available));
            assert_eq!(levels.generated, count(KeyState::Generated));
            assert_eq!(levels.claimed, count(KeyState::Claimed));
            assert_eq!(levels.delivered, count(KeyState::Delivered));
            assert_eq!(levels.destroyed, count(KeyState::Destroyed));
            assert_eq!(levels.ready(pool.issue), if keys_only { levels.generated } else { levels.available });
        }
        for custody in f.store.receipts_due(1_000).await.unwrap() {
            assert!(custody.shredded_at.is_some() && custody.ended.is_some() && custody.erased_at.is_some());
        }
    }
}

async fn run(f: Fixture, steps: Vec<Step>) {
    let (at_claim, _) = f.pool_at_claim("keys", 0).await;
    let mut world = World {
        f,
        at_claim,
        keys_only: HashSet::new(),
        signed: HashMap::new(),
        serials: HashMap::new(),
        credentials: Vec::new(),
        initials: Vec::new(),
        claims: Vec::new(),
        drawn: HashMap::new(),
        key_states: HashMap::new(),
    };
    for step in steps {
        world.take(step).await;
        world.check().await;
    }
}

/// Runs the steps on a fresh store, in a runtime of their own.
fn run_on(fixture: impl Future<Output = Fixture>, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { run(fixture.await, steps).await });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_operations_breaks_an_invariant_sqlite(steps in proptest::collection::vec(step(), 1..40)) {
        run_on(Fixture::sqlite(), steps);
    }

    #[test]
    fn no_sequence_of_operations_breaks_an_invariant_postgres(steps in proptest::collection::vec(step(), 1..40)) {
        run_on(Fixture::postgres(), steps);
    }
}
