//! `keybroker renew`: a VNFCI replaces its credentials by fresh ones.
//!
//! The renewal has a directory of its own, DIR/renewal, with the steps and the files of a claim (`claim`); the connection is
//! authenticated by a key of DIR. What is in DIR is left as it is until the broker has acknowledged the new keys; then each
//! file is replaced as a whole, and the renewal's directory removed. After a crash the same command goes on where it was.
//!
//! The trust anchors of DIR follow the tenant's trust chain (`trust`), unless they are somebody else's (`--trust-anchor`).

use super::claim::install::{self, sign_all};
use super::claim::patience::{Attempt, patiently};
use super::claim::state::{ClaimDirectory, ClaimState, Claimed, Stage};
use super::connection::time_text;
use super::failure::{Exit, Failure};
use super::files;
use super::output::OutputArgs;
use super::trust;
use crate::api::client::{ClientTls, connect, renew_request};
use crate::api::proto::credential_service_client::CredentialServiceClient;
use crate::api::proto::{ConfirmRequest, ConfirmResponse, GetTrustChainRequest, GetTrustChainResponse};
use crate::ca::CertificateFacts;
use crate::clock::{Clock, HumaneDuration, SystemClock, Timestamp};
use crate::identity::confirm::confirm_message;
use crate::sealing::{RecipientKey, Suite};
use serde_json::{Value, json};
use std::path::PathBuf;
use tonic::Code;

/// `renew`.
#[derive(Debug, clap::Args)]
pub(super) struct RenewArgs {
    /// The broker's listener for VNFCIs with a delivered certificate, e.g. https://127.0.0.1:7444
    #[arg(long, value_name = "URL")]
    server: String,
    /// The directory that `claim` wrote
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The root that the broker's and the delivered certificates must lead to, PEM [default: the one of the claim]
    #[arg(long, value_name = "FILE")]
    trust_anchor: Option<PathBuf>,
    /// Only if it is time, or MANO has asked for it; done otherwise. For a timer
    #[arg(long)]
    when_due: bool,
    /// Have the keys sealed by this suite only, as in `claim`
    #[arg(long, value_name = "SUITE")]
    suite: Option<Suite>,
    /// Install beside the old keys only; renewing again without this flag confirms
    #[arg(long)]
    no_confirm: bool,
    /// How long to try again while the broker cannot deliver
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    patience: HumaneDuration,
}

/// Runs the command.
pub(super) async fn run(args: RenewArgs, output: OutputArgs) -> Result<(), Failure> {
    if !args.out.is_dir() {
        return Err(Failure::usage(format!("{} is no directory of a claim", args.out.display())));
    }
    let directory = ClaimDirectory::open(&args.out)?;
    let held = directory.state()?.filter(|state| state.stage == Stage::Confirmed);
    let none = || Failure::usage(format!("{} holds no confirmed claim", args.out.display()));
    let mut held = held.ok_or_else(none)?;
    let claimed = held.claimed.clone().ok_or_else(none)?;
    if let Some(state) = finish(&directory, &claimed)? {
        let claimed = state.claimed.as_ref().unwrap_or(&claimed);
        output.object(&shown(claimed, true, state.renew_after.as_deref()));
        return Ok(());
    }
    let anchor = args.trust_anchor.clone().unwrap_or_else(|| directory.trust_anchor_file());
    let tls = tls(&directory, &claimed, &anchor)?;
    let renewal = Renewal { args: &args, tls, anchor, version: held.trust_chain_version };

    if args.when_due && !directory.renewal().exists() {
        let chain = renewal.trust_chain().await?;
        if renewal.follow(&chain)? {
            held.trust_chain_version = Some(chain.version);
            directory.store(&held)?;
        }
        let renew_after = chain.renew_after.map(|time| Timestamp::from_unix_seconds(time.seconds));
        if renew_after.is_none_or(|after| after > SystemClock.now()) {
            let renew_after = renew_after.map(|after| after.to_string());
            output.object(&shown(&claimed, false, renew_after.as_deref()));
            return Ok(());
        }
    }
    let own = ClaimDirectory::open(&directory.renewal())?;
    let state = renewal.under_way(&own).await?;
    drop(own);
    let renewed = state.claimed.clone().ok_or_else(|| Failure::failed("claim.json names no claim"))?;
    finish(&directory, &claimed)?;
    let claimed = renewed;
    output.object(&shown(&claimed, state.stage == Stage::Confirmed, state.renew_after.as_deref()));
    Ok(())
}

/// Lets a renewal that is confirmed take the place of what it renewed; gives its state. A crash in it leaves the renewal's
/// directory, and the next run makes up for it before it asks anything.
fn finish(directory: &ClaimDirectory, held: &Claimed) -> Result<Option<ClaimState>, Failure> {
    if !directory.renewal().exists() {
        return Ok(None);
    }
    let own = ClaimDirectory::open(&directory.renewal())?;
    let Some(state) = own.state()?.filter(|state| state.stage == Stage::Confirmed) else { return Ok(None) };
    if state.claimed.as_ref().is_some_and(|renewed| renewed.claim_id != held.claim_id) {
        directory.take_over(&own, &state)?;
    }
    own.remove()?;
    Ok(Some(state))
}

fn shown(claimed: &Claimed, renewed: bool, renew_after: Option<&str>) -> Value {
    let slots: Vec<_> = claimed
        .slots
        .iter()
        .map(|slot| {
            json!({
                "slot": slot.slot,
                "credential_id": slot.credential_id,
                "certificate_sha256": slot.certificate_sha256,
                "not_after": slot.not_after,
            })
        })
        .collect();
    json!({
        "vnfci_id": claimed.vnfci_id,
        "claim_id": claimed.claim_id,
        "renewed": renewed,
        "renew_after": renew_after,
        "slots": slots,
    })
}

/// By the held certificate that is valid longest.
fn tls(
    directory: &ClaimDirectory,
    claimed: &Claimed,
    anchor: &std::path::Path,
) -> Result<ClientTls, Failure> {
    let mut longest: Option<(Timestamp, PathBuf, Vec<Vec<u8>>)> = None;
    for slot in &claimed.slots {
        let path = directory.slot(&slot.slot);
        let chain = files::read_certificates(&path.join("chain.pem"))?;
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        let not_after = CertificateFacts::parse(leaf).map_err(Failure::failed)?.not_after;
        if longest.as_ref().is_none_or(|(latest, ..)| not_after > *latest) {
            longest = Some((not_after, path, chain));
        }
    }
    let (_, path, certificate_chain_der) =
        longest.ok_or_else(|| Failure::failed("claim.json names no slot"))?;
    Ok(ClientTls {
        trust_anchor_pem: files::read(anchor)?,
        certificate_chain_der,
        key_der: files::read_private_key(&path.join("key.pem"))?,
    })
}

struct Renewal<'a> {
    args: &'a RenewArgs,
    /// By a key that is replaced.
    tls: ClientTls,
    anchor: PathBuf,
    /// Of the trust chain that the anchors are from.
    version: Option<u32>,
}

impl Renewal<'_> {
    /// Goes on with the renewal in its directory, or begins one, as far as it is to go.
    async fn under_way(&self, own: &ClaimDirectory) -> Result<ClaimState, Failure> {
        let mut state = match own.state()? {
            Some(state) if state.stage != Stage::Withdrawn => state,
            _ => own.begin(&self.args.server, &self.new_recipient_key()?)?,
        };
        if state.stage == Stage::Claiming {
            self.install(own, &mut state).await?;
        }
        if state.stage == Stage::Installed && !self.args.no_confirm {
            self.confirm(own, &mut state).await?;
        }
        if state.stage == Stage::Confirmed {
            own.delete_recipient_key()?;
        }
        Ok(state)
    }

    fn new_recipient_key(&self) -> Result<RecipientKey, Failure> {
        let key = match self.args.suite {
            Some(Suite::RsaAesKeyWrap) => RecipientKey::generate_rsa(),
            _ => RecipientKey::generate(),
        };
        key.map_err(Failure::failed)
    }

    async fn install(&self, own: &ClaimDirectory, state: &mut ClaimState) -> Result<(), Failure> {
        let recipient = own.recipient_key(state)?;
        let answer = patiently(self.args.patience.0, "renew", async || {
            let connection = connect(&self.args.server, &self.tls).await?;
            let mut request = renew_request(state.request_id, recipient.public_key());
            if let Some(suite) = self.args.suite {
                request.suites = vec![suite.to_string()];
            }
            Ok(CredentialServiceClient::new(connection.channel).renew(request).await?.into_inner())
        });
        let answer = answer.await.map_err(Failure::from)?;
        let version = Some(answer.trust_chain_version);
        if version != self.version && self.args.trust_anchor.is_none() {
            self.follow(&self.trust_chain().await?)?;
        }
        let anchors = files::read_certificates(&self.anchor)?;
        let opened = install::open_all(&answer, &recipient, &anchors, SystemClock.now());
        let (claimed, opened) = opened.map_err(|mut failure| {
            if version != self.version && self.args.trust_anchor.is_some() {
                failure.text.push_str(
                    "; the trust chain has changed since the claim: renew without --trust-anchor, which fetches it, \
                     or add the new root to that file",
                );
            }
            failure
        })?;
        state.trust_chain_version = version;
        install::install_all(own, &opened)?;
        state.renew_after = time_text(answer.renew_after);
        state.claimed = Some(claimed);
        state.stage = Stage::Installed;
        own.store(state)
    }

    async fn confirm(&self, own: &ClaimDirectory, state: &mut ClaimState) -> Result<(), Failure> {
        let claimed = state.claimed.clone().ok_or_else(|| Failure::failed("claim.json names no claim"))?;
        let signatures = sign_all(own, &claimed, |slot| {
            confirm_message(claimed.claim_id, slot.certificate_sha256, state.recipient_key_sha256)
        })?;
        // By the new key: an acknowledgement that was lost is repeated after the old certificate has ended, too.
        let tls = tls(own, &claimed, &self.anchor)?;
        let answer: Result<ConfirmResponse, Attempt> =
            patiently(self.args.patience.0, "confirm", async || {
                let connection = connect(&self.args.server, &tls).await?;
                let request = ConfirmRequest {
                    request_id: state.confirm_request_id.to_string(),
                    claim_id: claimed.claim_id.to_string(),
                    signatures: signatures.clone(),
                    token: None,
                };
                Ok(CredentialServiceClient::new(connection.channel).confirm(request).await?.into_inner())
            })
            .await;
        let withdrawn = matches!(&answer, Err(Attempt::Status(status))
            if matches!(status.code(), Code::FailedPrecondition | Code::Unauthenticated));
        match answer {
            Ok(answer) => {
                state.renew_after = time_text(answer.renew_after);
                state.stage = Stage::Confirmed;
                own.store(state)
            }
            Err(attempt) if withdrawn => {
                own.delete_keys(&claimed)?;
                own.delete_recipient_key()?;
                state.stage = Stage::Withdrawn;
                own.store(state)?;
                let mut failure = Failure::from(attempt);
                failure.exit = Exit::Failed;
                failure
                    .text
                    .push_str("; the new keys were deleted, what was held before is as it was: renew again");
                Err(failure)
            }
            Err(attempt) => Err(attempt.into()),
        }
    }

    /// What the broker says now.
    async fn trust_chain(&self) -> Result<GetTrustChainResponse, Failure> {
        let answer = patiently(self.args.patience.0, "fetch the trust chain", async || {
            let connection = connect(&self.args.server, &self.tls).await?;
            let mut client = CredentialServiceClient::new(connection.channel);
            Ok(client.get_trust_chain(GetTrustChainRequest {}).await?.into_inner())
        });
        answer.await.map_err(Failure::from)
    }

    /// Installs the roots of another trust chain than the one that is known; whether it did.
    fn follow(&self, chain: &GetTrustChainResponse) -> Result<bool, Failure> {
        if self.args.trust_anchor.is_some() || self.version == Some(chain.version) {
            return Ok(false);
        }
        trust::follow(chain, &self.anchor, SystemClock.now())?;
        Ok(true)
    }
}
