//! A VNFCI's credentials are replaced before they expire (ETSI GR NFV-SEC 005 8.2), on its own account or because MANO asks
//! for it. A renewal is a claim of fresh credentials for the same slots, proved by a delivered certificate in place of an
//! initial credential:
//!
//! 1. Find the confirmed claim whose certificate was presented.
//! 2. Draw, bind, record, have signed, seal, answer: as a claim does (`claim`), with the same rules for repetitions.
//! 3. The VNFCI confirms by the new keys (`confirm`). In that commit the old certificates become superseded; they stay
//!    valid until the overlap ends.
//! 4. The sweeper withdraws what an overlap has left: revoked with reason superseded, custody ended, one commit each.
//!
//! The same key never gets a second certificate: who renews gets new keys.

use crate::audit::details::{self, RenewalRequestedDetails, RevocationDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::audit::receipt::DestructionReason;
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::claim::{Claim, Claimant, SealedClaim};
use crate::broker::vnfcis::{LARGEST_BATCH, authorise_each};
use crate::broker::{Broker, BrokerError, Peer, Request};
use crate::ca::CertificateFacts;
use crate::ca::issue::BACKDATING;
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::credential::{HolderCopy, RevocationReason};
use crate::nfv::{ClaimId, Sha256Hash, TenantId, VnfciId};
use crate::store::Mutation;
use crate::store::records::{
    CertificateRecord, ClaimRecord, CustodyEnd, DestroyedKeys, Enrolment, Lease, Renewal,
    RenewalRequestOutcome, Vnfci,
};
use std::time::Duration;

/// Overlaps ended in one round.
const BATCH: u32 = 500;

/// The answer for one VNFCI of a request to renew: whether it was marked now, or what was wrong.
pub type RenewalRequested = Result<bool, String>;

impl Broker {
    /// Draws fresh credentials for the slots of a VNFCI, by a delivered certificate ([`Broker::identify_vnfci`]).
    ///
    /// # Errors
    /// As [`Broker::claim`]; [`BrokerError::Refused`] also if what the certificate belongs to is not confirmed, was renewed
    /// before, or its VNFCI has ended.
    pub async fn renew(
        &self,
        caller: &Caller,
        peer: &Peer,
        claim: Claim,
    ) -> Result<SealedClaim, BrokerError> {
        // 1.
        let held = self.held_claim(caller, Rpc::Renew, peer).await?;
        let overlap = self.settings.load().tenant(&held.tenant).renewal_overlap;
        let claimant = Claimant {
            initial_credential: held.initial_credential,
            renews: Some(Renewal { of: held.id, overlap }),
            delivered_by: None,
            tenant: held.tenant,
            vnfci: held.vnfci,
        };
        // 2.
        let sealed = self.draw_and_seal(&claimant, claim).await?;
        metrics::counter!("keybroker_renewals_total").increment(1);
        Ok(sealed)
    }

    /// The claim that the certificate of a connection belongs to, which is the caller's.
    async fn held_claim(&self, caller: &Caller, rpc: Rpc, peer: &Peer) -> Result<ClaimRecord, BrokerError> {
        let none = || BrokerError::Internal("a VNFCI was let in without a claim".to_owned());
        let (_, claim) = self.presented_claim(peer).await?.ok_or_else(none)?;
        self.claim_of(caller, rpc, claim).await
    }

    /// The record of the certificate that a connection presented, with its claim.
    async fn presented_claim(
        &self,
        peer: &Peer,
    ) -> Result<Option<(CertificateRecord, ClaimId)>, BrokerError> {
        let Some(leaf) = peer.chain_der.first() else { return Ok(None) };
        let record = self.store.certificate_by_fingerprint(Sha256Hash::of(leaf)).await?;
        Ok(record.and_then(|record| record.claim.map(|claim| (record, claim))))
    }

    /// When the holder of the presented certificate is to renew.
    ///
    /// # Errors
    /// The store's.
    pub async fn renew_after_for_peer(&self, peer: &Peer) -> Result<Option<Timestamp>, BrokerError> {
        let Some((_, claim)) = self.presented_claim(peer).await? else { return Ok(None) };
        match self.store.claim(claim).await? {
            Some(claim) => self.renew_after(&claim).await.map(Some),
            None => self.reenrol_after_for_peer(peer).await,
        }
    }

    async fn reenrol_after_for_peer(&self, peer: &Peer) -> Result<Option<Timestamp>, BrokerError> {
        let Some(leaf) = peer.chain_der.first() else { return Ok(None) };
        let Some(held) = self.store.enrolment_by_certificate(Sha256Hash::of(leaf)).await? else {
            return Ok(None);
        };
        let vnfci = self.store.vnfci(&held.tenant, &held.vnfci).await?;
        reenrol_after(&held, &vnfci).map(Some)
    }

    /// When the credentials of a claim are to be renewed: by their validity, or since MANO asked for it.
    pub(super) async fn renew_after(&self, claim: &ClaimRecord) -> Result<Timestamp, BrokerError> {
        let due = due(claim);
        let vnfci = self.store.vnfci(&claim.tenant, &claim.vnfci).await?;
        // What was drawn later is the answer to what MANO asked for.
        let requested = vnfci.renewal_requested_at.filter(|at| *at > claim.created_at);
        Ok(requested.map_or(due, |requested| requested.min(due)))
    }

    /// Tells that the certificate, one that we delivered, expired before it was renewed; else gives the refusal back.
    pub(super) async fn expired_before_renewal(&self, peer: &Peer, refusal: BrokerError) -> BrokerError {
        match self.presented_claim(peer).await {
            Ok(Some((record, _))) => match record.vnfci {
                Some(vnfci) => {
                    BrokerError::RearmNeeded { expired_at: record.not_after, tenant: record.tenant, vnfci }
                }
                None => refusal,
            },
            Ok(None) => refusal,
            Err(error) => error,
        }
    }

    /// Marks up to 1,000 VNFCIs that are to renew; one answer per item in order. An item whose text did not parse is
    /// refused by the API before: it passes the sentence in place of the id.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] for an empty or too large batch, [`BrokerError::Denied`] if one of them lies outside the
    /// caller's reach: then none is marked.
    pub async fn request_renewal(
        &self,
        caller: &Caller,
        request: Request,
        tenant: Option<TenantId>,
        items: Vec<Result<VnfciId, String>>,
    ) -> Result<Vec<RenewalRequested>, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        if items.is_empty() || items.len() > LARGEST_BATCH {
            let problem = format!("has {} items; give 1 to {LARGEST_BATCH}", items.len());
            return Err(BrokerError::Invalid { field: "vnfci_ids".to_owned(), problem });
        }
        if caller.tenant.as_ref().is_some_and(|own| *own != tenant) {
            authorise(caller, Rpc::RequestRenewal, Target { tenant: Some(&tenant), ..Target::default() })?;
        }
        let ids: Vec<VnfciId> = items.iter().flatten().cloned().collect();
        let vnf_instances = self.store.vnf_instances(&tenant, &ids).await?;
        authorise_each(caller, Rpc::RequestRenewal, &tenant, vnf_instances.values())?;
        self.knows(ids.iter().all(|id| vnf_instances.contains_key(id)))?;
        let event = Event::new(self.store.now().await?, EventKind::RenewalRequested, caller.actor())
            .tenant(&tenant)
            .request(request.id);
        let named = ids.clone();
        // The VNF instance was authorised; one that was registered since is not found.
        let asked = ids.into_iter().map(|id| (id.clone(), vnf_instances.get(&id).cloned())).collect();
        let mutation = Mutation::new(move |outcomes: &Vec<RenewalRequestOutcome>| {
            let marked = named
                .iter()
                .zip(outcomes)
                .filter(|(_, outcome)| **outcome == RenewalRequestOutcome::Requested)
                .map(|(id, _)| id.clone());
            let vnfcis: Vec<VnfciId> = marked.collect();
            let mut event = event;
            if let [only] = vnfcis.as_slice() {
                event = event.vnfci(only);
            }
            vec![event.details(details::json(&RenewalRequestedDetails { vnfcis }))]
        });
        let mutation = mutation.request(request.key(caller.actor()));
        let mut outcomes = self.store.request_renewals(&tenant, asked, mutation).await?.into_iter();
        crash::reached(Point::RenewalRequested);
        let answer = |id: VnfciId, outcome| match outcome {
            RenewalRequestOutcome::Requested => Ok(true),
            RenewalRequestOutcome::AlreadyRequested => Ok(false),
            RenewalRequestOutcome::NotActive => {
                Err(format!("VNFCI {id} holds no confirmed credentials: there is nothing to renew"))
            }
            RenewalRequestOutcome::NotFound => Err(format!("VNFCI {id} does not exist")),
        };
        items
            .into_iter()
            .map(|item| match item {
                Err(problem) => Ok(Err(problem)),
                Ok(id) => outcomes
                    .next()
                    .map(|outcome| answer(id, outcome))
                    .ok_or_else(|| BrokerError::Internal("an item of the batch has no outcome".to_owned())),
            })
            .collect()
    }

    /// Withdraws what renewals replaced, once the overlap has ended. True if there may be more to do at once.
    pub(super) async fn end_overlaps(&self, lease: &Lease) -> Result<bool, BrokerError> {
        let now = self.store.now().await?;
        let ended = self.store.ended_overlaps(now, BATCH).await?;
        let more = ended.len() == BATCH as usize;
        for claim in ended {
            let end = CustodyEnd {
                reason: DestructionReason::Superseded,
                holder_copy: HolderCopy::Unknown,
                revocation: RevocationReason::Superseded,
            };
            let event = Event::new(now, EventKind::RevocationRequested, Actor::broker())
                .tenant(&claim.tenant)
                .vnf_instance(&claim.vnf_instance)
                .vnfci(&claim.vnfci);
            let mutation = Mutation::new(move |ended: &DestroyedKeys| {
                // Terminated or revoked meanwhile: nothing is left to withdraw.
                if *ended == DestroyedKeys::default() {
                    return Vec::new();
                }
                vec![event.credentials(ended.keys.clone()).details(details::json(&RevocationDetails {
                    reason: RevocationReason::Superseded,
                    serials: ended.revoked.iter().map(|(_, serial)| serial.clone()).collect(),
                    unknown: Vec::new(),
                }))]
            });
            match self
                .store
                .end_overlap(claim.id, end, mutation.lease(lease))
                .await
                .map_err(BrokerError::from)
            {
                // Given back or superseded by a new arming a moment ago.
                Ok(_) | Err(BrokerError::Precondition(_)) => {}
                Err(error) => return Err(error),
            }
            crash::reached(Point::OverlapEnded);
            self.wake.publisher.notify_one();
        }
        Ok(more)
    }
}

/// Two thirds of what is left of the shortest validity when the credentials are drawn, less up to a tenth of that: VNFCIs
/// that booted together do not renew together. The same for every repetition.
fn due(claim: &ClaimRecord) -> Timestamp {
    let ends = claim.credentials.iter().map(|slot| slot.not_after);
    let Some(end) = ends.min() else { return claim.deadline };
    due_between(claim.id, claim.created_at, end)
}

/// When a certificate of a VNFCI's own key is to be followed by another one: by its validity, or since MANO asked.
pub(super) fn reenrol_after(held: &Enrolment, vnfci: &Vnfci) -> Result<Timestamp, BrokerError> {
    let facts = CertificateFacts::parse(&held.certificate_der)
        .map_err(|error| BrokerError::Internal(error.to_string()))?;
    let issued = facts.not_before.plus(BACKDATING);
    let due = due_between(held.id, issued, facts.not_after);
    let requested = vnfci.renewal_requested_at.filter(|at| *at > issued);
    Ok(requested.map_or(due, |requested| requested.min(due)))
}

fn due_between(claim: ClaimId, drawn: Timestamp, end: Timestamp) -> Timestamp {
    let left = end.unix_micros().saturating_sub(drawn.unix_micros());
    let left = Duration::from_micros(u64::try_from(left).unwrap_or_default());
    let early = f64::from(Sha256Hash::of(claim.to_string().as_bytes()).0[0]) / 255.0 * 0.1;
    drawn.plus(left.mul_f64(2.0 / 3.0 * (1.0 - early)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_told_to_renew_well_before_expiry_and_not_all_at_once() {
        let drawn = Timestamp::from_unix_seconds(1_800_000_000);
        let day = Duration::from_secs(86_400);
        let dues: Vec<Timestamp> =
            (0..200).map(|_| due_between(ClaimId::generate(), drawn, drawn.plus(day))).collect();
        let (first, last) = (dues.iter().min().unwrap(), dues.iter().max().unwrap());
        assert!(*first >= drawn.plus(day.mul_f64(0.59)) && *last <= drawn.plus(day.mul_f64(0.67)));
        assert!(last.unix_micros() - first.unix_micros() > 3_600_000_000, "an hour apart at least");
        let claim = ClaimId::generate();
        assert_eq!(
            due_between(claim, drawn, drawn.plus(day)),
            due_between(claim, drawn, drawn.plus(day)),
            "a repetition says the same"
        );
        assert_eq!(due_between(claim, drawn, drawn.minus(day)), drawn, "what has expired is due");
    }
}
