//! Certificate revocation lists (RFC 5280 5), version 2, signed by the CA that issued: the complete one, and shards of
//! it, each for the certificates that name it as their distribution point.

use super::encode::{
    ENUMERATED, INTEGER, SEQUENCE, context_constructed, extension, signature_algorithm, time, tlv, unsigned,
};
use super::extensions::full_name;
use super::issue::{SigningCa, assemble};
use crate::clock::Timestamp;
use crate::credential::RevocationReason;
use crate::hsm::SignatureAlgorithm;
use const_oid::db::rfc5280 as id;

/// One withdrawn certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlEntry {
    /// Its serial number, as in [`super::Tbs`].
    pub serial: [u8; 16],
    /// When it was withdrawn.
    pub revoked_at: Timestamp,
    /// Why. `Unspecified` is left out of the CRL (RFC 5280 5.3.1).
    pub reason: RevocationReason,
}

/// A CRL to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TbsCrl {
    /// TBSCertList, DER: exactly the bytes to be signed.
    pub der: Vec<u8>,
    /// How the CA must sign.
    pub algorithm: SignatureAlgorithm,
}

impl TbsCrl {
    /// The CertificateList, DER, with the CA's signature.
    pub fn assemble(&self, signature: &[u8]) -> Vec<u8> {
        assemble(&self.der, self.algorithm, signature)
    }
}

/// The complete CRL of `ca`, or the shard that is served at `shard_url`. `number` only ever grows (RFC 5280 5.2.3). The
/// entries may come in any order and must not repeat a serial number.
///
/// A shard says so in a critical issuingDistributionPoint (RFC 5280 5.2.5), whose name is the one in the certificates'
/// cRLDistributionPoints: it cannot be passed off as the list of other certificates.
pub fn crl(
    ca: &SigningCa,
    shard_url: Option<&str>,
    number: u64,
    this_update: Timestamp,
    next_update: Timestamp,
    entries: &[CrlEntry],
) -> TbsCrl {
    let mut revoked = Vec::with_capacity(entries.len() * 56);
    for entry in entries {
        revoked.extend(revoked_certificate(entry));
    }
    // revokedCertificates is absent rather than empty (RFC 5280 5.1.2.6).
    let revoked = if entries.is_empty() { Vec::new() } else { tlv(SEQUENCE, &[&revoked]) };
    let crl_number = extension(id::ID_CE_CRL_NUMBER, false, &unsigned(&number.to_be_bytes()));
    let distribution_point = shard_url.map(|url| {
        let name = tlv(context_constructed(0), &[&full_name(url)]);
        extension(id::ID_CE_ISSUING_DISTRIBUTION_POINT, true, &tlv(SEQUENCE, &[&name]))
    });
    let extensions = tlv(
        SEQUENCE,
        &[&ca.authority_key_identifier, &crl_number, distribution_point.as_deref().unwrap_or_default()],
    );
    let der = tlv(
        SEQUENCE,
        &[
            &[INTEGER, 1, 1], // version 2
            &signature_algorithm(ca.algorithm),
            &ca.name_der,
            &time(this_update),
            &time(next_update),
            &revoked,
            &tlv(context_constructed(0), &[&extensions]),
        ],
    );
    TbsCrl { der, algorithm: ca.algorithm }
}

fn revoked_certificate(entry: &CrlEntry) -> Vec<u8> {
    let extensions = match entry.reason {
        RevocationReason::Unspecified => Vec::new(),
        reason => {
            let code = tlv(ENUMERATED, &[&[reason.code()]]);
            tlv(SEQUENCE, &[&extension(id::ID_CE_CRL_REASONS, false, &code)])
        }
    };
    tlv(SEQUENCE, &[&unsigned(&entry.serial), &time(entry.revoked_at), &extensions])
}
