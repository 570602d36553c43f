//! CAs outside of the broker: what it asks of them, and how it judges what they answer.
//!
//! [`Issuer`] is what the broker knows; `est.rs` reaches one by EST. `chain.rs` holds CA certificates against the
//! configured root, `attributes.rs` reads what a server wants in requests, `request.rs` makes them, and `answer.rs` judges
//! the certificates that come back.

mod answer;
mod attributes;
mod chain;
pub mod est;
mod request;

pub use answer::{Accepted, OfKey, Wanted, judge, of_key};
pub use attributes::RequestAttributes;
pub use chain::{CaChain, ExternalCas};
pub use request::{client_request, client_request_again, template};

use crate::clock::HumaneDuration;
use crate::credential::named;
use async_trait::async_trait;
use std::time::Duration;

named!(
    /// What an issuer that cannot be told to revoke leaves to do when a key is lost.
    Revocation, "revocation" {
        /// Nothing: its certificates end soon by themselves, so that a profile's validity is bounded.
        ShortLived = "short-lived",
        /// The operator revokes at the CA, by the serial numbers that the broker tells.
        OutOfBand = "out-of-band",
    }
);

/// Longest validity of certificates that nobody can revoke: 7 days.
pub const SHORT_LIVED: Duration = Duration::from_secs(7 * 86_400);

/// Why an issuer did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// It cannot be reached, or says that it cannot answer now.
    #[error("it does not answer: {0}")]
    Unavailable(String),
    /// It says that it cannot answer before this time has passed.
    #[error("it does not answer, and asks to be left alone for {}: {text}", HumaneDuration(*after))]
    Busy {
        /// As it says, within bounds.
        after: Duration,
        /// The rest of what it says.
        text: String,
    },
    /// It refused.
    #[error("it refused: {0}")]
    Refused(String),
    /// It answered something that the protocol does not allow.
    #[error("its answer is not understood: {0}")]
    Malformed(String),
    /// Its CA certificates do not lead to the configured root: it is not the CA that the operator meant.
    #[error("its CA certificates do not lead to the configured root: {0}")]
    UntrustedChain(String),
    /// It wants something in requests that the broker does not put there.
    #[error("it wants requests that cannot be made: {0}")]
    Unsupported(String),
}

/// What an issuer answered to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Certificates, DER, in no order: the one that was asked for, perhaps with those of CAs. Nothing of them is verified.
    Issued(Vec<Vec<u8>>),
    /// Not yet: the same request is to be sent again after this time.
    Pending(Duration),
}

/// A CA outside of the broker.
#[async_trait]
pub trait Issuer: Send + Sync {
    /// Whether anybody can revoke what it issues.
    fn revocation(&self) -> Revocation;
    /// How many requests it takes at the same time.
    fn concurrency(&self) -> usize;
    /// Its CA certificates, each verified to the configured root.
    async fn cas(&self, now: crate::clock::Timestamp) -> Result<ExternalCas, IssuerError>;
    /// What it wants in requests.
    async fn attributes(&self) -> Result<RequestAttributes, IssuerError>;
    /// Sends a CertificationRequest (RFC 2986), DER. The same one may be sent again.
    async fn enrol(&self, request_der: &[u8]) -> Result<Answer, IssuerError>;
}
