//! Writes the few DER types (X.690) that certificates and CRLs are made of.
//!
//! Only a writer: everything that is read goes through `x509-cert`. Certificates are concatenations of parts
//! that are the same for thousands of them, so the parts are encoded once and joined as bytes.

use crate::clock::Timestamp;
use crate::hsm::SignatureAlgorithm;
use der::asn1::ObjectIdentifier;
use time::OffsetDateTime;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const IA5_STRING: u8 = 0x16;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Context-specific tag, primitive: `[number]` IMPLICIT of a primitive type.
pub(super) const fn context(number: u8) -> u8 {
    0x80 | number
}

/// Context-specific tag, constructed: `[number]` EXPLICIT, or IMPLICIT of a constructed type.
pub(super) const fn context_constructed(number: u8) -> u8 {
    0xa0 | number
}

/// Tag, length and the parts, one after the other.
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = Vec::with_capacity(length + 6);
    der.push(tag);
    if length < 0x80 {
        der.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let skip = bytes.iter().take_while(|&&byte| byte == 0).count();
        der.push(0x80 | (bytes.len() - skip) as u8);
        der.extend_from_slice(&bytes[skip..]);
    }
    for part in parts {
        der.extend_from_slice(part);
    }
    der
}

/// INTEGER from an unsigned big-endian number.
pub(super) fn unsigned(big_endian: &[u8]) -> Vec<u8> {
    let skip = big_endian.iter().take_while(|&&byte| byte == 0).count();
    let digits = &big_endian[skip..];
    match digits.first() {
        None => tlv(INTEGER, &[&[0]]),
        Some(first) if first & 0x80 != 0 => tlv(INTEGER, &[&[0], digits]),
        Some(_) => tlv(INTEGER, &[digits]),
    }
}

/// OBJECT IDENTIFIER.
pub(super) fn oid(oid: ObjectIdentifier) -> Vec<u8> {
    tlv(OBJECT_IDENTIFIER, &[oid.as_bytes()])
}

/// BIT STRING of whole octets.
pub(super) fn bit_string(octets: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[&[0], octets])
}

/// Extension (RFC 5280 4.1); `value` is the DER of the extension's own type.
pub(super) fn extension(id: ObjectIdentifier, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[BOOLEAN, 1, 0xff] } else { &[] };
    tlv(SEQUENCE, &[&oid(id), critical, &tlv(OCTET_STRING, &[value])])
}

/// Time of RFC 5280 4.1.2.5: UTCTime from 1950 through 2049, GeneralizedTime otherwise; whole seconds, "Z".
pub(super) fn time(time: Timestamp) -> Vec<u8> {
    // Years beyond 9999 have no encoding; RFC 5280 4.1.2.5 gives this value to "no well-defined end".
    let Some(utc) = OffsetDateTime::from_unix_timestamp(time.unix_seconds()).ok().filter(|t| t.year() >= 0)
    else {
        return tlv(GENERALIZED_TIME, &[b"99991231235959Z"]);
    };
    let (year, month, day) = (utc.year(), u8::from(utc.month()), utc.day());
    let rest = format!("{month:02}{day:02}{:02}{:02}{:02}Z", utc.hour(), utc.minute(), utc.second());
    if (1950..2050).contains(&year) {
        tlv(UTC_TIME, &[format!("{:02}", year % 100).as_bytes(), rest.as_bytes()])
    } else {
        tlv(GENERALIZED_TIME, &[format!("{year:04}").as_bytes(), rest.as_bytes()])
    }
}

/// GeneralizedTime as OCSP writes every time (RFC 6960 4.2.2.1): whole seconds, "Z".
pub(super) fn generalized_time(time: Timestamp) -> Vec<u8> {
    let Some(utc) = OffsetDateTime::from_unix_timestamp(time.unix_seconds()).ok().filter(|t| t.year() >= 0)
    else {
        return tlv(GENERALIZED_TIME, &[b"99991231235959Z"]);
    };
    let (year, month, day) = (utc.year(), u8::from(utc.month()), utc.day());
    let text = format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}Z", utc.hour(), utc.minute(), utc.second());
    tlv(GENERALIZED_TIME, &[text.as_bytes()])
}

/// AlgorithmIdentifier: ecdsa-with-SHA256 (RFC 5758 3.2) or Ed25519 (RFC 8410 3), parameters absent.
pub(super) fn signature_algorithm(algorithm: SignatureAlgorithm) -> Vec<u8> {
    let id = match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256 => const_oid::db::rfc5912::ECDSA_WITH_SHA_256,
        SignatureAlgorithm::Ed25519 => const_oid::db::rfc8410::ID_ED_25519,
    };
    tlv(SEQUENCE, &[&oid(id)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_in_its_shortest_form() {
        assert_eq!(tlv(OCTET_STRING, &[&[7; 127]])[..2], [4, 127]);
        assert_eq!(tlv(OCTET_STRING, &[&[7; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(tlv(OCTET_STRING, &[&[7; 300]])[..4], [4, 0x82, 1, 44]);
    }

    #[test]
    fn an_unsigned_integer_never_reads_as_negative() {
        assert_eq!(unsigned(&[]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
    }

    #[test]
    fn time_changes_its_type_with_the_year_2050() {
        let at =
            |seconds| String::from_utf8(time(Timestamp::from_unix_seconds(seconds))[2..].to_vec()).unwrap();
        assert_eq!(at(0), "700101000000Z");
        assert_eq!(at(2_524_607_999), "491231235959Z");
        assert_eq!(at(2_524_608_000), "20500101000000Z");
        assert_eq!(at(i64::MAX / 1_000_000), "99991231235959Z");
        assert_eq!(generalized_time(Timestamp::from_unix_seconds(0))[2..], *b"19700101000000Z");
    }
}
