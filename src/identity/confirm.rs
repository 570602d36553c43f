//! Signatures by which a VNFCI proves that it holds a delivered key: to confirm it and to give it back.

use super::Refusal;
use crate::nfv::{ClaimId, Sha256Hash, labelled_fields};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_SHA256, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912;
use der::Decode;
use pkcs8::PrivateKeyInfoRef;
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

/// What is signed to confirm: label `keybroker-confirm-v1`, claim id as text, SHA-256 of the certificate's DER, SHA-256
/// of the recipient's public key (P-256 point, or RSA SubjectPublicKeyInfo in DER).
pub fn confirm_message(claim: ClaimId, certificate: Sha256Hash, recipient_key: Sha256Hash) -> Vec<u8> {
    message("keybroker-confirm-v1", claim, certificate, recipient_key)
}

/// What is signed to release: as [`confirm_message`], label `keybroker-release-v1`.
pub fn release_message(claim: ClaimId, certificate: Sha256Hash, recipient_key: Sha256Hash) -> Vec<u8> {
    message("keybroker-release-v1", claim, certificate, recipient_key)
}

fn message(label: &str, claim: ClaimId, certificate: Sha256Hash, recipient_key: Sha256Hash) -> Vec<u8> {
    labelled_fields(label, &[claim.to_string().as_bytes(), &certificate.0, &recipient_key.0])
}

/// How a key signs here.
enum KeyAlgorithm {
    P256,
    P384,
    Rsa,
}

impl KeyAlgorithm {
    fn of(algorithm: &AlgorithmIdentifierRef<'_>) -> Result<Self, Refusal> {
        let curve: Option<ObjectIdentifier> = algorithm.parameters_oid().ok();
        if algorithm.oid == rfc5912::RSA_ENCRYPTION {
            Ok(Self::Rsa)
        } else if algorithm.oid == rfc5912::ID_EC_PUBLIC_KEY && curve == Some(rfc5912::SECP_256_R_1) {
            Ok(Self::P256)
        } else if algorithm.oid == rfc5912::ID_EC_PUBLIC_KEY && curve == Some(rfc5912::SECP_384_R_1) {
            Ok(Self::P384)
        } else {
            Err(Refusal::UnsupportedKey(algorithm.oid.to_string()))
        }
    }
}

/// Verifies a signature over `message` with a certificate's key (SubjectPublicKeyInfo, DER): ECDSA in DER with SHA-256
/// (P-384: SHA-384), RSA-PSS with SHA-256 and a salt of 32 bytes (2048 bits at least).
///
/// # Errors
/// [`Refusal::WrongSignature`], or [`Refusal::UnsupportedKey`] for another kind of key.
pub fn verify_signature(spki_der: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let spki = SubjectPublicKeyInfoRef::from_der(spki_der)
        .map_err(|_| Refusal::UnsupportedKey("not a SubjectPublicKeyInfo".to_owned()))?;
    let algorithm: &dyn VerificationAlgorithm = match KeyAlgorithm::of(&spki.algorithm)? {
        KeyAlgorithm::P256 => &ECDSA_P256_SHA256_ASN1,
        KeyAlgorithm::P384 => &ECDSA_P384_SHA384_ASN1,
        KeyAlgorithm::Rsa => &RSA_PSS_2048_8192_SHA256,
    };
    UnparsedPublicKey::new(algorithm, spki.subject_public_key.raw_bytes())
        .verify(message, signature)
        .map_err(|_| Refusal::WrongSignature(format!("by the key sha256:{}", Sha256Hash::of(spki_der))))
}

/// The VNFCI's side: signs `message` with a private key (PKCS#8 PrivateKeyInfo, DER) as [`verify_signature`] expects.
///
/// # Errors
/// [`Refusal::UnsupportedKey`] for a key that is no PKCS#8 or of another kind.
pub fn sign(pkcs8_der: &[u8], message: &[u8]) -> Result<Vec<u8>, Refusal> {
    let info = PrivateKeyInfoRef::from_der(pkcs8_der)
        .map_err(|_| Refusal::UnsupportedKey("not a PKCS#8 private key".to_owned()))?;
    let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
        EcdsaKeyPair::from_pkcs8(algorithm, pkcs8_der)
            .ok()
            .and_then(|key| key.sign(&SystemRandom::new(), message).ok())
            .map(|signature| signature.as_ref().to_vec())
    };
    let signature = match KeyAlgorithm::of(&info.algorithm)? {
        KeyAlgorithm::P256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
        KeyAlgorithm::P384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
        KeyAlgorithm::Rsa => RsaKeyPair::from_pkcs8(pkcs8_der).ok().and_then(|key| {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature).ok()?;
            Some(signature)
        }),
    };
    signature.ok_or_else(|| Refusal::UnsupportedKey("the private key is damaged".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::KeyPair;
    use proptest::prelude::*;

    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> (Vec<u8>, Vec<u8>) {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        (pkcs8.as_ref().to_vec(), key.public_key().as_der().unwrap().as_ref().to_vec())
    }

    fn rsa() -> (Vec<u8>, Vec<u8>) {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let spki = key.public_key().as_der().unwrap().as_ref().to_vec();
        (AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&key).unwrap().as_ref().to_vec(), spki)
    }

    #[test]
    fn a_signature_of_every_key_type_is_verified_and_fits_one_message_only() {
        let claim = ClaimId::generate();
        let (certificate, recipient) = (Sha256Hash([1; 32]), Sha256Hash([2; 32]));
        let confirm = confirm_message(claim, certificate, recipient);
        for (pkcs8, spki) in
            [ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING), ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING), rsa()]
        {
            let signature = sign(&pkcs8, &confirm).unwrap();
            assert_eq!(verify_signature(&spki, &confirm, &signature), Ok(()));
            for other in [
                release_message(claim, certificate, recipient),
                confirm_message(ClaimId::generate(), certificate, recipient),
                confirm_message(claim, recipient, recipient),
                confirm_message(claim, certificate, certificate),
            ] {
                let refused = verify_signature(&spki, &other, &signature);
                assert!(matches!(refused, Err(Refusal::WrongSignature(_))), "{refused:?}");
            }
        }
    }

    #[test]
    fn a_key_of_another_kind_is_named_as_unsupported() {
        let ed25519 = hex::decode(format!("302a300506032b6570032100{}", "00".repeat(32))).unwrap();
        assert!(matches!(verify_signature(&ed25519, b"m", b"s"), Err(Refusal::UnsupportedKey(_))));
        assert!(matches!(sign(b"garbage", b"m"), Err(Refusal::UnsupportedKey(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_verifier_panic(
            spki in proptest::collection::vec(any::<u8>(), 0..200),
            signature in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(verify_signature(&spki, b"message", &signature).is_err());
            let _ = sign(&spki, b"message");
        }
    }
}
