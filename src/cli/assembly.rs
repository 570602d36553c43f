//! The broker as the configuration describes it: the one place that chooses implementations.

use super::failure::Failure;
use super::files;
use crate::audit::mirror::POSITION_FILE;
use crate::broker::enrol_pool::{ExternalIssuer, ExternalIssuers};
use crate::broker::quotas::Quotas;
use crate::broker::refusals;
use crate::broker::{Broker, BrokerError, MirrorLag, OcspSettings, Settings, TenantSettings};
use crate::ca::certificates_from_pem;
use crate::ca::issuers::Issuer;
use crate::ca::issuers::est::{EstClient, EstConfig};
use crate::ca::path::ServersUnder;
use crate::clock::SystemClock;
use crate::config::{self, Config, IssuerKind, StoreUrl};
use crate::hsm::{Hsm, ObjectId, SignatureAlgorithm};
use crate::nfv::IssuerName;
use crate::server::{TlsMaterial, est_client_config};
use crate::store::postgres::{PostgresOptions, PostgresStore};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// Opens the store, starts the HSM's workers and reads profiles and CA certificates.
///
/// # Errors
/// [`Failure`] that says which of them it was, and what to do.
pub(super) async fn open(config: &Config) -> Result<Arc<Broker>, Failure> {
    let store = open_store(config).await?;
    let hsm = hsm(config).await?;
    Broker::open(store, hsm, settings(config)).await.map_err(Failure::from)
}

/// Starts the HSM's workers.
///
/// # Errors
/// [`Failure`].
pub(super) async fn hsm(config: &Config) -> Result<Hsm, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("the path of this program is not known: {error}")))?;
    let hsm = Hsm::start_with_tenants(config.hsm(&program), config.hsm_of_tenants(&program)).await;
    hsm.map_err(|error| Failure::from(error).during("HSM"))
}

/// The configured issuers. One whose files are missing or do not fit says so when it is to be used: the broker serves on.
pub(super) fn issuers(broker: &Arc<Broker>, config: &Config) -> ExternalIssuers {
    let of_config = |(name, issuer): (&IssuerName, &config::Issuer)| {
        let IssuerKind::Est = issuer.kind;
        let client = est_client(broker, name, issuer).map(|client| Arc::new(client) as Arc<dyn Issuer>);
        (name.clone(), ExternalIssuer { revocation: issuer.revocation, client })
    };
    config.issuers.iter().map(of_config).collect()
}

pub(super) fn est_client(
    broker: &Arc<Broker>,
    name: &IssuerName,
    issuer: &config::Issuer,
) -> Result<EstClient, String> {
    let certificates = |path: &Path| {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        certificates_from_pem(&text).map_err(|error| format!("{}: {error}", path.display()))
    };
    let root_der = match certificates(&issuer.trust_anchor)?.as_slice() {
        [only] => only.clone(),
        several => {
            return Err(format!(
                "{} has {} certificates: give the one root",
                issuer.trust_anchor.display(),
                several.len()
            ));
        }
    };
    let chain = certificates(&issuer.client_certificate)
        .map_err(|error| format!("{error}; `keybroker issuer request {name}` makes the request for it"))?;
    // Not the broker itself, which keeps the client.
    let (hsm, key) = (broker.hsm().clone(), ObjectId::EstClient(name.clone()));
    let sign = move |message: &[u8]| {
        let algorithm = SignatureAlgorithm::EcdsaP256Sha256;
        hsm.sign_blocking(&key, algorithm, message).map_err(|error| error.to_string())
    };
    let material = TlsMaterial::from_hsm(chain, Arc::new(sign)).map_err(|error| error.to_string())?;
    let servers = match &issuer.server_trust_anchor {
        Some(file) => ServersUnder::new(&certificates(file)?),
        None => ServersUnder::new(&[&root_der]),
    };
    let servers = servers.map_err(|error| format!("trust anchors of the TLS server: {error}"))?;
    let tls = est_client_config(&material, Arc::new(servers)).map_err(|error| error.to_string())?;
    let config = EstConfig {
        url: issuer.url.as_str().to_owned(),
        label: issuer.label.clone(),
        root_der,
        revocation: issuer.revocation,
        concurrency: issuer.concurrency.get(),
    };
    EstClient::new(config, tls)
}

/// Fails if the embedded database is not there and something of it is: an empty one in its place would know nothing of what
/// was delivered, and make the token another root.
///
/// # Errors
/// [`Failure`] that names both, and what to do.
pub(super) fn refuse_lost_database(config: &Config) -> Result<(), Failure> {
    let StoreUrl::Sqlite(database) = &config.store.url else { return Ok(()) };
    let mirror = &config.audit.mirror;
    let left = [config.directory.join("root.pem"), mirror.join(POSITION_FILE)];
    match left.iter().find(|left| left.exists()) {
        Some(left) if !database.exists() => Err(Failure::failed(format!(
            "there is no database {}, and {} is of one that was lost or moved; nothing was changed. Put it back, or put the latest \
             backup in its place and run `keybroker recover` (docs/operations.md); to give the old broker up for a new \
             one, take away root.pem, audit.pub, clients/, tls/ and the mirror {} first",
            database.display(),
            left.display(),
            mirror.display(),
        ))),
        _ => Ok(()),
    }
}

/// Opens the store that `[store] url` names.
///
/// # Errors
/// [`Failure`] with the file, or with host and database.
pub(super) async fn open_store(config: &Config) -> Result<Arc<dyn Store>, Failure> {
    refuse_lost_database(config)?;
    match &config.store.url {
        StoreUrl::Sqlite(path) => Ok(Arc::new(SqliteStore::open(path, Arc::new(SystemClock)).await?)),
        // Leases and deadlines of all replicas are held against one clock: the database's.
        StoreUrl::Postgres(url) => Ok(Arc::new(PostgresStore::open(postgres(config, url)?, None).await?)),
    }
}

fn postgres(config: &Config, url: &str) -> Result<PostgresOptions, Failure> {
    let mut options = PostgresOptions::parse(url).map_err(Failure::usage)?;
    if let Some(file) = &config.store.password_file {
        let password = files::read_secret(file)?;
        let password = std::str::from_utf8(&password)
            .map_err(|_| Failure::usage(format!("{} is not UTF-8", file.display())))?;
        options = options.password(password.trim_end_matches(['\n', '\r']));
    }
    options.connections = u32::try_from(config.store.connections.get()).unwrap_or(u32::MAX);
    Ok(options)
}

/// What `[store] url` leads to, as a sentence; changes nothing.
///
/// # Errors
/// [`Failure`] with what to do, if a broker could not work on it.
pub(super) async fn look_at_postgres(config: &Config) -> Result<String, Failure> {
    let StoreUrl::Postgres(url) = &config.store.url else { return Ok(String::new()) };
    Ok(PostgresStore::look(&postgres(config, url)?).await?)
}

/// Opens the same store to look at it; nothing can be changed.
///
/// # Errors
/// [`Failure`] with the file.
pub(super) async fn open_store_to_read(config: &Config) -> Result<Arc<dyn Store>, Failure> {
    match &config.store.url {
        StoreUrl::Sqlite(path) => Ok(Arc::new(SqliteStore::open_to_read(path, Arc::new(SystemClock)).await?)),
        StoreUrl::Postgres(url) => Ok(Arc::new(PostgresStore::open_to_read(postgres(config, url)?).await?)),
    }
}

/// What the use cases need of the configuration.
pub(super) fn settings(config: &Config) -> Settings {
    let of_tenant = |tenant: &crate::config::Tenant| TenantSettings {
        destruction_horizon: tenant.destruction_horizon.0,
        confirm_deadline: tenant.confirm_deadline.0,
        renewal_overlap: tenant.renewal_overlap.0,
        spend_on_enrolment: tenant.spend_on_enrolment,
        est_server_key_generation: tenant.est_server_key_generation,
        claims_at_once: tenant.claims_at_once.get(),
        quotas: quotas(tenant),
    };
    Settings {
        directory: config.directory.clone(),
        tenants: config.tenants.iter().map(|(id, tenant)| (id.clone(), of_tenant(tenant))).collect(),
        mirror: config.audit.mirror.clone(),
        // Counts are 1,000,000,000 at most.
        refusals: refusals::Limits {
            per_source: config.audit.refusals_per_source.get() as u32,
            together: config.audit.refusals_together.get() as u32,
        },
        mirror_lag: MirrorLag { time: config.audit.max_lag.0, events: config.audit.max_lag_events.get() },
        http_url: config.http_url(),
        ca_roots: config.ca.roots.clone(),
        crl_validity: config.crl.validity.0,
        crl_refresh: config.crl.refresh.0,
        crl_shards: config.crl.shards.get(),
        ocsp: OcspSettings {
            in_certificates: config.ocsp.in_certificates,
            validity: config.ocsp.validity.0,
            refresh: config.ocsp.refresh.0,
            nonce: config.ocsp.nonce,
            responder_validity: config.ocsp.responder_validity.0,
        },
        hsm_backup_retention: config.hsm.backup_retention.clone(),
        bulk_workers: config.hsm.bulk_workers.get(),
    }
}

/// What a tenant may have.
pub(super) fn quotas(tenant: &crate::config::Tenant) -> Quotas {
    Quotas {
        vnfcis: tenant.max_vnfcis.get() as u64,
        pools: tenant.max_pools.get() as u64,
        pooled_keys: tenant.max_pooled_keys.get() as u64,
    }
}

/// `[listen] server_names` as DNS names and addresses.
pub(super) fn server_names(config: &Config) -> (Vec<String>, Vec<IpAddr>) {
    let mut names = (Vec::new(), Vec::new());
    for name in &config.listen.server_names.0 {
        match name.parse() {
            Ok(address) => names.1.push(address),
            Err(_) => names.0.push(name.clone()),
        }
    }
    names
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_)
            | StoreError::Unavailable(_)
            | StoreError::RolledBack(_)
            | StoreError::Changed(_) => Self::unavailable(error),
            _ => Self::failed(error),
        }
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Unavailable { .. } => Self::unavailable(error),
            _ => Self::failed(error),
        }
    }
}
