//! Certificates are withdrawn.

use crate::audit::details::{self, RevocationDetails};
use crate::audit::event::{Event, EventCredential, EventKind};
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::{Broker, BrokerError, Peer, Request};
use crate::crash::{self, Point};
use crate::credential::RevocationReason;
use crate::identity::x509;
use crate::nfv::{IssuerId, TenantId, VnfInstanceId, VnfciId};
use crate::store::Mutation;
use crate::store::records::{CertificateSelector, RevokeOutcome};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Selectors in one request: about 1 MB of it.
const LARGEST_REVOCATION: usize = 10_000;
/// Certificates in one event: a client reads it in one message.
const EVENT_CERTIFICATES: usize = 1_000;

/// A trust chain.
#[derive(Debug, Clone)]
pub struct TrustChain {
    /// CA certificates below the root, DER, the issuing one first.
    pub chain_der: Vec<Vec<u8>>,
    /// The root, DER.
    pub root_der: Vec<u8>,
    /// Every root that certificates of the tenant lead to, DER, this one first: relying parties trust them all until the
    /// CAs under them have ended.
    pub roots_der: Vec<Vec<u8>>,
    /// Rises with every CA that the tenant gets: what a VNFCI holds is to be fetched again.
    pub version: u32,
    /// Where the CRL is.
    pub crl_url: String,
}

impl Broker {
    /// Withdraws what the selectors name; says for each how many certificates it withdrew now, none if there is nothing of
    /// that name. However many there are, they are one commit, and each CRL that lists them is signed once.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] for an empty or too large batch, [`BrokerError::Denied`] if one of them lies outside the
    /// caller's reach: then none is withdrawn.
    pub async fn revoke_certificates(
        &self,
        caller: &Caller,
        request: Request,
        tenant: Option<TenantId>,
        selectors: Vec<CertificateSelector>,
        reason: RevocationReason,
    ) -> Result<Vec<Option<u32>>, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        if selectors.is_empty() || selectors.len() > LARGEST_REVOCATION {
            let problem = format!("has {} items; give 1 to {LARGEST_REVOCATION}", selectors.len());
            return Err(BrokerError::Invalid { field: "certificates".to_owned(), problem });
        }
        if caller.tenant.as_ref().is_some_and(|own| *own != tenant) {
            authorise(caller, Rpc::RevokeCertificate, Target { tenant: Some(&tenant), ..Target::default() })?;
        }
        let selected = self.store.select_certificates(&tenant, &selectors).await?;
        self.knows(!selected.iter().any(Vec::is_empty))?;
        let vnf_instances: BTreeSet<&VnfInstanceId> =
            selected.iter().flatten().map(|record| &record.vnf_instance).collect();
        for vnf_instance in vnf_instances {
            let target =
                Target { tenant: Some(&tenant), vnf_instance: Some(vnf_instance), ..Target::default() };
            authorise(caller, Rpc::RevokeCertificate, target)?;
        }
        let mut certificates = Vec::new();
        let mut named = Vec::new();
        for record in selected.iter().flatten() {
            let serial = hex::decode(&record.serial).map_err(|e| BrokerError::Internal(e.to_string()))?;
            certificates.push((record.issuer, serial));
            named.push(Named {
                vnf_instance: record.vnf_instance.clone(),
                vnfci: record.vnfci.clone(),
                serial: record.serial.clone(),
            });
        }
        let base = Event::new(self.store.now().await?, EventKind::RevocationRequested, caller.actor())
            .tenant(&tenant)
            .request(request.id);
        let mutation =
            Mutation::new(move |outcomes: &Vec<RevokeOutcome>| events(&base, reason, &named, outcomes))
                .request(request.key(caller.actor()));
        let outcomes = self.store.revoke_certificates(&tenant, certificates, reason, mutation).await?;
        crash::reached(Point::RevocationCommitted);
        self.wake.publisher.notify_one();
        let mut outcomes = outcomes.into_iter();
        Ok(selected
            .iter()
            .map(|records| {
                let newly = outcomes.by_ref().take(records.len());
                let newly = newly.filter(|outcome| matches!(outcome, RevokeOutcome::Pending(_))).count();
                (!records.is_empty()).then(|| u32::try_from(newly).unwrap_or(u32::MAX))
            })
            .collect())
    }

    /// The trust chain that a tenant's certificates are issued under now.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for a tenant without a CA.
    pub async fn trust_chain(&self, tenant: &TenantId) -> Result<TrustChain, BrokerError> {
        let authority = self.issuing(tenant).await?;
        let now = self.store.now().await?;
        let mut roots_der = vec![authority.root_der.clone()];
        let mut others = self.authorities.load().all();
        others.retain(|other| other.tenant.as_ref() == Some(tenant) && other.ca.not_after() > now);
        others.sort_by_key(|other| std::cmp::Reverse(other.generation));
        for other in others {
            if !roots_der.contains(&other.root_der) {
                roots_der.push(other.root_der.clone());
            }
        }
        Ok(TrustChain {
            roots_der,
            version: self.trust_chain_version(tenant),
            chain_der: authority.chain_der.clone(),
            root_der: authority.root_der.clone(),
            crl_url: authority.crl_url.clone(),
        })
    }

    /// Version of a tenant's trust chain, as in [`TrustChain`]; 0 for a tenant without a CA.
    pub fn trust_chain_version(&self, tenant: &TenantId) -> u32 {
        let all = self.authorities.load().all();
        let of_tenant = all.iter().filter(|authority| authority.tenant.as_ref() == Some(tenant));
        of_tenant.map(|authority| authority.generation).max().unwrap_or(0)
    }

    /// The trust chain for whoever is behind a bootstrap connection: of the tenant whose anchor its certificate chains
    /// to, else of the default tenant (the chain is public).
    ///
    /// # Errors
    /// As [`Broker::trust_chain`].
    pub async fn trust_chain_for_peer(&self, peer: &Peer) -> Result<TrustChain, BrokerError> {
        let anchors = self.x509_anchors().await?;
        let tenant = match x509::verify(&peer.chain_der, &anchors, self.store.now().await?) {
            Ok(evidence) => evidence.tenant().clone(),
            Err(_) => super::initialise::default_tenant(),
        };
        self.trust_chain(&tenant).await
    }

    /// The CA certificate of an issuer, DER.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`].
    pub async fn issuer_certificate(&self, issuer: IssuerId) -> Result<Vec<u8>, BrokerError> {
        Ok(self.served_chain(issuer).await?.certificate_der)
    }
}

/// Whose certificate, for the event.
struct Named {
    vnf_instance: VnfInstanceId,
    vnfci: Option<VnfciId>,
    serial: String,
}

/// Events for the certificates that are withdrawn now: per VNF instance, and a bounded number of them in each. One that
/// is about a single VNFCI carries its name, too.
fn events(base: &Event, reason: RevocationReason, named: &[Named], outcomes: &[RevokeOutcome]) -> Vec<Event> {
    let mut by_vnf: BTreeMap<&VnfInstanceId, Vec<(&Named, EventCredential)>> = BTreeMap::new();
    for (named, outcome) in named.iter().zip(outcomes) {
        if let RevokeOutcome::Pending(credential) = outcome {
            by_vnf.entry(&named.vnf_instance).or_default().push((named, credential.clone()));
        }
    }
    let mut events = Vec::new();
    for (vnf_instance, withdrawn) in by_vnf {
        for withdrawn in withdrawn.chunks(EVENT_CERTIFICATES) {
            let mut event = base.clone();
            event.id = Uuid::now_v7();
            let vnfcis: BTreeSet<Option<&VnfciId>> =
                withdrawn.iter().map(|(named, _)| named.vnfci.as_ref()).collect();
            if vnfcis.len() == 1 {
                event.vnfci = vnfcis.into_iter().flatten().next().cloned();
            }
            let serials = withdrawn.iter().map(|(named, _)| named.serial.clone()).collect();
            let credentials = withdrawn.iter().map(|(_, credential)| credential.clone());
            let details = details::json(&RevocationDetails { reason, serials, unknown: Vec::new() });
            events.push(event.vnf_instance(vnf_instance).credentials(credentials).details(details));
        }
    }
    events
}
