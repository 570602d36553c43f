//! What the store keeps and gives out of certificates and of what is published about them.

use crate::audit::event::EventCredential;
use crate::clock::Timestamp;
use crate::credential::{CertificateState, KeyState, RevocationReason};
use crate::nfv::{ClaimId, CredentialId, IssuerId, Sha256Hash, SlotName, TenantId, VnfInstanceId, VnfciId};
use serde::{Deserialize, Serialize};

/// A certificate with whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// Whose tenant.
    pub tenant: TenantId,
    /// Its credential.
    pub credential: EventCredential,
    /// Its pool's VNF instance.
    pub vnf_instance: VnfInstanceId,
    /// Who holds it, once claimed.
    pub vnfci: Option<VnfciId>,
    /// The claim, once claimed.
    pub claim: Option<ClaimId>,
    /// The slot, once claimed.
    pub slot: Option<SlotName>,
    /// Where its key stands.
    pub key_state: KeyState,
    /// Where it stands.
    pub state: CertificateState,
    /// Who signed it.
    pub issuer: IssuerId,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of its DER; none while it is to be signed during a claim.
    pub fingerprint: Option<Sha256Hash>,
    /// From when.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
}

/// Which certificates are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CertificateSelector {
    /// One, by its issuer and serial number (content octets of the INTEGER).
    Serial(IssuerId, Vec<u8>),
    /// Those of a credential.
    Credential(CredentialId),
    /// Every one that a VNFCI was ever drawn.
    Vnfci(VnfciId),
}

/// What came of recording one signed certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordOutcome {
    /// Recorded now.
    Recorded(EventCredential),
    /// The key had its certificate before: this one (DER), which is the one to give out.
    Before(Vec<u8>),
    /// The key was destroyed meanwhile; nothing was recorded and nothing may be given out.
    Ended,
}

/// The answer for one certificate of a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevokeOutcome {
    /// Pending now.
    Pending(EventCredential),
    /// Pending or revoked before.
    AlreadyRevoked,
    /// Expired: nothing to withdraw.
    Expired,
    /// No such certificate in the tenant.
    NotFound,
}

/// Where a certificate stands, for OCSP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Its state.
    pub state: CertificateState,
    /// Since when and why it is withdrawn, if it is.
    pub revoked: Option<(Timestamp, RevocationReason)>,
}

/// The delegated OCSP responder of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspResponder {
    /// Whose.
    pub issuer: IssuerId,
    /// Text form of its key's `hsm::ObjectId`.
    pub key: String,
    /// Its certificate.
    pub certificate_der: Vec<u8>,
    /// Since when.
    pub created_at: Timestamp,
}

/// One certificate to be listed on a CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlEntry {
    /// Serial number, content octets of the INTEGER.
    pub serial: Vec<u8>,
    /// Since when it is withdrawn.
    pub revoked_at: Timestamp,
    /// Why.
    pub reason: RevocationReason,
    /// The shard that it names, as in [`NewCertificate`].
    pub shard: u32,
    /// End of its validity.
    pub not_after: Timestamp,
    /// On no CRL yet.
    pub pending: bool,
}

impl CrlEntry {
    /// The shard of a certificate that is known by its serial number only: whichever it names lists it.
    pub const EVERY_SHARD: u32 = u32::MAX;
}

/// What a signed CRL is, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlHead {
    /// 0 for the complete one, else a shard.
    pub shard: u32,
    /// Certificates that it lists.
    pub entries: u64,
    /// CRLNumber (RFC 5280 5.2.3).
    pub number: u64,
    /// thisUpdate.
    pub this_update: Timestamp,
    /// nextUpdate.
    pub next_update: Timestamp,
}

/// A signed CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlRecord {
    /// What it is.
    pub head: CrlHead,
    /// The CRL, DER.
    pub der: Vec<u8>,
}
