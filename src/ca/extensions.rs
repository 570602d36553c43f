//! Certificate extensions that certificates of several kinds have (RFC 5280 4.2), DER.

use super::encode::{BOOLEAN, SEQUENCE, context, context_constructed, extension, oid, tlv, unsigned};
use super::profile::ExtendedKeyUsage;
use const_oid::db::rfc5280 as id;

/// `fullName [0] { URI [6] }` of a DistributionPointName (RFC 5280 4.2.1.13).
pub(super) fn full_name(url: &str) -> Vec<u8> {
    tlv(context_constructed(0), &[&tlv(context(6), &[url.as_bytes()])])
}

/// cRLDistributionPoints with one point: SEQUENCE OF DistributionPoint { distributionPoint [0] ... }.
pub(super) fn crl_distribution_points(url: &str) -> Vec<u8> {
    let point = tlv(SEQUENCE, &[&tlv(context_constructed(0), &[&full_name(url)])]);
    extension(id::ID_CE_CRL_DISTRIBUTION_POINTS, false, &tlv(SEQUENCE, &[&point]))
}

/// Critical basicConstraints with cA absent (FALSE is the default and not encoded) and critical keyUsage
/// digitalSignature: two Extensions that every end-entity certificate begins with.
pub(super) const END_ENTITY: [u8; 30] = [
    SEQUENCE, 12, 6, 3, 0x55, 0x1d, 0x13, BOOLEAN, 1, 0xff, 4, 2, SEQUENCE, 0, // basicConstraints
    SEQUENCE, 14, 6, 3, 0x55, 0x1d, 0x0f, BOOLEAN, 1, 0xff, 4, 4, 3, 2, 7, 0x80, // keyUsage
];

/// Critical basicConstraints with cA and pathLen, and critical keyUsage keyCertSign (5) and cRLSign (6).
pub(super) fn certification_authority(path_length: u8) -> Vec<u8> {
    let constraints = tlv(SEQUENCE, &[&[BOOLEAN, 1, 0xff], &unsigned(&[path_length])]);
    let mut extensions = extension(id::ID_CE_BASIC_CONSTRAINTS, true, &constraints);
    extensions.extend(extension(id::ID_CE_KEY_USAGE, true, &[3, 2, 1, 0b0000_0110]));
    extensions
}

/// extKeyUsage, not critical (3GPP TS 33.310 6.1.3c).
pub(super) fn extended_key_usage(usages: &[ExtendedKeyUsage]) -> Vec<u8> {
    let ids: Vec<u8> = usages
        .iter()
        .flat_map(|usage| {
            oid(match usage {
                ExtendedKeyUsage::ClientAuth => id::ID_KP_CLIENT_AUTH,
                ExtendedKeyUsage::ServerAuth => id::ID_KP_SERVER_AUTH,
            })
        })
        .collect();
    extension(id::ID_CE_EXT_KEY_USAGE, false, &tlv(SEQUENCE, &[&ids]))
}

pub(super) fn subject_alt_name(critical: bool, general_names: &[u8]) -> Vec<u8> {
    extension(id::ID_CE_SUBJECT_ALT_NAME, critical, &tlv(SEQUENCE, &[general_names]))
}
