//! Goal: with `RSA_AES_KEY_WRAP` in `hsm.sealing`, whoever holds an RSA key can have keys sealed to it, in the layout that
//! other HSMs and clouds import; without it, nobody. The rules of a claim are the same as with any recipient key.
//! Method: the recipient is the openssl command line: it makes the RSA key, unwraps, and signs the confirmation.

use crate::support::mano::By;
use crate::support::process::openssl;
use crate::support::site::{Options, Site};
use crate::support::vnfci::Vnfci;
use keybroker::api::client::{claim_request, describe};
use keybroker::api::proto;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::identity::confirm::confirm_message;
use keybroker::nfv::{RequestId, Sha256Hash};
use keybroker::sealing::RecipientKey;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tonic::{Code, Status};

const POOL: &str = "amf-transport";
const SLOTS: [(&str, &str); 1] = [("transport", POOL)];
const TWO_SLOTS: [(&str, &str); 2] = [("client", POOL), ("server", POOL)];
const RSA: &str = "RSA_AES_KEY_WRAP";
const ECDH: &str = "ECDH_P256_CBCENC_KWP_V1";

/// The RSA suite first: what is agreed on follows from the recipient's key all the same.
fn with_rsa() -> Options {
    Options { sealing: &[RSA, "ECDH_P256_X963SHA256_KWP", ECDH], ..Options::default() }
}

/// An RSA key pair made by openssl in `rsa.pem`; gives its SubjectPublicKeyInfo, DER.
async fn rsa_key(directory: &Path, options: &str) -> Vec<u8> {
    openssl(directory, &format!("genpkey -quiet -algorithm RSA {options} -out rsa.pem")).await;
    openssl(directory, "pkey -in rsa.pem -pubout -outform DER -out rsa.der").await;
    std::fs::read(directory.join("rsa.der")).unwrap()
}

/// The same VNFCI with the key in `rsa.pem` as its recipient key.
async fn with_key_of(directory: &Path, vnfci: &Vnfci) -> Vnfci {
    openssl(directory, "pkcs8 -topk8 -nocrypt -in rsa.pem -outform DER -out rsa.pk8").await;
    let recipient = RecipientKey::from_bytes(&std::fs::read(directory.join("rsa.pk8")).unwrap()).unwrap();
    Vnfci { recipient: Arc::new(recipient), ..vnfci.clone() }
}

/// Sends a claim as it is; what comes back stays sealed.
async fn send(
    site: &Site,
    vnfci: &Vnfci,
    change: impl FnOnce(&mut proto::ClaimRequest),
) -> Result<proto::ClaimResponse, Status> {
    let connection = vnfci.connect(site).await.unwrap();
    let mut request = vnfci.claim_request(&connection, RequestId::generate());
    change(&mut request);
    let mut client = CredentialServiceClient::new(connection.channel);
    client.claim(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openssl_command_line_unwraps_and_confirms_what_is_sealed_to_its_rsa_key() {
    let mut site = Site::start_with(with_rsa()).await;
    site.full_pool(POOL, 4).await;
    for (id, by, bits) in [("amf-0001", By::Certificate, 2048), ("amf-0002", By::Token, 4096)] {
        let directory = site.path().join(format!("importer-{id}"));
        std::fs::create_dir(&directory).unwrap();
        let public = rsa_key(&directory, &format!("-pkeyopt rsa_keygen_bits:{bits}")).await;
        let vnfci = site.register_one(id, &TWO_SLOTS, by).await;
        let vnfci = with_key_of(&directory, &vnfci).await;
        let answer = send(&site, &vnfci, |request| {
            assert_eq!(request.recipient_rsa_public_key_der, public);
            assert!(request.recipient_public_key.is_empty());
        })
        .await
        .unwrap();
        assert_eq!((answer.suite.as_str(), answer.credentials.len()), (RSA, 2));

        let mut signatures = Vec::new();
        for sealed in &answer.credentials {
            assert!(sealed.hsm_public_key.is_empty());
            assert_eq!(sealed.oaep_hash, "SHA-1", "SoftHSM 2.6 has no other");
            // CKM_RSA_AES_KEY_WRAP: the wrapped AES key, as long as the modulus, and after it the wrapped key.
            assert_eq!(sealed.wrapped_data_key.len(), bits / 8);
            for (file, content) in [
                ("dek.wrapped", &sealed.wrapped_data_key),
                ("key.wrapped", &sealed.wrapped_private_key),
                ("cert.der", &sealed.certificate_der),
            ] {
                std::fs::write(directory.join(file), content).unwrap();
            }
            let oaep = "-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha1 -pkeyopt rsa_mgf1_md:sha1";
            openssl(&directory, &format!("pkeyutl -decrypt -inkey rsa.pem {oaep} -in dek.wrapped -out dek"))
                .await;
            let dek = std::fs::read(directory.join("dek")).unwrap();
            assert_eq!(dek.len(), 32);
            let unwrap = format!("enc -d -id-aes256-wrap-pad -iv A65959A6 -K {}", hex::encode(&dek));
            openssl(&directory, &format!("{unwrap} -in key.wrapped -out key.der")).await;
            openssl(&directory, "pkey -inform DER -in key.der -out key.pem").await;
            let of_key = openssl(&directory, "pkey -in key.pem -pubout").await;
            assert_eq!(of_key, openssl(&directory, "x509 -inform DER -in cert.der -noout -pubkey").await);

            let message = confirm_message(
                answer.claim_id.parse().unwrap(),
                Sha256Hash::of(&sealed.certificate_der),
                Sha256Hash::of(&public),
            );
            std::fs::write(directory.join("message"), message).unwrap();
            openssl(&directory, "dgst -sha256 -sign key.pem -out signature message").await;
            let signature = std::fs::read(directory.join("signature")).unwrap();
            signatures.push(proto::KeySignature { slot: sealed.slot.clone(), signature });
        }
        let connection = vnfci.connect(&site).await.unwrap();
        let request = RequestId::generate();
        let confirm = proto::ConfirmRequest {
            request_id: request.to_string(),
            claim_id: answer.claim_id,
            signatures,
            token: vnfci.proof(&connection, request, Sha256Hash::of(&public)),
        };
        let mut client = CredentialServiceClient::new(connection.channel);
        assert!(client.confirm(confirm).await.unwrap().into_inner().newly_confirmed, "{id}");
    }
    let claimed = site
        .until("the claims in the audit log", async |site| {
            Some(site.events("CLAIMED").await).filter(|events| events.len() == 2)
        })
        .await;
    for event in claimed {
        assert_eq!(event["details"]["suite"], RSA, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rsa_is_refused_where_it_is_not_configured() {
    let mut site = Site::start().await;
    site.full_pool(POOL, 1).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let with_rsa = vnfci.with_rsa_key();
    // Neither for who offers nothing else, nor for who would take another suite for the RSA key.
    for offered in [&[RSA][..], &[RSA, ECDH]] {
        let offered: Vec<String> = offered.iter().map(|&suite| suite.into()).collect();
        let refused = send(&site, &with_rsa, |request| request.suites = offered).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains("suites") && refused.message().contains(ECDH), "{refused:?}");
    }
    assert_eq!(site.levels(POOL).await.available, 1, "a refused claim drew a credential");
    vnfci.boot(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_or_malformed_rsa_key_is_refused_with_what_is_wrong() {
    let mut site = Site::start_with(with_rsa()).await;
    site.full_pool(POOL, 1).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let directory = site.path().to_owned();
    let short = rsa_key(&directory, "-pkeyopt rsa_keygen_bits:1024").await;
    let small_exponent =
        rsa_key(&directory, "-pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3").await;
    let good = rsa_key(&directory, "-pkeyopt rsa_keygen_bits:2048").await;
    openssl(&directory, "genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.pem").await;
    openssl(&directory, "pkey -in ec.pem -pubout -outform DER -out ec.der").await;
    let elliptic = std::fs::read(directory.join("ec.der")).unwrap();
    let point = vnfci.recipient.public_key().as_bytes().to_vec();
    let cases = [
        (short, "has 1024 bits: give one of 2048 to 4096 bits"),
        (small_exponent, "public exponent"),
        (elliptic, "no SubjectPublicKeyInfo of an rsaEncryption key"),
        (good[..good.len() - 7].to_vec(), "no SubjectPublicKeyInfo of an rsaEncryption key"),
        (vec![0x30; 294], "no SubjectPublicKeyInfo of an rsaEncryption key"),
    ];
    for (key, problem) in cases {
        let refused = send(&site, &vnfci, |request| {
            request.recipient_public_key.clear();
            request.recipient_rsa_public_key_der = key;
            request.suites = vec![RSA.into()];
        })
        .await
        .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains("recipient_rsa_public_key_der"), "{refused:?}");
        assert!(refused.message().contains(problem), "{refused:?}");
        assert_eq!(describe(&refused).reason.as_deref(), Some("INVALID_ARGUMENT"), "{refused:?}");
    }
    // One recipient key, not two of which the broker chooses.
    let refused = send(&site, &vnfci, |request| {
        request.recipient_public_key = point;
        request.recipient_rsa_public_key_der = good;
    })
    .await
    .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("one recipient key"), "{refused:?}");
    assert_eq!(site.levels(POOL).await.available, 1, "a refused claim drew a credential");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipient_key_decides_whether_the_suite_is_rsa_and_binds_the_claim() {
    let mut site = Site::start_with(with_rsa()).await;
    site.full_pool(POOL, 6).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let offering = |request: &mut proto::ClaimRequest| {
        request.suites = [RSA, "ECDH_P256_X963SHA256_KWP", ECDH].map(Into::into).into();
    };
    // A P-256 key with everything on offer, in our order and in theirs RSA first: never RSA.
    let first = vnfci.open(send(&site, &vnfci, offering).await.unwrap());
    assert_eq!(first.response.suite, ECDH);
    // An RSA key is another recipient: what was not confirmed is destroyed.
    let rsa = vnfci.with_rsa_key();
    let second = rsa.open(send(&site, &rsa, offering).await.unwrap());
    assert_eq!(second.response.suite, RSA);
    assert_ne!(second.keys[0].credential_id, first.keys[0].credential_id);
    let late = vnfci.confirm(&site, &first).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition, "{late:?}");
    // The same RSA key gets the same again, wrapped anew.
    let again = rsa.claim(&site).await.unwrap();
    assert_eq!(again.response.claim_id, second.response.claim_id);
    assert_eq!(again.keys[0].private_key, second.keys[0].private_key);
    let wrapped =
        |claimed: &crate::support::vnfci::Claimed| claimed.response.credentials[0].wrapped_data_key.clone();
    assert_ne!(wrapped(&again), wrapped(&second), "OAEP is randomised");
    // Without RSA on offer there is nothing for an RSA key.
    let refused = send(&site, &rsa, |request| request.suites = vec![ECDH.into()]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    // Another RSA key is another recipient, too; the fourth new one is refused.
    let third = rsa.with_rsa_key().claim_patiently(&site).await;
    assert_ne!(third.keys[0].credential_id, second.keys[0].credential_id);
    let last = rsa.with_rsa_key();
    let fourth = last.claim_patiently(&site).await;
    let refused = rsa.with_rsa_key().claim(&site).await.err().expect("a fifth recipient key is refused");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    // What is signed covers the recipient key's hash: a point's in its place does not confirm.
    let mut wrong = last.claim(&site).await.unwrap();
    wrong.recipient_key = vnfci.recipient_key();
    let refused = last.confirm(&site, &wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(last.confirm(&site, &fourth).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_proof_covers_the_rsa_key() {
    let mut site = Site::start_with(with_rsa()).await;
    site.full_pool(POOL, 1).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Token).await.with_rsa_key();
    let thief = vnfci.with_rsa_key();
    let connection = vnfci.connect(&site).await.unwrap();
    let captured = vnfci.claim_request(&connection, RequestId::generate());
    let request = captured.request_id.parse().unwrap();
    let stolen = claim_request(request, thief.recipient.public_key(), captured.token.clone());
    let mut client = CredentialServiceClient::new(connection.channel.clone());
    assert_eq!(client.claim(stolen).await.unwrap_err().code(), Code::Unauthenticated);
    let claimed = vnfci.send_claim(&connection, captured).await.unwrap();
    assert!(vnfci.confirm(&site, &claimed).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_claims_with_the_suite_and_the_operator_is_told_of_it() {
    let mut site = Site::start_with(with_rsa()).await;
    site.full_pool(POOL, 2).await;
    let vnfci = site.register_one("amf-0001", &SLOTS, By::Certificate).await;
    let (cert, key) = vnfci.initial.credential.write(site.path(), "initial");
    let path = |path: &Path| path.display().to_string();
    let (server, root, out) = (site.bootstrap_url(), path(&site.root_pem()), site.path().join("out"));
    let (cert, key, out_text) = (path(&cert), path(&key), path(&out));
    let claim = |more: &[&str]| {
        let common = ["claim", "--server", &server, "--trust-anchor", &root, "--initial-cert", &cert];
        let rest = ["--initial-key", &key, "--out", &out_text];
        common.iter().chain(&rest).chain(more).map(|&word| word.to_owned()).collect::<Vec<_>>()
    };
    let installed = site.cli(claim(&["--suite", RSA, "--no-confirm"])).await.ok().object();
    assert_eq!(installed["stage"], "INSTALLED", "{installed}");
    // The RSA key was stored before the claim, for its owner only, and stays until the confirmation.
    let recipient = out.join("recipient.key");
    assert_eq!(std::fs::metadata(&recipient).unwrap().permissions().mode() & 0o777, 0o600);
    let bits = openssl(&out, "pkey -inform DER -in recipient.key -noout -text").await;
    assert!(bits.contains("(3072 bit"), "{bits}");
    let confirmed = site.cli(claim(&[])).await.ok().object();
    assert_eq!((&confirmed["stage"], &confirmed["newly_confirmed"]), (&"CONFIRMED".into(), &true.into()));
    assert!(!recipient.exists());
    let slot = out.join("transport");
    let of_key = openssl(&slot, "pkey -in key.pem -pubout").await;
    assert_eq!(of_key, openssl(&slot, "x509 -in cert.pem -noout -pubkey").await);
    openssl(&slot, &format!("verify -x509_strict -CAfile '{root}' -untrusted chain.pem cert.pem")).await;

    // The log of the start and the doctor say that it is on, and with which hash.
    let log = std::fs::read_to_string(site.log()).unwrap();
    let probed = log.lines().find(|line| line.contains("HSM probed")).expect("the probe is logged");
    assert!(probed.contains("RsaAesKeyWrap") && probed.contains("Sha1"), "{probed}");
    assert!(probed.contains("OAEP with SHA-256"), "what does not work is said: {probed}");
    let config = path(&site.config());
    let checks = site.cli(["doctor", "--config", &config]).await.ok().objects();
    let of = |check: &str| checks.iter().find(|row| row["check"] == check).cloned().expect("the check");
    assert!(of("sealing")["finding"].as_str().unwrap().contains(RSA), "{checks:?}");
    let rsa = of("sealing to RSA keys");
    assert_eq!(rsa["status"], "warn", "{rsa}");
    let finding = rsa["finding"].as_str().unwrap();
    assert!(finding.contains("SHA-1") && finding.contains("no context"), "{rsa}");
}
