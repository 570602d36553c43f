//! `[audit]`.

use serde::Deserialize;
use std::path::PathBuf;

/// `[audit]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Directory that the log is exported to all the time, to be kept on other storage than the database: what is in it
    /// tells whether the database was rolled back. Replicas on one database share it.
    #[serde(default = "default_mirror")]
    pub mirror: PathBuf,
}

impl Default for Audit {
    fn default() -> Self {
        Self { mirror: default_mirror() }
    }
}

/// Beside the configuration: an export from the first start on, until someone gives it storage of its own.
fn default_mirror() -> PathBuf {
    "audit-mirror".into()
}
