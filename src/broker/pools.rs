//! MANO asks for pools.

use crate::audit::details::{self, PoolDetails};
use crate::audit::event::{Event, EventKind};
use crate::authorisation::{Caller, Reach, Rpc, Target, authorise};
use crate::broker::{Broker, BrokerError, Request};
use crate::ca::NameValues;
use crate::nfv::{CredentialId, PoolId, PoolName, ProfileName, TenantId, VduId, VnfInstanceId};
use crate::store::Mutation;
use crate::store::records::{Page, Pool, PoolFilter, PoolLevels};

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

impl Broker {
    /// Creates a pool and wakes the producer.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] for a target out of bounds, an unknown profile or names that make no certificate;
    /// [`BrokerError::AlreadyExists`].
    pub async fn create_pool(
        &self,
        caller: &Caller,
        create: CreatePool,
    ) -> Result<(Pool, PoolLevels), BrokerError> {
        let tenant = Self::tenant_of(caller, create.tenant.clone())?;
        let target = Target { tenant: Some(&tenant), vnf_instance: Some(&create.vnf_instance), vnfci: None };
        let authorised = authorise(caller, Rpc::CreatePool, target)?;
        let now = self.store.now().await?;
        let refill_below = create.refill_below.unwrap_or((create.target / 4).max(1));
        self.check_pool(&tenant, &create, refill_below)?;
        let pool = Pool {
            id: PoolId::generate(),
            tenant: tenant.clone(),
            name: create.name,
            vnf_instance: create.vnf_instance,
            vdu: create.vdu,
            profile: create.profile,
            target: create.target,
            refill_below,
            created_at: now,
        };
        let event = Event::new(now, EventKind::PoolCreated, authorised.actor())
            .tenant(&tenant)
            .vnf_instance(&pool.vnf_instance)
            .request(create.request.id);
        let mutation = Mutation::new(move |pool: &Pool| vec![event.details(pool_details(pool))])
            .request(create.request.key(authorised.actor()));
        let pool = self.store.create_pool(pool, mutation).await?;
        self.wake.producer.notify_one();
        self.with_levels(pool).await
    }

    fn check_pool(
        &self,
        tenant: &TenantId,
        create: &CreatePool,
        refill_below: u32,
    ) -> Result<(), BrokerError> {
        let invalid =
            |field: &str, problem: String| Err(BrokerError::Invalid { field: field.to_owned(), problem });
        if !(1..=LARGEST_TARGET).contains(&create.target) {
            return invalid("target", format!("is {}; give 1 to {LARGEST_TARGET}", create.target));
        }
        if !(1..=create.target).contains(&refill_below) {
            return invalid(
                "refill_below",
                format!("is {refill_below}; give 1 to the target, {}", create.target),
            );
        }
        let Some(profile) = self.profiles.load().get(&create.profile) else {
            let known = self.profiles.load().texts().into_iter().map(|(name, _)| name.to_string());
            let known = known.collect::<Vec<_>>().join(", ");
            return invalid("profile", format!("{} does not exist; there are: {known}", create.profile));
        };
        // A name that makes no certificate is told to MANO now and not met by the producer later.
        let values = NameValues {
            tenant: tenant.clone(),
            vnf_instance: create.vnf_instance.clone(),
            vdu: create.vdu.clone(),
            credential: CredentialId::generate(),
            vnfci: None,
        };
        match profile.names(&values) {
            Ok(_) => Ok(()),
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
    ) -> Result<(Pool, PoolLevels), BrokerError> {
        let pool = self.reach_pool(caller, Rpc::GetPool, tenant, &name).await?;
        self.with_levels(pool).await
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
    ) -> Result<Vec<(Pool, PoolLevels)>, BrokerError> {
        let tenant = Self::tenant_of(caller, tenant)?;
        let authorised =
            authorise(caller, Rpc::ListPools, Target { tenant: Some(&tenant), ..Target::default() })?;
        let vnf_instances = (authorised.reach() == Reach::GrantedVnfs).then(|| caller.granted_vnfs.clone());
        let pools = self.store.pools(&PoolFilter { tenant: Some(tenant), vnf_instances }, &page).await?;
        let mut listed = Vec::with_capacity(pools.len());
        for pool in pools {
            listed.push(self.with_levels(pool).await?);
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
    ) -> Result<(Pool, PoolLevels), BrokerError> {
        let pool = match self.reach_pool(caller, Rpc::DeletePool, tenant.clone(), &name).await {
            // Deleted before: a repeated request gets its outcome, another one learns that there is none.
            Err(BrokerError::NotFound(_)) => None,
            found => Some(found?),
        };
        let tenant = Self::tenant_of(caller, tenant)?;
        let actor = caller.actor();
        let mut event = Event::new(self.store.now().await?, EventKind::PoolDeleted, actor.clone())
            .tenant(&tenant)
            .request(request.id);
        event.vnf_instance = pool.map(|pool| pool.vnf_instance);
        let mutation = Mutation::new(move |pool: &Pool| vec![event.details(pool_details(pool))])
            .request(request.key(actor));
        let pool = self.store.delete_pool(&tenant, &name, mutation).await?;
        self.wake.sweeper.notify_one();
        self.with_levels(pool).await
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

    async fn with_levels(&self, pool: Pool) -> Result<(Pool, PoolLevels), BrokerError> {
        let levels = self.store.pool_levels(pool.id).await?;
        Ok((pool, levels))
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
