//! `keybroker vnf`: VNF instances as MANO scales them in and ends them.

use super::batches::BatchArgs;
use super::connection::{ConnectionArgs, TenantArgs, request_id};
use super::failure::Failure;
use super::output::OutputArgs;
use crate::api::proto::lifecycle_service_client::LifecycleServiceClient;
use crate::api::proto::{ScaleInRequest, TerminateVnfRequest};
use crate::nfv::{VnfInstanceId, VnfciId};
use serde_json::{Value, json};

/// What to do with VNF instances.
#[derive(Debug, clap::Subcommand)]
pub(super) enum VnfCommand {
    /// Report the end of some VNFCIs: certificates are revoked, the broker's copies of keys destroyed
    ScaleIn {
        /// MANO's ids of the VNFCIs
        #[arg(required = true, value_name = "VNFCI")]
        vnfcis: Vec<VnfciId>,
        /// State that their storage was wiped; goes into the receipts
        #[arg(long)]
        storage_wiped: bool,
        #[command(flatten)]
        batches: BatchArgs,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Report the end of a VNF instance: all its live VNFCIs end, if there are as many as expected
    Terminate {
        /// The VNF instance
        vnf_instance: VnfInstanceId,
        /// How many live VNFCIs (registered or active) it has; with another number nothing is changed
        #[arg(long, value_name = "N")]
        expected_count: u32,
        /// State that their storage was wiped; goes into the receipts
        #[arg(long)]
        storage_wiped: bool,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

/// Runs the command.
pub(super) async fn run(command: VnfCommand, output: OutputArgs) -> Result<(), Failure> {
    match command {
        VnfCommand::ScaleIn { vnfcis, storage_wiped, batches, tenant, connection } => {
            let mut client = LifecycleServiceClient::new(connection.connect().await?.channel);
            let columns = ["vnfci_id", "terminated", "newly_terminated", "error"];
            let scale_in = async |request_id, vnfcis: Vec<VnfciId>, told: &mut Vec<Value>| {
                let vnfci_ids = vnfcis.iter().map(VnfciId::to_string).collect();
                let request =
                    ScaleInRequest { request_id, tenant: tenant.to_proto(), vnfci_ids, storage_wiped };
                for result in client.scale_in(request).await?.into_inner().results {
                    told.push(json!({
                        "vnfci_id": result.vnfci_id,
                        "terminated": result.error.is_empty(),
                        "newly_terminated": result.newly_terminated,
                        "serials": result.serials,
                        "error": (!result.error.is_empty()).then_some(result.error),
                    }));
                }
                Ok(())
            };
            batches.begin().ask(&vnfcis, (output, &columns, "were not ended"), scale_in).await
        }
        VnfCommand::Terminate { vnf_instance, expected_count, storage_wiped, tenant, connection } => {
            let mut client = LifecycleServiceClient::new(connection.connect().await?.channel);
            let request = TerminateVnfRequest {
                request_id: request_id(),
                tenant: tenant.to_proto(),
                vnf_instance_id: vnf_instance.to_string(),
                expected_count: Some(expected_count),
                storage_wiped,
            };
            let answer = client.terminate_vnf(request).await?.into_inner();
            output.object(&json!({
                "vnf_instance_id": vnf_instance,
                "terminated": answer.terminated,
                "certificates": answer.certificates,
            }));
            Ok(())
        }
    }
}
