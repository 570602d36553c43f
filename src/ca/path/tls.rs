//! The same judgement for a TLS client of ours, about the server that it talks to.

use super::{Certificate, MAX_CHAIN, PathError, Purpose, Rules, ServerName, Work, validate};
use crate::clock::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName as TlsName, UnixTime};
use std::sync::Arc;

/// Accepts servers whose certificates lead to one of a few anchors.
#[derive(Debug)]
pub struct ServersUnder {
    anchors: Vec<Certificate>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServersUnder {
    /// Anchors are certificates, DER.
    ///
    /// # Errors
    /// [`PathError::Malformed`] for one that cannot be read, [`PathError::Empty`] if there is none.
    pub fn new(anchors: &[impl AsRef<[u8]>]) -> Result<Self, PathError> {
        let anchors =
            anchors.iter().map(|der| Certificate::from_der(der.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if anchors.is_empty() {
            return Err(PathError::Empty);
        }
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Ok(Self { anchors, algorithms })
    }

    fn judge(
        &self,
        leaf: &[u8],
        intermediates: &[CertificateDer<'_>],
        server: ServerName,
        now: Timestamp,
    ) -> Result<(), PathError> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(PathError::Malformed(format!("more than {MAX_CHAIN} certificates")));
        }
        let leaf = Certificate::from_der(leaf)?;
        let intermediates: Vec<_> =
            intermediates.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
        let (rules, work) = (Rules::new(Purpose::TlsServer(server), now), Work::default());
        let mut nearest = PathError::Empty;
        for anchor in &self.anchors {
            match validate(&leaf, &intermediates, anchor, &[], &rules, &work) {
                Ok(_) => return Ok(()),
                Err(error) if error.nearness() > nearest.nearness() => nearest = error,
                Err(_) => {}
            }
        }
        Err(nearest)
    }
}

impl ServerCertVerifier for ServersUnder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &TlsName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let server = match server_name {
            TlsName::DnsName(name) => ServerName::Dns(name.as_ref().to_owned()),
            TlsName::IpAddress(address) => ServerName::Ip((*address).into()),
            _ => return Err(CertificateError::NotValidForName.into()),
        };
        let now = Timestamp::from_unix_seconds(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        self.judge(end_entity, intermediates, server, now)
            .map(|()| ServerCertVerified::assertion())
            .map_err(|error| Error::InvalidCertificate(as_tls(error)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// For the TLS alert, and for the user's message.
fn as_tls(error: PathError) -> CertificateError {
    match error {
        PathError::UnknownIssuer(_) | PathError::Signature(_) => CertificateError::UnknownIssuer,
        PathError::Expired(_) => CertificateError::Expired,
        PathError::NotYetValid(_) => CertificateError::NotValidYet,
        PathError::WrongServer(_) => CertificateError::NotValidForName,
        PathError::WrongUsage(_) => CertificateError::InvalidPurpose,
        PathError::Revoked(_) => CertificateError::Revoked,
        PathError::Malformed(_) => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}
