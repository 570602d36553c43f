//! Logs to standard error and the recorder of metrics.

use crate::config::{Log, LogFormat};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Bounds of the histograms' buckets: from a signature of the HSM (tens of microseconds) to a call's deadline.
const SECONDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Telemetry that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is no filter.
    #[error(
        "[log] level {level:?} is no log filter ({problem}); write e.g. \"info\" or \"info,keybroker=debug\""
    )]
    Level {
        /// As configured.
        level: String,
        /// What the parser says.
        problem: String,
    },
    /// It was set up before in this process.
    #[error("logging or metrics were set up twice: {0}")]
    Twice(String),
}

/// Sends logs to standard error, as configured, for the life of the process.
///
/// # Errors
/// [`TelemetryError`].
pub fn init_logging(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|error| TelemetryError::Level { level: log.level.clone(), problem: error.to_string() })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match log.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| TelemetryError::Twice(error.to_string()))
}

/// Installs the recorder of metrics; the handle renders them in Prometheus' text format.
///
/// # Errors
/// [`TelemetryError::Twice`].
pub fn install_metrics() -> Result<PrometheusHandle, TelemetryError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| TelemetryError::Twice(error.to_string()))
}
