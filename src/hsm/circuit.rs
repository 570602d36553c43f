//! Opened by calls that fail again and again, closed by the first that is answered: one circuit for each verb in each lane.
//!
//! Workers that start, and then fail every call, would else let everybody wait for an answer that does not come. A lane
//! whose workers do not start has a circuit of its own (`super::lane`).

use super::{HsmError, Lane};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Failures in a row that open a circuit: a worker that is killed takes two calls with it at most.
const OPENS_AFTER: u32 = 5;
/// One call in so long is let through to try. This bounds how much later than the module an open circuit recovers.
const TRIAL_EVERY: Duration = Duration::from_secs(1);
/// A failing verb that nobody has asked for so long may well work again: longer than a call takes that hangs.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15);

#[derive(Default)]
pub(super) struct Circuits(Mutex<HashMap<(Lane, &'static str), Circuit>>);

struct Circuit {
    failures: u32,
    failed_at: Instant,
    /// When the next call may try.
    trial_at: Instant,
    /// The last failure's text.
    problem: String,
}

impl Circuits {
    /// Lets a call through, or not.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] with what failed, while the circuit is open.
    pub(super) fn admit(&self, lane: Lane, verb: &'static str, now: Instant) -> Result<(), HsmError> {
        match self.circuits().get_mut(&(lane, verb)) {
            Some(circuit) if circuit.failures >= OPENS_AFTER => {
                if now < circuit.trial_at {
                    return Err(HsmError::Unavailable(circuit.sentence(verb)));
                }
                circuit.trial_at = now + TRIAL_EVERY;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Learns how a call that was let through ended.
    pub(super) fn ended(&self, lane: Lane, verb: &'static str, error: Option<&HsmError>, now: Instant) {
        let mut circuits = self.circuits();
        match error {
            // Nothing of the module was asked.
            Some(HsmError::Overloaded | HsmError::Configuration(_)) => {}
            // It answered.
            None | Some(HsmError::NotFound(_) | HsmError::StillThere(_) | HsmError::Refused(_)) => {
                if let Some(circuit) = circuits.remove(&(lane, verb))
                    && circuit.failures >= OPENS_AFTER
                {
                    tracing::info!(verb, lane = lane.as_str(), "HSM: the verb works again");
                }
            }
            Some(
                failure @ (HsmError::WrongPin
                | HsmError::Unavailable(_)
                | HsmError::DeadlineExceeded(_)
                | HsmError::Module { .. }),
            ) => {
                let circuit = circuits.entry((lane, verb)).or_insert(Circuit {
                    failures: 0,
                    failed_at: now,
                    trial_at: now,
                    problem: String::new(),
                });
                circuit.failures = circuit.failures.saturating_add(1);
                circuit.failed_at = now;
                circuit.trial_at = now + TRIAL_EVERY;
                circuit.problem = match failure {
                    // Its text only: it is given out as an `Unavailable` again.
                    HsmError::Unavailable(text) => text.clone(),
                    other => other.to_string(),
                };
                if circuit.failures == OPENS_AFTER {
                    let problem = &circuit.problem;
                    tracing::error!(
                        verb,
                        lane = lane.as_str(),
                        problem,
                        "HSM: the verb fails again and again"
                    );
                }
            }
        }
    }

    /// What fails in a lane, a sentence for each verb, in order.
    pub(super) fn open(&self, lane: Lane, now: Instant) -> Vec<String> {
        let circuits = self.circuits();
        let open = circuits.iter().filter(|((of, _), circuit)| {
            *of == lane
                && circuit.failures >= OPENS_AFTER
                && now.saturating_duration_since(circuit.failed_at) < FORGOTTEN_AFTER
        });
        let mut sentences: Vec<String> = open.map(|((_, verb), circuit)| circuit.sentence(verb)).collect();
        sentences.sort();
        sentences
    }

    fn circuits(&self) -> MutexGuard<'_, HashMap<(Lane, &'static str), Circuit>> {
        // Every change under the lock is whole before anything could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Circuit {
    fn sentence(&self, verb: &str) -> String {
        format!(
            "{verb} failed {} times in a row, the last time with: {}; it is tried every {TRIAL_EVERY:?}",
            self.failures, self.problem
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    fn module() -> HsmError {
        HsmError::Module { operation: "C_WrapKey".into(), code: "CKR_DEVICE_ERROR".into() }
    }

    #[test]
    fn a_verb_that_keeps_failing_is_refused_at_once_and_tried_once_a_second() {
        let circuits = Circuits::default();
        let now = Instant::now();
        for _ in 0..OPENS_AFTER {
            circuits.admit(Lane::Interactive, "seal", now).unwrap();
            circuits.ended(Lane::Interactive, "seal", Some(&module()), now);
        }
        let refused = circuits.admit(Lane::Interactive, "seal", now).unwrap_err().to_string();
        assert!(refused.contains("seal failed 5 times") && refused.contains("C_WrapKey"), "{refused}");
        assert_eq!(circuits.open(Lane::Interactive, now).len(), 1);
        assert!(circuits.open(Lane::Bulk, now).is_empty());
        circuits.admit(Lane::Interactive, "sign", now).unwrap();
        circuits.admit(Lane::Bulk, "seal", now).unwrap();
        let later = now + TRIAL_EVERY;
        circuits.admit(Lane::Interactive, "seal", later).unwrap();
        circuits.admit(Lane::Interactive, "seal", later).unwrap_err();
        circuits.ended(Lane::Interactive, "seal", None, later);
        circuits.admit(Lane::Interactive, "seal", later).unwrap();
        assert!(circuits.open(Lane::Interactive, later).is_empty());
    }

    #[test]
    fn an_answer_that_is_the_callers_fault_shows_that_the_module_works() {
        let circuits = Circuits::default();
        let now = Instant::now();
        for _ in 0..3 * OPENS_AFTER {
            circuits.ended(Lane::Interactive, "seal", Some(&module()), now);
            circuits.ended(Lane::Interactive, "seal", Some(&HsmError::Refused("a bad point".into())), now);
        }
        circuits.admit(Lane::Interactive, "seal", now).unwrap();
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_not_reported_for_ever() {
        let circuits = Circuits::default();
        let now = Instant::now();
        for _ in 0..OPENS_AFTER {
            circuits.ended(Lane::Bulk, "produce", Some(&module()), now);
        }
        assert_eq!(circuits.open(Lane::Bulk, now).len(), 1);
        assert!(circuits.open(Lane::Bulk, now + FORGOTTEN_AFTER).is_empty());
    }
}
