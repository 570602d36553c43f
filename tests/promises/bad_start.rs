//! Goal: a broker that cannot start says why and what to do, with the documented exit code, harms nothing, and starts
//! once the cause is removed.
//! Method: `keybroker serve` with one thing wrong at a time: module, token, PIN, ports, database, configuration. Modules
//! are real: SoftHSM, OpenSC's without a reader, a shared library that is none; `softhsm/fault` takes AES-KWP away.

use crate::support::mano::By;
use crate::support::process::{Finished, run};
use crate::support::site::{Options, Site};
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// A site that delivers, with its broker stopped.
struct Stopped {
    site: Site,
    config: String,
    pin: Vec<u8>,
}

impl Stopped {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let mut site = Site::start_with(options).await;
        site.full_pool(POOL, 4).await;
        site.stop().await;
        let config = std::fs::read_to_string(site.config()).unwrap();
        let pin = std::fs::read(&site.token.pin_file).unwrap();
        Self { site, config, pin }
    }

    /// What `serve` says with another configuration, which must end it within its time.
    async fn serve_with(&self, config: &str) -> Finished {
        assert_ne!(config, self.config, "nothing was changed");
        std::fs::write(self.site.config(), config).unwrap();
        let refused = self.serve().await;
        std::fs::write(self.site.config(), &self.config).unwrap();
        refused
    }

    /// What `serve` says.
    async fn serve(&self) -> Finished {
        let config = self.site.config().display().to_string();
        let serving = run(crate::support::process::keybroker(), ["serve", "--config", &config]);
        tokio::time::timeout(crate::support::PATIENCE, serving).await.expect("it serves, or hangs")
    }

    /// The same with another module.
    async fn with_module(&self, module: &Path) -> Finished {
        let ours = format!("{:?}", self.site.token.module.display().to_string());
        self.serve_with(&self.config.replace(&ours, &format!("{:?}", module.display().to_string()))).await
    }

    /// Everything is as before: what was pooled is delivered.
    async fn works_again(mut self) {
        self.site.serve().await;
        let vnfci = self.site.register_one("amf-0001", &SLOTS, By::Certificate).await;
        vnfci.boot(&self.site).await;
    }
}

/// It ended with this code, and one sentence said all of this.
fn said(finished: &Finished, code: i32, all: &[&str]) {
    assert_eq!(finished.code, code, "{finished:?}");
    let sentence = finished.err.lines().find(|line| line.starts_with("keybroker: "));
    let sentence = sentence.unwrap_or_else(|| panic!("no sentence: {finished:?}"));
    for part in all {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
    assert!(!finished.err.contains("panicked"), "{finished:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_or_token_that_is_not_right_is_named_with_a_remedy() {
    let stopped = Stopped::new().await;
    let missing = stopped.with_module(Path::new("/nonexistent/module.so")).await;
    said(&missing, 2, &["/nonexistent/module.so", "module in [hsm]"]);

    let text = stopped.site.path().join("text.so");
    std::fs::write(&text, "not a shared library\n").unwrap();
    said(
        &stopped.with_module(&text).await,
        2,
        &["cannot load the PKCS#11 module", "text.so", "check module"],
    );
    // A shared library, and no PKCS#11 module.
    let library = stopped.site.path().join("library.so");
    let empty = stopped.site.path().join("empty.c");
    std::fs::write(&empty, "int nothing;\n").unwrap();
    let arguments = ["-shared".into(), "-fPIC".into(), "-o".into(), library.clone(), empty];
    run("cc", arguments).await.ok();
    said(&stopped.with_module(&library).await, 2, &["cannot load the PKCS#11 module", "library.so"]);

    // Another vendor's module, which has not our token.
    let opensc = Path::new("/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so");
    if opensc.exists() {
        said(&stopped.with_module(opensc).await, 4, &["no token labelled", "check token"]);
    }
    let other = stopped.config.replace("token = \"keybroker\"", "token = \"another\"");
    said(&stopped.serve_with(&other).await, 4, &["\"another\"", "present: keybroker", "check token"]);

    stopped.works_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_without_key_wrapping_is_refused_by_its_self_test() {
    let stopped = Stopped::with(Options { faulty: true, ..Options::default() }).await;
    // CKR_MECHANISM_INVALID: what a module answers to a mechanism that it does not have.
    stopped.site.faults().set("C_WrapKey return 0x70");
    said(&stopped.serve().await, 4, &["AES-KWP", "0x210A", "CKR_MECHANISM_INVALID"]);
    stopped.site.faults().clear();
    stopped.works_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_is_wrong_missing_or_open_to_others_is_refused_after_one_attempt() {
    let stopped = Stopped::new().await;
    let file = stopped.site.token.pin_file.clone();
    let mode = |mode| std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();

    std::fs::write(&file, "wrong-pin\n").unwrap();
    let wrong = stopped.serve().await;
    said(&wrong, 1, &["PIN"]);
    assert!(!wrong.err.contains("wrong-pin") && !wrong.out.contains("wrong-pin"), "it tells the PIN");
    std::fs::write(&file, "\n").unwrap();
    said(&stopped.serve().await, 2, &["exactly one line"]);
    std::fs::write(&file, [0xff, 0xfe, b'\n']).unwrap();
    said(&stopped.serve().await, 2, &["PIN file"]);
    std::fs::write(&file, &stopped.pin).unwrap();

    for open in [0o644, 0o640, 0o604, 0o660] {
        mode(open);
        said(&stopped.serve().await, 2, &["accessible to others", "chmod 600"]);
    }
    mode(0o600);

    let away = file.with_extension("away");
    std::fs::rename(&file, &away).unwrap();
    said(&stopped.serve().await, 2, &["cannot read the PIN file", "mode 0600"]);
    std::fs::create_dir(&file).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o700)).unwrap();
    said(&stopped.serve().await, 2, &["cannot read the PIN file"]);
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&away, &file).unwrap();
    // Root reads everything; of another user's file it must not be the judge.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
        said(&stopped.serve().await, 2, &["belongs to another user"]);
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    }
    stopped.works_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_its_configuration_key() {
    let stopped = Stopped::new().await;
    let addresses = stopped.site.addresses;
    for (key, address) in [
        ("listen.bootstrap", addresses.bootstrap),
        ("listen.vnfci", addresses.vnfci),
        ("listen.management", addresses.management),
        ("listen.http", addresses.http),
        ("listen.admin", addresses.admin),
    ] {
        let occupied = TcpListener::bind(address).unwrap();
        let refused = stopped.serve().await;
        said(&refused, 1, &[key, &address.to_string(), "another process"]);
        drop(occupied);
    }
    stopped.works_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_left_as_it_is() {
    let stopped = Stopped::new().await;
    let database = stopped.site.database();
    let path = database.display().to_string();
    let sqlite = async |sql: &str| drop(run("sqlite3", [path.as_str(), sql]).await.ok());
    sqlite("PRAGMA wal_checkpoint(TRUNCATE)").await;
    let good = std::fs::read(&database).unwrap();
    let restore = || {
        for suffix in ["db-wal", "db-shm"] {
            let _ = std::fs::remove_file(database.with_extension(suffix));
        }
        std::fs::write(&database, &good).unwrap();
    };

    // Locked by another process: a shell that holds a write transaction until its input ends.
    let mut other =
        Command::new("sqlite3").arg(&database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = other.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"BEGIN IMMEDIATE;\n.print locked\n").unwrap();
    let mut line = String::new();
    let output = other.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    assert_eq!(line, "locked\n");
    said(&stopped.serve().await, 4, &["database", "another process"]);
    drop(input);
    other.wait().unwrap();

    // Of a newer schema.
    sqlite(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the future', 1, x'00', 0)",
    )
    .await;
    said(&stopped.serve().await, 1, &["schema version 9999", "newer"]);
    let config = stopped.site.config().display().to_string();
    let looked = stopped.site.cli(["doctor", "--config", &config]).await;
    assert!(looked.code == 1 && looked.out.contains("schema version 9999"), "{looked:?}");
    restore();
    // Of another program, damaged, a directory, and nowhere.
    std::fs::write(&database, vec![b'x'; 8192]).unwrap();
    said(&stopped.serve().await, 1, &["not a keybroker database", "store.url"]);
    let mut damaged = good.clone();
    damaged[4096..].fill(0xa5);
    std::fs::write(&database, &damaged).unwrap();
    said(&stopped.serve().await, 1, &["damaged", "restore a backup"]);
    assert_eq!(std::fs::read(&database).unwrap(), damaged, "it was changed");
    restore();
    let nowhere = stopped.config.replace("sqlite:keybroker.db", "sqlite:nowhere/keybroker.db");
    said(&stopped.serve_with(&nowhere).await, 1, &["nowhere/keybroker.db"]);
    let directory = stopped.config.replace("sqlite:keybroker.db", "sqlite:profiles");
    said(&stopped.serve_with(&directory).await, 1, &["profiles", "cannot be opened"]);
    stopped.works_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_is_not_made_anew_beside_its_root_or_its_mirror() {
    let stopped = Stopped::new().await;
    let site = &stopped.site;
    let (database, root) = (site.database(), site.root_pem());
    let (lost, away) = (database.with_extension("lost"), root.with_extension("away"));
    std::fs::rename(&database, &lost).unwrap();
    let files = || -> BTreeSet<PathBuf> {
        std::fs::read_dir(site.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let config = site.config().display().to_string();
    for left in ["root.pem", "position.json"] {
        if left != "root.pem" {
            std::fs::rename(&root, &away).unwrap();
        }
        let before = files();
        for command in ["init", "serve", "recover"] {
            let refused = site.cli([command, "--config", &config]).await;
            said(&refused, 1, &["there is no database", left, "nothing was changed", "`keybroker recover`"]);
        }
        assert_eq!(files(), before);
    }
    std::fs::rename(&away, &root).unwrap();
    std::fs::rename(&lost, &database).unwrap();
    stopped.works_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_or_profile_with_an_error_is_named_by_file_line_and_field() {
    let stopped = Stopped::new().await;
    let file = "keybroker.toml";
    for (from, to, all) in [
        ("[store]", "[store]\nurI = \"x\"", &["unknown field `urI`", file][..]),
        ("[store]", "[stone]", &["unknown field `stone`", file]),
        ("[tenant.default]", "[tenant.\"Not A Label\"]", &["tenant", file]),
        ("destruction_horizon = \"2s\"", "destruction_horizon = \"soon\"", &["soon", file]),
        (
            "destruction_horizon = \"2s\"",
            "destruction_horizon = 2",
            &["invalid type: integer", "keybroker.toml, line "],
        ),
        ("sqlite:keybroker.db", "mongodb:keybroker", &["url", file]),
        ("127.0.0.1:", "localhost:", &["invalid socket address", "keybroker.toml, line "]),
        (
            "interactive_workers = 1",
            "interactive_workers = 0",
            &["0 is not a whole number", "keybroker.toml, line "],
        ),
        ("[hsm]", "[hsm", &["line 1", file]),
        ("[hsm]", "[hsm]\nsealing = [\"ROT13\"]", &["ROT13", file]),
    ] {
        let refused = stopped.serve_with(&stopped.config.replacen(from, to, 1)).await;
        // What is wrong in TOML is shown with its line, below the sentence.
        assert_eq!(refused.code, 2, "{to}: {refused:?}");
        for part in all {
            assert!(refused.err.contains(part), "{to}: {part:?} is not in {}", refused.err);
        }
    }
    let profile = stopped.site.path().join("profiles/vnfci-transport.toml");
    let good = std::fs::read_to_string(&profile).unwrap();
    for (change, all) in [
        ("colour = \"blue\"\n", &["vnfci-transport.toml", "colour"][..]),
        ("key_type = \"RSA_1024\"\n", &["vnfci-transport.toml", "RSA_1024"]),
    ] {
        let field = change.split(' ').next().unwrap();
        let others: String =
            good.lines().filter(|line| !line.starts_with(field)).map(|line| format!("{line}\n")).collect();
        std::fs::write(&profile, format!("{others}{change}")).unwrap();
        let refused = stopped.serve().await;
        assert_ne!(refused.code, 0, "{change}");
        for part in all {
            assert!(refused.err.contains(part), "{change}: {part:?} is not in {}", refused.err);
        }
    }
    std::fs::write(&profile, good).unwrap();
    stopped.works_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_is_not_accepted_leaves_everything_in_force() {
    let mut site = Site::start_with(Options::default()).await;
    site.full_pool(POOL, 4).await;
    let config = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), format!("nonsense = 1\n{config}")).unwrap();
    site.broker().signal(rustix::process::Signal::HUP);
    site.until("the refusal of the new configuration", async |site| {
        std::fs::read_to_string(site.log()).unwrap().contains("not reloaded").then_some(())
    })
    .await;
    std::fs::write(site.config(), config).unwrap();
    // With a wrong PIN nothing is taken over either, and the workers that are logged in go on.
    let pin = std::fs::read(&site.token.pin_file).unwrap();
    std::fs::write(&site.token.pin_file, "wrong-pin\n").unwrap();
    site.broker().signal(rustix::process::Signal::HUP);
    site.until("the refusal of the new PIN", async |site| {
        std::fs::read_to_string(site.log()).unwrap().matches("not reloaded").nth(1).map(drop)
    })
    .await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    vnfci.boot(&site).await;
    std::fs::write(&site.token.pin_file, pin).unwrap();
    site.broker().signal(rustix::process::Signal::HUP);
    site.until("a reload", async |site| {
        std::fs::read_to_string(site.log()).unwrap().contains("reloaded: profiles").then_some(())
    })
    .await;
}
