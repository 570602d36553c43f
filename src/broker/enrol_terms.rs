//! What enrolment clients ask before they enrol, known or not: CA certificates (RFC 7030 4.1) and what a request should have
//! (4.5). It is public.

use crate::broker::authorities::Authority;
use crate::broker::enrol::Label;
use crate::broker::initialise::default_tenant;
use crate::broker::{Broker, BrokerError, Peer};
use crate::ca::Profile;
use crate::ca::csr::csr_attributes;
use crate::identity::x509;
use crate::nfv::{ProfileName, Sha256Hash, TenantId};
use std::sync::Arc;

impl Broker {
    /// CA certificates for enrolment clients (RFC 7030 4.1): of the label's tenant, else of the one that the client's
    /// certificate leads to, else of the default tenant; of the CA that the label's profile names, else of the main one.
    /// Every generation of it that has not expired, the newest first, each followed by its issuers up to the root: who holds
    /// a certificate of a former one goes on with it, and learns of the next one before it gets anything issued by it
    /// (RFC 7030 4.1.3). The CA of the listeners is the last: clients need it to come again.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for an unknown tenant or profile.
    pub async fn enrolment_chain(&self, peer: &Peer, label: &Label) -> Result<Vec<Vec<u8>>, BrokerError> {
        let profile = label.profile.as_ref().map(|name| self.known_profile(name)).transpose()?;
        let tenant = match &label.tenant {
            Some(tenant) => tenant.clone(),
            None => self.tenant_of_peer(peer).await?,
        };
        let authority = match &profile {
            Some(profile) => self.issuing_ca(&tenant, profile.ca()).await?,
            None => self.issuing(&tenant).await?,
        };
        let listeners = self.issuing(&default_tenant()).await?;
        let mut generations = self.live_authorities().await?;
        generations.retain(|other| other.tenant == authority.tenant && other.name == authority.name);
        generations.insert(0, authority);
        generations.push(listeners);
        Ok(with_issuers(&generations))
    }

    /// Every CA of a tenant that has not expired, with its issuers up to the root; the one that issues first.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for a tenant without a CA.
    pub async fn ca_certificates(&self, tenant: &TenantId) -> Result<Vec<Vec<u8>>, BrokerError> {
        let issuing = self.issuing(tenant).await?;
        let mut all = self.live_authorities().await?;
        all.retain(|other| other.tenant.as_ref() == Some(tenant));
        all.insert(0, issuing);
        Ok(with_issuers(&all))
    }

    /// What a request should have (CsrAttrs, RFC 7030 4.5.2, DER): for the profile of the label, else the one that the VNFCI
    /// behind the client's certificate may enrol for. None if that is not one profile: clients may ask before they are known.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for an unknown profile.
    pub async fn enrolment_attributes(
        &self,
        peer: &Peer,
        label: &Label,
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        let profile = match &label.profile {
            Some(name) => Some(self.known_profile(name)?),
            None => self.profile_of_peer(peer).await?,
        };
        Ok(profile.map(|profile| csr_attributes(&profile)))
    }

    /// Of whoever is no VNFCI, or would be refused, none.
    async fn profile_of_peer(&self, peer: &Peer) -> Result<Option<Arc<Profile>>, BrokerError> {
        let enroller = match self.identify_enroller(peer, true).await {
            Ok(enroller) => enroller,
            Err(BrokerError::Refused { .. } | BrokerError::Denied(_) | BrokerError::RearmNeeded { .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let profiles = self.profiles_of(&enroller).await?;
        match profiles.as_slice() {
            [profile] => self.known_profile(profile).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn known_profile(&self, name: &ProfileName) -> Result<Arc<Profile>, BrokerError> {
        self.profiles.load().get(name).ok_or_else(|| BrokerError::NotFound(format!("profile {name}")))
    }

    /// The tenant that a client certificate leads to; the default one if it leads nowhere.
    async fn tenant_of_peer(&self, peer: &Peer) -> Result<TenantId, BrokerError> {
        if let Some(leaf) = peer.chain_der.first() {
            let shown = Sha256Hash::of(leaf);
            if let Some(held) = self.store.enrolment_by_certificate(shown).await? {
                return Ok(held.tenant);
            }
            if let Some(identity) = self.store.identity_by_fingerprint(shown).await? {
                return Ok(identity.tenant.unwrap_or_else(default_tenant));
            }
            let anchors = self.x509_anchors().await?;
            if let Ok(evidence) = x509::verify(&peer.chain_der, &anchors, self.store.now().await?) {
                return Ok(evidence.tenant().clone());
            }
        }
        Ok(default_tenant())
    }
}

/// Certificates (DER) of CAs, each followed by its issuers; none twice.
fn with_issuers(cas: &[Arc<Authority>]) -> Vec<Vec<u8>> {
    let mut certificates = Vec::new();
    for ca in cas {
        for der in ca.chain_der.iter().chain([&ca.root_der]) {
            if !certificates.contains(der) {
                certificates.push(der.clone());
            }
        }
    }
    certificates
}
