//! What a token holds, as `pkcs11-tool` of OpenSC lists it.

use super::process::{Finished, run_with};
use super::site::Site;
use std::collections::BTreeMap;
use std::path::Path;

/// An object as `pkcs11-tool` shows it: its first line and its fields.
#[derive(Debug)]
pub struct Object {
    pub class: String,
    pub fields: BTreeMap<String, String>,
}

/// Every object of a site's token, the private ones included.
pub async fn objects(site: &Site) -> Vec<Object> {
    objects_on(site, &site.token.label, &site.token.pin_file).await
}

/// How `pkcs11-tool` ends the line of a CKO_MECHANISM. Such an object tells what the module can do and is not stored: a
/// module gives it to those only who ask for the class (PKCS#11 v3.1, 4.12), but kryoptic has one of every mechanism in
/// every listing, on a fresh token too.
const MECHANISM: &str = ", type 7";

/// Every object of one of the module's tokens that the token stores.
pub async fn objects_on(site: &Site, token: &str, pin_file: &Path) -> Vec<Object> {
    let listed = pkcs11_tool(site, token, pin_file, &["--list-objects"]).await;
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
    objects.retain(|object| !object.class.ends_with(MECHANISM));
    objects
}

/// Takes a key pair off a site's token.
pub async fn delete_key_pair(site: &Site, label: &str) {
    for class in ["privkey", "pubkey"] {
        let arguments = ["--delete-object", "--type", class, "--label", label];
        pkcs11_tool(site, &site.token.label, &site.token.pin_file, &arguments).await;
    }
}

/// Takes a secret key off a site's token.
pub async fn delete_secret_key(site: &Site, label: &str) {
    let arguments = ["--delete-object", "--type", "secrkey", "--label", label];
    pkcs11_tool(site, &site.token.label, &site.token.pin_file, &arguments).await;
}

async fn pkcs11_tool(site: &Site, token: &str, pin_file: &Path, action: &[&str]) -> Finished {
    let pin = std::fs::read_to_string(pin_file).unwrap();
    let module = site.token.module.display().to_string();
    let configuration = site.token.configuration.display().to_string();
    let arguments = ["--module", &module, "--token-label", token, "--login", "--pin", pin.trim()];
    let arguments = arguments.into_iter().chain(action.iter().copied());
    run_with("pkcs11-tool", arguments, &[(site.token.variable, &configuration)]).await.ok()
}

impl Object {
    pub fn label(&self) -> &str {
        self.fields.get("label").map_or("", String::as_str)
    }

    pub fn access(&self) -> &str {
        self.fields.get("Access").map_or("", String::as_str)
    }
}
