//! What the store keeps and gives out. Times are the store's; DER is DER; hashes are SHA-256.

use crate::audit::event::EventCredential;
use crate::audit::receipt::DestructionReason;
use crate::authorisation::Role;
use crate::clock::Timestamp;
use crate::credential::{CertificateState, EpochState, HolderCopy, Issue, KeyState, RevocationReason, named};
use crate::nfv::{
    AnchorName, CaName, CredentialId, EpochId, IdentityName, InitialCredentialId, IssuerId, IssuerName,
    PoolId, PoolName, ProfileName, Sha256Hash, SlotName, TenantId, VduId, VnfInstanceId, VnfciId,
};
use serde::{Deserialize, Serialize};

mod certificate;
mod claim;
mod enrolment;
mod log;
mod quota;
mod recovery;

pub use crate::identity::x509::Revocation;
pub use certificate::{
    CertificateRecord, CertificateSelector, CertificateStatus, CrlEntry, CrlHead, CrlRecord, OcspResponder,
    RecordOutcome, RevokeOutcome,
};
pub use claim::{
    CertificateIntent, ClaimOutcome, ClaimRecord, ClaimRefusal, ClaimRequest, ClaimState, ClaimedCertificate,
    ClaimedCredential, ConfirmOutcome, Renewal, RenewalRequestOutcome, UncertifiedKey,
};
pub use enrolment::{
    Enrolment, EnrolmentBasis, EnrolmentOutcome, EnrolmentRefusal, NewEnrolment, NewVouched, Vouched,
    next_reenrolment,
};
pub use log::{AuditEntry, AuditQuery, ChainTip, UnchainedEvent};
pub use quota::{Quota, QuotaExceeded, Quotas};
pub use recovery::{LOST_ISSUERS, ORIGIN, PRESENCE, RECOVERY, ROLLED_BACK, Recovered, Recovery, Withdrawn};

pub use crate::identity::{InitialCredential, InitialCredentialKind, InitialCredentialState};

/// One page of a list, by its sort key: `TENANT/NAME` for pools, `TENANT/ID` for VNFCIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Items after this sort key (text); none from the beginning.
    pub after: Option<String>,
    /// At most this many.
    pub limit: u32,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// Since when.
    pub created_at: Timestamp,
}

/// A trust anchor for X.509 initial credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: AnchorName,
    /// The CA certificate.
    pub certificate_der: Vec<u8>,
    /// SHA-256 of the certificate.
    pub fingerprint: Sha256Hash,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub public_key: Sha256Hash,
    /// What is demanded of CRLs.
    pub revocation: Revocation,
    /// Certificate policies (object identifiers, dotted), of which a path must be valid for one; empty: none is demanded.
    pub policies: Vec<String>,
    /// Whether certificates must be as RFC 5280 section 4 demands of CAs.
    pub strict: bool,
    /// Certificates of CAs and CRL issuers below it that the operator gave, DER.
    pub issuers_der: Vec<Vec<u8>>,
    /// Since when.
    pub created_at: Timestamp,
}

/// A change of an anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorUpdate {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: AnchorName,
    /// What is demanded of CRLs from now on; none: as before.
    pub revocation: Option<Revocation>,
    /// Certificates of CAs and CRL issuers below it from now on, DER; none: as before.
    pub issuers_der: Option<Vec<Vec<u8>>>,
    /// CRLs to be added, DER.
    pub added: Vec<Vec<u8>>,
    /// CRLs to be removed, SHA-256.
    pub removed: Vec<Sha256Hash>,
}

/// That an anchor has a CRL, of its own CA or of one below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorCrl {
    /// Whose anchor.
    pub tenant: TenantId,
    /// The anchor's name.
    pub anchor: AnchorName,
    /// SHA-256 of the CRL.
    pub fingerprint: Sha256Hash,
}

/// A registered client of the management listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name.
    pub name: IdentityName,
    /// Its role.
    pub role: Role,
    /// Its tenant; none for an operator and for an auditor of the whole broker.
    pub tenant: Option<TenantId>,
    /// For a VNFM: the VNF instances that it manages.
    pub granted_vnfs: Vec<VnfInstanceId>,
    /// Its client certificate, the latest if it was renewed.
    pub certificate_der: Vec<u8>,
    /// SHA-256 of the certificate.
    pub fingerprint: Sha256Hash,
    /// Since when.
    pub created_at: Timestamp,
}

/// Another certificate of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRenewal {
    /// Whose.
    pub name: IdentityName,
    /// SHA-256 of its present certificate, which stays good until it ends.
    pub follows: Sha256Hash,
    /// When that is.
    pub followed_until: Timestamp,
    /// The new one, DER.
    pub certificate_der: Vec<u8>,
}

/// A CA certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerRecord {
    /// Its id.
    pub id: IssuerId,
    /// The tenant that it issues for; none for a root.
    pub tenant: Option<TenantId>,
    /// Which of the tenant's CAs it is; every generation of one CA has the same name.
    pub name: CaName,
    /// For a CA outside of the broker, the configured issuer's name.
    pub external: Option<IssuerName>,
    /// Rises with every CA that the tenant gets, whatever its name. The number in its key's name, unless that was requested of a
    /// root elsewhere and other CAs came first.
    pub generation: u32,
    /// Text form of its key's `hsm::ObjectId`; empty for a CA outside of the broker.
    pub key: String,
    /// The certificate.
    pub certificate_der: Vec<u8>,
    /// Its chain: the issuer's certificate first, up to and including the root. Empty for a root.
    pub chain_der: Vec<Vec<u8>>,
    /// Since when.
    pub created_at: Timestamp,
}

/// A CA key that was requested for a CA: it waits for the certificate of a root elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaKeyRequest {
    /// Whose.
    pub tenant: TenantId,
    /// For which of the tenant's CAs.
    pub name: CaName,
    /// The number in the key's name.
    pub generation: u32,
    /// Since when; asked for again, since then.
    pub created_at: Timestamp,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its id.
    pub id: PoolId,
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: PoolName,
    /// For which VNF instance.
    pub vnf_instance: VnfInstanceId,
    /// For which VDU.
    pub vdu: VduId,
    /// What its certificates look like.
    pub profile: ProfileName,
    /// How many credentials are to be ready.
    pub target: u32,
    /// Refilled to `target` when fewer than this are ready.
    pub refill_below: u32,
    /// When its certificates are issued; fixed when it is created.
    pub issue: Issue,
    /// Since when.
    pub created_at: Timestamp,
}

/// Which pools.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolFilter {
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// Of these VNF instances.
    pub vnf_instances: Option<Vec<VnfInstanceId>>,
}

/// Keys of a pool by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolLevels {
    /// No certificate yet.
    pub generated: u64,
    /// Ready and usable now.
    pub available: u64,
    /// Ready but too old to be claimed.
    pub aged: u64,
    /// Claimed, not confirmed.
    pub claimed: u64,
    /// Delivered, ever.
    pub delivered: u64,
    /// Destroyed without delivery, ever.
    pub destroyed: u64,
    /// Claimed, ever, whatever became of it.
    pub drawn: u64,
}

impl PoolLevels {
    /// Ready to be claimed now: keys with a certificate, or keys that get one at the claim.
    pub fn ready(&self, issue: Issue) -> u64 {
        match issue {
            Issue::Ahead => self.available,
            Issue::AtClaim => self.generated,
        }
    }

    /// Produced, ever.
    pub fn produced(&self) -> u64 {
        self.generated + self.available + self.aged + self.claimed + self.delivered + self.destroyed
    }
}

/// An epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its id; the KEK's name on the token contains it.
    pub id: EpochId,
    /// Whose.
    pub tenant: TenantId,
    /// Where it stands.
    pub state: EpochState,
    /// When its row was made.
    pub created_at: Timestamp,
    /// When the first key in it was erased: the destruction horizon counts from here.
    pub first_erasure_at: Option<Timestamp>,
    /// When a fresh process found no KEK.
    pub destroyed_at: Option<Timestamp>,
    /// Serial number of the token on which that was verified.
    pub token_serial: Option<String>,
    /// Keys that were ever inserted into it (re-wrapped ones included).
    pub keys: u64,
    /// Keys in it that are live.
    pub live: u64,
}

/// A live key, for re-wrapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKey {
    /// The credential.
    pub credential: EventCredential,
    /// As in `hsm::WrappedKey`.
    pub dek_blob: Vec<u8>,
}

/// A certificate to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCertificate {
    /// Who signed it.
    pub issuer: IssuerId,
    /// Serial number, content octets of the INTEGER.
    pub serial: Vec<u8>,
    /// The certificate.
    pub der: Vec<u8>,
    /// From when.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// Until when it may be claimed: notAfter less the profile's `min_remaining_at_claim`.
    pub usable_until: Timestamp,
    /// The CRL that it names: 0 for the complete one, else a shard.
    pub crl_shard: u32,
}

/// A produced key pair to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCredential {
    /// Its id.
    pub id: CredentialId,
    /// Its pool.
    pub pool: PoolId,
    /// The epoch under whose KEK it is wrapped.
    pub epoch: EpochId,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub public_key: Sha256Hash,
    /// The SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
    /// As in `hsm::WrappedKey`.
    pub key_blob: Vec<u8>,
    /// As in `hsm::WrappedKey`.
    pub dek_blob: Vec<u8>,
    /// Its certificate; none if a CA answers later or the certificate is issued at the claim.
    pub certificate: Option<NewCertificate>,
    /// The request for its certificate, if a CA answers later.
    pub request: Option<NewRequest>,
}

/// A certificate request that its key signed when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRequest {
    /// CertificationRequest (RFC 2986), DER.
    pub der: Vec<u8>,
    /// Of what it was made for: while that is the same, it is sent.
    pub basis: Sha256Hash,
}

/// A key that waits for the answer to its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitingKey {
    /// The credential.
    pub credential: CredentialId,
    /// Its SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
    /// CertificationRequest (RFC 2986), DER.
    pub request_der: Vec<u8>,
}

/// A named place of a VNFCI for one credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its name, unique in the VNFCI.
    pub name: SlotName,
    /// The pool that serves it.
    pub pool: PoolName,
}

/// A VNFCI to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVnfci {
    /// MANO's id.
    pub id: VnfciId,
    /// Its VNF instance.
    pub vnf_instance: VnfInstanceId,
    /// Its VDU.
    pub vdu: VduId,
    /// Its slots, at least one.
    pub slots: Vec<Slot>,
    /// Id of the initial credential to be made.
    pub initial_credential: InitialCredentialId,
    /// How it is recognised.
    pub kind: InitialCredentialKind,
    /// Until when it may be used.
    pub expires_at: Timestamp,
}

/// The answer for one VNFCI of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterOutcome {
    /// Registered, with its first initial credential.
    Registered(InitialCredential),
    /// Refused: exists already, no such pool or anchor, a pool of another VNF instance, a certificate that is
    /// the initial credential of another VNFCI. The text says which.
    Refused(String),
}

/// A VNFCI to be re-armed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rearming {
    /// MANO's id.
    pub id: VnfciId,
    /// The VNF instance that the caller may act for.
    pub vnf_instance: VnfInstanceId,
    /// Id of the initial credential to be made.
    pub initial_credential: InitialCredentialId,
    /// How it is recognised.
    pub kind: InitialCredentialKind,
    /// Until when it may be used.
    pub expires_at: Timestamp,
}

/// The answer for one VNFCI of a re-arming.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RearmOutcome {
    /// Re-armed.
    Rearmed {
        /// The new initial credential.
        credential: InitialCredential,
        /// Keys of an unconfirmed claim that were destroyed for it.
        destroyed: DestroyedKeys,
    },
    /// Refused: does not exist, terminated, an initial credential that is not new. The text says which.
    Refused(String),
}

named!(
    /// Where a VNFCI stands.
    VnfciState, "VNFCI state" {
        /// Announced by MANO, nothing confirmed yet.
        Registered = "REGISTERED",
        /// Holds confirmed credentials.
        Active = "ACTIVE",
        /// Gave its credentials back.
        Released = "RELEASED",
        /// Ended by MANO.
        Terminated = "TERMINATED",
    }
);

/// A VNFCI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vnfci {
    /// Whose.
    pub tenant: TenantId,
    /// MANO's id.
    pub id: VnfciId,
    /// Its VNF instance.
    pub vnf_instance: VnfInstanceId,
    /// Its VDU.
    pub vdu: VduId,
    /// Where it stands.
    pub state: VnfciState,
    /// Its slots.
    pub slots: Vec<Slot>,
    /// Its latest initial credential.
    pub initial_credential: InitialCredential,
    /// Redraws in this arming.
    pub redraws: u32,
    /// Every credential that it was ever drawn, newest first (empty in lists).
    pub credentials: Vec<CertificateRecord>,
    /// Since when.
    pub registered_at: Timestamp,
    /// Since when MANO waits for its renewal; none if it does not.
    pub renewal_requested_at: Option<Timestamp>,
}

/// Which VNFCIs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VnfciFilter {
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// Of these VNF instances.
    pub vnf_instances: Option<Vec<VnfInstanceId>>,
}

/// How the custody of keys ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustodyEnd {
    /// Why.
    pub reason: DestructionReason,
    /// What is known of the holder's copy.
    pub holder_copy: HolderCopy,
    /// The reason to be put on the CRL.
    pub revocation: RevocationReason,
}

/// Keys whose broker copy was erased or whose custody ended, and certificates that are to be withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DestroyedKeys {
    /// The keys.
    pub keys: Vec<EventCredential>,
    /// (issuer, serial) of certificates that became `REVOCATION_PENDING`.
    pub revoked: Vec<(IssuerId, String)>,
}

/// The answer for one VNFCI of a termination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminateOutcome {
    /// Ended now.
    Terminated(DestroyedKeys),
    /// Had been ended before.
    AlreadyTerminated,
    /// No such VNFCI in the tenant (and VNF instance, where one was named).
    NotFound,
}

/// What the termination of a VNF instance came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminatedVnf {
    /// How many VNFCIs ended.
    pub vnfcis: u64,
    /// How many certificates became `REVOCATION_PENDING`.
    pub certificates: u64,
    /// Each VNFCI with what it held, by id. For the events only: a repeated request gets the numbers.
    #[serde(skip)]
    pub ended: Vec<(VnfciId, DestroyedKeys)>,
}

/// What is known of one key's custody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custody {
    /// Whose tenant.
    pub tenant: TenantId,
    /// The credential.
    pub credential: EventCredential,
    /// Serial number of its certificate, hexadecimal.
    pub serial: Option<String>,
    /// Who held it.
    pub vnfci: Option<VnfciId>,
    /// Where its key stands.
    pub key_state: KeyState,
    /// Where its certificate stands.
    pub certificate_state: Option<CertificateState>,
    /// When the broker's copy was erased.
    pub erased_at: Option<Timestamp>,
    /// How custody ended, and when.
    pub ended: Option<(CustodyEnd, Timestamp)>,
    /// The epoch under whose KEK it was wrapped last; none for a key that was never here.
    pub epoch: Option<EpochId>,
    /// When the last of all epochs that it was ever in was verified destroyed; none while one is not.
    pub shredded_at: Option<Timestamp>,
    /// The token on which that was verified.
    pub token_serial: Option<String>,
    /// The signed receipt (JSON), once made.
    pub receipt: Option<String>,
}

/// A lease, to be checked in every transaction of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its name, e.g. `producer`.
    pub name: String,
    /// Who holds it.
    pub holder: String,
    /// Grows with every change of holder.
    pub fence: u64,
}
