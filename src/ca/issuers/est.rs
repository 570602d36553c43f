//! A CA behind an enrolment server: the client's side of EST (RFC 7030, RFC 8951).

use super::{Answer, ExternalCas, Issuer, IssuerError, RequestAttributes, Revocation};
use crate::ca::cms;
use crate::clock::Timestamp;
use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use std::time::Duration;

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
        let request = self
            .http
            .post(format!("{}/{operation}", self.base))
            .header(CONTENT_TYPE, "application/pkcs10")
            .header(TRANSFER_ENCODING, "base64")
            .header(ACCEPT, "application/pkcs7-mime")
            .body(cms::to_base64(request_der));
        let response = send(request).await?;
        if response.status() == StatusCode::ACCEPTED {
            return Ok(Answer::Pending(retry_after(&response).unwrap_or(PENDING)));
        }
        let mut certificates = certificates(response).await?;
        // RFC 7030 4.2.3: the certificate that was issued, and no other.
        match (certificates.pop(), certificates.is_empty()) {
            (Some(certificate), true) => Ok(Answer::Issued(certificate)),
            _ => Err(IssuerError::Malformed(format!("{operation} gave more than one certificate"))),
        }
    }

    /// Sends a request (PKCS#10, DER) for a certificate that follows the one which this client shows (RFC 7030 4.2.2).
    ///
    /// # Errors
    /// [`IssuerError`].
    pub async fn re_enrol(&self, request_der: &[u8]) -> Result<Answer, IssuerError> {
        self.post("simplereenroll", request_der).await
    }

    fn get(&self, operation: &str) -> RequestBuilder {
        self.http.get(format!("{}/{operation}", self.base))
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
        let request = self.get("cacerts").header(ACCEPT, "application/pkcs7-mime");
        let certificates = certificates(send(request).await?).await?;
        ExternalCas::verify(&self.config.root_der, &certificates, now)
    }

    async fn attributes(&self) -> Result<RequestAttributes, IssuerError> {
        let request = self.get("csrattrs").header(ACCEPT, "application/csrattrs");
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        match response.status() {
            // RFC 7030 4.5.2: the server wants nothing in particular.
            StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(RequestAttributes::default()),
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

async fn send(request: RequestBuilder) -> Result<Response, IssuerError> {
    accepted(request.send().await.map_err(|error| unreachable(&error))?).await
}

/// The answer, if it is none of a failure.
async fn accepted(response: Response) -> Result<Response, IssuerError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = body(response).await.unwrap_or_default();
    let text: String = String::from_utf8_lossy(&text)
        .chars()
        .take(LONGEST_REFUSAL)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let text = format!("{status} {}", text.trim());
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Err(IssuerError::Unavailable(text))
    } else {
        Err(IssuerError::Refused(text))
    }
}

async fn certificates(response: Response) -> Result<Vec<Vec<u8>>, IssuerError> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("application/pkcs7-mime") {
        return Err(IssuerError::Malformed(format!("its content type is {kind:?}")));
    }
    let body = body(response).await?;
    cms::certificates(&decoded(&body)?).map_err(|error| IssuerError::Malformed(error.to_string()))
}

fn decoded(body: &[u8]) -> Result<Vec<u8>, IssuerError> {
    cms::from_base64(body).map_err(|error| IssuerError::Malformed(error.to_string()))
}

async fn body(mut response: Response) -> Result<Vec<u8>, IssuerError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + chunk.len() > LONGEST_BODY {
            return Err(IssuerError::Malformed(format!("longer than {LONGEST_BODY} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Retry-After in seconds (RFC 9110 10.2.3); a date counts as none.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PENDING))
}

fn unreachable(error: &reqwest::Error) -> IssuerError {
    IssuerError::Unavailable(chain(error))
}

/// An error with its causes: reqwest's own text leaves them out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
