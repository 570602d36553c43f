//! Goal: what was certified after a backup by a CA that the backup does not know is withdrawn after `keybroker recover`, or
//! named; the key of a CA that was forgotten is never another CA's; a later recovery leaves alone what an earlier one saw to.
//! Method: CAs are rolled over after the backup, which is then restored, with SQLite and with PostgreSQL; the CA's key is
//! deleted with `pkcs11-tool`, the mirror removed; `openssl` reads the CRLs.

use super::recovered_ends::{rearm, state};
use super::recovery::{backup, names, recover, restore};
use crate::support::mano::{By, http_exchange};
use crate::support::pkcs11::delete_key_pair;
use crate::support::postgres::{Cluster, Database};
use crate::support::process::openssl;
use crate::support::site::{Options, Site};
use crate::support::vnfci::Claimed;
use keybroker::api::proto;
use serde_json::Value;
use std::path::Path;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
const LATER: [(&str, &str); 1] = [("transport", "later")];

async fn rollover(site: &Site) -> Value {
    site.cli_as("operator", &["ca", "rollover", "main"]).await.ok().object()
}

pub(crate) async fn issuer(site: &Site, id: &str) -> String {
    site.vnfci(id).await.credentials[0].issuer_id.clone()
}

/// A site, a backup of it, and what a CA that was made after it has certified since, with that CA.
async fn certified_after_the_backup(database: Option<&Database>, file: &Path) -> (Site, Claimed, Value) {
    let options = match database {
        Some(database) => Options { store_url: database.url(), ..Options::default() },
        None => Options::default(),
    };
    let mut site = Site::start_with(options).await;
    backup(&site, database, file).await;
    let ca = rollover(&site).await;
    assert_eq!(ca["generation"], 2, "{ca}");
    site.full_pool("later", 1).await;
    let claimed = site.register_one("amf-later", &LATER, By::Certificate).await.boot(&site).await;
    assert_eq!(issuer(&site, "amf-later").await, ca["issuer_id"].as_str().unwrap());
    site.stop().await;
    restore(&site, database, file);
    (site, claimed, ca)
}

/// The list of an issuer as `openssl` shows it, once it has this serial number.
pub(crate) async fn until_listed(site: &mut Site, issuer: &str, serial: &str) -> String {
    site.until("a serial number on a CRL", async |site| {
        // There is none before the first one is signed.
        let url = format!("http://{}/crl/{issuer}.crl", site.addresses.http);
        let (head, list) = http_exchange(&url).await;
        if !head.lines().next()?.contains("200") {
            return None;
        }
        std::fs::write(site.path().join("ca.crl"), list).unwrap();
        let shown = openssl(site.path(), "crl -inform DER -in ca.crl -noout -text").await;
        shown.contains(&serial.to_uppercase()).then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_made_after_the_backup_is_back_after_recovery_and_withdraws_what_it_certified() {
    ca_is_back(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_made_after_the_dump_is_back_after_recovery_and_withdraws_what_it_certified() {
    ca_is_back(Some(&Cluster::common().database())).await;
}

async fn ca_is_back(database: Option<&Database>) {
    let directory = tempfile::tempdir().unwrap();
    let (mut site, claimed, ca) =
        certified_after_the_backup(database, &directory.path().join("backup.db")).await;
    let outcome = recover(&site, &["--yes"]).await["outcome"].clone();
    let id = ca["issuer_id"].as_str().unwrap();
    assert_eq!(names(&outcome["issuers"]), [id].into(), "{outcome}");
    assert_eq!(outcome["unknown_certificates"], 1, "{outcome}");
    assert_eq!(outcome["lost_issuers"], Value::Array(Vec::new()), "{outcome}");
    site.serve().await;
    let serial = hex::encode(&claimed.keys[0].facts.serial);
    let shown = until_listed(&mut site, id, &serial).await;
    let number = shown.split("X509v3 CRL Number:").nth(1).unwrap().split_whitespace().next().unwrap();
    let number = match number.strip_prefix("0x") {
        Some(number) => i64::from_str_radix(number, 16).unwrap(),
        None => number.parse().unwrap(),
    };
    assert!(number > 1_000, "{number}");
    let added = site.events("ISSUER_ADDED").await;
    let back = added.iter().find(|event| event["details"]["issuer"] == id).unwrap();
    assert_eq!((&back["actor"], &back["tenant"]), (&"broker".into(), &"default".into()), "{back}");
    let cas = site.cli_as("operator", &["ca", "list", "--tenant", "default"]).await.ok().objects();
    assert!(cas.iter().any(|ca| ca["issuer_id"] == id && ca["issuing"] == true), "{cas:?}");
    assert_eq!(rollover(&site).await["generation"], 3);
    // It is there once, whenever the database is recovered.
    site.stop().await;
    let outcome = recover(&site, &["--yes", "--force"]).await["outcome"].clone();
    assert_eq!(outcome["issuers"], Value::Array(Vec::new()), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_cannot_be_brought_back_is_named_withdrawn_by_the_root_and_its_generation_not_given_again()
{
    let directory = tempfile::tempdir().unwrap();
    let (mut site, claimed, ca) = certified_after_the_backup(None, &directory.path().join("backup.db")).await;
    delete_key_pair(&site, "keybroker:ca:default:2").await;
    let outcome = recover(&site, &["--yes"]).await["outcome"].clone();
    let [lost] = &outcome["lost_issuers"].as_array().unwrap()[..] else { panic!("{outcome}") };
    assert_eq!((&lost["issuer"], &lost["key_label"]), (&ca["issuer_id"], &"keybroker:ca:default:2".into()));
    let serial = hex::encode(&claimed.keys[0].facts.serial);
    assert_eq!(names(&lost["certificates"]), [serial.as_str()].into(), "{outcome}");
    assert!(lost["why"].as_str().unwrap().contains("not on the token"), "{lost}");
    let config = site.config().display().to_string();
    let rows = site.cli(["doctor", "--config", &config]).await.objects();
    let said = rows.iter().find(|row| row["check"] == "CAs" && row["status"] == "fail").expect("the check");
    let of_ca = lost["serial"].as_str().unwrap();
    assert!(said["finding"].as_str().unwrap().contains(of_ca), "{said}");
    site.serve().await;
    let recovered = site.events("RECOVERED").await;
    assert_eq!(recovered[0]["details"]["lost_issuers"][0], ca["issuer_id"], "{recovered:?}");
    let cas = site.cli_as("operator", &["ca", "list"]).await.ok().objects();
    let root = cas.iter().find(|ca| ca["tenant"].is_null() || ca["tenant"] == "").expect("the root");
    until_listed(&mut site, root["issuer_id"].as_str().unwrap(), of_ca).await;
    // Another CA of its generation would have its name and its responder's key.
    assert_eq!(rollover(&site).await["generation"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_ca_that_the_database_forgot_is_never_another_cas() {
    let directory = tempfile::tempdir().unwrap();
    let (mut site, _, ca) = certified_after_the_backup(None, &directory.path().join("backup.db")).await;
    std::fs::remove_dir_all(site.path().join("audit-mirror")).unwrap();
    recover(&site, &["--yes", "--force"]).await;
    site.serve().await;
    let other = rollover(&site).await;
    assert_eq!(other["generation"], 3, "the key of generation 2 is of {}: {other}", ca["issuer_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_recovery_saw_to_is_left_alone_by_a_later_one() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 6).await;
    let vnfcis = site.register(&["ended", "going", "rearmed"], &SLOTS, By::Token).await;
    let [ending, going, rearming] = &vnfcis[..] else { panic!() };
    ending.boot(&site).await;
    rearming.boot(&site).await;
    let file = site.path().join("backup.db");
    backup(&site, None, &file).await;
    going.boot(&site).await;
    rearm(&site, rearming).await.boot(&site).await;
    site.terminate_vnfci("ended").await;
    site.register_one("new", &SLOTS, By::Certificate).await.boot(&site).await;
    site.stop().await;
    restore(&site, None, &file);
    let first = recover(&site, &["--yes"]).await["outcome"].clone();
    assert_eq!(names(&first["rearm"]), ["default/going", "default/rearmed"].into(), "{first}");
    assert_eq!(names(&first["register"]), ["default/new"].into(), "{first}");
    assert_eq!(names(&first["terminated"]), ["default/ended"].into(), "{first}");

    site.serve().await;
    site.until_available(POOL, 3).await;
    let kept = rearm(&site, going).await.boot(&site).await;
    rearm(&site, rearming).await.boot(&site).await;
    site.terminate_vnfci("rearmed").await;
    site.stop().await;
    let second = recover(&site, &["--yes", "--force"]).await["outcome"].clone();
    for list in ["rearm", "register", "terminated"] {
        assert_eq!(names(&second[list]), [].into(), "{second}");
    }
    site.serve().await;
    assert_eq!(state(&site, "going").await, proto::VnfciState::Active);
    assert_eq!(state(&site, "rearmed").await, proto::VnfciState::Terminated);
    kept.keys[0].trust_chain(&site).await.unwrap();
    site.stop().await;

    // From before the first one: it counts again, with what went out since.
    restore(&site, None, &file);
    let third = recover(&site, &["--yes"]).await["outcome"].clone();
    assert_eq!(names(&third["rearm"]), ["default/going"].into(), "{third}");
    assert_eq!(names(&third["register"]), ["default/new"].into(), "{third}");
    assert_eq!(names(&third["terminated"]), ["default/ended", "default/rearmed"].into(), "{third}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_recovery_withdrew_stays_withdrawn_when_a_younger_backup_is_recovered_next() {
    let mut site = Site::start().await;
    let (older, younger) = (site.path().join("older.db"), site.path().join("younger.db"));
    backup(&site, None, &older).await;
    site.full_pool("later", 1).await;
    let claimed = site.register_one("amf-later", &LATER, By::Certificate).await.boot(&site).await;
    let ca = issuer(&site, "amf-later").await;
    backup(&site, None, &younger).await;
    site.stop().await;
    restore(&site, None, &older);
    let first = recover(&site, &["--yes"]).await["outcome"].clone();
    assert_eq!(first["unknown_certificates"], 1, "{first}");
    assert_eq!(names(&first["register"]), ["default/amf-later"].into(), "{first}");
    let serial = hex::encode(&claimed.keys[0].facts.serial);

    // It knows the VNFCI and its certificate, and nothing of their withdrawal.
    restore(&site, None, &younger);
    let second = recover(&site, &["--yes"]).await["outcome"].clone();
    assert_eq!((&second["revoked"], &second["unknown_certificates"]), (&1.into(), &0.into()), "{second}");
    assert_eq!(names(&second["rearm"]), ["default/amf-later"].into(), "{second}");
    site.serve().await;
    until_listed(&mut site, &ca, &serial).await;
}

/// Found by a tester: a certificate that was imported before and after the restore was that of two CAs after the recovery.
#[tokio::test(flavor = "multi_thread")]
async fn no_ca_and_no_tenant_is_made_while_the_database_may_not_be_the_latest() {
    let directory = tempfile::tempdir().unwrap();
    let (mut site, ..) = certified_after_the_backup(None, &directory.path().join("backup.db")).await;
    site.serve().await;
    let csr = site.path().join("sub.csr").display().to_string();
    let root = site.root_pem().display().to_string();
    for asked in [
        &["ca", "rollover", "main"][..],
        &["ca", "add", "inner"],
        &["ca", "csr", "main", "--out", &csr],
        &["ca", "import", "main", "--certificate", &root],
        &["tenant", "add", "acme"],
    ] {
        let refused = site.cli_as("operator", asked).await;
        assert_eq!(refused.code, 4, "{asked:?}: {}", refused.err);
        // As long as somebody has to act: what goes on by itself is told sooner.
        assert!(refused.err.contains("Try again in 60"), "{asked:?}: {}", refused.err);
    }
}

/// Found by a tester: its CA was given up for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_asks_for_the_token_of_a_tenant_that_the_database_forgot() {
    let section = |token: &str| {
        format!(
            "[tenant.acme]\ntoken = {token:?}\npin_file = \"{token}.pin\"\ndestruction_horizon = \"2s\"\n"
        )
    };
    let more_toml = section("acme");
    let mut site = Site::prepare(Options { more_toml, ..Options::default() });
    site.add_token("acme").await;
    site.add_token("empty").await;
    site.init().await;
    site.serve().await;
    let file = site.path().join("backup.db");
    backup(&site, None, &file).await;
    site.add_tenant("acme").await;
    site.stop().await;
    restore(&site, None, &file);
    let configuration = std::fs::read_to_string(site.config()).unwrap();
    let configure = |text: &str| {
        assert!(configuration.contains(&section("acme")), "{configuration}");
        std::fs::write(site.config(), configuration.replace(&section("acme"), text)).unwrap();
    };
    configure("");
    let config = site.config().display().to_string();
    let refused = site.cli(["recover", "--config", &config, "--yes", "--force"]).await;
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("put its section [tenant.acme]"), "{}", refused.err);
    configure(&section("acme"));
    let outcome = recover(&site, &["--yes"]).await["outcome"].clone();
    assert_eq!(names(&outcome["issuers"]).len(), 1, "{outcome}");
    // If that token is lost.
    restore(&site, None, &file);
    configure(&section("empty"));
    let outcome = recover(&site, &["--yes"]).await["outcome"].clone();
    assert_eq!(outcome["lost_issuers"][0]["key_label"], "keybroker:ca:acme:1", "{outcome}");
}
