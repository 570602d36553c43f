//! Certificates of the broker's own listeners, kept in `tls/` beside the configuration and renewed in time.
//!
//! The bootstrap listener's key is in the HSM. The other listeners share a key in software, so that MANO can report a
//! termination while the HSM is away.

use super::assembly::server_names;
use super::failure::Failure;
use super::files::{self, Readers};
use super::init::client_key;
use crate::broker::Broker;
use crate::ca::{CertificateFacts, certificates_from_pem, pem};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::hsm::{ObjectId, SignatureAlgorithm};
use crate::server::TlsMaterial;
use std::path::Path;
use std::sync::Arc;

/// What the listeners prove themselves with.
#[derive(Clone)]
pub(super) struct ListenerTls {
    pub(super) bootstrap: TlsMaterial,
    pub(super) software: TlsMaterial,
}

/// Reads both certificates; makes anew what is missing, ends soon, names other servers than the configuration, or was issued
/// by a former CA.
///
/// # Errors
/// [`Failure`]: a file that cannot be written, or the HSM's.
pub(super) async fn listener_tls(broker: &Arc<Broker>, config: &Config) -> Result<ListenerTls, Failure> {
    let directory = config.directory.join("tls");
    files::private_directory(&directory)?;
    let key = broker.bootstrap_key_der().await?;
    let chain = certificate(broker, config, &directory.join("bootstrap.pem"), &key).await?;
    let signer = Arc::clone(broker);
    let sign = move |message: &[u8]| {
        let algorithm = SignatureAlgorithm::EcdsaP256Sha256;
        signer.hsm().sign_blocking(&ObjectId::Tls(1), algorithm, message).map_err(|error| error.to_string())
    };
    let bootstrap = TlsMaterial::from_hsm(chain, Arc::new(sign)).map_err(Failure::failed)?;
    let key_file = directory.join("server-key.pem");
    let key = client_key(&key_file)?;
    let chain_file = directory.join("server.pem");
    certificate(broker, config, &chain_file, &key).await?;
    let software = TlsMaterial::from_files(&chain_file, &key_file).map_err(Failure::failed)?;
    Ok(ListenerTls { bootstrap, software })
}

/// The chain in `file`, if it is good for this key and these names for a while; otherwise a new one, written there.
async fn certificate(
    broker: &Broker,
    config: &Config,
    file: &Path,
    spki_der: &[u8],
) -> Result<Vec<Vec<u8>>, Failure> {
    if let Some(chain) = usable(config, file, spki_der)
        && broker.server_chain_is_current(&chain).await?
    {
        return Ok(chain);
    }
    let (dns_names, addresses) = server_names(config);
    let chain = broker.issue_server_certificate(&dns_names, &addresses, spki_der).await?;
    let text: String = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    files::replace(file, text.as_bytes(), Readers::Everyone)?;
    tracing::info!(file = %file.display(), "listener certificate issued");
    Ok(chain)
}

/// A chain that can be served: of this key, for the configured DNS names, with more than a third of its validity left.
fn usable(config: &Config, file: &Path, spki_der: &[u8]) -> Option<Vec<Vec<u8>>> {
    let chain = certificates_from_pem(&std::fs::read(file).ok()?).ok()?;
    let facts = CertificateFacts::parse(chain.first()?).ok()?;
    let (dns_names, _) = server_names(config);
    let left = facts.not_after.since(SystemClock.now());
    let good = facts.public_key_der == spki_der
        && facts.dns_names == dns_names
        && left > facts.not_after.since(facts.not_before) / 3;
    good.then_some(chain)
}
