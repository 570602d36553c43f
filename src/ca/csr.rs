//! Certification requests (PKCS#10, RFC 2986), and what an enrolment server tells its clients to put into them.
//!
//! Both sides of enrolment use this: our server reads and verifies requests, a client of another server reads the
//! attributes that it asks for.

use super::encode::{SEQUENCE, SET, oid, tlv, unsigned};
use super::profile::{CertificateNames, Profile};
use crate::credential::KeyType;
use const_oid::ObjectIdentifier;
use const_oid::db::{DB, rfc2985, rfc4519, rfc5280, rfc5912};
use der::asn1::{AnyRef, BitStringRef, Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use der::{Any, Decode, Encode, Sequence, Tag, Tagged};
use spki::SubjectPublicKeyInfoRef;
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::request::{CertReqInfo, ExtensionReq};

/// Larger requests are refused before they are read. One with an RSA key of 4096 bits and many names has 4 kB.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Bytes that are no request that can be granted. A sentence for whoever made it: it says nothing that is not in the
/// request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRequest(pub String);

/// In a request for a key of the server's making: it is to come encrypted under a key that both have (RFC 7030 4.4.1.1).
const DECRYPT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.37");
/// The same under a public key of the client's (RFC 7030 4.4.1.2).
const ASYMMETRIC_DECRYPT_KEY_IDENTIFIER: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.54");

/// A certification request whose signature verifies with the public key in it: whoever made it holds the private key.
/// Only [`CertificationRequest::parse`] makes it. What it asks for beyond the key is a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificationRequest {
    wishes: Wishes,
    public_key_der: Vec<u8>,
    key_type: Option<KeyType>,
}

/// A request for a key that the server is to make, and a certificate of it: the public key and the signature in it are
/// there for the form's sake and mean nothing (RFC 7030 4.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRequest {
    wishes: Wishes,
}

/// What a request asks for beside its key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wishes {
    subject: Name,
    /// None without a subjectAltName.
    alternative_names: Option<Vec<GeneralName>>,
}

/// CertificationRequest (RFC 2986 4.2) with the signed part as it was sent.
#[derive(Sequence)]
struct Signed<'a> {
    info: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
}

impl CertificationRequest {
    /// Reads a request (DER) and verifies its signature with its own key: ECDSA, RSA PKCS#1 v1.5 and PSS (2048 bits at
    /// least) or Ed25519, with SHA-256 or stronger.
    ///
    /// # Errors
    /// [`InvalidRequest`].
    pub fn parse(der: &[u8]) -> Result<Self, InvalidRequest> {
        let (signed, info_der, info) = read(der)?;
        let public_key_der = info.public_key.to_der().map_err(malformed)?;
        let spki = SubjectPublicKeyInfoRef::from_der(&public_key_der).map_err(malformed)?;
        if let Some(curve) = foreign_curve(&spki) {
            return Err(invalid(format!("has an EC key {curve}: use P-256 or P-384")));
        }
        if !is_written_as_always(&spki) {
            return Err(invalid(
                "has its public key in an unusual form: write an EC point uncompressed (RFC 5480 2.2), and an RSA key with \
                 parameters that are NULL (RFC 3279 2.3.1)",
            ));
        }
        let key_algorithm = spki.algorithm.to_der().map_err(malformed)?;
        let key_algorithm = AnyRef::from_der(&key_algorithm).map_err(malformed)?;
        let signature = signed.signature.as_bytes().ok_or_else(|| invalid("has a signature of odd bits"))?;
        let mut algorithms = webpki::ALL_VERIFICATION_ALGS.iter().filter(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == key_algorithm.value()
                && algorithm.signature_alg_id().as_ref() == signed.algorithm.value()
        });
        let algorithm = algorithms.next().ok_or_else(|| {
            invalid(
                "is signed with an unknown algorithm: use ECDSA on P-256 or P-384, RSA or Ed25519, with SHA-256 or \
                 stronger",
            )
        })?;
        algorithm.verify_signature(spki.subject_public_key.raw_bytes(), &info_der, signature).map_err(
            |_| invalid("is not signed with the private key of its public key (or an RSA key is too short)"),
        )?;
        let key_type = key_type(&spki);
        Ok(Self { wishes: Wishes::of(info)?, public_key_der, key_type })
    }

    /// The public key, SubjectPublicKeyInfo DER.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    /// Type and size of the key; none if it is no type that a profile can ask for.
    pub fn key_type(&self) -> Option<KeyType> {
        self.key_type
    }

    /// The subject as RFC 4514 text.
    pub fn subject(&self) -> String {
        self.wishes.subject.to_string()
    }

    /// The subject, DER of the Name.
    pub(super) fn subject_der(&self) -> Result<Vec<u8>, der::Error> {
        self.wishes.subject.to_der()
    }

    /// Whether it asks for any name.
    pub fn asks_for_names(&self) -> bool {
        self.wishes.ask_for_names()
    }

    /// By what it may name whom it is for: common names and serialNumbers of the subject, dNSName and
    /// uniformResourceIdentifier of the subjectAltName, as text.
    pub fn identifiers(&self) -> Vec<String> {
        self.wishes.identifiers()
    }

    /// Whether the request keeps to the names of a certificate that it is to follow (RFC 7030 4.2.2): the same subject
    /// (RFC 5280 7.1) and the same subjectAltName, in whatever order. A request without subjectAltName asks for none
    /// that the certificate does not have.
    ///
    /// # Errors
    /// [`InvalidRequest`] that says which differs and what to send.
    pub fn keeps_names_of(&self, names: &CertificateNames) -> Result<(), InvalidRequest> {
        let current = Name::from_der(&names.subject_der)
            .map_err(|error| InvalidRequest(format!("the certificate's subject cannot be read: {error}")))?;
        if !same_name(&self.wishes.subject, &current) {
            return Err(InvalidRequest(format!(
                "the request's subject is {:?}, the certificate's is {:?}: ask for the same (RFC 7030 4.2.2)",
                self.wishes.subject.to_string(),
                current.to_string()
            )));
        }
        let Some(asked) = &self.wishes.alternative_names else { return Ok(()) };
        let current = match names.general_names.as_slice() {
            [] => Ok(Vec::new()),
            names => SubjectAltName::from_der(&tlv(SEQUENCE, &[names])).map(|names| names.0),
        };
        let (asked, current) = (sorted(asked), current.ok().and_then(|current| sorted(&current)));
        if asked.is_none() || asked != current {
            return Err(InvalidRequest(
                "the request's subjectAltName is not the certificate's: ask for the same, or leave it out \
                 (RFC 7030 4.2.2)"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

impl KeyRequest {
    /// Reads a request (DER).
    ///
    /// # Errors
    /// [`InvalidRequest`], also for one that asks for an encrypted key: it is told that there is none.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidRequest> {
        let (.., info) = read(der)?;
        let encrypted = [DECRYPT_KEY_IDENTIFIER, ASYMMETRIC_DECRYPT_KEY_IDENTIFIER];
        if info.attributes.iter().any(|found| encrypted.contains(&found.oid)) {
            return Err(invalid(
                "asks for its key to be encrypted (DecryptKeyIdentifier or AsymmetricDecryptKeyIdentifier, RFC 7030 4.4.1), \
                 which is not offered: leave the attribute out, or have the key by Claim, which delivers it sealed",
            ));
        }
        Ok(Self { wishes: Wishes::of(info)? })
    }

    /// Whether it asks for any name.
    pub fn asks_for_names(&self) -> bool {
        self.wishes.ask_for_names()
    }

    /// By what it may name whom it is for, as [`CertificationRequest::identifiers`].
    pub fn identifiers(&self) -> Vec<String> {
        self.wishes.identifiers()
    }
}

impl Wishes {
    fn of(info: CertReqInfo) -> Result<Self, InvalidRequest> {
        if info.attributes.iter().any(|found| found.oid == rfc2985::PKCS_9_AT_CHALLENGE_PASSWORD) {
            return Err(invalid(
                "has a challengePassword, which cannot be verified: TLS 1.3 has no tls-unique (RFC 7030 3.5); leave it out",
            ));
        }
        let mut alternative_names = None;
        for attribute in info.attributes.iter().filter(|found| found.oid == rfc5912::ID_EXTENSION_REQ) {
            for value in attribute.values.iter() {
                let requested: ExtensionReq = value.decode_as().map_err(malformed)?;
                let names =
                    requested.0.iter().filter(|found| found.extn_id == rfc5280::ID_CE_SUBJECT_ALT_NAME);
                for extension in names {
                    let names =
                        SubjectAltName::from_der(extension.extn_value.as_bytes()).map_err(malformed)?;
                    alternative_names.get_or_insert_with(Vec::new).extend(names.0);
                }
            }
        }
        Ok(Self { subject: info.subject, alternative_names })
    }

    fn ask_for_names(&self) -> bool {
        !self.subject.is_empty() || self.alternative_names.is_some()
    }

    fn identifiers(&self) -> Vec<String> {
        let of_subject = self
            .subject
            .iter()
            .filter(|attribute| attribute.oid == rfc4519::CN || attribute.oid == rfc4519::SERIAL_NUMBER);
        let mut found: Vec<String> =
            of_subject.filter_map(|attribute| directory_text(&attribute.value)).collect();
        found.extend(self.alternative_names.iter().flatten().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
            _ => None,
        }));
        found
    }
}

/// The names that a certificate (DER) has, for one that is to follow it.
///
/// # Errors
/// [`InvalidRequest`] for bytes that are no certificate.
pub fn names_of(certificate_der: &[u8]) -> Result<CertificateNames, InvalidRequest> {
    let invalid = |error: der::Error| InvalidRequest(format!("not a certificate: {error}"));
    let certificate = Certificate::from_der(certificate_der).map_err(invalid)?;
    let tbs = certificate.tbs_certificate();
    let mut general_names = Vec::new();
    if let Some((_, names)) = tbs.get_extension::<SubjectAltName>().map_err(invalid)? {
        for name in names.0 {
            general_names.extend(name.to_der().map_err(invalid)?);
        }
    }
    Ok(CertificateNames {
        subject_der: tbs.subject().to_der().map_err(invalid)?,
        subject_is_empty: tbs.subject().is_empty(),
        general_names,
    })
}

/// CsrAttrs (RFC 7030 4.5.2, RFC 9908): the type of key and the signature that a profile wants, DER. Names are not asked
/// for: the profile gives them.
pub fn csr_attributes(profile: &Profile) -> Vec<u8> {
    let attribute = |id, value: &[u8]| tlv(SEQUENCE, &[&oid(id), &tlv(SET, &[value])]);
    let rsa = |bits: u16| {
        (
            attribute(rfc5912::RSA_ENCRYPTION, &unsigned(&bits.to_be_bytes())),
            rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
        )
    };
    let curve = |curve| attribute(rfc5912::ID_EC_PUBLIC_KEY, &oid(curve));
    let (key, signature) = match profile.key_type() {
        KeyType::EcP256 => (curve(rfc5912::SECP_256_R_1), rfc5912::ECDSA_WITH_SHA_256),
        KeyType::EcP384 => (curve(rfc5912::SECP_384_R_1), rfc5912::ECDSA_WITH_SHA_384),
        KeyType::Rsa2048 => rsa(2048),
        KeyType::Rsa3072 => rsa(3072),
        KeyType::Rsa4096 => rsa(4096),
    };
    tlv(SEQUENCE, &[&key, &oid(signature)])
}

fn invalid(problem: impl std::fmt::Display) -> InvalidRequest {
    InvalidRequest(format!("the certification request {problem}"))
}

fn malformed(error: der::Error) -> InvalidRequest {
    invalid(format!("is no PKCS#10 in DER: {error}"))
}

/// A request's parts; its signed one as it was sent, and read.
fn read(der: &[u8]) -> Result<(Signed<'_>, Vec<u8>, CertReqInfo), InvalidRequest> {
    if der.len() > MAX_REQUEST_BYTES {
        return Err(invalid(format!("is longer than {MAX_REQUEST_BYTES} bytes")));
    }
    let signed = Signed::from_der(der).map_err(malformed)?;
    if [signed.info.tag(), signed.algorithm.tag()] != [Tag::Sequence; 2] {
        return Err(invalid("is no PKCS#10"));
    }
    let info_der = signed.info.to_der().map_err(malformed)?;
    let info = CertReqInfo::from_der(&info_der).map_err(malformed)?;
    Ok((signed, info_der, info))
}

/// What is wrong with the curve of an EC key, if no signature on it can be verified here.
fn foreign_curve(spki: &SubjectPublicKeyInfoRef<'_>) -> Option<String> {
    if spki.algorithm.oid != rfc5912::ID_EC_PUBLIC_KEY {
        return None;
    }
    match spki.algorithm.parameters_oid() {
        Ok(rfc5912::SECP_256_R_1 | rfc5912::SECP_384_R_1 | rfc5912::SECP_521_R_1) => None,
        Ok(curve) => {
            let name = DB.by_oid(&curve).map_or_else(|| curve.to_string(), str::to_owned);
            Some(format!("on curve {name}, which is not accepted"))
        }
        Err(_) => Some("whose curve has no name (explicit parameters)".to_owned()),
    }
}

/// Whether the key is in the one form that keys are known by here: a key is recognised by the hash of its
/// SubjectPublicKeyInfo, and one that could be written in two ways would be taken for two keys.
fn is_written_as_always(spki: &SubjectPublicKeyInfoRef<'_>) -> bool {
    match spki.algorithm.oid {
        // 4: uncompressed (SEC 1 2.3.3).
        rfc5912::ID_EC_PUBLIC_KEY => spki.subject_public_key.raw_bytes().first() == Some(&4),
        rfc5912::RSA_ENCRYPTION => spki.algorithm.parameters.is_some_and(|parameters| parameters.is_null()),
        _ => true,
    }
}

/// The type of a key, by its algorithm and size.
fn key_type(spki: &SubjectPublicKeyInfoRef<'_>) -> Option<KeyType> {
    let curve = spki.algorithm.parameters_oid().ok();
    if spki.algorithm.oid == rfc5912::ID_EC_PUBLIC_KEY {
        return match curve {
            Some(rfc5912::SECP_256_R_1) => Some(KeyType::EcP256),
            Some(rfc5912::SECP_384_R_1) => Some(KeyType::EcP384),
            _ => None,
        };
    }
    if spki.algorithm.oid != rfc5912::RSA_ENCRYPTION {
        return None;
    }
    #[derive(Sequence)]
    struct RsaPublicKey<'a> {
        modulus: der::asn1::UintRef<'a>,
        public_exponent: der::asn1::UintRef<'a>,
    }
    let key = RsaPublicKey::from_der(spki.subject_public_key.raw_bytes()).ok()?;
    let modulus = key.modulus.as_bytes();
    match modulus.len() * 8 - modulus.first()?.leading_zeros() as usize {
        2048 => Some(KeyType::Rsa2048),
        3072 => Some(KeyType::Rsa3072),
        4096 => Some(KeyType::Rsa4096),
        _ => None,
    }
}

/// Whether two names are the same by RFC 5280 7.1: string types do not matter, nor case and runs of spaces.
fn same_name(one: &Name, other: &Name) -> bool {
    let rdns = |name: &Name| {
        name.iter_rdn()
            .map(|rdn| {
                let mut attributes: Vec<_> = rdn
                    .iter()
                    .map(|attribute| {
                        let value = directory_text(&attribute.value).map_or_else(
                            || Err(attribute.value.clone()),
                            |text| {
                                let words: Vec<_> = text.split_whitespace().map(str::to_lowercase).collect();
                                Ok(words.join(" "))
                            },
                        );
                        (attribute.oid, value)
                    })
                    .collect();
                attributes.sort_by_key(|(id, _)| *id);
                attributes
            })
            .collect::<Vec<_>>()
    };
    rdns(one) == rdns(other)
}

/// Names in one order, DER each.
fn sorted(names: &[GeneralName]) -> Option<Vec<Vec<u8>>> {
    let mut ders = names.iter().map(Encode::to_der).collect::<Result<Vec<_>, _>>().ok()?;
    ders.sort();
    Some(ders)
}

/// The text of an attribute value of one of the string types that names are written in.
fn directory_text(value: &Any) -> Option<String> {
    let text = match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok()?.as_str().to_owned(),
        _ => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
        PublicKeyData as _,
    };

    fn request(key: &KeyPair, name: &str, alternative_names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = alternative_names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "keybroker");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn certificate(name: &str, alternative_names: &[&str]) -> CertificateNames {
        let names: Vec<String> = alternative_names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "keybroker");
        params.distinguished_name.push(DnType::CommonName, name);
        names_of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
    }

    #[test]
    fn a_request_says_whom_it_is_for_and_what_its_key_is() {
        for (algorithm, key_type) in [
            (&PKCS_ECDSA_P256_SHA256, Some(KeyType::EcP256)),
            (&PKCS_ECDSA_P384_SHA384, Some(KeyType::EcP384)),
            (&PKCS_ED25519, None),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let parsed = CertificationRequest::parse(&request(&key, "amf-1", &["amf-1.example"])).unwrap();
            assert_eq!(parsed.key_type(), key_type);
            assert_eq!(parsed.identifiers(), ["amf-1", "amf-1.example"]);
        }
    }

    #[test]
    fn a_key_that_is_written_in_another_way_is_not_taken_for_another_key() {
        let key = KeyPair::generate().unwrap();
        let der = request(&key, "amf-1", &[]);
        let spki = key.subject_public_key_info();
        let written = |point: &[u8]| {
            let spki = SubjectPublicKeyInfoRef::from_der(&spki).unwrap();
            let bits = der::asn1::BitString::from_bytes(point).unwrap();
            let other = spki::SubjectPublicKeyInfo { algorithm: spki.algorithm, subject_public_key: bits };
            let other = other.to_der().unwrap();
            is_written_as_always(&SubjectPublicKeyInfoRef::from_der(&other).unwrap())
        };
        let point = key.public_key_raw();
        assert!(CertificationRequest::parse(&der).is_ok() && written(point));
        let sign = 2 + (point[64] & 1);
        assert!(!written(&[&[sign], &point[1..33]].concat()), "compressed");
        assert!(!written(&[&[sign + 4], &point[1..]].concat()), "hybrid");
        // An RSA key with parameters left out, or with others.
        let rsa = |parameters: &[u8]| {
            let algorithm = tlv(SEQUENCE, &[&oid(rfc5912::RSA_ENCRYPTION), parameters]);
            let spki = tlv(SEQUENCE, &[&algorithm, &[3, 2, 0, 0x30]]);
            is_written_as_always(&SubjectPublicKeyInfoRef::from_der(&spki).unwrap())
        };
        assert!(rsa(&[5, 0]) && !rsa(&[]) && !rsa(&[0x30, 0]));
    }

    #[test]
    fn a_request_for_a_key_that_another_holds_is_refused() {
        let (own, foreign) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let honest = request(&foreign, "amf-1", &[]);
        let (own_spki, foreign_spki) = (own.public_key_raw(), foreign.public_key_raw());
        // The point of another key in the request: the signature is by the key that was there before.
        let at = honest.windows(foreign_spki.len()).position(|window| window == foreign_spki).unwrap();
        let mut stolen = honest.clone();
        stolen[at..at + own_spki.len()].copy_from_slice(own_spki);
        assert!(CertificationRequest::parse(&honest).is_ok());
        let refused = CertificationRequest::parse(&stolen).unwrap_err();
        assert!(refused.0.contains("not signed with the private key"), "{refused}");
    }

    #[test]
    fn a_request_for_a_key_needs_no_signature_and_is_told_that_no_key_comes_encrypted() {
        let key = KeyPair::generate().unwrap();
        let mut unsigned = request(&key, "amf-1", &["amf-1.example"]);
        *unsigned.last_mut().unwrap() ^= 1;
        assert!(CertificationRequest::parse(&unsigned).is_err());
        let read = KeyRequest::parse(&unsigned).unwrap();
        assert!(read.asks_for_names());
        assert_eq!(read.identifiers(), ["amf-1", "amf-1.example"]);
        let with = |attribute: ObjectIdentifier, content: &[u8]| {
            let spki = key.subject_public_key_info();
            let attribute = tlv(SEQUENCE, &[&oid(attribute), &tlv(SET, &[content])]);
            let info = tlv(SEQUENCE, &[&[2, 1, 0], &tlv(SEQUENCE, &[]), &spki, &tlv(0xa0, &[&attribute])]);
            let algorithm = tlv(SEQUENCE, &[&oid(rfc5912::ECDSA_WITH_SHA_256)]);
            KeyRequest::parse(&tlv(SEQUENCE, &[&info, &algorithm, &[3, 2, 0, 0]]))
        };
        for attribute in [DECRYPT_KEY_IDENTIFIER, ASYMMETRIC_DECRYPT_KEY_IDENTIFIER] {
            let told = with(attribute, &[4, 1, 7]).unwrap_err();
            assert!(told.0.contains("not offered") && told.0.contains("Claim"), "{told}");
        }
        let told = with(rfc2985::PKCS_9_AT_CHALLENGE_PASSWORD, &[12, 1, b'p']).unwrap_err();
        assert!(told.0.contains("challengePassword"), "{told}");
        assert!(!with(rfc5912::ID_EXTENSION_REQ, &[0x30, 0]).unwrap().asks_for_names());
    }

    #[test]
    fn a_request_keeps_to_the_names_of_the_certificate_that_it_follows() {
        let key = KeyPair::generate().unwrap();
        let current = certificate("amf-1", &["a.example", "b.example"]);
        let keeps = |name: &str, names: &[&str]| {
            CertificationRequest::parse(&request(&key, name, names)).unwrap().keeps_names_of(&current)
        };
        assert_eq!(keeps("AMF-1", &["b.example", "a.example"]), Ok(()));
        assert_eq!(keeps("amf-1", &[]), Ok(()));
        assert!(keeps("amf-2", &["a.example", "b.example"]).unwrap_err().0.contains("subject"));
        for other in
            [&["a.example"][..], &["a.example", "b.example", "c.example"], &["a.example", "c.example"]]
        {
            assert!(keeps("amf-1", other).unwrap_err().0.contains("subjectAltName"), "{other:?}");
        }
    }

    #[test]
    fn the_attributes_name_the_key_of_the_profile() {
        let of = |key_type: &str| {
            let text = format!("subject = \"CN={{credential}}\"\nkey_type = \"{key_type}\"");
            csr_attributes(&Profile::parse("p".parse().unwrap(), &text).unwrap())
        };
        // SEQUENCE { SEQUENCE { rsaEncryption, SET { INTEGER 3072 } }, sha256WithRSAEncryption }
        assert_eq!(
            hex::encode(of("RSA_3072")),
            "301e301106092a864886f70d010101310402020c0006092a864886f70d01010b"
        );
        assert!(hex::encode(of("EC_P384")).contains("2b81040022"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_request_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(CertificationRequest::parse(&bytes).is_err());
            if let Some(first) = bytes.first_mut() {
                *first = 0x30;
            }
            prop_assert!(CertificationRequest::parse(&bytes).is_err());
            let _ = (KeyRequest::parse(&bytes), names_of(&bytes));
        }

        #[test]
        fn no_damaged_request_is_accepted(at in 0..200_usize, flip in 1..=255_u8) {
            let mut der = request(&KeyPair::generate().unwrap(), "amf-1", &["a.example"]);
            let at = at % der.len();
            der[at] ^= flip;
            let _ = KeyRequest::parse(&der);
            // ECDSA signatures and their encoding leave nothing that could change unnoticed.
            prop_assert!(CertificationRequest::parse(&der).is_err());
        }
    }
}
