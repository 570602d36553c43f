//! The answer that has a private key in it (RFC 7030 4.4.2): `multipart/mixed` (RFC 2046 5.1), its parts in base64 (RFC 2045 6.8).

use crate::broker::enrol::GeneratedKey;
use crate::ca::cms::certs_only;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use zeroize::Zeroizing;

/// Has a character that base64 has not, so that it is in no part.
const BOUNDARY: &str = "keybroker-part";
/// Makes one line of 76 characters.
const BYTES_PER_LINE: usize = 57;
/// With its line break.
const LINE: usize = 78;
/// More than boundaries and the parts' headers need.
const FRAME: usize = 512;

/// Key and certificate. The body is erased once it is handed to the connection.
pub(super) fn response(key: &GeneratedKey) -> Response {
    let media = format!("multipart/mixed; boundary={BOUNDARY}");
    let body = Body::from(Bytes::from_owner(body(key)));
    ([(CONTENT_TYPE, media), (CACHE_CONTROL, "no-store".to_owned())], body).into_response()
}

fn body(key: &GeneratedKey) -> Zeroizing<Vec<u8>> {
    let certificate = certs_only(&[&key.certificate_der]);
    let parts: [(&str, &[u8]); 2] = [
        ("application/pkcs8", &key.private_key_der),
        ("application/pkcs7-mime; smime-type=certs-only", &certificate),
    ];
    let lines: usize = parts.iter().map(|(_, der)| der.len().div_ceil(BYTES_PER_LINE)).sum();
    // At once: a buffer that grows leaves its content behind.
    let mut body = Zeroizing::new(Vec::with_capacity(FRAME + lines * LINE));
    for (media, der) in parts {
        let head =
            format!("--{BOUNDARY}\r\nContent-Type: {media}\r\nContent-Transfer-Encoding: base64\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        for piece in der.chunks(BYTES_PER_LINE) {
            let mut line = Zeroizing::new([0; LINE]);
            // It fits: 4 characters for 3 bytes.
            let length = STANDARD.encode_slice(piece, &mut line[..]).unwrap_or_default();
            body.extend_from_slice(&line[..length]);
            body.extend_from_slice(b"\r\n");
        }
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::cms::{certificates, from_base64};

    #[test]
    fn key_and_certificate_are_two_parts_in_short_lines_and_the_buffer_never_grows() {
        for length in [1, 56, 57, 58, 138, 2_400] {
            let key = GeneratedKey {
                private_key_der: Zeroizing::new(vec![0xa5; length]),
                certificate_der: vec![0x30, 2, 5, 0],
            };
            let made = body(&key);
            let lines = (length.div_ceil(57) + certs_only(&[&key.certificate_der]).len().div_ceil(57)) * LINE;
            assert!(made.len() <= FRAME + lines && made.capacity() == FRAME + lines);
            let text = std::str::from_utf8(&made).unwrap();
            assert!(text.split("\r\n").all(|line| line.len() <= 76 && !line.contains('\n')), "{text}");
            let parts: Vec<&str> = text.split("--keybroker-part").collect();
            assert_eq!((parts.len(), parts[0], parts[3]), (4, "", "--\r\n"));
            let content = |part: usize, media: &str| {
                let (head, content) = parts[part].split_once("\r\n\r\n").unwrap();
                let expected = format!("\r\nContent-Type: {media}\r\nContent-Transfer-Encoding: base64");
                assert_eq!(head, expected);
                from_base64(content.as_bytes()).unwrap()
            };
            assert_eq!(content(1, "application/pkcs8"), *key.private_key_der);
            let message = content(2, "application/pkcs7-mime; smime-type=certs-only");
            assert_eq!(certificates(&message), Ok(vec![key.certificate_der]));
        }
    }
}
