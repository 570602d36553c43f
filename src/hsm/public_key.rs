//! Public keys and signatures in the encodings that certificates use.

use super::fault::Fault;
use super::{HsmError, quirks, templates};
use crate::credential::KeyType as PoolKeyType;
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

/// SubjectPublicKeyInfo (DER) of a signing key's public object: P-256, Ed25519 or RSA.
pub(super) fn subject_public_key_info(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, Fault> {
    let kind = session.get_attributes(public, &[AttributeType::KeyType])?;
    match kind.first() {
        Some(Attribute::KeyType(KeyType::RSA)) => rsa(session, public),
        _ => elliptic(session, public),
    }
}

/// SubjectPublicKeyInfo (DER) of a public key object whose type is known: one question to the module less.
pub(super) fn pool_public_key(
    session: &Session,
    public: ObjectHandle,
    key_type: PoolKeyType,
) -> Result<Vec<u8>, Fault> {
    match key_type {
        PoolKeyType::EcP256 => on_curve(session, public, EC_PUBLIC_KEY, Some(P256), 65),
        PoolKeyType::EcP384 => on_curve(session, public, EC_PUBLIC_KEY, Some(P384), 97),
        PoolKeyType::Rsa2048 | PoolKeyType::Rsa3072 | PoolKeyType::Rsa4096 => rsa(session, public),
    }
}

/// The uncompressed point (SEC 1 2.3.3) of a P-256 public key object: 65 bytes.
pub(super) fn p256_point(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, Fault> {
    point(session, public, 65)
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
    let attributes = session.get_attributes(public, &[AttributeType::EcParams])?;
    match attributes.first() {
        Some(Attribute::EcParams(curve)) if curve[..] == templates::P256 => {
            on_curve(session, public, EC_PUBLIC_KEY, Some(P256), 65)
        }
        Some(Attribute::EcParams(curve)) if curve[..] == templates::ED25519 => {
            on_curve(session, public, ED25519, None, 32)
        }
        _ => Err(HsmError::Refused("the key is on a curve that is not supported".into()).into()),
    }
}

/// `length` is the bare point's.
fn on_curve(
    session: &Session,
    public: ObjectHandle,
    algorithm: ObjectIdentifier,
    curve: Option<ObjectIdentifier>,
    length: usize,
) -> Result<Vec<u8>, Fault> {
    let point = point(session, public, length)?;
    encode(|| info(algorithm, curve.map(|curve| Any::encode_from(&curve)).transpose()?, &point))
}

fn point(session: &Session, public: ObjectHandle, length: usize) -> Result<Vec<u8>, Fault> {
    let attributes = session.get_attributes(public, &[AttributeType::EcPoint])?;
    let point = match attributes.first() {
        Some(Attribute::EcPoint(point)) => quirks::ec_point(point, length),
        _ => None,
    };
    point.map(<[u8]>::to_vec).ok_or_else(|| unreadable("CKA_EC_POINT"))
}

fn info(algorithm: ObjectIdentifier, parameters: Option<Any>, key: &[u8]) -> der::Result<Vec<u8>> {
    SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned { oid: algorithm, parameters },
        subject_public_key: BitString::from_bytes(key)?,
    }
    .to_der()
}

fn encode(encoded: impl FnOnce() -> der::Result<Vec<u8>>) -> Result<Vec<u8>, Fault> {
    encoded().map_err(|_| unreadable("a public key or signature"))
}

fn unreadable(what: &str) -> Fault {
    HsmError::Module { operation: "C_GetAttributeValue".into(), code: format!("an unreadable {what}") }.into()
}
