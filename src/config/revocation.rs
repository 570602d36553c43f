//! `[crl]`, `[ocsp]` and `[ca]`.

use crate::clock::HumaneDuration;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// `[crl]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crl {
    /// From thisUpdate to nextUpdate.
    #[serde(default = "default_crl_validity")]
    pub validity: HumaneDuration,
    /// A new CRL is signed at least this often; a revocation is published at once.
    #[serde(default = "default_crl_refresh")]
    pub refresh: HumaneDuration,
    /// New certificates are spread over so many lists per CA, beside the complete one; 1: they name the complete one.
    #[serde(default = "default_crl_shards")]
    pub shards: Shards,
}

/// `[ocsp]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ocsp {
    /// Pools' certificates name the responder (authorityInfoAccess).
    #[serde(default = "default_ocsp_in_certificates")]
    pub in_certificates: bool,
    /// From thisUpdate to nextUpdate.
    #[serde(default = "default_ocsp_validity")]
    pub validity: HumaneDuration,
    /// A signed response is given out so long before a new one is signed; a revocation counts at once.
    #[serde(default = "default_ocsp_refresh")]
    pub refresh: HumaneDuration,
    /// Requests with a nonce (RFC 9654) get a response of their own.
    #[serde(default)]
    pub nonce: bool,
    /// Of the responders' certificates.
    #[serde(default = "default_responder_validity")]
    pub responder_validity: HumaneDuration,
}

/// `[ca]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ca {
    /// Files with the roots (PEM) that the certificates of `ca import` may lead to, beside the own root.
    #[serde(default)]
    pub roots: Vec<PathBuf>,
}

/// A number of CRL shards: 1 to 1,024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Shards(u32);

impl Shards {
    /// As a number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for Shards {
    type Error = String;
    fn try_from(number: u64) -> Result<Self, String> {
        match u32::try_from(number) {
            Ok(shards @ 1..=1_024) => Ok(Self(shards)),
            _ => Err(format!("{number} is not a whole number from 1 to 1024")),
        }
    }
}

impl Default for Crl {
    fn default() -> Self {
        Self {
            validity: default_crl_validity(),
            refresh: default_crl_refresh(),
            shards: default_crl_shards(),
        }
    }
}

impl Default for Ocsp {
    fn default() -> Self {
        Self {
            in_certificates: default_ocsp_in_certificates(),
            validity: default_ocsp_validity(),
            refresh: default_ocsp_refresh(),
            nonce: false,
            responder_validity: default_responder_validity(),
        }
    }
}

/// 24 hours: relying parties live through a day without us.
fn default_crl_validity() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(24 * 3_600))
}

/// 6 hours: three more attempts before a CRL expires.
fn default_crl_refresh() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(6 * 3_600))
}

/// One list per CA: it has room for what a site revokes within its certificates' lifetime.
fn default_crl_shards() -> Shards {
    Shards(1)
}

/// Relying parties that can ask find out where.
fn default_ocsp_in_certificates() -> bool {
    true
}

/// One hour: a relying party that keeps a response learns of a revocation within it.
fn default_ocsp_validity() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(3_600))
}

/// 15 minutes: relying parties never hold a response that is about to end, and the HSM may be away for 45.
fn default_ocsp_refresh() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(15 * 60))
}

/// Seven days: nobody checks whether a responder is revoked (ocsp-nocheck).
fn default_responder_validity() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(7 * 86_400))
}
