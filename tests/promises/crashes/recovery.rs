//! `keybroker recover`.

use super::{Scenario, points};
use crate::recovery::{backup, names, recover, restore};
use crate::support::mano::{By, create_pool, register};
use crate::support::pkcs11::objects;
use crate::support::settlement::{assert_consistent, count, query};
use crate::support::site::{Options, Site, VNF};
use keybroker::crash::Point;
use std::collections::BTreeSet;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_run_again_after_a_crash_at_every_point_comes_to_the_same() {
    let mut site = Site::start_crashing(Options::default()).await;
    site.full_pool(POOL, 4).await;
    // Of which nothing goes out.
    site.full_pool("amf-spare", 2).await;
    let other = site.add_tenant("other").await;
    let ids = ["kept", "ended", "later", "open-then"];
    let vnfcis = site.register(&ids, &SLOTS, By::Certificate).await;
    let [kept, ended, later, open] = &vnfcis[..] else { panic!() };
    let mut before = vec![kept.boot(&site).await, ended.boot(&site).await, open.claim(&site).await.unwrap()];
    let file = site.path().join("backup.db");
    backup(&site, None, &file).await;

    // What the backup does not know: keys that went out, the end of a VNFCI, and an epoch with a key in it that went out.
    before.push(later.boot(&site).await);
    site.terminate_vnfci("ended").await;
    let channel = site.connect(&site.management_url(), &other.identities["nfvo"]).await.channel;
    create_pool(channel.clone(), "", POOL, VNF, 2, None).await;
    let stray = register(channel, "", &other.ca, "mano", &["stray"], &SLOTS, By::Certificate).await;
    before.push(stray[0].claim_patiently(&site).await);
    let unknown_epoch = "SELECT lower(hex(id)) FROM epochs WHERE tenant = 'other'";
    let unknown_epoch = query(&site, unknown_epoch).await;
    assert_eq!(unknown_epoch.len(), 1);
    site.stop().await;
    restore(&site, None, &file);

    let own = points(Scenario::Recovery);
    let of_recovery = [
        Point::RecoveryNoted,
        Point::RecoveryBroughtBack,
        Point::RecoveryEnded,
        Point::ClaimDestroyed,
        Point::PoolErased,
        Point::RecoveryErased,
        Point::ShredIntended,
        Point::ShredDestroyed,
        Point::ShredVerified,
        Point::ShredCommitted,
        Point::RecoveryStrayDestroyed,
        Point::RecoveryStrayRecorded,
        Point::RecoveryShredded,
        Point::RecoveryArchived,
        Point::RecoveryRestarted,
    ];
    assert!(own.iter().all(|point| of_recovery.contains(point)));
    let config = site.config().display().to_string();
    // In the order in which they are reached: each run goes on where the one before died.
    for point in of_recovery {
        site.cli_until(point, &["recover", "--config", &config, "--yes"]).await;
        let under_way = query(&site, "SELECT value FROM marks WHERE name = 'recovery'").await;
        assert_eq!(under_way == [""], point == Point::RecoveryRestarted, "{point:?}: {under_way:?}");
    }
    let done = recover(&site, &["--yes"]).await;
    assert_eq!((&done["done"], &done["needed"]), (&false.into(), &false.into()), "{done}");
    let outcome = &done["last"];
    assert_eq!(names(&outcome["terminated"]), ["default/ended"].into(), "{outcome}");
    assert_eq!(names(&outcome["rearm"]), ["default/later", "default/open-then"].into(), "{outcome}");
    assert_eq!(names(&outcome["register"]), ["other/stray"].into(), "{outcome}");
    assert_eq!(outcome["claims_destroyed"], 1, "{outcome}");
    assert_eq!(outcome["epochs_shredded"], 2, "{outcome}");
    assert_eq!(count(&site, "SELECT COUNT(*) FROM epochs WHERE state <> 'DESTROYED'").await, 0);
    assert_eq!(count(&site, "SELECT COUNT(*) FROM key_blobs").await, 0);
    let keks = objects(&site).await.into_iter().filter(|object| object.label().contains(":kek:"));
    assert_eq!(keks.count(), 0);

    site.serve().await;
    site.until_available(POOL, 4).await;
    let old = site.events("RECOVERED").await;
    assert_eq!(old.len(), 1, "{old:?}");
    let origin = old[0]["details"]["old_origin"].as_str().unwrap().replace('/', "-");
    site.verify(&site.path().join(format!("audit-mirror.{origin}")), &[]).await.ok();
    let shredded: BTreeSet<String> = site
        .events("EPOCH_SHREDDED")
        .await
        .iter()
        .map(|event| event["details"]["epoch"].as_str().unwrap().replace('-', ""))
        .collect();
    assert!(shredded.contains(&unknown_epoch[0]), "{shredded:?}");
    // Of what went out the destruction is receipted, also where the database has forgotten the claim.
    let went_out = "SELECT count(*) FROM credentials WHERE custody_reason = 'RECOVERED' AND custody_holder_copy = 'UNKNOWN'";
    assert!(count(&site, &format!("{went_out} AND claim_id IS NULL")).await > 0);
    site.until("their receipts", async |site| {
        (count(site, &format!("{went_out} AND receipt IS NULL")).await == 0).then_some(())
    })
    .await;
    let fresh = site.register_one("fresh", &SLOTS, By::Certificate).await.boot(&site).await;
    assert!(before.iter().all(|claimed| claimed.keys[0].credential_id != fresh.keys[0].credential_id));
    let head = site.export("recovered").await.join("head.json");
    assert_consistent(&mut site, &head).await;
}
