//! Goal: the token holds the few objects that are documented, none of which can leave it, however large the pools are; one
//! that has not the KEKs that the database knows is told by `keybroker doctor`.
//! Method: `pkcs11-tool` lists the same token that the broker uses, at 20 and at 500 pooled credentials, and deletes a KEK.

use super::continuity::until_not_ready;
use super::recovery::{backup, restore};
use crate::support::pkcs11::{Object, delete_secret_key, objects};
use crate::support::site::Site;
use serde_json::Value;

const POOL: &str = "amf-transport";

#[tokio::test(flavor = "multi_thread")]
async fn the_token_holds_few_objects_none_extractable_whatever_the_pool_size() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 20).await;
    let at_20 = objects(&site).await;
    for object in &at_20 {
        let access = object.access();
        if !object.class.starts_with("Public Key") {
            assert!(access.contains("never extractable"), "{object:?}");
            assert!(access.contains("always sensitive") && access.contains("local"), "{object:?}");
        }
        assert!(object.label().starts_with("keybroker"), "an object that is not documented: {object:?}");
    }
    let keks = |objects: &[Object]| objects.iter().filter(|object| object.label().contains("kek")).count();
    assert_eq!(keks(&at_20), 1, "{at_20:#?}");
    // Root, sub-CA, TLS and audit keys as pairs, the HMAC key, one KEK.
    assert!(at_20.len() <= 12, "{at_20:#?}");

    site.full_pool("amf-more", 480).await;
    let at_500 = objects(&site).await;
    let names = |objects: &[Object]| {
        let mut names: Vec<String> =
            objects.iter().map(|object| format!("{} {}", object.class, object.label())).collect();
        names.retain(|name| !name.contains("kek"));
        names.sort();
        names
    };
    assert_eq!(names(&at_20), names(&at_500));
    // An epoch takes at least 256 keys: 500 have two of them, and no more than 32 whatever comes.
    assert!(keks(&at_500) <= 2, "{at_500:#?}");
}

/// What `keybroker doctor` says of the token's KEKs, and how it ends.
async fn doctor(site: &Site) -> (i32, Value) {
    let config = site.config().display().to_string();
    let finished = site.cli(["doctor", "--config", &config]).await;
    let row = finished.objects().into_iter().find(|row| row["check"] == "token and database");
    (finished.code, row.expect("the check"))
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_that_a_kek_is_missing_or_unknown_beside_a_broker_and_without_one() {
    let mut site = Site::start().await;
    let file = site.path().join("backup.db");
    backup(&site, None, &file).await;
    site.full_pool(POOL, 1).await;
    let all = objects(&site).await;
    let kek = all.iter().map(Object::label).find(|label| label.contains("kek")).unwrap().to_owned();
    assert_eq!(doctor(&site).await.1["status"], "ok");
    site.stop().await;
    assert_eq!(doctor(&site).await.1["status"], "ok");
    let whole = site.path().join("whole.db");
    backup(&site, None, &whole).await;
    restore(&site, None, &file);
    let (code, unknown) = doctor(&site).await;
    assert_eq!((code, &unknown["status"]), (1, &"fail".into()), "{unknown}");
    let said = unknown["finding"].as_str().unwrap();
    assert!(said.contains(&format!("{kek} is on the token and unknown to the database")), "{said}");
    restore(&site, None, &whole);
    delete_secret_key(&site, &kek).await;
    let before = objects(&site).await.len();
    let (code, missing) = doctor(&site).await;
    assert_eq!((code, &missing["status"]), (1, &"fail".into()), "{missing}");
    let said = missing["finding"].as_str().unwrap();
    assert!(said.contains(&format!("{kek} is missing on the token although its epoch is OPEN")), "{said}");
    assert!(missing["remedy"].as_str().unwrap().contains("keybroker recover"), "{missing}");
    site.serve().await;
    until_not_ready(&mut site, "is missing on the token").await;
    assert_eq!(doctor(&site).await, (code, missing));
    assert_eq!(objects(&site).await.len(), before);
}
