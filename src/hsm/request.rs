//! Certificate requests (PKCS#10, RFC 2986), signed by the key that is to be certified.

use super::fault::Fault;
use super::public_key::ecdsa_der;
use super::{HsmError, RequestTemplate};
use crate::credential::KeyType;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use der::asn1::{Any, BitString};
use der::{Encode, Tag};
use sha2::{Digest, Sha256, Sha384};
use spki::{AlgorithmIdentifierOwned, ObjectIdentifier};

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
/// INTEGER 0: version 1 of RFC 2986 4.1.
const VERSION: [u8; 3] = [2, 1, 0];

/// The mechanism that signs requests of keys of a type, by its standard name.
pub(super) const fn mechanism_name(key_type: KeyType) -> &'static str {
    match key_type {
        KeyType::EcP256 | KeyType::EcP384 => "CKM_ECDSA",
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => "CKM_SHA256_RSA_PKCS",
    }
}

/// A CertificationRequest, DER: ECDSA over SHA-256 (P-384: SHA-384), or RSASSA-PKCS1-v1_5 over SHA-256.
pub(super) fn signed(
    session: &Session,
    private: ObjectHandle,
    key_type: KeyType,
    public_key_der: &[u8],
    template: &RequestTemplate,
) -> Result<Vec<u8>, Fault> {
    let info = [&VERSION[..], &template.subject_der, public_key_der, &template.attributes_der].concat();
    let info = encode(|| sequence(info))?;
    let (oid, signature) = match key_type {
        KeyType::EcP256 => {
            let raw = session.sign(&Mechanism::Ecdsa, private, &Sha256::digest(&info))?;
            (ECDSA_WITH_SHA256, ecdsa_der(&raw)?)
        }
        KeyType::EcP384 => {
            let raw = session.sign(&Mechanism::Ecdsa, private, &Sha384::digest(&info))?;
            (ECDSA_WITH_SHA384, ecdsa_der(&raw)?)
        }
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
            (SHA256_WITH_RSA, session.sign(&Mechanism::Sha256RsaPkcs, private, &info)?)
        }
    };
    encode(|| {
        let parameters = (oid == SHA256_WITH_RSA).then(Any::null);
        let algorithm = AlgorithmIdentifierOwned { oid, parameters }.to_der()?;
        let signature = BitString::from_bytes(&signature)?.to_der()?;
        sequence([info, algorithm, signature].concat())
    })
}

fn sequence(contents: Vec<u8>) -> der::Result<Vec<u8>> {
    Any::new(Tag::Sequence, contents)?.to_der()
}

fn encode(encoded: impl FnOnce() -> der::Result<Vec<u8>>) -> Result<Vec<u8>, Fault> {
    encoded().map_err(|error| HsmError::Refused(format!("no certificate request: {error}")).into())
}
