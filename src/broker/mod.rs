//! The use cases: one file each, a numbered script. Only this module (and `main.rs`) touches the store.

pub mod admin;
pub mod audit;
pub mod claim;
pub mod confirm;
pub mod pools;
pub mod release;
pub mod revocation;
pub mod vnfcis;

use crate::audit::event::Actor;
use crate::authorisation::{Caller, Denied};
use crate::nfv::{PoolName, RequestId, Sha256Hash};
use std::net::SocketAddr;
use std::time::Duration;

/// The broker: everything that a use case needs.
pub struct Broker {}

/// Why a use case failed. The API maps each variant to one status, exhaustively.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// The caller was not recognised, or its evidence was refused. The texts are for the auditor only.
    #[error("refused: {code}: {reason}")]
    Refused {
        /// Stable code, e.g. `TOKEN_PROOF_WRONG`.
        code: &'static str,
        /// Sentence for the auditor.
        reason: String,
    },
    /// The caller is known but may not do this. For the auditor only.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The request is malformed; the text says what to send instead.
    #[error("{field}: {problem}")]
    Invalid {
        /// The proto field.
        field: String,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// The named thing does not exist within the caller's reach.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The named thing exists already.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// The state of things does not allow this; the text says what to do.
    #[error("{0}")]
    Precondition(String),
    /// The request id was used before with another content.
    #[error("request id {0} was used before with another content; use a new request id")]
    RequestReused(RequestId),
    /// A pool is empty.
    #[error("pool {pool} has no credential ready; try again in {retry_after:?}")]
    PoolEmpty {
        /// The pool.
        pool: PoolName,
        /// When to try again.
        retry_after: Duration,
    },
    /// The HSM or the database is away. Nothing is lost; try again.
    #[error("not available now: {reason}")]
    Unavailable {
        /// Stable code: `HSM_UNAVAILABLE`, `STORE_UNAVAILABLE`, `STORE_FULL`.
        code: &'static str,
        /// What is away.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// A fault of ours. The caller learns only that.
    #[error("internal error: {0}")]
    Internal(String),
}

/// A mutation's envelope: whose it is and how a repetition is recognised.
#[derive(Debug, Clone)]
pub struct Request {
    /// The caller's id for it.
    pub id: RequestId,
    /// SHA-256 of the RPC's name and the request message's protobuf encoding (prost encodes deterministically).
    pub body: Sha256Hash,
}

/// What the TLS connection says of its peer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Client certificates as presented, DER, leaf first. Possession of the leaf's key was proved in the handshake.
    pub chain_der: Vec<Vec<u8>>,
    /// TLS exporter, label `EXPORTER-keybroker-v1`, empty context.
    pub exporter: [u8; 32],
    /// From where.
    pub address: SocketAddr,
}

impl Peer {
    /// How the audit log names a peer that could not be identified.
    pub fn actor(&self) -> Actor {
        match self.chain_der.first() {
            Some(leaf) => Actor(format!("unknown:{}", Sha256Hash::of(leaf))),
            None => Actor("unknown:no-certificate".to_owned()),
        }
    }
}

impl Broker {
    /// The registered identity behind a management connection: its certificate is registered and within its
    /// validity.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] if there is none.
    pub async fn identify_registered(&self, _peer: &Peer) -> Result<Caller, BrokerError> {
        todo!()
    }

    /// The VNFCI behind a connection with a certificate that we delivered: its key is delivered (or claimed, for the
    /// confirmation), the certificate neither expired nor withdrawn.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] if there is none.
    pub async fn identify_vnfci(&self, _peer: &Peer) -> Result<Caller, BrokerError> {
        todo!()
    }

    /// Records a refusal (`Refused` or `Denied`) in the audit log. Called once per refused call, by the API's one
    /// wrapper. A failure to record is logged and counted, and the refusal stands.
    pub async fn record_refusal(
        &self,
        _actor: Actor,
        _caller: Option<&Caller>,
        _peer: &Peer,
        _rpc: &str,
        _request: Option<RequestId>,
        _error: &BrokerError,
    ) {
        todo!()
    }
}
