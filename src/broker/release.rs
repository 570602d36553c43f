//! A VNFCI gives its credentials back.
//!
//! 1. Check that the claim is the caller's.
//! 2. Check a signature by every key: the holder's statement that it deletes them.
//! 3. Certificates to be revoked, custody ended, recorded: one commit. The publisher signs a CRL, the sweeper a receipt.

use crate::audit::details::{self, ReleasedDetails};
use crate::audit::event::{Event, EventKind};
use crate::audit::receipt::DestructionReason;
use crate::authorisation::{Caller, Rpc};
use crate::broker::confirm::{SlotSignature, check_signatures};
use crate::broker::{Broker, BrokerError, Request};
use crate::crash::{self, Point};
use crate::credential::{HolderCopy, RevocationReason};
use crate::identity::confirm::release_message;
use crate::nfv::ClaimId;
use crate::store::Mutation;
use crate::store::records::{ClaimRecord, CustodyEnd, DestroyedKeys};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A release as it arrived.
#[derive(Debug, Clone)]
pub struct Release {
    /// The request.
    pub request: Request,
    /// What is given back.
    pub claim: ClaimId,
    /// One per slot.
    pub signatures: Vec<SlotSignature>,
}

impl Broker {
    /// Says the serial numbers (hexadecimal) that are to be revoked.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::Invalid`] for a missing or wrong signature,
    /// [`BrokerError::Precondition`] for a claim that was not confirmed.
    pub async fn release(&self, caller: &Caller, release: Release) -> Result<Vec<String>, BrokerError> {
        // 1.
        let claim = self.claim_of(caller, Rpc::Release, release.claim).await?;
        // 2.
        let recipient_key = claim.recipient_key;
        let certificates = check_signatures(&claim, &release.signatures, |certificate| {
            release_message(claim.id, certificate, recipient_key)
        })?;
        // 3.
        let end = CustodyEnd {
            reason: DestructionReason::Released,
            holder_copy: HolderCopy::ReleasedSigned,
            revocation: RevocationReason::CessationOfOperation,
        };
        let event = Event::new(self.store.now().await?, EventKind::Released, caller.actor())
            .tenant(&claim.tenant)
            .vnf_instance(&claim.vnf_instance)
            .vnfci(&claim.vnfci)
            .request(release.request.id);
        let event = event.details(details::json(&ReleasedDetails {
            claim: claim.id,
            certificates,
            signatures: statements(&claim, &release.signatures),
        }));
        let mutation =
            Mutation::new(move |outcome: &DestroyedKeys| vec![event.credentials(outcome.keys.clone())]);
        let mutation = mutation.request(release.request.key(caller.actor()));
        let outcome = self.store.release_claim(claim.id, end, mutation).await?;
        crash::reached(Point::ReleaseCommitted);
        self.wake.publisher.notify_one();
        self.wake.sweeper.notify_one();
        Ok(outcome.revoked.into_iter().map(|(_, serial)| serial).collect())
    }
}

/// The holder's signatures, base64, in the order of the claim's slots.
fn statements(claim: &ClaimRecord, signatures: &[SlotSignature]) -> Vec<String> {
    let of_slot = |slot| signatures.iter().find(|given| given.slot == slot);
    claim
        .credentials
        .iter()
        .filter_map(|slot| of_slot(slot.slot.clone()).map(|given| STANDARD.encode(&given.signature)))
        .collect()
}
