//! A certificate as path validation needs it: parsed once, every extension that is understood decoded.

use super::PathError;
use super::name::DistinguishedName;
use super::signature::{self, SignatureError};
use crate::ca::facts::MAX_CERTIFICATE_BYTES;
use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use const_oid::db::rfc5280 as id;
use const_oid::db::rfc5912::ID_CE_NO_REV_AVAIL;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode, Encode, Sequence, Tag, Tagged};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use std::collections::BTreeSet;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, CertificatePolicies, CrlDistributionPoints, ExtendedKeyUsage, KeyUsage,
    NameConstraints, PolicyConstraints, PolicyMappings, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;

/// A parsed certificate. Nothing of it is verified.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub(super) fingerprint: Sha256Hash,
    pub(super) signed: SignedBytes,
    pub(super) version: Version,
    /// DER of the INTEGER: negative numbers and leading zeros stay apart.
    pub(super) serial: Vec<u8>,
    pub(super) issuer: DistinguishedName,
    pub(super) subject: DistinguishedName,
    pub(super) subject_name: Name,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Both times have the form that RFC 5280 4.1.2.5 gives their year.
    pub(super) times_conform: bool,
    pub(super) key: SubjectPublicKeyInfoOwned,
    pub(super) extensions: Extensions,
}

/// What is common to certificates and CRLs: bytes, algorithm, signature.
#[derive(Debug, Clone)]
pub(super) struct SignedBytes {
    pub(super) tbs: Vec<u8>,
    pub(super) algorithm: AlgorithmIdentifierOwned,
    pub(super) signature: Vec<u8>,
}

/// The extensions that are understood here.
#[derive(Debug, Clone, Default)]
pub(super) struct Extensions {
    /// In the order of the certificate.
    pub(super) present: Vec<(ObjectIdentifier, bool)>,
    pub(super) unknown_critical: Option<ObjectIdentifier>,
    pub(super) basic_constraints: Option<BasicConstraints>,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) extended_key_usage: Option<Vec<ObjectIdentifier>>,
    pub(super) alternative_names: Option<GeneralNames>,
    pub(super) name_constraints: Option<NameConstraints>,
    pub(super) policies: Option<BTreeSet<ObjectIdentifier>>,
    pub(super) policy_mappings: Vec<(ObjectIdentifier, ObjectIdentifier)>,
    pub(super) policy_constraints: Option<PolicyConstraints>,
    pub(super) inhibit_any_policy: Option<u32>,
    pub(super) authority_key: Option<Vec<u8>>,
    pub(super) subject_key: Option<Vec<u8>>,
    pub(super) distribution_points: Vec<DistributionPoint>,
    /// RFC 9608: no revocation information exists.
    pub(super) no_revocation: bool,
}

/// basicConstraints. The crate's own type takes path lengths up to 255 only.
#[derive(Debug, Clone, Copy, Sequence)]
pub(super) struct BasicConstraints {
    #[asn1(default = "Default::default")]
    pub(super) ca: bool,
    pub(super) path_length: Option<u32>,
}

/// TBSCertificate. The crate's own type reads no time before 1970.
#[derive(Sequence)]
struct Tbs<'a> {
    #[asn1(context_specific = "0", default = "Default::default")]
    version: Version,
    serial: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity<'a>,
    subject: Name,
    key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    issuer_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    subject_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct Validity<'a> {
    not_before: AnyRef<'a>,
    not_after: AnyRef<'a>,
}

#[derive(Sequence)]
struct Outer<'a> {
    tbs: AnyRef<'a>,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitStringRef<'a>,
}

impl SignedBytes {
    pub(super) fn from_der(der: &[u8]) -> der::Result<Self> {
        let outer = Outer::from_der(der)?;
        Ok(Self {
            // DER has one encoding only: what is encoded again is what was signed.
            tbs: outer.tbs.to_der()?,
            algorithm: outer.algorithm,
            signature: outer.signature.as_bytes().unwrap_or_default().to_vec(),
        })
    }

    pub(super) fn verify(&self, key: &SubjectPublicKeyInfoOwned) -> Result<(), SignatureError> {
        signature::verify(&self.algorithm, key, &self.tbs, &self.signature)
    }
}

/// TBSCertificate up to the key, each field whatever it may be.
#[derive(Sequence)]
struct Keyed<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    _version: Option<AnyRef<'a>>,
    _serial: AnyRef<'a>,
    _signature: AnyRef<'a>,
    _issuer: AnyRef<'a>,
    _validity: AnyRef<'a>,
    _subject: AnyRef<'a>,
    key: AnyRef<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    _issuer_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    _subject_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    _extensions: Option<AnyRef<'a>>,
}

/// The SubjectPublicKeyInfo of a certificate, DER, of which nothing else is judged; none if it has none.
pub(super) fn public_key_of(certificate: &[u8]) -> Option<Vec<u8>> {
    if certificate.len() > MAX_CERTIFICATE_BYTES {
        return None;
    }
    let tbs = Outer::from_der(certificate).ok()?.tbs.to_der().ok()?;
    Keyed::from_der(&tbs).ok()?.key.to_der().ok()
}

impl Certificate {
    /// Reads exactly one certificate, DER.
    ///
    /// # Errors
    /// [`PathError::Malformed`]: no certificate, longer than 64 KiB, an extension twice or not readable, two
    /// different signature algorithms, a name that is no name.
    pub fn from_der(der: &[u8]) -> Result<Self, PathError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(PathError::Malformed(format!("a certificate over {MAX_CERTIFICATE_BYTES} bytes")));
        }
        let signed = SignedBytes::from_der(der).map_err(|error| malformed(&error))?;
        let tbs = Tbs::from_der(&signed.tbs).map_err(|error| malformed(&error))?;
        let broken = |what: &str| PathError::Malformed(format!("{what} in {}", shown(&tbs.subject)));
        if tbs.signature != signed.algorithm {
            return Err(broken("two different signature algorithms"));
        }
        let extensions = tbs.extensions.as_deref().unwrap_or_default();
        if !extensions.is_empty() && tbs.version != Version::V3 {
            return Err(broken("extensions in a certificate that is not version 3"));
        }
        let time = |der: &AnyRef<'_>| time(der).ok_or_else(|| broken("no time of RFC 5280"));
        let Validity { not_before, not_after } = &tbs.validity;
        Ok(Self {
            fingerprint: Sha256Hash::of(der),
            version: tbs.version,
            serial: tbs.serial.to_der().map_err(|error| malformed(&error))?,
            issuer: DistinguishedName::new(&tbs.issuer),
            subject: DistinguishedName::new(&tbs.subject),
            not_before: time(not_before)?,
            not_after: time(not_after)?,
            times_conform: has_form_of_its_year(not_before) && has_form_of_its_year(not_after),
            extensions: Extensions::decode(extensions).map_err(|what| broken(&what))?,
            key: tbs.key,
            subject_name: tbs.subject,
            signed,
        })
    }

    /// SHA-256 of its DER.
    pub fn fingerprint(&self) -> Sha256Hash {
        self.fingerprint
    }

    /// Whether basicConstraints says cA.
    pub fn is_ca(&self) -> bool {
        self.extensions.basic_constraints.is_some_and(|constraints| constraints.ca)
    }

    /// End of its validity: the last second of it.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The subject for people, RFC 4514.
    pub fn subject(&self) -> String {
        self.shown()
    }

    /// Whether the names, of subject and key, say that `issuer` issued it. Nothing of it is verified.
    pub fn may_be_issued_by(&self, issuer: &Self) -> bool {
        issuer.subject == self.issuer && self.names_key_of(issuer)
    }

    /// Whether it is there to sign certificates or CRLs: a CA's, or a CRL issuer's whose keyUsage says so.
    pub fn is_issuer(&self) -> bool {
        self.is_ca() || self.extensions.key_usage.is_some_and(|usage| usage.crl_sign())
    }

    /// Whether the subjects are the same name (RFC 5280 7.1).
    pub fn is_named_as(&self, other: &Self) -> bool {
        self.subject == other.subject
    }

    /// Issuer and subject are the same name (RFC 5280 6.1).
    pub(super) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// The subject for people.
    pub(super) fn shown(&self) -> String {
        shown(&self.subject_name)
    }

    /// Whether its key may sign certificates (`true`) or CRLs (`false`), as far as keyUsage says.
    pub(super) fn may_sign(&self, certificates: bool) -> bool {
        self.extensions
            .key_usage
            .is_none_or(|usage| if certificates { usage.key_cert_sign() } else { usage.crl_sign() })
    }

    /// Whether `authorityKeyIdentifier` does not contradict that `issuer`'s key signed this.
    pub(super) fn names_key_of(&self, issuer: &Self) -> bool {
        key_identifiers_agree(&self.extensions.authority_key, &issuer.extensions.subject_key)
    }

    /// The alternative names, none if there is no such extension.
    pub(super) fn alternative_names(&self) -> &[GeneralName] {
        self.extensions.alternative_names.as_deref().unwrap_or_default()
    }
}

/// RFC 5280 4.2.1.1: where both are there, they are the same.
pub(super) fn key_identifiers_agree(authority: &Option<Vec<u8>>, subject: &Option<Vec<u8>>) -> bool {
    match (authority, subject) {
        (Some(authority), Some(subject)) => authority == subject,
        _ => true,
    }
}

/// A name for people: RFC 4514, or a word for the empty one.
pub(super) fn shown(name: &Name) -> String {
    let text = name.to_string();
    if text.is_empty() { "a certificate without subject".to_owned() } else { text }
}

/// UTCTime or GeneralizedTime, to the second, in Greenwich (4.1.2.5).
fn time(der: &AnyRef<'_>) -> Option<Timestamp> {
    let text = std::str::from_utf8(der.value()).ok()?.strip_suffix('Z')?;
    let long = match der.tag() {
        // 4.1.2.5.1: from 50 on it is the last century.
        Tag::UtcTime if text.len() == 12 => {
            let century = if text.get(..2)? < "50" { "20" } else { "19" };
            format!("{century}{text}")
        }
        Tag::GeneralizedTime if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    let number = |from: usize, to: usize| {
        let digits = long.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok())?
    };
    let small = |from: usize| u8::try_from(number(from, from + 2)?).ok();
    let month = time::Month::try_from(small(4)?).ok()?;
    let date = time::Date::from_calendar_date(i32::from(number(0, 4)?), month, small(6)?).ok()?;
    let moment = date.with_hms(small(8)?, small(10)?, small(12)?).ok()?;
    Some(Timestamp::from_unix_seconds(moment.assume_utc().unix_timestamp()))
}

/// UTCTime, which ends with 2049, or GeneralizedTime of a year from 2050 on.
fn has_form_of_its_year(der: &AnyRef<'_>) -> bool {
    der.tag() == Tag::UtcTime || der.value().get(..4).is_some_and(|year| year >= b"2050".as_slice())
}

pub(super) fn seconds(time: x509_cert::time::Time) -> Timestamp {
    Timestamp::from_unix_seconds(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

fn malformed(error: &der::Error) -> PathError {
    PathError::Malformed(error.to_string())
}

impl Extensions {
    fn decode(extensions: &[Extension]) -> Result<Self, String> {
        let mut decoded = Self::default();
        for extension in extensions {
            if decoded.has(extension.extn_id) {
                return Err(format!("extension {} twice", extension.extn_id));
            }
            decoded.present.push((extension.extn_id, extension.critical));
            let understood = decoded
                .decode_one(extension)
                .map_err(|error| format!("unreadable extension {}: {error}", extension.extn_id))?;
            if !understood && extension.critical && decoded.unknown_critical.is_none() {
                decoded.unknown_critical = Some(extension.extn_id);
            }
        }
        Ok(decoded)
    }

    /// Says whether the extension is one that is processed here.
    fn decode_one(&mut self, extension: &Extension) -> der::Result<bool> {
        let der = extension.extn_value.as_bytes();
        match extension.extn_id {
            id::ID_CE_BASIC_CONSTRAINTS => self.basic_constraints = Some(BasicConstraints::from_der(der)?),
            id::ID_CE_KEY_USAGE => self.key_usage = Some(KeyUsage::from_der(der)?),
            id::ID_CE_EXT_KEY_USAGE => self.extended_key_usage = Some(ExtendedKeyUsage::from_der(der)?.0),
            id::ID_CE_SUBJECT_ALT_NAME => {
                let names = SubjectAltName::from_der(der)?.0;
                if names.is_empty() || names.iter().any(is_bad_address) {
                    return Err(Tag::OctetString.value_error().into());
                }
                self.alternative_names = Some(names);
            }
            // Says nothing that is decided on here.
            id::ID_CE_ISSUER_ALT_NAME | id::ID_CE_FRESHEST_CRL => {}
            id::ID_CE_NAME_CONSTRAINTS => self.name_constraints = Some(NameConstraints::from_der(der)?),
            id::ID_CE_CERTIFICATE_POLICIES => {
                let policies = CertificatePolicies::from_der(der)?.0;
                let count = policies.len();
                let set: BTreeSet<_> = policies.into_iter().map(|policy| policy.policy_identifier).collect();
                // RFC 5280 4.2.1.4: not empty, no policy twice.
                if set.is_empty() || set.len() != count {
                    return Err(Tag::Sequence.value_error().into());
                }
                self.policies = Some(set);
            }
            id::ID_CE_POLICY_MAPPINGS => {
                let mappings = PolicyMappings::from_der(der)?.0.into_iter();
                self.policy_mappings = mappings
                    .map(|mapping| (mapping.issuer_domain_policy, mapping.subject_domain_policy))
                    .collect();
            }
            id::ID_CE_POLICY_CONSTRAINTS => {
                self.policy_constraints = Some(PolicyConstraints::from_der(der)?);
            }
            id::ID_CE_INHIBIT_ANY_POLICY => self.inhibit_any_policy = Some(u32::from_der(der)?),
            id::ID_CE_AUTHORITY_KEY_IDENTIFIER => {
                let identifier = AuthorityKeyIdentifier::from_der(der)?.key_identifier;
                self.authority_key = identifier.map(|key| key.as_bytes().to_vec());
            }
            id::ID_CE_SUBJECT_KEY_IDENTIFIER => {
                self.subject_key = Some(SubjectKeyIdentifier::from_der(der)?.0.as_bytes().to_vec());
            }
            id::ID_CE_CRL_DISTRIBUTION_POINTS => {
                self.distribution_points = CrlDistributionPoints::from_der(der)?.0;
            }
            ID_CE_NO_REV_AVAIL => self.no_revocation = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn has(&self, extension: ObjectIdentifier) -> bool {
        self.present.iter().any(|(oid, _)| *oid == extension)
    }

    /// None if the extension is not there.
    pub(super) fn is_critical(&self, extension: ObjectIdentifier) -> Option<bool> {
        self.present.iter().find(|(oid, _)| *oid == extension).map(|(_, critical)| *critical)
    }
}

/// An iPAddress that is neither IPv4 nor IPv6 (RFC 5280 4.2.1.6).
fn is_bad_address(name: &GeneralName) -> bool {
    matches!(name, GeneralName::IpAddress(address) if !matches!(address.as_bytes().len(), 4 | 16))
}
