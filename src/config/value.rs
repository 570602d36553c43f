//! Values of the configuration that are checked when they are read.

use crate::sealing::Suite;
use serde::Deserialize;

/// A whole number from 1 to 1,000,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Count(pub(super) u64);

impl Count {
    /// As a size.
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl TryFrom<u64> for Count {
    type Error = String;
    fn try_from(number: u64) -> Result<Self, String> {
        if (1..=1_000_000_000).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!("{number} is not a whole number from 1 to 1000000000"))
        }
    }
}

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Share(pub f64);

impl TryFrom<f64> for Share {
    type Error = String;
    fn try_from(number: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!("{number} is not a number from 0 to 1"))
        }
    }
}

/// Sealing suites, preferred first, at least one, none twice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Suite>")]
pub struct Suites(pub Vec<Suite>);

impl Default for Suites {
    /// [`Suite::DEFAULT`]: a suite that carries no context has to be asked for.
    fn default() -> Self {
        Self(Suite::DEFAULT.to_vec())
    }
}

impl TryFrom<Vec<Suite>> for Suites {
    type Error = String;
    fn try_from(suites: Vec<Suite>) -> Result<Self, String> {
        if suites.is_empty() {
            return Err("sealing names no suite: nothing could be claimed".to_owned());
        }
        match suites.iter().enumerate().find(|(index, suite)| suites[..*index].contains(suite)) {
            Some((_, twice)) => Err(format!("sealing names {twice} twice")),
            None => Ok(Self(suites)),
        }
    }
}

/// DNS names and IP addresses, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct ServerNames(pub Vec<String>);

impl TryFrom<Vec<String>> for ServerNames {
    type Error = String;
    fn try_from(names: Vec<String>) -> Result<Self, String> {
        if names.is_empty() {
            return Err("server_names is empty: name what clients connect to".to_owned());
        }
        match names.iter().find(|name| rustls_pki_types::ServerName::try_from(name.as_str()).is_err()) {
            Some(bad) => Err(format!("{bad:?} in server_names is neither a DNS name nor an IP address")),
            None => Ok(Self(names)),
        }
    }
}

/// An `http://` URL without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpUrl(pub(super) String);

impl HttpUrl {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        // A CRL is fetched over plain HTTP: it is signed, and checking TLS would need a CRL (RFC 5280 8). A collector
        // of traces is on this machine, which takes them elsewhere if need be.
        if uri.scheme_str() != Some("http") || uri.host().is_none() || uri.query().is_some() {
            return Err(format!("{text:?} is not of the form http://HOST[:PORT][/PATH]"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}
