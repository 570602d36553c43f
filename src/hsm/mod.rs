//! The HSM behind worker processes: coarse verbs, two lanes, one supervisor.
//!
//! The PKCS#11 module is loaded only in child processes (`keybroker hsm-worker`, the same binary). Everything
//! that this module gives out is public material, ciphertext or a signature: a private key, a DEK or a KEK in
//! the clear exists on the token only.
//!
//! [`Hsm`] (`client.rs`) is what the broker holds: one method per verb. It knows the tokens, the broker's own and tenants'
//! (`tenant_token.rs`); the lanes (`lane.rs`) of each (`served.rs`) feed its workers
//! (`child.rs` starts one, `worker.rs` is the process) over frames (`protocol.rs`). Inside a worker, `token.rs`
//! is the PKCS#11 session, `produce.rs`, `seal.rs` and `objects.rs` are the verbs, `templates.rs` says what every
//! object may do, and `quirks.rs` holds what differs between modules, found by `selftest.rs`.

mod child;
mod circuit;
mod client;
mod fault;
mod floor;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod lane;
mod object_id;
mod objects;
mod produce;
mod protocol;
mod public_key;
mod quirks;
mod request;
mod seal;
mod selftest;
mod served;
pub mod softhsm;
mod templates;
mod tenant_token;
mod token;
mod worker;

pub use client::Hsm;
pub use floor::production_floor;
pub use object_id::InvalidObjectId;
pub use worker::worker_main;

use crate::nfv::{CredentialId, EpochId, IssuerName, RequestId, Sha256Hash, TenantId};
use crate::sealing::{OaepHash, Suite};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What a token object is for. Its text form is both CKA_LABEL and CKA_ID (ASCII):
/// `keybroker:root:GENERATION`, `keybroker:ca:TENANT:GENERATION`, `keybroker:ocsp:TENANT:GENERATION`,
/// `keybroker:hmac:TENANT`, `keybroker:tls:GENERATION`, `keybroker:audit:GENERATION`, `keybroker:est:ISSUER`, `keybroker:kek:TENANT:EPOCH`.
/// The worker derives the tenant from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectId {
    /// Key pair of a root CA (EC P-256, sign only), by generation.
    Root(u32),
    /// Key pair of a tenant's sub-CA (EC P-256, sign only), by generation.
    SubCa(TenantId, u32),
    /// A tenant's HMAC-SHA-256 key for one-time tokens (generic secret, 32 bytes, sign only).
    TokenMac(TenantId),
    /// TLS server key pair of the bootstrap listener (EC P-256, sign only), by generation.
    Tls(u32),
    /// Key pair of the OCSP responder of a tenant's sub-CA (EC P-256, sign only), by the sub-CA's generation.
    Ocsp(TenantId, u32),
    /// The audit log's signing key pair, by generation.
    Audit(u32),
    /// TLS client key pair towards an enrolment server (EC P-256, sign only), by the issuer's configured name.
    EstClient(IssuerName),
    /// An epoch's key-encryption key (AES-256, wrap and unwrap only).
    Kek(TenantId, EpochId),
}

/// How the workers are started and reached.
#[derive(Debug, Clone)]
pub struct HsmConfig {
    /// The tenant whose own token it is; none for the broker's.
    pub owner: Option<TenantId>,
    /// The PKCS#11 module, an absolute path.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// File with the user PIN: one line, mode 0600 (or stricter), owned by us. Read whenever a worker is
    /// started, and kept only until it has been handed over.
    pub pin_file: PathBuf,
    /// The module's environment, e.g. `SOFTHSM2_CONF`. The workers inherit nothing else.
    pub environment: BTreeMap<String, String>,
    /// Workers of the interactive lane (seal, TLS signatures, MAC).
    pub interactive_workers: usize,
    /// Workers of the bulk lane (production, certificate signing, re-wrap, inventory).
    pub bulk_workers: usize,
    /// Suites that may be used, preferred first.
    pub sealing: Vec<Suite>,
    /// Deadline of one call, waiting in the queue included.
    pub call_deadline: Duration,
    /// Calls that may wait per lane; more are refused with [`HsmError::Overloaded`].
    pub queue: usize,
    /// Session objects made after which a worker is replaced (SoftHSM leaks about 0.5 kB for each).
    pub recycle_after: u64,
    /// The binary to start as `hsm-worker`.
    pub worker_program: PathBuf,
}

/// Which workers serve a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Someone waits for the answer.
    Interactive,
    /// Work that may be cut into pieces and wait.
    Bulk,
}

/// How a signature is made. ECDSA signatures are given out in DER (RFC 3279 2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SignatureAlgorithm {
    /// ECDSA on P-256 over the SHA-256 of the message.
    EcdsaP256Sha256,
    /// Ed25519 (RFC 8032), 64 bytes.
    Ed25519,
}

/// A private key as it is stored: ciphertext only. Both blobs begin with a version byte (1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// 1, then KWP (RFC 5649) of the PKCS#8 under the data key (DEK).
    pub key_blob: Vec<u8>,
    /// 1, then KWP of the DEK under the epoch's KEK.
    pub dek_blob: Vec<u8>,
}

impl WrappedKey {
    /// First byte of both blobs.
    pub const VERSION: u8 = 1;

    /// The KWP ciphertext in `blob`, the version byte taken off.
    ///
    /// # Errors
    /// [`HsmError::Refused`] if the blob is empty or of another version.
    pub fn ciphertext(blob: &[u8]) -> Result<&[u8], HsmError> {
        match blob.split_first() {
            Some((&Self::VERSION, ciphertext)) => Ok(ciphertext),
            Some((version, _)) => Err(HsmError::Refused(format!("blob of version {version}, expected 1"))),
            None => Err(HsmError::Refused("empty blob".into())),
        }
    }

    /// `ciphertext` with the version byte before it.
    pub(crate) fn blob(ciphertext: &[u8]) -> Vec<u8> {
        let mut blob = Vec::with_capacity(ciphertext.len() + 1);
        blob.push(Self::VERSION);
        blob.extend_from_slice(ciphertext);
        blob
    }
}

/// One key pair made by [`Hsm::produce`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProducedKey {
    /// SubjectPublicKeyInfo, DER (RFC 5280 4.1.2.7).
    pub public_key_der: Vec<u8>,
    /// The private key, wrapped.
    pub wrapped: WrappedKey,
    /// CertificationRequest (RFC 2986), DER, signed by this key before it was wrapped; none unless it was asked for.
    pub request_der: Option<Vec<u8>>,
}

/// What a certificate request says besides the key that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestTemplate {
    /// The subject's Name, DER.
    pub subject_der: Vec<u8>,
    /// The attributes, DER: `[0] IMPLICIT SET OF Attribute` with its tag.
    pub attributes_der: Vec<u8>,
}

/// What [`Hsm::produce`] did, for the audit event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Produced {
    /// The key pairs, in no particular order.
    pub keys: Vec<ProducedKey>,
    /// PKCS#11 mechanisms used, by their standard names.
    pub mechanisms: Vec<String>,
    /// How long the token worked, summed over its workers.
    pub duration: Duration,
}

/// One key to be sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealItem {
    /// Our name of the credential, part of the context.
    pub credential: CredentialId,
    /// SHA-256 of its certificate's DER, part of the context.
    pub certificate: Sha256Hash,
    /// The epoch whose KEK wraps `dek_blob`.
    pub epoch: EpochId,
    /// As in [`WrappedKey`].
    pub dek_blob: Vec<u8>,
}

/// Keys of one claim, to be sealed to one recipient.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealRequest {
    /// The tenant; a KEK of another one is refused.
    pub tenant: TenantId,
    /// The claim's request, part of the context.
    pub request: RequestId,
    /// The suite, one of [`HsmStatus::suites`].
    pub suite: Suite,
    /// The recipient's public key, of the kind that the suite needs, as
    /// [`crate::sealing::RecipientPublicKey::as_bytes`] gives it. Validated again by the worker.
    pub recipient: Vec<u8>,
    /// The keys.
    pub items: Vec<SealItem>,
}

/// The answer for one [`SealItem`], in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// The HSM's side of the key agreement: uncompressed P-256 point, 65 bytes. Empty with `RSA_AES_KEY_WRAP`.
    pub hsm_point: Vec<u8>,
    /// With `RSA_AES_KEY_WRAP` only.
    pub oaep_hash: Option<OaepHash>,
    /// KWP of the DEK under the agreed wrapping key, or RSAES-OAEP of it (no version byte: the suite says the layout).
    pub wrapped_dek: Vec<u8>,
}

/// One object of ours (or not) found on the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenObject {
    /// Its identity, if it is one of ours.
    pub id: Option<ObjectId>,
    /// CKA_LABEL, lossily as text.
    pub label: String,
    /// CKA_CLASS by its standard name, e.g. `CKO_PRIVATE_KEY`.
    pub class: String,
    /// What is wrong with it, e.g. an empty file left by a crash, a missing half, an extractable key.
    pub problems: Vec<String>,
}

/// Evidence that objects are gone, from a process that was started for this question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedGone {
    /// Serial number of the token that was asked.
    pub token_serial: String,
    /// The objects that were looked for, none of which was found.
    pub objects: Vec<ObjectId>,
}

/// Health and capabilities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HsmStatus {
    /// True while calls can be served.
    pub available: bool,
    /// Why not, or what is degraded; empty when all is well.
    pub problem: String,
    /// The token's serial number, as probed.
    pub token_serial: String,
    /// Manufacturer and version of the module and token, for people.
    pub module: String,
    /// Suites that are configured and passed the self-test, preferred first.
    pub suites: Vec<Suite>,
    /// The hash of OAEP, if `RSA_AES_KEY_WRAP` is among them.
    pub oaep_hash: Option<OaepHash>,
    /// The audit key's algorithm: Ed25519 where the self-test passed, else ECDSA P-256.
    pub audit_algorithm: SignatureAlgorithm,
    /// Whether the workers' memory is kept out of the swap space.
    pub memory_locked: bool,
    /// Live workers: (interactive, bulk).
    pub workers: (usize, usize),
    /// Workers started again after a failure, since the start.
    pub restarts: u64,
    /// Process ids of the live workers, interactive ones first.
    pub worker_pids: Vec<u32>,
}

/// Why a verb failed.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
pub enum HsmError {
    /// Configuration: module file, token label, PIN file. The text says what to do.
    #[error("{0}")]
    Configuration(String),
    /// The PIN was refused. Latched: nothing logs in again before a reload, so that no loop locks the token.
    #[error(
        "the token refused the PIN; correct the PIN file and reload (SIGHUP): no further attempt is made before that"
    )]
    WrongPin,
    /// The token, the module or the worker is not there now. Try again later.
    #[error("the HSM is not available: {0}")]
    Unavailable(String),
    /// The deadline passed; the worker was killed.
    #[error("the HSM did not answer within {0:?}")]
    DeadlineExceeded(Duration),
    /// The lane's queue is full.
    #[error("too many HSM calls are waiting")]
    Overloaded,
    /// No object with this id on the token. For a KEK: read the row again, its keys may have been re-wrapped.
    #[error("no object {0} on the token")]
    NotFound(ObjectId),
    /// Verification found what should be gone.
    #[error("still on the token after destruction: {}", list(.0))]
    StillThere(Vec<ObjectId>),
    /// The caller's fault: tenant mismatch, blob of a wrong version, unsupported mechanism.
    #[error("refused: {0}")]
    Refused(String),
    /// The module answered with an error that is none of the above.
    #[error("{operation} failed with {code}")]
    Module {
        /// PKCS#11 function.
        operation: String,
        /// CKR name.
        code: String,
    },
}

impl HsmConfig {
    /// The section of the configuration that it comes from.
    pub(crate) fn section(&self) -> String {
        self.owner.as_ref().map_or_else(|| "[hsm]".to_owned(), |tenant| format!("[tenant.{tenant}]"))
    }
}

impl Lane {
    /// The fixed text, for metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }
}

impl HsmError {
    /// A stable short name, for metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Configuration(_) => "configuration",
            Self::WrongPin => "wrong_pin",
            Self::Unavailable(_) => "unavailable",
            Self::DeadlineExceeded(_) => "deadline_exceeded",
            Self::Overloaded => "overloaded",
            Self::NotFound(_) => "not_found",
            Self::StillThere(_) => "still_there",
            Self::Refused(_) => "refused",
            Self::Module { .. } => "module",
        }
    }
}

fn list(objects: &[ObjectId]) -> String {
    objects.iter().map(ObjectId::to_string).collect::<Vec<_>>().join(", ")
}
