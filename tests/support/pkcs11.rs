//! What a token holds, as `pkcs11-tool` of OpenSC lists it.

use super::process::run_with;
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

/// Every object of one of the module's tokens.
pub async fn objects_on(site: &Site, token: &str, pin_file: &Path) -> Vec<Object> {
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

impl Object {
    pub fn label(&self) -> &str {
        self.fields.get("label").map_or("", String::as_str)
    }

    pub fn access(&self) -> &str {
        self.fields.get("Access").map_or("", String::as_str)
    }
}
