//! Trust anchors: CAs whose certificates are accepted as initial credentials, what is demanded of paths to them, and their
//! CRLs.

use crate::audit::details::{self, AnchorDetails, AnchorUpdatedDetails};
use crate::audit::event::{Event, EventKind};
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::admin::{certificate, invalid, one, strong_certificate};
use crate::broker::anchor_crls::{self, Changes};
use crate::broker::{Broker, BrokerError, Request};
use crate::ca::CertificateFacts;
use crate::ca::path::{
    self, Certificate, Conformance, Crl, PathError, PolicySet, Purpose, Revocation, Rules, Work,
};
use crate::clock::Timestamp;
use crate::identity::x509;
use crate::nfv::{AnchorName, Sha256Hash, TenantId};
use crate::store::records::{Anchor, AnchorUpdate};
use std::collections::HashMap;
use std::sync::Arc;

/// Acceptable policies of one anchor.
const POLICIES_MAX: usize = 64;
/// CRLs in one call.
const CRLS_MAX: usize = 100;
/// Certificates of CAs and CRL issuers below one anchor.
const ISSUERS_MAX: usize = 64;

/// An anchor to be added.
#[derive(Debug, Clone)]
pub struct NewAnchor {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: AnchorName,
    /// A CA certificate.
    pub certificate_der: Vec<u8>,
    /// What is demanded of CRLs.
    pub revocation: Revocation,
    /// Object identifiers, dotted.
    pub policies: Vec<String>,
    /// Whether certificates must conform to RFC 5280 section 4.
    pub strict: bool,
}

/// A change of an anchor.
#[derive(Debug, Clone, Default)]
pub struct AnchorChange {
    /// What is demanded of CRLs from now on; none: as before.
    pub revocation: Option<Revocation>,
    /// Further certificates of CAs and CRL issuers below it, DER, in any order.
    pub issuers_der: Vec<Vec<u8>>,
    /// CRLs, DER.
    pub crls_der: Vec<Vec<u8>>,
}

/// An anchor and its CRLs.
#[derive(Debug, Clone)]
pub struct AnchorWithCrls {
    /// The anchor.
    pub anchor: Anchor,
    /// Its CRLs.
    pub crls: Vec<Arc<Crl>>,
}

/// Certificates and CRLs by their SHA-256: they are parsed once, not at every claim.
#[derive(Debug, Default, Clone)]
pub(super) struct Parsed {
    certificates: HashMap<Sha256Hash, Arc<Certificate>>,
    crls: HashMap<Sha256Hash, Arc<Crl>>,
}

impl Broker {
    /// Adds a trust anchor: a CA certificate within its validity.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::Invalid`], [`BrokerError::AlreadyExists`],
    /// [`BrokerError::Precondition`] if it is an anchor already.
    pub async fn add_anchor(
        &self,
        caller: &Caller,
        request: Request,
        new: NewAnchor,
    ) -> Result<AnchorWithCrls, BrokerError> {
        let target = Target { tenant: Some(&new.tenant), ..Target::default() };
        let authorised = authorise(caller, Rpc::AddAnchor, target)?;
        let now = self.store.now().await?;
        let facts = strong_certificate(&new.certificate_der)?;
        if !facts.is_ca {
            let problem = "is no CA certificate (basicConstraints does not say cA)";
            return Err(invalid("certificate_der", problem));
        }
        let conformance = if new.strict { Conformance::Strict } else { Conformance::Processing };
        let rules = Rules { conformance, ..Rules::new(Purpose::TlsClient, now) };
        Certificate::from_der(&new.certificate_der)
            .and_then(|parsed| path::check_anchor(&parsed, &rules))
            .map_err(|error| invalid("certificate_der", format!("cannot be an anchor: {error}")))?;
        if new.policies.len() > POLICIES_MAX {
            return Err(invalid("acceptable_policies", format!("has more than {POLICIES_MAX} policies")));
        }
        policies(&new.policies).map_err(|policy| {
            invalid("acceptable_policies", format!("{policy:?} is no object identifier"))
        })?;
        let anchor = Anchor {
            tenant: new.tenant,
            name: new.name,
            certificate_der: new.certificate_der,
            fingerprint: facts.fingerprint,
            public_key: facts.public_key,
            revocation: new.revocation,
            policies: new.policies,
            strict: new.strict,
            issuers_der: Vec::new(),
            created_at: now,
        };
        let event = self.event(&authorised, EventKind::AnchorAdded, &request).await?;
        let event = anchor_event(event, &anchor, &facts);
        self.store.add_anchor(anchor.clone(), one(event, &authorised, &request)).await?;
        // Repeated, it was added before.
        let mut added = self.store.anchors(Some(&anchor.tenant)).await?;
        added.retain(|known| known.name == anchor.name);
        Ok(AnchorWithCrls { anchor: added.pop().unwrap_or(anchor), crls: Vec::new() })
    }

    /// Changes what is demanded of CRLs under an anchor, adds certificates of CAs and CRL issuers below it, and CRLs
    /// (`anchor_crls`): one that verifies replaces that of the same issuer and scope. Whose a CRL is, is verified again
    /// whenever it is used.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::NotFound`], [`BrokerError::Invalid`] for certificates without a path to the
    /// anchor, for what is no CRL, has critical extensions that are unknown, is of the future or has a wrong signature,
    /// [`BrokerError::Precondition`] for one older than the one that it would replace, and if too many wait.
    pub async fn update_anchor(
        &self,
        caller: &Caller,
        request: Request,
        tenant: TenantId,
        name: AnchorName,
        change: AnchorChange,
    ) -> Result<AnchorWithCrls, BrokerError> {
        let target = Target { tenant: Some(&tenant), ..Target::default() };
        let authorised = authorise(caller, Rpc::UpdateAnchor, target)?;
        let AnchorChange { revocation, issuers_der, crls_der } = change;
        let mut found = self.anchors_with_crls(Some(&tenant)).await?.into_iter();
        let Some(AnchorWithCrls { mut anchor, crls: known }) = found.find(|found| found.anchor.name == name)
        else {
            return Err(BrokerError::NotFound(format!("anchor {name} of tenant {tenant}")));
        };
        if crls_der.len() > CRLS_MAX {
            return Err(invalid("crls_der", format!("has more than {CRLS_MAX} CRLs")));
        }
        let now = self.store.now().await?;
        let certificate = Certificate::from_der(&anchor.certificate_der).map_err(internal)?;
        let known_issuers = parsed(&anchor.issuers_der)?;
        let issuers = issuers_below(&certificate, known_issuers, issuers_der, now)?;
        let verifying: Vec<_> =
            std::iter::once(&certificate).chain(issuers.iter().map(|(_, issuer)| issuer)).collect();
        let Changes { added, removed } = anchor_crls::settle(&known, &verifying, crls_der, now)?;
        let issuers_der: Vec<Vec<u8>> = issuers.into_iter().map(|(der, _)| der).collect();
        anchor.revocation = revocation.unwrap_or(anchor.revocation);
        let event = self.event(&authorised, EventKind::AnchorUpdated, &request).await?.tenant(&tenant);
        let event = event.details(details::json(&AnchorUpdatedDetails {
            anchor: name.clone(),
            certificate: anchor.fingerprint,
            crl_policy: anchor.revocation.to_string(),
            crls_added: added.iter().map(|der| Sha256Hash::of(der)).collect(),
            crls_removed: removed.clone(),
            issuers: issuers_der.iter().map(|der| Sha256Hash::of(der)).collect(),
        }));
        let update = AnchorUpdate {
            tenant: tenant.clone(),
            name: name.clone(),
            revocation,
            issuers_der: Some(issuers_der),
            added,
            removed,
        };
        self.store.update_anchor(update, one(event, &authorised, &request)).await?;
        let mut updated = self.anchors_with_crls(Some(&tenant)).await?.into_iter();
        let updated = updated.find(|found| found.anchor.name == name);
        updated.ok_or_else(|| BrokerError::NotFound(format!("anchor {name} of tenant {tenant}")))
    }

    /// Anchors of one tenant or of all.
    ///
    /// # Errors
    /// [`BrokerError::Denied`].
    pub async fn anchors(
        &self,
        caller: &Caller,
        tenant: Option<TenantId>,
    ) -> Result<Vec<AnchorWithCrls>, BrokerError> {
        authorise(caller, Rpc::ListAnchors, Target { tenant: tenant.as_ref(), ..Target::default() })?;
        self.anchors_with_crls(tenant.as_ref()).await
    }

    /// Removes a trust anchor with its CRLs; initial credentials under it become void.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::NotFound`].
    pub async fn remove_anchor(
        &self,
        caller: &Caller,
        request: Request,
        tenant: TenantId,
        name: AnchorName,
    ) -> Result<(), BrokerError> {
        let target = Target { tenant: Some(&tenant), ..Target::default() };
        let authorised = authorise(caller, Rpc::RemoveAnchor, target)?;
        let anchors = self.store.anchors(Some(&tenant)).await?;
        let mut event = self.event(&authorised, EventKind::AnchorRemoved, &request).await?.tenant(&tenant);
        if let Some(anchor) = anchors.iter().find(|anchor| anchor.name == name) {
            event = anchor_event(event, anchor, &certificate(&anchor.certificate_der)?);
        }
        Ok(self.store.remove_anchor(&tenant, &name, one(event, &authorised, &request)).await?)
    }

    /// The anchors of all tenants, ready to judge paths: the tenant follows from the one that matches.
    pub(super) async fn x509_anchors(&self) -> Result<Vec<x509::Anchor>, BrokerError> {
        let anchors = self.anchors_with_crls(None).await?;
        let known = self.trust.load_full();
        let mut certificates = HashMap::with_capacity(anchors.len());
        let mut ready = Vec::with_capacity(anchors.len());
        for AnchorWithCrls { anchor, crls } in anchors {
            let mut read = |der: &[u8], fingerprint| {
                let certificate = match known.certificates.get(&fingerprint) {
                    Some(certificate) => Arc::clone(certificate),
                    None => Arc::new(Certificate::from_der(der).map_err(internal)?),
                };
                certificates.insert(fingerprint, Arc::clone(&certificate));
                Ok::<_, BrokerError>(certificate)
            };
            let certificate = read(&anchor.certificate_der, anchor.fingerprint)?;
            let issuers = anchor.issuers_der.iter().map(|der| read(der, Sha256Hash::of(der)));
            let issuers = issuers.collect::<Result<_, _>>()?;
            let acceptable = policies(&anchor.policies).map_err(|policy| {
                BrokerError::Internal(format!("policy {policy:?} of anchor {}", anchor.name))
            })?;
            ready.push(x509::Anchor {
                tenant: anchor.tenant,
                name: anchor.name,
                certificate,
                issuers,
                crls,
                revocation: anchor.revocation,
                policies: acceptable,
                conformance: if anchor.strict { Conformance::Strict } else { Conformance::Processing },
            });
        }
        if differ(&certificates, &known.certificates) {
            self.trust.store(Arc::new(Parsed { certificates, ..Parsed::clone(&known) }));
        }
        Ok(ready)
    }

    /// Anchors with their CRLs. Contents are read from the store when they are new only.
    async fn anchors_with_crls(&self, tenant: Option<&TenantId>) -> Result<Vec<AnchorWithCrls>, BrokerError> {
        let anchors = self.store.anchors(tenant).await?;
        let listed = self.store.anchor_crls().await?;
        let known = self.trust.load_full();
        let mut crls = HashMap::with_capacity(listed.len());
        for fingerprint in listed.iter().map(|listed| listed.fingerprint) {
            let crl = match known.crls.get(&fingerprint) {
                Some(crl) => Arc::clone(crl),
                None => match self.store.anchor_crl(fingerprint).await? {
                    Some(der) => Arc::new(Crl::from_der(&der).map_err(internal)?),
                    // Replaced since it was listed; what replaced it is found at the next reading.
                    None => return Err(changed_meanwhile()),
                },
            };
            crls.insert(fingerprint, crl);
        }
        if differ(&crls, &known.crls) {
            self.trust.store(Arc::new(Parsed { crls: crls.clone(), ..Parsed::clone(&known) }));
        }
        let with_crls = |anchor: Anchor| {
            let own = listed.iter().filter(|crl| crl.tenant == anchor.tenant && crl.anchor == anchor.name);
            let own = own.filter_map(|crl| crls.get(&crl.fingerprint).cloned()).collect();
            AnchorWithCrls { anchor, crls: own }
        };
        Ok(anchors.into_iter().map(with_crls).collect())
    }
}

fn differ<V>(now: &HashMap<Sha256Hash, V>, before: &HashMap<Sha256Hash, V>) -> bool {
    now.len() != before.len() || now.keys().any(|fingerprint| !before.contains_key(fingerprint))
}

/// Says which one is no object identifier.
fn policies(texts: &[String]) -> Result<PolicySet, String> {
    texts.iter().map(|text| text.parse().map_err(|_| text.clone())).collect()
}

/// Certificates from the store, each with its DER.
fn parsed(ders: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, Certificate)>, BrokerError> {
    ders.iter().map(|der| Ok((der.clone(), Certificate::from_der(der).map_err(internal)?))).collect()
}

/// The known issuers below an anchor that have not expired, and those that are given now: each has a path to it.
fn issuers_below(
    anchor: &Certificate,
    known: Vec<(Vec<u8>, Certificate)>,
    given: Vec<Vec<u8>>,
    now: Timestamp,
) -> Result<Vec<(Vec<u8>, Certificate)>, BrokerError> {
    let field = |index: usize| format!("issuers_der[{index}]");
    let mut issuers: Vec<_> = known.into_iter().filter(|(_, issuer)| issuer.not_after() >= now).collect();
    let mut added = Vec::new();
    for (index, der) in given.into_iter().enumerate() {
        let issuer =
            Certificate::from_der(&der).map_err(|error| invalid(&field(index), error.to_string()))?;
        if !issuer.is_issuer() {
            let problem = format!("{} is neither a CA's nor a CRL issuer's certificate", issuer.subject());
            return Err(invalid(&field(index), problem));
        }
        // The anchor itself may be in a file with the whole chain.
        let is_known = |(_, known): &(_, Certificate)| known.fingerprint() == issuer.fingerprint();
        if issuer.fingerprint() != anchor.fingerprint() && !issuers.iter().any(is_known) {
            issuers.push((der, issuer.clone()));
            added.push((index, issuer));
        }
    }
    if issuers.len() > ISSUERS_MAX {
        return Err(invalid("issuers_der", format!("an anchor has at most {ISSUERS_MAX} CAs below it")));
    }
    let between: Vec<_> = issuers.iter().map(|(_, issuer)| issuer.clone()).collect();
    let rules = Rules { revocation: Revocation::Off, ..Rules::new(Purpose::Any, now) };
    for (index, issuer) in added {
        path::validate(&issuer, &between, anchor, &[], &rules, &Work::default()).map_err(|error| {
            invalid(&field(index), format!("{} is not below the anchor: {error}", issuer.subject()))
        })?;
    }
    Ok(issuers)
}

fn anchor_event(event: Event, anchor: &Anchor, facts: &CertificateFacts) -> Event {
    event.tenant(&anchor.tenant).details(details::json(&AnchorDetails {
        anchor: anchor.name.clone(),
        certificate: anchor.fingerprint,
        subject: facts.subject.clone(),
    }))
}

fn internal(error: PathError) -> BrokerError {
    BrokerError::Internal(format!("an anchor or CRL in the store: {error}"))
}

fn changed_meanwhile() -> BrokerError {
    BrokerError::Unavailable {
        code: "STORE_UNAVAILABLE",
        reason: "an anchor's CRL was being replaced".to_owned(),
        retry_after: std::time::Duration::from_secs(1),
    }
}
