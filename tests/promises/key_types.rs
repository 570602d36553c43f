//! Goal: a key of every type that a profile may name is delivered whole and accepted by relying parties, and making slow
//! ones keeps nobody from claiming.
//! Method: one VNFCI with a slot of each type; openssl compares keys with certificates, signs the confirmations, verifies
//! and does mutual TLS. Claims are counted against the RSA keys that are made meanwhile.

use crate::certificates::{Files, crl_pem, mutual_tls, verify};
use crate::support::mano::By;
use crate::support::process::openssl;
use crate::support::site::{Options, Site};
use keybroker::api::proto;
use keybroker::api::proto::credential_service_client::CredentialServiceClient;
use keybroker::identity::confirm::confirm_message;
use keybroker::nfv::RequestId;
use tonic::{Code, Status};

/// Slot (which is its pool, too), profile, what openssl calls the key, how it confirms, and how it must not.
const TYPES: [(&str, &str, &str, &str, &str); 4] = [
    ("om", "vnf-om", "(384 bit)", "-sha384", "-sha256"),
    ("rsa-2048", "rsa-2048", "(2048 bit, 2 primes)", PSS, "-sha256"),
    ("rsa-3072", "rsa-3072", "(3072 bit, 2 primes)", PSS, PSS_WITHOUT_SALT),
    ("rsa-4096", "rsa-4096", "(4096 bit, 2 primes)", PSS, "-sha256"),
];
const PSS: &str =
    "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -sigopt rsa_mgf1_md:sha256";
const PSS_WITHOUT_SALT: &str =
    "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:0 -sigopt rsa_mgf1_md:sha256";

/// On a busy machine an RSA-4096 key may take longer than a call usually may.
fn patient() -> Options {
    Options { call_deadline: "60s", ..Options::default() }
}

async fn add_rsa_profiles(site: &Site) {
    for (profile, key_type) in [("rsa-2048", "RSA_2048"), ("rsa-3072", "RSA_3072"), ("rsa-4096", "RSA_4096")]
    {
        site.add_profile(profile, &format!("key_type = {key_type:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_every_type_is_delivered_and_accepted_by_openssl() {
    let mut site = Site::start_with(patient()).await;
    add_rsa_profiles(&site).await;
    for (pool, profile, ..) in TYPES {
        site.create_pool_of(profile, pool, 1).await;
    }
    for (pool, ..) in TYPES {
        site.until_available(pool, 1).await;
    }
    let slots = TYPES.map(|(pool, ..)| (pool, pool));
    let vnfci = site.register_one("amf-0001", &slots, By::Certificate).await;
    let claimed = vnfci.claim(&site).await.unwrap();
    assert_eq!(claimed.keys.len(), TYPES.len());
    let crl = site.path().join("crl.pem");
    std::fs::write(&crl, crl_pem(&claimed.keys[0]).await).unwrap();

    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for key in &claimed.keys {
        let (slot, _, kind, scheme, other_scheme) = TYPES.into_iter().find(|one| one.0 == key.slot).unwrap();
        let files = Files::write(site.path(), slot, key);
        let directory = site.path().join(slot);
        let text = openssl(&directory, "pkey -in key.pem -noout -text").await;
        assert!(text.contains(kind), "{slot}: {text}");
        let public = openssl(&directory, "pkey -in key.pem -pubout").await;
        assert_eq!(public, openssl(&directory, "x509 -in cert.pem -noout -pubkey").await, "{slot}");
        verify(&files, &crl).await.ok();
        let (let_in, said) = mutual_tls(&files, &files, &crl).await;
        assert!(let_in, "{slot}: {said}");

        let message = confirm_message(claimed.claim_id(), key.facts.fingerprint, claimed.recipient_key);
        std::fs::write(directory.join("message"), message).unwrap();
        for (scheme, signatures) in [(scheme, &mut right), (other_scheme, &mut wrong)] {
            openssl(&directory, &format!("dgst {scheme} -sign key.pem -out signature message")).await;
            let signature = std::fs::read(directory.join("signature")).unwrap();
            signatures.push(proto::KeySignature { slot: slot.into(), signature });
        }
    }
    let confirm = async |signatures: Vec<proto::KeySignature>| -> Result<bool, Status> {
        let request = proto::ConfirmRequest {
            request_id: RequestId::generate().to_string(),
            claim_id: claimed.response.claim_id.clone(),
            signatures,
            token: None,
        };
        let channel = vnfci.connect(&site).await.unwrap().channel;
        Ok(CredentialServiceClient::new(channel).confirm(request).await?.into_inner().newly_confirmed)
    };
    // Each wrong one alone spoils the confirmation; nothing is delivered by it.
    for place in 0..right.len() {
        let mut signatures = right.clone();
        signatures[place] = wrong[place].clone();
        let refused = confirm(signatures).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{}: {refused:?}", right[place].slot);
        assert!(refused.message().contains(&right[place].slot), "{refused:?}");
    }
    assert!(confirm(right).await.unwrap());

    // The profile for operation and maintenance is what its file says.
    let om = openssl(&site.path().join("om"), "x509 -in cert.pem -noout -text -nameopt RFC2253").await;
    for part in [
        "CN=amf-worker.amf-1,OU=default,O=keybroker OM",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "URI:urn:uuid:",
        "NIST CURVE: P-384",
    ] {
        assert!(om.contains(part), "{part} is not in\n{om}");
    }
    let days = |seconds: u64| format!("x509 -in cert.pem -noout -checkend {}", seconds * 86_400);
    openssl(&site.path().join("om"), &days(28)).await;
    let ends = crate::support::process::run(
        "sh",
        ["-c", &format!("cd '{}' && openssl {}", site.path().join("om").display(), days(31))],
    )
    .await;
    assert_eq!(ends.code, 1, "it is valid for 30 days: {ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_do_not_wait_for_the_rsa_4096_key_that_is_being_made() {
    const CLAIMS: u64 = 10;
    let mut site = Site::start_with(patient()).await;
    site.full_pool("transport", 12).await;
    add_rsa_profiles(&site).await;
    let ids: Vec<String> = (0..CLAIMS).map(|n| format!("amf-{n:04}")).collect();
    let vnfcis = site.register(&ids, &[("transport", "transport")], By::Certificate).await;
    let made = async |site: &Site| site.levels("rsa-4096").await.available;
    site.create_pool_of("rsa-4096", "rsa-4096", 40).await;
    site.until("the first RSA key", async |site| (made(site).await >= 1).then_some(())).await;
    let before = made(&site).await;
    for vnfci in &vnfcis {
        vnfci.boot(&site).await;
    }
    let after = made(&site).await;
    // If a claim had to wait for the key under way, ten claims in a row would have seen nine or more finished.
    assert!(after < 40, "production ended before the claims did: {after}");
    assert!(after - before < CLAIMS - 2, "{} RSA keys were made during {CLAIMS} claims", after - before);
}
