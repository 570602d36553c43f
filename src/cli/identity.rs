//! `keybroker identity`: clients of the management listener, known by their certificates.

use super::connection::{ConnectionArgs, request_id, time_text};
use super::failure::Failure;
use super::files::{self, Readers};
use super::output::OutputArgs;
use crate::api::proto;
use crate::api::proto::admin_service_client::AdminServiceClient;
use crate::api::proto::{AddIdentityRequest, Identity, ListIdentitiesRequest, RemoveIdentityRequest};
use crate::ca::{CertificateFacts, pem};
use crate::clock::HumaneDuration;
use crate::nfv::{IdentityName, Sha256Hash, TenantId, VnfInstanceId};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What to do with identities.
#[derive(Debug, clap::Subcommand)]
pub(super) enum IdentityCommand {
    /// Register a client by its certificate
    Add(AddArgs),
    /// List identities
    List {
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Show one identity
    Show {
        /// Its name
        name: IdentityName,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Remove an identity: its certificate is refused from then on
    Remove {
        /// Its name
        name: IdentityName,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

/// `identity add`.
#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// Its name: 1 to 63 of a-z, 0-9 and '-'
    name: IdentityName,
    /// What it may do
    #[arg(long)]
    role: Role,
    /// Its tenant; an operator has none, an auditor or security operator of the whole broker neither
    #[arg(long)]
    tenant: Option<TenantId>,
    /// For a VNFM: a VNF instance that it manages; for a registration authority: one that it enrols for (may be repeated)
    #[arg(long, value_name = "ID")]
    vnf_instance: Vec<VnfInstanceId>,
    /// Its client certificate, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "request", conflicts_with = "request")]
    certificate: Option<PathBuf>,
    /// In place of it a request (PKCS#10, PEM) for one: the broker's own CA signs it, and it can be renewed by EST
    #[arg(long, value_name = "FILE", requires = "out")]
    request: Option<PathBuf>,
    /// Where the certificate goes that was signed for the request, PEM
    #[arg(long, value_name = "FILE", requires = "request")]
    out: Option<PathBuf>,
    /// How long it is valid, and each that follows it; at most, and if not given, 365 days
    #[arg(long, requires = "request")]
    validity: Option<HumaneDuration>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Roles of registered clients.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Role {
    /// Configures the broker
    Operator,
    /// Manages all VNFs of its tenant
    Nfvo,
    /// Manages the VNF instances granted to it
    Vnfm,
    /// Reads everything
    Auditor,
    /// Reads everything and revokes
    SecurityOperator,
    /// Enrols by EST the keys that it vouches for: another broker
    RegistrationAuthority,
}

/// Runs the command.
pub(super) async fn run(command: IdentityCommand, output: OutputArgs) -> Result<(), Failure> {
    match command {
        IdentityCommand::Add(args) => {
            // The leaf comes first; the chain above it is not what is registered.
            let certificate_der = match &args.certificate {
                Some(file) => files::read_certificates(file)?.into_iter().next().unwrap_or_default(),
                None => Vec::new(),
            };
            let certificate_request_der = match &args.request {
                Some(file) => files::certificate_request(file, &files::read(file)?)?,
                None => Vec::new(),
            };
            let mut client = AdminServiceClient::new(args.connection.connect().await?.channel);
            let identity = Identity {
                name: args.name.to_string(),
                role: args.role.to_proto().into(),
                tenant: args.tenant.as_ref().map(TenantId::to_string).unwrap_or_default(),
                granted_vnf_instance_ids: args.vnf_instance.iter().map(VnfInstanceId::to_string).collect(),
                certificate_der,
                created_at: None,
            };
            let validity = args.validity.map(|validity| validity.0.try_into()).transpose();
            let request = AddIdentityRequest {
                request_id: request_id(),
                identity: Some(identity),
                certificate_request_der,
                validity: validity.map_err(|_| Failure::usage("validity is too long"))?,
            };
            let added = client.add_identity(request).await?.into_inner().identity.unwrap_or_default();
            if let Some(out) = &args.out {
                files::replace(
                    out,
                    pem("CERTIFICATE", &added.certificate_der).as_bytes(),
                    Readers::Everyone,
                )?;
            }
            output.object(&object(&added));
        }
        IdentityCommand::List { connection } => {
            let identities = identities(&connection).await?;
            let columns = ["name", "role", "tenant", "vnf_instances", "not_after"];
            output.list(&columns, &identities.iter().map(object).collect::<Vec<_>>());
        }
        IdentityCommand::Show { name, connection } => {
            let identities = identities(&connection).await?;
            let found = identities.iter().find(|identity| identity.name == name.as_str());
            let found = found.ok_or_else(|| Failure::failed(format!("identity {name} does not exist")))?;
            output.object(&object(found));
        }
        IdentityCommand::Remove { name, connection } => {
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let request = RemoveIdentityRequest { request_id: request_id(), name: name.to_string() };
            client.remove_identity(request).await?;
            output.object(&json!({ "name": name, "removed": true }));
        }
    }
    Ok(())
}

impl Role {
    fn to_proto(self) -> proto::Role {
        match self {
            Self::Operator => proto::Role::Operator,
            Self::Nfvo => proto::Role::Nfvo,
            Self::Vnfm => proto::Role::Vnfm,
            Self::Auditor => proto::Role::Auditor,
            Self::SecurityOperator => proto::Role::SecurityOperator,
            Self::RegistrationAuthority => proto::Role::RegistrationAuthority,
        }
    }
}

async fn identities(connection: &ConnectionArgs) -> Result<Vec<Identity>, Failure> {
    let mut client = AdminServiceClient::new(connection.connect().await?.channel);
    Ok(client.list_identities(ListIdentitiesRequest {}).await?.into_inner().identities)
}

fn object(identity: &Identity) -> Value {
    let facts = CertificateFacts::parse(&identity.certificate_der).ok();
    json!({
        "name": identity.name,
        "role": identity.role().as_str_name().trim_start_matches("ROLE_").to_lowercase().replace('_', "-"),
        "tenant": (!identity.tenant.is_empty()).then_some(&identity.tenant),
        "vnf_instances": identity.granted_vnf_instance_ids,
        "subject": facts.as_ref().map(|facts| facts.subject.clone()),
        "not_after": facts.as_ref().map(|facts| facts.not_after.to_string()),
        "certificate_sha256": Sha256Hash::of(&identity.certificate_der),
        "created_at": time_text(identity.created_at),
    })
}
