//! Certificates are withdrawn and CRLs published.

use crate::authorisation::Caller;
use crate::broker::{Broker, BrokerError, Request};
use crate::credential::RevocationReason;
use crate::nfv::{IssuerId, TenantId};
use std::sync::Arc;

/// A trust chain.
#[derive(Debug, Clone)]
pub struct TrustChain {
    /// CA certificates below the root, DER, the issuing one first.
    pub chain_der: Vec<Vec<u8>>,
    /// The root, DER.
    pub root_der: Vec<u8>,
    /// Where the CRL is.
    pub crl_url: String,
}

/// A CRL as it is served.
#[derive(Debug, Clone)]
pub struct PublishedCrl {
    /// DER.
    pub der: Arc<Vec<u8>>,
    /// CRLNumber, for the ETag.
    pub number: u64,
    /// Seconds until nextUpdate, for Cache-Control.
    pub max_age: std::time::Duration,
}

impl Broker {
    /// Withdraws one certificate; says whether it was withdrawn now. `serial` is hexadecimal.
    pub async fn revoke_certificate(
        &self,
        _caller: &Caller,
        _request: Request,
        _tenant: Option<TenantId>,
        _issuer: IssuerId,
        _serial: String,
        _reason: RevocationReason,
    ) -> Result<bool, BrokerError> {
        todo!()
    }

    /// The trust chain that a tenant's certificates are issued under now.
    pub async fn trust_chain(&self, _tenant: &TenantId) -> Result<TrustChain, BrokerError> {
        todo!()
    }

    /// The trust chain for whoever is behind a bootstrap connection: of the tenant whose anchor its certificate chains
    /// to, else of the default tenant (the chain is public).
    pub async fn trust_chain_for_peer(&self, _peer: &crate::broker::Peer) -> Result<TrustChain, BrokerError> {
        todo!()
    }

    /// The latest CRL of an issuer.
    pub async fn crl(&self, _issuer: IssuerId) -> Result<PublishedCrl, BrokerError> {
        todo!()
    }

    /// The CA certificate of an issuer, DER.
    pub async fn issuer_certificate(&self, _issuer: IssuerId) -> Result<Vec<u8>, BrokerError> {
        todo!()
    }
}
