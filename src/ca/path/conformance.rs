//! What RFC 5280 section 4 demands of CAs and section 6 does not check: for strict relying parties only, because CAs in
//! use do not always do it.

use super::certificate::Certificate;
use const_oid::db::rfc5280 as id;
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::NameConstraints;
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
    demand(certificate.times_conform, "a time before 2050 is no UTCTime (4.1.2.5)")?;
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
    demand(
        extensions.key_usage.is_none_or(|usage| !usage.0.is_empty()),
        "keyUsage has no bit set (4.2.1.3)",
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
    demand(critical(id::ID_CE_FRESHEST_CRL) != Some(true), "freshestCRL is critical (4.2.1.15)")?;
    if let Some(constraints) = &extensions.policy_constraints {
        let says =
            constraints.require_explicit_policy.is_some() || constraints.inhibit_policy_mapping.is_some();
        demand(says, "policyConstraints is empty (4.2.1.11)")?;
    }
    if let Some(NameConstraints { permitted_subtrees, excluded_subtrees }) = &extensions.name_constraints {
        let lists = [permitted_subtrees, excluded_subtrees];
        demand(lists.iter().any(|list| list.is_some()), "nameConstraints is empty (4.2.1.10)")?;
        for list in lists.into_iter().flatten() {
            demand(!list.is_empty(), "nameConstraints has a list without subtrees (4.2.1.10)")?;
            for subtree in list {
                if let GeneralName::DnsName(base) = &subtree.base {
                    // The empty one holds every name.
                    let is_base = base.as_str().is_empty() || is_host_name(base.as_str());
                    demand(is_base, "a dNSName of nameConstraints is no host name (4.2.1.10)")?;
                }
            }
        }
    }
    for name in certificate.alternative_names() {
        if let GeneralName::DnsName(name) = name {
            // A wildcard as first label stands for host names.
            let name = name.as_str();
            let host = name.strip_prefix("*.").unwrap_or(name);
            demand(is_host_name(host), "a dNSName is no host name (4.2.1.6)")?;
        }
    }
    Ok(())
}

/// Preferred name syntax (RFC 1034 3.5), underscores too, and not an IP address.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label) && name.parse::<std::net::Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::encode::{
        BIT_STRING, GENERALIZED_TIME, INTEGER, OCTET_STRING, PRINTABLE_STRING, SEQUENCE, SET, UTC_TIME,
        bit_string, context, context_constructed, extension, oid, signature_algorithm, tlv,
    };
    use crate::hsm::SignatureAlgorithm;
    use const_oid::ObjectIdentifier;

    const UTC: (u8, &[u8]) = (UTC_TIME, b"260101000000Z");

    /// A CA's certificate as section 4 demands, but for its validity and a further extension, which stands for the one of its
    /// kind.
    fn judged(not_after: (u8, &[u8]), more: Option<(ObjectIdentifier, bool, Vec<u8>)>) -> Result<(), String> {
        let mut extensions = vec![
            (id::ID_CE_BASIC_CONSTRAINTS, true, tlv(SEQUENCE, &[&[1, 1, 0xff]])),
            (id::ID_CE_SUBJECT_KEY_IDENTIFIER, false, tlv(OCTET_STRING, &[&[7; 20]])),
            (id::ID_CE_KEY_USAGE, true, vec![BIT_STRING, 2, 1, 0x06]),
        ];
        if let Some(more) = more {
            extensions.retain(|(id, ..)| *id != more.0);
            extensions.push(more);
        }
        let extensions: Vec<u8> =
            extensions.iter().flat_map(|(id, critical, value)| extension(*id, *critical, value)).collect();
        let algorithm = signature_algorithm(SignatureAlgorithm::EcdsaP256Sha256);
        let common_name =
            tlv(SEQUENCE, &[&oid(const_oid::db::rfc4519::COMMON_NAME), &tlv(PRINTABLE_STRING, &[b"CA"])]);
        let name = tlv(SEQUENCE, &[&tlv(SET, &[&common_name])]);
        let validity = tlv(SEQUENCE, &[&tlv(UTC.0, &[UTC.1]), &tlv(not_after.0, &[not_after.1])]);
        let key_type = tlv(
            SEQUENCE,
            &[&oid(const_oid::db::rfc5912::ID_EC_PUBLIC_KEY), &oid(const_oid::db::rfc5912::SECP_256_R_1)],
        );
        let key = tlv(SEQUENCE, &[&key_type, &bit_string(&[4; 65])]);
        let tbs = tlv(
            SEQUENCE,
            &[
                &tlv(context_constructed(0), &[&[INTEGER, 1, 2]]),
                &[INTEGER, 1, 5],
                &algorithm,
                &name,
                &validity,
                &name,
                &key,
                &tlv(context_constructed(3), &[&tlv(SEQUENCE, &[&extensions])]),
            ],
        );
        let der = tlv(SEQUENCE, &[&tbs, &algorithm, &bit_string(&[0; 64])]);
        check(&Certificate::from_der(&der).unwrap())
    }

    #[test]
    fn a_time_is_utc_time_through_2049_and_generalized_time_from_2050_on() {
        for (not_after, good) in [
            ((UTC_TIME, b"491231235959Z".as_slice()), true),
            ((GENERALIZED_TIME, b"20491231235959Z"), false),
            ((GENERALIZED_TIME, b"20500101000000Z"), true),
            ((GENERALIZED_TIME, b"99991231235959Z"), true),
        ] {
            assert_eq!(judged(not_after, None).is_ok(), good, "{}", String::from_utf8_lossy(not_after.1));
        }
    }

    #[test]
    fn an_extension_that_says_nothing_or_is_critical_against_its_rule_does_not_conform() {
        let subtree = |base: &str| tlv(SEQUENCE, &[&tlv(context(2), &[base.as_bytes()])]);
        let permitted = |base: &str| tlv(SEQUENCE, &[&tlv(context_constructed(0), &[&subtree(base)])]);
        let empty = |list: u8| tlv(SEQUENCE, &[&tlv(context_constructed(list), &[])]);
        let names = |name: &str| tlv(SEQUENCE, &[&tlv(context(2), &[name.as_bytes()])]);
        let uri = tlv(context(6), &[b"http://ca.example/delta.crl"]);
        let full_name = tlv(context_constructed(0), &[&tlv(context_constructed(0), &[&uri])]);
        let freshest = tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&full_name])]);
        for (what, id, critical, value, good) in [
            ("a subtree", id::ID_CE_NAME_CONSTRAINTS, true, permitted("example.com"), true),
            ("every name", id::ID_CE_NAME_CONSTRAINTS, true, permitted(""), true),
            ("a leading dot", id::ID_CE_NAME_CONSTRAINTS, true, permitted(".example.com"), false),
            ("a wildcard as base", id::ID_CE_NAME_CONSTRAINTS, true, permitted("*.example.com"), false),
            ("no list", id::ID_CE_NAME_CONSTRAINTS, true, tlv(SEQUENCE, &[]), false),
            ("nothing permitted", id::ID_CE_NAME_CONSTRAINTS, true, empty(0), false),
            ("nothing excluded", id::ID_CE_NAME_CONSTRAINTS, true, empty(1), false),
            (
                "a policy constraint",
                id::ID_CE_POLICY_CONSTRAINTS,
                true,
                tlv(SEQUENCE, &[&[0x80, 1, 0]]),
                true,
            ),
            ("no policy constraint", id::ID_CE_POLICY_CONSTRAINTS, true, tlv(SEQUENCE, &[]), false),
            ("freshestCRL", id::ID_CE_FRESHEST_CRL, false, freshest.clone(), true),
            ("critical freshestCRL", id::ID_CE_FRESHEST_CRL, true, freshest, false),
            ("no usage", id::ID_CE_KEY_USAGE, true, vec![BIT_STRING, 1, 0], false),
            ("a host", id::ID_CE_SUBJECT_ALT_NAME, false, names("a-b_c.example.com"), true),
            ("a wildcard", id::ID_CE_SUBJECT_ALT_NAME, false, names("*.example.com"), true),
            ("a hyphen first", id::ID_CE_SUBJECT_ALT_NAME, false, names("-a.example.com"), false),
            ("a hyphen last", id::ID_CE_SUBJECT_ALT_NAME, false, names("a-.example.com"), false),
        ] {
            let outcome = judged(UTC, Some((id, critical, value)));
            assert_eq!(outcome.is_ok(), good, "{what}: {outcome:?}");
        }
    }
}
