//! VNFCIs from their registration to their end, in cohorts that MANO starts and ends together.

use super::mano::pause;
use super::{OVERLAP, Place, ledger::InForce};
use crate::support::mano::{By, announce, armament, pool_request, registered, request_id};
use crate::support::site::{ANCHOR, Site};
use crate::support::vnfci::{Claimed, Delivered, Initial, Vnfci};
use keybroker::api::proto;
use keybroker::clock::{Clock, SystemClock};
use keybroker::nfv::RequestId;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::{Code, Status};

mod enrolled;

/// Slots that VNFCIs have, from the pools that are there all the time.
const SHAPES: [&[(&str, &str)]; 5] = [
    &[("a", "transport")],
    &[("a", "transport"), ("b", "transport")],
    &[("a", "transport"), ("b", "named")],
    &[("a", "named")],
    &[("a", "scarce"), ("b", "scarce")],
];
/// Less than the tenant's deadline for a confirmation by what a busy machine may take.
const SURELY_IN_TIME: Duration = Duration::from_secs(25);
/// Armings of a VNFCI that a clone or a late packet of its former self robbed of its claims.
const ARMINGS: u32 = 5;

/// Cohorts, one after the other.
pub(super) async fn cohorts(place: Arc<Place>, lane: usize) {
    for number in 0.. {
        if place.is_over() {
            return;
        }
        let mut dice = place.dice((lane, number));
        let name = format!("{lane}-{number}");
        match dice.random_range(0..10) {
            0 => whole_vnf(&place, &mut dice, &name).await,
            1 => enrolled::cohort(&place, &mut dice, &name).await,
            _ => usual(&place, &mut dice, &name).await,
        }
    }
}

/// VNFCIs of a VNF that goes on: each ends in its own way, or stays.
async fn usual(place: &Arc<Place>, dice: &mut StdRng, name: &str) {
    let ids: Vec<String> = (0..dice.random_range(1..=4)).map(|n| format!("amf-{name}-{n}")).collect();
    let shape = SHAPES.choose(dice).unwrap();
    let by = if dice.random_bool(0.5) { By::Certificate } else { By::Token };
    let Some(vnfcis) = register(place, dice, &ids, shape, by, None).await else { return };
    let lives = live_all(place, dice, vnfcis).await;

    let (mut left, mut last) = (Vec::new(), Vec::new());
    for life in lives {
        match dice.random_range(0..10) {
            0 => place.ledger.count("stays"),
            1..=3 => life.release(dice).await,
            _ => {
                left.push(life.vnfci.id.clone());
                last.extend(life.keys);
            }
        }
    }
    if left.is_empty() {
        return;
    }
    end(place, dice, &left).await;
    refused_everywhere(place, dice, &last).await;
}

/// A VNF instance with a pool of its own, which MANO ends as a whole.
async fn whole_vnf(place: &Arc<Place>, dice: &mut StdRng, name: &str) {
    let vnf = format!("vnf-{name}");
    let create = proto::CreatePoolRequest {
        vnf_instance_id: vnf.clone(),
        profile: ["vnfci-transport", "vnfci-named"].choose(dice).unwrap().to_string(),
        ..pool_request(&vnf, dice.random_range(1..6))
    };
    if place.ask_surely(dice, create).await.is_none() {
        return;
    }
    let ids: Vec<String> = (0..dice.random_range(1..=4)).map(|n| format!("{vnf}-{n}")).collect();
    let slots = [("a", vnf.as_str())];
    let Some(vnfcis) = register(place, dice, &ids, &slots, By::Token, Some(&vnf)).await else { return };
    let lives = live_all(place, dice, vnfcis).await;

    let terminate = |expected: usize| proto::TerminateVnfRequest {
        request_id: request_id(),
        tenant: String::new(),
        vnf_instance_id: vnf.clone(),
        expected_count: Some(u32::try_from(expected).unwrap()),
        storage_wiped: true,
    };
    match place.ask(dice, terminate(ids.len() + 1)).await {
        Err(status) if status.code() == Code::FailedPrecondition => {}
        other => place.ledger.fault(format!("{vnf} was ended with a wrong number: {other:?}")),
    }
    let Some(answer) = place.ask_surely(dice, terminate(ids.len())).await else { return };
    if answer.terminated != ids.len() as u64 {
        place.ledger.fault(format!("{vnf} had {} VNFCIs: {answer:?}", ids.len()));
    }
    ids.iter().for_each(|id| place.ledger.ended(id));
    let last: Vec<Delivered> = lives.into_iter().flat_map(|life| life.keys).collect();
    refused_everywhere(place, dice, &last).await;
    let delete = proto::DeletePoolRequest { request_id: request_id(), tenant: String::new(), name: vnf };
    place.ask_surely(dice, delete).await;
}

async fn register(
    place: &Arc<Place>,
    dice: &mut StdRng,
    ids: &[String],
    slots: &[(&str, &str)],
    by: By,
    vnf: Option<&str>,
) -> Option<Vec<Vnfci>> {
    let (vnfcis, mut announced) = announce(&place.sites[0].mano_ca, ANCHOR, ids, slots, by);
    if let Some(vnf) = vnf {
        announced.iter_mut().for_each(|one| one.vnf_instance_id = vnf.to_owned());
    }
    let request =
        proto::RegisterVnfcisRequest { request_id: request_id(), tenant: String::new(), vnfcis: announced };
    let answer = place.ask_surely(dice, request).await?;
    Some(registered(vnfcis, answer.results))
}

/// Ends VNFCIs by MANO.
async fn end(place: &Arc<Place>, dice: &mut StdRng, ids: &[String]) {
    let (tenant, storage_wiped) = (String::new(), dice.random_bool(0.5));
    match dice.random_range(0..4) {
        0 => {
            for vnfci_id in ids.iter().cloned() {
                let (request_id, tenant) = (request_id(), tenant.clone());
                let request = proto::TerminateVnfciRequest { request_id, tenant, vnfci_id, storage_wiped };
                place.ask_surely(dice, request).await;
            }
        }
        1 => {
            let certificates = ids.iter().map(|id| proto::CertificateSelector {
                certificates: Some(proto::certificate_selector::Certificates::VnfciId(id.clone())),
            });
            let request = proto::RevokeCertificateRequest {
                request_id: request_id(),
                reason: proto::RevocationReason::KeyCompromise.into(),
                certificates: certificates.collect(),
                ..Default::default()
            };
            let answer = place.ask_surely(dice, request).await;
            for (n, id) in ids.iter().enumerate() {
                // One that never came to claim has none to be revoked.
                let had_any = place.ledger.revoked(id);
                let wrong =
                    answer.as_ref().map(|answer| &answer.results[n]).filter(|one| !one.error.is_empty());
                if let Some(wrong) = wrong.filter(|_| had_any) {
                    place.ledger.fault(format!("revoking {id}: {wrong:?}"));
                }
            }
            return;
        }
        _ => {
            let vnfci_ids = ids.to_vec();
            let request =
                proto::ScaleInRequest { request_id: request_id(), tenant, vnfci_ids, storage_wiped };
            if let Some(answer) = place.ask_surely(dice, request).await
                && answer.results.iter().any(|result| !result.error.is_empty() || !result.newly_terminated)
            {
                place.ledger.fault(format!("a scale-in of {ids:?}: {answer:?}"));
            }
        }
    }
    ids.iter().for_each(|id| place.ledger.ended(id));
}

/// What was withdrawn is refused by both brokers from the answer on, whichever gave it.
async fn refused_everywhere(place: &Arc<Place>, dice: &mut StdRng, keys: &[Delivered]) {
    let Some(key) = keys.choose(dice) else { return };
    for site in &place.sites {
        let knocked = place.persistently("a knock", dice, |_| key.trust_chain(site)).await;
        match knocked {
            Err(status) if status.code() == Code::Unauthenticated => place.ledger.count("refused afterwards"),
            // It never answered, which is told already.
            Err(status) if status.code() != Code::Ok => {}
            _ => place.ledger.fault(format!("{} was withdrawn and is accepted", key.credential_id)),
        }
    }
}

async fn live_all(place: &Arc<Place>, dice: &mut StdRng, vnfcis: Vec<Vnfci>) -> Vec<Life> {
    let mut living = JoinSet::new();
    for vnfci in vnfcis {
        let (place, mut own) = (Arc::clone(place), place.dice((&vnfci.id, dice.random::<u64>())));
        let life = Life { place, vnfci, keys: Vec::new(), latest: None, robbed: false };
        living.spawn(async move { life.live(&mut own).await });
    }
    living.join_all().await
}

/// One VNFCI.
struct Life {
    place: Arc<Place>,
    vnfci: Vnfci,
    /// What is in force.
    keys: Vec<Delivered>,
    latest: Option<Claimed>,
    /// Somebody else had its initial credential, too, or it lost its recipient key.
    robbed: bool,
}

impl Life {
    async fn live(mut self, dice: &mut StdRng) -> Self {
        if dice.random_bool(0.04) {
            self.place.ledger.count("never claims");
            return self;
        }
        if dice.random_bool(0.08) {
            self.be_cloned(dice).await;
        }
        if !self.boot(dice).await {
            return self;
        }
        for _ in 0..dice.random_range(0..=2) {
            pause(dice).await;
            if self.place.is_over() {
                break;
            }
            self.renew(dice).await;
        }
        if dice.random_bool(0.15) && !self.place.is_over() {
            let old = self.keys[0].clone();
            self.rearm(dice).await;
            // Whoever works is not cut off before there is something new.
            self.knock(dice, &old).await;
            self.boot(dice).await;
        }
        self
    }

    /// Claims and confirms. False if it stays silent on purpose.
    async fn boot(&mut self, dice: &mut StdRng) -> bool {
        for _ in 0..ARMINGS {
            let claimed = match self.claim(dice).await {
                Ok(claimed) => claimed,
                Err(status) => {
                    if status.code() != Code::Unauthenticated || !self.robbed {
                        let id = &self.vnfci.id;
                        self.place.ledger.fault(format!("the claim of {id}: {status:?}"));
                        return false;
                    }
                    self.rearm(dice).await;
                    continue;
                }
            };
            let answered = Instant::now();
            if dice.random_bool(0.08) {
                // It lost what it had before it could use it.
                self.vnfci = self.vnfci.rebooted();
                self.robbed = true;
                continue;
            }
            if self.latest.is_none() && dice.random_bool(0.05) {
                self.place.ledger.count("stays silent");
                return false;
            }
            let (vnfci, by_initial) = (&self.vnfci, &claimed);
            let confirm = |site: Arc<Site>| async move { vnfci.confirm(&site, by_initial).await };
            let confirmed = self.place.persistently("a confirmation", dice, confirm).await;
            if self.is_confirmed(confirmed, answered) {
                self.take(claimed);
                if dice.random_bool(0.3) {
                    self.confirm_again(dice).await;
                }
                let key = self.keys.choose(dice).unwrap().clone();
                self.knock(dice, &key).await;
                return true;
            }
        }
        let id = &self.vnfci.id;
        self.place.ledger.fault(format!("{id} was armed {ARMINGS} times and never got through"));
        false
    }

    async fn claim(&mut self, dice: &mut StdRng) -> Result<Claimed, Status> {
        let (vnfci, request) = (&self.vnfci, RequestId::generate());
        let what = format!("the claim of {}", vnfci.id);
        let claim = |site: Arc<Site>| async move { vnfci.claim_as(&site, request).await };
        let claimed = self.place.persistently(&what, dice, claim).await?;
        self.place.ledger.unsealed(&vnfci.id, &claimed);
        if dice.random_bool(0.15) {
            let begun = Instant::now();
            let claim = |site: Arc<Site>| async move { vnfci.claim(&site).await };
            let again = self.place.persistently(&what, dice, claim).await?;
            self.place.ledger.unsealed(&vnfci.id, &again);
            let same = again.response.claim_id == claimed.response.claim_id;
            if !same && !self.robbed && begun.elapsed() < SURELY_IN_TIME {
                self.place.ledger.fault(format!("{what}: the same recipient key got another claim"));
            }
            return Ok(again);
        }
        Ok(claimed)
    }

    /// Somebody has a copy of its initial credential, and both claim at the same time. What the clone gets is never confirmed.
    async fn be_cloned(&mut self, dice: &mut StdRng) {
        self.robbed = true;
        let clone = self.vnfci.rebooted();
        let (here, there) = (Arc::clone(&self.place.sites[0]), Arc::clone(&self.place.sites[1]));
        let (mine, theirs) = tokio::join!(self.vnfci.claim(&here), clone.claim(&there));
        for (who, claimed) in [(&self.vnfci, mine), (&clone, theirs)] {
            claimed.iter().for_each(|claimed| self.place.ledger.unsealed(&who.id, claimed));
        }
        if dice.random_bool(0.5) {
            self.vnfci = clone;
        }
    }

    /// Whether a confirmation went well; if it was too late, whether it may have been.
    fn is_confirmed(&self, confirmed: Result<bool, Status>, answered: Instant) -> bool {
        match confirmed {
            Ok(_) => true,
            Err(status) => {
                let late = status.code() == Code::FailedPrecondition;
                if !late || (!self.robbed && answered.elapsed() < SURELY_IN_TIME) {
                    let after = answered.elapsed();
                    let id = &self.vnfci.id;
                    self.place.ledger.fault(format!("confirming {id} after {after:?}: {status:?}"));
                }
                self.place.ledger.count("confirmed too late");
                false
            }
        }
    }

    /// From now on this is what it uses.
    fn take(&mut self, claimed: Claimed) {
        self.place.ledger.acknowledged(&self.vnfci.id, &claimed);
        self.keys.clone_from(&claimed.keys);
        self.latest = Some(claimed);
    }

    /// A confirmation that is repeated is acknowledged, whichever broker it comes to.
    async fn confirm_again(&self, dice: &mut StdRng) {
        let Some(claimed) = &self.latest else { return };
        let vnfci = &self.vnfci;
        let again = |site: Arc<Site>| async move { vnfci.confirm(&site, claimed).await };
        match self.place.persistently("confirming again", dice, again).await {
            Ok(false) => {}
            other => self.place.ledger.fault(format!("{} confirmed again: {other:?}", self.vnfci.id)),
        }
    }

    /// A certificate that is in force is accepted everywhere.
    async fn knock(&self, dice: &mut StdRng, key: &Delivered) {
        let knock = |site: Arc<Site>| async move { key.trust_chain(&site).await };
        if let Err(status) = self.place.persistently("a knock", dice, knock).await {
            let id = &self.vnfci.id;
            self.place.ledger.fault(format!("{id} with {} in force: {status:?}", key.credential_id));
        }
    }

    async fn renew(&mut self, dice: &mut StdRng) {
        if dice.random_bool(0.4) {
            self.be_asked_to_renew(dice).await;
        }
        let renewing = self.vnfci.rebooted();
        for _ in 0..ARMINGS {
            let old = self.keys.choose(dice).unwrap().clone();
            let what = format!("the renewal of {}", self.vnfci.id);
            let (renewing, held) = (&renewing, &old);
            let renew = |site: Arc<Site>| async move { renewing.renew(&site, held).await };
            let renewed = match self.place.persistently(&what, dice, renew).await {
                Ok(renewed) => renewed,
                Err(status) => return self.place.ledger.fault(format!("{what}: {status:?}")),
            };
            self.place.ledger.unsealed(&self.vnfci.id, &renewed);
            let answered = Instant::now();
            let by = if dice.random_bool(0.5) { &old } else { &renewed.keys[0] };
            let new = &renewed;
            let confirm =
                |site: Arc<Site>| async move { Ok(new.confirm_by(&site, by).await?.newly_confirmed) };
            let mut confirmed = self.place.persistently(&what, dice, confirm).await;
            if matches!(&confirmed, Err(status) if status.code() == Code::Unauthenticated)
                && answered.elapsed() >= OVERLAP
            {
                // An earlier attempt came through, its answer did not, and the overlap is over: the new one counts.
                let confirm = |site: Arc<Site>| async move {
                    Ok(new.confirm_by(&site, &new.keys[0]).await?.newly_confirmed)
                };
                confirmed = self.place.persistently(&what, dice, confirm).await;
            }
            if self.is_confirmed(confirmed, answered) {
                self.place.ledger.count("renewed");
                return self.take(renewed);
            }
        }
        self.place.ledger.fault(format!("{} never renewed", self.vnfci.id));
    }

    async fn be_asked_to_renew(&self, dice: &mut StdRng) {
        let request = proto::RequestRenewalRequest {
            request_id: request_id(),
            tenant: String::new(),
            vnfci_ids: vec![self.vnfci.id.clone()],
        };
        let Some(answer) = self.place.ask_surely(dice, request).await else { return };
        if answer.results.iter().any(|result| !result.error.is_empty() || !result.newly_requested) {
            self.place.ledger.fault(format!("a renewal requested: {answer:?}"));
        }
        let key = &self.keys[0];
        let ask = |site: Arc<Site>| async move { key.trust_chain(&site).await };
        if let Ok(told) = self.place.persistently("when to renew", dice, ask).await {
            let due = told.renew_after.map_or(i64::MAX, |due| due.seconds);
            if due > SystemClock.now().unix_seconds() {
                self.place.ledger.fault(format!("{} was not told to renew", self.vnfci.id));
            }
        }
    }

    /// MANO gives it a new initial credential.
    async fn rearm(&mut self, dice: &mut StdRng) {
        let id = self.vnfci.id.clone();
        let by = if dice.random_bool(0.5) { By::Certificate } else { By::Token };
        let (credential, kind) = armament(&self.place.sites[0].mano_ca, ANCHOR, &id, by);
        let initial_credential = proto::InitialCredential { kind: Some(kind), expires_at: None };
        let request = proto::RearmVnfcisRequest {
            request_id: request_id(),
            tenant: String::new(),
            vnfcis: vec![proto::Rearming {
                vnfci_id: id.clone(),
                initial_credential: Some(initial_credential),
            }],
        };
        let Some(mut answer) = self.place.ask_surely(dice, request).await else { return };
        let result = answer.results.remove(0);
        if !result.error.is_empty() {
            return self.place.ledger.fault(format!("re-arming {id}: {}", result.error));
        }
        let token = (!result.token.is_empty()).then(|| result.token.into());
        self.vnfci = Vnfci::new(&id, Initial { credential, token });
        self.robbed = false;
    }

    /// It gives its credentials back by itself.
    async fn release(self, dice: &mut StdRng) {
        let Some(latest) = &self.latest else { return };
        let release = |site: Arc<Site>| async move { latest.release(&site).await };
        match self.place.persistently("a release", dice, release).await {
            Ok(serials) => {
                let told: Vec<Vec<u8>> = serials.iter().map(|serial| hex::decode(serial).unwrap()).collect();
                let held = InForce::Delivered(self.keys.clone()).serials();
                if held.iter().any(|serial| !told.contains(serial)) {
                    self.place.ledger.fault(format!("{} released, and was told {serials:?}", self.vnfci.id));
                }
                self.place.ledger.ended(&self.vnfci.id);
                self.place.ledger.count("released");
            }
            Err(status) => self.place.ledger.fault(format!("{} releases: {status:?}", self.vnfci.id)),
        }
        refused_everywhere(&self.place, dice, &self.keys).await;
    }
}
