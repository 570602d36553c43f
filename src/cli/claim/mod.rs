//! `keybroker claim`: a VNFCI claims all its slots, installs what it gets, and confirms it.
//!
//! 1. A recipient key is made and stored (0600) with the request's id, before anything is asked.
//! 2. The claim is sent; on "not now" again, with the same id and key.
//! 3. Every envelope is opened; each key is checked against its certificate, each certificate against the root. If that has
//!    changed since the trust anchor was handed out, the trust chain is fetched over the connection that it authenticates.
//! 4. Keys and certificates are installed.
//! 5. Each key signs the confirmation. Only from its acknowledgement on may they be used.
//! 6. The recipient key is deleted.
//!
//! After a crash the same command goes on where it was.

pub(super) mod initial;
pub(super) mod install;
pub(super) mod patience;
pub(super) mod state;

use super::connection::time_text;
use super::failure::{Exit, Failure};
use super::files::{self, Readers};
use super::output::OutputArgs;
use super::trust;
use crate::api::client::{claim_request, connect};
use crate::api::proto::credential_service_client::CredentialServiceClient;
use crate::api::proto::{ClaimResponse, ConfirmRequest, GetTrustChainRequest};
use crate::clock::{Clock, HumaneDuration, SystemClock};
use crate::identity::confirm::confirm_message;
use crate::sealing::{RecipientKey, Suite};
use initial::{Initial, InitialArgs};
use patience::{Attempt, patiently};
use serde_json::json;
use state::{ClaimDirectory, ClaimState, Claimed, Stage};
use std::path::{Path, PathBuf};
use tonic::Code;

/// `claim`.
#[derive(Debug, clap::Args)]
pub(super) struct ClaimArgs {
    /// The broker's bootstrap listener, e.g. https://127.0.0.1:7443
    #[arg(long, value_name = "URL")]
    server: String,
    /// The root that the broker's and the delivered certificates must lead to, PEM
    #[arg(long, value_name = "FILE")]
    trust_anchor: PathBuf,
    #[command(flatten)]
    initial: InitialArgs,
    /// Directory for SLOT/{key.pem,cert.pem,chain.pem} and claim.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Have the keys sealed by this suite only: RSA_AES_KEY_WRAP makes an RSA recipient key, and must be among the
    /// broker's [hsm] sealing (default: a P-256 recipient key, and what the broker prefers for it)
    #[arg(long, value_name = "SUITE")]
    suite: Option<Suite>,
    /// Install only; claiming again without this flag confirms
    #[arg(long)]
    no_confirm: bool,
    /// How long to try again while the broker cannot deliver
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    patience: HumaneDuration,
}

impl ClaimArgs {
    /// Of the kind that the suite needs.
    fn new_recipient_key(&self) -> Result<RecipientKey, Failure> {
        let key = match self.suite {
            None | Some(Suite::EcdhP256X963Sha256Kwp | Suite::EcdhP256CbcencKwpV1) => {
                RecipientKey::generate()
            }
            Some(Suite::RsaAesKeyWrap) => RecipientKey::generate_rsa(),
        };
        key.map_err(Failure::failed)
    }

    /// A claim that goes on keeps its recipient key, whose kind may be another one.
    fn check_suite(&self, recipient: &RecipientKey) -> Result<(), Failure> {
        match self.suite {
            Some(suite) if !recipient.public_key().takes(suite) => Err(Failure::usage(format!(
                "the claim under way in {} has a recipient key of another kind than {suite} needs: repeat it without \
                 --suite, or claim into another directory",
                self.out.display()
            ))),
            _ => Ok(()),
        }
    }
}

/// Runs the command.
pub(super) async fn run(args: ClaimArgs, output: OutputArgs) -> Result<(), Failure> {
    let initial = args.initial.load(&args.trust_anchor)?;
    let directory = ClaimDirectory::open(&args.out)?;
    let mut state = match directory.state()? {
        Some(state) if state.stage != Stage::Withdrawn && state.stage != Stage::Released => state,
        // 1. The recipient key.
        _ => directory.begin(&args.server, &args.new_recipient_key()?)?,
    };
    if state.stage == Stage::Claiming {
        let recipient = directory.recipient_key(&state)?;
        args.check_suite(&recipient)?;
        // 2. Claim.
        let answer = claim(&args, &initial, &state, &recipient).await?;
        // 3. Open and check.
        let file = directory.trust_anchor_file();
        files::replace(&file, &files::read(&args.trust_anchor)?, Readers::Everyone)?;
        let known = files::read_certificates(&file)?;
        if answer.credentials.iter().any(|sealed| !known.contains(&sealed.root_der)) {
            follow_trust_chain(&args, &initial, &file).await?;
        }
        let anchors = files::read_certificates(&file)?;
        let (claimed, opened) = install::open_all(&answer, &recipient, &anchors, SystemClock.now())?;
        // 4. Install.
        install::install_all(&directory, &opened)?;
        state.trust_chain_version = Some(answer.trust_chain_version);
        state.renew_after = time_text(answer.renew_after);
        state.claimed = Some(claimed);
        state.stage = Stage::Installed;
        directory.store(&state)?;
    }
    let claimed = state.claimed.clone().ok_or_else(|| Failure::failed("claim.json names no claim"))?;
    let mut newly_confirmed = false;
    if state.stage == Stage::Installed && !args.no_confirm {
        // 5. Confirm.
        newly_confirmed = match confirm(&args, &initial, &directory, &state, &claimed).await {
            Err(failure) if failure.withdrawn => {
                withdraw(&directory, &mut state, &claimed)?;
                return Err(failure.failure);
            }
            other => other.map_err(|failure| failure.failure)?,
        };
        state.stage = Stage::Confirmed;
        directory.store(&state)?;
    }
    if state.stage == Stage::Confirmed {
        // 6. The recipient key. A crash before this is made up for by the next run.
        directory.delete_recipient_key()?;
    }
    let slots: Vec<_> = claimed
        .slots
        .iter()
        .map(|slot| {
            json!({
                "slot": slot.slot,
                "credential_id": slot.credential_id,
                "certificate_sha256": slot.certificate_sha256,
                "not_after": slot.not_after,
                "directory": directory.slot(&slot.slot),
            })
        })
        .collect();
    output.object(&json!({
        "vnfci_id": claimed.vnfci_id,
        "tenant": claimed.tenant,
        "claim_id": claimed.claim_id,
        "stage": state.stage,
        "newly_confirmed": newly_confirmed,
        "renew_after": state.renew_after,
        "slots": slots,
    }));
    Ok(())
}

/// The credentials lead to a root that was not there when the trust anchor was handed out.
async fn follow_trust_chain(args: &ClaimArgs, initial: &Initial, file: &Path) -> Result<(), Failure> {
    let chain = patiently(args.patience.0, "fetch the trust chain", async || {
        let connection = connect(&args.server, &initial.tls).await?;
        let mut client = CredentialServiceClient::new(connection.channel);
        Ok(client.get_trust_chain(GetTrustChainRequest {}).await?.into_inner())
    });
    let chain = chain.await.map_err(Failure::from)?;
    trust::follow(&chain, file, SystemClock.now())
}

async fn claim(
    args: &ClaimArgs,
    initial: &Initial,
    state: &ClaimState,
    recipient: &RecipientKey,
) -> Result<ClaimResponse, Failure> {
    let answer = patiently(args.patience.0, "claim", async || {
        let connection = connect(&args.server, &initial.tls).await?;
        let proof = initial.proof(&connection, state.request_id, state.recipient_key_sha256);
        let mut request = claim_request(state.request_id, recipient.public_key(), proof);
        if let Some(suite) = args.suite {
            request.suites = vec![suite.to_string()];
        }
        Ok(CredentialServiceClient::new(connection.channel).claim(request).await?.into_inner())
    });
    answer.await.map_err(Failure::from)
}

/// A confirmation that failed.
struct ConfirmFailure {
    failure: Failure,
    /// The broker took the credentials back: they must not be used any more.
    withdrawn: bool,
}

impl From<Failure> for ConfirmFailure {
    fn from(failure: Failure) -> Self {
        Self { failure, withdrawn: false }
    }
}

async fn confirm(
    args: &ClaimArgs,
    initial: &Initial,
    directory: &ClaimDirectory,
    state: &ClaimState,
    claimed: &Claimed,
) -> Result<bool, ConfirmFailure> {
    let signatures = install::sign_all(directory, claimed, |slot| {
        confirm_message(claimed.claim_id, slot.certificate_sha256, state.recipient_key_sha256)
    })?;
    let answer = patiently(args.patience.0, "confirm", async || {
        let connection = connect(&args.server, &initial.tls).await?;
        let request = ConfirmRequest {
            request_id: state.confirm_request_id.to_string(),
            claim_id: claimed.claim_id.to_string(),
            signatures: signatures.clone(),
            token: initial.proof(&connection, state.confirm_request_id, state.recipient_key_sha256),
        };
        Ok(CredentialServiceClient::new(connection.channel).confirm(request).await?.into_inner())
    });
    match answer.await {
        Ok(answer) => Ok(answer.newly_confirmed),
        Err(Attempt::Status(status)) if status.code() == Code::FailedPrecondition => {
            let mut failure = Failure::from(status);
            failure.exit = Exit::Failed;
            failure.text.push_str("; the installed keys were deleted, claim again");
            Err(ConfirmFailure { failure, withdrawn: true })
        }
        Err(attempt) => Err(Failure::from(attempt).into()),
    }
}

fn withdraw(directory: &ClaimDirectory, state: &mut ClaimState, claimed: &Claimed) -> Result<(), Failure> {
    directory.delete_keys(claimed)?;
    directory.delete_recipient_key()?;
    state.stage = Stage::Withdrawn;
    directory.store(state)
}
