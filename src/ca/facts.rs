//! What a certificate says, read from its DER; PEM.

use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use der::asn1::{Ia5StringRef, PrintableStringRef, UintRef, Utf8StringRef};
use der::{Decode, Encode, Reader, SliceReader, Tagged};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName, SubjectKeyIdentifier};

/// Bytes that are no certificate (RFC 5280 4.1) in DER, or a PEM file without one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate: {0}")]
pub struct InvalidCertificate(pub String);

/// Larger certificates are refused before they are read. Real ones have 1 to 4 kB, post-quantum ones 20 kB.
pub const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;

/// What a certificate says of itself. Nothing here is verified: no signature, no path, no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the whole certificate's DER.
    pub fingerprint: Sha256Hash,
    /// Serial number: INTEGER contents, big-endian.
    pub serial: Vec<u8>,
    /// Subject as RFC 4514 text.
    pub subject: String,
    /// Subject, DER of the Name.
    pub subject_der: Vec<u8>,
    /// Issuer as RFC 4514 text.
    pub issuer: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
    /// SHA-256 of the SubjectPublicKeyInfo's DER.
    pub public_key: Sha256Hash,
    /// Common names of the subject, in the order of the DER.
    pub common_names: Vec<String>,
    /// dNSName entries of the subjectAltName.
    pub dns_names: Vec<String>,
    /// uniformResourceIdentifier entries of the subjectAltName.
    pub uris: Vec<String>,
    /// basicConstraints cA.
    pub is_ca: bool,
    /// subjectKeyIdentifier, if there is one.
    pub subject_key_identifier: Option<Vec<u8>>,
}

impl CertificateFacts {
    /// Reads one certificate, DER.
    ///
    /// # Errors
    /// [`InvalidCertificate`] for everything that is not exactly one certificate.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidCertificate> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(InvalidCertificate(format!("longer than {MAX_CERTIFICATE_BYTES} bytes")));
        }
        let invalid = |error: der::Error| InvalidCertificate(error.to_string());
        let certificate = Certificate::from_der(der).map_err(invalid)?;
        let tbs = certificate.tbs_certificate();
        let subject_alt_names = match tbs.get_extension::<SubjectAltName>().map_err(invalid)? {
            Some((_, names)) => names.0,
            None => Vec::new(),
        };
        let mut dns_names = Vec::new();
        let mut uris = Vec::new();
        for name in subject_alt_names {
            match name {
                GeneralName::DnsName(dns) => dns_names.push(dns.to_string()),
                GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.to_string()),
                _ => {}
            }
        }
        let basic_constraints = tbs.get_extension::<BasicConstraints>().map_err(invalid)?;
        let key_identifier = tbs.get_extension::<SubjectKeyIdentifier>().map_err(invalid)?;
        let public_key_der = tbs.subject_public_key_info().to_der().map_err(invalid)?;
        let seconds = |time: &x509_cert::time::Time| {
            Timestamp::from_unix_seconds(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
        };
        Ok(Self {
            fingerprint: Sha256Hash::of(der),
            serial: tbs.serial_number().as_bytes().to_vec(),
            subject: tbs.subject().to_string(),
            subject_der: tbs.subject().to_der().map_err(invalid)?,
            issuer: tbs.issuer().to_string(),
            not_before: seconds(&tbs.validity().not_before),
            not_after: seconds(&tbs.validity().not_after),
            public_key: Sha256Hash::of(&public_key_der),
            public_key_der,
            common_names: tbs.subject().iter().filter_map(common_name).collect(),
            dns_names,
            uris,
            is_ca: basic_constraints.is_some_and(|(_, constraints)| constraints.ca),
            subject_key_identifier: key_identifier
                .map(|(_, identifier)| identifier.0.into_bytes().into_vec()),
        })
    }

    /// Bits of the modulus, if the public key is RSA's (RFC 8017 A.1.1) and can be read. Signatures by keys of fewer than
    /// 2,048 are nowhere accepted.
    pub fn rsa_bits(&self) -> Option<usize> {
        let info = spki::SubjectPublicKeyInfoRef::from_der(&self.public_key_der).ok()?;
        if info.algorithm.oid != const_oid::db::rfc5912::RSA_ENCRYPTION {
            return None;
        }
        let mut reader = SliceReader::new(info.subject_public_key.as_bytes()?).ok()?;
        let modulus = reader.sequence(|key| {
            let modulus = UintRef::decode(key)?;
            UintRef::decode(key)?;
            der::Result::Ok(modulus)
        });
        let modulus = modulus.ok()?.as_bytes();
        let leading_zeros = modulus.first()?.leading_zeros() as usize;
        Some(modulus.len() * 8 - leading_zeros)
    }
}

/// The text of a common name in one of the string types that RFC 5280 lets CAs use today.
fn common_name(attribute: &AttributeTypeAndValue) -> Option<String> {
    if attribute.oid != const_oid::db::rfc4519::CN {
        return None;
    }
    let value = &attribute.value;
    match value.tag() {
        der::Tag::Utf8String => {
            value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str().to_owned())
        }
        der::Tag::PrintableString => {
            value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.as_str().to_owned())
        }
        der::Tag::Ia5String => {
            value.decode_as::<Ia5StringRef<'_>>().ok().map(|text| text.as_str().to_owned())
        }
        _ => None,
    }
}

/// PEM (RFC 7468) with one block. Labels in use: `CERTIFICATE`, `X509 CRL`, `PUBLIC KEY`.
pub fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    // Base64 is ASCII, so that every 64 bytes are 64 characters.
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| char::from(byte)));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// Every `CERTIFICATE` block of a PEM file, DER, in the file's order. Other blocks are passed over.
///
/// # Errors
/// [`InvalidCertificate`] if a block is broken or there is none.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<Vec<u8>>, InvalidCertificate> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .map(|block| block.map(|der| der.to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| InvalidCertificate(format!("broken PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(InvalidCertificate(
            "no block -----BEGIN CERTIFICATE----- in the file; give a PEM file".to_owned(),
        ));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::path::validate_client;
    use proptest::prelude::*;

    #[test]
    fn a_pem_file_is_read_back_as_the_certificates_that_were_written() {
        let ders: [&[u8]; 2] = [&[7; 100], b"x"];
        let text = format!("comment\n{}{}", pem("CERTIFICATE", ders[0]), pem("CERTIFICATE", ders[1]));
        assert_eq!(certificates_from_pem(text.as_bytes()).unwrap(), ders);
        assert!(certificates_from_pem(pem("PUBLIC KEY", b"x").as_bytes()).is_err());
        assert!(
            certificates_from_pem(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").is_err()
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_certificate_readers_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = certificates_from_pem(&bytes);
            // Often enough a SEQUENCE, so that the readers get beyond the first byte.
            if let Some(first) = bytes.first_mut() {
                *first = 0x30;
            }
            let _ = CertificateFacts::parse(&bytes);
            prop_assert!(validate_client(&[bytes.clone()], &[bytes], Timestamp::from_unix_seconds(0)).is_err());
        }
    }
}
