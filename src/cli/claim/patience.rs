//! Trying again: bounded, slower each time, at different moments for different VNFCIs, and as the broker asks.

use super::super::failure::Failure;
use crate::api::client::{ConnectError, Explained, FailureClass, describe};
use rand::RngExt;
use std::time::{Duration, Instant};
use tonic::Status;

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
            Attempt::Status(status) => match describe(status) {
                Explained { class: FailureClass::Unavailable, retry_after, .. } => retry_after,
                _ => return Err(error),
            },
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use std::io;
    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt};

    /// How often it is attempted with this as its first answer.
    async fn attempts(first: Status) -> u32 {
        let mut count = 0;
        let outcome = patiently(Duration::from_secs(5), "test", async || {
            count += 1;
            if count == 1 { Err(Attempt::Status(first.clone())) } else { Ok(()) }
        });
        assert_eq!(outcome.await.is_ok(), count == 2);
        count
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_a_refusal_or_a_quota_is_not() {
        let retry = ErrorDetails::with_retry_info(Some(Duration::from_millis(1)));
        let with_details = |code| Status::with_error_details(code, "later", retry.clone());
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::ResourceExhausted] {
            assert_eq!(attempts(with_details(code)).await, 2, "{code:?}");
        }
        // A connection that broke in the middle of a call, as the transport tells it.
        assert_eq!(attempts(Status::from_error(Box::new(io::Error::other("reset")))).await, 2);
        for code in [Code::ResourceExhausted, Code::PermissionDenied, Code::FailedPrecondition] {
            assert_eq!(attempts(Status::new(code, "no")).await, 1, "{code:?}");
        }
    }
}
