//! What must be true once a storm is over, looked at from outside: with `sqlite3` or `psql`, `pkcs11-tool`, `openssl` and
//! the exported log.

use super::mano::http_get;
use super::pkcs11::objects;
use super::postgres;
use super::process::run;
use super::site::Site;
use super::vnfci::Claimed;
use keybroker::audit::{AuditPublicKey, SignedReceipt};
use keybroker::nfv::Sha256Hash;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// What VNFCIs unsealed, and what of it they confirmed.
#[derive(Default)]
pub struct Held {
    /// Public key -> VNFCI and recipient key that unsealed it.
    seen: HashMap<Sha256Hash, (String, Sha256Hash)>,
    /// Credential ids.
    pub confirmed: BTreeSet<String>,
}

impl Held {
    /// Notes what a claim brought; panics if somebody else had it before.
    pub fn unsealed(&mut self, vnfci: &str, claimed: &Claimed) {
        for key in &claimed.keys {
            let holder = (vnfci.to_owned(), claimed.recipient_key);
            let before = self.seen.insert(key.facts.public_key, holder.clone());
            assert!(
                before.as_ref().is_none_or(|other| *other == holder),
                "given to {before:?} and {holder:?}"
            );
        }
    }

    /// Notes that the broker acknowledged a claim.
    pub fn acknowledged(&mut self, claimed: &Claimed) {
        self.confirmed.extend(claimed.keys.iter().map(|key| key.credential_id.clone()));
    }

    /// Notes what others noted; panics if two had the same.
    pub fn join(&mut self, other: Self) {
        for (key, holder) in other.seen {
            let before = self.seen.insert(key, holder.clone());
            assert!(before.is_none(), "given to {before:?} and {holder:?}");
        }
        self.confirmed.extend(other.confirmed);
    }

    /// How many keys were unsealed.
    pub fn keys(&self) -> usize {
        self.seen.len()
    }
}

/// The rows of a query on the broker's database, columns joined by `|`. `hex(COLUMN)` shows bytes in both databases.
pub async fn query(site: &Site, sql: &str) -> Vec<String> {
    if let Some(url) = postgres_url(site) {
        let sql = sql.replace("hex(", "pg_temp.hex(");
        return postgres::query(url, &sql);
    }
    let database = site.database().display().to_string();
    let arguments = ["-readonly", "-cmd", ".timeout 10000", &database, sql];
    run("sqlite3", arguments).await.ok().out.lines().map(str::to_owned).collect()
}

/// The database's address, if it is PostgreSQL's.
fn postgres_url(site: &Site) -> Option<&str> {
    if let Some(contained) = &site.options.contained {
        return Some(&contained.database);
    }
    Some(site.options.store_url.as_str()).filter(|url| url.starts_with("postgres:"))
}

/// The one number that a query gives.
pub async fn count(site: &Site, sql: &str) -> u64 {
    query(site, sql).await[0].parse().unwrap()
}

/// Identifiers in the database are 16 bytes: this is how [`query`] shows them, of the text form.
fn hexadecimal(id: &str) -> String {
    id.replace('-', "").to_uppercase()
}

/// Waits until a site has come to rest, and panics unless
///
/// - every claim is confirmed or destroyed, and exactly what VNFCIs had acknowledged is delivered;
/// - there is a wrapped key for every live credential and for no other, and the counters agree with the rows;
/// - the token has a KEK for every live epoch and for no other;
/// - every certificate of the `ended` VNFCIs is on the CRL that relying parties fetch, which `openssl` verifies;
/// - every claimed key whose custody ended has a receipt of shredding that verifies;
/// - the exported log verifies and extends `earlier_head`.
pub async fn assert_settled(site: &mut Site, held: &Held, ended: &[String], earlier_head: &Path) {
    site.until("the end of every claim", async |site| {
        (count(site, "SELECT count(*) FROM claims WHERE state = 'OPEN'").await == 0).then_some(())
    })
    .await;
    site.until("a receipt for every key whose custody ended", async |site| {
        let sql = "SELECT count(*) FROM credentials
                   WHERE claim_id IS NOT NULL AND custody_ended_at IS NOT NULL AND receipt IS NULL";
        (count(site, sql).await == 0).then_some(())
    })
    .await;

    let claimed = "SELECT count(*) FROM credentials WHERE key_state = 'CLAIMED'";
    assert_eq!(count(site, claimed).await, 0, "keys are claimed and no claim is open");
    let sql = "SELECT hex(id) FROM credentials WHERE key_state = 'DELIVERED'";
    let delivered: BTreeSet<String> = query(site, sql).await.into_iter().collect();
    let confirmed: BTreeSet<String> = held.confirmed.iter().map(|id| hexadecimal(id)).collect();
    assert_eq!(delivered, confirmed, "what is delivered, and what VNFCIs had acknowledged");

    assert_rows_agree(site).await;
    token_and_epochs_agree(site).await;
    ended_are_revoked(site, ended).await;
    log_is_whole(site, earlier_head).await;
}

/// What is true at any moment, whatever was interrupted. Panics unless
///
/// - there is a wrapped key for every live credential and for no other, and the counters agree with the rows;
/// - what is held belongs to one claim, and what waits to none;
/// - the token has a KEK for every live epoch and for no other, once no epoch is on its way;
/// - the exported log verifies and extends `earlier_head`.
///
/// Gives the directory of the exported log.
pub async fn assert_consistent(site: &mut Site, earlier_head: &Path) -> PathBuf {
    assert_rows_agree(site).await;
    token_and_epochs_agree(site).await;
    log_is_whole(site, earlier_head).await
}

async fn assert_rows_agree(site: &Site) {
    const LIVE: &str = "('GENERATED', 'AVAILABLE', 'CLAIMED')";
    for (what, sql) in [
        (
            "wrapped keys of credentials that are not live",
            format!(
                "SELECT count(*) FROM key_blobs
                 WHERE credential NOT IN (SELECT id FROM credentials WHERE key_state IN {LIVE})"
            ),
        ),
        (
            "live credentials without a wrapped key",
            format!(
                "SELECT count(*) FROM credentials
                 WHERE key_state IN {LIVE} AND id NOT IN (SELECT credential FROM key_blobs)"
            ),
        ),
        (
            "live credentials in an epoch that is not",
            format!(
                "SELECT count(*) FROM credentials JOIN epochs ON epochs.id = epoch
                 WHERE key_state IN {LIVE} AND state NOT IN ('OPEN', 'CLOSED')"
            ),
        ),
        (
            "epochs whose counter is wrong",
            format!(
                "SELECT count(*) FROM epochs
                 WHERE (SELECT coalesce(sum(live), 0) FROM epoch_levels WHERE epoch = epochs.id) <>
                 (SELECT count(*) FROM credentials WHERE epoch = epochs.id AND key_state IN {LIVE})"
            ),
        ),
        (
            "pools whose counter is wrong",
            "SELECT count(*) FROM (SELECT pool, key_state, sum(keys) AS keys FROM pool_levels GROUP BY pool, key_state) AS l
             WHERE key_state <> 'DRAWN' AND keys <>
             (SELECT count(*) FROM credentials WHERE credentials.pool = l.pool AND credentials.key_state = l.key_state)"
                .to_owned(),
        ),
        (
            "tenants whose counter is wrong",
            "SELECT count(*) FROM tenants WHERE
             (SELECT coalesce(sum(vnfcis), 0) FROM tenant_levels WHERE tenant = tenants.id) <>
             (SELECT count(*) FROM vnfcis WHERE tenant = tenants.id AND state IN ('REGISTERED', 'ACTIVE'))"
                .to_owned(),
        ),
        (
            "receipts of anything but a shredded copy",
            "SELECT count(*) FROM credentials
             WHERE receipt IS NOT NULL AND key_state <> 'EXTERNAL'
             AND receipt NOT LIKE '%\"state\":\"SHREDDED\"%'"
                .to_owned(),
        ),
        (
            "slots of an arming with several valid certificates",
            "SELECT count(*) FROM (SELECT 1 FROM claims JOIN credentials ON claim_id = claims.id
             JOIN certificates ON credential = credentials.id
             WHERE claims.state IN ('CONFIRMED', 'RENEWED') AND certificates.state = 'VALID'
             GROUP BY claims.initial_credential, slot HAVING count(*) > 1) AS several"
                .to_owned(),
        ),
        (
            "credentials that are held and belong to no claim, or are not held and belong to one",
            "SELECT count(*) FROM credentials
             WHERE (key_state IN ('CLAIMED', 'DELIVERED') AND claim_id IS NULL)
                OR (key_state IN ('GENERATED', 'AVAILABLE') AND claim_id IS NOT NULL)"
                .to_owned(),
        ),
    ] {
        assert_eq!(count(site, &sql).await, 0, "{what}");
    }
    // PostgreSQL has no such look at itself, and takes no broken reference.
    if postgres_url(site).is_none() {
        assert_eq!(query(site, "SELECT count(*) FROM pragma_foreign_key_check").await, ["0"]);
        assert_eq!(query(site, "PRAGMA integrity_check").await, ["ok"]);
    }
}

/// Waits until no epoch is on its way; then every KEK on the token is named by a live epoch and the other way round.
async fn token_and_epochs_agree(site: &mut Site) {
    let (on_token, live) = site
        .until("the same KEKs on the token and in the database", async |site| {
            let moving = "SELECT count(*) FROM epochs WHERE state IN ('CREATING', 'SHREDDING')";
            let sql = "SELECT hex(id) FROM epochs WHERE state IN ('OPEN', 'CLOSED') ORDER BY 1";
            let before = query(site, sql).await;
            let found = objects(site).await;
            // An epoch that began or ended while the token was listed says nothing.
            if count(site, moving).await > 0 || query(site, sql).await != before {
                return None;
            }
            let keks = found.iter().filter_map(|object| object.label().strip_prefix("keybroker:kek:"));
            let mut on_token: Vec<String> =
                keks.map(|kek| hexadecimal(kek.rsplit_once(':').unwrap().1)).collect();
            on_token.sort();
            // One that is being made or destroyed has no label for a moment; what was left on the token stays.
            if let Some(left) = found.iter().find(|object| !object.label().starts_with("keybroker:")) {
                eprintln!("on the token: {left:?}");
                return None;
            }
            Some((on_token, before))
        })
        .await;
    assert_eq!(on_token, live, "KEKs on the token, and live epochs");
}

/// Every certificate of these VNFCIs is revoked, on a CRL that openssl accepts.
async fn ended_are_revoked(site: &mut Site, ended: &[String]) {
    if ended.is_empty() {
        return;
    }
    let names = ended.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
    let of_ended = format!(
        "FROM certificates JOIN credentials ON credentials.id = credential
         JOIN claims ON claims.id = credentials.claim_id WHERE claims.vnfci IN ({names})"
    );
    site.until("the revocation of every certificate", async |site| {
        let sql = format!("SELECT count(*) {of_ended} AND certificates.state <> 'REVOKED'");
        (count(site, &sql).await == 0).then_some(())
    })
    .await;
    let unended = format!("SELECT count(*) {of_ended} AND custody_ended_at IS NULL");
    assert_eq!(count(site, &unended).await, 0, "keys of ended VNFCIs whose custody goes on");
    let serials = query(site, &format!("SELECT hex(serial) {of_ended}")).await;
    assert!(serials.len() >= ended.len(), "{} certificates of {} VNFCIs", serials.len(), ended.len());

    let issuer = query(site, &format!("SELECT DISTINCT lower(hex(issuer)) {of_ended}")).await;
    assert_eq!(issuer.len(), 1, "{issuer:?}");
    let issuer = uuid::Uuid::parse_str(&issuer[0]).unwrap();
    let crl = http_get(&format!("http://{}/crl/{issuer}.crl", site.addresses.http)).await;
    let (crl_file, chain_file) = (site.path().join("settled.crl"), site.path().join("settled.chain.pem"));
    std::fs::write(&crl_file, crl).unwrap();
    std::fs::write(&chain_file, site.get(false, "/chain/default.pem").await).unwrap();
    let (crl_file, chain_file) = (crl_file.display().to_string(), chain_file.display().to_string());
    let arguments = ["crl", "-inform", "DER", "-in", &crl_file, "-noout", "-text", "-CAfile", &chain_file];
    let shown = run("openssl", arguments).await.ok();
    assert!(shown.err.contains("verify OK"), "{}", shown.err);
    let listed: HashSet<String> = shown
        .out
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Serial Number: "))
        .map(|serial| serial.trim_start_matches('0').to_owned())
        .collect();
    for serial in &serials {
        assert!(listed.contains(serial.trim_start_matches('0')), "{serial} is not on the CRL");
    }
}

/// The exported log verifies, extends an earlier head, and has a receipt that verifies for every one in the database.
async fn log_is_whole(site: &mut Site, earlier_head: &Path) -> PathBuf {
    let export = site.export("settled").await;
    let report = site.verify(&export, &[earlier_head]).await.ok().object();
    assert_eq!((&report["verified"], &report["extends"]), (&true.into(), &1.into()), "{report}");
    let key = AuditPublicKey::from_pem(&std::fs::read(site.audit_key()).unwrap()).unwrap();
    let mut in_log = BTreeSet::new();
    for line in std::fs::read_to_string(export.join("events.jsonl")).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        if row["event"]["kind"] == "DESTRUCTION_RECEIPT" {
            let details = &row["event"]["details"];
            let receipt: SignedReceipt = match details.as_str() {
                Some(text) => serde_json::from_str(text).unwrap(),
                None => serde_json::from_value(details.clone()).unwrap(),
            };
            receipt.verify(&key).unwrap();
            let new = in_log.insert(hexadecimal(&receipt.receipt.credential.to_string()));
            assert!(new, "two receipts for {}", receipt.receipt.credential);
        }
    }
    let sql = "SELECT hex(id) FROM credentials WHERE receipt IS NOT NULL";
    let kept: BTreeSet<String> = query(site, sql).await.into_iter().collect();
    assert_eq!(in_log, kept, "receipts in the log, and in the database");
    export
}
