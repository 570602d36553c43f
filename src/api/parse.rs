//! From proto fields to words of the domain and back. A field that does not parse is named, with a sentence
//! that says what to send instead.

use crate::broker::BrokerError;
use crate::broker::claim::TokenProof;
use crate::broker::confirm::SlotSignature;
use crate::clock::Timestamp;
use crate::nfv::Sha256Hash;
use crate::store::records::Page;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::Decode;
use std::fmt::Display;
use std::str::FromStr;

use super::proto;

/// The most items on one page of a list.
const PAGE_MAX: u32 = 1_000;
/// Items on a page for which no size was asked.
const PAGE_DEFAULT: u32 = 100;
/// The most slots of one VNFCI.
pub(super) const SLOTS_MAX: usize = 16;
/// The largest certificate that is taken.
const CERTIFICATE_MAX: usize = 16 * 1024;
/// The largest signature that is taken: RSA-4096 has 512 bytes.
const SIGNATURE_MAX: usize = 1024;

/// The error for one field.
pub(super) fn invalid(field: impl Into<String>, problem: impl Display) -> BrokerError {
    BrokerError::Invalid { field: field.into(), problem: problem.to_string() }
}

/// A field that must be there.
pub(super) fn required<T>(field: &str, text: &str) -> Result<T, BrokerError>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|problem| invalid(field, problem))
}

/// A field that may be empty.
pub(super) fn optional<T>(field: &str, text: &str) -> Result<Option<T>, BrokerError>
where
    T: FromStr,
    T::Err: Display,
{
    if text.is_empty() { Ok(None) } else { required(field, text).map(Some) }
}

/// A SHA-256, which must be there.
pub(super) fn hash(field: &str, bytes: &[u8]) -> Result<Sha256Hash, BrokerError> {
    Sha256Hash::try_from(bytes)
        .map_err(|_| invalid(field, format!("has {} bytes; a SHA-256 has 32", bytes.len())))
}

/// A certificate, DER. Says what to do with PEM.
pub(super) fn certificate(field: &str, der: Vec<u8>) -> Result<Vec<u8>, BrokerError> {
    let problem = if der.is_empty() {
        "is empty: give an X.509 certificate in DER"
    } else if der.len() > CERTIFICATE_MAX {
        "is longer than 16 KiB"
    } else if der.starts_with(b"-----BEGIN") {
        "is PEM: give DER (openssl x509 -outform DER)"
    } else if x509_cert::Certificate::from_der(&der).is_err() {
        "is not an X.509 certificate in DER"
    } else {
        return Ok(der);
    };
    Err(invalid(field, problem))
}

/// A certificate's serial number: hexadecimal, either case, colons allowed. Gives the content octets of the
/// INTEGER in lower case, as the lists show it, however many leading zeros were written.
pub(super) fn serial(field: &str, text: &str) -> Result<String, BrokerError> {
    let wrong = || invalid(field, "is not a serial number: give 1 to 20 octets in hexadecimal");
    if text.len() > 64 {
        return Err(wrong());
    }
    let mut digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.len() % 2 == 1 {
        digits.insert(0, '0');
    }
    let octets = hex::decode(&digits).map_err(|_| wrong())?;
    let first = octets.iter().position(|octet| *octet != 0).ok_or_else(wrong)?;
    let magnitude = &octets[first..];
    // A positive INTEGER whose first bit is set has a zero octet before it (X.690 8.3.3).
    let sign = if magnitude[0] & 0x80 == 0 { "" } else { "00" };
    if magnitude.len() + sign.len() / 2 > 21 {
        return Err(wrong());
    }
    Ok(format!("{sign}{}", hex::encode(magnitude)))
}

/// A point in time, if given: from the year 1 to 9999, as protobuf has it.
pub(super) fn timestamp(
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, BrokerError> {
    let Some(time) = time else { return Ok(None) };
    let seconds_valid = (-62_135_596_800..=253_402_300_799).contains(&time.seconds);
    match u32::try_from(time.nanos) {
        Ok(nanos) if seconds_valid && nanos < 1_000_000_000 => {
            Ok(Some(Timestamp::from_unix_micros(time.seconds * 1_000_000 + i64::from(nanos / 1_000))))
        }
        _ => Err(invalid(field, "is not a protobuf Timestamp between the years 1 and 9999")),
    }
}

/// A point in time for an answer.
pub(super) fn to_timestamp(time: Timestamp) -> Option<prost_types::Timestamp> {
    let micros = time.unix_micros();
    Some(prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        // Below 10^9, so it always fits.
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    })
}

/// How many items a page is to have.
pub(super) fn page_size(size: u32) -> Result<u32, BrokerError> {
    match size {
        0 => Ok(PAGE_DEFAULT),
        1..=PAGE_MAX => Ok(size),
        _ => Err(invalid("page_size", format!("is {size}; at most {PAGE_MAX}, 0 means {PAGE_DEFAULT}"))),
    }
}

/// Which page of a list.
pub(super) fn page(size: u32, token: &str) -> Result<Page, BrokerError> {
    let limit = page_size(size)?;
    if token.is_empty() {
        return Ok(Page { after: None, limit });
    }
    let wrong = || invalid("page_token", "is not a token that a list gave out: begin with an empty one");
    if token.len() > 1_024 {
        return Err(wrong());
    }
    let key = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let key = String::from_utf8(key).map_err(|_| wrong())?;
    if key.is_empty() || key.chars().any(char::is_control) {
        return Err(wrong());
    }
    Ok(Page { after: Some(key), limit })
}

/// The token for the page after `items`: empty if this one was not full. `key` is the list's sort key.
pub(super) fn next_page_token<T>(items: &[T], page: &Page, key: impl Fn(&T) -> String) -> String {
    let full = u32::try_from(items.len()).unwrap_or(u32::MAX) >= page.limit;
    items.last().filter(|_| full).map(|last| URL_SAFE_NO_PAD.encode(key(last))).unwrap_or_default()
}

/// A token's proof, if given.
pub(super) fn token_proof(token: Option<proto::TokenProof>) -> Result<Option<TokenProof>, BrokerError> {
    let Some(token) = token else { return Ok(None) };
    let proof = token.proof.as_slice().try_into().map_err(|_| {
        invalid("token.proof", format!("has {} bytes; an HMAC-SHA-256 has 32", token.proof.len()))
    })?;
    Ok(Some(TokenProof { id: required("token.token_id", &token.token_id)?, proof }))
}

/// Signatures by the slots' keys: at least one, one per slot.
pub(super) fn signatures(signatures: Vec<proto::KeySignature>) -> Result<Vec<SlotSignature>, BrokerError> {
    if signatures.is_empty() || signatures.len() > SLOTS_MAX {
        return Err(invalid("signatures", format!("must be one per slot, 1 to {SLOTS_MAX}")));
    }
    let mut parsed: Vec<SlotSignature> = Vec::with_capacity(signatures.len());
    for (i, item) in signatures.into_iter().enumerate() {
        let slot = required(&format!("signatures[{i}].slot"), &item.slot)?;
        if parsed.iter().any(|earlier| earlier.slot == slot) {
            return Err(invalid(
                format!("signatures[{i}].slot"),
                "was named before: give one signature per slot",
            ));
        }
        if item.signature.is_empty() || item.signature.len() > SIGNATURE_MAX {
            return Err(invalid(
                format!("signatures[{i}].signature"),
                "is not a signature: ECDSA in DER, or RSA-PSS",
            ));
        }
        parsed.push(SlotSignature { slot, signature: item.signature });
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfv::{PoolName, RequestId};
    use proptest::prelude::*;

    #[test]
    fn a_wrong_field_is_named_with_what_to_send_instead() {
        let error = required::<PoolName>("name", "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "name: pool name is empty: give 1 to 63 characters of a-z, 0-9 and '-'"
        );
        let error = required::<RequestId>("request_id", "7").unwrap_err();
        assert_eq!(error.to_string(), "request_id: request id is not a UUID");
    }

    #[test]
    fn pem_in_place_of_der_is_recognised() {
        let error = certificate("certificate_der", b"-----BEGIN CERTIFICATE-----".to_vec()).unwrap_err();
        assert!(error.to_string().contains("openssl x509 -outform DER"), "{error}");
    }

    #[test]
    fn a_serial_number_is_taken_as_openssl_and_as_we_write_it() {
        for (text, canonical) in [
            ("0A:bC", "0abc"),
            ("abc", "0abc"),
            ("0000abc", "0abc"),
            ("8f01", "008f01"),
            ("008F01", "008f01"),
        ] {
            assert_eq!(serial("serial", text).unwrap(), canonical, "{text}");
        }
        for bad in ["", "0", "00", "xyz", "-1", &"1".repeat(43), &":".repeat(70)] {
            assert!(serial("serial", bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_page_is_never_larger_than_its_bound() {
        assert_eq!(page_size(0).unwrap(), 100);
        assert_eq!(page_size(1_000).unwrap(), 1_000);
        assert!(page_size(1_001).is_err());
    }

    #[test]
    fn a_list_ends_with_an_empty_token() {
        let page = Page { after: None, limit: 2 };
        let token = next_page_token(&["a", "b"], &page, |s| (*s).to_owned());
        assert_eq!(super::page(2, &token).unwrap().after.as_deref(), Some("b"));
        assert_eq!(next_page_token(&["a"], &page, |s| (*s).to_owned()), "");
        assert_eq!(next_page_token(&[], &page, |s: &&str| (*s).to_owned()), "");
    }

    #[test]
    fn a_slot_is_signed_for_once() {
        let signature = |slot: &str| proto::KeySignature { slot: slot.into(), signature: vec![1] };
        assert!(signatures(vec![signature("a"), signature("b")]).is_ok());
        assert!(signatures(vec![signature("a"), signature("a")]).is_err());
        assert!(signatures(vec![]).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_parsed_but_never_a_panic(
            text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..200),
            seconds in any::<i64>(), nanos in any::<i32>(), size in any::<u32>(),
        ) {
            let _ = required::<RequestId>("f", &text);
            let _ = optional::<PoolName>("f", &text);
            let _ = serial("f", &text);
            let _ = page(size, &text);
            let _ = hash("f", &bytes);
            let _ = certificate("f", bytes.clone());
            let _ = timestamp("f", Some(prost_types::Timestamp { seconds, nanos }));
            let _ = token_proof(Some(proto::TokenProof { token_id: text.clone(), proof: bytes.clone() }));
            let _ = signatures(vec![proto::KeySignature { slot: text, signature: bytes }]);
        }

        #[test]
        fn a_time_survives_its_protobuf_form(micros in -62_135_596_800_000_000_i64..253_402_300_799_999_999) {
            let time = Timestamp::from_unix_micros(micros);
            prop_assert_eq!(timestamp("f", to_timestamp(time)).unwrap(), Some(time));
        }

        #[test]
        fn a_page_token_survives_its_text_form(key in "[!-~]{1,300}") {
            let token = next_page_token(std::slice::from_ref(&key), &Page { after: None, limit: 1 }, Clone::clone);
            prop_assert_eq!(page(1, &token).unwrap().after, Some(key));
        }

        #[test]
        fn a_canonical_serial_is_a_fixed_point(octets in proptest::collection::vec(any::<u8>(), 1..20)) {
            if let Ok(once) = serial("f", &hex::encode(&octets)) {
                prop_assert_eq!(serial("f", &once).unwrap(), once);
            }
        }
    }
}
