//! Certification requests of CAs (PKCS #10, RFC 2986): made for a key in the HSM, and read where a root signs them.

use super::csr::{CertificationRequest, InvalidRequest};
use super::encode::{INTEGER, SEQUENCE, context_constructed, tlv};
use super::issue::{IssueError, algorithm_of, assemble};
use super::names::plain_name;
use crate::hsm::SignatureAlgorithm;
use crate::nfv::TenantId;

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

/// A request for a CA that was read, and whose signature was verified: the sender has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaRequest {
    /// Subject, DER of the Name.
    pub(super) subject_der: Vec<u8>,
    /// Subject as RFC 4514 text.
    pub subject: String,
    /// SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
}

impl CaRequest {
    /// Reads a CertificationRequest, DER, and verifies its signature.
    ///
    /// # Errors
    /// [`InvalidRequest`], also for a key that no CA of ours has, and without a subject: a CA must have a name.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidRequest> {
        let request = CertificationRequest::parse(der)?;
        let unfit = |problem: String| InvalidRequest(format!("the certification request {problem}"));
        algorithm_of(request.public_key_der())
            .map_err(|error| unfit(format!("is for no CA of ours: {error}")))?;
        let subject = request.subject();
        if subject.is_empty() {
            return Err(unfit("names no subject, which a CA must have".to_owned()));
        }
        let subject_der = request.subject_der().map_err(|error| unfit(error.to_string()))?;
        Ok(Self { subject_der, subject, public_key_der: request.public_key_der().to_vec() })
    }
}
