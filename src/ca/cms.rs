//! Certificates on the wire of an enrolment: certs-only CMS (RFC 5652, RFC 7030 4.1.3) in base64 (RFC 8951 2).

use super::ber;
use super::encode::{INTEGER, SEQUENCE, SET, context_constructed, oid, tlv};
use super::facts::MAX_CERTIFICATE_BYTES;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use const_oid::ObjectIdentifier;
use der::asn1::AnyRef;
use der::{Decode, Encode, Reader, SliceReader, Tag, TagNumber, Tagged};

const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");

/// Certificates in one message, at most.
pub const MAX_CERTIFICATES: usize = 100;

/// Bytes that are no certs-only message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a certs-only CMS message: {0}")]
pub struct InvalidCms(pub String);

/// A ContentInfo (DER) with a SignedData that has certificates (DER each) and nothing else. They come in the order of
/// DER's SET OF, whatever the caller's.
pub fn certs_only(certificates_der: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut certificates: Vec<&[u8]> = certificates_der.iter().map(AsRef::as_ref).collect();
    certificates.sort_unstable();
    certificates.dedup();
    let empty = tlv(SET, &[]);
    let signed_data = tlv(
        SEQUENCE,
        &[
            &tlv(INTEGER, &[&[1]]),
            &empty,
            &tlv(SEQUENCE, &[&oid(ID_DATA)]),
            &tlv(context_constructed(0), &certificates),
            &empty,
        ],
    );
    tlv(SEQUENCE, &[&oid(ID_SIGNED_DATA), &tlv(context_constructed(0), &[&signed_data])])
}

/// The certificates (DER each) of a certs-only message (BER, as CMS is), in its order: servers send them as they like. Only
/// encodings are looked at: what the certificates say and who signed them is the caller's to judge. CRLs beside them are
/// not looked at.
///
/// # Errors
/// [`InvalidCms`], also for a message with no certificate, with content, or with a signature.
pub fn certificates(message: &[u8]) -> Result<Vec<Vec<u8>>, InvalidCms> {
    let invalid = |what: &str| InvalidCms(what.to_owned());
    let malformed = |error: der::Error| InvalidCms(error.to_string());
    let message = ber::definite(message).map_err(invalid)?;
    let content = elements(AnyRef::from_der(&message).map_err(malformed)?, Tag::Sequence)?;
    let [content_type, content] = content.as_slice() else {
        return Err(invalid("ContentInfo has other fields"));
    };
    if content_type.decode_as::<ObjectIdentifier>() != Ok(ID_SIGNED_DATA) {
        return Err(invalid("its type is not SignedData"));
    }
    let explicit = elements(*content, implicit(0))?;
    let [signed_data] = explicit.as_slice() else { return Err(invalid("its content is not one value")) };
    let fields = elements(*signed_data, Tag::Sequence)?;
    let [_version, _digests, encapsulated, rest @ ..] = fields.as_slice() else {
        return Err(invalid("SignedData lacks fields"));
    };
    // RFC 5272 4.1 leaves the content out; some libraries write an empty one.
    let is_empty = |content: &AnyRef<'_>| content.tag() == implicit(0) && content.value() == [4, 0];
    match elements(*encapsulated, Tag::Sequence)?.as_slice() {
        [_] => {}
        [_, content] if is_empty(content) => {}
        _ => return Err(invalid("it has content beside certificates")),
    }
    let (signers, optional) = rest.split_last().ok_or_else(|| invalid("SignedData lacks signerInfos"))?;
    if !elements(*signers, Tag::Set)?.is_empty() {
        return Err(invalid("it is signed"));
    }
    let certificates = optional.iter().find(|field| field.tag() == implicit(0));
    let certificates = elements(*certificates.ok_or_else(|| invalid("it has no certificate"))?, implicit(0))?;
    if certificates.is_empty() || certificates.len() > MAX_CERTIFICATES {
        return Err(InvalidCms(format!("it has {} certificates", certificates.len())));
    }
    certificates
        .into_iter()
        .map(|certificate| {
            let der = certificate.to_der().map_err(malformed)?;
            if certificate.tag() != Tag::Sequence || der.len() > MAX_CERTIFICATE_BYTES {
                return Err(invalid("one of its certificates is none"));
            }
            Ok(der)
        })
        .collect()
}

/// Base64 as EST sends it. Without line breaks: some clients read nothing after the first.
pub fn to_base64(der: &[u8]) -> String {
    STANDARD.encode(der)
}

/// Reads the body of an EST message, white space anywhere.
///
/// # Errors
/// [`InvalidCms`] for anything but base64; a sentence says what to send.
pub fn from_base64(body: &[u8]) -> Result<Vec<u8>, InvalidCms> {
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).map_err(|error| InvalidCms(format!("the body is not base64 ({error})")))
}

const fn implicit(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

/// The values within a constructed one.
fn elements<'a>(of: AnyRef<'a>, tag: Tag) -> Result<Vec<AnyRef<'a>>, InvalidCms> {
    let malformed = |error: der::Error| InvalidCms(error.to_string());
    if of.tag() != tag {
        return Err(InvalidCms(format!("{} where {tag} is expected", of.tag())));
    }
    let mut reader = SliceReader::new(of.value()).map_err(malformed)?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(AnyRef::decode(&mut reader).map_err(malformed)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Something that has the outer form of a certificate.
    fn certificate(content: &[u8]) -> Vec<u8> {
        tlv(SEQUENCE, &[content])
    }

    #[test]
    fn a_message_is_read_as_cms_by_an_implementation_that_is_not_ours() {
        use cms::cert::x509::der::Decode as _;
        let der = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert.der().to_vec();
        let message = certs_only(std::slice::from_ref(&der));
        let content = cms::content_info::ContentInfo::from_der(&message).unwrap();
        let signed: cms::signed_data::SignedData = content.content.decode_as().unwrap();
        assert_eq!(signed.certificates.unwrap().0.len(), 1);
        assert!(signed.signer_infos.0.is_empty());
        assert_eq!(certificates(&message), Ok(vec![der]));
    }

    #[test]
    fn a_message_that_is_more_or_less_than_certificates_is_refused() {
        let good = certs_only(&[certificate(&[5, 0])]);
        assert!(certificates(&good).is_ok());
        let content = |content: &[u8]| {
            let fields =
                [&tlv(INTEGER, &[&[1]])[..], &tlv(SET, &[]), &tlv(SEQUENCE, &[&oid(ID_DATA), content])];
            let more = [&tlv(context_constructed(0), &[&certificate(&[5, 0])])[..], &tlv(SET, &[])];
            let signed_data = tlv(SEQUENCE, &[fields.concat().as_slice(), &more.concat()]);
            tlv(SEQUENCE, &[&oid(ID_SIGNED_DATA), &tlv(context_constructed(0), &[&signed_data])])
        };
        assert_eq!(certificates(&content(&[0xa0, 2, 4, 0])), certificates(&good));
        assert!(certificates(&content(&[0xa0, 3, 4, 1, 7])).is_err());
        assert!(certificates(&good[..good.len() - 1]).is_err());
        assert!(certificates(&[&good[..], &[0]].concat()).is_err());
        assert!(certificates(&certs_only(&[[0_u8; 0]; 0])).is_err());
        let data = tlv(SEQUENCE, &[&oid(ID_DATA), &tlv(context_constructed(0), &[&[4, 0]])]);
        assert!(certificates(&data).unwrap_err().0.contains("SignedData"));
    }

    #[test]
    fn base64_is_read_with_line_breaks_anywhere_and_nothing_else_is() {
        assert_eq!(from_base64(b"AAE=\r\n"), Ok(vec![0, 1]));
        assert_eq!(from_base64(b"A\nA E\t="), Ok(vec![0, 1]));
        assert!(from_base64(b"-----BEGIN CERTIFICATE REQUEST-----").is_err());
        assert!(from_base64(&[0x30, 0x82]).is_err());
    }

    proptest! {
        #[test]
        fn certificates_survive_the_wire(contents in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 0..300), 1..5)) {
            // Each is one OCTET STRING, so that it is DER; in DER's order.
            let ders: Vec<_> = contents.iter().map(|content| certificate(&tlv(4, &[content]))).collect();
            let mut sorted = ders.clone();
            sorted.sort();
            let read = from_base64(to_base64(&certs_only(&ders)).as_bytes()).and_then(|der| certificates(&der));
            prop_assert_eq!(read, Ok(sorted));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..300_usize, flip in any::<u8>()) {
            let _ = from_base64(&bytes);
            let _ = certificates(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = 0x30;
            }
            let _ = certificates(&bytes);
            let mut message = certs_only(&[certificate(&bytes)]);
            let at = at % message.len();
            message[at] ^= flip;
            let _ = certificates(&message);
        }
    }
}
