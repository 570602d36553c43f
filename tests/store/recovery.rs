//! What `keybroker recover` asks of a store.

use super::fixture::{DAY, Fixture, audited, end, silent, vnfci_id};
use super::promises;
use keybroker::audit::event::{Event, EventKind};
use keybroker::audit::lost::{
    Listed, LostCertificate, LostEnd, LostKey, LostRearming, LostRelease, LostRenewal,
};
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::{CertificateState, HolderCopy, KeyState, RevocationReason};
use keybroker::identity::InitialCredentialState;
use keybroker::nfv::{ClaimId, CredentialId, InitialCredentialId, IssuerId};
use keybroker::store::records::{
    AuditQuery, ChainTip, ClaimRecord, ClaimState, CrlEntry, CrlHead, CrlRecord, CustodyEnd, IssuerRecord,
    Recovered, Recovery, VnfciState,
};
use keybroker::store::{Marks, Mutation, StoreError};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;
use uuid::Uuid;

promises![
    known_events_are_found_chained_or_not,
    what_went_out_has_ended_and_is_withdrawn,
    what_went_out_gets_its_receipt_although_its_claim_is_forgotten,
    what_ended_after_the_backup_has_ended_so_and_its_claim_too,
    what_was_given_back_after_the_backup_is_given_back_and_its_vnfci_released,
    a_release_of_before_says_nothing_of_a_vnfci_that_was_armed_since,
    what_was_renewed_after_the_backup_is_in_its_overlap,
    a_stated_reason_withdraws_and_leaves_the_key,
    certificates_that_are_unknown_are_listed_until_they_expire,
    a_certificate_made_after_the_backup_for_a_known_key_is_listed,
    what_an_earlier_recovery_listed_is_listed_or_withdrawn_if_the_database_has_it,
    a_ca_is_back_once_with_what_it_certified_and_beyond_its_crl_numbers,
    open_initial_credentials_are_void_and_others_stay,
    crl_numbers_pass_every_one_that_was_signed_and_all_are_due,
    a_recovery_its_events_and_its_marks_commit_together,
    a_second_recovery_does_what_is_left,
    a_new_chain_has_every_event_again_and_its_own_last,
];

/// It went out, and the log says no more.
fn went_out(f: &Fixture) -> LostKey {
    LostKey { end: Some(LostEnd::WENT_OUT), stated: None, at: f.now() }
}

fn stated(f: &Fixture, reason: RevocationReason) -> LostKey {
    LostKey { end: None, stated: Some(reason), at: f.now() }
}

fn certificate(f: &Fixture, serial: &[u8]) -> LostCertificate {
    LostCertificate { issuer: f.issuer, serial: serial.to_vec(), not_after: f.now().plus(DAY) }
}

fn of(keys: Vec<(CredentialId, LostKey, Vec<LostCertificate>)>) -> Recovery {
    Recovery { keys, ..Recovery::default() }
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
    let went = || went_out(&f);
    let done = recover(&f, of(vec![(delivered, went(), Vec::new()), (waiting, went(), Vec::new())])).await;
    assert_eq!(done.revoked, 2);
    let ended: HashSet<CredentialId> = done.ended.iter().map(|(key, _)| key.id).collect();
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
    recover(&f, of(vec![(ids[0], went_out(&f), Vec::new())])).await;
    let waited = end(DestructionReason::Recovered, HolderCopy::NeverDelivered);
    f.store.erase_unclaimed(f.pool.id, None, waited, 10, silent()).await.unwrap();
    assert!(f.store.receipts_due(10).await.unwrap().is_empty());
    f.shred(f.epoch).await;
    let due = f.store.receipts_due(10).await.unwrap();
    let due: Vec<CredentialId> = due.iter().map(|custody| custody.credential.id).collect();
    assert_eq!(due, [ids[0]], "what went out, and not what waited");
}

/// Found by the simulation: what re-arming had superseded after the backup was withdrawn, and never receipted.
async fn what_ended_after_the_backup_has_ended_so_and_its_claim_too(f: Fixture) {
    f.fill(2).await;
    let superseded = f.deliver("a", &["s"]).await;
    let claimed = f.register("b", &["s"]).await;
    let open = f.claim(claimed.id, 1).await;
    let key = superseded.credentials[0].credential.id;
    let unconfirmed = open.credentials[0].credential.id;
    let ended = |reason| LostKey { end: Some(LostEnd::new(reason, HolderCopy::Unknown)), ..went_out(&f) };
    let keys = vec![
        (key, ended(DestructionReason::Superseded), Vec::new()),
        (unconfirmed, ended(DestructionReason::Unconfirmed), Vec::new()),
    ];
    let done = recover(&f, of(keys)).await;
    assert_eq!((done.ended.len(), done.revoked), (2, 2));
    let custody = f.store.custody(None, key).await.unwrap();
    let how = CustodyEnd {
        revocation: RevocationReason::Superseded,
        ..end(DestructionReason::Superseded, HolderCopy::Unknown)
    };
    assert_eq!((custody.key_state, custody.ended), (KeyState::Delivered, Some((how, f.now()))));
    let status = f.store.certificate_status(f.issuer, key.0.as_bytes()).await.unwrap().unwrap();
    assert_eq!(status.revoked, Some((f.now(), RevocationReason::Superseded)));
    assert_eq!(f.store.claim(superseded.id).await.unwrap().unwrap().state, ClaimState::Superseded);
    assert_eq!(f.store.claim(open.id).await.unwrap().unwrap().state, ClaimState::Destroyed);
    f.shred(f.epoch).await;
    let due: HashSet<_> =
        f.store.receipts_due(10).await.unwrap().into_iter().map(|custody| custody.credential.id).collect();
    assert_eq!(due, [key, unconfirmed].into());
}

fn release(f: &Fixture, id: &str, claim: &ClaimRecord) -> LostRelease {
    LostRelease {
        tenant: f.tenant.clone(),
        vnfci: vnfci_id(id),
        claim: claim.id,
        arming: None,
        ended: true,
        rearmed: false,
        at: f.now(),
        details: "{}".to_owned(),
    }
}

/// Found by the simulation: its VNFCI was shown as active, and nothing was said of the holder's copy.
async fn what_was_given_back_after_the_backup_is_given_back_and_its_vnfci_released(f: Fixture) {
    f.fill(2).await;
    let claim = f.deliver("a", &["s"]).await;
    let again = f.deliver("again", &["s"]).await;
    let given_back = |claim: &ClaimRecord| {
        let signed = LostEnd::new(DestructionReason::Released, HolderCopy::ReleasedSigned);
        let end = Some(LostEnd { release: Some(claim.id), ..signed });
        (claim.credentials[0].credential.id, LostKey { end, ..went_out(&f) }, Vec::new())
    };
    let rearmed = |id| {
        let rearming = LostRearming { at: f.now(), details: "{}".to_owned() };
        BTreeMap::from([((f.tenant.clone(), vnfci_id(id)), rearming)])
    };
    let recovery = || Recovery {
        keys: vec![given_back(&claim), given_back(&again)],
        releases: vec![
            release(&f, "a", &claim),
            LostRelease { rearmed: true, ..release(&f, "again", &again) },
        ],
        rearmed: rearmed("again"),
        ..Recovery::default()
    };
    let done = recover(&f, recovery()).await;
    assert_eq!(done.released, ["a", "again"].map(|id| (f.tenant.clone(), vnfci_id(id))));
    assert_eq!(done.returned, [(f.tenant.clone(), vnfci_id("again"))]);
    assert_eq!(done.ended.len(), 2);
    let shown = async |id| f.store.vnfci(&f.tenant, &vnfci_id(id)).await.unwrap().state;
    assert_eq!(shown("a").await, VnfciState::Released);
    assert_eq!(shown("again").await, VnfciState::Registered, "it was armed anew");
    for claim in [&claim, &again] {
        assert_eq!(f.store.claim(claim.id).await.unwrap().unwrap().state, ClaimState::Released);
        let custody = f.store.custody(None, claim.credentials[0].credential.id).await.unwrap();
        let signed = end(DestructionReason::Released, HolderCopy::ReleasedSigned);
        assert_eq!(custody.ended, Some((signed, f.now())));
    }
    assert_eq!(recover(&f, recovery()).await, Recovered::default());
    // Given back before the backup, and armed anew after it.
    let only = || Recovery { rearmed: rearmed("a"), ..Recovery::default() };
    assert_eq!(recover(&f, only()).await.returned.len(), 1);
    assert_eq!((shown("a").await, recover(&f, only()).await), (VnfciState::Registered, Recovered::default()));
}

async fn a_release_of_before_says_nothing_of_a_vnfci_that_was_armed_since(f: Fixture) {
    f.fill(2).await;
    let claim = f.deliver("a", &["s"]).await;
    let released = LostRelease { arming: Some(InitialCredentialId::generate()), ..release(&f, "a", &claim) };
    // Of a claim that the database does not have, of an arming from before an earlier recovery.
    let unknown = LostRelease { claim: ClaimId::generate(), ..released };
    let earlier = LostRelease { at: f.now().minus(DAY), ..unknown.clone() };
    let state = async || f.store.vnfci(&f.tenant, &vnfci_id("a")).await.unwrap().state;
    let only = |release| Recovery { releases: vec![release], ..Recovery::default() };
    assert_eq!(recover(&f, only(earlier)).await, Recovered::default());
    assert_eq!(state().await, VnfciState::Active);
    let not_the_latest = LostRelease { ended: false, ..unknown.clone() };
    assert_eq!(recover(&f, only(not_the_latest)).await, Recovered::default());
    assert_eq!(state().await, VnfciState::Active);
    let done = recover(&f, only(unknown)).await;
    assert_eq!((done.released.len(), state().await), (1, VnfciState::Released));
}

async fn what_was_renewed_after_the_backup_is_in_its_overlap(f: Fixture) {
    f.fill(2).await;
    let claim = f.deliver("a", &["s"]).await;
    let key = claim.credentials[0].credential.id;
    let hour = Duration::from_secs(3_600);
    let renewal = LostRenewal {
        tenant: f.tenant.clone(),
        vnfci: vnfci_id("a"),
        of: claim.id,
        by: ClaimId::generate(),
        at: f.now(),
        keys: Vec::new(),
        details: "{}".to_owned(),
    };
    let recovery = || Recovery { renewals: vec![(renewal.clone(), hour)], ..Recovery::default() };
    assert_eq!(recover(&f, recovery()).await.renewed, [renewal.by]);
    assert_eq!(recover(&f, recovery()).await, Recovered::default(), "once");
    assert_eq!(f.store.claim(claim.id).await.unwrap().unwrap().state, ClaimState::Renewed);
    let status = f.store.certificate_status(f.issuer, key.0.as_bytes()).await.unwrap().unwrap();
    assert_eq!(status.state, CertificateState::Superseded);
    let ended = async |at| f.store.ended_overlaps(at, 10).await.unwrap().len();
    assert_eq!(ended(f.now().plus(hour).minus(Duration::from_secs(1))).await, 0);
    assert_eq!(ended(f.now().plus(hour)).await, 1);
    assert_eq!(f.store.custody(None, key).await.unwrap().ended, None, "until then its holder may use it");
}

async fn a_stated_reason_withdraws_and_leaves_the_key(f: Fixture) {
    f.fill(1).await;
    let delivered = f.deliver("a", &["s"]).await.credentials[0].credential.id;
    let revoked = stated(&f, RevocationReason::KeyCompromise);
    let done = recover(&f, of(vec![(delivered, revoked, Vec::new())])).await;
    assert_eq!((done.revoked, done.ended.len()), (1, 0));
    let withdrawn = &done.withdrawn[0];
    assert_eq!((withdrawn.key.id, withdrawn.reason), (delivered, RevocationReason::KeyCompromise));
    assert_eq!(withdrawn.serials, [hex::encode(delivered.0.as_bytes())]);
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
    let key = LostKey { stated: Some(RevocationReason::KeyCompromise), ..went_out(&f) };
    let done = recover(&f, of(vec![(unknown, key, certificates)])).await;
    assert_eq!((done.listed.len(), done.ended.len(), done.revoked), (2, 0, 0));
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

async fn a_certificate_made_after_the_backup_for_a_known_key_is_listed(f: Fixture) {
    let ids = f.fill(1).await;
    let of_backup = ids[0].0.as_bytes().to_vec();
    let certificates = vec![certificate(&f, &of_backup), certificate(&f, &[7; 16])];
    let recovery = || of(vec![(ids[0], went_out(&f), certificates.clone())]);
    let done = recover(&f, recovery()).await;
    assert_eq!((done.revoked, done.listed.len()), (1, 1));
    let listed: HashSet<String> = f.listed_serials().await.into_iter().collect();
    assert_eq!(listed, [hex::encode(&of_backup), hex::encode([7; 16])].into());
    assert_eq!(recover(&f, recovery()).await.listed, []);
}

/// Found by a tester: it was good again in a backup that was younger than the one recovered first.
async fn what_an_earlier_recovery_listed_is_listed_or_withdrawn_if_the_database_has_it(f: Fixture) {
    f.fill(2).await;
    let key = f.deliver("a", &["s"]).await.credentials[0].credential.id;
    let given_back = f.deliver("back", &["s"]).await;
    let gone = given_back.credentials[0].credential.id;
    let listed = |serial: &[u8]| Listed {
        certificate: certificate(&f, serial),
        reason: RevocationReason::CessationOfOperation,
        at: f.now().minus(DAY),
    };
    let expired = Listed {
        certificate: LostCertificate { not_after: f.now(), ..certificate(&f, b"expired") },
        ..listed(b"expired")
    };
    let recovery = || Recovery {
        listed: vec![
            listed(key.0.as_bytes()),
            listed(gone.0.as_bytes()),
            listed(b"unknown"),
            listed(b"unknown"),
            expired.clone(),
        ],
        releases: vec![release(&f, "back", &given_back)],
        ..Recovery::default()
    };
    let done = recover(&f, recovery()).await;
    assert_eq!(done.listed, [listed(b"unknown")]);
    let [withdrawn] = &done.withdrawn[..] else { panic!("{done:?}") };
    assert_eq!((withdrawn.key.id, withdrawn.reason), (key, RevocationReason::CessationOfOperation));
    assert_eq!(done.disarmed, [(f.tenant.clone(), vnfci_id("a"))], "the other gave back what it had");
    let of_crl: HashSet<String> = f.listed_serials().await.into_iter().collect();
    let [key_serial, gone_serial] = [key, gone].map(|id| hex::encode(id.0.as_bytes()));
    assert_eq!(of_crl, [key_serial, gone_serial, hex::encode(b"unknown")].into());
    assert_eq!(recover(&f, recovery()).await, Recovered::default());
}

async fn a_ca_is_back_once_with_what_it_certified_and_beyond_its_crl_numbers(f: Fixture) {
    let forgotten = |generation| IssuerRecord {
        id: IssuerId::generate(),
        tenant: Some(f.tenant.clone()),
        name: "main".parse().unwrap(),
        external: None,
        generation,
        key: format!("keybroker:ca:default:{generation}"),
        certificate_der: vec![0x30, 1],
        chain_der: vec![vec![0x30, 2]],
        created_at: f.now(),
    };
    // Another CA has the generation of the first.
    let (taken, free) = (forgotten(1), forgotten(5));
    let of_taken = LostCertificate { issuer: taken.id, ..certificate(&f, &[7; 16]) };
    let recovery = || Recovery {
        issuers: vec![(taken.clone(), 40), (free.clone(), 0)],
        lost_issuers: vec![certificate(&f, &[9; 16])],
        ..of(vec![(CredentialId::generate(), went_out(&f), vec![of_taken.clone()])])
    };
    let done = recover(&f, recovery()).await;
    assert_eq!((done.issuers, done.listed.len()), (vec![(taken.id, 2), (free.id, 5)], 2));
    let back = f.store.issuers().await.unwrap();
    let back: Vec<&IssuerRecord> = back.iter().filter(|issuer| issuer.id == taken.id).collect();
    assert_eq!(back, [&IssuerRecord { generation: 2, ..taken.clone() }]);
    let entries = f.store.crl_entries(taken.id, f.now()).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.serial.clone()).collect::<Vec<_>>(), [vec![7; 16]]);
    let heads = f.store.crl_heads(taken.id).await.unwrap();
    assert_eq!(heads.iter().map(|head| head.number).collect::<Vec<_>>(), [1_040]);
    assert_eq!(f.store.latest_crl(taken.id, 0).await.unwrap(), None, "there is none to serve yet");
    assert_eq!(f.listed_serials().await, [hex::encode([9; 16])], "of the CA that is not back, by its root");
    let again = recover(&f, recovery()).await;
    assert_eq!((again.issuers, again.listed), (Vec::new(), Vec::new()));
}

async fn crl_numbers_pass_every_one_that_was_signed_and_all_are_due(f: Fixture) {
    let crl = |shard, number| {
        let head =
            CrlHead { shard, number, entries: 0, this_update: f.now(), next_update: f.now().plus(DAY) };
        CrlRecord { head, der: vec![0x30] }
    };
    f.store.record_crls(f.issuer, vec![crl(0, 7), crl(3, 90)], Vec::new(), silent()).await.unwrap();
    let numbers = [(f.issuer, 50), (IssuerId::generate(), 9_999)].into();
    recover(&f, Recovery { crl_numbers: numbers, ..Recovery::default() }).await;
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
    let went = || went_out(&f);
    let recovery =
        || of(vec![(delivered, went(), Vec::new()), (unknown, went(), vec![certificate(&f, b"unknown")])]);
    let first = recover(&f, recovery()).await;
    assert_eq!((first.ended.len(), first.revoked, first.listed.len(), first.voided.len()), (1, 1, 1, 1));
    let listed = f.store.crl_entries(f.issuer, f.now()).await.unwrap();
    assert_eq!(recover(&f, recovery()).await, Recovered::default());
    assert_eq!(f.store.crl_entries(f.issuer, f.now()).await.unwrap(), listed);
}

async fn a_new_chain_has_every_event_again_and_its_own_last(f: Fixture) {
    let events: Vec<Event> = (0..3).map(|_| f.event()).collect();
    f.store.append_events(events.clone()).await.unwrap();
    let tip = f.chain_all().await;
    f.store.record_head(&tip, "a head".to_owned()).await.unwrap();
    let late = f.event();
    f.store.append_events(vec![late.clone()]).await.unwrap();

    let last = Event { kind: EventKind::Recovered, ..f.event() };
    let marks = vec![("audit_origin".to_owned(), "new".to_owned()), ("recovery".to_owned(), String::new())];
    f.store.restart_chain(last.clone(), marks).await.unwrap();
    assert_eq!(f.store.chain_tip().await.unwrap(), ChainTip { size: 0, hash: None });
    assert_eq!(f.store.latest_head().await.unwrap(), None);
    assert_eq!(f.store.mark("audit_origin").await.unwrap().as_deref(), Some("new"));
    assert_eq!(f.store.mark("recovery").await.unwrap().as_deref(), Some(""));
    // Of who slept through it.
    let late_head = f.store.record_head(&tip, "a head of before".to_owned()).await;
    assert!(matches!(late_head, Err(StoreError::Conflict(_))), "{late_head:?}");
    let (waiting, _) = f.store.unchained_events(100).await.unwrap();
    let ids: Vec<Uuid> = waiting.iter().map(|event| event.event.id).collect();
    let expected: Vec<Uuid> = events.iter().chain([&late, &last]).map(|event| event.id).collect();
    assert_eq!(ids, expected);
    f.chain_all().await;
    let everything = AuditQuery { limit: 100, ..AuditQuery::default() };
    let chained = f.store.audit_entries(&everything).await.unwrap();
    assert_eq!(chained.iter().map(|entry| entry.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}
