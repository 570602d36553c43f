//! `keybroker doctor`: looks at everything that a broker needs and says what to do. Changes nothing.

mod database;

use super::failure::Failure;
use super::files;
use super::output::OutputArgs;
use crate::ca::{CertificateFacts, Profile};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{Config, StoreUrl};
use crate::hardening;
use crate::hsm::{Hsm, HsmConfig, HsmStatus, ObjectId, TokenObject};
use crate::nfv::{ProfileName, TenantId};
use crate::sealing::Suite;
use crate::server::Limits;
use database::{cas, keks, mirror, quotas, store, tenants};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Certificates that end sooner are worth a warning.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 86_400);
/// The first keybroker was written after this (2026-01-01): a clock before it is wrong.
const EARLIEST: Timestamp = Timestamp::from_unix_seconds(1_767_225_600);
const DISK_WARNING: u64 = 1 << 30;
const DISK_FAILURE: u64 = 100 << 20;

/// `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "keybroker.toml")]
    config: PathBuf,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// What the checks found, in order.
#[derive(Debug, Default)]
struct Findings(Vec<(Verdict, Value)>);

/// Runs the command.
pub(super) async fn run(args: DoctorArgs, output: OutputArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let mut findings = Findings::default();
    findings.ok("configuration", args.config.display());
    let tenants = tenants(&config).await;
    let mut serial = None;
    match std::env::current_exe() {
        Ok(program) => {
            let own = config.hsm_of_tenants(&program);
            let common: Vec<_> = tenants.iter().filter(|id| !own.contains_key(id)).collect();
            let looked = token(config.hsm(&program), &common, &mut findings).await;
            if let Some((hsm, objects)) = looked {
                serial = Some(hsm.status().token_serial);
                keks(&config, &hsm, objects, None, |tenant| !own.contains_key(tenant), &mut findings).await;
                hsm.shutdown().await;
            }
            for (id, of_tenant) in &own {
                let tenant: Vec<_> = tenants.iter().filter(|known| *known == id).collect();
                let looked = token(of_tenant.clone(), &tenant, &mut findings).await;
                if let Some((hsm, objects)) = looked {
                    keks(&config, &hsm, objects, Some(id), |tenant| tenant == id, &mut findings).await;
                    hsm.shutdown().await;
                }
            }
        }
        Err(error) => findings.fail("token", error, "start keybroker by its path"),
    }
    clock(&args.config, &mut findings);
    store(&config, serial.as_deref(), &mut findings).await;
    mirror(&config, &mut findings).await;
    cas(&config, &mut findings).await;
    quotas(&config, &mut findings).await;
    certificates(&config, &mut findings);
    profiles(&config, &mut findings);
    listeners(&config, &mut findings);
    key_generation(&config, &mut findings);
    disk(&config, &mut findings);
    let failed = findings.0.iter().filter(|(verdict, _)| *verdict == Verdict::Fail).count();
    let rows: Vec<Value> = findings.0.into_iter().map(|(_, row)| row).collect();
    output.list(&["check", "status", "finding", "remedy"], &rows);
    match failed {
        0 => Ok(()),
        failed => Err(Failure::failed(format!("{failed} of {} checks failed", rows.len()))),
    }
}

impl Findings {
    fn ok(&mut self, check: &str, finding: impl std::fmt::Display) {
        self.add(Verdict::Ok, check, finding, "");
    }

    fn warn(&mut self, check: &str, finding: impl std::fmt::Display, remedy: &str) {
        self.add(Verdict::Warn, check, finding, remedy);
    }

    fn fail(&mut self, check: &str, finding: impl std::fmt::Display, remedy: &str) {
        self.add(Verdict::Fail, check, finding, remedy);
    }

    fn add(&mut self, verdict: Verdict, check: &str, finding: impl std::fmt::Display, remedy: &str) {
        let status = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let remedy = (!remedy.is_empty()).then_some(remedy);
        let row =
            json!({ "check": check, "status": status, "finding": finding.to_string(), "remedy": remedy });
        self.0.push((verdict, row));
    }
}

/// Looks at one token with its module, PIN file and objects: the broker's own or a tenant's. `tenants` have their keys on it.
/// It and what is on it, if it was reached.
async fn token(
    config: HsmConfig,
    tenants: &[&TenantId],
    findings: &mut Findings,
) -> Option<(Hsm, Vec<TokenObject>)> {
    let owner = config.owner.clone();
    let name = |check: &str| match &owner {
        None => check.to_owned(),
        Some(tenant) => format!("{check} of tenant {tenant}"),
    };
    module(&config, &name("module"), findings);
    pin_file(&config.pin_file, &name("pin file"), findings);
    let label = config.token.clone();
    let configured = config.sealing.clone();
    let (check, memory, objects) = (name("token"), name("memory"), name("token objects"));
    let tenants_own = config.owner.is_some();
    let hsm = match Hsm::start(config).await {
        Ok(hsm) => hsm,
        Err(error) => {
            let remedy = if tenants_own {
                "see the finding; `keybroker serve` would refuse this tenant's claims"
            } else {
                "see the finding; `keybroker serve` would fail the same way"
            };
            findings.fail(&check, error, remedy);
            return None;
        }
    };
    let status = hsm.status();
    let found = format!("{label:?}, serial {}, {}", status.token_serial, status.module);
    if status.problem.is_empty() {
        findings.ok(&check, found);
    } else {
        findings.warn(&check, format!("{found}: {}", status.problem), "see the finding");
    }
    sealing(&configured, &status, name, findings);
    if !tenants_own {
        findings.ok("audit signatures", format!("{:?}", status.audit_algorithm));
    }
    if status.memory_locked {
        findings.ok(&memory, "the workers' is locked");
    } else {
        let remedy = "allow keybroker's user to lock memory (LimitMEMLOCK=infinity, ulimit -l unlimited), or use no swap";
        findings.warn(
            &memory,
            "the workers' may be swapped to disk, the PIN and SoftHSM's keys with it",
            remedy,
        );
    }
    let found = inventory(&hsm, &objects, tenants, findings).await;
    Some((hsm, found))
}

fn module(config: &HsmConfig, check: &str, findings: &mut Findings) {
    let module = &config.module;
    if module.is_file() {
        findings.ok(check, module.display());
    } else {
        let remedy = "install the HSM's PKCS#11 module (SoftHSM: package softhsm2) or correct module in the configuration";
        findings.fail(check, format!("{} is no file", module.display()), remedy);
    }
    if let Some(path) = config.environment.get("SOFTHSM2_CONF").filter(|path| !Path::new(path).is_file()) {
        let remedy = "correct [hsm] environment SOFTHSM2_CONF";
        findings.fail(check, format!("SOFTHSM2_CONF names {path}, which is no file"), remedy);
    }
}

fn pin_file(path: &Path, check: &str, findings: &mut Findings) {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let remedy = "write the user PIN into it, one line, and chmod 600 it";
            return findings.fail(check, format!("{}: {error}", path.display()), remedy);
        }
    };
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        let problem = format!("{} has mode {mode:04o}: others may read the PIN", path.display());
        findings.fail(check, problem, "chmod 600 it, and change the PIN if others could have read it");
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        let problem = format!("{} belongs to user {}, not to us", path.display(), metadata.uid());
        findings.fail(check, problem, "run keybroker as the owner of the PIN file, or chown it");
    } else {
        findings.ok(check, format!("{}, mode {mode:04o}", path.display()));
    }
}

/// `name` makes a check's name: a tenant's token has it in each.
fn sealing(configured: &[Suite], status: &HsmStatus, name: impl Fn(&str) -> String, findings: &mut Findings) {
    let suites = status.suites.iter().map(|suite| suite.as_str()).collect::<Vec<_>>().join(", ");
    let preferred = status.suites.iter().find(|suite| **suite != Suite::RsaAesKeyWrap);
    let check = name("sealing");
    match preferred.or(status.suites.first()) {
        None => findings.fail(&check, "no configured suite passed the self-test", "correct [hsm] sealing"),
        Some(Suite::EcdhP256CbcencKwpV1) => findings.warn(
            &check,
            suites,
            "the module has no approved KDF (as SoftHSM 2.6): use a module with one where approval matters",
        ),
        Some(Suite::EcdhP256X963Sha256Kwp | Suite::RsaAesKeyWrap) => findings.ok(&check, suites),
    }
    if !configured.contains(&Suite::RsaAesKeyWrap) {
        return;
    }
    let check = name("sealing to RSA keys");
    match status.oaep_hash {
        Some(hash) => findings.warn(
            &check,
            format!("{} is on, with OAEP and {hash}: its envelopes carry no context", Suite::RsaAesKeyWrap),
            "keep it in [hsm] sealing only for recipients that can do nothing else (docs/envelope.md)",
        ),
        None => findings.fail(
            &check,
            format!("{} is configured and did not pass the self-test", Suite::RsaAesKeyWrap),
            "take it out of [hsm] sealing: the module cannot wrap under an RSA key by OAEP",
        ),
    }
}

async fn inventory(
    hsm: &Hsm,
    check: &str,
    tenants: &[&TenantId],
    findings: &mut Findings,
) -> Vec<TokenObject> {
    let objects = match hsm.inventory().await {
        Ok(objects) => objects,
        Err(error) => {
            findings.fail(check, error, "see the finding");
            return Vec::new();
        }
    };
    let foreign = objects.iter().filter(|object| object.id.is_none()).count();
    let mut problems: Vec<String> = Vec::new();
    for object in &objects {
        problems.extend(object.problems.iter().map(|problem| format!("{}: {problem}", object.label)));
    }
    let finding = format!("{} objects, {foreign} of them not keybroker's", objects.len());
    if !problems.is_empty() {
        let remedy = "look at each with the HSM's own tools; keybroker reports and never deletes what it does not know";
        findings.warn(check, format!("{finding}; {}", problems.join("; ")), remedy);
    } else if foreign > 0 {
        findings.warn(check, finding, "give keybroker a token of its own");
    } else {
        findings.ok(check, finding);
    }
    let labels: Vec<_> = objects
        .iter()
        .map(|object| json!({ "label": object.label, "class": object.class, "ours": object.id.is_some() }))
        .collect();
    if let Some((_, row)) = findings.0.last_mut() {
        row["objects"] = json!(labels);
    }
    for tenant in tenants {
        // Made when the tenant was added, and never destroyed.
        let key = ObjectId::TokenMac((*tenant).clone());
        let check = format!("keys of tenant {tenant}");
        if objects.iter().any(|object| object.id.as_ref() == Some(&key)) {
            findings.ok(&check, "they are on the token");
        } else {
            let finding = format!(
                "{key} is not on the token: it is blank, or not the one that the tenant was added on"
            );
            let remedy = "correct token, pin_file and module of the tenant's section (or of [hsm]), or restore the HSM's \
                          backup: until then the tenant is served nothing";
            findings.fail(&check, finding, remedy);
        }
    }
    objects
}

fn clock(config: &Path, findings: &mut Findings) {
    let now = SystemClock.now();
    let written = std::fs::metadata(config).and_then(|metadata| metadata.modified()).map(Timestamp::from);
    let remedy = "set the clock and keep it with NTP: certificates and deadlines depend on it";
    if now < EARLIEST {
        findings.fail("clock", format!("it is {now}"), remedy);
    } else if let Ok(written) = written
        && written > now
    {
        findings.warn(
            "clock",
            format!("it is {now}, but the configuration was written at {written}"),
            remedy,
        );
    } else {
        findings.ok("clock", now);
    }
}

fn certificates(config: &Config, findings: &mut Findings) {
    let mut paths: Vec<PathBuf> =
        ["root.pem", "tls/bootstrap.pem", "tls/server.pem"].map(|name| config.directory.join(name)).into();
    let clients = super::init::CLIENT_ROLES;
    paths.extend(clients.map(|role| config.directory.join("clients").join(role.as_str()).join("cert.pem")));
    let now = SystemClock.now();
    for path in paths {
        let name = path.strip_prefix(&config.directory).unwrap_or(&path).display().to_string();
        let check = format!("certificate {name}");
        let facts =
            files::read_certificates(&path).map_err(|failure| failure.text).and_then(|certificates| {
                let leaf = certificates.first().map(Vec::as_slice).unwrap_or_default();
                CertificateFacts::parse(leaf).map_err(|error| error.to_string())
            });
        match facts {
            Err(_) if !path.exists() && name.starts_with("tls") => {
                findings.ok(&check, "keybroker serve will make it");
            }
            Err(_) if !path.exists() && !name.starts_with("clients") => {
                findings.fail(&check, "does not exist", "run keybroker init");
            }
            // The operator may have moved the role's key to where the role is.
            Err(_) if !path.exists() => findings.warn(&check, "is not here", "none needed if it was moved"),
            Err(problem) => findings.fail(&check, problem, "restore it"),
            Ok(facts) if facts.not_after <= now => {
                findings.fail(
                    &check,
                    format!("expired at {}", facts.not_after),
                    "remove it and run keybroker init",
                );
            }
            Ok(facts) if facts.not_after <= now.plus(EXPIRY_WARNING) => {
                findings.warn(&check, format!("expires at {}", facts.not_after), "renew it in time");
            }
            Ok(facts) => findings.ok(&check, format!("{}, until {}", facts.subject, facts.not_after)),
        }
    }
}

fn profiles(config: &Config, findings: &mut Findings) {
    let directory = config.profiles_directory();
    let Ok(entries) = std::fs::read_dir(&directory) else {
        let problem = format!("{} does not exist", directory.display());
        return findings.fail("profiles", problem, "run keybroker init");
    };
    let mut good = Vec::new();
    for path in
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("toml".as_ref()))
    {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let parsed = name.parse::<ProfileName>().map_err(|error| error.to_string()).and_then(|name| {
            let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
            Profile::parse(name, &text).map_err(|error| error.to_string())
        });
        match parsed {
            Ok(_) => good.push(name),
            Err(problem) => findings.fail("profiles", format!("{name}: {problem}"), "correct the file"),
        }
    }
    good.sort();
    findings.ok("profiles", good.join(", "));
}

fn key_generation(config: &Config, findings: &mut Findings) {
    for (tenant, _) in config.tenants.iter().filter(|(_, tenant)| tenant.est_server_key_generation) {
        findings.warn(
            "serverkeygen",
            format!("tenant {tenant} has it on: the keys that EST gives out were in the broker's memory"),
            "keep est_server_key_generation only for clients that can do nothing else (docs/est.md)",
        );
    }
}

fn listeners(config: &Config, findings: &mut Findings) {
    let listen = &config.listen;
    let all: [(&str, SocketAddr); 5] = [
        ("bootstrap", listen.bootstrap),
        ("vnfci", listen.vnfci),
        ("management", listen.management),
        ("http", listen.http),
        ("admin", listen.admin),
    ];
    for (name, address) in all.into_iter().chain(listen.est.map(|est| ("est", est))) {
        let check = format!("address {name}");
        match TcpListener::bind(address) {
            Ok(_) => findings.ok(&check, format!("{address} is free")),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                let remedy = "fine if this broker is running; else give the listener another port";
                findings.warn(&check, format!("{address} is in use"), remedy);
            }
            Err(error) => {
                let remedy = "listen on an address of this machine that keybroker may bind";
                findings.fail(&check, format!("{address}: {error}"), remedy);
            }
        }
    }
    let (may, need) = (hardening::raise_descriptors(), Limits::from(listen.limits).need(listen.with_tls()));
    let finding = format!("{may} files may be open, all listeners need {need} at most");
    if may < need {
        let remedy = "raise the limit (LimitNOFILE, ulimit -n), or lower [listen.limits] connections";
        findings.warn("descriptors", finding, remedy);
    } else {
        findings.ok("descriptors", finding);
    }
    if !listen.admin.ip().is_loopback() {
        let remedy = "keep metrics and health on a loopback address or behind a firewall";
        findings.warn("address admin", format!("{} is reachable from outside", listen.admin), remedy);
    }
}

fn disk(config: &Config, findings: &mut Findings) {
    let directory = match &config.store.url {
        StoreUrl::Sqlite(database) => database.parent().unwrap_or(&config.directory),
        StoreUrl::Postgres(_) => &config.directory,
    };
    match rustix::fs::statvfs(directory) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let finding = format!("{} MiB free in {}", free >> 20, directory.display());
            let remedy = "make room: a broker whose database cannot grow refuses claims";
            match free {
                free if free < DISK_FAILURE => findings.fail("disk", finding, remedy),
                free if free < DISK_WARNING => findings.warn("disk", finding, remedy),
                _ => findings.ok("disk", finding),
            }
        }
        Err(error) => {
            findings.fail("disk", format!("{}: {error}", directory.display()), "correct [store] url")
        }
    }
}
