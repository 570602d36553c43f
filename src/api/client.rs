//! The client's side: one TLS 1.3 connection of our own, so that its exporter is known, and errors that say what to
//! do.

use super::proto;
use crate::ca::path::ServersUnder;
use crate::identity::token::EXPORTER_LABEL;
use crate::nfv::RequestId;
use crate::sealing::RecipientPublicKey;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig};
use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use zeroize::Zeroizing;

/// A connection stands by then, or is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A call is answered by then: longer than the broker's own deadlines.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// What a command's exit code says of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// Authentication or authorisation (exit code 3).
    Refused,
    /// Not available now: trying again helps (exit code 4).
    Unavailable,
    /// Everything else (exit code 1).
    Failed,
}

/// Why certificates or keys could not be loaded. Says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MaterialError(String);

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The server's address does not parse.
    #[error("{server:?} is not a server: {problem}; give https://HOST:PORT")]
    Address {
        /// As it was given.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// Our own certificate, key or trust anchor cannot be used.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// Nobody answers there, or not as a broker.
    #[error("cannot connect to {server}: {reason}")]
    Unreachable {
        /// As it was given.
        server: String,
        /// Why.
        reason: String,
    },
    /// Somebody answers whom the trust anchor does not vouch for. Nothing was sent.
    #[error(
        "{server} is not trusted: {reason}; check that --trust-anchor is the root of this broker and that the \
         address is one of its names"
    )]
    Untrusted {
        /// As it was given.
        server: String,
        /// Why.
        reason: String,
    },
    /// The broker refused the connection.
    #[error("{server} refused the connection: {reason}")]
    Refused {
        /// As it was given.
        server: String,
        /// Why.
        reason: String,
    },
}

impl ConnectError {
    /// What the exit code says.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Address { .. } | Self::Material(_) => FailureClass::Failed,
            Self::Unreachable { .. } => FailureClass::Unavailable,
            Self::Untrusted { .. } | Self::Refused { .. } => FailureClass::Refused,
        }
    }
}

/// What a client proves itself with and whom it trusts.
#[derive(Clone)]
pub struct ClientTls {
    /// The only roots that the server's certificate may chain to, PEM.
    pub trust_anchor_pem: Vec<u8>,
    /// The client's certificate and its issuers, DER, leaf first.
    pub certificate_chain_der: Vec<Vec<u8>>,
    /// The certificate's private key, PKCS#8 DER.
    pub key_der: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({} certificates, key redacted)", self.certificate_chain_der.len())
    }
}

impl ClientTls {
    /// From PEM files: trust anchor, certificate chain (leaf first) and PKCS#8 key.
    ///
    /// # Errors
    /// [`MaterialError`], naming the file and what is wrong with it.
    pub fn from_files(trust_anchor: &Path, certificate: &Path, key: &Path) -> Result<Self, MaterialError> {
        let trust_anchor_pem = read(trust_anchor)?;
        certificates(&trust_anchor_pem).map_err(|e| in_file(trust_anchor, e))?;
        let certificate_chain_der = certificates(&read(certificate)?).map_err(|e| in_file(certificate, e))?;
        let key_pem = Zeroizing::new(read(key)?);
        let key_der = pkcs8(&key_pem).map_err(|e| in_file(key, e))?;
        Ok(Self { trust_anchor_pem, certificate_chain_der, key_der })
    }

    fn config(&self) -> Result<ClientConfig, MaterialError> {
        let anchors = certificates(&self.trust_anchor_pem)
            .map_err(|e| MaterialError(format!("the trust anchor {}", e.0)))?;
        let servers = ServersUnder::new(&anchors)
            .map_err(|e| MaterialError(format!("the trust anchor cannot be used: {e}")))?;
        let chain = self.certificate_chain_der.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.to_vec()));
        let unusable = |e: rustls::Error| {
            MaterialError(format!("the client certificate and its key cannot be used together: {e}"))
        };
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(unusable)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(servers))
                .with_client_auth_cert(chain, key)
                .map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, MaterialError> {
    std::fs::read(path).map_err(|e| MaterialError(format!("cannot read {}: {e}", path.display())))
}

fn in_file(path: &Path, problem: MaterialError) -> MaterialError {
    MaterialError(format!("{} {}", path.display(), problem.0))
}

fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, MaterialError> {
    let list: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(pem)
        .map(|item| item.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|e| MaterialError(format!("is damaged PEM: {e}")))?;
    if list.is_empty() {
        let problem =
            "holds no certificate: PEM with BEGIN CERTIFICATE is expected (openssl x509 -inform DER)";
        return Err(MaterialError(problem.into()));
    }
    Ok(list)
}

fn pkcs8(pem: &[u8]) -> Result<Zeroizing<Vec<u8>>, MaterialError> {
    let problem = match PrivateKeyDer::from_pem_slice(pem) {
        Ok(PrivateKeyDer::Pkcs8(key)) => return Ok(Zeroizing::new(key.secret_pkcs8_der().to_vec())),
        Ok(_) => "holds a key that is not PKCS#8: convert it with openssl pkcs8 -topk8 -nodes",
        Err(_) if contains(pem, b"ENCRYPTED") => {
            "holds an encrypted key: decrypt it with openssl pkcs8 into a file of mode 0600"
        }
        Err(_) => "holds no private key: PEM with BEGIN PRIVATE KEY is expected",
    };
    Err(MaterialError(problem.into()))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// A connection to a broker.
#[derive(Debug, Clone)]
pub struct Connection {
    /// For the generated clients. It is this one connection: when it ends, calls fail with `UNAVAILABLE`, and a new
    /// [`connect`] is needed, since proofs are bound to the exporter.
    pub channel: Channel,
    /// The connection's TLS exporter, label `EXPORTER-keybroker-v1`, empty context.
    pub exporter: [u8; 32],
}

/// A claim for one recipient key, which offers the suites that can seal to its kind.
pub fn claim_request(
    request: RequestId,
    recipient: &RecipientPublicKey,
    token: Option<proto::TokenProof>,
) -> proto::ClaimRequest {
    let key = recipient.as_bytes().to_vec();
    let (recipient_public_key, recipient_rsa_public_key_der) = match recipient {
        RecipientPublicKey::P256(_) => (key, Vec::new()),
        RecipientPublicKey::Rsa(_) => (Vec::new(), key),
    };
    proto::ClaimRequest {
        request_id: request.to_string(),
        recipient_public_key,
        recipient_rsa_public_key_der,
        suites: recipient.suites().map(|suite| suite.to_string()).collect(),
        token,
    }
}

/// A renewal for one recipient key, as [`claim_request`] makes a claim.
pub fn renew_request(request: RequestId, recipient: &RecipientPublicKey) -> proto::RenewRequest {
    let claim = claim_request(request, recipient, None);
    proto::RenewRequest {
        request_id: claim.request_id,
        recipient_public_key: claim.recipient_public_key,
        suites: claim.suites,
        recipient_rsa_public_key_der: claim.recipient_rsa_public_key_der,
    }
}

/// Connects to `server` (`https://HOST:PORT` or `HOST:PORT`), and waits until the broker has accepted the client's
/// side of the handshake.
///
/// # Errors
/// [`ConnectError`], by whose fault it is.
pub async fn connect(server: &str, tls: &ClientTls) -> Result<Connection, ConnectError> {
    let Target { host, port, .. } = target(server)?;
    let unreachable = |reason: String| ConnectError::Unreachable { server: server.to_owned(), reason };
    let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), port)))
        .await
        .map_err(|_| unreachable(format!("no answer within {CONNECT_TIMEOUT:?}")))?
        .map_err(|e| unreachable(e.to_string()))?;
    connect_over(tcp, server, tls).await
}

/// [`connect`] over a TCP connection to `server` that the caller has made its own way.
///
/// # Errors
/// As there.
pub async fn connect_over(tcp: TcpStream, server: &str, tls: &ClientTls) -> Result<Connection, ConnectError> {
    let Target { host, authority, .. } = target(server)?;
    let name = ServerName::try_from(host.clone())
        .map_err(|e| ConnectError::Address { server: server.to_owned(), problem: e.to_string() })?;
    let connector = TlsConnector::from(Arc::new(tls.config()?));
    let unreachable = |reason: String| ConnectError::Unreachable { server: server.to_owned(), reason };
    let late = |_| unreachable(format!("no answer within {CONNECT_TIMEOUT:?}"));
    // Only a matter of latency.
    let _ = tcp.set_nodelay(true);
    let shaken = async {
        let mut tls = connector.connect(name, tcp).await?;
        let exporter = tls
            .get_ref()
            .1
            .export_keying_material([0; 32], EXPORTER_LABEL.as_bytes(), Some(b""))
            .map_err(io::Error::other)?;
        // In TLS 1.3 a client is done before the server has judged it: the first bytes (HTTP/2 settings, which a
        // server sends unasked) or an alert tell.
        let mut first = vec![0; 1024];
        let length = tls.read(&mut first).await?;
        first.truncate(length);
        if first.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((Begun { first: io::Cursor::new(first), tls }, exporter))
    };
    let (begun, exporter) = timeout(CONNECT_TIMEOUT, shaken)
        .await
        .map_err(late)?
        .map_err(|failure: io::Error| handshake_failed(server, &failure))?;
    let once = Arc::new(Mutex::new(Some(TokioIo::new(begun))));
    let connector = tower::service_fn(move |_: Uri| {
        let taken = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { taken.ok_or_else(|| io::Error::other("the connection has ended; connect again")) }
    });
    // TLS is done already; the scheme only says that tonic need not do it.
    let channel = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|e| ConnectError::Address { server: server.to_owned(), problem: e.to_string() })?
        .timeout(CALL_TIMEOUT)
        .user_agent(concat!("keybroker/", env!("CARGO_PKG_VERSION")))
        .map_err(|e| unreachable(e.to_string()))?
        .connect_with_connector(connector)
        .await
        .map_err(|e| unreachable(causes(&e)))?;
    Ok(Connection { channel, exporter })
}

struct Target {
    host: String,
    port: u16,
    authority: String,
}

fn target(server: &str) -> Result<Target, ConnectError> {
    let wrong =
        |problem: &str| ConnectError::Address { server: server.to_owned(), problem: problem.to_owned() };
    let authority = match server.split_once("://") {
        Some(("https", rest)) => rest.strip_suffix('/').unwrap_or(rest),
        Some(_) => return Err(wrong("the broker speaks TLS only")),
        None => server,
    };
    let parsed: http::uri::Authority =
        authority.parse().map_err(|_| wrong("it has no host and port that can be read"))?;
    if authority.contains('@') {
        return Err(wrong("it has a user name"));
    }
    let port = parsed.port_u16().ok_or_else(|| wrong("it has no port"))?;
    // An IPv6 address is written in brackets before a port, and without them everywhere else.
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Target { host, port, authority: authority.to_owned() })
}

/// Sorts a failed handshake by whose fault it is.
fn handshake_failed(server: &str, failure: &io::Error) -> ConnectError {
    let server = server.to_owned();
    let tls = failure.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(problem)) => {
            ConnectError::Untrusted { server, reason: problem.to_string() }
        }
        // The broker cannot sign now: its HSM is away.
        Some(rustls::Error::AlertReceived(AlertDescription::InternalError)) => ConnectError::Unreachable {
            server,
            reason: "the broker cannot prove itself now (its HSM may be away); try again".to_owned(),
        },
        Some(rustls::Error::AlertReceived(alert)) => {
            ConnectError::Refused { server, reason: format!("TLS alert {alert:?}") }
        }
        _ if failure.kind() == io::ErrorKind::UnexpectedEof => ConnectError::Unreachable {
            server,
            reason: "it closed the connection: not a broker's gRPC port, or too many connections".to_owned(),
        },
        _ => ConnectError::Unreachable { server, reason: failure.to_string() },
    }
}

/// An error with its causes, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    text
}

/// A connection whose first bytes were read already.
struct Begun {
    first: io::Cursor<Vec<u8>>,
    tls: TlsStream<TcpStream>,
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if (self.first.position() as usize) < self.first.get_ref().len() {
            return Pin::new(&mut self.first).poll_read(context, buffer);
        }
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}

/// A failed call, for people and for an exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// What failed and what to do, one or more lines.
    pub text: String,
    /// The stable reason code of the broker, e.g. `POOL_EMPTY`; none if the failure is not the broker's answer.
    pub reason: Option<String>,
    /// What the exit code says.
    pub class: FailureClass,
    /// When to try again, if the broker said so.
    pub retry_after: Option<Duration>,
}

/// Explains a failed call: the sentence, the fields that were wrong, what to do, and when to try again.
pub fn describe(status: &Status) -> Explained {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    let retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
    // What the broker says has a reason; what has a source, and none, was made here of a connection that broke.
    let lost = reason.is_none()
        && (status.code() == Code::Unavailable || std::error::Error::source(status).is_some());
    let class = match status.code() {
        _ if lost => FailureClass::Unavailable,
        Code::Unauthenticated | Code::PermissionDenied => FailureClass::Refused,
        // A quota stays exceeded, however long one waits.
        Code::ResourceExhausted if retry_after.is_none() => FailureClass::Failed,
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => FailureClass::Unavailable,
        _ => FailureClass::Failed,
    };
    let mut lines = vec![if status.message().is_empty() {
        format!("the call failed: {}", super::gate::code_name(status.code()))
    } else {
        status.message().to_owned()
    }];
    if lost {
        lines = vec!["the connection to the broker was lost; connect again".to_owned()];
    }
    let fields = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    for field in fields {
        let line = format!("{}: {}", field.field, field.description);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    match status.code() {
        Code::Unauthenticated => lines.push(
            "The broker does not say why; its audit log does. Check the certificate or token, and that it is not \
             expired or used before."
                .to_owned(),
        ),
        Code::PermissionDenied => lines.push(
            "The broker does not say why; its audit log does. An operator grants roles and VNF instances \
             (keybroker identity add)."
                .to_owned(),
        ),
        _ => {}
    }
    if let Some(wait) = retry_after {
        lines.push(format!("Try again in {:.1} s.", wait.as_secs_f64()));
    }
    Explained { text: lines.join("\n"), reason, class, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::error;
    use crate::broker::BrokerError;

    #[test]
    fn a_server_is_host_and_port_with_or_without_https() {
        for (text, host, port) in [
            ("https://broker.example:7443", "broker.example", 7443),
            ("https://broker.example:7443/", "broker.example", 7443),
            ("127.0.0.1:7443", "127.0.0.1", 7443),
            ("[::1]:7443", "::1", 7443),
        ] {
            let target = target(text).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{text}");
        }
        for bad in ["", "broker", "http://broker:1", "https://", "broker:99999", "a@b:1", "https://b:1/path"]
        {
            assert!(target(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn every_wrong_file_is_told_from_the_others() {
        let key = |pem: &str| pkcs8(pem.as_bytes()).unwrap_err().0;
        assert!(key("").contains("no private key"));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(key(encrypted).contains("encrypted"));
        let sec1 = "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n";
        assert!(key(sec1).contains("openssl pkcs8 -topk8"));
        assert!(certificates(b"nothing").unwrap_err().0.contains("BEGIN CERTIFICATE"));
        let missing = Path::new("/nonexistent/root.pem");
        let error = ClientTls::from_files(missing, missing, missing).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/root.pem"), "{error}");
    }

    #[test]
    fn a_failed_call_says_what_to_do_and_has_its_exit_code() {
        let wait = Duration::from_millis(1500);
        let empty = describe(&error::status(&BrokerError::PoolEmpty {
            pool: "p".parse().unwrap(),
            retry_after: wait,
        }));
        assert_eq!((empty.class, empty.retry_after), (FailureClass::Unavailable, Some(wait)));
        assert_eq!(empty.reason.as_deref(), Some("POOL_EMPTY"));
        assert!(empty.text.ends_with("Try again in 1.5 s."), "{}", empty.text);

        let refused = describe(&error::status(&BrokerError::refused("X", "y")));
        assert_eq!(refused.class, FailureClass::Refused);
        assert!(refused.text.contains("audit log"));

        let invalid = describe(&error::status(&BrokerError::Invalid {
            field: "name".into(),
            problem: "is empty".into(),
        }));
        assert_eq!((invalid.class, invalid.text.as_str()), (FailureClass::Failed, "name: is empty"));

        // A broker that stops, or dies, in the middle of a call.
        let broken = std::io::Error::other("http2 error");
        let broken = describe(&Status::from_error(Box::new(broken)));
        assert_eq!(broken.class, FailureClass::Unavailable, "{}", broken.text);
        let lost = describe(&Status::unavailable("h2 protocol error"));
        assert_eq!(lost.class, FailureClass::Unavailable);
        assert!(lost.text.contains("connect again"));
    }
}
