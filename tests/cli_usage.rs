//! Goal: the command line does what its contract says where no broker is needed: help, exit codes, refusals of unsafe
//! files. Method: the built binary, as a user runs it.

#![allow(clippy::unwrap_used)] // a helper of a test fails the test

use assert_cmd::Command;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn keybroker(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("keybroker")
        .unwrap()
        .args(arguments)
        .env_remove("KEYBROKER_PROFILE")
        .timeout(std::time::Duration::from_secs(60))
        .output()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn write(path: &Path, content: &str, mode: u32) -> String {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

/// A self-signed P-256 certificate and its key, made for these tests; it is registered nowhere.
fn certificate() -> (String, String) {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::KeyPair;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
    use keybroker::ca::{assemble, issue, pem};
    use keybroker::clock::{Clock, SystemClock};
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let spki = key.public_key().as_der().unwrap();
    let validity = std::time::Duration::from_secs(3_600);
    let tbs = issue::root("test", spki.as_ref(), validity, SystemClock.now(), &mut rand::rng()).unwrap();
    let signature = key.sign(&aws_lc_rs::rand::SystemRandom::new(), &tbs.der).unwrap();
    let certificate = assemble(&tbs.der, tbs.algorithm, signature.as_ref());
    (pem("CERTIFICATE", &certificate), pem("PRIVATE KEY", key.to_pkcs8v1().unwrap().as_ref()))
}

/// A port that nothing listens on: bound and given back.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_profile_variable_that_is_empty_counts_as_unset() {
    let output = Command::cargo_bin("keybroker")
        .unwrap()
        .args(["pool", "list"])
        .env("KEYBROKER_PROFILE", "")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("--server is missing"), "{error}");
}

#[test]
fn every_command_explains_itself() {
    let commands: &[&[&str]] = &[
        &[],
        &["demo"],
        &["init"],
        &["serve"],
        &["tenant", "add"],
        &["tenant", "list"],
        &["tenant", "show"],
        &["tenant", "remove"],
        &["anchor", "add"],
        &["anchor", "list"],
        &["anchor", "show"],
        &["anchor", "remove"],
        &["identity", "add"],
        &["identity", "list"],
        &["identity", "show"],
        &["identity", "remove"],
        &["profile", "add"],
        &["profile", "list"],
        &["profile", "show"],
        &["profile", "remove"],
        &["pool", "create"],
        &["pool", "list"],
        &["pool", "show"],
        &["pool", "delete"],
        &["vnfci", "register"],
        &["vnfci", "list"],
        &["vnfci", "show"],
        &["vnfci", "terminate"],
        &["vnfci", "revoke"],
        &["claim"],
        &["release"],
        &["audit", "list"],
        &["audit", "tail"],
        &["audit", "export"],
        &["audit", "verify"],
        &["audit", "receipt"],
        &["doctor"],
        &["bench"],
    ];
    for command in commands {
        let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let (code, out, _) = keybroker(&arguments);
        assert_eq!(code, 0, "{arguments:?}");
        assert!(out.contains("Usage: keybroker"), "{arguments:?}: {out}");
        assert!(out.contains("--output"), "{arguments:?}: {out}");
    }
    assert!(!keybroker(&["--help"]).1.contains("hsm-worker"), "it is not for people");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_to_do() {
    let cases: &[(&[&str], &str)] = &[
        (&["nonsense"], "nonsense"),
        (&["tenant", "add", "Not A Label", "--profile", "x"], "tenant id"),
        (&["tenant", "list"], "--server"),
        (&["tenant", "list", "--profile", "/does/not/exist"], "/does/not/exist"),
        (&["serve", "--config", "/does/not/exist.toml"], "docs/keybroker.toml"),
        (&["vnfci", "register", "a", "--vnf-instance", "v", "--vdu", "d", "--slot", "s"], "NAME=POOL"),
        (&["vnfci", "register", "a", "--vnf-instance", "v", "--vdu", "d", "--slot", "s=p"], "--anchor"),
        (
            &["claim", "--server", "https://127.0.0.1:1", "--trust-anchor", "x", "--out", "y"],
            "--initial-cert",
        ),
        (&["pool", "create", "p", "--vnf-instance", "v", "--vdu", "d", "--target", "many"], "many"),
        (&["audit", "list", "--since", "yesterday"], "2026-01-31T12:00:00Z"),
        (&["demo", "--vnfcis", "0"], "3"),
        (
            &["release", "--server", "https://127.0.0.1:1", "--out", "/does/not/exist"],
            "no directory of a claim",
        ),
    ];
    for (arguments, said) in cases {
        let (code, out, error) = keybroker(arguments);
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
        assert_eq!(out, "", "{arguments:?}");
    }
}

#[test]
fn a_configuration_error_names_file_line_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keybroker.toml");
    let file =
        write(&file, "[hsm]\nmodule = \"m\"\ntoken = \"t\"\npin_file = \"pin\"\npin = \"1234\"\n", 0o644);
    for command in ["init", "serve", "doctor"] {
        let (code, _, error) = keybroker(&[command, "--config", &file]);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("keybroker.toml, line 5: unknown field `pin`"), "{error}");
        assert!(error.contains("docs/keybroker.toml shows every field"), "{error}");
    }
}

#[test]
fn a_broker_that_is_away_ends_with_4() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate();
    let cert = write(&directory.path().join("cert.pem"), &certificate, 0o644);
    let key = write(&directory.path().join("key.pem"), &key, 0o600);
    let server = format!("https://127.0.0.1:{}", free_port());
    let flags = ["--server", &server, "--cert", &cert, "--key", &key, "--trust-anchor", &cert];
    for command in [&["tenant", "list"][..], &["pool", "list"], &["audit", "list"], &["vnfci", "show", "a"]] {
        let arguments: Vec<&str> = command.iter().chain(&flags).copied().collect();
        let (code, out, error) = keybroker(&arguments);
        assert_eq!((code, out.as_str()), (4, ""), "{arguments:?}: {error}");
        assert!(error.contains(&server), "{error}");
    }
    let out = directory.path().join("out").display().to_string();
    let (code, _, error) = keybroker(&[
        "claim",
        "--server",
        &server,
        "--trust-anchor",
        &cert,
        "--initial-cert",
        &cert,
        "--initial-key",
        &key,
        "--out",
        &out,
        "--patience",
        "1s",
    ]);
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("trying again"), "{error}");
    // What is needed to go on is there, and secret.
    let mode =
        |name: &str| directory.path().join("out").join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("recipient.key"), mode("claim.json")), (0o600, 0o600));
}

#[test]
fn a_claim_goes_on_with_the_same_request_and_recipient_key() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate();
    let cert = write(&directory.path().join("cert.pem"), &certificate, 0o644);
    let key = write(&directory.path().join("key.pem"), &key, 0o600);
    let server = format!("https://127.0.0.1:{}", free_port());
    let out = directory.path().join("out");
    let out_text = out.display().to_string();
    let state = || {
        let (code, _, error) = keybroker(&[
            "claim",
            "--server",
            &server,
            "--trust-anchor",
            &cert,
            "--initial-cert",
            &cert,
            "--initial-key",
            &key,
            "--out",
            &out_text,
            "--patience",
            "0s",
        ]);
        assert_eq!(code, 4, "{error}");
        let read = |name: &str| std::fs::read(out.join(name)).unwrap();
        (read("claim.json"), read("recipient.key"))
    };
    assert_eq!(state(), state());
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate();
    let cert = write(&directory.path().join("cert.pem"), &certificate, 0o644);
    let key = write(&directory.path().join("key.pem"), &key, 0o644);
    let token = write(&directory.path().join("token"), "kb1.x.y\n", 0o640);
    let out = directory.path().join("out").display().to_string();
    let server = ["--server", "https://127.0.0.1:1", "--trust-anchor", &cert];
    let cases: [Vec<&str>; 3] = [
        [&["tenant", "list", "--cert", &cert, "--key", &key], &server[..]].concat(),
        [&["claim", "--initial-cert", &cert, "--initial-key", &key, "--out", &out], &server[..]].concat(),
        [&["claim", "--token-file", &token, "--out", &out], &server[..]].concat(),
    ];
    for arguments in cases {
        let (code, _, error) = keybroker(&arguments);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("others may read it") && error.contains("chmod 600"), "{error}");
    }
    assert!(!Path::new(&out).exists(), "nothing was begun");
}

#[test]
fn results_are_json_with_stable_names_when_nobody_looks() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keybroker.toml");
    let file = write(&file, "[hsm]\nmodule = \"none.so\"\ntoken = \"t\"\npin_file = \"pin\"\n", 0o644);
    let (code, out, error) = keybroker(&["doctor", "--config", &file]);
    assert_eq!(code, 1, "{error}");
    for line in out.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let names: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["check", "finding", "remedy", "status"], "{row}");
        assert!(row["status"] != "fail" || row["remedy"].is_string(), "a failure says what to do: {row}");
    }
    assert!(out.contains("no file"), "{out}");
    let (_, table, _) = keybroker(&["doctor", "--config", &file, "--output", "table"]);
    assert!(table.contains("REMEDY") && !table.starts_with('{'), "{table}");
}
