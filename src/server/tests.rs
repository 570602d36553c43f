//! Goal: what the listeners promise before any use case runs. Method: real sockets on port 0, software keys made here,
//! and a service that answers with what the TLS layer says of its peer.

use super::accept::Acceptor;
use super::tls::{TlsMaterial, provider, server_config};
use super::{Limits, bind_one, serve_grpc};
use crate::api::Face;
use crate::api::client::{ClientTls, ConnectError, Connection, FailureClass, connect, describe};
use crate::api::proto::credential_service_client::CredentialServiceClient;
use crate::api::proto::credential_service_server::{CredentialService, CredentialServiceServer};
use crate::api::proto::{
    ClaimRequest, ClaimResponse, ConfirmRequest, ConfirmResponse, GetTrustChainRequest,
    GetTrustChainResponse, ReleaseRequest, ReleaseResponse, RenewRequest,
};
use crate::broker::Peer;
use arc_swap::ArcSwap;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// A certificate of a CA made for it, and its key.
struct Made {
    certificate: Vec<u8>,
    ca: Vec<u8>,
    key: Vec<u8>,
}

impl Made {
    fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let certificate = params.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).unwrap();
        Self {
            certificate: certificate.der().to_vec(),
            ca: ca_certificate.der().to_vec(),
            key: key.serialize_der(),
        }
    }

    fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    fn material(&self) -> TlsMaterial {
        TlsMaterial::from_pem(self.certificate_pem().as_bytes(), pem("PRIVATE KEY", &self.key).as_bytes())
            .unwrap()
    }

    /// As a client that trusts `server`.
    fn client(&self, server: &Made) -> ClientTls {
        ClientTls {
            trust_anchor_pem: pem("CERTIFICATE", &server.ca).into_bytes(),
            certificate_chain_der: vec![self.certificate.clone()],
            key_der: self.key.clone().into(),
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    der::pem::encode_string(label, der::pem::LineEnding::LF, der).unwrap()
}

/// Answers with the peer: its chain in `chain_der`, its exporter in `root_der`.
struct Mirror;

#[tonic::async_trait]
impl CredentialService for Mirror {
    async fn claim(&self, _: Request<ClaimRequest>) -> Result<Response<ClaimResponse>, Status> {
        std::future::pending().await
    }
    async fn confirm(&self, _: Request<ConfirmRequest>) -> Result<Response<ConfirmResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<ClaimResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn release(&self, _: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_trust_chain(
        &self,
        request: Request<GetTrustChainRequest>,
    ) -> Result<Response<GetTrustChainResponse>, Status> {
        let peer = request.extensions().get::<Arc<Peer>>().unwrap();
        Ok(Response::new(GetTrustChainResponse {
            chain_der: peer.chain_der.clone(),
            root_der: peer.exporter.to_vec(),
            crl_url: peer.address.to_string(),
            ..Default::default()
        }))
    }
}

/// A listener with [`Mirror`] behind it.
struct Listening {
    server: Made,
    address: SocketAddr,
    config: Arc<ArcSwap<ServerConfig>>,
    stopping: CancellationToken,
    closing: CancellationToken,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Listening {
    fn start(limits: Limits) -> Self {
        let server = Made::new("localhost");
        let material = server.material();
        Self::with(server, &material, limits)
    }

    fn with(server: Made, material: &TlsMaterial, limits: Limits) -> Self {
        let (listener, address) = bind_one("listen.bootstrap", "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = Arc::new(ArcSwap::new(server_config(material).unwrap()));
        let (stopping, closing) = (CancellationToken::new(), CancellationToken::new());
        let acceptor = Acceptor {
            name: "bootstrap",
            listener,
            config: Arc::clone(&config),
            limits,
            together: Arc::new(Semaphore::new(limits.connections_together)),
            stopping: stopping.clone(),
            closing: closing.clone(),
        };
        let routes = Routes::new(CredentialServiceServer::new(Mirror));
        let task = tokio::spawn(serve_grpc(acceptor, routes, stopping.clone()));
        Self { server, address, config, stopping, closing, task }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    async fn connect(&self, client: &Made) -> Result<Connection, ConnectError> {
        connect(&self.url(), &client.client(&self.server)).await
    }

    async fn answers(&self) {
        ask(&self.connect(&Made::new("someone")).await.unwrap()).await.unwrap();
    }
}

async fn ask(connection: &Connection) -> Result<GetTrustChainResponse, Status> {
    let mut client = CredentialServiceClient::new(connection.channel.clone());
    client.get_trust_chain(GetTrustChainRequest {}).await.map(Response::into_inner)
}

/// A rustls client connection over TCP, driven by hand.
async fn by_hand(
    address: SocketAddr,
    config: ClientConfig,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

fn trusting(server: &Made) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(server.ca.clone())).unwrap();
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_made_certificate_reaches_the_handler_and_both_sides_agree_on_the_exporter() {
    let listening = Listening::start(Limits::default());
    let client = Made::new("vnfci");
    let connection = listening.connect(&client).await.unwrap();
    let seen = ask(&connection).await.unwrap();
    assert_eq!(seen.chain_der, std::slice::from_ref(&client.certificate));
    assert_eq!(seen.root_der, connection.exporter);
    let again = listening.connect(&client).await.unwrap();
    assert_ne!(again.exporter, connection.exporter, "a proof could be replayed on another connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_certificate_is_refused_in_the_handshake() {
    let listening = Listening::start(Limits::default());
    let config = trusting(&listening.server).with_no_client_auth();
    let mut tls = by_hand(listening.address, config).await.unwrap();
    let failure = tls.read_u8().await.unwrap_err();
    assert!(failure.to_string().contains("CertificateRequired"), "{failure}");
    listening.answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_not_the_key_of_its_certificate_is_refused() {
    let listening = Listening::start(Limits::default());
    let (stolen, own) = (Made::new("stolen"), Made::new("own"));
    let provider = provider();
    let key =
        provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(own.key.clone()).into()).unwrap();
    let certified =
        rustls::sign::CertifiedKey::new(vec![CertificateDer::from(stolen.certificate.clone())], key);
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let config = trusting(&listening.server).with_client_cert_resolver(resolver);
    let mut tls = by_hand(listening.address, config).await.unwrap();
    let failure = tls.read_u8().await.unwrap_err();
    assert!(failure.to_string().contains("Decrypt"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_ticket_is_sent() {
    let listening = Listening::start(Limits::default());
    let client = Made::new("vnfci");
    let mut config = trusting(&listening.server)
        .with_client_auth_cert(
            vec![CertificateDer::from(client.certificate.clone())],
            PrivatePkcs8KeyDer::from(client.key.clone()).into(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut tls = by_hand(listening.address, config).await.unwrap();
    // The server's settings come after any ticket.
    tls.read_u8().await.unwrap();
    let session: &ClientConnection = tls.get_ref().1;
    assert_eq!(session.tls13_tickets_received(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_refused() {
    let listening = Listening::start(Limits::default());
    // A ClientHello of TLS 1.2 by hand: our own rustls has no TLS 1.2 to offer. One suite, P-256, no
    // supported_versions extension.
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 22]);
    hello.extend([0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3, 0, 11, 0, 2, 1, 0]);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(hello.len() + 4).unwrap().to_be_bytes());
    record.extend([1, 0]);
    record.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
    record.extend(hello);
    let mut tcp = TcpStream::connect(listening.address).await.unwrap();
    tcp.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    // A fatal alert: protocol_version.
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70]);
    listening.answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_disturbs_nobody() {
    let listening = Listening::start(Limits::default());
    let connection = listening.connect(&Made::new("vnfci")).await.unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 5000], &[22, 3, 1, 0xff, 0xff, 1], b""]
    {
        let mut tcp = TcpStream::connect(listening.address).await.unwrap();
        // The listener may hang up before it has read everything.
        let _ = tcp.write_all(garbage).await;
        let _ = tcp.shutdown().await;
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer).await;
    }
    ask(&connection).await.unwrap();
    listening.answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_handshake_is_dropped_and_holds_nobody_up() {
    let limits = Limits { handshake_timeout: Duration::from_millis(300), ..Limits::default() };
    let listening = Listening::start(limits);
    let mut stalled = TcpStream::connect(listening.address).await.unwrap();
    stalled.write_all(&[22, 3, 1]).await.unwrap();
    listening.answers().await;
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), stalled.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the stalled connection was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_with_too_many_handshakes_is_turned_away_until_they_end() {
    let limits = Limits {
        handshakes_per_source: 1,
        handshake_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let listening = Listening::start(limits);
    let mut stalled = TcpStream::connect(listening.address).await.unwrap();
    stalled.write_all(&[22]).await.unwrap();
    let turned_away = listening.connect(&Made::new("vnfci")).await.unwrap_err();
    assert_eq!(turned_away.class(), FailureClass::Unavailable, "{turned_away}");
    let mut answer = Vec::new();
    let _ = stalled.read_to_end(&mut answer).await;
    listening.answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_connections_at_once_are_all_served() {
    let listening = Listening::start(Limits::default());
    let client = Arc::new(Made::new("vnfci").client(&listening.server));
    let url = listening.url();
    let asked = (0..200).map(|_| {
        let (client, url) = (Arc::clone(&client), url.clone());
        tokio::spawn(async move {
            let connection = connect(&url, &client).await.unwrap();
            let seen = ask(&connection).await.unwrap();
            assert_eq!(seen.root_der, connection.exporter, "connections were mixed up");
        })
    });
    for task in asked.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// A server key as the HSM would hold it: only a function that signs.
fn signing(made: &Made, calls: Arc<AtomicUsize>) -> super::SignInHsm {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &made.key).unwrap();
    Arc::new(move |message: &[u8]| {
        calls.fetch_add(1, Ordering::SeqCst);
        let signature = key.sign(&SystemRandom::new(), message).map_err(|e| e.to_string())?;
        Ok(signature.as_ref().to_vec())
    })
}

async fn a_key_in_the_hsm_signs_every_handshake() {
    let server = Made::new("localhost");
    let calls = Arc::new(AtomicUsize::new(0));
    let chain = vec![server.certificate.clone()];
    let material = TlsMaterial::from_hsm(chain, signing(&server, Arc::clone(&calls))).unwrap();
    let listening = Listening::with(server, &material, Limits::default());
    listening.answers().await;
    listening.answers().await;
    assert_eq!(calls.load(Ordering::SeqCst), 3, "one probe and two handshakes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_hsm_serves_on_a_runtime_with_threads() {
    a_key_in_the_hsm_signs_every_handshake().await;
}

#[tokio::test]
async fn a_key_in_the_hsm_serves_on_a_runtime_with_one_thread() {
    a_key_in_the_hsm_signs_every_handshake().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hsm_that_is_away_is_told_from_a_refusal() {
    let server = Made::new("localhost");
    let calls = Arc::new(AtomicUsize::new(0));
    let sign = signing(&server, Arc::clone(&calls));
    // The probe is signed, the handshake not.
    let failing: super::SignInHsm =
        Arc::new(
            move |message: &[u8]| {
                if calls.load(Ordering::SeqCst) > 0 { Err("away".to_owned()) } else { sign(message) }
            },
        );
    let material = TlsMaterial::from_hsm(vec![server.certificate.clone()], failing).unwrap();
    let listening = Listening::with(server, &material, Limits::default());
    let failure = listening.connect(&Made::new("vnfci")).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Unavailable, "{failure}");
}

#[test]
fn a_certificate_that_is_not_for_the_key_in_the_hsm_is_found_at_start() {
    let (server, other) = (Made::new("localhost"), Made::new("localhost"));
    let sign = signing(&other, Arc::new(AtomicUsize::new(0)));
    let problem = TlsMaterial::from_hsm(vec![server.certificate], sign).unwrap_err().to_string();
    assert!(problem.contains("not for the TLS key"), "{problem}");
    let sign = signing(&other, Arc::new(AtomicUsize::new(0)));
    assert!(TlsMaterial::from_hsm(vec![], sign).is_err());
}

#[test]
fn a_software_key_that_is_not_for_its_certificate_is_found_at_start() {
    let (server, other) = (Made::new("localhost"), Made::new("localhost"));
    let wrong =
        TlsMaterial::from_pem(server.certificate_pem().as_bytes(), pem("PRIVATE KEY", &other.key).as_bytes());
    assert!(wrong.unwrap_err().to_string().contains("do not belong together"));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_for_new_connections_while_open_ones_live_on() {
    let mut listening = Listening::start(Limits::default());
    let open = listening.connect(&Made::new("vnfci")).await.unwrap();
    let next = Made::new("localhost");
    listening.config.store(server_config(&next.material()).unwrap());
    let old_trust = listening.connect(&Made::new("vnfci")).await.unwrap_err();
    assert!(matches!(old_trust, ConnectError::Untrusted { .. }), "{old_trust}");
    assert_eq!(old_trust.class(), FailureClass::Refused);
    listening.server = next;
    listening.answers().await;
    ask(&open).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_under_another_name_is_not_trusted() {
    let listening = Listening::start(Limits::default());
    let client = Made::new("vnfci").client(&listening.server);
    let failure = connect(&listening.address.to_string(), &client).await.unwrap_err();
    assert!(matches!(failure, ConnectError::Untrusted { .. }), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_frees_the_port_and_cuts_what_does_not_end() {
    let listening = Listening::start(Limits::default());
    let connection = listening.connect(&Made::new("vnfci")).await.unwrap();
    ask(&connection).await.unwrap();
    let url = listening.url();
    let channel = connection.channel.clone();
    let endless = tokio::spawn(async move {
        let mut client = CredentialServiceClient::new(channel);
        client.claim(ClaimRequest::default()).await
    });
    let client = Made::new("vnfci").client(&listening.server);
    listening.stopping.cancel();
    // The call is still open, so the server waits for it; the port is free soon.
    loop {
        match connect(&url, &client).await {
            Err(ConnectError::Unreachable { reason, .. }) if reason.contains("refused") => break,
            _ => tokio::task::yield_now().await,
        }
    }
    assert!(!listening.task.is_finished() || endless.is_finished());
    listening.closing.cancel();
    listening.task.await.unwrap().unwrap();
    let cut = describe(&endless.await.unwrap().unwrap_err());
    assert_ne!(cut.class, FailureClass::Refused, "{cut:?}");
}

fn supervised(
    shutdown: &CancellationToken,
    listener: impl Future<Output = ()> + Send + 'static,
) -> super::Supervisor {
    let closing = CancellationToken::new();
    let mut draining = tokio::task::JoinSet::new();
    draining.spawn(async {
        listener.await;
        Ok(())
    });
    super::Supervisor {
        draining,
        running: tokio_util::task::TaskTracker::new(),
        admin: tokio::spawn(closing.clone().cancelled_owned()),
        closing,
        drain: Duration::from_millis(200),
        shutdown: shutdown.clone(),
        _apart: super::Apart::start().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_shutdown_is_never_reported_as_a_failure() {
    for _ in 0..100 {
        let shutdown = CancellationToken::new();
        let supervisor = supervised(&shutdown, shutdown.clone().cancelled_owned());
        shutdown.cancel();
        tokio::task::yield_now().await;
        supervisor.run().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_ends_by_itself_stops_the_others_and_is_reported() {
    let shutdown = CancellationToken::new();
    let failure = supervised(&shutdown, std::future::ready(())).run().await.unwrap_err();
    assert!(failure.to_string().contains("ended by itself"), "{failure}");
    assert!(shutdown.is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_case_that_was_begun_is_waited_for_but_not_for_ever() {
    let shutdown = CancellationToken::new();
    let supervisor = supervised(&shutdown, shutdown.clone().cancelled_owned());
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    supervisor.running.spawn(finished);
    shutdown.cancel();
    let run = tokio::spawn(supervisor.run());
    finish.send(()).unwrap();
    run.await.unwrap().unwrap();

    let supervisor = supervised(&shutdown, std::future::ready(()));
    supervisor.running.spawn(std::future::pending::<()>());
    supervisor.run().await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_named_with_its_configuration_key() {
    let (_listener, address) = bind_one("listen.vnfci", "127.0.0.1:0".parse().unwrap()).unwrap();
    let failure = bind_one("listen.vnfci", address).unwrap_err().to_string();
    assert!(failure.contains("listen.vnfci") && failure.contains("another process"), "{failure}");
}

#[test]
fn the_exporter_label_is_the_contracts() {
    assert_eq!(crate::identity::token::EXPORTER_LABEL, "EXPORTER-keybroker-v1");
}

fn switch() -> (super::Ready, Arc<std::sync::atomic::AtomicBool>) {
    let on = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let read = Arc::clone(&on);
    let ready: super::Ready = Arc::new(move || {
        if read.load(Ordering::SeqCst) { Ok(Vec::new()) } else { Err("the HSM is away".to_owned()) }
    });
    (ready, on)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_readiness_and_management_reflects_its_services() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};

    let mut listening = Listening::start(Limits::default());
    let (ready, on) = switch();
    let (listener, address) = bind_one("listen.management", "127.0.0.1:0".parse().unwrap()).unwrap();
    let acceptor = Acceptor {
        name: "management",
        listener,
        config: Arc::clone(&listening.config),
        limits: Limits::default(),
        together: Arc::new(Semaphore::new(1)),
        stopping: listening.stopping.clone(),
        closing: listening.closing.clone(),
    };
    let routes = Routes::new(CredentialServiceServer::new(Mirror));
    let routes = super::with_health(Face::Management, routes, &ready, &listening.stopping);
    tokio::spawn(serve_grpc(acceptor, routes, listening.stopping.clone()));
    listening.address = address;

    let channel = listening.connect(&Made::new("anyone")).await.unwrap().channel;
    let mut health = HealthClient::new(channel.clone());
    let mut seen = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    // The first answer may come before the first look at readiness.
    while seen.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    on.store(false, Ordering::SeqCst);
    while seen.message().await.unwrap().unwrap().status() != ServingStatus::NotServing {}

    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("keybroker.v1.PoolService".into())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers =
        reflection.server_reflection_info(tokio_stream::once(asked)).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap().unwrap());
    assert!(answer.contains("FileDescriptorResponse"), "{answer}");
}

/// One request over plain TCP, to the end of the connection.
async fn over_tcp(address: SocketAddr, request: &[u8]) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let _ = tcp.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_face_tells_life_from_readiness_and_survives_garbage() {
    let (ready, on) = switch();
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle();
    let stopping = CancellationToken::new();
    let (listener, address) = bind_one("listen.admin", "127.0.0.1:0".parse().unwrap()).unwrap();
    let router = super::http::admin(metrics, ready, stopping.clone());
    let closing = CancellationToken::new();
    let task = tokio::spawn(super::http::serve(listener, router, closing.clone()));
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        async move { over_tcp(address, request.as_bytes()).await }
    };
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/metrics").await.contains("text/plain; version=0.0.4"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    on.store(false, Ordering::SeqCst);
    let away = get("/readyz").await;
    assert!(away.starts_with("HTTP/1.1 503") && away.contains("the HSM is away"), "{away}");
    on.store(true, Ordering::SeqCst);
    assert!(over_tcp(address, &[0xff; 100]).await.starts_with("HTTP/1.1 400"));
    let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(100_000));
    let refused = over_tcp(address, long.as_bytes()).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
    assert!(get("/nothing").await.starts_with("HTTP/1.1 404"));
    stopping.cancel();
    assert!(get("/readyz").await.contains("stopping"));
    closing.cancel();
    task.await.unwrap();
}
