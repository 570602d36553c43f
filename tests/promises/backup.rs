//! Goal: the commands that the operations page gives for backup, restore and a new PIN are right as they stand there, while
//! claims run; and a restored backup never delivers a key that was already delivered.
//! Method: the page's own shell blocks are run by `sh` in the site's directory; `sqlite3` looks at the backup.

use crate::support::mano::By;
use crate::support::process::{Finished, keybroker, run, run_with};
use crate::support::site::Site;
use crate::support::vnfci::Vnfci;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
/// VNFCIs that boot while the backup is made.
const VNFCIS: usize = 36;

/// The shell block of the operations page, under a heading, that has this command.
fn block(heading: &str, command: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.filter(|block| block.contains(command)).last().expect("the block").to_owned()
}

/// Runs it where `keybroker.toml` is.
async fn run_block(site: &Site, block: &str) -> Finished {
    let programs = keybroker().parent().unwrap().display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let text = |path: &Path| path.display().to_string();
    let (module, configuration) = (text(&site.token.module), text(&site.token.configuration));
    let environment = [
        ("PATH", path.as_str()),
        ("MODULE", module.as_str()),
        ("TOKEN", site.token.label.as_str()),
        (site.token.variable, configuration.as_str()),
    ];
    let script = format!("set -eu; cd '{}'\n{block}", site.path().display());
    run_with("sh", ["-c", &script], &environment).await
}

async fn in_backup(site: &Site, sql: &str) -> usize {
    let file = site.path().join("backup/keybroker.db").display().to_string();
    run("sqlite3", [&file, sql]).await.ok().out.trim().parse().unwrap()
}

/// Claims and confirms, some at a time; gives the SHA-256 of every key.
async fn boot_all(site: &Site, vnfcis: &[Vnfci], booted: &AtomicUsize) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for together in vnfcis.chunks(4) {
        let booting = together.iter().map(async |vnfci| {
            let claimed = vnfci.claim_patiently(site).await;
            assert!(vnfci.confirm(site, &claimed).await.unwrap());
            booted.fetch_add(1, Ordering::SeqCst);
            claimed.keys[0].facts.public_key.to_string()
        });
        for key in futures_util::future::join_all(booting).await {
            assert!(keys.insert(key), "delivered twice");
        }
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_never_delivers_a_key_that_was_already_delivered() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 50).await;
    let ids: Vec<String> = (0..VNFCIS).map(|n| format!("amf-{n:03}")).collect();
    let vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let booted = AtomicUsize::new(0);
    let backup = async {
        crate::support::until(crate::support::PATIENCE, "some claims", async || {
            (booted.load(Ordering::SeqCst) >= 8).then_some(())
        })
        .await;
        run_block(&site, &block("Backup", "VACUUM INTO")).await.ok();
    };
    let (delivered, ()) = tokio::join!(boot_all(&site, &vnfcis, &booted), backup);
    assert_eq!(delivered.len(), VNFCIS);
    let then = in_backup(&site, "SELECT COUNT(*) FROM claims WHERE state = 'CONFIRMED'").await;
    assert!((1..VNFCIS).contains(&then), "{then} claims: the backup was to be made in their midst");
    assert!(in_backup(&site, "SELECT COUNT(*) FROM credentials WHERE key_state = 'AVAILABLE'").await > 0);
    for file in ["keybroker.db", "files.tar.gz"] {
        let mode = std::fs::metadata(site.path().join("backup").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }

    site.stop().await;
    let finished = run_block(&site, &block("Backup", "recover")).await.ok();
    let done: Value = serde_json::from_str(finished.out.trim()).unwrap();
    assert_eq!(done["done"], true, "{done}");
    site.serve().await;
    assert_eq!(site.events("RECOVERED").await.len(), 1);

    // Whoever the backup thinks is still to be served is not served by what it registered then.
    for vnfci in &vnfcis {
        vnfci.claim(&site).await.err().expect("its initial credential was spent, or is void");
    }
    site.until_available(POOL, 50).await;
    let again: Vec<String> = (0..50).map(|n| format!("new-{n:03}")).collect();
    let vnfcis = site.register(&again, &SLOTS, By::Certificate).await;
    let keys = boot_all(&site, &vnfcis, &booted).await;
    assert!(keys.is_disjoint(&delivered), "delivered twice");

    // Nothing shows a rollback, and the operator knows better.
    site.stop().await;
    let config = site.config().display().to_string();
    let asked = site.cli(["recover", "--config", &config, "--yes"]).await;
    assert!(asked.code == 1 && asked.err.contains("give --force"), "{asked:?}");
    let asked = asked.object();
    assert_eq!((&asked["done"], &asked["needed"]), (&false.into(), &false.into()), "{asked}");
    assert_eq!(asked["last"], done["outcome"], "what was done before is still told");
    let forced = site.cli(["recover", "--config", &config, "--yes", "--force"]).await.ok().object();
    assert_eq!(forced["done"], true, "{forced}");
    site.serve().await;
    site.until_available(POOL, 50).await;
    let last = site.register(&["last"], &SLOTS, By::Certificate).await;
    let last = boot_all(&site, &last, &booted).await;
    assert!(last.is_disjoint(&delivered) && last.is_disjoint(&keys), "delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pin_is_taken_at_a_reload_and_at_a_restart() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 3).await;
    let pin = || std::fs::read_to_string(&site.token.pin_file).unwrap();
    let before = pin();
    run_block(&site, &block("PIN", "--change-pin")).await.ok();
    assert_ne!(pin(), before);
    let mode = std::fs::metadata(&site.token.pin_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    site.broker().signal(Signal::HUP);
    let log = site.log();
    site.until("the reload", async |_| {
        std::fs::read_to_string(&log).unwrap().contains("reloaded: ").then_some(())
    })
    .await;
    // Workers that start from now on log in with the new one.
    while site.broker().kill_worker(0).is_none() {}
    let vnfci = site.register_one("amf-0", &SLOTS, By::Certificate).await;
    let claimed = vnfci.claim_patiently(&site).await;
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());

    site.stop().await;
    run_block(&site, &block("PIN", "--change-pin")).await.ok();
    site.serve().await;
    site.register_one("amf-1", &SLOTS, By::Certificate).await.boot(&site).await;
    site.until_available(POOL, 1).await;
}
