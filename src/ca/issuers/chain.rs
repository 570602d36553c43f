//! CA certificates held against the one root that the operator configured.

use super::IssuerError;
use crate::ca::CertificateFacts;
use crate::ca::path::{self, Certificate, PathError, Purpose, Rules, ValidPath, Work};
use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use std::collections::HashMap;

/// A CA with the certificates up to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaChain {
    /// DER, the CA's own certificate first, the root last.
    pub certificates_der: Vec<Vec<u8>>,
}

/// The CAs of an issuer, every one of them verified to the configured root.
#[derive(Debug, Clone)]
pub struct ExternalCas {
    root_der: Vec<u8>,
    root: Certificate,
    /// Without the root.
    cas: Vec<Certificate>,
    ders: HashMap<Sha256Hash, Vec<u8>>,
}

impl ExternalCas {
    /// Verifies that **every** certificate is a CA's and has a valid path (RFC 5280 6) to `root_der` at `now`. The root itself
    /// may be among them or not.
    ///
    /// # Errors
    /// [`IssuerError::UntrustedChain`] that names the first certificate that does not.
    pub fn verify(root_der: &[u8], certificates: &[Vec<u8>], now: Timestamp) -> Result<Self, IssuerError> {
        let rules = Rules::new(Purpose::Any, now);
        let root = Certificate::from_der(root_der).map_err(|error| untrusted(&error))?;
        path::check_anchor(&root, &rules).map_err(|error| untrusted(&error))?;
        let mut found = Self { root_der: root_der.to_vec(), root, cas: Vec::new(), ders: HashMap::default() };
        for der in certificates.iter().filter(|der| *der != root_der) {
            let malformed = |problem: String| IssuerError::Malformed(format!("a certificate: {problem}"));
            let facts = CertificateFacts::parse(der).map_err(|error| malformed(error.to_string()))?;
            if !facts.is_ca {
                return Err(IssuerError::UntrustedChain(format!("{:?} is not a CA's", facts.subject)));
            }
            found.cas.push(Certificate::from_der(der).map_err(|error| malformed(error.to_string()))?);
            found.ders.insert(facts.fingerprint, der.clone());
        }
        for ca in &found.cas {
            found.path(ca, &rules).map_err(|error| untrusted(&error))?;
        }
        Ok(found)
    }

    /// The chain of the CA that signed a certificate (DER), which has a valid path to the root for each of these purposes.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn chain_of(
        &self,
        certificate_der: &[u8],
        purposes: &[Purpose],
        now: Timestamp,
    ) -> Result<CaChain, PathError> {
        let leaf = Certificate::from_der(certificate_der)?;
        let mut above = Vec::new();
        for purpose in purposes {
            let path = self.path(&leaf, &Rules::new(purpose.clone(), now))?;
            above = path.certificates().iter().skip(1).filter_map(|ca| self.ders.get(ca).cloned()).collect();
        }
        above.push(self.root_der.clone());
        Ok(CaChain { certificates_der: above })
    }

    fn path(&self, certificate: &Certificate, rules: &Rules) -> Result<ValidPath, PathError> {
        path::validate(certificate, &self.cas, &self.root, &[], rules, &Work::default())
    }
}

fn untrusted(error: &PathError) -> IssuerError {
    IssuerError::UntrustedChain(error.to_string())
}
