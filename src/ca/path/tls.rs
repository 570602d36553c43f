//! TLS: the same judgement for a client of ours about the server that it talks to; and of both sides, that a peer has the key of
//! the certificate that it shows.

use super::certificate::public_key_of;
use super::{Certificate, MAX_CHAIN, PathError, Purpose, Rules, ServerName, Work, validate};
use crate::clock::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName as TlsName, SubjectPublicKeyInfoDer, UnixTime};
use std::sync::Arc;

/// Verifies what a peer signs in a handshake by the key of its certificate, of which nothing else is looked at: whatever is wrong
/// with the rest is the judgement's business, with a reason that can be told.
#[derive(Debug, Clone)]
pub struct HandshakeSignatures(WebPkiSupportedAlgorithms);

impl Default for HandshakeSignatures {
    /// The algorithms of the TLS provider.
    fn default() -> Self {
        Self(aws_lc_rs::default_provider().signature_verification_algorithms)
    }
}

impl HandshakeSignatures {
    /// The key of a certificate.
    ///
    /// # Errors
    /// Bytes that are no certificate.
    pub fn key(&self, certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
        let key = public_key_of(certificate).ok_or(CertificateError::BadEncoding)?;
        Ok(SubjectPublicKeyInfoDer::from(key))
    }

    /// A signature of TLS 1.3.
    ///
    /// # Errors
    /// It is not by the certificate's key, or by an algorithm that was not offered.
    pub fn verify_tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &self.key(certificate)?, signed, &self.0)
    }

    /// A signature of TLS 1.2, whose algorithms do not say the curve.
    ///
    /// # Errors
    /// As [`HandshakeSignatures::verify_tls13`].
    pub fn verify_tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let offered = self.0.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, algorithms) = offered.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let key = self.key(certificate)?;
        let key = webpki::RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
        let mut verifies = algorithms
            .iter()
            .map(|algorithm| key.verify_signature(*algorithm, message, signed.signature()).is_ok());
        if verifies.any(|verifies| verifies) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    /// What is offered to peers.
    pub fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Accepts servers whose certificates lead to one of a few anchors.
#[derive(Debug)]
pub struct ServersUnder {
    anchors: Vec<Certificate>,
    signatures: HandshakeSignatures,
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
        Ok(Self { anchors, signatures: HandshakeSignatures::default() })
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
