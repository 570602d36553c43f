//! Goal: someone who has an exported log and the audit key's public half, and does not trust the broker, finds every
//! change, and reads the story of one key.
//! Method: logs are made and signed here with a software key and then tampered with as an attacker would who can write
//! every file but cannot sign.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like the tests themselves")]

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use keybroker::audit::details::{
    ClaimDetails, ErasedDetails, ProducedDetails, RewrappedDetails, ShreddedDetails, json,
};
use keybroker::audit::event::{Actor, Event, EventCredential, EventKind};
use keybroker::audit::export::{EVENTS_FILE, ExportWriter, HEAD_FILE};
use keybroker::audit::history::{KeyHistory, prove};
use keybroker::audit::mirror::{Mirror, Position};
use keybroker::audit::receipt::{BrokerCopy, BrokerCopyState, DestructionReason};
use keybroker::audit::verify::{ProblemKind, Report, verify};
use keybroker::audit::{
    AuditAlgorithm, AuditPublicKey, AuditSignature, ChainedEntry, DestructionReceipt, Head, SignedHead,
    SignedReceipt, StoredEvent, genesis, next_hash,
};
use keybroker::clock::Timestamp;
use keybroker::credential::{HolderCopy, KeyType, StepReason};
use keybroker::nfv::{ClaimId, CredentialId, EpochId, InitialCredentialId, PoolId, Sha256Hash};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const ORIGIN: &str = "keybroker/test/1";

/// Stands in for the audit key in the HSM.
struct AuditKey {
    key: EcdsaKeyPair,
    public: AuditPublicKey,
}

impl AuditKey {
    fn generate() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let public = AuditPublicKey::from_spki(key.public_key().as_der().unwrap().as_ref()).unwrap();
        Self { key, public }
    }

    fn sign(&self, message: &[u8]) -> AuditSignature {
        AuditSignature {
            algorithm: AuditAlgorithm::EcdsaP256Sha256,
            key_id: self.public.id(),
            signature: self.key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
        }
    }

    fn head(&self, rows: &[ChainedEntry]) -> SignedHead {
        let head = Head {
            origin: ORIGIN.to_owned(),
            size: rows.len() as u64,
            hash: rows.last().map_or(genesis(ORIGIN), |row| row.hash),
            time: at(1_000),
        };
        SignedHead { signature: self.sign(&head.bytes()), head }
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn chain(events: &[Event]) -> Vec<ChainedEntry> {
    let mut hash = genesis(ORIGIN);
    let mut rows = Vec::new();
    for (event, index) in events.iter().zip(0..) {
        let event = StoredEvent::from(event);
        hash = next_hash(hash, &event);
        rows.push(ChainedEntry { index, event, hash });
    }
    rows
}

fn events(count: i64) -> Vec<Event> {
    (0..count)
        .map(|n| {
            Event::new(at(n), EventKind::PoolUpdated, Actor::broker())
                .details(serde_json::json!({"number": n}))
        })
        .collect()
}

fn export(rows: &[ChainedEntry], head: &SignedHead) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = ExportWriter::create(directory.path()).unwrap();
    for row in rows {
        writer.append(row).unwrap();
    }
    writer.finish(head).unwrap();
    directory
}

/// The report of the rows under a head, and its problems as (index, kind).
fn problems(key: &AuditKey, rows: &[ChainedEntry], head: &SignedHead) -> Vec<(Option<u64>, ProblemKind)> {
    found(&verify(export(rows, head).path(), &key.public, &[]).unwrap())
}

fn found(report: &Report) -> Vec<(Option<u64>, ProblemKind)> {
    assert_eq!(report.is_good(), report.problems.is_empty());
    report.problems.iter().map(|problem| (problem.index, problem.kind)).collect()
}

#[test]
fn an_untouched_log_is_good_and_extends_every_earlier_head() {
    let key = AuditKey::generate();
    let rows = chain(&events(20));
    let earlier: Vec<_> = [0, 1, 7, 20, 7].iter().map(|&size| key.head(&rows[..size])).collect();
    let directory = export(&rows, &key.head(&rows));
    let report = verify(directory.path(), &key.public, &earlier).unwrap();
    assert_eq!(found(&report), []);
    assert_eq!((report.rows, report.extends), (20, 5));
    // An empty log, too.
    assert_eq!(problems(&key, &[], &key.head(&[])), []);
}

#[test]
fn a_changed_row_is_named() {
    let key = AuditKey::generate();
    let rows = chain(&events(10));
    let head = key.head(&rows);
    for index in 0..10 {
        let mut changed = rows.clone();
        changed[index].event.actor = Actor("operator:mallory".to_owned());
        assert_eq!(problems(&key, &changed, &head), [(Some(index as u64), ProblemKind::Changed)]);
        // With the hash made to fit, the next row does not follow any more; the last one contradicts the head.
        let previous = if index == 0 { genesis(ORIGIN) } else { rows[index - 1].hash };
        changed[index].hash = next_hash(previous, &changed[index].event);
        let expected = match index {
            9 => (Some(9), ProblemKind::HeadMismatch),
            _ => (Some(index as u64 + 1), ProblemKind::Changed),
        };
        assert_eq!(problems(&key, &changed, &head), [expected]);
    }
}

#[test]
fn a_log_that_was_rewritten_from_the_start_contradicts_its_head() {
    let key = AuditKey::generate();
    let mut other = events(10);
    let head = key.head(&chain(&other));
    other[3].actor = Actor("operator:mallory".to_owned());
    assert_eq!(problems(&key, &chain(&other), &head), [(Some(9), ProblemKind::HeadMismatch)]);
}

#[test]
fn a_missing_row_is_named() {
    let key = AuditKey::generate();
    let rows = chain(&events(10));
    let head = key.head(&rows);
    for index in 0..9 {
        let mut missing = rows.clone();
        missing.remove(index);
        assert_eq!(problems(&key, &missing, &head), [(Some(index as u64), ProblemKind::Missing)]);
    }
    // Renumbered to hide it, the chain breaks there.
    let mut renumbered = rows.clone();
    renumbered.remove(4);
    renumbered.iter_mut().zip(0..).for_each(|(row, index)| row.index = index);
    assert_eq!(
        problems(&key, &renumbered, &head),
        [(Some(4), ProblemKind::Changed), (Some(9), ProblemKind::Truncated)]
    );
}

#[test]
fn a_deleted_end_is_found_because_the_head_is_signed() {
    let key = AuditKey::generate();
    let rows = chain(&events(10));
    assert_eq!(problems(&key, &rows[..9], &key.head(&rows)), [(Some(9), ProblemKind::Truncated)]);
    assert_eq!(problems(&key, &[], &key.head(&rows)), [(Some(0), ProblemKind::Truncated)]);
}

#[test]
fn rows_that_changed_places_or_are_there_twice_are_named() {
    let key = AuditKey::generate();
    let rows = chain(&events(10));
    let head = key.head(&rows);
    let mut swapped = rows.clone();
    swapped.swap(4, 5);
    assert_eq!(problems(&key, &swapped, &head), [(Some(4), ProblemKind::Reordered)]);
    let mut twice = rows.clone();
    twice.insert(6, rows[2].clone());
    assert_eq!(problems(&key, &twice, &head), [(Some(2), ProblemKind::Duplicated)]);
}

#[test]
fn rows_beyond_the_signed_size_are_not_accepted() {
    let key = AuditKey::generate();
    let rows = chain(&events(10));
    assert_eq!(
        problems(&key, &rows, &key.head(&rows[..8])),
        [(Some(8), ProblemKind::Unsigned), (Some(9), ProblemKind::Unsigned)]
    );
}

#[test]
fn a_head_of_another_key_or_with_a_changed_field_is_refused() {
    let key = AuditKey::generate();
    let rows = chain(&events(3));
    let foreign = AuditKey::generate().head(&rows);
    assert_eq!(problems(&key, &rows, &foreign), [(None, ProblemKind::HeadSignature)]);
    let mut changed = key.head(&rows);
    changed.head.time = at(2_000);
    assert_eq!(problems(&key, &rows, &changed), [(None, ProblemKind::HeadSignature)]);
}

#[test]
fn a_log_that_does_not_extend_an_earlier_head_is_refused_though_it_is_signed() {
    let key = AuditKey::generate();
    let mut other = events(10);
    let rows = chain(&other);
    other[2].actor = Actor("operator:mallory".to_owned());
    let other = chain(&other);
    // The broker itself rewrote row 2 and signed again; the auditor kept heads from before.
    let earlier = [key.head(&rows[..2]), key.head(&rows[..3]), key.head(&rows)];
    let report = verify(export(&other, &key.head(&other)).path(), &key.public, &earlier).unwrap();
    assert_eq!(found(&report), [(Some(2), ProblemKind::Rewritten), (Some(9), ProblemKind::Rewritten)]);
    assert_eq!(report.extends, 1);
    // It signed a shorter log.
    let report = verify(export(&rows[..5], &key.head(&rows[..5])).path(), &key.public, &earlier).unwrap();
    assert_eq!(found(&report), [(Some(5), ProblemKind::Truncated)]);
    // It began another log.
    let mut foreign = key.head(&rows[..2]);
    foreign.head.origin = "keybroker/test/0".to_owned();
    foreign.signature = key.sign(&foreign.head.bytes());
    let report = verify(export(&rows, &key.head(&rows)).path(), &key.public, &[foreign]).unwrap();
    assert_eq!(found(&report), [(None, ProblemKind::OtherLog)]);
}

#[test]
fn a_line_that_is_no_row_and_a_field_that_is_not_hashed_are_found() {
    let key = AuditKey::generate();
    let rows = chain(&events(5));
    for (from, to) in [
        ("{\"index\":2,", "{\"index\":2,\"note\":\"x\","),
        ("{\"index\":2,", "{\"index\":2,\"index\":2,"),
        ("{\"index\":2,", "garbage"),
        ("\"kind\":\"POOL_UPDATED\"", "\"kind\":\"NOT_KNOWN\""),
    ] {
        let directory = export(&rows, &key.head(&rows));
        let path = directory.path().join(EVENTS_FILE);
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[2] = lines[2].replacen(from, to, 1);
        fs::write(&path, lines.join("\n")).unwrap();
        let report = verify(directory.path(), &key.public, &[key.head(&rows[..3])]).unwrap();
        assert_eq!(
            found(&report),
            [(Some(2), ProblemKind::Unreadable), (Some(2), ProblemKind::Rewritten)],
            "{to}"
        );
    }
}

#[test]
fn bytes_of_any_kind_in_the_files_never_make_the_verifier_panic() {
    let key = AuditKey::generate();
    let rows = chain(&events(3));
    let directory = export(&rows, &key.head(&rows));
    let mut seed = 1_u32;
    for _ in 0..200 {
        let mut bytes = fs::read(directory.path().join(EVENTS_FILE)).unwrap();
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let place = seed as usize % bytes.len();
        bytes[place] = (seed >> 24) as u8;
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join(EVENTS_FILE), &bytes).unwrap();
        fs::copy(directory.path().join(HEAD_FILE), other.path().join(HEAD_FILE)).unwrap();
        verify(other.path(), &key.public, &[]).unwrap();
    }
    fs::write(directory.path().join(HEAD_FILE), "{}").unwrap();
    assert!(verify(directory.path(), &key.public, &[]).is_err());
}

#[test]
fn an_export_is_never_overwritten() {
    let key = AuditKey::generate();
    let directory = export(&[], &key.head(&[]));
    assert!(ExportWriter::create(directory.path()).is_err());
}

#[test]
fn an_ed25519_key_in_a_pem_file_verifies_heads() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let mut spki = hex::decode("302a300506032b6570032100").unwrap();
    spki.extend(pair.public_key().as_ref());
    let key = AuditPublicKey::from_pem(keybroker::ca::pem("PUBLIC KEY", &spki).as_bytes()).unwrap();
    let head = Head { origin: ORIGIN.to_owned(), size: 0, hash: genesis(ORIGIN), time: at(1) };
    let signature = AuditSignature {
        algorithm: AuditAlgorithm::Ed25519,
        key_id: Sha256Hash::of(&spki),
        signature: pair.sign(&head.bytes()).as_ref().to_vec(),
    };
    let mut signed = SignedHead { head, signature };
    assert_eq!(signed.verify(&key), Ok(()));
    signed.head.size = 1;
    assert!(signed.verify(&key).is_err());
    assert!(AuditPublicKey::from_pem(b"garbage").is_err());
}

/// One key's life, told in events.
struct Story {
    key: AuditKey,
    credential: EventCredential,
    epochs: [EpochId; 2],
    events: Vec<Event>,
}

impl Story {
    fn begin() -> Self {
        let credential = EventCredential { id: CredentialId::generate(), public_key: Sha256Hash([5; 32]) };
        let epochs = [EpochId::generate(), EpochId::generate()];
        let mut story = Self { key: AuditKey::generate(), credential, epochs, events: Vec::new() };
        story.tell(
            EventKind::KeysProduced,
            json(&ProducedDetails {
                pool: PoolId::generate(),
                profile: "p".parse().unwrap(),
                key_type: KeyType::EcP256,
                epoch: story.epochs[0],
                kek_label: "keybroker:kek:default:0".to_owned(),
                mechanisms: vec!["CKM_EC_KEY_PAIR_GEN".to_owned()],
                token_serial: "abc".to_owned(),
                duration_us: 5,
                issuer: None,
                certificates: Vec::new(),
            }),
        );
        story
    }

    fn tell(&mut self, kind: EventKind, details: serde_json::Value) {
        let time = at(self.events.len() as i64);
        self.events.push(
            Event::new(time, kind, Actor::broker()).credentials([self.credential.clone()]).details(details),
        );
    }

    fn claim(&mut self, kind: EventKind, recipient: u8) {
        let details = ClaimDetails {
            claim: ClaimId::generate(),
            initial_credential: InitialCredentialId::generate(),
            renews: None,
            recipient_key: Sha256Hash([recipient; 32]),
            suite: "ECDH_P256_CBCENC_KWP_V1".to_owned(),
            confirm_by: at(0),
            delivered_by: None,
            slots: Vec::new(),
        };
        self.tell(kind, json(&details));
    }

    fn erase(&mut self) {
        let details =
            ErasedDetails { reason: DestructionReason::Released, holder_copy: HolderCopy::ReleasedSigned };
        self.tell(EventKind::KeysErased, json(&details));
    }

    fn shred(&mut self, epoch: usize) {
        let details = ShreddedDetails {
            epoch: self.epochs[epoch],
            kek_label: format!("keybroker:kek:default:{epoch}"),
            token_serial: "abc".to_owned(),
            ha_members_verified: 1,
        };
        // Of an epoch, not of a key.
        self.events
            .push(Event::new(at(99), EventKind::EpochShredded, Actor::broker()).details(json(&details)));
    }

    fn receipt(&self) -> SignedReceipt {
        let receipt = DestructionReceipt {
            credential: self.credential.id,
            public_key: self.credential.public_key,
            certificate_serial: "41".to_owned(),
            tenant: "default".parse().unwrap(),
            vnfci: None,
            reason: DestructionReason::Delivered,
            broker_copy: BrokerCopy {
                state: BrokerCopyState::Shredded,
                erased_at: Some(at(1)),
                epoch: Some(self.epochs[0]),
                token_serial: "abc".to_owned(),
                ha_members_verified: 1,
                hsm_backup_retention: "none".to_owned(),
                effective_at: Some(at(2)),
            },
            holder_copy: HolderCopy::Unknown,
            issued_at: at(3),
        };
        SignedReceipt { signature: self.key.sign(&receipt.bytes()), receipt }
    }

    fn history(&self) -> KeyHistory {
        let rows = chain(&self.events);
        let directory = export(&rows, &self.key.head(&rows));
        assert!(verify(directory.path(), &self.key.public, &[]).unwrap().is_good());
        prove(directory.path(), &self.key.public, self.credential.public_key).unwrap()
    }
}

#[test]
fn the_log_proves_generation_one_recipient_and_destruction() {
    let mut story = Story::begin();
    assert!(!story.history().sealed_to_one_recipient(), "a key that was never claimed has no recipient");
    story.claim(EventKind::Claimed, 1);
    story.claim(EventKind::ClaimReplayed, 1);
    story.tell(EventKind::Confirmed, serde_json::json!({}));
    story.erase();
    assert!(!story.history().is_shredded(), "erased is not shredded");
    story.shred(0);
    story.tell(EventKind::DestructionReceipt, json(&story.receipt()));
    let history = story.history();
    assert_eq!(history.problems, [] as [String; 0]);
    assert!(history.generated_in_hsm() && history.sealed_to_one_recipient() && history.is_shredded());
    assert_eq!((history.sealings.len(), history.receipts.len()), (2, 1));
    assert_eq!(history.confirmed.unwrap().index, 3);
    // A key that the log does not know has no story.
    let rows = chain(&story.events);
    let directory = export(&rows, &story.key.head(&rows));
    let unknown = prove(directory.path(), &story.key.public, Sha256Hash([6; 32])).unwrap();
    assert!(unknown.credential.is_none() && !unknown.generated_in_hsm());
}

#[test]
fn a_rewrapped_key_is_shredded_only_when_both_epochs_are() {
    let mut story = Story::begin();
    story.tell(
        EventKind::KeysRewrapped,
        json(&RewrappedDetails {
            from: story.epochs[0],
            to: story.epochs[1],
            reason: StepReason::HorizonNears,
        }),
    );
    story.erase();
    story.shred(1);
    assert!(!story.history().is_shredded());
    story.shred(0);
    let history = story.history();
    assert!(history.is_shredded());
    assert_eq!(history.problems, [] as [String; 0]);
}

#[test]
fn what_breaks_a_promise_is_named_with_its_row() {
    let mut story = Story::begin();
    story.claim(EventKind::Claimed, 1);
    story.claim(EventKind::Claimed, 2);
    assert!(!story.history().sealed_to_one_recipient());
    assert_eq!(story.history().problems, ["it was sealed to 2 recipient keys"]);

    let mut story = Story::begin();
    story.erase();
    story.claim(EventKind::Claimed, 1);
    assert_eq!(story.history().problems, ["row 2: it was sealed after it was erased in row 1"]);

    let mut story = Story::begin();
    let mut receipt = story.receipt();
    receipt.receipt.holder_copy = HolderCopy::ReleasedSigned;
    story.tell(EventKind::DestructionReceipt, json(&receipt));
    assert_eq!(story.history().problems, ["row 1: its destruction receipt: the signature is wrong"]);

    let mut story = Story::begin();
    story.events.remove(0);
    story.claim(EventKind::Claimed, 1);
    assert_eq!(story.history().problems, ["the log does not say that it was generated in the HSM"]);
}

#[test]
fn a_receipt_is_read_back_from_its_json_and_verifies() {
    let story = Story::begin();
    let receipt = story.receipt();
    let read: SignedReceipt = serde_json::from_str(&serde_json::to_string(&receipt).unwrap()).unwrap();
    assert_eq!(read, receipt);
    assert_eq!(read.verify(&story.key.public), Ok(()));
    assert!(read.verify(&AuditKey::generate().public).is_err());
}

#[test]
fn a_missing_export_is_an_error_that_names_the_file() {
    let key = AuditKey::generate();
    let error = verify(Path::new("/nonexistent"), &key.public, &[]).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/head.json"), "{error}");
}

/// One turn of a writer: everything up to `rows`, under a head.
fn mirrored(mirror: &Mirror, key: &AuditKey, rows: &[ChainedEntry]) {
    mirror.take_over().unwrap();
    let position = mirror.position().unwrap().unwrap_or_else(|| Mirror::empty(ORIGIN));
    let position = mirror.open_log(&position).unwrap().append(&position, &rows[size(&position)..]).unwrap();
    mirror.stage(&position, &key.head(rows)).unwrap().publish().unwrap();
}

fn size(position: &Position) -> usize {
    usize::try_from(position.size).unwrap()
}

#[test]
fn a_writer_of_the_mirror_that_wakes_up_after_another_took_over_damages_nothing() {
    let key = AuditKey::generate();
    let rows = chain(&events(20));
    let directory = tempfile::tempdir().unwrap();
    let mirror = Mirror::new(directory.path());
    mirrored(&mirror, &key, &rows[..4]);
    let before = mirror.position().unwrap().unwrap();
    // Two that stop, one before its rows and one before it says that they are there.
    let first = mirror.open_log(&before).unwrap();
    let second = mirror.open_log(&before).unwrap().append(&before, &rows[4..8]).unwrap();
    let second = mirror.stage(&second, &key.head(&rows[..8])).unwrap();
    mirrored(&mirror, &key, &rows[..12]);
    let after = (mirror.position().unwrap(), fs::read(directory.path().join(EVENTS_FILE)).unwrap());
    first.append(&before, &rows[4..8]).unwrap();
    second.publish().unwrap_err();
    assert_eq!((mirror.position().unwrap(), fs::read(directory.path().join(EVENTS_FILE)).unwrap()), after);
    assert_eq!(found(&verify(directory.path(), &key.public, &[]).unwrap()), []);
    mirrored(&mirror, &key, &rows);
    let report = verify(directory.path(), &key.public, &[]).unwrap();
    assert_eq!((found(&report), report.rows), (vec![], 20));
}

#[test]
fn a_writer_of_the_mirror_that_wakes_up_after_a_recovery_writes_to_what_was_put_aside() {
    let key = AuditKey::generate();
    let rows = chain(&events(9));
    let parent = tempfile::tempdir().unwrap();
    let mirror = Mirror::new(&parent.path().join("mirror"));
    mirrored(&mirror, &key, &rows[..3]);
    let before = mirror.position().unwrap().unwrap();
    let log = mirror.open_log(&before).unwrap();
    let staged = mirror.stage(&before, &key.head(&rows[..3])).unwrap();
    let archive = mirror.archive("keybroker/old").unwrap();
    let others = chain(&events(5));
    mirrored(&mirror, &key, &others);
    log.append(&before, &rows[3..]).unwrap();
    staged.publish().unwrap_err();
    for directory in [mirror.directory(), archive.directory()] {
        assert_eq!(found(&verify(directory, &key.public, &[]).unwrap()), []);
    }
    assert_eq!(mirror.position().unwrap().unwrap().hash, others[4].hash);
}

#[test]
fn rows_that_a_crash_left_beyond_the_mirrors_head_are_passed_over_whatever_they_are() {
    let key = AuditKey::generate();
    let directory = tempfile::tempdir().unwrap();
    let mirror = Mirror::new(directory.path());
    // Longer rows than those that come to stand in their places, so that old ones with the same indices follow the new.
    let long: Vec<_> = events(12)
        .into_iter()
        .map(|event| event.details(serde_json::json!({"text": "x".repeat(99)})))
        .collect();
    let empty = Mirror::empty(ORIGIN);
    mirror.open_log(&empty).unwrap().append(&empty, &chain(&long)).unwrap();
    mirrored(&mirror, &key, &chain(&events(10)));
    let text = fs::read_to_string(directory.path().join(EVENTS_FILE)).unwrap();
    assert!(
        text.lines().skip(10).any(|line| line.starts_with("{\"index\":9,")),
        "the case that this is about"
    );
    let report = verify(directory.path(), &key.public, &[]).unwrap();
    assert_eq!((found(&report), report.rows), (vec![], 10));
}
