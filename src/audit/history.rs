//! The story of one key as the log tells it: generated in the HSM, sealed to one recipient, destroyed.
//!
//! Run over a log that [`super::verify`] found good; rows are taken at their word here.

use super::chain::ChainedEntry;
use super::details::{ClaimDetails, ErasedDetails, ProducedDetails, RewrappedDetails, ShreddedDetails};
use super::event::EventKind;
use super::export::{ExportError, ExportReader};
use super::receipt::SignedReceipt;
use super::signature::AuditPublicKey;
use crate::clock::Timestamp;
use crate::credential::HolderCopy;
use crate::nfv::{ClaimId, CredentialId, EpochId, Sha256Hash, VnfciId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A row and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct At {
    /// Index of the row.
    pub index: u64,
    /// Its time.
    pub time: Timestamp,
}

/// That the key was generated in the HSM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Production {
    /// Where the log says so.
    pub at: At,
    /// Serial number of the token.
    pub token_serial: String,
    /// PKCS#11 mechanisms.
    pub mechanisms: Vec<String>,
    /// Epoch that first wrapped it.
    pub epoch: EpochId,
    /// Label of the epoch's KEK.
    pub kek_label: String,
}

/// That the key was about to be sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sealing {
    /// Where the log says so.
    pub at: At,
    /// The claim.
    pub claim: ClaimId,
    /// For whom.
    pub vnfci: Option<VnfciId>,
    /// SHA-256 of the recipient's public key.
    pub recipient_key: Sha256Hash,
    /// How the broker passed it on, if the recipient key was its own.
    pub delivered_by: Option<String>,
}

/// That an epoch's KEK was found to be gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shredding {
    /// Where the log says so.
    pub at: At,
    /// The epoch.
    pub epoch: EpochId,
    /// Serial number of the token.
    pub token_serial: String,
    /// Members of the HSM's high-availability group that were asked.
    pub ha_members_verified: u32,
}

/// What the log says of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyHistory {
    /// SHA-256 of its SubjectPublicKeyInfo, DER.
    pub public_key: Sha256Hash,
    /// Its credential, once the log names it.
    pub credential: Option<CredentialId>,
    /// Its production.
    pub produced: Option<Production>,
    /// Its holder made it and had it certified: it was never in the HSM nor at the broker.
    pub enrolled: Option<At>,
    /// Every time that it was sealed, replays included.
    pub sealings: Vec<Sealing>,
    /// The recipient keys that it was sealed to. More than one breaks the promise.
    pub recipients: BTreeSet<Sha256Hash>,
    /// The VNFCI proved possession.
    pub confirmed: Option<At>,
    /// The VNFCI gave it back.
    pub released: Option<At>,
    /// Its certificate was to be revoked.
    pub revoked: Option<At>,
    /// The broker's copy was erased.
    pub erased: Option<At>,
    /// Every epoch that ever wrapped it, in order.
    pub epochs: Vec<EpochId>,
    /// Those of them that were shredded.
    pub shredded: Vec<Shredding>,
    /// Its destruction receipts, as they stand in the log.
    pub receipts: Vec<SignedReceipt>,
    /// What contradicts the promises, a sentence each with the index of the row.
    pub problems: Vec<String>,
}

impl KeyHistory {
    fn new(public_key: Sha256Hash) -> Self {
        Self {
            public_key,
            credential: None,
            produced: None,
            enrolled: None,
            sealings: Vec::new(),
            recipients: BTreeSet::new(),
            confirmed: None,
            released: None,
            revoked: None,
            erased: None,
            epochs: Vec::new(),
            shredded: Vec::new(),
            receipts: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The log knows where it was generated.
    pub fn generated_in_hsm(&self) -> bool {
        self.produced.is_some()
    }

    /// It was sealed to exactly one recipient key.
    pub fn sealed_to_one_recipient(&self) -> bool {
        self.recipients.len() == 1
    }

    /// The broker's copy is erased and every epoch that ever wrapped it is shredded, so that no backup of the database
    /// can bring it back.
    pub fn is_shredded(&self) -> bool {
        self.erased.is_some()
            && !self.epochs.is_empty()
            && self.epochs.iter().all(|epoch| self.shredded.iter().any(|shredding| shredding.epoch == *epoch))
    }
}

/// Reads an export once and tells the story of one key. Receipts are verified with the audit key.
///
/// # Errors
/// [`ExportError`], also for a line that is no row: verify the log first.
pub fn prove(
    directory: &Path,
    key: &AuditPublicKey,
    public_key: Sha256Hash,
) -> Result<KeyHistory, ExportError> {
    let mut tracker = Tracker::new(public_key);
    for entry in ExportReader::open(directory)? {
        tracker.row(&entry?, key);
    }
    Ok(tracker.end())
}

/// Follows one key through the rows. Also for a caller that reads the rows from elsewhere.
#[derive(Debug)]
pub struct Tracker {
    history: KeyHistory,
    /// Every epoch that the log says is shredded; a log has few.
    shredded: BTreeMap<EpochId, Shredding>,
}

impl Tracker {
    /// For the key with this hash (SHA-256 of its SubjectPublicKeyInfo, DER).
    pub fn new(public_key: Sha256Hash) -> Self {
        Self { history: KeyHistory::new(public_key), shredded: BTreeMap::new() }
    }

    /// The next row; rows must come in order.
    pub fn row(&mut self, entry: &ChainedEntry, key: &AuditPublicKey) {
        let event = &entry.event;
        let at = At { index: entry.index, time: event.time };
        if event.kind == EventKind::EpochShredded {
            if let Some(details) = self.details::<ShreddedDetails>(entry) {
                let shredding = Shredding {
                    at,
                    epoch: details.epoch,
                    token_serial: details.token_serial,
                    ha_members_verified: details.ha_members_verified,
                };
                self.shredded.entry(details.epoch).or_insert(shredding);
            }
            return;
        }
        let Some(named) = event.credentials.iter().find(|named| named.public_key == self.history.public_key)
        else {
            return;
        };
        match self.history.credential {
            None => self.history.credential = Some(named.id),
            Some(known) if known != named.id => {
                self.problem(
                    at.index,
                    format!("the key belongs to credential {} here, to {known} before", named.id),
                );
            }
            Some(_) => {}
        }
        match event.kind {
            EventKind::KeysProduced => self.produced(entry, at),
            EventKind::Claimed | EventKind::ClaimReplayed => self.sealed(entry, at),
            EventKind::Confirmed => {
                self.history.confirmed.get_or_insert(at);
                // In the same transaction the broker's copy is erased.
                self.history.erased.get_or_insert(at);
            }
            EventKind::Enrolled => {
                self.history.enrolled.get_or_insert(at);
            }
            // A release and a termination revoke what the VNFCI has.
            EventKind::Released => {
                self.history.released.get_or_insert(at);
                self.history.revoked.get_or_insert(at);
            }
            EventKind::Terminated => {
                // There is nothing to erase of a key that was never here.
                if self.history.enrolled.is_none() || self.history.produced.is_some() {
                    self.history.erased.get_or_insert(at);
                }
                self.history.revoked.get_or_insert(at);
            }
            EventKind::RevocationRequested => {
                self.history.revoked.get_or_insert(at);
            }
            EventKind::KeysErased => {
                self.history.erased.get_or_insert(at);
                if let Some(details) = self.details::<ErasedDetails>(entry)
                    && details.holder_copy != HolderCopy::NeverDelivered
                {
                    self.history.revoked.get_or_insert(at);
                }
            }
            EventKind::KeysRewrapped => {
                if let Some(details) = self.details::<RewrappedDetails>(entry) {
                    if self.history.epochs.last() != Some(&details.from) {
                        self.problem(
                            at.index,
                            format!("it was re-wrapped from epoch {}, where it was not", details.from),
                        );
                    }
                    self.history.epochs.push(details.to);
                }
            }
            EventKind::DestructionReceipt => {
                if let Some(receipt) = self.details::<SignedReceipt>(entry) {
                    if let Err(error) = receipt.verify(key) {
                        self.problem(at.index, format!("its destruction receipt: {error}"));
                    } else if receipt.receipt.public_key != self.history.public_key {
                        self.problem(at.index, "its destruction receipt is for another key".to_owned());
                    } else {
                        self.history.receipts.push(receipt);
                    }
                }
            }
            _ => {}
        }
    }

    /// The story, once every row was seen.
    pub fn end(mut self) -> KeyHistory {
        let epochs = self.history.epochs.clone();
        self.history.shredded = epochs.iter().filter_map(|epoch| self.shredded.get(epoch).cloned()).collect();
        let held_elsewhere = self.history.enrolled.is_some() && self.history.sealings.is_empty();
        if self.history.credential.is_some() && self.history.produced.is_none() && !held_elsewhere {
            self.history.problems.push("the log does not say that it was generated in the HSM".to_owned());
        }
        if self.history.recipients.len() > 1 {
            self.history
                .problems
                .push(format!("it was sealed to {} recipient keys", self.history.recipients.len()));
        }
        self.history
    }

    fn produced(&mut self, entry: &ChainedEntry, at: At) {
        let Some(details) = self.details::<ProducedDetails>(entry) else { return };
        if self.history.produced.is_some() {
            return self.problem(at.index, "it was produced a second time".to_owned());
        }
        self.history.epochs.push(details.epoch);
        self.history.produced = Some(Production {
            at,
            token_serial: details.token_serial,
            mechanisms: details.mechanisms,
            epoch: details.epoch,
            kek_label: details.kek_label,
        });
    }

    fn sealed(&mut self, entry: &ChainedEntry, at: At) {
        let Some(details) = self.details::<ClaimDetails>(entry) else { return };
        if let Some(erased) = self.history.erased {
            self.problem(at.index, format!("it was sealed after it was erased in row {}", erased.index));
        }
        self.history.recipients.insert(details.recipient_key);
        self.history.sealings.push(Sealing {
            at,
            claim: details.claim,
            vnfci: entry.event.vnfci.clone(),
            recipient_key: details.recipient_key,
            delivered_by: details.delivered_by,
        });
    }

    fn details<T: DeserializeOwned>(&mut self, entry: &ChainedEntry) -> Option<T> {
        match serde_json::from_str(&entry.event.details) {
            Ok(details) => Some(details),
            Err(error) => {
                self.problem(
                    entry.index,
                    format!("the details of {} cannot be read: {error}", entry.event.kind),
                );
                None
            }
        }
    }

    fn problem(&mut self, index: u64, text: String) {
        self.history.problems.push(format!("row {index}: {text}"));
    }
}
