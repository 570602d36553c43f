//! The certificates that come back: nothing is taken that was not asked for.

use super::chain::{CaChain, ExternalCas};
use crate::ca::CertificateFacts;
use crate::ca::path::Purpose;
use crate::ca::profile::{CertificateNames, ExtendedKeyUsage, Profile};
use crate::clock::{HumaneDuration, Timestamp};
use const_oid::db::rfc5280;
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Reader, SliceReader};
use std::collections::BTreeSet;
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::ext::pkix::{ExtendedKeyUsage as ExtendedKeyUsages, SubjectAltName};
use x509_cert::name::Name;

/// The clocks of two machines, and CAs that round up to whole hours.
const TOLERANCE: Duration = Duration::from_secs(3_600);

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// The names in the request.
    pub names: &'a CertificateNames,
    /// The key's SubjectPublicKeyInfo, DER.
    pub public_key_der: &'a [u8],
}

/// A certificate that is what was asked for.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// DER.
    pub certificate_der: Vec<u8>,
    /// What it says.
    pub facts: CertificateFacts,
    /// The CA that signed it, up to the root.
    pub chain: CaChain,
}

/// Judges what came back (DER, in no order). RFC 7030 4.2.3 has it be the certificate alone; servers send CA certificates
/// with it, which are taken for nothing but its path. Its key, names, extended key usages and validity are those that were
/// asked for, and a path leads from it to the configured root at `now`.
///
/// # Errors
/// A sentence for the auditor.
pub fn judge(
    certificates_der: &[Vec<u8>],
    wanted: &Wanted<'_>,
    cas: &ExternalCas,
    now: Timestamp,
) -> Result<Accepted, String> {
    let OfKey { certificate_der, facts, others } = of_key(certificates_der, wanted.public_key_der)?;
    if facts.is_ca {
        return Err("it is a CA's".to_owned());
    }
    check_period(&facts, wanted.profile, now)?;
    let certificate = Certificate::from_der(&certificate_der).map_err(|error| error.to_string())?;
    check_names(&certificate, &facts, wanted.names)?;
    check_usages(&certificate, wanted.profile)?;
    let chain = check_path(&certificate_der, wanted.profile, cas, &others, now)?;
    Ok(Accepted { certificate_der, facts, chain })
}

/// One of several certificates that came together.
#[derive(Debug, Clone)]
pub struct OfKey {
    /// DER.
    pub certificate_der: Vec<u8>,
    /// What it says.
    pub facts: CertificateFacts,
    /// The others, DER.
    pub others: Vec<Vec<u8>>,
}

/// Of certificates that came together (DER) the only one of this key.
///
/// # Errors
/// A sentence, if there is none or more than one.
pub fn of_key(certificates_der: &[Vec<u8>], public_key_der: &[u8]) -> Result<OfKey, String> {
    let mut found: Option<(Vec<u8>, CertificateFacts)> = None;
    let (mut others, mut problem) = (Vec::new(), None);
    for der in certificates_der {
        match CertificateFacts::parse(der) {
            Ok(facts) if facts.public_key_der == public_key_der => {
                if found.replace((der.clone(), facts)).is_some_and(|(before, _)| before != *der) {
                    return Err("there are several for the key".to_owned());
                }
            }
            Ok(_) => others.push(der.clone()),
            Err(error) => problem = Some(error.to_string()),
        }
    }
    let (certificate_der, facts) =
        found.ok_or_else(|| problem.unwrap_or_else(|| "it is for another key".to_owned()))?;
    Ok(OfKey { certificate_der, facts, others })
}

fn check_period(facts: &CertificateFacts, profile: &Profile, now: Timestamp) -> Result<(), String> {
    if facts.not_before > now.plus(TOLERANCE) {
        return Err(format!("it is not valid before {}", facts.not_before));
    }
    if facts.not_after > now.plus(profile.validity()).plus(TOLERANCE) {
        return Err(format!(
            "it ends at {}, later than the profile's validity of {} allows: have the CA issue for no longer, or raise it",
            facts.not_after,
            HumaneDuration(profile.validity()),
        ));
    }
    if facts.not_after.since(now) <= profile.min_remaining_at_claim() {
        return Err(format!(
            "it ends at {}, too soon to be claimed: have the CA issue for longer, or lower the profile's \
             min_remaining_at_claim of {}",
            facts.not_after,
            HumaneDuration(profile.min_remaining_at_claim()),
        ));
    }
    Ok(())
}

fn check_names(
    certificate: &Certificate,
    facts: &CertificateFacts,
    wanted: &CertificateNames,
) -> Result<(), String> {
    // As texts: CAs encode the same text as another string type.
    let subject = Name::from_der(&wanted.subject_der).map_err(|error| error.to_string())?.to_string();
    if facts.subject != subject {
        return Err(format!("its subject is {:?}, not {subject:?}", facts.subject));
    }
    let mut found = BTreeSet::new();
    let extension = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    if let Some((_, names)) = extension.map_err(|error| error.to_string())? {
        for name in names.0 {
            found.insert(name.to_der().map_err(|error| error.to_string())?);
        }
    }
    let mut expected = BTreeSet::new();
    let mut reader = SliceReader::new(&wanted.general_names).map_err(|error| error.to_string())?;
    while !reader.is_finished() {
        let name = AnyRef::decode(&mut reader).and_then(|name| name.to_der());
        expected.insert(name.map_err(|error| error.to_string())?);
    }
    if found != expected {
        return Err(format!(
            "its subject alternative names are others than those that were asked for: it has {}, and {} were asked for",
            shown(&found),
            shown(&expected),
        ));
    }
    Ok(())
}

/// GeneralNames as texts; of a kind that is no text, as its encoding.
fn shown(names: &BTreeSet<Vec<u8>>) -> String {
    let one = |der: &Vec<u8>| {
        let text = AnyRef::from_der(der).ok().and_then(|name| std::str::from_utf8(name.value()).ok());
        let text = text.filter(|text| !text.chars().any(char::is_control));
        text.map_or_else(|| hex::encode(der), |text| format!("{text:?}"))
    };
    let names: Vec<_> = names.iter().map(one).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn check_usages(certificate: &Certificate, profile: &Profile) -> Result<(), String> {
    let extension = certificate.tbs_certificate().get_extension::<ExtendedKeyUsages>();
    let found = extension.map_err(|error| error.to_string())?.map(|(_, usages)| usages.0).unwrap_or_default();
    let found: BTreeSet<ObjectIdentifier> = found.into_iter().collect();
    let wanted = profile.eku().iter().map(|usage| match usage {
        ExtendedKeyUsage::ClientAuth => rfc5280::ID_KP_CLIENT_AUTH,
        ExtendedKeyUsage::ServerAuth => rfc5280::ID_KP_SERVER_AUTH,
    });
    let wanted: BTreeSet<ObjectIdentifier> = wanted.collect();
    if found != wanted {
        let shown = |usages: &BTreeSet<ObjectIdentifier>| {
            let usages: Vec<_> = usages.iter().map(ToString::to_string).collect();
            if usages.is_empty() { "none".to_owned() } else { usages.join(", ") }
        };
        return Err(format!(
            "its extended key usages are others than the profile's: it has {}, and {} were asked for; change the profile's \
             eku or what the CA issues",
            shown(&found),
            shown(&wanted),
        ));
    }
    Ok(())
}

fn check_path(
    certificate_der: &[u8],
    profile: &Profile,
    cas: &ExternalCas,
    others: &[Vec<u8>],
    now: Timestamp,
) -> Result<CaChain, String> {
    let purpose = |usage: &ExtendedKeyUsage| match usage {
        ExtendedKeyUsage::ClientAuth => Purpose::TlsClient,
        ExtendedKeyUsage::ServerAuth => Purpose::TlsServerOfAnyName,
    };
    let purposes: Vec<Purpose> = profile.eku().iter().map(purpose).collect();
    // A CA that backdates nothing may be a little ahead of this clock.
    let now = now.plus(Duration::from_secs(60));
    cas.chain_of(certificate_der, &purposes, now)
        .or_else(|_| cas.with(others, now).chain_of(certificate_der, &purposes, now))
        .map_err(|error| format!("no path leads from it to the configured root: {error}"))
}
