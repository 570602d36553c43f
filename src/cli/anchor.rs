//! `keybroker anchor`: CAs whose certificates are accepted as initial credentials.

use super::connection::{ConnectionArgs, request_id, time_text};
use super::failure::Failure;
use super::files;
use super::output::OutputArgs;
use crate::api::proto::admin_service_client::AdminServiceClient;
use crate::api::proto::{AddAnchorRequest, Anchor, ListAnchorsRequest, RemoveAnchorRequest};
use crate::ca::CertificateFacts;
use crate::nfv::{AnchorName, Sha256Hash, TenantId};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What to do with trust anchors.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AnchorCommand {
    /// Add a CA certificate; it belongs to one tenant only
    Add {
        /// Its name in the tenant: 1 to 63 of a-z, 0-9 and '-'
        name: AnchorName,
        /// The CA certificate, PEM
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// The tenant
        #[arg(long, default_value = "default")]
        tenant: TenantId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// List anchors, of one tenant or of all
    List {
        /// Only of this tenant
        #[arg(long)]
        tenant: Option<TenantId>,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Show one anchor
    Show {
        /// Its name
        name: AnchorName,
        /// The tenant
        #[arg(long, default_value = "default")]
        tenant: TenantId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Remove an anchor: open initial credentials under it become void
    Remove {
        /// Its name
        name: AnchorName,
        /// The tenant
        #[arg(long, default_value = "default")]
        tenant: TenantId,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

/// Runs the command.
pub(super) async fn run(command: AnchorCommand, output: OutputArgs) -> Result<(), Failure> {
    match command {
        AnchorCommand::Add { name, certificate, tenant, connection } => {
            let certificates = files::read_certificates(&certificate)?;
            let [certificate_der] = certificates.as_slice() else {
                let problem = format!("{} has several certificates: give one CA", certificate.display());
                return Err(Failure::usage(problem));
            };
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let request = AddAnchorRequest {
                request_id: request_id(),
                tenant: tenant.to_string(),
                name: name.to_string(),
                certificate_der: certificate_der.clone(),
            };
            let added = client.add_anchor(request).await?.into_inner().anchor.unwrap_or_default();
            output.object(&object(&added));
        }
        AnchorCommand::List { tenant, connection } => {
            let anchors = anchors(&connection, tenant.as_ref()).await?;
            let columns = ["tenant", "name", "subject", "not_after", "created_at"];
            output.list(&columns, &anchors.iter().map(object).collect::<Vec<_>>());
        }
        AnchorCommand::Show { name, tenant, connection } => {
            let anchors = anchors(&connection, Some(&tenant)).await?;
            let found = anchors.iter().find(|anchor| anchor.name == name.as_str());
            let found =
                found.ok_or_else(|| Failure::failed(format!("anchor {tenant}/{name} does not exist")))?;
            output.object(&object(found));
        }
        AnchorCommand::Remove { name, tenant, connection } => {
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let request = RemoveAnchorRequest {
                request_id: request_id(),
                tenant: tenant.to_string(),
                name: name.to_string(),
            };
            client.remove_anchor(request).await?;
            output.object(&json!({ "tenant": tenant, "name": name, "removed": true }));
        }
    }
    Ok(())
}

async fn anchors(connection: &ConnectionArgs, tenant: Option<&TenantId>) -> Result<Vec<Anchor>, Failure> {
    let mut client = AdminServiceClient::new(connection.connect().await?.channel);
    let tenant = tenant.map(TenantId::to_string).unwrap_or_default();
    Ok(client.list_anchors(ListAnchorsRequest { tenant }).await?.into_inner().anchors)
}

fn object(anchor: &Anchor) -> Value {
    let facts = CertificateFacts::parse(&anchor.certificate_der).ok();
    json!({
        "tenant": anchor.tenant,
        "name": anchor.name,
        "subject": facts.as_ref().map(|facts| facts.subject.clone()),
        "not_after": facts.as_ref().map(|facts| facts.not_after.to_string()),
        "certificate_sha256": Sha256Hash::of(&anchor.certificate_der),
        "created_at": time_text(anchor.created_at),
    })
}
