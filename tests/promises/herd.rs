//! Goal: when a whole site boots at once on a small pool, every VNFCI is served or told when to come back, MANO is answered
//! meanwhile, and memory stays within bounds.
//! Method: a process of its own is the herd: each VNFCI has its own source address and its own connection, which it keeps
//! until it is served; it waits as it was told and asks again. This process plays MANO and looks at the broker from outside.
//!
//! The usual run is a tenth of a large site; `make scale` runs 10,000 VNFCIs on a pool of 200 (KEYBROKER_SCALE=10).

use crate::support::mano::{By, request_id};
use crate::support::process::{Broker, run};
use crate::support::settlement::count;
use crate::support::site::Site;
use crate::support::vnfci::{Initial, Vnfci};
use keybroker::api::client::{ClientTls, Connection, claim_request, connect_over, describe};
use keybroker::api::proto;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::hardening::raise_descriptors;
use keybroker::nfv::RequestId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
/// The whole herd is served by then, on a busy machine too.
const LONGEST: Duration = Duration::from_secs(600);

fn factor() -> usize {
    std::env::var("KEYBROKER_SCALE").map_or(1, |text| text.parse().expect("KEYBROKER_SCALE is a number"))
}

/// What the herd's process is told.
#[derive(Serialize, Deserialize)]
struct Plan {
    server: SocketAddr,
    root_pem: String,
    vnfcis: Vec<Member>,
}

#[derive(Serialize, Deserialize)]
struct Member {
    id: String,
    chain: Vec<String>,
    key: String,
}

/// What became of it.
#[derive(Default, Serialize, Deserialize)]
struct Report {
    seconds: f64,
    /// Credentials by who holds them.
    served: BTreeMap<String, String>,
    /// Seconds until each was served.
    waits: Vec<f64>,
    /// Answers that told when to come back, by their reason.
    told: BTreeMap<String, u64>,
    /// The times that were told, in milliseconds.
    times: HashSet<u64>,
    /// Connections that were not accepted or broke.
    broken: u64,
    /// What should not have been answered.
    failures: Vec<String>,
}

/// The herd itself: `the_herd_is_served_…` starts it with a plan on standard input. Without one there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other half of a test, which starts it in a process of its own"]
async fn the_herd() {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().lock().read_to_string(&mut text).unwrap();
    let Ok(plan) = serde_json::from_str::<Plan>(&text) else { return };
    assert!(raise_descriptors() > plan.vnfcis.len() + 100, "too few descriptors for the herd");
    let plan = Arc::new(plan);
    let mut members = JoinSet::new();
    let begun = Instant::now();
    for place in 0..plan.vnfcis.len() {
        let plan = Arc::clone(&plan);
        members.spawn(async move { boot(&plan, place).await });
    }
    let mut whole = Report::default();
    while let Some(part) = members.join_next().await {
        let part = part.unwrap();
        whole.served.extend(part.served);
        whole.waits.extend(part.waits);
        part.told.into_iter().for_each(|(reason, times)| *whole.told.entry(reason).or_default() += times);
        whole.times.extend(part.times);
        whole.broken += part.broken;
        whole.failures.extend(part.failures);
    }
    whole.seconds = begun.elapsed().as_secs_f64();
    println!("\nHERD {}", serde_json::to_string(&whole).unwrap());
}

/// One VNFCI from its boot until it is served.
async fn boot(plan: &Plan, place: usize) -> Report {
    let member = &plan.vnfcis[place];
    let tls = ClientTls {
        trust_anchor_pem: plan.root_pem.clone().into_bytes(),
        certificate_chain_der: member.chain.iter().map(|der| hex::decode(der).unwrap()).collect(),
        key_der: Zeroizing::new(hex::decode(&member.key).unwrap()),
    };
    let credential = crate::support::ca::Credential {
        chain_der: tls.certificate_chain_der.clone(),
        key_der: tls.key_der.clone(),
    };
    let vnfci = Vnfci::new(&member.id, Initial { credential, token: None });
    let request = claim_request(RequestId::generate(), vnfci.recipient.public_key(), None);
    let mut report = Report::default();
    let mut kept: Option<Connection> = None;
    let begun = Instant::now();
    while begun.elapsed() < LONGEST {
        let connection = match kept.take() {
            Some(connection) => connection,
            None => match connect(plan, place, &tls).await {
                Ok(connection) => connection,
                Err(_) => {
                    report.broken += 1;
                    tokio::time::sleep(Duration::from_millis(500).mul_f64(1.0 + rand::random::<f64>())).await;
                    continue;
                }
            },
        };
        match CredentialServiceClient::new(connection.channel.clone()).claim(request.clone()).await {
            Ok(answer) => {
                let claimed = vnfci.open(answer.into_inner());
                report.served.insert(claimed.keys[0].credential_id.clone(), member.id.clone());
                report.waits.push(begun.elapsed().as_secs_f64());
                return report;
            }
            Err(status) => {
                let told = describe(&status);
                let (reason, wait) = match (told.reason, told.retry_after) {
                    (Some(reason), Some(wait)) => (reason, wait),
                    // The connection's status, not the broker's.
                    (None, _) => {
                        report.broken += 1;
                        continue;
                    }
                    (Some(_), None) => {
                        report.failures.push(format!("{}: {status:?}", member.id));
                        return report;
                    }
                };
                *report.told.entry(reason).or_default() += 1;
                report.times.insert(u64::try_from(wait.as_millis()).unwrap());
                tokio::time::sleep(wait).await;
                kept = Some(connection);
            }
        }
    }
    report.failures.push(format!("{}: not served within {LONGEST:?}", member.id));
    report
}

/// A connection from an address of its own, as VNFCIs have them.
async fn connect(plan: &Plan, place: usize, tls: &ClientTls) -> Result<Connection, String> {
    let [.., high, low] = u32::try_from(place + 256).unwrap().to_be_bytes();
    let socket = TcpSocket::new_v4().map_err(|error| error.to_string())?;
    socket.bind((Ipv4Addr::new(127, 1, high, low), 0).into()).map_err(|error| error.to_string())?;
    let tcp = tokio::time::timeout(Duration::from_secs(30), socket.connect(plan.server))
        .await
        .map_err(|_| "late".to_owned())?
        .map_err(|error| error.to_string())?;
    connect_over(tcp, &format!("https://{}", plan.server), tls).await.map_err(|error| error.to_string())
}

/// Kilobytes of a field of `/proc/PID/status`.
fn status_kib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn open_files(broker: &Broker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).map_or(0, Iterator::count)
}

/// Starts the herd; what comes back is its report, when it is done.
fn let_loose(plan: &Plan) -> tokio::task::JoinHandle<Report> {
    let text = Zeroizing::new(serde_json::to_vec(plan).unwrap());
    let mut herd = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "herd::the_herd", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    tokio::spawn(async move {
        herd.stdin.take().unwrap().write_all(&text).await.unwrap();
        let output = tokio::time::timeout(LONGEST, herd.wait_with_output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("HERD "));
        serde_json::from_str(line.unwrap_or_else(|| panic!("no report: {text}"))).unwrap()
    })
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_on_a_small_pool_is_served_or_told_when_to_come_back_and_mano_is_answered_meanwhile() {
    let (total, pool) = (1_000 * factor(), 20 * factor());
    let mut site = Site::start().await;
    // What the pool lacks comes from its refilling alone, so that most are told to come back, some several times.
    site.add_profile("patient", "on_empty = \"RETRY\"").await;
    site.full_pool_of("patient", POOL, u32::try_from(pool).unwrap()).await;
    let ids: Vec<String> = (0..total).map(|n| format!("amf-{n:05}")).collect();
    let mut plan = Plan {
        server: site.addresses.bootstrap,
        root_pem: std::fs::read_to_string(site.root_pem()).unwrap(),
        vnfcis: Vec::new(),
    };
    for batch in ids.chunks(1_000) {
        let registered = site.register(batch, &SLOTS, By::Certificate).await;
        plan.vnfcis.extend(registered.into_iter().map(|vnfci| Member {
            id: vnfci.id,
            chain: vnfci.initial.credential.chain_der.iter().map(hex::encode).collect(),
            key: hex::encode(&*vnfci.initial.credential.key_der),
        }));
    }
    let pid = site.broker().pid();
    let before_kib = status_kib(pid, "VmRSS:");

    let herd = let_loose(&plan);
    let (mut calls, mut most_open) = (Vec::new(), 0);
    while !herd.is_finished() {
        site.check();
        most_open = most_open.max(open_files(site.broker()));
        // A new connection each time, and a change each time: what MANO does in the middle of a boot storm.
        let begun = Instant::now();
        let id = format!("late-{}", calls.len());
        site.register(&[&id], &SLOTS, By::Certificate).await;
        let request = proto::TerminateVnfciRequest {
            request_id: request_id(),
            tenant: String::new(),
            vnfci_id: id,
            storage_wiped: true,
        };
        let mut client = LifecycleServiceClient::new(site.management("nfvo").await);
        client.terminate_vnfci(request).await.unwrap();
        calls.push(begun.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut report = herd.await.unwrap();

    assert!(report.failures.is_empty(), "{:#?}", &report.failures[..report.failures.len().min(5)]);
    // By credential: that nobody is missing means that no two have the same.
    assert_eq!(report.served.len(), total);
    assert_eq!(report.served.values().collect::<HashSet<_>>().len(), total);
    let holders = "SELECT count(DISTINCT vnfci) FROM claims";
    assert_eq!(count(&site, holders).await, total as u64);
    let told: u64 = report.told.values().sum();
    assert!(told > 0, "a pool of {pool} was enough for {total}");
    assert!(report.times.len() as u64 >= told.min(50) / 2, "they were told to come back together");
    let (peak_kib, connections) = (status_kib(pid, "VmHWM:"), most_open as u64);
    // Mostly what TLS and HTTP/2 keep for a connection.
    let bound_kib = before_kib + 64 * 1_024 + 256 * total as u64;
    assert!(peak_kib < bound_kib, "{peak_kib} KiB, of which {before_kib} before the herd");
    report.waits.sort_by(f64::total_cmp);
    calls.sort_by(f64::total_cmp);
    eprintln!(
        "herd of {total} on a pool of {pool}: served in {:.1} s (half in {:.1} s), told to come back {:?}, {} connections \
         broken, at most {connections} descriptors, {} MiB before and {} MiB at most; MANO registered and terminated {} \
         VNFCIs meanwhile, half within {:.2} s, 99 % within {:.2} s",
        report.seconds,
        percentile(&report.waits, 0.5),
        report.told,
        report.broken,
        before_kib / 1_024,
        peak_kib / 1_024,
        calls.len(),
        percentile(&calls, 0.5),
        percentile(&calls, 0.99),
    );
}

#[tokio::test]
async fn a_soft_limit_of_open_files_is_raised_and_a_hard_one_that_is_too_low_is_said() {
    let site = Site::prepare(crate::support::site::Options::default());
    let (config, program) = (site.config(), crate::support::process::keybroker());
    let doctor = |limits: &str| {
        let (config, program) = (config.display(), program.display());
        format!("{limits}; exec '{program}' doctor --config '{config}' --output json")
    };
    let finding = async |limits: &str| {
        let finished = run("sh", ["-c", &doctor(limits)]).await;
        finished.objects().into_iter().find(|row| row["check"] == "descriptors").unwrap()
    };
    let soft = finding("ulimit -Sn 200 && ulimit -Hn 4000").await;
    assert!(soft["finding"].as_str().unwrap().starts_with("4000 files may be open"), "{soft}");
    assert_eq!(soft["status"], "warn");
    assert!(soft["remedy"].as_str().unwrap().contains("LimitNOFILE"), "{soft}");
}
