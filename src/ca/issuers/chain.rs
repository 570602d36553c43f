//! CA certificates held against the one root that the operator configured.

use super::IssuerError;
use crate::ca::CertificateFacts;
use crate::clock::Timestamp;
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Encode, SliceReader};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_cert::Certificate;

/// A CA with the certificates up to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaChain {
    /// DER, the CA's own certificate first, the root last.
    pub certificates_der: Vec<Vec<u8>>,
}

/// The CAs of an issuer, every one of them verified to the configured root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalCas {
    root_der: Vec<u8>,
    chains: Vec<CaChain>,
}

impl ExternalCas {
    /// Verifies that **every** certificate leads to `root_der` at `now`: signatures, names, validity periods, and that each
    /// is a CA's. The root itself may be among them or not.
    ///
    /// # Errors
    /// [`IssuerError::UntrustedChain`] that names the first certificate that does not.
    pub fn verify(root_der: &[u8], certificates: &[Vec<u8>], now: Timestamp) -> Result<Self, IssuerError> {
        let root = Link::parse(root_der)?;
        root.in_force(now)?;
        let links = certificates.iter().map(|der| Link::parse(der)).collect::<Result<Vec<_>, _>>()?;
        let mut chains = Vec::new();
        for link in links.iter().filter(|link| link.der != root_der) {
            link.in_force(now)?;
            let mut path = vec![link.der.to_vec()];
            if !lead(link, &root, &links, &mut path) {
                return Err(IssuerError::UntrustedChain(format!("{:?} does not", link.facts.subject)));
            }
            chains.push(CaChain { certificates_der: path });
        }
        chains.push(CaChain { certificates_der: vec![root_der.to_vec()] });
        Ok(Self { root_der: root_der.to_vec(), chains })
    }

    /// The root, DER.
    pub fn root_der(&self) -> &[u8] {
        &self.root_der
    }

    /// Every certificate but the root, DER: intermediates of a path.
    pub(super) fn intermediates(&self) -> impl Iterator<Item = &[u8]> {
        self.chains.iter().filter_map(|chain| chain.certificates_der.first()).map(Vec::as_slice)
    }

    /// The shortest chain whose first certificate signed this one (DER).
    pub(super) fn signer(&self, certificate_der: &[u8]) -> Option<&CaChain> {
        let link = Link::parse(certificate_der).ok()?;
        let signed = self.chains.iter().filter(|chain| {
            let ca = chain.certificates_der.first().and_then(|der| Link::parse(der).ok());
            ca.is_some_and(|ca| link.is_signed_by(&ca))
        });
        signed.min_by_key(|chain| chain.certificates_der.len())
    }
}

/// Longest path that is followed.
const LONGEST: usize = 8;

/// Extends `path`, whose last certificate is `link`, up to the root; false if nothing leads there.
fn lead(link: &Link<'_>, root: &Link<'_>, links: &[Link<'_>], path: &mut Vec<Vec<u8>>) -> bool {
    if link.is_signed_by(root) {
        path.push(root.der.to_vec());
        return true;
    }
    if path.len() >= LONGEST {
        return false;
    }
    for next in links {
        if path.iter().all(|der| der != next.der) && link.is_signed_by(next) {
            path.push(next.der.to_vec());
            if lead(next, root, links, path) {
                return true;
            }
            path.pop();
        }
    }
    false
}

/// One certificate with what its signature is verified with.
struct Link<'a> {
    der: &'a [u8],
    facts: CertificateFacts,
    issuer_der: Vec<u8>,
    tbs_der: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Link<'a> {
    fn parse(der: &'a [u8]) -> Result<Self, IssuerError> {
        let malformed = |error: der::Error| IssuerError::Malformed(format!("a certificate: {error}"));
        let facts =
            CertificateFacts::parse(der).map_err(|error| IssuerError::Malformed(error.to_string()))?;
        let certificate = Certificate::from_der(der).map_err(malformed)?;
        let issuer_der = certificate.tbs_certificate().issuer().to_der().map_err(malformed)?;
        // The signed bytes as they are, not as they would be encoded again.
        let outer = AnyRef::from_der(der).map_err(malformed)?;
        let mut reader = SliceReader::new(outer.value()).map_err(malformed)?;
        let tbs_der = AnyRef::decode(&mut reader).and_then(|tbs| tbs.to_der()).map_err(malformed)?;
        AnyRef::decode(&mut reader).map_err(malformed)?;
        let signature = BitStringRef::decode(&mut reader).map_err(malformed)?.raw_bytes().to_vec();
        Ok(Self { der, facts, issuer_der, tbs_der, signature })
    }

    fn is_signed_by(&self, ca: &Link<'_>) -> bool {
        if !ca.facts.is_ca || self.issuer_der != ca.facts.subject_der {
            return false;
        }
        let der = CertificateDer::from(ca.der);
        let Ok(ca) = EndEntityCert::try_from(&der) else { return false };
        webpki::ALL_VERIFICATION_ALGS
            .iter()
            .any(|algorithm| ca.verify_signature(*algorithm, &self.tbs_der, &self.signature).is_ok())
    }

    fn in_force(&self, now: Timestamp) -> Result<(), IssuerError> {
        let bad = |what: &str| Err(IssuerError::UntrustedChain(format!("{:?} {what}", self.facts.subject)));
        if !self.facts.is_ca {
            return bad("is not a CA's");
        }
        if now >= self.facts.not_after {
            return bad("has expired");
        }
        if now < self.facts.not_before {
            return bad("is not valid yet");
        }
        Ok(())
    }
}
