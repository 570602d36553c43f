//! Name constraints (RFC 5280 4.2.1.10) on directory names, DNS names, mail addresses, URIs and IP addresses.
//!
//! A constraint on any other kind of name refuses every certificate that has a name of that kind (6.1.4 g).

use super::certificate::Certificate;
use super::name::{DistinguishedName, text};
use super::{PathError, Work};
use const_oid::db::rfc3280::EMAIL_ADDRESS;
use x509_cert::ext::pkix::NameConstraints;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;

/// The constraints of a path so far: `permitted_subtrees` and `excluded_subtrees` of RFC 5280 6.1.2.
#[derive(Debug, Default)]
pub(super) struct Constraints {
    /// One list per certificate that permits: a name must be in every one of them that speaks of its kind.
    permitted: Vec<Vec<Subtree>>,
    excluded: Vec<Subtree>,
}

#[derive(Debug, PartialEq, Eq)]
enum Subtree {
    Directory(DistinguishedName),
    Dns(String),
    Mail(Mail),
    Uri(String),
    /// Address and mask, of one length.
    Ip(Vec<u8>, Vec<u8>),
    /// A kind of name that is not understood here.
    Other(Kind),
}

/// What a mail constraint permits or excludes. Hosts are in lower case.
#[derive(Debug, PartialEq, Eq)]
enum Mail {
    Mailbox(String, String),
    Host(String),
    /// Every host below this domain.
    Below(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    Dns,
    Mail,
    Uri,
    Ip,
    OtherName,
    EdiParty,
    RegisteredId,
}

/// A name of a certificate.
enum Subject<'a> {
    Directory(&'a DistinguishedName),
    Dns(String),
    Mail(&'a str),
    Uri(&'a str),
    Ip(&'a [u8]),
    Other(Kind),
}

impl Constraints {
    /// Adds what a CA certificate constrains.
    pub(super) fn add(&mut self, constraints: &NameConstraints, of: &Certificate) -> Result<(), PathError> {
        let malformed =
            |what: String| PathError::Malformed(format!("name constraints of {}: {what}", of.shown()));
        let read = |subtrees: &Option<Vec<GeneralSubtree>>| {
            subtrees.iter().flatten().map(subtree).collect::<Result<Vec<_>, _>>().map_err(malformed)
        };
        let permitted = read(&constraints.permitted_subtrees)?;
        if !permitted.is_empty() {
            self.permitted.push(permitted);
        }
        self.excluded.extend(read(&constraints.excluded_subtrees)?);
        Ok(())
    }

    /// Checks every name of a certificate (RFC 5280 6.1.3 b and c).
    pub(super) fn check(&self, certificate: &Certificate, work: &Work) -> Result<(), PathError> {
        if self.permitted.is_empty() && self.excluded.is_empty() {
            return Ok(());
        }
        if !certificate.subject.is_empty() {
            self.check_one(&Subject::Directory(&certificate.subject), certificate, work)?;
        }
        for name in certificate.alternative_names() {
            let directory;
            let subject = match name {
                GeneralName::DirectoryName(name) => {
                    directory = DistinguishedName::new(name);
                    Subject::Directory(&directory)
                }
                GeneralName::DnsName(name) => Subject::Dns(name.as_str().to_ascii_lowercase()),
                GeneralName::Rfc822Name(name) => Subject::Mail(name.as_str()),
                GeneralName::UniformResourceIdentifier(uri) => Subject::Uri(uri.as_str()),
                GeneralName::IpAddress(address) => Subject::Ip(address.as_bytes()),
                GeneralName::OtherName(_) => Subject::Other(Kind::OtherName),
                GeneralName::EdiPartyName(_) => Subject::Other(Kind::EdiParty),
                GeneralName::RegisteredId(_) => Subject::Other(Kind::RegisteredId),
            };
            self.check_one(&subject, certificate, work)?;
        }
        // 4.2.1.10: without alternative names, a mail address in the subject is held against the constraints.
        if certificate.alternative_names().is_empty() {
            let attributes =
                certificate.subject_name.iter().filter(|attribute| attribute.oid == EMAIL_ADDRESS);
            for address in attributes.filter_map(text) {
                self.check_one(&Subject::Mail(&address), certificate, work)?;
            }
        }
        Ok(())
    }

    fn check_one(&self, name: &Subject<'_>, certificate: &Certificate, work: &Work) -> Result<(), PathError> {
        let kind = name.kind();
        let of_kind = |subtree: &&Subtree| subtree.kind() == kind;
        let refused = |how: &str| {
            PathError::NameConstraints(format!("{} of {} is {how}", name.shown(), certificate.shown()))
        };
        work.compare_names(self.permitted.iter().map(Vec::len).sum::<usize>() + self.excluded.len())?;
        for permitted in &self.permitted {
            let mut of_kind = permitted.iter().filter(of_kind).peekable();
            if of_kind.peek().is_some() && !of_kind.any(|subtree| name.is_within(subtree)) {
                return Err(refused("not permitted"));
            }
        }
        if self.excluded.iter().filter(of_kind).any(|subtree| name.touches(subtree)) {
            return Err(refused("excluded"));
        }
        Ok(())
    }
}

impl Subtree {
    fn kind(&self) -> Kind {
        match self {
            Self::Directory(_) => Kind::Directory,
            Self::Dns(_) => Kind::Dns,
            Self::Mail(_) => Kind::Mail,
            Self::Uri(_) => Kind::Uri,
            Self::Ip(..) => Kind::Ip,
            Self::Other(kind) => *kind,
        }
    }
}

impl Subject<'_> {
    fn kind(&self) -> Kind {
        match self {
            Self::Directory(_) => Kind::Directory,
            Self::Dns(_) => Kind::Dns,
            Self::Mail(_) => Kind::Mail,
            Self::Uri(_) => Kind::Uri,
            Self::Ip(_) => Kind::Ip,
            Self::Other(kind) => *kind,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Directory(_) => "a directory name".to_owned(),
            Self::Dns(name) => format!("DNS name {name:?}"),
            Self::Mail(address) => format!("mail address {address:?}"),
            Self::Uri(uri) => format!("URI {uri:?}"),
            Self::Ip(address) => format!("IP address {}", hex::encode(address)),
            Self::Other(kind) => format!("a name of kind {kind:?}"),
        }
    }

    /// Whether the subtree holds this name whole.
    fn is_within(&self, subtree: &Subtree) -> bool {
        match (self, subtree) {
            (Self::Directory(name), Subtree::Directory(base)) => name.is_within(base),
            (Self::Dns(name), Subtree::Dns(base)) => dns_within(name, base),
            (Self::Mail(address), Subtree::Mail(base)) => mail_within(address, base),
            (Self::Uri(uri), Subtree::Uri(base)) => host_of(uri).is_some_and(|host| uri_within(&host, base)),
            (Self::Ip(address), Subtree::Ip(base, mask)) => {
                address.len() == base.len()
                    && address.iter().zip(base).zip(mask).all(|((a, b), mask)| a & mask == b & mask)
            }
            _ => false,
        }
    }

    /// Whether the subtree holds this name, or one that it stands for; in doubt it does.
    fn touches(&self, subtree: &Subtree) -> bool {
        let doubtful = match (self, subtree) {
            // A name with a dot at its end is none (RFC 1034 3.5), and some take it for the one without.
            (Self::Dns(name), Subtree::Dns(_)) if name.ends_with('.') => true,
            // A wildcard stands for every first label.
            (Self::Dns(name), Subtree::Dns(base)) => match (name.strip_prefix("*."), base.split_once('.')) {
                (Some(parent), Some((_, above_base))) => parent == above_base,
                _ => false,
            },
            (Self::Uri(uri), Subtree::Uri(_)) => host_of(uri).is_none_or(|host| host.ends_with('.')),
            (Self::Mail(address), Subtree::Mail(_)) => mailbox(address).is_none() || address.ends_with('.'),
            (Self::Other(_), Subtree::Other(_)) => true,
            _ => false,
        };
        doubtful || self.is_within(subtree)
    }
}

fn subtree(subtree: &GeneralSubtree) -> Result<Subtree, String> {
    // RFC 5280 4.2.1.10: minimum is 0 and maximum is absent.
    if subtree.minimum != 0 || subtree.maximum.is_some() {
        return Err("minimum or maximum is set".to_owned());
    }
    Ok(match &subtree.base {
        GeneralName::DirectoryName(name) => Subtree::Directory(DistinguishedName::new(name)),
        GeneralName::DnsName(name) => Subtree::Dns(name.as_str().to_ascii_lowercase()),
        GeneralName::Rfc822Name(address) => Subtree::Mail(mail_constraint(address.as_str())?),
        GeneralName::UniformResourceIdentifier(host) => Subtree::Uri(host.as_str().to_ascii_lowercase()),
        GeneralName::IpAddress(network) => {
            let network = network.as_bytes();
            if !matches!(network.len(), 8 | 32) {
                return Err(format!("an IP network of {} bytes", network.len()));
            }
            let (address, mask) = network.split_at(network.len() / 2);
            let ones = mask.iter().map(|byte| byte.leading_ones()).take_while(|&ones| ones == 8).count();
            let rest = &mask[ones..];
            let partial = rest.first().is_none_or(|byte| byte.count_zeros() == byte.trailing_zeros());
            if !partial || rest.iter().skip(1).any(|&byte| byte != 0) {
                return Err("an IP network whose mask is no prefix".to_owned());
            }
            Subtree::Ip(address.to_vec(), mask.to_vec())
        }
        GeneralName::OtherName(_) => Subtree::Other(Kind::OtherName),
        GeneralName::EdiPartyName(_) => Subtree::Other(Kind::EdiParty),
        GeneralName::RegisteredId(_) => Subtree::Other(Kind::RegisteredId),
    })
}

/// `example.com` holds itself and what is below; `.example.com` (no RFC's form, but in use) only what is below.
fn dns_within(name: &str, base: &str) -> bool {
    let base_is_domain = base.starts_with('.');
    if base.is_empty() {
        return true;
    }
    match name.strip_suffix(base) {
        Some("") => !base_is_domain,
        Some(labels) => base_is_domain || labels.ends_with('.'),
        None => false,
    }
}

fn mail_constraint(text: &str) -> Result<Mail, String> {
    match text.split_once('@') {
        Some(_) => match mailbox(text) {
            Some((local, host)) => Ok(Mail::Mailbox(local.to_owned(), host)),
            None => Err(format!("{text:?} is no mail address")),
        },
        None => Ok(match text.strip_prefix('.') {
            Some(domain) => Mail::Below(format!(".{}", domain.to_ascii_lowercase())),
            None => Mail::Host(text.to_ascii_lowercase()),
        }),
    }
}

/// Local part as it is, host in lower case.
fn mailbox(address: &str) -> Option<(&str, String)> {
    let (local, host) = address.rsplit_once('@')?;
    // A quoted local part may hold '@'; such addresses are not told apart from broken ones and match nothing.
    if local.is_empty() || host.is_empty() || local.contains('@') {
        return None;
    }
    Some((local, host.to_ascii_lowercase()))
}

fn mail_within(address: &str, base: &Mail) -> bool {
    let Some((local, host)) = mailbox(address) else { return false };
    match base {
        Mail::Mailbox(permitted, at) => local == permitted && host == *at,
        Mail::Host(permitted) => host == *permitted,
        Mail::Below(domain) => host.len() > domain.len() && host.ends_with(domain.as_str()),
    }
}

/// A host is held by itself only, a domain (`.example.com`) holds what is below.
fn uri_within(host: &str, base: &str) -> bool {
    if base.starts_with('.') { host.len() > base.len() && host.ends_with(base) } else { host == base }
}

/// The host of a URI as lower-case DNS name. RFC 5280: a URI without one, or with an IP address, is in no subtree.
fn host_of(uri: &str) -> Option<String> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.starts_with('[') {
        return None;
    }
    let host = host.split_once(':').map_or(host, |(host, _)| host).to_ascii_lowercase();
    let is_address = host.parse::<std::net::Ipv4Addr>().is_ok();
    (!host.is_empty() && !is_address).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_subtree_holds_whole_labels_below_its_base() {
        for (name, base, within) in [
            ("example.com", "example.com", true),
            ("a.b.example.com", "example.com", true),
            ("badexample.com", "example.com", false),
            ("example.com", ".example.com", false),
            ("a.example.com", ".example.com", true),
            ("anything", "", true),
        ] {
            assert_eq!(dns_within(name, base), within, "{name} in {base}");
        }
    }

    #[test]
    fn an_exclusion_holds_a_wildcard_that_stands_for_an_excluded_name() {
        let excluded = Subtree::Dns("bar.example.com".to_owned());
        let touches = |name: &str| Subject::Dns(name.to_owned()).touches(&excluded);
        assert!(touches("*.example.com"));
        assert!(touches("*.bar.example.com"));
        assert!(!touches("*.com"));
        assert!(!touches("*.foo.example.com"));
    }

    #[test]
    fn a_dot_at_the_end_takes_no_name_out_of_an_exclusion() {
        let excluded = Subtree::Dns("bad.example".to_owned());
        assert!(Subject::Dns("a.bad.example.".to_owned()).touches(&excluded));
        assert!(Subject::Uri("https://a.bad.example./x").touches(&Subtree::Uri(".bad.example".to_owned())));
        let mail = Subtree::Mail(Mail::Host("bad.example".to_owned()));
        assert!(Subject::Mail("one@bad.example.").touches(&mail));
        // And into no permission.
        assert!(!Subject::Dns("a.bad.example.".to_owned()).is_within(&excluded));
    }

    #[test]
    fn a_uri_is_held_by_its_host_and_none_without_host_is_permitted() {
        assert_eq!(host_of("https://user@Host.Example.com:8080/x").as_deref(), Some("host.example.com"));
        for without in ["urn:uuid:1", "http://192.0.2.1/x", "http://[::1]/", "http:///x"] {
            assert_eq!(host_of(without), None, "{without}");
            assert!(!Subject::Uri(without).is_within(&Subtree::Uri(".example.com".to_owned())));
            assert!(Subject::Uri(without).touches(&Subtree::Uri(".example.com".to_owned())));
        }
        assert!(!uri_within("example.com", ".example.com"));
        assert!(!uri_within("a.example.com", "example.com"));
    }
}
