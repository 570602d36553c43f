//! Goal: a database that was rolled back delivers nothing a second time; after `keybroker recover` the broker works again,
//! and what was withdrawn since the backup is withdrawn.
//! Method: SQLite's own tool, or PostgreSQL's, makes and restores the backup; `openssl` reads the CRL; `softhsm2-util` and
//! `pkcs11-tool` act on the token; the log is verified offline; SIGKILL strikes a recovery at every moment.

use crate::support::mano::{By, http_exchange, request_id};
use crate::support::postgres::{Cluster, Database};
use crate::support::process::{keybroker, openssl, run};
use crate::support::settlement::{count, query};
use crate::support::site::{Options, Site};
use crate::support::vnfci::{Claimed, Vnfci};
use crate::support::{PATIENCE, until};
use keybroker::api::proto;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

fn mirror(site: &Site) -> PathBuf {
    site.path().join("audit-mirror")
}

pub(crate) async fn backup(site: &Site, database: Option<&Database>, file: &Path) {
    if let Some(database) = database {
        return database.dump(file);
    }
    let command = format!(".backup '{}'", file.display());
    run("sqlite3", [site.database().display().to_string(), command]).await.ok();
}

/// The file back in its place, and what belongs to the newer one away.
pub(crate) fn restore(site: &Site, database: Option<&Database>, file: &Path) {
    if let Some(database) = database {
        return database.restore(file);
    }
    for end in ["-wal", "-shm"] {
        let mut beside = site.database().into_os_string();
        beside.push(end);
        let _ = std::fs::remove_file(beside);
    }
    std::fs::copy(file, site.database()).unwrap();
}

pub(crate) async fn recover(site: &Site, flags: &[&str]) -> Value {
    let config = site.config().display().to_string();
    // What a dump that was taken while a broker ran says of its leases holds for half a minute.
    until(PATIENCE, "the end of leases", async || {
        let arguments = ["recover", "--config", &config].into_iter().chain(flags.iter().copied());
        let finished = site.cli(arguments).await;
        // With --yes, that there is nothing to do is a failure: a script is not to go on.
        let idle = finished.code == 1 && finished.err.contains("nothing was recovered");
        (finished.code != 4).then(|| if idle { finished.object() } else { finished.ok().object() })
    })
    .await
}

/// What `keybroker doctor` says of the mirror.
async fn doctor(site: &Site) -> Value {
    let config = site.config().display().to_string();
    let rows = site.cli(["doctor", "--config", &config]).await.objects();
    rows.into_iter().find(|row| row["check"] == "audit mirror").expect("the check")
}

async fn readiness(site: &Site) -> (String, String) {
    let (head, body) = http_exchange(&format!("http://{}/readyz", site.addresses.admin)).await;
    (head.lines().next().unwrap().to_owned(), String::from_utf8(body).unwrap())
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

pub(crate) fn names(list: &Value) -> BTreeSet<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn serial(claimed: &Claimed) -> String {
    hex::encode_upper(claimed.keys[0].facts.serial.clone())
}

/// Asserts that nothing is delivered, and that the broker says why.
async fn assert_refuses(site: &mut Site, vnfci: &Vnfci, why: &str) {
    let refused = vnfci.claim(site).await.err().unwrap();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "ROLLED_BACK"),
        "{refused:?}"
    );
    let (line, body) = site
        .until("the refusal at /readyz", async |site| {
            let (line, body) = readiness(site).await;
            line.contains("503").then_some((line, body))
        })
        .await;
    assert!(body.contains("rolled back") && body.contains("keybroker recover"), "{line} {body}");
    assert!(body.contains(why), "{body}");
    let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
    assert!(metrics.lines().any(|line| line == "keybroker_rolled_back 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_delivers_nothing_until_it_is_recovered() {
    restored_backup(Site::start().await, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_dump_of_postgres_delivers_nothing_until_it_is_recovered() {
    let database = Cluster::common().database();
    let options = Options { store_url: database.url(), ..Options::default() };
    restored_backup(Site::start_with(options).await, Some(&database)).await;
}

async fn restored_backup(mut site: Site, database: Option<&Database>) {
    site.full_pool(POOL, 4).await;
    let ids = ["kept", "ended", "claimed-later", "open-then", "waiting", "renewed"];
    let vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let [kept, ended, later, open, waiting, renewing] = &vnfcis[..] else { panic!() };
    let kept_key = kept.boot(&site).await;
    let ended_key = ended.boot(&site).await;
    let old_key = renewing.boot(&site).await;
    let open_claim = open.claim(&site).await.unwrap();
    let file = site.path().join("backup.db");
    backup(&site, database, &file).await;

    // What the backup does not know: keys that it holds go out, keys that it never saw go out, VNFCIs end.
    let mut after = vec![later.boot(&site).await];
    assert!(open.confirm(&site, &open_claim).await.unwrap());
    let unknown: Vec<String> = (0..6).map(|n| format!("new-{n}")).collect();
    for vnfci in site.register(&unknown, &SLOTS, By::Certificate).await {
        let claimed = vnfci.claim_patiently(&site).await;
        assert!(vnfci.confirm(&site, &claimed).await.unwrap());
        after.push(claimed);
    }
    let renewed = renewing.rebooted().renew(&site, &old_key.keys[0]).await.unwrap();
    assert!(renewed.confirm_by(&site, &old_key.keys[0]).await.unwrap().newly_confirmed);
    after.push(renewed);
    site.terminate_vnfci("ended").await;
    let delivered: BTreeSet<String> = after
        .iter()
        .chain([&kept_key, &ended_key, &open_claim])
        .map(|claimed| claimed.keys[0].credential_id.clone())
        .collect();
    assert_eq!(delivered.len(), 11);
    site.stop().await;
    site.verify(&mirror(&site), &[]).await.ok();
    let mark: Value =
        serde_json::from_slice(&std::fs::read(mirror(&site).join("head.json")).unwrap()).unwrap();

    restore(&site, database, &file);
    site.serve().await;
    assert_refuses(&mut site, waiting, "the mirror in").await;
    assert_refuses(&mut site, later, "the mirror in").await;
    let checked = doctor(&site).await;
    assert_eq!(checked["status"], "fail", "{checked}");
    assert!(checked["finding"].as_str().unwrap().contains("rolled back: the mirror in"), "{checked}");
    assert!(checked["remedy"].as_str().unwrap().contains("keybroker recover"), "{checked}");
    if database.is_some() {
        let config = site.config().display().to_string();
        let refused = site.cli(["recover", "--config", &config, "--yes"]).await;
        assert!(refused.code == 4 && refused.err.contains("stop all of them"), "{refused:?}");
    }
    let renewal = kept.rebooted().renew(&site, &kept_key.keys[0]).await.err().unwrap();
    assert_eq!(reason(&renewal), "ROLLED_BACK");
    // The end of a VNFCI is taken down, whatever the database forgot.
    assert!(site.terminate_vnfci("kept").await.newly_terminated);
    site.stop().await;
    let still = std::fs::read(mirror(&site).join("head.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&still).unwrap(), mark, "a forked log was mirrored");

    let told = recover(&site, &[]).await;
    assert_eq!((&told["done"], &told["needed"]), (&false.into(), &true.into()), "{told}");
    let done = recover(&site, &["--yes"]).await;
    let outcome = &done["outcome"];
    assert_eq!(names(&outcome["terminated"]), ["default/ended"].into());
    assert_eq!(
        names(&outcome["rearm"]),
        ["default/claimed-later", "default/open-then", "default/renewed", "default/waiting"].into()
    );
    let announced: BTreeSet<String> = unknown.iter().map(|id| format!("default/{id}")).collect();
    assert_eq!(names(&outcome["register"]), announced.iter().map(String::as_str).collect());
    let unknown_certificates = outcome["unknown_certificates"].as_u64().unwrap();
    assert!(unknown_certificates >= 3, "8 went out, of 4 that the backup had at most: {outcome}");
    let again = recover(&site, &["--yes"]).await;
    assert_eq!((&again["done"], &again["needed"]), (&false.into(), &false.into()), "{again}");

    // Both logs stand: the one that was ended, and the new one with everything that the database knows.
    let archived = PathBuf::from(done["plan"]["archive"].as_str().unwrap());
    site.verify(&archived, &[]).await.ok();
    site.verify(&mirror(&site), &[]).await.ok();
    site.serve().await;
    let log = site.export("recovered").await;
    site.verify(&log, &[]).await.ok();
    let recovered = site.events("RECOVERED").await;
    assert_eq!(recovered[0]["details"]["old_origin"], mark["head"]["origin"]);
    assert_eq!(recovered[0]["details"]["mirror"]["size"], mark["head"]["size"]);

    // Everything that went out after the backup, and what ended, is on the CRL, whoever knows it.
    site.until_available(POOL, 4).await;
    let issuer = site.vnfci("kept").await.credentials[0].issuer_id.clone();
    let listed = site
        .until("a CRL with everything", async |site| {
            std::fs::write(site.path().join("ca.crl"), site.get(false, &format!("/crl/{issuer}.crl")).await)
                .unwrap();
            let text = openssl(site.path(), "crl -inform DER -in ca.crl -noout -text").await;
            after
                .iter()
                .chain([&kept_key, &ended_key, &open_claim])
                .all(|claimed| text.contains(&serial(claimed)))
                .then_some(text)
        })
        .await;
    let number = listed.split("X509v3 CRL Number:").nth(1).unwrap().split_whitespace().next().unwrap();
    let number = match number.strip_prefix("0x") {
        Some(number) => i64::from_str_radix(number, 16).unwrap(),
        None => number.parse().unwrap(),
    };
    assert!(number > 1_000, "{number}");

    // It delivers again: only keys that nobody had, only to those that MANO arms anew.
    let refused = waiting.claim(&site).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated, "an initial credential from before the recovery");
    for vnfci in site.register(&["fresh-1", "fresh-2", "fresh-3"], &SLOTS, By::Certificate).await {
        let claimed = vnfci.claim_patiently(&site).await;
        assert!(vnfci.confirm(&site, &claimed).await.unwrap());
        assert!(!delivered.contains(&claimed.keys[0].credential_id), "delivered twice");
    }
    // A key that went out cannot be given back or confirmed: its certificate is withdrawn.
    let connection = site.connect(&site.vnfci_url(), &after[0].keys[0].credential()).await;
    let release = proto::ReleaseRequest {
        request_id: request_id(),
        claim_id: after[0].response.claim_id.clone(),
        signatures: after[0].release_signatures(),
    };
    let refused = CredentialServiceClient::new(connection.channel).release(release).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");

    // The same backup once more: its KEKs are gone, so that not even the broker can open what it holds.
    site.stop().await;
    restore(&site, database, &file);
    site.serve().await;
    assert_refuses(&mut site, waiting, "is missing on the token").await;
    site.stop().await;
    let done = recover(&site, &["--yes"]).await;
    assert_eq!(done["done"], true);
    let rearm = names(&done["outcome"]["register"]);
    assert!(rearm.contains("default/fresh-1") && rearm.contains("default/new-0"), "{done}");
    site.serve().await;
    site.until_available(POOL, 4).await;
    let last = site.register_one("last", &SLOTS, By::Certificate).await.claim_patiently(&site).await;
    assert!(!delivered.contains(&last.keys[0].credential_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_gone_stops_deliveries_until_it_is_back() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let vnfci = site.register_one("amf-0", &SLOTS, By::Certificate).await;
    site.stop().await;
    let aside = site.path().join("aside");
    std::fs::rename(mirror(&site), &aside).unwrap();
    site.serve().await;
    assert_refuses(&mut site, &vnfci, "there is no mirror").await;
    std::fs::rename(&aside, mirror(&site)).unwrap();
    let claimed = site.until("the mirror's return", async |site| vnfci.claim(site).await.ok()).await;
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
    // While a broker looks on, one that is lost is made anew: the database is known to be the one that it was.
    std::fs::rename(mirror(&site), &aside).unwrap();
    let head = mirror(&site).join("head.json");
    site.until("a new mirror", async |_| head.exists().then_some(())).await;
    site.verify(&mirror(&site), &[&aside.join("head.json")]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_while_it_mirrors_leaves_a_mirror_that_verifies_and_goes_on() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 8).await;
    let events = mirror(&site).join("events.jsonl");
    site.until("a first mirror", async |_| events.exists().then_some(())).await;
    for round in 0..3 {
        let ids: Vec<String> = (0..4).map(|n| format!("amf-{round}-{n}")).collect();
        for vnfci in site.register(&ids, &SLOTS, By::Certificate).await {
            let claimed = vnfci.claim_patiently(&site).await;
            assert!(vnfci.confirm(&site, &claimed).await.unwrap());
            site.verify(&mirror(&site), &[]).await.ok();
        }
        site.kill();
        // A row that was torn by the crash.
        let torn = std::fs::OpenOptions::new().append(true).open(&events).unwrap();
        std::io::Write::write_all(&mut &torn, b"{\"index\":").unwrap();
        site.verify(&mirror(&site), &[]).await.ok();
        site.serve().await;
    }
    let log = site.export("log").await;
    let head = log.join("head.json");
    let size = |path: &Path| -> u64 {
        serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()["head"]["size"]
            .as_u64()
            .unwrap()
    };
    let mirrored = mirror(&site).join("head.json");
    site.until("the mirror's progress", async |_| (size(&mirrored) >= size(&head)).then_some(())).await;
    site.verify(&mirror(&site), &[&head]).await.ok();
}

async fn sqlite(site: &Site, statement: &str) {
    run("sqlite3", [site.database().display().to_string().as_str(), statement]).await.ok();
}

/// SIGKILL for `keybroker recover` within the transaction that is about to make this change.
async fn kill_recovery_before(site: &Site, change: &str) {
    let stall = "BEGIN SELECT count(*) FROM endless WHERE x < 0; END";
    sqlite(site, &format!("CREATE TRIGGER stall BEFORE {change} {stall}")).await;
    let config = site.config().display().to_string();
    let err = site.path().join("recover.err");
    let mut recovery = tokio::process::Command::new(keybroker());
    recovery.args(["recover", "--config", &config, "--yes"]).kill_on_drop(true);
    recovery.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&err).unwrap());
    let mut running = recovery.spawn().unwrap();
    // No transaction of its own is as long as that.
    let mut locked = 0;
    until(PATIENCE, change, async || {
        if let Some(status) = running.try_wait().unwrap() {
            panic!("{change}: it ended with {status}: {}", std::fs::read_to_string(&err).unwrap());
        }
        let database = site.database().display().to_string();
        let other = run("sqlite3", [database.as_str(), "BEGIN IMMEDIATE; ROLLBACK"]).await;
        locked = if other.code == 0 { 0 } else { locked + 1 };
        (locked == 5).then_some(())
    })
    .await;
    running.kill().await.unwrap();
    sqlite(site, "DROP TRIGGER stall").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_killed_at_any_moment_and_run_again_comes_to_the_same() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 4).await;
    // Of which nothing goes out.
    site.full_pool("amf-spare", 2).await;
    let ids = ["kept", "ended", "later", "open-then", "waiting"];
    let vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let [kept, ended, later, open, _] = &vnfcis[..] else { panic!() };
    let mut claimed = vec![kept.boot(&site).await, ended.boot(&site).await, open.claim(&site).await.unwrap()];
    let file = site.path().join("backup.db");
    backup(&site, None, &file).await;
    claimed.push(later.boot(&site).await);
    let unknown: Vec<String> = (0..6).map(|n| format!("new-{n}")).collect();
    for vnfci in site.register(&unknown, &SLOTS, By::Certificate).await {
        claimed.push(vnfci.claim_patiently(&site).await);
    }
    site.terminate_vnfci("ended").await;
    site.stop().await;
    restore(&site, None, &file);
    let known = query(&site, "SELECT lower(hex(id)) FROM credentials").await;
    let is_known = |claimed: &&Claimed| known.contains(&claimed.keys[0].credential_id.replace('-', ""));
    let unknown_keys = claimed.iter().filter(|claimed| !is_known(claimed)).count();
    assert!(unknown_keys > 0);
    let pending = "SELECT COUNT(*) FROM certificates WHERE state = 'REVOCATION_PENDING'";
    let before = count(&site, pending).await;

    // Each run gets a little further than the one before.
    sqlite(&site, "CREATE VIEW endless AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n")
        .await;
    let within = [
        "UPDATE ON credentials",
        "UPDATE ON initial_credentials",
        "UPDATE ON vnfcis",
        "UPDATE ON claims",
        "UPDATE ON credentials WHEN OLD.key_state = 'AVAILABLE'",
        "UPDATE ON epochs WHEN OLD.state = 'OPEN' AND NEW.state = 'CLOSED'",
        "UPDATE ON epochs WHEN OLD.state = 'CLOSED' AND NEW.state = 'SHREDDING'",
        "UPDATE ON epochs WHEN OLD.state = 'SHREDDING' AND NEW.state = 'DESTROYED'",
        "DELETE ON audit_chain",
    ];
    for change in within {
        kill_recovery_before(&site, change).await;
        let checked = doctor(&site).await;
        assert!(checked["finding"].as_str().unwrap().contains("a recovery was begun"), "{change}: {checked}");
    }
    kill_recovery_before(&site, "INSERT ON heads").await;
    let done = recover(&site, &["--yes"]).await;
    assert_eq!((&done["done"], &done["needed"]), (&false.into(), &false.into()), "{done}");
    let outcome = &done["last"];
    assert_eq!(names(&outcome["terminated"]), ["default/ended"].into());
    assert_eq!(
        names(&outcome["rearm"]),
        ["default/later", "default/open-then", "default/waiting"].into(),
        "{outcome}"
    );
    let announced: BTreeSet<String> = unknown.iter().map(|id| format!("default/{id}")).collect();
    assert_eq!(names(&outcome["register"]), announced.iter().map(String::as_str).collect());
    assert_eq!(outcome["unknown_certificates"], unknown_keys, "{outcome}");
    assert_eq!(outcome["claims_destroyed"], 1, "{outcome}");
    assert_eq!(outcome["revoked"], count(&site, pending).await - before, "{outcome}");
    assert_eq!(count(&site, "SELECT COUNT(*) FROM epochs WHERE state <> 'DESTROYED'").await, 0);
    assert_eq!(count(&site, "SELECT COUNT(*) FROM events WHERE kind = 'RECOVERED'").await, 1);

    site.serve().await;
    site.until_available(POOL, 4).await;
    let old = site.events("RECOVERED").await[0]["details"]["old_origin"].as_str().unwrap().replace('/', "-");
    site.verify(&site.path().join(format!("audit-mirror.{old}")), &[]).await.ok();
    let log = site.export("recovered").await;
    site.verify(&log, &[]).await.ok();
    let fresh = site.register_one("fresh", &SLOTS, By::Certificate).await.boot(&site).await;
    assert!(claimed.iter().all(|before| before.keys[0].credential_id != fresh.keys[0].credential_id));
    let checked = doctor(&site).await;
    assert_eq!(checked["status"], "warn", "it lies beside the database: {checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_cannot_be_read_stops_deliveries_at_a_start_and_not_before() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 3).await;
    let vnfcis = site.register(&["amf-0", "amf-1"], &SLOTS, By::Certificate).await;
    let position = mirror(&site).join("position.json");
    site.until("a mirror", async |_| position.exists().then_some(())).await;
    site.stop().await;
    let good = std::fs::read(&position).unwrap();
    site.serve().await;
    std::fs::write(&position, "no JSON").unwrap();
    let failed = "keybroker_background_failures_total{work=\"mirror\"}";
    site.until("the failure's count", async |site| {
        let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
        metrics.contains(failed).then_some(())
    })
    .await;
    // This broker knows its database.
    vnfcis[0].boot(&site).await;
    assert_eq!(doctor(&site).await["status"], "fail");
    site.kill();
    site.serve().await;
    assert_refuses(&mut site, &vnfcis[1], "cannot be read").await;
    std::fs::write(&position, good).unwrap();
    let claimed = site.until("the mirror's return", async |site| vnfcis[1].claim(site).await.ok()).await;
    assert!(vnfcis[1].confirm(&site, &claimed).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_looks_at_the_mirror_and_changes_nothing() {
    let mut site = Site::prepare(Options::default());
    assert_eq!(doctor(&site).await["status"], "ok", "there is no database yet");
    assert!(!site.database().exists());
    site.init().await;
    let checked = doctor(&site).await;
    assert_eq!(checked["finding"], "keybroker serve will make it");
    site.serve().await;
    let events = mirror(&site).join("events.jsonl");
    site.until("a first mirror", async |_| events.exists().then_some(())).await;
    assert_eq!(doctor(&site).await["status"], "warn", "beside a running broker");
    // What a broker that died had not mirrored yet.
    let position = mirror(&site).join("position.json");
    let before = std::fs::read(&position).unwrap();
    site.add_anchor("default", "another", &site.mano_ca).await;
    site.until("the last event", async |_| (std::fs::read(&position).unwrap() != before).then_some(())).await;
    site.stop().await;
    let last = std::fs::read(&position).unwrap();
    std::fs::write(&position, before).unwrap();
    let lags = doctor(&site).await;
    assert!(lags["finding"].as_str().unwrap().contains("; it lacks "), "{lags}");
    std::fs::write(&position, last).unwrap();
    let files = || -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = [site.path().to_owned(), mirror(&site)]
            .into_iter()
            .flat_map(|directory| std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()));
        entries
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    };
    let before = files();
    let checked = doctor(&site).await;
    assert!(checked["finding"].as_str().unwrap().contains("on the same storage"), "{checked}");
    assert!(files() == before, "{:?}", files().keys().collect::<Vec<_>>());
}
