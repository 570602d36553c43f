//! Work that goes on by itself: producer, enroller, sweeper, sequencer, CRL publisher, each once among replicas, under a lease;
//! and in every one of them the mirror of the log.

use crate::broker::enrol_pool::Enrolments;
use crate::broker::{Broker, BrokerError};
use crate::store::records::Lease;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
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

/// The running background work.
pub struct Background {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Background {
    /// Starts all of it. `holder` names this process among replicas.
    pub fn start(broker: &Arc<Broker>, holder: &str) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let shift = |name: &'static str| Shift {
            broker: Arc::clone(broker),
            name,
            holder: holder.to_owned(),
            stop: stop.clone(),
            held: Mutex::new(None),
        };
        tasks.spawn(shift("producer").produce());
        tasks.spawn(shift("enroller").enrol());
        tasks.spawn(shift("sweeper").sweep());
        tasks.spawn(shift("sequencer").sequence());
        tasks.spawn(shift("head").sign_heads());
        tasks.spawn(shift("publisher").publish());
        tasks.spawn(shift("alive").note_alive());
        tasks.spawn(shift("mirror").mirror());
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
    name: &'static str,
    holder: String,
    stop: CancellationToken,
    /// The lease of the latest round.
    held: Mutex<Option<Lease>>,
}

impl Shift {
    async fn produce(self) {
        let mut full = HashMap::new();
        while self.on().await {
            let round = match self.lease().await {
                Some(lease) => self.broker.refill_pools(&mut full, &lease).await,
                None => Ok(false),
            };
            let more = matches!(round, Ok(true));
            self.rest(round, PRODUCER_PERIOD, Some(&self.broker.wake.producer)).await;
            if !more && self.on().await {
                tokio::time::sleep(PRODUCER_SETTLING).await;
            }
        }
        self.give_back().await;
    }

    async fn enrol(self) {
        let mut enrolments = Enrolments::default();
        while self.on().await {
            let round = match self.lease().await {
                Some(lease) => self.broker.enrol_pools(&mut enrolments, &lease).await,
                None => Ok(false),
            };
            let period = enrolments.pause().map_or(PRODUCER_PERIOD, |pause| pause.min(PRODUCER_PERIOD));
            self.rest(round, period, Some(&self.broker.wake.enroller)).await;
        }
    }

    async fn sweep(self) {
        while self.on().await {
            let round = match self.lease().await {
                Some(lease) => self.broker.sweep(&lease).await,
                None => Ok(false),
            };
            self.rest(round, SWEEPER_PERIOD, Some(&self.broker.wake.sweeper)).await;
        }
        self.give_back().await;
    }

    async fn sequence(self) {
        while self.on().await {
            let round = match self.lease().await {
                Some(_) => self.broker.chain_events().await,
                None => Ok(false),
            };
            self.rest(round, SEQUENCER_PERIOD, None).await;
        }
        // What the last requests committed is chained and signed before the process ends.
        let last = async {
            if self.broker.rolled_back().is_some() {
                return Ok(());
            }
            while self.broker.chain_events().await? {}
            self.broker.sign_head().await?;
            while self.broker.mirror_log().await? {}
            Ok::<(), BrokerError>(())
        };
        if let Err(error) = last.await {
            tracing::warn!(%error, "the last events are not chained yet; the next start does it");
        }
        self.give_back().await;
    }

    async fn sign_heads(self) {
        while self.on().await {
            let round = match self.lease().await {
                Some(_) => self.broker.sign_head().await.map(|()| false),
                None => Ok(false),
            };
            self.rest(round, HEAD_PERIOD, None).await;
        }
        self.give_back().await;
    }

    async fn publish(self) {
        while self.on().await {
            let round = match self.lease().await {
                Some(lease) => self.broker.publish(&lease).await.map(|()| false),
                None => Ok(false),
            };
            self.rest(round, PUBLISHER_PERIOD, Some(&self.broker.wake.publisher)).await;
        }
        self.give_back().await;
    }

    /// Of every broker: each looks for itself whether the database was rolled back.
    async fn mirror(self) {
        while self.on().await {
            let round = self.broker.mirror_log().await;
            self.rest(round, MIRROR_PERIOD, None).await;
        }
    }

    async fn note_alive(self) {
        while self.on().await {
            let round = self.broker.note_alive().await.map(|()| false).map_err(BrokerError::from);
            self.rest(round, ALIVE_PERIOD, None).await;
        }
    }

    /// Lets another replica do this work from now on.
    async fn give_back(self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lease) = held
            && let Err(error) = self.broker.store.release_lease(&lease).await
        {
            tracing::warn!(work = self.name, %error, "the lease was not given back; it runs out");
        }
    }

    async fn on(&self) -> bool {
        !self.stop.is_cancelled()
    }

    /// The lease, while this process has it. Nothing goes on by itself on a database that was rolled back: it would go on
    /// from a state that is not the last one.
    async fn lease(&self) -> Option<Lease> {
        if self.broker.rolled_back().is_some() {
            return None;
        }
        match self.broker.store.acquire_lease(self.name, &self.holder, LEASE).await {
            Ok(lease) => {
                self.held.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&lease);
                lease
            }
            Err(error) => {
                tracing::warn!(work = self.name, %error, "no lease");
                None
            }
        }
    }

    /// Waits until the next round is due: at once if there is more to do, soon after a failure, else when woken or after
    /// the period.
    async fn rest(
        &self,
        round: Result<bool, BrokerError>,
        period: Duration,
        wake: Option<&tokio::sync::Notify>,
    ) {
        let pause = match round {
            Ok(true) => return tokio::task::yield_now().await,
            Ok(false) => period,
            Err(error) => {
                metrics::counter!("keybroker_background_failures_total", "work" => self.name).increment(1);
                tracing::warn!(work = self.name, %error, "a round failed; it is tried again");
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
