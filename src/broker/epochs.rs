//! Epochs are opened, closed, drained and shredded: `lifecycle` plans, this carries out.

use crate::audit::details::{self, EpochDetails, RewrappedDetails, ShreddedDetails};
use crate::audit::event::{Actor, Event, EventCredential, EventKind};
use crate::broker::share::Share;
use crate::broker::{Broker, BrokerError};
use crate::crash::{self, Point};
use crate::credential::{EpochChange, EpochState, StepReason};
use crate::hsm::{HsmError, ObjectId};
use crate::lifecycle::{EpochFacts, EpochPolicy, EpochStep, plan};
use crate::nfv::{CredentialId, EpochId, TenantId};
use crate::store::records::{Epoch, Lease};
use crate::store::{Mutation, StoreError};
use metrics::Label;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep};

/// Keys re-wrapped in one call of the HSM: 20 ms or less of its time.
const REWRAP_CHUNK: u32 = 256;
/// Chunks re-wrapped per epoch and sweep, so that one large epoch does not hold up the other tenants'.
const REWRAP_CHUNKS: u32 = 64;

/// How long whoever recorded an epoch has to make its KEK and to open it: longer than an HSM takes that answers at all.
const MAKING: Duration = Duration::from_secs(15);
/// How long a call waits for an epoch that another broker is making, and how often it looks.
const WAIT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(25);

impl Broker {
    /// The epoch that takes a tenant's new keys; made now if there is none.
    pub(super) async fn open_epoch(&self, tenant: &TenantId) -> Result<EpochId, BrokerError> {
        if let Some(epoch) = self.open_epochs.lock().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return Ok(*epoch);
        }
        let mut making = self.making_epoch(tenant).await;
        let epoch = self.make_epoch(tenant, &mut making).await?;
        self.open_epochs.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone(), epoch);
        Ok(epoch)
    }

    /// The open epoch, or a new one. Only the process that recorded an epoch makes its KEK: a module makes two objects of one
    /// name for two processes that look at the same time and find none. What another one has begun is waited for, a little; if
    /// it is not finished in time, it is shredded, and who comes late with its KEK destroys that.
    async fn make_epoch(
        &self,
        tenant: &TenantId,
        making: &mut Option<EpochId>,
    ) -> Result<EpochId, BrokerError> {
        let begun = Instant::now();
        loop {
            let living = self.store.epochs(Some(tenant), EpochState::LIVING).await?;
            let ours = *making;
            if let Some(ours) = ours {
                match living.iter().find(|epoch| epoch.id == ours).map(|epoch| epoch.state) {
                    Some(EpochState::Creating) => {}
                    // The answer that it is open was lost.
                    Some(EpochState::Open | EpochState::Closed) => *making = None,
                    // Another broker gave it up. Nothing was ever wrapped under it.
                    Some(EpochState::Shredding | EpochState::Destroyed) | None => {
                        self.hsm.destroy_kek(tenant, ours).await?;
                        *making = None;
                    }
                }
            }
            let current = living
                .into_iter()
                .find(|epoch| matches!(epoch.state, EpochState::Open | EpochState::Creating));
            match current {
                Some(epoch) if epoch.state == EpochState::Open => return Ok(epoch.id),
                Some(epoch) if ours == Some(epoch.id) => {
                    if self.create_kek(tenant, epoch.id).await? {
                        *making = None;
                        return Ok(epoch.id);
                    }
                }
                Some(epoch) => {
                    if !self.give_up(&epoch).await? {
                        if begun.elapsed() > WAIT {
                            return Err(being_made());
                        }
                        sleep(LOOK).await;
                    }
                }
                None => {
                    if begun.elapsed() > WAIT {
                        return Err(being_made());
                    }
                    let id = EpochId::generate();
                    // 1. Record the intent, 2. act, 3. record the result.
                    let event = self.epoch_event(EventKind::EpochCreating, tenant, id, None).await?;
                    // Before: of an intent whose answer is lost it is known whose it is.
                    *making = Some(id);
                    match self.store.create_epoch(id, tenant, Mutation::new(move |_| vec![event])).await {
                        Ok(_) => crash::reached(Point::EpochIntended),
                        // Another broker was quicker.
                        Err(StoreError::Conflict(_)) => *making = None,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }

    /// Shreds an epoch that was begun long ago and is not open yet; false if whoever began it still has time.
    async fn give_up(&self, epoch: &Epoch) -> Result<bool, BrokerError> {
        if self.store.now().await? < epoch.created_at.plus(MAKING) {
            return Ok(false);
        }
        // While the HSM is away nobody makes anything, and every attempt would leave an epoch to be shredded.
        self.hsm.object_exists(&ObjectId::Kek(epoch.tenant.clone(), epoch.id)).await?;
        let reason = Some(StepReason::Abandoned);
        let event = self.epoch_event(EventKind::EpochShredding, &epoch.tenant, epoch.id, reason).await?;
        let mutation = Mutation::new(move |_: &Epoch| vec![event]);
        match self.store.advance_epoch(epoch.id, EpochChange::Shred, None, mutation).await {
            // Or it was opened, or given up, a moment ago.
            Ok(_) | Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.wake.sweeper.notify_one();
        Ok(true)
    }

    /// Held while an epoch of the tenant is made: the one that this process recorded and that is not known to be open.
    async fn making_epoch(&self, tenant: &TenantId) -> OwnedMutexGuard<Option<EpochId>> {
        let of_tenant = {
            let mut making = self.epoch_making.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(making.entry(tenant.clone()).or_default())
        };
        of_tenant.lock_owned().await
    }

    /// Forgets which epoch is open: the store said that it is not any more.
    pub(super) fn forget_open_epoch(&self, tenant: &TenantId) {
        self.open_epochs.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }

    /// Another process may have closed and shredded the epoch that this one remembers as open, or this one did so while the
    /// work waited: the HSM says that its KEK is gone. Succeeds if another epoch is open now, for which the work is to be
    /// done again.
    ///
    /// # Errors
    /// The HSM's own, if it is about anything else; `Unavailable` if the epoch is open: a worker that looks afresh is asked
    /// next time.
    pub(super) async fn shredded_meanwhile(
        &self,
        tenant: &TenantId,
        epoch: EpochId,
        error: HsmError,
    ) -> Result<(), BrokerError> {
        if !matches!(&error, HsmError::NotFound(ObjectId::Kek(_, gone)) if *gone == epoch) {
            return Err(error.into());
        }
        self.forget_open_epoch(tenant);
        if self.open_epoch(tenant).await? != epoch {
            return Ok(());
        }
        self.check_token_of(tenant).await?;
        Err(HsmError::Unavailable(format!("{error}; its epoch is open")).into())
    }

    /// "Not found" is believed of the token only that has the tenant's keys: on another one (the configuration names a
    /// wrong token, or none of its own any more) every KEK would seem to be destroyed, and new ones would be of no use.
    pub(super) async fn check_token_of(&self, tenant: &TenantId) -> Result<(), BrokerError> {
        let mac = ObjectId::TokenMac(tenant.clone());
        // A worker may not see what another broker made while it wrote itself.
        if self.hsm.object_exists(&mac).await? || self.hsm.look_afresh(&mac).await? {
            return Ok(());
        }
        tracing::error!(
            %tenant,
            token_serial = self.hsm.token_serial(tenant)?,
            "the token does not hold the tenant's keys; correct the configuration or restore the HSM's backup"
        );
        Err(HsmError::NotFound(mac).into())
    }

    /// Makes the KEK of an epoch that this process recorded, and opens the epoch; false if that was given up meanwhile.
    async fn create_kek(&self, tenant: &TenantId, epoch: EpochId) -> Result<bool, BrokerError> {
        // An earlier attempt may have made it, and its answer was lost.
        if !self.hsm.object_exists(&ObjectId::Kek(tenant.clone(), epoch)).await? {
            self.check_token_of(tenant).await?;
            self.hsm.create_kek(tenant, &epoch).await?;
        }
        crash::reached(Point::EpochKekCreated);
        let event = self.epoch_event(EventKind::EpochOpened, tenant, epoch, None).await?;
        match self
            .store
            .advance_epoch(epoch, EpochChange::Open, None, Mutation::new(move |_| vec![event]))
            .await
        {
            Ok(_) => crash::reached(Point::EpochOpened),
            Err(StoreError::Conflict(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Plans and takes the steps of every tenant in a share. A tenant whose step fails does not hold up the others.
    pub(super) async fn sweep_epochs(&self, share: &Share, lease: &Lease) -> Result<(), BrokerError> {
        let mut by_tenant: HashMap<TenantId, Vec<Epoch>> = HashMap::new();
        let of = match share {
            Share::Common => None,
            Share::Own(tenant) => Some(tenant),
        };
        let mut epochs = self.store.epochs(of, EpochState::LIVING).await?;
        epochs.retain(|epoch| self.is_in(share, Some(&epoch.tenant)));
        for epoch in epochs {
            by_tenant.entry(epoch.tenant.clone()).or_default().push(epoch);
        }
        let now = self.store.now().await?;
        let mut missed = 0u32;
        for (tenant, epochs) in by_tenant {
            let horizon = self.settings.load().tenant(&tenant).destruction_horizon;
            let facts: Vec<EpochFacts> = epochs
                .iter()
                .map(|e| EpochFacts {
                    id: e.id,
                    state: e.state,
                    first_erasure_at: e.first_erasure_at,
                    keys: e.keys,
                    live: e.live,
                })
                .collect();
            for step in plan(&facts, now, EpochPolicy { horizon, ..EpochPolicy::default() }) {
                if let EpochStep::MissedHorizon(epoch) = step {
                    missed += 1;
                    tracing::error!(%tenant, %epoch, ?horizon, "the destruction horizon was missed");
                } else if let Err(error) = self.take_step(&tenant, step, lease).await {
                    tracing::warn!(%tenant, ?step, %error, "an epoch's step failed; it is tried again");
                }
            }
        }
        let label = of.map(|tenant| Label::new("tenant", tenant.to_string()));
        metrics::gauge!("keybroker_destruction_horizon_missed_epochs", Vec::from_iter(label)).set(missed);
        Ok(())
    }

    pub(super) async fn take_step(
        &self,
        tenant: &TenantId,
        step: EpochStep,
        lease: &Lease,
    ) -> Result<(), BrokerError> {
        match step {
            EpochStep::Create(epoch) => {
                let mut making = self.making_epoch(tenant).await;
                if *making == Some(epoch) {
                    self.make_epoch(tenant, &mut making).await?;
                    return Ok(());
                }
                // The producer may have made it since the plan.
                let creating = self.store.epochs(Some(tenant), &[EpochState::Creating]).await?;
                if let Some(left) = creating.iter().find(|left| left.id == epoch) {
                    self.give_up(left).await?;
                }
            }
            EpochStep::Close(epoch, reason) => {
                let event = self.epoch_event(EventKind::EpochClosed, tenant, epoch, Some(reason)).await?;
                let mutation = Mutation::new(move |_: &Epoch| vec![event]).lease(lease);
                self.store.advance_epoch(epoch, EpochChange::Close, None, mutation).await?;
                crash::reached(Point::EpochClosed);
                self.forget_open_epoch(tenant);
                self.wake.sweeper.notify_one();
            }
            EpochStep::Rewrap(epoch, reason) => self.drain(tenant, epoch, reason, lease).await?,
            EpochStep::Shred(epoch, reason) => self.shred(tenant, epoch, reason, lease).await?,
            EpochStep::MissedHorizon(_) => {}
        }
        Ok(())
    }

    /// Moves what is live in a closed epoch to the open one, inside the HSM.
    async fn drain(
        &self,
        tenant: &TenantId,
        from: EpochId,
        reason: StepReason,
        lease: &Lease,
    ) -> Result<(), BrokerError> {
        for _ in 0..REWRAP_CHUNKS {
            let keys = self.store.live_keys(from, REWRAP_CHUNK).await?;
            if keys.is_empty() {
                self.wake.sweeper.notify_one();
                break;
            }
            let to = self.open_epoch(tenant).await?;
            let blobs = keys.iter().map(|key| key.dek_blob.clone()).collect();
            let rewrapped = match self.hsm.rewrap(tenant, from, to, blobs).await {
                Ok(rewrapped) => rewrapped,
                Err(error) => {
                    self.shredded_meanwhile(tenant, to, error).await?;
                    continue;
                }
            };
            crash::reached(Point::EpochRewrapped);
            let credentials: HashMap<CredentialId, EventCredential> =
                keys.iter().map(|key| (key.credential.id, key.credential.clone())).collect();
            let moved = keys.iter().map(|key| key.credential.id).zip(rewrapped).collect();
            let event = Event::new(self.store.now().await?, EventKind::KeysRewrapped, Actor::broker())
                .tenant(tenant)
                .details(details::json(&RewrappedDetails { from, to, reason }));
            let mutation = Mutation::new(move |moved: &Vec<CredentialId>| {
                vec![event.credentials(moved.iter().filter_map(|id| credentials.get(id).cloned()))]
            });
            match self.store.rewrapped(from, to, moved, mutation.lease(lease)).await {
                Ok(_) => crash::reached(Point::EpochMoved),
                // The target was closed meanwhile: the next round finds the new one.
                Err(StoreError::Conflict(_)) => self.forget_open_epoch(tenant),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Shreds an epoch that nothing live is left in.
    ///
    /// 1. Record the intent; the store refuses while a live key is left.
    /// 2. Destroy the KEK on the token, which is the tenant's.
    /// 3. Look for it from a fresh process.
    /// 4. Record what was found; the receipts follow.
    async fn shred(
        &self,
        tenant: &TenantId,
        epoch: EpochId,
        reason: StepReason,
        lease: &Lease,
    ) -> Result<(), BrokerError> {
        if reason != StepReason::Resume {
            let event = self.epoch_event(EventKind::EpochShredding, tenant, epoch, Some(reason)).await?;
            let mutation = Mutation::new(move |_: &Epoch| vec![event]).lease(lease);
            self.store.advance_epoch(epoch, EpochChange::Shred, None, mutation).await?;
        }
        crash::reached(Point::ShredIntended);
        let (event, token_serial) = self.destroy_kek(tenant, epoch).await?;
        let mutation = Mutation::new(move |_: &Epoch| vec![event]).lease(lease);
        self.store.advance_epoch(epoch, EpochChange::Verify, Some(&token_serial), mutation).await?;
        crash::reached(Point::ShredCommitted);
        tracing::info!(%tenant, %epoch, "epoch shredded");
        self.wake.sweeper.notify_one();
        Ok(())
    }

    /// Destroys a KEK and looks for it from a fresh process. Gives the event that says so, and the token's serial number.
    pub(super) async fn destroy_kek(
        &self,
        tenant: &TenantId,
        epoch: EpochId,
    ) -> Result<(Event, String), BrokerError> {
        self.check_token_of(tenant).await?;
        self.hsm.destroy_kek(tenant, epoch).await?;
        crash::reached(Point::ShredDestroyed);
        let gone = self.hsm.verify_destroyed(vec![ObjectId::Kek(tenant.clone(), epoch)]).await?;
        crash::reached(Point::ShredVerified);
        let event = Event::new(self.store.now().await?, EventKind::EpochShredded, Actor::broker())
            .tenant(tenant)
            .details(details::json(&ShreddedDetails {
                epoch,
                kek_label: ObjectId::Kek(tenant.clone(), epoch).to_string(),
                token_serial: gone.token_serial.clone(),
                ha_members_verified: 1,
            }));
        Ok((event, gone.token_serial))
    }

    async fn epoch_event(
        &self,
        kind: EventKind,
        tenant: &TenantId,
        epoch: EpochId,
        reason: Option<StepReason>,
    ) -> Result<Event, BrokerError> {
        let details = EpochDetails {
            epoch,
            kek_label: ObjectId::Kek(tenant.clone(), epoch).to_string(),
            token_serial: self.hsm.token_serial(tenant)?,
            reason,
        };
        let event = Event::new(self.store.now().await?, kind, Actor::broker()).tenant(tenant);
        Ok(event.details(details::json(&details)))
    }
}

fn being_made() -> BrokerError {
    BrokerError::Unavailable {
        code: "HSM_UNAVAILABLE",
        reason: "another broker is making the epoch that takes new keys".to_owned(),
        retry_after: WAIT,
    }
}
