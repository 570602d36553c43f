//! What RFC 5280 section 4 demands of CAs and section 6 does not check: for strict relying parties only, because CAs in
//! use do not always do it.

use super::certificate::Certificate;
use const_oid::db::rfc5280 as id;
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::name::GeneralName;

/// The most octets of a serial number, with its tag and length: 20 and 2.
const SERIAL_DER_MAX: usize = 22;

/// Says what does not conform.
pub(super) fn check(certificate: &Certificate) -> Result<(), String> {
    let extensions = &certificate.extensions;
    let demand = |fulfilled: bool, rule: &str| if fulfilled { Ok(()) } else { Err(rule.to_owned()) };
    let critical = |extension| extensions.is_critical(extension);
    let is_ca = certificate.is_ca();

    demand(certificate.version == Version::V3, "is not version 3 (4.1.2.1)")?;
    // After tag and length, the first octet has the sign, and zero is 00.
    let serial = certificate.serial.get(2..).unwrap_or_default();
    let positive = serial.first().is_some_and(|first| first & 0x80 == 0) && serial != [0];
    demand(
        positive && certificate.serial.len() <= SERIAL_DER_MAX,
        "serial number is not 1 to 20 octets, positive (4.1.2.2)",
    )?;
    demand(!certificate.issuer.is_empty(), "has an empty issuer (4.1.2.4)")?;
    if certificate.subject.is_empty() {
        demand(
            critical(id::ID_CE_SUBJECT_ALT_NAME) == Some(true),
            "has no subject and no critical subjectAltName (4.1.2.6)",
        )?;
    }
    demand(
        critical(id::ID_CE_AUTHORITY_KEY_IDENTIFIER) != Some(true),
        "authorityKeyIdentifier is critical (4.2.1.1)",
    )?;
    let self_signed = certificate.is_self_issued();
    demand(self_signed || extensions.authority_key.is_some(), "has no authorityKeyIdentifier (4.2.1.1)")?;
    demand(
        critical(id::ID_CE_SUBJECT_KEY_IDENTIFIER) != Some(true),
        "subjectKeyIdentifier is critical (4.2.1.2)",
    )?;
    demand(!is_ca || extensions.subject_key.is_some(), "is a CA's without subjectKeyIdentifier (4.2.1.2)")?;
    demand(
        !is_ca || critical(id::ID_CE_BASIC_CONSTRAINTS) == Some(true),
        "basicConstraints of a CA is not critical (4.2.1.9)",
    )?;
    let signs = extensions.key_usage.map(|usage| usage.key_cert_sign());
    demand(is_ca || signs != Some(true), "keyUsage has keyCertSign and basicConstraints no cA (4.2.1.9)")?;
    if extensions.basic_constraints.is_some_and(|basic| basic.path_length.is_some()) {
        demand(is_ca && signs != Some(false), "pathLenConstraint without cA and keyCertSign (4.2.1.9)")?;
    }
    demand(
        is_ca || !extensions.has(id::ID_CE_NAME_CONSTRAINTS),
        "nameConstraints in an end entity's (4.2.1.10)",
    )?;
    for (extension, rule) in [
        (id::ID_CE_NAME_CONSTRAINTS, "nameConstraints is not critical (4.2.1.10)"),
        (id::ID_CE_POLICY_CONSTRAINTS, "policyConstraints is not critical (4.2.1.11)"),
        (id::ID_CE_INHIBIT_ANY_POLICY, "inhibitAnyPolicy is not critical (4.2.1.14)"),
    ] {
        demand(critical(extension) != Some(false), rule)?;
    }
    for name in certificate.alternative_names() {
        if let GeneralName::DnsName(name) = name {
            demand(is_host_name(name.as_str()), "a dNSName is no host name (4.2.1.6)")?;
        }
    }
    Ok(())
}

/// Preferred name syntax (RFC 1034 3.5), a wildcard as first label, and not an IP address.
fn is_host_name(name: &str) -> bool {
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && labels.split('.').all(is_label) && labels.parse::<std::net::Ipv4Addr>().is_err()
}
