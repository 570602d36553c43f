//! Goal: where a tenant's operator switched it on, an EST client that knows nothing of envelopes gets a key from the HSM, once;
//! the log says that the broker had it; and nothing else than that moment in its memory is weaker than a claim.
//! Method: curl asks; openssl, BouncyCastle and our listeners judge what it got.

use crate::est::{POOL, certificates, curl, post, public_key, request, sh, site, site_with, verified};
use crate::secrets::{Needles, core_of};
use crate::support::mano::By;
use crate::support::process::run;
use crate::support::settlement::{count, query};
use crate::support::site::{ANCHOR, Options, Site};
use crate::support::vnfci::{Delivered, Vnfci};
use keybroker::audit::history::prove;
use keybroker::audit::signature::AuditPublicKey;
use keybroker::ca::certificates_from_pem;
use keybroker::ca::cms::{from_base64, to_base64};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use zeroize::Zeroizing;

const KEYGEN: &str = "/.well-known/est/serverkeygen";
const ON: &str = "est_server_key_generation = true\n";

async fn switched_on(options: Options) -> Site {
    let mut site = site_with(Options { more_toml: ON.to_owned(), ..options }).await;
    site.until_available(POOL, 1).await;
    site
}

/// A VNFCI with one slot, whose initial credential is `initial.cert.pem`; and `any.csr.b64`, a request for whoever asks.
async fn vnfci(site: &Site, id: &str, pool: &str) -> Vnfci {
    let vnfci = site.register_one(id, &[("transport", pool)], By::Certificate).await;
    vnfci.initial.credential.write(site.path(), "initial");
    request(site.path(), "any", &format!("/CN={id}"), "").await;
    vnfci
}

/// What a 200 has: `NAME.key.pem` and `NAME.cert.pem`, as openssl reads them, and the body.
async fn generated(site: &Site, by: &str, path: &str, name: &str) -> (Delivered, String) {
    let more = "--data-binary @any.csr.b64 -H 'Content-Type: application/pkcs10' -D headers";
    let (status, body) = curl(site, by, path, more).await;
    assert_eq!(status, 200, "{body}");
    let headers = std::fs::read_to_string(site.path().join("headers")).unwrap().to_lowercase();
    let media = headers.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
    let boundary = media.strip_prefix("multipart/mixed; boundary=").unwrap().trim();
    assert!(headers.contains("cache-control: no-store"), "{headers}");
    let delimiter = format!("--{boundary}");
    let parts: Vec<&str> = body.split(delimiter.as_str()).collect();
    let [_, key, certificate, "--\r\n"] = parts[..] else { panic!("{} parts", parts.len()) };
    let content = |part: &str, media: &str| {
        let (head, content) = part.split_once("\r\n\r\n").unwrap();
        let expected = format!("\r\nContent-Type: {media}\r\nContent-Transfer-Encoding: base64");
        assert_eq!(head, expected);
        content.to_owned()
    };
    let private_key =
        Zeroizing::new(from_base64(content(key, "application/pkcs8").as_bytes()).expect("base64"));
    std::fs::write(site.path().join("key.der"), &*private_key).unwrap();
    sh(site.path(), &format!("openssl pkey -inform DER -in key.der -out {name}.key.pem")).await.ok();
    let message = content(certificate, "application/pkcs7-mime; smime-type=certs-only");
    let message: String = message.split_whitespace().collect();
    let file = certificates(site.path(), &message, &format!("{name}.cert.pem")).await;
    let facts = verified(site, &file).await;
    assert_eq!(facts.public_key, public_key(site, &format!("{name}.key.pem")).await, "not its certificate's");
    let delivered = Delivered {
        slot: "transport".into(),
        credential_id: String::new(),
        certificate_der: certificates_from_pem(&std::fs::read(file).unwrap()).unwrap().remove(0),
        facts,
        chain_der: Vec::new(),
        root_der: Vec::new(),
        private_key,
    };
    (delivered, body)
}

/// What must not be found of keys, in the forms that they had; and a marker, or the search proves nothing.
fn needles(keys: &[(Delivered, String)]) -> Needles {
    let mut all = vec![("marker".to_owned(), b"vnfci:default/amf-0001".to_vec())];
    for (delivered, body) in keys {
        let (scalar, der) = (delivered.scalar(), &delivered.private_key);
        let line = body.lines().skip(4).find(|line| line.len() > 60).unwrap().as_bytes();
        assert_eq!(line, &to_base64(der).as_bytes()[..line.len()]);
        let name = |what: &str| format!("{what} of sha256:{}", delivered.facts.public_key);
        all.push((name("scalar"), scalar.to_vec()));
        all.push((name("hexadecimal scalar"), hex::encode(&*scalar).into_bytes()));
        // What is before it is the same for all keys.
        all.push((name("line"), line[line.len() - 40..].to_vec()));
    }
    Needles::new(all)
}

/// The reason codes of refusals, once there are so many.
async fn refusals(site: &mut Site, many: usize) -> Vec<String> {
    site.until("the refusals in the log", async |site| {
        let events = site.events("REFUSED").await;
        let code = |event: &Value| event["details"]["reason_code"].as_str().unwrap().to_owned();
        (events.len() == many).then(|| events.iter().map(code).collect())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn serverkeygen_is_off_until_the_tenants_operator_switches_it_on() {
    let mut site = site().await;
    site.until_available(POOL, 1).await;
    vnfci(&site, "amf-0001", POOL).await;
    let by_nobody = post(&site, "", KEYGEN, "any.csr.b64").await;
    assert!(by_nobody.0 == 501 && by_nobody.1.contains("est_server_key_generation"), "{by_nobody:?}");
    assert_eq!(post(&site, "initial", KEYGEN, "any.csr.b64").await, by_nobody);
    let config = site.config().display().to_string();
    let warned = async |site: &Site| {
        let checks = site.cli(["doctor", "--config", &config]).await.ok().objects();
        checks.into_iter().find(|row| row["check"] == "serverkeygen").map(|row| row["status"].clone())
    };
    assert_eq!(warned(&site).await, None);

    // Another tenant's: only who is known learns that it is not his.
    site.options.more_toml = format!("[tenant.red]\n{ON}");
    site.write_config();
    site.broker().signal(Signal::HUP);
    site.until("the new settings", async |site| {
        (post(site, "", KEYGEN, "any.csr.b64").await.0 == 403).then_some(())
    })
    .await;
    assert_eq!(post(&site, "initial", KEYGEN, "any.csr.b64").await, by_nobody);
    assert_eq!(count(&site, "SELECT count(*) FROM claims").await, 0, "something was drawn");

    site.options.more_toml = ON.to_owned();
    site.write_config();
    assert_eq!(warned(&site).await, Some("warn".into()));
    site.broker().signal(Signal::HUP);
    site.until("the new settings", async |site| {
        (post(site, "initial", KEYGEN, "any.csr.b64").await.0 != 501).then_some(())
    })
    .await;
    assert_eq!(count(&site, "SELECT count(*) FROM claims WHERE state = 'CONFIRMED'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_hsm_comes_with_its_certificate_once_and_the_log_says_that_the_broker_had_it() {
    let mut site = switched_on(Options { log_level: "debug", ..Options::default() }).await;
    let vnfci = vnfci(&site, "amf-0001", POOL).await;
    let (delivered, body) = generated(&site, "initial", KEYGEN, "one").await;
    assert_eq!(delivered.facts.common_names, ["amf-worker.amf-1"]);
    delivered.trust_chain(&site).await.expect("a VNFCI with its certificate");
    let shown = site.vnfci("amf-0001").await;
    assert_eq!(shown.state(), keybroker::api::proto::VnfciState::Active);
    assert_eq!((shown.credentials.len(), shown.credentials[0].key_state.as_str()), (1, "DELIVERED"));
    let copies =
        "SELECT count(*) FROM key_blobs JOIN credentials ON id = credential WHERE key_state = 'DELIVERED'";
    assert_eq!(count(&site, copies).await, 0, "the broker kept one");

    // Once: the initial credential is spent for EST and for a claim.
    assert_eq!(post(&site, "initial", KEYGEN, "any.csr.b64").await.0, 403);
    assert!(vnfci.claim(&site).await.is_err());
    assert_eq!(refusals(&mut site, 2).await, ["INITIAL_CREDENTIAL_SPENT", "SPENT"]);
    // It is renewed as any other, sealed.
    site.until_available(POOL, 1).await;
    let renewed = vnfci.rebooted().renew(&site, &delivered).await.unwrap();
    renewed.confirm_by(&site, &delivered).await.unwrap();
    let marks = async |site: &Site, kind: &str| -> Vec<Value> {
        site.events(kind).await.iter().map(|event| event["details"]["delivered_by"].clone()).collect()
    };
    site.until("two confirmations in the log", async |site| {
        (site.events("CONFIRMED").await.len() == 2).then_some(())
    })
    .await;
    for kind in ["CLAIMED", "CONFIRMED"] {
        assert_eq!(marks(&site, kind).await, [Value::from("EST_SERVERKEYGEN"), Value::Null], "{kind}");
    }

    // The answer was lost, and the credential is spent: MANO arms it again, and it gets another key.
    let again = site.mano_ca.client("amf-0001").write(site.path(), "again").0.display().to_string();
    let rearm = ["vnfci", "rearm", "amf-0001", "--anchor", ANCHOR, "--initial-cert", &again];
    site.cli_as("nfvo", &rearm).await.ok();
    site.until_available(POOL, 1).await;
    let (second, _) = generated(&site, "again", KEYGEN, "two").await;
    assert_ne!(second.facts.public_key, delivered.facts.public_key);

    // Its end is that of any key.
    site.terminate_vnfci("amf-0001").await;
    let receipt = site
        .until("a receipt of its shredding", async |site| {
            let events = site.events("DESTRUCTION_RECEIPT").await;
            events.into_iter().find(|event| {
                event["credentials"][0]["public_key"] == delivered.facts.public_key.to_string().as_str()
                    && event["details"]["receipt"]["broker_copy"]["state"] == "SHREDDED"
            })
        })
        .await;
    assert_eq!(receipt["details"]["receipt"]["holder_copy"], "UNKNOWN", "{receipt}");
    let export = site.export("audit").await;
    let key = AuditPublicKey::from_pem(&std::fs::read(site.audit_key()).unwrap()).unwrap();
    let history = prove(&export, &key, delivered.facts.public_key).unwrap();
    assert_eq!(history.problems, Vec::<String>::new());
    assert!(history.generated_in_hsm() && history.sealed_to_one_recipient(), "{history:#?}");
    assert_eq!(history.sealings[0].delivered_by.as_deref(), Some("EST_SERVERKEYGEN"));

    // What was in its memory for a moment is in no file of the broker's.
    let needles = needles(&[(delivered, body)]);
    let mut seen = 0;
    for file in
        [site.database(), site.database().with_extension("db-wal"), site.log(), export.join("events.jsonl")]
    {
        if file.exists() {
            let found = needles.found_in(&file);
            assert!(found.iter().all(|name| name == "marker"), "{}: {found:?}", file.display());
            seen += found.len();
        }
    }
    assert!(seen >= 2, "the marker is in {seen} files: the search looks at the wrong ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_requests_at_the_same_time_one_gets_a_key() {
    let mut site = switched_on(Options::default()).await;
    // Issued ahead, and while they ask.
    for (profile, pool, id) in
        [("vnfci-transport", "ahead", "amf-0001"), ("vnfci-named", "named", "amf-0002")]
    {
        site.create_pool_of(profile, pool, 6).await;
        if profile == "vnfci-transport" {
            site.until_available(pool, 6).await;
        } else {
            site.until("keys that wait", async |site| (site.levels(pool).await.generated >= 6).then_some(()))
                .await;
        }
        vnfci(&site, id, pool).await;
        let one = || post(&site, "initial", KEYGEN, "any.csr.b64");
        let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
        let mut statuses = [a.0, b.0, c.0, d.0];
        statuses.sort_unstable();
        assert_eq!(statuses[0], 200, "nobody got one: {statuses:?}");
        assert!(statuses[1..].iter().all(|status| [403, 503].contains(status)), "{statuses:?}");
        assert_eq!(one().await.0, 403);
        assert_eq!(site.vnfci(id).await.state(), keybroker::api::proto::VnfciState::Active);
    }
    let states = "SELECT vnfci, count(*) FROM claims WHERE state = 'CONFIRMED' GROUP BY vnfci ORDER BY vnfci";
    assert_eq!(query(&site, states).await, ["amf-0001|1", "amf-0002|1"]);
    assert_eq!(count(&site, "SELECT count(*) FROM credentials WHERE key_state = 'DELIVERED'").await, 2);
    assert_eq!(count(&site, "SELECT count(*) FROM claims WHERE state = 'OPEN'").await, 0);
    site.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_vnfci_itself_is_given_a_key_for_its_one_slot() {
    let mut site = switched_on(Options::default()).await;
    site.add_profile("strict", "requested_names = \"REFUSE\"").await;
    site.create_pool_of("strict", "strict", 1).await;
    site.until_available("strict", 1).await;
    let several = site.register_one("amf-0002", &[("a", POOL), ("b", POOL)], By::Certificate).await;
    several.initial.credential.write(site.path(), "several");
    let strict = site.register_one("amf-0003", &[("transport", "strict")], By::Certificate).await;
    strict.initial.credential.write(site.path(), "strict");
    vnfci(&site, "amf-0001", POOL).await;
    for role in ["vnfm", "nfvo"] {
        let from = site.path().join("clients").join(role);
        for file in ["cert.pem", "key.pem"] {
            std::fs::copy(from.join(file), site.path().join(format!("{role}.{file}"))).unwrap();
        }
    }
    let config = |attribute: &str| {
        format!(
            "[req]\nprompt = no\ndistinguished_name = dn\nattributes = more\n[dn]\nCN = amf-0001\n\
             [more]\n{attribute} = whatever\n"
        )
    };
    for (name, attribute) in [
        ("symmetric", "1.2.840.113549.1.9.16.2.37"),
        ("asymmetric", "1.2.840.113549.1.9.16.2.54"),
        ("password", "challengePassword"),
    ] {
        std::fs::write(site.path().join("asked.cnf"), config(attribute)).unwrap();
        let script = format!(
            "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout asked.key.pem \
             -config asked.cnf -outform DER | openssl base64 -out {name}.csr.b64"
        );
        sh(site.path(), &script).await.ok();
    }
    request(site.path(), "other", "/CN=amf-0002", "").await;
    std::fs::write(site.path().join("empty.csr.b64"), "").unwrap();
    std::fs::write(site.path().join("noise.csr.b64"), to_base64(&[0x30, 0x82, 0x01, 0x00, 7])).unwrap();
    std::fs::write(site.path().join("text.csr.b64"), "no base64!").unwrap();

    for (by, path, body, status, told) in [
        ("initial", KEYGEN, "symmetric", 400, "not offered"),
        ("initial", KEYGEN, "asymmetric", 400, "Claim"),
        ("initial", KEYGEN, "password", 400, "challengePassword"),
        ("initial", KEYGEN, "empty", 400, "PKCS#10"),
        ("initial", KEYGEN, "noise", 400, "PKCS#10"),
        ("initial", KEYGEN, "text", 400, "base64"),
        ("initial", "/.well-known/est/vnf-om/serverkeygen", "any", 400, "no slot of the profile"),
        ("initial", "/.well-known/est/no-such/serverkeygen", "any", 404, "does not exist"),
        ("several", KEYGEN, "empty", 400, "PKCS#10"),
        ("strict", KEYGEN, "any", 403, "refused"),
        ("initial", "/.well-known/est/red/vnfci-transport/serverkeygen", "any", 403, "refused"),
        ("initial", &format!("{KEYGEN}?vnfci=amf-0002"), "any", 403, "refused"),
        ("initial", KEYGEN, "other", 403, "refused"),
        ("vnfm", &format!("{KEYGEN}?vnfci=amf-0001"), "any", 403, "refused"),
        ("nfvo", KEYGEN, "any", 403, "refused"),
        ("", KEYGEN, "any", 403, "refused"),
    ] {
        let (answered, text) = post(&site, by, path, &format!("{body}.csr.b64")).await;
        assert!(answered == status && text.contains(told), "{by} {path} {body}: {answered}: {text}");
    }
    request(site.path(), "named", "/CN=whoever", "").await;
    for (by, told) in [("several", "2 slots"), ("strict", "leave subject")] {
        let (status, text) = post(&site, by, KEYGEN, "named.csr.b64").await;
        assert!(status == 400 && text.contains(told), "{by}: {status}: {text}");
    }
    let codes = refusals(&mut site, 7).await;
    let foreign = codes.iter().filter(|code| *code == "VNFCI_FOREIGN").count();
    assert_eq!(foreign, 4, "{codes:?}");
    assert!(codes.contains(&"NOT_AUTHORISED".to_owned()) && codes.contains(&"TENANT_FOREIGN".to_owned()));
    assert_eq!(count(&site, "SELECT count(*) FROM claims").await, 0, "something was drawn");

    // Nothing of this spent anything. The public key and the signature in the request mean nothing.
    let mut forged = from_base64(&std::fs::read(site.path().join("named.csr.b64")).unwrap()).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    std::fs::write(site.path().join("any.csr.b64"), to_base64(&forged)).unwrap();
    let (_, _) = generated(&site, "initial", "/.well-known/est/vnfci-transport/serverkeygen", "one").await;
    // A delivered certificate is no initial credential: it is followed by Renew or simplereenroll.
    assert_eq!(post(&site, "one", KEYGEN, "any.csr.b64").await.0, 403);
    site.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_pool_says_when_to_come_again() {
    let mut site = switched_on(Options { faulty: true, ..Options::default() }).await;
    site.add_profile("retry", "on_empty = \"RETRY\"").await;
    site.faults().set("C_GenerateKeyPair return 0x30");
    site.create_pool_of("retry", "retry", 1).await;
    vnfci(&site, "amf-0001", "retry").await;
    let more = "--data-binary @any.csr.b64 -H 'Content-Type: application/pkcs10' -D headers";
    let (status, text) = curl(&site, "initial", KEYGEN, more).await;
    assert_eq!(status, 503, "{text}");
    let headers = std::fs::read_to_string(site.path().join("headers")).unwrap().to_lowercase();
    let wait = headers.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((1..=45).contains(&wait.trim().parse::<u32>().unwrap()), "{headers}");
    site.faults().clear();
    site.until_available("retry", 1).await;
    generated(&site, "initial", KEYGEN, "one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_seals_to_rsa_keys_only_serves_it_too() {
    let site = switched_on(Options { sealing: &["RSA_AES_KEY_WRAP"], ..Options::default() }).await;
    vnfci(&site, "amf-0001", POOL).await;
    generated(&site, "initial", KEYGEN, "one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bouncy_castle_has_its_key_made() {
    let site = switched_on(Options::default()).await;
    vnfci(&site, "amf-0001", POOL).await;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/BouncyCastleEst.java");
    let jars = ["bcprov", "bcpkix", "bcutil"].map(|jar| format!("/usr/share/java/{jar}.jar")).join(":");
    let server = format!("localhost:{}", site.addresses.est.port());
    let file = |name: &str| site.path().join(name).display().to_string();
    let arguments = [
        "-cp".to_owned(),
        jars,
        source.display().to_string(),
        server,
        "-".to_owned(),
        file("root.pem"),
        file("initial.cert.pem"),
        file("initial.key.pem"),
        file(""),
        "serverkeygen".to_owned(),
    ];
    run("java", arguments).await.ok();
    let facts = verified(&site, &site.path().join("first.cert.pem")).await;
    assert_eq!(facts.public_key, public_key(&site, "first.key.pem").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_keys_were_given_out_nothing_of_them_is_left_in_the_brokers_memory() {
    let mut site = switched_on(Options::default()).await;
    site.create_pool("large", 10, None).await;
    site.until_available("large", 10).await;
    let mut keys = Vec::new();
    for number in 1..=10 {
        vnfci(&site, &format!("amf-{number:04}"), "large").await;
        keys.push(generated(&site, "initial", KEYGEN, "one").await);
    }
    match core_of(site.broker().pid(), site.path()).await {
        Ok(core) => assert_eq!(needles(&keys).found_in(&core), ["marker"]),
        Err(reason) => eprintln!("SKIPPED: no core can be taken here: {reason}"),
    }
}
