//! Destruction receipts: what is known of the end of one private key, signed by the audit key.
//!
//! A receipt says only what is known. `ERASED`: the broker's rows are deleted; copies in backups of the database may
//! still be unwrapped by the KEK. `SHREDDED`: a fresh process found no KEK on the token, so that they cannot.

use super::signature::{AuditPublicKey, AuditSignature, SignatureError};
use crate::clock::Timestamp;
use crate::credential::{HolderCopy, named};
use crate::nfv::{CredentialId, EpochId, Sha256Hash, TenantId, VnfciId, labelled_fields};
use serde::{Deserialize, Serialize};

named!(
    /// What became of the broker's wrapped copy.
    BrokerCopyState, "state of the broker's copy" {
        /// Its row is deleted.
        Erased = "ERASED",
        /// Its row is deleted and its key-encryption key is destroyed, verified from a fresh process.
        Shredded = "SHREDDED",
        /// There never was one: the holder made the key itself and had it certified.
        NeverHeld = "NEVER_HELD",
    }
);

named!(
    /// Why a key ended.
    DestructionReason, "reason of destruction" {
        /// Its VNFCI confirmed it: the broker's copy is no longer needed.
        Delivered = "DELIVERED",
        /// Its VNFCI gave it back.
        Released = "RELEASED",
        /// MANO ended its VNFCI.
        Terminated = "TERMINATED",
        /// It was not confirmed by its deadline.
        Unconfirmed = "UNCONFIRMED",
        /// Its VNFCI asked again with a new recipient key.
        NewRecipient = "NEW_RECIPIENT",
        /// MANO re-armed its VNFCI before it was confirmed.
        Rearmed = "REARMED",
        /// A newer credential took its place.
        Superseded = "SUPERSEDED",
        /// Its certificate grew too old in the pool.
        Aged = "AGED",
        /// Its pool was deleted or made smaller.
        PoolReduced = "POOL_REDUCED",
        /// Its certificate was revoked on request.
        Revoked = "REVOKED",
        /// The request for its certificate is not what the CA or the profile want any more.
        RequestOutdated = "REQUEST_OUTDATED",
        /// A recovery shredded every epoch.
        Recovered = "RECOVERED",
    }
);

/// What is known of the broker's wrapped copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerCopy {
    /// How far its destruction went.
    pub state: BrokerCopyState,
    /// When its row was deleted; absent if there never was one.
    pub erased_at: Option<Timestamp>,
    /// Epoch whose KEK wrapped it last; absent if there never was a copy.
    pub epoch: Option<EpochId>,
    /// Serial number of the token that held the KEK; empty if there never was a copy.
    pub token_serial: String,
    /// Members of the HSM's high-availability group that were asked and had no KEK; 0 while only erased.
    pub ha_members_verified: u32,
    /// How long the HSM's own backups are kept, as the operator configured it; `none` if there are none.
    pub hsm_backup_retention: String,
    /// From when on no copy can be read any more, backups of the HSM included: the verification, and the retention later.
    /// Absent while only erased, and while the retention is not known.
    pub effective_at: Option<Timestamp>,
}

/// What is known of the end of one private key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestructionReceipt {
    /// The credential.
    pub credential: CredentialId,
    /// SHA-256 of its SubjectPublicKeyInfo, DER.
    pub public_key: Sha256Hash,
    /// Serial number of its certificate, hexadecimal; empty if it had none.
    pub certificate_serial: String,
    /// Its tenant.
    pub tenant: TenantId,
    /// The VNFCI that it was claimed for, if it was.
    pub vnfci: Option<VnfciId>,
    /// Why it ended.
    pub reason: DestructionReason,
    /// The broker's wrapped copy.
    pub broker_copy: BrokerCopy,
    /// The holder's copy.
    pub holder_copy: HolderCopy,
    /// When this was stated.
    pub issued_at: Timestamp,
}

impl DestructionReceipt {
    /// What is signed: label `keybroker-destruction-receipt-v1` and fifteen fields, all text: credential, public key hash,
    /// certificate serial, tenant, VNFCI (empty if none), reason, state, erased_at, epoch, token serial, HA members,
    /// backup retention, effective_at (empty if not yet), holder copy, issued_at. What is absent is empty. Times are microseconds since the Unix
    /// epoch in decimal, hashes hexadecimal.
    pub fn bytes(&self) -> Vec<u8> {
        let micros = |time: Timestamp| time.unix_micros().to_string();
        let copy = &self.broker_copy;
        let fields = [
            self.credential.to_string(),
            self.public_key.to_string(),
            self.certificate_serial.clone(),
            self.tenant.to_string(),
            self.vnfci.as_ref().map(VnfciId::to_string).unwrap_or_default(),
            self.reason.as_str().to_owned(),
            copy.state.as_str().to_owned(),
            copy.erased_at.map(micros).unwrap_or_default(),
            copy.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
            copy.token_serial.clone(),
            copy.ha_members_verified.to_string(),
            copy.hsm_backup_retention.clone(),
            copy.effective_at.map(micros).unwrap_or_default(),
            self.holder_copy.as_str().to_owned(),
            micros(self.issued_at),
        ];
        labelled_fields("keybroker-destruction-receipt-v1", &fields.each_ref().map(|field| field.as_bytes()))
    }
}

/// A receipt with the audit key's signature: what `GetDestructionReceipt` gives out and the details of a
/// `DESTRUCTION_RECEIPT` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReceipt {
    /// The receipt.
    pub receipt: DestructionReceipt,
    /// The audit key's signature over [`DestructionReceipt::bytes`].
    pub signature: AuditSignature,
}

impl SignedReceipt {
    /// Verifies the signature.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, key: &AuditPublicKey) -> Result<(), SignatureError> {
        key.verify(&self.receipt.bytes(), &self.signature)
    }
}
