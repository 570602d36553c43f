//! What certificate requests say: names and extensions of the profile (RFC 2986, RFC 2985 5.4.2).

use crate::ca::encode::{SEQUENCE, SET, context_constructed, extension, oid, tlv, unsigned};
use crate::ca::extensions::{extended_key_usage, subject_alt_name};
use crate::ca::names::plain_name;
use crate::ca::profile::{CertificateNames, ExtendedKeyUsage, Profile};
use crate::hsm::RequestTemplate;
use const_oid::db::rfc5280::ID_CE_KEY_USAGE;
use der::asn1::ObjectIdentifier;

/// extensionRequest, PKCS #9.
pub(super) const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
/// KeyUsage digitalSignature: BIT STRING with 7 unused bits.
const DIGITAL_SIGNATURE: [u8; 4] = [3, 2, 7, 0x80];

/// The template of a request for a certificate of a profile with these names.
pub fn template(profile: &Profile, names: &CertificateNames) -> RequestTemplate {
    let mut extensions = extension(ID_CE_KEY_USAGE, true, &DIGITAL_SIGNATURE);
    extensions.extend(extended_key_usage(profile.eku()));
    if !names.general_names.is_empty() {
        extensions.extend(subject_alt_name(names.subject_is_empty, &names.general_names));
    }
    RequestTemplate { subject_der: names.subject_der.clone(), attributes_der: attributes(&extensions) }
}

/// The CertificationRequestInfo (DER) of a request for a TLS client certificate `CN=name,O=keybroker`.
///
/// # Errors
/// A sentence, for a name that is no common name.
pub fn client_request(name: &str, public_key_der: &[u8]) -> Result<Vec<u8>, String> {
    let subject = plain_name(None, name).map_err(|error| error.to_string())?;
    let mut extensions = extension(ID_CE_KEY_USAGE, true, &DIGITAL_SIGNATURE);
    extensions.extend(extended_key_usage(&[ExtendedKeyUsage::ClientAuth]));
    Ok(tlv(SEQUENCE, &[&unsigned(&[]), &subject, public_key_der, &attributes(&extensions)]))
}

/// The CertificationRequestInfo (DER) of a request for a TLS client certificate that follows another one: with its subject
/// and its subjectAltName (RFC 7030 4.2.2).
pub fn client_request_again(names: &CertificateNames, public_key_der: &[u8]) -> Vec<u8> {
    let mut extensions = extension(ID_CE_KEY_USAGE, true, &DIGITAL_SIGNATURE);
    extensions.extend(extended_key_usage(&[ExtendedKeyUsage::ClientAuth]));
    if !names.general_names.is_empty() {
        extensions.extend(subject_alt_name(names.subject_is_empty, &names.general_names));
    }
    tlv(SEQUENCE, &[&unsigned(&[]), &names.subject_der, public_key_der, &attributes(&extensions)])
}

/// `[0]` with an extensionRequest.
fn attributes(extensions: &[u8]) -> Vec<u8> {
    let values = tlv(SET, &[&tlv(SEQUENCE, &[extensions])]);
    let attribute = tlv(SEQUENCE, &[&oid(EXTENSION_REQUEST), &values]);
    tlv(context_constructed(0), &[&attribute])
}
