//! Goal: of what several roots and several CAs have in hand at once, nothing gets crossed: a key that was requested for a CA is
//! that CA's, and nobody has what a root signed without its transcript.
//! Method: `openssl` is the root elsewhere; an offline root's token is asked with files that cannot be written.

use crate::hierarchy::Foreign;
use crate::support::mano::request_id;
use crate::support::process::run;
use crate::support::settlement::query;
use crate::support::site::{Options, Site};
use keybroker::api::proto;
use keybroker::api::proto::admin_service_client::AdminServiceClient;
use keybroker::ca::request::CaRequest;
use keybroker::ca::{certificates_from_pem, pem};
use serde_json::Value;
use std::path::Path;

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_requested_for_a_ca_is_used_for_that_ca_only() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = Foreign::make(directory.path()).await;
    let more_toml = format!("[ca]\nroots = [{:?}]\n", text(&foreign.root));
    let mut site = Site::start_with(Options { more_toml, ..Options::default() }).await;
    let mut client = AdminServiceClient::new(site.management("operator").await);
    let mut csr = async |name: &str| {
        let request =
            proto::RequestCaRequest { request_id: request_id(), tenant: "default".into(), name: name.into() };
        let answer = client.request_ca(request).await.unwrap().into_inner();
        let file = directory.path().join(format!("{name}.csr"));
        std::fs::write(&file, pem("CERTIFICATE REQUEST", &answer.request_der)).unwrap();
        (answer.generation, CaRequest::parse(&answer.request_der).unwrap().public_key_der)
    };
    let (main, inner) = (csr("main").await, csr("inner").await);
    assert_eq!((main.0, inner.0), (2, 3));
    assert_ne!(main.1, inner.1, "two CAs, one key");
    assert_eq!(csr("main").await, main, "asked again, another key");
    // What is made meanwhile takes other keys, of the same CA, too.
    let operator = async |arguments: &[&str]| {
        site.cli_as("operator", &[&["ca"], arguments].concat()).await.ok().object()
    };
    assert_eq!(operator(&["add", "own", "--root"]).await["generation"], 4);
    assert_eq!(operator(&["rollover", "main", "--under", "own"]).await["generation"], 5);

    let fit = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
               subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    let sign = async |of: &str, name: &str| {
        let csr = directory.path().join(format!("{of}.csr"));
        let signed = std::fs::read_to_string(foreign.sign(&csr, name, fit).await).unwrap();
        let bundle = directory.path().join(format!("{name}.bundle"));
        std::fs::write(&bundle, signed + &std::fs::read_to_string(&foreign.tier).unwrap()).unwrap();
        text(&bundle)
    };
    let import = async |name: &str, certificate: &str| {
        site.cli_as("operator", &["ca", "import", name, "--certificate", certificate]).await
    };
    let (for_main, for_inner) = (sign("main", "main").await, sign("inner", "inner").await);
    let refused = async |name: &str, certificate: &str, problem: &str| {
        let refused = import(name, certificate).await;
        assert!(refused.code != 0 && refused.err.contains(problem), "{problem}: {refused:?}");
    };
    refused("main", &for_inner, "which was requested for CA inner").await;
    refused("inner", &for_main, "which was requested for CA main").await;
    refused("other", &for_main, "which was requested for CA main").await;
    // It issues, as it says, although the rollover came first.
    let imported = import("main", &for_main).await.ok().object();
    assert_eq!((&imported["generation"], &imported["issuing"]), (&6.into(), &true.into()), "{imported}");
    assert!(imported["subject"].as_str().unwrap().starts_with("CN=sub-CA 2,"), "{imported}");
    assert_eq!(import("main", &for_main).await.ok().object()["issuer_id"], imported["issuer_id"]);
    refused("inner", &for_main, "is that of CA main of tenant default already").await;
    let again = sign("main", "again").await;
    refused("main", &again, "which CA main has in use").await;
    let imported = import("inner", &for_inner).await.ok().object();
    assert_eq!((&imported["generation"], &imported["issuing"]), (&7.into(), &true.into()), "{imported}");
    refused("inner", &foreign.tier.display().to_string(), "none waits for CA inner").await;
    let next = csr("main").await;
    assert!(next.0 == 8 && next.1 != main.1, "{}", next.0);

    // Keys on the token are still told apart.
    until_responders(&site, 4).await;
    site.stop().await;
    site.serve().await;
    let started = site
        .until("the second start in the log", async |site| {
            let events = site.events("BROKER_STARTED").await;
            (events.len() == 2).then_some(events)
        })
        .await;
    let unused = "keybroker:ca:default:8 is on the token and has no CA certificate in the database";
    assert_eq!(started[1]["details"]["findings"], Value::from(vec![unused]), "{}", started[1]);
}

/// Waits until the CAs have their OCSP responders.
async fn until_responders(site: &Site, count: usize) {
    crate::support::until(crate::support::PATIENCE, "the responders of all CAs", async || {
        let found = query(site, "SELECT key_object FROM ocsp_responders").await;
        (found.len() == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_what_a_root_signed_without_its_transcript() {
    let site = Site::prepare(Options::default());
    site.init().await;
    let place = |file: &str| site.path().join(file).display().to_string();
    let request = async |name: &str, subject: &str| {
        let (csr, key) = (place(&format!("{name}.csr")), place(&format!("{name}.key")));
        let new =
            ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"];
        run("openssl", [&new[..], &[&key, "-subj", subject, "-out", &csr]].concat()).await.ok();
        csr
    };
    let csr = request("ca", "/CN=Sub-CA").await;
    let (config, out) = (place("keybroker.toml"), place("ca.pem"));
    let sign = async |csr: &str, out: &str, transcript: &str, who: &[&str]| {
        let sign =
            ["ca", "sign", "--config", &config, "--csr", csr, "--out", out, "--transcript", transcript];
        site.cli(&[&sign[..], who].concat()).await
    };
    let (good, alice) = (place("ceremony.json"), ["--operator", "alice"]);
    let same = format!("{}/./ca.pem", site.path().display());
    for (what, transcript, who, code) in [
        ("no such directory", place("nothing/t.json"), &alice[..], 1),
        ("the certificate's file", same, &alice, 2),
        ("no operator", good.clone(), &["--operator", " "], 2),
        ("an empty witness", good.clone(), &["--operator", "alice", "--witness", ""], 2),
    ] {
        let refused = sign(&csr, &out, &transcript, who).await;
        assert_eq!(refused.code, code, "{what}: {refused:?}");
        assert!(!Path::new(&out).exists(), "{what}");
    }
    let signature = format!("{good}.sig");
    let refused = sign(&csr, &signature, &good, &alice).await;
    assert!(refused.code == 2 && refused.err.contains("named twice"), "{refused:?}");
    assert!(!Path::new(&signature).exists());
    let signed = async || query(&site, "SELECT COUNT(*) FROM events WHERE kind = 'CA_SIGNED'").await;
    assert_eq!(signed().await, ["0"], "refused before anything was signed");
    // Names that are too long for the transcript, and for its signature only: the root has signed when that turns out.
    for length in [256, 253] {
        let failed = sign(&csr, &out, &place(&"t".repeat(length)), &alice).await;
        assert!(failed.code == 1 && failed.err.contains("cannot be written"), "{length}: {failed:?}");
        assert!(!Path::new(&out).exists(), "{length}");
    }
    assert_eq!(signed().await, ["2"]);

    // A CA with the root's own name could not be told from it.
    let root = certificates_from_pem(&std::fs::read(site.root_pem()).unwrap()).unwrap().remove(0);
    let subject = keybroker::ca::CertificateFacts::parse(&root).unwrap().common_names.remove(0);
    let csr = request("twin", &format!("/O=KeyBroker/CN={subject}")).await;
    let refused = sign(&csr, &out, &good, &alice).await;
    assert!(refused.code == 1 && refused.err.contains("is this CA's own name"), "{refused:?}");
    assert!(!Path::new(&out).exists() && !Path::new(&good).exists());
}
