//! The span of one call, as OpenTelemetry's semantic conventions for RPC have it. Its parent is the caller's, if the
//! metadata say so (W3C Trace Context, `traceparent`). `tracestate` is left alone: its text is the caller's.

use super::gate::Face;
use super::proto;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use prost::Message;
use std::collections::HashMap;
use std::sync::LazyLock;
use tonic::Code;
use tonic::metadata::MetadataMap;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const PARENT: &str = "traceparent";

/// Full service name of each method; no two services have a method of one name.
static SERVICES: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let files = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap_or_default().file;
    let services = files.iter().flat_map(|file| file.service.iter().map(|service| (file.package(), service)));
    services
        .flat_map(|(package, service)| {
            let name = format!("{package}.{}", service.name());
            service.method.iter().map(move |method| (method.name().to_owned(), name.clone()))
        })
        .collect()
});

/// The span of a call that begins.
pub(super) fn begin(rpc: &'static str, face: Face, metadata: &MetadataMap) -> Span {
    let service = || SERVICES.get(rpc).map_or("", String::as_str);
    let span = tracing::trace_span!(
        "rpc",
        otel.name = format!("{}/{rpc}", service()),
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = service(),
        rpc.method = rpc,
        rpc.grpc.status_code = Empty,
        listener = face.as_str(),
        tenant = Empty,
    );
    if !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract(&Parent(metadata));
        // Refused only by a span that has begun, which this one has not.
        let _ = span.set_parent(parent);
    }
    span
}

/// Notes how the call ended.
pub(super) fn end(span: &Span, code: Code) {
    span.record("rpc.grpc.status_code", i64::from(code as i32));
    // What is no fault of the server is no error of its span.
    if matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    ) {
        span.record("otel.status_code", "ERROR");
    }
}

/// Only the one header.
struct Parent<'a>(&'a MetadataMap);

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if key == PARENT { self.0.get(PARENT)?.to_str().ok() } else { None }
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT]
    }
}
