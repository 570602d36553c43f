//! Goal: what was delivered a moment before every broker was killed is not delivered again by a backup from before it, although
//! the mirror of the log had not got it yet; the notes that show it stay small and do no harm.
//! Method: the mirror is kept from being written to, so that it shows nothing; brokers are ended by SIGKILL as soon as they
//! have answered; SQLite's own tool, or PostgreSQL's, makes and restores the backup.

use crate::continuity::{
    PATIENT_MIRROR, POOL, SLOTS, block_mirror, mirror, names, pages, reason, two_brokers, unblock_mirror,
    until_logged, until_mirrored, until_not_ready, until_ready,
};
use crate::recovery::{backup, recover, restore};
use crate::support::mano::By;
use crate::support::postgres::{Cluster, Database};
use crate::support::settlement::query;
use crate::support::site::{Options, Site};
use crate::support::vnfci::Vnfci;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;

async fn site(database: Option<&Database>) -> Site {
    let options = Options { audit: PATIENT_MIRROR, ..Options::default() };
    let store_url = database.map_or_else(|| options.store_url.clone(), Database::url);
    Site::start_with(Options { store_url, ..options }).await
}

/// What doctor says of the mirror.
async fn checked(site: &Site) -> Value {
    let config = site.config().display().to_string();
    let rows = site.cli(["doctor", "--config", &config]).await.objects();
    rows.into_iter().find(|row| row["check"] == "audit mirror").expect("the check")
}

async fn assert_refuses(site: &mut Site, vnfci: &Vnfci) {
    until_not_ready(site, "brokers have noted 1 deliveries that the database does not know").await;
    let refused = vnfci.claim(site).await.err().expect("nothing is to be delivered");
    assert_eq!(reason(&refused), "ROLLED_BACK", "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_broker_had_just_delivered_a_backup_does_not_deliver_again() {
    just_delivered(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_broker_had_just_delivered_a_dump_does_not_deliver_again() {
    just_delivered(Some(&Cluster::common().database())).await;
}

async fn just_delivered(database: Option<&Database>) {
    let mut site = site(database).await;
    site.full_pool(POOL, 1).await;
    let vnfcis = site.register(&["first", "second"], &SLOTS, By::Certificate).await;
    until_mirrored(&site).await;
    block_mirror(&site);
    let file = site.path().join("backup.db");
    backup(&site, database, &file).await;
    let held = vnfcis[0].claim(&site).await.unwrap();
    site.kill();
    restore(&site, database, &file);
    site.serve().await;
    assert_refuses(&mut site, &vnfcis[1]).await;
    let found = checked(&site).await;
    assert!(found["finding"].as_str().unwrap().contains("have noted 1 deliveries"), "{found}");
    site.kill();
    unblock_mirror(&site);
    let told = recover(&site, &[]).await;
    assert_eq!((&told["needed"], &told["plan"]["noted_deliveries"]), (&true.into(), &1.into()), "{told}");
    let done = recover(&site, &["--yes"]).await;
    assert!(names(&done["outcome"]["rearm"]).contains("default/first"), "{done}");
    assert_eq!((&done["outcome"]["revoked"], &done["plan"]["damage"]), (&1.into(), &Value::Array(vec![])));
    // The notes went with the mirror, and are not seen to again.
    let archive = PathBuf::from(done["plan"]["archive"].as_str().unwrap());
    site.verify(&archive, &[]).await.ok();
    site.serve().await;
    until_ready(&mut site).await;
    site.until_available(POOL, 1).await;
    let fresh = site.register_one("fresh", &SLOTS, By::Certificate).await.boot(&site).await;
    assert_ne!(fresh.keys[0].credential_id, held.keys[0].credential_id, "delivered twice");
    site.stop().await;
    let outcome = recover(&site, &["--yes", "--force"]).await["outcome"].clone();
    assert_eq!(outcome["rearm"], Value::Array(Vec::new()), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_made_and_delivered_after_the_backup_is_withdrawn_though_only_a_note_tells_of_it() {
    let mut site = site(None).await;
    until_mirrored(&site).await;
    block_mirror(&site);
    let file = site.path().join("backup.db");
    backup(&site, None, &file).await;
    site.full_pool(POOL, 1).await;
    let held = site.register_one("new", &SLOTS, By::Certificate).await.claim(&site).await.unwrap();
    site.kill();
    restore(&site, None, &file);
    unblock_mirror(&site);
    let done = recover(&site, &["--yes"]).await;
    assert_eq!(names(&done["outcome"]["register"]), ["default/new"].into(), "{done}");
    let listed = query(&site, "SELECT lower(hex(serial)) FROM revoked_serials").await;
    assert_eq!(listed, [hex::encode(&held.keys[0].facts.serial)], "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_never_had_a_row_is_put_aside_with_its_notes() {
    let mut site = Site::prepare(Options { audit: PATIENT_MIRROR, ..Options::default() });
    // Nothing can be appended from the start.
    std::fs::create_dir_all(mirror(&site).join("events.jsonl")).unwrap();
    site.init().await;
    site.serve().await;
    site.add_anchor("default", crate::support::site::ANCHOR, &site.mano_ca).await;
    site.full_pool(POOL, 1).await;
    let vnfcis = site.register(&["first", "second"], &SLOTS, By::Certificate).await;
    let file = site.path().join("backup.db");
    backup(&site, None, &file).await;
    let held = vnfcis[0].claim(&site).await.unwrap();
    site.kill();
    assert!(!mirror(&site).join("position.json").exists(), "the case that this is about");
    restore(&site, None, &file);
    site.serve().await;
    assert_refuses(&mut site, &vnfcis[1]).await;
    site.kill();
    let done = recover(&site, &["--yes"]).await;
    assert!(names(&done["outcome"]["rearm"]).contains("default/first"), "{done}");
    site.serve().await;
    until_ready(&mut site).await;
    let fresh = site.register_one("fresh", &SLOTS, By::Certificate).await.claim_patiently(&site).await;
    assert_ne!(fresh.keys[0].credential_id, held.keys[0].credential_id, "delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_answered_again_is_noted_again() {
    let mut site = site(None).await;
    site.full_pool(POOL, 1).await;
    let vnfci = site.register_one("amf-0", &SLOTS, By::Certificate).await;
    until_mirrored(&site).await;
    block_mirror(&site);
    // Who drew it may have been killed before it noted it.
    for _ in 0..2 {
        vnfci.claim(&site).await.unwrap();
    }
    site.kill();
    let text: String = pages(&site).into_keys().map(|page| std::fs::read_to_string(page).unwrap()).collect();
    let kinds: Vec<Value> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"]["kind"].clone())
        .collect();
    assert_eq!(kinds, ["CLAIMED", "CLAIM_REPLAYED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_are_emptied_once_the_mirror_has_them_and_those_of_killed_brokers_are_removed() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 3).await;
    let vnfcis = site.register(&["amf-0", "amf-1", "amf-2"], &SLOTS, By::Certificate).await;
    for vnfci in &vnfcis[..2] {
        vnfci.boot(&site).await;
    }
    let empty = async |site: &mut Site, no: &[PathBuf]| {
        site.until("empty notes", async |site| {
            let pages = pages(site);
            let gone = no.iter().all(|page| !pages.contains_key(page));
            (gone && pages.len() == 2 && pages.values().all(|size| *size == 0)).then_some(())
        })
        .await;
    };
    empty(&mut site, &[]).await;
    vnfcis[2].claim(&site).await.unwrap();
    let left: Vec<PathBuf> = pages(&site).into_keys().collect();
    site.kill_and_restart().await;
    until_ready(&mut site).await;
    empty(&mut site, &left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_was_cut_off_does_no_harm() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let vnfcis = site.register(&["amf-0", "amf-1"], &SLOTS, By::Certificate).await;
    vnfcis[0].claim(&site).await.unwrap();
    site.kill();
    let page = pages(&site).into_keys().next().unwrap();
    std::fs::File::options().append(true).open(&page).unwrap().write_all(b"\n{\"event\":{\"id\"").unwrap();
    site.serve().await;
    until_logged(&mut site, "passed over: no note of a delivery").await;
    until_ready(&mut site).await;
    vnfcis[1].boot(&site).await;
    site.until("its end", async |site| (!pages(site).contains_key(&page)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_of_two_killed_brokers_noted_the_other_finds_at_its_next_start() {
    let (mut first, mut second, database) = two_brokers(PATIENT_MIRROR).await;
    first.full_pool(POOL, 2).await;
    let vnfcis = first.register(&["amf-0", "amf-1", "amf-2"], &SLOTS, By::Certificate).await;
    assert_eq!(pages(&first).len(), 4);
    until_mirrored(&first).await;
    block_mirror(&first);
    let file = first.path().join("old.dump");
    database.dump(&file);
    // Both have something to note; the notes of one that lives on are not touched by the other.
    vnfcis[0].claim(&first).await.unwrap();
    first.kill();
    vnfcis[1].claim_patiently(&second).await;
    assert_eq!(pages(&first).values().filter(|size| **size > 0).count(), 2);
    second.kill();
    database.restore(&file);
    second.serve().await;
    until_not_ready(&mut second, "brokers have noted 2 deliveries that the database does not know").await;
    let refused = vnfcis[2].claim(&second).await.err().expect("nothing is to be delivered");
    assert_eq!(reason(&refused), "ROLLED_BACK", "{refused:?}");
    second.stop().await;
    unblock_mirror(&first);
    let done = recover(&first, &["--yes"]).await;
    let rearm = names(&done["outcome"]["rearm"]);
    assert!(rearm.contains("default/amf-0") && rearm.contains("default/amf-1"), "{done}");
    for site in [&mut first, &mut second] {
        site.serve().await;
        until_ready(site).await;
    }
}
