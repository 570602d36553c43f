//! What certificate requests say: names and extensions of the profile (RFC 2986, RFC 2985 5.4.2).

use crate::ca::encode::{SEQUENCE, SET, context_constructed, extension, oid, tlv};
use crate::ca::issue::{extended_key_usage, subject_alt_name};
use crate::ca::profile::{CertificateNames, Profile};
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
    let values = tlv(SET, &[&tlv(SEQUENCE, &[&extensions])]);
    let attribute = tlv(SEQUENCE, &[&oid(EXTENSION_REQUEST), &values]);
    RequestTemplate {
        subject_der: names.subject_der.clone(),
        attributes_der: tlv(context_constructed(0), &[&attribute]),
    }
}
