//! `keybroker pool`: pools of ready credentials.

use super::connection::{ConnectionArgs, TenantArgs, request_id, time_text};
use super::failure::Failure;
use super::output::{Format, OutputArgs, line};
use crate::api::proto::pool_service_client::PoolServiceClient;
use crate::api::proto::{
    CreatePoolRequest, DeletePoolRequest, GetPoolRequest, ListPoolsRequest, Pool, UpdatePoolRequest,
    WatchPoolRequest,
};
use crate::nfv::{PoolName, ProfileName, VduId, VnfInstanceId};
use serde_json::{Value, json};

/// What to do with pools.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PoolCommand {
    /// Create a pool; it is filled at once
    Create(CreateArgs),
    /// List pools with their levels
    List {
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Show one pool
    Show {
        /// Its name
        name: PoolName,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Change how many credentials are to be ready; what is ready beyond that is destroyed
    Resize {
        /// Its name
        name: PoolName,
        /// How many credentials are to be ready
        #[arg(long, value_name = "N")]
        target: u32,
        /// Refill when fewer are ready [default: a quarter of the target]
        #[arg(long, value_name = "N")]
        refill_below: Option<u32>,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Follow one pool: levels, rates, when it will run dry; one line per change, until interrupted
    Watch {
        /// Its name
        name: PoolName,
        /// End once as many are ready as the target says
        #[arg(long)]
        until_full: bool,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Delete a pool that no live VNFCI names, and destroy what is ready in it
    Delete {
        /// Its name
        name: PoolName,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

/// `pool create`.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Its name: 1 to 63 of a-z, 0-9 and '-'
    name: PoolName,
    /// The VNF instance that it is for
    #[arg(long, value_name = "ID")]
    vnf_instance: VnfInstanceId,
    /// The VDU that it is for
    #[arg(long, value_name = "ID")]
    vdu: VduId,
    /// What the certificates look like
    #[arg(long, value_name = "NAME", default_value = "vnfci-transport")]
    certificate_profile: ProfileName,
    /// How many credentials are to be ready
    #[arg(long, value_name = "N")]
    target: u32,
    /// Refill when fewer are ready [default: a quarter of the target]
    #[arg(long, value_name = "N")]
    refill_below: Option<u32>,
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub(super) async fn run(command: PoolCommand, output: OutputArgs) -> Result<(), Failure> {
    match command {
        PoolCommand::Create(args) => {
            let mut client = PoolServiceClient::new(args.connection.connect().await?.channel);
            let request = CreatePoolRequest {
                request_id: request_id(),
                tenant: args.tenant.to_proto(),
                name: args.name.to_string(),
                vnf_instance_id: args.vnf_instance.to_string(),
                vdu_id: args.vdu.to_string(),
                profile: args.certificate_profile.to_string(),
                target: args.target,
                refill_below: args.refill_below,
            };
            let created = client.create_pool(request).await?.into_inner().pool.unwrap_or_default();
            output.object(&object(&created));
        }
        PoolCommand::List { tenant, connection } => {
            let mut client = PoolServiceClient::new(connection.connect().await?.channel);
            let mut objects = Vec::new();
            let mut page_token = String::new();
            loop {
                let request = ListPoolsRequest { tenant: tenant.to_proto(), page_size: 0, page_token };
                let page = client.list_pools(request).await?.into_inner();
                objects.extend(page.pools.iter().map(object));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            let columns = ["name", "vnf_instance_id", "vdu_id", "profile", "target", "ready", "delivered"];
            output.list(&columns, &objects);
        }
        PoolCommand::Show { name, tenant, connection } => {
            let mut client = PoolServiceClient::new(connection.connect().await?.channel);
            let request = GetPoolRequest { tenant: tenant.to_proto(), name: name.to_string() };
            let pool = client.get_pool(request).await?.into_inner().pool.unwrap_or_default();
            output.object(&object(&pool));
        }
        PoolCommand::Resize { name, target, refill_below, tenant, connection } => {
            let mut client = PoolServiceClient::new(connection.connect().await?.channel);
            let request = UpdatePoolRequest {
                request_id: request_id(),
                tenant: tenant.to_proto(),
                name: name.to_string(),
                target,
                refill_below,
            };
            let resized = client.update_pool(request).await?.into_inner().pool.unwrap_or_default();
            output.object(&object(&resized));
        }
        PoolCommand::Watch { name, until_full, tenant, connection } => {
            let mut client = PoolServiceClient::new(connection.connect().await?.channel);
            let request = WatchPoolRequest { tenant: tenant.to_proto(), name: name.to_string() };
            let mut changes = client.watch_pool(request).await?.into_inner();
            while let Some(pool) = changes.message().await?.and_then(|answer| answer.pool) {
                match output.format() {
                    Format::Json => line(&object(&pool).to_string()),
                    Format::Table => line(&watch_line(&pool)),
                }
                let levels = pool.levels.unwrap_or_default();
                if until_full && levels.ready >= u64::from(pool.target) {
                    break;
                }
            }
        }
        PoolCommand::Delete { name, tenant, connection } => {
            let mut client = PoolServiceClient::new(connection.connect().await?.channel);
            let request = DeletePoolRequest {
                request_id: request_id(),
                tenant: tenant.to_proto(),
                name: name.to_string(),
            };
            let deleted = client.delete_pool(request).await?.into_inner().pool.unwrap_or_default();
            output.object(&object(&deleted));
        }
    }
    Ok(())
}

/// One change of a pool, for people.
fn watch_line(pool: &Pool) -> String {
    let levels = pool.levels.unwrap_or_default();
    let dry = time_text(pool.will_run_dry_at).map_or_else(String::new, |at| format!(", runs dry at {at}"));
    format!(
        "{} of {} ready, {} claimed, {} delivered; {:.1}/s produced, {:.1}/s claimed{dry}",
        levels.ready, pool.target, levels.claimed, levels.delivered, pool.production_rate, pool.claim_rate,
    )
}

fn object(pool: &Pool) -> Value {
    let levels = pool.levels.unwrap_or_default();
    json!({
        "pool_id": pool.pool_id,
        "tenant": pool.tenant,
        "name": pool.name,
        "vnf_instance_id": pool.vnf_instance_id,
        "vdu_id": pool.vdu_id,
        "profile": pool.profile,
        "target": pool.target,
        "refill_below": pool.refill_below,
        "issue": pool.issue,
        "ready": levels.ready,
        "generated": levels.generated,
        "available": levels.available,
        "aged": levels.aged,
        "claimed": levels.claimed,
        "delivered": levels.delivered,
        "destroyed": levels.destroyed,
        "drawn": levels.drawn,
        "produced": pool.produced,
        "production_rate": pool.production_rate,
        "claim_rate": pool.claim_rate,
        "will_run_dry_at": time_text(pool.will_run_dry_at),
        "created_at": time_text(pool.created_at),
    })
}
