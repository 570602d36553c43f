//! Validation of a client's certificate path (RFC 5280 6) to one of the trust anchors.

use super::facts::MAX_CERTIFICATE_BYTES;
use crate::clock::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Why no path was accepted; for the auditor, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The client sent no certificate.
    #[error("no certificate was presented")]
    Empty,
    /// A certificate cannot be read, or the chain is longer than anyone's is.
    #[error("malformed certificate or chain: {0}")]
    Malformed(String),
    /// No anchor issued it, or a signature is wrong.
    #[error("no path to a trust anchor: {0}")]
    UnknownIssuer(String),
    /// A certificate of the path is past its notAfter.
    #[error("a certificate of the path has expired")]
    Expired,
    /// A certificate of the path is before its notBefore.
    #[error("a certificate of the path is not valid yet")]
    NotYetValid,
    /// The certificate may not be used as a TLS client.
    #[error("the certificate is not for TLS client authentication")]
    WrongUsage,
    /// A path exists and breaks another rule (name or path length constraints, CA as end entity ...).
    #[error("the path is not valid: {0}")]
    Invalid(String),
}

/// Certificates that a client may send. TLS implementations bound it near this.
pub const MAX_CHAIN: usize = 10;

/// Validates a chain (DER, leaf first, then intermediates in any order) for TLS client authentication (RFC 5280
/// 4.2.1.12: the extended key usage may be absent, else it must have clientAuth) at `now`, without revocation.
/// Returns the indices of **every** anchor (certificates, DER) that it leads to, at least one.
///
/// An anchor is a name and a key (RFC 5280 6.1.1 d): its own validity period is not looked at, so that it is in
/// force until the operator removes it.
///
/// # Errors
/// [`PathError`]; if several anchors fail differently, the failure that is nearest to success.
pub fn validate_client(
    chain: &[impl AsRef<[u8]>],
    anchors: &[impl AsRef<[u8]>],
    now: Timestamp,
) -> Result<Vec<usize>, PathError> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(PathError::Empty);
    };
    if chain.len() > MAX_CHAIN {
        return Err(PathError::Malformed(format!("more than {MAX_CHAIN} certificates")));
    }
    if chain.iter().any(|der| der.as_ref().len() > MAX_CERTIFICATE_BYTES) {
        return Err(PathError::Malformed(format!("a certificate over {MAX_CERTIFICATE_BYTES} bytes")));
    }
    let leaf = CertificateDer::from(leaf.as_ref());
    let leaf = EndEntityCert::try_from(&leaf).map_err(|error| classify(&error))?;
    let intermediates: Vec<_> = intermediates.iter().map(|der| CertificateDer::from(der.as_ref())).collect();
    let time =
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.unix_seconds()).unwrap_or(0)));

    let mut reached = Vec::new();
    let mut nearest = PathError::UnknownIssuer("no trust anchor is configured".to_owned());
    let mut nearest_rank = 0;
    for (index, anchor) in anchors.iter().enumerate() {
        let anchor = CertificateDer::from(anchor.as_ref());
        // One anchor at a time: that a chain leads to two of them must be seen, not hidden by the first match.
        let verified = anchor_from_trusted_cert(&anchor).and_then(|anchor| {
            leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &[anchor],
                &intermediates,
                time,
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map(|_| ())
        });
        match verified {
            Ok(()) => reached.push(index),
            Err(error) => {
                let error = classify(&error);
                let rank = rank(&error);
                if rank > nearest_rank {
                    (nearest, nearest_rank) = (error, rank);
                }
            }
        }
    }
    if reached.is_empty() { Err(nearest) } else { Ok(reached) }
}

fn classify(error: &webpki::Error) -> PathError {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } => PathError::Expired,
        E::CertNotValidYet { .. } => PathError::NotYetValid,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => PathError::WrongUsage,
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => PathError::UnknownIssuer(error.to_string()),
        E::BadDer
        | E::BadDerTime
        | E::TrailingData(_)
        | E::ExtensionValueInvalid
        | E::InvalidCertValidity
        | E::InvalidSerialNumber
        | E::MalformedExtensions
        | E::UnsupportedCertVersion => PathError::Malformed(error.to_string()),
        other => PathError::Invalid(other.to_string()),
    }
}

/// How near a failure is to success: an expired path tells the auditor more than another anchor's "unknown issuer".
fn rank(error: &PathError) -> u8 {
    match error {
        PathError::Empty => 0,
        PathError::UnknownIssuer(_) => 1,
        PathError::Malformed(_) => 2,
        PathError::Invalid(_) => 3,
        PathError::WrongUsage => 4,
        PathError::NotYetValid => 5,
        PathError::Expired => 6,
    }
}
