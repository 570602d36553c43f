//! The sequencer gives committed events their place in the chain, and the HSM signs the chain's head.

use crate::audit::chain::{StoredEvent, genesis, next_hash};
use crate::audit::head::{Head, SignedHead};
use crate::audit::signature::{AuditAlgorithm, AuditPublicKey, AuditSignature};
use crate::broker::{Broker, BrokerError};
use crate::crash::{self, Point};
use crate::hsm::{Lane, ObjectId, SignatureAlgorithm};
use crate::store::StoreError;
pub(super) use crate::store::records::ORIGIN;
use crate::store::records::{AuditQuery, ChainTip};

/// Events chained in one commit.
const BATCH: u32 = 1_000;

impl Broker {
    /// Chains what was committed since; says whether there may be more.
    pub(super) async fn chain_events(&self) -> Result<bool, BrokerError> {
        let tip = self.store.chain_tip().await?;
        let (events, waiting) = self.store.unchained_events(BATCH).await?;
        metrics::gauge!("keybroker_audit_unchained_events").set(waiting as f64);
        if events.is_empty() {
            return Ok(false);
        }
        let mut hash = match tip.hash {
            Some(hash) => hash,
            None => genesis(&self.audit_origin().await?),
        };
        let mut entries = Vec::with_capacity(events.len());
        for event in &events {
            let stored: StoredEvent =
                serde_json::from_str(&event.json).map_err(|e| BrokerError::Internal(e.to_string()))?;
            hash = next_hash(hash, &stored);
            entries.push((event.event.id, hash));
        }
        match self.store.chain_events(&tip, entries).await {
            Ok(()) => {
                crash::reached(Point::EventsChained);
                self.chained.send_replace(tip.size + events.len() as u64);
                Ok(waiting > events.len() as u64)
            }
            // Another replica was quicker: read again.
            Err(StoreError::Conflict(_)) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the HSM sign the head, if the chain grew since the last signed one. A chain that does not extend the last
    /// signed head was tampered with, or is of a database that was rolled back: it is not signed.
    pub(super) async fn sign_head(&self) -> Result<(), BrokerError> {
        let tip = self.store.chain_tip().await?;
        let Some(hash) = tip.hash else { return Ok(()) };
        if let Some(json) = self.store.latest_head().await? {
            let last: SignedHead =
                serde_json::from_str(&json).map_err(|e| BrokerError::Internal(e.to_string()))?;
            if !self.extends(&tip, &last.head).await? {
                return Err(BrokerError::Internal(format!(
                    "the audit log does not extend its last signed head, of {} events: no new head is signed; export \
                     the log and compare it with an earlier export",
                    last.head.size
                )));
            }
            if last.head.size == tip.size {
                return Ok(());
            }
        }
        let head =
            Head { origin: self.audit_origin().await?, size: tip.size, hash, time: self.store.now().await? };
        let signature = self.sign_for_audit(head.bytes()).await?;
        crash::reached(Point::HeadSigned);
        let json = serde_json::to_string(&SignedHead { head, signature })
            .map_err(|error| BrokerError::Internal(error.to_string()))?;
        self.store.record_head(&tip, json).await?;
        crash::reached(Point::HeadCommitted);
        Ok(())
    }

    /// Whether the chain still has the row that a head was signed over.
    async fn extends(&self, tip: &ChainTip, head: &Head) -> Result<bool, BrokerError> {
        let Some(from_index) = head.size.checked_sub(1) else { return Ok(true) };
        let query = AuditQuery { from_index, limit: 1, ..AuditQuery::default() };
        let entries = self.store.audit_entries(&query).await?;
        let row = entries.first().filter(|entry| entry.index == from_index);
        Ok(head.size <= tip.size && row.is_some_and(|row| row.hash == head.hash))
    }

    pub(super) async fn audit_origin(&self) -> Result<String, BrokerError> {
        let origin = self.store.mark(ORIGIN).await?;
        origin.ok_or_else(|| {
            BrokerError::Precondition("the log has no origin; run `keybroker init`".to_owned())
        })
    }

    /// The audit key's SubjectPublicKeyInfo, DER.
    pub(super) async fn audit_public_key(&self) -> Result<Vec<u8>, BrokerError> {
        let key = self.hsm.public_key(&ObjectId::Audit(1)).await?;
        key.ok_or_else(|| {
            BrokerError::Precondition("the token has no audit key; run `keybroker init`".to_owned())
        })
    }

    /// A signature of the audit key.
    pub(super) async fn sign_for_audit(&self, message: Vec<u8>) -> Result<AuditSignature, BrokerError> {
        let spki = self.audit_public_key().await?;
        let key =
            AuditPublicKey::from_spki(&spki).map_err(|error| BrokerError::Internal(error.to_string()))?;
        let algorithm = match key.algorithm() {
            AuditAlgorithm::Ed25519 => SignatureAlgorithm::Ed25519,
            AuditAlgorithm::EcdsaP256Sha256 => SignatureAlgorithm::EcdsaP256Sha256,
        };
        let signatures = self.hsm.sign(Lane::Bulk, &ObjectId::Audit(1), algorithm, vec![message]).await?;
        let signature =
            signatures.into_iter().next().ok_or_else(|| BrokerError::Internal("no signature".to_owned()))?;
        Ok(AuditSignature { algorithm: key.algorithm(), key_id: key.id(), signature })
    }
}
