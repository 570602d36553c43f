//! Validation of certification paths (RFC 5280 6, with the policy graph of RFC 9618; ETSI GR NFV-SEC 005 4.5.1): the one
//! place where it is decided whether a certificate is accepted.
//!
//! | file | what it does |
//! |---|---|
//! | `certificate` | parses a certificate, once |
//! | `build` | finds paths from a certificate to an anchor, within bounds |
//! | `process` | judges one path, certificate by certificate (6.1) |
//! | `signature`, `name`, `constraints`, `policies` | the parts of that |
//! | `conformance` | what a strict relying party demands besides |
//! | `crl`, `revocation` | CRLs, and whether one withdraws a certificate (6.3) |
//! | `host`, `tls` | TLS: the server's name and rustls' verifier for clients of ours, and what peers sign in handshakes |
//!
//! An anchor is a CA certificate that an operator configured; it may be an intermediate one, and a path ends there and
//! nowhere else. Its name, key, validity period, usages, path length, name constraints and critical extensions are
//! respected (RFC 5937); its certificate policies are not looked at.

mod build;
mod certificate;
mod conformance;
mod constraints;
mod crl;
mod host;
mod name;
mod policies;
mod process;
mod revocation;
mod signature;
mod tls;
mod work;

use crate::clock::Timestamp;
use crate::credential::named;
use crate::nfv::Sha256Hash;
pub use certificate::Certificate;
pub use crl::{CRL_CLOCK_SKEW, Crl};
pub use host::ServerName;
pub(super) use name::same_name;
pub use policies::PolicySet;
use std::sync::Arc;
pub use tls::{HandshakeSignatures, ServersUnder};
pub use work::Work;

/// Certificates that a peer may send. TLS implementations bound it near this.
pub const MAX_CHAIN: usize = 10;

/// What the certificate at the end of the path is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing in particular: no extended key usage is demanded.
    Any,
    /// TLS client authentication: extended key usage, where it is there, has clientAuth (also in intermediates);
    /// keyUsage, where it is there, has digitalSignature.
    TlsClient,
    /// TLS server authentication: extended key usage in the same way with serverAuth; keyUsage, where it is there and the
    /// server is no CA, has digitalSignature, keyEncipherment or keyAgreement; and a subjectAltName of this server.
    TlsServer(ServerName),
    /// The same of whatever name: a certificate that its holder is to have, judged where nobody is connected to.
    TlsServerOfAnyName,
}

named!(
    /// What is demanded of CRLs.
    Revocation, "CRL policy" {
        /// No CRL is looked at.
        Off = "off",
        /// What a CRL withdraws is refused, also when the CRL is past its nextUpdate; a CA without a CRL is accepted.
        IfPresent = "if_present",
        /// Every certificate below the anchor must be covered by a CRL that is current.
        Require = "require",
    }
);

/// How much of RFC 5280's certificate profile is demanded, besides what path validation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conformance {
    /// What section 6 demands of a relying party.
    #[default]
    Processing,
    /// Also what section 4 demands of CAs, e.g. key identifiers and criticality.
    Strict,
}

/// Certificate policies that are demanded (RFC 5280 6.1.1 c, e, f, g).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyRules {
    /// `user-initial-policy-set`; none: any policy.
    pub acceptable: Option<PolicySet>,
    /// The path must be valid for one of them.
    pub require_explicit: bool,
    /// No mappings.
    pub inhibit_mapping: bool,
    /// anyPolicy does not count.
    pub inhibit_any: bool,
}

/// What a path is judged by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The time of the judgement. Whole seconds count: notAfter is the last second.
    pub now: Timestamp,
    /// What for.
    pub purpose: Purpose,
    /// Intermediate certificates, not counting self-issued ones.
    pub max_intermediates: u32,
    /// Certificate policies.
    pub policies: PolicyRules,
    /// CRLs.
    pub revocation: Revocation,
    /// The profile.
    pub conformance: Conformance,
}

impl Rules {
    /// For a purpose at a time: any policy, CRLs where there are some.
    pub fn new(purpose: Purpose, now: Timestamp) -> Self {
        Self {
            now,
            purpose,
            max_intermediates: MAX_CHAIN as u32,
            policies: PolicyRules::default(),
            revocation: Revocation::IfPresent,
            conformance: Conformance::default(),
        }
    }
}

/// A path that was found valid. Only [`validate`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidPath {
    certificates: Vec<Sha256Hash>,
    policies: PolicySet,
}

impl ValidPath {
    /// Certificates below the anchor, at least one.
    pub fn length(&self) -> usize {
        self.certificates.len()
    }

    /// SHA-256 of those certificates' DER, the leaf first.
    pub fn certificates(&self) -> &[Sha256Hash] {
        &self.certificates
    }

    /// The policies that it is valid for (`user-constrained-policy-set`); empty if the path has none.
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }
}

/// Finds a valid path from `leaf` over some of `intermediates` (any order, more than needed) to `anchor`.
/// `work` bounds what is spent; one may be shared by the anchors of one judgement.
///
/// # Errors
/// [`PathError`]; if several paths fail differently, the failure that is nearest to success.
pub fn validate(
    leaf: &Certificate,
    intermediates: &[Certificate],
    anchor: &Certificate,
    crls: &[Arc<Crl>],
    rules: &Rules,
    work: &Work,
) -> Result<ValidPath, PathError> {
    build::Search { pool: intermediates, anchor, crls, rules, work, crl_issuers: &[] }.find(leaf)
}

/// [`validate`] without CRLs to whichever of `anchors`: gives the shortest of the paths, and where in `anchors` it ends.
///
/// # Errors
/// [`PathError`], of the anchor that is nearest to success.
pub fn validate_to_any(
    leaf: &Certificate,
    intermediates: &[Certificate],
    anchors: &[Certificate],
    rules: &Rules,
) -> Result<(ValidPath, usize), PathError> {
    let mut nearest = PathError::UnknownIssuer(format!("of {}", leaf.shown()));
    let mut shortest: Option<(ValidPath, usize)> = None;
    for (place, anchor) in anchors.iter().enumerate() {
        match validate(leaf, intermediates, anchor, &[], rules, &Work::default()) {
            Ok(path) if shortest.as_ref().is_none_or(|(known, _)| path.length() < known.length()) => {
                shortest = Some((path, place));
            }
            Err(error) if error.nearness() > nearest.nearness() => nearest = error,
            _ => {}
        }
    }
    shortest.ok_or(nearest)
}

/// [`validate`] of a chain as it is presented: DER, the leaf first, the others in any order, without CRLs.
///
/// # Errors
/// [`PathError`].
pub fn validate_chain(
    chain: &[impl AsRef<[u8]>],
    anchor: &[u8],
    rules: &Rules,
) -> Result<ValidPath, PathError> {
    let mut chain = chain.iter().map(|der| Certificate::from_der(der.as_ref()));
    let leaf = chain.next().ok_or(PathError::Empty)??;
    let intermediates = chain.collect::<Result<Vec<_>, _>>()?;
    validate(&leaf, &intermediates, &Certificate::from_der(anchor)?, &[], rules, &Work::default())
}

/// Whether an end entity's certificate is one for `rules.purpose`, whoever issued it: validity, usages, known critical
/// extensions, an accepted algorithm.
///
/// # Errors
/// [`PathError`].
pub fn check_end_entity(leaf: &Certificate, rules: &Rules) -> Result<(), PathError> {
    process::check_end_entity(leaf, rules)
}

/// Whether a certificate is as RFC 5280 section 4 demands, whatever relying parties make of it.
///
/// # Errors
/// [`PathError::NotConforming`].
pub fn check_conformance(certificate: &Certificate) -> Result<(), PathError> {
    conformance::check(certificate)
        .map_err(|what| PathError::NotConforming(format!("{}: {what}", certificate.shown())))
}

/// Whether a certificate can be an anchor under these rules: a CA's, within its validity, with no critical extension that
/// is unknown here.
///
/// # Errors
/// [`PathError`].
pub fn check_anchor(anchor: &Certificate, rules: &Rules) -> Result<(), PathError> {
    process::check_anchor(anchor, rules)
}

/// Why no path was accepted; for the auditor, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No certificate was presented.
    #[error("no certificate was presented")]
    Empty,
    /// No anchor issued it.
    #[error("no path to a trust anchor: {0}")]
    UnknownIssuer(String),
    /// A certificate cannot be read, or the chain is longer than anyone's is.
    #[error("malformed certificate or chain: {0}")]
    Malformed(String),
    /// The right name issued it, with another key or an algorithm that is not accepted.
    #[error("signature: {0}")]
    Signature(String),
    /// A bound was reached before a path was found.
    #[error("the path would take too much work: {0}")]
    TooMuchWork(&'static str),
    /// An issuer is no CA, or may not issue so far down.
    #[error("not a CA for this path: {0}")]
    NotCa(String),
    /// A critical extension that is not known here.
    #[error("critical extension: {0}")]
    CriticalExtension(String),
    /// A name is outside of a CA's name constraints.
    #[error("name constraints: {0}")]
    NameConstraints(String),
    /// The path is not valid for a policy that is demanded.
    #[error("certificate policies: {0}")]
    Policy(String),
    /// Strict relying parties only: a certificate is not as RFC 5280 demands.
    #[error("not conforming to RFC 5280: {0}")]
    NotConforming(String),
    /// The certificate is for another server.
    #[error("the certificate is not for {0}")]
    WrongServer(String),
    /// The certificate, or a CA of the path, is not for this use.
    #[error("usage: {0}")]
    WrongUsage(String),
    /// A certificate of the path is before its notBefore.
    #[error("not valid yet: {0}")]
    NotYetValid(String),
    /// A certificate of the path is past its notAfter.
    #[error("expired: {0}")]
    Expired(String),
    /// No current CRL covers a certificate although that is demanded.
    #[error("revocation status unknown: {0}")]
    RevocationUnknown(String),
    /// A CRL withdraws a certificate of the path.
    #[error("revoked: {0}")]
    Revoked(String),
}

impl PathError {
    /// Stable code for the audit log's `reason_code` and for metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "NO_CERTIFICATE",
            Self::UnknownIssuer(_) => "CERTIFICATE_UNKNOWN_ISSUER",
            Self::Malformed(_) => "CERTIFICATE_MALFORMED",
            Self::Signature(_) => "CERTIFICATE_SIGNATURE_WRONG",
            Self::TooMuchWork(_) => "CERTIFICATE_TOO_MUCH_WORK",
            Self::NotCa(_) => "CERTIFICATE_ISSUER_NOT_CA",
            Self::CriticalExtension(_) => "CERTIFICATE_EXTENSION_UNKNOWN",
            Self::NameConstraints(_) => "CERTIFICATE_NAME_CONSTRAINTS",
            Self::Policy(_) => "CERTIFICATE_POLICY",
            Self::NotConforming(_) => "CERTIFICATE_NOT_CONFORMING",
            Self::WrongServer(_) => "CERTIFICATE_WRONG_SERVER",
            Self::WrongUsage(_) => "CERTIFICATE_WRONG_USAGE",
            Self::NotYetValid(_) => "CERTIFICATE_NOT_YET_VALID",
            Self::Expired(_) => "CERTIFICATE_EXPIRED",
            Self::RevocationUnknown(_) => "CERTIFICATE_REVOCATION_UNKNOWN",
            Self::Revoked(_) => "CERTIFICATE_REVOKED",
        }
    }

    /// How near a failure is to success: an expired path tells the auditor more than another anchor's "unknown
    /// issuer".
    pub(crate) fn nearness(&self) -> u8 {
        match self {
            Self::Empty => 0,
            Self::UnknownIssuer(_) => 1,
            Self::Malformed(_) => 2,
            Self::Signature(_) => 3,
            Self::TooMuchWork(_) => 4,
            Self::NotCa(_) => 5,
            Self::CriticalExtension(_) => 6,
            Self::NameConstraints(_) => 7,
            Self::Policy(_) => 8,
            Self::NotConforming(_) => 9,
            Self::WrongServer(_) => 10,
            Self::WrongUsage(_) => 11,
            Self::NotYetValid(_) => 12,
            Self::Expired(_) => 13,
            Self::RevocationUnknown(_) => 14,
            Self::Revoked(_) => 15,
        }
    }
}
