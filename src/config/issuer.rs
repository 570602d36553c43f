//! `[issuer.NAME]`: CAs outside of the broker.

use super::{Config, ConfigError, Count};
use crate::ca::issuers::Revocation;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `[issuer.NAME]`; a profile names it with `issuer = "NAME"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// How it is reached.
    pub kind: IssuerKind,
    /// The enrolment server, `https://HOST[:PORT]`.
    pub url: HttpsUrl,
    /// The additional path segment that names one of several CAs of the server (RFC 7030 3.2.2).
    #[serde(default)]
    pub label: Option<String>,
    /// PEM file with the one root that the server's CA certificates must lead to; its TLS certificate, too, unless there is
    /// `server_trust_anchor`.
    pub trust_anchor: PathBuf,
    /// PEM file with the roots, of which the server's TLS certificate must lead to one: those of another PKI.
    #[serde(default)]
    pub server_trust_anchor: Option<PathBuf>,
    /// PEM file with our TLS client certificate, leaf first. Its key is in the HSM: `keybroker issuer request`.
    pub client_certificate: PathBuf,
    /// What becomes of certificates whose keys are lost: the issuer cannot be told to revoke.
    #[serde(default = "default_revocation")]
    pub revocation: Revocation,
    /// Requests at the same time.
    #[serde(default = "default_concurrency")]
    pub concurrency: Count,
}

/// The protocol of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IssuerKind {
    /// RFC 7030, RFC 8951.
    Est,
}

/// An `https://` URL without path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpsUrl(String);

impl HttpsUrl {
    /// Its text, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HttpsUrl {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        let bare = uri.path() == "/" && uri.query().is_none();
        if uri.scheme_str() != Some("https") || uri.host().is_none() || !bare {
            return Err(format!("{text:?} is not of the form https://HOST[:PORT]"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl Config {
    /// Names that mean something else, and labels that are no path segment.
    pub(super) fn check_issuers(&self, file: &Path, text: &str) -> Result<(), ConfigError> {
        for (name, issuer) in &self.issuers {
            let section = format!("[issuer.{name}]");
            let fail = |problem: &str, remedy: &str| {
                Err(ConfigError {
                    file: file.to_owned(),
                    line: text
                        .lines()
                        .position(|line| line.trim_start().starts_with(&section))
                        .map(|at| at + 1),
                    problem: format!("{section} {problem}"),
                    remedy: remedy.to_owned(),
                })
            };
            if name.as_str() == "sub-ca" {
                return fail("has the name of the tenants' own CAs", "give the issuer another name");
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
            if issuer.label.as_ref().is_some_and(|label| label.is_empty() || !label.chars().all(plain)) {
                let remedy = "give one path segment of letters, digits and -._~, or leave label out";
                return fail("has a label that is no path segment", remedy);
            }
        }
        Ok(())
    }
}

/// Nobody is trusted to revoke who did not say so.
fn default_revocation() -> Revocation {
    Revocation::ShortLived
}

/// 32: over a link of 50 ms, some 500 certificates per second.
fn default_concurrency() -> Count {
    Count(32)
}
