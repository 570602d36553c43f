//! What `keybroker init` makes: token objects, CA certificates, the log's origin, the first identities.

use crate::audit::details::{self, IdentityDetails, LogStartedDetails, TenantDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::authorisation::Role;
use crate::broker::authorities::unissued;
use crate::broker::making::{Making, PATIENTLY};
use crate::broker::{Broker, BrokerError};
use crate::ca::CertificateFacts;
use crate::crash::{self, Point};
use crate::hsm::ObjectId;
use crate::hsm::SignatureAlgorithm;
use crate::nfv::{IdentityName, IssuerName, TenantId, VnfInstanceId};
use crate::store::records::{Identity, Tenant};
use crate::store::{Mutation, StoreError};
use std::time::Duration;
use uuid::Uuid;

/// Client certificates of operators and MANO last a year.
pub(super) const CLIENT_VALIDITY: Duration = Duration::from_secs(365 * 86_400);

/// The tenant that `init` makes, whose sub-CA certifies the broker's own listeners.
pub fn default_tenant() -> TenantId {
    // Unwrap safety: a fixed text that the rule of tenant ids accepts, as a test shows.
    #[allow(clippy::expect_used)]
    "default".parse().expect("a valid tenant id")
}

/// A certificate with its chain, DER: the certificate first, up to but without the root.
pub type CertificateChain = Vec<Vec<u8>>;

impl Broker {
    /// Makes what is missing of: audit key and log origin, root, the default tenant with its keys, the bootstrap
    /// listener's TLS key. Never replaces anything.
    ///
    /// # Errors
    /// The HSM's or the store's; run it again when they are back.
    pub async fn initialise(&self, root_name: &str) -> Result<(), BrokerError> {
        // Nothing is made on another token than the one that the database belongs to.
        self.require_the_token().await?;
        let making = self.making_keys(None, PATIENTLY).await?;
        making.hold(self.make_what_is_missing(&making, root_name)).await
    }

    async fn make_what_is_missing(&self, making: &Making<'_>, root_name: &str) -> Result<(), BrokerError> {
        making.key_pair(&ObjectId::Audit(1), self.hsm.status().audit_algorithm).await?;
        if self.store.mark(super::sequence::ORIGIN).await?.is_none() {
            let origin = format!("keybroker/{}", Uuid::now_v7());
            self.store.set_mark(super::sequence::ORIGIN, &origin).await?;
            let started = LogStartedDetails { origin, reason: "init".to_owned(), previous: None };
            let event = Event::new(self.store.now().await?, EventKind::LogStarted, Actor::broker());
            self.store.append_events(vec![event.details(details::json(&started))]).await?;
        }
        self.ensure_root(making, root_name).await?;
        let tenant = default_tenant();
        let now = self.store.now().await?;
        let added = Event::new(now, EventKind::TenantAdded, Actor::broker())
            .tenant(&tenant)
            .details(details::json(&TenantDetails { tenant: tenant.clone() }));
        let record = Tenant { id: tenant.clone(), created_at: now };
        match self.store.add_tenant(record, Mutation::new(move |()| vec![added])).await {
            Ok(()) | Err(StoreError::AlreadyExists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let of_tenant = self.making_keys(Some(&tenant), PATIENTLY).await?;
        of_tenant.hold(self.ensure_tenant_keys(&of_tenant, &tenant)).await?;
        making.key_pair(&ObjectId::Tls(1), SignatureAlgorithm::EcdsaP256Sha256).await?;
        Ok(())
    }

    /// The root's certificate, DER.
    ///
    /// # Errors
    /// [`BrokerError::Precondition`] before `init`.
    pub fn root_der(&self) -> Result<Vec<u8>, BrokerError> {
        let root = self.authorities.load().root();
        let root = root
            .ok_or_else(|| BrokerError::Precondition("there is no root; run `keybroker init`".to_owned()))?;
        Ok(root.certificate_der.clone())
    }

    /// The audit key's SubjectPublicKeyInfo, DER.
    ///
    /// # Errors
    /// [`BrokerError::Precondition`] before `init`.
    pub async fn audit_key_der(&self) -> Result<Vec<u8>, BrokerError> {
        self.audit_public_key().await
    }

    /// The bootstrap listener's public key (SubjectPublicKeyInfo, DER); the private key is on the token.
    ///
    /// # Errors
    /// [`BrokerError::Precondition`] before `init`.
    pub async fn bootstrap_key_der(&self) -> Result<Vec<u8>, BrokerError> {
        let key = self.hsm.public_key(&ObjectId::Tls(1)).await?;
        key.ok_or_else(|| {
            BrokerError::Precondition("the token has no TLS key; run `keybroker init`".to_owned())
        })
    }

    /// The public key (SubjectPublicKeyInfo, DER) for our TLS client certificate at an issuer outside, made now if it is missing.
    ///
    /// # Errors
    /// [`BrokerError::Precondition`] on another token than the database's; the HSM's or the store's.
    pub async fn make_est_client_key(&self, issuer: &IssuerName) -> Result<Vec<u8>, BrokerError> {
        self.require_the_token().await?;
        let key = ObjectId::EstClient(issuer.clone());
        let making = self.making_keys(None, PATIENTLY).await?;
        making.hold(making.key_pair(&key, SignatureAlgorithm::EcdsaP256Sha256)).await
    }

    /// Certifies and registers an identity that `init` made a key for; `None` if the name is registered with another
    /// key.
    ///
    /// # Errors
    /// The HSM's or the store's.
    pub async fn issue_identity(
        &self,
        name: &IdentityName,
        role: Role,
        tenant: Option<&TenantId>,
        granted_vnfs: &[VnfInstanceId],
        spki_der: &[u8],
    ) -> Result<Option<CertificateChain>, BrokerError> {
        let authority = self.issuing(&default_tenant()).await?;
        let now = self.store.now().await?;
        let tbs = authority
            .ca
            .client(name.as_str(), role.as_str(), spki_der, CLIENT_VALIDITY, now, &mut rand::rng())
            .map_err(unissued)?;
        let leaf = self.sign_certificate(&authority.key, &tbs).await?;
        crash::reached(Point::IdentityCertified);
        let facts =
            CertificateFacts::parse(&leaf).map_err(|error| BrokerError::Internal(error.to_string()))?;
        let identity = Identity {
            name: name.clone(),
            role,
            tenant: tenant.cloned(),
            granted_vnfs: granted_vnfs.to_vec(),
            certificate_der: leaf.clone(),
            fingerprint: facts.fingerprint,
            created_at: now,
        };
        let event = identity_event(Event::new(now, EventKind::IdentityAdded, Actor::broker()), &identity);
        match self.store.add_identity(identity, Mutation::new(move |()| vec![event])).await {
            Ok(()) => Ok(Some(std::iter::once(leaf).chain(authority.chain_der.iter().cloned()).collect())),
            Err(StoreError::AlreadyExists(_)) => self.registered_identity(name, spki_der).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The chain of an identity that was registered before with this very key: an interrupted `init` goes on.
    async fn registered_identity(
        &self,
        name: &IdentityName,
        spki_der: &[u8],
    ) -> Result<Option<CertificateChain>, BrokerError> {
        let chain = self.issuing(&default_tenant()).await?.chain_der.clone();
        let identities = self.store.identities().await?;
        let known = identities.into_iter().find(|identity| identity.name == *name);
        let same_key = |identity: &Identity| {
            CertificateFacts::parse(&identity.certificate_der)
                .is_ok_and(|facts| facts.public_key_der == spki_der)
        };
        Ok(known
            .filter(same_key)
            .map(|identity| std::iter::once(identity.certificate_der).chain(chain).collect()))
    }
}

/// An event about an identity.
pub(super) fn identity_event(event: Event, identity: &Identity) -> Event {
    let mut event = event.details(details::json(&IdentityDetails {
        identity: identity.name.clone(),
        role: identity.role.to_string(),
        certificate: identity.fingerprint,
        granted_vnfs: identity.granted_vnfs.clone(),
    }));
    event.tenant = identity.tenant.clone();
    event
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_tenant_has_a_valid_name() {
        assert_eq!(super::default_tenant().as_str(), "default");
    }
}
