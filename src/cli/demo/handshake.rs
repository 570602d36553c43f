//! Mutual TLS between two VNFCIs, in this process. Their certificates name no host, as an NFV identity does not
//! depend on one: each side verifies the other's path to the root.

use super::super::failure::Failure;
use crate::api::client::ClientTls;
use crate::ca::certificates_from_pem;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, TrustAnchor, UnixTime,
};
use std::fmt::Display;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Opens TLS 1.3 from one to the other, sends a message and its echo; names version and cipher suite.
pub(super) async fn mutual_tls(client: &ClientTls, server: &ClientTls) -> Result<String, Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let connector = TlsConnector::from(Arc::new(client_config(client, &provider)?));
    let acceptor = TlsAcceptor::from(Arc::new(server_config(server, &provider)?));
    let (near, far) = tokio::io::duplex(16 * 1024);
    let serving = async {
        let mut stream = acceptor.accept(far).await?;
        let mut message = [0; 5];
        stream.read_exact(&mut message).await?;
        stream.write_all(&message).await?;
        stream.flush().await
    };
    let connecting = async {
        let name = ServerName::try_from("vnfci.invalid").map_err(std::io::Error::other)?;
        let mut stream = connector.connect(name, near).await?;
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).await?;
        let (_, connection) = stream.get_ref();
        let suite = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        Ok::<_, std::io::Error>((echo, suite.unwrap_or_default()))
    };
    let ((), (echo, suite)) = tokio::try_join!(serving, connecting).map_err(failed)?;
    super::story::ensure(&echo == b"hello", || "the echo was another message".to_owned())?;
    Ok(suite)
}

fn client_config(tls: &ClientTls, provider: &Arc<CryptoProvider>) -> Result<ClientConfig, Failure> {
    let verifier =
        PathVerifier { anchors: anchors(tls)?.roots, algorithms: provider.signature_verification_algorithms };
    ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain(tls), key(tls))
        .map_err(failed)
}

fn server_config(tls: &ClientTls, provider: &Arc<CryptoProvider>) -> Result<ServerConfig, Failure> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors(tls)?), provider.clone())
        .build()
        .map_err(failed)?;
    ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(tls), key(tls))
        .map_err(failed)
}

fn anchors(tls: &ClientTls) -> Result<RootCertStore, Failure> {
    let mut store = RootCertStore::empty();
    for der in certificates_from_pem(&tls.trust_anchor_pem).map_err(Failure::failed)? {
        let der = CertificateDer::from(der);
        store.roots.push(anchor_from_trusted_cert(&der).map_err(failed)?.to_owned());
    }
    Ok(store)
}

fn chain(tls: &ClientTls) -> Vec<CertificateDer<'static>> {
    tls.certificate_chain_der.iter().cloned().map(CertificateDer::from).collect()
}

fn key(tls: &ClientTls) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(tls.key_der.to_vec()))
}

fn failed(error: impl Display) -> Failure {
    Failure::failed(format!("the handshake failed: {error}"))
}

/// Verifies the path to the root and the usage, not a host's name.
#[derive(Debug)]
struct PathVerifier {
    anchors: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PathVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let invalid = |error: webpki::Error| rustls::Error::General(error.to_string());
        EndEntityCert::try_from(end_entity)
            .map_err(invalid)?
            .verify_for_usage(
                self.algorithms.all,
                &self.anchors,
                intermediates,
                now,
                KeyUsage::server_auth(),
                None,
                None,
            )
            .map_err(invalid)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::software_ca::SoftwareCa;
    use super::*;
    use crate::ca::pem;
    use crate::clock::{Clock, SystemClock};
    use std::time::Duration;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn client_of(ca: &SoftwareCa, trusted: &SoftwareCa) -> ClientTls {
        let client = ca.client("a", "vnfci", HOUR, SystemClock.now()).unwrap();
        ClientTls {
            trust_anchor_pem: pem("CERTIFICATE", &trusted.certificate_der).into_bytes(),
            certificate_chain_der: vec![client.certificate_der],
            key_der: client.pkcs8_der,
        }
    }

    #[tokio::test]
    async fn a_certificate_that_is_no_servers_or_of_another_root_is_not_accepted() {
        let (ours, theirs) =
            ["ours", "theirs"].map(|name| SoftwareCa::new(name, HOUR, SystemClock.now()).unwrap()).into();
        let for_clients_only = client_of(&ours, &ours);
        let failure = mutual_tls(&client_of(&ours, &ours), &for_clients_only).await.unwrap_err();
        assert!(failure.text.contains("RequiredEku"), "{failure}");
        assert!(mutual_tls(&client_of(&ours, &theirs), &client_of(&ours, &ours)).await.is_err());
    }
}
