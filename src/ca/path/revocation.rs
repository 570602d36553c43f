//! Whether a CRL withdraws a certificate (RFC 5280 6.3).

use super::build::Search;
use super::certificate::Certificate;
use super::crl::Crl;
use super::name::DistinguishedName;
use super::{Conformance, PathError, PolicyRules, Purpose, Revocation, Rules};
use crate::nfv::Sha256Hash;
use x509_cert::ext::pkix::CrlReason;
use x509_cert::ext::pkix::crl::dp::{DistributionPoint, ReasonFlags};
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};

/// CRL issuers whose own certificates may be withdrawn by other CRL issuers, and so on.
const CRL_ISSUERS_NESTED: usize = 3;

/// Reasons for revocation as bits of ReasonFlags, without `unused`.
type Reasons = u16;
const ALL_REASONS: Reasons = 0b1_1111_1110;

/// Checks one certificate of a path, whose issuer is `issuer`: every CRL that covers it is asked, but for those that a newer
/// one of the same signer and scope replaces.
pub(super) fn check(
    search: &Search<'_>,
    certificate: &Certificate,
    issuer: &Certificate,
) -> Result<(), PathError> {
    let required = search.rules.revocation == Revocation::Require;
    // RFC 9608: its CA publishes nothing about it. CA certificates must not have the extension.
    if certificate.extensions.no_revocation && !certificate.is_ca() {
        return Ok(());
    }
    let mut known: Reasons = 0;
    let mut problem = format!("no CRL covers {}", certificate.shown());
    let of_issuer = DistributionPoint { distribution_point: None, reasons: None, crl_issuer: None };
    for point in certificate.extensions.distribution_points.iter().chain([&of_issuer]) {
        for crl in search.crls.iter().filter(|crl| crl.base.is_none()) {
            let Some(reasons) = covered(crl, point, certificate) else { continue };
            if search.rules.conformance == Conformance::Strict && !crl.conforms() {
                problem = format!("the CRL of {} has no CRL number, or a critical one", crl.issuer());
                continue;
            }
            let signer = match signed(search, crl, issuer) {
                Ok(signer) => signer,
                Err(error @ PathError::TooMuchWork(_)) => return Err(error),
                Err(error) => {
                    problem = format!("the CRL of {}: {error}", crl.issuer());
                    continue;
                }
            };
            let now = search.rules.now;
            if crl.is_early(now) {
                problem = format!("the CRL of {} is of the future: {}", crl.issuer(), crl.this_update());
                continue;
            }
            if is_replaced(search, crl, signer, issuer)? {
                continue;
            }
            match latest_entry(search, crl, certificate, issuer)? {
                Some(reason) => {
                    let what = format!("{} by {} ({reason:?})", certificate.shown(), crl.issuer());
                    return Err(PathError::Revoked(what));
                }
                None if crl.is_current(now) => known |= reasons,
                None => {
                    let until = crl.next_update().map_or("never".to_owned(), |next| next.to_string());
                    problem = format!("the CRL of {} was current until {until}", crl.issuer());
                }
            }
        }
    }
    if required && known != ALL_REASONS {
        return Err(PathError::RevocationUnknown(problem));
    }
    Ok(())
}

/// Whether a newer CRL of the same signer and scope is there. One that does not verify replaces nothing.
fn is_replaced(
    search: &Search<'_>,
    crl: &Crl,
    signer: Sha256Hash,
    issuer: &Certificate,
) -> Result<bool, PathError> {
    for newer in search.crls.iter().filter(|newer| newer.replaces(crl) && crl.is_older_than(newer)) {
        let usable = search.rules.conformance == Conformance::Processing || newer.conforms();
        if !usable || newer.is_early(search.rules.now) {
            continue;
        }
        match signed(search, newer, issuer) {
            Ok(other) if other == signer => return Ok(true),
            Err(error @ PathError::TooMuchWork(_)) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(false)
}

/// The reasons for which `crl` would list the certificate, by what `point` says (6.3.3 b and d); none: it is not for it.
fn covered(crl: &Crl, point: &DistributionPoint, certificate: &Certificate) -> Option<Reasons> {
    let scope = crl.scope.as_ref();
    match &point.crl_issuer {
        Some(issuers) => {
            let named = directory_names(issuers).any(|name| name == crl.issuer);
            if !named || !scope.is_some_and(|scope| scope.indirect_crl) {
                return None;
            }
        }
        None if crl.issuer != certificate.issuer => return None,
        None => {}
    }
    let own = point.reasons.as_ref().map_or(ALL_REASONS, bits);
    let Some(scope) = scope else { return Some(own) };
    if let Some(name) = &scope.distribution_point {
        let names_of_crl = full_names(name, &crl.issuer);
        let names_of_point = match (&point.distribution_point, &point.crl_issuer) {
            (Some(name), Some(issuers)) => {
                // A relative name is below the CRL issuer's.
                let issuer = directory_names(issuers).next().unwrap_or_default();
                full_names(name, &issuer)
            }
            (Some(name), None) => full_names(name, &certificate.issuer),
            (None, Some(issuers)) => issuers.iter().map(PointName::new).collect(),
            (None, None) => vec![PointName::Directory(certificate.issuer.clone())],
        };
        if !names_of_point.iter().any(|name| names_of_crl.contains(name)) {
            return None;
        }
    }
    let is_ca = certificate.is_ca();
    if scope.only_contains_user_certs && is_ca
        || scope.only_contains_ca_certs && !is_ca
        || scope.only_contains_attribute_certs
    {
        return None;
    }
    Some(own & scope.only_some_reasons.as_ref().map_or(ALL_REASONS, bits))
}

/// Verifies the CRL's signature by the certificate's issuer, or by a CRL issuer with a path of its own to the anchor
/// (6.3.3 f and g). Gives the SHA-256 of the signer's certificate.
fn signed(search: &Search<'_>, crl: &Crl, issuer: &Certificate) -> Result<Sha256Hash, PathError> {
    let mut problem = PathError::UnknownIssuer("its signer is not known".to_owned());
    for signer in [issuer, search.anchor] {
        if crl.may_be_signed_by(signer) {
            match crl.verify_within(search.work, signer) {
                Err(error) => problem = error,
                Ok(()) => return Ok(signer.fingerprint),
            }
        }
    }
    for signer in search.pool.iter().filter(|signer| crl.may_be_signed_by(signer)) {
        if signer.fingerprint == issuer.fingerprint {
            continue;
        }
        let path = crl.verify_within(search.work, signer).and_then(|()| {
            // Its path is being searched for: a CRL issuer may be the one that would withdraw its own certificate.
            if search.crl_issuers.contains(&signer.fingerprint) {
                return Ok(());
            }
            if search.crl_issuers.len() >= CRL_ISSUERS_NESTED {
                return Err(PathError::UnknownIssuer("CRL issuers need each other too deep down".to_owned()));
            }
            let rules =
                Rules { purpose: Purpose::Any, policies: PolicyRules::default(), ..search.rules.clone() };
            let crl_issuers: Vec<_> =
                search.crl_issuers.iter().copied().chain([signer.fingerprint]).collect();
            Search { rules: &rules, crl_issuers: &crl_issuers, ..*search }.find(signer).map(|_| ())
        });
        match path {
            Ok(()) => return Ok(signer.fingerprint),
            Err(error @ PathError::TooMuchWork(_)) => return Err(error),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

/// The reason for which the certificate is withdrawn, by the newest delta CRL that continues `complete`, else by
/// `complete` itself (6.3.3 c, h to k).
fn latest_entry(
    search: &Search<'_>,
    complete: &Crl,
    certificate: &Certificate,
    issuer: &Certificate,
) -> Result<Option<CrlReason>, PathError> {
    let mut newest: Option<&Crl> = None;
    for delta in search.crls.iter().filter(|delta| delta.continues(complete)) {
        if delta.is_early(search.rules.now) || newest.is_some_and(|newest| delta.is_older_than(newest)) {
            continue;
        }
        match signed(search, delta, issuer) {
            Ok(_) => newest = Some(delta),
            Err(error @ PathError::TooMuchWork(_)) => return Err(error),
            Err(_) => {}
        }
    }
    match newest.and_then(|delta| Some((delta, delta.entry(certificate)?))) {
        Some((delta, CrlReason::RemoveFromCRL)) if delta.is_current(search.rules.now) => Ok(None),
        Some((_, CrlReason::RemoveFromCRL)) | None => Ok(complete.entry(certificate)),
        Some((_, reason)) => Ok(Some(reason)),
    }
}

fn directory_names(names: &[GeneralName]) -> impl Iterator<Item = DistinguishedName> {
    names.iter().filter_map(|name| match name {
        GeneralName::DirectoryName(name) => Some(DistinguishedName::new(name)),
        _ => None,
    })
}

/// A distribution point's name, ready to be compared.
#[derive(PartialEq, Eq)]
enum PointName {
    Directory(DistinguishedName),
    Other(GeneralName),
}

impl PointName {
    fn new(name: &GeneralName) -> Self {
        match name {
            GeneralName::DirectoryName(name) => Self::Directory(DistinguishedName::new(name)),
            other => Self::Other(other.clone()),
        }
    }
}

fn full_names(name: &DistributionPointName, issuer: &DistinguishedName) -> Vec<PointName> {
    match name {
        DistributionPointName::FullName(names) => names.iter().map(PointName::new).collect(),
        DistributionPointName::NameRelativeToCRLIssuer(relative) => {
            vec![PointName::Directory(issuer.with(relative))]
        }
    }
}

fn bits(reasons: &ReasonFlags) -> Reasons {
    reasons.bits() & ALL_REASONS
}
