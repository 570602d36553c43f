//! `ocsp`: the responder beside `openssl ocsp`, which signs every response, by one load of the same kind: every request
//! over a connection of its own. `revoke_10000`: one batch, from the call until the CRL that lists it is served, held
//! against single revocations.

use super::Bench;
use super::figures::{Found, Series, median, rounded};
use super::site::Site;
use crate::audit::event::Event;
use crate::cli::failure::Failure;
use crate::cli::processes::until;
use crate::cli::software_ca::SoftwareCa;
use crate::clock::{Clock, SystemClock};
use der::Decode;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;

/// Their names.
pub(super) const OCSP: &str = "ocsp";
pub(super) const REVOKE: &str = "revoke_10000";
const GOAL_OCSP: f64 = 2.0;
/// A batch withdraws this many times as many per second as one by one.
const GOAL_REVOKE: f64 = 100.0;
/// Clients at the same time.
const PARALLEL: usize = 8;
/// Certificates that are asked for in turn.
const CERTIFICATES: usize = 50;
const VALIDITY: Duration = Duration::from_secs(24 * 3_600);
/// From a call to the CRL, at most.
const PATIENCE: Duration = Duration::from_secs(120);
/// Single revocations of one round.
const SINGLE: usize = 5;

/// Runs `ocsp`.
///
/// 1. A broker with a small pool; requests for its certificates, and for as many of a CA of `openssl ocsp`.
/// 2. One small load on each, not counted: responses are signed before they are asked for, as they are in use.
/// 3. Rounds: `openssl ocsp`, broker, with an idle machine before each.
pub(super) async fn ocsp(bench: &Bench) -> Result<Value, Failure> {
    let calls = if bench.quick { 64 } else { 4_000 };
    let mut idle = bench.gate();
    // 1.
    let (mut site, made) = filled(bench, CERTIFICATES).await?;
    let issuer = issuer_of(&made)?;
    let scratch = tempdir(&site)?;
    let ca = scratch.join("sub.pem");
    let der = get(site.http(), &format!("/ca/{issuer}.cer")).await?;
    std::fs::write(&ca, crate::ca::pem("CERTIFICATE", &der)).map_err(Failure::failed)?;
    let serials: Vec<String> = made.iter().flat_map(serials).take(CERTIFICATES).collect();
    let ours_requests = requests(&scratch, &ca, &serials).await?;
    let (openssl, floor_requests) = Openssl::start(&scratch, &serials).await?;
    let url = Arc::new(site.http());
    until(PATIENCE, "the broker's first OCSP response", async || {
        let answer = post(*url, &ours_requests[0]).await?;
        // OCSPResponseStatus successful.
        Ok((answer.get(4..7) == Some(&[0x0a, 1, 0][..]) || answer.get(5..8) == Some(&[0x0a, 1, 0][..]))
            .then_some(()))
    })
    .await?;
    // 2.
    load(*url, &ours_requests, CERTIFICATES * 2).await?;
    load(openssl.address, &floor_requests, CERTIFICATES).await?;
    // 3.
    let (mut floor, mut ours) = (Series::default(), Series::default());
    for number in 1..=bench.rounds {
        idle.pass().await?;
        let (rate, latencies) = load(openssl.address, &floor_requests, calls).await?;
        floor.add(rate, latencies);
        idle.pass().await?;
        let (rate, latencies) = load(*url, &ours_requests, calls).await?;
        ours.add(rate, latencies);
        bench.round(OCSP, number, &floor, &ours);
    }
    site.check()?;
    site.end().await?;
    let more = json!({
        "clients": PARALLEL,
        "calls_per_round": calls,
        "limited_by": "connections: each request has one of its own, since openssl ocsp closes it; the clients share the \
                       processors with the responders",
    });
    let (ours, floor) = (&ours, &floor);
    Ok(Found { scenario: OCSP, goal: GOAL_OCSP, unit: "responses/s", ours, floor, idle: &idle, more }.line())
}

/// Runs `revoke_10000`: each round on a broker of its own, with a pool of which a few are withdrawn one by one and the rest
/// at once.
pub(super) async fn revoke(bench: &Bench) -> Result<Value, Failure> {
    let batch = if bench.quick { 200 } else { 10_000 };
    let rounds = bench.rounds.min(3);
    let mut idle = bench.gate();
    let (mut floor, mut ours) = (Series::default(), Series::default());
    let (mut listed, mut bytes) = (0, 0);
    let mut answers = Vec::new();
    for number in 1..=rounds {
        let (site, made) = filled(bench, batch + SINGLE).await?;
        let issuer = issuer_of(&made)?;
        let credentials = made.iter().flat_map(|event| event.credentials.iter());
        let all: Vec<String> = credentials.map(|credential| credential.id.to_string()).collect();
        let (single, many) = all.split_at(SINGLE);
        idle.pass().await?;
        let mut times = Vec::new();
        for (before, one) in single.iter().enumerate() {
            let begun = Instant::now();
            site.revoke(std::slice::from_ref(one)).await?;
            published(&site, &issuer, before + 1).await?;
            times.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        floor.add(1_000.0 / median(&times).max(f64::MIN_POSITIVE), times);
        idle.pass().await?;
        let begun = Instant::now();
        let revoked = site.revoke(many).await?;
        answers.push(begun.elapsed().as_secs_f64() * 1_000.0);
        listed = all.len();
        bytes = published(&site, &issuer, listed).await?;
        let seconds = begun.elapsed().as_secs_f64();
        if revoked != many.len() as u64 {
            return Err(Failure::failed(format!("{revoked} of {} were withdrawn", many.len())));
        }
        ours.add(many.len() as f64 / seconds, [seconds * 1_000.0]);
        bench.round(REVOKE, number, &floor, &ours);
        site.end().await?;
    }
    let more = json!({
        "batch": batch,
        "wall_ms": rounded(median(&ours.latencies), 1),
        "answer_ms": rounded(median(&answers), 1),
        "crl_entries": listed,
        "crl_bytes": bytes,
        "limited_by": "one commit of the batch, one of the CRL: SQLite writes each certificate's row twice",
    });
    let (ours, floor) = (&ours, &floor);
    Ok(Found { scenario: REVOKE, goal: GOAL_REVOKE, unit: "certificates/s", ours, floor, idle: &idle, more }
        .line())
}

/// A broker with a full pool, and its events of production.
async fn filled(bench: &Bench, credentials: usize) -> Result<(Site, Vec<Event>), Failure> {
    let mano = SoftwareCa::new("bench initial CA", VALIDITY, SystemClock.now())?;
    let mut site = Site::start(&bench.program, 1, &mano).await?;
    let wanted = u32::try_from(credentials).map_err(Failure::usage)?;
    site.order("first", wanted).await?;
    site.filled("first", wanted, Duration::from_millis(100)).await?;
    let made = until(PATIENCE, "chaining of the events of production", async || {
        let events = site.production().await?;
        let made: usize = events.iter().map(|event| event.credentials.len()).sum();
        Ok((made >= credentials).then_some(events))
    })
    .await?;
    Ok((site, made))
}

fn issuer_of(events: &[Event]) -> Result<String, Failure> {
    let issuer = events.first().and_then(|event| event.details["issuer"].as_str());
    issuer.map(str::to_owned).ok_or_else(|| Failure::failed("nothing was certified"))
}

fn serials(event: &Event) -> Vec<String> {
    let certificates = event.details["certificates"].as_array();
    let serial = |certificate: &Value| certificate["serial"].as_str().map(str::to_owned);
    certificates.into_iter().flatten().filter_map(serial).collect()
}

/// A directory for files of the scenario; it goes with the site's.
fn tempdir(site: &Site) -> Result<std::path::PathBuf, Failure> {
    let directory = site.config().with_file_name("ocsp");
    std::fs::create_dir_all(&directory).map_err(Failure::failed)?;
    Ok(directory)
}

/// Waits until the CRL lists so many; its size.
async fn published(site: &Site, issuer: &str, entries: usize) -> Result<usize, Failure> {
    until(PATIENCE, "the CRL", async || {
        let der = get(site.http(), &format!("/crl/{issuer}.crl")).await?;
        let list = CertificateList::<Rfc5280>::from_der(&der).map_err(Failure::failed)?;
        let listed = list.tbs_cert_list.revoked_certificates.map_or(0, |listed| listed.len());
        Ok((listed >= entries).then_some(der.len()))
    })
    .await
}

/// `openssl ocsp` as a responder for serial numbers of a CA of its own.
struct Openssl {
    _process: Child,
    address: SocketAddr,
}

impl Openssl {
    /// Starts it; gives the requests for its serial numbers, too.
    async fn start(directory: &Path, serials: &[String]) -> Result<(Self, Vec<Vec<u8>>), Failure> {
        let path = |name: &str| directory.join(name).display().to_string();
        let (ca, key, index) = (path("ca.pem"), path("ca.key"), path("index.txt"));
        let made =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        openssl(&[&made[..], &["-subj", "/CN=bench", "-out", &ca, "-keyout", &key]].concat()).await?;
        // Each subject once: the index refuses another.
        let lines = serials
            .iter()
            .map(|serial| format!("V\t301231235959Z\t\t{}\tunknown\t/CN={serial}\n", serial.to_uppercase()));
        std::fs::write(&index, lines.collect::<String>()).map_err(Failure::failed)?;
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(Failure::failed)?;
        let process = Command::new("openssl")
            .args([
                "ocsp",
                "-port",
                &address.port().to_string(),
                "-index",
                &index,
                "-CA",
                &ca,
                "-rsigner",
                &ca,
            ])
            .args(["-rkey", &key, "-nmin", "60"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::failed(format!("openssl: {error}")))?;
        // Asked in earnest: a connection that only looks whether it is there stops it for good.
        let requests = requests(directory, &directory.join("ca.pem"), serials).await?;
        until(Duration::from_secs(30), "openssl ocsp", async || Ok(post(address, &requests[0]).await.ok()))
            .await?;
        Ok((Self { _process: process, address }, requests))
    }
}

async fn openssl(arguments: &[&str]) -> Result<(), Failure> {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| Failure::failed(format!("openssl: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::failed(format!("openssl {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr))))
}

/// A request for each serial number, without a nonce.
async fn requests(directory: &Path, ca: &Path, serials: &[String]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut requests = Vec::with_capacity(serials.len());
    let file = directory.join("request.der").display().to_string();
    let ca = ca.display().to_string();
    for serial in serials {
        let serial = format!("0x{serial}");
        openssl(&["ocsp", "-no_nonce", "-issuer", &ca, "-serial", &serial, "-reqout", &file]).await?;
        requests.push(std::fs::read(&file).map_err(Failure::failed)?);
    }
    Ok(requests)
}

/// So many requests by [`PARALLEL`] clients, each over a connection of its own: per second, and milliseconds of each.
async fn load(address: SocketAddr, requests: &[Vec<u8>], calls: usize) -> Result<(f64, Vec<f64>), Failure> {
    let mut clients = JoinSet::new();
    let begun = Instant::now();
    for client in 0..PARALLEL {
        let mine: Vec<Vec<u8>> =
            (client..calls).step_by(PARALLEL).map(|call| requests[call % requests.len()].clone()).collect();
        clients.spawn(async move {
            let mut latencies = Vec::with_capacity(mine.len());
            for request in mine {
                let begun = Instant::now();
                post(address, &request).await?;
                latencies.push(begun.elapsed().as_secs_f64() * 1_000.0);
            }
            Ok::<_, Failure>(latencies)
        });
    }
    let mut latencies = Vec::with_capacity(calls);
    while let Some(client) = clients.join_next().await {
        latencies.extend(client.map_err(Failure::failed)??);
    }
    Ok((calls as f64 / begun.elapsed().as_secs_f64(), latencies))
}

async fn post(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>, Failure> {
    let head = format!(
        "POST /ocsp HTTP/1.0\r\nContent-Type: application/ocsp-request\r\nContent-Length: {}\r\n\r\n",
        request.len()
    );
    exchange(address, &[head.as_bytes(), request].concat()).await
}

async fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>, Failure> {
    exchange(address, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await
}

/// One HTTP/1.0 exchange; the body of an answer with 200.
async fn exchange(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>, Failure> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), exchange)
        .await
        .map_err(|_| Failure::failed(format!("{address}: no answer")))?
        .map_err(|error| Failure::failed(format!("{address}: {error}")))?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.ok_or_else(|| Failure::failed(format!("{address}: no HTTP")))?;
    let status = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1).unwrap_or_default().to_owned();
    if status != "200" {
        return Err(Failure::failed(format!("{address}: HTTP {status}")));
    }
    Ok(answer[end + 4..].to_vec())
}
