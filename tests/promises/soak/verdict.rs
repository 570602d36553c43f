//! Afterwards: what must be true of database, token, certificates, log, metrics, processes and of what the VNFCIs hold.

use super::auditor::{crl, ocsp, plain};
use super::brokers::{Keeper, resident_kib};
use super::ledger::{InForce, Ledger, Notes};
use super::{Place, SETTLING, counted, spread};
use crate::support::process::runs;
use crate::support::settlement::{assert_settled, count, query};
use crate::support::site::Site;
use crate::support::until;
use crate::support::vnfci::Delivered;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a broker may have at most, whatever it went through: far more than it needs, far less than what a leak takes.
const MOST_KIB: u64 = 512 * 1_024;
/// Mutations that are asked once more, of each broker, and certificates that are looked at one by one.
const SAMPLE: usize = 300;
/// Lines of the brokers' logs, at the level ERROR or of internal errors, that tell of what was done to them.
const EXPECTED_ERRORS: [&str; 11] = [
    // The database died just then.
    "error returned from after_connect error=error communicating with database",
    // The module only pretended to destroy it.
    "still on the token after destruction",
    // Those of the interval in which a broker had to end without a database.
    "refusals could not be recorded",
    "the token refused the PIN",
    "not reloaded: what was in force stays",
    "the listeners' certificates could not be renewed",
    "a failed claim could not be recorded",
    "a failed enrolment could not be recorded",
    "a refusal could not be recorded",
    "the destruction horizon was missed",
    "HSM: the verb fails again and again",
];

/// Panics unless all is well.
pub(super) async fn judge(place: Place, head_before: &Path) {
    let Place { sites, keepers, database: _database, ledger, issuer, .. } = place;
    let ledger = Arc::into_inner(ledger).expect("nobody else writes it");
    let mut sites = sites.map(|site| Arc::into_inner(site).expect("nobody else has the site"));
    for (site, keeper) in sites.iter_mut().zip(&keepers) {
        site.return_broker(keeper.give_up().await.expect("the broker runs"));
        site.check();
    }
    let settling = Instant::now();
    until_at_rest(&sites[0], &ledger).await;
    eprintln!("soak: at rest {:?} after the last client", settling.elapsed());
    let mut notes = std::mem::take(&mut *ledger.notes());

    replays_are_the_same(&sites, &notes, &ledger).await;
    let ended: Vec<String> = notes.ended.iter().cloned().collect();
    assert_settled(&mut sites[0], &notes.held, &ended, head_before).await;
    holders_and_database_agree(&sites[0], &notes, &ledger).await;
    certificates_are_as_they_must(&sites, &issuer, &notes, &ledger).await;
    log_is_what_was_seen(&mut sites[0], &notes, &ledger).await;
    metrics_are_calm(&sites, &ledger).await;
    let pids: Vec<u32> = sites.iter().map(|site| site.broker().pid()).collect();
    let now = pids.iter().map(|pid| resident_kib(*pid, "VmRSS:") / 1_024).collect::<Vec<_>>();
    logs_are_clean(&sites, &ledger);
    for site in &mut sites {
        site.stop().await;
    }
    processes_are_gone(&keepers, &ledger).await;

    let later = ledger.into_notes();
    notes.faults.extend(later.faults);
    eprintln!("soak: {}", counted(&notes.counts));
    let orderly: Vec<Duration> =
        keepers.iter().flat_map(|keeper| keeper.ends.lock().unwrap().clone()).collect();
    let peaks: Vec<u64> = keepers.iter().map(|keeper| *keeper.peak_kib.lock().unwrap() / 1_024).collect();
    eprintln!(
        "soak: {} keys unsealed, {} VNFCIs hold something, {} ended, {} certificates withdrawn, {} mutations answered, {} heads \
         kept, {} rows tailed; orderly ends {}; brokers have {now:?} MiB, at most {peaks:?} MiB",
        notes.held.keys(),
        notes.in_force.len(),
        notes.ended.len(),
        notes.withdrawn.len(),
        notes.requests.len(),
        notes.heads.len(),
        notes.tailed.len(),
        spread(orderly),
    );
    assert!(peaks.iter().all(|peak| peak * 1_024 < MOST_KIB), "{peaks:?} MiB");
    assert!(notes.faults.is_empty(), "{} faults:\n{}", notes.faults.len(), notes.faults.join("\n"));
}

/// No claim is open, no overlap under way, no certificate waits for a CRL, no event for its place.
async fn until_at_rest(site: &Site, ledger: &Ledger) {
    let waiting = "SELECT 'claims', count(*) FROM claims WHERE state IN ('OPEN', 'RENEWED')
         UNION ALL SELECT 'revocations', count(*) FROM certificates WHERE state = 'REVOCATION_PENDING'
         UNION ALL SELECT 'receipts', count(*) FROM credentials
         WHERE claim_id IS NOT NULL AND custody_ended_at IS NOT NULL AND receipt IS NULL";
    let begun = Instant::now();
    loop {
        let left: Vec<String> =
            query(site, waiting).await.into_iter().filter(|line| !line.ends_with("|0")).collect();
        if left.is_empty() {
            return;
        }
        if begun.elapsed() > SETTLING {
            return ledger.fault(format!("not at rest after {SETTLING:?}: {left:?}"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Whatever was answered is answered the same by both brokers.
async fn replays_are_the_same(sites: &[Site; 2], notes: &Notes, ledger: &Ledger) {
    let every = notes.requests.len().div_ceil(SAMPLE).max(1);
    for replay in notes.requests.iter().step_by(every) {
        for site in sites {
            match replay.repeat(site).await {
                Ok(None) => {}
                Ok(Some(otherwise)) => ledger.fault(otherwise),
                Err(status) => ledger.fault(format!("{} repeated: {status:?}", replay.what)),
            }
        }
    }
}

/// Every VNFCI that was told that it is confirmed has what the database says that it has.
async fn holders_and_database_agree(site: &Site, notes: &Notes, ledger: &Ledger) {
    let sql = "SELECT claims.vnfci, hex(certificates.serial) FROM certificates JOIN credentials ON credentials.id = credential
               JOIN claims ON claims.id = credentials.claim_id
               WHERE certificates.state = 'VALID' AND key_state IN ('DELIVERED', 'EXTERNAL')";
    let line = |vnfci: &str, serial: &[u8]| format!("{vnfci}|{}", hex::encode_upper(plain(serial)));
    let said: BTreeSet<String> = query(site, sql)
        .await
        .iter()
        .map(|row| {
            let (vnfci, serial) = row.split_once('|').unwrap();
            line(vnfci, &hex::decode(serial).unwrap())
        })
        .collect();
    let in_force = notes.in_force.iter();
    let held: BTreeSet<String> = in_force
        .flat_map(|(vnfci, what)| what.serials().into_iter().map(move |serial| line(vnfci, &serial)))
        .collect();
    let lost: Vec<_> = held.difference(&said).collect();
    // What was enrolled and whose answer was lost is valid, too, until it is armed again and enrols.
    let unknown: Vec<_> = said.difference(&held).collect();
    if !lost.is_empty() || !unknown.is_empty() {
        ledger.fault(format!(
            "held and not valid in the database: {lost:?}; valid there and held by nobody: {unknown:?}"
        ));
    }
    let twice = "SELECT count(*) FROM (SELECT public_key_sha256 FROM credentials GROUP BY public_key_sha256 HAVING count(*) > 1) AS twice";
    if count(site, twice).await > 0 {
        ledger.fault("two credentials have one public key".to_owned());
    }
}

/// What is in force works at both brokers and is on no CRL; what was withdrawn is on the CRL of both, and `openssl ocsp` is told so.
async fn certificates_are_as_they_must(sites: &[Site; 2], issuer: &str, notes: &Notes, ledger: &Ledger) {
    let in_force: BTreeSet<Vec<u8>> =
        notes.in_force.values().flat_map(InForce::serials).map(|serial| plain(&serial)).collect();
    let mut gone: BTreeSet<Vec<u8>> = notes.withdrawn.iter().map(|serial| plain(serial)).collect();
    // Unsealed and never confirmed: replaced, or too late.
    gone.extend(notes.serials.keys().map(|serial| plain(serial)).filter(|serial| !in_force.contains(serial)));
    for site in sites {
        let listed = crl(site, issuer).await.unwrap().serials;
        let missing: Vec<String> = gone.difference(&listed).map(hex::encode).collect();
        let wrong: Vec<String> = in_force.intersection(&listed).map(hex::encode).collect();
        if !missing.is_empty() || !wrong.is_empty() {
            ledger.fault(format!("not on the CRL and withdrawn: {missing:?}; on it and in force: {wrong:?}"));
        }
    }
    let working = notes.in_force.iter().filter_map(|(vnfci, what)| match what {
        InForce::Delivered(keys) => Some((vnfci, keys)),
        InForce::Enrolled(_) => None,
    });
    let working: Vec<(&String, &Vec<Delivered>)> = working.take(SAMPLE).collect();
    for (number, (vnfci, keys)) in working.iter().enumerate() {
        for key in *keys {
            if let Err(status) = key.trust_chain(&sites[number % 2]).await {
                ledger.fault(format!("{vnfci} holds {} and is told {status:?}", key.credential_id));
            }
        }
    }
    let Some(known) = working.iter().flat_map(|(_, keys)| keys.iter()).next() else { return };
    let (issuer, root) = (&known.chain_der[0], &known.root_der);
    for (serials, expected) in [(&in_force, "good"), (&gone, "revoked")] {
        for (number, serial) in serials.iter().take(SAMPLE / 10).enumerate() {
            let said = ocsp(&sites[number % 2], issuer, root, serial).await;
            if said != expected {
                ledger.fault(format!("OCSP of {}, which is {expected}: {said}", hex::encode(serial)));
            }
        }
    }
    for (vnfci, status) in refused(sites, notes).await {
        ledger.fault(format!("{vnfci} has ended and is told {status:?}"));
    }
}

/// Ended VNFCIs that are not refused. Their keys are not kept: the states that MANO is shown are looked at.
async fn refused(sites: &[Site; 2], notes: &Notes) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for (number, vnfci) in notes.ended.iter().take(SAMPLE).enumerate() {
        for credential in sites[number % 2].vnfci(vnfci).await.credentials {
            let states = (credential.key_state.as_str(), credential.certificate_state.as_str());
            // A key that was never certified has no certificate to withdraw.
            if !["REVOKED", "EXPIRED", ""].contains(&states.1) {
                wrong.push((vnfci.clone(), format!("{states:?}")));
            }
        }
    }
    wrong
}

/// The exported log verifies, extends every head that was kept, and has every row that a tail showed.
async fn log_is_what_was_seen(site: &mut Site, notes: &Notes, ledger: &Ledger) {
    let export = site.export("judged").await;
    let heads: Vec<&Path> = notes.heads.iter().map(std::path::PathBuf::as_path).collect();
    let report = site.verify(&export, &heads).await.ok().object();
    if (&report["verified"], &report["extends"]) != (&true.into(), &heads.len().into()) {
        ledger.fault(format!("the log: {report}"));
    }
    let text = std::fs::read_to_string(export.join("events.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (index, hash) in &notes.tailed {
        let row = rows.get(usize::try_from(*index).unwrap()).map(|row| row["hash"].clone());
        if row.as_ref().and_then(Value::as_str) != Some(hash.to_string().as_str()) {
            return ledger.fault(format!("a tail showed {hash} at {index}, the log has {row:?}"));
        }
    }
}

/// What tells of trouble tells of none, at both brokers, whichever of them does which work now.
async fn metrics_are_calm(sites: &[Site; 2], ledger: &Ledger) {
    const CALM: [(&str, f64); 8] = [
        ("keybroker_rolled_back", 0.0),
        ("keybroker_hsm_available", 1.0),
        ("keybroker_hsm_queue_depth", 0.0),
        ("keybroker_revocations_pending", 0.0),
        ("keybroker_destruction_horizon_missed_epochs", 0.0),
        ("keybroker_audit_unchained_events", 0.0),
        ("keybroker_audit_mirror_lag_events", 0.0),
        ("keybroker_connections", 0.0),
    ];
    for site in sites {
        let mut loud = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            let text = String::from_utf8(site.get(true, "/metrics").await).unwrap();
            let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
            let of = |name: &str, line: &&str| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
            };
            loud = CALM
                .iter()
                .flat_map(|(name, calm)| {
                    let lines = text.lines().filter(|line| of(name, line));
                    lines.filter(|line| value(line) != Some(*calm)).map(str::to_owned).collect::<Vec<_>>()
                })
                .collect();
            // Of pools that are deleted.
            loud.extend(text.lines().filter(|line| line.contains("pool=\"passing-")).map(str::to_owned));
            if loud.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if !loud.is_empty() {
            ledger.fault(format!("metrics of {}: {loud:#?}", site.config().display()));
        }
    }
}

/// Nothing panicked, and no error was logged but of what was done to the brokers.
fn logs_are_clean(sites: &[Site; 2], ledger: &Ledger) {
    for site in sites {
        let text = std::fs::read_to_string(site.log()).unwrap();
        let mut wrong: Vec<&str> = text
            .lines()
            .filter(|line| {
                let error = line.contains(" ERROR ") || line.contains("internal error");
                line.contains("panicked")
                    || (error && !EXPECTED_ERRORS.iter().any(|expected| line.contains(expected)))
            })
            .collect();
        let number = wrong.len();
        wrong.truncate(10);
        if number > 0 {
            ledger.fault(format!("{number} lines of {}: {wrong:#?}", site.log().display()));
        }
    }
}

/// No worker outlives its broker.
async fn processes_are_gone(keepers: &[Arc<Keeper>; 2], ledger: &Ledger) {
    let all: Vec<u32> = keepers.iter().flat_map(|keeper| keeper.workers.lock().unwrap().clone()).collect();
    let alive = || {
        let worker = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            runs(*pid) && line.windows(10).any(|part| part == b"hsm-worker")
        };
        all.iter().copied().filter(worker).collect::<Vec<u32>>()
    };
    let begun = Instant::now();
    until(Duration::from_secs(60), "the end of every worker", async || {
        (alive().is_empty() || begun.elapsed() > Duration::from_secs(20)).then_some(())
    })
    .await;
    if !alive().is_empty() {
        ledger.fault(format!("workers outlived their brokers: {:?}", alive()));
    }
}
