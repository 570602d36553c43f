//! A CA whose key is in this process: for self-made client certificates, for the demo's MANO side and for bench.
//! Nothing that the broker issues comes from here.

use super::failure::Failure;
use super::init::new_client_key;
use crate::ca::issue::root;
use crate::ca::{SigningCa, assemble};
use crate::clock::Timestamp;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use std::net::Ipv4Addr;
use std::time::Duration;
use zeroize::Zeroizing;

/// Named in its certificates; nothing is served there, as they live for a day at most and are never revoked.
pub(super) const NO_CRL: &str = "http://127.0.0.1/no-crl";

/// A CA with its P-256 key.
pub(super) struct SoftwareCa {
    key: EcdsaKeyPair,
    ca: SigningCa,
    /// Its self-signed certificate, DER.
    pub(super) certificate_der: Vec<u8>,
}

/// A client's certificate and key.
pub(super) struct SoftwareClient {
    /// DER.
    pub(super) certificate_der: Vec<u8>,
    /// SubjectPublicKeyInfo, DER.
    pub(super) public_key_der: Vec<u8>,
    /// Private key, PKCS#8, DER.
    pub(super) pkcs8_der: Zeroizing<Vec<u8>>,
}

impl SoftwareCa {
    /// A new CA.
    pub(super) fn new(name: &str, validity: Duration, now: Timestamp) -> Result<Self, Failure> {
        let own = new_client_key()?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &own.pkcs8_der)
            .map_err(|error| Failure::failed(format!("a new key is not usable: {error}")))?;
        let tbs =
            root(name, &own.public_key_der, validity, now, &mut rand::rng()).map_err(Failure::failed)?;
        let certificate_der = assemble(&tbs.der, tbs.algorithm, &sign(&key, &tbs.der)?);
        let ca = SigningCa::new(&certificate_der, NO_CRL).map_err(Failure::failed)?;
        Ok(Self { key, ca, certificate_der })
    }

    /// A new client certificate under it.
    pub(super) fn client(
        &self,
        name: &str,
        role: &str,
        validity: Duration,
        now: Timestamp,
    ) -> Result<SoftwareClient, Failure> {
        let own = new_client_key()?;
        let tbs = self
            .ca
            .client(name, role, &own.public_key_der, validity, now, &mut rand::rng())
            .map_err(Failure::failed)?;
        Ok(SoftwareClient {
            certificate_der: assemble(&tbs.der, tbs.algorithm, &self.sign(&tbs.der)?),
            public_key_der: own.public_key_der,
            pkcs8_der: own.pkcs8_der,
        })
    }

    /// A signature by the CA's key: ECDSA with SHA-256, DER.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        sign(&self.key, message)
    }

    /// A new server certificate under it, for this machine.
    pub(super) fn server(&self, validity: Duration, now: Timestamp) -> Result<SoftwareClient, Failure> {
        let own = new_client_key()?;
        let (names, addresses) = (["localhost".to_owned()], [Ipv4Addr::LOCALHOST.into()]);
        let tbs = self
            .ca
            .tls_server(&names, &addresses, &own.public_key_der, validity, now, &mut rand::rng())
            .map_err(Failure::failed)?;
        Ok(SoftwareClient {
            certificate_der: assemble(&tbs.der, tbs.algorithm, &self.sign(&tbs.der)?),
            public_key_der: own.public_key_der,
            pkcs8_der: own.pkcs8_der,
        })
    }
}

/// ECDSA with SHA-256, DER.
fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Result<Vec<u8>, Failure> {
    let signature = key
        .sign(&SystemRandom::new(), message)
        .map_err(|_| Failure::failed("no signature could be made: the system's random generator failed"))?;
    Ok(signature.as_ref().to_vec())
}
