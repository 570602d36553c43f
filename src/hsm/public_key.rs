//! Public keys and signatures in the encodings that certificates use.

use super::fault::Fault;
use super::{HsmError, quirks, templates};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session;
use der::asn1::{BitString, Uint};
use der::{Any, Encode, Sequence};
use spki::{AlgorithmIdentifierOwned, ObjectIdentifier, SubjectPublicKeyInfoOwned};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// SubjectPublicKeyInfo (DER) of a public key object: P-256, P-384, Ed25519 or RSA.
pub(super) fn subject_public_key_info(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, Fault> {
    let kind = session.get_attributes(public, &[AttributeType::KeyType])?;
    match kind.first() {
        Some(Attribute::KeyType(KeyType::RSA)) => rsa(session, public),
        _ => elliptic(session, public),
    }
}

/// The uncompressed point (SEC 1 2.3.3) of a P-256 public key object: 65 bytes.
pub(super) fn p256_point(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, Fault> {
    let attributes = session.get_attributes(public, &[AttributeType::EcPoint])?;
    match attributes.first() {
        Some(Attribute::EcPoint(point)) => bare_point(point, 65),
        _ => Err(unreadable("CKA_EC_POINT")),
    }
}

/// PKCS#11's r and s, side by side, as the DER of RFC 3279 2.2.3.
pub(super) fn ecdsa_der(raw: &[u8]) -> Result<Vec<u8>, Fault> {
    #[derive(Sequence)]
    struct Signature {
        r: Uint,
        s: Uint,
    }
    let (r, s) = raw.split_at(raw.len() / 2);
    encode(|| Signature { r: Uint::new(r)?, s: Uint::new(s)? }.to_der())
}

fn rsa(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, Fault> {
    #[derive(Sequence)]
    struct RsaPublicKey {
        modulus: Uint,
        public_exponent: Uint,
    }
    let attributes =
        session.get_attributes(public, &[AttributeType::Modulus, AttributeType::PublicExponent])?;
    let [Attribute::Modulus(modulus), Attribute::PublicExponent(exponent)] = &attributes[..] else {
        return Err(unreadable("CKA_MODULUS"));
    };
    encode(|| {
        let key =
            RsaPublicKey { modulus: Uint::new(modulus)?, public_exponent: Uint::new(exponent)? }.to_der()?;
        info(RSA_ENCRYPTION, Some(Any::null()), &key)
    })
}

fn elliptic(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, Fault> {
    let attributes = session.get_attributes(public, &[AttributeType::EcParams, AttributeType::EcPoint])?;
    let [Attribute::EcParams(curve), Attribute::EcPoint(point)] = &attributes[..] else {
        return Err(unreadable("CKA_EC_POINT"));
    };
    let (algorithm, parameters, length) = match &curve[..] {
        curve if curve == templates::P256 => (EC_PUBLIC_KEY, Some(P256), 65),
        curve if curve == templates::P384 => (EC_PUBLIC_KEY, Some(P384), 97),
        curve if curve == templates::ED25519 => (ED25519, None, 32),
        _ => return Err(HsmError::Refused("the key is on a curve that is not supported".into()).into()),
    };
    let point = bare_point(point, length)?;
    encode(|| info(algorithm, parameters.map(|curve| Any::encode_from(&curve)).transpose()?, &point))
}

fn info(algorithm: ObjectIdentifier, parameters: Option<Any>, key: &[u8]) -> der::Result<Vec<u8>> {
    SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned { oid: algorithm, parameters },
        subject_public_key: BitString::from_bytes(key)?,
    }
    .to_der()
}

fn bare_point(attribute: &[u8], length: usize) -> Result<Vec<u8>, Fault> {
    quirks::ec_point(attribute, length).map(<[u8]>::to_vec).ok_or_else(|| unreadable("CKA_EC_POINT"))
}

fn encode(encoded: impl FnOnce() -> der::Result<Vec<u8>>) -> Result<Vec<u8>, Fault> {
    encoded().map_err(|_| unreadable("a public key or signature"))
}

fn unreadable(what: &str) -> Fault {
    HsmError::Module { operation: "C_GetAttributeValue".into(), code: format!("an unreadable {what}") }.into()
}
