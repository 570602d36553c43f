//! Enrolment over Secure Transport: the server (RFC 7030, RFC 8951; csrattrs RFC 9908).
//!
//! HTTP only: paths, methods, media types, base64 and CMS, statuses. Who may have which certificate is the broker's
//! business ([`crate::broker::enrol`]). What this face says of a failure is RFC 7030 4.2.3's: a status and a sentence.

mod multipart;
mod path;

use crate::broker::enrol::GeneratedKey;
use crate::broker::standing::Asked;
use crate::broker::{Broker, BrokerError, Peer};
use crate::ca::cms::{certs_only, from_base64, to_base64};
use crate::ca::csr::MAX_REQUEST_BYTES;
use crate::nfv::VnfciId;
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderName, Method, StatusCode};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use path::fuzz_path;
use path::{Operation, Route};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A request in base64, with line breaks.
const MAX_BODY_BYTES: usize = MAX_REQUEST_BYTES * 3 / 2;
/// More than this is not even read and forgotten.
const MAX_READ_BYTES: usize = 1024 * 1024;
/// Until a request's body is there; less than the whole request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(8);
/// Until a request is answered, be it with a word of when to come again; less than the listener gives it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(9);
/// When to come again after that.
const COME_AGAIN: Duration = Duration::from_secs(5);
const CONTENT_TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

#[derive(Clone)]
struct Server {
    broker: Arc<Broker>,
    /// Use cases under way: a client that goes away does not stop one half way, and a shutdown waits for them.
    running: TaskTracker,
}

/// Every path of the EST listener. Handlers need the connection's `Extension<Arc<Peer>>`.
pub fn routes(broker: Arc<Broker>, running: TaskTracker) -> Router {
    Router::new().fallback(answer).with_state(Server { broker, running })
}

/// What became of a request, as the metric names it.
type Answer = (&'static str, Response);

async fn answer(
    State(server): State<Server>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request<Body>,
) -> Response {
    let begun = Instant::now();
    let route = Route::of(request.uri());
    let operation = route.as_ref().map_or("none", |route| route.operation.as_str());
    let span = tracing::info_span!("est", operation, peer = %peer.address);
    let task = async move {
        let (head, body) = request.into_parts();
        // Before anything is answered: a client that is still sending may not read what it is told.
        let body = match tokio::time::timeout(BODY_TIMEOUT, read(body)).await {
            Ok(body) => body,
            Err(_) => {
                let sentence = format!("the request's body did not come within {} s", BODY_TIMEOUT.as_secs());
                let mut response = text(StatusCode::REQUEST_TIMEOUT, &sentence);
                // What comes after it cannot be told from the rest of it.
                response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("close"));
                return ("malformed", response);
            }
        };
        let Some(route) = route else {
            return ("not_found", text(StatusCode::NOT_FOUND, "no such EST path; see RFC 7030 3.2.2"));
        };
        let left = ANSWER_TIMEOUT.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, server.serve(&peer, route, head, body)).await {
            Ok(answer) => answer,
            // A use case goes on, and the same key gets what came of it.
            Err(_) => unavailable("no answer in time: ask again, with the same request", COME_AGAIN),
        }
    };
    let (outcome, response) = task.instrument(span).await;
    metrics::counter!("keybroker_est_requests_total", "operation" => operation, "outcome" => outcome)
        .increment(1);
    metrics::histogram!("keybroker_est_request_seconds", "operation" => operation).record(begun.elapsed());
    response
}

impl Server {
    async fn serve(
        &self,
        peer: &Arc<Peer>,
        route: Route,
        head: Parts,
        body: Result<Vec<u8>, BadBody>,
    ) -> Answer {
        let allowed = route.operation.method();
        // Whoever may GET may ask for the HEAD of it (RFC 9110 9.3.2); the connection leaves out the body.
        let head_of_get = head.method == Method::HEAD && allowed == Method::GET;
        if head.method != allowed && !head_of_get {
            let sentence = format!("{} is asked for with {allowed}", route.operation.as_str());
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &sentence);
            response.headers_mut().insert(ALLOW, http::HeaderValue::from_static(route.operation.allow()));
            return ("malformed", response);
        }
        match route.operation {
            Operation::CaCerts => match self.broker.enrolment_chain(peer, &route.label).await {
                Ok(chain) => ("ok", certificates(&chain, "application/pkcs7-mime")),
                Err(error) => failed(&error),
            },
            Operation::CsrAttrs => match self.broker.enrolment_attributes(peer, &route.label).await {
                Ok(Some(der)) => ("ok", base64("application/csrattrs", &der)),
                Ok(None) => ("ok", StatusCode::NO_CONTENT.into_response()),
                Err(error) => failed(&error),
            },
            // Nobody's tenant has it: it is not worth knowing who asks.
            Operation::ServerKeygen if !self.broker.generates_keys() => keygen_is_off(),
            Operation::SimpleEnroll | Operation::SimpleReenroll | Operation::ServerKeygen => {
                self.enrol(peer, route, head, body).await
            }
            Operation::FullCmc => (
                "not_implemented",
                text(StatusCode::NOT_IMPLEMENTED, "fullcmc is not served: use simpleenroll"),
            ),
        }
    }

    async fn enrol(
        &self,
        peer: &Arc<Peer>,
        route: Route,
        head: Parts,
        body: Result<Vec<u8>, BadBody>,
    ) -> Answer {
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case("application/pkcs10") {
            let sentence = "send a PKCS#10 in base64 as application/pkcs10 (RFC 7030 4.2.1)";
            return ("malformed", text(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
        }
        let on_behalf_of = match path::vnfci(&head.uri).map(|id| id.parse::<VnfciId>()).transpose() {
            Ok(named) => named,
            Err(error) => return ("malformed", text(StatusCode::BAD_REQUEST, &error.to_string())),
        };
        let body = match body {
            Ok(body) => body,
            Err(BadBody::TooLong) => {
                let sentence = format!("the request is longer than {MAX_BODY_BYTES} bytes");
                return ("malformed", text(StatusCode::PAYLOAD_TOO_LARGE, &sentence));
            }
            Err(BadBody::Broken) => {
                let sentence = "the request's body is cut off, or its chunks are malformed";
                return ("malformed", text(StatusCode::BAD_REQUEST, sentence));
            }
        };
        let der = match from_base64(&body) {
            Ok(der) => der,
            Err(error) => return ("malformed", text(StatusCode::BAD_REQUEST, &error.0)),
        };
        let (broker, peer) = (Arc::clone(&self.broker), Arc::clone(peer));
        let use_case = async move {
            let again = route.operation == Operation::SimpleReenroll;
            let name = route.operation.as_str();
            let enroller = match broker.identify_enroller(&peer, again).await {
                Ok(enroller) => enroller,
                Err(refusal) => {
                    let refusal = broker.judged(Asked::Change, refusal);
                    broker.record_refusal(None, &peer, name, None, &refusal).await;
                    return Err(refusal);
                }
            };
            let made = match route.operation {
                Operation::ServerKeygen => {
                    let made = broker.generate_key(&enroller, &route.label, &der, on_behalf_of).await;
                    made.map(|key| key.map_or(Made::Nothing, Made::Key))
                }
                _ => broker.enrol(&enroller, &route.label, &der, on_behalf_of).await.map(Made::Certificate),
            };
            let made = made.map_err(|error| broker.judged(Asked::Change, error));
            if let Err(refusal) = &made {
                // Of other errors it takes no notice.
                broker.record_refusal(Some(&enroller.caller()), &peer, name, None, refusal).await;
            }
            made
        };
        match self.running.spawn(use_case.in_current_span()).await {
            Ok(Ok(Made::Certificate(der))) => {
                ("ok", certificates(&[der], "application/pkcs7-mime; smime-type=certs-only"))
            }
            Ok(Ok(Made::Key(key))) => ("ok", multipart::response(&key)),
            Ok(Ok(Made::Nothing)) => keygen_is_off(),
            Ok(Err(error)) => failed(&error),
            // It is never aborted, so it panicked; the panic's text is in the log.
            Err(_) => ("failed", text(StatusCode::INTERNAL_SERVER_ERROR, "internal error")),
        }
    }
}

/// What came of a request.
enum Made {
    /// DER.
    Certificate(Vec<u8>),
    Key(GeneratedKey),
    /// The caller's tenant has it switched off.
    Nothing,
}

/// Why there is no body to look at.
enum BadBody {
    TooLong,
    /// Cut off, or in chunks that are none (RFC 9112 7.1).
    Broken,
}

/// The body. What is too long is read on, in bounds, and forgotten.
async fn read(body: Body) -> Result<Vec<u8>, BadBody> {
    let mut pieces = body.into_data_stream();
    let (mut kept, mut seen) = (Vec::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| BadBody::Broken)?;
        seen += piece.len();
        if seen <= MAX_BODY_BYTES {
            kept.extend_from_slice(&piece);
        } else if seen > MAX_READ_BYTES {
            break;
        }
    }
    if seen <= MAX_BODY_BYTES { Ok(kept) } else { Err(BadBody::TooLong) }
}

fn keygen_is_off() -> Answer {
    let sentence = "serverkeygen is off: it puts a private key into the broker's memory, and est_server_key_generation in \
                    [tenant.NAME] switches it on. Keys made by the HSM are delivered sealed, by the Claim call of the \
                    bootstrap listener";
    ("not_implemented", text(StatusCode::NOT_IMPLEMENTED, sentence))
}

fn certificates(ders: &[Vec<u8>], media: &'static str) -> Response {
    base64(media, &certs_only(ders))
}

/// Base64 with a header that RFC 8951 2 makes superfluous and that older clients demand.
fn base64(media: &'static str, der: &[u8]) -> Response {
    ([(CONTENT_TYPE, media), (CONTENT_TRANSFER_ENCODING, "base64")], to_base64(der)).into_response()
}

fn text(status: StatusCode, sentence: &str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{sentence}\n")).into_response()
}

fn unavailable(sentence: &str, retry_after: Duration) -> Answer {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, sentence);
    response.headers_mut().insert(RETRY_AFTER, retry_after.as_secs().max(1).into());
    ("unavailable", response)
}

/// The one match from errors to EST's statuses. A refusal is the same whatever its reason.
fn failed(error: &BrokerError) -> Answer {
    match error {
        BrokerError::Refused { .. } | BrokerError::Denied(_) | BrokerError::RearmNeeded { .. } => (
            "refused",
            text(StatusCode::FORBIDDEN, "refused: the client certificate gives no right to this certificate"),
        ),
        BrokerError::RefusedForNow { retry_after, .. } => {
            let sentence =
                "refused for now: this slot got too many certificates; go on with the one that you have";
            let mut response = text(StatusCode::TOO_MANY_REQUESTS, sentence);
            response.headers_mut().insert(RETRY_AFTER, retry_after.as_secs().max(1).into());
            ("refused", response)
        }
        BrokerError::Invalid { problem, .. } => ("malformed", text(StatusCode::BAD_REQUEST, problem)),
        BrokerError::NotFound(what) => {
            ("not_found", text(StatusCode::NOT_FOUND, &format!("{what} does not exist")))
        }
        BrokerError::Unavailable { retry_after, .. }
        | BrokerError::TokenWithoutKeys { retry_after, .. }
        | BrokerError::PoolEmpty { retry_after, .. } => {
            unavailable("not available now: try again", *retry_after)
        }
        BrokerError::CaEnding(_) => {
            tracing::error!(%error, "an EST request failed");
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
            response.headers_mut().insert(RETRY_AFTER, 3_600.into());
            ("ca_ending", response)
        }
        BrokerError::AlreadyExists(_)
        | BrokerError::Precondition(_)
        | BrokerError::QuotaExceeded(_)
        | BrokerError::RequestReused(_)
        | BrokerError::Internal(_) => {
            tracing::error!(%error, "an EST request failed");
            ("failed", text(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))
        }
    }
}

#[cfg(test)]
mod tests;
