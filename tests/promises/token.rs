//! Goal: the token holds the few objects that are documented, none of which can leave it, however large the pools are.
//! Method: `pkcs11-tool` lists the same token that the broker uses, at 20 and at 500 pooled credentials.

use crate::support::pkcs11::{Object, objects};
use crate::support::site::Site;

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
