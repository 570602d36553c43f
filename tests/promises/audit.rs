//! Goal: the log proves what happened, to people who trust neither the broker nor its database.
//! Method: exports are verified offline with the log's public key: as they are, and after rows of the database were
//! changed, deleted, exchanged and cut off with `sqlite3`. A key's history is read from an export.

use crate::support::mano::{By, http_exchange};
use crate::support::process::run;
use crate::support::site::Site;
use keybroker::audit::history::prove;
use keybroker::audit::{AuditPublicKey, SignedReceipt};
use keybroker::nfv::Sha256Hash;
use serde_json::Value;
use std::path::Path;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

async fn sqlite(database: &Path, statement: &str) {
    run("sqlite3", [database.as_os_str(), statement.as_ref()]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_missing_reordered_or_truncated_row_of_the_database_is_detected() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 3).await;
    for vnfci in site.register(&["amf-0001", "amf-0002"], &SLOTS, By::Token).await {
        vnfci.boot(&site).await;
    }
    let good = site.export("good").await;
    let report = site.verify(&good, &[]).await.ok().object();
    assert_eq!(report["verified"], true, "{report}");
    site.stop().await;
    let database = site.database();
    // All of it is in the one file now.
    sqlite(&database, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let clean = site.path().join("clean.db");
    std::fs::copy(&database, &clean).unwrap();

    let claimed = "(SELECT id FROM events WHERE kind = 'CLAIMED' LIMIT 1)";
    let index_of = format!("(SELECT idx FROM audit_chain WHERE event_id = {claimed})");
    let cases = [
        (
            "changed",
            format!("UPDATE events SET json = replace(json, 'amf-0001', 'amf-0009') WHERE id = {claimed}"),
            "CHANGED",
        ),
        (
            "missing",
            format!("PRAGMA foreign_keys = OFF; DELETE FROM audit_chain WHERE idx = {index_of}"),
            "MISSING",
        ),
        (
            "reordered",
            "UPDATE audit_chain SET idx = -1 WHERE idx = 5; UPDATE audit_chain SET idx = 5 WHERE idx = 6;
             UPDATE audit_chain SET idx = 6 WHERE idx = -1"
                .to_owned(),
            "",
        ),
        (
            "truncated",
            "PRAGMA foreign_keys = OFF;
             DELETE FROM events WHERE id IN (SELECT event_id FROM audit_chain WHERE idx >= 10);
             DELETE FROM audit_chain WHERE idx >= 10"
                .to_owned(),
            "",
        ),
        (
            "truncated with its heads",
            "PRAGMA foreign_keys = OFF; DELETE FROM heads WHERE size > 10;
             DELETE FROM events WHERE id IN (SELECT event_id FROM audit_chain WHERE idx >= 10);
             DELETE FROM audit_chain WHERE idx >= 10"
                .to_owned(),
            "",
        ),
    ];
    for (what, statement, kind) in &cases {
        std::fs::copy(&clean, &database).unwrap();
        for suffix in ["db-wal", "db-shm"] {
            let _ = std::fs::remove_file(database.with_extension(suffix));
        }
        sqlite(&database, statement).await;
        site.serve().await;
        let directory = site.path().join(what.replace(' ', "-"));
        let out = directory.display().to_string();
        let exported = site
            .until("a signed head", async |site| {
                let exported = site.cli_as("auditor", &["audit", "export", "--out", &out]).await;
                if exported.code != 0 && directory.exists() {
                    std::fs::remove_dir_all(&directory).unwrap();
                }
                // Before the first head there is nothing to export; an export that is refused is detected, too. No head
                // is signed over a log that the mirror contradicts.
                let (_, ready) = http_exchange(&format!("http://{}/readyz", site.addresses.admin)).await;
                let said = !exported.err.contains("signed head")
                    || String::from_utf8_lossy(&ready).contains("rolled back");
                (exported.code == 0 || said).then_some(exported)
            })
            .await;
        if exported.code == 0 {
            let verified = site.verify(&directory, &[&good.join("head.json")]).await;
            assert_eq!(verified.code, 1, "{what}: {verified:?}");
            let report = verified.object();
            assert_eq!(report["verified"], false, "{what}: {report}");
            let kinds: Vec<&str> = report["problems"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|one| one["kind"].as_str())
                .collect();
            assert!(kinds.iter().any(|found| found.contains(kind)), "{what}: {report}");
        } else {
            assert_eq!(exported.code, 1, "{what}: {exported:?}");
        }
        site.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_history_proves_generation_one_recipient_erasure_and_shredding() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 3).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let claimed = vnfci.boot(&site).await;
    claimed.release(&site).await.unwrap();
    let credential = claimed.keys[0].credential_id.clone();
    // What is asked for earlier is signed for the asker; the log has the one that says that the key is shredded.
    site.until("the log's receipt of shredding", async |site| {
        (!site.events("DESTRUCTION_RECEIPT").await.is_empty()).then_some(())
    })
    .await;
    let receipt = site.cli_as("auditor", &["audit", "receipt", &credential]).await.ok().object();
    assert_eq!(receipt["receipt"]["broker_copy"]["state"], "SHREDDED", "{receipt}");
    assert_eq!(receipt["receipt"]["holder_copy"], "RELEASED_SIGNED", "{receipt}");
    assert_eq!(receipt["receipt"]["vnfci"], "amf-0001", "{receipt}");
    let export = site.export("audit").await;
    site.stop().await;

    // From here on nobody is asked: files and the public key only.
    site.verify(&export, &[]).await.ok();
    let key = AuditPublicKey::from_pem(&std::fs::read(site.audit_key()).unwrap()).unwrap();
    let signed: SignedReceipt = serde_json::from_value(receipt.clone()).unwrap();
    signed.verify(&key).unwrap();
    let file = site.path().join("receipt.json");
    let public_key = site.audit_key().display().to_string();
    let check = async |receipt: &Value| {
        std::fs::write(&file, receipt.to_string()).unwrap();
        let file = file.display().to_string();
        site.cli(["audit", "receipt", "--file", &file, "--public-key", &public_key]).await
    };
    check(&receipt).await.ok();
    let mut forged = receipt.clone();
    forged["receipt"]["vnfci"] = "amf-0002".into();
    assert_eq!(check(&forged).await.code, 1);

    let history = prove(&export, &key, claimed.keys[0].facts.public_key).unwrap();
    assert!(history.generated_in_hsm() && history.sealed_to_one_recipient(), "{history:#?}");
    assert_eq!(history.recipients.iter().collect::<Vec<_>>(), [&vnfci.recipient_key()]);
    assert_eq!(history.sealings[0].vnfci.as_ref().unwrap().as_str(), "amf-0001");
    assert!(history.confirmed.is_some() && history.released.is_some() && history.revoked.is_some());
    assert!(history.erased.is_some() && history.is_shredded(), "{history:#?}");
    assert_eq!(history.receipts, [signed]);
    assert_eq!(history.problems, Vec::<String>::new());
    // Another key's history is empty: nothing is proved by default.
    let nothing = prove(&export, &key, Sha256Hash([7; 32])).unwrap();
    assert!(!nothing.generated_in_hsm() && !nothing.is_shredded());
}
