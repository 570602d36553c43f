//! Certificates are withdrawn and CRLs published.

use crate::audit::details::{self, CrlDetails, RevocationDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::authorities::Authority;
use crate::broker::{Broker, BrokerError, Peer, Request};
use crate::ca::{self, CrlEntry};
use crate::clock::Timestamp;
use crate::credential::RevocationReason;
use crate::hsm::Lane;
use crate::identity::x509;
use crate::nfv::{IssuerId, Sha256Hash, TenantId};
use crate::store::records::{CrlRecord, Lease, RevokeOutcome};
use crate::store::{Mutation, StoreError};
use std::sync::Arc;
use std::time::Duration;

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

/// A CRL as it is served.
#[derive(Debug, Clone)]
pub struct PublishedCrl {
    /// DER.
    pub der: Arc<Vec<u8>>,
    /// CRLNumber, for the ETag.
    pub number: u64,
    /// Seconds until nextUpdate, for Cache-Control.
    pub max_age: Duration,
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

    /// The latest CRL of an issuer.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for an unknown issuer, or before its first CRL.
    pub async fn crl(&self, issuer: IssuerId) -> Result<PublishedCrl, BrokerError> {
        let latest = self.store.latest_crl(issuer).await?;
        let crl = latest.ok_or_else(|| BrokerError::NotFound(format!("a CRL of issuer {issuer}")))?;
        let max_age = crl.next_update.since(self.store.now().await?);
        Ok(PublishedCrl { der: Arc::new(crl.der), number: crl.number, max_age })
    }

    /// The CA certificate of an issuer, DER.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`].
    pub async fn issuer_certificate(&self, issuer: IssuerId) -> Result<Vec<u8>, BrokerError> {
        Ok(self.served_chain(issuer).await?.certificate_der)
    }

    /// Signs a new CRL for every CA that has something to publish, or whose CRL is due. A CA that fails does not hold
    /// up the others.
    pub(super) async fn publish_crls(&self, lease: &Lease) -> Result<(), BrokerError> {
        let mut failure = None;
        for authority in self.authorities.load().all() {
            if let Err(error) = self.publish_crl(&authority, lease).await {
                tracing::warn!(issuer = %authority.id, %error, "no CRL could be signed; it is tried again");
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn publish_crl(&self, authority: &Authority, lease: &Lease) -> Result<(), BrokerError> {
        let now = self.store.now().await?;
        let settings = self.settings.load();
        let latest = self.store.latest_crl(authority.id).await?;
        let pending = self.store.pending_revocations(authority.id).await?;
        metrics::gauge!("keybroker_revocations_pending", "issuer" => authority.id.to_string())
            .set(pending as f64);
        let due = latest.as_ref().is_none_or(|crl| now >= crl.this_update.plus(settings.crl_refresh));
        if pending == 0 && !due {
            return Ok(());
        }
        let whole_second = Timestamp::from_unix_seconds(now.unix_seconds());
        let entries = self.store.crl_entries(authority.id, now).await?;
        let mut listed = Vec::with_capacity(entries.len());
        for entry in &entries {
            let serial = entry.serial.as_slice().try_into().map_err(|_| {
                BrokerError::Internal(format!("serial {} is not 16 octets", hex::encode(&entry.serial)))
            })?;
            listed.push(CrlEntry { serial, revoked_at: entry.revoked_at, reason: entry.reason });
        }
        let number = latest.map_or(1, |crl| crl.number + 1);
        let next_update = whole_second.plus(settings.crl_validity);
        let tbs = ca::crl(&authority.ca, number, whole_second, next_update, &listed);
        let signatures =
            self.hsm.sign(Lane::Interactive, &authority.key, tbs.algorithm, vec![tbs.der.clone()]).await?;
        let signature = signatures.first().ok_or_else(|| BrokerError::Internal("no signature".to_owned()))?;
        let der = tbs.assemble(signature);
        let mut event =
            Event::new(now, EventKind::CrlSigned, Actor::broker()).details(details::json(&CrlDetails {
                issuer: authority.id,
                number,
                entries: listed.len() as u64,
                crl: Sha256Hash::of(&der),
                this_update: whole_second,
                next_update,
            }));
        event.tenant = authority.tenant.clone();
        let record = CrlRecord { issuer: authority.id, number, der, this_update: whole_second, next_update };
        let serials = entries.into_iter().map(|entry| entry.serial).collect();
        match self.store.record_crl(record, serials, Mutation::new(move |_| vec![event]).lease(lease)).await {
            Ok(published) => {
                tracing::info!(issuer = %authority.id, number, published, "CRL signed");
                Ok(())
            }
            // Another replica was quicker.
            Err(StoreError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
