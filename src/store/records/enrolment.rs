//! What the store keeps and gives out of an enrolment: a certificate for a key that its holder made and keeps.

use super::{DestroyedKeys, NewCertificate};
use crate::audit::event::EventCredential;
use crate::clock::Timestamp;
use crate::credential::{CertificateState, named};
use crate::nfv::{ClaimId, InitialCredentialId, IssuerId, PoolId, Sha256Hash, SlotName, TenantId, VnfciId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What an enrolment rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrolmentBasis {
    /// The VNFCI's open initial credential, which it showed.
    InitialCredential(InitialCredentialId),
    /// The word of an agent for the VNFCI of this initial credential, which was not shown: it must be open, and its
    /// expiry does not matter.
    Agent(InitialCredentialId),
    /// A certificate (SHA-256 of its DER) that the VNFCI has.
    Certificate(Sha256Hash),
}

/// A signed certificate to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnrolment {
    /// Id of the enrolment: enrolments and claims are kept alike.
    pub id: ClaimId,
    /// What it rests on.
    pub basis: EnrolmentBasis,
    /// The slot that it fills.
    pub slot: SlotName,
    /// The credential to be made. If the key is certified again, its own stays.
    pub credential: EventCredential,
    /// The SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
    /// Its certificate.
    pub certificate: NewCertificate,
    /// Other keys that one arming may present for its slots, redraws of claims included.
    pub redraws_allowed: u32,
    /// Whether the initial credential is spent once every slot has a certificate.
    pub spend: bool,
    /// How long a certificate that was superseded may still be followed.
    pub overlap: Duration,
}

/// A signed certificate to be recorded, for a key that a registration authority vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVouched {
    /// The pool that lent its names.
    pub pool: PoolId,
    /// The credential to be made; its id is the one in the names.
    pub credential: EventCredential,
    /// The SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
    /// Its certificate.
    pub certificate: NewCertificate,
}

/// A certificate for a key that a registration authority vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// The pool that lent its names.
    pub pool: PoolId,
    /// Its credential.
    pub credential: EventCredential,
    /// Who signed it.
    pub issuer: IssuerId,
    /// The certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Where it stands.
    pub state: CertificateState,
    /// Until when.
    pub not_after: Timestamp,
}

/// Certificates of one slot that may be superseded within [`REENROLMENT_PERIOD`]: a VNFCI, or whoever has its key, does not
/// mint without end.
const REENROLMENTS_MAX: usize = 3;
/// See [`REENROLMENTS_MAX`]; or the overlap, if that is longer.
const REENROLMENT_PERIOD: Duration = Duration::from_secs(3_600);

/// When a slot may have another certificate, given when its former ones were superseded; none if it may now.
pub fn next_reenrolment(
    mut superseded: Vec<Timestamp>,
    overlap: Duration,
    now: Timestamp,
) -> Option<Timestamp> {
    superseded.sort_unstable_by(|one, other| other.cmp(one));
    let until = superseded.get(REENROLMENTS_MAX - 1)?.plus(overlap.max(REENROLMENT_PERIOD));
    (until > now).then_some(until)
}

named!(
    /// Why an enrolment is refused by the state of what it names; for the auditor.
    EnrolmentRefusal, "enrolment refusal" {
        /// The initial credential was used before.
        Spent = "INITIAL_CREDENTIAL_SPENT",
        /// The initial credential was withdrawn.
        Void = "INITIAL_CREDENTIAL_VOID",
        /// The initial credential expired.
        Expired = "INITIAL_CREDENTIAL_EXPIRED",
        /// The VNFCI was terminated or released.
        VnfciEnded = "VNFCI_ENDED",
        /// New keys were presented too often in this arming.
        TooManyKeys = "TOO_MANY_REDRAWS",
        /// A claim of the VNFCI waits for its confirmation.
        ClaimOpen = "CLAIM_OPEN",
        /// The public key is that of another credential.
        KeyUsed = "PUBLIC_KEY_USED",
        /// The certificate that is to be followed is expired or withdrawn.
        CertificateEnded = "CERTIFICATE_ENDED",
        /// The certificate that is to be followed was superseded, and its overlap is over.
        CertificateSuperseded = "CERTIFICATE_SUPERSEDED",
        /// The UUID of the requested names is that of another credential.
        NameUsed = "NAME_USED",
    }
);

/// What came of an enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolmentOutcome {
    /// Recorded.
    Enrolled {
        /// Whose certificate it is: an earlier credential's if its key was certified again.
        credential: EventCredential,
        /// What another key of this arming had for the slot, withdrawn now.
        replaced: DestroyedKeys,
        /// What earlier armings had, withdrawn now that every slot has a certificate.
        superseded: DestroyedKeys,
        /// Whether the initial credential is spent now.
        spent: bool,
    },
    /// The same key got this certificate (DER) before.
    Replayed(Vec<u8>),
    /// Too many certificates followed each other in the slot; nothing was changed.
    TooMany {
        /// When there may be another one.
        until: Timestamp,
    },
    /// Refused; nothing was changed.
    Refused(EnrolmentRefusal),
}

/// A certificate that a VNFCI has for a slot; its key came from a pool or is the VNFCI's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Whose tenant.
    pub tenant: TenantId,
    /// Of which VNFCI.
    pub vnfci: VnfciId,
    /// The claim or enrolment.
    pub id: ClaimId,
    /// The arming that it belongs to.
    pub initial_credential: InitialCredentialId,
    /// The slot.
    pub slot: SlotName,
    /// Its credential.
    pub credential: EventCredential,
    /// Whether the VNFCI made the key itself.
    pub own_key: bool,
    /// When the key was first certified here.
    pub key_since: Timestamp,
    /// The certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Who signed it.
    pub issuer: IssuerId,
    /// Where it stands.
    pub state: CertificateState,
    /// Since when another one is in its place.
    pub superseded_at: Option<Timestamp>,
    /// Until when.
    pub not_after: Timestamp,
}

impl Enrolment {
    /// Whether its certificate is in force and the latest of its slot.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.state == CertificateState::Valid && now < self.not_after
    }
}
