//! An X.509 certificate as initial credential (SEC 005 8.1.2.3: a certificate from an anchor that the tenant trusts).
//!
//! Two steps with the caller's look-up in between: [`verify`] judges the path and says the tenant, which follows
//! from the anchor and never from the subject; [`match_registration`] finds the one registration that it is for.

use super::{
    CertificateName, InitialCredentialState, Pin, Purpose, Refusal, RegisteredCredential, RegisteredProof,
    Verified,
};
use crate::ca::{CertificateFacts, PathError, validate_client};
use crate::clock::Timestamp;
use crate::nfv::{AnchorName, Sha256Hash, TenantId};

/// A trust anchor that an operator configured for one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Whose anchor it is.
    pub tenant: TenantId,
    /// Its name, unique in the tenant.
    pub name: AnchorName,
    /// Its certificate, DER.
    pub der: Vec<u8>,
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

    /// What a registration may have pinned: the fingerprint first, then every dNSName, URI and common name. Look
    /// these up among the tenant's registrations.
    pub fn pins(&self) -> Vec<Pin> {
        let fingerprint = Pin::Fingerprint(self.fingerprint);
        std::iter::once(fingerprint).chain(self.names.iter().cloned().map(Pin::Name)).collect()
    }
}

/// Judges a peer's chain (DER, leaf first) against the anchors of **all** tenants.
///
/// # Errors
/// [`Refusal::Path`] if it leads to none, [`Refusal::Ambiguous`] if it leads to anchors of more than one tenant.
pub fn verify(chain: &[Vec<u8>], anchors: &[Anchor], now: Timestamp) -> Result<X509Evidence, Refusal> {
    let ders: Vec<Vec<u8>> = anchors.iter().map(|anchor| anchor.der.clone()).collect();
    let mut reached = validate_client(chain, &ders, now)?.into_iter().map(|index| &anchors[index]);
    let leaf = chain.first().ok_or(PathError::Empty)?;
    let facts = CertificateFacts::parse(leaf).map_err(|error| PathError::Malformed(error.0))?;
    let first = reached.next().ok_or_else(|| PathError::UnknownIssuer("no anchor".to_owned()))?;
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

/// Finds the registration that the evidence is for, among what the caller looked up by [`X509Evidence::pins`]
/// (more may be given: tenant, anchor and pin are compared here). A fingerprint goes before a name: names are
/// shared by a renewed certificate, a fingerprint is not.
///
/// # Errors
/// [`Refusal::NotRegistered`]; [`Refusal::Ambiguous`] if it fits registrations of several VNFCIs;
/// [`Refusal::Spent`], [`Refusal::Voided`] or [`Refusal::RegistrationExpired`] for the one that fits.
pub fn match_registration(
    evidence: &X509Evidence,
    registered: &[RegisteredCredential],
    purpose: Purpose,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    let fits = |candidate: &&RegisteredCredential, by_fingerprint: bool| match &candidate.proof {
        RegisteredProof::X509 { anchor, pin } => {
            candidate.tenant == evidence.tenant
                && evidence.anchors.contains(anchor)
                && match pin {
                    Pin::Fingerprint(hash) => by_fingerprint && *hash == evidence.fingerprint,
                    Pin::Name(name) => !by_fingerprint && evidence.names.contains(name),
                }
        }
        RegisteredProof::Token { .. } => false,
    };
    for by_fingerprint in [true, false] {
        let fitting: Vec<_> = registered.iter().filter(|candidate| fits(candidate, by_fingerprint)).collect();
        // A name may have served before: for a VNFCI that is gone, or for an earlier arming of this one.
        let mut usable = fitting.iter().filter(|candidate| match candidate.state {
            InitialCredentialState::Open => true,
            InitialCredentialState::Spent => purpose == Purpose::Confirm,
            InitialCredentialState::Voided => false,
        });
        if let Some(&first) = usable.next()
            && let Some(other) = usable.find(|other| other.vnfci != first.vnfci)
        {
            return Err(Refusal::Ambiguous(format!(
                "initial credentials {} and {} of different VNFCIs both fit",
                first.id, other.id
            )));
        }
        // Open before spent before voided, then the newest (ids sort by time).
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
