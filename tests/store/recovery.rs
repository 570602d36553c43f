//! What `keybroker recover` asks of a store.

use super::fixture::{DAY, Fixture, audited, end, silent, vnfci_id};
use super::promises;
use keybroker::audit::event::{Event, EventKind};
use keybroker::audit::lost::{LostCertificate, LostKey};
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::{CertificateState, HolderCopy, KeyState, RevocationReason};
use keybroker::identity::InitialCredentialState;
use keybroker::nfv::{CredentialId, IssuerId};
use keybroker::store::records::{AuditQuery, ChainTip, CrlEntry, CrlHead, CrlRecord, Recovered, Recovery};
use keybroker::store::{Marks, Mutation};
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

promises![
    known_events_are_found_chained_or_not,
    what_went_out_has_ended_and_is_withdrawn,
    what_went_out_gets_its_receipt_although_its_claim_is_forgotten,
    a_stated_reason_withdraws_and_leaves_the_key,
    certificates_that_are_unknown_are_listed_until_they_expire,
    open_initial_credentials_are_void_and_others_stay,
    crl_numbers_pass_every_one_that_was_signed_and_all_are_due,
    a_recovery_its_events_and_its_marks_commit_together,
    a_second_recovery_does_what_is_left,
    a_new_chain_has_every_event_again_and_its_own_last,
];

fn lost(f: &Fixture, ended: bool, reason: RevocationReason) -> LostKey {
    LostKey { ended, reason, at: f.now() }
}

fn certificate(f: &Fixture, serial: &[u8]) -> LostCertificate {
    LostCertificate { issuer: f.issuer, serial: serial.to_vec(), not_after: f.now().plus(DAY) }
}

fn of(keys: Vec<(CredentialId, LostKey, Vec<LostCertificate>)>) -> Recovery {
    Recovery { keys, crl_numbers: BTreeMap::new() }
}

fn no_marks() -> Marks {
    Box::new(|_| Vec::new())
}

async fn recover(f: &Fixture, recovery: Recovery) -> Recovered {
    f.store.recover(recovery, no_marks(), silent()).await.unwrap()
}

async fn known_events_are_found_chained_or_not(f: Fixture) {
    let events: Vec<Event> = (0..3).map(|_| f.event()).collect();
    f.store.append_events(events[..2].to_vec()).await.unwrap();
    f.chain_all().await;
    f.store.append_events(events[2..].to_vec()).await.unwrap();
    let mut asked: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let there: HashSet<Uuid> = asked.iter().copied().collect();
    // More than one statement takes.
    asked.extend((0..5_000).map(|_| Uuid::now_v7()));
    assert_eq!(f.store.known_events(asked).await.unwrap(), there);
    assert_eq!(f.store.known_events(Vec::new()).await.unwrap(), HashSet::new());
}

async fn what_went_out_has_ended_and_is_withdrawn(f: Fixture) {
    let ids = f.fill(3).await;
    let claim = f.deliver("a", &["s"]).await;
    let delivered = claim.credentials[0].credential.id;
    let waiting = *ids.iter().find(|id| **id != delivered).unwrap();
    let untouched = *ids.iter().find(|id| ![delivered, waiting].contains(id)).unwrap();
    let went = || lost(&f, true, RevocationReason::CessationOfOperation);
    let done = recover(&f, of(vec![(delivered, went(), Vec::new()), (waiting, went(), Vec::new())])).await;
    assert_eq!(done.revoked, 2);
    let ended: HashSet<CredentialId> = done.keys.iter().map(|key| key.id).collect();
    assert_eq!(ended, [delivered, waiting].into());
    for (id, state) in [(delivered, KeyState::Delivered), (waiting, KeyState::Destroyed)] {
        let custody = f.store.custody(None, id).await.unwrap();
        assert_eq!(custody.key_state, state);
        let expected = end(DestructionReason::Recovered, HolderCopy::Unknown);
        assert_eq!(custody.ended, Some((expected, f.now())));
    }
    let listed: HashSet<String> = f.listed_serials().await.into_iter().collect();
    assert_eq!(listed, [delivered, waiting].map(|id| hex::encode(id.0.as_bytes())).into());
    let custody = f.store.custody(None, untouched).await.unwrap();
    assert_eq!((custody.key_state, custody.ended), (KeyState::Available, None));
}

/// Found by the simulation: it was shredded, and nobody said so.
async fn what_went_out_gets_its_receipt_although_its_claim_is_forgotten(f: Fixture) {
    let ids = f.fill(2).await;
    let went = lost(&f, true, RevocationReason::CessationOfOperation);
    recover(&f, of(vec![(ids[0], went, Vec::new())])).await;
    let waited = end(DestructionReason::Recovered, HolderCopy::NeverDelivered);
    f.store.erase_unclaimed(f.pool.id, None, waited, 10, silent()).await.unwrap();
    assert!(f.store.receipts_due(10).await.unwrap().is_empty());
    f.shred(f.epoch).await;
    let due = f.store.receipts_due(10).await.unwrap();
    let due: Vec<CredentialId> = due.iter().map(|custody| custody.credential.id).collect();
    assert_eq!(due, [ids[0]], "what went out, and not what waited");
}

async fn a_stated_reason_withdraws_and_leaves_the_key(f: Fixture) {
    f.fill(1).await;
    let delivered = f.deliver("a", &["s"]).await.credentials[0].credential.id;
    let revoked = lost(&f, false, RevocationReason::KeyCompromise);
    let done = recover(&f, of(vec![(delivered, revoked, Vec::new())])).await;
    assert_eq!((done.revoked, done.keys.len()), (1, 1));
    let status = f.store.certificate_status(f.issuer, delivered.0.as_bytes()).await.unwrap().unwrap();
    assert_eq!(status.state, CertificateState::RevocationPending);
    assert_eq!(status.revoked, Some((f.now(), RevocationReason::KeyCompromise)));
    assert_eq!(f.store.custody(None, delivered).await.unwrap().ended, None, "its holder has it still");
}

async fn certificates_that_are_unknown_are_listed_until_they_expire(f: Fixture) {
    let unknown = CredentialId::generate();
    let foreign = LostCertificate { issuer: IssuerId::generate(), ..certificate(&f, b"foreign") };
    let expired = LostCertificate { not_after: f.now(), ..certificate(&f, b"expired") };
    let certificates = vec![certificate(&f, b"one"), certificate(&f, b"two"), foreign, expired];
    let key = lost(&f, true, RevocationReason::KeyCompromise);
    let done = recover(&f, of(vec![(unknown, key, certificates)])).await;
    assert_eq!((done.unknown_serials, done.keys.len(), done.revoked), (2, 0, 0));
    let entry = |serial: &[u8]| CrlEntry {
        serial: serial.to_vec(),
        revoked_at: f.now(),
        reason: RevocationReason::KeyCompromise,
        shard: CrlEntry::EVERY_SHARD,
        not_after: f.now().plus(DAY),
        pending: false,
    };
    let entries = f.store.crl_entries(f.issuer, f.now()).await.unwrap();
    assert_eq!(entries, [entry(b"one"), entry(b"two")]);
    let status = f.store.certificate_status(f.issuer, b"one").await.unwrap().unwrap();
    assert_eq!(status.state, CertificateState::Revoked);
    assert_eq!(status.revoked, Some((f.now(), RevocationReason::KeyCompromise)));
    assert_eq!(f.store.crl_entries(f.issuer, f.now().plus(DAY)).await.unwrap(), []);
}

async fn open_initial_credentials_are_void_and_others_stay(f: Fixture) {
    f.fill(2).await;
    f.deliver("spent", &["s"]).await;
    let claimed = f.register("claimed", &["s"]).await;
    f.claim(claimed.id, 1).await;
    f.register("waiting", &["s"]).await;
    let mut done = recover(&f, of(Vec::new())).await;
    done.voided.sort();
    let ids = ["claimed", "waiting"].map(|id| (f.tenant.clone(), vnfci_id(id)));
    assert_eq!(done.voided, ids);
    let state = async |id| f.store.vnfci(&f.tenant, &vnfci_id(id)).await.unwrap().initial_credential.state;
    assert_eq!(state("spent").await, InitialCredentialState::Spent);
    assert_eq!(state("claimed").await, InitialCredentialState::Void);
    assert_eq!(state("waiting").await, InitialCredentialState::Void);
}

async fn crl_numbers_pass_every_one_that_was_signed_and_all_are_due(f: Fixture) {
    let crl = |shard, number| {
        let head =
            CrlHead { shard, number, entries: 0, this_update: f.now(), next_update: f.now().plus(DAY) };
        CrlRecord { head, der: vec![0x30] }
    };
    f.store.record_crls(f.issuer, vec![crl(0, 7), crl(3, 90)], Vec::new(), silent()).await.unwrap();
    let numbers = [(f.issuer, 50), (IssuerId::generate(), 9_999)].into();
    recover(&f, Recovery { keys: Vec::new(), crl_numbers: numbers }).await;
    let heads = f.store.crl_heads(f.issuer).await.unwrap();
    let numbers: Vec<(u32, u64)> = heads.iter().map(|head| (head.shard, head.number)).collect();
    assert_eq!(numbers, [(0, 1_050), (3, 1_090)]);
    assert!(heads.iter().all(|head| head.this_update < f.now()), "{heads:?}");
}

async fn a_recovery_its_events_and_its_marks_commit_together(f: Fixture) {
    f.register("waiting", &["s"]).await;
    let marks = || -> Marks {
        Box::new(|done| vec![("recovery".to_owned(), format!("{} voided", done.voided.len()))])
    };
    let before = f.events().await;
    let panicking: Mutation<Recovered> = Mutation::new(|_| panic!("no events of this one"));
    f.store.recover(of(Vec::new()), marks(), panicking).await.unwrap_err();
    assert_eq!(f.store.mark("recovery").await.unwrap(), None);
    assert_eq!(f.events().await, before);
    let state =
        async || f.store.vnfci(&f.tenant, &vnfci_id("waiting")).await.unwrap().initial_credential.state;
    assert_eq!(state().await, InitialCredentialState::Open);
    f.store.recover(of(Vec::new()), marks(), audited()).await.unwrap();
    assert_eq!(f.store.mark("recovery").await.unwrap().as_deref(), Some("1 voided"));
    assert_eq!(f.events().await, before + 1);
    assert_eq!(state().await, InitialCredentialState::Void);
}

async fn a_second_recovery_does_what_is_left(f: Fixture) {
    f.fill(1).await;
    let delivered = f.deliver("a", &["s"]).await.credentials[0].credential.id;
    f.register("waiting", &["s"]).await;
    let unknown = CredentialId::generate();
    let went = || lost(&f, true, RevocationReason::CessationOfOperation);
    let recovery =
        || of(vec![(delivered, went(), Vec::new()), (unknown, went(), vec![certificate(&f, b"unknown")])]);
    let first = recover(&f, recovery()).await;
    assert_eq!((first.keys.len(), first.revoked, first.unknown_serials, first.voided.len()), (1, 1, 1, 1));
    let listed = f.store.crl_entries(f.issuer, f.now()).await.unwrap();
    assert_eq!(recover(&f, recovery()).await, Recovered::default());
    assert_eq!(f.store.crl_entries(f.issuer, f.now()).await.unwrap(), listed);
}

async fn a_new_chain_has_every_event_again_and_its_own_last(f: Fixture) {
    let events: Vec<Event> = (0..3).map(|_| f.event()).collect();
    f.store.append_events(events.clone()).await.unwrap();
    let tip = f.chain_all().await;
    f.store.record_head(tip.size, "a head".to_owned()).await.unwrap();
    let late = f.event();
    f.store.append_events(vec![late.clone()]).await.unwrap();

    let last = Event { kind: EventKind::Recovered, ..f.event() };
    let marks = vec![("audit_origin".to_owned(), "new".to_owned()), ("recovery".to_owned(), String::new())];
    f.store.restart_chain(last.clone(), marks).await.unwrap();
    assert_eq!(f.store.chain_tip().await.unwrap(), ChainTip { size: 0, hash: None });
    assert_eq!(f.store.latest_head().await.unwrap(), None);
    assert_eq!(f.store.mark("audit_origin").await.unwrap().as_deref(), Some("new"));
    assert_eq!(f.store.mark("recovery").await.unwrap().as_deref(), Some(""));
    let (waiting, _) = f.store.unchained_events(100).await.unwrap();
    let ids: Vec<Uuid> = waiting.iter().map(|event| event.event.id).collect();
    let expected: Vec<Uuid> = events.iter().chain([&late, &last]).map(|event| event.id).collect();
    assert_eq!(ids, expected);
    f.chain_all().await;
    let everything = AuditQuery { limit: 100, ..AuditQuery::default() };
    let chained = f.store.audit_entries(&everything).await.unwrap();
    assert_eq!(chained.iter().map(|entry| entry.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}
