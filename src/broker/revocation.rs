//! Certificates are withdrawn.

use crate::audit::details::{self, RevocationDetails};
use crate::audit::event::{Event, EventKind};
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::{Broker, BrokerError, Peer, Request};
use crate::credential::RevocationReason;
use crate::identity::x509;
use crate::nfv::{IssuerId, TenantId};
use crate::store::Mutation;
use crate::store::records::RevokeOutcome;

/// A trust chain.
#[derive(Debug, Clone)]
pub struct TrustChain {
    /// CA certificates below the root, DER, the issuing one first.
    pub chain_der: Vec<Vec<u8>>,
    /// The root, DER.
    pub root_der: Vec<u8>,
    /// Where the CRL is.
    pub crl_url: String,
}

impl Broker {
    /// Withdraws one certificate; says whether it was withdrawn now. `serial` is hexadecimal.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::NotFound`], [`BrokerError::Invalid`] for a serial that is not
    /// hexadecimal.
    pub async fn revoke_certificate(
        &self,
        caller: &Caller,
        request: Request,
        tenant: Option<TenantId>,
        issuer: IssuerId,
        serial: String,
        reason: RevocationReason,
    ) -> Result<bool, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        let serial_der = hex::decode(&serial).map_err(|_| BrokerError::Invalid {
            field: "serial".to_owned(),
            problem: "is not hexadecimal".to_owned(),
        })?;
        let not_found = || BrokerError::NotFound(format!("certificate {serial} of issuer {issuer}"));
        if caller.tenant.as_ref().is_some_and(|own| *own != tenant) {
            authorise(caller, Rpc::RevokeCertificate, Target { tenant: Some(&tenant), ..Target::default() })?;
        }
        let record = self.store.certificate(&tenant, issuer, &serial_der).await?.ok_or_else(not_found)?;
        let target = Target {
            tenant: Some(&tenant),
            vnf_instance: Some(&record.vnf_instance),
            vnfci: record.vnfci.as_ref(),
        };
        let authorised = authorise(caller, Rpc::RevokeCertificate, target)?;
        let mut event =
            Event::new(self.store.now().await?, EventKind::RevocationRequested, authorised.actor())
                .tenant(&tenant)
                .vnf_instance(&record.vnf_instance)
                .request(request.id)
                .details(details::json(&RevocationDetails { reason, serials: vec![serial.clone()] }));
        event.vnfci = record.vnfci;
        let mutation = Mutation::new(move |outcomes: &Vec<RevokeOutcome>| match outcomes.first() {
            Some(RevokeOutcome::Pending(credential)) => vec![event.credentials([credential.clone()])],
            _ => Vec::new(),
        });
        let mutation = mutation.request(request.key(authorised.actor()));
        let outcomes =
            self.store.revoke_certificates(&tenant, vec![(issuer, serial_der)], reason, mutation).await?;
        self.wake.publisher.notify_one();
        match outcomes.into_iter().next() {
            Some(RevokeOutcome::Pending(_)) => Ok(true),
            Some(RevokeOutcome::AlreadyRevoked | RevokeOutcome::Expired) => Ok(false),
            Some(RevokeOutcome::NotFound) | None => Err(not_found()),
        }
    }

    /// The trust chain that a tenant's certificates are issued under now.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for a tenant without a CA.
    pub async fn trust_chain(&self, tenant: &TenantId) -> Result<TrustChain, BrokerError> {
        let authority = self.issuing(tenant).await?;
        Ok(TrustChain {
            chain_der: authority.chain_der.clone(),
            root_der: authority.root_der.clone(),
            crl_url: authority.crl_url.clone(),
        })
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
        Ok(self.authority(issuer).await?.certificate_der.clone())
    }
}
