//! The `details` of each kind of event: the JSON objects that auditors, exports and the offline checks read. Names are
//! stable; a new field is optional for the reader.
//!
//! None of them holds a secret, an envelope or a wrapped key. Durations are microseconds with `_us` at the end, times
//! microseconds since the Unix epoch, hashes hexadecimal, serial numbers hexadecimal. The keys that an event is about are
//! in its `credentials`, not repeated here.

use super::head::SignedHead;
use super::receipt::DestructionReason;
use crate::clock::Timestamp;
use crate::credential::{HolderCopy, KeyType, RevocationReason, StepReason};
use crate::nfv::{
    AnchorName, CaName, ClaimId, CredentialId, EpochId, IdentityName, InitialCredentialId, IssuerId,
    IssuerName, PoolId, PoolName, ProfileName, Sha256Hash, SlotName, TenantId, VnfInstanceId, VnfciId,
};
use serde::{Deserialize, Serialize};

/// Any of the structs below as [`super::event::Event::details`] takes it.
pub fn json(details: &impl Serialize) -> serde_json::Value {
    // Unwrap safety: fails only for maps whose keys are no text, which no struct here has.
    serde_json::to_value(details).unwrap_or_else(|_| serde_json::Value::Object(serde_json::Map::new()))
}

macro_rules! details {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }
    )+};
}

details! {
    /// `LOG_STARTED`
    LogStartedDetails {
        /// Origin of this log.
        origin: String,
        /// Why a new one: `init` or `recover`.
        reason: String,
        /// Last known head of the log before, after a recovery.
        previous: Option<SignedHead>,
    }

    /// `BROKER_STARTED`
    BrokerStartedDetails {
        /// Version of the program.
        version: String,
        /// Number of starts on this database.
        incarnation: u64,
        /// Serial number of the token.
        token_serial: String,
        /// What the comparison of token and database found, one sentence each; nothing is deleted for it.
        findings: Vec<String>,
    }

    /// `TENANT_ADDED`, `TENANT_REMOVED`
    TenantDetails {
        /// The tenant.
        tenant: TenantId,
    }

    /// `ANCHOR_ADDED`, `ANCHOR_REMOVED`
    AnchorDetails {
        /// Name of the anchor.
        anchor: AnchorName,
        /// SHA-256 of its certificate's DER.
        certificate: Sha256Hash,
        /// Its subject, RFC 4514.
        subject: String,
    }

    /// `ANCHOR_UPDATED`
    AnchorUpdatedDetails {
        /// Name of the anchor.
        anchor: AnchorName,
        /// SHA-256 of its certificate's DER.
        certificate: Sha256Hash,
        /// What is demanded of CRLs now.
        crl_policy: String,
        /// SHA-256 of CRLs that were added, DER.
        crls_added: Vec<Sha256Hash>,
        /// SHA-256 of CRLs that they replace.
        crls_removed: Vec<Sha256Hash>,
        /// SHA-256 of the certificates of CAs and CRL issuers below it, DER.
        #[serde(default)]
        issuers: Vec<Sha256Hash>,
    }

    /// `IDENTITY_ADDED`, `IDENTITY_REMOVED`
    IdentityDetails {
        /// Name of the identity.
        identity: IdentityName,
        /// Its role.
        role: String,
        /// SHA-256 of its client certificate's DER.
        certificate: Sha256Hash,
        /// VNF instances that were granted to it.
        granted_vnfs: Vec<VnfInstanceId>,
    }

    /// `IDENTITY_RENEWED`
    IdentityRenewedDetails {
        /// Name of the identity.
        identity: IdentityName,
        /// SHA-256 of its new client certificate's DER.
        certificate: Sha256Hash,
        /// Its serial number, hexadecimal.
        serial: String,
        /// Its end.
        not_after: Timestamp,
        /// SHA-256 of the certificate that it follows, which stays good until its own end.
        follows: Sha256Hash,
        /// SHA-256 of the request, DER.
        request: Sha256Hash,
    }

    /// `PROFILE_CHANGED`
    ProfileDetails {
        /// Name of the profile.
        profile: ProfileName,
        /// SHA-256 of its file; absent if it was removed.
        content: Option<Sha256Hash>,
    }

    /// `ISSUER_ADDED`
    IssuerDetails {
        /// The issuer.
        issuer: IssuerId,
        /// Which of the tenant's CAs.
        name: CaName,
        /// Generation of its key.
        generation: u32,
        /// Label of its key on the token.
        key_label: String,
        /// SHA-256 of its certificate's DER.
        certificate: Sha256Hash,
        /// Its certificate's serial number.
        serial: String,
        /// End of its validity.
        not_after: Timestamp,
        /// The configured issuer that it stands behind; absent for a CA of the broker.
        #[serde(default)]
        external: Option<IssuerName>,
        /// Its certificate, then its issuers' up to and including the root, DER, base64: a database that forgot it can have it back.
        #[serde(default)]
        chain: Vec<String>,
    }

    /// `ISSUER_CLIENT_RENEWED`
    IssuerClientDetails {
        /// The issuer, as configured.
        issuer_name: IssuerName,
        /// Label of the key on the token.
        key_label: String,
        /// SHA-256 of the certificate's DER.
        certificate: Sha256Hash,
        /// Its serial number.
        serial: String,
        /// End of its validity.
        not_after: Timestamp,
    }

    /// `CA_REQUESTED`
    CaRequestDetails {
        /// Which of the tenant's CAs.
        name: CaName,
        /// Generation of its key.
        generation: u32,
        /// Label of its key on the token.
        key_label: String,
        /// SHA-256 of the request's DER.
        request: Sha256Hash,
    }

    /// `CA_SIGNED`
    CaSignedDetails {
        /// The root that signed.
        issuer: IssuerId,
        /// Subject of the CA, RFC 4514.
        subject: String,
        /// SHA-256 of the request's DER; of a cross-certificate that of the certificate beside which it stands.
        request: Sha256Hash,
        /// SHA-256 of the certificate's DER.
        certificate: Sha256Hash,
        /// Its serial number.
        serial: String,
        /// End of its validity.
        not_after: Timestamp,
    }

    /// `POOL_CREATED`, `POOL_UPDATED`, `POOL_DELETED`
    PoolDetails {
        /// The pool.
        pool: PoolId,
        /// Its name.
        name: PoolName,
        /// Its profile.
        profile: ProfileName,
        /// Credentials to be kept ready.
        target: u32,
        /// Refilled below this number.
        refill_below: u32,
    }

    /// `KEYS_PRODUCED`: the evidence that keys were generated in the HSM.
    ProducedDetails {
        /// The pool that they are for.
        pool: PoolId,
        /// Its profile.
        profile: ProfileName,
        /// Type of the key pairs.
        key_type: KeyType,
        /// Epoch whose KEK wraps them.
        epoch: EpochId,
        /// Label of the KEK on the token.
        kek_label: String,
        /// PKCS#11 mechanisms that were used.
        mechanisms: Vec<String>,
        /// Serial number of the token.
        token_serial: String,
        /// How long the token worked.
        duration_us: u64,
        /// Who certified them; absent if they wait for a certificate.
        issuer: Option<IssuerId>,
        /// Their certificates.
        certificates: Vec<CertificateDetails>,
    }

    /// One certificate within other details.
    CertificateDetails {
        /// Whose certificate.
        credential: CredentialId,
        /// SHA-256 of its DER.
        certificate: Sha256Hash,
        /// Its serial number.
        serial: String,
        /// End of its validity.
        not_after: Timestamp,
    }

    /// `VNFCIS_REGISTERED`
    RegisteredDetails {
        /// The VNFCIs with their initial credentials.
        vnfcis: Vec<RegisteredVnfci>,
    }

    /// One VNFCI within [`RegisteredDetails`].
    RegisteredVnfci {
        /// The VNFCI.
        vnfci: VnfciId,
        /// Its initial credential.
        initial_credential: InitialCredentialId,
        /// `X509` or `TOKEN`.
        kind: String,
        /// Anchor and pin of a certificate, `ANCHOR sha256:...`; absent for a token.
        proof: Option<String>,
        /// Not accepted for a claim from then on.
        expires_at: Timestamp,
        /// Its slots, `SLOT POOL`.
        slots: Vec<String>,
    }

    /// `VNFCI_REARMED`
    RearmedDetails {
        /// The VNFCIs with their new initial credentials.
        vnfcis: Vec<RearmedVnfci>,
    }

    /// One VNFCI within [`RearmedDetails`].
    RearmedVnfci {
        /// The VNFCI.
        vnfci: VnfciId,
        /// Its new initial credential.
        initial_credential: InitialCredentialId,
        /// Counts its armings, from 1.
        generation: u32,
        /// `X509` or `TOKEN`.
        kind: String,
        /// Anchor and pin of a certificate, `ANCHOR sha256:...`; absent for a token.
        proof: Option<String>,
        /// Not accepted for a claim from then on.
        expires_at: Timestamp,
    }

    /// `CLAIMED`, `CLAIM_REPLAYED`: keys are about to be sealed to one recipient key.
    ClaimDetails {
        /// The claim.
        claim: ClaimId,
        /// What the VNFCI showed.
        initial_credential: InitialCredentialId,
        /// The claim that it renews; absent if an initial credential was shown.
        renews: Option<ClaimId>,
        /// SHA-256 of the recipient's public key: a P-256 point (65 bytes), or an RSA SubjectPublicKeyInfo (DER).
        recipient_key: Sha256Hash,
        /// Sealing suite.
        suite: String,
        /// By when it must be confirmed.
        confirm_by: Timestamp,
        /// `EST_SERVERKEYGEN`: the recipient key was the broker's, which gave the VNFCI the private key in the clear, within TLS.
        /// Absent: the recipient key is the VNFCI's.
        #[serde(default)]
        delivered_by: Option<String>,
        /// What goes where.
        slots: Vec<ClaimedSlot>,
    }

    /// One slot within [`ClaimDetails`].
    ClaimedSlot {
        /// The slot.
        slot: SlotName,
        /// The credential drawn for it.
        credential: CredentialId,
        /// SHA-256 of its certificate's DER; absent while that is to be signed.
        certificate: Option<Sha256Hash>,
        /// What is to be signed for it, where its certificate is issued at the claim.
        intent: Option<IntentDetails>,
        /// Epoch whose KEK wraps it.
        epoch: EpochId,
    }

    /// A certificate that is about to be signed, within [`ClaimedSlot`].
    IntentDetails {
        /// Who is to sign it.
        issuer: IssuerId,
        /// Its serial number.
        serial: String,
        /// SHA-256 of the TBSCertificate's DER, the bytes to be signed.
        tbs: Sha256Hash,
        /// End of its validity.
        not_after: Timestamp,
    }

    /// `CERTIFICATES_ISSUED`
    IssuedDetails {
        /// The claim during which they were issued; absent if a CA answered for waiting keys.
        claim: Option<ClaimId>,
        /// Who signed.
        issuer: IssuerId,
        /// The certificates.
        certificates: Vec<CertificateDetails>,
    }

    /// `CERTIFICATE_REJECTED`: the key waits on.
    CertificateRejectedDetails {
        /// The configured issuer that sent it.
        issuer_name: IssuerName,
        /// The pool that the key is for.
        pool: PoolId,
        /// SHA-256 of its DER.
        certificate: Sha256Hash,
        /// What is wrong with it.
        reason: String,
    }

    /// `CONFIRMED`
    ConfirmedDetails {
        /// The claim.
        claim: ClaimId,
        /// The recipient key of the claim.
        recipient_key: Sha256Hash,
        /// The initial credential that is spent now.
        initial_credential: InitialCredentialId,
        /// The claim that was renewed; its certificates are superseded now.
        renews: Option<ClaimId>,
        /// As in [`ClaimDetails`]: then it was the broker that signed with the keys, not their holder.
        #[serde(default)]
        delivered_by: Option<String>,
        /// SHA-256 of the certificates' DER whose keys signed.
        certificates: Vec<Sha256Hash>,
    }

    /// `RENEWAL_REQUESTED`
    RenewalRequestedDetails {
        /// The VNFCIs that are to renew.
        vnfcis: Vec<VnfciId>,
    }

    /// `ENROLMENT_STARTED`, `ENROLLED`, `ENROLMENT_REPLAYED`: a certificate for a key that the broker never held.
    EnrolmentDetails {
        /// The enrolment.
        claim: ClaimId,
        /// `INITIAL_CREDENTIAL`, `AGENT` (the actor, on behalf of the VNFCI), `CERTIFICATE` (that it follows, by its
        /// VNFCI or an agent, the actor) or `AUTHORITY` (the actor, which vouches for the key and has it for no VNFCI that is
        /// known here).
        basis: String,
        /// The arming that it belongs to; none with `AUTHORITY`.
        initial_credential: Option<InitialCredentialId>,
        /// SHA-256 of the certificate's DER that authenticated the caller.
        shown: Sha256Hash,
        /// The slot; none with `AUTHORITY`.
        slot: Option<SlotName>,
        /// The profile.
        profile: ProfileName,
        /// SHA-256 of the request's DER (PKCS#10), whose signature proved possession of the key.
        request: Sha256Hash,
        /// Who signs.
        issuer: IssuerId,
        /// Serial number of the certificate.
        serial: String,
        /// SHA-256 of the TBSCertificate's DER; absent in a replay.
        tbs: Option<Sha256Hash>,
        /// SHA-256 of the certificate's DER; absent before it is signed.
        certificate: Option<Sha256Hash>,
        /// End of its validity.
        not_after: Timestamp,
        /// Whether the initial credential is spent now.
        spent: bool,
        /// `HOLDER`: the private key was made and is kept by its holder; the broker never had it.
        custody: String,
    }

    /// `RELEASED`
    ReleasedDetails {
        /// The claim.
        claim: ClaimId,
        /// SHA-256 of the certificates' DER whose keys signed.
        certificates: Vec<Sha256Hash>,
        /// The signatures over the release message, base64, in the order of `certificates`.
        signatures: Vec<String>,
    }

    /// `TERMINATED`
    TerminatedDetails {
        /// The VNFCIs that ended.
        vnfcis: Vec<VnfciId>,
        /// What MANO says of the holders' copies.
        holder_copy: HolderCopy,
    }

    /// `KEYS_ERASED`
    ErasedDetails {
        /// Why.
        reason: DestructionReason,
        /// What is known of the holder's copy.
        holder_copy: HolderCopy,
    }

    /// `REVOCATION_REQUESTED`
    RevocationDetails {
        /// Why.
        reason: RevocationReason,
        /// Serial numbers of the certificates.
        serials: Vec<String>,
        /// Certificates that the database does not have: a recovery put their serial numbers on CRLs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unknown: Vec<UnknownCertificate>,
    }

    /// A certificate that the database does not have.
    UnknownCertificate {
        /// On whose CRL.
        issuer: IssuerId,
        /// Serial number.
        serial: String,
        /// End of its validity.
        not_after: Timestamp,
    }

    /// `CRL_SIGNED`
    CrlDetails {
        /// Whose CRL.
        issuer: IssuerId,
        /// 0 for the complete one, else a shard.
        shard: u32,
        /// CRL number.
        number: u64,
        /// Entries in it.
        entries: u64,
        /// SHA-256 of the CRL's DER.
        crl: Sha256Hash,
        /// Of the CRL.
        this_update: Timestamp,
        /// Of the CRL.
        next_update: Timestamp,
    }

    /// `OCSP_RESPONDER_CERTIFIED`
    OcspResponderDetails {
        /// Whose responder.
        issuer: IssuerId,
        /// Label of its key on the token.
        key_label: String,
        /// SHA-256 of its certificate's DER.
        certificate: Sha256Hash,
        /// Its certificate's serial number.
        serial: String,
        /// End of its validity.
        not_after: Timestamp,
    }

    /// `EPOCH_CREATING`, `EPOCH_OPENED`, `EPOCH_CLOSED`, `EPOCH_SHREDDING`
    EpochDetails {
        /// The epoch.
        epoch: EpochId,
        /// Label of its KEK on the token.
        kek_label: String,
        /// Serial number of the token.
        token_serial: String,
        /// Why the step is taken; absent where an epoch is made.
        reason: Option<StepReason>,
    }

    /// `EPOCH_SHREDDED`: a fresh process found no KEK.
    ShreddedDetails {
        /// The epoch.
        epoch: EpochId,
        /// Label that was looked for.
        kek_label: String,
        /// Serial number of the token that was asked.
        token_serial: String,
        /// Members of the HSM's high-availability group that were asked, this one included.
        ha_members_verified: u32,
    }

    /// `KEYS_REWRAPPED`
    RewrappedDetails {
        /// Epoch that they leave. Copies from before stay readable until it is shredded.
        from: EpochId,
        /// Epoch whose KEK wraps them now.
        to: EpochId,
        /// Why.
        reason: StepReason,
    }

    /// `RECOVERED`: the database was rolled back, and everything that it could deliver was destroyed.
    RecoveredDetails {
        /// What showed it.
        findings: Vec<String>,
        /// Origin of the log before.
        old_origin: String,
        /// Origin of this log from now on.
        new_origin: String,
        /// How far the log before went in the database.
        database: LogSide,
        /// How far it went in the mirror; absent if the mirror was lost, too.
        mirror: Option<LogSide>,
        /// Rows that both had.
        common_size: u64,
        /// Certificates that the mirror says were withdrawn or delivered, and the database does not know.
        unknown_certificates: u64,
        /// CAs that it tells of and that could not be brought back.
        #[serde(default)]
        lost_issuers: Vec<IssuerId>,
        /// Rows of the mirror that could not be read, or not be believed: what they told of was not brought back.
        #[serde(default)]
        unreadable_rows: u64,
    }

    /// One side of a comparison within [`RecoveredDetails`].
    LogSide {
        /// Rows.
        size: u64,
        /// `h(size - 1)`.
        hash: Sha256Hash,
    }

    /// `REFUSED`
    RefusedDetails {
        /// What was called, `Service.Rpc`.
        rpc: String,
        /// Stable code of the reason, e.g. that of an `identity::Refusal`.
        reason_code: String,
        /// The reason, which the caller was not told.
        reason: String,
        /// The caller's address.
        peer: String,
    }

    /// `REFUSALS_SUMMED`: beside those that have a `REFUSED` event each.
    RefusalsSummedDetails {
        /// None of them was before.
        since: Timestamp,
        /// None of them was after.
        until: Timestamp,
        /// How many.
        refusals: u64,
        /// By source and reason.
        sums: Vec<RefusalSum>,
    }

    /// Refusals alike within [`RefusalsSummedDetails`].
    RefusalSum {
        /// Who was refused: an IPv4 address or an IPv6 /64 of callers that nobody knows, or a known caller as in `actor`.
        /// Absent for sources that were too many to be told apart.
        source: Option<String>,
        /// As in `REFUSED`.
        reason_code: String,
        /// How many.
        refusals: u64,
    }

    /// `OUTCOME_FAILED`
    FailedDetails {
        /// The claim whose intent was recorded.
        claim: ClaimId,
        /// The step that failed.
        step: String,
        /// The error.
        error: String,
    }
}
