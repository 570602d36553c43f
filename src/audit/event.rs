//! One event of the audit log.

use crate::clock::Timestamp;
use crate::credential::named;
use crate::nfv::{CredentialId, RequestId, Sha256Hash, TenantId, VnfInstanceId, VnfciId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

named!(
    /// What happened. An intent is recorded before the HSM acts; a failure adds an `OUTCOME_FAILED`.
    EventKind, "event kind" {
        /// The log begins (a new origin).
        LogStarted = "LOG_STARTED",
        /// A process of the broker started; details list what reconciliation found.
        BrokerStarted = "BROKER_STARTED",
        /// A tenant was added or changed.
        TenantAdded = "TENANT_ADDED",
        /// A tenant was removed.
        TenantRemoved = "TENANT_REMOVED",
        /// A trust anchor for initial credentials was added.
        AnchorAdded = "ANCHOR_ADDED",
        /// A trust anchor's CRLs, or what is demanded of them, were changed.
        AnchorUpdated = "ANCHOR_UPDATED",
        /// A trust anchor was removed.
        AnchorRemoved = "ANCHOR_REMOVED",
        /// An identity (operator, NFVO ...) was registered.
        IdentityAdded = "IDENTITY_ADDED",
        /// An identity got another client certificate, by the one that it had.
        IdentityRenewed = "IDENTITY_RENEWED",
        /// An identity was removed.
        IdentityRemoved = "IDENTITY_REMOVED",
        /// A profile was added, changed or removed; details carry its SHA-256.
        ProfileChanged = "PROFILE_CHANGED",
        /// A CA certificate was issued or taken into use.
        IssuerAdded = "ISSUER_ADDED",
        /// A CA outside of the broker certified again the key by which the broker is its client.
        IssuerClientRenewed = "ISSUER_CLIENT_RENEWED",
        /// A request was made for an external root to certify a CA key.
        CaRequested = "CA_REQUESTED",
        /// The root signed the certificate of a CA elsewhere.
        CaSigned = "CA_SIGNED",
        /// A pool was created.
        PoolCreated = "POOL_CREATED",
        /// A pool's target or watermark was changed.
        PoolUpdated = "POOL_UPDATED",
        /// A pool was deleted.
        PoolDeleted = "POOL_DELETED",
        /// A batch of keys was generated in the HSM, wrapped and certified.
        KeysProduced = "KEYS_PRODUCED",
        /// VNFCIs with their slots and initial credentials were registered.
        VnfcisRegistered = "VNFCIS_REGISTERED",
        /// A VNFCI got a new initial credential.
        VnfciRearmed = "VNFCI_REARMED",
        /// Credentials were drawn for a VNFCI and are about to be sealed to one recipient key.
        Claimed = "CLAIMED",
        /// The same recipient key asked again; its credentials are about to be sealed again.
        ClaimReplayed = "CLAIM_REPLAYED",
        /// Certificates were signed whose keys were there before: during a claim, with the VNFCI's own name.
        CertificatesIssued = "CERTIFICATES_ISSUED",
        /// A CA outside of the broker sent a certificate that was not asked for.
        CertificateRejected = "CERTIFICATE_REJECTED",
        /// The VNFCI proved possession of every key.
        Confirmed = "CONFIRMED",
        /// MANO asked VNFCIs to renew their credentials.
        RenewalRequested = "RENEWAL_REQUESTED",
        /// A certificate for a key of the holder's own is about to be signed.
        EnrolmentStarted = "ENROLMENT_STARTED",
        /// A VNFCI got a certificate for a key of its own.
        Enrolled = "ENROLLED",
        /// The same key asked again and got the same certificate.
        EnrolmentReplayed = "ENROLMENT_REPLAYED",
        /// The VNFCI gave its credentials back.
        Released = "RELEASED",
        /// MANO reported the end of VNFCIs.
        Terminated = "TERMINATED",
        /// The broker's wrapped copies of keys were erased.
        KeysErased = "KEYS_ERASED",
        /// Certificates are to be withdrawn.
        RevocationRequested = "REVOCATION_REQUESTED",
        /// A CRL was signed.
        CrlSigned = "CRL_SIGNED",
        /// A CA certified the key of its OCSP responder, for the first time or again.
        OcspResponderCertified = "OCSP_RESPONDER_CERTIFIED",
        /// A KEK is about to be made.
        EpochCreating = "EPOCH_CREATING",
        /// A KEK was made and takes keys.
        EpochOpened = "EPOCH_OPENED",
        /// An epoch takes no more keys.
        EpochClosed = "EPOCH_CLOSED",
        /// Keys were re-wrapped from one epoch to another inside the HSM.
        KeysRewrapped = "KEYS_REWRAPPED",
        /// A KEK is about to be destroyed.
        EpochShredding = "EPOCH_SHREDDING",
        /// A fresh process found no KEK.
        EpochShredded = "EPOCH_SHREDDED",
        /// A signed destruction receipt.
        DestructionReceipt = "DESTRUCTION_RECEIPT",
        /// A rolled-back database was recovered: the log before has another origin.
        Recovered = "RECOVERED",
        /// A caller was refused; details carry the reason that the caller was not told.
        Refused = "REFUSED",
        /// Callers were refused so often that these refusals have no events of their own; details say who, why and how often.
        RefusalsSummed = "REFUSALS_SUMMED",
        /// What an earlier intent announced did not happen.
        OutcomeFailed = "OUTCOME_FAILED",
    }
);

/// Who did it: `ROLE:NAME` (`vnfm:vnfm-1`, `vnfci:amf-0001`), `broker` for the broker itself, or
/// `unknown:FINGERPRINT` for a caller that could not be identified.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Actor(pub String);

impl Actor {
    /// The broker acting by itself (producer, sweeper, sequencer).
    pub fn broker() -> Self {
        Self("broker".to_owned())
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event as it is stored and hashed. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// UUID version 7.
    pub id: Uuid,
    /// When, by the store's clock.
    pub time: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// Who did it.
    pub actor: Actor,
    /// In which tenant, if in one.
    pub tenant: Option<TenantId>,
    /// Of which VNF instance, if of one.
    pub vnf_instance: Option<VnfInstanceId>,
    /// To which VNFCI, if to one.
    pub vnfci: Option<VnfciId>,
    /// The caller's request id, if a request caused it.
    pub request: Option<RequestId>,
    /// The credentials concerned, with the SHA-256 of each one's SubjectPublicKeyInfo.
    pub credentials: Vec<EventCredential>,
    /// Everything else, a JSON object with stable names.
    pub details: serde_json::Value,
}

/// A credential named in an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventCredential {
    /// The credential.
    pub id: CredentialId,
    /// SHA-256 of its SubjectPublicKeyInfo, DER.
    pub public_key: Sha256Hash,
}

impl Event {
    /// An event at `time` with nothing but its kind and actor.
    pub fn new(time: Timestamp, kind: EventKind, actor: Actor) -> Self {
        Self {
            id: Uuid::now_v7(),
            time,
            kind,
            actor,
            tenant: None,
            vnf_instance: None,
            vnfci: None,
            request: None,
            credentials: Vec::new(),
            details: serde_json::Value::Object(serde_json::Map::new()),
        }
    }

    /// With its tenant.
    pub fn tenant(mut self, tenant: &TenantId) -> Self {
        self.tenant = Some(tenant.clone());
        self
    }

    /// With its VNF instance.
    pub fn vnf_instance(mut self, vnf_instance: &VnfInstanceId) -> Self {
        self.vnf_instance = Some(vnf_instance.clone());
        self
    }

    /// With its VNFCI.
    pub fn vnfci(mut self, vnfci: &VnfciId) -> Self {
        self.vnfci = Some(vnfci.clone());
        self
    }

    /// With the request that caused it.
    pub fn request(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }

    /// With the credentials concerned.
    pub fn credentials(mut self, credentials: impl IntoIterator<Item = EventCredential>) -> Self {
        self.credentials.extend(credentials);
        self
    }

    /// With its details, a JSON object.
    pub fn details(mut self, details: serde_json::Value) -> Self {
        self.details = details;
        self
    }
}
