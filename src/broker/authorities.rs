//! The own CAs: a root, and one sub-CA per tenant, with their keys on the token.

use crate::audit::event::{Actor, Event, EventKind};
use crate::broker::ca_fitness::end_of_chain;
use crate::broker::making::Making;
use crate::broker::{Broker, BrokerError};
use crate::ca::ocsp::IssuerHashes;
use crate::ca::path::Certificate;
use crate::ca::{self, SigningCa, Tbs};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::hsm::{Lane, ObjectId};
use crate::nfv::{CaName, IssuerId, IssuerName, TenantId};
use crate::store::records::{IssuerRecord, NewCertificate};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A root lasts 20 years, a sub-CA 5.
pub(super) const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 86_400);
const SUB_CA_VALIDITY: Duration = Duration::from_secs(5 * 365 * 86_400);

/// A CA, ready to issue.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) id: IssuerId,
    /// None for a root.
    pub(super) tenant: Option<TenantId>,
    pub(super) name: CaName,
    pub(super) generation: u32,
    pub(super) key: ObjectId,
    pub(super) ca: SigningCa,
    pub(super) certificate: Certificate,
    pub(super) certificate_der: Vec<u8>,
    /// From this CA's certificate up to, but without, the root.
    pub(super) chain_der: Vec<Vec<u8>>,
    pub(super) root_der: Vec<u8>,
    /// End of its certificate, or of the first one above it.
    pub(super) ends_at: Timestamp,
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

impl Authority {
    /// Whether it is its own issuer: the broker's root, or one of a tenant. It certifies CAs and nothing else.
    pub(super) fn is_root(&self) -> bool {
        self.root_der == self.certificate_der
    }

    /// Where a shard of its CRL is: 0 is the complete one.
    pub(super) fn shard_url(&self, shard: u32) -> String {
        match shard {
            0 => self.crl_url.clone(),
            shard => shard_url(&self.crl_url, shard),
        }
    }
}

fn shard_url(crl_url: &str, shard: u32) -> String {
    format!("{}/{shard}.crl", crl_url.strip_suffix(".crl").unwrap_or(crl_url))
}

impl Authority {
    /// What is recorded of a certificate that this CA signed. A claim no longer gets it once less than `reserve` is left.
    pub(super) fn certificate(&self, tbs: &Tbs, der: Vec<u8>, reserve: Duration) -> NewCertificate {
        NewCertificate {
            issuer: self.id,
            serial: tbs.serial.to_vec(),
            der,
            not_before: tbs.not_before,
            not_after: tbs.not_after,
            usable_until: tbs.not_after.minus(reserve),
            crl_shard: tbs.crl_shard,
        }
    }
}

/// All CAs. An old generation still signs CRLs.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    by_id: HashMap<IssuerId, Arc<Authority>>,
    external: HashMap<IssuerId, Arc<ExternalCa>>,
    by_hashes: HashMap<IssuerHashes, IssuerId>,
}

impl Authorities {
    pub(super) fn get(&self, id: IssuerId) -> Option<Arc<Authority>> {
        self.by_id.get(&id).cloned()
    }

    /// The one that an OCSP request names.
    pub(super) fn by_hashes(&self, hashes: &IssuerHashes) -> Option<Arc<Authority>> {
        self.by_hashes.get(hashes).and_then(|&id| self.get(id))
    }

    /// The one of the highest generation: the one that issues for the tenant.
    pub(super) fn issuing(&self, tenant: &TenantId, name: &CaName) -> Option<Arc<Authority>> {
        self.newest(Some(tenant), name).filter(|authority| !authority.is_root())
    }

    /// The broker's root of the highest generation.
    pub(super) fn root(&self) -> Option<Arc<Authority>> {
        self.newest(None, &CaName::main())
    }

    /// A root of a tenant.
    pub(super) fn root_of(&self, tenant: &TenantId, name: &CaName) -> Option<Arc<Authority>> {
        self.newest(Some(tenant), name).filter(|authority| authority.is_root())
    }

    /// The root with this certificate (DER) for CAs of a tenant: the broker's or the tenant's.
    pub(super) fn root_by(&self, tenant: &TenantId, certificate_der: &[u8]) -> Option<Arc<Authority>> {
        let may = |root: &Authority| root.is_root() && root.tenant.as_ref().is_none_or(|of| of == tenant);
        self.by_id.values().find(|known| may(known) && known.certificate_der == certificate_der).cloned()
    }

    /// Of a name the highest generation; a root and a CA never have the same.
    pub(super) fn newest(&self, tenant: Option<&TenantId>, name: &CaName) -> Option<Arc<Authority>> {
        let named =
            self.by_id.values().filter(|known| known.tenant.as_ref() == tenant && known.name == *name);
        named.max_by_key(|authority| authority.generation).cloned()
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

    fn count(&self) -> u64 {
        (self.by_id.len() + self.external.len()) as u64
    }
}

impl Broker {
    /// Reads the CA certificates from the store again. A CA that was not known before, whoever took it into use, has its CRL
    /// and its responder made, and the listeners' certificates may have to follow it.
    pub(super) async fn load_authorities(&self) -> Result<(), BrokerError> {
        let _one_at_a_time = self.authorities_reading.lock().await;
        let settings = self.settings.load_full();
        let http_url = &settings.http_url;
        let mut by_id = HashMap::new();
        let mut external = HashMap::new();
        let mut by_hashes = HashMap::new();
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
            if let Some(name) = record.external {
                let chain = ServedChain { certificate_der: record.certificate_der, chain_der, root_der };
                let (id, tenant, generation) = (record.id, record.tenant, record.generation);
                external.insert(id, Arc::new(ExternalCa { id, tenant, name, generation, chain }));
                continue;
            }
            let mut ca =
                SigningCa::new(&record.certificate_der, &crl_url).map_err(|e| unfit(e.to_string()))?;
            if settings.crl_shards > 1 {
                let urls: Vec<String> =
                    (1..=settings.crl_shards).map(|shard| shard_url(&crl_url, shard)).collect();
                ca = ca.with_crl_shards(&urls);
            }
            let ocsp = settings.ocsp.in_certificates.then(|| format!("{http_url}/ocsp"));
            ca = ca.with_information(&format!("{http_url}/ca/{}.cer", record.id), ocsp.as_deref());
            let hashes = IssuerHashes::of(&record.certificate_der).map_err(|e| unfit(e.to_string()))?;
            by_hashes.extend(hashes.map(|hashes| (hashes, record.id)));
            let authority = Authority {
                id: record.id,
                tenant: record.tenant,
                name: record.name,
                generation: record.generation,
                key: record.key.parse().map_err(|_| unfit(format!("unknown key {:?}", record.key)))?,
                ca,
                ends_at: end_of_chain(&record.certificate_der, &record.chain_der)?,
                certificate: Certificate::from_der(&record.certificate_der)
                    .map_err(|e| unfit(e.to_string()))?,
                certificate_der: record.certificate_der,
                chain_der,
                root_der,
                crl_url,
            };
            by_id.insert(authority.id, Arc::new(authority));
        }
        let read = Arc::new(Authorities { by_id, by_hashes, external });
        let before = self.authorities.swap(Arc::clone(&read));
        if read.by_id.keys().any(|id| !before.by_id.contains_key(id)) {
            self.wake.publisher.notify_one();
            self.wake.listeners.notify_one();
        }
        Ok(())
    }

    /// Reads the CA certificates again if another broker has added one.
    pub(super) async fn follow_authorities(&self) -> Result<(), BrokerError> {
        if self.store.issuer_count().await? != self.authorities.load().count() {
            self.load_authorities().await?;
        }
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

    /// The main CA of a tenant.
    pub(super) async fn issuing(&self, tenant: &TenantId) -> Result<Arc<Authority>, BrokerError> {
        self.issuing_ca(tenant, &CaName::main()).await
    }

    /// The newest generation of a CA of a tenant: the one that issues.
    pub(super) async fn issuing_ca(
        &self,
        tenant: &TenantId,
        name: &CaName,
    ) -> Result<Arc<Authority>, BrokerError> {
        if let Some(authority) = self.authorities.load().issuing(tenant, name) {
            return Ok(authority);
        }
        self.load_authorities().await?;
        let found = self.authorities.load().issuing(tenant, name);
        found.ok_or_else(|| BrokerError::NotFound(format!("CA {name} of tenant {tenant}")))
    }

    /// Makes the root, if there is none.
    pub(super) async fn ensure_root(
        &self,
        making: &Making<'_>,
        name: &str,
    ) -> Result<Arc<Authority>, BrokerError> {
        // Another process may have made it since this one was started.
        self.load_authorities().await?;
        if let Some(root) = self.authorities.load().root() {
            return Ok(root);
        }
        let (generation, key) = self.free_key(1, ObjectId::Root).await?;
        let spki = making.ca_key(&key).await?;
        let now = self.store.now().await?;
        let tbs = ca::issue::root(name, &spki, ROOT_VALIDITY, now, &mut rand::rng()).map_err(unissued)?;
        let certificate_der = self.sign_certificate(&key, &tbs).await?;
        crash::reached(Point::RootCertified);
        self.record_authority(making, None, generation, &key, certificate_der, Vec::new()).await?;
        self.authorities.load().root().ok_or_else(|| BrokerError::Internal("the root is gone".to_owned()))
    }

    /// Makes a tenant's sub-CA and HMAC key, if they are missing.
    pub(super) async fn ensure_tenant_keys(
        &self,
        making: &Making<'_>,
        tenant: &TenantId,
    ) -> Result<Arc<Authority>, BrokerError> {
        making.mac_key(&ObjectId::TokenMac(tenant.clone())).await?;
        // Another broker may have made it a moment ago.
        self.load_authorities().await?;
        if let Some(authority) = self.authorities.load().issuing(tenant, &CaName::main()) {
            return Ok(authority);
        }
        let root = self.authorities.load().root();
        let root = root
            .ok_or_else(|| BrokerError::Precondition("there is no root; run `keybroker init`".to_owned()))?;
        let (generation, key) = self.next_key(tenant).await?;
        let spki = making.ca_key(&key).await?;
        let now = self.store.now().await?;
        let tbs = root
            .ca
            .sub_ca(
                tenant,
                CaName::main().as_str(),
                generation,
                &spki,
                SUB_CA_VALIDITY,
                now,
                &mut rand::rng(),
            )
            .map_err(unissued)?;
        let certificate_der = self.sign_certificate(&root.key, &tbs).await?;
        crash::reached(Point::TenantCertified);
        let chain = vec![root.certificate_der.clone()];
        self.record_authority(making, Some(tenant), generation, &key, certificate_der, chain).await?;
        self.issuing(tenant).await
    }

    /// Records the first CA of the broker, or of a tenant, and lets it issue.
    async fn record_authority(
        &self,
        making: &Making<'_>,
        tenant: Option<&TenantId>,
        generation: u32,
        key: &ObjectId,
        certificate_der: Vec<u8>,
        chain_der: Vec<Vec<u8>>,
    ) -> Result<(), BrokerError> {
        let now = self.store.now().await?;
        let record = IssuerRecord {
            id: IssuerId::generate(),
            tenant: tenant.cloned(),
            name: CaName::main(),
            external: None,
            generation,
            key: key.to_string(),
            certificate_der,
            chain_der,
            created_at: now,
        };
        let event = Event::new(now, EventKind::IssuerAdded, Actor::broker());
        self.take_into_use(making, record, event, None).await.map(|_| ())
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
    match error {
        ca::IssueError::IssuerEnding(at) => BrokerError::CaEnding(at),
        error => BrokerError::Precondition(error.to_string()),
    }
}
