//! The audit log is read.

use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::{Broker, BrokerError};
use crate::ca;
use crate::nfv::{CredentialId, TenantId};
use crate::store::records::{AuditEntry, AuditQuery};
use std::time::Duration;

/// How long a tail waits before it answers that there is nothing new.
const TAIL_WAIT: Duration = Duration::from_secs(5);

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
    ///
    /// # Errors
    /// [`BrokerError::Denied`].
    pub async fn events(&self, caller: &Caller, query: AuditQuery) -> Result<Vec<AuditEntry>, BrokerError> {
        let query = Self::reach_events(caller, Rpc::ListEvents, query)?;
        Ok(self.store.audit_entries(&query).await?)
    }

    /// As [`Broker::events`], for a stream: waits (bounded, a few seconds) until there is at least one that matches
    /// from `query.from_index` on; an empty answer means "ask again".
    ///
    /// # Errors
    /// [`BrokerError::Denied`].
    pub async fn events_after(
        &self,
        caller: &Caller,
        query: AuditQuery,
    ) -> Result<Vec<AuditEntry>, BrokerError> {
        let query = Self::reach_events(caller, Rpc::TailEvents, query)?;
        let mut chained = self.chained.subscribe();
        let deadline = tokio::time::Instant::now() + TAIL_WAIT;
        loop {
            chained.borrow_and_update();
            let entries = self.store.audit_entries(&query).await?;
            let waited = tokio::time::timeout_at(deadline, chained.changed());
            if !entries.is_empty() || waited.await.is_err() {
                return Ok(entries);
            }
        }
    }

    /// An auditor of the whole broker sees every tenant's events; one of a tenant sees that tenant's.
    fn reach_events(caller: &Caller, rpc: Rpc, mut query: AuditQuery) -> Result<AuditQuery, BrokerError> {
        query.tenant = query.tenant.or_else(|| caller.tenant.clone());
        authorise(caller, rpc, Target { tenant: query.tenant.as_ref(), ..Target::default() })?;
        Ok(query)
    }

    /// How many events the chain has: where a tail begins that was given no index.
    ///
    /// # Errors
    /// The store's.
    pub async fn audit_size(&self) -> Result<u64, BrokerError> {
        Ok(self.store.chain_tip().await?.size)
    }

    /// The latest signed head.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::NotFound`] before the first head.
    pub async fn checkpoint(&self, caller: &Caller) -> Result<Checkpoint, BrokerError> {
        authorise(caller, Rpc::GetCheckpoint, Target::default())?;
        let head = self.store.latest_head().await?;
        let signed_head =
            head.ok_or_else(|| BrokerError::NotFound("a signed head (wait a few seconds)".to_owned()))?;
        Ok(Checkpoint { signed_head, public_key_pem: ca::pem("PUBLIC KEY", &self.audit_public_key().await?) })
    }

    /// The signed destruction receipt of one key, JSON: the one in the log once the key is shredded, before that one that
    /// says `ERASED`.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::NotFound`], [`BrokerError::Precondition`] while its custody has not
    /// ended.
    pub async fn destruction_receipt(
        &self,
        caller: &Caller,
        tenant: Option<TenantId>,
        credential: CredentialId,
    ) -> Result<String, BrokerError> {
        // An auditor of the whole broker need not say in which tenant the key was.
        let tenant = tenant.or_else(|| caller.tenant.clone());
        let target = Target { tenant: tenant.as_ref(), ..Target::default() };
        authorise(caller, Rpc::GetDestructionReceipt, target)?;
        let custody = self.store.custody(tenant.as_ref(), credential).await?;
        match &custody.receipt {
            Some(receipt) => Ok(receipt.clone()),
            None => self.sign_receipt(&custody).await,
        }
    }
}
