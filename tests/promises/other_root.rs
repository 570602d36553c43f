//! Goal: while a tenant's CA goes over to another root, nobody is shut out: who trusts the former root goes on and learns of the
//! new one, who trusts only the new one can begin (RFC 7030 4.1.3).
//! Method: a second token is the other root; strongSwan, curl and our own commands come with the one root or the other, before
//! the listeners' certificates would have been due for months.

use crate::est::{certificates, curl, sh};
use crate::est_clients::pki;
use crate::support::mano::By;
use crate::support::process::run;
use crate::support::site::{Options, Site};
use crate::support::vnfci::Vnfci;
use keybroker::ca::{CertificateFacts, certificates_from_pem};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const POOL: &str = "named";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A broker, and the other root, which is configured and has not signed yet. Certificates are signed at the claim or request,
/// so that what is issued after the import is issued by the new CA.
async fn sites() -> (Site, Site) {
    let root = Site::prepare(Options::default());
    root.init().await;
    let more_toml = format!("[ca]\nroots = [{:?}]\n", text(&root.root_pem()));
    let mut site = Site::start_with(Options { est: true, more_toml, ..Options::default() }).await;
    site.create_pool_of("vnfci-named", POOL, 8).await;
    site.until_available(POOL, 8).await;
    std::fs::copy(root.root_pem(), site.path().join("new-root.pem")).unwrap();
    (site, root)
}

/// The next generation of the main CA is the other root's; returns once the listeners show it.
async fn import(site: &mut Site, root: &Site) {
    let (csr, cert) = (text(&site.path().join("sub.csr")), text(&site.path().join("sub.pem")));
    let transcript = text(&site.path().join("ceremony.json"));
    site.cli_as("operator", &["ca", "csr", "main", "--out", &csr]).await.ok();
    let config = text(&root.config());
    let sign =
        ["ca", "sign", "--config", &config, "--csr", &csr, "--out", &cert, "--transcript", &transcript];
    site.cli([&sign[..], &["--operator", "alice", "--witness", "bob"]].concat()).await.ok();
    site.cli_as("operator", &["ca", "import", "main", "--certificate", &cert]).await.ok();
    let new = certificates_from_pem(&std::fs::read(&cert).unwrap()).unwrap().remove(0);
    for file in ["bootstrap.pem", "server.pem"] {
        site.until("a listener's certificate by the new CA", async |site| {
            let chain = std::fs::read(site.path().join("tls").join(file)).ok()?;
            certificates_from_pem(&chain).ok()?.contains(&new).then_some(())
        })
        .await;
    }
}

/// A one-time token, as a file.
fn token(site: &Site, vnfci: &Vnfci) -> String {
    let file = site.path().join(format!("{}.token", vnfci.id));
    std::fs::write(&file, vnfci.initial.token.as_ref().unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    text(&file)
}

async fn claim(site: &Site, vnfci: &Vnfci, root: &Path) -> PathBuf {
    let out = site.path().join(&vnfci.id);
    let (server, token) = (site.bootstrap_url(), token(site, vnfci));
    let arguments = ["claim", "--server", &server, "--trust-anchor", &text(root), "--token-file", &token];
    site.cli([&arguments[..], &["--out", &text(&out)]].concat()).await.ok();
    out
}

fn roots(directory: &Path) -> Vec<Vec<u8>> {
    certificates_from_pem(&std::fs::read(directory.join("trust-anchor.pem")).unwrap()).unwrap()
}

fn root_der(file: &Path) -> Vec<u8> {
    certificates_from_pem(&std::fs::read(file).unwrap()).unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn vnfcis_renew_into_another_root_and_claim_by_either() {
    let (mut site, root) = sites().await;
    let ids = ["amf-0001", "amf-0002", "amf-0003", "amf-0004"];
    let vnfcis = site.register(&ids, &SLOTS, By::Token).await;
    let (old, new) = (site.root_pem(), site.path().join("new-root.pem"));
    let before = claim(&site, &vnfcis[0], &old).await;
    let strict = claim(&site, &vnfcis[3], &old).await;
    assert_eq!(roots(&before), [root_der(&old)]);
    import(&mut site, &root).await;

    // A timer learns of the root before it is time to renew.
    let server = site.vnfci_url();
    let renew = ["renew", "--server", &server, "--out"];
    let (before_out, strict_out, old_text) = (text(&before), text(&strict), text(&old));
    let due = [&renew[..], &[&before_out, "--when-due"]].concat();
    assert_eq!(site.cli(&due).await.ok().object()["renewed"], false);
    assert_eq!(roots(&before), [root_der(&new), root_der(&old)], "the new one beside the old one");
    // One whose anchors are somebody else's is told what to do, and holds what it held.
    let given = [&renew[..], &[&strict_out, "--trust-anchor", &old_text]].concat();
    let refused = site.cli(&given).await;
    assert!(refused.code == 1 && refused.err.contains("renew without --trust-anchor"), "{refused:?}");
    for directory in [&before, &strict] {
        let renewed = site.cli([&renew[..], &[&text(directory)]].concat()).await.ok().object();
        assert_eq!(renewed["renewed"], true, "{renewed}");
        assert_eq!(roots(directory), [root_der(&new), root_der(&old)]);
        let (anchors, chain) = (text(&new), text(&directory.join("transport/chain.pem")));
        let leaf = text(&directory.join("transport/cert.pem"));
        run("openssl", ["verify", "-x509_strict", "-CAfile", &anchors, "-untrusted", &chain, &leaf])
            .await
            .ok();
        // What was renewed is at home with the broker.
        site.cli([&renew[..], &[&text(directory), "--when-due"]].concat()).await.ok();
    }
    // An image with the former root only, and one with the new root only.
    let by_old = claim(&site, &vnfcis[1], &old).await;
    assert_eq!(roots(&by_old), [root_der(&new), root_der(&old)]);
    let by_new = claim(&site, &vnfcis[2], &new).await;
    assert_eq!(roots(&by_new), [root_der(&new)]);
    // That the former root vouches for the new CA is on record.
    let signed = site
        .until("the cross-certificates in the log", async |site| {
            let signed = site.events("CA_SIGNED").await;
            (signed.len() == 2).then_some(signed)
        })
        .await;
    assert_eq!(signed[0]["actor"], "broker", "{}", signed[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_clients_with_the_former_root_go_on_and_learn_of_the_new_one() {
    let (mut site, root) = sites().await;
    let url = site.est_url();
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    let estca = format!("--estca --url {url} --cacert root.pem --caout ca.pem --outform pem --force");
    import(&mut site, &root).await;
    for tls in ["1.2", "1.3"] {
        pki(&site, tls, &estca).await.ok();
    }
    // The recipe of docs/est.md: all that cacerts gave.
    let given: Vec<String> = std::fs::read_dir(site.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("ca") && name.ends_with(".pem"))
        .map(|name| format!("--cacert {name}"))
        .collect();
    let mut shown = "initial".to_owned();
    for (name, dn) in
        [("one", "CN=amf-0001".to_owned()), ("two", "O=keybroker, OU=amf-1, CN=amf-0001".to_owned())]
    {
        let key = format!("--gen --type ecdsa --size 256 --outform pem > {name}.key.pem");
        pki(&site, "1.3", &key).await.ok();
        pki(&site, "1.3", &format!("--req --in {name}.key.pem --dn '{dn}' > {name}.csr")).await.ok();
        let est = format!(
            "--est --url {url} --in {name}.csr --cacert root.pem {} --cert {shown}.cert.pem --key {shown}.key.pem \
             --outform pem > {name}.cert.pem",
            given.join(" ")
        );
        pki(&site, "1.3", &est).await.ok();
        let issued = std::fs::read(site.path().join(format!("{name}.cert.pem"))).unwrap();
        let facts = CertificateFacts::parse(&certificates_from_pem(&issued).unwrap()[0]).unwrap();
        assert!(facts.issuer.contains("sub-CA 2"), "{facts:?}");
        shown = name.to_owned();
    }
    // Every generation with its root, none twice; over HTTP the newest first (a CMS has them as a set).
    let (status, message) = curl(&site, "", "/.well-known/est/cacerts", "").await;
    assert_eq!(status, 200);
    let chain = certificates(site.path(), &message, "all.pem").await;
    let mut all = certificates_from_pem(&std::fs::read(&chain).unwrap()).unwrap();
    let mut served = certificates_from_pem(&site.get(false, "/chain/default.pem").await).unwrap();
    let subject = |der: &Vec<u8>| CertificateFacts::parse(der).unwrap().subject;
    assert!(subject(&served[0]).contains("sub-CA 2") && subject(&served[2]).contains("sub-CA 1"));
    let (new, old) = (root_der(&site.path().join("new-root.pem")), root_der(&site.root_pem()));
    assert_eq!((served.len(), &served[1], &served[3]), (4, &new, &old));
    all.sort();
    served.sort();
    assert_eq!(served, all);
    // Who got these by whatever way needs no former root: curl follows the first issuer that fits.
    let script = format!("curl -sS --cacert all.pem -o /dev/null {url}/.well-known/est/cacerts");
    sh(site.path(), &script).await.ok();
    // A rollover under the same root keeps the generation before it, too.
    let same = Site::start_with(Options { est: true, ..Options::default() }).await;
    same.cli_as("operator", &["ca", "rollover", "main"]).await.ok();
    let (_, message) = curl(&same, "", "/.well-known/est/cacerts", "").await;
    let chain = certificates(same.path(), &message, "all.pem").await;
    assert_eq!(certificates_from_pem(&std::fs::read(&chain).unwrap()).unwrap().len(), 3);
}
