//! `[listen]`.

use super::{Config, ConfigError, Count, HttpUrl, ServerNames};
use crate::clock::HumaneDuration;
use crate::server::Limits;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::Path;

/// `[listen]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// gRPC for VNFCIs with an initial credential.
    #[serde(default = "default_bootstrap")]
    pub bootstrap: SocketAddr,
    /// gRPC for VNFCIs with a delivered certificate.
    #[serde(default = "default_vnfci")]
    pub vnfci: SocketAddr,
    /// gRPC for MANO, auditors and operators.
    #[serde(default = "default_management")]
    pub management: SocketAddr,
    /// EST (RFC 7030) for VNFCIs with keys of their own, and for VNFMs as their agents. Not served if absent.
    pub est: Option<SocketAddr>,
    /// HTTP for revocation lists and the trust chain.
    #[serde(default = "default_http")]
    pub http: SocketAddr,
    /// HTTP for metrics and health: keep it local.
    #[serde(default = "default_admin")]
    pub admin: SocketAddr,
    /// Names (DNS names and IP addresses) in our TLS server certificates.
    #[serde(default = "default_server_names")]
    pub server_names: ServerNames,
    /// Base of the URLs in certificates' cRLDistributionPoints. Default: `http://` and [`Listen::http`].
    pub http_url: Option<HttpUrl>,
    /// What one source, or all together, may use of the gRPC listeners.
    #[serde(default)]
    pub limits: ListenLimits,
}

impl Listen {
    /// How many listeners have TLS.
    pub fn with_tls(&self) -> usize {
        3 + usize::from(self.est.is_some())
    }
}

/// `[listen.limits]`, of each gRPC listener; see [`Limits`], whose defaults it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenLimits {
    /// [`Limits::handshake_timeout`].
    pub handshake_timeout: HumaneDuration,
    /// [`Limits::handshakes`].
    pub handshakes: Count,
    /// [`Limits::connections`].
    pub connections: Count,
    /// [`Limits::handshakes_per_source`].
    pub handshakes_per_source: Count,
    /// [`Limits::connections_per_source`].
    pub connections_per_source: Count,
    /// [`Limits::rate_per_source`].
    pub rate_per_source: Count,
    /// [`Limits::burst_per_source`].
    pub burst_per_source: Count,
    /// [`Limits::drain`].
    pub drain: HumaneDuration,
}

impl Config {
    /// Two listeners on one address would fail at start with a message that names neither.
    pub(super) fn check_listeners(&self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let listen = &self.listen;
        let all = [
            ("bootstrap", listen.bootstrap),
            ("vnfci", listen.vnfci),
            ("management", listen.management),
            ("http", listen.http),
            ("admin", listen.admin),
        ];
        let all: Vec<_> = all.into_iter().chain(listen.est.map(|est| ("est", est))).collect();
        for (index, (name, address)) in all.iter().enumerate() {
            let same = all[..index].iter().find(|(_, other)| other == address && address.port() != 0);
            if let Some((other, _)) = same {
                return Err(ConfigError {
                    file: file.to_owned(),
                    line: text.lines().position(|line| line.trim_start().starts_with(name)).map(|at| at + 1),
                    problem: format!("[listen] {name} and {other} have the same address {address}"),
                    remedy: "give each listener a port of its own".to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            bootstrap: default_bootstrap(),
            vnfci: default_vnfci(),
            management: default_management(),
            est: None,
            http: default_http(),
            admin: default_admin(),
            server_names: default_server_names(),
            http_url: None,
            limits: ListenLimits::default(),
        }
    }
}

impl Default for ListenLimits {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            handshake_timeout: HumaneDuration(limits.handshake_timeout),
            handshakes: Count(limits.handshakes as u64),
            connections: Count(limits.connections as u64),
            handshakes_per_source: Count(limits.handshakes_per_source.into()),
            connections_per_source: Count(limits.connections_per_source.into()),
            rate_per_source: Count(limits.rate_per_source.into()),
            burst_per_source: Count(limits.burst_per_source.into()),
            drain: HumaneDuration(limits.drain),
        }
    }
}

impl From<ListenLimits> for Limits {
    fn from(limits: ListenLimits) -> Self {
        // A count is 1,000,000,000 at most, so that it fits.
        let number = |count: Count| u32::try_from(count.0).unwrap_or(u32::MAX);
        Self {
            handshake_timeout: limits.handshake_timeout.0,
            handshakes: limits.handshakes.get(),
            connections: limits.connections.get(),
            connections_together: Self::default().connections_together,
            handshakes_per_source: number(limits.handshakes_per_source),
            connections_per_source: number(limits.connections_per_source),
            rate_per_source: number(limits.rate_per_source),
            burst_per_source: number(limits.burst_per_source),
            drain: limits.drain.0,
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Port 7443, this machine only: opening it to the network is a decision.
fn default_bootstrap() -> SocketAddr {
    local(7443)
}

/// Port 7444, this machine only.
fn default_vnfci() -> SocketAddr {
    local(7444)
}

/// Port 7445, this machine only.
fn default_management() -> SocketAddr {
    local(7445)
}

/// Port 7080, this machine only.
fn default_http() -> SocketAddr {
    local(7080)
}

/// Port 7090, this machine only.
fn default_admin() -> SocketAddr {
    local(7090)
}

/// What a client on this machine connects to.
fn default_server_names() -> ServerNames {
    ServerNames(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
}
