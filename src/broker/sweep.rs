//! The sweeper: what has passed its time is destroyed, what is destroyed is shredded, what is shredded is receipted.

use crate::audit::details::{self, ErasedDetails};
use crate::audit::event::{Actor, Event, EventKind};
use crate::audit::receipt::DestructionReason;
use crate::broker::share::Share;
use crate::broker::{Broker, BrokerError};
use crate::crash::{self, Point};
use crate::credential::{HolderCopy, RevocationReason};
use crate::store::records::{ClaimRecord, CustodyEnd, DestroyedKeys, Lease, Page, Pool, PoolFilter};
use crate::store::{Mutation, StoreError};

/// Keys erased, certificates expired or claims destroyed in one commit: the destruction queue is bounded.
const BATCH: u32 = 500;

impl Broker {
    /// One round. True if there may be more to do at once. A part that fails does not hold up the others. Of a tenant's own
    /// token it asks for epochs; everything else is the broker's.
    pub(super) async fn sweep(&self, share: &Share, lease: &Lease) -> Result<bool, BrokerError> {
        if let Share::Own(_) = share {
            return self.sweep_epochs(share, lease).await.map(|()| false);
        }
        let mut more = false;
        let mut failure = None;
        let mut part = |name: &'static str, result: Result<bool, BrokerError>| match result {
            Ok(unfinished) => more |= unfinished,
            Err(error) => {
                tracing::warn!(part = name, %error, "a part of the sweep failed; it is tried again");
                failure = Some(error);
            }
        };
        part("overdue claims", self.destroy_overdue_claims(lease).await);
        part("ended overlaps", self.end_overlaps(lease).await);
        part("deleted pools", self.erase_deleted_pools(lease).await);
        part("waiting credentials", self.retire_waiting(lease).await);
        part("expired certificates", self.expire_certificates().await);
        part("epochs", self.sweep_epochs(share, lease).await.map(|()| false));
        part("receipts", self.issue_receipts(lease).await);
        failure.map_or(Ok(more), Err)
    }

    /// Claims that were not confirmed by their deadline: revoked and destroyed, never restocked.
    async fn destroy_overdue_claims(&self, lease: &Lease) -> Result<bool, BrokerError> {
        let overdue = self.store.overdue_claims(self.store.now().await?, BATCH).await?;
        let more = overdue.len() == BATCH as usize;
        for claim in overdue {
            match self.destroy_open(&claim, DestructionReason::Unconfirmed, lease).await {
                // Confirmed or redrawn a moment ago.
                Ok(()) => metrics::counter!("keybroker_claims_unconfirmed_total").increment(1),
                Err(BrokerError::Precondition(_)) => {}
                Err(error) => return Err(error),
            }
            self.wake.publisher.notify_one();
        }
        Ok(more)
    }

    /// Destroys an open claim: `Precondition` if it is not open any more.
    pub(super) async fn destroy_open(
        &self,
        claim: &ClaimRecord,
        reason: DestructionReason,
        lease: &Lease,
    ) -> Result<(), BrokerError> {
        let end = CustodyEnd {
            reason,
            // It was sealed to the VNFCI, which may have unsealed it without telling.
            holder_copy: HolderCopy::Unknown,
            revocation: RevocationReason::CessationOfOperation,
        };
        let event = self.erasure_event(&end).await?;
        let event = event.tenant(&claim.tenant).vnf_instance(&claim.vnf_instance).vnfci(&claim.vnfci);
        let mutation = Mutation::new(move |keys: &DestroyedKeys| vec![event.credentials(keys.keys.clone())]);
        self.store.destroy_claim(claim.id, end, mutation.lease(lease)).await?;
        crash::reached(Point::ClaimDestroyed);
        Ok(())
    }

    async fn erase_deleted_pools(&self, lease: &Lease) -> Result<bool, BrokerError> {
        let mut more = false;
        for pool in self.store.deleted_pools_with_keys().await? {
            more |= self.erase(&pool, None, DestructionReason::PoolReduced, BATCH, lease).await?;
        }
        Ok(more)
    }

    /// Waiting credentials too old to be claimed make room for fresh ones; what is ready beyond a pool's target goes, too:
    /// the pool was made smaller.
    async fn retire_waiting(&self, lease: &Lease) -> Result<bool, BrokerError> {
        let now = self.store.now().await?;
        let mut more = false;
        let mut page = Page { after: None, limit: BATCH };
        loop {
            let pools = self.store.pools(&PoolFilter::default(), &page).await?;
            for pool in &pools {
                more |= self.erase(pool, Some(now), DestructionReason::Aged, BATCH, lease).await?;
                let ready = self.store.pool_levels(pool.id).await?.ready(pool.issue);
                let surplus = ready.saturating_sub(u64::from(pool.target));
                // At most a batch, which is a u32.
                let limit = u32::try_from(surplus.min(u64::from(BATCH))).unwrap_or(BATCH);
                if limit > 0 {
                    more |= self.erase(pool, None, DestructionReason::PoolReduced, limit, lease).await?;
                }
            }
            let Some(last) = pools.last().filter(|_| pools.len() == BATCH as usize) else { return Ok(more) };
            page.after = Some(format!("{}/{}", last.tenant, last.name));
        }
    }

    /// Erases what waits in a pool; true if there may be more.
    pub(super) async fn erase(
        &self,
        pool: &Pool,
        unusable_at: Option<crate::clock::Timestamp>,
        reason: DestructionReason,
        limit: u32,
        lease: &Lease,
    ) -> Result<bool, BrokerError> {
        let end = CustodyEnd {
            reason,
            holder_copy: HolderCopy::NeverDelivered,
            revocation: RevocationReason::CessationOfOperation,
        };
        let event = self.erasure_event(&end).await?.tenant(&pool.tenant).vnf_instance(&pool.vnf_instance);
        let mutation = Mutation::new(move |keys: &DestroyedKeys| {
            if keys.keys.is_empty() { Vec::new() } else { vec![event.credentials(keys.keys.clone())] }
        });
        let erased =
            self.store.erase_unclaimed(pool.id, unusable_at, end, limit, mutation.lease(lease)).await?;
        if !erased.keys.is_empty() {
            crash::reached(Point::PoolErased);
            self.wake.filling();
        }
        Ok(erased.keys.len() == BATCH as usize)
    }

    pub(super) async fn erasure_event(&self, end: &CustodyEnd) -> Result<Event, StoreError> {
        Ok(Event::new(self.store.now().await?, EventKind::KeysErased, Actor::broker())
            .details(details::json(&ErasedDetails { reason: end.reason, holder_copy: end.holder_copy })))
    }

    async fn expire_certificates(&self) -> Result<bool, BrokerError> {
        let now = self.store.now().await?;
        let expired = self.store.expire_certificates(now, BATCH).await?;
        self.store.forget_requests(now).await?;
        Ok(expired >= u64::from(BATCH))
    }
}
