//! How many claims of one tenant are worked on at the same time, so that neither its herd nor its faults keep the others,
//! and MANO, from what they need.
//!
//! A claim that finds every place of its tenant taken waits its turn, first come first served. Whose turn would not come
//! soon is told at once when to come back: waiting costs memory here and a connection there.

use crate::broker::{Broker, BrokerError};
use crate::nfv::TenantId;
use crate::pool;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a claim may wait for its place. Well within a call's deadline of 30 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a claim is thought to take before one was seen.
const FIRST_GUESS: Duration = Duration::from_millis(20);

/// Every tenant's places.
#[derive(Default)]
pub(super) struct Admission(Mutex<HashMap<TenantId, Arc<Tenant>>>);

struct Tenant {
    /// How many there are; another number makes another set.
    size: usize,
    places: Arc<Semaphore>,
    waiting: AtomicU64,
    /// Moving average of how long a place is taken, in microseconds.
    taken_us: AtomicU64,
}

/// A tenant's place; given back when dropped.
pub(super) struct Place {
    tenant: Arc<Tenant>,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

/// One that waits; no more when dropped, whether it was served, told to go or went away.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    /// With how many wait, this one included.
    fn join(waiting: &'a AtomicU64) -> (Self, u64) {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        (Self(waiting), before + 1)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let average = self.tenant.taken_us.load(Ordering::Relaxed);
        // Two places given back at once may lose one of the two: it is an estimate.
        let next = average - average / 8 + taken / 8;
        self.tenant.taken_us.store(next.max(1), Ordering::Relaxed);
    }
}

impl Tenant {
    fn new(size: usize) -> Self {
        let taken_us = AtomicU64::new(u64::try_from(FIRST_GUESS.as_micros()).unwrap_or(u64::MAX));
        Self { size, places: Arc::new(Semaphore::new(size)), waiting: AtomicU64::new(0), taken_us }
    }

    /// Claims per second that all places together come to.
    fn rate(&self) -> f64 {
        self.size as f64 * 1e6 / self.taken_us.load(Ordering::Relaxed) as f64
    }

    /// A place within `patience`, or how many wait already.
    async fn place(self: &Arc<Self>, patience: Duration) -> Result<Place, u64> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place { tenant: Arc::clone(self), since: Instant::now(), _permit: permit });
        }
        let (_waiting, ahead) = Waiting::join(&self.waiting);
        if ahead as f64 > self.rate() * patience.as_secs_f64() {
            return Err(ahead);
        }
        match tokio::time::timeout(patience, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { tenant: Arc::clone(self), since: Instant::now(), _permit: permit }),
            Ok(Err(_)) | Err(_) => Err(self.waiting.load(Ordering::Relaxed)),
        }
    }
}

impl Admission {
    fn of(&self, tenant: &TenantId, size: usize) -> Arc<Tenant> {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match tenants.get(tenant) {
            Some(known) if known.size == size => Arc::clone(known),
            // Another number was configured. Who holds a place of the old set keeps it until it is done.
            _ => {
                let made = Arc::new(Tenant::new(size));
                tenants.insert(tenant.clone(), Arc::clone(&made));
                made
            }
        }
    }
}

impl Broker {
    /// A place among the tenant's claims (`claims_at_once`), for a caller whose evidence was accepted.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] `OVERLOADED`, with when to come back.
    pub(super) async fn place_to_claim(&self, tenant: &TenantId) -> Result<Place, BrokerError> {
        let size = self.settings.load().tenant(tenant).claims_at_once;
        let places = self.admission.of(tenant, size);
        places.place(PATIENCE).await.map_err(|waiting| {
            metrics::counter!("keybroker_claims_total", "outcome" => "overloaded").increment(1);
            BrokerError::Unavailable {
                code: "OVERLOADED",
                reason: format!("{waiting} claims of tenant {tenant} wait already"),
                retry_after: pool::retry_after(waiting, places.rate(), rand::random()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn tenant(text: &str) -> TenantId {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn one_tenants_claims_do_not_take_the_places_of_another() {
        let admission = Admission::default();
        let _one = admission.of(&tenant("a"), 1).place(PATIENCE).await.ok().unwrap();
        assert!(admission.of(&tenant("b"), 1).place(Duration::ZERO).await.is_ok());
    }

    #[tokio::test]
    async fn a_place_is_waited_for_and_given_back() {
        let places = Admission::default().of(&tenant("a"), 1);
        let first = places.place(PATIENCE).await.ok().unwrap();
        let second = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.place(PATIENCE).await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert_eq!(places.waiting.load(Ordering::Relaxed), 1);
        drop(first);
        assert!(second.await.unwrap());
        assert_eq!((places.waiting.load(Ordering::Relaxed), places.places.available_permits()), (0, 1));
    }

    #[tokio::test]
    async fn who_would_wait_too_long_is_sent_away_and_leaves_nothing_behind() {
        let places = Admission::default().of(&tenant("a"), 1);
        let held = places.place(PATIENCE).await.ok().unwrap();
        assert_eq!(places.place(SHORT).await.err(), Some(1), "it was not patient to the end");
        // At a minute each, whoever comes now would wait a minute: it is told at once.
        places.taken_us.store(60_000_000, Ordering::Relaxed);
        let begun = Instant::now();
        assert_eq!(places.place(PATIENCE).await.err(), Some(1));
        assert!(begun.elapsed() < PATIENCE);
        drop(held);
        assert_eq!(places.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn another_configured_number_is_taken_into_use() {
        let admission = Admission::default();
        let first = admission.of(&tenant("a"), 1);
        assert!(Arc::ptr_eq(&first, &admission.of(&tenant("a"), 1)));
        assert_eq!(admission.of(&tenant("a"), 5).places.available_permits(), 5);
    }
}
