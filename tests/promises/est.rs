//! Goal: VNFCIs with keys of their own, and VNFMs as their agents, get certificates from EST clients that know nothing of
//! keybroker (SEC 005 8.1.2.1, 8.1.2.2), and nobody else gets any.
//! Method: strongSwan's `pki`, BouncyCastle's EST client and curl enrol and re-enrol; openssl checks what they got.

use crate::support::ca::Credential;
use crate::support::mano::By;
use crate::support::process::{Finished, run, run_with};
use crate::support::site::{Options, Site};
use keybroker::ca::{CertificateFacts, pem};
use std::path::{Path, PathBuf};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

async fn site() -> Site {
    site_with(Options::default()).await
}

async fn site_with(options: Options) -> Site {
    let site = Site::start_with(Options { est: true, ..options }).await;
    site.create_pool(POOL, 1, None).await;
    site
}

/// Runs a program in a directory; its relative paths are there.
async fn sh(directory: &Path, script: &str) -> Finished {
    run("sh", ["-c".to_owned(), format!("cd {} && {script}", directory.display())]).await
}

/// A key and a request for it: `NAME.key.pem`, `NAME.csr` (DER), `NAME.csr.b64`.
async fn request(directory: &Path, name: &str, subject: &str, more: &str) {
    let script = format!(
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key.pem \
         -subj '{subject}' {more} -outform DER -out {name}.csr && openssl base64 -in {name}.csr -out {name}.csr.b64"
    );
    sh(directory, &script).await.ok();
}

/// A POST by curl; (status, body).
async fn post(site: &Site, as_: &str, path: &str, body: &str) -> (u16, String) {
    curl(site, as_, path, &format!("--data-binary @{body} -H 'Content-Type: application/pkcs10'")).await
}

/// A request by curl with `NAME.cert.pem` and `NAME.key.pem` of the site's directory; (status, body).
async fn curl(site: &Site, as_: &str, path: &str, more: &str) -> (u16, String) {
    let identity = match as_ {
        "" => String::new(),
        name => format!("--cert {name}.cert.pem --key {name}.key.pem"),
    };
    let script = format!(
        "curl -sS --cacert root.pem {identity} {more} -w '\\n%{{http_code}}' '{}{path}'",
        site.est_url()
    );
    let finished = sh(site.path(), &script).await.ok();
    let (body, status) = finished.out.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// The certificates of a base64 certs-only message, by openssl; PEM.
async fn certificates(directory: &Path, message: &str, file: &str) -> PathBuf {
    std::fs::write(directory.join("message.b64"), message).unwrap();
    let script = format!(
        "openssl base64 -d -A -in message.b64 | openssl pkcs7 -inform DER -print_certs | \
         sed '/^subject\\|^issuer\\|^$/d' > {file}"
    );
    sh(directory, &script).await.ok();
    directory.join(file)
}

/// A certificate under the site's root, checked by openssl with the trust chain that EST gives; its facts.
async fn verified(site: &Site, certificate: &Path) -> CertificateFacts {
    let (status, chain) = curl(site, "", "/.well-known/est/cacerts", "").await;
    assert_eq!(status, 200);
    let chain = certificates(site.path(), &chain, "chain.pem").await;
    let root = site.root_pem();
    run(
        "openssl",
        ["verify", "-x509_strict", "-CAfile"].map(PathBuf::from).into_iter().chain([
            root,
            "-untrusted".into(),
            chain,
            certificate.to_owned(),
        ]),
    )
    .await
    .ok();
    let ders = keybroker::ca::certificates_from_pem(&std::fs::read(certificate).unwrap()).unwrap();
    CertificateFacts::parse(&ders[0]).unwrap()
}

/// strongSwan's `pki`, which by itself speaks TLS 1.2, in a version.
async fn pki(site: &Site, tls: &str, arguments: &str) -> Finished {
    let configuration = format!("libtls {{\n version_max = {tls}\n}}\n");
    std::fs::write(site.path().join("strongswan.conf"), configuration).unwrap();
    let file = site.path().join("strongswan.conf").display().to_string();
    let script = format!("cd {} && pki {arguments}", site.path().display());
    run_with("sh", ["-c".to_owned(), script], &[("STRONGSWAN_CONF", &file)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_enrols_and_re_enrols() {
    let site = site().await;
    for tls in ["1.2", "1.3"] {
        let id = format!("amf-{tls}");
        let vnfci = site.register_one(&id, &SLOTS, By::Certificate).await;
        vnfci.initial.credential.write(site.path(), "initial");
        let url = site.est_url();
        pki(
            &site,
            tls,
            &format!("--estca --url {url} --cacert root.pem --caout ca.pem --outform pem --force"),
        )
        .await
        .ok();
        pki(&site, tls, "--gen --type ecdsa --size 256 --outform pem > one.key.pem").await.ok();
        pki(&site, tls, &format!("--req --in one.key.pem --dn 'CN={id}' --san {id}.example > one.csr"))
            .await
            .ok();
        let enrolled = pki(
            &site,
            tls,
            &format!(
                "--est --url {url} --in one.csr --cacert root.pem --cacert ca-1.pem --cert initial.cert.pem \
                 --key initial.key.pem --outform pem > one.cert.pem"
            ),
        )
        .await;
        assert_eq!(enrolled.code, 0, "{enrolled:?}\n{}", sh(site.path(), "ls; cat serve.log").await.out);
        let first = verified(&site, &site.path().join("one.cert.pem")).await;
        assert_eq!(first.subject, "CN=amf-worker.amf-1,OU=default,O=keybroker");
    }
}
