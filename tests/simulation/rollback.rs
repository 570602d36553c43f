//! The store is taken back to a backup, and recovered: what went out since is withdrawn and never delivered again.

use crate::ask::claim_by;
use crate::model::{Answered, Vnfci};
use crate::steps::Simulation;
use crate::world::{LEASE_AND_MORE, tenant_id};
use keybroker::audit::event::EventKind;
use keybroker::audit::export::ExportReader;
use keybroker::broker::background::Work;
use keybroker::nfv::{ClaimId, CredentialId};
use keybroker::sealing::RecipientKey;
use keybroker::store::StoreError;
use keybroker::store::records::VnfciState;
use rand::RngExt;
use std::collections::BTreeSet;

impl Simulation {
    pub(crate) async fn back_up(&mut self) {
        self.world.back_up();
        self.model.backup = Some(self.model.vnfcis.clone());
        self.model.count("backed up");
    }

    /// 1. Everything that was done is in the mirror; then the store is taken back.
    /// 2. Nothing is delivered.
    /// 3. It is recovered, perhaps in several attempts that end half way.
    /// 4. The model forgets what the database cannot know and the recovery ended.
    pub(crate) async fn roll_back(&mut self) {
        let Some(before) = self.model.backup.take() else { return };
        // 1.
        self.mirror_everything().await;
        let replicas = self.world.stop_all().await;
        self.world.restore();
        self.world.open_again().await;
        // Whoever had the turn to write the mirror, then or in the backup, is gone.
        self.world.clock.advance(LEASE_AND_MORE);
        let broker = self.world.start_broker().await;
        if broker.doubt().is_none() {
            // Nothing was done since the backup.
            return self.world.start_all(replicas).await;
        }
        // 2.
        if let Some(place) = self.any_vnfci() {
            let (id, peer) = (self.request_id(), self.world.peer());
            let recipient = RecipientKey::generate().unwrap();
            let claim = claim_by(&peer, &self.model.vnfcis[place].token, &recipient, id);
            assert!(broker.claim(&peer, claim).await.is_err(), "a database that was rolled back delivered");
        }
        drop(broker);
        // 3.
        loop {
            // Each attempt is a process of its own.
            self.world.store.close().await;
            self.world.open_again().await;
            let broker = self.world.start_broker().await;
            let recovering = broker.begin_recovering("recover", false).await.unwrap();
            let plan = broker.plan_recovery().await.unwrap();
            if plan.findings.is_empty() {
                broker.end_recovering(recovering).await;
                break;
            }
            let recovery = broker.recover(plan, &recovering);
            if self.random.random_bool(0.6) {
                let polls = self.random.random_range(1..200);
                if crate::cut_off(recovery, polls).await.is_none() {
                    self.model.count("recovery cut off");
                    // Its lease runs out.
                    self.world.clock.advance(LEASE_AND_MORE);
                }
            } else {
                recovery.await.unwrap();
            }
            broker.end_recovering(recovering).await;
        }
        self.world.checked = (0, None);
        self.world.start_all(replicas).await;
        // 4.
        self.model.requests.clear();
        for vnfci in std::mem::take(&mut self.model.vnfcis) {
            let earlier = before.iter().find(|earlier| earlier.id == vnfci.id);
            if let Some(vnfci) = self.recovered(vnfci, earlier).await {
                self.model.vnfcis.push(vnfci);
            }
        }
        let ended = std::mem::take(&mut self.model.ended);
        self.end_or_lose(ended).await;
        self.model.count("rolled back");
        self.look().await;
    }

    async fn mirror_everything(&mut self) {
        self.world.faults.clear();
        let position = self.world.directory.path().join("mirror/position.json");
        for _ in 0..100 {
            // Whoever had a lease may have died; a worker of the HSM is started again in the time of people.
            self.world.clock.advance(LEASE_AND_MORE);
            for work in [Work::Sequencer, Work::Head, Work::Mirror] {
                self.world.round(0, work).await;
            }
            let waiting = self.world.store.unchained_events(1).await.unwrap().1;
            let size = self.world.store.chain_tip().await.unwrap().size;
            let mirrored = std::fs::read(&position).ok().map(|json| {
                let position: serde_json::Value = serde_json::from_slice(&json).unwrap();
                position["size"].as_u64().unwrap()
            });
            if waiting == 0 && mirrored == Some(size) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the mirror lags for ever");
    }

    /// What is left of a VNFCI; none of one that was registered after the backup.
    async fn recovered(&mut self, mut vnfci: Vnfci, earlier: Option<&Vnfci>) -> Option<Vnfci> {
        // An answer was lost: what of it the backup had confirmed is not known here.
        let uncertain = vnfci.uncertain || earlier.is_some_and(|earlier| earlier.uncertain);
        let all: Vec<_> = vnfci.confirmed.iter().chain(&vnfci.superseded).chain(&vnfci.open).collect();
        let known = self.known_to_the_database(all.into_iter().chain(&vnfci.renewing)).await;
        let in_backup = |answered: &Answered| {
            earlier.is_some_and(|earlier| {
                let held = earlier.confirmed.iter().chain(&earlier.superseded);
                match earlier.uncertain {
                    true => known.contains(&answered.claim),
                    false => held.into_iter().any(|before| before.claim == answered.claim),
                }
            })
        };
        let kept = vnfci.confirmed.clone().filter(|confirmed| {
            let before = earlier.and_then(|earlier| earlier.confirmed.as_ref());
            // What an earlier arming brought may have been replaced by an answer that was lost before the later one.
            let latest =
                earlier.is_some_and(|earlier| earlier.token == vnfci.token) && confirmed.token == vnfci.token;
            !uncertain && latest && before.is_some_and(|before| before.claim == confirmed.claim)
        });
        // What a renewal replaced since is in its overlap, as it was before.
        let superseded = std::mem::take(&mut vnfci.superseded);
        let (superseded, not_known): (Vec<_>, Vec<_>) = superseded.into_iter().partition(in_backup);
        let mut gone: Vec<Answered> = vnfci.take_all();
        gone.retain(|answered| !in_backup(answered));
        self.end_or_lose(gone.iter().chain(&not_known).flat_map(Answered::credentials)).await;
        let id = vnfci.id.parse().unwrap();
        let shown = match self.world.store.vnfci(&tenant_id(), &id).await {
            Ok(shown) => shown,
            Err(StoreError::NotFound(_)) => return None,
            Err(error) => panic!("{error}"),
        };
        if !uncertain {
            let ended = matches!(shown.state, VnfciState::Released | VnfciState::Terminated);
            assert_eq!(ended, vnfci.ended, "{id} is {:?}", shown.state);
        }
        // One that was open counts, because it is destroyed before its deadline.
        vnfci.renewals_given_up += 1;
        vnfci.superseded = superseded;
        vnfci.confirmed = kept;
        vnfci.voided = true;
        vnfci.uncertain = uncertain || vnfci.confirmed.is_none() && !vnfci.ended;
        vnfci.answered.clear();
        Some(vnfci)
    }

    /// The claims of which the database knows every credential.
    async fn known_to_the_database(&self, claims: impl IntoIterator<Item = &Answered>) -> BTreeSet<ClaimId> {
        let mut known = BTreeSet::new();
        for answered in claims {
            known.insert(answered.claim);
            for id in answered.credentials() {
                match self.world.store.custody(None, id).await {
                    Ok(_) => {}
                    Err(StoreError::NotFound(_)) => {
                        known.remove(&answered.claim);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        known
    }

    /// What the database knows has ended; the rest is lost to it.
    async fn end_or_lose(&mut self, credentials: impl IntoIterator<Item = CredentialId>) {
        for id in credentials {
            match self.world.store.custody(None, id).await {
                Ok(custody) => {
                    assert!(custody.ended.is_some(), "its end is forgotten: {custody:?}");
                    self.model.ended.insert(id)
                }
                Err(StoreError::NotFound(_)) => self.model.lost.insert(id),
                Err(error) => panic!("{error}"),
            };
        }
    }

    /// A receipt that was ever given out is the one that stands, in whichever log.
    pub(crate) async fn receipts_stand(&self) {
        for entry in std::fs::read_dir(self.world.directory.path()).unwrap() {
            let directory = entry.unwrap().path();
            let name = directory.file_name().unwrap().to_string_lossy().into_owned();
            if !name.starts_with("mirror") || !directory.join("events.jsonl").exists() {
                continue;
            }
            for row in ExportReader::open(&directory).unwrap() {
                let event = row.unwrap().event;
                if event.kind != EventKind::DestructionReceipt {
                    continue;
                }
                let given: serde_json::Value = serde_json::from_str(&event.details).unwrap();
                match self.world.store.custody(None, event.credentials[0].id).await {
                    Ok(custody) => {
                        let stands = custody.receipt.as_deref().map(serde_json::from_str);
                        assert_eq!(stands.transpose().unwrap(), Some(given), "in {name}");
                    }
                    Err(error) => assert!(matches!(error, StoreError::NotFound(_)), "{error}"),
                }
            }
        }
    }
}
