//! What every call goes through, once:
//!
//! 1. who calls: the client certificate of the connection, judged as the listener demands;
//! 2. may a caller of this role make this call at all (the use case asks again with its target);
//! 3. the use case, in a task of its own: a caller that goes away or a deadline that passes does not stop it half
//!    way, and the same request id finds its outcome;
//! 4. a refusal is recorded in the audit log;
//! 5. the status, metrics and the trace.

use super::error;
use super::parse;
use super::proto;
use super::trace;
use crate::authorisation::{self, Caller, Denied, Rpc};
use crate::broker::standing::Asked;
use crate::broker::{Broker, BrokerError, Peer, Request};
use crate::nfv::{RequestId, Sha256Hash, labelled_fields};
use prost::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Response, Status};
use tracing::Instrument;

/// The gRPC listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Face {
    /// VNFCIs with an initial credential.
    Bootstrap,
    /// VNFCIs with a delivered certificate.
    Vnfci,
    /// MANO, auditors, operators.
    Management,
}

impl Face {
    /// Its name: in the configuration (`listen.NAME`), in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Vnfci => "vnfci",
            Self::Management => "management",
        }
    }
}

/// Calls that one listener works on at the same time; more are turned away with `UNAVAILABLE`.
const CALLS_MAX: usize = 4_096;

/// The one way from a listener to the broker.
#[derive(Clone)]
pub struct Gate {
    broker: Arc<Broker>,
    face: Face,
    calls: Arc<Semaphore>,
    running: TaskTracker,
    stopping: CancellationToken,
}

/// A call that was let in.
pub(super) struct Call {
    /// The broker.
    pub(super) broker: Arc<Broker>,
    /// The connection.
    pub(super) peer: Arc<Peer>,
    id: Option<String>,
    body: Sha256Hash,
}

impl Call {
    /// The mutation's envelope.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] if the request id is no UUID.
    pub(super) fn request(&self) -> Result<Request, BrokerError> {
        let id = parse::required("request_id", self.id.as_deref().unwrap_or_default())?;
        Ok(Request { id, body: self.body })
    }
}

/// How a caller is judged before its use case.
#[derive(Clone, Copy)]
enum Rule {
    /// By the use case: the initial credential is its subject.
    Evidence,
    /// Known by its certificate, and its role has the permission somewhere.
    Role(Rpc),
    /// A VNFCI known by a delivered certificate; there is nothing to permit.
    AnyVnfci,
}

impl Gate {
    /// A gate for one listener. `running` gets every use case's task, so that a shutdown can wait for them;
    /// `stopping` ends streams.
    pub fn new(broker: Arc<Broker>, face: Face, running: TaskTracker, stopping: CancellationToken) -> Self {
        Self { broker, face, calls: Arc::new(Semaphore::new(CALLS_MAX)), running, stopping }
    }

    /// Which listener's.
    pub fn face(&self) -> Face {
        self.face
    }

    /// Ends when the broker stops: long streams watch it.
    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// A call of a caller with a role.
    pub(super) async fn call<Q, R, F>(
        &self,
        rpc: Rpc,
        request: tonic::Request<Q>,
        handler: impl FnOnce(Call, Caller, Q) -> F + Send + 'static,
    ) -> Result<Response<R>, Status>
    where
        Q: Body,
        R: Send + 'static,
        F: Future<Output = Result<R, BrokerError>> + Send,
    {
        self.known(rpc.as_str(), Rule::Role(rpc), request, handler).await
    }

    /// A call that every VNFCI with a delivered certificate may make.
    pub(super) async fn call_of_any_vnfci<Q, R, F>(
        &self,
        name: &'static str,
        request: tonic::Request<Q>,
        handler: impl FnOnce(Call, Caller, Q) -> F + Send + 'static,
    ) -> Result<Response<R>, Status>
    where
        Q: Body,
        R: Send + 'static,
        F: Future<Output = Result<R, BrokerError>> + Send,
    {
        self.known(name, Rule::AnyVnfci, request, handler).await
    }

    /// A call whose evidence the use case itself judges (bootstrap listener).
    pub(super) async fn call_with_evidence<Q, R, F>(
        &self,
        name: &'static str,
        request: tonic::Request<Q>,
        handler: impl FnOnce(Call, Q) -> F + Send + 'static,
    ) -> Result<Response<R>, Status>
    where
        Q: Body,
        R: Send + 'static,
        F: Future<Output = Result<R, BrokerError>> + Send,
    {
        self.run(name, Rule::Evidence, request, |call, _, message| handler(call, message)).await
    }

    async fn known<Q, R, F>(
        &self,
        name: &'static str,
        rule: Rule,
        request: tonic::Request<Q>,
        handler: impl FnOnce(Call, Caller, Q) -> F + Send + 'static,
    ) -> Result<Response<R>, Status>
    where
        Q: Body,
        R: Send + 'static,
        F: Future<Output = Result<R, BrokerError>> + Send,
    {
        self.run(name, rule, request, move |call, caller, message| async move {
            match caller {
                Some(caller) => handler(call, caller, message).await,
                None => Err(BrokerError::Internal(format!("{name} was let in without a caller"))),
            }
        })
        .await
    }

    async fn run<Q, R, F>(
        &self,
        name: &'static str,
        rule: Rule,
        request: tonic::Request<Q>,
        handler: impl FnOnce(Call, Option<Caller>, Q) -> F + Send + 'static,
    ) -> Result<Response<R>, Status>
    where
        Q: Body,
        R: Send + 'static,
        F: Future<Output = Result<R, BrokerError>> + Send,
    {
        let mut measured = Measured::begin(name);
        let (metadata, extensions, message) = request.into_parts();
        let Some(peer) = extensions.get::<Arc<Peer>>().cloned() else {
            return measured.end(Err(error::internal("a connection without its TLS peer reached a handler")));
        };
        let Ok(permit) = Arc::clone(&self.calls).try_acquire_owned() else {
            return measured.end(Err(error::overloaded()));
        };
        let id = message.request_id().map(str::to_owned);
        let request_id = id.as_deref().and_then(|id| id.parse::<RequestId>().ok());
        let span = tracing::info_span!(
            "rpc",
            rpc = name,
            listener = self.face.as_str(),
            peer = %peer.address,
            request_id = request_id.map(tracing::field::display),
        );
        let trace = span.in_scope(|| trace::begin(name, self.face, &metadata));
        let call = Call {
            broker: Arc::clone(&self.broker),
            peer: Arc::clone(&peer),
            id,
            body: body(name, &message),
        };
        let asked = if call.id.is_some() { Asked::Change } else { Asked::Reading };
        let (broker, face) = (Arc::clone(&self.broker), self.face);
        let use_case = async move {
            let _permit = permit;
            let (caller, outcome) = match admit(&broker, face, rule, &peer).await {
                Ok(caller) => {
                    if let Some(tenant) = caller.as_ref().and_then(|caller| caller.tenant.as_ref()) {
                        tracing::Span::current().record("tenant", tenant.as_str());
                    }
                    let outcome = handler(call, caller.clone(), message).await;
                    (caller, outcome)
                }
                Err((caller, refusal)) => (caller, Err(refusal)),
            };
            let outcome = outcome.map_err(|error| broker.judged(asked, error));
            if let Err(
                refusal @ (BrokerError::Refused { .. }
                | BrokerError::Denied(_)
                | BrokerError::RefusedForNow { .. }
                | BrokerError::RearmNeeded { .. }
                | BrokerError::QuotaExceeded(_)),
            ) = &outcome
            {
                record(&broker, caller.as_ref(), &peer, name, request_id, refusal).await;
            }
            outcome.map_err(|failure| error::status(&failure))
        };
        let task = self.running.spawn(use_case.instrument(trace.clone()).instrument(span.clone()));
        let outcome = match tokio::time::timeout(deadline(name), task).await {
            Ok(Ok(outcome)) => outcome,
            // The task is never aborted, so it panicked; the panic's text is in the log.
            Ok(Err(_)) => span.in_scope(|| Err(error::internal("the use case panicked"))),
            Err(_) => Err(error::deadline_exceeded()),
        };
        let outcome = span.in_scope(|| measured.end(outcome.map(Response::new)));
        trace::end(&trace, measured.code);
        outcome
    }
}

/// Who calls, and whether such a caller may call this at all. A refusal comes with the caller, if it was known.
async fn admit(
    broker: &Broker,
    face: Face,
    rule: Rule,
    peer: &Peer,
) -> Result<Option<Caller>, (Option<Caller>, BrokerError)> {
    let identified = match (rule, face) {
        (Rule::Evidence, _) => return Ok(None),
        (_, Face::Management) => broker.identify_registered(peer).await,
        (Rule::Role(rpc), Face::Vnfci) => broker.identify_vnfci(peer, Some(rpc)).await,
        (_, Face::Vnfci) => broker.identify_vnfci(peer, None).await,
        (_, Face::Bootstrap) => {
            Err(BrokerError::Internal("the bootstrap listener identifies by evidence only".into()))
        }
    };
    let caller = identified.map_err(|refusal| (None, refusal))?;
    match rule {
        Rule::Role(rpc) if authorisation::reach(caller.role, rpc).is_none() => {
            let denied = Denied::Role(caller.role, rpc);
            Err((Some(caller), denied.into()))
        }
        _ => Ok(Some(caller)),
    }
}

/// Writes a refusal to the audit log.
pub(super) async fn record(
    broker: &Broker,
    caller: Option<&Caller>,
    peer: &Peer,
    rpc: &str,
    request: Option<RequestId>,
    refusal: &BrokerError,
) {
    broker.record_refusal(caller, peer, rpc, request, refusal).await;
}

/// How long a caller waits for an answer. Batches of 1,000 and making a tenant's keys take longer.
fn deadline(rpc: &str) -> Duration {
    match rpc {
        "RegisterVnfcis" | "RearmVnfcis" | "RequestRenewal" | "ScaleIn" | "TerminateVnf" | "AddTenant"
        | "RemoveTenant" => Duration::from_secs(60),
        _ => Duration::from_secs(30),
    }
}

/// What a repetition of a request is held against: label, RPC, and the message's protobuf encoding without
/// evidence.
fn body<Q: Body>(rpc: &str, message: &Q) -> Sha256Hash {
    Sha256Hash::of(&labelled_fields("keybroker-request-v1", &[rpc.as_bytes(), &message.asked()]))
}

/// A request message.
pub(super) trait Body: Message + Clone + 'static {
    /// The caller's id for it, if it is a mutation.
    fn request_id(&self) -> Option<&str> {
        None
    }

    /// The encoding of what is asked for. Evidence does not belong to it: a proof is bound to its connection and a
    /// signature has a nonce, so that they differ in an honest repetition. The use case checks them every time.
    fn asked(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl Body for proto::ClaimRequest {
    fn request_id(&self) -> Option<&str> {
        Some(&self.request_id)
    }

    fn asked(&self) -> Vec<u8> {
        let mut asked = self.clone();
        asked.token.iter_mut().for_each(|token| token.proof.clear());
        asked.encode_to_vec()
    }
}

impl Body for proto::ConfirmRequest {
    fn request_id(&self) -> Option<&str> {
        Some(&self.request_id)
    }

    fn asked(&self) -> Vec<u8> {
        let mut asked = self.clone();
        asked.token.iter_mut().for_each(|token| token.proof.clear());
        asked.signatures.iter_mut().for_each(|signature| signature.signature.clear());
        asked.encode_to_vec()
    }
}

impl Body for proto::ReleaseRequest {
    fn request_id(&self) -> Option<&str> {
        Some(&self.request_id)
    }

    fn asked(&self) -> Vec<u8> {
        let mut asked = self.clone();
        asked.signatures.iter_mut().for_each(|signature| signature.signature.clear());
        asked.encode_to_vec()
    }
}

macro_rules! mutations {
    ($($message:ident),+ $(,)?) => {
        $(impl Body for proto::$message {
            fn request_id(&self) -> Option<&str> {
                Some(&self.request_id)
            }
        })+
    };
}

macro_rules! readings {
    ($($message:ident),+ $(,)?) => { $(impl Body for proto::$message {})+ };
}

mutations!(
    CreatePoolRequest,
    UpdatePoolRequest,
    DeletePoolRequest,
    RegisterVnfcisRequest,
    TerminateVnfciRequest,
    RearmVnfcisRequest,
    ScaleInRequest,
    RequestRenewalRequest,
    RenewRequest,
    TerminateVnfRequest,
    RevokeCertificateRequest,
    AddTenantRequest,
    IssueCaRequest,
    RequestCaRequest,
    ImportCaRequest,
    RemoveTenantRequest,
    AddAnchorRequest,
    UpdateAnchorRequest,
    RemoveAnchorRequest,
    AddIdentityRequest,
    RemoveIdentityRequest,
    AddProfileRequest,
    RemoveProfileRequest,
);

readings!(
    GetTrustChainRequest,
    GetPoolRequest,
    ListPoolsRequest,
    WatchPoolRequest,
    GetVnfciRequest,
    ListVnfcisRequest,
    ListEventsRequest,
    TailEventsRequest,
    GetCheckpointRequest,
    GetDestructionReceiptRequest,
    ListTenantsRequest,
    ListCasRequest,
    ListAnchorsRequest,
    ListIdentitiesRequest,
    ListProfilesRequest,
    GetHsmStatusRequest,
);

/// Counts a call with its outcome, also one whose caller went away before it had one.
struct Measured {
    rpc: &'static str,
    begun: Instant,
    code: Code,
}

impl Measured {
    fn begin(rpc: &'static str) -> Self {
        Self { rpc, begun: Instant::now(), code: Code::Cancelled }
    }

    fn end<R>(&mut self, outcome: Result<R, Status>) -> Result<R, Status> {
        self.code = outcome.as_ref().err().map_or(Code::Ok, Status::code);
        tracing::debug!(code = code_name(self.code), "answered");
        outcome
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        metrics::counter!("keybroker_rpc_total", "rpc" => self.rpc, "code" => code_name(self.code))
            .increment(1);
        metrics::histogram!("keybroker_rpc_seconds", "rpc" => self.rpc).record(self.begun.elapsed());
    }
}

/// A status code by its standard name.
pub(super) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirm(signature: u8, claim: &str) -> proto::ConfirmRequest {
        proto::ConfirmRequest {
            request_id: "r".into(),
            claim_id: claim.into(),
            signatures: vec![proto::KeySignature { slot: "s".into(), signature: vec![signature] }],
            token: Some(proto::TokenProof { token_id: "t".into(), proof: vec![signature; 32] }),
        }
    }

    #[test]
    fn a_repetition_is_recognised_though_its_signatures_and_proofs_are_new() {
        assert_eq!(body("Confirm", &confirm(1, "c")), body("Confirm", &confirm(2, "c")));
        assert_ne!(body("Confirm", &confirm(1, "c")), body("Confirm", &confirm(1, "d")));
    }

    #[test]
    fn a_claim_for_another_recipient_key_is_another_request() {
        let claim = |key: u8, proof: u8| proto::ClaimRequest {
            request_id: "r".into(),
            recipient_public_key: vec![key; 65],
            recipient_rsa_public_key_der: vec![],
            suites: vec![],
            token: Some(proto::TokenProof { token_id: "t".into(), proof: vec![proof; 32] }),
        };
        assert_eq!(body("Claim", &claim(4, 1)), body("Claim", &claim(4, 2)));
        assert_ne!(body("Claim", &claim(4, 1)), body("Claim", &claim(5, 1)));
    }

    #[test]
    fn the_same_message_to_another_rpc_is_another_request() {
        let message = proto::RemoveTenantRequest { request_id: "r".into(), tenant: "t".into() };
        assert_ne!(body("AddTenant", &message), body("RemoveTenant", &message));
    }
}
