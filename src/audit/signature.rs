//! Signatures of the audit key, which lives in the HSM; made there, verified here.

use crate::credential::named;
use crate::nfv::Sha256Hash;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use const_oid::db::{rfc5912, rfc8410};
use der::Decode;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use spki::SubjectPublicKeyInfoRef;

named!(
    /// How the audit key signs.
    AuditAlgorithm, "audit signature algorithm" {
        /// Ed25519 (RFC 8032), 64 bytes.
        Ed25519 = "ED25519",
        /// ECDSA on P-256 over the SHA-256 of the message, DER.
        EcdsaP256Sha256 = "ECDSA_P256_SHA256",
    }
);

/// A signature with what is needed to find its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSignature {
    /// How it was made.
    pub algorithm: AuditAlgorithm,
    /// SHA-256 of the audit key's SubjectPublicKeyInfo, DER.
    pub key_id: Sha256Hash,
    /// The signature; base64 in JSON.
    #[serde(with = "base64_text")]
    pub signature: Vec<u8>,
}

/// Why a signature or its key was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a public key that an audit log is signed with.
    #[error("not an audit key: {0}; give the file audit.pub (PEM, PUBLIC KEY, Ed25519 or P-256)")]
    InvalidKey(String),
    /// Signed with another key.
    #[error("signed with the key sha256:{found}, not with the given audit key sha256:{given}")]
    OtherKey {
        /// The key that the signature names.
        found: Sha256Hash,
        /// The key that was given.
        given: Sha256Hash,
    },
    /// The signature does not fit key and bytes.
    #[error("the signature is wrong")]
    Wrong,
}

/// The log's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPublicKey {
    algorithm: AuditAlgorithm,
    id: Sha256Hash,
    /// Ed25519: 32 bytes; P-256: uncompressed point.
    key: Vec<u8>,
}

impl AuditPublicKey {
    /// From a PEM file with one `PUBLIC KEY` block (RFC 7468 13).
    ///
    /// # Errors
    /// [`SignatureError::InvalidKey`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, SignatureError> {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|error| SignatureError::InvalidKey(error.to_string()))?;
        Self::from_spki(&spki)
    }

    /// From a SubjectPublicKeyInfo, DER.
    ///
    /// # Errors
    /// [`SignatureError::InvalidKey`].
    pub fn from_spki(spki_der: &[u8]) -> Result<Self, SignatureError> {
        let spki = SubjectPublicKeyInfoRef::from_der(spki_der)
            .map_err(|error| SignatureError::InvalidKey(error.to_string()))?;
        let curve = spki.algorithm.parameters_oid().ok();
        let algorithm = if spki.algorithm.oid == rfc8410::ID_ED_25519 {
            AuditAlgorithm::Ed25519
        } else if spki.algorithm.oid == rfc5912::ID_EC_PUBLIC_KEY && curve == Some(rfc5912::SECP_256_R_1) {
            AuditAlgorithm::EcdsaP256Sha256
        } else {
            return Err(SignatureError::InvalidKey(format!("algorithm {}", spki.algorithm.oid)));
        };
        Ok(Self {
            algorithm,
            id: Sha256Hash::of(spki_der),
            key: spki.subject_public_key.raw_bytes().to_vec(),
        })
    }

    /// SHA-256 of its SubjectPublicKeyInfo, DER.
    pub fn id(&self) -> Sha256Hash {
        self.id
    }

    /// How it signs.
    pub fn algorithm(&self) -> AuditAlgorithm {
        self.algorithm
    }

    /// Verifies a signature over `message`.
    ///
    /// # Errors
    /// [`SignatureError::OtherKey`] or [`SignatureError::Wrong`].
    pub fn verify(&self, message: &[u8], signature: &AuditSignature) -> Result<(), SignatureError> {
        if signature.key_id != self.id {
            return Err(SignatureError::OtherKey { found: signature.key_id, given: self.id });
        }
        // By the key's own algorithm; what the signature says is for people.
        let algorithm: &dyn VerificationAlgorithm = match self.algorithm {
            AuditAlgorithm::Ed25519 => &ED25519,
            AuditAlgorithm::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
        };
        UnparsedPublicKey::new(algorithm, &self.key)
            .verify(message, &signature.signature)
            .map_err(|_| SignatureError::Wrong)
    }
}

mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
