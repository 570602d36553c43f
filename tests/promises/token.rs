//! Goal: the token holds the few objects that are documented, none of which can leave it, however large the pools are.
//! Method: `pkcs11-tool` lists the same token that the broker uses, at 20 and at 500 pooled credentials.

use crate::support::process::run_with;
use crate::support::site::Site;
use std::collections::BTreeMap;
use std::path::Path;

const POOL: &str = "amf-transport";

/// An object as `pkcs11-tool` shows it: its first line and its fields.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) class: String,
    fields: BTreeMap<String, String>,
}

async fn objects(site: &Site) -> Vec<Object> {
    objects_on(site, &site.token.label, &site.token.pin_file).await
}

/// What is on one of the module's tokens.
pub(crate) async fn objects_on(site: &Site, token: &str, pin_file: &Path) -> Vec<Object> {
    let pin = std::fs::read_to_string(pin_file).unwrap();
    let module = site.token.module.display().to_string();
    let configuration = site.token.configuration.display().to_string();
    let arguments = ["--module", &module, "--token-label", token, "--login", "--pin", pin.trim()];
    let listed = run_with(
        "pkcs11-tool",
        arguments.into_iter().chain(["--list-objects"]),
        &[(site.token.variable, &configuration)],
    )
    .await
    .ok();
    let mut objects: Vec<Object> = Vec::new();
    for line in listed.out.lines() {
        match (line.starts_with(' '), objects.last_mut()) {
            (true, Some(object)) => {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                object.fields.insert(name.trim().to_owned(), value.trim().to_owned());
            }
            _ if line.contains("Object") => {
                objects.push(Object { class: line.to_owned(), fields: BTreeMap::new() });
            }
            _ => {}
        }
    }
    objects
}

pub(crate) fn label(object: &Object) -> &str {
    object.fields.get("label").map_or("", String::as_str)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_holds_few_objects_none_extractable_whatever_the_pool_size() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 20).await;
    let at_20 = objects(&site).await;
    for object in &at_20 {
        let access = object.fields.get("Access").map_or("", String::as_str);
        if !object.class.starts_with("Public Key") {
            assert!(access.contains("never extractable"), "{object:?}");
            assert!(access.contains("always sensitive") && access.contains("local"), "{object:?}");
        }
        assert!(label(object).starts_with("keybroker"), "an object that is not documented: {object:?}");
    }
    let keks = |objects: &[Object]| objects.iter().filter(|object| label(object).contains("kek")).count();
    assert_eq!(keks(&at_20), 1, "{at_20:#?}");
    // Root, sub-CA, TLS and audit keys as pairs, the HMAC key, one KEK.
    assert!(at_20.len() <= 12, "{at_20:#?}");

    site.full_pool("amf-more", 480).await;
    let at_500 = objects(&site).await;
    let names = |objects: &[Object]| {
        let mut names: Vec<String> =
            objects.iter().map(|object| format!("{} {}", object.class, label(object))).collect();
        names.retain(|name| !name.contains("kek"));
        names.sort();
        names
    };
    assert_eq!(names(&at_20), names(&at_500));
    // An epoch takes at least 256 keys: 500 have two of them, and no more than 32 whatever comes.
    assert!(keks(&at_500) <= 2, "{at_500:#?}");
}
