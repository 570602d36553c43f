//! MANO asks for pools.

use crate::audit::details::{self, PoolDetails};
use crate::audit::event::{Event, EventKind};
use crate::authorisation::{Caller, Reach, Rpc, Target, authorise};
use crate::broker::{Broker, BrokerError, Request};
use crate::ca::NameValues;
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::credential::Issue;
use crate::nfv::{CredentialId, PoolId, PoolName, ProfileName, TenantId, VduId, VnfInstanceId, VnfciId};
use crate::pool::{Rates, runs_dry_in};
use crate::store::Mutation;
use crate::store::records::{Page, Pool, PoolFilter, PoolLevels};
use std::sync::PoisonError;
use std::time::Instant;

/// Credentials that one pool may keep ready.
pub const LARGEST_TARGET: u32 = 1_000_000;

/// A pool to be created.
#[derive(Debug, Clone)]
pub struct CreatePool {
    /// The request.
    pub request: Request,
    /// None: the caller's tenant.
    pub tenant: Option<TenantId>,
    /// Its name.
    pub name: PoolName,
    /// For which VNF instance.
    pub vnf_instance: VnfInstanceId,
    /// For which VDU.
    pub vdu: VduId,
    /// The profile.
    pub profile: ProfileName,
    /// How many are to be ready: 1 to 1,000,000.
    pub target: u32,
    /// None: a quarter of `target`, at least 1.
    pub refill_below: Option<u32>,
}

/// A pool to be resized.
#[derive(Debug, Clone)]
pub struct UpdatePool {
    /// The request.
    pub request: Request,
    /// None: the caller's tenant.
    pub tenant: Option<TenantId>,
    /// Its name.
    pub name: PoolName,
    /// How many are to be ready: 1 to 1,000,000.
    pub target: u32,
    /// None: a quarter of `target`, at least 1.
    pub refill_below: Option<u32>,
}

/// A pool with where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolStatus {
    /// The pool.
    pub pool: Pool,
    /// Its credentials by state.
    pub levels: PoolLevels,
    /// How fast it fills and empties, as this process saw it.
    pub rates: Rates,
    /// When nothing will be ready any more, if the rates stay.
    pub will_run_dry_at: Option<Timestamp>,
}

impl Broker {
    /// Creates a pool and wakes the producer.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] for a target out of bounds, an unknown profile or names that make no certificate;
    /// [`BrokerError::AlreadyExists`], [`BrokerError::QuotaExceeded`].
    pub async fn create_pool(&self, caller: &Caller, create: CreatePool) -> Result<PoolStatus, BrokerError> {
        let tenant = Self::tenant_of(caller, create.tenant.clone())?;
        let target = Target { tenant: Some(&tenant), vnf_instance: Some(&create.vnf_instance), vnfci: None };
        let authorised = authorise(caller, Rpc::CreatePool, target)?;
        let now = self.store.now().await?;
        let refill_below = watermark(create.target, create.refill_below)?;
        let issue = self.check_profile(&tenant, &create)?;
        let pool = Pool {
            id: PoolId::generate(),
            tenant: tenant.clone(),
            name: create.name,
            vnf_instance: create.vnf_instance,
            vdu: create.vdu,
            profile: create.profile,
            target: create.target,
            refill_below,
            issue,
            created_at: now,
        };
        let event = Event::new(now, EventKind::PoolCreated, authorised.actor())
            .tenant(&tenant)
            .vnf_instance(&pool.vnf_instance)
            .request(create.request.id);
        let mutation = Mutation::new(move |pool: &Pool| vec![event.details(pool_details(pool))])
            .request(create.request.key(authorised.actor()));
        let quotas = self.quotas(&tenant);
        let pool = self.store.create_pool(pool, &quotas, mutation).await?;
        crash::reached(Point::PoolCreated);
        self.wake.filling();
        self.status_of(pool).await
    }

    /// When the pool's profile issues, if the profile exists and makes names for the pool.
    fn check_profile(&self, tenant: &TenantId, create: &CreatePool) -> Result<Issue, BrokerError> {
        let invalid =
            |field: &str, problem: String| Err(BrokerError::Invalid { field: field.to_owned(), problem });
        let Some(profile) = self.profiles.load().get(&create.profile) else {
            let known = self.profiles.load().texts().into_iter().map(|(name, _)| name.to_string());
            let known = known.collect::<Vec<_>>().join(", ");
            return invalid("profile", format!("{} does not exist; there are: {known}", create.profile));
        };
        if let Err(problem) = self.check_issuer(&profile) {
            return invalid("profile", problem);
        }
        // A name that makes no certificate is told to MANO now and not met by the producer later. The VNFCIs' own names
        // are looked at when they are registered; this one fits everywhere.
        let vnfci = match profile.issue() {
            Issue::Ahead => None,
            Issue::AtClaim => VnfciId::try_from("vnfci".to_owned()).ok(),
        };
        let values = NameValues {
            tenant: tenant.clone(),
            vnf_instance: create.vnf_instance.clone(),
            vdu: create.vdu.clone(),
            credential: CredentialId::generate(),
            vnfci,
        };
        if self.authorities.load().issuing(tenant, profile.ca()).is_none() {
            let problem = format!(
                "{} has its certificates issued by CA {}, which tenant {tenant} does not have: `keybroker ca add` makes it",
                create.profile,
                profile.ca()
            );
            return invalid("profile", problem);
        }
        match profile.names(&values) {
            Ok(_) => Ok(profile.issue()),
            Err(error) => invalid("vnf_instance_id, vdu_id", error.to_string()),
        }
    }

    /// One pool.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`], [`BrokerError::Denied`].
    pub async fn pool(
        &self,
        caller: &Caller,
        tenant: Option<TenantId>,
        name: PoolName,
    ) -> Result<PoolStatus, BrokerError> {
        let pool = self.reach_pool(caller, Rpc::GetPool, tenant, &name).await?;
        self.status_of(pool).await
    }

    /// One pool, for a stream that asks again and again.
    ///
    /// # Errors
    /// As [`Broker::pool`].
    pub async fn watched_pool(
        &self,
        caller: &Caller,
        tenant: Option<TenantId>,
        name: &PoolName,
    ) -> Result<PoolStatus, BrokerError> {
        let pool = self.reach_pool(caller, Rpc::WatchPool, tenant, name).await?;
        self.status_of(pool).await
    }

    /// Changes how many credentials a pool keeps ready. The producer makes what is missing, the sweeper destroys what is
    /// too much.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`], [`BrokerError::Denied`], [`BrokerError::Invalid`] for a target out of bounds,
    /// [`BrokerError::QuotaExceeded`].
    pub async fn update_pool(&self, caller: &Caller, update: UpdatePool) -> Result<PoolStatus, BrokerError> {
        let pool = self.reach_pool_or_its_past(caller, Rpc::UpdatePool, &update.tenant, &update.name).await?;
        let tenant = Self::tenant_of(caller, update.tenant)?;
        let refill_below = watermark(update.target, update.refill_below)?;
        let actor = caller.actor();
        let mut event = Event::new(self.store.now().await?, EventKind::PoolUpdated, actor.clone())
            .tenant(&tenant)
            .request(update.request.id);
        event.vnf_instance = pool.map(|pool| pool.vnf_instance);
        let mutation = Mutation::new(move |pool: &Pool| vec![event.details(pool_details(pool))])
            .request(update.request.key(actor));
        let quotas = self.quotas(&tenant);
        let pool = self
            .store
            .update_pool(&tenant, &update.name, update.target, refill_below, &quotas, mutation)
            .await?;
        crash::reached(Point::PoolUpdated);
        self.wake.filling();
        self.wake.sweeper.notify_one();
        self.status_of(pool).await
    }

    /// The pools within the caller's reach.
    ///
    /// # Errors
    /// [`BrokerError::Denied`].
    pub async fn pools(
        &self,
        caller: &Caller,
        tenant: Option<TenantId>,
        page: Page,
    ) -> Result<Vec<PoolStatus>, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        let authorised =
            authorise(caller, Rpc::ListPools, Target { tenant: Some(&tenant), ..Target::default() })?;
        let vnf_instances = (authorised.reach() == Reach::GrantedVnfs).then(|| caller.granted_vnfs.clone());
        let pools = self.store.pools(&PoolFilter { tenant: Some(tenant), vnf_instances }, &page).await?;
        let mut listed = Vec::with_capacity(pools.len());
        for pool in pools {
            listed.push(self.status_of(pool).await?);
        }
        Ok(listed)
    }

    /// Deletes a pool; the sweeper destroys what is ready in it.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`], [`BrokerError::Denied`], [`BrokerError::Precondition`] while a live VNFCI's slot
    /// names it.
    pub async fn delete_pool(
        &self,
        caller: &Caller,
        request: Request,
        tenant: Option<TenantId>,
        name: PoolName,
    ) -> Result<PoolStatus, BrokerError> {
        let pool = self.reach_pool_or_its_past(caller, Rpc::DeletePool, &tenant, &name).await?;
        let tenant = Self::tenant_of(caller, tenant)?;
        let actor = caller.actor();
        let mut event = Event::new(self.store.now().await?, EventKind::PoolDeleted, actor.clone())
            .tenant(&tenant)
            .request(request.id);
        event.vnf_instance = pool.map(|pool| pool.vnf_instance);
        let mutation = Mutation::new(move |pool: &Pool| vec![event.details(pool_details(pool))])
            .request(request.key(actor));
        let pool = self.store.delete_pool(&tenant, &name, mutation).await?;
        crash::reached(Point::PoolDeleted);
        self.wake.sweeper.notify_one();
        let status = self.status_of(pool).await?;
        self.flows.lock().unwrap_or_else(PoisonError::into_inner).remove(&status.pool.id);
        Ok(status)
    }

    /// A pool that the caller may do this with. Outside the caller's tenant nothing exists to be found.
    async fn reach_pool(
        &self,
        caller: &Caller,
        rpc: Rpc,
        tenant: Option<TenantId>,
        name: &PoolName,
    ) -> Result<Pool, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        if caller.tenant.as_ref().is_some_and(|own| *own != tenant) {
            authorise(caller, rpc, Target { tenant: Some(&tenant), ..Target::default() })?;
        }
        let pool = self.store.pool(&tenant, name).await?;
        let target = Target { tenant: Some(&tenant), vnf_instance: Some(&pool.vnf_instance), vnfci: None };
        authorise(caller, rpc, target)?;
        Ok(pool)
    }

    /// The same; none if it was deleted: a repeated request gets its outcome, another one learns that there is none.
    async fn reach_pool_or_its_past(
        &self,
        caller: &Caller,
        rpc: Rpc,
        tenant: &Option<TenantId>,
        name: &PoolName,
    ) -> Result<Option<Pool>, BrokerError> {
        match self.reach_pool(caller, rpc, tenant.clone(), name).await {
            Err(BrokerError::NotFound(_)) => Ok(None),
            found => found.map(Some),
        }
    }

    async fn status_of(&self, pool: Pool) -> Result<PoolStatus, BrokerError> {
        let levels = self.store.pool_levels(pool.id).await?;
        let rates = self.observe(&pool, &levels);
        let dry_in = runs_dry_in(levels.ready(pool.issue), rates);
        let now = self.store.now().await?;
        Ok(PoolStatus { pool, levels, rates, will_run_dry_at: dry_in.map(|dry_in| now.plus(dry_in)) })
    }

    /// Notes a pool's levels as they are now; gives its rates.
    pub(super) fn observe(&self, pool: &Pool, levels: &PoolLevels) -> Rates {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let flow = flows.entry(pool.id).or_default();
        flow.observe(Instant::now(), levels.produced(), levels.drawn);
        flow.rates()
    }
}

/// The level below which a pool is refilled: as given, else a quarter of the target.
fn watermark(target: u32, refill_below: Option<u32>) -> Result<u32, BrokerError> {
    let invalid =
        |field: &str, problem: String| Err(BrokerError::Invalid { field: field.to_owned(), problem });
    if !(1..=LARGEST_TARGET).contains(&target) {
        return invalid("target", format!("is {target}; give 1 to {LARGEST_TARGET}"));
    }
    match refill_below.unwrap_or((target / 4).max(1)) {
        below if (1..=target).contains(&below) => Ok(below),
        below => invalid("refill_below", format!("is {below}; give 1 to the target, {target}")),
    }
}

fn pool_details(pool: &Pool) -> serde_json::Value {
    details::json(&PoolDetails {
        pool: pool.id,
        name: pool.name.clone(),
        profile: pool.profile.clone(),
        target: pool.target,
        refill_below: pool.refill_below,
    })
}
