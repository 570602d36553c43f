//! `keybroker release`: a VNFCI gives its credentials back and deletes its keys once that is acknowledged.

use super::claim::install::sign_all;
use super::claim::state::{ClaimDirectory, Stage};
use super::failure::{Exit, Failure};
use super::files;
use super::output::OutputArgs;
use crate::api::client::{ClientTls, connect};
use crate::api::proto::ReleaseRequest;
use crate::api::proto::credential_service_client::CredentialServiceClient;
use crate::identity::confirm::release_message;
use serde_json::json;
use std::path::PathBuf;

/// `release`.
#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArgs {
    /// The broker's listener for VNFCIs with a delivered certificate, e.g. https://127.0.0.1:7444
    #[arg(long, value_name = "URL")]
    server: String,
    /// The directory that `claim` wrote
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The root that the broker's certificate must lead to, PEM [default: the one of the claim]
    #[arg(long, value_name = "FILE")]
    trust_anchor: Option<PathBuf>,
}

/// Runs the command.
pub(super) async fn run(args: ReleaseArgs, output: OutputArgs) -> Result<(), Failure> {
    if !args.out.is_dir() {
        return Err(Failure::usage(format!("{} is no directory of a claim", args.out.display())));
    }
    let directory = ClaimDirectory::open(&args.out)?;
    let no_claim = || Failure::usage(format!("{} holds no confirmed claim", args.out.display()));
    let mut state = directory.state()?.ok_or_else(no_claim)?;
    let claimed = state.claimed.clone().ok_or_else(no_claim)?;
    let mut serials = Vec::new();
    let before = state.stage;
    match before {
        Stage::Confirmed | Stage::Releasing => {
            let anchor = args.trust_anchor.unwrap_or_else(|| directory.trust_anchor_file());
            let first = claimed.slots.first().ok_or_else(no_claim)?;
            let slot = directory.slot(&first.slot);
            let tls = ClientTls {
                trust_anchor_pem: files::read(&anchor)?,
                certificate_chain_der: files::read_certificates(&slot.join("chain.pem"))?,
                key_der: files::read_private_key(&slot.join("key.pem"))?,
            };
            let signatures = sign_all(&directory, &claimed, |slot| {
                release_message(claimed.claim_id, slot.certificate_sha256, state.recipient_key_sha256)
            })?;
            state.stage = Stage::Releasing;
            directory.store(&state)?;
            let connection = connect(&args.server, &tls).await?;
            let request = ReleaseRequest {
                request_id: state.release_request_id.to_string(),
                claim_id: claimed.claim_id.to_string(),
                signatures,
            };
            let answer = CredentialServiceClient::new(connection.channel).release(request).await;
            serials = answer.map_err(|status| refused_again(status.into(), before))?.into_inner().serials;
        }
        // Acknowledged before; the keys may still be there after a crash.
        Stage::Released => {}
        Stage::Claiming | Stage::Installed | Stage::Withdrawn => return Err(no_claim()),
    }
    directory.delete_keys(&claimed)?;
    if directory.renewal().exists() {
        // The broker destroyed what a renewal under way was to bring.
        ClaimDirectory::open(&directory.renewal())?.remove()?;
    }
    state.stage = Stage::Released;
    directory.store(&state)?;
    output.object(&json!({
        "vnfci_id": claimed.vnfci_id,
        "claim_id": claimed.claim_id,
        "released": true,
        "serials": serials,
    }));
    Ok(())
}

/// An acknowledgement that was lost: the certificate that would authenticate a repetition is revoked by then.
fn refused_again(mut failure: Failure, before: Stage) -> Failure {
    if before == Stage::Releasing && failure.exit == Exit::Refused {
        failure.text.push_str(
            "; an earlier attempt may have succeeded: if MANO sees the VNFCI as RELEASED, delete the key.pem files",
        );
    }
    failure
}
