//! `PoolService`: MANO asks for pools.

use super::gate::Gate;
use super::parse::{invalid, next_page_token, optional, page, required, to_timestamp};
use super::proto::{self, pool_service_server::PoolService};
use crate::authorisation::Rpc;
use crate::broker::BrokerError;
use crate::broker::pools::CreatePool;
use crate::store::records::{Pool, PoolLevels};
use tonic::{Request, Response, Status};

/// The largest pool.
const TARGET_MAX: u32 = 1_000_000;

/// The service.
pub(super) struct Pools(pub(super) Gate);

#[tonic::async_trait]
impl PoolService for Pools {
    async fn create_pool(
        &self,
        request: Request<proto::CreatePoolRequest>,
    ) -> Result<Response<proto::CreatePoolResponse>, Status> {
        self.0
            .call(Rpc::CreatePool, request, |call, caller, message| async move {
                let (target, refill_below) = levels(message.target, message.refill_below)?;
                let pool = CreatePool {
                    request: call.request()?,
                    tenant: optional("tenant", &message.tenant)?,
                    name: required("name", &message.name)?,
                    vnf_instance: required("vnf_instance_id", &message.vnf_instance_id)?,
                    vdu: required("vdu_id", &message.vdu_id)?,
                    profile: required("profile", &message.profile)?,
                    target,
                    refill_below,
                };
                let pool = call.broker.create_pool(&caller, pool).await?;
                Ok(proto::CreatePoolResponse { pool: Some(shown(pool)) })
            })
            .await
    }

    async fn get_pool(
        &self,
        request: Request<proto::GetPoolRequest>,
    ) -> Result<Response<proto::GetPoolResponse>, Status> {
        self.0
            .call(Rpc::GetPool, request, |call, caller, message| async move {
                let tenant = optional("tenant", &message.tenant)?;
                let pool = call.broker.pool(&caller, tenant, required("name", &message.name)?).await?;
                Ok(proto::GetPoolResponse { pool: Some(shown(pool)) })
            })
            .await
    }

    async fn list_pools(
        &self,
        request: Request<proto::ListPoolsRequest>,
    ) -> Result<Response<proto::ListPoolsResponse>, Status> {
        self.0
            .call(Rpc::ListPools, request, |call, caller, message| async move {
                let tenant = optional("tenant", &message.tenant)?;
                let page = page(message.page_size, &message.page_token)?;
                let pools = call.broker.pools(&caller, tenant, page.clone()).await?;
                Ok(proto::ListPoolsResponse {
                    // The store's sort key: an auditor of the whole broker lists several tenants.
                    next_page_token: next_page_token(&pools, &page, |(pool, _)| {
                        format!("{}/{}", pool.tenant, pool.name)
                    }),
                    pools: pools.into_iter().map(shown).collect(),
                })
            })
            .await
    }

    async fn delete_pool(
        &self,
        request: Request<proto::DeletePoolRequest>,
    ) -> Result<Response<proto::DeletePoolResponse>, Status> {
        self.0
            .call(Rpc::DeletePool, request, |call, caller, message| async move {
                let tenant = optional("tenant", &message.tenant)?;
                let name = required("name", &message.name)?;
                let pool = call.broker.delete_pool(&caller, call.request()?, tenant, name).await?;
                Ok(proto::DeletePoolResponse { pool: Some(shown(pool)) })
            })
            .await
    }
}

/// A pool's target and the level below which it is refilled.
fn levels(target: u32, refill_below: Option<u32>) -> Result<(u32, Option<u32>), BrokerError> {
    if !(1..=TARGET_MAX).contains(&target) {
        return Err(invalid("target", format!("is {target}; give 1 to {TARGET_MAX}")));
    }
    match refill_below {
        Some(below) if below == 0 || below > target => {
            Err(invalid("refill_below", format!("is {below}; give 1 to target ({target}), or leave it out")))
        }
        _ => Ok((target, refill_below)),
    }
}

fn shown((pool, levels): (Pool, PoolLevels)) -> proto::Pool {
    proto::Pool {
        pool_id: pool.id.to_string(),
        tenant: pool.tenant.into(),
        name: pool.name.into(),
        vnf_instance_id: pool.vnf_instance.into(),
        vdu_id: pool.vdu.into(),
        profile: pool.profile.into(),
        target: pool.target,
        refill_below: pool.refill_below,
        levels: Some(proto::PoolLevels {
            generated: levels.generated,
            available: levels.available,
            aged: levels.aged,
            claimed: levels.claimed,
            delivered: levels.delivered,
            destroyed: levels.destroyed,
        }),
        created_at: to_timestamp(pool.created_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_at_least_one_credential_and_a_bound() {
        assert!(levels(0, None).is_err());
        assert!(levels(1_000_001, None).is_err());
        assert_eq!(levels(200, Some(200)).unwrap(), (200, Some(200)));
        assert!(levels(200, Some(0)).is_err());
        assert!(levels(200, Some(201)).is_err());
    }
}
