//! `keybroker vnfci`: VNFC instances as MANO announces and ends them.

mod announcement;
mod rearm;
mod revoke;

use super::batches::{BatchArgs, Batches};
use super::connection::{ConnectionArgs, TenantArgs, request_id, time_text};
use super::failure::Failure;
use super::files::{self, Readers};
use super::output::OutputArgs;
use crate::api::proto::lifecycle_service_client::LifecycleServiceClient;
use crate::api::proto::{
    GetVnfciRequest, ListVnfcisRequest, RegisterVnfcisRequest, RequestRenewalRequest, TerminateVnfciRequest,
    Vnfci,
};
use crate::nfv::{VnfInstanceId, VnfciId};
use announcement::RegisterArgs;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What to do with VNFC instances.
#[derive(Debug, clap::Subcommand)]
pub(super) enum VnfciCommand {
    /// Announce one VNFCI by flags, or many by a file, with slots and initial credential
    Register(Box<Register>),
    /// Give VNFCIs a new initial credential: after a power cut, for migration, update or repeated delivery
    Rearm(Box<rearm::RearmArgs>),
    /// Ask VNFCIs to renew their credentials before it is time; they learn it when they ask the broker
    Renew {
        /// MANO's ids of the VNFCIs
        #[arg(required = true, value_name = "VNFCI")]
        vnfcis: Vec<VnfciId>,
        #[command(flatten)]
        batches: BatchArgs,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// List VNFCIs
    List {
        /// Only of this VNF instance
        #[arg(long, value_name = "ID")]
        vnf_instance: Option<VnfInstanceId>,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Show one VNFCI with its credentials
    Show {
        /// MANO's id
        vnfci: VnfciId,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Report the end of a VNFCI: its certificates are revoked, the broker's copies of its keys destroyed
    Terminate {
        /// MANO's id
        vnfci: VnfciId,
        /// State that its storage was wiped; goes into the receipts
        #[arg(long)]
        storage_wiped: bool,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Revoke certificates, by serial number, credential or VNFCI
    Revoke(Box<revoke::RevokeArgs>),
}

/// `vnfci register`.
#[derive(Debug, clap::Args)]
pub(super) struct Register {
    #[command(flatten)]
    announcements: RegisterArgs,
    /// Directory for one-time tokens: one file NAME.token (0600) each
    #[arg(long, value_name = "DIR", default_value = "tokens")]
    token_dir: PathBuf,
    #[command(flatten)]
    batches: BatchArgs,
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub(super) async fn run(command: VnfciCommand, output: OutputArgs) -> Result<(), Failure> {
    match command {
        VnfciCommand::Register(register) => run_register(*register, output).await?,
        VnfciCommand::Rearm(args) => rearm::run(*args, output).await?,
        VnfciCommand::Renew { vnfcis, batches, tenant, connection } => {
            request_renewal(&vnfcis, &batches.begin(), &tenant, connection, output).await?;
        }
        VnfciCommand::List { vnf_instance, tenant, connection } => {
            let mut client = LifecycleServiceClient::new(connection.connect().await?.channel);
            let mut objects = Vec::new();
            let mut page_token = String::new();
            loop {
                let request = ListVnfcisRequest {
                    tenant: tenant.to_proto(),
                    vnf_instance_id: vnf_instance.as_ref().map(VnfInstanceId::to_string).unwrap_or_default(),
                    page_size: 0,
                    page_token,
                };
                let page = client.list_vnfcis(request).await?.into_inner();
                objects.extend(page.vnfcis.iter().map(object));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            let columns =
                ["vnfci_id", "vnf_instance_id", "vdu_id", "state", "initial_credential", "registered_at"];
            output.list(&columns, &objects);
        }
        VnfciCommand::Show { vnfci, tenant, connection } => {
            let mut client = LifecycleServiceClient::new(connection.connect().await?.channel);
            let request = GetVnfciRequest { tenant: tenant.to_proto(), vnfci_id: vnfci.to_string() };
            let vnfci = client.get_vnfci(request).await?.into_inner().vnfci.unwrap_or_default();
            output.object(&object(&vnfci));
        }
        VnfciCommand::Terminate { vnfci, storage_wiped, tenant, connection } => {
            let mut client = LifecycleServiceClient::new(connection.connect().await?.channel);
            let request = TerminateVnfciRequest {
                request_id: request_id(),
                tenant: tenant.to_proto(),
                vnfci_id: vnfci.to_string(),
                storage_wiped,
            };
            let answer = client.terminate_vnfci(request).await?.into_inner();
            output.object(&json!({
                "vnfci_id": vnfci,
                "serials": answer.serials,
                "newly_terminated": answer.newly_terminated,
            }));
        }
        VnfciCommand::Revoke(args) => revoke::run(*args, output).await?,
    }
    Ok(())
}

async fn run_register(register: Register, output: OutputArgs) -> Result<(), Failure> {
    let batches = register.batches.begin();
    let announcements = register.announcements.announcements(batches.begun())?;
    if announcements.iter().any(|item| announcement::is_token(item.initial_credential.as_ref())) {
        // Before anything is registered: a token is given out once and must have a place.
        files::private_directory(&register.token_dir)?;
    }
    let mut client = LifecycleServiceClient::new(register.connection.connect().await?.channel);
    let columns = ["vnfci_id", "registered", "error", "token_file"];
    let register = async |request_id, vnfcis, told: &mut Vec<Value>| {
        let request = RegisterVnfcisRequest { request_id, tenant: register.tenant.to_proto(), vnfcis };
        let mut tokens = Tokens::new(&register.token_dir);
        for result in client.register_vnfcis(request).await?.into_inner().results {
            told.push(json!({
                "vnfci_id": result.vnfci_id,
                "registered": result.error.is_empty(),
                "token_file": tokens.store(&result.vnfci_id, result.token),
                "error": (!result.error.is_empty()).then_some(result.error),
            }));
        }
        tokens.all_stored()
    };
    batches.ask(&announcements, (output, &columns, "were not registered"), register).await
}

async fn request_renewal(
    vnfcis: &[VnfciId],
    batches: &Batches,
    tenant: &TenantArgs,
    connection: ConnectionArgs,
    output: OutputArgs,
) -> Result<(), Failure> {
    let mut client = LifecycleServiceClient::new(connection.connect().await?.channel);
    let columns = ["vnfci_id", "requested", "newly_requested", "error"];
    let ask = async |request_id, vnfcis: Vec<VnfciId>, told: &mut Vec<Value>| {
        let vnfci_ids = vnfcis.iter().map(VnfciId::to_string).collect();
        let request = RequestRenewalRequest { request_id, tenant: tenant.to_proto(), vnfci_ids };
        for result in client.request_renewal(request).await?.into_inner().results {
            told.push(json!({
                "vnfci_id": result.vnfci_id,
                "requested": result.error.is_empty(),
                "newly_requested": result.newly_requested,
                "error": (!result.error.is_empty()).then_some(result.error),
            }));
        }
        Ok(())
    };
    batches.ask(vnfcis, (output, &columns, "were not asked to renew"), ask).await
}

/// The one-time tokens that one call brought: one that cannot be written does not keep the others from it.
struct Tokens<'a> {
    directory: &'a Path,
    failure: Option<Failure>,
}

impl<'a> Tokens<'a> {
    fn new(directory: &'a Path) -> Self {
        Self { directory, failure: None }
    }

    /// Writes a VNFCI's token, if there is one; gives the file.
    fn store(&mut self, vnfci: &str, token: String) -> Option<PathBuf> {
        let token = Zeroizing::new(token);
        if token.is_empty() {
            return None;
        }
        let file = token_file(self.directory, vnfci);
        match files::replace(&file, format!("{}\n", token.as_str()).as_bytes(), Readers::Owner) {
            Ok(()) => Some(file),
            Err(failure) => {
                self.failure.get_or_insert(failure);
                None
            }
        }
    }

    fn all_stored(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }
}

/// Where a VNFCI's token goes. MANO's ids may have characters that file names must not.
fn token_file(directory: &Path, vnfci: &str) -> PathBuf {
    let mut name = String::new();
    for byte in vnfci.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    directory.join(format!("{name}.token"))
}

fn object(vnfci: &Vnfci) -> Value {
    let slots: Vec<_> =
        vnfci.slots.iter().map(|slot| json!({ "name": slot.name, "pool": slot.pool })).collect();
    let credentials: Vec<_> = vnfci
        .credentials
        .iter()
        .map(|credential| {
            json!({
                "credential_id": credential.credential_id,
                "slot": credential.slot,
                "public_key_sha256": hex::encode(&credential.public_key_sha256),
                "serial": credential.serial,
                "issuer_id": credential.issuer_id,
                "key_state": credential.key_state,
                "certificate_state": credential.certificate_state,
                "not_before": time_text(credential.not_before),
                "not_after": time_text(credential.not_after),
            })
        })
        .collect();
    json!({
        "tenant": vnfci.tenant,
        "vnfci_id": vnfci.vnfci_id,
        "vnf_instance_id": vnfci.vnf_instance_id,
        "vdu_id": vnfci.vdu_id,
        "state": vnfci.state().as_str_name().trim_start_matches("VNFCI_STATE_"),
        "slots": slots,
        "credentials": credentials,
        "registered_at": time_text(vnfci.registered_at),
        "renewal_requested_at": time_text(vnfci.renewal_requested_at),
        "initial_credential": vnfci.initial_credential_state,
        "initial_credential_expires_at": time_text(vnfci.initial_credential_expires_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stays_in_its_directory_whatever_the_vnfci_is_called() {
        let file = |id| token_file(Path::new("d"), id).to_string_lossy().into_owned();
        assert_eq!(file("amf-0001"), "d/amf-0001.token");
        assert_eq!(file("../x"), "d/%2E.%2Fx.token");
        assert_eq!(file("urn:uuid:1"), "d/urn%3Auuid%3A1.token");
    }
}
