//! Certification requests of CAs (PKCS #10, RFC 2986): made for a key in the HSM, and read where a root signs them.

use super::encode::{INTEGER, SEQUENCE, context_constructed, tlv};
use super::issue::{IssueError, algorithm_of, assemble};
use super::names::plain_name;
use crate::hsm::SignatureAlgorithm;
use crate::nfv::TenantId;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use der::{Decode, Encode};
use x509_cert::request::CertReq;

/// Longer requests are refused before they are read.
const REQUEST_MAX: usize = 64 * 1024;

/// A request to be signed by the key that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TbsRequest {
    /// CertificationRequestInfo, DER: exactly the bytes to be signed.
    pub der: Vec<u8>,
    /// How the key must sign.
    pub algorithm: SignatureAlgorithm,
}

impl TbsRequest {
    /// For a sub-CA of a tenant; its subject tells tenant, name and generation.
    ///
    /// # Errors
    /// [`IssueError::UnfitIssuer`] for a key that cannot sign certificates here.
    pub fn sub_ca(
        tenant: &TenantId,
        name: &str,
        generation: u32,
        spki_der: &[u8],
    ) -> Result<Self, IssueError> {
        let algorithm = algorithm_of(spki_der)?;
        let subject = sub_ca_name(tenant, name, generation)?;
        let attributes = tlv(context_constructed(0), &[]);
        let der = tlv(SEQUENCE, &[&[INTEGER, 1, 0], &subject, spki_der, &attributes]);
        Ok(Self { der, algorithm })
    }

    /// The CertificationRequest, DER, with the key's own signature.
    pub fn assemble(&self, signature: &[u8]) -> Vec<u8> {
        assemble(&self.der, self.algorithm, signature)
    }
}

/// `CN=sub-CA GENERATION,OU=TENANT,O=keybroker`; the name of a CA other than the tenant's first is in its CN.
pub(super) fn sub_ca_name(tenant: &TenantId, name: &str, generation: u32) -> Result<Vec<u8>, IssueError> {
    let common_name = match name {
        "main" => format!("sub-CA {generation}"),
        name => format!("sub-CA {name} {generation}"),
    };
    Ok(plain_name(Some(tenant.as_str()), &common_name)?)
}

/// A request that was read, and whose signature was verified: the sender has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaRequest {
    /// Subject, DER of the Name.
    pub(super) subject_der: Vec<u8>,
    /// Subject as RFC 4514 text.
    pub subject: String,
    /// SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
}

/// Why a request was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// No CertificationRequest.
    #[error("not a certification request (PKCS #10): {0}")]
    Malformed(String),
    /// Its key is none that a CA of ours has, or it did not sign the request.
    #[error("the request's own signature is not good: {0}")]
    NotPossessed(String),
    /// A CA must have a name.
    #[error("the request names no subject")]
    NoSubject,
}

impl CaRequest {
    /// Reads a CertificationRequest, DER, and verifies its signature.
    ///
    /// # Errors
    /// [`InvalidRequest`].
    pub fn parse(der: &[u8]) -> Result<Self, InvalidRequest> {
        if der.len() > REQUEST_MAX {
            return Err(InvalidRequest::Malformed(format!("longer than {REQUEST_MAX} bytes")));
        }
        let malformed = |error: der::Error| InvalidRequest::Malformed(error.to_string());
        let request = CertReq::from_der(der).map_err(malformed)?;
        let public_key_der = request.info.public_key.to_der().map_err(malformed)?;
        let not_possessed = |problem: &str| InvalidRequest::NotPossessed(problem.to_owned());
        let algorithm = algorithm_of(&public_key_der).map_err(|error| not_possessed(&error.to_string()))?;
        let (verification, id): (&dyn VerificationAlgorithm, _) = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => {
                (&ECDSA_P256_SHA256_ASN1, const_oid::db::rfc5912::ECDSA_WITH_SHA_256)
            }
            SignatureAlgorithm::Ed25519 => (&ED25519, const_oid::db::rfc8410::ID_ED_25519),
        };
        if request.algorithm.oid != id {
            return Err(not_possessed("its algorithm is not that of its key"));
        }
        let key =
            UnparsedPublicKey::new(verification, request.info.public_key.subject_public_key.raw_bytes());
        key.verify(&request.info.to_der().map_err(malformed)?, request.signature.raw_bytes())
            .map_err(|_| not_possessed("it was not made by the key that the request is for"))?;
        if request.info.subject.is_empty() {
            return Err(InvalidRequest::NoSubject);
        }
        Ok(Self {
            subject: request.info.subject.to_string(),
            subject_der: request.info.subject.to_der().map_err(malformed)?,
            public_key_der,
        })
    }
}
