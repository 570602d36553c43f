//! Who may recover: one process at a time, and only while no broker lives on the database.
//!
//! Every broker shows itself by a lease of its own, also one that delivers nothing. One that slept through a recovery finds
//! another log when it wakes: it changes nothing because of what it remembers, and ends.

use crate::broker::background::{ALIVE_PERIOD, LEASE};
use crate::broker::{Broker, BrokerError};
use crate::store::StoreError;
use crate::store::continuity::Standing;
use crate::store::records::{Lease, PRESENCE};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// The lease that a recovery is made under.
const RECOVERY: &str = "recovery";
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
/// Within that time every broker that lives has shown itself on a database that took the place of another: it notices within
/// about six seconds that connections fell silent, and its next round comes after that.
pub(super) const SHOWN: Duration = ALIVE_PERIOD.saturating_add(Duration::from_secs(7));
/// From one look to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The right to recover, held until it is given back or the process ends. Everything that the broker changes meanwhile is
/// changed under it, and renews it: a process that slept, and whose place another one took, changes nothing more.
pub struct Recovering {
    pub(super) lease: Lease,
    /// Whether brokers share the database; an embedded one is locked.
    shared: bool,
    renewal: AbortOnDropHandle<()>,
}

impl Broker {
    /// Takes the right to recover. `holder` names this process among others on the database, if it is `shared`.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] while another process has it; of one that died it runs out.
    pub async fn begin_recovering(&self, holder: &str, shared: bool) -> Result<Recovering, BrokerError> {
        let lease = self.store.acquire_lease(RECOVERY, holder, LEASE).await?;
        let lease = lease.ok_or_else(|| BrokerError::Unavailable {
            code: "RECOVERY_UNDER_WAY",
            reason: format!(
                "another recovery is under way on this database: wait for its end (one that was killed is noticed after {} s)",
                LEASE.as_secs()
            ),
            retry_after: LEASE,
        })?;
        self.store.continuity().work_under(Some((lease.clone(), LEASE)));
        let (store, holder) = (Arc::clone(&self.store), holder.to_owned());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL).await;
                match store.acquire_lease(RECOVERY, &holder, LEASE).await {
                    Ok(_) => {}
                    Err(StoreError::Fenced(_)) => return,
                    Err(error) => tracing::warn!(%error, "the lease of the recovery was not renewed"),
                }
            }
        });
        Ok(Recovering { lease, shared, renewal: AbortOnDropHandle::new(renewal) })
    }

    /// Gives it back. What cannot be given back runs out.
    pub async fn end_recovering(&self, recovering: Recovering) {
        let Recovering { lease, renewal, .. } = recovering;
        drop(renewal);
        if let Err(error) = self.store.release_lease(&lease).await {
            tracing::warn!(%error, "the lease of the recovery was not given back; it runs out");
        }
        self.store.continuity().work_under(None);
    }

    /// Fails if a broker lives on the database, whether it delivers or not, or shows itself within this time; its name is told.
    pub(super) async fn require_that_nobody_serves(
        &self,
        recovering: &Recovering,
        within: Duration,
    ) -> Result<(), BrokerError> {
        if !recovering.shared {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let held = self.store.held_leases().await?.into_iter();
            let held = held.filter(|lease| lease.holder != recovering.lease.holder);
            let brokers: BTreeSet<String> = held.map(|lease| lease.holder).collect();
            if !brokers.is_empty() {
                let brokers = brokers.into_iter().collect::<Vec<_>>().join(", ");
                return Err(BrokerError::Unavailable {
                    code: "BROKER_SERVES",
                    reason: format!(
                        "brokers work on this database ({brokers}): stop all of them first (one that was killed is noticed \
                         after {} s)",
                        LEASE.as_secs()
                    ),
                    retry_after: LEASE,
                });
            }
            if begun.elapsed() >= within {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Shows for a while that the broker that `holder` names lives.
    pub(super) async fn show_presence(&self, holder: &str) -> Result<Option<Lease>, StoreError> {
        self.store.acquire_lease(&format!("{PRESENCE}{holder}"), holder, LEASE).await
    }

    /// Why this broker has to end: its database was recovered, and what it remembers is of the log before.
    pub fn outlived(&self) -> Option<String> {
        match self.store.continuity().standing() {
            Standing::Recovered(sentence) => Some(sentence),
            Standing::Same | Standing::Changed(_) | Standing::RolledBack(_) => None,
        }
    }
}
