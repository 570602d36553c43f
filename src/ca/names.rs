//! Names in certificates: templates of a profile, filled with MANO's values.
//!
//! A template is parsed first and filled afterwards, so that a value (any printable ASCII) never adds an RDN, a
//! DNS label or a part of a URI.

mod template;

pub use template::{NameError, NameValues, Variable};

use super::encode::{IA5_STRING, PRINTABLE_STRING, SEQUENCE, SET, UTF8_STRING, context, oid, tlv};
use crate::nfv::Sha256Hash;
use const_oid::db::rfc4519;
use der::asn1::ObjectIdentifier;
use template::{Piece, Template};

/// An attribute type that a subject may have, with the string type and the upper bound of RFC 5280 appendix A.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attribute {
    name: &'static str,
    id: ObjectIdentifier,
    string: u8,
    upper_bound: usize,
}

const fn attribute(name: &'static str, id: ObjectIdentifier, string: u8, upper_bound: usize) -> Attribute {
    Attribute { name, id, string, upper_bound }
}

const COMMON_NAME: Attribute = attribute("CN", rfc4519::CN, UTF8_STRING, 64);
const ORGANIZATION: Attribute = attribute("O", rfc4519::O, UTF8_STRING, 64);
const ORGANIZATIONAL_UNIT: Attribute = attribute("OU", rfc4519::OU, UTF8_STRING, 64);

const ATTRIBUTES: [Attribute; 8] = [
    COMMON_NAME,
    ORGANIZATION,
    ORGANIZATIONAL_UNIT,
    attribute("serialNumber", rfc4519::SERIAL_NUMBER, PRINTABLE_STRING, 64),
    attribute("L", rfc4519::L, UTF8_STRING, 128),
    attribute("ST", rfc4519::ST, UTF8_STRING, 128),
    attribute("C", rfc4519::C, PRINTABLE_STRING, 2),
    attribute("DC", rfc4519::DC, IA5_STRING, 63),
];

impl Attribute {
    /// RelativeDistinguishedName with this one attribute. A text over the upper bound is shortened to its first
    /// characters, `~` and 16 hexadecimal digits of the SHA-256 of the whole text, so that two long texts that
    /// begin alike stay apart.
    fn rdn(self, text: &str) -> Result<Vec<u8>, String> {
        let shortened;
        let mut text = text;
        if text.is_empty() {
            return Err(format!("{} is empty", self.name));
        }
        if self.name == "C" && !(text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase())) {
            return Err(format!("C is {text:?}; ISO 3166 country codes are two capital letters"));
        }
        if self.string == PRINTABLE_STRING && !text.bytes().all(is_printable_string) {
            return Err(format!("{} is {text:?}, which is no PrintableString (X.680 41.4)", self.name));
        }
        if self.string == IA5_STRING && !text.is_ascii() {
            return Err(format!("{} is {text:?}, which is not ASCII", self.name));
        }
        if text.chars().count() > self.upper_bound {
            if self.string == PRINTABLE_STRING {
                return Err(format!(
                    "{} is {text:?}, longer than {} characters",
                    self.name, self.upper_bound
                ));
            }
            let digest = Sha256Hash::of(text.as_bytes()).to_string();
            let kept: String = text.chars().take(self.upper_bound - 17).collect();
            shortened = format!("{kept}~{}", &digest[..16]);
            text = &shortened;
        }
        let value = tlv(self.string, &[text.as_bytes()]);
        Ok(tlv(SET, &[&tlv(SEQUENCE, &[&oid(self.id), &value])]))
    }
}

fn is_printable_string(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}

/// Template of a subject, written as RFC 4514 writes a name: the most specific RDN first, separated by commas,
/// `\,` for a comma within a value. Encoded the other way round (RFC 4514 2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectTemplate {
    rdns: Vec<(Attribute, Template)>,
}

impl SubjectTemplate {
    /// Reads e.g. `CN={vdu}.{vnf_instance},OU={tenant},O=keybroker`; an empty text is an empty subject.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rdns = Vec::new();
        for part in split_rdns(text)? {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is no RDN: write TYPE=VALUE, e.g. CN={{vdu}}"))?;
            let known = ATTRIBUTES.iter().find(|known| known.name.eq_ignore_ascii_case(name.trim()));
            let attribute = known.ok_or_else(|| {
                let names: Vec<_> = ATTRIBUTES.iter().map(|known| known.name).collect();
                format!("attribute type {:?} is not known: use one of {}", name.trim(), names.join(", "))
            })?;
            let template = Template::parse(value)?;
            if template.pieces.is_empty() {
                return Err(format!("{} has no value", attribute.name));
            }
            if !template.pieces.iter().any(|piece| matches!(piece, Piece::Variable(_))) {
                attribute.rdn(value)?;
            }
            rdns.push((*attribute, template));
        }
        Ok(Self { rdns })
    }

    /// Name (RFC 5280 4.1.2.4), DER.
    ///
    /// # Errors
    /// [`NameError`] where a value does not fit its attribute type.
    pub fn name_der(&self, values: &NameValues) -> Result<Vec<u8>, NameError> {
        let mut sequence = Vec::new();
        for (attribute, template) in self.rdns.iter().rev() {
            let text = template.fill(values, |_, value| Ok(value))?;
            sequence.extend(attribute.rdn(&text).map_err(|problem| template.error(problem))?);
        }
        Ok(tlv(SEQUENCE, &[&sequence]))
    }

    /// Whether the subject has no RDN at all.
    pub fn is_empty(&self) -> bool {
        self.rdns.is_empty()
    }

    pub(super) fn uses(&self, variable: Variable) -> bool {
        self.rdns.iter().any(|(_, template)| template.uses(variable))
    }
}

/// Splits at commas that are not escaped and takes the escapes away.
fn split_rdns(text: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    if text.trim().is_empty() {
        return Ok(parts);
    }
    let mut part = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ (',' | '\\' | '=' | '+' | '"')) => part.push(escaped),
                _ => return Err(format!("{text:?} has a '\\' before something other than , \\ = + or \"")),
            },
            ',' => parts.push(std::mem::take(&mut part)),
            '+' => {
                return Err(
                    "an RDN has one attribute here: write '\\+' for a plus sign in a value".to_owned()
                );
            }
            other => part.push(other),
        }
    }
    parts.push(part);
    Ok(parts)
}

/// Name of a CA or of a person's certificate: the given RDNs, general ones first.
///
/// # Errors
/// [`NameError`] where a text does not fit.
pub(super) fn plain_name(organizational_unit: Option<&str>, common_name: &str) -> Result<Vec<u8>, NameError> {
    let rdn = |attribute: Attribute, text: &str| {
        attribute.rdn(text).map_err(|problem| NameError { template: text.to_owned(), problem })
    };
    let unit = organizational_unit.map(|unit| rdn(ORGANIZATIONAL_UNIT, unit)).transpose()?;
    Ok(tlv(
        SEQUENCE,
        &[
            &rdn(ORGANIZATION, "keybroker")?,
            unit.as_deref().unwrap_or_default(),
            &rdn(COMMON_NAME, common_name)?,
        ],
    ))
}

/// Template of one subject alternative name: `uri:...` or `dns:...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SanTemplate {
    /// uniformResourceIdentifier; values are percent-encoded (RFC 3986 2.1).
    Uri(UriTemplate),
    /// dNSName; each value must be (part of) one DNS label.
    Dns(DnsTemplate),
}

/// The text of a URI with places for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTemplate(Template);

/// The text of a DNS name with places for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsTemplate(Template);

impl SanTemplate {
    /// Reads e.g. `uri:urn:uuid:{credential}` or `dns:{vdu}.example.org`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(uri) = text.strip_prefix("uri:") {
            let template = Template::parse(uri)?;
            if !template.literals().all(|literal| literal.bytes().all(is_uri_byte)) {
                return Err(format!("{uri:?} has a character that a URI cannot have"));
            }
            check_escapes(&template)?;
            let scheme =
                template.literals().next().and_then(|first| first.split_once(':')).map(|(scheme, _)| scheme);
            let starts_with_scheme = matches!(template.pieces.first(), Some(Piece::Literal(_)))
                && scheme.is_some_and(|scheme| {
                    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
                });
            if !starts_with_scheme {
                return Err(format!("{uri:?} has no scheme: write e.g. \"uri:urn:uuid:{{credential}}\""));
            }
            if uri
                .split_once("://")
                .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(['/', '?', '#']))
            {
                return Err(format!("{uri:?} has no host after \"//\""));
            }
            Ok(Self::Uri(UriTemplate(template)))
        } else if let Some(dns) = text.strip_prefix("dns:") {
            let template = Template::parse(dns)?;
            let has_variable = template.pieces.iter().any(|piece| matches!(piece, Piece::Variable(_)));
            // With a letter in each place: what is left wrong is the template's own fault.
            let sample: String = template
                .pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Literal(text) => text.as_str(),
                    Piece::Variable(_) => "a",
                })
                .collect();
            check_dns_name(&sample)?;
            if !has_variable && template.text != template.text.to_ascii_lowercase() {
                return Err(format!("write the DNS name {dns:?} in lower case"));
            }
            Ok(Self::Dns(DnsTemplate(template)))
        } else {
            Err(format!("{text:?} is no subject alternative name: write \"uri:...\" or \"dns:...\""))
        }
    }

    /// GeneralName (RFC 5280 4.2.1.6), DER.
    ///
    /// # Errors
    /// [`NameError`] where a value makes no DNS name.
    pub fn general_name(&self, values: &NameValues) -> Result<Vec<u8>, NameError> {
        match self {
            Self::Uri(UriTemplate(template)) => {
                let uri = template.fill(values, |_, value| Ok(percent_encode(&value)))?;
                Ok(uri_name(&uri))
            }
            Self::Dns(DnsTemplate(template)) => {
                let name = template.fill(values, |variable, value| {
                    if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                        Ok(value.to_ascii_lowercase())
                    } else {
                        Err(format!(
                            "the value {value:?} of {variable} has a character that a DNS label cannot have \
                             (a-z, 0-9 and '-'); use another value or put {variable} into a URI"
                        ))
                    }
                })?;
                check_dns_name(&name).map_err(|problem| template.error(problem))?;
                Ok(dns_name(&name))
            }
        }
    }

    pub(super) fn uses(&self, variable: Variable) -> bool {
        match self {
            Self::Uri(UriTemplate(template)) | Self::Dns(DnsTemplate(template)) => template.uses(variable),
        }
    }
}

/// GeneralName: uniformResourceIdentifier `[6]`.
pub(super) fn uri_name(uri: &str) -> Vec<u8> {
    tlv(context(6), &[uri.as_bytes()])
}

/// GeneralName: dNSName `[2]`.
pub(super) fn dns_name(name: &str) -> Vec<u8> {
    tlv(context(2), &[name.as_bytes()])
}

/// A '%' in a URI is followed by two hexadecimal digits (RFC 3986 2.1); square brackets have no place but around an address.
fn check_escapes(template: &Template) -> Result<(), String> {
    let is_escape = |after: &str| after.len() >= 2 && after.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    for literal in template.literals() {
        if !literal.split('%').skip(1).all(is_escape) {
            return Err(format!("{:?} has a '%' without two hexadecimal digits after it", template.text));
        }
        if literal.contains(['[', ']']) {
            return Err(format!("{:?} has a square bracket: write it as %5B or %5D", template.text));
        }
    }
    Ok(())
}

/// The preferred name syntax of RFC 1034 3.5, as RFC 5280 4.2.1.6 asks for; nothing that could be taken for an address.
pub(super) fn check_dns_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 253 {
        return Err(format!("the DNS name {name:?} is not 1 to 253 characters long"));
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(format!("the DNS name {name:?} has a label that is not 1 to 63 characters long"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(format!("the DNS name {name:?} has a label that starts or ends with '-'"));
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(format!("the DNS name {name:?} has a character other than a-z, 0-9, '-' and '.'"));
        }
    }
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("the DNS name {name:?} ends with a number, as an IP address does"));
    }
    Ok(())
}

fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)
}

/// Percent-encodes everything but the unreserved characters (RFC 3986 2.3).
fn percent_encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::Decode;
    use proptest::prelude::*;
    use x509_cert::name::RdnSequence;

    fn values(vdu: &str) -> NameValues {
        NameValues {
            tenant: "default".parse().unwrap(),
            vnf_instance: "vnf-1".parse().unwrap(),
            vdu: vdu.parse().unwrap(),
            credential: "01234567-89ab-7def-8123-456789abcdef".parse().unwrap(),
            vnfci: None,
        }
    }

    fn subject(template: &str, vdu: &str) -> Result<RdnSequence, NameError> {
        let der = SubjectTemplate::parse(template).unwrap().name_der(&values(vdu))?;
        Ok(RdnSequence::from_der(&der).unwrap())
    }

    fn san(template: &str, vdu: &str) -> Result<String, NameError> {
        let der = SanTemplate::parse(template).unwrap().general_name(&values(vdu))?;
        Ok(String::from_utf8(der[2..].to_vec()).unwrap())
    }

    #[test]
    fn a_subject_reads_back_as_it_was_written() {
        let name = subject("CN={vdu}.{vnf_instance},OU={tenant},O=A\\, B", "amf").unwrap();
        assert_eq!(name.to_string(), "CN=amf.vnf-1,OU=default,O=A\\, B");
    }

    #[test]
    fn a_value_never_adds_an_rdn() {
        let name = subject("CN={vdu},O=keybroker", "x,CN=admin+OU=root").unwrap();
        assert_eq!(name.iter().count(), 2);
        assert_eq!(name.to_string(), "CN=x\\,CN=admin\\+OU=root,O=keybroker");
    }

    #[test]
    fn a_long_value_is_shortened_and_stays_distinct() {
        let long =
            |last: &str| subject("CN={vdu}", &format!("{}{last}", "v".repeat(100))).unwrap().to_string();
        assert_eq!(long("a").len(), "CN=".len() + 64);
        assert_ne!(long("a"), long("b"));
        assert_eq!(
            subject("CN={vdu}", &"v".repeat(64)).unwrap().to_string(),
            format!("CN={}", "v".repeat(64))
        );
    }

    #[test]
    fn a_dns_name_takes_labels_only_and_the_error_names_the_value() {
        assert_eq!(san("dns:{vdu}.example.org", "AMF-1").unwrap(), "amf-1.example.org");
        for bad in ["amf_1", "a.evil", "*", "-a", &"a".repeat(64)] {
            let error = san("dns:{vdu}.example.org", bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_uri_takes_every_value_percent_encoded() {
        assert_eq!(
            san("uri:spiffe://example.org/{tenant}/{vdu}", "a/../b?c#d%").unwrap(),
            "spiffe://example.org/default/a%2F..%2Fb%3Fc%23d%25"
        );
        assert_eq!(
            san("uri:urn:uuid:{credential}", "x").unwrap(),
            "urn:uuid:01234567-89ab-7def-8123-456789abcdef"
        );
    }

    #[test]
    fn a_vnfci_that_is_not_known_yet_is_an_error_with_its_remedy() {
        assert!(san("uri:urn:x:{vnfci}", "x").unwrap_err().to_string().contains("at_claim"));
    }

    #[test]
    fn a_wrong_template_is_refused_with_what_to_write() {
        for (template, expected) in [
            ("{vdu}", "TYPE=VALUE"),
            ("XX={vdu}", "CN, O, OU"),
            ("CN={vdx}", "{vdu}"),
            ("CN={vdu", "without"),
            ("CN=vdu}", "without"),
            ("CN=", "no value"),
            ("CN=a+OU=b", "\\+"),
            ("C=de", "two capital letters"),
            ("CN=a\0{vdu}", "control"),
        ] {
            let error = SubjectTemplate::parse(template).unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
        for (template, expected) in [
            ("{credential}", "uri:"),
            ("uri:{credential}", "scheme"),
            ("uri:urn:a b", "cannot have"),
            ("dns:a..b", "label"),
            ("dns:-{vdu}", "'-'"),
            ("dns:A.example", "lower case"),
            ("dns:1.2.3.4", "number"),
            ("uri:urn:%zz{credential}", "%"),
            ("uri:urn:x%{credential}", "%"),
            ("uri:urn:[]{credential}", "bracket"),
            ("uri:https:///{credential}", "no host"),
            ("uri:urn:\0{credential}", "control"),
        ] {
            let error = SanTemplate::parse(template).unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_value_of_mano_gives_a_name_within_the_bounds_or_an_error(vdu in "[!-~]{1,255}") {
            let name = subject("CN={vdu},OU={tenant}", &vdu).unwrap();
            prop_assert_eq!(name.iter().count(), 2);
            let uri = SanTemplate::parse("uri:urn:x:{vdu}").unwrap();
            let UriTemplate(uri) = match &uri { SanTemplate::Uri(uri) => uri, SanTemplate::Dns(_) => unreachable!() };
            let uri = uri.fill(&values(&vdu), |_, value| Ok(percent_encode(&value))).unwrap();
            prop_assert!(uri.bytes().all(is_uri_byte) && !uri[6..].contains(['/', '?', '#', ':']));
            if let Ok(name) = san("dns:{vdu}.example.org", &vdu) {
                prop_assert!(check_dns_name(&name).is_ok());
                prop_assert_eq!(name.split('.').count(), 3);
            }
        }

        #[test]
        fn no_text_makes_the_template_parsers_panic(text in ".*") {
            let _ = SubjectTemplate::parse(&text);
            let _ = SanTemplate::parse(&text);
            let _ = SanTemplate::parse(&format!("uri:{text}"));
            let _ = SanTemplate::parse(&format!("dns:{text}"));
        }
    }
}
