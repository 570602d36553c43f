//! OCSP (RFC 6960): requests read, responses written. Signing and knowing what is revoked is the broker's.
//!
//! Requests are read with types derived by `der`; responses are written like certificates, from parts.

use super::encode::{
    ENUMERATED, OCTET_STRING, SEQUENCE, bit_string, context, context_constructed, extension,
    generalized_time, oid, signature_algorithm, tlv,
};
use super::facts::{CertificateFacts, InvalidCertificate};
use crate::clock::Timestamp;
use crate::credential::RevocationReason;
use crate::hsm::SignatureAlgorithm;
use der::asn1::{Any, ObjectIdentifier, OctetString};
use der::{Decode, Encode, Sequence};
use sha1::Digest;
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoRef};
use x509_cert::ext::Extension;
use x509_cert::serial_number::SerialNumber;

/// Longer requests are malformed. One of [`CERTIFICATES_MAX`] CertIDs with SHA-512 and a nonce of 128 octets has about 6 KiB.
pub const REQUEST_MAX: usize = 16 * 1024;
/// Certificates that one request may ask for.
pub const CERTIFICATES_MAX: usize = 32;
/// Octets of a nonce (RFC 9654 2.1).
const NONCE: std::ops::RangeInclusive<usize> = 1..=128;

const ID_PKIX_OCSP_BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const ID_PKIX_OCSP_NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");

/// Why a request got no status: the OCSPResponseStatus that says so (RFC 6960 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// It is no OCSP request, or asks for too much at once.
    MalformedRequest,
    /// A fault of ours.
    InternalError,
    /// The token or the store is away, the database was rolled back, or too many wait.
    TryLater,
    /// Its certificates have different issuers: no one response could be authoritative for all.
    Unauthorized,
}

impl Unanswered {
    /// The OCSPResponse, DER.
    pub fn response(self) -> Vec<u8> {
        let status = match self {
            Self::MalformedRequest => 1,
            Self::InternalError => 2,
            Self::TryLater => 3,
            Self::Unauthorized => 6,
        };
        tlv(SEQUENCE, &[&tlv(ENUMERATED, &[&[status]])])
    }

    /// For metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformed_request",
            Self::InternalError => "internal_error",
            Self::TryLater => "try_later",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// How a CertID names an issuer: the hashes of its subject (DER) and of its key's BIT STRING.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IssuerHashes {
    /// What most clients send.
    Sha1([u8; 20], [u8; 20]),
    /// What RFC 6960 B.1 and RFC 9654 move to.
    Sha256([u8; 32], [u8; 32]),
    /// Whoever wants no shorter hash anywhere.
    Sha384([u8; 48], [u8; 48]),
    /// The same.
    Sha512([u8; 64], [u8; 64]),
}

impl IssuerHashes {
    /// Every such name of a CA, from its certificate (DER).
    ///
    /// # Errors
    /// [`InvalidCertificate`].
    pub fn of(certificate_der: &[u8]) -> Result<[Self; 4], InvalidCertificate> {
        let facts = CertificateFacts::parse(certificate_der)?;
        let key = key_bits(&facts.public_key_der)?;
        let name = facts.subject_der.as_slice();
        Ok([
            Self::Sha1(sha1::Sha1::digest(name).into(), sha1::Sha1::digest(&key).into()),
            Self::Sha256(sha2::Sha256::digest(name).into(), sha2::Sha256::digest(&key).into()),
            Self::Sha384(sha2::Sha384::digest(name).into(), sha2::Sha384::digest(&key).into()),
            Self::Sha512(sha2::Sha512::digest(name).into(), sha2::Sha512::digest(&key).into()),
        ])
    }
}

/// One certificate that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The CertID as it was sent, DER: goes back as it came.
    pub id_der: Vec<u8>,
    /// Its issuer; none for hashes of a kind that we do not make.
    pub issuer: Option<IssuerHashes>,
    /// Serial number: content octets of the INTEGER.
    pub serial: Vec<u8>,
}

/// A request as far as it matters here. Its signature and its sender's name, if any, change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspRequest {
    /// 1 to [`CERTIFICATES_MAX`].
    pub certificates: Vec<Asked>,
    /// The nonce's octets (RFC 9654).
    pub nonce: Option<Vec<u8>>,
}

#[derive(Sequence)]
struct OcspRequestDer {
    tbs_request: TbsRequest,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    optional_signature: Option<Any>,
}

#[derive(Sequence)]
struct TbsRequest {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    version: Option<u8>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    requestor_name: Option<Any>,
    request_list: Vec<SingleRequest>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    request_extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct SingleRequest {
    req_cert: CertId,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    single_request_extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct CertId {
    hash_algorithm: AlgorithmIdentifierOwned,
    issuer_name_hash: OctetString,
    issuer_key_hash: OctetString,
    serial_number: SerialNumber,
}

impl OcspRequest {
    /// Reads an OCSPRequest, DER (RFC 6960 4.1.1).
    ///
    /// # Errors
    /// [`Unanswered::MalformedRequest`] for everything else, for too many certificates, for a critical extension that
    /// is not known, for a nonce whose length RFC 9654 2.1 forbids, and for more than one.
    pub fn parse(der: &[u8]) -> Result<Self, Unanswered> {
        if der.len() > REQUEST_MAX {
            return Err(Unanswered::MalformedRequest);
        }
        let malformed = |_: der::Error| Unanswered::MalformedRequest;
        let TbsRequest { version, request_list, request_extensions, .. } =
            OcspRequestDer::from_der(der).map_err(malformed)?.tbs_request;
        if version.unwrap_or(0) != 0 || !(1..=CERTIFICATES_MAX).contains(&request_list.len()) {
            return Err(Unanswered::MalformedRequest);
        }
        let mut nonce = None;
        for extension in request_extensions.into_iter().flatten() {
            if extension.extn_id == ID_PKIX_OCSP_NONCE {
                let octets = OctetString::from_der(extension.extn_value.as_bytes()).map_err(malformed)?;
                if !NONCE.contains(&octets.as_bytes().len()) {
                    return Err(Unanswered::MalformedRequest);
                }
                if nonce.replace(octets.into_bytes().into_vec()).is_some() {
                    return Err(Unanswered::MalformedRequest);
                }
            } else if extension.critical {
                return Err(Unanswered::MalformedRequest);
            }
        }
        let mut certificates = Vec::with_capacity(request_list.len());
        for SingleRequest { req_cert, single_request_extensions } in request_list {
            if single_request_extensions.iter().flatten().any(|extension| extension.critical) {
                return Err(Unanswered::MalformedRequest);
            }
            certificates.push(Asked {
                id_der: req_cert.to_der().map_err(malformed)?,
                issuer: req_cert.issuer(),
                serial: req_cert.serial_number.as_bytes().to_vec(),
            });
        }
        Ok(Self { certificates, nonce })
    }
}

impl CertId {
    fn issuer(&self) -> Option<IssuerHashes> {
        let (name, key) = (self.issuer_name_hash.as_bytes(), self.issuer_key_hash.as_bytes());
        match self.hash_algorithm.oid {
            const_oid::db::rfc5912::ID_SHA_1 => {
                Some(IssuerHashes::Sha1(name.try_into().ok()?, key.try_into().ok()?))
            }
            const_oid::db::rfc5912::ID_SHA_256 => {
                Some(IssuerHashes::Sha256(name.try_into().ok()?, key.try_into().ok()?))
            }
            const_oid::db::rfc5912::ID_SHA_384 => {
                Some(IssuerHashes::Sha384(name.try_into().ok()?, key.try_into().ok()?))
            }
            const_oid::db::rfc5912::ID_SHA_512 => {
                Some(IssuerHashes::Sha512(name.try_into().ok()?, key.try_into().ok()?))
            }
            _ => None,
        }
    }
}

/// What is known of a certificate (RFC 6960 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertStatus {
    /// Issued and not withdrawn.
    Good,
    /// Withdrawn, whether a CRL lists it yet or not.
    Revoked(Timestamp, RevocationReason),
    /// Never issued here, or by another CA.
    Unknown,
}

impl CertStatus {
    /// For metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Revoked(..) => "revoked",
            Self::Unknown => "unknown",
        }
    }

    fn der(self) -> Vec<u8> {
        match self {
            Self::Good => tlv(context(0), &[]),
            Self::Revoked(at, reason) => {
                let reason = match reason {
                    RevocationReason::Unspecified => Vec::new(),
                    reason => tlv(context_constructed(0), &[&tlv(ENUMERATED, &[&[reason.code()]])]),
                };
                tlv(context_constructed(1), &[&generalized_time(at), &reason])
            }
            Self::Unknown => tlv(context(2), &[]),
        }
    }
}

/// A response to be signed: the answers, in the order of the request.
#[derive(Debug, Clone)]
pub struct ResponseData<'a> {
    /// Each CertID as it was sent (DER), with what is known of it.
    pub answers: &'a [(&'a [u8], CertStatus)],
    /// SHA-1 of the responder's key: [`responder_key_hash`].
    pub responder: [u8; 20],
    /// thisUpdate and producedAt.
    pub this_update: Timestamp,
    /// nextUpdate.
    pub next_update: Timestamp,
    /// Goes back as it came.
    pub nonce: Option<&'a [u8]>,
}

impl ResponseData<'_> {
    /// ResponseData, DER: exactly the bytes to be signed (RFC 6960 4.2.1). The responder is named by its key.
    pub fn der(&self) -> Vec<u8> {
        let this_update = generalized_time(self.this_update);
        let next_update = tlv(context_constructed(0), &[&generalized_time(self.next_update)]);
        let mut responses = Vec::new();
        for (id, status) in self.answers {
            responses.extend(tlv(SEQUENCE, &[id, &status.der(), &this_update, &next_update]));
        }
        let nonce = self.nonce.map(|nonce| {
            let value = tlv(OCTET_STRING, &[nonce]);
            tlv(context_constructed(1), &[&tlv(SEQUENCE, &[&extension(ID_PKIX_OCSP_NONCE, false, &value)])])
        });
        tlv(
            SEQUENCE,
            &[
                &tlv(context_constructed(2), &[&tlv(OCTET_STRING, &[&self.responder])]),
                &this_update,
                &tlv(SEQUENCE, &[&responses]),
                nonce.as_deref().unwrap_or_default(),
            ],
        )
    }
}

/// The successful OCSPResponse, DER, from a ResponseData (DER), its signature and the responder's certificate (DER).
pub fn response(
    response_data: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
    responder_der: &[u8],
) -> Vec<u8> {
    let basic = tlv(
        SEQUENCE,
        &[
            response_data,
            &signature_algorithm(algorithm),
            &bit_string(signature),
            &tlv(context_constructed(0), &[&tlv(SEQUENCE, &[responder_der])]),
        ],
    );
    let bytes = tlv(SEQUENCE, &[&oid(ID_PKIX_OCSP_BASIC), &tlv(OCTET_STRING, &[&basic])]);
    tlv(SEQUENCE, &[&tlv(ENUMERATED, &[&[0]]), &tlv(context_constructed(0), &[&bytes])])
}

/// KeyHash of a ResponderID: SHA-1 of the BIT STRING of a public key (SubjectPublicKeyInfo, DER).
///
/// # Errors
/// [`InvalidCertificate`] for bytes that are no SubjectPublicKeyInfo.
pub fn responder_key_hash(spki_der: &[u8]) -> Result<[u8; 20], InvalidCertificate> {
    Ok(sha1::Sha1::digest(key_bits(spki_der)?).into())
}

fn key_bits(spki_der: &[u8]) -> Result<Vec<u8>, InvalidCertificate> {
    let spki =
        SubjectPublicKeyInfoRef::from_der(spki_der).map_err(|error| InvalidCertificate(error.to_string()))?;
    Ok(spki.subject_public_key.raw_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(nonce: Option<&[u8]>, certificates: usize) -> Vec<u8> {
        request_with(nonce.as_slice(), certificates)
    }

    fn request_with(nonces: &[&[u8]], certificates: usize) -> Vec<u8> {
        let algorithm = tlv(SEQUENCE, &[&oid(const_oid::db::rfc5912::ID_SHA_256)]);
        let hash = tlv(OCTET_STRING, &[&[7; 32]]);
        let id = tlv(SEQUENCE, &[&algorithm, &hash, &hash, &[2, 1, 5]]);
        let list = tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&id]).repeat(certificates)]);
        let nonces: Vec<u8> = nonces
            .iter()
            .flat_map(|nonce| extension(ID_PKIX_OCSP_NONCE, false, &tlv(OCTET_STRING, &[nonce])))
            .collect();
        let extensions = match nonces.as_slice() {
            [] => Vec::new(),
            nonces => tlv(context_constructed(2), &[&tlv(SEQUENCE, &[nonces])]),
        };
        tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&list, &extensions])])
    }

    #[test]
    fn a_request_with_two_nonces_is_malformed() {
        let two = request_with(&[&[1; 32], &[2; 32]], 1);
        assert_eq!(OcspRequest::parse(&two), Err(Unanswered::MalformedRequest));
    }

    #[test]
    fn a_request_is_read_with_its_nonce() {
        let read = OcspRequest::parse(&request(Some(&[9; 32]), 2)).unwrap();
        assert_eq!(read.nonce.as_deref(), Some(&[9; 32][..]));
        assert_eq!(read.certificates.len(), 2);
        assert_eq!(read.certificates[0].issuer, Some(IssuerHashes::Sha256([7; 32], [7; 32])));
        assert_eq!(read.certificates[0].serial, [5]);
    }

    #[test]
    fn a_nonce_has_one_to_128_octets_and_a_request_32_certificates_at_most() {
        for (nonce, certificates, good) in [
            (Some(0), 1, false),
            (Some(1), 1, true),
            (Some(128), 1, true),
            (Some(129), 1, false),
            (None, 0, false),
            (None, 32, true),
            (None, 33, false),
        ] {
            let nonce = nonce.map(|length| vec![1; length]);
            let read = OcspRequest::parse(&request(nonce.as_deref(), certificates));
            assert_eq!(read.is_ok(), good, "{nonce:?} {certificates}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_malformed_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(OcspRequest::parse(&bytes), Err(Unanswered::MalformedRequest));
        }

        #[test]
        fn a_changed_octet_never_makes_the_parser_panic(at in 0_usize..150, octet in any::<u8>()) {
            let mut der = request(Some(&[9; 32]), 1);
            let at = at % der.len();
            der[at] = octet;
            let _ = OcspRequest::parse(&der);
        }
    }
}
