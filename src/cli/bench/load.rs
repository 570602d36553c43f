//! The load: clients that each open a new connection and make one call, in a process of their own, so that what they
//! cost is not counted as the server's.
//!
//! The plan comes over standard input, the report goes to standard output, both JSON.

use super::super::claim::install;
use super::super::failure::Failure;
use super::super::processes::Program;
use super::machine::{Spent, Ticks};
use crate::api::client::{ClientTls, claim_request, connect};
use crate::api::proto::credential_service_client::CredentialServiceClient;
use crate::api::proto::{ClaimResponse, ConfirmRequest};
use crate::ca::certificates_from_pem;
use crate::clock::{Clock, SystemClock};
use crate::identity::confirm::confirm_message;
use crate::nfv::RequestId;
use crate::sealing::RecipientKey;
use futures_util::{StreamExt, TryStreamExt, stream};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use zeroize::Zeroizing;

/// A load that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(300);

/// What a load process is to do.
#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    /// `https://HOST:PORT` of the server.
    pub(super) server: String,
    /// Its root, PEM.
    pub(super) trust_anchor_pem: String,
    /// Clients at the same time.
    pub(super) parallel: usize,
    /// The server's process, whose processor time is of interest.
    pub(super) server_pid: u32,
    /// Whether answers are to be opened, checked and confirmed. A bare server's cannot be.
    pub(super) confirm: bool,
    /// One call each.
    pub(super) clients: Vec<Client>,
}

/// A client's initial credential, made for the bench in software; hexadecimal.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Client {
    /// DER.
    pub(super) certificate: String,
    /// PKCS#8, DER.
    pub(super) key: String,
}

/// What a load came to.
#[derive(Serialize, Deserialize)]
pub(super) struct Report {
    /// The calls.
    pub(super) calls: Phase,
    /// The confirmations, if they were asked for.
    pub(super) confirms: Option<Phase>,
    /// The first answer's length in bytes.
    pub(super) answer_bytes: usize,
}

/// Calls that were made one after the other or at the same time, all over new connections.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Phase {
    /// From the first connection to the last answer.
    pub(super) seconds: f64,
    /// From before the connection to the answer, one per call.
    pub(super) latencies_ms: Vec<f64>,
    /// Processor time of the server's own process, of its children, and of the clients.
    pub(super) server_s: f64,
    pub(super) children_s: f64,
    pub(super) clients_s: f64,
    /// The machine's busy share, 0 to 1.
    pub(super) busy: f64,
}

impl Phase {
    /// Calls per second.
    pub(super) fn rate(&self) -> f64 {
        self.latencies_ms.len() as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Has another process carry the plan out.
pub(super) async fn run_in_a_process(program: &Program, plan: &Plan) -> Result<Report, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("the load process: {error}"));
    let text = Zeroizing::new(serde_json::to_vec(plan).map_err(Failure::failed)?);
    let mut child = Command::new(&program.0)
        .args(["bench-part", "load"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(&text).await.map_err(failed)?;
    }
    let output = tokio::time::timeout(LONGEST, child.wait_with_output())
        .await
        .map_err(|_| Failure::failed(format!("the load took longer than {LONGEST:?}")))?
        .map_err(failed)?;
    if !output.status.success() {
        return Err(Failure::failed(format!("the load process ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(Failure::failed)
}

/// A client with all that it needs made before the clock runs: a VNFCI makes its recipient key on its own machine.
struct Ready {
    tls: ClientTls,
    recipient: RecipientKey,
    request: RequestId,
}

/// `bench-part load`: the process itself.
pub(super) async fn command() -> Result<(), Failure> {
    let mut text = Zeroizing::new(Vec::new());
    std::io::stdin().lock().read_to_end(&mut text).map_err(Failure::failed)?;
    let plan: Plan = serde_json::from_slice(&text).map_err(Failure::usage)?;
    let ready = plan.clients.iter().map(|client| ready(client, &plan)).collect::<Result<Vec<_>, _>>()?;
    let (calls, answers) = phase(&plan, ready.iter().cloned(), claim).await?;
    let answer_bytes = answers.first().map_or(0, Message::encoded_len);
    let confirms = if plan.confirm {
        let anchors = certificates_from_pem(plan.trust_anchor_pem.as_bytes()).map_err(Failure::failed)?;
        // Opened and checked outside of the measured time: that is the VNFCI's work on its own machine, too.
        let signed = ready
            .into_iter()
            .zip(&answers)
            .map(|(client, answer)| confirmation(&client, answer, &anchors).map(|request| (client, request)))
            .collect::<Result<Vec<_>, _>>()?;
        Some(phase(&plan, signed.into_iter(), confirm).await?.0)
    } else {
        None
    };
    let report = Report { calls, confirms, answer_bytes };
    super::super::output::line(&serde_json::to_string(&report).map_err(Failure::failed)?);
    Ok(())
}

fn ready(client: &Client, plan: &Plan) -> Result<Arc<Ready>, Failure> {
    let tls = ClientTls {
        trust_anchor_pem: plan.trust_anchor_pem.clone().into_bytes(),
        certificate_chain_der: vec![hex::decode(&client.certificate).map_err(Failure::usage)?],
        key_der: Zeroizing::new(hex::decode(&client.key).map_err(Failure::usage)?),
    };
    let recipient = RecipientKey::generate().map_err(Failure::failed)?;
    Ok(Arc::new(Ready { tls, recipient, request: RequestId::generate() }))
}

/// Makes every call, `parallel` at a time, and measures. The answers are in the calls' order; one failure fails all.
async fn phase<J, T, F>(
    plan: &Plan,
    jobs: impl Iterator<Item = J>,
    call: impl Fn(Arc<str>, J) -> F,
) -> Result<(Phase, Vec<T>), Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let server: Arc<str> = plan.server.as_str().into();
    let (clients, servers, machine) =
        (Spent::by(std::process::id()), Spent::by(plan.server_pid), Ticks::now()?);
    let begun = Instant::now();
    let calls = stream::iter(jobs.enumerate().map(|(place, job)| {
        let call = call(Arc::clone(&server), job);
        async move {
            let timed = tokio::spawn(async move {
                let begun = Instant::now();
                call.await.map(|answer| (place, answer, begun.elapsed()))
            });
            timed.await.map_err(Failure::failed)?
        }
    }));
    // Unordered: a slow call must not keep others from starting.
    let mut done: Vec<_> = calls.buffer_unordered(plan.parallel).try_collect().await?;
    let seconds = begun.elapsed().as_secs_f64();
    let busy = Ticks::now()?.busy_since(machine);
    let servers = Spent::by(plan.server_pid).since(servers);
    let clients = Spent::by(std::process::id()).since(clients);
    done.sort_by_key(|(place, ..)| *place);
    let measured = Phase {
        seconds,
        latencies_ms: done.iter().map(|(_, _, latency)| latency.as_secs_f64() * 1_000.0).collect(),
        server_s: servers.own.as_secs_f64(),
        children_s: servers.children.as_secs_f64(),
        clients_s: clients.own.as_secs_f64(),
        busy,
    };
    Ok((measured, done.into_iter().map(|(_, answer, _)| answer).collect()))
}

async fn claim(server: Arc<str>, client: Arc<Ready>) -> Result<ClaimResponse, Failure> {
    let connection = connect(&server, &client.tls).await?;
    let request = claim_request(client.request, client.recipient.public_key(), None);
    Ok(CredentialServiceClient::new(connection.channel).claim(request).await?.into_inner())
}

/// Opens and checks an answer as a VNFCI does, and signs its confirmation.
fn confirmation(
    client: &Ready,
    answer: &ClaimResponse,
    anchors: &[Vec<u8>],
) -> Result<ConfirmRequest, Failure> {
    let (claimed, opened) = install::open_all(answer, &client.recipient, anchors, SystemClock.now())?;
    let recipient_key = client.recipient.public_key().hash();
    let signatures = opened
        .iter()
        .map(|slot| slot.sign(&confirm_message(claimed.claim_id, slot.certificate(), recipient_key)))
        .collect::<Result<_, _>>()?;
    Ok(ConfirmRequest {
        request_id: RequestId::generate().to_string(),
        claim_id: claimed.claim_id.to_string(),
        signatures,
        token: None,
    })
}

async fn confirm(server: Arc<str>, (client, request): (Arc<Ready>, ConfirmRequest)) -> Result<(), Failure> {
    let connection = connect(&server, &client.tls).await?;
    let answer = CredentialServiceClient::new(connection.channel).confirm(request).await?.into_inner();
    if answer.newly_confirmed { Ok(()) } else { Err(Failure::failed("a claim was confirmed before")) }
}
