//! The own CAs: a root, and one sub-CA per tenant, with their keys on the token.

use crate::audit::details::{self, IssuerDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::broker::{Broker, BrokerError};
use crate::ca::{self, CertificateFacts, SigningCa, Tbs};
use crate::hsm::{Lane, ObjectId, SignatureAlgorithm};
use crate::nfv::{IssuerId, IssuerName, TenantId};
use crate::store::Mutation;
use crate::store::records::IssuerRecord;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A root lasts 20 years, a sub-CA 5.
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 86_400);
const SUB_CA_VALIDITY: Duration = Duration::from_secs(5 * 365 * 86_400);

/// A CA, ready to issue.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) id: IssuerId,
    /// None for a root.
    pub(super) tenant: Option<TenantId>,
    pub(super) generation: u32,
    pub(super) key: ObjectId,
    pub(super) ca: SigningCa,
    pub(super) certificate_der: Vec<u8>,
    /// From this CA's certificate up to, but without, the root.
    pub(super) chain_der: Vec<Vec<u8>>,
    pub(super) root_der: Vec<u8>,
    pub(super) crl_url: String,
}

/// A CA outside of the broker that certified keys of a tenant.
#[derive(Debug)]
pub(super) struct ExternalCa {
    pub(super) id: IssuerId,
    pub(super) tenant: Option<TenantId>,
    /// The configured issuer.
    pub(super) name: IssuerName,
    pub(super) generation: u32,
    pub(super) chain: ServedChain,
}

/// A CA's certificates as they are given out.
#[derive(Debug, Clone)]
pub(super) struct ServedChain {
    pub(super) certificate_der: Vec<u8>,
    /// From this CA's certificate up to, but without, the root.
    pub(super) chain_der: Vec<Vec<u8>>,
    pub(super) root_der: Vec<u8>,
}

/// All CAs. An old generation still signs CRLs.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    by_id: HashMap<IssuerId, Arc<Authority>>,
    external: HashMap<IssuerId, Arc<ExternalCa>>,
}

impl Authorities {
    pub(super) fn get(&self, id: IssuerId) -> Option<Arc<Authority>> {
        self.by_id.get(&id).cloned()
    }

    /// The one of the highest generation: the one that issues for the tenant (or the root that issues sub-CAs).
    pub(super) fn issuing(&self, tenant: Option<&TenantId>) -> Option<Arc<Authority>> {
        let of_tenant = self.by_id.values().filter(|authority| authority.tenant.as_ref() == tenant);
        of_tenant.max_by_key(|authority| authority.generation).cloned()
    }

    /// The CAs of a tenant that stand behind a configured issuer.
    pub(super) fn external<'a>(
        &'a self,
        tenant: &'a TenantId,
        name: &'a IssuerName,
    ) -> impl Iterator<Item = &'a Arc<ExternalCa>> {
        self.external.values().filter(move |ca| ca.tenant.as_ref() == Some(tenant) && ca.name == *name)
    }

    fn served_chain(&self, id: IssuerId) -> Option<ServedChain> {
        if let Some(external) = self.external.get(&id) {
            return Some(external.chain.clone());
        }
        self.by_id.get(&id).map(|authority| ServedChain {
            certificate_der: authority.certificate_der.clone(),
            chain_der: authority.chain_der.clone(),
            root_der: authority.root_der.clone(),
        })
    }

    pub(super) fn all(&self) -> Vec<Arc<Authority>> {
        self.by_id.values().cloned().collect()
    }
}

impl Broker {
    /// Reads the CA certificates from the store again.
    pub(super) async fn load_authorities(&self) -> Result<(), BrokerError> {
        let http_url = self.settings.load().http_url.clone();
        let mut by_id = HashMap::new();
        let mut external = HashMap::new();
        for record in self.store.issuers().await? {
            let unfit =
                |problem: String| BrokerError::Internal(format!("CA certificate {}: {problem}", record.id));
            let crl_url = format!("{http_url}/crl/{}.crl", record.id);
            let (root_der, chain_der) = match record.chain_der.split_last() {
                None => (record.certificate_der.clone(), Vec::new()),
                Some((root, between)) => {
                    let own = std::iter::once(record.certificate_der.clone());
                    (root.clone(), own.chain(between.iter().cloned()).collect())
                }
            };
            if let Some(name) = record.name {
                let chain = ServedChain { certificate_der: record.certificate_der, chain_der, root_der };
                let (id, tenant, generation) = (record.id, record.tenant, record.generation);
                external.insert(id, Arc::new(ExternalCa { id, tenant, name, generation, chain }));
                continue;
            }
            let ca = SigningCa::new(&record.certificate_der, &crl_url).map_err(|e| unfit(e.to_string()))?;
            let authority = Authority {
                id: record.id,
                tenant: record.tenant,
                generation: record.generation,
                key: record.key.parse().map_err(|_| unfit(format!("unknown key {:?}", record.key)))?,
                ca,
                certificate_der: record.certificate_der,
                chain_der,
                root_der,
                crl_url,
            };
            by_id.insert(authority.id, Arc::new(authority));
        }
        self.authorities.store(Arc::new(Authorities { by_id, external }));
        Ok(())
    }

    /// A CA by its id; what the store says of a certificate's issuer is always known, or was added by another replica.
    pub(super) async fn authority(&self, id: IssuerId) -> Result<Arc<Authority>, BrokerError> {
        if let Some(authority) = self.authorities.load().get(id) {
            return Ok(authority);
        }
        self.load_authorities().await?;
        self.authorities.load().get(id).ok_or_else(|| BrokerError::NotFound(format!("issuer {id}")))
    }

    /// What is given out with certificates of a CA, own or not.
    pub(super) async fn served_chain(&self, id: IssuerId) -> Result<ServedChain, BrokerError> {
        if let Some(chain) = self.authorities.load().served_chain(id) {
            return Ok(chain);
        }
        self.load_authorities().await?;
        let found = self.authorities.load().served_chain(id);
        found.ok_or_else(|| BrokerError::NotFound(format!("issuer {id}")))
    }

    /// The CA that issues for a tenant.
    pub(super) async fn issuing(&self, tenant: &TenantId) -> Result<Arc<Authority>, BrokerError> {
        if let Some(authority) = self.authorities.load().issuing(Some(tenant)) {
            return Ok(authority);
        }
        self.load_authorities().await?;
        let found = self.authorities.load().issuing(Some(tenant));
        found.ok_or_else(|| BrokerError::NotFound(format!("a CA of tenant {tenant}")))
    }

    /// Makes the root, if there is none.
    pub(super) async fn ensure_root(&self, name: &str) -> Result<Arc<Authority>, BrokerError> {
        if let Some(root) = self.authorities.load().issuing(None) {
            return Ok(root);
        }
        let key = ObjectId::Root(1);
        let spki = self.ensure_key_pair(&key, SignatureAlgorithm::EcdsaP256Sha256).await?;
        let now = self.store.now().await?;
        let tbs = ca::issue::root(name, &spki, ROOT_VALIDITY, now, &mut rand::rng()).map_err(unissued)?;
        let certificate_der = self.sign_certificate(&key, &tbs).await?;
        self.record_authority(None, 1, &key, certificate_der, Vec::new()).await?;
        self.authorities
            .load()
            .issuing(None)
            .ok_or_else(|| BrokerError::Internal("the root is gone".to_owned()))
    }

    /// Makes a tenant's sub-CA and HMAC key, if they are missing.
    pub(super) async fn ensure_tenant_keys(&self, tenant: &TenantId) -> Result<Arc<Authority>, BrokerError> {
        let mac = ObjectId::TokenMac(tenant.clone());
        if !self.hsm.object_exists(&mac).await? {
            self.hsm.create_mac_key(&mac).await?;
        }
        if let Some(authority) = self.authorities.load().issuing(Some(tenant)) {
            return Ok(authority);
        }
        let root = self.authorities.load().issuing(None);
        let root = root
            .ok_or_else(|| BrokerError::Precondition("there is no root; run `keybroker init`".to_owned()))?;
        let key = ObjectId::SubCa(tenant.clone(), 1);
        let spki = self.ensure_key_pair(&key, SignatureAlgorithm::EcdsaP256Sha256).await?;
        let now = self.store.now().await?;
        let tbs =
            root.ca.sub_ca(tenant, 1, &spki, SUB_CA_VALIDITY, now, &mut rand::rng()).map_err(unissued)?;
        let certificate_der = self.sign_certificate(&root.key, &tbs).await?;
        self.record_authority(Some(tenant), 1, &key, certificate_der, vec![root.certificate_der.clone()])
            .await?;
        self.issuing(tenant).await
    }

    async fn record_authority(
        &self,
        tenant: Option<&TenantId>,
        generation: u32,
        key: &ObjectId,
        certificate_der: Vec<u8>,
        chain_der: Vec<Vec<u8>>,
    ) -> Result<(), BrokerError> {
        let now = self.store.now().await?;
        let facts =
            CertificateFacts::parse(&certificate_der).map_err(|e| BrokerError::Internal(e.to_string()))?;
        let record = IssuerRecord {
            id: IssuerId::generate(),
            tenant: tenant.cloned(),
            name: None,
            generation,
            key: key.to_string(),
            certificate_der,
            chain_der,
            created_at: now,
        };
        let mut event =
            Event::new(now, EventKind::IssuerAdded, Actor::broker()).details(details::json(&IssuerDetails {
                issuer: record.id,
                generation,
                key_label: record.key.clone(),
                certificate: facts.fingerprint,
                serial: hex::encode(&facts.serial),
                not_after: facts.not_after,
            }));
        event.tenant = tenant.cloned();
        self.store.add_issuer(record, Mutation::new(move |()| vec![event])).await?;
        self.load_authorities().await
    }

    /// The public key (SubjectPublicKeyInfo, DER) of a key pair on the token, made now if it is missing: a crash between
    /// making a key and recording its certificate leaves the key, and it is ours.
    pub(super) async fn ensure_key_pair(
        &self,
        key: &ObjectId,
        algorithm: SignatureAlgorithm,
    ) -> Result<Vec<u8>, BrokerError> {
        match self.hsm.public_key(key).await? {
            Some(spki) => Ok(spki),
            None => Ok(self.hsm.create_key_pair(key, algorithm).await?),
        }
    }

    /// Signs one certificate.
    pub(super) async fn sign_certificate(&self, key: &ObjectId, tbs: &Tbs) -> Result<Vec<u8>, BrokerError> {
        let signatures = self.hsm.sign(Lane::Interactive, key, tbs.algorithm, vec![tbs.der.clone()]).await?;
        let signature = signatures.first().ok_or_else(|| BrokerError::Internal("no signature".to_owned()))?;
        Ok(ca::assemble(&tbs.der, tbs.algorithm, signature))
    }
}

/// A certificate that could not be made: the caller's names, or the CA's end.
pub(super) fn unissued(error: ca::IssueError) -> BrokerError {
    BrokerError::Precondition(error.to_string())
}
