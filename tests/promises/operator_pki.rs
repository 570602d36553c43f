//! Goal: one broker's pool is filled by another broker: the operator's CA is keybroker, too (SEC 005 8.1.2.3 from both sides).
//! Method: two processes, two tokens, two databases; the one is a registration authority at the other's EST. openssl
//! verifies what a VNFCI gets, and curl asks for what an authority may not have.

use crate::support::delay::DelayedLink;
use crate::support::mano::By;
use crate::support::process::{Finished, openssl, run};
use crate::support::site::{ANCHOR, Options, Site, VNF};
use keybroker::api::proto;
use keybroker::ca::{CertificateFacts, certificates_from_pem, pem};
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// The profile, alike on both sides but for who signs.
pub(crate) const PROFILE: &str = "nf";
const POOL: &str = "operator-pki";

fn profile(issuer: &str) -> String {
    format!(
        "issuer = {issuer:?}\nsubject = \"CN={{vdu}}.{{vnf_instance}},O=Operator\"\n\
         san = [\"uri:urn:uuid:{{credential}}\"]\nvalidity = \"3d\"\n"
    )
}

async fn add_profile(site: &Site, issuer: &str) {
    let file = site.path().join("nf.toml");
    std::fs::write(&file, profile(issuer)).unwrap();
    site.cli_as("operator", &["profile", "add", &file.display().to_string()]).await.ok();
}

/// The operator's broker: EST, the profile, and a pool that lends its names.
async fn operator() -> Site {
    lending(Site::start_with(Options { est: true, ..Options::default() }).await).await
}

/// A broker that lends the names of a pool.
pub(crate) async fn lending(site: Site) -> Site {
    add_profile(&site, "sub-ca").await;
    site.create_pool_of(PROFILE, "lent", 1).await;
    site
}

/// Registers a registration authority for [`VNF`] at the operator's broker, by its certificate.
async fn add_authority(operator: &Site, name: &str, certificate: &Path) {
    add(operator, name, &["--certificate", &certificate.display().to_string()]).await;
}

/// The same with a certificate that the operator's broker makes for a request.
async fn certify_authority(operator: &Site, name: &str, request: &Path, certificate: &Path, validity: &str) {
    let (request, certificate) = (request.display().to_string(), certificate.display().to_string());
    add(operator, name, &["--request", &request, "--out", &certificate, "--validity", validity]).await;
}

async fn add(operator: &Site, name: &str, how: &[&str]) {
    let arguments = ["identity", "add", name, "--role", "registration-authority", "--tenant", "default"];
    operator.cli_as("operator", &[&arguments[..], &["--vnf-instance", VNF], how].concat()).await.ok();
}

/// A broker whose pools the operator's fills, by a client certificate of some CA.
pub(crate) async fn enrolling(operator: &Site, url: &str) -> Site {
    let mut site = requesting(operator, url).await;
    let new_ca = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj '/CN=Clients'";
    openssl(site.path(), new_ca).await;
    let sign = "x509 -req -in est-client.csr -CA ca.pem -CAkey ca.key -copy_extensions copyall -days 5 -out est-client.pem";
    openssl(site.path(), sign).await;
    // Any CA will do: the operator's broker knows the certificate itself.
    add_authority(operator, "other-broker", &site.path().join("est-client.pem")).await;
    serve(&mut site).await;
    site
}

async fn serve(site: &mut Site) {
    site.serve().await;
    site.add_anchor("default", ANCHOR, &site.mano_ca).await;
    add_profile(site, "pki").await;
}

/// The same before it runs, with the request for its client certificate in `est-client.csr`.
async fn requesting(operator: &Site, url: &str) -> Site {
    let more_toml = format!(
        "[issuer.pki]\nkind = \"est\"\nurl = {url:?}\nlabel = {PROFILE:?}\ntrust_anchor = {:?}\n\
         client_certificate = \"est-client.pem\"\nrevocation = \"out-of-band\"\n",
        operator.root_pem(),
    );
    let site = Site::prepare(Options { more_toml, ..Options::default() });
    site.init().await;
    let config = site.config().display().to_string();
    let requested = site.cli(["issuer", "request", "pki", "--config", &config]).await.ok().object();
    std::fs::write(site.path().join("est-client.csr"), requested["request"].as_str().unwrap()).unwrap();
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_fills_its_pool_from_another_brokers_est_and_openssl_verifies_up_to_that_ones_root() {
    let mut operator = operator().await;
    let mut site = enrolling(&operator, &operator.est_url()).await;
    site.full_pool_of(PROFILE, POOL, 12).await;

    let vnfci = site.register_one("amf-0001", &[("transport", POOL)], By::Certificate).await;
    let claimed = vnfci.boot(&site).await;
    let [key] = claimed.keys.as_slice() else { panic!("{} keys", claimed.keys.len()) };
    assert_eq!(
        pem("CERTIFICATE", &key.root_der).trim(),
        std::fs::read_to_string(operator.root_pem()).unwrap().trim()
    );
    let directory = site.path();
    std::fs::write(directory.join("leaf.pem"), pem("CERTIFICATE", &key.certificate_der)).unwrap();
    let chain: String = key.chain_der.iter().map(|der| pem("CERTIFICATE", der)).collect();
    std::fs::write(directory.join("chain.pem"), chain).unwrap();
    std::fs::copy(operator.root_pem(), directory.join("root-of-pki.pem")).unwrap();
    let verify = "verify -x509_strict -purpose sslclient -CAfile root-of-pki.pem -untrusted chain.pem";
    assert!(openssl(directory, &format!("{verify} leaf.pem")).await.contains("leaf.pem: OK"));
    assert_eq!(key.facts.uris, [format!("urn:uuid:{}", key.credential_id)]);

    // The operator's log knows who vouched for the key, and that it never was there.
    let fingerprint = key.facts.public_key.to_string();
    let enrolled = operator
        .until("the enrolment in the operator's log", async |operator| {
            let events = operator.events("ENROLLED").await;
            events.into_iter().find(|event| event["credentials"][0]["public_key"] == fingerprint.as_str())
        })
        .await;
    assert_eq!(enrolled["actor"], "registration-authority:default/other-broker", "{enrolled}");
    assert_eq!(enrolled["details"]["basis"], "AUTHORITY", "{enrolled}");
    assert_eq!(enrolled["credentials"][0]["id"], key.credential_id.to_string().as_str(), "{enrolled}");

    // What ends at the one is withdrawn at the other, by the same name, and openssl refuses it.
    let terminated = site.terminate_vnfci("amf-0001").await;
    assert_eq!(terminated.serials.len(), 1, "{terminated:?}");
    let id = key.credential_id.to_string();
    let revoked = operator
        .cli_as("nfvo", &["vnfci", "revoke", "--reason", "cessation-of-operation", "--credential", &id])
        .await
        .ok()
        .object();
    assert_eq!(revoked["revoked"], 1, "{revoked}");
    let issuer = enrolled["details"]["issuer"].as_str().unwrap().to_owned();
    let crl = site.path().join("crl.der");
    operator
        .until("the certificate on the operator's CRL", async |operator| {
            std::fs::write(&crl, operator.get(false, &format!("/crl/{issuer}.crl")).await).unwrap();
            let text = openssl(site.path(), "crl -inform DER -in crl.der -noout -text").await;
            text.to_lowercase().contains(&hex::encode(&key.facts.serial)).then_some(())
        })
        .await;
    let script = format!(
        "cd {} && openssl crl -inform DER -in crl.der -out crl.pem && openssl {verify} -crl_check -CRLfile crl.pem leaf.pem",
        site.path().display()
    );
    let refused = run("sh", ["-c", &script]).await;
    assert!(refused.code != 0 && refused.err.contains("certificate revoked"), "{refused:?}");
    site.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_client_certificate_is_followed_by_another_one_of_the_broker_that_signed_it() {
    let mut operator = operator().await;
    let mut site = requesting(&operator, &operator.est_url()).await;
    let (request, file) = (site.path().join("est-client.csr"), site.path().join("est-client.pem"));
    // With the minute before it was made, a third of it is left after 40 s.
    certify_authority(&operator, "other-broker", &request, &file, "90s").await;
    let first = std::fs::read_to_string(&file).unwrap();
    serve(&mut site).await;
    site.full_pool_of(PROFILE, POOL, 3).await;
    let renewed = site
        .until("another client certificate", async |_| {
            Some(std::fs::read_to_string(&file).unwrap()).filter(|now| *now != first)
        })
        .await;
    let [before, after] = [&first, &renewed].map(|text| {
        let chain = certificates_from_pem(text.as_bytes()).unwrap();
        CertificateFacts::parse(&chain[0]).unwrap()
    });
    assert_eq!((&after.public_key, &after.subject), (&before.public_key, &before.subject));
    assert_eq!(after.subject, "CN=other-broker,OU=registration-authority,O=keybroker");
    assert!(after.not_after > before.not_after, "{after:?}");
    std::fs::write(site.path().join("renewed.pem"), &renewed).unwrap();
    std::fs::copy(operator.root_pem(), site.path().join("root-of-pki.pem")).unwrap();
    let verify =
        "verify -x509_strict -purpose sslclient -CAfile root-of-pki.pem -untrusted renewed.pem renewed.pem";
    assert!(openssl(site.path(), verify).await.contains("renewed.pem: OK"));
    let event = operator
        .until("the renewal in the operator's log", async |operator| {
            operator.events("IDENTITY_RENEWED").await.into_iter().next()
        })
        .await;
    assert_eq!(event["actor"], "registration-authority:default/other-broker", "{event}");
    assert_eq!(event["details"]["identity"], "other-broker", "{event}");
    assert_eq!(event["details"]["follows"], before.fingerprint.to_string().as_str(), "{event}");
    assert_eq!(event["details"]["certificate"], after.fingerprint.to_string().as_str(), "{event}");
    // It goes on, by the new one.
    site.full_pool_of(PROFILE, "more", 3).await;
    let shown = after.fingerprint.to_string();
    operator
        .until("an enrolment by the new certificate", async |operator| {
            let events = operator.events("ENROLLED").await;
            events.into_iter().find(|event| event["details"]["shown"] == shown.as_str())
        })
        .await;
    site.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_renews_its_own_certificate_and_only_with_its_own_names() {
    let mut operator = operator().await;
    let directory = operator.path().to_owned();
    let subject = "/O=keybroker/OU=registration-authority/CN=ra";
    for (name, subject) in [
        ("ra", "/CN=whatever"),
        ("again", subject),
        ("other", subject),
        ("stranger", "/O=keybroker/CN=operator"),
    ] {
        let key = match name {
            "again" => "-key ra.key".to_owned(),
            _ => format!("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key"),
        };
        openssl(&directory, &format!("req -new {key} -subj '{subject}' -out {name}.csr")).await;
        openssl(&directory, &format!("req -in {name}.csr -outform DER | openssl base64 -out {name}.b64"))
            .await;
    }
    certify_authority(&operator, "ra", &directory.join("ra.csr"), &directory.join("ra.pem"), "30d").await;
    let operation = "/.well-known/est/simplereenroll";
    let ask = async |authority: &str, request: &str| {
        let answer = post_as(&operator, authority, operation, request).await.ok().out;
        let (body, status) = answer.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    };
    let (status, problem) = ask("ra", "stranger").await;
    assert!(status == "400" && problem.contains("the request's subject is"), "{problem}");
    // The same key, and the same once more: the answer may have been lost.
    let (status, second) = ask("ra", "again").await;
    assert_eq!((status.as_str(), &ask("ra", "again").await), ("200", &("200".to_owned(), second.clone())));
    std::fs::write(directory.join("second.b64"), &second).unwrap();
    // Another key, by the second certificate.
    let unpack = async |name: &str| {
        let script = format!(
            "base64 -d -A -in {name}.b64 | openssl pkcs7 -inform DER -print_certs | openssl x509 -out {name}.pem"
        );
        openssl(&directory, &script).await;
    };
    unpack("second").await;
    let (status, third) = ask("second", "other").await;
    assert_eq!(status, "200", "{third}");
    std::fs::write(directory.join("third.b64"), third).unwrap();
    unpack("third").await;
    std::fs::copy(directory.join("other.key"), directory.join("third.key")).unwrap();
    let days = openssl(&directory, "x509 -in third.pem -noout -checkend 2500000").await;
    assert!(days.contains("will not expire"), "{days}");
    // All three are its own until they end, or it is removed.
    for authority in ["ra", "second", "third"] {
        let answer =
            post_as(&operator, authority, "/.well-known/est/nf/simpleenroll", "again").await.ok().out;
        assert!(answer.ends_with("\n400"), "{authority}: {answer}");
    }
    let renewed = operator
        .until("two renewals in the log", async |operator| {
            Some(operator.events("IDENTITY_RENEWED").await).filter(|events| events.len() >= 2)
        })
        .await;
    assert_eq!(renewed.len(), 2, "{renewed:?}");
    operator.remove_identity("ra").await;
    for authority in ["ra", "second", "third"] {
        let answer = post_as(&operator, authority, operation, "again").await.ok().out;
        assert!(answer.ends_with("\n403"), "{authority}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_database_was_rolled_back_certifies_nothing_for_another_one() {
    let mut operator = operator().await;
    let mut site = enrolling(&operator, &operator.est_url()).await;
    operator.stop().await;
    let (mirror, aside) = (operator.path().join("audit-mirror"), operator.path().join("aside"));
    std::fs::rename(&mirror, &aside).unwrap();
    operator.serve().await;
    site.create_pool_of(PROFILE, POOL, 2).await;
    site.until("a failed turn", async |site| {
        let metrics = String::from_utf8(site.get(true, "/metrics").await).unwrap();
        metrics.contains("keybroker_enrolment_failures_total{issuer=\"pki\"}").then_some(())
    })
    .await;
    assert_eq!(site.levels(POOL).await.available, 0);
    std::fs::rename(&aside, &mirror).unwrap();
    // It was told to come back in a minute, and is told now that there is reason to ask again.
    site.until("the operator's broker to serve again", async |site| {
        site.broker().signal(Signal::HUP);
        tokio::time::sleep(Duration::from_secs(1)).await;
        (site.levels(POOL).await.available >= 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_1000_keys_over_a_link_of_50_ms_is_filled_in_seconds() {
    let operator = operator().await;
    let link = DelayedLink::to(operator.addresses.est, Duration::from_millis(50)).await;
    let mut site = enrolling(&operator, &format!("https://{}", link.address())).await;
    let begun = Instant::now();
    site.full_pool_of(PROFILE, POOL, 1_000).await;
    let took = begun.elapsed();
    eprintln!("1,000 keys enrolled over a link of 50 ms each way in {:.1} s", took.as_secs_f64());
    // One after the other they would take 100 s of the link alone.
    assert!(took < Duration::from_secs(50), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_authority_gets_only_names_of_the_vnf_instances_that_were_granted_to_it() {
    let mut operator = operator().await;
    let directory = operator.path().to_owned();
    let self_made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ra.key -out ra.pem -subj '/CN=RA'";
    openssl(&directory, self_made).await;
    add_authority(&operator, "ra", &directory.join("ra.pem")).await;
    let others = proto::CreatePoolRequest {
        vnf_instance_id: "smf-1".into(),
        profile: PROFILE.into(),
        ..crate::support::mano::pool_request("others", 1)
    };
    proto::pool_service_client::PoolServiceClient::new(operator.management("nfvo").await)
        .create_pool(others)
        .await
        .unwrap();

    let id = "0190c6a1-2b3c-7d4e-8f90-a1b2c3d4e5f6";
    let ours = "/O=Operator/CN=amf-worker.amf-1";
    for (name, subject, san) in [
        ("good", ours, format!("URI:urn:uuid:{id}")),
        ("same-name", ours, format!("URI:urn:uuid:{id}")),
        ("other-vnf", "/O=Operator/CN=amf-worker.smf-1", format!("URI:urn:uuid:{id}")),
        ("other-vdu", "/O=Operator/CN=amf-master.amf-1", format!("URI:urn:uuid:{id}")),
        ("own-name", "/CN=operator", format!("URI:urn:uuid:{id}")),
        ("more-names", ours, format!("URI:urn:uuid:{id},DNS:operator.example")),
        ("no-uuid", ours, "DNS:operator.example".to_owned()),
        ("p384", ours, format!("URI:urn:uuid:{id}")),
    ] {
        let curve = if name == "p384" { "P-384" } else { "P-256" };
        let request = format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:{curve} -nodes -keyout {name}.key -subj '{subject}' -addext \
             'subjectAltName={san}' -outform DER | openssl base64 -out {name}.b64"
        );
        openssl(&directory, &request).await;
    }
    let operation = "/.well-known/est/nf/simpleenroll";
    for (name, path, expected) in [
        ("other-vnf", operation, "400"),
        ("other-vdu", operation, "400"),
        ("own-name", operation, "400"),
        ("more-names", operation, "400"),
        ("no-uuid", operation, "400"),
        ("p384", operation, "400"),
        ("good", "/.well-known/est/vnfci-transport/simpleenroll", "400"),
        ("good", "/.well-known/est/nf/simpleenroll?vnfci=amf-0001", "403"),
        // The certificate that it shows is nobody's here to renew.
        ("good", "/.well-known/est/nf/simplereenroll", "400"),
        ("good", operation, "200"),
        // The same key again, and another one by the same name.
        ("good", operation, "200"),
        ("same-name", operation, "403"),
    ] {
        let answer = post(&operator, path, name).await.ok().out;
        let (body, status) = answer.rsplit_once('\n').unwrap();
        assert_eq!(status, expected, "{name} {path}: {body}");
    }
    let codes = operator
        .until("two refusals in the log", async |operator| {
            let events = operator.events("REFUSED").await;
            let code =
                |event: &serde_json::Value| event["details"]["reason_code"].as_str().map(str::to_owned);
            (events.len() == 2).then(|| events.iter().filter_map(code).collect::<Vec<_>>())
        })
        .await;
    assert_eq!(codes, ["VNFCI_FOREIGN", "NAME_USED"]);
    assert_eq!(operator.events("ENROLLED").await.len(), 1);
    assert_eq!(operator.events("ENROLMENT_REPLAYED").await.len(), 1);
    // Nothing else is open to it.
    operator.remove_identity("ra").await;
    let answer = post(&operator, operation, "good").await.ok().out;
    assert!(answer.ends_with("\n403"), "{answer}");
}

/// `NAME.b64` to EST as the authority `ra`.
async fn post(operator: &Site, path: &str, name: &str) -> Finished {
    post_as(operator, "ra", path, name).await
}

/// `NAME.b64` to EST by `AUTHORITY.pem`, with `ra.key` unless it has a key of its own.
async fn post_as(operator: &Site, authority: &str, path: &str, name: &str) -> Finished {
    let key = if operator.path().join(format!("{authority}.key")).exists() { authority } else { "ra" };
    let script = format!(
        "cd {} && curl -sS --cacert root.pem --cert {authority}.pem --key {key}.key -H 'Content-Type: application/pkcs10' \
         --data-binary @{name}.b64 -w '\\n%{{http_code}}' '{}{path}'",
        operator.path().display(),
        operator.est_url()
    );
    run("sh", ["-c", &script]).await
}
