//! The roots that a VNFCI trusts follow the tenant's trust chain: when it gets another root, who trusts the former one learns
//! of it over a connection that the former one authenticates.

use super::failure::Failure;
use super::files::{self, Readers};
use crate::api::proto::GetTrustChainResponse;
use crate::ca::path::{self, Certificate, Purpose, Rules};
use crate::ca::{CertificateFacts, pem};
use crate::clock::Timestamp;
use std::path::Path;

/// Adds the roots of `chain`, which came over a connection that the roots in `file` authenticated. What is there stays until
/// it expires: the broker, and other CAs' certificates, may lead to it.
///
/// # Errors
/// [`Failure`] for a chain that is none; the file is as it was.
pub(super) fn follow(chain: &GetTrustChainResponse, file: &Path, now: Timestamp) -> Result<(), Failure> {
    let mut roots = checked(chain, now)?;
    let held = files::read_certificates(file)?;
    if roots.iter().all(|root| held.contains(root)) {
        return Ok(());
    }
    for der in held {
        let expired = CertificateFacts::parse(&der).is_ok_and(|facts| facts.not_after <= now);
        if !expired && !roots.contains(&der) {
            roots.push(der);
        }
    }
    let text: String = roots.iter().map(|der| pem("CERTIFICATE", der)).collect();
    files::replace(file, text.as_bytes(), Readers::Everyone)
}

/// The roots of a trust chain: CAs' certificates within their validity, to the first of which the chain leads.
fn checked(chain: &GetTrustChainResponse, now: Timestamp) -> Result<Vec<Vec<u8>>, Failure> {
    let rules = Rules::new(Purpose::Any, now);
    let wrong = |problem: String| Failure::failed(format!("the broker's trust chain: {problem}"));
    for root in &chain.roots_der {
        let root = Certificate::from_der(root).map_err(|error| wrong(error.to_string()))?;
        path::check_anchor(&root, &rules).map_err(|error| wrong(error.to_string()))?;
    }
    if !chain.roots_der.contains(&chain.root_der) {
        return Err(wrong("its root is not among those in force".to_owned()));
    }
    path::validate_chain(&chain.chain_der, &chain.root_der, &rules)
        .map_err(|error| wrong(error.to_string()))?;
    Ok(chain.roots_der.clone())
}
