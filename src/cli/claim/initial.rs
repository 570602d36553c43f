//! The VNFCI's side of its initial credential: an X.509 certificate, or a one-time token with a self-made client key.

use super::super::failure::Failure;
use super::super::files;
use super::super::software_ca::SoftwareCa;
use crate::api::client::{ClientTls, Connection};
use crate::api::proto::TokenProof;
use crate::ca::CertificateFacts;
use crate::clock::{Clock, SystemClock};
use crate::identity::token::{ProofFields, Token};
use crate::nfv::{RequestId, Sha256Hash};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// A self-made certificate only carries the client's key through TLS; one hour is more than any claim takes.
const SELF_MADE_VALIDITY: Duration = Duration::from_secs(3_600);

/// `--initial-cert` with `--initial-key`, or `--token-file`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Initial credential")]
pub(super) struct InitialArgs {
    /// X.509 initial credential: certificate with its chain, PEM
    #[arg(long, value_name = "FILE", requires = "initial_key", required_unless_present = "token_file")]
    initial_cert: Option<PathBuf>,
    /// Its private key, PEM, readable by its owner only
    #[arg(long, value_name = "FILE", requires = "initial_cert")]
    initial_key: Option<PathBuf>,
    /// One-time token, readable by its owner only
    #[arg(long, value_name = "FILE", conflicts_with_all = ["initial_cert", "initial_key"])]
    token_file: Option<PathBuf>,
}

/// An initial credential, ready to connect with.
pub(super) struct Initial {
    pub(super) tls: ClientTls,
    token: Option<Token>,
    /// SHA-256 of the client certificate's SubjectPublicKeyInfo.
    client_key: Sha256Hash,
}

impl InitialArgs {
    /// Reads the files.
    pub(super) fn load(&self, trust_anchor: &Path) -> Result<Initial, Failure> {
        let trust_anchor_pem = files::read(trust_anchor)?;
        match (&self.initial_cert, &self.initial_key, &self.token_file) {
            (Some(cert), Some(key), None) => {
                let certificate_chain_der = files::read_certificates(cert)?;
                let leaf = certificate_chain_der.first().map(Vec::as_slice).unwrap_or_default();
                let client_key = CertificateFacts::parse(leaf)
                    .map_err(|error| Failure::usage(format!("{}: {error}", cert.display())))?
                    .public_key;
                let key_der = files::read_private_key(key)?;
                let tls = ClientTls { trust_anchor_pem, certificate_chain_der, key_der };
                Ok(Initial { tls, token: None, client_key })
            }
            (None, None, Some(file)) => {
                let text = Zeroizing::new(
                    String::from_utf8(files::read_secret(file)?.to_vec())
                        .map_err(|_| Failure::usage(format!("{} is no token", file.display())))?,
                );
                let token: Token =
                    text.parse().map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
                let now = SystemClock.now();
                let own = SoftwareCa::new("self-made", SELF_MADE_VALIDITY, now)?.client(
                    "vnfci",
                    "self-made",
                    SELF_MADE_VALIDITY,
                    now,
                )?;
                let tls = ClientTls {
                    trust_anchor_pem,
                    certificate_chain_der: vec![own.certificate_der],
                    key_der: own.pkcs8_der,
                };
                Ok(Initial { tls, token: Some(token), client_key: Sha256Hash::of(&own.public_key_der) })
            }
            _ => Err(Failure::usage("give --initial-cert with --initial-key, or --token-file")),
        }
    }
}

impl Initial {
    /// The proof for one request on one connection; none with an X.509 initial credential.
    pub(super) fn proof(
        &self,
        connection: &Connection,
        request: RequestId,
        recipient_key: Sha256Hash,
    ) -> Option<TokenProof> {
        let token = self.token.as_ref()?;
        let fields = ProofFields {
            exporter: connection.exporter,
            client_key: self.client_key,
            request,
            recipient_key,
        };
        Some(TokenProof { token_id: token.id().to_string(), proof: token.prove(&fields).to_vec() })
    }
}
