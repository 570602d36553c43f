//! A VNFCI proves possession of every delivered key (ETSI GR NFV-SEC 005 8.1.2.3, step 14).
//!
//! 1. Establish who confirms: by the initial credential, or by a delivered certificate.
//! 2. Check that the claim is theirs, and a signature by the key of every slot.
//! 3. Keys delivered, the broker's copies erased, the initial credential spent, what earlier armings had delivered
//!    withdrawn, recorded: one commit.

use crate::audit::details::{self, ConfirmedDetails, RevocationDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::claim::TokenProof;
use crate::broker::{Broker, BrokerError, Peer, Request};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::credential::RevocationReason;
use crate::identity::Purpose;
use crate::identity::confirm::{confirm_message, verify_signature};
use crate::nfv::{ClaimId, Sha256Hash, SlotName, TenantId, VnfciId};
use crate::store::Mutation;
use crate::store::records::{ClaimRecord, ConfirmOutcome, DestroyedKeys};
use std::collections::BTreeMap;

/// A signature by a slot's key.
#[derive(Debug, Clone)]
pub struct SlotSignature {
    /// The slot.
    pub slot: SlotName,
    /// As `identity::confirm` defines it.
    pub signature: Vec<u8>,
}

/// A confirmation as it arrived.
#[derive(Debug, Clone)]
pub struct Confirm {
    /// The request.
    pub request: Request,
    /// What is confirmed.
    pub claim: ClaimId,
    /// One per slot.
    pub signatures: Vec<SlotSignature>,
    /// With a one-time token.
    pub token: Option<TokenProof>,
}

/// What came of a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// False if it had been confirmed before.
    pub newly_confirmed: bool,
    /// From when on the credentials are to be renewed.
    pub renew_after: Timestamp,
}

impl Broker {
    /// Over the bootstrap listener, by the initial credential. Says what came of it.
    ///
    /// # Errors
    /// [`BrokerError::Refused`]; [`BrokerError::Invalid`] for a missing or wrong signature;
    /// [`BrokerError::Precondition`] when it is too late.
    pub async fn confirm(&self, peer: &Peer, confirm: Confirm) -> Result<Confirmation, BrokerError> {
        let claim = self.store.claim(confirm.claim).await?.ok_or_else(|| foreign_claim(confirm.claim))?;
        let verified = self
            .verify_initial_credential(
                peer,
                confirm.token.as_ref(),
                confirm.request.id,
                claim.recipient_key,
                Purpose::Confirm,
            )
            .await?;
        if claim.initial_credential != verified.credential() {
            return Err(foreign_claim(confirm.claim));
        }
        self.confirm_claim(claim, confirm, None).await
    }

    /// Over the VNFCI listener, by a delivered certificate ([`Broker::identify_vnfci`]).
    ///
    /// # Errors
    /// As [`Broker::confirm`].
    pub async fn confirm_delivered(
        &self,
        caller: &Caller,
        confirm: Confirm,
    ) -> Result<Confirmation, BrokerError> {
        let claim = self.claim_of(caller, Rpc::Confirm, confirm.claim).await?;
        self.confirm_claim(claim, confirm, None).await
    }

    /// A claim that belongs to the calling VNFCI.
    pub(super) async fn claim_of(
        &self,
        caller: &Caller,
        rpc: Rpc,
        claim: ClaimId,
    ) -> Result<ClaimRecord, BrokerError> {
        let record = self.store.claim(claim).await?.ok_or_else(|| foreign_claim(claim))?;
        let target = Target {
            tenant: Some(&record.tenant),
            vnf_instance: Some(&record.vnf_instance),
            vnfci: Some(&record.vnfci),
        };
        authorise(caller, rpc, target)?;
        Ok(record)
    }

    /// `delivered_by`: who signed was the broker, which passes the keys on in this way.
    pub(super) async fn confirm_claim(
        &self,
        claim: ClaimRecord,
        confirm: Confirm,
        delivered_by: Option<&str>,
    ) -> Result<Confirmation, BrokerError> {
        self.no_doubt()?;
        let recipient_key = claim.recipient_key;
        let certificates = check_signatures(&claim, &confirm.signatures, |certificate| {
            confirm_message(claim.id, certificate, recipient_key)
        })?;
        crash::reached(Point::ConfirmVerified);
        let actor = vnfci_actor(&claim.tenant, &claim.vnfci);
        let event = Event::new(self.store.now().await?, EventKind::Confirmed, actor.clone())
            .tenant(&claim.tenant)
            .vnf_instance(&claim.vnf_instance)
            .vnfci(&claim.vnfci)
            .request(confirm.request.id)
            .credentials(claim.credentials.iter().map(|slot| slot.credential.clone()))
            .details(details::json(&ConfirmedDetails {
                claim: claim.id,
                recipient_key,
                initial_credential: claim.initial_credential,
                renews: claim.renews.map(|renewal| renewal.of),
                delivered_by: delivered_by.map(str::to_owned),
                certificates,
            }));
        let mutation = Mutation::new(move |outcome: &ConfirmOutcome| match outcome {
            ConfirmOutcome::Confirmed { superseded, .. } => confirm_events(event, superseded),
            ConfirmOutcome::AlreadyConfirmed | ConfirmOutcome::TooLate => Vec::new(),
        });
        let newly_confirmed = match self
            .store
            .confirm_claim(claim.id, mutation.request(confirm.request.key(actor)).delivering())
            .await?
        {
            ConfirmOutcome::Confirmed { superseded, .. } => {
                crash::reached(Point::ConfirmCommitted);
                metrics::counter!("keybroker_confirmations_total").increment(1);
                if !superseded.keys.is_empty() {
                    self.wake.publisher.notify_one();
                    self.wake.sweeper.notify_one();
                }
                true
            }
            ConfirmOutcome::AlreadyConfirmed => false,
            ConfirmOutcome::TooLate => return Err(BrokerError::Precondition(too_late(&claim))),
        };
        Ok(Confirmation { newly_confirmed, renew_after: self.renew_after(&claim).await? })
    }
}

fn too_late(claim: &ClaimRecord) -> String {
    let text = match claim.renews {
        None => {
            "the claim is destroyed: it was not confirmed by its deadline, or its VNFCI was re-armed; claim again \
             with the VNFCI's latest initial credential"
        }
        Some(_) => {
            "the renewal is destroyed: it was not confirmed by its deadline, or its VNFCI was re-armed; renew again, \
             or claim with the VNFCI's latest initial credential"
        }
    };
    text.to_owned()
}

/// The confirmation, and the withdrawal of what earlier armings had delivered.
fn confirm_events(confirmed: Event, superseded: &DestroyedKeys) -> Vec<Event> {
    if *superseded == DestroyedKeys::default() {
        return vec![confirmed];
    }
    let mut withdrawn = confirmed.clone();
    withdrawn.id = uuid::Uuid::now_v7();
    withdrawn.kind = EventKind::RevocationRequested;
    withdrawn.credentials = superseded.keys.clone();
    withdrawn.details = details::json(&RevocationDetails {
        reason: RevocationReason::Superseded,
        serials: superseded.revoked.iter().map(|(_, serial)| serial.clone()).collect(),
        unknown: Vec::new(),
    });
    vec![confirmed, withdrawn]
}

/// How the audit log names a VNFCI.
pub(super) fn vnfci_actor(tenant: &TenantId, vnfci: &VnfciId) -> Actor {
    Caller::vnfci(tenant.clone(), vnfci.clone()).actor()
}

/// A claim that does not exist and one that is somebody else's look the same from outside.
fn foreign_claim(claim: ClaimId) -> BrokerError {
    BrokerError::refused("CLAIM_FOREIGN", format!("claim {claim} is not the caller's"))
}

/// Checks that there is exactly one signature for every slot, and that each was made by the slot's key over
/// `message(SHA-256 of the slot's certificate)`. Gives those hashes.
pub(super) fn check_signatures(
    claim: &ClaimRecord,
    signatures: &[SlotSignature],
    message: impl Fn(Sha256Hash) -> Vec<u8>,
) -> Result<Vec<Sha256Hash>, BrokerError> {
    let invalid = |problem: String| BrokerError::Invalid { field: "signatures".to_owned(), problem };
    let mut by_slot: BTreeMap<&SlotName, &[u8]> = BTreeMap::new();
    for given in signatures {
        if by_slot.insert(&given.slot, &given.signature).is_some() {
            return Err(invalid(format!("slot {} has two", given.slot)));
        }
    }
    let mut certificates = Vec::with_capacity(claim.credentials.len());
    for slot in &claim.credentials {
        let signature = by_slot.remove(&slot.slot).ok_or_else(|| {
            invalid(format!("slot {} has none; sign with the key of every slot", slot.slot))
        })?;
        let certificate = slot.certificate.fingerprint().ok_or_else(|| {
            BrokerError::Precondition(format!(
                "slot {} has no certificate yet: claim again and confirm what is delivered",
                slot.slot
            ))
        })?;
        verify_signature(&slot.public_key_der, &message(certificate), signature).map_err(|_| {
            invalid(format!("the one of slot {} does not verify with the key of its certificate", slot.slot))
        })?;
        certificates.push(certificate);
    }
    match by_slot.keys().next() {
        Some(slot) => Err(invalid(format!("the claim has no slot {slot}"))),
        None => Ok(certificates),
    }
}
