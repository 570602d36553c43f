//! The use cases: one file each, a numbered script. Only this module (and `main.rs`) touches the store.

pub mod admin;
mod admission;
mod anchor_crls;
pub mod anchors;
mod at_claim;
pub mod audit;
pub mod authorities;
pub mod background;
mod bring_back;
pub mod ca_fitness;
mod ca_import;
pub mod claim;
mod clients;
pub mod compare_keks;
mod compare_logs;
mod complaint;
pub mod confirm;
mod custody;
pub mod enrol;
mod enrol_certificate;
pub mod enrol_pool;
mod enrol_rounds;
mod enrol_terms;
mod enrol_vouched;
mod epochs;
mod generate;
pub mod hierarchy;
pub mod initialise;
mod listeners;
pub mod lost_issuers;
mod making;
pub mod mirror;
mod notes;
pub mod ocsp;
pub mod pools;
mod produce;
mod profiles;
mod publish;
pub mod quotas;
pub mod rearm;
pub mod reconcile;
pub mod recover;
pub mod recovering;
pub mod refusals;
pub mod release;
pub mod renew;
mod renew_identity;
pub mod revocation;
mod sequence;
mod settings;
mod share;
pub mod standing;
mod sweep;
pub mod terminate;
pub mod vnfcis;

pub use settings::{MirrorLag, OcspSettings, Settings, TenantSettings};

use crate::audit::event::Actor;
use crate::authorisation::{Caller, Denied, Rpc};
use crate::ca::CertificateFacts;
use crate::clock::Timestamp;
use crate::credential::{CertificateState, KeyState};
use crate::hsm::{Hsm, HsmError, ObjectId};
use crate::identity::Refusal;
use crate::nfv::{EpochId, PoolId, PoolName, RequestId, Sha256Hash, TenantId, VnfciId};
use crate::pool;
use crate::store::records::{ClaimState, QuotaExceeded};
use crate::store::{RequestKey, Store, StoreError};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};

/// When to try again what an operator has to see to first.
const UNTIL_AN_OPERATOR_ACTS: Duration = Duration::from_secs(30);

/// The broker: everything that a use case needs.
pub struct Broker {
    store: Arc<dyn Store>,
    hsm: Hsm,
    settings: ArcSwap<Settings>,
    /// Read from `profiles/`; owner: `profiles`.
    profiles: ArcSwap<profiles::Profiles>,
    profiles_reading: Mutex<()>,
    /// CA certificates; owner: `authorities`.
    authorities: ArcSwap<authorities::Authorities>,
    /// One reading of them at a time: none replaces a later one.
    authorities_reading: tokio::sync::Mutex<()>,
    /// CAs outside of the broker; owner: `enrol_pool`.
    issuers: ArcSwap<enrol_pool::ExternalIssuers>,
    /// Anchors' certificates and CRLs, parsed; owner: `anchors`.
    trust: ArcSwap<anchors::Parsed>,
    /// OCSP responders and what they signed; owner: `ocsp`.
    responders: ocsp::Responders,
    /// Which tenants' epochs take keys; owner: `epochs`.
    open_epochs: Mutex<HashMap<TenantId, EpochId>>,
    /// Held while an epoch of the tenant is made: the one that this process recorded and that is not known to be open, which
    /// nobody else makes the KEK of; owner: `epochs`.
    epoch_making: Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<Option<EpochId>>>>>,
    /// Held while keys of a tenant, or the broker's own, are made on the token; owner: `making`.
    key_making: Mutex<HashMap<Option<TenantId>, Arc<tokio::sync::Mutex<()>>>>,
    /// The name of this process among those that share the store; owner: `making`.
    holder: String,
    /// Events in the chain; owner: `sequence`. Tails wait on it.
    chained: watch::Sender<u64>,
    /// How fast each pool fills and empties, as seen here; owner: `pools`.
    flows: Mutex<HashMap<PoolId, pool::Flow>>,
    /// Places for each tenant's claims; owner: `admission`.
    admission: admission::Admission,
    /// Places for claims that produce what their pools lack, by token; owner: `generate`.
    generating: HashMap<Option<TenantId>, Semaphore>,
    /// Credentials per second of the last refill; owner: `produce`.
    production_rate: watch::Sender<f64>,
    wake: Wake,
    /// Refusals of the current interval; owner: `refusals`.
    refusals: Mutex<refusals::Ledger>,
    /// The log outside the database, and whether the database was rolled back; owner: `mirror`.
    mirror: mirror::Mirroring,
}

/// What background work waits for besides its period.
#[derive(Default)]
struct Wake {
    producer: Notify,
    enroller: Notify,
    sweeper: Notify,
    publisher: Notify,
    listeners: Notify,
}

/// Why a use case failed. The API maps each variant to one status, exhaustively.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// The caller was not recognised, or its evidence was refused. The texts are for the auditor only.
    #[error("refused: {code}: {reason}")]
    Refused {
        /// Stable code, e.g. `TOKEN_PROOF_WRONG`.
        code: &'static str,
        /// Sentence for the auditor.
        reason: String,
        /// The tenant and VNFCI that the evidence leads to, as far as known: their auditor sees the refusal.
        subject: Subject,
    },
    /// As [`BrokerError::Refused`], but only for a while, which whoever was recognised may know.
    #[error("refused for now: {code}: {reason}")]
    RefusedForNow {
        /// Stable code.
        code: &'static str,
        /// Sentence for the auditor.
        reason: String,
        /// Whom it concerns.
        subject: Subject,
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller is known but may not do this. For the auditor only.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A VNFCI would renew by a certificate of its own that has expired. It is told what helps; recorded as a refusal.
    #[error(
        "the certificate expired at {expired_at} and renews nothing any more: have MANO re-arm the VNFCI, and claim"
    )]
    RearmNeeded {
        /// The certificate's notAfter.
        expired_at: Timestamp,
        /// Whose tenant.
        tenant: TenantId,
        /// Which VNFCI.
        vnfci: VnfciId,
    },
    /// The request is malformed; the text says what to send instead.
    #[error("{field}: {problem}")]
    Invalid {
        /// The proto field.
        field: String,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// The named thing does not exist within the caller's reach.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The named thing exists already.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// The state of things does not allow this; the text says what to do.
    #[error("{0}")]
    Precondition(String),
    /// The request id was used before with another content.
    #[error("request id {0} was used before with another content; use a new request id")]
    RequestReused(RequestId),
    /// The tenant would have more of something than its quota.
    #[error(transparent)]
    QuotaExceeded(#[from] QuotaExceeded),
    /// A pool is empty.
    #[error("pool {pool} has no credential ready; try again in {retry_after:?}")]
    PoolEmpty {
        /// The pool.
        pool: PoolName,
        /// When to try again.
        retry_after: Duration,
    },
    /// The HSM or the database is away, or too much is asked at once. Nothing is lost; try again.
    #[error("not available now: {reason}")]
    Unavailable {
        /// Stable code: `HSM_UNAVAILABLE`, `STORE_UNAVAILABLE`, `STORE_FULL`, `OVERLOADED`.
        code: &'static str,
        /// What is away.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The CA that would sign ends too soon for what it would sign.
    #[error(
        "the CA that issues here ends at {0}, too soon for a new certificate: its operator has to renew it"
    )]
    CaEnding(Timestamp),
    /// The token that should hold a tenant's keys is another one, or blank. The tenant's callers learn it: nothing but an
    /// operator helps.
    #[error(
        "the token of tenant {tenant} does not hold its keys ({missing} is not there): it is blank, or another one. An \
         operator corrects token, pin_file and module in [tenant.{tenant}] or [hsm], or has the HSM's backup restored"
    )]
    TokenWithoutKeys {
        /// Whose keys.
        tenant: TenantId,
        /// One of them.
        missing: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// A fault of ours. The caller learns only that.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Whom a refused call concerns, as far as the evidence tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// In which tenant.
    pub tenant: Option<TenantId>,
    /// Which VNFCI.
    pub vnfci: Option<VnfciId>,
}

/// A mutation's envelope: whose it is and how a repetition is recognised.
#[derive(Debug, Clone)]
pub struct Request {
    /// The caller's id for it.
    pub id: RequestId,
    /// SHA-256 of the RPC's name and the request message's protobuf encoding (prost encodes deterministically).
    pub body: Sha256Hash,
}

/// What the TLS connection says of its peer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Client certificates as presented, DER, leaf first. Possession of the leaf's key was proved in the handshake.
    pub chain_der: Vec<Vec<u8>>,
    /// TLS exporter, label `EXPORTER-keybroker-v1`, empty context.
    pub exporter: [u8; 32],
    /// From where.
    pub address: SocketAddr,
}

impl Peer {
    /// How the audit log names a peer that could not be identified.
    pub fn actor(&self) -> Actor {
        match self.chain_der.first() {
            Some(leaf) => Actor(format!("unknown:{}", Sha256Hash::of(leaf))),
            None => Actor("unknown:no-certificate".to_owned()),
        }
    }
}

impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        let unavailable =
            |code, reason: String| Self::Unavailable { code, reason, retry_after: Duration::from_secs(1) };
        match error {
            StoreError::NotFound(what) => Self::NotFound(what),
            StoreError::AlreadyExists(what) => Self::AlreadyExists(what),
            StoreError::Conflict(text) => Self::Precondition(text),
            StoreError::RequestReused(id) => Self::RequestReused(id),
            StoreError::QuotaExceeded(exceeded) => Self::QuotaExceeded(exceeded),
            StoreError::Fenced(_) => unavailable("LEASE_LOST", error.to_string()),
            StoreError::Full(_) => unavailable("STORE_FULL", error.to_string()),
            StoreError::RolledBack(_) => unavailable(standing::ROLLED_BACK, error.to_string()),
            StoreError::Changed(_) => unavailable(standing::CHANGED, error.to_string()),
            StoreError::Unavailable(_) => unavailable("STORE_UNAVAILABLE", error.to_string()),
            StoreError::Unusable(text) => Self::Internal(text),
        }
    }
}

impl From<HsmError> for BrokerError {
    fn from(error: HsmError) -> Self {
        match error {
            // These are never destroyed.
            HsmError::NotFound(
                ref missing @ (ObjectId::TokenMac(ref tenant) | ObjectId::SubCa(ref tenant, _)),
            ) => Self::TokenWithoutKeys {
                tenant: tenant.clone(),
                missing: missing.to_string(),
                retry_after: UNTIL_AN_OPERATOR_ACTS,
            },
            HsmError::NotFound(_) | HsmError::StillThere(_) | HsmError::Refused(_) => {
                Self::Internal(error.to_string())
            }
            HsmError::Configuration(_)
            | HsmError::WrongPin
            | HsmError::Unavailable(_)
            | HsmError::DeadlineExceeded(_)
            | HsmError::Overloaded
            | HsmError::Module { .. } => Self::Unavailable {
                code: "HSM_UNAVAILABLE",
                reason: error.to_string(),
                retry_after: Duration::from_secs(1),
            },
        }
    }
}

impl From<Refusal> for BrokerError {
    fn from(refusal: Refusal) -> Self {
        Self::refused(refusal.code(), refusal.to_string())
    }
}

impl BrokerError {
    /// A refusal of someone whom nothing is known of yet.
    pub fn refused(code: &'static str, reason: impl Into<String>) -> Self {
        Self::Refused { code, reason: reason.into(), subject: Subject::default() }
    }

    /// The same with whom it concerns, if it is a refusal.
    fn concerning(mut self, of_tenant: &TenantId, of_vnfci: Option<&VnfciId>) -> Self {
        if let Self::Refused { subject, .. } = &mut self {
            *subject = Subject { tenant: Some(of_tenant.clone()), vnfci: of_vnfci.cloned() };
        }
        self
    }
}

impl Broker {
    /// A broker over a store and an HSM: reads profiles and CA certificates.
    ///
    /// # Errors
    /// A profile that cannot be read (the text names file and line), or the store's.
    pub async fn open(store: Arc<dyn Store>, hsm: Hsm, settings: Settings) -> Result<Arc<Self>, BrokerError> {
        let broker = Self {
            holder: making::holder(&*store),
            profiles: ArcSwap::from_pointee(profiles::Profiles::read(&settings.directory)?),
            profiles_reading: Mutex::default(),
            authorities: ArcSwap::from_pointee(authorities::Authorities::default()),
            authorities_reading: tokio::sync::Mutex::default(),
            store,
            generating: generate::places(&hsm),
            hsm,
            mirror: mirror::Mirroring::new(&settings.mirror),
            settings: ArcSwap::from_pointee(settings),
            issuers: ArcSwap::default(),
            trust: ArcSwap::from_pointee(anchors::Parsed::default()),
            responders: ocsp::Responders::default(),
            open_epochs: Mutex::new(HashMap::new()),
            epoch_making: Mutex::new(HashMap::new()),
            key_making: Mutex::new(HashMap::new()),
            flows: Mutex::new(HashMap::new()),
            admission: admission::Admission::default(),
            chained: watch::Sender::new(0),
            production_rate: watch::Sender::new(0.0),
            wake: Wake::default(),
            refusals: Mutex::default(),
        };
        broker.load_authorities().await?;
        broker.chained.send_replace(broker.store.chain_tip().await?.size);
        Ok(Arc::new(broker))
    }

    /// Takes new settings and reads the profiles and the PIN again (SIGHUP).
    ///
    /// # Errors
    /// As [`Broker::open`]; the old settings and profiles stay.
    pub async fn reload(&self, settings: Settings) -> Result<(), BrokerError> {
        profiles::Profiles::read(&settings.directory)?;
        self.hsm.reload().await?;
        self.reload_profiles(&settings.directory)?;
        self.settings.store(Arc::new(settings));
        self.load_authorities().await?;
        self.wake.filling();
        Ok(())
    }

    /// The HSM, for the TLS key of the bootstrap listener.
    pub fn hsm(&self) -> &Hsm {
        &self.hsm
    }

    /// Stops the HSM's workers and closes the store. Nothing may be asked of the broker afterwards.
    pub async fn close(&self) {
        self.hsm.shutdown().await;
        self.store.close().await;
    }

    /// Whether requests can be served now: for the readiness probe. If they can, says what is degraded: a tenant's own
    /// token that is away fails that tenant's requests only.
    ///
    /// # Errors
    /// What is away, as a sentence.
    pub async fn ready(&self) -> Result<Vec<String>, String> {
        self.measure_standing();
        self.store.check().await.map_err(|error| error.to_string())?;
        if let Some(withheld) = self.withheld() {
            return Err(withheld.sentence);
        }
        let mut degraded = self.measure_cas(self.store.now().await.map_err(|error| error.to_string())?);
        for tenant in self.hsm.tenants_with_tokens() {
            let status = self.hsm.status_of(tenant);
            metrics::gauge!("keybroker_hsm_available", "tenant" => tenant.to_string())
                .set(f64::from(u8::from(status.available)));
            if !status.available {
                degraded.push(format!("HSM of tenant {tenant}: {}", status.problem));
            }
        }
        let status = self.hsm.status();
        metrics::gauge!("keybroker_hsm_available").set(f64::from(u8::from(status.available)));
        if !status.available {
            return Err(format!("HSM: {}", status.problem));
        }
        if !status.problem.is_empty() {
            degraded.push(format!("HSM: {}", status.problem));
        }
        Ok(degraded)
    }

    /// The VNFCI behind a connection with a certificate that we delivered: its key is delivered (or claimed, for the
    /// confirmation), the certificate neither expired nor withdrawn. For a release: a certificate that its release withdrew
    /// is good for releasing again, so that a VNFCI whose acknowledgement was lost learns that it is done.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] if there is none; for a renewal [`BrokerError::RearmNeeded`] if it has expired.
    pub async fn identify_vnfci(&self, peer: &Peer, rpc: Option<Rpc>) -> Result<Caller, BrokerError> {
        let (fingerprint, _) = match self.presented(peer).await {
            Err(refusal @ BrokerError::Refused { code: "CERTIFICATE_EXPIRED", .. })
                if rpc == Some(Rpc::Renew) =>
            {
                return Err(self.expired_before_renewal(peer, refusal).await);
            }
            presented => presented?,
        };
        let refused =
            |code, what: &str| BrokerError::refused(code, format!("certificate sha256:{fingerprint} {what}"));
        let record = self.store.certificate_by_fingerprint(fingerprint).await?;
        let record = record.ok_or_else(|| refused("CERTIFICATE_UNKNOWN", "was not issued by this broker"))?;
        match record.state {
            CertificateState::Valid | CertificateState::Superseded => {}
            CertificateState::RevocationPending | CertificateState::Revoked => {
                let claim = match record.claim.filter(|_| rpc == Some(Rpc::Release)) {
                    Some(claim) => self.store.claim(claim).await?,
                    None => None,
                };
                if claim.is_none_or(|claim| claim.state != ClaimState::Released) {
                    return Err(refused("CERTIFICATE_REVOKED", "is revoked"));
                }
            }
            CertificateState::Expired => return Err(refused("CERTIFICATE_EXPIRED", "has expired")),
        }
        match (record.key_state, record.vnfci) {
            (KeyState::Claimed | KeyState::Delivered | KeyState::External, Some(vnfci)) => {
                Ok(Caller::vnfci(record.tenant, vnfci))
            }
            _ => Err(refused("CERTIFICATE_NOT_HELD", "is held by no VNFCI")),
        }
    }

    /// Fingerprint and facts of the leaf that a peer presented, if it is within its validity.
    async fn presented(&self, peer: &Peer) -> Result<(Sha256Hash, CertificateFacts), BrokerError> {
        let none = || BrokerError::refused("NO_CERTIFICATE", "no client certificate was presented");
        let leaf = peer.chain_der.first().ok_or_else(none)?;
        let facts = CertificateFacts::parse(leaf)
            .map_err(|error| BrokerError::refused("CERTIFICATE_MALFORMED", error.to_string()))?;
        let now = self.store.now().await?;
        if now < facts.not_before {
            let reason = format!("the certificate is not valid before {}", facts.not_before);
            return Err(BrokerError::refused("CERTIFICATE_NOT_YET_VALID", reason));
        }
        if now >= facts.not_after {
            let reason = format!("the certificate expired at {}", facts.not_after);
            return Err(BrokerError::refused("CERTIFICATE_EXPIRED", reason));
        }
        Ok((facts.fingerprint, facts))
    }

    /// The tenant that a call is about: the one named, else the caller's own.
    fn tenant_of(caller: &Caller, named: Option<TenantId>) -> Result<TenantId, BrokerError> {
        named.or_else(|| caller.tenant.clone()).ok_or_else(|| BrokerError::Invalid {
            field: "tenant".to_owned(),
            problem: "name a tenant: the caller belongs to none".to_owned(),
        })
    }
}

impl Request {
    /// The store's key of this request by `caller`.
    fn key(&self, caller: Actor) -> RequestKey {
        RequestKey { caller, id: self.id, body: self.body }
    }
}
