//! What the broker remembers: one trait, one conformance suite.
//!
//! Every method that changes something is one transaction: the change, its audit events and the record of
//! the request that caused it commit together or not at all. The types are in [`records`].

mod ca_requests;
pub mod continuity;
pub mod postgres;
pub mod records;
mod recovery;
mod sql;
pub mod sqlite;

pub use ca_requests::CaRequestStore;
pub use recovery::{Marks, RecoveryStore};

use crate::audit::event::{Actor, Event};
use crate::clock::Timestamp;
use crate::credential::{EpochChange, EpochState, RevocationReason};
use crate::nfv::{
    AnchorName, ClaimId, CredentialId, EpochId, IdentityName, InitialCredentialId, IssuerId, PoolId,
    PoolName, RequestId, Sha256Hash, TenantId, VnfInstanceId, VnfciId,
};
use async_trait::async_trait;
use continuity::Continuity;
use records::{
    Anchor, AnchorCrl, AnchorUpdate, AuditEntry, AuditQuery, AwaitingKey, CertificateIntent,
    CertificateRecord, CertificateSelector, CertificateStatus, ChainTip, ClaimOutcome, ClaimRecord,
    ClaimRequest, ConfirmOutcome, CrlEntry, CrlHead, CrlRecord, Custody, CustodyEnd, DestroyedKeys,
    Enrolment, EnrolmentOutcome, Epoch, Identity, IdentityRenewal, InitialCredential, IssuerRecord, Lease,
    LiveKey, NewCertificate, NewCredential, NewEnrolment, NewVnfci, NewVouched, OcspResponder, Page, Pool,
    PoolFilter, PoolLevels, QuotaExceeded, Quotas, RearmOutcome, Rearming, RecordOutcome, RegisterOutcome,
    RenewalRequestOutcome, RevokeOutcome, Tenant, TerminateOutcome, TerminatedVnf, UncertifiedKey,
    UnchainedEvent, Vnfci, VnfciFilter, Vouched,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Why a store's method failed. Nothing was changed, unless the variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The named thing does not exist (or not for this tenant).
    #[error("{0} does not exist")]
    NotFound(String),
    /// The named thing exists already.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// The state of the named thing does not allow this; the text says what and why.
    #[error("{0}")]
    Conflict(String),
    /// The same caller used the request id before, with another body.
    #[error("request id {0} was used before with another content; use a new request id")]
    RequestReused(RequestId),
    /// The caller's lease was taken over; it must stop.
    #[error("the lease {0} was taken over")]
    Fenced(String),
    /// The tenant would have more of something than it may.
    #[error(transparent)]
    QuotaExceeded(#[from] QuotaExceeded),
    /// Disk or quota full. Reading still works; try again when there is room.
    #[error("the database has no room left: {0}")]
    Full(String),
    /// The database lacks what was committed before, or another broker says so; the text says what. A change that delivers
    /// was not made.
    #[error("the database was rolled back: {0}")]
    RolledBack(String),
    /// Another database answers than before, or another run of its server, and it was not compared yet: try again.
    /// A change that delivers was not made.
    #[error("{0}")]
    Changed(String),
    /// Locked, disconnected or overloaded: try again. The change may or may not have committed.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The database cannot be used by this program: newer schema, corruption, wrong file. The text says what
    /// to do.
    #[error("{0}")]
    Unusable(String),
}

/// The key of one mutation of one caller; kept for 24 hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// Who asks. Two callers may use the same id.
    pub caller: Actor,
    /// The caller's id.
    pub id: RequestId,
    /// SHA-256 of the RPC's name and the request's canonical encoding.
    pub body: Sha256Hash,
}

/// Makes the audit events of a change from its outcome, inside the change's transaction. Must be pure and
/// quick.
pub type Events<T> = Box<dyn FnOnce(&T) -> Vec<Event> + Send>;

/// Says what is to be signed for keys that a claim drew without certificates, inside the claim's transaction: one per key,
/// in order. Must be pure and quick. Its error, a sentence, becomes a [`StoreError::Conflict`] that changes nothing.
pub type Intend = Box<dyn FnOnce(&[UncertifiedKey]) -> Result<Vec<CertificateIntent>, String> + Send>;

/// What accompanies every change whose outcome is a `T`.
pub struct Mutation<T> {
    /// The caller's request, if one caused the change: a repeated one gets the outcome of the first, without a
    /// change and without events; one with another body fails with [`StoreError::RequestReused`].
    pub request: Option<RequestKey>,
    /// The lease under which the change is made, if any; checked in the transaction.
    pub lease: Option<Lease>,
    /// Whether it hands something out, or lets somebody keep it: then it is made only on a database that has what this
    /// process committed last ([`continuity`]).
    pub delivers: bool,
    /// The change's audit events.
    pub events: Events<T>,
}

impl<T> Mutation<T> {
    /// A change with events made from its outcome.
    pub fn new(events: impl FnOnce(&T) -> Vec<Event> + Send + 'static) -> Self {
        Self { request: None, lease: None, delivers: false, events: Box::new(events) }
    }

    /// With the caller's request.
    pub fn request(mut self, request: RequestKey) -> Self {
        self.request = Some(request);
        self
    }

    /// One that hands something out.
    pub fn delivering(mut self) -> Self {
        self.delivers = true;
        self
    }

    /// Under a lease.
    pub fn lease(mut self, lease: &Lease) -> Self {
        self.lease = Some(lease.clone());
        self
    }
}

/// The result of every method.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Certificates that an identity has beside the present one, at most.
pub const IDENTITY_CERTIFICATES_MAX: u32 = 16;

/// The store.
///
/// Durability: when a changing method returns `Ok`, its change and its events are on stable storage
/// (SQLite: WAL with `synchronous=FULL`; PostgreSQL: `synchronous_commit=on`). Consistency: serialisable per row touched; the state machines of
/// [`crate::credential`] are enforced in the transaction; unique indexes make it impossible that a credential
/// belongs to two claims, that two credentials share a public key, that a key has two certificates, or that an
/// issuer uses a serial number twice. Concurrency: every method may be called from any task at any time; changes of concurrent callers
/// may share one commit. Cancelling a call's future does not undo a change that was begun.
#[async_trait]
pub trait Store: CaRequestStore + RecoveryStore + Send + Sync + 'static {
    /// The time that leases and deadlines are held against: the database's in production, the injected
    /// clock's in tests.
    async fn now(&self) -> Result<Timestamp>;
    /// A number that another commit changes before its caller is answered: what was read after asking for it is still so
    /// while it is the same. None if others than this process commit, too. Costs nothing.
    fn generation(&self) -> Option<u64>;
    /// What this process knows of the database that it works on.
    fn continuity(&self) -> &Continuity;
    /// Looks whether the database has what this process committed last, and whether another one says that it was rolled
    /// back: [`Continuity::standing`] tells.
    async fn look_back(&self) -> Result<()>;
    /// Fails unless the store can be written to now, and after [`StoreError::Full`] unless something can be added.
    async fn check(&self) -> Result<()>;

    // Tenants and what operators configure.

    /// Adds a tenant. `AlreadyExists` if there is one of this name (removed ones count: names are not reused).
    async fn add_tenant(&self, tenant: Tenant, mutation: Mutation<()>) -> Result<()>;
    /// All tenants, by name, without removed ones.
    async fn tenants(&self) -> Result<Vec<Tenant>>;
    /// Marks a tenant removed. `Conflict` while it has pools or VNFCIs that are not terminated or released.
    async fn remove_tenant(&self, tenant: &TenantId, mutation: Mutation<()>) -> Result<()>;
    /// What each tenant that is not removed has of what quotas bound.
    async fn quotas_used(&self) -> Result<BTreeMap<TenantId, Quotas>>;
    /// Adds an anchor. `AlreadyExists` if the name exists in the tenant, `Conflict` if the same certificate or
    /// the same public key is an anchor of any tenant.
    async fn add_anchor(&self, anchor: Anchor, mutation: Mutation<()>) -> Result<()>;
    /// The anchors of one tenant, or of all.
    async fn anchors(&self, tenant: Option<&TenantId>) -> Result<Vec<Anchor>>;
    /// Changes an anchor: what is demanded of CRLs, and its CRLs. One that it has already is not added again.
    /// `NotFound`.
    async fn update_anchor(&self, update: AnchorUpdate, mutation: Mutation<()>) -> Result<()>;
    /// The CRLs of all anchors, without their contents.
    async fn anchor_crls(&self) -> Result<Vec<AnchorCrl>>;
    /// A CRL of an anchor, DER, by its SHA-256.
    async fn anchor_crl(&self, fingerprint: Sha256Hash) -> Result<Option<Vec<u8>>>;
    /// Removes an anchor with its CRLs; open initial credentials that depend on it become `VOID`.
    async fn remove_anchor(&self, tenant: &TenantId, name: &AnchorName, mutation: Mutation<()>)
    -> Result<()>;
    /// Registers an identity. `AlreadyExists` if the name exists or the certificate is registered already.
    async fn add_identity(&self, identity: Identity, mutation: Mutation<()>) -> Result<()>;
    /// All identities, by name.
    async fn identities(&self) -> Result<Vec<Identity>>;
    /// The identity that has, or had before, a certificate of this SHA-256. Of the latter it is not asked whether they ended.
    async fn identity_by_fingerprint(&self, fingerprint: Sha256Hash) -> Result<Option<Identity>>;
    /// Gives an identity another certificate; the present one stays its own beside it. `Conflict` if that is another one
    /// by now, or it has [`IDENTITY_CERTIFICATES_MAX`] before it that have not ended.
    async fn renew_identity(&self, renewal: IdentityRenewal, mutation: Mutation<()>) -> Result<()>;
    /// Removes an identity: its certificates are refused from then on.
    async fn remove_identity(&self, name: &IdentityName, mutation: Mutation<()>) -> Result<()>;
    /// Adds a CA certificate. `AlreadyExists` for the same id or the same (tenant, generation).
    async fn add_issuer(&self, issuer: IssuerRecord, mutation: Mutation<()>) -> Result<()>;
    /// All CA certificates, roots (no tenant) first, by tenant and generation.
    async fn issuers(&self) -> Result<Vec<IssuerRecord>>;
    /// How many there are: they are added and never removed.
    async fn issuer_count(&self) -> Result<u64>;

    // Pools.

    /// Creates a pool. `AlreadyExists` if the tenant has one of this name that is not deleted; `QuotaExceeded` if it would
    /// have more pools or pooled keys than these.
    async fn create_pool(&self, pool: Pool, quotas: &Quotas, mutation: Mutation<Pool>) -> Result<Pool>;
    /// A pool of a tenant that is not deleted.
    async fn pool(&self, tenant: &TenantId, name: &PoolName) -> Result<Pool>;
    /// Pools that are not deleted, by tenant and name.
    async fn pools(&self, filter: &PoolFilter, page: &Page) -> Result<Vec<Pool>>;
    /// How many credentials of the pool are in which state.
    async fn pool_levels(&self, pool: PoolId) -> Result<PoolLevels>;
    /// Changes how many credentials a pool keeps ready, and below which number it is refilled. `QuotaExceeded` for a larger
    /// number, if the tenant would have more pooled keys than these.
    async fn update_pool(
        &self,
        tenant: &TenantId,
        name: &PoolName,
        target: u32,
        refill_below: u32,
        quotas: &Quotas,
        mutation: Mutation<Pool>,
    ) -> Result<Pool>;
    /// Marks a pool deleted. `Conflict` while a slot of a VNFCI that is not terminated or released names it.
    /// Its keys are erased afterwards, by [`Store::erase_unclaimed`].
    async fn delete_pool(&self, tenant: &TenantId, name: &PoolName, mutation: Mutation<Pool>)
    -> Result<Pool>;
    /// Pools that are deleted and still have `GENERATED` or `AVAILABLE` keys.
    async fn deleted_pools_with_keys(&self) -> Result<Vec<Pool>>;
    /// Erases (blob deleted, key `DESTROYED`, custody ended with `end`, certificate left: it retires by
    /// shredding) up to `limit` `GENERATED` or `AVAILABLE` keys of a pool; where `unusable_at` is given only
    /// those that are too old to be claimed then. No event if there was none.
    async fn erase_unclaimed(
        &self,
        pool: PoolId,
        unusable_at: Option<Timestamp>,
        end: CustodyEnd,
        limit: u32,
        mutation: Mutation<DestroyedKeys>,
    ) -> Result<DestroyedKeys>;

    // Epochs and production.

    /// Inserts an epoch in `CREATING`. `Conflict` if the tenant has one in `CREATING` or `OPEN`.
    async fn create_epoch(
        &self,
        epoch: EpochId,
        tenant: &TenantId,
        mutation: Mutation<Epoch>,
    ) -> Result<Epoch>;
    /// Epochs in any of these states, oldest first; of one tenant or of all.
    async fn epochs(&self, tenant: Option<&TenantId>, states: &[EpochState]) -> Result<Vec<Epoch>>;
    /// One transition of an epoch ([`EpochState::after`]). [`EpochChange::Shred`] is a `Conflict` while a
    /// `GENERATED`, `AVAILABLE` or `CLAIMED` key is left in it. `token_serial` is kept with
    /// [`EpochChange::Verify`].
    async fn advance_epoch(
        &self,
        epoch: EpochId,
        change: EpochChange,
        token_serial: Option<&str>,
        mutation: Mutation<Epoch>,
    ) -> Result<Epoch>;
    /// Keys of an epoch that are live, oldest first.
    async fn live_keys(&self, epoch: EpochId, limit: u32) -> Result<Vec<LiveKey>>;
    /// Moves keys to another epoch with their new DEK blobs: each only if it is still live and still in `from`.
    /// `Conflict` unless `to` is `OPEN`. The outcome lists those that were moved.
    async fn rewrapped(
        &self,
        from: EpochId,
        to: EpochId,
        keys: Vec<(CredentialId, Vec<u8>)>,
        mutation: Mutation<Vec<CredentialId>>,
    ) -> Result<Vec<CredentialId>>;
    /// Inserts produced credentials: `AVAILABLE` with a certificate, `GENERATED` without. Locks the epoch's row:
    /// `Conflict` unless it is `OPEN`, if the pool is deleted, or for a certificate in a pool that issues at the claim.
    async fn insert_credentials(&self, credentials: Vec<NewCredential>, mutation: Mutation<()>)
    -> Result<()>;
    /// Records signed certificates of keys that were stored without; one outcome per item in order.
    ///
    /// A claimed key has its intent: the certificate must have the intent's issuer and serial number (`Conflict`
    /// otherwise) and takes its place. A `GENERATED` key of a pool that issues ahead, whose CA answered later, becomes
    /// `AVAILABLE`. The first writer wins: a key never has a second certificate. No event if none was recorded.
    async fn record_certificates(
        &self,
        certificates: Vec<(CredentialId, NewCertificate)>,
        mutation: Mutation<Vec<RecordOutcome>>,
    ) -> Result<Vec<RecordOutcome>>;

    /// Up to `limit` keys of a pool that are `GENERATED` and have a request, after `after`, by id.
    async fn awaiting_keys(
        &self,
        pool: PoolId,
        after: Option<CredentialId>,
        limit: u32,
    ) -> Result<Vec<AwaitingKey>>;
    /// Erases up to `limit` keys of a pool whose requests were made for another basis than this one; their custody ends.
    /// No event if there are none.
    async fn erase_awaiting(
        &self,
        pool: PoolId,
        basis: Sha256Hash,
        end: CustodyEnd,
        limit: u32,
        mutation: Mutation<DestroyedKeys>,
    ) -> Result<DestroyedKeys>;

    // VNFCIs and their initial credentials.

    /// Registers VNFCIs with their slots and initial credentials; one outcome per item in order, refused items
    /// leave the others untouched. `QuotaExceeded`, and nothing is registered, if the tenant would have more VNFCIs than these
    /// that are registered and not ended.
    async fn register_vnfcis(
        &self,
        tenant: &TenantId,
        vnfcis: Vec<NewVnfci>,
        quotas: &Quotas,
        mutation: Mutation<Vec<RegisterOutcome>>,
    ) -> Result<Vec<RegisterOutcome>>;
    /// Gives VNFCIs a new initial credential each, the generation counted up; one outcome per item in order. Earlier open
    /// initial credentials become `VOID`, an open claim is destroyed (certificates `REVOCATION_PENDING`, keys erased,
    /// custody ended with `end`); what was delivered stays until the new arming is confirmed. A released VNFCI becomes
    /// `REGISTERED`. Refused items (unknown, of another VNF instance, terminated, an initial credential that is not new)
    /// leave the others untouched. `QuotaExceeded`, and nothing is re-armed, if the tenant would have more VNFCIs than these:
    /// a released one takes a place again, others have theirs.
    async fn rearm_vnfcis(
        &self,
        tenant: &TenantId,
        vnfcis: Vec<Rearming>,
        quotas: &Quotas,
        end: CustodyEnd,
        mutation: Mutation<Vec<RearmOutcome>>,
    ) -> Result<Vec<RearmOutcome>>;
    /// One VNFCI with its slots, initial credential and credentials.
    async fn vnfci(&self, tenant: &TenantId, vnfci: &VnfciId) -> Result<Vnfci>;
    /// VNFCIs by tenant and id, without their credentials.
    async fn vnfcis(&self, filter: &VnfciFilter, page: &Page) -> Result<Vec<Vnfci>>;
    /// Ends VNFCIs: initial credentials `VOID`, every unexpired certificate `REVOCATION_PENDING`, every copy of a
    /// key erased, open claims destroyed, custody ended with `end` (for keys never claimed: not applicable, they
    /// stay in their pool). Per item: terminated now, was terminated before, or not found; items in order.
    async fn terminate_vnfcis(
        &self,
        tenant: &TenantId,
        vnfcis: Vec<(VnfciId, Option<VnfInstanceId>)>,
        end: CustodyEnd,
        mutation: Mutation<Vec<TerminateOutcome>>,
    ) -> Result<Vec<TerminateOutcome>>;
    /// Ends every VNFCI of a VNF instance that is `REGISTERED` or `ACTIVE`, as [`Store::terminate_vnfcis`] does, in the
    /// transaction that counts them. `Conflict`, saying both numbers, unless there are `expected_count`.
    async fn terminate_vnf(
        &self,
        tenant: &TenantId,
        vnf_instance: &VnfInstanceId,
        expected_count: u64,
        end: CustodyEnd,
        mutation: Mutation<TerminatedVnf>,
    ) -> Result<TerminatedVnf>;
    /// The VNF instances of VNFCIs, by id; ids that do not exist are left out.
    async fn vnf_instances(
        &self,
        tenant: &TenantId,
        vnfcis: &[VnfciId],
    ) -> Result<BTreeMap<VnfciId, VnfInstanceId>>;
    /// An initial credential by its id.
    async fn initial_credential(&self, id: InitialCredentialId) -> Result<Option<InitialCredential>>;
    /// The X.509 initial credentials registered in a tenant under an anchor, pinned to this leaf certificate or to
    /// one of these names, newest first, whatever their state.
    async fn initial_credentials_x509(
        &self,
        tenant: &TenantId,
        anchor: &AnchorName,
        fingerprint: Sha256Hash,
        names: &[String],
    ) -> Result<Vec<InitialCredential>>;

    // Claim, confirm, release.

    /// Draws credentials for all slots of a VNFCI, or none, and binds them to one recipient key.
    ///
    /// In one transaction: the VNFCI must not be terminated or released and the initial credential be `OPEN` and
    /// unexpired; then, if the arming has an open claim with the same recipient key, that claim is the outcome
    /// (`Replayed`); with another recipient key, that claim's certificates become `REVOCATION_PENDING`, its keys
    /// are erased (custody ended `UNKNOWN`, reason `NEW_RECIPIENT`) and fresh ones are drawn, at most
    /// `request.redraws_allowed` times per arming; a confirmed claim with the same recipient key is `Refused(Spent)`.
    /// Draws take `AVAILABLE` keys that are usable now, of the oldest epoch first; from a pool that issues at the claim
    /// `GENERATED` keys, for which `intend` says what is to be signed: recorded as certificates without a signature, which
    /// [`Store::record_certificates`] completes, and withdrawn as signed ones are if the claim ends before. If a slot's
    /// pool has none, nothing is changed and the outcome is `Empty`.
    ///
    /// A renewal (`request.renews`) does the same for a claim that is `CONFIRMED`, of a VNFCI that has not ended, in place
    /// of the initial credential: `Refused(NotRenewable)` otherwise, `Refused(TooManyRenewals)` while three claims of the
    /// VNFCI are in their overlap. Its redraws count by the claim that it renews.
    /// The events closure sees the outcome; it returns events for `Reserved` and `Replayed`, and may for others.
    async fn reserve_claim(
        &self,
        request: ClaimRequest,
        intend: Intend,
        mutation: Mutation<ClaimOutcome>,
    ) -> Result<ClaimOutcome>;
    /// A claim with its credentials as they are now (after a re-wrap: with the new blobs).
    async fn claim(&self, claim: ClaimId) -> Result<Option<ClaimRecord>>;
    /// Confirms an open claim whose deadline has not passed (`Conflict` while a certificate of it is to be signed):
    /// keys `DELIVERED`, blobs erased, claim confirmed, initial
    /// credential `SPENT`, VNFCI active; confirmed claims of its earlier armings become `SUPERSEDED`: certificates
    /// `REVOCATION_PENDING`, custody ended `UNKNOWN`, reason `SUPERSEDED`. The claim
    /// that a renewal renews becomes `RENEWED` and its certificates `SUPERSEDED`, until the overlap ends; if it is not
    /// `CONFIRMED` any more, it is `TooLate`. Already confirmed: `AlreadyConfirmed`, no change, no event.
    async fn confirm_claim(
        &self,
        claim: ClaimId,
        mutation: Mutation<ConfirmOutcome>,
    ) -> Result<ConfirmOutcome>;
    /// Records a certificate that was signed for a key of its holder's own: an enrolment, confirmed at once. In one
    /// transaction its basis is looked at again, so that of two that race one is refused.
    ///
    /// By an initial credential, or an agent's word for it: the VNFCI must not be terminated or released, the initial
    /// credential `OPEN` and (unless an agent vouches) unexpired, no claim open. Another key for a slot that this arming
    /// filled takes its place (that certificate `REVOCATION_PENDING`), at most `redraws_allowed` times per arming. Once
    /// every slot has a certificate the initial credential is `SPENT` if `spend` says so, and what earlier armings had
    /// becomes `SUPERSEDED` as by a confirmation. The VNFCI is active.
    ///
    /// By a certificate of the VNFCI that is `VALID` or `SUPERSEDED`: the slot's valid certificates become
    /// `SUPERSEDED`; the same key may be certified again.
    ///
    /// The same key for the same slot again: `Replayed`, no change. A key of any other credential: `Refused`.
    /// The events closure sees `Enrolled` and `Replayed`.
    async fn record_enrolment(
        &self,
        enrolment: NewEnrolment,
        mutation: Mutation<EnrolmentOutcome>,
    ) -> Result<EnrolmentOutcome>;
    /// The certificate with this SHA-256 (of its DER), if a VNFCI has or had it.
    async fn enrolment_by_certificate(&self, fingerprint: Sha256Hash) -> Result<Option<Enrolment>>;
    /// What one arming of a VNFCI was enrolled for and nothing took the place of, oldest first.
    async fn enrolments(&self, arming: &InitialCredential) -> Result<Vec<Enrolment>>;
    /// Records a certificate that was signed for a key that a registration authority vouches for, in a pool that is not
    /// deleted (`NotFound`). The same key again, of the same pool and while its certificate is good: `Replayed`, no change.
    /// Any other key that is known, and a credential id that is taken: `Refused`. The events closure sees `Enrolled` and
    /// `Replayed`.
    async fn record_vouched(
        &self,
        new: NewVouched,
        mutation: Mutation<EnrolmentOutcome>,
    ) -> Result<EnrolmentOutcome>;
    /// The certificate of a key (SHA-256 of its SubjectPublicKeyInfo) that was vouched for.
    async fn vouched(&self, public_key: Sha256Hash) -> Result<Option<Vouched>>;
    /// Open claims whose deadline has passed, oldest first.
    async fn overdue_claims(&self, now: Timestamp, limit: u32) -> Result<Vec<ClaimRecord>>;
    /// Moves the deadline of every open claim by the time since `mark` was set (microseconds since the Unix epoch; the
    /// broker's own absence does not count), and sets the mark to now: an absence is counted once, whoever starts at the
    /// same time and wherever it dies.
    async fn end_absence(&self, mark: &str) -> Result<u64>;
    /// Destroys an open claim: certificates `REVOCATION_PENDING`, keys erased, custody ended; the initial credential
    /// stays as it is. `Conflict` if it is not open any more.
    async fn destroy_claim(
        &self,
        claim: ClaimId,
        end: CustodyEnd,
        mutation: Mutation<DestroyedKeys>,
    ) -> Result<DestroyedKeys>;
    /// The VNFCI gives all credentials of a confirmed claim back: certificates `REVOCATION_PENDING`, custody ended,
    /// VNFCI released, unless it was re-armed since; all else that it was delivered or enrolled for in
    /// this arming ends, too. Released before: the same outcome again, no change.
    async fn release_claim(
        &self,
        claim: ClaimId,
        end: CustodyEnd,
        mutation: Mutation<DestroyedKeys>,
    ) -> Result<DestroyedKeys>;
    /// Renewed claims whose overlap has ended, oldest first.
    async fn ended_overlaps(&self, now: Timestamp, limit: u32) -> Result<Vec<ClaimRecord>>;
    /// Withdraws what a renewal replaced: claim `SUPERSEDED`, certificates `REVOCATION_PENDING`, custody ended.
    /// `Conflict` unless the claim is `RENEWED` and its overlap has ended.
    async fn end_overlap(
        &self,
        claim: ClaimId,
        end: CustodyEnd,
        mutation: Mutation<DestroyedKeys>,
    ) -> Result<DestroyedKeys>;
    /// Marks active VNFCIs that are to renew, until they confirm credentials that were drawn after it; one outcome per
    /// item in order. No event if none was marked.
    async fn request_renewals(
        &self,
        tenant: &TenantId,
        vnfcis: Vec<(VnfciId, Option<VnfInstanceId>)>,
        mutation: Mutation<Vec<RenewalRequestOutcome>>,
    ) -> Result<Vec<RenewalRequestOutcome>>;
    /// The certificate with this SHA-256 (of its DER), with whose it is.
    async fn certificate_by_fingerprint(&self, fingerprint: Sha256Hash) -> Result<Option<CertificateRecord>>;

    // Revocation.

    /// The certificates of a tenant that are meant by each selector, in their order; an empty list where there is none.
    async fn select_certificates(
        &self,
        tenant: &TenantId,
        selectors: &[CertificateSelector],
    ) -> Result<Vec<Vec<CertificateRecord>>>;
    /// Marks unexpired certificates `REVOCATION_PENDING`, by (issuer, serial), within one tenant. Per item.
    async fn revoke_certificates(
        &self,
        tenant: &TenantId,
        certificates: Vec<(IssuerId, Vec<u8>)>,
        reason: RevocationReason,
        mutation: Mutation<Vec<RevokeOutcome>>,
    ) -> Result<Vec<RevokeOutcome>>;
    /// How many certificates of an issuer are `REVOCATION_PENDING`.
    async fn pending_revocations(&self, issuer: IssuerId) -> Result<u64>;
    /// Every pending certificate of an issuer, and the revoked ones whose notAfter is later than `unexpired_at`.
    async fn crl_entries(&self, issuer: IssuerId, unexpired_at: Timestamp) -> Result<Vec<CrlEntry>>;
    /// Keeps CRLs of one issuer, of as many shards, and marks the pending certificates that they list (`serials`)
    /// `REVOKED`. `Conflict`, and none is kept, unless each one's number is greater than the latest of its shard.
    /// Outcome: how many certificates became `REVOKED`.
    async fn record_crls(
        &self,
        issuer: IssuerId,
        crls: Vec<CrlRecord>,
        serials: Vec<Vec<u8>>,
        mutation: Mutation<u64>,
    ) -> Result<u64>;
    /// The latest CRL of every shard of an issuer, without their content, by shard.
    async fn crl_heads(&self, issuer: IssuerId) -> Result<Vec<CrlHead>>;
    /// The latest CRL of a shard of an issuer (0: the complete one).
    async fn latest_crl(&self, issuer: IssuerId, shard: u32) -> Result<Option<CrlRecord>>;
    /// Where a certificate stands, by issuer and serial number (content octets of the INTEGER), of whatever tenant.
    async fn certificate_status(&self, issuer: IssuerId, serial: &[u8]) -> Result<Option<CertificateStatus>>;
    /// Keeps the certificate of an issuer's OCSP responder in place of the one before.
    async fn record_ocsp_responder(&self, responder: OcspResponder, mutation: Mutation<()>) -> Result<()>;
    /// The OCSP responders of all issuers.
    async fn ocsp_responders(&self) -> Result<Vec<OcspResponder>>;
    /// Marks certificates whose notAfter has passed `EXPIRED`: up to `limit` that are valid or superseded, and as many that are
    /// `REVOCATION_PENDING` of an issuer outside of the broker, for which no CRL of ours waits. Says how many.
    async fn expire_certificates(&self, now: Timestamp, limit: u32) -> Result<u64>;

    // Custody and receipts.

    /// What is known of one key's custody; within one tenant, where one is given.
    async fn custody(&self, tenant: Option<&TenantId>, credential: CredentialId) -> Result<Custody>;
    /// Credentials that went out, by a claim or by what a recovery was told, whose custody has ended, whose broker copy is
    /// erased, whose epochs (all that its blob ever was in) are `DESTROYED`, and which have no receipt yet.
    async fn receipts_due(&self, limit: u32) -> Result<Vec<Custody>>;
    /// Keeps signed receipts (JSON), one per credential; one that exists is left.
    async fn record_receipts(
        &self,
        receipts: Vec<(CredentialId, String)>,
        mutation: Mutation<()>,
    ) -> Result<()>;

    // Audit.

    /// Appends events that belong to no other change (refusals, outcomes, starts).
    async fn append_events(&self, events: Vec<Event>) -> Result<()>;
    /// Size and hash of the chain.
    async fn chain_tip(&self) -> Result<ChainTip>;
    /// Committed events that are not in the chain yet, in commit order, and how many there are in all.
    async fn unchained_events(&self, limit: u32) -> Result<(Vec<UnchainedEvent>, u64)>;
    /// Gives events their index and hash, if the chain still has the tip that was read: `Conflict` otherwise.
    /// `entries` are (event id, hash) in order; the first gets index `tip.size`.
    async fn chain_events(&self, tip: &ChainTip, entries: Vec<(uuid::Uuid, Sha256Hash)>) -> Result<()>;
    /// Keeps a signed head (JSON), by its size, if the chain has what was signed: `Conflict` otherwise; heads are kept.
    async fn record_head(&self, signed: &ChainTip, signed_head: String) -> Result<()>;
    /// The latest signed head (JSON).
    async fn latest_head(&self) -> Result<Option<String>>;
    /// Chained events that match, by index ascending.
    async fn audit_entries(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>>;

    // Leases and marks.

    /// Takes or renews a lease for `duration`: `None` while another holder has it. The fencing number grows with
    /// every change of holder.
    async fn acquire_lease(&self, name: &str, holder: &str, duration: Duration) -> Result<Option<Lease>>;
    /// Gives a lease back, if it is still ours.
    async fn release_lease(&self, lease: &Lease) -> Result<()>;
    /// A small named value, e.g. `incarnation`, `last_alive`.
    async fn mark(&self, name: &str) -> Result<Option<String>>;
    /// Sets a small named value.
    async fn set_mark(&self, name: &str, value: &str) -> Result<()>;
    /// Finishes the changes that were begun and lets go of files and connections. Every later call fails with
    /// `Unavailable`.
    async fn close(&self);
    /// Forgets requests older than 24 hours, and brokers that did not show themselves since; says how many requests.
    async fn forget_requests(&self, now: Timestamp) -> Result<u64>;
}
