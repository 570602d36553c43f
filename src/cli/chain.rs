//! Whether a delivered certificate leads to the root that the VNFCI trusts.

use super::failure::Failure;
use crate::clock::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Verifies the path (RFC 5280 6) from `leaf` over `intermediates` to one of `anchors`, all DER, for a TLS client or a
/// TLS server, whichever the certificate is for.
///
/// # Errors
/// [`Failure`] with what webpki found.
pub(super) fn verify_chain(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    anchors: &[Vec<u8>],
    now: Timestamp,
) -> Result<(), Failure> {
    let invalid = |error: webpki::Error| {
        Failure::failed(format!("the certificate does not lead to the trust anchor: {error}"))
    };
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf).map_err(invalid)?;
    let anchors: Vec<CertificateDer<'_>> =
        anchors.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let anchors =
        anchors.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    let intermediates: Vec<CertificateDer<'_>> =
        intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let time =
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.unix_seconds()).unwrap_or(0)));
    let verify = |usage| {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &intermediates,
            time,
            usage,
            None,
            None,
        )
        .map(|_| ())
    };
    verify(KeyUsage::client_auth()).or_else(|_| verify(KeyUsage::server_auth())).map_err(invalid)
}
