//! Plain HTTP: what relying parties fetch (CRLs, OCSP responses, CA certificates, trust chains: signed or public by
//! nature), and what the operator's monitoring asks.

use super::accept::TlsConnection;
use super::limits::{Limits, Sources};
use crate::broker::ocsp::OcspAnswer;
use crate::broker::{Broker, BrokerError};
use crate::clock::Timestamp;
use crate::nfv::{InvalidName, IssuerId, Sha256Hash, TenantId};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::pem::LineEnding;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

/// Says whether the broker can serve, and what is degraded, or why not. Asked once a second and by every `/readyz`: must not block.
pub type Ready = Arc<dyn Fn() -> Result<Vec<String>, String> + Send + Sync>;

/// A request is answered or given up by then.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head has arrived by then, or the connection is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_MAX: usize = 16 * 1024;
/// Open connections of one listener.
pub(super) const CONNECTIONS_MAX: usize = 1_024;
/// Of them, those of one source.
const CONNECTIONS_PER_SOURCE: u32 = 256;
/// How long a CA certificate may be kept by a cache.
const CERTIFICATE_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long a trust chain may be kept by a cache: short, since a rollover changes it.
const CHAIN_AGE: Duration = Duration::from_secs(300);

/// Bytes of an OCSP request that are read; those that are no request are refused by the responder itself.
const OCSP_BODY_MAX: usize = 64 * 1024;

/// `GET /crl/ISSUER.crl` and its shards `/crl/ISSUER/N.crl`, `/ca/ISSUER.cer` (all DER), `/chain/TENANT.pem` (every
/// CA of the tenant with its issuers and roots, the one that issues first), `/trust/TENANT.pem` (every root in force), and OCSP: `POST /ocsp`, `GET /ocsp/BASE64`.
pub(super) fn public(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/crl/{file}", get(crl))
        .route("/crl/{issuer}/{file}", get(crl_shard))
        .route("/ocsp", post(ocsp_post).layer(DefaultBodyLimit::max(OCSP_BODY_MAX)))
        .route("/ocsp/", post(ocsp_post).layer(DefaultBodyLimit::max(OCSP_BODY_MAX)))
        .route("/ocsp/{*request}", get(ocsp_get))
        .route("/ca/{file}", get(issuer_certificate))
        .route("/chain/{file}", get(trust_chain))
        .route("/trust/{file}", get(trust_roots))
        .with_state(broker)
}

/// `GET /metrics`, `/healthz` (the process lives) and `/readyz` (it can serve).
pub(super) fn admin(metrics: PrometheusHandle, ready: Ready, stopping: CancellationToken) -> Router {
    let readyz = move || {
        let state = if stopping.is_cancelled() { Err("stopping".to_owned()) } else { ready() };
        async move {
            match state {
                Ok(degraded) => {
                    let lines = std::iter::once("ready".to_owned()).chain(degraded);
                    (StatusCode::OK, lines.map(|line| line + "\n").collect())
                }
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            }
        }
    };
    let exposition = move || {
        let text = metrics.render();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    Router::new()
        .route("/metrics", get(exposition))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
}

async fn crl(State(broker): State<Arc<Broker>>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    let Some(issuer) = named::<IssuerId>(&file, ".crl") else { return not_found() };
    latest_crl(&broker, issuer, 0, &headers).await
}

async fn crl_shard(
    State(broker): State<Arc<Broker>>,
    Path((issuer, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let shard = file.strip_suffix(".crl").and_then(|number| number.parse().ok());
    match (issuer.parse(), shard) {
        (Ok(issuer), Some(shard @ 1..)) => latest_crl(&broker, issuer, shard, &headers).await,
        _ => not_found(),
    }
}

async fn latest_crl(broker: &Broker, issuer: IssuerId, shard: u32, headers: &HeaderMap) -> Response {
    match broker.crl(issuer, shard).await {
        Ok(crl) => Document {
            tag: format!("\"{}\"", crl.number),
            modified: Some(crl.this_update),
            expires: None,
            max_age: crl.max_age,
            kind: "application/pkix-crl",
            body: crl.der.into(),
        }
        .answer(headers),
        Err(error) => failed(&error),
    }
}

/// RFC 6960 A.1: the request is the body.
async fn ocsp_post(State(broker): State<Arc<Broker>>, body: Result<Bytes, BytesRejection>) -> Response {
    // What cannot be read, or is too long, is malformed like any other garbage.
    let request = body.unwrap_or_default();
    ocsp_response(&HeaderMap::new(), broker.ocsp(&request).await)
}

/// RFC 6960 A.1: the request is the path, base64 that is URL-encoded. Some clients leave its slashes as they are.
async fn ocsp_get(
    State(broker): State<Arc<Broker>>,
    request: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    // A path that is no text is malformed like any other garbage.
    let request = request.map(|Path(request)| request).unwrap_or_default();
    let request = STANDARD.decode(request.trim_start_matches('/')).unwrap_or_default();
    ocsp_response(&headers, broker.ocsp(&request).await)
}

/// Caching as in RFC 5019 6.2.
fn ocsp_response(headers: &HeaderMap, answer: OcspAnswer) -> Response {
    const KIND: &str = "application/ocsp-response";
    match answer.caching {
        None => ([(CACHE_CONTROL, "no-store"), (CONTENT_TYPE, KIND)], answer.der).into_response(),
        Some(caching) => Document {
            tag: format!("\"{}\"", Sha256Hash::of(&answer.der)),
            modified: Some(caching.this_update),
            expires: Some(caching.next_update),
            max_age: caching.max_age,
            kind: KIND,
            body: answer.der,
        }
        .answer(headers),
    }
}

async fn issuer_certificate(
    State(broker): State<Arc<Broker>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(issuer) = named::<IssuerId>(&file, ".cer") else { return not_found() };
    match broker.issuer_certificate(issuer).await {
        Ok(der) => Document::of("application/pkix-cert", CERTIFICATE_AGE, der).answer(&headers),
        Err(error) => failed(&error),
    }
}

async fn trust_chain(
    State(broker): State<Arc<Broker>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(tenant) = named::<TenantId>(&file, ".pem") else { return not_found() };
    match broker.ca_certificates(&tenant).await {
        Ok(certificates) => pem_document(&headers, certificates.iter()),
        Err(error) => failed(&error),
    }
}

async fn trust_roots(
    State(broker): State<Arc<Broker>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(tenant) = named::<TenantId>(&file, ".pem") else { return not_found() };
    match broker.trust_chain(&tenant).await {
        Ok(chain) => pem_document(&headers, chain.roots_der.iter()),
        Err(error) => failed(&error),
    }
}

/// Certificates as PEM; the ETag changes with them.
fn pem_document<'c>(headers: &HeaderMap, certificates: impl Iterator<Item = &'c Vec<u8>>) -> Response {
    let mut text = String::new();
    for der in certificates {
        match der::pem::encode_string("CERTIFICATE", LineEnding::LF, der) {
            Ok(pem) => text.push_str(&pem),
            Err(e) => return failed(&BrokerError::Internal(format!("a CA certificate as PEM: {e}"))),
        }
    }
    Document::of("application/pem-certificate-chain", CHAIN_AGE, text.into_bytes()).answer(headers)
}

/// The name before the suffix; none if there is no such file by its form.
fn named<T: std::str::FromStr<Err = InvalidName>>(file: &str, suffix: &str) -> Option<T> {
    file.strip_suffix(suffix)?.parse().ok()
}

/// A document that may be cached.
struct Document {
    /// ETag, with its quotes.
    tag: String,
    modified: Option<Timestamp>,
    expires: Option<Timestamp>,
    max_age: Duration,
    kind: &'static str,
    body: Bytes,
}

impl Document {
    /// One that is known by its content only.
    fn of(kind: &'static str, max_age: Duration, body: Vec<u8>) -> Self {
        let tag = format!("\"{}\"", Sha256Hash::of(&body));
        Self { tag, modified: None, expires: None, max_age, kind, body: body.into() }
    }

    /// In full, or only that the caller's copy is still good (RFC 9110 13.1).
    fn answer(self, request: &HeaderMap) -> Response {
        let good = still_good(request, &self.tag);
        let mut headers = vec![
            (ETAG, self.tag),
            (
                CACHE_CONTROL,
                format!("public, no-transform, must-revalidate, max-age={}", self.max_age.as_secs()),
            ),
        ];
        headers.extend(self.modified.and_then(http_date).map(|date| (LAST_MODIFIED, date)));
        headers.extend(self.expires.and_then(http_date).map(|date| (EXPIRES, date)));
        let mut answer = if good {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(CONTENT_TYPE, self.kind)], self.body).into_response()
        };
        for (name, value) in headers {
            if let Ok(value) = value.parse() {
                answer.headers_mut().insert(name, value);
            }
        }
        answer
    }
}

/// IMF-fixdate (RFC 9110 5.6.7); none for a time that has none.
fn http_date(time: Timestamp) -> Option<String> {
    let utc = time::OffsetDateTime::from_unix_timestamp(time.unix_seconds()).ok()?;
    let (weekday, month) = (utc.weekday().to_string(), utc.month().to_string());
    Some(format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        &weekday[..3],
        utc.day(),
        &month[..3],
        utc.year(),
        utc.hour(),
        utc.minute(),
        utc.second()
    ))
}

/// By the tag alone. A date counts whole seconds, and what was signed first in one of them may say "good" where what was
/// signed last says "revoked" (RFC 9110 8.8.2.2).
fn still_good(request: &HeaderMap, tag: &str) -> bool {
    request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "not found\n").into_response()
}

/// The one match from errors to HTTP statuses. Nobody is identified here, so that a refusal is a fault of ours.
fn failed(error: &BrokerError) -> Response {
    match error {
        BrokerError::NotFound(_) => not_found(),
        BrokerError::Invalid { .. } => (StatusCode::BAD_REQUEST, "malformed\n").into_response(),
        BrokerError::Unavailable { retry_after, .. }
        | BrokerError::TokenWithoutKeys { retry_after, .. }
        | BrokerError::PoolEmpty { retry_after, .. } => {
            let seconds = retry_after.as_secs().max(1).to_string();
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, seconds)], "not available now\n").into_response()
        }
        BrokerError::CaEnding(_)
        | BrokerError::Refused { .. }
        | BrokerError::RefusedForNow { .. }
        | BrokerError::Denied(_)
        | BrokerError::RearmNeeded { .. }
        | BrokerError::AlreadyExists(_)
        | BrokerError::Precondition(_)
        | BrokerError::QuotaExceeded(_)
        | BrokerError::RequestReused(_)
        | BrokerError::Internal(_) => {
            tracing::error!(%error, "an HTTP request failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n").into_response()
        }
    }
}

/// Fuzzing of what relying parties ask for: a path and a tag.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_path(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    if let Some(file) = path.strip_prefix("/crl/") {
        if let Some(issuer) = named::<IssuerId>(file, ".crl") {
            assert!(file.len() >= issuer.to_string().len());
        }
        let _ = named::<IssuerId>(file, ".cer");
    }
    if let Some(tenant) = path.strip_prefix("/chain/").and_then(|file| named::<TenantId>(file, ".pem")) {
        assert_eq!(path, format!("/chain/{tenant}.pem"));
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = http::HeaderValue::from_bytes(data) {
        headers.insert(IF_NONE_MATCH, value);
        let _ = still_good(&headers, "\"7\"");
    }
}

/// Serves HTTP/1.1 until `stopping`, then lets open requests finish. A source that has [`CONNECTIONS_PER_SOURCE`] open is
/// turned away: what it leaves unfinished would keep everyone else out. How fast it comes does not matter: what it asks for
/// is cheap.
pub(super) async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let router = bounded(router);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let sources = Sources::new(Limits {
        connections_per_source: CONNECTIONS_PER_SOURCE,
        rate_per_source: u32::MAX,
        burst_per_source: u32::MAX,
        ..Limits::default()
    });
    let graceful = GracefulShutdown::new();
    let builder = http1();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = async {
                let permit = Arc::clone(&connections).acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
        };
        let (Ok(permit), Ok((tcp, address))) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(mut admission) = sources.admit(address.ip(), Instant::now()) else { continue };
        admission.established();
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(tcp), service).into_owned());
        tokio::spawn(async move {
            // Garbage and broken connections are the other side's business.
            let _ = connection.await;
            drop((permit, admission));
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Serves HTTP/1.1 over connections whose handshake is done, until `stopping`, then lets open requests finish. Handlers
/// find the peer as `Extension<Arc<Peer>>`.
pub(super) async fn serve_tls(
    mut incoming: ReceiverStream<io::Result<TlsConnection>>,
    router: Router,
    stopping: CancellationToken,
) {
    let router = bounded(router);
    let graceful = GracefulShutdown::new();
    let builder = http1();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = incoming.next() => accepted,
        };
        let tls = match accepted {
            Some(Ok(tls)) => tls,
            Some(Err(_)) => continue,
            None => break,
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(tls.peer())));
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(tls), service).into_owned());
        tokio::spawn(async move {
            let _ = connection.await;
        });
    }
    drop(incoming);
    graceful.shutdown().await;
}

fn bounded(router: Router) -> Router {
    router
        .layer(CatchPanicLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_TIMEOUT))
}

fn http1() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_copy_is_recognised_in_every_form_of_the_header() {
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, value.parse().unwrap());
            still_good(&headers, "\"7\"")
        };
        assert!(asked("\"7\"") && asked("W/\"7\"") && asked("\"1\", \"7\"") && asked("*"));
        assert!(!asked("\"70\"") && !asked("7"));
        assert!(!still_good(&HeaderMap::new(), "\"7\""));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(http_date(Timestamp::from_unix_seconds(784_111_777)).as_deref(), Some(date));
    }

    #[tokio::test]
    async fn unfinished_requests_of_one_source_leave_places_for_the_others() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio::net::{TcpSocket, TcpStream};

        async fn begin(listener: std::net::SocketAddr, from: [u8; 4]) -> io::Result<TcpStream> {
            let socket = TcpSocket::new_v4()?;
            socket.bind((from, 0).into())?;
            let mut tcp = socket.connect(listener).await?;
            tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n").await?;
            Ok(tcp)
        }
        async fn finish(mut tcp: TcpStream) -> String {
            let mut answer = Vec::new();
            // Who is turned away may find the connection reset.
            let _ = tcp.write_all(b"\r\n").await;
            let _ = tcp.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        }

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "here" }));
        let task = tokio::spawn(serve(listener, router, stopping.clone()));
        let mut unfinished = Vec::new();
        for _ in 0..CONNECTIONS_PER_SOURCE {
            unfinished.push(begin(address, [127, 0, 0, 2]).await.unwrap());
        }
        let refused = finish(begin(address, [127, 0, 0, 2]).await.unwrap()).await;
        assert_eq!(refused, "");
        let answer = finish(begin(address, [127, 0, 0, 3]).await.unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
        for tcp in unfinished {
            assert!(finish(tcp).await.ends_with("here"), "a place that was given is served");
        }
        stopping.cancel();
        task.await.unwrap();
    }

    #[test]
    fn a_document_says_how_long_it_is_good() {
        let tag = "\"7\"".to_owned();
        let answer =
            Document { tag, ..Document::of("application/pkix-crl", Duration::from_secs(60), vec![1]) };
        let answer = answer.answer(&HeaderMap::new());
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CACHE_CONTROL], "public, no-transform, must-revalidate, max-age=60");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/pkix-crl");
        assert_eq!(answer.headers()[ETAG], "\"7\"");
    }

    #[test]
    fn what_is_inside_does_not_leak_over_http() {
        let answer = failed(&BrokerError::Internal("secret".into()));
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let wait = Duration::from_millis(10);
        let away =
            BrokerError::Unavailable { code: "STORE_UNAVAILABLE", reason: "x".into(), retry_after: wait };
        assert_eq!(failed(&away).headers()[RETRY_AFTER], "1");
    }
}
