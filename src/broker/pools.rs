//! MANO asks for pools.

use crate::authorisation::Caller;
use crate::broker::{Broker, BrokerError, Request};
use crate::nfv::{PoolName, ProfileName, TenantId, VduId, VnfInstanceId};
use crate::store::records::{Page, Pool, PoolLevels};

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
    pub async fn create_pool(
        &self,
        _caller: &Caller,
        _pool: CreatePool,
    ) -> Result<(Pool, PoolLevels), BrokerError> {
        todo!()
    }

    /// One pool.
    pub async fn pool(
        &self,
        _caller: &Caller,
        _tenant: Option<TenantId>,
        _name: PoolName,
    ) -> Result<(Pool, PoolLevels), BrokerError> {
        todo!()
    }

    /// The pools within the caller's reach.
    pub async fn pools(
        &self,
        _caller: &Caller,
        _tenant: Option<TenantId>,
        _page: Page,
    ) -> Result<Vec<(Pool, PoolLevels)>, BrokerError> {
        todo!()
    }

    /// Deletes a pool; the sweeper destroys what is ready in it.
    pub async fn delete_pool(
        &self,
        _caller: &Caller,
        _request: Request,
        _tenant: Option<TenantId>,
        _name: PoolName,
    ) -> Result<(Pool, PoolLevels), BrokerError> {
        todo!()
    }
}
