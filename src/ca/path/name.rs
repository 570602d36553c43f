//! Distinguished names as they are compared (RFC 5280 7.1, after RFC 4518): text without regard to its string type,
//! case and runs of spaces; everything else octet by octet.
//!
//! Of RFC 4518's preparation the Unicode normalisation is left out: names that differ in it only are different, which
//! refuses a path and never accepts one.

use der::asn1::{
    BmpString, Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef,
};
use der::{Decode, Tag, Tagged};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{Name, RelativeDistinguishedName};

/// A name, ready to be compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct DistinguishedName(Vec<Rdn>);

/// Attributes of one RDN, sorted: it is a set.
type Rdn = Vec<(ObjectIdentifier, Value)>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Value {
    /// In lower case, with single spaces between words.
    Text(String),
    /// Tag and content.
    Other(Tag, Vec<u8>),
}

impl DistinguishedName {
    pub(super) fn new(name: &Name) -> Self {
        Self(name.iter_rdn().map(rdn).collect())
    }

    /// This name with one more RDN (`nameRelativeToCRLIssuer`, RFC 5280 4.2.1.13).
    pub(super) fn with(&self, relative: &RelativeDistinguishedName) -> Self {
        let mut longer = self.clone();
        longer.0.push(rdn(relative));
        longer
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this name is `base` or below it.
    pub(super) fn is_within(&self, base: &Self) -> bool {
        self.0.starts_with(&base.0)
    }
}

/// Whether two names (DER) are the same as RFC 5280 7.1 compares them; what is no name is nobody's.
pub(in crate::ca) fn same_name(one: &[u8], other: &[u8]) -> bool {
    let read = |der| Name::from_der(der).ok().as_ref().map(DistinguishedName::new);
    read(one).is_some_and(|name| read(other).as_ref() == Some(&name))
}

fn rdn(relative: &RelativeDistinguishedName) -> Rdn {
    let mut attributes: Rdn = relative.iter().map(|attribute| (attribute.oid, value(attribute))).collect();
    attributes.sort();
    attributes
}

fn value(attribute: &AttributeTypeAndValue) -> Value {
    match text(attribute) {
        Some(text) => Value::Text(prepared(&text)),
        None => Value::Other(attribute.value.tag(), attribute.value.value().to_vec()),
    }
}

/// The text of a value in one of the string types.
pub(super) fn text(attribute: &AttributeTypeAndValue) -> Option<String> {
    let value = &attribute.value;
    match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str().to_owned()),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.to_string()),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok().map(|text| text.to_string()),
        Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok().map(|text| text.to_string()),
        Tag::BmpString => value.decode_as::<BmpString>().ok().map(|text| text.to_string()),
        _ => None,
    }
}

/// Lower case, no spaces at the ends, one between words.
fn prepared(text: &str) -> String {
    let mut prepared = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !prepared.is_empty() {
            prepared.push(' ');
        }
        prepared.extend(word.chars().flat_map(char::to_lowercase));
    }
    prepared
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn name(text: &str) -> DistinguishedName {
        DistinguishedName::new(&Name::from_str(text).unwrap())
    }

    #[test]
    fn names_are_compared_without_case_and_runs_of_spaces() {
        assert_eq!(name("CN=Good  CA ,O=Example"), name("CN=good ca,O=EXAMPLE"));
        assert_ne!(name("CN=GoodCA,O=Example"), name("CN=Good CA,O=Example"));
        assert_ne!(name("CN=a,O=b"), name("O=b,CN=a"));
    }

    #[test]
    fn a_name_is_within_its_own_beginning_only() {
        // The text form begins with the last RDN.
        assert!(name("CN=leaf,OU=x,O=Example").is_within(&name("OU=X,O=example")));
        assert!(!name("CN=leaf,OU=x,O=Example").is_within(&name("OU=x")));
        assert!(!name("O=Example").is_within(&name("CN=a,O=Example")));
    }
}
