//! CA certificates held against the one root that the operator configured.

use super::IssuerError;
use crate::ca::CertificateFacts;
use crate::ca::path::{self, Certificate, PathError, Purpose, Rules, ValidPath, Work};
use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use std::collections::{HashMap, HashSet};

/// A CA with the certificates up to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaChain {
    /// DER, the CA's own certificate first, the root last.
    pub certificates_der: Vec<Vec<u8>>,
}

/// CAs of an issuer, every one of them verified to the configured root.
#[derive(Debug, Clone)]
pub struct ExternalCas {
    root_der: Vec<u8>,
    root: Certificate,
    /// Without the root.
    cas: Vec<Certificate>,
    ders: HashMap<Sha256Hash, Vec<u8>>,
}

impl ExternalCas {
    /// Takes those certificates (DER) that are CAs' and have a valid path (RFC 5280 6) to `root_der` at `now`. Others are left
    /// out: servers also send expired CAs, other roots, and those of a root's rollover (RFC 7030 4.1.3). The root itself
    /// may be among them or not.
    ///
    /// # Errors
    /// [`IssuerError::UntrustedChain`] if none leads to the root: it is not the CA that the operator meant.
    pub fn verify(root_der: &[u8], certificates: &[Vec<u8>], now: Timestamp) -> Result<Self, IssuerError> {
        let rules = Rules::new(Purpose::Any, now);
        let root = Certificate::from_der(root_der).map_err(|error| untrusted(&error))?;
        path::check_anchor(&root, &rules).map_err(|error| untrusted(&error))?;
        let mut found = Self { root_der: root_der.to_vec(), root, cas: Vec::new(), ders: HashMap::default() };
        let left_out = found.take(certificates, now);
        if found.cas.is_empty() && !certificates.iter().any(|der| der == root_der) {
            return Err(IssuerError::UntrustedChain(left_out.join("; ")));
        }
        Ok(found)
    }

    /// These together with CAs that came with a certificate, as far as they lead to the root.
    #[must_use]
    pub fn with(&self, certificates: &[Vec<u8>], now: Timestamp) -> Self {
        let mut found = self.clone();
        found.take(certificates, now);
        found
    }

    /// Says of those that are left out why.
    fn take(&mut self, certificates: &[Vec<u8>], now: Timestamp) -> Vec<String> {
        let mut left_out = Vec::new();
        let mut candidates = Vec::new();
        for der in certificates.iter().filter(|der| **der != self.root_der) {
            let parsed = CertificateFacts::parse(der).map_err(|error| error.to_string());
            match parsed.and_then(|facts| Ok((facts, Certificate::from_der(der).map_err(|e| e.to_string())?)))
            {
                Ok((facts, _)) if !facts.is_ca => left_out.push(format!("{:?} is not a CA's", facts.subject)),
                Ok((facts, certificate)) => {
                    if self.ders.insert(facts.fingerprint, der.clone()).is_none() {
                        candidates.push((facts, certificate));
                    }
                }
                Err(problem) => left_out.push(format!("a certificate cannot be read: {problem}")),
            }
        }
        // Any of them may be what another one needs on its way.
        self.cas.extend(candidates.iter().map(|(_, certificate)| certificate.clone()));
        let rules = Rules::new(Purpose::Any, now);
        let mut astray = HashSet::new();
        for (facts, certificate) in &candidates {
            if let Err(error) = self.path(certificate, &rules) {
                astray.insert(facts.fingerprint);
                self.ders.remove(&facts.fingerprint);
                left_out.push(error.to_string());
            }
        }
        self.cas.retain(|ca| !astray.contains(&ca.fingerprint()));
        for problem in &left_out {
            tracing::debug!(problem, "a CA certificate of an enrolment server is left out");
        }
        left_out
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
