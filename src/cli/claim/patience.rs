//! Trying again: bounded, slower each time, at different moments for different VNFCIs, and as the broker asks.

use super::super::failure::Failure;
use crate::api::client::{ConnectError, describe};
use rand::RngExt;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// First pause.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause of our own choice; the broker may ask for more.
const LONGEST: Duration = Duration::from_secs(15);

/// Why an attempt failed.
pub(in super::super) enum Attempt {
    /// No connection.
    Connect(ConnectError),
    /// The broker's answer.
    Status(Status),
    /// Our side; never tried again.
    Local(Failure),
}

impl From<ConnectError> for Attempt {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<Status> for Attempt {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self::Local(failure)
    }
}

impl From<Attempt> for Failure {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Connect(error) => error.into(),
            Attempt::Status(status) => status.into(),
            Attempt::Local(failure) => failure,
        }
    }
}

/// Repeats `attempt` while what it fails with may pass, for `patience` at most.
pub(in super::super) async fn patiently<T>(
    patience: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, Attempt>,
) -> Result<T, Attempt> {
    let start = Instant::now();
    let mut pause = FIRST;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let asked = match &error {
            Attempt::Connect(ConnectError::Unreachable { .. }) => None,
            Attempt::Status(status)
                if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) =>
            {
                describe(status).retry_after
            }
            _ => return Err(error),
        };
        // Half to all of it: VNFCIs that failed together do not come back together.
        let wait = asked
            .unwrap_or(pause)
            .mul_f64(rand::rng().random_range(0.5..=1.0))
            .max(asked.unwrap_or_default());
        if start.elapsed() + wait > patience {
            return Err(error);
        }
        let failure = Failure::from(error);
        eprintln!("{what}: {failure}; trying again in {:.1} s", wait.as_secs_f64());
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(LONGEST);
    }
}
