//! From a use case's error to what a caller may learn of it: the one exhaustive match.

use crate::broker::BrokerError;
use crate::store::records::QuotaExceeded;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use uuid::Uuid;

/// `ErrorInfo.domain` of every error of ours.
pub const DOMAIN: &str = "keybroker";
/// A sentence goes into the headers of an answer, of which a client takes 16 kB; one may quote what the caller sent.
const LONGEST_SENTENCE: usize = 2_000;
/// A CA is renewed by people.
const CA_RENEWAL: Duration = Duration::from_secs(3_600);

/// The gRPC status for an error, with `google.rpc.ErrorInfo` and, where they apply, `BadRequest`,
/// `QuotaFailure`, `PreconditionFailure` and `RetryInfo`.
///
/// `Refused` and `Denied` say nothing of their reason, which is for the auditor. `Internal` says an incident id,
/// which is in the broker's own log with the reason.
pub fn status(error: &BrokerError) -> Status {
    match error {
        BrokerError::Refused { .. } | BrokerError::RefusedForNow { .. } => {
            answer(Code::Unauthenticated, "NOT_AUTHENTICATED", "not authenticated", ErrorDetails::new())
        }
        BrokerError::Denied(_) => {
            answer(Code::PermissionDenied, "NOT_PERMITTED", "not permitted", ErrorDetails::new())
        }
        BrokerError::RearmNeeded { .. } => answer(
            Code::FailedPrecondition,
            "REARM_NEEDED",
            &error.to_string(),
            ErrorDetails::with_precondition_failure_violation("CERTIFICATE", "", error.to_string()),
        ),
        BrokerError::Invalid { field, problem } => answer(
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
            &error.to_string(),
            ErrorDetails::with_bad_request_violation(shortened(field), shortened(problem)),
        ),
        BrokerError::NotFound(_) => {
            answer(Code::NotFound, "NOT_FOUND", &error.to_string(), ErrorDetails::new())
        }
        BrokerError::AlreadyExists(_) => {
            answer(Code::AlreadyExists, "ALREADY_EXISTS", &error.to_string(), ErrorDetails::new())
        }
        BrokerError::Precondition(sentence) => answer(
            Code::FailedPrecondition,
            "FAILED_PRECONDITION",
            sentence,
            ErrorDetails::with_precondition_failure_violation("STATE", "", shortened(sentence)),
        ),
        BrokerError::RequestReused(id) => answer(
            Code::FailedPrecondition,
            "REQUEST_REUSED",
            &error.to_string(),
            ErrorDetails::with_precondition_failure_violation(
                "REQUEST_ID",
                id.to_string(),
                "repeat a request unchanged, or give a changed one a new request id",
            ),
        ),
        BrokerError::QuotaExceeded(exceeded) => quota_exceeded(exceeded),
        BrokerError::PoolEmpty { retry_after, .. } => answer(
            Code::ResourceExhausted,
            "POOL_EMPTY",
            "no credential is ready for a slot; try again later",
            ErrorDetails::with_retry_info(Some(*retry_after)),
        ),
        BrokerError::Unavailable { code, reason, retry_after } => {
            // The reason may name files, hosts and modules: it is for our log.
            tracing::warn!(code, reason, "not available");
            answer(
                Code::Unavailable,
                code,
                "not available now; nothing is lost, try again",
                ErrorDetails::with_retry_info(Some(*retry_after)),
            )
        }
        BrokerError::CaEnding(_) => answer(
            Code::Unavailable,
            "CA_ENDING",
            &error.to_string(),
            ErrorDetails::with_retry_info(Some(CA_RENEWAL)),
        ),
        BrokerError::TokenWithoutKeys { retry_after, .. } => {
            tracing::error!(%error, "not available");
            answer(
                Code::Unavailable,
                "TOKEN_WITHOUT_KEYS",
                &error.to_string(),
                ErrorDetails::with_retry_info(Some(*retry_after)),
            )
        }
        BrokerError::Internal(reason) => internal(reason),
    }
}

/// The caller belongs to the tenant: it learns what it has and what it may have, in words and in numbers.
fn quota_exceeded(exceeded: &QuotaExceeded) -> Status {
    let sentence = exceeded.to_string();
    let subject = format!("tenant:{}", exceeded.tenant);
    let mut details = ErrorDetails::with_quota_failure_violation(subject, sentence.as_str());
    let numbers = [
        ("quota", exceeded.quota.as_str().to_owned()),
        ("limit", exceeded.limit.to_string()),
        ("used", exceeded.used.to_string()),
        ("asked", exceeded.asked.to_string()),
    ];
    let numbers = numbers.map(|(name, value)| (name.to_owned(), value));
    details.set_error_info("QUOTA_EXCEEDED", DOMAIN, HashMap::from(numbers));
    Status::with_error_details(Code::ResourceExhausted, sentence, details)
}

/// A fault of ours: the caller gets an incident id, the log the reason beside it.
pub(super) fn internal(reason: &str) -> Status {
    let incident = Uuid::new_v4();
    tracing::error!(%incident, reason, "internal error");
    let mut details = ErrorDetails::new();
    details.set_error_info(
        "INTERNAL",
        DOMAIN,
        HashMap::from([("incident".to_owned(), incident.to_string())]),
    );
    Status::with_error_details(
        Code::Internal,
        format!("internal error; the broker's log has it as incident {incident}"),
        details,
    )
}

/// The call took longer than it may. What was begun goes on: the same request id finds its outcome.
pub(super) fn deadline_exceeded() -> Status {
    answer(
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "the call took too long; try again with the same request id",
        ErrorDetails::with_retry_info(Some(Duration::from_secs(2))),
    )
}

/// More calls at once than the listener takes. Those that are sent away at the same time do not return at the same time.
pub(super) fn overloaded() -> Status {
    let wait = Duration::from_secs(1).mul_f64(1.0 + 4.0 * rand::random::<f64>());
    answer(
        Code::Unavailable,
        "OVERLOADED",
        "too many calls at once; try again",
        ErrorDetails::with_retry_info(Some(wait)),
    )
}

/// The broker is shutting down.
pub(super) fn stopping() -> Status {
    answer(
        Code::Unavailable,
        "STOPPING",
        "the broker is stopping; connect again",
        ErrorDetails::with_retry_info(Some(Duration::from_secs(1))),
    )
}

/// The RPC is not offered on this listener.
pub(super) fn not_here(hint: &'static str) -> Status {
    answer(Code::Unimplemented, "OTHER_LISTENER", hint, ErrorDetails::new())
}

fn answer(code: Code, reason: &str, message: &str, mut details: ErrorDetails) -> Status {
    details.set_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, shortened(message), details)
}

/// Cut at a character where it is too long.
fn shortened(sentence: &str) -> String {
    if sentence.len() <= LONGEST_SENTENCE {
        return sentence.to_owned();
    }
    let kept = &sentence[..sentence.floor_char_boundary(LONGEST_SENTENCE)];
    format!("{kept}... ({} bytes in all)", sentence.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorisation::{Denied, Role, Rpc};
    use crate::clock::Timestamp;
    use crate::nfv::RequestId;
    use crate::store::records::Quota;

    const SECRET: &str = "the-reason-behind-it";

    fn every_error() -> Vec<(BrokerError, Code, &'static str)> {
        let wait = Duration::from_secs(3);
        vec![
            (BrokerError::refused("TOKEN_PROOF_WRONG", SECRET), Code::Unauthenticated, "NOT_AUTHENTICATED"),
            (
                BrokerError::Denied(Denied::Role(Role::Auditor, Rpc::AddTenant)),
                Code::PermissionDenied,
                "NOT_PERMITTED",
            ),
            (
                BrokerError::Invalid { field: "name".into(), problem: "is empty".into() },
                Code::InvalidArgument,
                "INVALID_ARGUMENT",
            ),
            (
                BrokerError::RearmNeeded {
                    expired_at: Timestamp::from_unix_seconds(1),
                    tenant: "default".parse().unwrap(),
                    vnfci: "amf-1".parse().unwrap(),
                },
                Code::FailedPrecondition,
                "REARM_NEEDED",
            ),
            (BrokerError::NotFound("pool x".into()), Code::NotFound, "NOT_FOUND"),
            (BrokerError::AlreadyExists("pool x".into()), Code::AlreadyExists, "ALREADY_EXISTS"),
            (
                BrokerError::Precondition("claim again".into()),
                Code::FailedPrecondition,
                "FAILED_PRECONDITION",
            ),
            (BrokerError::RequestReused(RequestId::generate()), Code::FailedPrecondition, "REQUEST_REUSED"),
            (
                BrokerError::QuotaExceeded(QuotaExceeded {
                    tenant: "default".parse().unwrap(),
                    quota: Quota::Vnfcis,
                    limit: 10,
                    used: 9,
                    asked: 2,
                }),
                Code::ResourceExhausted,
                "QUOTA_EXCEEDED",
            ),
            (
                // Unwrap safety: a test.
                BrokerError::PoolEmpty { pool: "secret-pool".parse().unwrap(), retry_after: wait },
                Code::ResourceExhausted,
                "POOL_EMPTY",
            ),
            (
                BrokerError::Unavailable {
                    code: "HSM_UNAVAILABLE",
                    reason: SECRET.into(),
                    retry_after: wait,
                },
                Code::Unavailable,
                "HSM_UNAVAILABLE",
            ),
            (BrokerError::CaEnding(Timestamp::from_unix_seconds(1)), Code::Unavailable, "CA_ENDING"),
            (
                BrokerError::TokenWithoutKeys {
                    tenant: "default".parse().unwrap(),
                    missing: "keybroker:hmac:default".into(),
                    retry_after: wait,
                },
                Code::Unavailable,
                "TOKEN_WITHOUT_KEYS",
            ),
            (BrokerError::Internal(SECRET.into()), Code::Internal, "INTERNAL"),
        ]
    }

    #[test]
    fn a_sentence_of_any_length_fits_into_the_headers_of_an_answer() {
        let long = "\u{e9}[".repeat(20_000);
        for error in [
            BrokerError::Invalid { field: long.clone(), problem: long.clone() },
            BrokerError::Precondition(long.clone()),
            BrokerError::NotFound(long.clone()),
        ] {
            let status = status(&error);
            // Percent-encoded and in base64.
            assert!(
                status.message().len() * 3 + status.details().len() * 4 / 3 < 15_000,
                "{}",
                status.code()
            );
            assert!(status.message().contains("bytes in all"));
        }
    }

    #[test]
    fn every_error_has_one_status_and_one_reason_code() {
        for (error, code, reason) in every_error() {
            let status = status(&error);
            assert_eq!(status.code(), code, "{error:?}");
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN), "{error:?}");
        }
    }

    #[test]
    fn a_caller_never_learns_why_it_was_refused_nor_what_is_inside() {
        for (error, ..) in every_error() {
            let status = status(&error);
            let told = format!("{} {:?}", status.message(), status.get_error_details());
            for hidden in [SECRET, "TOKEN_PROOF_WRONG", "auditor", "AddTenant", "secret-pool"] {
                assert!(!told.contains(hidden), "{error:?} told {told}");
            }
        }
    }

    #[test]
    fn all_refusals_look_the_same() {
        let refused = |code, reason: &str| {
            let status = status(&BrokerError::refused(code, reason));
            (status.message().to_owned(), status.details().to_vec())
        };
        assert_eq!(refused("A", "one"), refused("B", "another, longer reason"));
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        for (error, code, _) in every_error() {
            let retry = status(&error).get_error_details().retry_info().is_some();
            let passes = matches!(code, Code::Unavailable | Code::ResourceExhausted)
                && !matches!(error, BrokerError::QuotaExceeded(_));
            assert_eq!(retry, passes, "{error:?}");
        }
    }

    #[test]
    fn an_exceeded_quota_says_what_is_allowed_what_is_there_and_what_to_do() {
        let errors = every_error();
        let (error, ..) = errors.iter().find(|(.., reason)| *reason == "QUOTA_EXCEEDED").unwrap();
        let status = status(error);
        for told in ["may have 10 live VNFCIs", "max_vnfcis", "has 9", "would have 11", "[tenant.default]"] {
            assert!(status.message().contains(told), "{}", status.message());
        }
        let details = status.get_error_details();
        let numbers = &details.error_info().unwrap().metadata;
        for (name, value) in [("quota", "max_vnfcis"), ("limit", "10"), ("used", "9"), ("asked", "2")] {
            assert_eq!(numbers[name], value);
        }
        assert_eq!(details.quota_failure().unwrap().violations[0].subject, "tenant:default");
    }

    #[test]
    fn a_bad_field_is_named() {
        let status = status(&BrokerError::Invalid { field: "slots[2].name".into(), problem: "no".into() });
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "slots[2].name");
    }
}
