//! What enrolment clients ask before they enrol, known or not: CA certificates (RFC 7030 4.1) and what a request should have
//! (4.5). It is public.

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
    /// Issuing CA first, root last.
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
        Ok(authority.chain_der.iter().chain([&authority.root_der]).cloned().collect())
    }

    /// What a request should have (CsrAttrs, RFC 7030 4.5.2, DER); none without a profile in the label: clients may ask
    /// before they are known.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for an unknown profile.
    pub fn enrolment_attributes(&self, label: &Label) -> Result<Option<Vec<u8>>, BrokerError> {
        let profile = label.profile.as_ref().map(|name| self.known_profile(name)).transpose()?;
        Ok(profile.map(|profile| csr_attributes(&profile)))
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
