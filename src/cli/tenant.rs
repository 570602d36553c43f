//! `keybroker tenant`: administrative domains.

use super::connection::{ConnectionArgs, request_id, time_text};
use super::failure::Failure;
use super::output::OutputArgs;
use crate::api::proto::admin_service_client::AdminServiceClient;
use crate::api::proto::{AddTenantRequest, ListTenantsRequest, RemoveTenantRequest, Tenant};
use crate::nfv::TenantId;
use serde_json::{Value, json};

/// What to do with tenants.
#[derive(Debug, clap::Subcommand)]
pub(super) enum TenantCommand {
    /// Add a tenant: its sub-CA and token key are made on the HSM
    Add {
        /// Its name: 1 to 63 of a-z, 0-9 and '-'
        tenant: TenantId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// List tenants
    List {
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Show one tenant
    Show {
        /// Its name
        tenant: TenantId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Remove a tenant that has no pools and no live VNFCIs
    Remove {
        /// Its name
        tenant: TenantId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

/// Runs the command.
pub(super) async fn run(command: TenantCommand, output: OutputArgs) -> Result<(), Failure> {
    match command {
        TenantCommand::Add { tenant, connection } => {
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let request = AddTenantRequest { request_id: request_id(), tenant: tenant.to_string() };
            let added = client.add_tenant(request).await?.into_inner().tenant.unwrap_or_default();
            output.object(&object(&added));
        }
        TenantCommand::List { connection } => {
            let tenants = tenants(&connection).await?;
            let columns = [
                "tenant",
                "created_at",
                "vnfcis",
                "max_vnfcis",
                "pools",
                "max_pools",
                "pooled_keys",
                "max_pooled_keys",
            ];
            output.list(&columns, &tenants.iter().map(object).collect::<Vec<_>>());
        }
        TenantCommand::Show { tenant, connection } => {
            let tenants = tenants(&connection).await?;
            let found = tenants.iter().find(|found| found.tenant == tenant.as_str());
            let found = found.ok_or_else(|| Failure::failed(format!("tenant {tenant} does not exist")))?;
            output.object(&object(found));
        }
        TenantCommand::Remove { tenant, connection } => {
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let request = RemoveTenantRequest { request_id: request_id(), tenant: tenant.to_string() };
            client.remove_tenant(request).await?;
            output.object(&json!({ "tenant": tenant, "removed": true }));
        }
    }
    Ok(())
}

async fn tenants(connection: &ConnectionArgs) -> Result<Vec<Tenant>, Failure> {
    let mut client = AdminServiceClient::new(connection.connect().await?.channel);
    Ok(client.list_tenants(ListTenantsRequest {}).await?.into_inner().tenants)
}

fn object(tenant: &Tenant) -> Value {
    let mut object = json!({ "tenant": tenant.tenant, "created_at": time_text(tenant.created_at) });
    for quota in &tenant.quotas {
        object[&quota.name] = json!(quota.limit);
        object[quota.name.replacen("max_", "", 1)] = json!(quota.used);
    }
    object
}
