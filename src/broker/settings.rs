//! What the broker is configured with. `config` reads it, `cli` hands it in.

use super::refusals;
use crate::nfv::TenantId;
use crate::store::records::Quotas;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What the broker is configured with, beside its store and its HSM. Replaced whole on reload.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where `profiles/` is.
    pub directory: PathBuf,
    /// Settings of tenants that have a section of their own; others have the defaults.
    pub tenants: BTreeMap<TenantId, TenantSettings>,
    /// Base URL of the HTTP listener; goes into certificates.
    pub http_url: String,
    /// From a CRL's thisUpdate to its nextUpdate.
    pub crl_validity: Duration,
    /// How long a CRL is served before a new one is signed although nothing was revoked.
    pub crl_refresh: Duration,
    /// Files with the roots (PEM) that an imported CA certificate may lead to, beside the own one.
    pub ca_roots: Vec<PathBuf>,
    /// Shards of each CA's CRL that new certificates are spread over; 1: they name the complete CRL.
    pub crl_shards: u32,
    /// The OCSP responder's.
    pub ocsp: OcspSettings,
    /// What the operator states of the HSM's own backups; goes into receipts.
    pub hsm_backup_retention: String,
    /// Where the log is mirrored to; read at start only.
    pub mirror: PathBuf,
    /// How many refusals are recorded one by one.
    pub refusals: refusals::Limits,
    /// How far the mirror may lag behind before nothing is delivered any more.
    pub mirror_lag: MirrorLag,
    /// Bulk workers of the HSM: production keeps one chunk more under way.
    pub bulk_workers: usize,
}

/// What may be missing in the mirror: what a rollback takes away unseen at most.
#[derive(Debug, Clone, Copy)]
pub struct MirrorLag {
    /// Events that were committed longer ago are in it.
    pub time: Duration,
    /// Fewer events than that are missing.
    pub events: u64,
}

/// Settings of the OCSP responder.
#[derive(Debug, Clone, Copy)]
pub struct OcspSettings {
    /// Pools' certificates name the responder.
    pub in_certificates: bool,
    /// From a response's thisUpdate to its nextUpdate.
    pub validity: Duration,
    /// How long a signed response is given out before a new one is signed.
    pub refresh: Duration,
    /// Requests with a nonce (RFC 9654) get a response of their own, signed with it.
    pub nonce: bool,
    /// Of the responder's certificates; they are renewed when half of it has passed.
    pub responder_validity: Duration,
}

/// Settings of one tenant.
#[derive(Debug, Clone, Copy)]
pub struct TenantSettings {
    /// From an epoch's first erasure to its shredding, at most.
    pub destruction_horizon: Duration,
    /// From a claim to its confirmation, at most.
    pub confirm_deadline: Duration,
    /// How long renewed certificates stay valid beside those that replace them.
    pub renewal_overlap: Duration,
    /// Whether an initial credential is spent once every slot of its VNFCI has a certificate by enrolment.
    pub spend_on_enrolment: bool,
    /// Whether EST `serverkeygen` gives out keys that were in the broker's memory.
    pub est_server_key_generation: bool,
    /// Claims that are worked on at the same time; further ones wait or are told when to come back.
    pub claims_at_once: usize,
    /// What the tenant may have.
    pub quotas: Quotas,
}

impl Default for TenantSettings {
    /// 15 minutes, 15 minutes, 1 hour; spent; sealed keys only; 64; the defaults of [`Quotas`].
    fn default() -> Self {
        let quarter = Duration::from_secs(15 * 60);
        Self {
            destruction_horizon: quarter,
            confirm_deadline: quarter,
            renewal_overlap: Duration::from_secs(3_600),
            spend_on_enrolment: true,
            est_server_key_generation: false,
            claims_at_once: 64,
            quotas: Quotas::default(),
        }
    }
}

impl Settings {
    pub(super) fn tenant(&self, tenant: &TenantId) -> TenantSettings {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }
}
