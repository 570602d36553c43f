//! What a VNFCI keeps of its claim, in `claim.json` and beside it: enough to go on after a crash at any point.

use super::super::failure::Failure;
use super::super::files::{self, Readers};
use crate::nfv::{ClaimId, CredentialId, RequestId, Sha256Hash, SlotName, TenantId, VnfciId};
use crate::sealing::RecipientKey;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};

/// How far a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(in super::super) enum Stage {
    /// Recipient key stored; a claim may be under way.
    Claiming,
    /// Keys and certificates installed, not to be used yet.
    Installed,
    /// Acknowledged: to be used.
    Confirmed,
    /// A release may be under way.
    Releasing,
    /// Given back; the keys are deleted.
    Released,
    /// The broker withdrew it before it was confirmed.
    Withdrawn,
}

/// `claim.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct ClaimState {
    pub(in super::super) stage: Stage,
    /// URL of the bootstrap listener.
    pub(in super::super) server: String,
    /// The same for every repetition of the claim.
    pub(in super::super) request_id: RequestId,
    pub(in super::super) confirm_request_id: RequestId,
    pub(in super::super) release_request_id: RequestId,
    /// SHA-256 of the recipient's public key: of the P-256 point, or the RSA key's SubjectPublicKeyInfo.
    pub(in super::super) recipient_key_sha256: Sha256Hash,
    /// Filled in with the answer.
    pub(in super::super) claimed: Option<Claimed>,
    /// From when on to renew, as the broker said last; RFC 3339.
    #[serde(default)]
    pub(in super::super) renew_after: Option<String>,
    /// Version of the trust chain that the trust anchors are from.
    #[serde(default)]
    pub(in super::super) trust_chain_version: Option<u32>,
}

/// What the broker answered, without its secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct Claimed {
    pub(in super::super) claim_id: ClaimId,
    pub(in super::super) vnfci_id: VnfciId,
    pub(in super::super) tenant: TenantId,
    /// RFC 3339.
    pub(in super::super) confirm_by: Option<String>,
    pub(in super::super) slots: Vec<ClaimedSlot>,
}

/// One slot; its files are in the directory of its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct ClaimedSlot {
    pub(in super::super) slot: SlotName,
    pub(in super::super) credential_id: CredentialId,
    pub(in super::super) certificate_sha256: Sha256Hash,
    /// RFC 3339.
    pub(in super::super) not_after: String,
}

/// The directory of one claim, locked: no two processes claim into it.
pub(in super::super) struct ClaimDirectory {
    path: PathBuf,
    _lock: File,
}

impl ClaimDirectory {
    /// Opens a directory, made (0700) if it is missing.
    pub(in super::super) fn open(path: &Path) -> Result<Self, Failure> {
        files::private_directory(path)?;
        let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("{}: {error}", path.display()));
        let lock = File::open(path).map_err(|error| failed(&error))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => {
                failed(&"another keybroker process is working in this directory")
            }
            std::fs::TryLockError::Error(error) => failed(&error),
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The state, if there is one.
    pub(in super::super) fn state(&self) -> Result<Option<ClaimState>, Failure> {
        let file = self.state_file();
        if !file.exists() {
            return Ok(None);
        }
        let state = serde_json::from_slice(&files::read(&file)?).map_err(|error| {
            Failure::failed(format!("{} is not readable: {error}; it was changed", file.display()))
        })?;
        Ok(Some(state))
    }

    /// Stores the state durably.
    pub(in super::super) fn store(&self, state: &ClaimState) -> Result<(), Failure> {
        let mut text = serde_json::to_vec_pretty(state).map_err(Failure::failed)?;
        text.push(b'\n');
        files::replace(&self.state_file(), &text, Readers::Owner)
    }

    /// Begins a claim: its new recipient key is stored first, then the state that names it.
    pub(in super::super) fn begin(&self, server: &str, key: &RecipientKey) -> Result<ClaimState, Failure> {
        let private = key.to_bytes().map_err(Failure::failed)?;
        files::replace(&self.recipient_file(), private.as_slice(), Readers::Owner)?;
        let state = ClaimState {
            stage: Stage::Claiming,
            server: server.to_owned(),
            request_id: RequestId::generate(),
            confirm_request_id: RequestId::generate(),
            release_request_id: RequestId::generate(),
            recipient_key_sha256: key.public_key().hash(),
            claimed: None,
            renew_after: None,
            trust_chain_version: None,
        };
        self.store(&state)?;
        Ok(state)
    }

    /// The stored recipient key of a claim under way.
    pub(in super::super) fn recipient_key(&self, state: &ClaimState) -> Result<RecipientKey, Failure> {
        let file = self.recipient_file();
        let key = RecipientKey::from_bytes(&files::read_secret(&file)?).map_err(Failure::failed)?;
        if key.public_key().hash() == state.recipient_key_sha256 {
            Ok(key)
        } else {
            let problem = format!("{} is not the key that claim.json names", file.display());
            Err(Failure::failed(problem))
        }
    }

    /// Deletes the recipient key: nobody can open the claim's envelopes any more.
    pub(in super::super) fn delete_recipient_key(&self) -> Result<(), Failure> {
        files::delete(&self.recipient_file())
    }

    /// Deletes the private keys of all slots; certificates stay.
    pub(in super::super) fn delete_keys(&self, claimed: &Claimed) -> Result<(), Failure> {
        claimed.slots.iter().try_for_each(|slot| files::delete(&self.slot(&slot.slot).join("key.pem")))
    }

    /// A slot's directory.
    pub(in super::super) fn slot(&self, slot: &SlotName) -> PathBuf {
        self.path.join(slot.as_str())
    }

    /// The directory of a renewal under way, which has a claim of its own.
    pub(in super::super) fn renewal(&self) -> PathBuf {
        self.path.join("renewal")
    }

    /// Removes the directory of a renewal that has taken its place.
    pub(in super::super) fn remove(self) -> Result<(), Failure> {
        let failed = |error| Failure::failed(format!("{}: {error}", self.path.display()));
        std::fs::remove_dir_all(&self.path).map_err(failed)
    }

    /// Takes the place of the claim that it renewed: each file is replaced as a whole, the state last.
    pub(in super::super) fn take_over(&self, renewal: &Self, state: &ClaimState) -> Result<(), Failure> {
        let slots = state.claimed.iter().flat_map(|claimed| &claimed.slots);
        for slot in slots {
            let (from, to) = (renewal.slot(&slot.slot), self.slot(&slot.slot));
            files::private_directory(&to)?;
            for file in ["cert.pem", "chain.pem"] {
                files::replace(&to.join(file), &files::read(&from.join(file))?, Readers::Everyone)?;
            }
            files::replace(&to.join("key.pem"), &files::read_secret(&from.join("key.pem"))?, Readers::Owner)?;
        }
        self.store(state)
    }

    /// Where the root is kept that the claim was checked against.
    pub(in super::super) fn trust_anchor_file(&self) -> PathBuf {
        self.path.join("trust-anchor.pem")
    }

    fn state_file(&self) -> PathBuf {
        self.path.join("claim.json")
    }

    fn recipient_file(&self) -> PathBuf {
        self.path.join("recipient.key")
    }
}
