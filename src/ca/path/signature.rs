//! Signatures on certificates and CRLs. What is not listed here is refused: MD5, SHA-1, DSA, RSA below 2048 bits.

use aws_lc_rs::signature::{self as lc, UnparsedPublicKey, VerificationAlgorithm};
use const_oid::db::{rfc5912, rfc8410};
use der::asn1::ObjectIdentifier;
use der::{Decode, Sequence};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

/// Why a signature was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SignatureError {
    /// Its algorithm, or the key's, is not accepted here.
    Algorithm(String),
    /// It is not by this key.
    Wrong,
}

/// Verifies `signature` over `message`.
pub(super) fn verify(
    algorithm: &AlgorithmIdentifierOwned,
    key: &SubjectPublicKeyInfoOwned,
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let verification = chosen(algorithm, key)?;
    let point_or_key = key.subject_public_key.as_bytes().ok_or(SignatureError::Wrong)?;
    UnparsedPublicKey::new(verification, point_or_key)
        .verify(message, signature)
        .map_err(|_| SignatureError::Wrong)
}

/// Whether signatures by this algorithm are accepted of some key.
///
/// # Errors
/// A sentence that names it.
pub(super) fn check_algorithm(algorithm: &AlgorithmIdentifierOwned) -> Result<(), String> {
    let accepted = match algorithm.oid {
        rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_384_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_512_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256
        | rfc5912::ECDSA_WITH_SHA_384
        | rfc5912::ECDSA_WITH_SHA_512
        | rfc8410::ID_ED_25519 => true,
        rfc5912::ID_RSASSA_PSS => pss(algorithm).is_some(),
        _ => false,
    };
    if accepted { Ok(()) } else { Err(format!("signature algorithm {} is not accepted", algorithm.oid)) }
}

fn chosen(
    algorithm: &AlgorithmIdentifierOwned,
    key: &SubjectPublicKeyInfoOwned,
) -> Result<&'static dyn VerificationAlgorithm, SignatureError> {
    let refused = || {
        SignatureError::Algorithm(format!(
            "signature algorithm {} with a key of type {}",
            algorithm.oid, key.algorithm.oid
        ))
    };
    let key_type = key.algorithm.oid;
    let rsa = key_type == rfc5912::RSA_ENCRYPTION;
    let verification: &'static dyn VerificationAlgorithm = match algorithm.oid {
        rfc5912::SHA_256_WITH_RSA_ENCRYPTION if rsa => &lc::RSA_PKCS1_2048_8192_SHA256,
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION if rsa => &lc::RSA_PKCS1_2048_8192_SHA384,
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION if rsa => &lc::RSA_PKCS1_2048_8192_SHA512,
        rfc5912::ID_RSASSA_PSS if rsa || key_type == rfc5912::ID_RSASSA_PSS => {
            pss(algorithm).ok_or_else(refused)?
        }
        rfc5912::ECDSA_WITH_SHA_256 | rfc5912::ECDSA_WITH_SHA_384 | rfc5912::ECDSA_WITH_SHA_512
            if key_type == rfc5912::ID_EC_PUBLIC_KEY =>
        {
            let parameters = key.algorithm.parameters.as_ref().ok_or_else(refused)?;
            let curve = parameters.decode_as::<ObjectIdentifier>().map_err(|_| refused())?;
            ecdsa(algorithm.oid, curve).ok_or_else(refused)?
        }
        rfc8410::ID_ED_25519 if key_type == rfc8410::ID_ED_25519 => &lc::ED25519,
        _ => return Err(refused()),
    };
    Ok(verification)
}

fn ecdsa(algorithm: ObjectIdentifier, curve: ObjectIdentifier) -> Option<&'static dyn VerificationAlgorithm> {
    use rfc5912::{ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512};
    use rfc5912::{SECP_256_R_1, SECP_384_R_1, SECP_521_R_1};
    Some(match (curve, algorithm) {
        (SECP_256_R_1, ECDSA_WITH_SHA_256) => &lc::ECDSA_P256_SHA256_ASN1,
        (SECP_256_R_1, ECDSA_WITH_SHA_384) => &lc::ECDSA_P256_SHA384_ASN1,
        (SECP_256_R_1, ECDSA_WITH_SHA_512) => &lc::ECDSA_P256_SHA512_ASN1,
        (SECP_384_R_1, ECDSA_WITH_SHA_256) => &lc::ECDSA_P384_SHA256_ASN1,
        (SECP_384_R_1, ECDSA_WITH_SHA_384) => &lc::ECDSA_P384_SHA384_ASN1,
        (SECP_384_R_1, ECDSA_WITH_SHA_512) => &lc::ECDSA_P384_SHA512_ASN1,
        (SECP_521_R_1, ECDSA_WITH_SHA_256) => &lc::ECDSA_P521_SHA256_ASN1,
        (SECP_521_R_1, ECDSA_WITH_SHA_384) => &lc::ECDSA_P521_SHA384_ASN1,
        (SECP_521_R_1, ECDSA_WITH_SHA_512) => &lc::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

/// RSASSA-PSS-params (RFC 4055 3.1).
#[derive(Sequence)]
struct PssParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    hash: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    mask: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    salt: Option<u32>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    trailer: Option<u32>,
}

/// PSS with MGF1 of the same hash and a salt of the hash's length, as everyone makes it.
fn pss(algorithm: &AlgorithmIdentifierOwned) -> Option<&'static dyn VerificationAlgorithm> {
    let parameters = algorithm.parameters.as_ref()?.decode_as::<PssParameters>().ok()?;
    let (hash, mask) = (parameters.hash?, parameters.mask?);
    let mask_hash = AlgorithmIdentifierOwned::from_der(&der::Encode::to_der(mask.parameters.as_ref()?).ok()?);
    let mask_hash = mask_hash.ok()?;
    let one_hash = mask.oid == rfc5912::ID_MGF_1 && mask_hash.oid == hash.oid;
    if !one_hash || parameters.trailer.is_some_and(|trailer| trailer != 1) {
        return None;
    }
    Some(match (hash.oid, parameters.salt?) {
        (rfc5912::ID_SHA_256, 32) => &lc::RSA_PSS_2048_8192_SHA256,
        (rfc5912::ID_SHA_384, 48) => &lc::RSA_PSS_2048_8192_SHA384,
        (rfc5912::ID_SHA_512, 64) => &lc::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
