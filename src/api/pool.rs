//! `PoolService`: MANO asks for pools.

use super::error;
use super::gate::{self, Gate};
use super::parse::{invalid, next_page_token, optional, page, required, to_timestamp};
use super::proto::{self, pool_service_server::PoolService};
use crate::authorisation::{Caller, Rpc};
use crate::broker::pools::{CreatePool, PoolStatus, UpdatePool};
use crate::broker::{Broker, BrokerError, Peer};
use crate::nfv::{PoolName, TenantId};
use futures_util::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The largest pool.
const TARGET_MAX: u32 = 1_000_000;

/// How often a watched pool is looked at, and so the most that a stream sends.
const WATCH_PERIOD: Duration = Duration::from_millis(500);
/// After this the pool is sent although nothing changed, so that a listener knows that the stream is alive.
const WATCH_KEEPALIVE: Duration = Duration::from_secs(5);

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
                    next_page_token: next_page_token(&pools, &page, |status| {
                        format!("{}/{}", status.pool.tenant, status.pool.name)
                    }),
                    pools: pools.into_iter().map(shown).collect(),
                })
            })
            .await
    }

    async fn update_pool(
        &self,
        request: Request<proto::UpdatePoolRequest>,
    ) -> Result<Response<proto::UpdatePoolResponse>, Status> {
        self.0
            .call(Rpc::UpdatePool, request, |call, caller, message| async move {
                let (target, refill_below) = levels(message.target, message.refill_below)?;
                let update = UpdatePool {
                    request: call.request()?,
                    tenant: optional("tenant", &message.tenant)?,
                    name: required("name", &message.name)?,
                    target,
                    refill_below,
                };
                let pool = call.broker.update_pool(&caller, update).await?;
                Ok(proto::UpdatePoolResponse { pool: Some(shown(pool)) })
            })
            .await
    }

    type WatchPoolStream = Pin<Box<dyn Stream<Item = Result<proto::WatchPoolResponse, Status>> + Send>>;

    async fn watch_pool(
        &self,
        request: Request<proto::WatchPoolRequest>,
    ) -> Result<Response<Self::WatchPoolStream>, Status> {
        let stopping = self.0.stopping().clone();
        self.0
            .call(Rpc::WatchPool, request, |call, caller, message| async move {
                let (tenant, name) = (optional("tenant", &message.tenant)?, required("name", &message.name)?);
                // What is wrong with the request is its answer, not the stream's end.
                let first = call.broker.watched_pool(&caller, tenant.clone(), &name).await?;
                let watch = Watch {
                    broker: call.broker,
                    peer: call.peer,
                    caller,
                    tenant,
                    name,
                    first: Some(shown(first)),
                    sent: proto::Pool::default(),
                    sent_at: Instant::now(),
                    stopping,
                };
                let stream = futures_util::stream::try_unfold(watch, |mut watch| async move {
                    let pool = watch.next().await?;
                    Ok(Some((proto::WatchPoolResponse { pool: Some(pool) }, watch)))
                });
                Ok(Box::pin(stream) as Self::WatchPoolStream)
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

/// A stream of one pool's changes.
struct Watch {
    broker: Arc<Broker>,
    peer: Arc<Peer>,
    caller: Caller,
    tenant: Option<TenantId>,
    name: PoolName,
    /// What the stream begins with.
    first: Option<proto::Pool>,
    sent: proto::Pool,
    sent_at: Instant,
    stopping: CancellationToken,
}

impl Watch {
    /// The pool once it has changed, or as it is after [`WATCH_KEEPALIVE`].
    async fn next(&mut self) -> Result<proto::Pool, Status> {
        let pool = match self.first.take() {
            Some(first) => first,
            None => self.changed().await?,
        };
        self.sent = pool.clone();
        self.sent_at = Instant::now();
        Ok(pool)
    }

    async fn changed(&mut self) -> Result<proto::Pool, Status> {
        loop {
            let stopping = self.stopping.clone();
            tokio::select! {
                () = stopping.cancelled() => return Err(error::stopping()),
                () = tokio::time::sleep(WATCH_PERIOD) => {}
            }
            match self.fetch().await {
                Ok(pool) => {
                    if has_changed(&self.sent, &pool) || self.sent_at.elapsed() >= WATCH_KEEPALIVE {
                        return Ok(pool);
                    }
                }
                Err(failure) => {
                    if matches!(failure, BrokerError::Refused { .. } | BrokerError::Denied(_)) {
                        let rpc = Rpc::WatchPool.as_str();
                        gate::record(&self.broker, Some(&self.caller), &self.peer, rpc, None, &failure).await;
                    }
                    return Err(error::status(&failure));
                }
            }
        }
    }

    /// The caller is identified anew each time: one whose identity was removed is cut off at once.
    async fn fetch(&mut self) -> Result<proto::Pool, BrokerError> {
        self.caller = self.broker.identify_registered(&self.peer).await?;
        self.broker.watched_pool(&self.caller, self.tenant.clone(), &self.name).await.map(shown)
    }
}

/// Whether there is something to tell: a level or the pool itself, not the rates, which fade by themselves.
fn has_changed(before: &proto::Pool, now: &proto::Pool) -> bool {
    before.levels != now.levels || (before.target, before.refill_below) != (now.target, now.refill_below)
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

fn shown(status: PoolStatus) -> proto::Pool {
    let PoolStatus { pool, levels, rates, will_run_dry_at } = status;
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
            drawn: levels.drawn,
            ready: levels.ready(pool.issue),
        }),
        created_at: to_timestamp(pool.created_at),
        produced: levels.produced(),
        production_rate: rates.production,
        claim_rate: rates.claims,
        will_run_dry_at: will_run_dry_at.and_then(to_timestamp),
        issue: pool.issue.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_hears_of_levels_and_targets_not_of_fading_rates() {
        let pool = |available, target, claim_rate| proto::Pool {
            levels: Some(proto::PoolLevels { available, ..Default::default() }),
            target,
            claim_rate,
            ..Default::default()
        };
        assert!(!has_changed(&pool(3, 10, 1.0), &pool(3, 10, 0.5)));
        assert!(has_changed(&pool(3, 10, 1.0), &pool(2, 10, 1.0)));
        assert!(has_changed(&pool(3, 10, 1.0), &pool(3, 20, 1.0)));
    }

    #[test]
    fn a_pool_has_at_least_one_credential_and_a_bound() {
        assert!(levels(0, None).is_err());
        assert!(levels(1_000_001, None).is_err());
        assert_eq!(levels(200, Some(200)).unwrap(), (200, Some(200)));
        assert!(levels(200, Some(0)).is_err());
        assert!(levels(200, Some(201)).is_err());
    }
}
