//! What the store keeps and gives out of a claim.

use super::{DestroyedKeys, NewCertificate};
use crate::audit::event::EventCredential;
use crate::clock::Timestamp;
use crate::credential::named;
use crate::nfv::{
    ClaimId, CredentialId, EpochId, InitialCredentialId, IssuerId, PoolName, ProfileName, RequestId,
    Sha256Hash, SlotName, TenantId, VduId, VnfInstanceId, VnfciId,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a VNFCI asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The verified initial credential; of a renewal that of the claim which it renews.
    pub initial_credential: InitialCredentialId,
    /// What is renewed, if it is a renewal.
    pub renews: Option<Renewal>,
    /// Id of the claim to be made.
    pub claim: ClaimId,
    /// The caller's request id; part of every envelope's context.
    pub request: RequestId,
    /// SHA-256 of the recipient's public key ([`crate::sealing::RecipientPublicKey::hash`]).
    pub recipient_key: Sha256Hash,
    /// By when the claim must be confirmed.
    pub deadline: Timestamp,
    /// Redraws allowed per arming, and per claim that is renewed.
    pub redraws_allowed: u32,
}

/// A renewal: fresh credentials in the place of those of a confirmed claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// The claim whose credentials are renewed.
    pub of: ClaimId,
    /// How long those stay valid once the renewal is confirmed.
    pub overlap: Duration,
}

named!(
    /// Why a claim is refused by the state of what it names; for the auditor.
    ClaimRefusal, "claim refusal" {
        /// The initial credential was used before.
        Spent = "INITIAL_CREDENTIAL_SPENT",
        /// The initial credential was withdrawn.
        Void = "INITIAL_CREDENTIAL_VOID",
        /// The initial credential expired.
        Expired = "INITIAL_CREDENTIAL_EXPIRED",
        /// The VNFCI was terminated or released.
        VnfciEnded = "VNFCI_ENDED",
        /// New recipient keys were presented too often in this arming.
        TooManyRedraws = "TOO_MANY_REDRAWS",
        /// What is to be renewed is not confirmed, was renewed before, given back or withdrawn.
        NotRenewable = "CLAIM_NOT_RENEWABLE",
        /// As many earlier credentials of the VNFCI as may be are still in their overlap.
        TooManyRenewals = "TOO_MANY_RENEWALS",
    }
);

/// What came of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimOutcome {
    /// Credentials were drawn and bound.
    Reserved {
        /// The claim.
        claim: ClaimRecord,
        /// Keys of an earlier, unconfirmed claim of this arming that were destroyed for it.
        redrawn: DestroyedKeys,
    },
    /// The open claim of the same recipient key.
    Replayed(ClaimRecord),
    /// A pool has nothing usable; nothing was changed.
    Empty {
        /// The pool.
        pool: PoolName,
    },
    /// Refused.
    Refused(ClaimRefusal),
}

named!(
    /// Where a claim stands.
    ClaimState, "claim state" {
        /// Sealed or about to be, not confirmed.
        Open = "OPEN",
        /// Possession proved.
        Confirmed = "CONFIRMED",
        /// Confirmed, and its renewal was, too: valid until the overlap ends.
        Renewed = "RENEWED",
        /// Not confirmed in time, redrawn, or terminated: its keys were destroyed.
        Destroyed = "DESTROYED",
        /// Given back after confirmation.
        Released = "RELEASED",
        /// Confirmed, and its certificates withdrawn: a later arming was confirmed, or the overlap with its renewal ended.
        Superseded = "SUPERSEDED",
    }
);

/// A key that was drawn without a certificate, with everything that its certificate may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UncertifiedKey {
    /// Its credential.
    pub credential: CredentialId,
    /// SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
    /// Of its pool.
    pub profile: ProfileName,
    /// Whose tenant.
    pub tenant: TenantId,
    /// Of which VNF instance.
    pub vnf_instance: VnfInstanceId,
    /// The VNFCI's VDU.
    pub vdu: VduId,
    /// For which VNFCI.
    pub vnfci: VnfciId,
}

/// A certificate that is about to be signed. It is recorded first: from then on its serial number counts as issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateIntent {
    /// Who is to sign it.
    pub issuer: IssuerId,
    /// Serial number, content octets of the INTEGER.
    pub serial: Vec<u8>,
    /// TBSCertificate, DER: exactly the bytes to be signed.
    pub tbs_der: Vec<u8>,
    /// From when.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// Until when it may be claimed.
    pub usable_until: Timestamp,
    /// The CRL that it names, as in [`NewCertificate`].
    pub crl_shard: u32,
}

impl CertificateIntent {
    /// The certificate, once it is signed (DER).
    pub fn signed(self, der: Vec<u8>) -> NewCertificate {
        let Self { issuer, serial, not_before, not_after, usable_until, crl_shard, .. } = self;
        NewCertificate { issuer, serial, der, not_before, not_after, usable_until, crl_shard }
    }
}

/// The certificate of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimedCertificate {
    /// Signed, DER.
    Signed(Vec<u8>),
    /// To be signed: the claim can be neither sealed nor confirmed before it is.
    Intended(CertificateIntent),
}

impl ClaimedCertificate {
    /// DER, if it is signed.
    pub fn der(&self) -> Option<&[u8]> {
        match self {
            Self::Signed(der) => Some(der),
            Self::Intended(_) => None,
        }
    }

    /// SHA-256 of the DER, if it is signed.
    pub fn fingerprint(&self) -> Option<Sha256Hash> {
        self.der().map(Sha256Hash::of)
    }
}

/// One slot of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedCredential {
    /// The slot.
    pub slot: SlotName,
    /// The credential.
    pub credential: EventCredential,
    /// SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
    /// The certificate's issuer.
    pub issuer: IssuerId,
    /// The certificate.
    pub certificate: ClaimedCertificate,
    /// The certificate's notAfter.
    pub not_after: Timestamp,
    /// The epoch whose KEK wraps `dek_blob`.
    pub epoch: EpochId,
    /// As in `hsm::WrappedKey`; empty once erased.
    pub key_blob: Vec<u8>,
    /// As in `hsm::WrappedKey`; empty once erased.
    pub dek_blob: Vec<u8>,
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// Its id.
    pub id: ClaimId,
    /// The initial credential that was presented, to this claim or to the first that was renewed.
    pub initial_credential: InitialCredentialId,
    /// What it renews, if it is a renewal.
    pub renews: Option<Renewal>,
    /// Whose tenant.
    pub tenant: TenantId,
    /// Of which VNF instance.
    pub vnf_instance: VnfInstanceId,
    /// Of which VNFCI.
    pub vnfci: VnfciId,
    /// The request id of the first presentation: every envelope's context has it, replays too.
    pub request: RequestId,
    /// SHA-256 of the recipient's public key ([`crate::sealing::RecipientPublicKey::hash`]).
    pub recipient_key: Sha256Hash,
    /// Where it stands.
    pub state: ClaimState,
    /// By when it must be confirmed.
    pub deadline: Timestamp,
    /// When its credentials were drawn.
    pub created_at: Timestamp,
    /// One per slot, by slot name.
    pub credentials: Vec<ClaimedCredential>,
}

/// What came of a confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "made once per confirmation and taken apart at once")]
pub enum ConfirmOutcome {
    /// Confirmed now.
    Confirmed {
        /// The claim.
        claim: ClaimRecord,
        /// What earlier armings had delivered and is withdrawn for it.
        superseded: DestroyedKeys,
    },
    /// Had been confirmed before.
    AlreadyConfirmed,
    /// The deadline passed, or the claim was destroyed or released.
    TooLate,
}

/// The answer for one VNFCI of a request to renew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenewalRequestOutcome {
    /// Marked now.
    Requested,
    /// Had been marked before and has not renewed since.
    AlreadyRequested,
    /// It holds no confirmed credentials: there is nothing to renew.
    NotActive,
    /// No such VNFCI in the tenant (and VNF instance, where one was named).
    NotFound,
}
