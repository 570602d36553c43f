//! `[audit]`.

use super::Count;
use crate::clock::HumaneDuration;
use serde::Deserialize;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// `[audit]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Directory that the log is exported to all the time, to be kept on other storage than the database: what is in it
    /// tells whether the database was rolled back. Replicas on one database share it.
    #[serde(default = "default_mirror")]
    pub mirror: PathBuf,
    /// Refusals of one source that are recorded one by one within a minute; further ones are summed.
    #[serde(default = "default_refusals_per_source")]
    pub refusals_per_source: Count,
    /// Refusals of all sources together that are recorded one by one within a minute, beside the first of each.
    #[serde(default = "default_refusals_together")]
    pub refusals_together: Count,
    /// Nothing is delivered while the mirror lacks what was committed longer ago: a rollback of it would not be seen.
    #[serde(default = "default_max_lag")]
    pub max_lag: HumaneDuration,
    /// Nothing is delivered while so many events are missing in the mirror.
    #[serde(default = "default_max_lag_events")]
    pub max_lag_events: NonZeroU64,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            mirror: default_mirror(),
            refusals_per_source: default_refusals_per_source(),
            refusals_together: default_refusals_together(),
            max_lag: default_max_lag(),
            max_lag_events: default_max_lag_events(),
        }
    }
}

/// Beside the configuration: an export from the first start on, until someone gives it storage of its own.
fn default_mirror() -> PathBuf {
    "audit-mirror".into()
}

/// One a second: somebody who tries by hand, or one client in a loop.
fn default_refusals_per_source() -> Count {
    Count(60)
}

/// Ten a second.
fn default_refusals_together() -> Count {
    Count(600)
}

/// A replica that was killed keeps its leases for 30 s, and the log is not chained meanwhile.
fn default_max_lag() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(60))
}

/// What thousands of claims at once come to while the log is not chained.
fn default_max_lag_events() -> NonZeroU64 {
    NonZeroU64::new(50_000).unwrap_or(NonZeroU64::MIN)
}
