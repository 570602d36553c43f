//! The life of epochs, planned purely from what is and what time it is. `broker::epochs` carries the plan out.

use crate::clock::Timestamp;
use crate::credential::{EpochState, StepReason};
use crate::nfv::EpochId;
use std::time::Duration;

/// What the planner knows of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochFacts {
    /// Its id.
    pub id: EpochId,
    /// Where it stands.
    pub state: EpochState,
    /// When the first key in it was erased.
    pub first_erasure_at: Option<Timestamp>,
    /// Keys that were ever inserted into it.
    pub keys: u64,
    /// Keys in it that are live.
    pub live: u64,
}

/// One step to be taken with one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochStep {
    /// Make its KEK if it is missing, and open it, or give it up: that is for whoever knows who began it.
    Create(EpochId),
    /// Take no more keys in.
    Close(EpochId, StepReason),
    /// Move its live keys to the open epoch.
    Rewrap(EpochId, StepReason),
    /// Destroy its KEK and verify that in a fresh process.
    Shred(EpochId, StepReason),
    /// Its horizon has passed and it is not shredded: raise the alarm.
    MissedHorizon(EpochId),
}

/// What the plan is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochPolicy {
    /// From an epoch's first erasure to its shredding, at most.
    pub horizon: Duration,
    /// Epochs of a tenant that may be live at once (their KEKs are token objects).
    pub max_live: usize,
}

impl Default for EpochPolicy {
    fn default() -> Self {
        Self { horizon: Duration::from_secs(15 * 60), max_live: 32 }
    }
}

/// Fewest keys for which an epoch is worth a KEK of its own.
const SMALLEST_EPOCH: u64 = 256;

/// How many keys an epoch takes, for `live` live keys in the tenant: a sixteenth, so that most of a large pool is never
/// re-wrapped because a few of its keys were used, and that half of `max_live` epochs are enough.
pub fn epoch_size(live: u64) -> u64 {
    (live / 16).max(SMALLEST_EPOCH)
}

/// The steps for one tenant's epochs (every one that is not `Destroyed`), in the order in which to take them.
pub fn plan(epochs: &[EpochFacts], now: Timestamp, policy: EpochPolicy) -> Vec<EpochStep> {
    let live: u64 = epochs.iter().map(|epoch| epoch.live).sum();
    let mut steps = Vec::new();
    for epoch in epochs {
        // Work begins at half the horizon: the other half is for an HSM that is slow or away for a while.
        let nears = |at: Timestamp| now >= at.plus(policy.horizon / 2);
        let horizon_nears = epoch.first_erasure_at.is_some_and(nears);
        if epoch.first_erasure_at.is_some_and(|at| now > at.plus(policy.horizon)) {
            steps.push(EpochStep::MissedHorizon(epoch.id));
        }
        match epoch.state {
            EpochState::Creating => steps.push(EpochStep::Create(epoch.id)),
            EpochState::Open if horizon_nears => {
                steps.push(EpochStep::Close(epoch.id, StepReason::HorizonNears));
            }
            EpochState::Open if epoch.keys >= epoch_size(live) && epochs.len() < policy.max_live => {
                steps.push(EpochStep::Close(epoch.id, StepReason::Full));
            }
            EpochState::Closed if epoch.live == 0 => {
                steps.push(EpochStep::Shred(epoch.id, StepReason::Empty));
            }
            EpochState::Closed if horizon_nears => {
                steps.push(EpochStep::Rewrap(epoch.id, StepReason::HorizonNears));
            }
            EpochState::Shredding => steps.push(EpochStep::Shred(epoch.id, StepReason::Resume)),
            EpochState::Open | EpochState::Closed | EpochState::Destroyed => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_unix_seconds(1_000_000);

    fn epoch(state: EpochState, erased: Option<u64>, keys: u64, live: u64) -> EpochFacts {
        let first_erasure_at = erased.map(|seconds| START.plus(Duration::from_secs(seconds)));
        EpochFacts { id: EpochId::generate(), state, first_erasure_at, keys, live }
    }

    fn policy() -> EpochPolicy {
        EpochPolicy { horizon: Duration::from_secs(100), max_live: 32 }
    }

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn an_epoch_without_erasure_is_left_alone() {
        let epochs = [epoch(EpochState::Open, None, 10, 10), epoch(EpochState::Closed, None, 300, 300)];
        assert_eq!(plan(&epochs, at(1_000_000), policy()), vec![]);
    }

    #[test]
    fn an_open_epoch_closes_and_its_survivors_move_at_half_the_horizon() {
        let open = epoch(EpochState::Open, Some(0), 10, 8);
        assert_eq!(plan(&[open], at(49), policy()), vec![]);
        assert_eq!(
            plan(&[open], at(50), policy()),
            vec![EpochStep::Close(open.id, StepReason::HorizonNears)]
        );
        let closed = EpochFacts { state: EpochState::Closed, ..open };
        assert_eq!(
            plan(&[closed], at(50), policy()),
            vec![EpochStep::Rewrap(closed.id, StepReason::HorizonNears)]
        );
        let empty = EpochFacts { live: 0, ..closed };
        assert_eq!(plan(&[empty], at(50), policy()), vec![EpochStep::Shred(empty.id, StepReason::Empty)]);
    }

    #[test]
    fn a_missed_horizon_raises_the_alarm_and_the_work_goes_on() {
        let closed = epoch(EpochState::Closed, Some(0), 10, 8);
        let steps = plan(&[closed], at(101), policy());
        assert_eq!(
            steps,
            vec![EpochStep::MissedHorizon(closed.id), EpochStep::Rewrap(closed.id, StepReason::HorizonNears)]
        );
    }

    #[test]
    fn what_a_crash_left_is_taken_up_again() {
        let (creating, shredding) =
            (epoch(EpochState::Creating, None, 0, 0), epoch(EpochState::Shredding, Some(0), 5, 0));
        assert_eq!(
            plan(&[creating, shredding], at(10), policy()),
            vec![EpochStep::Create(creating.id), EpochStep::Shred(shredding.id, StepReason::Resume)]
        );
    }

    #[test]
    fn an_epoch_grows_on_when_the_tenant_has_all_it_may_have() {
        let mut epochs: Vec<_> = (0..31).map(|_| epoch(EpochState::Closed, None, 300, 300)).collect();
        epochs.push(epoch(EpochState::Open, None, 100_000, 100_000));
        assert_eq!(plan(&epochs, at(0), policy()), vec![]);
    }

    proptest! {
        #[test]
        fn nothing_live_is_ever_planned_to_be_shredded(live in 0u64..5, erased in proptest::option::of(0u64..300), now in 0u64..400) {
            for state in [EpochState::Creating, EpochState::Open, EpochState::Closed] {
                let facts = epoch(state, erased, 5, live);
                let shreds = plan(&[facts], at(now), policy()).iter().any(|s| matches!(s, EpochStep::Shred(..)));
                prop_assert_eq!(shreds, state == EpochState::Closed && live == 0);
            }
        }
    }
}
