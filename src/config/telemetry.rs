//! `[telemetry]`.

use super::{HttpUrl, Share};
use serde::Deserialize;

/// `[telemetry]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// An OpenTelemetry collector that takes OTLP over gRPC. Without it no trace is made and nothing is sent.
    #[serde(default)]
    pub otlp_endpoint: Option<HttpUrl>,
    /// `service.name` of the traces.
    #[serde(default = "default_service_name")]
    pub service_name: String,
    /// Share of the traces that begin here which are made, 0 to 1. A call with a `traceparent` follows its caller.
    #[serde(default = "default_sampling")]
    pub sampling: Share,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { otlp_endpoint: None, service_name: default_service_name(), sampling: default_sampling() }
    }
}

/// The program's name.
fn default_service_name() -> String {
    "keybroker".to_owned()
}

/// Every trace: who configures a collector for a first look sees something.
fn default_sampling() -> Share {
    Share(1.0)
}
