//! Work that goes on by itself: producer, enroller, sweeper, sequencer, CRL publisher, each once among replicas, under a lease;
//! and in every one of them the mirror of the log.

use crate::broker::enrol_pool::Enrolments;
use crate::broker::{Broker, BrokerError};
use crate::nfv::PoolId;
use crate::store::records::Lease;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a lease lasts; it is renewed at every round.
pub(super) const LEASE: Duration = Duration::from_secs(30);
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
const ALIVE_PERIOD: Duration = Duration::from_secs(5);

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
    /// Looks for a rollback and mirrors the log. Of every broker, without a lease.
    Mirror,
    /// Notes that the broker lives. Of every broker, without a lease.
    Alive,
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 8] = [
        Self::Producer,
        Self::Enroller,
        Self::Sweeper,
        Self::Sequencer,
        Self::Head,
        Self::Publisher,
        Self::Mirror,
        Self::Alive,
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
            Self::Alive => "alive",
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
            Self::Alive => ALIVE_PERIOD,
        }
    }
}

/// The rounds of one broker, one after the other, and what it remembers between them.
pub struct Rounds {
    broker: Arc<Broker>,
    full: HashMap<PoolId, u32>,
    enrolments: Enrolments,
    /// The lease of the latest round.
    held: Option<Lease>,
}

impl Rounds {
    /// Of a broker.
    pub fn new(broker: &Arc<Broker>) -> Self {
        let (full, enrolments) = (HashMap::new(), Enrolments::default());
        Self { broker: Arc::clone(broker), full, enrolments, held: None }
    }

    /// One round, if this broker has the lease for it; true while there is more to do.
    ///
    /// # Errors
    /// What failed: it is to be tried again.
    pub async fn take(&mut self, work: Work) -> Result<bool, BrokerError> {
        match work {
            Work::Mirror | Work::Alive => self.take_without_lease(work).await,
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
            Work::Producer => self.broker.refill_pools(&mut self.full, lease).await,
            Work::Enroller => self.broker.enrol_pools(&mut self.enrolments, lease).await,
            Work::Sweeper => self.broker.sweep(lease).await,
            Work::Sequencer => self.broker.chain_events().await,
            Work::Head => self.broker.sign_head().await.map(|()| false),
            Work::Publisher => self.broker.publish(lease).await.map(|()| false),
            Work::Mirror | Work::Alive => self.take_without_lease(work).await,
        }
    }

    async fn take_without_lease(&self, work: Work) -> Result<bool, BrokerError> {
        match work {
            Work::Mirror => self.broker.mirror_log().await,
            _ => Ok(self.broker.note_alive().await.map(|()| false)?),
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

    /// The lease, while this broker has it. Nothing goes on by itself on a database that was rolled back: it would go on
    /// from a state that is not the last one.
    pub async fn lease(&self, work: Work) -> Option<Lease> {
        if self.broker.rolled_back().is_some() {
            return None;
        }
        match self.broker.store.acquire_lease(work.as_str(), &self.broker.holder, LEASE).await {
            Ok(lease) => lease,
            Err(error) => {
                tracing::warn!(work = work.as_str(), %error, "no lease");
                None
            }
        }
    }
}

/// The running background work.
pub struct Background {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Background {
    /// Starts all of it.
    pub fn start(broker: &Arc<Broker>) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for work in Work::ALL {
            let (broker, rounds) = (Arc::clone(broker), Rounds::new(broker));
            tasks.spawn(Shift { broker, rounds, work, stop: stop.clone() }.run());
        }
        Self { tasks, stop }
    }

    /// Ends every round that has begun and gives the leases back, so that another replica goes on at once.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
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
            let round = self.rounds.take(self.work).await;
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
        self.rounds.give_back().await;
    }

    /// What the last requests committed is chained, signed and mirrored before the process ends.
    async fn close_log(&self) -> Result<(), BrokerError> {
        if self.broker.rolled_back().is_some() {
            return Ok(());
        }
        while self.broker.chain_events().await? {}
        self.broker.sign_head().await?;
        while self.broker.mirror_log().await? {}
        Ok(())
    }

    /// Waits until the next round is due: at once if there is more to do, soon after a failure, else when woken or after
    /// the period.
    async fn rest(&self, round: Result<bool, BrokerError>) {
        let period = match (self.work, self.rounds.enrolments.pause()) {
            (Work::Enroller, Some(pause)) => pause.min(self.work.period()),
            _ => self.work.period(),
        };
        let wake = match self.work {
            Work::Producer => Some(&self.broker.wake.producer),
            Work::Enroller => Some(&self.broker.wake.enroller),
            Work::Sweeper => Some(&self.broker.wake.sweeper),
            Work::Publisher => Some(&self.broker.wake.publisher),
            Work::Sequencer | Work::Head | Work::Mirror | Work::Alive => None,
        };
        let pause = match round {
            Ok(true) => return tokio::task::yield_now().await,
            Ok(false) => period,
            Err(error) => {
                metrics::counter!("keybroker_background_failures_total", "work" => self.work.as_str())
                    .increment(1);
                tracing::warn!(work = self.work.as_str(), %error, "a round failed; it is tried again");
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
