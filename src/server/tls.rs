//! TLS of the gRPC listeners: version 1.3 only, no tickets, no resumption, client certificates demanded. The EST listener
//! takes version 1.2, too, and clients without a certificate.
//!
//! A client certificate is not judged here beyond possession of its key: anchors, registration and expiry are judged
//! in the handler, so that every refusal is the same generic answer and its reason goes to the auditor.

use crate::ca::path::HandshakeSignatures;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm,
    SignatureScheme, SupportedProtocolVersion,
};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Signs a message with an ECDSA P-256 key over its SHA-256, giving DER; or says why it could not. It may block.
pub type SignInHsm = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

/// The most certificates that a client may present.
const CLIENT_CHAIN_MAX: usize = 8;

/// Why a certificate and key cannot serve a listener. Says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// What a listener proves itself with.
#[derive(Clone)]
pub struct TlsMaterial(Arc<CertifiedKey>);

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsMaterial({} certificates)", self.0.cert.len())
    }
}

impl TlsMaterial {
    /// From PEM files: the chain leaf first (the root may be left out), and its key as PKCS#8.
    ///
    /// # Errors
    /// [`TlsError`] if a file cannot be read, holds no certificate or no key, or the two do not belong together.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|e| TlsError(format!("cannot read {}: {e}", path.display())))
        };
        let key_pem = zeroize::Zeroizing::new(read(key)?);
        Self::from_pem(&read(chain)?, &key_pem).map_err(|TlsError(problem)| {
            TlsError(format!("{problem} (certificate {}, key {})", chain.display(), key.display()))
        })
    }

    /// As [`TlsMaterial::from_files`], from their contents.
    ///
    /// # Errors
    /// [`TlsError`] as there.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| TlsError(format!("the certificate file is not PEM: {e}")))?;
        if chain.is_empty() {
            return Err(TlsError("the certificate file holds no CERTIFICATE block".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|e| TlsError(format!("the key file holds no private key in PEM (PKCS#8): {e}")))?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|e| TlsError(format!("certificate and key do not belong together: {e}")))?;
        Ok(Self(Arc::new(certified)))
    }

    /// A certificate (DER, leaf first) whose ECDSA P-256 key is in the HSM. Signs once to see that they belong
    /// together.
    ///
    /// # Errors
    /// [`TlsError`] if there is no certificate, the HSM does not sign, or it signs with another key.
    pub fn from_hsm(chain_der: Vec<Vec<u8>>, sign: SignInHsm) -> Result<Self, TlsError> {
        let chain: Vec<_> = chain_der.into_iter().map(CertificateDer::from).collect();
        let Some(leaf) = chain.first() else {
            return Err(TlsError("the TLS key in the HSM has no certificate".into()));
        };
        let leaf = webpki::EndEntityCert::try_from(leaf)
            .map_err(|e| TlsError(format!("the TLS certificate cannot be read: {e}")))?;
        let probe = b"keybroker-tls-probe";
        let signature = blocking(|| sign(probe))
            .map_err(|e| TlsError(format!("the HSM does not sign with the TLS key: {e}")))?;
        leaf.verify_signature(webpki::aws_lc_rs::ECDSA_P256_SHA256, probe, &signature)
            .map_err(|_| TlsError("the TLS certificate is not for the TLS key in the HSM".into()))?;
        let key = Arc::new(HsmKey(sign));
        Ok(Self(Arc::new(CertifiedKey::new(chain, key))))
    }
}

/// The configuration of a listener that proves itself with `material`.
///
/// # Errors
/// [`TlsError`] if the provider lacks TLS 1.3: never with ours.
pub(super) fn server_config(material: &TlsMaterial) -> Result<Arc<ServerConfig>, TlsError> {
    config(material, &[&rustls::version::TLS13], true, b"h2")
}

/// The configuration of the EST listener. RFC 7030 3.3 lets clients come with TLS 1.2 (strongSwan does by default), and
/// demands a certificate only of those who want one.
///
/// # Errors
/// As [`server_config`].
pub(super) fn est_config(material: &TlsMaterial) -> Result<Arc<ServerConfig>, TlsError> {
    config(material, &[&rustls::version::TLS13, &rustls::version::TLS12], false, b"http/1.1")
}

fn config(
    material: &TlsMaterial,
    versions: &[&'static SupportedProtocolVersion],
    mandatory: bool,
    protocol: &[u8],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let verifier = Arc::new(PossessionOnly { signatures: HandshakeSignatures::default(), mandatory });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| TlsError(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&material.0))));
    config.alpn_protocols = vec![protocol.to_vec()];
    // A resumed session would outlive a change of certificates, and its exporter would not be bound to a proof of
    // possession made now.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The configuration of an EST client that proves itself with `material` to the servers that `servers` accepts. It speaks
/// HTTP/1.1, and TLS 1.2 as well (with ECDHE and AEAD, as RFC 9325 4.2 has it): many enrolment servers know nothing newer.
///
/// # Errors
/// [`TlsError`] if the provider lacks TLS 1.3: never with ours.
pub fn est_client_config(
    material: &TlsMaterial,
    servers: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| TlsError(e.to_string()))?
        // The verifier is the one of `ca::path`: rustls calls every verifier of a caller's dangerous.
        .dangerous()
        .with_custom_certificate_verifier(servers)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&material.0))));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Runs what may block where it harms no other task: an HSM takes milliseconds. A current-thread runtime has no other
/// thread to move to, and outside a runtime there is nothing to harm.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// An ECDSA P-256 key that lives in the HSM.
#[derive(Clone)]
struct HsmKey(SignInHsm);

impl fmt::Debug for HsmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HsmKey")
    }
}

impl SigningKey for HsmKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for HsmKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        blocking(|| (self.0)(message)).map_err(|reason| {
            tracing::warn!(reason, "the HSM did not sign a TLS handshake");
            metrics::counter!("keybroker_tls_hsm_sign_failures_total").increment(1);
            Error::General("signing is not available now".into())
        })
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// Of a client certificate only the proof that the client has its key.
#[derive(Debug)]
struct PossessionOnly {
    signatures: HandshakeSignatures,
    /// Whether a client without a certificate is turned away.
    mandatory: bool,
}

impl ClientCertVerifier for PossessionOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: whom a tenant trusts is nobody else's business.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() >= CLIENT_CHAIN_MAX {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        self.signatures.key(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}

/// The provider of both sides of our connections.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
