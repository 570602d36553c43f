//! Work that goes on by itself: producer, enroller, sweeper, sequencer, CRL publisher, each once among replicas, under a lease;
//! and in every one of them the look at the mirror of the log.

use crate::broker::complaint::Complaint;
use crate::broker::enrol_rounds::Enrolments;
use crate::broker::share::Share;
use crate::broker::{Broker, BrokerError, Wake};
use crate::nfv::{PoolId, TenantId};
use crate::store::records::Lease;
use futures_util::FutureExt;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How long a lease lasts; it is renewed at every round.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// Of those that write the log: they hold each step against the chain besides, and the mirror waits for them.
const LOG_LEASE: Duration = Duration::from_secs(10);
/// From a failed round to the next attempt.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Periods of rounds that nothing woke.
const PRODUCER_PERIOD: Duration = Duration::from_secs(5);
/// Every claim wakes the producer: what a storm takes within this time is looked at in one round.
const PRODUCER_SETTLING: Duration = Duration::from_millis(100);
const SWEEPER_PERIOD: Duration = Duration::from_secs(1);
const SEQUENCER_PERIOD: Duration = Duration::from_millis(200);
const HEAD_PERIOD: Duration = Duration::from_secs(2);
const PUBLISHER_PERIOD: Duration = Duration::from_secs(10);
const MIRROR_PERIOD: Duration = Duration::from_secs(1);
/// What clients see of another CA is the same at every broker within that time.
const AUTHORITIES_PERIOD: Duration = Duration::from_secs(1);
pub(super) const ALIVE_PERIOD: Duration = Duration::from_secs(5);
/// How long the end of the process waits for a tenant's own token. What is given up then is as after a crash.
const PARTING: Duration = Duration::from_secs(2);

/// A kind of background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// Refills pools.
    Producer,
    /// Fills pools of CAs outside.
    Enroller,
    /// Destroys, shreds, expires, receipts.
    Sweeper,
    /// Chains events.
    Sequencer,
    /// Has the chain's head signed.
    Head,
    /// Signs CRLs and certifies OCSP responders.
    Publisher,
    /// Looks for a rollback, of every broker; and mirrors the log, under a lease of its own.
    Mirror,
    /// Looks whether another broker took a CA into use. Of every broker, without a lease.
    Authorities,
    /// Shows and notes that the broker lives, and measures what tenants have of their quotas. Of every broker, without a lease
    /// but the one that shows it.
    Alive,
    /// Commits the sums of refusals. Of every broker, without a lease.
    Refusals,
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 10] = [
        Self::Producer,
        Self::Enroller,
        Self::Sweeper,
        Self::Sequencer,
        Self::Head,
        Self::Publisher,
        Self::Mirror,
        Self::Authorities,
        Self::Alive,
        Self::Refusals,
    ];

    /// Its name, and its lease's.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Enroller => "enroller",
            Self::Sweeper => "sweeper",
            Self::Sequencer => "sequencer",
            Self::Head => "head",
            Self::Publisher => "publisher",
            Self::Mirror => "mirror",
            Self::Authorities => "authorities",
            Self::Alive => "alive",
            Self::Refusals => "refusals",
        }
    }

    /// A round that failed is counted; the log has it unless it said the same just now.
    fn failed(self, error: &BrokerError, complaint: &Complaint) {
        metrics::counter!("keybroker_background_failures_total", "work" => self.as_str()).increment(1);
        let error = error.to_string();
        if complaint.is_due(&error, Instant::now()) {
            tracing::warn!(work = self.as_str(), error, "a round failed; it is tried again");
        }
    }

    /// How long its lease lasts.
    const fn lease(self) -> Duration {
        match self {
            Self::Sequencer | Self::Head => LOG_LEASE,
            _ => LEASE,
        }
    }

    /// From a round that nothing woke to the next.
    const fn period(self) -> Duration {
        match self {
            Self::Producer | Self::Enroller => PRODUCER_PERIOD,
            Self::Sweeper => SWEEPER_PERIOD,
            Self::Sequencer => SEQUENCER_PERIOD,
            Self::Head => HEAD_PERIOD,
            Self::Publisher => PUBLISHER_PERIOD,
            Self::Mirror => MIRROR_PERIOD,
            Self::Authorities => AUTHORITIES_PERIOD,
            Self::Alive | Self::Refusals => ALIVE_PERIOD,
        }
    }
}

/// What rounds over the pools of one share remember.
#[derive(Default)]
struct Memory {
    full: HashMap<PoolId, u32>,
    enrolments: Enrolments,
}

/// Rounds over one tenant's own token: beside all others, so that they do not wait for it.
#[derive(Default)]
struct Aside {
    memory: Arc<tokio::sync::Mutex<Memory>>,
    /// The one that is under way, or was the last.
    round: Option<AbortOnDropHandle<()>>,
}

/// The rounds of one broker, one after the other, and what it remembers between them.
pub struct Rounds {
    broker: Arc<Broker>,
    holder: String,
    /// Of the rounds over the broker's token.
    memory: Memory,
    /// The rounds over tenants' own tokens.
    asides: HashMap<TenantId, Aside>,
    /// The lease of the latest round.
    held: Option<Lease>,
    complaint: Arc<Complaint>,
}

impl Rounds {
    /// Of a broker that `holder` names among replicas.
    pub fn new(broker: &Arc<Broker>, holder: &str) -> Self {
        Self {
            broker: Arc::clone(broker),
            holder: holder.to_owned(),
            memory: Memory::default(),
            asides: HashMap::new(),
            held: None,
            complaint: Arc::default(),
        }
    }

    /// One round, if this broker has the lease for it; true while there is more to do.
    ///
    /// # Errors
    /// What failed: it is to be tried again.
    pub async fn take(&mut self, work: Work) -> Result<bool, BrokerError> {
        match work {
            Work::Mirror | Work::Authorities | Work::Alive | Work::Refusals => {
                self.take_without_lease(work).await
            }
            _ => match self.lease(work).await {
                Some(lease) => {
                    self.held = Some(lease.clone());
                    self.take_under(work, &lease).await
                }
                None => Ok(false),
            },
        }
    }

    /// One round under a lease that this broker was given, however long ago.
    ///
    /// # Errors
    /// As [`Rounds::take`]; `LEASE_LOST` if another broker has it by now and something was to be changed.
    pub async fn take_under(&mut self, work: Work, lease: &Lease) -> Result<bool, BrokerError> {
        match work {
            Work::Producer | Work::Enroller | Work::Sweeper | Work::Publisher => {
                self.go_aside(work, lease);
                self.broker.take_share(work, &Share::Common, &mut self.memory, lease).await
            }
            Work::Sequencer => self.broker.chain_events().await,
            Work::Head => self.broker.sign_head().await.map(|()| false),
            Work::Mirror | Work::Authorities | Work::Alive | Work::Refusals => {
                self.take_without_lease(work).await
            }
        }
    }

    /// Begins a round over each tenant's own token, unless the one before it is under way still.
    fn go_aside(&mut self, work: Work, lease: &Lease) {
        for tenant in self.broker.hsm.tenants_with_tokens() {
            let aside = self.asides.entry(tenant.clone()).or_default();
            if aside.round.as_ref().is_some_and(|round| !round.is_finished()) {
                continue;
            }
            let (broker, memory) = (Arc::clone(&self.broker), Arc::clone(&aside.memory));
            let (share, lease) = (Share::Own(tenant.clone()), lease.clone());
            let complaint = Arc::clone(&self.complaint);
            let round = async move {
                let mut memory = memory.lock().await;
                loop {
                    match broker.take_share(work, &share, &mut memory, &lease).await {
                        Ok(true) => tokio::task::yield_now().await,
                        Ok(false) => return,
                        Err(error) => {
                            work.failed(&error, &complaint);
                            tokio::time::sleep(AFTER_FAILURE).await;
                            // The next round has the lease of then.
                            return broker.wake.of(work).into_iter().for_each(Notify::notify_one);
                        }
                    }
                }
            };
            aside.round = Some(AbortOnDropHandle::new(tokio::spawn(round)));
        }
    }

    /// Ends the rounds over tenants' own tokens. One that hangs is left to its deadline.
    async fn end_asides(&mut self) {
        let rounds: Vec<_> = self.asides.drain().filter_map(|(_, aside)| aside.round).collect();
        if tokio::time::timeout(PARTING, futures_util::future::join_all(rounds)).await.is_err() {
            tracing::warn!("a tenant's own token did not answer: what was asked of it is given up");
        }
    }

    async fn take_without_lease(&mut self, work: Work) -> Result<bool, BrokerError> {
        match work {
            Work::Mirror => self.broker.mirror_log(&self.holder).await.map(|()| false),
            Work::Authorities => self.broker.follow_authorities().await.map(|()| false),
            Work::Refusals => self.broker.sum_up_refusals(false).await.map(|()| false),
            _ => {
                self.held = self.broker.show_presence(&self.holder).await?;
                self.broker.note_alive().await?;
                self.broker.measure_quotas().await.map(|()| false)
            }
        }
    }

    /// Lets another replica do this work from now on.
    async fn give_back(&mut self) {
        if let Some(lease) = self.held.take()
            && let Err(error) = self.broker.store.release_lease(&lease).await
        {
            tracing::warn!(work = lease.name, %error, "the lease was not given back; it runs out");
        }
    }

    /// The lease, while this broker has it. Nothing goes on by itself on a database that was rolled back, or may have been: it
    /// would go on from a state that is not the last one.
    pub async fn lease(&self, work: Work) -> Option<Lease> {
        if self.broker.doubt().is_some() {
            return None;
        }
        let store = &self.broker.store;
        let taken = async {
            let lease = store.acquire_lease(work.as_str(), &self.holder, work.lease()).await?;
            // One that slept through a recovery finds out here, however long it slept before it took the lease.
            store.look_back().await?;
            match (lease, self.broker.doubt()) {
                (Some(lease), Some(_)) => store.release_lease(&lease).await.map(|()| None),
                (lease, _) => Ok(lease),
            }
        };
        match taken.await {
            Ok(lease) => lease,
            Err(error) => {
                if self.complaint.is_due(&error.to_string(), Instant::now()) {
                    tracing::warn!(work = work.as_str(), %error, "no lease");
                }
                None
            }
        }
    }
}

impl Wake {
    /// Both that fill pools.
    pub(super) fn filling(&self) {
        self.producer.notify_one();
        self.enroller.notify_one();
    }

    /// What ends this work's rest.
    fn of(&self, work: Work) -> Option<&Notify> {
        match work {
            Work::Producer => Some(&self.producer),
            Work::Enroller => Some(&self.enroller),
            Work::Sweeper => Some(&self.sweeper),
            Work::Publisher => Some(&self.publisher),
            Work::Sequencer
            | Work::Head
            | Work::Mirror
            | Work::Authorities
            | Work::Alive
            | Work::Refusals => None,
        }
    }
}

impl Broker {
    /// One round over one share of the tokens.
    async fn take_share(
        &self,
        work: Work,
        share: &Share,
        memory: &mut Memory,
        lease: &Lease,
    ) -> Result<bool, BrokerError> {
        match work {
            Work::Producer => self.refill_pools(share, &mut memory.full, lease).await,
            Work::Enroller => self.enrol_pools(share, &mut memory.enrolments, lease).await,
            Work::Sweeper => self.sweep(share, lease).await,
            Work::Publisher => self.publish(share, lease).await.map(|()| false),
            Work::Sequencer
            | Work::Head
            | Work::Mirror
            | Work::Authorities
            | Work::Alive
            | Work::Refusals => Ok(false),
        }
    }
}

/// The running background work.
pub struct Background {
    broker: Arc<Broker>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    /// The sequencer, which chains what all others have committed and ends after them.
    sequencer: JoinSet<()>,
    close: CancellationToken,
}

impl Background {
    /// Starts all of it. `holder` names this process among replicas.
    pub fn start(broker: &Arc<Broker>, holder: &str) -> Self {
        let (stop, close) = (CancellationToken::new(), CancellationToken::new());
        let (mut tasks, mut sequencer) = (JoinSet::new(), JoinSet::new());
        for work in Work::ALL {
            let (broker, rounds) = (Arc::clone(broker), Rounds::new(broker, holder));
            let (among, stop) = match work {
                Work::Sequencer => (&mut sequencer, close.clone()),
                _ => (&mut tasks, stop.clone()),
            };
            among.spawn(Shift { broker, rounds, work, stop }.run());
        }
        Self { broker: Arc::clone(broker), tasks, stop, sequencer, close }
    }

    /// Commits what refusals were counted (no caller comes any more), ends every round that has begun and gives the leases back, so that another replica goes on at once.
    pub async fn stop(mut self) {
        if let Err(error) = self.broker.sum_up_refusals(true).await {
            tracing::warn!(%error, "the last refusals are not in the log");
        }
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.close.cancel();
        while self.sequencer.join_next().await.is_some() {}
        self.broker.give_back_the_turn().await;
    }
}

/// One kind of background work of this process.
struct Shift {
    broker: Arc<Broker>,
    rounds: Rounds,
    work: Work,
    stop: CancellationToken,
}

impl Shift {
    async fn run(mut self) {
        while !self.stop.is_cancelled() {
            // Unwind safety: the next round finds in the store what there is to do.
            let round = AssertUnwindSafe(self.rounds.take(self.work)).catch_unwind().await;
            let round = round.unwrap_or_else(|_| Err(BrokerError::Internal("the round panicked".to_owned())));
            let settled = !matches!(round, Ok(true));
            self.rest(round).await;
            if self.work == Work::Producer && settled && !self.stop.is_cancelled() {
                tokio::time::sleep(PRODUCER_SETTLING).await;
            }
        }
        if self.work == Work::Sequencer
            && let Err(error) = self.close_log().await
        {
            tracing::warn!(%error, "the last events are not chained yet; the next start does it");
        }
        self.rounds.end_asides().await;
        self.rounds.give_back().await;
    }

    /// What the last requests committed is chained, signed and mirrored before the process ends.
    async fn close_log(&self) -> Result<(), BrokerError> {
        if self.broker.doubt().is_some() {
            return Ok(());
        }
        while self.broker.chain_events().await? {}
        self.broker.sign_head().await?;
        self.broker.mirror_log(&self.rounds.holder).await
    }

    /// Waits until the next round is due: at once if there is more to do, soon after a failure, else when woken or after
    /// the period.
    async fn rest(&self, round: Result<bool, BrokerError>) {
        let period = match (self.work, self.rounds.memory.enrolments.pause()) {
            (Work::Enroller, Some(pause)) => pause.min(self.work.period()),
            _ => self.work.period(),
        };
        let wake = self.broker.wake.of(self.work);
        let pause = match round {
            Ok(true) => return tokio::task::yield_now().await,
            Ok(false) => period,
            Err(error) => {
                self.work.failed(&error, &self.rounds.complaint);
                AFTER_FAILURE.min(period)
            }
        };
        let woken = async {
            match wake {
                Some(wake) => wake.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
            () = woken => {}
        }
    }
}
