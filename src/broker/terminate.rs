//! MANO reports the end of VNFCIs: of one, of some (scale-in), of all that a VNF instance has.
//!
//! None of this needs the HSM: certificates become `REVOCATION_PENDING` and copies of keys are erased in one commit. The
//! publisher signs the CRL, and the sweeper shreds and makes receipts, as soon as the HSM is there.

use crate::audit::details::{self, TerminatedDetails};
use crate::audit::event::{Event, EventKind};
use crate::audit::receipt::DestructionReason;
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::vnfcis::{LARGEST_BATCH, authorise_each};
use crate::broker::{Broker, BrokerError, Request};
use crate::crash::{self, Point};
use crate::credential::{HolderCopy, RevocationReason};
use crate::nfv::{TenantId, VnfInstanceId, VnfciId};
use crate::store::Mutation;
use crate::store::records::{CustodyEnd, DestroyedKeys, TerminateOutcome, TerminatedVnf};
use std::collections::BTreeMap;

/// VNFCIs in one event: their keys are listed in it, and a client reads it in one message.
const EVENT_VNFCIS: usize = 250;

/// What came of a termination.
#[derive(Debug, Clone)]
pub struct TerminatedVnfci {
    /// Serial numbers that are to be revoked, hexadecimal.
    pub serials: Vec<String>,
    /// False if it had been ended before.
    pub newly_terminated: bool,
}

/// The answer for one VNFCI of a scale-in: what came of it, or what was wrong.
pub type ScaledIn = Result<TerminatedVnfci, String>;

/// The end of a VNF instance as it was reported.
#[derive(Debug, Clone)]
pub struct TerminateVnf {
    /// The request.
    pub request: Request,
    /// None: the caller's tenant.
    pub tenant: Option<TenantId>,
    /// Which.
    pub vnf_instance: VnfInstanceId,
    /// How many live VNFCIs MANO believes it to have.
    pub expected_count: u32,
    /// MANO states that their storage was wiped.
    pub storage_wiped: bool,
}

impl Broker {
    /// Ends a VNFCI.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`], [`BrokerError::Denied`].
    pub async fn terminate_vnfci(
        &self,
        caller: &Caller,
        request: Request,
        tenant: Option<TenantId>,
        id: VnfciId,
        storage_wiped: bool,
    ) -> Result<TerminatedVnfci, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        let vnfci = self.reach_vnfci(caller, Rpc::TerminateVnfci, &tenant, &id).await?;
        let vnf_instances = BTreeMap::from([(id.clone(), vnfci.vnf_instance)]);
        let ids = vec![id.clone()];
        let outcomes = self.terminate(caller, request, &tenant, ids, vnf_instances, storage_wiped).await?;
        match outcomes.into_iter().next().and_then(answer) {
            Some(terminated) => Ok(terminated),
            None => Err(BrokerError::NotFound(format!("VNFCI {id}"))),
        }
    }

    /// Ends up to 1,000 VNFCIs; one answer per item in order. An item whose text did not parse is refused by the API
    /// before: it passes the sentence in place of the id.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] for an empty or too large batch, [`BrokerError::Denied`] if one of them lies outside the
    /// caller's reach: then none is ended.
    pub async fn scale_in(
        &self,
        caller: &Caller,
        request: Request,
        tenant: Option<TenantId>,
        items: Vec<Result<VnfciId, String>>,
        storage_wiped: bool,
    ) -> Result<Vec<ScaledIn>, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        if items.is_empty() || items.len() > LARGEST_BATCH {
            let problem = format!("has {} items; give 1 to {LARGEST_BATCH}", items.len());
            return Err(BrokerError::Invalid { field: "vnfci_ids".to_owned(), problem });
        }
        if caller.tenant.as_ref().is_some_and(|own| *own != tenant) {
            authorise(caller, Rpc::ScaleIn, Target { tenant: Some(&tenant), ..Target::default() })?;
        }
        let ids: Vec<VnfciId> = items.iter().flatten().cloned().collect();
        let vnf_instances = self.store.vnf_instances(&tenant, &ids).await?;
        authorise_each(caller, Rpc::ScaleIn, &tenant, vnf_instances.values())?;
        self.knows(ids.iter().all(|id| vnf_instances.contains_key(id)))?;
        let outcomes = self.terminate(caller, request, &tenant, ids, vnf_instances, storage_wiped).await?;
        let mut outcomes = outcomes.into_iter();
        items
            .into_iter()
            .map(|item| match item {
                Err(problem) => Ok(Err(problem)),
                Ok(id) => {
                    let outcome = outcomes.next().ok_or_else(|| {
                        BrokerError::Internal("an item of the batch has no outcome".to_owned())
                    })?;
                    Ok(answer(outcome).ok_or_else(|| format!("VNFCI {id} does not exist")))
                }
            })
            .collect()
    }

    /// Ends every live VNFCI of a VNF instance, all or none.
    ///
    /// # Errors
    /// [`BrokerError::Denied`], [`BrokerError::Precondition`] if there are not as many as expected.
    pub async fn terminate_vnf(
        &self,
        caller: &Caller,
        terminate: TerminateVnf,
    ) -> Result<TerminatedVnf, BrokerError> {
        let tenant = Self::tenant_of(caller, terminate.tenant)?;
        let vnf_instance = terminate.vnf_instance;
        let target = Target { tenant: Some(&tenant), vnf_instance: Some(&vnf_instance), vnfci: None };
        let authorised = authorise(caller, Rpc::TerminateVnf, target)?;
        let end = custody_end(terminate.storage_wiped);
        let base = Event::new(self.store.now().await?, EventKind::Terminated, authorised.actor())
            .tenant(&tenant)
            .request(terminate.request.id);
        let of = vnf_instance.clone();
        let mutation = Mutation::new(move |outcome: &TerminatedVnf| {
            let ended = outcome.ended.iter().map(|(id, keys)| (id, &of, keys)).collect();
            termination_events(&base, end.holder_copy, ended)
        });
        let mutation = mutation.request(terminate.request.key(authorised.actor()));
        let expected = u64::from(terminate.expected_count);
        let end = custody_end(terminate.storage_wiped);
        let outcome = self.store.terminate_vnf(&tenant, &vnf_instance, expected, end, mutation).await?;
        self.after_termination();
        Ok(outcome)
    }

    /// Ends VNFCIs that the caller was found to reach; `vnf_instances` has those that exist.
    async fn terminate(
        &self,
        caller: &Caller,
        request: Request,
        tenant: &TenantId,
        ids: Vec<VnfciId>,
        vnf_instances: BTreeMap<VnfciId, VnfInstanceId>,
        storage_wiped: bool,
    ) -> Result<Vec<TerminateOutcome>, BrokerError> {
        let end = custody_end(storage_wiped);
        let base = Event::new(self.store.now().await?, EventKind::Terminated, caller.actor())
            .tenant(tenant)
            .request(request.id);
        let (holder_copy, named) = (end.holder_copy, ids.clone());
        // The VNF instance was authorised; one that was registered since is not found.
        let items = ids.iter().map(|id| (id.clone(), vnf_instances.get(id).cloned())).collect();
        let mutation = Mutation::new(move |outcomes: &Vec<TerminateOutcome>| {
            let ended = named.iter().zip(outcomes).filter_map(|(id, outcome)| match outcome {
                TerminateOutcome::Terminated(keys) => vnf_instances.get(id).map(|vnf| (id, vnf, keys)),
                TerminateOutcome::AlreadyTerminated | TerminateOutcome::NotFound => None,
            });
            termination_events(&base, holder_copy, ended.collect())
        });
        let mutation = mutation.request(request.key(caller.actor()));
        let outcomes = self.store.terminate_vnfcis(tenant, items, end, mutation).await?;
        self.after_termination();
        Ok(outcomes)
    }

    fn after_termination(&self) {
        crash::reached(Point::TerminationCommitted);
        self.wake.publisher.notify_one();
        self.wake.sweeper.notify_one();
    }
}

fn custody_end(storage_wiped: bool) -> CustodyEnd {
    CustodyEnd {
        reason: DestructionReason::Terminated,
        holder_copy: if storage_wiped { HolderCopy::WipedPerMano } else { HolderCopy::Unknown },
        revocation: RevocationReason::CessationOfOperation,
    }
}

/// None for a VNFCI that does not exist.
fn answer(outcome: TerminateOutcome) -> Option<TerminatedVnfci> {
    match outcome {
        TerminateOutcome::Terminated(keys) => Some(TerminatedVnfci {
            serials: keys.revoked.into_iter().map(|(_, serial)| serial).collect(),
            newly_terminated: true,
        }),
        TerminateOutcome::AlreadyTerminated => {
            Some(TerminatedVnfci { serials: Vec::new(), newly_terminated: false })
        }
        TerminateOutcome::NotFound => None,
    }
}

/// Events for the VNFCIs that ended: per VNF instance, and a bounded number of them in each. One that ends a single
/// VNFCI carries its name, too.
fn termination_events(
    base: &Event,
    holder_copy: HolderCopy,
    ended: Vec<(&VnfciId, &VnfInstanceId, &DestroyedKeys)>,
) -> Vec<Event> {
    let mut by_vnf: BTreeMap<&VnfInstanceId, Vec<(&VnfciId, &DestroyedKeys)>> = BTreeMap::new();
    for (id, vnf_instance, keys) in ended {
        by_vnf.entry(vnf_instance).or_default().push((id, keys));
    }
    let mut events = Vec::new();
    for (vnf_instance, ended) in by_vnf {
        for ended in ended.chunks(EVENT_VNFCIS) {
            let mut event = base.clone();
            event.id = uuid::Uuid::now_v7();
            event.vnfci = match ended {
                [(only, _)] => Some((*only).clone()),
                _ => None,
            };
            let keys = ended.iter().flat_map(|(_, keys)| keys.keys.iter().cloned());
            events.push(event.vnf_instance(vnf_instance).credentials(keys).details(details::json(
                &TerminatedDetails {
                    vnfcis: ended.iter().map(|(id, _)| (*id).clone()).collect(),
                    holder_copy,
                },
            )));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event::Actor;
    use crate::clock::Timestamp;

    #[test]
    fn the_end_of_thousands_is_told_in_events_of_bounded_size() {
        let base = Event::new(Timestamp::from_unix_seconds(1), EventKind::Terminated, Actor::broker());
        let ids: Vec<VnfciId> = (0..1_001).map(|n| format!("v-{n}").parse().unwrap()).collect();
        let (one, other) = ("vnf-1".parse().unwrap(), "vnf-2".parse().unwrap());
        let keys = DestroyedKeys::default();
        let ended = ids.iter().enumerate().map(|(n, id)| (id, if n == 7 { &other } else { &one }, &keys));
        let events = termination_events(&base, HolderCopy::Unknown, ended.collect());
        let counts: Vec<usize> =
            events.iter().map(|event| event.details["vnfcis"].as_array().unwrap().len()).collect();
        assert_eq!(counts, [250, 250, 250, 250, 1]);
        assert_eq!(
            (events[4].vnfci.as_ref(), events[4].vnf_instance.as_ref()),
            (Some(&ids[7]), Some(&other))
        );
        assert!(events[0].vnfci.is_none());
        let distinct: std::collections::HashSet<_> = events.iter().map(|event| event.id).collect();
        assert_eq!(distinct.len(), events.len());
    }
}
