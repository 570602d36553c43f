//! How a command reaches a broker: by four flags, or by a client profile that `init` wrote.

use super::failure::Failure;
use super::files;
use crate::api::client::{ClientTls, Connection, connect};
use crate::nfv::{RequestId, TenantId};
use clap::builder::{OsStringValueParser, TypedValueParser};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `--server --cert --key --trust-anchor`, or `--profile`.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectionArgs {
    /// Client profile (TOML with server, cert, key, trust_anchor), as `init` writes beside each role's certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "KEYBROKER_PROFILE",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    profile: Option<PathBuf>,
    /// The broker's management listener, e.g. https://127.0.0.1:7445
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Client certificate with its chain, PEM
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key, PEM, readable by its owner only
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The root that the broker's certificate must lead to, PEM
    #[arg(long, value_name = "FILE")]
    trust_anchor: Option<PathBuf>,
}

/// A client profile. Relative paths are relative to its file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientProfile {
    /// URL of the management listener.
    pub server: String,
    /// Client certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The root, PEM.
    pub trust_anchor: PathBuf,
}

impl ClientProfile {
    /// Reads a profile and makes its paths relative to the process's directory.
    ///
    /// # Errors
    /// [`Failure`] (wrong usage).
    pub fn load(file: &Path) -> Result<Self, Failure> {
        let text = String::from_utf8_lossy(&files::read(file)?).into_owned();
        let mut profile: Self = toml::from_str(&text)
            .map_err(|error| Failure::usage(format!("{}: {}", file.display(), error.message())))?;
        let directory = file.parent().unwrap_or(Path::new(""));
        for path in [&mut profile.cert, &mut profile.key, &mut profile.trust_anchor] {
            *path = directory.join(&*path);
        }
        Ok(profile)
    }

    /// The profile's text.
    pub fn to_toml(&self) -> String {
        // Text, and paths that came from text: always writable.
        toml::to_string(self).unwrap_or_default()
    }
}

impl ConnectionArgs {
    /// From a profile's file.
    pub(super) fn of_profile(file: PathBuf) -> Self {
        Self { profile: Some(file), server: None, cert: None, key: None, trust_anchor: None }
    }

    /// What to connect to and with: the profile, and over it the flags.
    ///
    /// # Errors
    /// [`Failure`] (wrong usage) naming what is missing.
    pub(super) fn resolve(&self) -> Result<ClientProfile, Failure> {
        // A variable that is set to nothing counts as unset.
        let file = self.profile.as_deref().filter(|file| !file.as_os_str().is_empty());
        let profile = file.map(ClientProfile::load).transpose()?;
        let missing = |flag: &str| {
            Failure::usage(format!(
                "--{flag} is missing: give --server, --cert, --key and --trust-anchor, or --profile FILE \
                 (`keybroker init` writes one beside each role's certificate)"
            ))
        };
        let profile = profile.as_ref();
        Ok(ClientProfile {
            server: or(&self.server, profile.map(|p| &p.server)).ok_or_else(|| missing("server"))?,
            cert: or(&self.cert, profile.map(|p| &p.cert)).ok_or_else(|| missing("cert"))?,
            key: or(&self.key, profile.map(|p| &p.key)).ok_or_else(|| missing("key"))?,
            trust_anchor: or(&self.trust_anchor, profile.map(|p| &p.trust_anchor))
                .ok_or_else(|| missing("trust-anchor"))?,
        })
    }

    /// Connects.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let profile = self.resolve()?;
        let tls = ClientTls {
            trust_anchor_pem: files::read(&profile.trust_anchor)?,
            certificate_chain_der: files::read_certificates(&profile.cert)?,
            key_der: files::read_private_key(&profile.key)?,
        };
        Ok(connect(&profile.server, &tls).await?)
    }
}

/// `--tenant`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct TenantArgs {
    /// The tenant [default: the caller's own]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
}

impl TenantArgs {
    /// As the protos have it: empty for the caller's own.
    pub(super) fn to_proto(&self) -> String {
        self.tenant.as_ref().map(TenantId::to_string).unwrap_or_default()
    }
}

/// A new request id, as the protos have it.
pub(super) fn request_id() -> String {
    RequestId::generate().to_string()
}

/// A time of the protos as RFC 3339, or nothing.
pub(super) fn time_text(time: Option<prost_types::Timestamp>) -> Option<String> {
    time.map(|time| {
        let seconds = crate::clock::Timestamp::from_unix_seconds(time.seconds);
        seconds.plus(std::time::Duration::from_nanos(u64::try_from(time.nanos).unwrap_or(0))).to_string()
    })
}

fn or<T: Clone>(first: &Option<T>, second: Option<&T>) -> Option<T> {
    first.as_ref().or(second).cloned()
}
