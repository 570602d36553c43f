//! Goal: what is withdrawn is refused everywhere at once: by OCSP from the commit on, by the CRL that the certificate names
//! as soon as it is signed, by keybroker itself; and nothing that is thrown at the responder gets more than its own error.
//! Method: `openssl ocsp`, `openssl crl`, `openssl verify`, `openssl s_server` and pkilint judge; plain HTTP asks.

use crate::support::mano::{By, request_id};
use crate::support::process::{Finished, run};
use crate::support::site::{Options, Site};
use crate::support::vnfci::{Claimed, Delivered};
use crate::support::{PATIENCE, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keybroker::api::proto;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::ca::pem;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

/// A delivered credential as files.
struct Files {
    cert: PathBuf,
    issuer: PathBuf,
    /// Root and issuers.
    anchors: PathBuf,
}

impl Files {
    fn write(site: &Site, name: &str, key: &Delivered) -> Self {
        let directory = site.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let write = |file: &str, ders: &[&[u8]]| {
            let path = directory.join(file);
            std::fs::write(&path, ders.iter().map(|der| pem("CERTIFICATE", der)).collect::<String>())
                .unwrap();
            path
        };
        Self {
            cert: write("cert.pem", &[&key.certificate_der]),
            issuer: write("issuer.pem", &[&key.chain_der[0]]),
            anchors: write("anchors.pem", &[&key.root_der, &key.chain_der[0]]),
        }
    }
}

/// An answer of the HTTP listener.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

async fn ask(site: &Site, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(site.addresses.http).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an HTTP answer");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status,
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: answer.split_off(end + 4),
    }
}

async fn ocsp(site: &Site, files: &Files, more: &[&str]) -> Finished {
    let url = format!("http://{}/ocsp", site.addresses.http);
    let path = |path: &Path| path.display().to_string();
    let mut arguments = vec!["ocsp".to_owned(), "-url".to_owned(), url];
    arguments.extend(["-CAfile".to_owned(), path(&files.anchors), "-issuer".to_owned(), path(&files.issuer)]);
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    if !more.contains(&"-serial") {
        arguments.extend(["-cert".to_owned(), path(&files.cert)]);
    }
    run("openssl", arguments).await
}

/// Waits until the responder has its certificate.
async fn until_responding(site: &Site, files: &Files) -> Finished {
    until(PATIENCE, "an OCSP response", async || {
        let asked = ocsp(site, files, &[]).await;
        asked.out.contains("good").then_some(asked)
    })
    .await
}

/// The request that `openssl` would send, DER.
async fn request(site: &Site, files: &Files, more: &[&str]) -> Vec<u8> {
    let file = site.path().join("request.der");
    let mut arguments: Vec<String> = ["ocsp", "-reqout"].map(str::to_owned).into();
    arguments.extend([file.display().to_string(), "-issuer".to_owned(), files.issuer.display().to_string()]);
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments.extend(["-cert".to_owned(), files.cert.display().to_string()]);
    run("openssl", arguments).await.ok();
    std::fs::read(file).unwrap()
}

async fn claimed(site: &Site, id: &str) -> Claimed {
    site.register_one(id, &SLOTS, By::Certificate).await.boot(site).await
}

async fn revoke(site: &Site, vnfci: &str) -> proto::RevokeCertificateResponse {
    let credential = site.vnfci(vnfci).await.credentials[0].clone();
    let request = proto::RevokeCertificateRequest {
        request_id: request_id(),
        issuer_id: credential.issuer_id,
        serial: credential.serial,
        reason: proto::RevocationReason::KeyCompromise.into(),
        ..Default::default()
    };
    let mut client = LifecycleServiceClient::new(site.management("nfvo").await);
    client.revoke_certificate(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_and_pkilint_accept_every_ocsp_answer_and_a_revocation_counts_at_once() {
    let more_toml = "[ocsp]\nnonce = true\n".to_owned();
    let mut site = Site::start_with(Options { more_toml, ..Options::default() }).await;
    site.full_pool(POOL, 2).await;
    let claim = claimed(&site, "amf-0001").await;
    let other = claimed(&site, "amf-0002").await;
    let files = Files::write(&site, "amf-0001", &claim.keys[0]);
    let asked = until_responding(&site, &files).await;
    assert!(asked.err.contains("Response verify OK"), "{asked:?}");
    assert!(!asked.err.contains("no nonce"), "a nonce comes back: {asked:?}");
    // Pre-signed, and for the hash that the client chose.
    let response = site.path().join("response.der").display().to_string();
    for hash in ["-sha1", "-sha256", "-sha384", "-sha512"] {
        let asked = ocsp(&site, &files, &["-no_nonce", hash, "-respout", &response]).await.ok();
        assert!(asked.out.contains(": good") && asked.err.contains("Response verify OK"), "{asked:?}");
        lint(&response).await;
    }
    let asked = ocsp(&site, &files, &["-serial", "0x4711"]).await.ok();
    assert!(asked.out.contains(": unknown") && asked.err.contains("Response verify OK"), "{asked:?}");
    // The root's certificates are not the responder's business: its CRL speaks for them.
    let root =
        Files { issuer: files.anchors.clone(), cert: files.issuer.clone(), anchors: files.anchors.clone() };
    let asked = ocsp(&site, &root, &[]).await;
    assert!(asked.out.contains(": unknown") || asked.err.contains("unauthorized"), "{asked:?}");

    assert!(revoke(&site, "amf-0001").await.newly_revoked);
    let asked = ocsp(&site, &files, &["-no_nonce", "-respout", &response]).await;
    assert!(asked.out.contains(": revoked") && asked.out.contains("Reason: keyCompromise"), "{asked:?}");
    assert!(asked.err.contains("Response verify OK"), "{asked:?}");
    lint(&response).await;
    let connection = site.connect(&site.vnfci_url(), &claim.keys[0].credential()).await;
    let mut client = proto::credential_service_client::CredentialServiceClient::new(connection.channel);
    let refused = client.get_trust_chain(proto::GetTrustChainRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "keybroker itself refuses it: {refused}");
    // The other one is untouched.
    let others = Files::write(&site, "amf-0002", &other.keys[0]);
    assert!(ocsp(&site, &others, &[]).await.out.contains(": good"));
    // Its token object, its certificate's event.
    let certified = site
        .until("the responder's event, chained", async |site| {
            let certified = site.events("OCSP_RESPONDER_CERTIFIED").await;
            (!certified.is_empty()).then_some(certified)
        })
        .await;
    assert_eq!(certified.len(), 1, "{certified:?}");
    assert_eq!(certified[0]["details"]["key_label"], "keybroker:ocsp:default:1");
}

/// pkilint finds nothing wrong with an OCSP response.
async fn lint(response: &str) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/lint_ocsp_response");
    assert!(program.exists(), "pkilint is not installed: run `make tools` once");
    let output =
        run(program, ["lint", "-s", "WARNING", "-f", "JSON", "--document-format", "DER", response]).await;
    let report: serde_json::Value =
        serde_json::from_str(&output.out).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(report["results"].as_array().map(Vec::len), Some(0), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_rolled_back_vouches_for_no_certificate() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 1).await;
    let files = Files::write(&site, "amf-0", &claimed(&site, "amf-0").await.keys[0]);
    until_responding(&site, &files).await;
    site.stop().await;
    let (mirror, aside) = (site.path().join("audit-mirror"), site.path().join("aside"));
    std::fs::rename(&mirror, &aside).unwrap();
    site.serve().await;
    let asked = ocsp(&site, &files, &[]).await;
    assert!(format!("{}{}", asked.out, asked.err).contains("trylater"), "{asked:?}");
    std::fs::rename(&aside, &mirror).unwrap();
    until_responding(&site, &files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ocsp_is_cached_by_get_and_garbage_gets_the_protocols_own_error() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 1).await;
    let claim = claimed(&site, "amf-0001").await;
    let files = Files::write(&site, "amf-0001", &claim.keys[0]);
    until_responding(&site, &files).await;
    let asked = ocsp(&site, &files, &[]).await.ok();
    assert!(asked.err.contains("no nonce"), "pre-signed unless it is configured otherwise: {asked:?}");
    let der = request(&site, &files, &["-no_nonce"]).await;
    let base64 = STANDARD.encode(&der);
    let escaped = base64.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let first = ask(&site, "GET", &format!("/ocsp/{escaped}"), "", b"").await;
    assert_eq!((first.status, first.headers["content-type"].as_str()), (200, "application/ocsp-response"));
    assert!(first.headers["cache-control"].contains("max-age="), "{:?}", first.headers);
    for header in ["last-modified", "expires", "etag"] {
        assert!(first.headers.contains_key(header), "{header} in {:?}", first.headers);
    }
    // Unescaped as well, by POST as well: the very same response.
    assert_eq!(ask(&site, "GET", &format!("/ocsp/{base64}"), "", b"").await.body, first.body);
    let kind = "Content-Type: application/ocsp-request\r\n";
    assert_eq!(ask(&site, "POST", "/ocsp", kind, &der).await.body, first.body);
    let condition = format!("If-None-Match: {}\r\n", first.headers["etag"]);
    let again = ask(&site, "GET", &format!("/ocsp/{escaped}"), &condition, b"").await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    // In one second there may be two of them: the date does not tell.
    let dated = format!("If-Modified-Since: {}\r\n", first.headers["last-modified"]);
    assert_eq!(ask(&site, "GET", &format!("/ocsp/{escaped}"), &dated, b"").await.status, 200);
    // A cache's copy is not good any more once the certificate is revoked.
    assert!(revoke(&site, "amf-0001").await.newly_revoked);
    let condition = format!("If-None-Match: {}\r\n", first.headers["etag"]);
    let after = ask(&site, "GET", &format!("/ocsp/{escaped}"), &condition, b"").await;
    assert_eq!(after.status, 200);
    assert_ne!(after.body, first.body);

    // OCSPResponse { malformedRequest }.
    const MALFORMED: [u8; 5] = [0x30, 3, 0x0a, 1, 1];
    let mut truncated = der.clone();
    truncated.truncate(der.len() - 1);
    for garbage in [&b""[..], b"\x30", b"GET me", &[0x30; 5_000], &[0; 100_000], &truncated] {
        let answer = ask(&site, "POST", "/ocsp", kind, garbage).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &MALFORMED[..]), "{} bytes", garbage.len());
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    for path in ["/ocsp/", "/ocsp/%00", "/ocsp/%FF", "/ocsp/AAAA", "/ocsp/not-base64!"] {
        let answer = ask(&site, "GET", path, "", b"").await;
        // Only without a request is it another path, which is not asked by GET.
        let expected = if path == "/ocsp/" { 405 } else { 200 };
        assert_eq!(answer.status, expected, "{path}");
        assert!(answer.body == MALFORMED || expected == 405, "{path}: {:?}", answer.body);
    }
    site.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_certificates_are_asked_for_at_once() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 1).await;
    let files = Files::write(&site, "amf-0001", &claimed(&site, "amf-0001").await.keys[0]);
    until_responding(&site, &files).await;
    let serials: Vec<String> = (1..=31).map(|number| format!("0x{number}")).collect();
    let more: Vec<&str> = serials.iter().flat_map(|serial| ["-serial", serial]).collect();
    // With the longest CertIDs there are, of the issuer that was named before.
    let cert = files.cert.display().to_string();
    let asked = ocsp(&site, &files, &[&["-sha512"], &more[..], &["-cert", &cert]].concat()).await.ok();
    assert!(asked.err.contains("Response verify OK"), "{asked:?}");
    assert_eq!((asked.out.matches(": unknown").count(), asked.out.matches(": good").count()), (31, 1));
    // One too many is malformed.
    let asked = ocsp(&site, &files, &[&["-serial", "0x4711"], &more[..], &["-cert", &cert]].concat()).await;
    assert!(format!("{}{}", asked.out, asked.err).contains("malformedrequest"), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_slow_hsm_is_told_to_try_later_by_the_responder_itself() {
    let options = Options { faulty: true, call_deadline: "40s", ..Options::default() };
    let mut site = Site::start_with(options).await;
    site.full_pool(POOL, 1).await;
    let files = Files::write(&site, "amf-0001", &claimed(&site, "amf-0001").await.keys[0]);
    until_responding(&site, &files).await;
    // Nobody asked with this hash before: it has to be signed.
    let der = request(&site, &files, &["-no_nonce", "-sha384"]).await;
    site.faults().set("C_Sign delay 12000");
    let answer = ask(&site, "POST", "/ocsp", "Content-Type: application/ocsp-request\r\n", &der).await;
    // OCSPResponse { tryLater }.
    assert_eq!((answer.status, answer.body.as_slice()), (200, &[0x30, 3, 0x0a, 1, 3][..]));
    assert_eq!(answer.headers["cache-control"], "no-store");
    site.faults().clear();
    until(PATIENCE, "a signed answer", async || {
        ocsp(&site, &files, &["-sha384"]).await.out.contains(": good").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_names_its_shard_for_life_and_only_that_shard_lists_it() {
    let more_toml = "[crl]\nshards = 3\n".to_owned();
    let mut site = Site::start_with(Options { more_toml, ..Options::default() }).await;
    site.full_pool(POOL, 4).await;
    let claim = claimed(&site, "amf-0001").await;
    let files = Files::write(&site, "amf-0001", &claim.keys[0]);
    let shown =
        run("openssl", ["x509", "-noout", "-text", "-in", &files.cert.display().to_string()]).await.ok();
    let url = shown.out.split("URI:").find(|part| part.contains("/crl/")).unwrap();
    let path = url[url.find("/crl/").unwrap()..].split_whitespace().next().unwrap().to_owned();
    let issuer = site.vnfci("amf-0001").await.credentials[0].issuer_id.clone();
    let shard: u32 = path
        .strip_prefix(&format!("/crl/{issuer}/"))
        .and_then(|rest| rest.strip_suffix(".crl"))
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{path}"));
    assert!((1..=3).contains(&shard));
    assert!(shown.out.contains(&format!("OCSP - URI:http://{}/ocsp", site.addresses.http)), "{}", shown.out);

    // The configuration is changed: the certificate's shard goes on being signed, and revocation is found there.
    site.options.more_toml = "[crl]\nshards = 1\n".into();
    site.write_config();
    site.stop().await;
    site.serve().await;
    assert!(revoke(&site, "amf-0001").await.newly_revoked);
    let crl = site.path().join("shard.pem");
    let verified = until(PATIENCE, "the certificate on its shard", async || {
        std::fs::write(&crl, pem("X509 CRL", &site.get(false, &path).await)).unwrap();
        let found = verify(&files, &crl).await;
        format!("{}{}", found.out, found.err).contains("certificate revoked").then_some(found)
    })
    .await;
    assert_ne!(verified.code, 0);
    let text = run("openssl", ["crl", "-noout", "-text", "-in", &crl.display().to_string()]).await.ok().out;
    assert!(text.contains("Issuing Distribution Point: critical") && text.contains(&path), "{text}");
    // The complete list has it, too; another shard has not, and says that it is not for this certificate.
    let complete = site.path().join("complete.pem");
    std::fs::write(&complete, pem("X509 CRL", &site.get(false, &format!("/crl/{issuer}.crl")).await))
        .unwrap();
    let found = verify(&files, &complete).await;
    assert!(format!("{}{}", found.out, found.err).contains("certificate revoked"), "{found:?}");
    let other = shard % 3 + 1;
    let foreign = site.get(false, &format!("/crl/{issuer}/{other}.crl")).await;
    std::fs::write(&crl, pem("X509 CRL", &foreign)).unwrap();
    let found = verify(&files, &crl).await;
    assert!(
        format!("{}{}", found.out, found.err).to_lowercase().contains("different crl scope"),
        "{found:?}"
    );
    let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
    for name in ["keybroker_crl_age_seconds", "keybroker_crl_next_update_seconds", "keybroker_crl_entries"] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
}

async fn verify(files: &Files, crl: &Path) -> Finished {
    let arguments: [PathBuf; 8] = [
        "verify".into(),
        "-crl_check".into(),
        "-extended_crl".into(),
        "-CAfile".into(),
        files.anchors.clone(),
        "-CRLfile".into(),
        crl.to_owned(),
        files.cert.clone(),
    ];
    run("openssl", arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_withdrawn_in_one_signing_or_not_at_all() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 4).await;
    let mut claims = Vec::new();
    for id in ["amf-0001", "amf-0002", "amf-0003", "amf-0004"] {
        claims.push(claimed(&site, id).await);
    }
    let files: Vec<Files> = claims
        .iter()
        .enumerate()
        .map(|(n, claim)| Files::write(&site, &n.to_string(), &claim.keys[0]))
        .collect();
    until_responding(&site, &files[0]).await;
    let third = site.vnfci("amf-0003").await.credentials[0].clone();
    let list = site.path().join("list");
    let text = format!("vnfci amf-0001\ncredential {}\n\n", claims[1].keys[0].credential_id);
    std::fs::write(&list, &text).unwrap();
    let list = list.display().to_string();
    let arguments = ["vnfci", "revoke", "--file", &list, "--reason", "ca-compromise"];
    // A VNFM of another VNF instance: refused, and nothing is withdrawn.
    let stranger = site.mano_ca.client("other-vnfm");
    site.add_identity("other-vnfm", proto::Role::Vnfm, "default", &["smf-1"], &stranger).await;
    let (channel, selector) =
        (site.connect(&site.management_url(), &stranger).await.channel, |vnfci: &str| {
            let certificates = proto::certificate_selector::Certificates::VnfciId(vnfci.into());
            proto::CertificateSelector { certificates: Some(certificates) }
        });
    let request = proto::RevokeCertificateRequest {
        request_id: request_id(),
        reason: proto::RevocationReason::KeyCompromise.into(),
        certificates: vec![selector("nobody"), selector("amf-0001")],
        ..Default::default()
    };
    let refused = LifecycleServiceClient::new(channel).revoke_certificate(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    assert!(ocsp(&site, &files[0], &[]).await.out.contains(": good"));

    let before = site.events("CRL_SIGNED").await.len();
    let more = ["--issuer", third.issuer_id.as_str(), third.serial.as_str()];
    let revoked = site.cli_as("nfvo", &[&arguments[..], &more].concat()).await.ok().object();
    assert_eq!((&revoked["revoked"], &revoked["not_found"]), (&3.into(), &0.into()));
    for (n, files) in files.iter().enumerate() {
        let expected = if n == 3 { ": good" } else { "Reason: cACompromise" };
        let asked = ocsp(&site, files, &[]).await;
        assert!(asked.out.contains(expected), "{n}: {asked:?}");
    }
    let signed = site
        .until("the CRL of the batch", async |site| {
            let signed = site.events("CRL_SIGNED").await.split_off(before);
            (!signed.is_empty()).then_some(signed)
        })
        .await;
    assert_eq!(signed.len(), 1, "{signed:?}");
    assert_eq!(signed[0]["details"]["entries"], 3);
    let requested = site.events("REVOCATION_REQUESTED").await;
    assert_eq!(requested.len(), 1, "{requested:?}");
    assert_eq!(requested[0]["credentials"].as_array().unwrap().len(), 3);
    // Again: nothing is withdrawn twice; what does not exist is named.
    std::fs::write(site.path().join("list"), text + "vnfci nobody\n").unwrap();
    let again = site.cli_as("nfvo", &arguments).await;
    assert_eq!((again.code, &again.object()["revoked"]), (1, &0.into()), "{again:?}");
    assert!(again.err.contains("vnfci nobody"), "{again:?}");
}
