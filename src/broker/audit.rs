//! The audit log is read, sequenced and signed.

use crate::authorisation::Caller;
use crate::broker::{Broker, BrokerError};
use crate::nfv::{CredentialId, TenantId};
use crate::store::records::{AuditEntry, AuditQuery};

/// The latest signed head.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// JSON.
    pub signed_head: String,
    /// The audit key, PEM.
    pub public_key_pem: String,
}

impl Broker {
    /// Chained events that match, cut down to the caller's reach.
    pub async fn events(&self, _caller: &Caller, _query: AuditQuery) -> Result<Vec<AuditEntry>, BrokerError> {
        todo!()
    }

    /// As [`Broker::events`], for a stream: waits (bounded, a few seconds) until there is at least one that matches
    /// from `query.from_index` on; an empty answer means "ask again".
    pub async fn events_after(
        &self,
        _caller: &Caller,
        _query: AuditQuery,
    ) -> Result<Vec<AuditEntry>, BrokerError> {
        todo!()
    }

    /// How many events the chain has: where a tail begins that was given no index.
    pub async fn audit_size(&self) -> Result<u64, BrokerError> {
        todo!()
    }

    /// The latest signed head.
    pub async fn checkpoint(&self, _caller: &Caller) -> Result<Checkpoint, BrokerError> {
        todo!()
    }

    /// The signed destruction receipt of one key, JSON.
    pub async fn destruction_receipt(
        &self,
        _caller: &Caller,
        _tenant: Option<TenantId>,
        _credential: CredentialId,
    ) -> Result<String, BrokerError> {
        todo!()
    }
}
