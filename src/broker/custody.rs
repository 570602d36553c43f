//! Destruction receipts: made from what the store knows, signed by the audit key.

use crate::audit::event::{Actor, Event, EventKind};
use crate::audit::receipt::{BrokerCopy, BrokerCopyState, DestructionReceipt, SignedReceipt};
use crate::broker::{Broker, BrokerError};
use crate::clock::{Timestamp, parse_duration};
use crate::crash::{self, Point};
use crate::credential::KeyState;
use crate::store::Mutation;
use crate::store::records::{Custody, Lease};

/// Receipts made in one commit.
const BATCH: u32 = 256;

impl Broker {
    /// Signs the receipts that are due: of keys that went out, whose custody has ended and whose epochs are all
    /// shredded, or that were never here. True if there may be more.
    pub(super) async fn issue_receipts(&self, lease: &Lease) -> Result<bool, BrokerError> {
        let due = self.store.receipts_due(BATCH).await?;
        if due.is_empty() {
            return Ok(false);
        }
        let now = self.store.now().await?;
        let mut receipts = Vec::with_capacity(due.len());
        let mut events = Vec::with_capacity(due.len());
        for custody in &due {
            let json = self.sign_receipt(custody).await?;
            let mut event = Event::new(now, EventKind::DestructionReceipt, Actor::broker())
                .tenant(&custody.tenant)
                .credentials([custody.credential.clone()])
                .details(serde_json::from_str(&json).map_err(|e| BrokerError::Internal(e.to_string()))?);
            event.vnfci = custody.vnfci.clone();
            events.push(event);
            receipts.push((custody.credential.id, json));
        }
        let more = due.len() == BATCH as usize;
        crash::reached(Point::ReceiptsSigned);
        self.store.record_receipts(receipts, Mutation::new(move |()| events).lease(lease)).await?;
        crash::reached(Point::ReceiptsCommitted);
        Ok(more)
    }

    /// A signed receipt, JSON, that says what is known now.
    pub(super) async fn sign_receipt(&self, custody: &Custody) -> Result<String, BrokerError> {
        let credential = custody.credential.id;
        let external = custody.key_state == KeyState::External;
        let Some((end, _)) = custody.ended.as_ref().filter(|_| external || custody.erased_at.is_some())
        else {
            return Err(BrokerError::Precondition(format!(
                "credential {credential} is {}, its custody has not ended: release it or terminate its VNFCI first",
                custody.key_state
            )));
        };
        let shredded = custody.shredded_at.is_some();
        let retention = self.settings.load().hsm_backup_retention.clone();
        let token_serial = match &custody.token_serial {
            _ if external => String::new(),
            Some(serial) => serial.clone(),
            None => self.hsm.token_serial(&custody.tenant)?,
        };
        let state = match external {
            true => BrokerCopyState::NeverHeld,
            false if shredded => BrokerCopyState::Shredded,
            false => BrokerCopyState::Erased,
        };
        let receipt = DestructionReceipt {
            credential,
            public_key: custody.credential.public_key,
            certificate_serial: custody.serial.clone().unwrap_or_default(),
            tenant: custody.tenant.clone(),
            vnfci: custody.vnfci.clone(),
            reason: end.reason,
            broker_copy: BrokerCopy {
                state,
                erased_at: custody.erased_at,
                epoch: custody.epoch,
                token_serial,
                ha_members_verified: u32::from(shredded),
                hsm_backup_retention: retention.clone(),
                effective_at: custody.shredded_at.and_then(|at| effective_at(at, &retention)),
            },
            holder_copy: end.holder_copy,
            issued_at: self.store.now().await?,
        };
        let signature = self.sign_for_audit(receipt.bytes()).await?;
        serde_json::to_string(&SignedReceipt { receipt, signature })
            .map_err(|e| BrokerError::Internal(e.to_string()))
    }
}

/// When the last backup of the HSM that may hold a KEK is gone: at once if there are none, after the retention if it is
/// a duration; nobody knows if it is any other text.
fn effective_at(shredded_at: Timestamp, retention: &str) -> Option<Timestamp> {
    match retention {
        "none" => Some(shredded_at),
        text => parse_duration(text).ok().map(|kept| shredded_at.plus(kept)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn destruction_is_effective_once_the_hsms_backups_are_gone_and_only_if_that_is_known() {
        let at = Timestamp::from_unix_seconds(1_000);
        assert_eq!(effective_at(at, "none"), Some(at));
        assert_eq!(effective_at(at, "30d"), Some(at.plus(Duration::from_secs(30 * 86_400))));
        assert_eq!(effective_at(at, "unknown"), None);
    }
}
