//! A failure that goes on is logged now and then, not in every round.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the same words are not repeated.
const SILENCE: Duration = Duration::from_secs(10);

/// What was logged last, and when.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    last: Mutex<Option<(String, Instant)>>,
}

impl Complaint {
    /// Whether this is to be logged: other words than the last ones, or the same after a while.
    pub(super) fn is_due(&self, words: &str, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((same, at)) = &*last
            && same == words
            && now.duration_since(*at) < SILENCE
        {
            return false;
        }
        *last = Some((words.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_logged_at_most_once_in_ten_seconds_and_another_one_at_once() {
        let (complaint, start) = (Complaint::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let logged = (0..300).filter(|round| complaint.is_due("no room", at(round * 200))).count();
        assert_eq!(logged, 6, "in a minute of rounds each 200 ms");
        assert!(complaint.is_due("no connection", at(60_000)));
        assert!(complaint.is_due("no room", at(60_001)));
    }
}
