//! The broker that is measured: a fresh token and database, `keybroker serve` in a process of its own, and the
//! connections of its operator, NFVO and auditor.

use super::super::connection::{ConnectionArgs, request_id};
use super::super::failure::Failure;
use super::super::files::{self, Readers};
use super::super::processes::{Addresses, Broker, Program, until};
use super::super::software_ca::SoftwareCa;
use crate::api::client::Connection;
use crate::api::proto::admin_service_client::AdminServiceClient;
use crate::api::proto::audit_service_client::AuditServiceClient;
use crate::api::proto::lifecycle_service_client::LifecycleServiceClient;
use crate::api::proto::pool_service_client::PoolServiceClient;
use crate::api::proto::{
    AddAnchorRequest, CertificateSelector, CreatePoolRequest, EventQuery, GetPoolRequest, InitialCredential,
    ListEventsRequest, NewVnfci, RegisterVnfcisRequest, RevocationReason, RevokeCertificateRequest, Slot,
    X509InitialCredential, certificate_selector, initial_credential, x509_initial_credential,
};
use crate::audit::event::{Event, EventKind};
use crate::config::Config;
use crate::hsm::HsmConfig;
use crate::hsm::softhsm::SoftHsmToken;
use crate::nfv::Sha256Hash;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// The VNF instance and VDU of everything here.
const VNF_INSTANCE: &str = "bench-1";
const VDU: &str = "bench";
/// Name of the trust anchor for initial credentials.
const ANCHOR: &str = "bench";
/// The certificate profile.
const PROFILE: &str = "vnfci-transport";
/// VNFCIs registered in one call.
const BATCH: usize = 1_000;
/// Events in one page: those of production are large.
const PAGE: u32 = 50;
/// From an order to a full pool, at most.
const PATIENCE: Duration = Duration::from_secs(600);

/// A running broker; it is ended and its files are deleted when dropped.
pub(super) struct Site {
    program: Program,
    directory: PathBuf,
    addresses: Addresses,
    broker: Option<Broker>,
    nfvo: Connection,
    auditor: Connection,
}

/// Deletes a directory when dropped, also after a failure half way.
struct Scratch(Option<PathBuf>);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(directory) = self.0.take() {
            // Nothing can be done about what cannot be deleted.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

impl Site {
    /// Starts a broker with so many bulk workers that trusts `mano` for initial credentials.
    pub(super) async fn start(
        program: &Program,
        bulk_workers: u8,
        mano: &SoftwareCa,
    ) -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("keybroker-bench-{}", Uuid::now_v7()));
        files::private_directory(&directory)?;
        let mut scratch = Scratch(Some(directory.clone()));
        let token = SoftHsmToken::create(&directory, "keybroker", &program.0)?;
        let addresses = Addresses::free()?;
        let config = directory.join("keybroker.toml");
        let text = configuration(&token, &addresses, bulk_workers);
        files::create_new(&config, text.as_bytes(), Readers::Everyone)?;
        program.object(["init", "--config", &config.display().to_string()]).await?;
        let mut broker = program.serve(&config, &directory.join("serve.log"))?;
        let by = |role: &str| {
            ConnectionArgs::of_profile(directory.join("clients").join(role).join("profile.toml"))
        };
        let operator = until(Duration::from_secs(60), "the broker's first answer", async || {
            broker.check()?;
            Ok(by("operator").connect().await.ok())
        })
        .await?;
        let anchor = AddAnchorRequest {
            request_id: request_id(),
            tenant: "default".to_owned(),
            name: ANCHOR.to_owned(),
            certificate_der: mano.certificate_der.clone(),
            ..AddAnchorRequest::default()
        };
        AdminServiceClient::new(operator.channel).add_anchor(anchor).await?;
        let (nfvo, auditor) = (by("nfvo").connect().await?, by("auditor").connect().await?);
        scratch.0 = None;
        Ok(Self { program: program.clone(), directory, addresses, broker: Some(broker), nfvo, auditor })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.broker.as_ref().and_then(Broker::pid).unwrap_or_default()
    }

    /// Where VNFCIs claim.
    pub(super) fn url(&self) -> String {
        format!("https://{}", self.addresses.bootstrap)
    }

    /// Where CRLs and OCSP responses are.
    pub(super) fn http(&self) -> SocketAddr {
        self.addresses.http
    }

    /// Fails if the broker has ended.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.broker.as_mut().map_or(Ok(()), Broker::check)
    }

    /// Withdraws every certificate of these credentials in one call; how many it withdrew.
    pub(super) async fn revoke(&self, credentials: &[String]) -> Result<u64, Failure> {
        let selector = |id: &String| CertificateSelector {
            certificates: Some(certificate_selector::Certificates::CredentialId(id.clone())),
        };
        let request = RevokeCertificateRequest {
            request_id: request_id(),
            reason: RevocationReason::Superseded.into(),
            certificates: credentials.iter().map(selector).collect(),
            ..RevokeCertificateRequest::default()
        };
        let mut client = LifecycleServiceClient::new(self.nfvo.channel.clone());
        Ok(client.revoke_certificate(request).await?.into_inner().revoked)
    }

    /// The broker's root, PEM.
    pub(super) fn trust_anchor_pem(&self) -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(&files::read(&self.directory.join("root.pem"))?).into_owned())
    }

    /// The configuration's file.
    pub(super) fn config(&self) -> PathBuf {
        self.directory.join("keybroker.toml")
    }

    /// How the HSM is reached.
    pub(super) fn hsm(&self) -> Result<HsmConfig, Failure> {
        Ok(Config::load(&self.config())?.hsm(&self.program.0))
    }

    /// Orders a pool that is filled once and not again.
    pub(super) async fn order(&self, pool: &str, target: u32) -> Result<(), Failure> {
        let request = CreatePoolRequest {
            request_id: request_id(),
            tenant: String::new(),
            name: pool.to_owned(),
            vnf_instance_id: VNF_INSTANCE.to_owned(),
            vdu_id: VDU.to_owned(),
            profile: PROFILE.to_owned(),
            target,
            refill_below: Some(1),
        };
        PoolServiceClient::new(self.nfvo.channel.clone()).create_pool(request).await?;
        Ok(())
    }

    /// Waits until so many credentials are ready, looking every `period`.
    pub(super) async fn filled(&mut self, pool: &str, wanted: u32, period: Duration) -> Result<(), Failure> {
        let mut client = PoolServiceClient::new(self.nfvo.channel.clone());
        let mut look = tokio::time::interval(period);
        let filled = async {
            loop {
                look.tick().await;
                let request = GetPoolRequest { tenant: String::new(), name: pool.to_owned() };
                let levels = client.get_pool(request).await?.into_inner().pool.and_then(|pool| pool.levels);
                if levels.unwrap_or_default().available >= u64::from(wanted) {
                    return Ok(());
                }
                if let Some(broker) = &mut self.broker {
                    broker.check()?;
                }
            }
        };
        tokio::time::timeout(PATIENCE, filled)
            .await
            .map_err(|_| Failure::failed(format!("pool {pool} was not filled within {PATIENCE:?}")))?
    }

    /// Registers VNFCIs with one slot each, by the fingerprints of their initial certificates.
    pub(super) async fn register(&self, vnfcis: &[(String, Sha256Hash)], pool: &str) -> Result<(), Failure> {
        let mut client = LifecycleServiceClient::new(self.nfvo.channel.clone());
        for batch in vnfcis.chunks(BATCH) {
            let request = RegisterVnfcisRequest {
                request_id: request_id(),
                tenant: String::new(),
                vnfcis: batch.iter().map(|(id, certificate)| announced(id, *certificate, pool)).collect(),
            };
            let answer = client.register_vnfcis(request).await?.into_inner();
            if let Some(refused) = answer.results.iter().find(|result| !result.error.is_empty()) {
                return Err(Failure::failed(format!("{}: {}", refused.vnfci_id, refused.error)));
            }
        }
        Ok(())
    }

    /// The chained events of production so far, oldest first.
    pub(super) async fn production(&self) -> Result<Vec<Event>, Failure> {
        let mut client = AuditServiceClient::new(self.auditor.channel.clone());
        let (mut events, mut from_index) = (Vec::new(), 0);
        loop {
            let query =
                EventQuery { kind: EventKind::KeysProduced.as_str().to_owned(), ..EventQuery::default() };
            let request = ListEventsRequest { query: Some(query), from_index, page_size: PAGE };
            let page = client.list_events(request).await?.into_inner();
            for event in &page.events {
                events.push(serde_json::from_str(&event.json).map_err(Failure::failed)?);
            }
            match page.next_index {
                Some(next) => from_index = next,
                None => return Ok(events),
            }
        }
    }

    /// Ends the broker in order.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        match self.broker.take() {
            Some(mut broker) => broker.terminate().await,
            None => Ok(()),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The process first: it writes there.
        drop(self.broker.take());
        drop(Scratch(Some(std::mem::take(&mut self.directory))));
    }
}

/// One source makes all connections here, and what is measured is what a claim costs, not how a source that hurries is
/// slowed. Nothing is destroyed meanwhile, either: that is another scenario.
fn configuration(token: &SoftHsmToken, addresses: &Addresses, bulk_workers: u8) -> String {
    format!(
        "[hsm]\nmodule = {module:?}\ntoken = {label:?}\npin_file = \"pin\"\nbulk_workers = {bulk_workers}\n\
         environment = {{ SOFTHSM2_CONF = \"softhsm2.conf\" }}\n\n\
         [store]\nurl = \"sqlite:keybroker.db\"\n\n\
         [listen]\nbootstrap = \"{bootstrap}\"\nvnfci = \"{vnfci}\"\nmanagement = \"{management}\"\n\
         http = \"{http}\"\nadmin = \"{admin}\"\nserver_names = [\"localhost\", \"127.0.0.1\"]\n\n\
         [listen.limits]\nrate_per_source = 1000000\nburst_per_source = 1000000\n\n\
         [tenant.default]\ndestruction_horizon = \"1d\"\nconfirm_deadline = \"1d\"\n",
        module = token.module.display().to_string(),
        label = token.label,
        bootstrap = addresses.bootstrap,
        vnfci = addresses.vnfci,
        management = addresses.management,
        http = addresses.http,
        admin = addresses.admin,
    )
}

fn announced(id: &str, certificate: Sha256Hash, pool: &str) -> NewVnfci {
    let x509 = X509InitialCredential {
        anchor: ANCHOR.to_owned(),
        pin: Some(x509_initial_credential::Pin::CertificateSha256(certificate.0.to_vec())),
    };
    NewVnfci {
        vnfci_id: id.to_owned(),
        vnf_instance_id: VNF_INSTANCE.to_owned(),
        vdu_id: VDU.to_owned(),
        slots: vec![Slot { name: "transport".to_owned(), pool: pool.to_owned() }],
        initial_credential: Some(InitialCredential {
            kind: Some(initial_credential::Kind::X509(x509)),
            expires_at: None,
        }),
    }
}
