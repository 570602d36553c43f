//! Whether a certificate is for a TLS server (RFC 9525): by its alternative names, never by its common name.

use super::certificate::Certificate;
use std::fmt;
use std::net::IpAddr;
use x509_cert::ext::pkix::name::GeneralName;

/// The server that a client means to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// By its DNS name.
    Dns(String),
    /// By its address.
    Ip(IpAddr),
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

pub(super) fn matches(certificate: &Certificate, server: &ServerName) -> bool {
    certificate.alternative_names().iter().any(|name| match (name, server) {
        (GeneralName::DnsName(pattern), ServerName::Dns(name)) => dns_matches(pattern.as_str(), name),
        (GeneralName::IpAddress(address), ServerName::Ip(IpAddr::V4(server))) => {
            address.as_bytes() == server.octets()
        }
        (GeneralName::IpAddress(address), ServerName::Ip(IpAddr::V6(server))) => {
            address.as_bytes() == server.octets()
        }
        _ => false,
    })
}

/// A wildcard is the whole first label and stands for exactly one, with at least two labels after it.
fn dns_matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    let name = name.strip_suffix('.').unwrap_or(&name);
    match pattern.strip_prefix("*.") {
        Some(parent) => {
            parent.contains('.')
                && name.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == parent)
        }
        None => !pattern.is_empty() && !pattern.contains('*') && pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (pattern, name, matches) in [
            ("a.example.com", "A.example.COM.", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.b.example.com", false),
            ("*.com", "example.com", false),
            ("a*.example.com", "ab.example.com", false),
        ] {
            assert_eq!(dns_matches(pattern, name), matches, "{pattern} for {name}");
        }
    }
}
