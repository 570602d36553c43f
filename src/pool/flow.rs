//! How fast a pool fills and empties, and when it will be dry. Pure: is told what was seen, and when.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long rates are taken.
const WINDOW: Duration = Duration::from_secs(60);
/// Observations closer together than this replace each other.
const SPACING: Duration = Duration::from_millis(500);
/// Farther ahead than this nothing is foretold.
const FORESIGHT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Credentials per second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Produced.
    pub production: f64,
    /// Claimed.
    pub claims: f64,
}

/// What was seen of one pool during the last minute.
#[derive(Debug, Default)]
pub struct Flow {
    seen: VecDeque<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    produced: u64,
    drawn: u64,
}

impl Flow {
    /// Notes how many credentials were ever produced and ever claimed at `at`.
    pub fn observe(&mut self, at: Instant, produced: u64, drawn: u64) {
        let crowded = self.seen.len() >= 2
            && self.seen.iter().rev().nth(1).is_some_and(|before| at.duration_since(before.at) < SPACING);
        if crowded {
            self.seen.pop_back();
        }
        self.seen.push_back(Seen { at, produced, drawn });
        // The last one that is older than the window stays: without it the window had no beginning.
        while self.seen.get(1).is_some_and(|next| at.duration_since(next.at) >= WINDOW) {
            self.seen.pop_front();
        }
    }

    /// The rates between the oldest and the newest observation; 0 while there are not two, half a second apart.
    pub fn rates(&self) -> Rates {
        let (Some(first), Some(last)) = (self.seen.front(), self.seen.back()) else {
            return Rates::default();
        };
        let elapsed = last.at.duration_since(first.at);
        if elapsed < SPACING {
            return Rates::default();
        }
        let per_second = |from: u64, to: u64| to.saturating_sub(from) as f64 / elapsed.as_secs_f64();
        Rates {
            production: per_second(first.produced, last.produced),
            claims: per_second(first.drawn, last.drawn),
        }
    }
}

/// How long until nothing is ready, if both rates stay; none while the pool does not drain.
pub fn runs_dry_in(ready: u64, rates: Rates) -> Option<Duration> {
    let drain = rates.claims - rates.production;
    if drain <= 0.0 {
        return None;
    }
    let seconds = ready as f64 / drain;
    (seconds <= FORESIGHT.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let start = Instant::now();
        let mut flow = Flow::default();
        assert_eq!(flow.rates(), Rates::default());
        flow.observe(start, 1_000, 0);
        assert_eq!(flow.rates(), Rates::default(), "one look says nothing");
        flow.observe(after(start, 10_000), 2_000, 50);
        assert_eq!(flow.rates(), Rates { production: 100.0, claims: 5.0 });
        for second in 11..=200 {
            flow.observe(after(start, second * 1_000), 2_000, 50 + (second - 10));
        }
        assert_eq!(flow.rates(), Rates { production: 0.0, claims: 1.0 });
    }

    #[test]
    fn many_looks_within_a_moment_are_one() {
        let start = Instant::now();
        let mut flow = Flow::default();
        for milli in 0..10_000 {
            flow.observe(after(start, milli), milli, 0);
        }
        assert!(flow.seen.len() <= 22, "{}", flow.seen.len());
        assert!((flow.rates().production - 1_000.0).abs() < 0.001);
    }

    #[test]
    fn a_pool_runs_dry_only_if_claims_outrun_production() {
        let rates = |production, claims| Rates { production, claims };
        assert_eq!(runs_dry_in(100, rates(5.0, 15.0)), Some(Duration::from_secs(10)));
        assert_eq!(runs_dry_in(0, rates(5.0, 15.0)), Some(Duration::ZERO));
        assert_eq!(runs_dry_in(100, rates(15.0, 15.0)), None);
        assert_eq!(runs_dry_in(1_000_000, rates(0.0, 0.001)), None, "too far ahead to say");
    }

    proptest! {
        #[test]
        fn no_sequence_of_looks_panics_or_grows(steps in proptest::collection::vec((0u64..5_000, any::<u64>(), any::<u64>()), 0..400)) {
            let mut at = Instant::now();
            let mut flow = Flow::default();
            for (millis, produced, drawn) in steps {
                at += Duration::from_millis(millis);
                flow.observe(at, produced, drawn);
                let rates = flow.rates();
                prop_assert!(rates.production >= 0.0 && rates.claims >= 0.0);
                prop_assert!(flow.seen.len() <= 250);
                let _ = runs_dry_in(produced, rates);
            }
        }
    }
}
