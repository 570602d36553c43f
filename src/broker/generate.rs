//! A claim finds a pool empty, and its profile says `on_empty = "GENERATE"`: what its slots lack is produced at once.
//!
//! 1. Wait for one of a few places, so that a boot storm on empty pools does not make more calls than the HSM can answer.
//! 2. Draw again: another claimer, or the producer, may have filled the pool meanwhile.
//! 3. Produce what the VNFCI's slots lack now, as the producer does, and draw. Another claimer may be quicker, so this is
//!    tried a few times in the same place.

use crate::broker::{Broker, BrokerError};
use crate::ca::profile::OnEmpty;
use crate::hsm::Hsm;
use crate::nfv::{PoolName, TenantId, VnfciId};
use crate::pool;
use crate::store::records::Pool;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Claims that produce at the same time on one token.
const PLACES: usize = 8;
/// How long a claim waits for its place: a VNFCI is better told to come again than kept for long.
const PATIENCE: Duration = Duration::from_secs(5);

/// The places on the broker's own token (none) and on each tenant's: one that hangs takes its own places only.
pub(super) fn places(hsm: &Hsm) -> HashMap<Option<TenantId>, Semaphore> {
    let owners = std::iter::once(None).chain(hsm.tenants_with_tokens().cloned().map(Some));
    owners.map(|owner| (owner, Semaphore::new(PLACES))).collect()
}

impl Broker {
    /// A place to produce in, held until the claim has drawn; none if the empty pool does not generate, or in time there
    /// was none.
    pub(super) async fn place_to_generate(
        &self,
        tenant: &TenantId,
        empty: &BrokerError,
    ) -> Result<Option<SemaphorePermit<'_>>, BrokerError> {
        let BrokerError::PoolEmpty { pool, .. } = empty else { return Ok(None) };
        // Before it waits: who is to come again later need not stand in line.
        if !self.generates(&self.store.pool(tenant, pool).await?) {
            return Ok(None);
        }
        let places = self.generating.get(&self.has_token(tenant).then(|| tenant.clone()));
        let Some(places) = places else { return Ok(None) };
        match tokio::time::timeout(PATIENCE, places.acquire()).await {
            Ok(Ok(place)) => Ok(Some(place)),
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    /// Produces what the slots of a VNFCI lack. False if one of the pools that lack something does not generate.
    pub(super) async fn generate_lacking(
        &self,
        tenant: &TenantId,
        vnfci: &VnfciId,
    ) -> Result<bool, BrokerError> {
        let lacking = self.lacking(tenant, vnfci).await?;
        if !lacking.iter().all(|(pool, _)| self.generates(pool)) {
            return Ok(false);
        }
        for (pool, count) in lacking {
            self.produce(&pool, count, None).await?;
            metrics::counter!("keybroker_credentials_generated_at_claim_total").increment(u64::from(count));
        }
        Ok(true)
    }

    /// When a claimer that found too little in a pool should come again: once the producer has made what is refilled first, by
    /// the pool's own rate where it is known.
    pub(super) async fn retry_after(
        &self,
        tenant: &TenantId,
        pool: &PoolName,
    ) -> Result<Duration, BrokerError> {
        let pool = self.store.pool(tenant, pool).await?;
        let levels = self.store.pool_levels(pool.id).await?;
        self.note_too_few(&pool, levels.ready(pool.issue)).await?;
        self.wake.filling();
        let own = self.observe(&pool, &levels).production;
        let rate = if own > 0.0 { own } else { *self.production_rate.borrow() };
        Ok(pool::retry_after(u64::from(pool.refill_below), rate, rand::random()))
    }

    fn generates(&self, pool: &Pool) -> bool {
        let profile = self.profiles.load().get(&pool.profile);
        profile.is_some_and(|profile| profile.on_empty() == OnEmpty::Generate)
    }

    /// The pools of the VNFCI's slots that have too few ready, with how many too few. At most as many as it has slots.
    async fn lacking(&self, tenant: &TenantId, vnfci: &VnfciId) -> Result<Vec<(Pool, u32)>, BrokerError> {
        let vnfci = self.store.vnfci(tenant, vnfci).await?;
        let mut wanted: BTreeMap<PoolName, u32> = BTreeMap::new();
        for slot in vnfci.slots {
            *wanted.entry(slot.pool).or_default() += 1;
        }
        let mut lacking = Vec::new();
        for (name, count) in wanted {
            let pool = self.store.pool(tenant, &name).await?;
            let ready = self.store.pool_levels(pool.id).await?.ready(pool.issue);
            // At most `count`, a u32.
            let missing = u32::try_from(u64::from(count).saturating_sub(ready)).unwrap_or(count);
            if missing > 0 {
                lacking.push((pool, missing));
            }
        }
        Ok(lacking)
    }
}
