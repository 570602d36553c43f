//! A CA behind an enrolment server: the client's side of EST (RFC 7030, RFC 8951).

use super::{Answer, ExternalCas, Issuer, IssuerError, RequestAttributes, Revocation};
use crate::ca::cms;
use crate::clock::Timestamp;
use async_trait::async_trait;
use reqwest::header::{
    ACCEPT, CONTENT_TYPE, DATE, HeaderName, LOCATION, RETRY_AFTER, TRANSFER_ENCODING as TRANSFER_CODING,
    WWW_AUTHENTICATE,
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use std::error::Error;
use std::io;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// An operation with its transfer.
const OPERATION: Duration = Duration::from_secs(30);
/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest body that is read.
const LONGEST_BODY: usize = 1 << 20;
/// What a server that says 202 without a time is given.
const PENDING: Duration = Duration::from_secs(30);
/// Nobody is asked less often than this.
const LONGEST_PENDING: Duration = Duration::from_secs(3_600);
/// Nobody is asked more often than this.
const SHORTEST_PENDING: Duration = Duration::from_secs(1);
/// Redirections of one request.
const REDIRECTIONS: usize = 3;
/// Those that are followed; the others ask for something else than the same request at another place.
const FOLLOWED: [StatusCode; 4] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];
/// A refusal's text, as far as it is told.
const LONGEST_REFUSAL: usize = 300;
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// Where an enrolment server is, and what the operator says of it.
#[derive(Debug, Clone)]
pub struct EstConfig {
    /// `https://HOST[:PORT]`; `/.well-known/est` is added.
    pub url: String,
    /// The additional path segment of RFC 7030 3.2.2.
    pub label: Option<String>,
    /// The one root that its CA certificates must lead to, DER.
    pub root_der: Vec<u8>,
    /// What becomes of certificates whose keys are lost.
    pub revocation: Revocation,
    /// Requests at the same time.
    pub concurrency: usize,
}

/// An enrolment server. Cheap to use from many tasks: connections are kept and shared.
#[derive(Debug)]
pub struct EstClient {
    base: String,
    config: EstConfig,
    http: Client,
}

impl EstClient {
    /// With TLS as the caller configured it: roots and client certificate.
    ///
    /// # Errors
    /// A sentence, if no HTTP client can be made.
    pub fn new(config: EstConfig, tls: rustls::ClientConfig) -> Result<Self, String> {
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(OPERATION)
            .pool_max_idle_per_host(config.concurrency)
            .user_agent(concat!("keybroker/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("no HTTP client: {}", chain(&error)))?;
        let mut base = format!("{}/.well-known/est", config.url.trim_end_matches('/'));
        if let Some(label) = &config.label {
            base = format!("{base}/{label}");
        }
        Ok(Self { base, config, http })
    }

    async fn post(&self, operation: &str, request_der: &[u8]) -> Result<Answer, IssuerError> {
        let request = |url: Url| {
            self.http
                .post(url)
                .header(CONTENT_TYPE, "application/pkcs10")
                .header(TRANSFER_ENCODING, "base64")
                .header(ACCEPT, "application/pkcs7-mime")
                .body(cms::to_base64(request_der))
        };
        let response = accepted(self.send(operation, request).await?).await?;
        if response.status() == StatusCode::ACCEPTED {
            return Ok(Answer::Pending(retry_after(&response).unwrap_or(PENDING)));
        }
        Ok(Answer::Issued(certificates(response).await?))
    }

    /// Sends a request (PKCS#10, DER) for a certificate that follows the one which this client shows (RFC 7030 4.2.2).
    ///
    /// # Errors
    /// [`IssuerError`].
    pub async fn re_enrol(&self, request_der: &[u8]) -> Result<Answer, IssuerError> {
        self.post("simplereenroll", request_der).await
    }

    /// Follows redirections to the same origin (RFC 7030 3.2.1), with the same method and body, and no other ones.
    async fn send(
        &self,
        operation: &str,
        request: impl Fn(Url) -> RequestBuilder,
    ) -> Result<Response, IssuerError> {
        let url = format!("{}/{operation}", self.base);
        let mut url = Url::parse(&url).map_err(|error| IssuerError::Refused(format!("{url}: {error}")))?;
        for _ in 0..=REDIRECTIONS {
            let mut response = request(url.clone()).send().await;
            // A connection that was kept, and that the server closed meanwhile. The same request may be sent again.
            if response.as_ref().is_err_and(|e| e.is_request() && !e.is_connect() && !e.is_timeout()) {
                response = request(url.clone()).send().await;
            }
            let response = response.map_err(|error| unreachable(&error))?;
            let status = response.status();
            if !status.is_redirection() {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = next.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| IssuerError::Refused(format!("{status}, and not where to")))?;
            if !FOLLOWED.contains(&status) || next.origin() != url.origin() {
                return Err(IssuerError::Refused(format!(
                    "{status} to {}, which is not followed: if that is the enrolment server, configure it as the issuer's url",
                    plain(next.as_str())
                )));
            }
            url = next;
        }
        Err(IssuerError::Refused(format!("it redirects more than {REDIRECTIONS} times")))
    }
}

#[async_trait]
impl Issuer for EstClient {
    fn revocation(&self) -> Revocation {
        self.config.revocation
    }

    fn concurrency(&self) -> usize {
        self.config.concurrency
    }

    async fn cas(&self, now: Timestamp) -> Result<ExternalCas, IssuerError> {
        let request = |url| self.http.get(url).header(ACCEPT, "application/pkcs7-mime");
        let response = self.send("cacerts", request).await?;
        let certificates = certificates(accepted(response).await?).await?;
        ExternalCas::verify(&self.config.root_der, &certificates, now)
    }

    async fn attributes(&self) -> Result<RequestAttributes, IssuerError> {
        let request = |url| self.http.get(url).header(ACCEPT, "application/csrattrs");
        let response = self.send("csrattrs", request).await?;
        match response.status() {
            // RFC 7030 4.5.2: the server wants nothing in particular. 501: it does not know the operation.
            StatusCode::NO_CONTENT | StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => {
                Ok(RequestAttributes::default())
            }
            _ => {
                let body = body(accepted(response).await?).await?;
                if body.is_empty() {
                    return Ok(RequestAttributes::default());
                }
                RequestAttributes::parse(&decoded(&body)?)
            }
        }
    }

    async fn enrol(&self, request_der: &[u8]) -> Result<Answer, IssuerError> {
        self.post("simpleenroll", request_der).await
    }
}

/// The answer, if it is none of a failure.
async fn accepted(response: Response) -> Result<Response, IssuerError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let after = retry_after(&response);
    let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).map(plain);
    let text = body(response).await.unwrap_or_default();
    let text = format!("{status} {}", plain(&String::from_utf8_lossy(&text)));
    let text = text.trim().to_owned();
    match (status, after) {
        // RFC 7030 3.2.3: a client need not do that.
        (StatusCode::UNAUTHORIZED, _) => Err(IssuerError::Refused(format!(
            "{text}: it wants HTTP authentication ({}), which is not built; have it accept the TLS client certificate alone",
            challenge.unwrap_or_default()
        ))),
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(after)) => {
            Err(IssuerError::Busy { after, text })
        }
        (StatusCode::TOO_MANY_REQUESTS, None) => Err(IssuerError::Unavailable(text)),
        _ if status.is_server_error() => Err(IssuerError::Unavailable(text)),
        _ => Err(IssuerError::Refused(text)),
    }
}

/// The beginning of a text that somebody else wrote, on one line.
fn plain(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(LONGEST_REFUSAL).map(printable).collect()
}

async fn certificates(response: Response) -> Result<Vec<Vec<u8>>, IssuerError> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // With x- before the type was registered.
    if !["application/pkcs7-mime", "application/x-pkcs7-mime"].contains(&essence.as_str()) {
        let problem = format!("its content type is {:?}, not application/pkcs7-mime", plain(kind));
        return Err(IssuerError::Malformed(problem));
    }
    let body = body(response).await?;
    cms::certificates(&decoded(&body)?).map_err(|error| IssuerError::Malformed(error.to_string()))
}

fn decoded(body: &[u8]) -> Result<Vec<u8>, IssuerError> {
    cms::from_base64(body).map_err(|error| IssuerError::Malformed(error.to_string()))
}

async fn body(mut response: Response) -> Result<Vec<u8>, IssuerError> {
    // Its end is the connection's: some servers close it without TLS's close_notify. What was cut off is no CMS message.
    let until_closed =
        response.content_length().is_none() && !response.headers().contains_key(TRANSFER_CODING);
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) if body.len() + chunk.len() > LONGEST_BODY => {
                return Err(IssuerError::Malformed(format!("it is longer than {LONGEST_BODY} bytes")));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) if until_closed && is_end(&error) => return Ok(body),
            Err(error) => {
                return Err(IssuerError::Unavailable(format!("its answer broke off: {}", chain(&error))));
            }
        }
    }
}

fn is_end(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
    })
}

/// Retry-After (RFC 9110 10.2.3): seconds, or a date, which is held against the answer's own. Neither less than a second nor
/// more than an hour.
fn retry_after(response: &Response) -> Option<Duration> {
    let header = |name| response.headers().get(name)?.to_str().ok().map(str::trim);
    let date = |text| OffsetDateTime::parse(text, &Rfc2822).ok();
    let told = header(RETRY_AFTER)?;
    let after = match told.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Duration::try_from(date(told)? - date(header(DATE)?)?).unwrap_or_default(),
    };
    Some(after.clamp(SHORTEST_PENDING, LONGEST_PENDING))
}

fn unreachable(error: &reqwest::Error) -> IssuerError {
    IssuerError::Unavailable(match causes(error).find_map(of_tls).and_then(remedy) {
        Some(remedy) => format!("{}; {remedy}", chain(error)),
        None => chain(error),
    })
}

/// The error of TLS, however often it is wrapped: an I/O error is not the source of the one around it.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(within) => of_tls(within),
        None => error.downcast_ref(),
    }
}

/// What to do about a failed handshake.
fn remedy(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{AlertDescription as Alert, Error};
    Some(match error {
        Error::InvalidCertificate(_) => {
            "its TLS certificate must lead to trust_anchor, or to server_trust_anchor if that is set, and name the url's host"
        }
        Error::PeerIncompatible(_)
        | Error::AlertReceived(
            Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity,
        ) => "it must speak TLS 1.3, or 1.2 with ECDHE and AES-GCM or ChaCha20-Poly1305",
        Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => "it does not accept our TLS client certificate",
        _ => return None,
    })
}

/// An error with its causes: reqwest's own text leaves them out.
fn chain(error: &reqwest::Error) -> String {
    let texts: Vec<_> = causes(error).map(ToString::to_string).collect();
    texts.join(": ")
}

fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error as &'a (dyn Error + 'static)), |error| (*error).source())
}
