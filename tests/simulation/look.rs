//! What must be true: now and then, and in the end.

use crate::ask::{claim_by, unseal};
use crate::model::{Answered, Asked};
use crate::steps::{Simulation, Told};
use crate::world::{LEASE_AND_MORE, tenant_id};
use keybroker::broker::BrokerError;
use keybroker::broker::background::Work;
use keybroker::clock::Timestamp;
use keybroker::credential::{CertificateState, KeyState};
use std::sync::Arc;
use std::time::Duration;

impl Simulation {
    /// Holds store, token and log against each other and against the model.
    pub(crate) async fn look(&mut self) {
        self.world.check().await;
        for vnfci in &self.model.vnfcis {
            let shown = self.world.store.vnfci(&tenant_id(), &vnfci.id.parse().unwrap()).await.unwrap();
            for held in &shown.credentials {
                let id = held.credential.id;
                let holder = self.model.holders.get(&id);
                assert!(
                    holder.is_none_or(|(holder, _)| *holder == vnfci.id),
                    "{id} is {holder:?}'s and {}'s",
                    vnfci.id
                );
                let over = self.model.ended.contains(&id);
                let kept =
                    matches!(held.key_state, KeyState::Generated | KeyState::Available | KeyState::Claimed);
                assert!(!(over && kept), "{id} has ended and is {}", held.key_state);
                assert!(
                    !(over && held.state == CertificateState::Valid),
                    "{id} has ended and its certificate is valid"
                );
            }
            if vnfci.uncertain {
                continue;
            }
            let delivered = |id| {
                shown
                    .credentials
                    .iter()
                    .any(|held| held.credential.id == id && held.key_state == KeyState::Delivered)
            };
            for key in vnfci.confirmed.iter().flat_map(|confirmed| &confirmed.keys) {
                assert!(
                    delivered(key.credential),
                    "{}: {} was acknowledged and is not delivered",
                    vnfci.id,
                    key.credential
                );
            }
        }
    }

    /// Lets everything come to rest, then: every key that has ended is shredded and receipted, no claim is left half
    /// way, and whoever may claim gets credentials.
    pub(crate) async fn end(mut self) {
        self.world.faults.clear();
        for index in 0..self.world.replicas.len() {
            self.world.restart(index).await;
        }
        self.world.settle().await;
        // Longer than any overlap.
        for vnfci in &mut self.model.vnfcis {
            let superseded = std::mem::take(&mut vnfci.superseded);
            self.model.ended.extend(superseded.iter().flat_map(Answered::credentials));
        }
        self.look().await;
        for id in &self.model.ended {
            let custody = self.world.store.custody(None, *id).await.unwrap();
            assert!(custody.shredded_at.is_some() && custody.receipt.is_some(), "{custody:?}");
        }
        self.receipts_stand().await;
        for place in 0..self.model.vnfcis.len() {
            let id = self.model.vnfcis[place].id.clone();
            let shown = self.world.store.vnfci(&tenant_id(), &id.parse().unwrap()).await.unwrap();
            let left = shown.credentials.iter().filter(|held| held.key_state == KeyState::Claimed);
            assert_eq!(left.count(), 0, "{id}: claimed for ever");
            // Whatever it went through, MANO can bring it back, unless it ended it.
            let tokens = loop {
                match self.ask(Asked::Rearm(id.clone())).await {
                    Told::Done(tokens) => break tokens,
                    Told::Unknown => {}
                    Told::Refused(refusal) => panic!("{id}: {refusal}"),
                }
            };
            if tokens[0].starts_with("refused") {
                continue;
            }
            let now = self.world.now();
            let vnfci = &mut self.model.vnfcis[place];
            let lost = vnfci.uncertain;
            vnfci.arm(tokens[0].clone(), now);
            let open = [vnfci.open.take(), vnfci.renewing.take()];
            self.model.end(open.into_iter().flatten().filter(|_| !lost));
            for _ in 0..50 {
                // Whoever had the producer's lease may have died.
                self.world.clock.advance(LEASE_AND_MORE);
                self.world.round(0, Work::Producer).await;
                self.claim_plainly(place).await;
                if self.model.vnfcis[place].open.is_some() {
                    break;
                }
            }
            assert!(self.model.vnfcis[place].open.is_some(), "{id} gets nothing any more");
        }
        self.look().await;
    }

    /// Registers a VNFCI that claims and does not confirm; gives its deadline.
    pub(crate) async fn one_open_claim(&mut self) -> Timestamp {
        self.world.round(0, Work::Alive).await;
        self.register().await;
        self.claim_plainly(0).await;
        self.model.vnfcis[0].open.as_ref().unwrap().confirm_by
    }

    async fn claim_plainly(&mut self, place: usize) {
        let vnfci = &self.model.vnfcis[place];
        let (recipient, token) = (Arc::clone(&vnfci.recipient), Arc::clone(&vnfci.token));
        let (id, peer) = (self.request_id(), self.world.peer());
        let claim = claim_by(&peer, &token, &recipient, id);
        match self.world.replicas[0].broker.claim(&peer, claim).await {
            Ok(sealed) => {
                let answered = unseal(&recipient, &token, sealed);
                self.model.drawn(place, &answered);
            }
            Err(error @ (BrokerError::PoolEmpty { .. } | BrokerError::Unavailable { .. })) => {
                eprintln!("{}: {error}", self.model.vnfcis[place].id);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{}: {error}", self.model.vnfcis[place].id),
        }
    }
}
