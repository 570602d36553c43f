//! What a server wants in requests: CsrAttrs (RFC 7030 4.5.2, RFC 8951 3.1, RFC 9908).

use super::IssuerError;
use crate::credential::KeyType;
use crate::nfv::Sha256Hash;
use const_oid::db::rfc5912;
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, Tagged};

const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");

/// What a server wants, as it said it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestAttributes {
    der: Vec<u8>,
    /// Bare OIDs, and OIDs with their values.
    wanted: Vec<(ObjectIdentifier, Vec<Vec<u8>>)>,
}

impl RequestAttributes {
    /// Reads a CsrAttrs, DER.
    ///
    /// # Errors
    /// [`IssuerError::Malformed`].
    pub fn parse(der: &[u8]) -> Result<Self, IssuerError> {
        let malformed = |error: der::Error| IssuerError::Malformed(format!("csrattrs: {error}"));
        let mut wanted = Vec::new();
        for item in elements(AnyRef::from_der(der).map_err(malformed)?, Tag::Sequence)? {
            if item.tag() == Tag::ObjectIdentifier {
                wanted.push((item.decode_as().map_err(malformed)?, Vec::new()));
                continue;
            }
            let parts = elements(item, Tag::Sequence)?;
            let [id, values] = parts.as_slice() else {
                return Err(IssuerError::Malformed("csrattrs: an attribute has other fields".to_owned()));
            };
            let values = elements(*values, Tag::Set)?.iter().map(|value| encoded(*value)).collect();
            wanted.push((id.decode_as().map_err(malformed)?, values));
        }
        Ok(Self { der: der.to_vec(), wanted })
    }

    /// SHA-256 of what the server said: requests that were made for other attributes are not sent any more.
    pub fn hash(&self) -> Sha256Hash {
        Sha256Hash::of(&self.der)
    }

    /// Whether requests for keys of this type are what the server wants. Key types, curves and signature algorithms are
    /// alternatives if there are several of a kind. What is not known is ignored, as RFC 7030 4.5.2 demands: a server that
    /// insists refuses the requests.
    ///
    /// # Errors
    /// [`IssuerError::Unsupported`], a sentence that says what is wanted.
    pub fn check(&self, key_type: KeyType) -> Result<(), IssuerError> {
        let (key, curve, signature) = match key_type {
            KeyType::EcP256 => {
                (rfc5912::ID_EC_PUBLIC_KEY, Some(rfc5912::SECP_256_R_1), rfc5912::ECDSA_WITH_SHA_256)
            }
            KeyType::EcP384 => {
                (rfc5912::ID_EC_PUBLIC_KEY, Some(rfc5912::SECP_384_R_1), rfc5912::ECDSA_WITH_SHA_384)
            }
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
                (rfc5912::RSA_ENCRYPTION, None, rfc5912::SHA_256_WITH_RSA_ENCRYPTION)
            }
        };
        let (mut keys, mut signatures) = (Alternatives::default(), Alternatives::default());
        for (id, values) in &self.wanted {
            match *id {
                rfc5912::ID_EC_PUBLIC_KEY => {
                    let curves = values.iter().filter_map(|value| ObjectIdentifier::from_der(value).ok());
                    let mut curves = curves.peekable();
                    let any = curves.peek().is_none();
                    keys.offer(*id == key && (any || curves.any(|offered| Some(offered) == curve)));
                }
                rfc5912::RSA_ENCRYPTION => {
                    let bits = |value: &Vec<u8>| u32::from_der(value).ok();
                    let size = values.iter().filter_map(bits).next();
                    keys.offer(*id == key && size.is_none_or(|size| Some(size) == modulus_bits(key_type)));
                }
                rfc5912::ECDSA_WITH_SHA_256
                | rfc5912::ECDSA_WITH_SHA_384
                | rfc5912::ECDSA_WITH_SHA_512
                | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
                | rfc5912::SHA_384_WITH_RSA_ENCRYPTION
                | rfc5912::SHA_512_WITH_RSA_ENCRYPTION => signatures.offer(*id == signature),
                CHALLENGE_PASSWORD => {
                    return Err(IssuerError::Unsupported(
                        "csrattrs ask for challengePassword, which would bind a request to one TLS connection; requests are \
                         made with their keys and sent later: have the server not demand it (linking of identity and proof of \
                         possession, RFC 7030 3.5) of this client"
                            .to_owned(),
                    ));
                }
                unknown => tracing::debug!(attribute = %unknown, "csrattrs ask for what is not looked at"),
            }
        }
        if keys.missed() {
            return Err(IssuerError::Unsupported(format!(
                "csrattrs ask for other keys than {key_type}: change the profile's key_type"
            )));
        }
        if signatures.missed() {
            return Err(IssuerError::Unsupported(format!(
                "csrattrs ask for other signatures than those of {key_type} keys"
            )));
        }
        Ok(())
    }
}

/// Whether one of several offers fitted.
#[derive(Default)]
struct Alternatives {
    offered: bool,
    fitted: bool,
}

impl Alternatives {
    fn offer(&mut self, fits: bool) {
        self.offered = true;
        self.fitted |= fits;
    }

    fn missed(&self) -> bool {
        self.offered && !self.fitted
    }
}

const fn modulus_bits(key_type: KeyType) -> Option<u32> {
    match key_type {
        KeyType::EcP256 | KeyType::EcP384 => None,
        KeyType::Rsa2048 => Some(2048),
        KeyType::Rsa3072 => Some(3072),
        KeyType::Rsa4096 => Some(4096),
    }
}

fn elements<'a>(of: AnyRef<'a>, tag: Tag) -> Result<Vec<AnyRef<'a>>, IssuerError> {
    let malformed = |error: der::Error| IssuerError::Malformed(format!("csrattrs: {error}"));
    if of.tag() != tag {
        return Err(IssuerError::Malformed(format!("csrattrs: {} where {tag} is expected", of.tag())));
    }
    let mut reader = SliceReader::new(of.value()).map_err(malformed)?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(AnyRef::decode(&mut reader).map_err(malformed)?);
    }
    Ok(found)
}

fn encoded(value: AnyRef<'_>) -> Vec<u8> {
    use der::Encode;
    value.to_der().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::encode::{SEQUENCE, SET, oid, tlv};
    use crate::ca::issuers::request::EXTENSION_REQUEST;
    use proptest::prelude::*;

    fn attributes(items: &[&[u8]]) -> RequestAttributes {
        RequestAttributes::parse(&tlv(SEQUENCE, items)).unwrap()
    }

    #[test]
    fn a_server_may_ask_for_the_keys_that_a_profile_has_and_what_is_unknown_is_ignored() {
        let ec = tlv(SEQUENCE, &[&oid(rfc5912::ID_EC_PUBLIC_KEY), &tlv(SET, &[&oid(rfc5912::SECP_256_R_1)])]);
        let wanted = attributes(&[&ec, &oid(rfc5912::ECDSA_WITH_SHA_256), &oid(EXTENSION_REQUEST)]);
        assert_eq!(wanted.check(KeyType::EcP256), Ok(()));
        for other in [KeyType::EcP384, KeyType::Rsa2048] {
            assert!(matches!(wanted.check(other), Err(IssuerError::Unsupported(_))), "{other}");
        }
        // Several of a kind are alternatives.
        let either = attributes(&[&ec, &oid(rfc5912::RSA_ENCRYPTION)]);
        assert_eq!((either.check(KeyType::EcP256), either.check(KeyType::Rsa3072)), (Ok(()), Ok(())));
        let bound = attributes(&[&oid(CHALLENGE_PASSWORD)]).check(KeyType::EcP256);
        assert!(matches!(bound, Err(IssuerError::Unsupported(_))));
        // RFC 7030 4.5.2: what is not known is ignored.
        let mac_address = ObjectIdentifier::new_unwrap("1.3.6.1.1.1.1.22");
        let unknown = tlv(SEQUENCE, &[&oid(EXTENSION_REQUEST), &tlv(SET, &[&oid(mac_address)])]);
        assert_eq!(attributes(&[&oid(mac_address), &unknown]).check(KeyType::EcP256), Ok(()));
        assert_eq!(attributes(&[]).check(KeyType::Rsa4096), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_of_csrattrs_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = SEQUENCE;
            }
            if let Ok(read) = RequestAttributes::parse(&bytes) {
                let _ = read.check(KeyType::EcP256);
            }
        }
    }
}
