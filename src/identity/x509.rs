//! An X.509 certificate as initial credential (SEC 005 8.1.2.3: a certificate from an anchor that the tenant trusts).
//!
//! Two steps with the caller's look-up in between: [`verify`] judges the path and says the tenant, which follows
//! from the anchor and never from the subject; [`match_registration`] finds the one registration that it is for.

pub use crate::ca::path::Revocation;

use super::{
    CertificateName, InitialCredential, InitialCredentialKind, InitialCredentialState, Purpose, Refusal,
    Verified,
};
use crate::ca::CertificateFacts;
use crate::ca::path::{
    self, Certificate, Conformance, Crl, PathError, PolicyRules, PolicySet, Purpose as Use, Rules, Work,
};
use crate::clock::Timestamp;
use crate::nfv::{AnchorName, Sha256Hash, TenantId};
use std::sync::Arc;

/// A trust anchor that an operator configured for one tenant.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// Whose anchor it is.
    pub tenant: TenantId,
    /// Its name, unique in the tenant.
    pub name: AnchorName,
    /// Its certificate.
    pub certificate: Arc<Certificate>,
    /// Certificates of CAs and CRL issuers below it that the operator gave, for paths that lack them.
    pub issuers: Vec<Arc<Certificate>>,
    /// CRLs of its own and of CAs below it.
    pub crls: Vec<Arc<Crl>>,
    /// What is demanded of them.
    pub revocation: Revocation,
    /// Certificate policies of which a path must be valid for one; empty: none is demanded.
    pub policies: PolicySet,
    /// How much of RFC 5280's profile is demanded.
    pub conformance: Conformance,
}

impl Anchor {
    fn rules(&self, now: Timestamp) -> Rules {
        let acceptable = (!self.policies.is_empty()).then(|| self.policies.clone());
        let policies =
            PolicyRules { require_explicit: acceptable.is_some(), acceptable, ..PolicyRules::default() };
        Rules {
            policies,
            revocation: self.revocation,
            conformance: self.conformance,
            ..Rules::new(Use::TlsClient, now)
        }
    }
}

/// A client certificate with a valid path to anchors of exactly one tenant. Only [`verify`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Evidence {
    tenant: TenantId,
    anchors: Vec<AnchorName>,
    fingerprint: Sha256Hash,
    names: Vec<CertificateName>,
}

impl X509Evidence {
    /// The tenant of the anchors.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Every anchor of the tenant that the path leads to, at least one.
    pub fn anchors(&self) -> &[AnchorName] {
        &self.anchors
    }

    /// SHA-256 of the leaf certificate's DER.
    pub fn fingerprint(&self) -> Sha256Hash {
        self.fingerprint
    }

    /// Every name in the leaf, for looking up registrations by name.
    pub fn names(&self) -> &[CertificateName] {
        &self.names
    }

    /// Whether it leads to this anchor of this tenant.
    fn leads_to(&self, tenant: &TenantId, anchor: &AnchorName) -> bool {
        self.tenant == *tenant && self.anchors.contains(anchor)
    }
}

/// Judges a peer's chain (DER, leaf first) against the anchors of **all** tenants.
///
/// # Errors
/// [`Refusal::Path`] if it leads to none, [`Refusal::Ambiguous`] if it leads to anchors of more than one tenant.
pub fn verify(
    chain: &[impl AsRef<[u8]>],
    anchors: &[Anchor],
    now: Timestamp,
) -> Result<X509Evidence, Refusal> {
    let (leaf_der, intermediates) = chain.split_first().ok_or(PathError::Empty)?;
    if chain.len() > path::MAX_CHAIN {
        let problem = format!("more than {} certificates", path::MAX_CHAIN);
        return Err(PathError::Malformed(problem).into());
    }
    let leaf = Certificate::from_der(leaf_der.as_ref())?;
    let facts = CertificateFacts::parse(leaf_der.as_ref()).map_err(|error| PathError::Malformed(error.0))?;
    let intermediates: Vec<_> = intermediates.iter().map(|der| Certificate::from_der(der.as_ref())).collect();
    // What is not needed for a path need not be readable; if there is no path it is the reason.
    let unreadable = intermediates.iter().find_map(|read| read.as_ref().err().cloned());
    let intermediates: Vec<_> = intermediates.into_iter().flatten().collect();
    let reached = match paths(&leaf, &intermediates, anchors, now) {
        Ok(reached) => reached,
        Err(PathError::UnknownIssuer(_)) if unreadable.is_some() => {
            return Err(unreadable.unwrap_or(PathError::Empty).into());
        }
        Err(error) => return Err(error.into()),
    };
    path::check_end_entity(&leaf, &Rules::new(Use::TlsClient, now))?;
    let mut reached = reached.into_iter();
    let first = reached.next().ok_or(PathError::Empty)?;
    let mut names_of_anchors = vec![first.name.clone()];
    for anchor in reached {
        if anchor.tenant != first.tenant {
            return Err(Refusal::Ambiguous(format!(
                "anchors {}/{} and {}/{} both issued it",
                first.tenant, first.name, anchor.tenant, anchor.name
            )));
        }
        names_of_anchors.push(anchor.name.clone());
    }
    let names = (facts.dns_names.iter().map(|name| CertificateName::dns(name)))
        .chain(facts.uris.iter().map(|uri| CertificateName::uri(uri)))
        .chain(facts.common_names.iter().map(|text| CertificateName::common_name(text)))
        .collect();
    Ok(X509Evidence {
        tenant: first.tenant.clone(),
        anchors: names_of_anchors,
        fingerprint: facts.fingerprint,
        names,
    })
}

/// The anchors, at least one, to which a certificate has a valid path as they demand, over certificates that were presented and
/// those that the anchor has.
///
/// # Errors
/// [`PathError`]: the failure that is nearest to success, and whatever one anchor says of a revocation.
pub fn paths<'a>(
    leaf: &Certificate,
    presented: &[Certificate],
    anchors: &'a [Anchor],
    now: Timestamp,
) -> Result<Vec<&'a Anchor>, PathError> {
    let work = Work::default();
    let mut reached = Vec::new();
    let mut nearest = PathError::UnknownIssuer(format!("none of {} trust anchors", anchors.len()));
    // One anchor at a time: that a chain leads to two of them must be seen, not hidden by the first match.
    for anchor in anchors {
        let rules = anchor.rules(now);
        // An anchor that has nothing to do with the leaf costs no step of the work, whatever is below it.
        let concerns = |issuer: &Certificate| {
            leaf.may_be_issued_by(issuer) || presented.iter().any(|known| known.may_be_issued_by(issuer))
        };
        let own = anchor.issuers.iter().map(|issuer| &**issuer);
        let with_issuers: Vec<Certificate>;
        let intermediates = if own.clone().chain([&*anchor.certificate]).any(concerns) {
            with_issuers = presented.iter().chain(own).cloned().collect();
            &with_issuers
        } else {
            presented
        };
        match path::validate(leaf, intermediates, &anchor.certificate, &anchor.crls, &rules, &work) {
            Ok(_) => reached.push(anchor),
            // What one anchor refuses by its rules, another one may not accept by laxer ones.
            Err(error @ (PathError::Revoked(_) | PathError::TooMuchWork(_))) => return Err(error),
            Err(error) if error.nearness() > nearest.nearness() => nearest = error,
            Err(_) => {}
        }
    }
    if reached.is_empty() { Err(nearest) } else { Ok(reached) }
}

/// Finds the registration that the evidence is for, among what the caller looked up by fingerprint and
/// [`X509Evidence::names`]
/// (more may be given: tenant, anchor and pin are compared here). A fingerprint goes before a name: names are
/// shared by a renewed certificate, a fingerprint is not.
///
/// # Errors
/// [`Refusal::NotRegistered`]; [`Refusal::Ambiguous`] if it fits registrations of several VNFCIs;
/// [`Refusal::Spent`], [`Refusal::Voided`] or [`Refusal::RegistrationExpired`] for the one that fits.
pub fn match_registration(
    evidence: &X509Evidence,
    registered: &[InitialCredential],
    purpose: Purpose,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    let fits = |candidate: &&InitialCredential, by_fingerprint: bool| match &candidate.kind {
        InitialCredentialKind::X509Fingerprint { anchor, fingerprint } => {
            by_fingerprint
                && evidence.leads_to(&candidate.tenant, anchor)
                && *fingerprint == evidence.fingerprint
        }
        InitialCredentialKind::X509Name { anchor, name } => {
            !by_fingerprint && evidence.leads_to(&candidate.tenant, anchor) && evidence.names.contains(name)
        }
        InitialCredentialKind::Token => false,
    };
    for by_fingerprint in [true, false] {
        let fitting: Vec<_> = registered.iter().filter(|candidate| fits(candidate, by_fingerprint)).collect();
        // A name may have served before: for a VNFCI that is gone, or for an earlier arming of this one.
        let open = fitting.iter().any(|candidate| candidate.state == InitialCredentialState::Open);
        let mut usable = fitting.iter().filter(|candidate| match candidate.state {
            InitialCredentialState::Open => true,
            InitialCredentialState::Spent => match purpose {
                Purpose::Claim => false,
                Purpose::Enrol => !open,
                Purpose::Confirm => true,
            },
            InitialCredentialState::Void => false,
        });
        if let Some(&first) = usable.next()
            && let Some(other) = usable.find(|other| other.vnfci != first.vnfci)
        {
            return Err(Refusal::Ambiguous(format!(
                "initial credentials {} and {} of different VNFCIs both fit",
                first.id, other.id
            )));
        }
        // Open before spent before void, then the newest (ids sort by time).
        let best = fitting.iter().min_by_key(|candidate| (candidate.state, std::cmp::Reverse(candidate.id)));
        if let Some(candidate) = best {
            return Verified::new(candidate, evidence.fingerprint, purpose, now);
        }
    }
    Err(Refusal::NotRegistered(format!(
        "certificate sha256:{} in tenant {}",
        evidence.fingerprint, evidence.tenant
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::issue::root;
    use crate::ca::{SigningCa, assemble};
    use crate::nfv::InitialCredentialId;
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use std::time::Duration;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn now() -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000)
    }

    fn key() -> (EcdsaKeyPair, Vec<u8>) {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let spki = key.public_key().as_der().unwrap().as_ref().to_vec();
        (key, spki)
    }

    /// An operator's CA that issues initial certificates by itself.
    struct OperatorCa {
        key: EcdsaKeyPair,
        der: Vec<u8>,
    }

    impl OperatorCa {
        fn new() -> Self {
            let (key, spki) = key();
            let tbs = root("initial", &spki, YEAR, now(), &mut rand::rng()).unwrap();
            let signature = key.sign(&SystemRandom::new(), &tbs.der).unwrap();
            let der = assemble(&tbs.der, tbs.algorithm, signature.as_ref());
            Self { key, der }
        }

        fn client(&self, common_name: &str) -> Vec<u8> {
            let ca = SigningCa::new(&self.der, "http://example.org/crl").unwrap();
            let tbs = ca.client(common_name, "vnfci", &key().1, YEAR / 2, now(), &mut rand::rng()).unwrap();
            let signature = self.key.sign(&SystemRandom::new(), &tbs.der).unwrap();
            assemble(&tbs.der, tbs.algorithm, signature.as_ref())
        }

        fn anchor(&self, tenant: &str, name: &str) -> Anchor {
            Anchor {
                tenant: tenant.parse().unwrap(),
                name: name.parse().unwrap(),
                certificate: Arc::new(Certificate::from_der(&self.der).unwrap()),
                issuers: Vec::new(),
                crls: Vec::new(),
                revocation: Revocation::IfPresent,
                policies: PolicySet::new(),
                conformance: Conformance::Strict,
            }
        }
    }

    fn registration(vnfci: &str, kind: InitialCredentialKind) -> InitialCredential {
        InitialCredential {
            id: InitialCredentialId::generate(),
            tenant: "blue".parse().unwrap(),
            vnfci: vnfci.parse().unwrap(),
            vnf_instance: "amf".parse().unwrap(),
            generation: 1,
            kind,
            expires_at: now().plus(YEAR),
            state: InitialCredentialState::Open,
        }
    }

    fn evidence(common_name: &str) -> X509Evidence {
        let ca = OperatorCa::new();
        verify(&[ca.client(common_name)], &[ca.anchor("blue", "vim")], now()).unwrap()
    }

    fn name(anchor: &str, text: &str) -> InitialCredentialKind {
        let name = CertificateName::common_name(text);
        InitialCredentialKind::X509Name { anchor: anchor.parse().unwrap(), name }
    }

    fn fingerprint(anchor: &str, evidence: &X509Evidence) -> InitialCredentialKind {
        let fingerprint = evidence.fingerprint();
        InitialCredentialKind::X509Fingerprint { anchor: anchor.parse().unwrap(), fingerprint }
    }

    fn claim(evidence: &X509Evidence, registered: &[InitialCredential]) -> Result<Verified, Refusal> {
        match_registration(evidence, registered, Purpose::Claim, now())
    }

    #[test]
    fn the_tenant_follows_from_the_anchor_that_issued() {
        let (blue, red) = (OperatorCa::new(), OperatorCa::new());
        let anchors = [red.anchor("red", "vim"), blue.anchor("blue", "vim"), blue.anchor("blue", "second")];
        // The subject says another tenant; it is not asked.
        let evidence = verify(&[blue.client("red")], &anchors, now()).unwrap();
        assert_eq!(evidence.tenant().as_str(), "blue");
        assert_eq!(evidence.anchors().iter().map(AnchorName::as_str).collect::<Vec<_>>(), ["vim", "second"]);
    }

    #[test]
    fn thousands_of_other_anchors_do_not_use_up_the_work() {
        let (blue, red) = (OperatorCa::new(), OperatorCa::new());
        let mut anchors: Vec<_> = (0..3_000).map(|i| red.anchor("red", &format!("vim-{i}"))).collect();
        anchors.push(blue.anchor("blue", "vim"));
        assert_eq!(verify(&[blue.client("amf-1")], &anchors, now()).unwrap().tenant().as_str(), "blue");
    }

    #[test]
    fn an_anchor_of_two_tenants_refuses() {
        let ca = OperatorCa::new();
        let anchors = [ca.anchor("blue", "vim"), ca.anchor("red", "vim")];
        let refused = verify(&[ca.client("x")], &anchors, now());
        assert!(matches!(refused, Err(Refusal::Ambiguous(_))), "{refused:?}");
        let refused = verify(&[ca.client("x")], &[OperatorCa::new().anchor("blue", "vim")], now());
        assert!(matches!(refused, Err(Refusal::Path(PathError::UnknownIssuer(_)))), "{refused:?}");
    }

    #[test]
    fn a_registration_fits_by_fingerprint_or_name_with_its_tenant_and_anchor() {
        let evidence = evidence("amf-1");
        assert_eq!(evidence.names(), [CertificateName::common_name("amf-1")]);
        for kind in [|anchor, _: &_| name(anchor, "amf-1"), fingerprint] {
            let fits = registration("v", kind("vim", &evidence));
            let verified = claim(&evidence, std::slice::from_ref(&fits)).unwrap();
            assert_eq!((verified.credential(), verified.vnfci().as_str()), (fits.id, "v"));
            assert_eq!(verified.fingerprint(), evidence.fingerprint());
            let other_tenant = InitialCredential { tenant: "red".parse().unwrap(), ..fits.clone() };
            let other_anchor = registration("v", kind("other", &evidence));
            let token = InitialCredential { kind: InitialCredentialKind::Token, ..fits };
            let refused = claim(&evidence, &[other_tenant, other_anchor, token]);
            assert!(matches!(refused, Err(Refusal::NotRegistered(_))), "{refused:?}");
        }
        let refused = claim(&evidence, &[registration("v", name("vim", "amf-2"))]);
        assert!(matches!(refused, Err(Refusal::NotRegistered(_))), "{refused:?}");
    }

    #[test]
    fn a_name_that_is_registered_for_two_vnfcis_refuses() {
        let evidence = evidence("amf-1");
        let both = [registration("a", name("vim", "amf-1")), registration("b", name("vim", "amf-1"))];
        assert!(matches!(claim(&evidence, &both), Err(Refusal::Ambiguous(_))));
        // A fingerprint is more than a name.
        let pinned = registration("c", fingerprint("vim", &evidence));
        let [a, b] = both;
        assert_eq!(claim(&evidence, &[a, b, pinned]).unwrap().vnfci().as_str(), "c");
    }

    #[test]
    fn a_name_may_serve_again_after_its_vnfci_is_gone_or_armed_again() {
        let evidence = evidence("amf-1");
        let gone = InitialCredential {
            state: InitialCredentialState::Void,
            ..registration("a", name("vim", "amf-1"))
        };
        let spent = InitialCredential {
            state: InitialCredentialState::Spent,
            ..registration("b", name("vim", "amf-1"))
        };
        let open = registration("b", name("vim", "amf-1"));
        let all = [gone.clone(), spent.clone(), open.clone()];
        assert_eq!(claim(&evidence, &all).unwrap().credential(), open.id);
        assert_eq!(claim(&evidence, &all[..2]), Err(Refusal::Spent(spent.id)));
        assert_eq!(claim(&evidence, &all[..1]), Err(Refusal::Voided(gone.id)));
        let confirms = match_registration(&evidence, &all[..2], Purpose::Confirm, now()).unwrap();
        assert_eq!(confirms.credential(), spent.id);
    }
}
