//! `keybroker.toml`: parsed once, every value checked where it is read, every path made absolute.
//!
//! The sample with every field is `docs/keybroker.toml`; a test parses it. `value.rs` has the values that know a rule.

mod audit;
mod issuer;
mod listen;
mod revocation;
mod telemetry;
mod tenant;
mod value;

pub use audit::Audit;
pub use issuer::{HttpsUrl, Issuer, IssuerKind};
pub use listen::{Listen, ListenLimits};
pub use revocation::{Ca, Crl, Ocsp, Shards};
pub use telemetry::Telemetry;
pub use tenant::Tenant;
pub use value::{Count, HttpUrl, ServerNames, Share, Suites};

use crate::clock::HumaneDuration;
use crate::hsm::HsmConfig;
use crate::nfv::{IssuerName, TenantId};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The whole configuration. All paths in it are absolute or relative to the process's directory, no longer to the
/// file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The HSM and its workers.
    pub hsm: Hsm,
    /// Where things are kept.
    #[serde(default)]
    pub store: Store,
    /// Where clients reach us.
    #[serde(default)]
    pub listen: Listen,
    /// Where the audit log is exported to.
    #[serde(default)]
    pub audit: Audit,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
    /// Where traces are sent.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// How revocation lists are made.
    #[serde(default)]
    pub crl: Crl,
    /// The OCSP responder.
    #[serde(default)]
    pub ocsp: Ocsp,
    /// CAs that others certify.
    #[serde(default)]
    pub ca: Ca,
    /// Tenants with settings of their own. Others, and what they leave out, have the defaults of [`Tenant`].
    #[serde(default, rename = "tenant")]
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// CAs outside of the broker.
    #[serde(default, rename = "issuer")]
    pub issuers: BTreeMap<IssuerName, Issuer>,
    /// The directory of the file: `root.pem`, `clients/`, `profiles/` are beside it.
    #[serde(skip)]
    pub directory: PathBuf,
}

/// `[hsm]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hsm {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// File with the user PIN: one line, mode 0600.
    pub pin_file: PathBuf,
    /// Environment of the workers. `SOFTHSM2_CONF` is a path; it is passed on from our own environment if absent.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Workers for what someone waits for.
    #[serde(default = "one_worker")]
    pub interactive_workers: Count,
    /// Workers for production and certificates.
    #[serde(default = "one_worker")]
    pub bulk_workers: Count,
    /// Suites that may be used, preferred first.
    #[serde(default)]
    pub sealing: Suites,
    /// Deadline of one call of the HSM, waiting included.
    #[serde(default = "default_call_deadline")]
    pub call_deadline: HumaneDuration,
    /// Calls that may wait per lane.
    #[serde(default = "default_queue")]
    pub queue: Count,
    /// Session objects made after which a worker is replaced.
    #[serde(default = "default_recycle_after")]
    pub recycle_after: Count,
    /// How long the HSM's own backups are kept: text for destruction receipts.
    #[serde(default = "default_backup_retention")]
    pub backup_retention: String,
}

/// `[store]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Where the database is.
    #[serde(default = "default_store_url")]
    pub url: StoreUrl,
    /// File with the password of the PostgreSQL role: one line, mode 0600. Without it `PGPASSFILE` and `PGPASSWORD` count.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Most connections to PostgreSQL.
    #[serde(default = "default_connections")]
    pub connections: Count,
}

/// A database's address: `sqlite:PATH` or `postgres://ROLE@HOST[:PORT]/DATABASE[?OPTION=VALUE]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum StoreUrl {
    /// The embedded database, a file.
    Sqlite(PathBuf),
    /// A PostgreSQL database; never with a password in it.
    Postgres(String),
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// For people or for machines.
    #[serde(default)]
    pub format: LogFormat,
    /// A filter: `info`, or `info,keybroker=debug`.
    #[serde(default = "default_log_level")]
    pub level: String,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A configuration that was not accepted: which file, which line, what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {problem}\n  {remedy}", file.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1; absent if no line is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Config {
    /// Reads and checks a file. Whether the files that it names exist is not looked at: `keybroker doctor` does.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_owned(),
            line: None,
            problem: format!("cannot be read: {error}"),
            remedy: "give the file with --config; docs/keybroker.toml is a sample to start from".to_owned(),
        })?;
        Self::parse(file, &text)
    }

    /// Reads `text` as the content of `file`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let problem = error.message().to_owned();
            ConfigError {
                file: file.to_owned(),
                line: error.span().map(|span| line_of(text, span.start)),
                remedy: remedy(&problem),
                problem,
            }
        })?;
        // "keybroker.toml" has the parent "", which no system call takes.
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        config.directory = parent.unwrap_or(Path::new(".")).to_owned();
        config.resolve_paths();
        config.check_listeners(file, text)?;
        config.check_tokens(file, text)?;
        config.check_issuers(file, text)?;
        Ok(config)
    }

    /// How the HSM's workers are started; `worker_program` is the keybroker binary.
    pub fn hsm(&self, worker_program: &Path) -> HsmConfig {
        HsmConfig {
            owner: None,
            module: self.hsm.module.clone(),
            token: self.hsm.token.clone(),
            pin_file: self.hsm.pin_file.clone(),
            environment: self.hsm.environment.clone(),
            interactive_workers: self.hsm.interactive_workers.get(),
            bulk_workers: self.hsm.bulk_workers.get(),
            sealing: self.hsm.sealing.0.clone(),
            call_deadline: self.hsm.call_deadline.0,
            queue: self.hsm.queue.get(),
            recycle_after: self.hsm.recycle_after.0,
            worker_program: worker_program.to_owned(),
        }
    }

    /// A tenant's settings.
    pub fn tenant(&self, tenant: &TenantId) -> Tenant {
        self.tenants.get(tenant).cloned().unwrap_or_default()
    }

    /// Base of the URLs that are put into certificates, without a slash at its end.
    pub fn http_url(&self) -> String {
        match &self.listen.http_url {
            Some(url) => url.0.clone(),
            None => format!("http://{}", self.listen.http),
        }
    }

    /// Where `init` and operators put profiles.
    pub fn profiles_directory(&self) -> PathBuf {
        self.directory.join("profiles")
    }

    fn resolve_paths(&mut self) {
        let directory = self.directory.clone();
        let absolute = |path: &Path| {
            let joined = directory.join(path);
            // Workers have another directory than we; a path that cannot be made absolute fails when it is used.
            std::path::absolute(&joined).unwrap_or(joined)
        };
        self.hsm.module = absolute(&self.hsm.module);
        self.hsm.pin_file = absolute(&self.hsm.pin_file);
        self.ca.roots = self.ca.roots.iter().map(|file| absolute(file)).collect();
        for tenant in self.tenants.values_mut() {
            for path in [&mut tenant.pin_file, &mut tenant.module].into_iter().flatten() {
                *path = absolute(path);
            }
        }
        for issuer in self.issuers.values_mut() {
            issuer.trust_anchor = absolute(&issuer.trust_anchor);
            issuer.server_trust_anchor = issuer.server_trust_anchor.as_deref().map(absolute);
            issuer.client_certificate = absolute(&issuer.client_certificate);
        }
        if let StoreUrl::Sqlite(database) = &mut self.store.url {
            *database = absolute(database);
        }
        if let Some(file) = &mut self.store.password_file {
            *file = absolute(file);
        }
        self.audit.mirror = absolute(&self.audit.mirror);
        const SOFTHSM: &str = "SOFTHSM2_CONF";
        match self.hsm.environment.get_mut(SOFTHSM) {
            Some(path) => *path = absolute(Path::new(path.as_str())).to_string_lossy().into_owned(),
            None => {
                if let Ok(path) = std::env::var(SOFTHSM) {
                    self.hsm.environment.insert(SOFTHSM.to_owned(), path);
                }
            }
        }
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            let (_, rest) = text.split_once("//").unwrap_or_default();
            let (before_host, _) = rest.split_once('@').unwrap_or_default();
            if before_host.contains(':') || rest.contains("password=") {
                return Err("the store's url has a password in it: write the password into a file of mode 0600, \
                            name that by store.password_file, and change the password if others could read this file"
                    .to_owned());
            }
            return Ok(Self::Postgres(text));
        }
        match text.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path)) {
            Some(path) if !path.is_empty() && !path.contains('?') => Ok(Self::Sqlite(path.into())),
            // Never the text itself: an address of another database may have a password in it.
            _ => Err("the store's url is not of the form sqlite:PATH or \
                      postgres://ROLE@HOST[:PORT]/DATABASE"
                .to_owned()),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: default_store_url(), password_file: None, connections: default_connections() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: default_log_level() }
    }
}

/// One worker per lane: SoftHSM gains from more processes, a network HSM from as many as it has sessions.
fn one_worker() -> Count {
    Count(1)
}

/// 10 s: an RSA-4096 generation of SoftHSM takes 1.2 s, network HSMs answer within 1 s.
fn default_call_deadline() -> HumaneDuration {
    HumaneDuration(Duration::from_secs(10))
}

/// 1,024 calls: what one worker does in well under a second.
fn default_queue() -> Count {
    Count(1_024)
}

/// 200,000 session objects: SoftHSM leaks about 0.5 kB each, so a worker stays below about 100 MB.
fn default_recycle_after() -> Count {
    Count(200_000)
}

/// Nothing is claimed that the operator did not say.
fn default_backup_retention() -> String {
    "unknown".to_owned()
}

/// Four for each of a small server's cores.
fn default_connections() -> Count {
    Count(16)
}

/// The embedded database beside the configuration.
fn default_store_url() -> StoreUrl {
    StoreUrl::Sqlite("keybroker.db".into())
}

/// State changes and what went wrong.
fn default_log_level() -> String {
    "info".to_owned()
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

fn remedy(problem: &str) -> String {
    let remedy = if problem.contains("unknown field") {
        "remove it or correct its spelling; docs/keybroker.toml shows every field"
    } else if problem.contains("missing field") {
        "add it; docs/keybroker.toml shows every field"
    } else {
        "correct this line; docs/keybroker.toml shows every field with an example"
    };
    remedy.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::Suite;

    const SHORTEST: &str = "[hsm]\nmodule = \"/m.so\"\ntoken = \"t\"\npin_file = \"pin\"\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/etc/keybroker/keybroker.toml"), text)
    }

    #[test]
    fn the_sample_parses_and_shows_the_defaults() {
        let sample = include_str!("../docs/keybroker.toml");
        let as_it_is = parse(sample).unwrap();
        // Every field that is commented out, with the value that it says is the default.
        let spelled_out: String = sample
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                // What has no default is left out.
                Some(field)
                    if field.contains(" = ")
                        && !["environment", "token", "pin_file", "module", "password_file"]
                            .iter()
                            .any(|name| field.starts_with(name)) =>
                {
                    format!("{field}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let with_everything = parse(&spelled_out).unwrap();
        assert_eq!(with_everything.listen.http_url, Some(HttpUrl("http://127.0.0.1:7080".to_owned())));
        assert_eq!(as_it_is.http_url(), with_everything.http_url());
        assert_eq!(
            with_everything.telemetry.otlp_endpoint.as_ref().map(HttpUrl::as_str),
            Some("http://127.0.0.1:4317")
        );
        // These are absent by default.
        let without_options = |mut config: Config| {
            config.listen.http_url = None;
            config.listen.est = None;
            config.telemetry.otlp_endpoint = None;
            format!("{config:?}")
        };
        assert_eq!(without_options(as_it_is), without_options(with_everything));
    }

    #[test]
    fn the_configurations_in_deploy_parse() {
        for text in [
            include_str!("../deploy/docker/keybroker.toml"),
            include_str!("../deploy/kubernetes/keybroker.toml"),
        ] {
            assert!(matches!(parse(text).unwrap().store.url, StoreUrl::Postgres(_)));
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let config = parse(SHORTEST).unwrap();
        assert_eq!(config.hsm.interactive_workers.get(), 1);
        assert_eq!(config.hsm.sealing.0, Suite::DEFAULT);
        assert_eq!(config.listen.management.port(), 7445);
        let tenant = config.tenant(&"default".parse().unwrap());
        assert_eq!(tenant.confirm_deadline.0, Duration::from_secs(900));
        assert!(tenant.spend_on_enrolment && !tenant.est_server_key_generation);
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let text = format!("{SHORTEST}environment = {{ SOFTHSM2_CONF = \"softhsm2.conf\" }}\n");
        let config = parse(&text).unwrap();
        assert_eq!(config.hsm.pin_file, Path::new("/etc/keybroker/pin"));
        assert_eq!(config.hsm.module, Path::new("/m.so"));
        assert_eq!(config.store.url, StoreUrl::Sqlite("/etc/keybroker/keybroker.db".into()));
        assert_eq!(config.hsm.environment["SOFTHSM2_CONF"], "/etc/keybroker/softhsm2.conf");
        assert_eq!(config.profiles_directory(), Path::new("/etc/keybroker/profiles"));
    }

    #[test]
    fn an_error_names_file_line_and_remedy() {
        for (line, text, problem) in [
            (5, "pinfile = \"x\"\n", "unknown field"),
            (5, "bulk_workers = 0\n", "whole number"),
            (6, "[tenant.default]\nconfirm_deadline = \"15\"\n", "not a duration"),
            (6, "[store]\nurl = \"oracle:x\"\n", "sqlite:PATH"),
            (6, "[store]\nurl = \"postgres://k:secret@h/d\"\n", "password_file"),
            (6, "[listen]\nserver_names = [\"a b\"]\n", "neither a DNS name"),
            (6, "[listen]\nhttp_url = \"https://x\"\n", "http://HOST"),
            (5, "sealing = []\n", "no suite"),
            (5, "[tenant.acme]\ntoken = \"acme\"\n", "no pin_file"),
            (5, "[tenant.acme]\npin_file = \"acme.pin\"\n", "no token"),
            (5, "[tenant.acme]\ntoken = \"t\"\npin_file = \"acme.pin\"\n", "in use already"),
            (6, "[telemetry]\nsampling = 1.5\n", "from 0 to 1"),
            (6, "[telemetry]\notlp_endpoint = \"collector:4317\"\n", "http://HOST"),
            (5, "[tenant.Default]\n", "tenant id"),
            (8, "[issuer.pki]\nkind = \"est\"\nurl = \"http://x\"\n", "https://HOST"),
            (
                5,
                "[issuer.sub-ca]\nkind = \"est\"\nurl = \"https://x\"\ntrust_anchor = \"r\"\nclient_certificate = \"c\"\n",
                "own CAs",
            ),
            (7, "[listen]\nhttp = \"127.0.0.1:7443\"\nbootstrap = \"127.0.0.1:7443\"\n", "same address"),
        ] {
            let error = parse(&format!("{SHORTEST}{text}")).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(problem), "{text}: {said}");
            assert!(said.starts_with("/etc/keybroker/keybroker.toml, line "), "{said}");
            assert!(error.line.is_some_and(|found| found.abs_diff(line) <= 1), "{text}: {said}");
            assert!(!error.remedy.is_empty());
        }
        assert!(parse("[hsm]\n").unwrap_err().to_string().contains("missing field"));
    }
}
