//! Whether a delivered certificate leads to the root that the VNFCI trusts.

use super::failure::Failure;
use crate::ca::path::{Certificate, PathError, Purpose, Rules, Work, validate};
use crate::clock::Timestamp;

/// Verifies the path (RFC 5280 6) from `leaf` over `intermediates` to one of `anchors`, all DER, for a TLS client or a
/// TLS server, whichever the certificate is for.
///
/// # Errors
/// [`Failure`] with what is nearest to a valid path.
pub(super) fn verify_chain(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    anchors: &[Vec<u8>],
    now: Timestamp,
) -> Result<(), Failure> {
    valid(leaf, intermediates, anchors, now).map_err(|error| {
        Failure::failed(format!("the certificate does not lead to the trust anchor: {error}"))
    })
}

fn valid(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    anchors: &[Vec<u8>],
    now: Timestamp,
) -> Result<(), PathError> {
    let leaf = Certificate::from_der(leaf)?;
    let all =
        |ders: &[Vec<u8>]| ders.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
    let (intermediates, anchors) = (all(intermediates)?, all(anchors)?);
    let work = Work::default();
    let mut nearest = PathError::Empty;
    for anchor in &anchors {
        for purpose in [Purpose::TlsClient, Purpose::TlsServerOfAnyName] {
            match validate(&leaf, &intermediates, anchor, &[], &Rules::new(purpose, now), &work) {
                Ok(_) => return Ok(()),
                Err(error) if error.nearness() > nearest.nearness() => nearest = error,
                Err(_) => {}
            }
        }
    }
    Err(nearest)
}
