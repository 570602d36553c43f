//! The floor of the boot storm: a bare tonic server with TLS 1.3, client certificates and its key in memory. It answers
//! every claim with the same bytes, in a process of its own.

use super::super::failure::Failure;
use super::super::processes::Program;
use super::super::software_ca::SoftwareCa;
use crate::api::proto::credential_service_server::{CredentialService, CredentialServiceServer};
use crate::api::proto::{
    ClaimRequest, ClaimResponse, ConfirmRequest, ConfirmResponse, GetTrustChainRequest,
    GetTrustChainResponse, ReleaseRequest, ReleaseResponse, RenewRequest, SealedCredential,
};
use crate::ca::pem;
use crate::clock::{Clock, SystemClock};
use crate::server::tls::provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, Command};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

/// Bytes of an answer: about those of a claim with one slot.
const ANSWER: usize = 2_048;
/// A bare server listens by then.
const START: Duration = Duration::from_secs(30);

/// What the server is started with; hexadecimal.
#[derive(Serialize, Deserialize)]
struct Material {
    certificate: String,
    key: String,
    client_ca: String,
}

/// A running bare server; ended when dropped.
pub(super) struct BareServer {
    /// `https://HOST:PORT`.
    pub(super) url: String,
    /// Its root, PEM.
    pub(super) trust_anchor_pem: String,
    child: Child,
    /// Its end ends the server.
    _input: ChildStdin,
}

impl BareServer {
    /// Starts one whose certificate and whose clients' are issued by `ca`.
    pub(super) async fn start(
        program: &Program,
        ca: &SoftwareCa,
        validity: Duration,
    ) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::failed(format!("the bare server: {error}"));
        let own = ca.server(validity, SystemClock.now())?;
        let material = Material {
            certificate: hex::encode(&own.certificate_der),
            key: hex::encode(&*own.pkcs8_der),
            client_ca: hex::encode(&ca.certificate_der),
        };
        let mut line = serde_json::to_vec(&material).map_err(Failure::failed)?;
        line.push(b'\n');
        let mut child = Command::new(&program.0)
            .args(["bench-part", "server"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::failed("the bare server has no pipes"));
        };
        input.write_all(&line).await.map_err(failed)?;
        let mut address = String::new();
        tokio::time::timeout(START, BufReader::new(output).read_line(&mut address))
            .await
            .map_err(|_| Failure::failed("the bare server did not listen in time"))?
            .map_err(failed)?;
        Ok(Self {
            url: format!("https://{}", address.trim()),
            trust_anchor_pem: pem("CERTIFICATE", &ca.certificate_der),
            child,
            _input: input,
        })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }
}

/// `bench-part server`: serves until standard input ends.
pub(super) async fn command() -> Result<(), Failure> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(Failure::failed)?;
    let material: Material = serde_json::from_str(&line).map_err(Failure::usage)?;
    let acceptor = TlsAcceptor::from(Arc::new(tls(&material)?));
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Failure::failed)?;
    super::super::output::line(&listener.local_addr().map_err(Failure::failed)?.to_string());
    let (connections, established) = tokio::sync::mpsc::channel(64);
    let accepting = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, connections) = (acceptor.clone(), connections.clone());
            tokio::spawn(async move {
                // As the broker does, so that the two differ in what they do with a call only.
                let _ = tcp.set_nodelay(true);
                if let Ok(tls) = acceptor.accept(tcp).await {
                    let _ = connections.send(Ok::<_, io::Error>(Bare(tls))).await;
                }
            });
        }
    });
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        // Ends when the bench closes the pipe, also by its own end; an error is an end, too.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(ended);
    });
    let end = async {
        let _ = end.await;
    };
    let served = tonic::transport::Server::builder()
        .add_service(CredentialServiceServer::new(SameAnswer(answer())))
        .serve_with_incoming_shutdown(ReceiverStream::new(established), end)
        .await;
    accepting.abort();
    served.map_err(Failure::failed)
}

fn tls(material: &Material) -> Result<ServerConfig, Failure> {
    let der = |text: &str| hex::decode(text).map_err(Failure::usage);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(der(&material.client_ca)?)).map_err(Failure::usage)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(Failure::failed)?;
    let chain = vec![CertificateDer::from(der(&material.certificate)?)];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der(&material.key)?));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Failure::failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(Failure::failed)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // The broker gives no tickets, either.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn answer() -> ClaimResponse {
    let credential = SealedCredential { certificate_der: vec![0x30; ANSWER], ..SealedCredential::default() };
    ClaimResponse { credentials: vec![credential], ..ClaimResponse::default() }
}

/// Gives every claim the same answer.
struct SameAnswer(ClaimResponse);

#[tonic::async_trait]
impl CredentialService for SameAnswer {
    async fn claim(&self, _: Request<ClaimRequest>) -> Result<Response<ClaimResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn confirm(&self, _: Request<ConfirmRequest>) -> Result<Response<ConfirmResponse>, Status> {
        Err(Status::unimplemented("a bare server"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<ClaimResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn release(&self, _: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        Err(Status::unimplemented("a bare server"))
    }

    async fn get_trust_chain(
        &self,
        _: Request<GetTrustChainRequest>,
    ) -> Result<Response<GetTrustChainResponse>, Status> {
        Err(Status::unimplemented("a bare server"))
    }
}

/// A connection, for tonic.
struct Bare(TlsStream<TcpStream>);

impl Connected for Bare {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Bare {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Bare {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
