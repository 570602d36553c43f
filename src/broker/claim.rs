//! A VNFCI claims all its slots.

use crate::broker::{Broker, BrokerError, Peer, Request};
use crate::clock::Timestamp;
use crate::nfv::{ClaimId, CredentialId, InitialCredentialId, RequestId, SlotName, TenantId, VnfciId};
use crate::sealing::{RecipientPoint, Suite};

/// The proof of a one-time token, from the request.
#[derive(Debug, Clone)]
pub struct TokenProof {
    /// The token's id.
    pub id: InitialCredentialId,
    /// HMAC-SHA-256, as `identity::token` defines it.
    pub proof: [u8; 32],
}

/// A claim as it arrived.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The request.
    pub request: Request,
    /// The VNFCI's ephemeral public key.
    pub recipient: RecipientPoint,
    /// Suites that the VNFCI understands, preferred first.
    pub suites: Vec<Suite>,
    /// With a one-time token.
    pub token: Option<TokenProof>,
}

/// One slot's credential, sealed.
#[derive(Debug, Clone)]
pub struct SealedCredential {
    /// The slot.
    pub slot: SlotName,
    /// Our id.
    pub credential: CredentialId,
    /// The certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Issuers below the root, DER, the leaf's issuer first.
    pub chain_der: Vec<Vec<u8>>,
    /// The root, DER.
    pub root_der: Vec<u8>,
    /// The HSM's point, 65 bytes.
    pub hsm_point: Vec<u8>,
    /// KWP of the DEK under the agreed key.
    pub wrapped_dek: Vec<u8>,
    /// KWP of the PKCS#8 under the DEK, without the version byte.
    pub wrapped_key: Vec<u8>,
}

/// The answer to a claim. Never stored, never logged.
#[derive(Debug, Clone)]
pub struct SealedClaim {
    /// The claim.
    pub claim: ClaimId,
    /// Whose.
    pub tenant: TenantId,
    /// For whom.
    pub vnfci: VnfciId,
    /// The suite of every envelope.
    pub suite: Suite,
    /// The request id in every envelope's context.
    pub context_request: RequestId,
    /// One per slot.
    pub credentials: Vec<SealedCredential>,
    /// By when to confirm.
    pub confirm_by: Timestamp,
}

impl Broker {
    /// See the module.
    pub async fn claim(&self, _peer: &Peer, _claim: Claim) -> Result<SealedClaim, BrokerError> {
        todo!()
    }
}
