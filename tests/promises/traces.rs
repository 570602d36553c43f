//! Goal: a claim can be followed through the broker in the operator's tracing, and a collector that is away harms nothing.
//! Method: a collector of OTLP in this process, with the types that the OpenTelemetry project generates from its protos.

use crate::support::mano::By;
use crate::support::site::{Options, Site};
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::nfv::RequestId;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// What a collector got.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Received {
    /// A collector on `address` (port 0: any), and where it is.
    fn collect(&self, address: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
        let incoming = TcpIncoming::bind(address).unwrap();
        let address = incoming.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone());
        let serving = async move {
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap()
        };
        (address, tokio::spawn(serving))
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let scopes = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Attributes of the process.
    fn resource(&self, name: &str) -> Option<String> {
        let requests = self.0.lock().unwrap();
        let attributes = &requests.first()?.resource_spans.first()?.resource.as_ref()?.attributes;
        attributes.iter().find(|attribute| attribute.key == name).and_then(|attribute| text(&attribute.value))
    }
}

fn text(value: &Option<opentelemetry_proto::tonic::common::v1::AnyValue>) -> Option<String> {
    match value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    span.attributes.iter().find(|attribute| attribute.key == name).and_then(|found| text(&found.value))
}

/// The one span of this name below `parent`.
fn child<'a>(spans: &'a [Span], parent: &Span, name: &str) -> &'a Span {
    let of_parent = || spans.iter().filter(|span| span.parent_span_id == parent.span_id);
    let names: Vec<_> = of_parent().map(|span| &span.name).collect();
    of_parent().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name:?} in {names:?}"))
}

fn options(collector: SocketAddr) -> Options {
    Options {
        more_toml: format!(
            "[telemetry]\notlp_endpoint = \"http://{collector}\"\nservice_name = \"broker-1\"\n"
        ),
        ..Options::default()
    }
}

fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_one_trace_from_the_callers_span_to_the_hsm_and_the_store() {
    let received = Received::default();
    let (collector, _serving) = received.collect("127.0.0.1:0".parse().unwrap());
    let mut site = Site::start_with(options(collector)).await;
    site.full_pool(POOL, 4).await;
    let vnfci = site.register_one("amf-secret-name", &SLOTS, By::Token).await;
    let connection = vnfci.connect(&site).await.unwrap();
    let mut request = Request::new(vnfci.claim_request(&connection, RequestId::generate()));
    let metadata = request.metadata_mut();
    metadata
        .insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap());
    metadata.insert("tracestate", "vendor=of-the-caller".parse().unwrap());
    CredentialServiceClient::new(connection.channel).claim(request).await.unwrap();
    // An orderly end sends what waits.
    site.stop().await;

    assert_eq!(received.resource("service.name").as_deref(), Some("broker-1"));
    let spans = received.spans();
    let claim = spans.iter().find(|span| span.name == "keybroker.v1.CredentialService/Claim").unwrap();
    assert_eq!(hex::encode(&claim.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(hex::encode(&claim.parent_span_id), "00f067aa0ba902b7");
    for (name, value) in [
        ("rpc.system", "grpc"),
        ("rpc.service", "keybroker.v1.CredentialService"),
        ("rpc.method", "Claim"),
        ("rpc.grpc.status_code", "0"),
        ("tenant", "default"),
        ("listener", "bootstrap"),
    ] {
        assert_eq!(attribute(claim, name).as_deref(), Some(value), "{name}");
    }
    let verify = child(&spans, claim, "1 verify initial credential");
    child(&spans, verify, "hsm mac");
    child(&spans, claim, "2 agree on suite");
    child(&spans, child(&spans, claim, "3 draw, bind, record"), "store commit");
    let seal = child(&spans, child(&spans, claim, "5 seal"), "hsm seal");
    assert_eq!(attribute(seal, "lane").as_deref(), Some("interactive"));
    let waited: u64 = attribute(seal, "queue_us").unwrap().parse().unwrap();
    assert!(waited < 10_000_000, "{waited}");
    assert_eq!(seal.trace_id, claim.trace_id);
    assert!(seal.start_time_unix_nano >= claim.start_time_unix_nano);
    assert!(seal.end_time_unix_nano <= claim.end_time_unix_nano);
    child(&spans, claim, "6 answer");
    // What comes from outside, and what is secret, is nowhere.
    let everything = format!("{spans:?}");
    for never in ["amf-secret-name", "of-the-caller"] {
        assert!(!everything.contains(never), "{never}");
    }
    let token = vnfci.initial.token.unwrap();
    assert!(!everything.contains(token.rsplit('.').next().unwrap()));
    // The log has its own spans only.
    let log = std::fs::read_to_string(site.log()).unwrap();
    assert!(!log.contains("verify initial credential"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_go_on_and_the_log_stays_quiet_while_the_collector_is_away() {
    let collector = nobody();
    let mut site = Site::start_with(options(collector)).await;
    site.full_pool(POOL, 8).await;
    let ids: Vec<String> = (0..8).map(|n| format!("amf-{n}")).collect();
    for vnfci in site.register(&ids, &SLOTS, By::Certificate).await {
        vnfci.boot(&site).await;
    }
    let lost = |metrics: &str| metrics.contains("keybroker_trace_spans_total{outcome=\"lost\"}");
    site.until("lost spans", async |site| {
        lost(&String::from_utf8_lossy(&site.get(true, "/metrics").await)).then_some(())
    })
    .await;
    // It comes: what is made from now on arrives.
    let received = Received::default();
    let (_, _serving) = received.collect(collector);
    site.until("spans once the collector is there", async |site| {
        site.levels(POOL).await;
        (!received.spans().is_empty()).then_some(())
    })
    .await;
    site.stop().await;
    let log = std::fs::read_to_string(site.log()).unwrap();
    assert_eq!(log.matches("the collector of traces is away").count(), 1, "{log}");
    assert_eq!(log.matches("the collector of traces is back").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_does_not_hold_up_claims_or_the_end() {
    // Connections are taken by the kernel and nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut site = Site::start_with(options(silent.local_addr().unwrap())).await;
    site.full_pool(POOL, 2).await;
    site.register_one("amf-1", &SLOTS, By::Certificate).await.boot(&site).await;
    let begun = std::time::Instant::now();
    site.stop().await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_nothing_is_sent() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    site.register_one("amf-1", &SLOTS, By::Certificate).await.boot(&site).await;
    let metrics = String::from_utf8_lossy(&site.get(true, "/metrics").await).into_owned();
    assert!(metrics.contains("keybroker_rpc_total"), "{metrics}");
    assert!(!metrics.contains("keybroker_trace_spans_total"), "{metrics}");
    site.stop().await;
}
