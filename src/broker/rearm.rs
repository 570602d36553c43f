//! MANO gives VNFCIs a new initial credential: after a power cut, for migration, update or repeated delivery.
//!
//! 1. Authorise every VNF instance that is touched.
//! 2. New initial credentials; earlier ones void, unconfirmed claims destroyed, recorded: one commit. What was delivered
//!    before stays valid until the new claim is confirmed (`confirm`), so that a working VNFCI is never cut off.
//! 3. One-time tokens are computed by the HSM. If it is away the commit stands, and the same request gets them later.

use crate::audit::details::{self, ErasedDetails, RearmedDetails, RearmedVnfci};
use crate::audit::event::{Event, EventKind};
use crate::audit::receipt::DestructionReason;
use crate::authorisation::{Caller, Rpc, Target, authorise};
use crate::broker::vnfcis::{
    INITIAL_CREDENTIAL_VALIDITY, LARGEST_BATCH, Registered, authorise_each, recognition,
};
use crate::broker::{Broker, BrokerError, Request};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::credential::{HolderCopy, RevocationReason};
use crate::nfv::{InitialCredentialId, TenantId, VnfciId};
use crate::store::Mutation;
use crate::store::records::{CustodyEnd, InitialCredentialKind, RearmOutcome, Rearming};

/// A VNFCI to be re-armed.
#[derive(Debug, Clone)]
pub struct Rearm {
    /// MANO's id.
    pub id: VnfciId,
    /// How its new initial credential is recognised.
    pub initial_credential: InitialCredentialKind,
    /// None: 24 hours from now.
    pub expires_at: Option<Timestamp>,
}

impl Broker {
    /// Re-arms up to 1,000 VNFCIs; one answer per item in order. An item whose text did not parse is refused by the API
    /// before: it passes (the id as sent, the sentence) in its place.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] for an empty or too large batch, [`BrokerError::Denied`] if one item lies outside the
    /// caller's reach: then nothing is changed.
    pub async fn rearm_vnfcis(
        &self,
        caller: &Caller,
        request: Request,
        tenant: Option<TenantId>,
        items: Vec<Result<Rearm, (String, String)>>,
    ) -> Result<Vec<Registered>, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        if items.is_empty() || items.len() > LARGEST_BATCH {
            let problem = format!("has {} items; give 1 to {LARGEST_BATCH}", items.len());
            return Err(BrokerError::Invalid { field: "vnfcis".to_owned(), problem });
        }
        // 1.
        if caller.tenant.as_ref().is_some_and(|own| *own != tenant) {
            authorise(caller, Rpc::RearmVnfcis, Target { tenant: Some(&tenant), ..Target::default() })?;
        }
        let ids: Vec<VnfciId> = items.iter().flatten().map(|item| item.id.clone()).collect();
        let vnf_instances = self.store.vnf_instances(&tenant, &ids).await?;
        authorise_each(caller, Rpc::RearmVnfcis, &tenant, vnf_instances.values())?;
        self.knows(ids.iter().all(|id| vnf_instances.contains_key(id)))?;
        // 2.
        let now = self.store.now().await?;
        let mut judged = Vec::with_capacity(items.len());
        let mut accepted = Vec::new();
        for item in items {
            let checked = item.and_then(|item| {
                let (id, vnf_instance) = (item.id.to_string(), vnf_instances.get(&item.id).cloned());
                let expires_at = item.expires_at.unwrap_or(now.plus(INITIAL_CREDENTIAL_VALIDITY));
                match vnf_instance {
                    None => Err((id.clone(), format!("VNFCI {id} does not exist: register it"))),
                    Some(_) if expires_at <= now => Err((
                        id,
                        format!("its initial credential expired at {expires_at}; give a later time"),
                    )),
                    Some(vnf_instance) => Ok(Rearming {
                        id: item.id,
                        vnf_instance,
                        initial_credential: InitialCredentialId::generate(),
                        kind: item.initial_credential,
                        expires_at,
                    }),
                }
            });
            judged.push(checked.map(|rearming| {
                let id = rearming.id.clone();
                accepted.push(rearming);
                id
            }));
        }
        let end = CustodyEnd {
            reason: DestructionReason::Rearmed,
            // It was sealed to the VNFCI, which may have unsealed it without telling.
            holder_copy: HolderCopy::Unknown,
            revocation: RevocationReason::Superseded,
        };
        let event =
            Event::new(now, EventKind::VnfciRearmed, caller.actor()).tenant(&tenant).request(request.id);
        let mutation = Mutation::new(move |outcomes: &Vec<RearmOutcome>| rearm_events(event, outcomes));
        let mutation = mutation.request(request.key(caller.actor()));
        let quotas = self.quotas(&tenant);
        let outcomes = self.store.rearm_vnfcis(&tenant, accepted, &quotas, end, mutation).await?;
        crash::reached(Point::RearmingCommitted);
        self.wake.publisher.notify_one();
        self.wake.sweeper.notify_one();
        // 3.
        let outcomes = outcomes.into_iter().map(|outcome| match outcome {
            RearmOutcome::Rearmed { credential, .. } => Ok(credential),
            RearmOutcome::Refused(problem) => Err(problem),
        });
        self.armed(judged, outcomes.collect()).await
    }
}

/// The re-arming, and what was destroyed for it.
fn rearm_events(event: Event, outcomes: &[RearmOutcome]) -> Vec<Event> {
    let mut vnfcis = Vec::new();
    let mut erased = Vec::new();
    for outcome in outcomes {
        let RearmOutcome::Rearmed { credential, destroyed } = outcome else { continue };
        let (kind, proof) = recognition(&credential.kind);
        vnfcis.push(RearmedVnfci {
            vnfci: credential.vnfci.clone(),
            initial_credential: credential.id,
            generation: credential.generation,
            kind: kind.to_owned(),
            proof,
            expires_at: credential.expires_at,
        });
        erased.extend(destroyed.keys.iter().cloned());
    }
    let mut events = Vec::new();
    if !erased.is_empty() {
        let mut erasure = event.clone();
        erasure.id = uuid::Uuid::now_v7();
        erasure.kind = EventKind::KeysErased;
        let reason = DestructionReason::Rearmed;
        let details = ErasedDetails { reason, holder_copy: HolderCopy::Unknown };
        events.push(erasure.credentials(erased).details(details::json(&details)));
    }
    if !vnfcis.is_empty() {
        events.push(event.details(details::json(&RearmedDetails { vnfcis })));
    }
    events
}
