//! A VNFCI gives its credentials back.
//!
//! 1. Check that the claim is the caller's.
//! 2. Check a signature by every key: the holder's statement that it deletes them.
//! 3. Certificates to be revoked, custody ended, recorded: one commit. The publisher signs a CRL, the sweeper a receipt.

use crate::audit::event::{Event, EventKind};
use crate::authorisation::{Caller, Rpc};
use crate::broker::confirm::{SlotSignature, check_signatures};
use crate::broker::{Broker, BrokerError, Request};
use crate::credential::{HolderCopy, RevocationReason};
use crate::identity::confirm::release_message;
use crate::nfv::{ClaimId, Sha256Hash};
use crate::store::Mutation;
use crate::store::records::{CustodyEnd, DestroyedKeys};
use serde_json::json;

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
        let recipient_key = Sha256Hash::of(&claim.recipient_point);
        check_signatures(&claim, &release.signatures, |certificate| {
            release_message(claim.id, certificate, recipient_key)
        })?;
        // 3.
        let end = CustodyEnd {
            reason: "RELEASED".to_owned(),
            holder_copy: HolderCopy::ReleasedSigned,
            revocation: RevocationReason::CessationOfOperation,
        };
        let statements: Vec<_> = release
            .signatures
            .iter()
            .map(|given| json!({ "slot": given.slot, "signature": hex::encode(&given.signature) }))
            .collect();
        let event = Event::new(self.store.now().await?, EventKind::Released, caller.actor())
            .tenant(&claim.tenant)
            .vnf_instance(&claim.vnf_instance)
            .vnfci(&claim.vnfci)
            .request(release.request.id);
        let details = json!({
            "claim": claim.id, "recipient_key": recipient_key, "holder_copy": end.holder_copy, "statements": statements,
        });
        let mutation = Mutation::new(move |outcome: &DestroyedKeys| {
            let mut details = details;
            details["revoked"] = json!(outcome.revoked);
            vec![event.credentials(outcome.keys.clone()).details(details)]
        });
        let mutation = mutation.request(release.request.key(caller.actor()));
        let outcome = self.store.release_claim(claim.id, end, mutation).await?;
        self.wake.publisher.notify_one();
        self.wake.sweeper.notify_one();
        Ok(outcome.revoked.into_iter().map(|(_, serial)| serial).collect())
    }
}
