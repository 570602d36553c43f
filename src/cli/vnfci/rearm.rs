//! `keybroker vnfci rearm`: new initial credentials, by flags or from a JSON file.

use super::super::batches::BatchArgs;
use super::super::connection::{ConnectionArgs, TenantArgs};
use super::super::failure::Failure;
use super::super::files;
use super::super::output::OutputArgs;
use super::Tokens;
use super::announcement::{PinArgs, expires_at, initial_credential};
use crate::api::proto::lifecycle_service_client::LifecycleServiceClient;
use crate::api::proto::{InitialCredential, RearmVnfcisRequest, Rearming};
use crate::clock::{HumaneDuration, Timestamp};
use crate::nfv::{AnchorName, Sha256Hash, VnfciId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;

/// `vnfci rearm`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RearmArgs {
    /// MANO's ids of the VNFCIs; several with --token only
    #[arg(required_unless_present = "file", value_name = "VNFCI")]
    vnfcis: Vec<VnfciId>,
    /// Many VNFCIs: a JSON array, or one object per line; fields vnfci_id, and token=true, or anchor with
    /// certificate_sha256 or name
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "vnfcis", "anchor", "cert_fingerprint", "initial_cert", "name", "token",
    ])]
    file: Option<PathBuf>,
    /// X.509 initial credential: the anchor that it leads to
    #[arg(long, required_unless_present_any = ["file", "token"], requires = "pin")]
    anchor: Option<AnchorName>,
    #[command(flatten)]
    pin: PinArgs,
    /// A new one-time token as initial credential
    #[arg(long, conflicts_with_all = ["anchor", "pin"])]
    token: bool,
    /// How long the initial credential may be used [default: 24h]
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<HumaneDuration>,
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

/// One item of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    vnfci_id: VnfciId,
    #[serde(default)]
    token: bool,
    anchor: Option<AnchorName>,
    certificate_sha256: Option<Sha256Hash>,
    name: Option<String>,
}

impl RearmArgs {
    fn rearmings(&self, begun: Timestamp) -> Result<Vec<Rearming>, Failure> {
        let items = match &self.file {
            Some(file) => files::read_json_items(file)?,
            None => self.items()?,
        };
        let expires_at = expires_at(self.expires_in, begun);
        items
            .into_iter()
            .map(|item: Item| {
                let kind = initial_credential(
                    &item.vnfci_id,
                    item.token,
                    item.anchor,
                    item.certificate_sha256,
                    item.name,
                )?;
                let initial_credential = Some(InitialCredential { kind: Some(kind), expires_at });
                Ok(Rearming { vnfci_id: item.vnfci_id.to_string(), initial_credential })
            })
            .collect()
    }

    fn items(&self) -> Result<Vec<Item>, Failure> {
        if self.vnfcis.len() > 1 && !self.token {
            return Err(Failure::usage("a certificate is for one VNFCI: give --token, or --file for many"));
        }
        let certificate_sha256 = self.pin.certificate()?;
        let item = |vnfci: &VnfciId| Item {
            vnfci_id: vnfci.clone(),
            token: self.token,
            anchor: self.anchor.clone(),
            certificate_sha256,
            name: self.pin.name.clone(),
        };
        Ok(self.vnfcis.iter().map(item).collect())
    }
}

/// Runs the command.
pub(super) async fn run(args: RearmArgs, output: OutputArgs) -> Result<(), Failure> {
    let batches = args.batches.begin();
    let rearmings = args.rearmings(batches.begun())?;
    if rearmings.iter().any(|item| super::announcement::is_token(item.initial_credential.as_ref())) {
        // Before anything is changed: a token is given out once and must have a place.
        files::private_directory(&args.token_dir)?;
    }
    let mut client = LifecycleServiceClient::new(args.connection.connect().await?.channel);
    let columns = ["vnfci_id", "rearmed", "error", "token_file"];
    let rearm = async |request_id, vnfcis, told: &mut Vec<Value>| {
        let request = RearmVnfcisRequest { request_id, tenant: args.tenant.to_proto(), vnfcis };
        let mut tokens = Tokens::new(&args.token_dir);
        for result in client.rearm_vnfcis(request).await?.into_inner().results {
            told.push(json!({
                "vnfci_id": result.vnfci_id,
                "rearmed": result.error.is_empty(),
                "token_file": tokens.store(&result.vnfci_id, result.token),
                "error": (!result.error.is_empty()).then_some(result.error),
            }));
        }
        tokens.all_stored()
    };
    batches.ask(&rearmings, (output, &columns, "were not re-armed"), rearm).await
}
