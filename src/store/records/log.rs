//! What the store keeps and gives out of the audit log.

use crate::audit::event::{Event, EventKind};
use crate::clock::Timestamp;
use crate::nfv::{Sha256Hash, TenantId, VnfciId};

/// Size and hash of the audit chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainTip {
    /// Events in the chain.
    pub size: u64,
    /// Hash of the last one; none when empty.
    pub hash: Option<Sha256Hash>,
}

/// A committed event that is not in the chain yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnchainedEvent {
    /// The event.
    pub event: Event,
    /// `event` as JSON, the exact text that is stored and hashed.
    pub json: String,
}

/// A chained event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// From 0.
    pub index: u64,
    /// Chain hash up to and including this entry.
    pub hash: Sha256Hash,
    /// The event as JSON, the exact text that was hashed.
    pub json: String,
}

/// Which chained events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditQuery {
    /// From this index on.
    pub from_index: u64,
    /// At most this many.
    pub limit: u32,
    /// Only of this tenant.
    pub tenant: Option<TenantId>,
    /// Only about this VNFCI.
    pub vnfci: Option<VnfciId>,
    /// Only naming this key (SHA-256 of its SubjectPublicKeyInfo).
    pub public_key: Option<Sha256Hash>,
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only of this kind.
    pub kind: Option<EventKind>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}
