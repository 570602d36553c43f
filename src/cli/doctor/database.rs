//! The database and what it says: tenants, quotas, CAs, the mirror of its log.

use super::Findings;
use crate::audit::mirror::Mirror;
use crate::broker::compare_keks::compare_keks;
use crate::broker::mirror::{Comparison, compare, lacks};
use crate::broker::quotas::Quota;
use crate::broker::reconcile::another_token;
use crate::broker::{BrokerError, ca_fitness, lost_issuers};
use crate::cli::assembly;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{Config, StoreUrl};
use crate::hsm::{Hsm, TokenObject};
use crate::nfv::TenantId;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Leases and deadlines are held against the database's clock, certificates and logs have the broker's.
const CLOCKS_APART: Duration = Duration::from_secs(5);
/// A tenant that has more than this share of what it may have will soon be refused.
const QUOTA_WARNING: f64 = 0.9;
/// Sentences on KEKs that are told.
const SENTENCES: usize = 3;

/// The tenants of the database. What keeps it from being read is said by another check.
pub(super) async fn tenants(config: &Config) -> Vec<TenantId> {
    let Ok(store) = assembly::open_store_to_read(config).await else { return Vec::new() };
    let tenants = store.tenants().await.unwrap_or_default();
    store.close().await;
    tenants.into_iter().map(|tenant| tenant.id).collect()
}

/// Looks at the database, and whether it belongs to the token with this serial number.
pub(super) async fn store(config: &Config, serial: Option<&str>, findings: &mut Findings) {
    match &config.store.url {
        StoreUrl::Sqlite(path) => {
            if !sqlite_file(path, findings) {
                return;
            }
        }
        StoreUrl::Postgres(_) => {
            match assembly::look_at_postgres(config).await {
                Ok(found) => findings.ok("store", found),
                Err(problem) => return findings.fail("store", problem.text, "see the finding"),
            }
            if config.listen.http_url.is_none() {
                let finding = format!("certificates name {} for their CRLs and OCSP", config.http_url());
                let remedy = "several brokers: set [listen] http_url of all of them to one address that reaches any of them";
                findings.warn("http_url", finding, remedy);
            }
        }
    }
    let store = match assembly::open_store_to_read(config).await {
        Ok(store) => store,
        Err(problem) => return findings.fail("schema", problem.text, "see the finding"),
    };
    findings.ok("schema", "known to this program");
    if matches!(config.store.url, StoreUrl::Postgres(_)) {
        let asked = SystemClock.now();
        match store.now().await {
            Ok(theirs) => clocks(asked, theirs, SystemClock.now(), findings),
            Err(error) => findings.fail("clock of the database", error, "see the check store"),
        }
    }
    if let Some(serial) = serial {
        match another_token(&*store, serial).await {
            Ok(None) => findings.ok("token of the database", serial),
            Ok(Some(sentence)) => findings.fail(
                "token of the database",
                sentence,
                "see the finding; `keybroker serve` would fail the same way",
            ),
            Err(error) => findings.fail("token of the database", error, "see the check store"),
        }
    }
    store.close().await;
}

/// Whether a token, the broker's or a tenant's own, and the database have the same KEKs, of those tenants that have their keys
/// there. What keeps the database from being read is said by other checks.
pub(super) async fn keks(
    config: &Config,
    hsm: &Hsm,
    objects: Vec<TokenObject>,
    tenant: Option<&TenantId>,
    is_there: impl Fn(&TenantId) -> bool,
    findings: &mut Findings,
) {
    let check = match tenant {
        None => "token and database".to_owned(),
        Some(tenant) => format!("token and database of tenant {tenant}"),
    };
    // A token with nothing on it is what other checks are about.
    if objects.is_empty() {
        return;
    }
    let Ok(store) = assembly::open_store_to_read(config).await else { return };
    let objects = objects.into_iter().filter_map(|object| object.id);
    let on_token = objects.filter(|id| id.tenant().is_none_or(&is_there)).collect();
    let compared = async {
        if tenant.is_none() && another_token(&*store, &hsm.status().token_serial).await?.is_some() {
            return Ok(None);
        }
        compare_keks(&*store, hsm, &on_token, &is_there).await.map(Some)
    };
    let compared = compared.await;
    store.close().await;
    let told = |sentences: &[String]| {
        let more = sentences.len().saturating_sub(SENTENCES);
        let told = sentences.iter().take(SENTENCES).cloned().collect::<Vec<_>>().join("; ");
        if more == 0 { told } else { format!("{told}; and {more} more") }
    };
    match compared {
        // That it is the wrong one is said by another check.
        Ok(None) => {}
        Err(error) => findings.fail(&check, error, "see the finding"),
        Ok(Some(differences)) if !differences.evidence.is_empty() => {
            let sentences: Vec<String> =
                differences.evidence.into_iter().map(|(_, sentence)| sentence).collect();
            let remedy = "a broker that starts delivers nothing: put back the token that was used last if this is a copy from another \
                          time; if the database was rolled back (see the check audit mirror; with --force, if the mirror was, \
                          too), stop the broker and run keybroker recover (docs/operations.md)";
            findings.fail(&check, told(&sentences), remedy);
        }
        Ok(Some(differences)) if !differences.findings.is_empty() => {
            findings.warn(&check, told(&differences.findings), "see the finding and the checks of the token");
        }
        Ok(Some(_)) => findings.ok(&check, "the same KEKs"),
    }
}

/// Whether the database's clock and this machine's say the same.
fn clocks(asked: Timestamp, theirs: Timestamp, answered: Timestamp, findings: &mut Findings) {
    const CHECK: &str = "clock of the database";
    // The database looked at its clock some time between.
    let apart = asked.since(theirs).max(theirs.since(answered));
    if apart <= CLOCKS_APART {
        findings.ok(CHECK, theirs);
    } else {
        findings.warn(
            CHECK,
            format!("it is {theirs}, and {answered} here: {} s apart", apart.as_secs()),
            "keep both with NTP: certificates have this machine's time, deadlines and leases the database's",
        );
    }
}

/// Whether it is a database.
fn sqlite_file(path: &Path, findings: &mut Findings) -> bool {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut header = [0; 16];
    match std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) if header == *MAGIC => {
            let mode = std::fs::metadata(path).map(|metadata| metadata.mode() & 0o777).unwrap_or_default();
            if mode & 0o007 == 0 {
                findings.ok("store", path.display());
            } else {
                let problem =
                    format!("{} has mode {mode:04o}: everyone on this machine may read it", path.display());
                findings.warn(
                    "store",
                    problem,
                    "chmod 600 it; keys in it are wrapped, names and events are not",
                );
            }
            return true;
        }
        Ok(()) => {
            findings.fail(
                "store",
                format!("{} is no SQLite database", path.display()),
                "correct [store] url",
            );
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let remedy =
                "run keybroker init, or, if there was one, restore a backup as docs/operations.md says";
            findings.fail("store", format!("{} does not exist", path.display()), remedy);
        }
        Err(error) => {
            findings.fail("store", format!("{}: {error}", path.display()), "give keybroker's user access");
        }
    }
    false
}

/// Whether tenants have more than they may, or nearly so. What keeps the database from being read is said by other checks.
pub(super) async fn quotas(config: &Config, findings: &mut Findings) {
    let used = async {
        let store = assembly::open_store_to_read(config).await.ok()?;
        let used = store.quotas_used().await.ok();
        store.close().await;
        used
    };
    for (tenant, used) in used.await.unwrap_or_default() {
        let quotas = assembly::quotas(&config.tenant(&tenant));
        for quota in Quota::ALL {
            let (limit, used) = (quotas.of(quota), used.of(quota));
            let (check, name) = (format!("quotas of tenant {tenant}"), quota.as_str());
            let finding = format!("{used} of {name} = {limit}");
            if used > limit {
                let remedy = "what is there stays, more is refused: raise the quota, or have the tenant give things back";
                findings.warn(&check, finding, remedy);
            } else if used as f64 > QUOTA_WARNING * limit as f64 {
                findings.warn(
                    &check,
                    finding,
                    "raise the quota before more is refused, if that is to be had",
                );
            } else {
                findings.ok(&check, finding);
            }
        }
    }
}

/// Whether there is a mirror of the audit log, and whether the database has everything that it has.
pub(super) async fn mirror(config: &Config, findings: &mut Findings) {
    const CHECK: &str = "audit mirror";
    let database = match &config.store.url {
        StoreUrl::Sqlite(database) if !database.exists() => {
            return findings.ok(CHECK, "there is no database yet");
        }
        StoreUrl::Sqlite(database) => Some(database),
        StoreUrl::Postgres(_) => None,
    };
    let directory = &config.audit.mirror;
    let compared = async {
        let store = assembly::open_store_to_read(config).await.map_err(|failure| failure.text)?;
        let compared = async {
            let compared = compare(&*store, &Mirror::new(directory)).await?;
            let lacks = match &compared {
                Comparison::Agrees(Some(position)) => lacks(&*store, position).await?,
                _ => None,
            };
            Ok::<_, BrokerError>((compared, lacks, store.now().await?))
        };
        let compared = compared.await;
        store.close().await;
        compared.map_err(|error| error.to_string())
    };
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    match compared.await {
        Err(problem) => findings.fail(CHECK, problem, "see the check store"),
        Ok((Comparison::RolledBack(sentence), ..)) => findings.fail(
            CHECK,
            format!("the database was rolled back: {sentence}"),
            "stop the broker and run keybroker recover (docs/operations.md); if the mirror is away, put it back instead",
        ),
        Ok((Comparison::Agrees(None), ..)) => findings.ok(CHECK, "keybroker serve will make it"),
        Ok((Comparison::Agrees(Some(position)), lacks, now)) => {
            let mut finding = format!("{} events in {}", position.size, directory.display());
            if let Some((events, oldest)) = lacks {
                finding += &format!("; it lacks {events}, the oldest of {oldest}");
            }
            if rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_err() {
                let remedy = "let keybroker's user write to it: events that are not in it would be forgotten unnoticed";
                findings.fail(CHECK, format!("{finding}, which may not be written to"), remedy);
            } else if lacks.is_some_and(|(_, oldest)| now.since(oldest) > config.audit.max_lag.0) {
                let remedy = "if a broker runs, it delivers nothing and /readyz says why: is the mirror's storage full or away, does \
                              another broker have the lease to write it? If none runs, the next one catches up";
                findings.warn(CHECK, finding, remedy);
            } else if database.is_some_and(|database| device(directory) == device(database)) {
                let remedy = "set [audit] mirror to other storage: one snapshot or failed disk would take both";
                findings.warn(CHECK, format!("{finding}, on the same storage as the database"), remedy);
            } else {
                findings.ok(CHECK, finding);
            }
        }
    }
}

/// CAs that a recovery could not bring back; when those that issue end.
pub(super) async fn cas(config: &Config, findings: &mut Findings) {
    // The check of the store says that there is none.
    if matches!(&config.store.url, StoreUrl::Sqlite(database) if !database.exists()) {
        return;
    }
    let ends = async {
        let store = assembly::open_store_to_read(config).await.map_err(|failure| failure.text)?;
        let read = async {
            Ok::<_, BrokerError>((ca_fitness::ends(&*store).await?, lost_issuers::named(&*store).await?))
        };
        let read = read.await;
        store.close().await;
        read.map_err(|error| error.to_string())
    };
    let (ends, lost) = match ends.await {
        Ok(read) => read,
        Err(problem) => return findings.fail("CAs", problem, "see the check store"),
    };
    let now = SystemClock.now();
    for ca in lost.iter().filter(|ca| ca.not_after > now) {
        let remedy = "have the CA above it revoke its certificate, as the own roots have; see `recover` in docs/operations.md";
        findings.fail("CAs", ca, remedy);
    }
    let remedy =
        "give it a new key and certificate: keybroker ca rollover, or ca csr and ca import (docs/ca.md)";
    for end in ends {
        if end.ends_at <= now {
            findings.fail("CAs", &end, remedy);
        } else if end.ends_at <= now.plus(ca_fitness::ENDING_SOON) {
            findings.warn("CAs", &end, remedy);
        } else {
            findings.ok("CAs", &end);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests panic")]

    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_far_from_the_databases_is_warned_of_whichever_is_ahead() {
        for (theirs, finding) in
            [(10_001, ""), (10_008, ""), (17_203, "7200 s apart"), (2_800, "7200 s apart")]
        {
            let mut findings = Findings::default();
            let [asked, theirs, answered] = [10_000, theirs, 10_003].map(Timestamp::from_unix_seconds);
            clocks(asked, theirs, answered, &mut findings);
            let (verdict, row) = &findings.0[0];
            assert_eq!(*verdict == Verdict::Warn, !finding.is_empty(), "{row}");
            assert!(row["finding"].as_str().unwrap().contains(finding), "{row}");
        }
    }
}
