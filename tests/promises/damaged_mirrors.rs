//! Goal: `keybroker recover` believes no row of a mirror that is not what was written, says which it is, and goes on with
//! `--force`; a copy of a mirror beside it changes nothing, and one that differs is read as well.
//! Method: rows of `events.jsonl` are changed, garbled and cut off after a backup was restored; `keybroker audit verify` is
//! asked about the same files; `openssl` reads the CRL.

use super::recovered_cas::{issuer, until_listed};
use super::recovered_ends::rearm;
use super::recovery::{backup, names, recover, restore};
use crate::support::mano::By;
use crate::support::process::run;
use crate::support::site::{Options, Site};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

fn mirror(site: &Site) -> PathBuf {
    site.path().join("audit-mirror")
}

/// The place of the only row that has all of this.
fn place(lines: &[String], parts: &[&str]) -> usize {
    let has = |line: &&String| parts.iter().all(|part| line.contains(part));
    assert_eq!(lines.iter().filter(has).count(), 1, "{parts:?}");
    lines.iter().position(|line| has(&line)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn recover_refuses_a_damaged_mirror_and_with_force_says_what_it_did_not_believe() {
    let mut site = Site::start_with(Options::default()).await;
    site.full_pool(POOL, 1).await;
    let vnfcis = site.register(&["amf-0", "amf-1"], &SLOTS, By::Certificate).await;
    let file = site.path().join("backup.db");
    backup(&site, None, &file).await;
    vnfcis[0].boot(&site).await;
    // Of a key that the backup does not know.
    let claimed = vnfcis[1].claim_patiently(&site).await;
    assert!(vnfcis[1].confirm(&site, &claimed).await.unwrap());
    let ca = issuer(&site, "amf-1").await;
    site.stop().await;
    restore(&site, None, &file);
    let rows = mirror(&site).join("events.jsonl");
    let text = std::fs::read_to_string(&rows).unwrap();
    let good: Vec<String> = text.lines().map(str::to_owned).collect();
    let write = |lines: &[String]| std::fs::write(&rows, format!("{}\n", lines.join("\n"))).unwrap();
    let serial = hex::encode(&claimed.keys[0].facts.serial);
    let other = format!("{}{}", if serial.starts_with('1') { '2' } else { '1' }, &serial[1..]);
    let produced = place(&good, &["\"KEYS_PRODUCED\"", &serial]);
    let credential = &claimed.keys[0].credential_id;
    let delivered = place(&good, &["\"CLAIMED\"", credential]);
    let claim = claimed.claim_id().to_string();
    let changes: [(usize, &str, &str); 4] = [
        (produced, &serial, &other),
        (delivered, &claim, "garbled"),
        (delivered, "\"CLAIMED\"", "\"CLAIMED_BY_ANOTHER_VERSION\""),
        (delivered, "{", "}"),
    ];
    let config = site.config().display().to_string();
    for (row, from, to) in changes {
        let mut lines = good.clone();
        lines[row] = lines[row].replacen(from, to, 1);
        write(&lines);
        let verified = site.verify(&mirror(&site), &[]).await;
        assert!(
            verified.code == 1 && verified.out.contains(&format!("\"index\":{row},")),
            "{to}: {verified:?}"
        );
        for flags in [&["--yes"][..], &[]] {
            let refused = site.cli(["recover", "--config", &config].iter().chain(flags)).await;
            let directory = mirror(&site).display().to_string();
            let told = refused.err.contains(&directory) && refused.err.contains(&format!("row {row}: "));
            assert!(refused.code == 1 && told && refused.err.contains("audit verify"), "{to}: {refused:?}");
            let said = refused.object();
            assert_eq!(
                (&said["done"], &said["plan"]["unreadable_rows"]),
                (&false.into(), &1.into()),
                "{said}"
            );
        }
    }
    // What says that the key went out is garbled, and the end is gone: nobody has a good copy.
    let mut lines = good.clone();
    lines[delivered] = lines[delivered].replacen(&claim, "garbled", 1);
    lines.pop();
    write(&lines);
    let finished = site.cli(["recover", "--config", &config, "--yes", "--force"]).await.ok();
    assert!(finished.err.contains("2 rows of the mirror could not be read in full"), "{finished:?}");
    let done = finished.object();
    assert_eq!(done["outcome"]["unreadable_rows"], 2, "{done}");
    assert_eq!(names(&done["outcome"]["rearm"]), ["default/amf-0", "default/amf-1"].into(), "{done}");
    site.serve().await;
    until_listed(&mut site, &ca, &serial).await;
    let recovered = site.events("RECOVERED").await;
    assert_eq!(recovered[0]["details"]["unreadable_rows"], 2, "{recovered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_mirror_beside_it_is_not_seen_to_again() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let vnfci = site.register_one("amf-0", &SLOTS, By::Certificate).await;
    let file = site.path().join("backup.db");
    backup(&site, None, &file).await;
    vnfci.boot(&site).await;
    site.stop().await;
    let copy = format!("{}.copy", mirror(&site).display());
    run("cp", ["-r", &mirror(&site).display().to_string(), &copy]).await.ok();
    // The mirror that was copied goes on.
    site.serve().await;
    site.register_one("amf-1", &SLOTS, By::Certificate).await.claim_patiently(&site).await;
    site.stop().await;
    restore(&site, None, &file);
    let outcome = recover(&site, &["--yes"]).await["outcome"].clone();
    assert_eq!(names(&outcome["rearm"]), ["default/amf-0"].into(), "{outcome}");
    assert_eq!(names(&outcome["register"]), ["default/amf-1"].into(), "{outcome}");
    site.serve().await;
    let again = rearm(&site, &vnfci).await;
    let claimed = again.claim_patiently(&site).await;
    assert!(again.confirm(&site, &claimed).await.unwrap());
    site.stop().await;
    let outcome = recover(&site, &["--yes", "--force"]).await["outcome"].clone();
    for of in ["rearm", "register", "terminated"] {
        assert_eq!(outcome[of], Value::Array(Vec::new()), "{of}: {outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_mirrors_of_one_log_that_differ_recover_reads_both() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let vnfcis = site.register(&["amf-0", "amf-1"], &SLOTS, By::Certificate).await;
    site.stop().await;
    let (file, before) = (site.path().join("backup.db"), site.path().join("mirror-before"));
    let copy = async |from: &Path, to: &Path| {
        run("cp", ["-r".as_ref(), from.as_os_str(), to.as_os_str()]).await.ok();
    };
    backup(&site, None, &file).await;
    copy(&mirror(&site), &before).await;
    site.serve().await;
    let went_out = vnfcis[0].boot(&site).await;
    let ca = issuer(&site, "amf-0").await;
    site.stop().await;
    // Database and mirror are put back both, as with a snapshot of a machine: nothing shows it, and the log goes on further
    // than the one whose mirror somebody kept, where a recovery would put this one.
    let position = std::fs::read_to_string(mirror(&site).join("position.json")).unwrap();
    let origin = serde_json::from_str::<Value>(&position).unwrap()["origin"].as_str().unwrap().to_owned();
    let kept = PathBuf::from(format!("{}.{}", mirror(&site).display(), origin.replace('/', "-")));
    std::fs::rename(mirror(&site), &kept).unwrap();
    copy(&before, &mirror(&site)).await;
    restore(&site, None, &file);
    site.serve().await;
    vnfcis[1].boot(&site).await;
    for id in ["amf-2", "amf-3", "amf-4"] {
        site.register_one(id, &SLOTS, By::Certificate).await;
    }
    site.stop().await;
    let size = |directory: &Path| {
        let position = std::fs::read_to_string(directory.join("position.json")).unwrap();
        serde_json::from_str::<Value>(&position).unwrap()["size"].as_u64().unwrap()
    };
    assert!(size(&mirror(&site)) > size(&kept), "the kept one is the shorter");
    let done = recover(&site, &["--yes", "--force"]).await;
    // Both had their keys of one pool that was put back, so that nobody keeps what it has.
    let armed: BTreeSet<&str> = names(&done["outcome"]["rearm"]);
    assert!(armed.contains("default/amf-0") && armed.contains("default/amf-1"), "{done}");
    assert_eq!(done["plan"]["archive"], format!("{}.2", kept.display()), "{done}");
    for directory in [kept.clone(), format!("{}.2", kept.display()).into(), mirror(&site)] {
        site.verify(&directory, &[]).await.ok();
    }
    let outcome = recover(&site, &["--yes", "--force"]).await["outcome"].clone();
    assert_eq!(outcome["rearm"], Value::Array(Vec::new()), "{outcome}");
    site.serve().await;
    until_listed(&mut site, &ca, &hex::encode_upper(&went_out.keys[0].facts.serial)).await;
}
