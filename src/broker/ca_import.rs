//! What a certificate by a root elsewhere is held against before its CA is taken into use: the key that was requested for that
//! CA, and the roots that the operator configured.
//!
//! A key that was requested for a CA is kept for it: no other CA, root or rollover of the tenant gets it, and no other CA is
//! imported with it. What the root elsewhere certified would otherwise issue in another PKI.

use crate::broker::authorities::Authority;
use crate::broker::hierarchy::invalid;
use crate::broker::lost_issuers;
use crate::broker::{Broker, BrokerError};
use crate::ca::path::{self, Certificate, PathError, Purpose, Rules};
use crate::ca::{self, CertificateFacts};
use crate::clock::Timestamp;
use crate::hsm::ObjectId;
use crate::nfv::{CaName, TenantId};
use crate::store::records::CaKeyRequest;
use std::sync::Arc;

/// Certificates between a sub-CA and its root that an import may bring.
const CHAIN_MAX: usize = 8;
/// Value of the mark with a CA key's name: it was made for a CA of this database.
pub(super) const FOR_A_CA: &str = "CA";

impl Broker {
    /// The tenant's next CA key: neither in use nor kept for a CA that requested it.
    pub(super) async fn next_key(&self, tenant: &TenantId) -> Result<(u32, ObjectId), BrokerError> {
        let requested = self.store.ca_requests(tenant).await?;
        let requested = requested.iter().map(|request| request.generation).max().unwrap_or(0);
        let newest = self.trust_chain_version(tenant).max(requested);
        self.free_key(newest + 1, |generation| ObjectId::SubCa(tenant.clone(), generation)).await
    }

    /// The first key from a generation on that a new CA may have: there is none yet, or this database had it made for one. Any
    /// other is of a CA that the database forgot, and is not taken for another one; nor is the generation, and with it the name
    /// and the responder's key, of one that no recovery could bring back.
    pub(super) async fn free_key(
        &self,
        from: u32,
        key: impl Fn(u32) -> ObjectId,
    ) -> Result<(u32, ObjectId), BrokerError> {
        let lost = lost_issuers::named(&*self.store).await?;
        // Ends at the latest after the last key of a finite token, or the last one that is named.
        let mut generation = from;
        loop {
            let key = key(generation);
            let is_lost = lost.iter().any(|ca| ca.key_label == key.to_string());
            if !is_lost && (self.is_for_a_ca(&key).await? || self.hsm.public_key(&key).await?.is_none()) {
                return Ok((generation, key));
            }
            generation += 1;
        }
    }

    /// Whether this database noted that it has a key made for a CA.
    pub(super) async fn is_for_a_ca(&self, key: &ObjectId) -> Result<bool, BrokerError> {
        Ok(self.store.mark(&key.to_string()).await?.is_some_and(|mark| mark == FOR_A_CA))
    }

    /// The key that a request of this CA is for: the one that waits for a certificate already, else the next one.
    pub(super) async fn requested_key(
        &self,
        tenant: &TenantId,
        name: &CaName,
    ) -> Result<(u32, ObjectId), BrokerError> {
        let waiting = self.waiting_keys(tenant).await?;
        match waiting.into_iter().find(|(request, _)| request.name == *name) {
            Some((request, key)) => Ok((request.generation, key)),
            None => self.next_key(tenant).await,
        }
    }

    /// The key that was requested for this CA, if the certificate is for it, and the generation as which the CA is taken into
    /// use: that of its key, or the next one if the tenant has got other CAs since. What issues is the newest.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] that says whose key it is for.
    pub(super) async fn certified_key(
        &self,
        tenant: &TenantId,
        name: &CaName,
        certificate: &CertificateFacts,
    ) -> Result<(u32, ObjectId), BrokerError> {
        let refused = |problem: String| Err(invalid("certificate_der", problem));
        let waiting = self.waiting_keys(tenant).await?;
        for (request, key) in &waiting {
            if self.hsm.public_key(key).await?.is_none_or(|spki| spki != certificate.public_key_der) {
                continue;
            }
            if request.name != *name {
                let of = &request.name;
                return refused(format!(
                    "is for the key {key}, which was requested for CA {of}: import it as {of}, and have the request of \
                     `keybroker ca csr {name}` signed for {name}"
                ));
            }
            let generation = if request.generation > self.trust_chain_version(tenant) {
                request.generation
            } else {
                self.next_key(tenant).await?.0
            };
            return Ok((generation, key.clone()));
        }
        for known in self.of_tenant(tenant) {
            let facts = CertificateFacts::parse(&known.certificate_der)
                .map_err(|error| BrokerError::Internal(error.to_string()))?;
            if facts.public_key == certificate.public_key {
                return refused(format!(
                    "is for the key {}, which CA {} has in use: a new certificate is for a new key, which `keybroker ca csr \
                     {name}` makes",
                    known.key, known.name
                ));
            }
        }
        refused(match waiting.iter().find(|(request, _)| request.name == *name) {
            Some((_, key)) => format!(
                "is not for the key {key} that was requested for CA {name}: have the request of `keybroker ca csr {name}` \
                 signed"
            ),
            None => format!(
                "is not for the key of a request: none waits for CA {name}; have the request of `keybroker ca csr {name}` \
                 signed"
            ),
        })
    }

    /// The CA that has this certificate: the answer to its import may have been lost.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] if that is another one.
    pub(super) fn imported_before(
        &self,
        tenant: &TenantId,
        name: &CaName,
        certificate_der: &[u8],
    ) -> Result<Option<Arc<Authority>>, BrokerError> {
        let all = self.authorities.load().all();
        let Some(known) = all.into_iter().find(|known| known.certificate_der == certificate_der) else {
            return Ok(None);
        };
        if known.tenant.as_ref() == Some(tenant) && known.name == *name {
            return Ok(Some(known));
        }
        let of = known.tenant.as_ref().map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
        Err(invalid("certificate_der", format!("is that of CA {}{of} already", known.name)))
    }

    /// From a CA's issuer up to and including a root that is configured or our own. What was given beside it is not used.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] if no path there is valid, or a CA of it has the same name;
    /// [`BrokerError::Precondition`] for a root that cannot be read.
    pub(super) fn chain_to_a_root(
        &self,
        certificate_der: &[u8],
        given: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<Vec<Vec<u8>>, BrokerError> {
        let mut roots = Vec::new();
        for file in &self.settings.load().ca_roots {
            let unreadable = |problem: String| {
                BrokerError::Precondition(format!("[ca] roots: {}: {problem}", file.display()))
            };
            let pem = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
            for der in ca::certificates_from_pem(&pem).map_err(|error| unreadable(error.to_string()))? {
                let root = Certificate::from_der(&der).map_err(|error| unreadable(error.to_string()))?;
                roots.push((root, der));
            }
        }
        let own = self.authorities.load().root();
        roots.extend(own.map(|root| (root.certificate.clone(), root.certificate_der.clone())));
        chain(certificate_der, given, roots, now)
    }

    /// The requested keys of a tenant that have no certificate yet. One whose note a recovery took back is of a CA that the
    /// database forgot.
    async fn waiting_keys(&self, tenant: &TenantId) -> Result<Vec<(CaKeyRequest, ObjectId)>, BrokerError> {
        let in_use: Vec<ObjectId> = self.of_tenant(tenant).iter().map(|known| known.key.clone()).collect();
        let mut waiting = Vec::new();
        for request in self.store.ca_requests(tenant).await? {
            let key = ObjectId::SubCa(tenant.clone(), request.generation);
            if !in_use.contains(&key) && self.is_for_a_ca(&key).await? {
                waiting.push((request, key));
            }
        }
        Ok(waiting)
    }

    fn of_tenant(&self, tenant: &TenantId) -> Vec<Arc<Authority>> {
        let mut all = self.authorities.load().all();
        all.retain(|known| known.tenant.as_ref() == Some(tenant));
        all
    }
}

/// The certificates above a CA's, the root last, along the shortest path that is valid.
fn chain(
    certificate_der: &[u8],
    given: &[Vec<u8>],
    roots: Vec<(Certificate, Vec<u8>)>,
    now: Timestamp,
) -> Result<Vec<Vec<u8>>, BrokerError> {
    if given.len() > CHAIN_MAX {
        let problem = format!("has {} certificates; at most {CHAIN_MAX}", given.len());
        return Err(invalid("chain_der", problem));
    }
    let read = |field: &str, der: &[u8]| {
        Certificate::from_der(der).map_err(|error| invalid(field, error.to_string()))
    };
    let ca = read("certificate_der", certificate_der)?;
    let tiers =
        given.iter().map(|der| read("chain_der", der)).collect::<Result<Vec<Certificate>, BrokerError>>()?;
    let (anchors, ders): (Vec<Certificate>, Vec<Vec<u8>>) = roots.into_iter().unzip();
    let rules = Rules::new(Purpose::Any, now);
    let (path, root) = path::validate_to_any(&ca, &tiers, &anchors, &rules).map_err(|error| match error {
        PathError::UnknownIssuer(_) => no_root("chain_der"),
        error => invalid("chain_der", format!("is no valid path to a root that is configured: {error}")),
    })?;
    let mut above = Vec::new();
    for fingerprint in path.certificates().iter().skip(1) {
        let used = tiers.iter().zip(given).find(|(tier, _)| tier.fingerprint() == *fingerprint);
        above.extend(used);
    }
    above.extend(anchors.get(root).zip(ders.get(root)));
    if above.iter().any(|(issuer, _)| issuer.is_named_as(&ca)) {
        let problem = format!(
            "has the name of a CA above it, {}: a CA has a name of its own (RFC 5280 4.1.2.6)",
            ca.subject()
        );
        return Err(invalid("certificate_der", problem));
    }
    Ok(above.into_iter().map(|(_, der)| der.clone()).collect())
}

pub(super) fn no_root(field: &str) -> BrokerError {
    invalid(
        field,
        "leads to no root that is configured: give the certificates between, and name the root's file in [ca] roots",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    struct Ca {
        params: CertificateParams,
        key: KeyPair,
        der: Vec<u8>,
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    fn root(name: &str) -> Ca {
        let (params, key) = (params(name), KeyPair::generate().unwrap());
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Ca { params, key, der }
    }

    impl Ca {
        fn signs(&self, name: &str) -> Ca {
            self.signs_as(&self.params, name)
        }

        /// The same with another spelling of its own name.
        fn signs_as(&self, issuer: &CertificateParams, name: &str) -> Ca {
            let (params, key) = (params(name), KeyPair::generate().unwrap());
            let issuer = Issuer::from_params(issuer, &self.key);
            let der = params.signed_by(&key, &issuer).unwrap().der().to_vec();
            Ca { params, key, der }
        }
    }

    fn up(ca: &Ca, given: &[&Ca], roots: &[&Ca]) -> Result<Vec<Vec<u8>>, String> {
        let given: Vec<_> = given.iter().map(|ca| ca.der.clone()).collect();
        let roots = roots.iter().map(|ca| (Certificate::from_der(&ca.der).unwrap(), ca.der.clone()));
        chain(&ca.der, &given, roots.collect(), SystemClock.now()).map_err(|error| error.to_string())
    }

    #[test]
    fn of_two_roots_of_one_name_the_one_is_taken_that_signed() {
        let (old, new) = (root("Operator"), root("Operator"));
        let (by_old, by_new) = (old.signs("sub"), new.signs("sub"));
        for roots in [[&old, &new], [&new, &old]] {
            assert_eq!(up(&by_old, &[], &roots).unwrap(), [old.der.as_slice()]);
            assert_eq!(up(&by_new, &[], &roots).unwrap(), [new.der.as_slice()]);
        }
        let refused = up(&by_new, &[], &[&old]).unwrap_err();
        assert!(refused.contains("signature"), "{refused}");
    }

    #[test]
    fn tiers_that_are_not_needed_stand_in_nobodys_way() {
        let top = root("Operator");
        let (needed, unneeded) = (top.signs("tier"), top.signs("tier"));
        let dead_end = root("elsewhere").signs("tier");
        let sub = needed.signs("sub");
        for given in [[&unneeded, &dead_end, &needed], [&needed, &dead_end, &unneeded]] {
            assert_eq!(up(&sub, &given, &[&top]).unwrap(), [needed.der.clone(), top.der.clone()]);
        }
        let refused = up(&sub, &[], &[&top]).unwrap_err();
        assert!(refused.contains("leads to no root"), "{refused}");
    }

    #[test]
    fn an_issuers_name_may_be_written_with_other_capitals_and_spaces() {
        let top = root("Operator Root");
        let sub = top.signs_as(&params("OPERATOR  root"), "sub");
        assert_eq!(up(&sub, &[], &[&top]).unwrap(), [top.der.as_slice()]);
    }

    #[test]
    fn a_ca_with_the_name_of_a_ca_above_it_is_refused() {
        let top = root("Operator");
        let tier = top.signs("tier");
        for (ca, given) in [(top.signs("OPERATOR"), vec![]), (tier.signs("Operator"), vec![&tier])] {
            let refused = up(&ca, &given, &[&top]).unwrap_err();
            assert!(refused.contains("a name of its own"), "{refused}");
        }
    }
}
