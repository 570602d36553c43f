//! An enrolment server that is not ours: HTTP and TLS here, everything about certificates by the openssl command.

use super::process::{openssl, run};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keybroker::nfv::Sha256Hash;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// How the server behaves; may be changed while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// CA certificates of somebody else.
    pub foreign_cas: bool,
    /// 202 for everything, to be asked again in an hour.
    pub never_ready: bool,
    /// 202 once for each request, to be asked again in a second.
    pub pending_once: bool,
    /// 503 for so many enrolments.
    pub failures: u32,
    /// The certificate of another request.
    pub wrong_key: bool,
    /// csrattrs that name EC keys on P-256.
    pub attributes: bool,
}

/// Runs until it is dropped.
pub struct EstServer {
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    directory: TempDir,
    address: SocketAddr,
    behaviour: Mutex<Behaviour>,
    seen: Mutex<HashSet<Vec<u8>>>,
    issued: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    number: AtomicU32,
    /// A link's delay.
    delay: Duration,
    under_way: AtomicU32,
    most_under_way: AtomicU32,
    /// Client certificates (DER) by which `simplereenroll` was asked for.
    followed: Mutex<Vec<Vec<u8>>>,
    /// SHA-256 of every client certificate that was shown.
    shown: Mutex<HashSet<String>>,
}

const CA_EXTENSIONS: &str =
    "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign";

impl EstServer {
    /// Makes a root, a sub-CA that issues, and a TLS certificate; answers after `delay`.
    pub async fn start(delay: Duration) -> Self {
        let directory = tempfile::Builder::new().prefix("keybroker-est-").tempdir().unwrap();
        let path = directory.path();
        let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for (name, subject) in [("root", "Operator root"), ("foreign", "Stranger root")] {
            openssl(
                path,
                &format!(
                    "req -x509 {new_key} -keyout {name}.key -out {name}.pem -days 30 -subj '/CN={subject}' {CA_EXTENSIONS}"
                ),
            )
            .await;
        }
        openssl(
            path,
            &format!(
                "req {new_key} -keyout sub.key -out sub.csr -subj '/CN=Operator sub-CA' {CA_EXTENSIONS}"
            ),
        )
        .await;
        let by_root = "-CA root.pem -CAkey root.key -copy_extensions copyall -days 20";
        openssl(path, &format!("x509 -req -in sub.csr {by_root} -set_serial 2 -out sub.pem")).await;
        openssl(
            path,
            &format!(
                "req {new_key} -keyout tls.key -out tls.csr -subj '/CN=est' -addext subjectAltName=IP:127.0.0.1 \
                 -addext extendedKeyUsage=serverAuth"
            ),
        )
        .await;
        openssl(path, &format!("x509 -req -in tls.csr {by_root} -set_serial 3 -out tls.pem")).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = Arc::new(State {
            address: listener.local_addr().unwrap(),
            behaviour: Mutex::default(),
            seen: Mutex::default(),
            issued: Mutex::default(),
            number: AtomicU32::new(100),
            delay,
            under_way: AtomicU32::new(0),
            most_under_way: AtomicU32::new(0),
            followed: Mutex::default(),
            shown: Mutex::default(),
            directory,
        });
        let tls = TlsAcceptor::from(tls(state.directory.path()));
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, state) = (tls.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        state.serve(stream).await;
                    }
                });
            }
        });
        Self { state, task }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.state.address)
    }

    /// The root, PEM.
    pub fn root_pem(&self) -> PathBuf {
        self.path().join("root.pem")
    }

    /// Where its files are.
    pub fn path(&self) -> &Path {
        self.state.directory.path()
    }

    /// Changes what it does.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// Most requests that were under way at the same time.
    pub fn most_under_way(&self) -> u32 {
        self.state.most_under_way.load(Ordering::Relaxed)
    }

    /// Client certificates (DER) that were followed by another one.
    pub fn followed(&self) -> Vec<Vec<u8>> {
        self.state.followed.lock().unwrap().clone()
    }

    /// SHA-256 of every client certificate that was shown.
    pub fn shown(&self) -> HashSet<String> {
        self.state.shown.lock().unwrap().clone()
    }

    /// A certificate as [`EstServer::client_certificate`] gives it, most of whose validity has passed.
    pub async fn aged_client_certificate(&self, request_pem: &str) -> String {
        self.client_certificate(request_pem).await;
        let configuration = "[ca]\ndefault_ca = d\n[d]\nnew_certs_dir = .\ndatabase = index.txt\nserial = serial\n\
            default_md = sha256\npolicy = p\ncopy_extensions = copyall\npreserve = yes\n[p]\ncommonName = supplied\n\
            organizationName = optional\n";
        for (name, content) in [("ca.cnf", configuration), ("index.txt", ""), ("serial", "06\n")] {
            std::fs::write(self.path().join(name), content).unwrap();
        }
        let end = run("date", ["-u", "-d", "+1 hour", "+%Y%m%d%H%M%SZ"]).await.ok().out.trim().to_owned();
        let sign = format!(
            "ca -batch -notext -config ca.cnf -cert sub.pem -keyfile sub.key -in client.csr -out client.pem \
             -startdate 20200101000000Z -enddate {end}"
        );
        openssl(self.path(), &sign).await;
        let read = |name: &str| std::fs::read_to_string(self.path().join(name)).unwrap();
        read("client.pem") + &read("sub.pem")
    }

    /// A certificate for a request (PEM) of a TLS client, PEM with the sub-CA's.
    pub async fn client_certificate(&self, request_pem: &str) -> String {
        std::fs::write(self.path().join("client.csr"), request_pem).unwrap();
        openssl(self.path(), "req -in client.csr -verify -noout").await;
        openssl(
            self.path(),
            "x509 -req -in client.csr -CA sub.pem -CAkey sub.key -copy_extensions copyall -days 5 -set_serial 5 -out client.pem",
        )
        .await;
        let read = |name: &str| std::fs::read_to_string(self.path().join(name)).unwrap();
        read("client.pem") + &read("sub.pem")
    }
}

impl Drop for EstServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tls(path: &Path) -> Arc<ServerConfig> {
    let certificate = |name: &str| CertificateDer::from_pem_file(path.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate("root.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate("tls.pem")],
            PrivateKeyDer::from_pem_file(path.join("tls.key")).unwrap(),
        );
    Arc::new(config.unwrap())
}

impl State {
    async fn serve(&self, mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) {
        let mut buffer = Vec::new();
        let peer = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec()).unwrap_or_default();
        self.shown.lock().unwrap().insert(Sha256Hash::of(&peer).to_string());
        loop {
            let Some((head, body)) = request(&mut stream, &mut buffer).await else { return };
            if head.lines().next().is_some_and(|line| line.contains("/simplereenroll ")) {
                self.followed.lock().unwrap().push(peer.clone());
            }
            let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_under_way.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(self.delay).await;
            let answer = self.answer(&head, &body).await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, head: &str, body: &[u8]) -> Vec<u8> {
        let behaviour = *self.behaviour.lock().unwrap();
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path.rsplit('/').next().unwrap_or_default() {
            "cacerts" if behaviour.foreign_cas => self.certs_only("foreign.pem").await,
            "cacerts" => self.certs_only("sub.pem").await,
            "csrattrs" if behaviour.attributes => {
                // SEQUENCE { SEQUENCE { id-ecPublicKey, SET { secp256r1 } } }
                let der = hex::decode(
                    "30173015".to_owned() + "06072a8648ce3d0201" + "310a" + "06082a8648ce3d030107",
                );
                response("200 OK", "application/csrattrs", "", STANDARD.encode(der.unwrap()).as_bytes())
            }
            "csrattrs" => response("204 No Content", "", "", b""),
            "simpleenroll" | "simplereenroll" => self.enrol(behaviour, body).await,
            _ => response("404 Not Found", "text/plain", "", b"no such operation"),
        }
    }

    async fn enrol(&self, behaviour: Behaviour, body: &[u8]) -> Vec<u8> {
        if behaviour.failures > 0 {
            self.behaviour.lock().unwrap().failures -= 1;
            return response("503 Service Unavailable", "text/plain", "", b"the database is away");
        }
        if behaviour.never_ready {
            return response("202 Accepted", "text/plain", "Retry-After: 3600\r\n", b"");
        }
        let request = STANDARD.decode(body).unwrap();
        let first = self.seen.lock().unwrap().insert(request.clone());
        if behaviour.pending_once && first {
            return response("202 Accepted", "text/plain", "Retry-After: 1\r\n", b"");
        }
        if behaviour.wrong_key {
            return self.certs_only("tls.pem").await;
        }
        // The same request gets the same certificate.
        if let Some(answer) = self.issued.lock().unwrap().get(&request) {
            return answer.clone();
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        std::fs::write(self.directory.path().join(format!("{number}.csr")), &request).unwrap();
        let signed = format!(
            "cd '{}' && openssl req -inform DER -in {number}.csr -verify -noout && openssl x509 -req -inform DER -in \
             {number}.csr -CA sub.pem -CAkey sub.key -copy_extensions copyall -days 3 -set_serial {number} -out {number}.pem",
            self.directory.path().display()
        );
        run("sh", ["-c", &signed]).await.ok();
        let answer = self.certs_only(&format!("{number}.pem")).await;
        self.issued.lock().unwrap().insert(request, answer.clone());
        answer
    }

    async fn certs_only(&self, file: &str) -> Vec<u8> {
        let base64 = openssl(
            self.directory.path(),
            &format!("crl2pkcs7 -nocrl -certfile {file} -outform DER | base64"),
        )
        .await;
        let header = "Content-Transfer-Encoding: base64\r\n";
        response("200 OK", "application/pkcs7-mime; smime-type=certs-only", header, base64.as_bytes())
    }
}

/// Head and body of the next request; none at the end of the connection.
async fn request(
    stream: &mut tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    buffer: &mut Vec<u8>,
) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
            });
            let total = end + 4 + length.unwrap_or(0);
            if buffer.len() >= total {
                let body = buffer[end + 4..total].to_vec();
                buffer.drain(..total);
                return Some((head, body));
            }
        }
        let mut chunk = [0; 8_192];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}

fn response(status: &str, kind: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    let length =
        if status.starts_with("204") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let mut answer = format!("HTTP/1.1 {status}\r\n{kind}{headers}{length}\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}
