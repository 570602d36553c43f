//! The steps of a simulation: each asks something of a replica, and holds what comes back against the model.

use crate::ask::{claim_by, mutate, proof, request, signatures, unseal};
use crate::model::{Answered, Asked, Model, Vnfci};
use crate::world::{LEASE_AND_MORE, LEASED, World, tenant_id};
use keybroker::audit::event::EventKind;
use keybroker::authorisation::Caller;
use keybroker::broker::background::Work;
use keybroker::broker::confirm::Confirm;
use keybroker::broker::release::Release;
use keybroker::broker::{Broker, BrokerError};
use keybroker::clock::Timestamp;
use keybroker::identity::confirm::{confirm_message, release_message};
use keybroker::nfv::{CredentialId, RequestId};
use keybroker::sealing::RecipientKey;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Profiles with the pools that are made of them.
const POOLS: [(&str, &str); 3] =
    [("vnfci-transport", "transport"), ("vnfci-named", "named"), ("scarce", "scarce")];
/// VNFCIs that are looked at from one time on; further ones take the places of those that have ended.
const MOST_VNFCIS: usize = 24;
/// New recipient keys in one arming.
const REDRAWS: u32 = 3;
/// How long requests are kept by the broker, and a little less.
const REPEATED_WITHIN: Duration = Duration::from_secs(23 * 3_600);

pub(crate) struct Simulation {
    pub(crate) world: World,
    pub(crate) model: Model,
    pub(crate) random: StdRng,
    next_vnfci: u32,
    /// What every run begins with is there: from now on anything may be cut off.
    begun: bool,
}

/// What may have been done.
pub(crate) enum Told<T> {
    Done(T),
    /// Nothing was changed.
    Refused(BrokerError),
    /// Failed half way, or the answer was lost.
    Unknown,
}

impl Simulation {
    pub(crate) async fn begin(world: World, seed: u64) -> Self {
        let mut simulation = Self {
            world,
            model: Model::default(),
            random: StdRng::seed_from_u64(seed),
            next_vnfci: 0,
            begun: false,
        };
        for (profile, pool) in POOLS {
            let asked = Asked::CreatePool(pool.into(), profile.into(), 6);
            assert!(matches!(simulation.ask(asked).await, Told::Done(_)), "pool {pool}");
        }
        simulation.world.round(0, Work::Producer).await;
        simulation.begun = true;
        simulation
    }

    pub(crate) fn request_id(&mut self) -> RequestId {
        RequestId(uuid::Builder::from_random_bytes(self.random.random()).into_uuid())
    }

    /// A replica that works.
    pub(crate) fn replica(&mut self) -> usize {
        self.random.random_range(0..self.world.replicas.len())
    }

    pub(crate) fn any_vnfci(&mut self) -> Option<usize> {
        let all = self.model.vnfcis.len();
        (all > 0).then(|| self.random.random_range(0..all))
    }

    /// Whether what is about to be asked is cut off: after how many steps of the broker.
    fn cut(&mut self) -> Option<u32> {
        let polls = self.random.random_bool(0.06).then(|| self.random.random_range(1..30));
        polls.filter(|_| self.begun)
    }

    /// One step.
    pub(crate) async fn step(&mut self) {
        match self.random.random_range(0..1_000u32) {
            0..60 => self.register().await,
            60..340 => self.claim().await,
            340..520 => self.confirm().await,
            520..560 => self.terminate().await,
            560..600 => self.release().await,
            600..640 => self.rearm().await,
            640..648 => self.revoke().await,
            648..653 => self.back_up().await,
            653..656 => self.roll_back().await,
            656..680 => self.resize().await,
            680..720 => self.repeat().await,
            720..735 => self.request_renewal().await,
            735..780 => self.renew().await,
            780..815 => self.confirm_renewal().await,
            815..900 => self.work().await,
            900..925 => self.pass_time(),
            925..950 => self.race().await,
            950..970 => self.pause_or_resume().await,
            970..985 => self.break_hsm(),
            985..993 => {
                let index = self.replica();
                self.model.count("restart");
                self.world.restart(index).await;
            }
            993..996 => {
                self.model.count("restart of all");
                self.world.restart_all().await;
            }
            _ => {
                self.world.faults.clear();
                self.look().await;
            }
        }
    }

    /// Has a replica do something, perhaps cut off in the middle: then the replica dies with it.
    pub(crate) async fn told<T, F: Future<Output = Result<T, BrokerError>>>(
        &mut self,
        index: usize,
        work: impl FnOnce(Arc<Broker>) -> F,
    ) -> Told<T> {
        let broker = Arc::clone(&self.world.replicas[index].broker);
        let outcome = match self.cut() {
            None => Some(work(broker).await),
            Some(polls) => crate::cut_off(work(broker), polls).await,
        };
        match outcome {
            Some(Ok(done)) => Told::Done(done),
            Some(Err(BrokerError::Unavailable { .. } | BrokerError::Internal(_))) => Told::Unknown,
            Some(Err(refusal)) => Told::Refused(refusal),
            None => {
                self.model.count("cut off");
                self.world.restart(index).await;
                Told::Unknown
            }
        }
    }

    // What MANO asks.

    /// Asks for a mutation with a new request id and notes what came of it.
    pub(crate) async fn ask(&mut self, asked: Asked) -> Told<Vec<String>> {
        let (id, index) = (self.request_id(), self.replica());
        let told = self.told(index, |broker| mutate(broker, id, asked.clone())).await;
        if let Told::Done(outcome) = &told {
            let entry = (id, self.world.now(), asked, outcome.join(" "));
            self.model.requests.push(entry);
        }
        told
    }

    /// The same request again, some time later and by whichever replica, has the same outcome.
    async fn repeat(&mut self) {
        let now = self.world.now();
        self.model.requests.retain(|(_, at, ..)| now.since(*at) < REPEATED_WITHIN);
        let Some((id, _, asked, outcome)) = self.model.requests.choose(&mut self.random).cloned() else {
            return;
        };
        let index = self.replica();
        if let Told::Done(again) = self.told(index, |broker| mutate(broker, id, asked.clone())).await {
            assert_eq!(again.join(" "), outcome, "{asked:?} repeated");
            self.model.count("repeated");
        }
    }

    pub(crate) async fn register(&mut self) {
        let count = self.random.random_range(1..=3);
        let ids: Vec<String> = (0..count)
            .map(|_| {
                self.next_vnfci += 1;
                format!("vnfci-{}", self.next_vnfci)
            })
            .collect();
        let slots = self.random.random_range(1..=2);
        let pools: Vec<String> = (0..slots)
            .filter_map(|_| POOLS.choose(&mut self.random))
            .map(|(_, pool)| (*pool).to_owned())
            .collect();
        if let Told::Done(tokens) = self.ask(Asked::Register(ids.clone(), pools)).await {
            for (id, token) in ids.into_iter().zip(tokens) {
                self.model.count("registered");
                let vnfci = Vnfci::new(id, token, self.world.now());
                let ended = self.model.vnfcis.iter().position(|known| known.ended && !known.uncertain);
                match ended.filter(|_| self.model.vnfcis.len() >= MOST_VNFCIS) {
                    Some(place) => self.model.vnfcis[place] = vnfci,
                    None => self.model.vnfcis.push(vnfci),
                }
            }
        }
    }

    async fn terminate(&mut self) {
        let Some(index) = self.any_vnfci() else { return };
        let id = self.model.vnfcis[index].id.clone();
        let asked =
            if self.random.random_bool(0.5) { Asked::Terminate(id) } else { Asked::ScaleIn(vec![id]) };
        match self.ask(asked).await {
            Told::Done(_) => {
                self.model.count("terminated");
                let vnfci = &mut self.model.vnfcis[index];
                (vnfci.ended, vnfci.uncertain) = (true, false);
                let all = vnfci.take_all();
                self.model.end(all);
            }
            Told::Unknown => self.model.vnfcis[index].uncertain = true,
            Told::Refused(refusal) => panic!("a termination was refused: {refusal}"),
        }
    }

    async fn rearm(&mut self) {
        let Some(index) = self.any_vnfci() else { return };
        let id = self.model.vnfcis[index].id.clone();
        match self.ask(Asked::Rearm(id)).await {
            Told::Done(tokens) => {
                let now = self.world.now();
                let vnfci = &mut self.model.vnfcis[index];
                if tokens[0].starts_with("refused") {
                    assert!(vnfci.ended || vnfci.uncertain, "{}: {}", vnfci.id, tokens[0]);
                    return;
                }
                let lost = vnfci.uncertain;
                vnfci.arm(tokens[0].clone(), now);
                // If its confirmation was committed and the answer lost, it is in force until the next one.
                let open = [vnfci.open.take(), vnfci.renewing.take()];
                self.model.end(open.into_iter().flatten().filter(|_| !lost));
                self.model.count("re-armed");
            }
            Told::Unknown => self.model.vnfcis[index].uncertain = true,
            Told::Refused(refusal) => panic!("a re-arming was refused: {refusal}"),
        }
    }

    async fn revoke(&mut self) {
        let places = self.some_vnfcis();
        if places.is_empty() {
            return;
        }
        let told = self.ask(Asked::Revoke(self.ids_of(&places))).await;
        for place in places {
            let vnfci = &self.model.vnfcis[place];
            let held =
                vnfci.open.iter().chain(&vnfci.confirmed).chain(&vnfci.renewing).chain(&vnfci.superseded);
            let credentials: Vec<CredentialId> = held.flat_map(Answered::credentials).collect();
            match told {
                Told::Done(_) if !vnfci.uncertain => self.model.revoked.extend(credentials),
                // Nor is it known what it holds by an answer that was lost, and that it may still get.
                Told::Done(_) => {
                    self.model.revoked_again.insert(vnfci.id.clone());
                    self.model.revoked.extend(credentials);
                }
                _ => {
                    self.model.revoked_again.insert(vnfci.id.clone());
                    self.model.maybe_revoked.extend(credentials);
                }
            }
            self.model.count("revoked");
        }
    }

    async fn request_renewal(&mut self) {
        let places = self.some_vnfcis();
        if places.is_empty() {
            return;
        }
        if let Told::Done(told) = self.ask(Asked::RequestRenewal(self.ids_of(&places))).await {
            for (place, told) in places.into_iter().zip(told) {
                let vnfci = &self.model.vnfcis[place];
                let marked = told.starts_with("Ok");
                let certain = !vnfci.uncertain;
                assert!(!(certain && vnfci.ended && marked), "{} has ended: {told}", vnfci.id);
                let refused = certain && vnfci.spent && vnfci.confirmed.is_some() && !vnfci.ended && !marked;
                assert!(!refused, "{} holds credentials: {told}", vnfci.id);
                self.model.count("renewals requested");
            }
        }
    }

    /// One to five of them, each once.
    fn some_vnfcis(&mut self) -> Vec<usize> {
        let count = self.random.random_range(1..=5);
        let chosen: BTreeSet<usize> = (0..count).filter_map(|_| self.any_vnfci()).collect();
        chosen.into_iter().collect()
    }

    fn ids_of(&self, places: &[usize]) -> Vec<String> {
        places.iter().map(|place| self.model.vnfcis[*place].id.clone()).collect()
    }

    async fn resize(&mut self) {
        let Some((_, pool)) = POOLS.choose(&mut self.random) else { return };
        // At least as many as one VNFCI has slots: a pool that does not generate can serve no more at once.
        let target = self.random.random_range(2..12);
        if let Told::Done(_) = self.ask(Asked::ResizePool((*pool).to_owned(), target)).await {
            self.model.count("resized");
        }
    }

    // What VNFCIs ask.

    async fn claim(&mut self) {
        let Some(place) = self.any_vnfci() else { return };
        // Another recipient key: a reboot, or a clone of the VM. A token that is void: an attacker, or a bad disk.
        let rebooted = self.random.random_bool(0.15);
        let void = self.random.random_bool(0.1);
        let vnfci = &mut self.model.vnfcis[place];
        if rebooted {
            vnfci.recipient = Arc::new(RecipientKey::generate().unwrap());
        }
        let void = void.then(|| vnfci.void.last().cloned()).flatten();
        let token = void.clone().unwrap_or_else(|| Arc::clone(&vnfci.token));
        let recipient = Arc::clone(&vnfci.recipient);
        let (id, index, peer) = (self.request_id(), self.replica(), self.world.peer());
        let claim = claim_by(&peer, &token, &recipient, id);
        let told = self.told(index, |broker| async move { broker.claim(&peer, claim).await }).await;
        let now = self.world.now();
        let vnfci = &self.model.vnfcis[place];
        let certain = !vnfci.uncertain;
        match told {
            Told::Done(sealed) => {
                assert!(void.is_none(), "{} claimed with a void token", vnfci.id);
                assert!(!vnfci.voided, "{} claimed by what a recovery has voided", vnfci.id);
                assert!(!(certain && vnfci.ended), "{} claimed after its end", vnfci.id);
                assert!(!(certain && vnfci.spent), "{} claimed with a spent token", vnfci.id);
                let answered = unseal(&recipient, &token, sealed);
                self.answered(place, answered, certain, now);
                // What an answer that was lost had done, or a sweep, is known now.
                let id = self.model.vnfcis[place].id.parse().unwrap();
                let shown = self.world.store.vnfci(&tenant_id(), &id).await.unwrap();
                let vnfci = &mut self.model.vnfcis[place];
                assert!(shown.redraws <= REDRAWS, "{id}: {} redraws", shown.redraws);
                vnfci.redraws = shown.redraws;
                (vnfci.spent, vnfci.ended, vnfci.uncertain) = (false, false, false);
            }
            Told::Unknown => self.model.vnfcis[place].uncertain = true,
            Told::Refused(BrokerError::PoolEmpty { .. }) => self.model.count("empty"),
            Told::Refused(refusal) => {
                self.model.count("claims refused");
                let vnfci = &self.model.vnfcis[place];
                let expected = void.is_some() || vnfci.ended || vnfci.spent || vnfci.redraws >= REDRAWS;
                let expected = expected || vnfci.uncertain || vnfci.voided || now >= vnfci.expires_at;
                assert!(expected, "{} was refused: {refusal}", vnfci.id);
            }
        }
    }

    /// Two clones of a VM claim at the same time, at two replicas: no credential goes to both.
    async fn race(&mut self) {
        let Some(place) = self.any_vnfci() else { return };
        let token = Arc::clone(&self.model.vnfcis[place].token);
        let recipients = [(); 2].map(|()| Arc::new(RecipientKey::generate().unwrap()));
        let ids = [(); 2].map(|()| self.request_id());
        let peer = self.world.peer();
        let claim = |index: usize| {
            let broker = Arc::clone(&self.world.replicas[index % self.world.replicas.len()].broker);
            let claim = claim_by(&peer, &token, &recipients[index], ids[index]);
            let peer = peer.clone();
            async move { broker.claim(&peer, claim).await }
        };
        let (one, other) = tokio::join!(claim(0), claim(1));
        let known = (self.model.vnfcis[place].spent || self.model.vnfcis[place].ended)
            && !self.model.vnfcis[place].uncertain;
        let answers: Vec<Answered> = [one, other]
            .into_iter()
            .zip(&recipients)
            .filter_map(|(told, recipient)| Some(unseal(recipient, &token, told.ok()?)))
            .collect();
        assert!(answers.is_empty() || !known, "{} claimed what it may not", self.model.vnfcis[place].id);
        for answered in &answers {
            self.model.drawn(place, answered);
            self.model.count("raced");
        }
        // Who came last has it.
        let vnfci = &mut self.model.vnfcis[place];
        vnfci.open = None;
        vnfci.uncertain |= !known;
    }

    /// Notes an answer and what it ended.
    fn answered(&mut self, place: usize, answered: Answered, certain: bool, now: Timestamp) {
        let vnfci = &mut self.model.vnfcis[place];
        match vnfci.open.clone() {
            Some(open) if open.claim == answered.claim => {
                assert!(open.recipient_key == answered.recipient_key, "{}: sealed to a second key", vnfci.id);
                assert!(open.credentials() == answered.credentials(), "{}: other credentials", vnfci.id);
                self.model.count("claims replayed");
            }
            Some(open) => {
                let overdue = now >= open.confirm_by;
                let same = open.recipient_key == answered.recipient_key;
                assert!(!(certain && same && !overdue), "{}: an open claim was not found again", vnfci.id);
                // Of the same arming it cannot have been confirmed, which would have spent it.
                let of_this = open.token == answered.token;
                self.model.end(Some(open).filter(|_| of_this));
                self.model.count("claims redrawn");
            }
            None => self.model.count("claimed"),
        }
        self.model.drawn(place, &answered);
    }

    async fn confirm(&mut self) {
        // Mostly one that has something to confirm.
        let open: Vec<usize> =
            (0..self.model.vnfcis.len()).filter(|place| self.model.vnfcis[*place].open.is_some()).collect();
        let chosen = open.choose(&mut self.random).copied().filter(|_| self.random.random_bool(0.8));
        let Some(place) = chosen.or_else(|| self.any_vnfci()) else { return };
        // Mostly the latest claim; now and then one from before.
        let any = self.random.random_bool(0.15);
        let vnfci = &self.model.vnfcis[place];
        let chosen = if any { vnfci.answered.choose(&mut self.random) } else { vnfci.open.as_ref() };
        let Some(answered) = chosen.cloned() else { return };
        let (id, index, peer) = (self.request_id(), self.replica(), self.world.peer());
        let confirm = Confirm {
            request: request(id, "confirm", answered.claim.0.as_bytes()),
            claim: answered.claim,
            signatures: signatures(&answered, |key| {
                confirm_message(answered.claim, key.certificate, answered.recipient_key)
            }),
            token: Some(proof(&peer, &answered.token, id, answered.recipient_key)),
        };
        let told = self
            .told(index, |broker| async move {
                broker.confirm(&peer, confirm).await.map(|confirmation| confirmation.newly_confirmed)
            })
            .await;
        let now = self.world.now();
        let vnfci = &mut self.model.vnfcis[place];
        let is_open = vnfci.open.as_ref().is_some_and(|open| open.claim == answered.claim);
        let is_confirmed = vnfci.confirmed.as_ref().is_some_and(|known| known.claim == answered.claim);
        match told {
            Told::Done(newly) => {
                let ended =
                    answered.credentials().iter().any(|credential| self.model.ended.contains(credential));
                assert!(!(newly && ended), "{}: a claim that had ended was confirmed", vnfci.id);
                // Also after its end a claim that was confirmed is told so.
                let earlier = answered.token != vnfci.token || vnfci.ended;
                let before = vnfci.were_confirmed.contains(&answered.claim);
                let known = newly || is_confirmed || before || vnfci.uncertain || earlier;
                assert!(known, "{}: confirmed before, by whom?", vnfci.id);
                let may_be_open = is_open || vnfci.uncertain;
                assert!(may_be_open || !newly, "{}: a claim was confirmed that was not open", vnfci.id);
                if is_open || newly {
                    vnfci.open = None;
                    (vnfci.spent, vnfci.uncertain) = (true, false);
                    vnfci.were_confirmed.insert(answered.claim);
                    // What earlier armings brought is withdrawn, renewals of it too.
                    let before = vnfci.take_all();
                    vnfci.confirmed = Some(answered);
                    self.model.end(before);
                    self.model.count("confirmed");
                }
            }
            Told::Unknown => vnfci.uncertain = true,
            Told::Refused(refusal) => {
                let other = vnfci.ended || answered.token != vnfci.token || vnfci.uncertain;
                let too_late = !is_confirmed && (!is_open || now >= answered.confirm_by);
                assert!(other || too_late, "{}: an open claim could not be confirmed: {refusal}", vnfci.id);
                // It is destroyed by the next sweep; until then it is found again, and a start of the broker may move its
                // deadline.
                if is_open && !other && now >= answered.confirm_by {
                    self.model.count("overdue");
                }
            }
        }
    }

    async fn release(&mut self) {
        let Some(place) = self.any_vnfci() else { return };
        let Some(answered) = self.model.vnfcis[place].confirmed.clone() else { return };
        let (id, index) = (self.request_id(), self.replica());
        let release = Release {
            request: request(id, "release", answered.claim.0.as_bytes()),
            claim: answered.claim,
            signatures: signatures(&answered, |key| {
                release_message(answered.claim, key.certificate, answered.recipient_key)
            }),
        };
        let caller = Caller::vnfci(tenant_id(), self.model.vnfcis[place].id.parse().unwrap());
        let told = self.told(index, |broker| async move { broker.release(&caller, release).await }).await;
        let vnfci = &mut self.model.vnfcis[place];
        match told {
            Told::Done(_) => {
                // Unless it was armed anew since, it is gone.
                vnfci.ended |= vnfci.token == answered.token;
                vnfci.confirmed = None;
                let renewed = std::mem::take(&mut vnfci.superseded).into_iter().chain(vnfci.renewing.take());
                let others: Vec<Answered> = renewed.collect();
                self.model.end(others.into_iter().chain([answered]));
                self.model.count("released");
            }
            Told::Unknown => vnfci.uncertain = true,
            Told::Refused(refusal) => assert!(vnfci.uncertain, "{}: {refusal}", vnfci.id),
        }
    }

    // What happens by itself.

    async fn work(&mut self) {
        let work = [
            Work::Producer,
            Work::Producer,
            Work::Sweeper,
            Work::Sweeper,
            Work::Sequencer,
            Work::Head,
            Work::Publisher,
            Work::Mirror,
            Work::Alive,
        ];
        let Some(work) = work.choose(&mut self.random).copied() else { return };
        let (index, cut) = (self.replica(), self.cut());
        match cut {
            None => self.world.round(index, work).await,
            Some(polls) => {
                let rounds = &mut self.world.replicas[index].rounds;
                if crate::cut_off(rounds.take(work), polls * 4).await.is_none() {
                    self.model.count("work cut off");
                    self.world.restart(index).await;
                }
            }
        }
    }

    fn pass_time(&mut self) {
        let most: u64 = *[2, 2, 40, 40, 600, 1_200, 40_000].choose(&mut self.random).unwrap();
        self.world.clock.advance(Duration::from_secs(self.random.random_range(1..=most)));
        self.model.count("time passed");
    }

    /// A replica stops in the middle of its work, others go on, and it comes back with its lease gone: it may change
    /// nothing any more.
    async fn pause_or_resume(&mut self) {
        let index = self.replica();
        let Some((work, lease)) = self.world.replicas[index].paused.take() else {
            let Some(work) = LEASED.choose(&mut self.random).copied() else { return };
            let lease = self.world.replicas[index].rounds.lease(work).await;
            self.world.replicas[index].paused = lease.map(|lease| (work, lease));
            return;
        };
        self.world.faults.clear();
        self.world.clock.advance(LEASE_AND_MORE);
        let other = (index + 1) % self.world.replicas.len();
        for work in [work, Work::Sequencer] {
            while let Ok(true) = self.world.replicas[other].rounds.take(work).await {}
        }
        if self.world.replicas[other].rounds.lease(work).await.is_none() {
            return;
        }
        let before = self.world.store.unchained_events(1_000).await.unwrap().0.len();
        let outcome = self.world.replicas[index].rounds.take_under(work, &lease).await;
        let (events, _) = self.world.store.unchained_events(1_000).await.unwrap();
        if matches!(work, Work::Producer | Work::Sweeper | Work::Publisher) {
            let kinds: Vec<EventKind> = events.iter().skip(before).map(|event| event.event.kind).collect();
            // Whoever needs an epoch may open it.
            let allowed = [EventKind::EpochCreating, EventKind::EpochOpened];
            assert!(
                kinds.iter().all(|kind| allowed.contains(kind)),
                "{work:?} under a lease that is gone: {kinds:?}, {outcome:?}"
            );
        }
        self.model.count("resumed without a lease");
    }

    fn break_hsm(&mut self) {
        let functions = [
            "C_Sign",
            "C_WrapKey",
            "C_UnwrapKey",
            "C_GenerateKeyPair",
            "C_GenerateKey",
            "C_GenerateKey:token",
            "C_DestroyObject",
            "C_FindObjectsInit",
            "C_DeriveKey",
        ];
        let Some(function) = functions.choose(&mut self.random) else { return };
        let fault = if self.random.random_bool(0.3) { "crash" } else { "return 0x30" };
        self.world.faults.set(&format!("{function} {fault} times {}\n", self.random.random_range(1..=2)));
        self.model.count("HSM broken");
    }
}
