//! The signed head of the log: how many rows it has and what they hash to. Because it is signed, a deleted last row is
//! found, too; who keeps an old head can later see that the log only grew.

use super::signature::{AuditPublicKey, AuditSignature, SignatureError};
use crate::clock::Timestamp;
use crate::nfv::{Sha256Hash, labelled_fields};
use serde::{Deserialize, Serialize};

/// State of the log at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Which log; a new one begins after a recovery.
    pub origin: String,
    /// Number of rows.
    pub size: u64,
    /// `h(size - 1)`; of an empty log its [`super::genesis`].
    pub hash: Sha256Hash,
    /// When it was signed, by the store's clock; microseconds since the Unix epoch.
    pub time: Timestamp,
}

impl Head {
    /// What is signed: label `keybroker-audit-head-v1`, origin, size in decimal, hash (32 bytes), time (microseconds
    /// since the Unix epoch, decimal).
    pub fn bytes(&self) -> Vec<u8> {
        let (size, time) = (self.size.to_string(), self.time.unix_micros().to_string());
        labelled_fields(
            "keybroker-audit-head-v1",
            &[self.origin.as_bytes(), size.as_bytes(), &self.hash.0, time.as_bytes()],
        )
    }
}

/// A head with the audit key's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// The head.
    pub head: Head,
    /// The audit key's signature over [`Head::bytes`].
    pub signature: AuditSignature,
}

impl SignedHead {
    /// Verifies the signature.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, key: &AuditPublicKey) -> Result<(), SignatureError> {
        key.verify(&self.head.bytes(), &self.signature)
    }
}
