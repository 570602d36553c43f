//! Goal: the root can stay offline and belong to someone else; a CA changes its key without a gap; a VNF has a CA of its own
//! for its inside; and who holds a trust chain learns that there is a new one.
//! Method: a second keybroker with a token of its own is the offline root, `openssl` is a foreign root with a tier below it
//! and checks transcripts, paths and CRLs.

use crate::est;
use crate::support::mano::{By, request_id};
use crate::support::process::run;
use crate::support::site::{Options, Site, VDU, VNF};
use crate::support::vnfci::Claimed;
use crate::support::{PATIENCE, until};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use keybroker::ca::{CertificateFacts, certificates_from_pem, pem};
use serde_json::Value;
use sha2::Digest;
use std::path::{Path, PathBuf};

const POOL: &str = "amf-transport";

async fn claimed(site: &Site, id: &str, pool: &str) -> Claimed {
    site.register_one(id, &[("transport", pool)], By::Certificate).await.boot(site).await
}

async fn operator(site: &Site, arguments: &[&str]) -> Value {
    site.cli_as("operator", arguments).await.ok().object()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// `openssl verify` of a delivered certificate up to a root, CRL of its issuer included.
async fn verify(site: &Site, claim: &Claimed, root: &Path) {
    let key = &claim.keys[0];
    let write = |name: &str, label: &str, ders: &[Vec<u8>]| {
        let path = site.path().join(name);
        std::fs::write(&path, ders.iter().map(|der| pem(label, der)).collect::<String>()).unwrap();
        text(&path)
    };
    let leaf = write("leaf.pem", "CERTIFICATE", std::slice::from_ref(&key.certificate_der));
    let chain = write("chain.pem", "CERTIFICATE", &key.chain_der);
    let issuer = site.vnfci(&claim.response.vnfci_id).await.credentials[0].issuer_id.clone();
    let url = format!("http://{}/crl/{issuer}.crl", site.addresses.http);
    let crl = until(PATIENCE, "the first CRL of the CA", async || {
        let found = run("curl", ["-s", "-f", "-o", &text(&site.path().join("ca.crl")), &url]).await;
        (found.code == 0).then(|| std::fs::read(site.path().join("ca.crl")).unwrap())
    })
    .await;
    let crl = write("crl.pem", "X509 CRL", &[crl]);
    let arguments = ["verify", "-x509_strict", "-crl_check", "-CAfile", &text(root), "-untrusted", &chain];
    run("openssl", [&arguments[..], &["-CRLfile", &crl, &leaf]].concat()).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_root_signs_the_sub_ca_in_a_ceremony_with_a_transcript() {
    // The root's machine: a token and a configuration of its own, no broker.
    let root_site = Site::prepare(Options::default());
    root_site.init().await;
    let more_toml = format!("[ca]\nroots = [{:?}]\n", text(&root_site.root_pem()));
    let mut site = Site::start_with(Options { more_toml, ..Options::default() }).await;
    let (csr, cert) = (site.path().join("sub.csr"), site.path().join("sub.pem"));
    let transcript = site.path().join("ceremony.json");
    let requested = operator(&site, &["ca", "csr", "main", "--out", &text(&csr)]).await;
    assert_eq!(requested["generation"], 2);
    run("openssl", ["req", "-verify", "-noout", "-in", &text(&csr)]).await.ok();

    let config = text(&root_site.config());
    let (csr_text, cert_text, transcript_text) = (text(&csr), text(&cert), text(&transcript));
    let sign = ["ca", "sign", "--config", &config, "--csr", &csr_text, "--out", &cert_text, "--transcript"];
    let sign = [&sign[..], &[&transcript_text, "--operator", "alice", "--witness", "bob"]].concat();
    let signed = site.cli(&sign).await.ok().object();
    // Who, when and every hash; signed by the root machine's audit key, which openssl checks.
    let written = std::fs::read(&transcript).unwrap();
    let told: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!((&told["operator"], &told["witnesses"][0]), (&"alice".into(), &"bob".into()));
    let hash = |path: &Path| Value::from(hex::encode(sha2::Sha256::digest(std::fs::read(path).unwrap())));
    assert_eq!(told["inputs"][1]["sha256"], hash(&csr));
    assert_eq!(told["outputs"][0]["sha256"], hash(&cert));
    assert_eq!(told["certificate"]["sha256"], signed["certificate_sha256"]);
    let (key, signature) = (text(&root_site.audit_key()), format!("{transcript_text}.sig"));
    let check = [
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        &key,
        "-rawin",
        "-in",
        &transcript_text,
        "-sigfile",
        &signature,
    ];
    run("openssl", check).await.ok();
    // A ceremony is never overwritten.
    assert_eq!(site.cli(&sign).await.code, 2);
    let listed = site.path().join("root.crl");
    site.cli(["ca", "crl", "--config", &config, "--out", &text(&listed)]).await.ok();
    let root_pem = text(&root_site.root_pem());
    run("openssl", ["crl", "-inform", "DER", "-in", &text(&listed), "-noout", "-CAfile", &root_pem])
        .await
        .ok();

    site.full_pool(POOL, 1).await;
    let before = claimed(&site, "amf-0001", POOL).await;
    assert_eq!(before.response.trust_chain_version, 1);
    let imported = operator(&site, &["ca", "import", "main", "--certificate", &cert_text]).await;
    assert_eq!((&imported["issuing"], &imported["generation"]), (&true.into(), &2.into()));
    assert_eq!(imported["certificate_sha256"], signed["certificate_sha256"]);
    // New leaves lead to the offline root; what was delivered before still leads to the old one.
    site.create_pool("second", 1, None).await;
    site.until_available("second", 1).await;
    let after = claimed(&site, "amf-0002", "second").await;
    assert_eq!(after.response.trust_chain_version, 2);
    let offline_root =
        certificates_from_pem(&std::fs::read(root_site.root_pem()).unwrap()).unwrap().remove(0);
    assert_eq!(after.keys[0].root_der, offline_root);
    verify(&site, &after, &root_site.root_pem()).await;
    verify(&site, &before, &site.root_pem()).await;
    // The VNFCI from before learns that there is another chain, and which roots are in force.
    let connection = site.connect(&site.vnfci_url(), &before.keys[0].credential()).await;
    let mut client = CredentialServiceClient::new(connection.channel);
    let chain = client.get_trust_chain(proto::GetTrustChainRequest {}).await.unwrap().into_inner();
    assert_eq!((chain.version, chain.root_der), (2, offline_root.clone()));
    assert_eq!(chain.roots_der, [offline_root, before.keys[0].root_der.clone()]);
    let roots = certificates_from_pem(&site.get(false, "/trust/default.pem").await).unwrap();
    assert_eq!(roots, chain.roots_der);
    // On record on both sides.
    let added = site
        .until("the events of the import, chained", async |site| {
            let added = site.events("ISSUER_ADDED").await;
            (added.len() == 3).then_some(added)
        })
        .await;
    assert!(added[2]["actor"].as_str().unwrap().starts_with("operator:"), "{added:?}");
    assert_eq!(site.events("CA_REQUESTED").await.len(), 1, "chained before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_root_with_a_tier_below_it_certifies_and_what_is_not_fit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = Foreign::make(directory.path()).await;
    let more_toml = format!("[ca]\nroots = [{:?}]\n", text(&foreign.root));
    let mut site = Site::start_with(Options { more_toml, ..Options::default() }).await;
    let csr = site.path().join("sub.csr");
    operator(&site, &["ca", "csr", "main", "--out", &text(&csr)]).await;
    let import = async |certificates: &[&Path]| {
        let bundle = site.path().join("bundle.pem");
        let all: String = certificates.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        std::fs::write(&bundle, all).unwrap();
        site.cli_as("operator", &["ca", "import", "main", "--certificate", &text(&bundle)]).await
    };
    let good = foreign.sign(&csr, "good", "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n").await;
    let end_entity = foreign.sign(&csr, "leaf", "basicConstraints=critical,CA:FALSE\n").await;
    let no_signing = foreign
        .sign(&csr, "usage", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\n")
        .await;
    for (certificates, problem) in [
        (&[&*end_entity, &foreign.tier][..], "basicConstraints"),
        (&[&*no_signing, &foreign.tier], "keyUsage"),
        (&[&*good], "no root"),
        (&[&*foreign.tier], "is not for the key"),
    ] {
        let refused = import(certificates).await;
        assert!(refused.code != 0 && refused.err.contains(problem), "{problem}: {refused:?}");
    }
    import(&[&good, &foreign.tier]).await.ok();
    site.full_pool(POOL, 1).await;
    let claim = claimed(&site, "amf-0001", POOL).await;
    assert_eq!(claim.keys[0].chain_der.len(), 2, "the sub-CA and the tier above it");
    verify(&site, &claim, &foreign.root).await;
    // The own root may not certify what the foreign one did.
    let refused = site.cli_as("operator", &["ca", "rollover", "main"]).await;
    assert!(refused.err.contains("another root"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_relying_parties_would_reject_or_that_cannot_issue_is_not_imported() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = Foreign::make(directory.path()).await;
    let more_toml = format!("[ca]\nroots = [{:?}]\n", text(&foreign.root));
    let site = Site::start_with(Options { more_toml, est: true, ..Options::default() }).await;
    let csr = site.path().join("sub.csr");
    operator(&site, &["ca", "csr", "main", "--out", &text(&csr)]).await;
    let import = async |certificate: &Path, more: &[&str]| {
        let bundle = site.path().join("bundle.pem");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        std::fs::write(&bundle, read(certificate) + &read(&foreign.tier)).unwrap();
        let bundle = text(&bundle);
        let arguments = ["ca", "import", "main", "--certificate", &bundle];
        site.cli_as("operator", &[&arguments[..], more].concat()).await
    };
    let authority = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n";
    let fit = format!("{authority}subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n");
    for (name, days, extensions, problem) in [
        ("no-ski", "20", format!("{authority}subjectKeyIdentifier=none\n"), "subjectKeyIdentifier"),
        (
            "uris",
            "20",
            format!("{fit}nameConstraints=critical,permitted;URI:example.org\n"),
            "profile vnfci-transport: a certificate under it is refused: name constraints",
        ),
        (
            "names",
            "20",
            format!("{fit}nameConstraints=critical,permitted;dirName:other\n[other]\nO=someone else\n"),
            "name constraints",
        ),
        ("mail", "20", format!("{fit}extendedKeyUsage=emailProtection\n"), "usage"),
        ("short", "1", fit.clone(), "it ends at"),
    ] {
        let certificate = foreign.sign_for(days, &csr, name, &extensions).await;
        let refused = import(&certificate, &[]).await;
        assert!(refused.code != 0 && refused.err.contains(problem), "{name}: {refused:?}");
    }
    // What no relying party accepts is not forced either; what merely serves no long time is, and says so.
    let no_ski = directory.path().join("no-ski.pem");
    assert_ne!(import(&no_ski, &["--force"]).await.code, 0);
    let short = directory.path().join("short.pem");
    let forced = import(&short, &["--force"]).await.ok();
    assert!(forced.err.contains("warning: it ends at"), "{forced:?}");
    assert!(!forced.object()["warnings"].as_array().unwrap().is_empty());

    // Everyone is told: who enrols, the readiness probe, monitoring, and doctor.
    site.create_pool(POOL, 1, None).await;
    let vnfci = site.register_one("amf-0001", &[("transport", POOL)], By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    est::request(site.path(), "one", "/CN=amf-0001", "").await;
    let (status, said) = est::post(&site, "initial", "/.well-known/est/simpleenroll", "one.csr.b64").await;
    assert!(status == 503 && said.contains("too soon for a new certificate"), "{status}: {said}");
    let admin = format!("http://{}", site.addresses.admin);
    let ready = until(PATIENCE, "the CA in /readyz", async || {
        let ready = run("curl", ["-s", &format!("{admin}/readyz")]).await.ok().out;
        ready.contains("CA main 2 of tenant default ends at").then_some(ready)
    })
    .await;
    assert!(!ready.contains("root 1"), "{ready}");
    let metrics = run("curl", ["-s", &format!("{admin}/metrics")]).await.ok().out;
    let left = |labels: &[&str]| -> f64 {
        let of_ca = |line: &&str| {
            line.starts_with("keybroker_ca_end_seconds") && labels.iter().all(|label| line.contains(label))
        };
        // What was told of the CA before it is told for a while.
        let left =
            metrics.lines().filter(of_ca).map(|line| line.rsplit(' ').next().unwrap().parse().unwrap());
        left.reduce(f64::min).unwrap_or_else(|| panic!("no {labels:?} in {metrics}"))
    };
    assert!(left(&["tenant=\"default\"", "issuing=\"true\""]) < 86_400.0);
    assert!(left(&["tenant=\"\"", "issuing=\"true\""]) > 19.0 * 365.0 * 86_400.0);
    let config = text(&site.config());
    let doctor = site.cli(["doctor", "--config", &config]).await;
    let about = |row: &Value| row["check"] == "CAs" && row["finding"].as_str().unwrap().contains("CA main 2");
    let row = doctor.objects().into_iter().find(about).unwrap_or_else(|| panic!("{doctor:?}"));
    assert_eq!(row["status"], "warn", "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_names_a_ca_that_there_is() {
    let site = Site::start().await;
    let profile = std::fs::read_to_string(site.path().join("profiles/vnfci-transport.toml")).unwrap();
    let file = site.path().join("inside.toml");
    std::fs::write(&file, format!("ca = \"internal\"\n{profile}")).unwrap();
    let add = async || site.cli_as("operator", &["profile", "add", &text(&file)]).await;
    let refused = add().await;
    assert!(refused.code != 0 && refused.err.contains("no tenant has a CA of this name"), "{refused:?}");
    operator(&site, &["ca", "add", "internal"]).await;
    add().await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollover_overlaps_and_a_vnf_has_a_ca_of_its_own_for_its_inside() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 2).await;
    let old = claimed(&site, "amf-0001", POOL).await;
    let added = operator(&site, &["ca", "add", "internal"]).await;
    assert_eq!((&added["name"], &added["generation"]), (&"internal".into(), &2.into()));
    assert_ne!(site.cli_as("operator", &["ca", "add", "internal"]).await.code, 0);
    assert_ne!(site.cli_as("operator", &["ca", "rollover", "nothing"]).await.code, 0);
    let rolled = operator(&site, &["ca", "rollover", "main"]).await;
    assert_eq!((&rolled["issuing"], &rolled["generation"]), (&true.into(), &3.into()));

    let profile = std::fs::read_to_string(site.path().join("profiles/vnfci-transport.toml")).unwrap();
    let mut admin = AdminServiceClient::new(site.management("operator").await);
    let profile = proto::Profile { name: "inside".into(), toml: format!("ca = \"internal\"\n{profile}") };
    admin
        .add_profile(proto::AddProfileRequest { request_id: request_id(), profile: Some(profile) })
        .await
        .unwrap();
    let request = proto::CreatePoolRequest {
        request_id: request_id(),
        tenant: String::new(),
        name: "inside".into(),
        vnf_instance_id: VNF.into(),
        vdu_id: VDU.into(),
        profile: "inside".into(),
        target: 1,
        refill_below: None,
    };
    PoolServiceClient::new(site.management("nfvo").await).create_pool(request).await.unwrap();
    site.until_available("inside", 1).await;
    site.create_pool("second", 1, None).await;
    site.until_available("second", 1).await;
    let new = claimed(&site, "amf-0002", "second").await;
    let inside = claimed(&site, "amf-0003", "inside").await;
    let issuer = |claim: &Claimed| CertificateFacts::parse(&claim.keys[0].chain_der[0]).unwrap().subject;
    let names = [issuer(&old), issuer(&new), issuer(&inside)];
    assert!(names[0].contains("sub-CA 1") && names[1].contains("sub-CA 3"), "{names:?}");
    assert!(names[2].contains("sub-CA internal 2"), "{names:?}");
    for claim in [&old, &new, &inside] {
        verify(&site, claim, &site.root_pem()).await;
    }
    // The old key still says what became of what it signed.
    let released = old.release(&site).await.unwrap();
    let old_issuer = site.vnfci("amf-0001").await.credentials[0].issuer_id.clone();
    let listed = site
        .until("the released certificate on the old CA's list", async |site| {
            let crl = site.path().join("old.crl");
            std::fs::write(&crl, site.get(false, &format!("/crl/{old_issuer}.crl")).await).unwrap();
            let shown =
                run("openssl", ["crl", "-inform", "DER", "-noout", "-text", "-in", &text(&crl)]).await.ok();
            shown.out.contains(&released[0].to_uppercase()).then_some(())
        })
        .await;
    assert_eq!(listed, ());
    let cas = site.cli_as("operator", &["ca", "list", "--tenant", "default"]).await.ok().objects();
    let issuing: Vec<_> = cas.iter().map(|ca| ca["issuing"].as_bool().unwrap()).collect();
    assert_eq!(issuing, [false, true, true], "{cas:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_roots_of_its_own_on_the_hsm_and_no_other_tenant_has_them() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 1).await;
    let old = claimed(&site, "amf-0001", POOL).await;
    site.cli_as("operator", &["tenant", "add", "other"]).await.ok();
    let root = operator(&site, &["ca", "add", "own", "--root"]).await;
    assert_eq!(
        (&root["generation"], &root["subject"]),
        (&2.into(), &"CN=own\\, tenant default,O=keybroker".into())
    );
    // Relying parties can have it before anything is issued under it.
    let trusted = |chain: &proto::GetTrustChainResponse| {
        let subject = |der: &Vec<u8>| CertificateFacts::parse(der).unwrap().subject;
        chain.roots_der.iter().map(subject).collect::<Vec<_>>()
    };
    let connection = site.connect(&site.vnfci_url(), &old.keys[0].credential()).await;
    let mut client = CredentialServiceClient::new(connection.channel);
    let chain = client.get_trust_chain(proto::GetTrustChainRequest {}).await.unwrap().into_inner();
    assert_eq!((chain.version, trusted(&chain).len(), &chain.root_der), (2, 2, &old.keys[0].root_der));
    let roots = certificates_from_pem(&site.get(false, "/trust/default.pem").await).unwrap();
    assert_eq!(roots, chain.roots_der);
    let foreign = certificates_from_pem(&site.get(false, "/trust/other.pem").await).unwrap();
    assert_eq!(foreign, chain.roots_der[..1]);

    // It certifies CAs of its tenant, and nothing else.
    for (arguments, problem) in [
        (vec!["rollover", "main", "--tenant", "other", "--under", "own"], "root own of tenant other"),
        (vec!["rollover", "own"], "it has no next generation"),
        (vec!["csr", "own", "--out", "/dev/null"], "it has no next generation"),
        (vec!["rollover", "main", "--under", "main"], "root main of tenant default"),
    ] {
        let refused = site.cli_as("operator", &[&["ca"], &arguments[..]].concat()).await;
        assert!(refused.code != 0 && refused.err.contains(problem), "{problem}: {refused:?}");
    }
    let profile = std::fs::read_to_string(site.path().join("profiles/vnfci-transport.toml")).unwrap();
    let files = ["own", "inside"].map(|ca| {
        let file = site.path().join(format!("{ca}.toml"));
        std::fs::write(&file, format!("ca = {ca:?}\n{profile}")).unwrap();
        text(&file)
    });
    let refused = site.cli_as("operator", &["profile", "add", &files[0]]).await;
    assert!(refused.code != 0 && refused.err.contains("no tenant has a CA of this name"), "{refused:?}");

    // The main CA goes over to it, and stays under it; another CA is under a second root.
    operator(&site, &["ca", "rollover", "main", "--under", "own"]).await;
    let rolled = operator(&site, &["ca", "rollover", "main"]).await;
    assert_eq!((&rolled["generation"], &rolled["root"]), (&4.into(), &root["subject"]));
    operator(&site, &["ca", "add", "second", "--root"]).await;
    operator(&site, &["ca", "add", "inside", "--under", "second"]).await;
    site.cli_as("operator", &["profile", "add", &files[1]]).await.ok();
    site.create_pool("under-own", 1, None).await;
    site.until_available("under-own", 1).await;
    site.full_pool_of("inside", "under-second", 1).await;
    let own = claimed(&site, "amf-0002", "under-own").await;
    let second = claimed(&site, "amf-0003", "under-second").await;
    let pems = [&own, &second].map(|claim| {
        let path = site.path().join(format!("{}.pem", claim.response.vnfci_id));
        std::fs::write(&path, pem("CERTIFICATE", &claim.keys[0].root_der)).unwrap();
        path
    });
    assert_eq!(
        CertificateFacts::parse(&own.keys[0].root_der).unwrap().fingerprint.to_string(),
        root["certificate_sha256"].as_str().unwrap()
    );
    verify(&site, &old, &site.root_pem()).await;
    verify(&site, &own, &pems[0]).await;
    verify(&site, &second, &pems[1]).await;
    // To the one root leads nothing of the other.
    let (leaf, chain) = (text(&site.path().join("leaf.pem")), text(&site.path().join("chain.pem")));
    for root in [&pems[0], &site.root_pem()] {
        let refused = run("openssl", ["verify", "-CAfile", &text(root), "-untrusted", &chain, &leaf]).await;
        assert_ne!(refused.code, 0, "{root:?}");
    }
    let chain = client.get_trust_chain(proto::GetTrustChainRequest {}).await.unwrap().into_inner();
    assert_eq!((chain.version, &chain.root_der), (6, &own.keys[0].root_der));
    assert_eq!(trusted(&chain).len(), 3);
    // The root's own list covers its CAs.
    let issuer = root["issuer_id"].as_str().unwrap();
    let list = site.path().join("own-root.crl");
    site.until("the root's list", async |site| {
        let url = format!("http://{}/crl/{issuer}.crl", site.addresses.http);
        (run("curl", ["-s", "-f", "-o", &text(&list), &url]).await.code == 0).then_some(())
    })
    .await;
    let checked = ["crl", "-inform", "DER", "-in", &text(&list), "-noout", "-CAfile", &text(&pems[0])];
    assert!(run("openssl", checked).await.ok().err.contains("verify OK"));
    site.check();
}

/// A root and a CA below it, made by `openssl`.
pub(crate) struct Foreign {
    directory: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) tier: PathBuf,
}

impl Foreign {
    pub(crate) async fn make(directory: &Path) -> Self {
        let path = |name: &str| text(&directory.join(name));
        let new =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
        let authority = "basicConstraints=critical,CA:TRUE";
        let usage = "keyUsage=critical,keyCertSign,cRLSign";
        let more = ["-addext", authority, "-addext", usage, "-subj"];
        let (root, root_key) = (path("root.pem"), path("root.key"));
        let root_names = ["/O=Operator/CN=Foreign Root", "-out", &root, "-keyout", &root_key];
        run("openssl", [&new[..], &more, &root_names].concat()).await.ok();
        let (tier, tier_key) = (path("tier.pem"), path("tier.key"));
        let tier_names = ["/O=Operator/CN=Foreign Tier", "-out", &tier, "-keyout", &tier_key];
        let by_root = ["-CA", &root, "-CAkey", &root_key];
        run("openssl", [&new[..], &by_root, &more, &tier_names].concat()).await.ok();
        Self { directory: directory.to_owned(), root: root.into(), tier: tier.into() }
    }

    pub(crate) async fn sign(&self, csr: &Path, name: &str, extensions: &str) -> PathBuf {
        self.sign_for("20", csr, name, extensions).await
    }

    async fn sign_for(&self, days: &str, csr: &Path, name: &str, extensions: &str) -> PathBuf {
        let (out, file) =
            (self.directory.join(format!("{name}.pem")), self.directory.join(format!("{name}.ext")));
        std::fs::write(&file, extensions).unwrap();
        let (tier, key) = (text(&self.tier), text(&self.directory.join("tier.key")));
        let sign = ["x509", "-req", "-days", days, "-CA", &tier, "-CAkey", &key, "-CAcreateserial", "-in"];
        run("openssl", [&sign[..], &[&text(csr), "-out", &text(&out), "-extfile", &text(&file)]].concat())
            .await
            .ok();
        out
    }
}
