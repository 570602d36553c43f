//! Pools: when to refill, and when an empty pool is worth asking again. Pure: decides, never acts.

mod flow;

pub use flow::{Flow, Rates, runs_dry_in};

use std::time::Duration;

/// How many credentials to produce for a pool now: to `target` once fewer than `refill_below` are ready, and on until
/// `target` is reached (`filling`), so that a pool is filled in batches and not one by one.
pub fn refill(target: u32, refill_below: u32, available: u64, filling: bool) -> u32 {
    let missing = u64::from(target).saturating_sub(available);
    if available < u64::from(refill_below) || filling {
        // Missing is at most `target`, a u32.
        u32::try_from(missing).unwrap_or(u32::MAX)
    } else {
        0
    }
}

/// When a claimer that found a pool empty should ask again: the time that the producer needs for what is missing, at
/// `rate` credentials per second, between 200 ms and 30 s, and up to half of it more by `jitter` (0 to 1), so that a
/// herd does not return at once.
pub fn retry_after(missing: u64, rate: f64, jitter: f64) -> Duration {
    let seconds = if rate > 0.0 { missing as f64 / rate } else { 1.0 };
    let base = seconds.clamp(0.2, 30.0);
    Duration::from_secs_f64(base * (1.0 + jitter.clamp(0.0, 1.0) / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pool_is_refilled_to_its_target_once_it_falls_below_its_watermark() {
        assert_eq!(refill(200, 50, 50, false), 0);
        assert_eq!(refill(200, 50, 49, false), 151);
        assert_eq!(refill(200, 50, 120, true), 80);
        assert_eq!(refill(200, 50, 200, true), 0);
        assert_eq!(refill(200, 50, 300, true), 0);
    }

    proptest! {
        #[test]
        fn a_retry_is_never_sooner_than_200_ms_nor_later_than_45_s(
            missing in 0u64..10_000_000, rate in 0.0f64..1e6, jitter in 0.0f64..1.0,
        ) {
            let after = retry_after(missing, rate, jitter);
            prop_assert!(after >= Duration::from_millis(200) && after <= Duration::from_secs(45));
        }
    }
}
