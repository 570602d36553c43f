//! A certificate revocation list as path validation needs it (RFC 5280 5): complete, delta, of one distribution point,
//! indirect.

use super::PathError;
use super::certificate::{Certificate, SignedBytes, key_identifiers_agree, seconds, shown};
use super::name::DistinguishedName;
use super::work::Work;
use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use const_oid::db::rfc5280 as id;
use der::{Decode, Encode};
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;
use x509_cert::crl::{CertificateList, RevokedCert};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlReason, IssuingDistributionPoint};

/// Larger CRLs are refused before they are read. One with 100,000 entries has 4 MB.
const MAX_CRL_BYTES: usize = 16 * 1024 * 1024;
/// How far a CA's clock may be ahead of ours: a CRL from further ahead is of the future.
pub const CRL_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// A parsed CRL. Nothing of it is verified.
#[derive(Debug, Clone)]
pub struct Crl {
    pub(super) fingerprint: Sha256Hash,
    signed: SignedBytes,
    /// SHA-256 of the certificate by which its signature was verified. A list of megabytes is hashed once, not at every
    /// judgement.
    verified_by: OnceLock<Sha256Hash>,
    pub(super) issuer: DistinguishedName,
    issuer_shown: String,
    this_update: Timestamp,
    next_update: Option<Timestamp>,
    pub(super) number: Option<Number>,
    number_is_critical: bool,
    /// Of a delta CRL: the number of the complete CRL that it starts from.
    pub(super) base: Option<Number>,
    pub(super) scope: Option<IssuingDistributionPoint>,
    scope_der: Vec<u8>,
    authority_key: Option<Vec<u8>>,
    /// By certificate issuer and serial number (DER of the INTEGER).
    entries: HashMap<(DistinguishedName, Vec<u8>), CrlReason>,
}

/// A CRL number: octets without leading zeros, so that the longer one is the greater.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Number(Vec<u8>);

impl Number {
    pub(super) fn is_at_most(&self, other: &Self) -> bool {
        (self.0.len(), &self.0) <= (other.0.len(), &other.0)
    }
}

impl Crl {
    /// Reads exactly one CRL, DER.
    ///
    /// # Errors
    /// [`PathError::Malformed`]; [`PathError::CriticalExtension`] for a CRL that must not be used because it has a
    /// critical extension, or an entry with one, that is not known here.
    pub fn from_der(der: &[u8]) -> Result<Self, PathError> {
        if der.len() > MAX_CRL_BYTES {
            return Err(PathError::Malformed(format!("a CRL over {MAX_CRL_BYTES} bytes")));
        }
        let malformed = |error: der::Error| PathError::Malformed(format!("CRL: {error}"));
        let list: CertificateList = CertificateList::from_der(der).map_err(malformed)?;
        let tbs = list.tbs_cert_list;
        if tbs.signature != list.signature_algorithm {
            return Err(PathError::Malformed("a CRL with two different signature algorithms".to_owned()));
        }
        let issuer = DistinguishedName::new(&tbs.issuer);
        let mut crl = Self {
            fingerprint: Sha256Hash::of(der),
            signed: SignedBytes::from_der(der).map_err(malformed)?,
            verified_by: OnceLock::new(),
            issuer_shown: shown(&tbs.issuer),
            this_update: seconds(tbs.this_update),
            next_update: tbs.next_update.map(seconds),
            number: None,
            number_is_critical: false,
            base: None,
            scope: None,
            scope_der: Vec::new(),
            authority_key: None,
            entries: HashMap::new(),
            issuer,
        };
        let mut seen = Vec::new();
        for extension in tbs.crl_extensions.iter().flatten() {
            if seen.contains(&extension.extn_id) {
                return Err(PathError::Malformed(format!("extension {} twice in a CRL", extension.extn_id)));
            }
            seen.push(extension.extn_id);
            if !crl.decode(extension).map_err(malformed)? && extension.critical {
                return Err(unknown(extension));
            }
        }
        let mut certificate_issuer = crl.issuer.clone();
        for entry in tbs.revoked_certificates.iter().flatten() {
            crl.add(entry, &mut certificate_issuer)?;
        }
        Ok(crl)
    }

    /// SHA-256 of its DER.
    pub fn fingerprint(&self) -> Sha256Hash {
        self.fingerprint
    }

    /// The issuer's name for people, RFC 4514.
    pub fn issuer(&self) -> &str {
        &self.issuer_shown
    }

    /// When it was made.
    pub fn this_update(&self) -> Timestamp {
        self.this_update
    }

    /// Until when it is current; RFC 5280 demands it, without it a CRL is never current.
    pub fn next_update(&self) -> Option<Timestamp> {
        self.next_update
    }

    /// Certificates that it withdraws.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Whether it covers the same certificates as `other`: the same issuer, key and scope, both complete or both delta.
    /// Of two such the newer counts.
    pub fn replaces(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.authority_key == other.authority_key
            && self.scope_der == other.scope_der
            && self.base.is_some() == other.base.is_some()
    }

    /// Whether it is older than `other`, by number or else by time.
    pub fn is_older_than(&self, other: &Self) -> bool {
        match (&self.number, &other.number) {
            (Some(own), Some(others)) => own.is_at_most(others) && own != others,
            _ => self.this_update < other.this_update,
        }
    }

    /// Verifies its signature by `issuer`'s key, if the names say that it could be the issuer's.
    ///
    /// # Errors
    /// [`PathError::Signature`]; [`PathError::UnknownIssuer`] if it is another CA's.
    pub fn verify(&self, issuer: &Certificate) -> Result<(), PathError> {
        if !self.may_be_signed_by(issuer) {
            return Err(PathError::UnknownIssuer(format!("the CRL is of {}", self.issuer_shown)));
        }
        self.verify_within(&Work::default(), issuer)
    }

    /// [`Crl::verify`] without looking at names, at the expense of `work`.
    pub(super) fn verify_within(&self, work: &Work, issuer: &Certificate) -> Result<(), PathError> {
        if self.verified_by.get() == Some(&issuer.fingerprint) {
            return Ok(());
        }
        work.verify(self.fingerprint, &self.signed, issuer)?;
        self.verified_by.get_or_init(|| issuer.fingerprint);
        Ok(())
    }

    /// Whether it says by which key it is signed (authorityKeyIdentifier).
    pub fn names_key(&self) -> bool {
        self.authority_key.is_some()
    }

    /// Names and key identifiers agree, and the key may sign CRLs (6.3.3 f).
    pub fn may_be_signed_by(&self, issuer: &Certificate) -> bool {
        self.issuer == issuer.subject
            && issuer.may_sign(false)
            && key_identifiers_agree(&self.authority_key, &issuer.extensions.subject_key)
    }

    /// Whether `now` is from thisUpdate, but for the clocks' difference, to nextUpdate.
    pub(super) fn is_current(&self, now: Timestamp) -> bool {
        let second = now.unix_seconds();
        !self.is_early(now) && self.next_update.is_some_and(|next| second <= next.unix_seconds())
    }

    /// Whether thisUpdate is further ahead of `now` than clocks differ.
    pub fn is_early(&self, now: Timestamp) -> bool {
        now.plus(CRL_CLOCK_SKEW).unix_seconds() < self.this_update.unix_seconds()
    }

    /// What it says of a certificate, `RemoveFromCRL` included.
    pub(super) fn entry(&self, certificate: &Certificate) -> Option<CrlReason> {
        self.entries.get(&(certificate.issuer.clone(), certificate.serial.clone())).copied()
    }

    /// Whether this delta CRL continues the complete CRL `complete` (5.2.4).
    pub(super) fn continues(&self, complete: &Self) -> bool {
        let (Some(base), Some(own), Some(number)) = (&self.base, &self.number, &complete.number) else {
            return false;
        };
        self.issuer == complete.issuer
            && self.authority_key == complete.authority_key
            && self.scope_der == complete.scope_der
            && base.is_at_most(number)
            && number.is_at_most(own)
    }

    /// What strict relying parties demand (5.2.3).
    pub(super) fn conforms(&self) -> bool {
        self.number.is_some() && !self.number_is_critical
    }

    fn decode(&mut self, extension: &Extension) -> der::Result<bool> {
        let der = extension.extn_value.as_bytes();
        match extension.extn_id {
            id::ID_CE_CRL_NUMBER => {
                self.number = Some(number(der)?);
                self.number_is_critical = extension.critical;
            }
            id::ID_CE_DELTA_CRL_INDICATOR => self.base = Some(number(der)?),
            id::ID_CE_ISSUING_DISTRIBUTION_POINT => {
                self.scope = Some(IssuingDistributionPoint::from_der(der)?);
                self.scope_der = der.to_vec();
            }
            id::ID_CE_AUTHORITY_KEY_IDENTIFIER => {
                let identifier = AuthorityKeyIdentifier::from_der(der)?.key_identifier;
                self.authority_key = identifier.map(|key| key.as_bytes().to_vec());
            }
            id::ID_CE_ISSUER_ALT_NAME | id::ID_CE_FRESHEST_CRL => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `certificate_issuer`: that of the entry before, which counts until another one is named (5.3.3).
    fn add(
        &mut self,
        entry: &RevokedCert,
        certificate_issuer: &mut DistinguishedName,
    ) -> Result<(), PathError> {
        let malformed = |error: der::Error| PathError::Malformed(format!("CRL entry: {error}"));
        let mut reason = CrlReason::Unspecified;
        for extension in entry.crl_entry_extensions.iter().flatten() {
            let der = extension.extn_value.as_bytes();
            match extension.extn_id {
                id::ID_CE_CRL_REASONS => reason = CrlReason::from_der(der).map_err(malformed)?,
                id::ID_CE_CERTIFICATE_ISSUER => {
                    let names = Vec::<GeneralName>::from_der(der).map_err(malformed)?;
                    let named = names.iter().find_map(|name| match name {
                        GeneralName::DirectoryName(name) => Some(DistinguishedName::new(name)),
                        _ => None,
                    });
                    *certificate_issuer = named.ok_or_else(|| unknown(extension))?;
                }
                id::ID_CE_INVALIDITY_DATE => {}
                _ if extension.critical => return Err(unknown(extension)),
                _ => {}
            }
        }
        let serial = entry.serial_number.to_der().map_err(malformed)?;
        self.entries.insert((certificate_issuer.clone(), serial), reason);
        Ok(())
    }
}

fn number(der: &[u8]) -> der::Result<Number> {
    let number = der::asn1::Uint::from_der(der)?;
    Ok(Number(number.as_bytes().to_vec()))
}

fn unknown(extension: &Extension) -> PathError {
    PathError::CriticalExtension(format!("{} in a CRL is not known", extension.extn_id))
}
