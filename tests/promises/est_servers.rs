//! Goal: our EST client (SEC 005 8.1.2.3, RFC 7030, RFC 8951) fills pools from servers as they are in use, and takes nothing
//! that was not asked for, with an error that says what is wrong.
//! Method: tests/interop/est_server.py, which shares no code with us, behaves in every such way in turn; a pool is filled
//! through each of them, or the broker's log says why not, and the pool is filled once the server behaves.

use crate::support::process::run;
use crate::support::site::{ANCHOR, Options, Site};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Runs until it is dropped.
struct Server {
    directory: TempDir,
    port: u16,
    process: Child,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("keybroker-est-").tempdir().unwrap();
        let mut process = Command::new(python())
            .arg(script())
            .arg("serve")
            .arg(directory.path())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { port: line.trim().parse().unwrap(), directory, process }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn behave(&self, behaviour: &Value) {
        // Never half a file.
        let next = self.file("behaviour.next");
        std::fs::write(&next, behaviour.to_string()).unwrap();
        std::fs::rename(next, self.file("behaviour.json")).unwrap();
    }

    /// `[issuer.NAME]`.
    fn section(&self, name: &str, more: &str) -> String {
        format!(
            "[issuer.{name}]\nkind = \"est\"\nurl = \"https://127.0.0.1:{}\"\nlabel = \"nfv\"\ntrust_anchor = {:?}\n\
             client_certificate = \"{name}.pem\"\n{more}\n",
            self.port,
            self.file("root.pem"),
        )
    }

    /// A certificate with its chain, PEM, for a request.
    async fn sign(&self, request_pem: &str) -> String {
        let request = self.file("client.csr");
        std::fs::write(&request, request_pem).unwrap();
        let (script, request) = (script().into_os_string(), request.into_os_string());
        let arguments = [script, "sign".into(), self.directory.path().into(), request];
        run(python(), arguments).await.ok().out
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    assert!(python.exists(), "{} is not there: run `make tools`", python.display());
    python
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/est_server.py")
}

/// A broker with issuers, each with a profile of its name, and a client certificate that the named server signed.
async fn site(issuers: &[(&str, &Server, &str, &Server)]) -> Site {
    let sections = issuers.iter().map(|(name, server, more, _)| server.section(name, more));
    let mut site = Site::prepare(Options { more_toml: sections.collect(), ..Options::default() });
    site.init().await;
    for (name, _, _, signer) in issuers {
        let config = site.config().display().to_string();
        let requested = site.cli(["issuer", "request", name, "--config", &config]).await.ok().object();
        let certificate = signer.sign(requested["request"].as_str().unwrap()).await;
        std::fs::write(site.path().join(format!("{name}.pem")), certificate).unwrap();
    }
    site.serve().await;
    site.add_anchor("default", ANCHOR, &site.mano_ca).await;
    for (name, ..) in issuers {
        let toml = format!(
            "issuer = {name:?}\nsubject = \"CN={{vdu}}.{{vnf_instance}},O=Operator\"\n\
             san = [\"uri:urn:uuid:{{credential}}\"]\nvalidity = \"3d\"\n"
        );
        let file = site.path().join(format!("{name}.toml"));
        std::fs::write(&file, toml).unwrap();
        site.cli_as("operator", &["profile", "add", &file.display().to_string()]).await.ok();
    }
    site
}

/// What the broker said since.
async fn until_said(site: &mut Site, from: usize, text: &str) {
    site.until(text, async |site| {
        let log = std::fs::read(site.log()).unwrap();
        String::from_utf8_lossy(&log[from..]).contains(text).then_some(())
    })
    .await;
}

fn said(site: &Site) -> usize {
    usize::try_from(std::fs::metadata(site.log()).unwrap().len()).unwrap()
}

/// csrattrs: extensionRequest of a macAddress, P-256 keys, ecdsa-with-SHA256.
const USUAL_ATTRIBUTES: &str = "3039301606092a864886f70d01090e310906072b060101010116301506072a8648ce3d0201310a06082a8648ce3d03010706082a8648ce3d040302";

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_filled_whatever_way_of_speaking_est_a_server_has() {
    let server = Server::start(&[]);
    let mut site = site(&[("pki", &server, "", &server)]).await;
    let taken = [
        json!({ "encoding": "lines", "header_case": "lower", "transfer_encoding_header": false }),
        json!({ "encoding": "crlf", "header_case": "upper", "framing": "chunked" }),
        json!({ "content_type": "application/pkcs7-mime" }),
        json!({ "content_type": "Application/x-pkcs7-mime;smime-type=certs-only; charset=utf-8" }),
        json!({ "http": "1.0" }),
        json!({ "http": "1.0", "framing": "close" }),
        json!({ "framing": "close" }),
        json!({ "hang_up": true }),
        json!({ "cms": "ber", "crl": true }),
        json!({ "crl": true, "encoding": "lines" }),
        json!({ "cms": "empty-content" }),
        json!({ "cacerts": ["root", "sub"], "answer": ["root", "sub", "leaf"] }),
        json!({ "cacerts": ["root"], "answer": ["leaf", "sub"] }),
        json!({ "cacerts": ["sub"] }),
        json!({ "cacerts": ["root"], "issuer": "root" }),
        json!({ "cacerts": ["stranger", "expired", "garbage", "sub", "stranger-sub", "sub"] }),
        json!({
            "issuer": "new-sub",
            "cacerts": ["new-sub", "new-with-new", "old-with-new", "new-with-old", "root"]
        }),
        json!({ "csrattrs": 200 }),
        json!({ "csrattrs": 404 }),
        json!({ "csrattrs": 501 }),
        json!({ "csrattrs": "3000" }),
        json!({ "csrattrs": USUAL_ATTRIBUTES, "encoding": "crlf" }),
        json!({ "leaf": ["more-extensions"] }),
        json!({ "leaf": ["no-key-usage"], "days": 2.5 }),
        json!({ "first": { "simpleenroll": [202, { "Retry-After": "1" }, ""] }, "times": 2 }),
        json!({ "first": { "simpleenroll": [202, { "Retry-After": "DATE+4" }, "later"] } }),
        json!({ "first": { "simpleenroll": [202, { "Retry-After": "0" }, ""] }, "times": 4 }),
        json!({ "first": { "cacerts": [503, { "Retry-After": "DATE+2" }, "starting"] } }),
        json!({ "first": { "simpleenroll": [503, { "Retry-After": "1" }, "busy"] } }),
        json!({ "first": { "simpleenroll": [500, {}, "<html>oops</html>"] } }),
        json!({ "redirect": [307, "PATH?again"] }),
        json!({ "redirect": [302, "PATH?again"] }),
    ];
    for (number, behaviour) in taken.iter().enumerate() {
        eprintln!("taken: {behaviour}");
        server.behave(behaviour);
        site.full_pool_of("pki", &format!("taken-{number}"), 2).await;
    }
    assert_eq!(site.events("CERTIFICATE_REJECTED").await, Vec::<Value>::new());
    site.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_must_not_send_is_refused_with_the_reason_and_the_remedy() {
    let server = Server::start(&[]);
    let mut site = site(&[("pki", &server, "", &server)]).await;
    let always = u32::MAX;
    let refused = [
        (json!({ "cacerts": ["stranger", "stranger-sub"] }), "do not lead to the configured root"),
        (json!({ "cacerts": ["expired"] }), "do not lead to the configured root"),
        (json!({ "cacerts": ["garbage"] }), "cannot be read"),
        (json!({ "cms": "garbage" }), "its answer is not understood"),
        (json!({ "cms": "content" }), "content beside certificates"),
        (json!({ "cms": "signed" }), "content beside certificates"),
        (json!({ "encoding": "der" }), "the body is not base64"),
        (json!({ "encoding": "pem" }), "the body is not base64"),
        (json!({ "content_type": "text/html" }), "not application/pkcs7-mime"),
        (json!({ "framing": "cut-length" }), "its answer broke off"),
        (json!({ "framing": "cut-chunked" }), "its answer broke off"),
        (json!({ "framing": "cut-close" }), "its answer is not understood"),
        (json!({ "framing": "endless" }), "longer than 1048576 bytes"),
        (json!({ "csrattrs": "300b06092a864886f70d010907" }), "have the server not demand it"),
        (json!({ "csrattrs": "300b06092a864886f70d010101" }), "change the profile's key_type"),
        (json!({ "csrattrs": "0401ff" }), "csrattrs:"),
        (json!({ "answer": ["other"] }), "it is for another key"),
        (json!({ "answer": ["sub", "root"] }), "it is for another key"),
        (json!({ "answer": [] }), "0 certificates"),
        (json!({ "answer": ["leaf", "leaf"] }), "several for the key"),
        (json!({ "issuer": "stranger-sub", "answer": ["leaf", "stranger-sub"] }), "no path leads from it"),
        (json!({ "issuer": "expired", "answer": ["leaf", "expired"] }), "no path leads from it"),
        (json!({ "leaf": ["subject"] }), "its subject is"),
        (json!({ "leaf": ["san"] }), "stranger.example"),
        (json!({ "leaf": ["no-eku"] }), "extended key usages are others than the profile's: it has none"),
        (json!({ "leaf": ["more-eku"] }), "1.3.6.1.5.5.7.3.3"),
        (json!({ "leaf": ["ca"] }), "it is a CA's"),
        (json!({ "leaf": ["critical"] }), "1.3.6.1.4.1.32473.9"),
        (json!({ "days": 1 }), "min_remaining_at_claim"),
        (json!({ "days": 10 }), "have the CA issue for no longer"),
        (
            json!({ "first": { "simpleenroll": [401, { "WWW-Authenticate": "Basic realm=est" }, ""] }, "times": always }),
            "it wants HTTP authentication (Basic realm=est)",
        ),
        (
            json!({ "first": { "simpleenroll": [403, {}, "policy\u{7} says\nno"] }, "times": always }),
            "403 Forbidden policy  says no",
        ),
        (json!({ "redirect": [302, "https://127.0.0.1:9/PATH"] }), "is not followed"),
        (json!({ "redirect": [303, "PATH?again"] }), "is not followed"),
        (json!({ "redirect": [301, "PATH"] }), "redirects more than 3 times"),
    ];
    for (number, (behaviour, reason)) in refused.iter().enumerate() {
        eprintln!("refused: {behaviour}");
        let (pool, from) = (format!("refused-{number}"), said(&site));
        server.behave(behaviour);
        site.create_pool_of("pki", &pool, 2).await;
        until_said(&mut site, from, reason).await;
        assert_eq!(site.levels(&pool).await.ready, 0, "{behaviour}");
        server.behave(&json!({}));
        site.until_available(&pool, 2).await;
    }
    site.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_with_other_keys_another_tls_or_another_pki_for_it_fill_pools() {
    let rsa = Server::start(&["--ca", "rsa", "--tls-key", "rsa", "--tls-1.2"]);
    let p384 = Server::start(&["--ca", "p384", "--tls-key", "p384", "--tls-1.2"]);
    let ed25519 = Server::start(&["--ca", "ed25519", "--stranger-tls"]);
    let anchor = format!("server_trust_anchor = {:?}", ed25519.file("web.pem"));
    let mut site = site(&[
        ("rsa", &rsa, "", &rsa),
        ("p384", &p384, "", &p384),
        ("ed25519", &ed25519, &anchor, &ed25519),
        ("mistrusted", &ed25519, "", &ed25519),
        ("unwelcome", &rsa, "", &p384),
    ])
    .await;
    for name in ["rsa", "p384", "ed25519"] {
        site.full_pool_of(name, name, 3).await;
    }
    for (name, remedy) in [
        ("mistrusted", "must lead to trust_anchor, or to server_trust_anchor"),
        ("unwelcome", "it does not accept our TLS client certificate"),
    ] {
        let from = said(&site);
        site.create_pool_of(name, name, 1).await;
        until_said(&mut site, from, remedy).await;
        let levels = site.levels(name).await;
        assert_eq!((levels.generated, levels.ready), (0, 0), "{name}");
    }
    site.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drips_is_given_up_and_one_that_says_later_without_a_time_is_asked_again() {
    let server = Server::start(&[]);
    let mut site = site(&[("pki", &server, "", &server)]).await;
    let from = said(&site);
    server.behave(&json!({ "framing": "drip" }));
    site.create_pool_of("pki", "dripped", 1).await;
    until_said(&mut site, from, "timed out").await;
    server.behave(&json!({ "first": { "simpleenroll": [202, {}, ""] } }));
    site.until_available("dripped", 1).await;
    site.check();
}
