//! What the clients were told and what they hold: what the broker is held against in the end.

use super::mano::Replay;
use crate::support::settlement::Held;
use crate::support::vnfci::{Claimed, Delivered};
use keybroker::nfv::Sha256Hash;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// Faults that are written down; more of them say nothing new.
const MOST_FAULTS: usize = 40;

/// All of it.
#[derive(Default)]
pub(super) struct Ledger {
    notes: Mutex<Notes>,
}

#[derive(Default)]
pub(super) struct Notes {
    pub(super) held: Held,
    /// Serial number -> who unsealed the certificate.
    pub(super) serials: HashMap<Vec<u8>, String>,
    /// What is in force in the end: whose certificate must work.
    pub(super) in_force: HashMap<String, InForce>,
    /// Serial numbers of certificates whose VNFCI has replaced or lost them, or has ended.
    pub(super) withdrawn: BTreeSet<Vec<u8>>,
    /// VNFCIs that have held something and ended.
    pub(super) ended: BTreeSet<String>,
    /// Mutations that were answered.
    pub(super) requests: Vec<Arc<Replay>>,
    /// Heads of the log that were seen, oldest first.
    pub(super) heads: Vec<PathBuf>,
    /// Rows of the log that a tail showed: index -> hash.
    pub(super) tailed: BTreeMap<u64, Sha256Hash>,
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) faults: Vec<String>,
    /// When a claim was confirmed last.
    pub(super) confirmed_at: Option<Instant>,
}

/// What a VNFCI has in the end.
#[derive(Clone)]
pub(super) enum InForce {
    /// From the HSM: one key per slot.
    Delivered(Vec<Delivered>),
    /// For a key of its own: the certificate's serial number.
    Enrolled(Vec<u8>),
}

impl Ledger {
    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    pub(super) fn into_notes(self) -> Notes {
        self.notes.into_inner().unwrap()
    }

    /// Something that must not be. The run goes on: what else is wrong is told with it.
    pub(super) fn fault(&self, what: String) {
        eprintln!("soak: FAULT {what}");
        let mut notes = self.notes();
        if notes.faults.len() < MOST_FAULTS {
            notes.faults.push(what);
        }
    }

    pub(super) fn count(&self, what: impl Into<String>) {
        *self.notes().counts.entry(what.into()).or_default() += 1;
    }

    /// A VNFCI opened what a claim brought. Panics if somebody else had one of its keys or certificates.
    pub(super) fn unsealed(&self, vnfci: &str, claimed: &Claimed) {
        let mut notes = self.notes();
        notes.held.unsealed(vnfci, claimed);
        for key in &claimed.keys {
            notes.certified(vnfci, &key.facts.serial);
        }
    }

    /// A VNFCI got a certificate for a key of its own.
    pub(super) fn enrolled(&self, vnfci: &str, serial: &[u8]) {
        let mut notes = self.notes();
        notes.certified(vnfci, serial);
        notes.put_in_force(vnfci, InForce::Enrolled(serial.to_vec()));
    }

    /// The broker acknowledged a claim: from now on this is what the VNFCI uses.
    pub(super) fn acknowledged(&self, vnfci: &str, claimed: &Claimed) {
        let mut notes = self.notes();
        notes.held.acknowledged(claimed);
        notes.confirmed_at = Some(Instant::now());
        *notes.counts.entry("confirmed".to_owned()).or_default() += 1;
        notes.put_in_force(vnfci, InForce::Delivered(claimed.keys.clone()));
    }

    /// A VNFCI has ended.
    pub(super) fn ended(&self, vnfci: &str) {
        if self.revoked(vnfci) {
            self.notes().ended.insert(vnfci.to_owned());
        }
    }

    /// Every certificate of a VNFCI was withdrawn. Says whether it had any.
    pub(super) fn revoked(&self, vnfci: &str) -> bool {
        let mut notes = self.notes();
        let gone = notes.in_force.remove(vnfci);
        notes.withdrawn.extend(gone.iter().flat_map(InForce::serials));
        gone.is_some()
    }
}

impl Notes {
    fn certified(&mut self, vnfci: &str, serial: &[u8]) {
        let before = self.serials.insert(serial.to_vec(), vnfci.to_owned());
        assert!(
            before.as_ref().is_none_or(|other| other == vnfci),
            "{} is a certificate of {before:?} and {vnfci}",
            hex::encode(serial)
        );
    }

    fn put_in_force(&mut self, vnfci: &str, new: InForce) {
        let serials = new.serials();
        if let Some(old) = self.in_force.insert(vnfci.to_owned(), new) {
            self.withdrawn.extend(old.serials().into_iter().filter(|serial| !serials.contains(serial)));
        }
    }
}

impl InForce {
    pub(super) fn serials(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Delivered(keys) => keys.iter().map(|key| key.facts.serial.clone()).collect(),
            Self::Enrolled(serial) => vec![serial.clone()],
        }
    }
}
