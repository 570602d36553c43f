//! Promise: only the documented objects are on the token, none of them can leave it, and they do what they are for.
//!
//! Method: a fresh SoftHSM2 token, judged by `pkcs11-tool` and by a process that uses PKCS#11 directly.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod hsm_support;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType as Kind, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use hsm_support::{Fixture, epoch, kryoptic, one_key, tenant};
use keybroker::credential::KeyType;
use keybroker::hsm::{HsmError, Lane, ObjectId, SignatureAlgorithm};
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn pkcs11_tool_sees_the_documented_objects_only_and_none_is_extractable() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    hsm.create_key_pair(&ObjectId::Root(1), SignatureAlgorithm::EcdsaP256Sha256).await.unwrap();
    let algorithm = hsm.status().audit_algorithm;
    hsm.create_key_pair(&ObjectId::Audit(1), algorithm).await.unwrap();
    hsm.create_mac_key(&ObjectId::TokenMac(tenant())).await.unwrap();
    let epoch = epoch(&hsm).await;
    hsm.produce(&tenant(), epoch, KeyType::EcP256, 10).await.unwrap();

    let inventory = hsm.inventory().await.unwrap();
    assert!(inventory.iter().all(|object| object.problems.is_empty()), "{inventory:#?}");
    let mut documented: Vec<_> = inventory.iter().map(|o| format!("{} {}", o.class, o.label)).collect();
    documented.sort();
    assert_eq!(
        documented,
        [
            "CKO_PRIVATE_KEY keybroker:audit:1",
            "CKO_PRIVATE_KEY keybroker:root:1",
            "CKO_PUBLIC_KEY keybroker:audit:1",
            "CKO_PUBLIC_KEY keybroker:root:1",
            "CKO_SECRET_KEY keybroker:hmac:default",
            &format!("CKO_SECRET_KEY keybroker:kek:default:{epoch}"),
        ]
    );

    let list = |login: bool| {
        let mut command = Command::new("pkcs11-tool");
        command
            .env(fixture.token.variable, &fixture.token.configuration)
            .arg("--module")
            .arg(&fixture.token.module);
        command.args(["--token-label", "keybroker", "--list-objects"]);
        if login {
            command
                .arg("--login")
                .env("PIN", std::fs::read_to_string(&fixture.token.pin_file).unwrap().trim());
            command.args(["--pin", "env:PIN"]);
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let seen = list(true);
    assert_eq!(seen.matches("label:").count(), documented.len(), "{seen}");
    let secret = seen.matches("Private Key Object").count() + seen.matches("Secret Key Object").count();
    assert_eq!(secret, 4, "{seen}");
    assert_eq!(
        seen.matches("sensitive, always sensitive, never extractable, local").count(),
        secret,
        "{seen}"
    );
    assert_eq!(list(false).matches("label:").count(), 0, "nothing is visible without log-in");
}

/// The test runs itself again with the module's environment, which a process cannot safely change for itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_kek_unwraps_nothing_that_could_be_read() {
    const NAME: &str = "a_kek_unwraps_nothing_that_could_be_read";
    if std::env::var_os("TEST_DEK").is_some() {
        return try_to_read_a_dek();
    }
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let epoch = epoch(&hsm).await;
    let key = one_key(&hsm, epoch, KeyType::EcP256).await;
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(fixture.token.variable, &fixture.token.configuration)
        .env("TEST_MODULE", &fixture.token.module)
        .env("TEST_PIN_FILE", &fixture.token.pin_file)
        .env("TEST_DEK", hex::encode(&key.wrapped.dek_blob[1..]))
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("tried everything"), "{text}");
}

fn try_to_read_a_dek() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let pkcs11 = Pkcs11::new(variable("TEST_MODULE")).unwrap();
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = pkcs11.get_slots_with_initialized_token().unwrap().remove(0);
    let session = pkcs11.open_rw_session(slot).unwrap();
    let pin = std::fs::read_to_string(variable("TEST_PIN_FILE")).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(pin.trim().to_owned()))).unwrap();
    let kek = session.find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)]).unwrap().remove(0);
    let dek = hex::decode(variable("TEST_DEK")).unwrap();
    let unwrap = |kind: Kind, sensitive: bool, decrypt: bool, wrap: bool| {
        session.unwrap_key(
            &Mechanism::AesKeyWrapPad,
            kek,
            &dek,
            &[
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::KeyType(kind),
                Attribute::Token(false),
                Attribute::Sensitive(sensitive),
                Attribute::Extractable(true),
                Attribute::Encrypt(false),
                Attribute::Decrypt(decrypt),
                Attribute::Wrap(wrap),
                Attribute::Unwrap(false),
                Attribute::Sign(false),
                Attribute::Derive(false),
            ],
        )
    };
    let allowed = unwrap(Kind::AES, true, false, false).unwrap();
    assert!(
        session.get_attributes(allowed, &[AttributeType::Value]).unwrap().is_empty(),
        "its value is hidden"
    );
    assert!(unwrap(Kind::GENERIC_SECRET, false, false, false).is_err(), "a readable generic secret");
    assert!(unwrap(Kind::GENERIC_SECRET, true, false, false).is_err(), "a generic secret");
    assert!(unwrap(Kind::AES, false, false, false).is_err(), "a readable AES key");
    assert!(unwrap(Kind::AES, true, true, false).is_err(), "an AES key that decrypts the private key");
    assert!(unwrap(Kind::AES, true, false, true).is_err(), "an AES key that wraps");
    let implicit = session.unwrap_key(
        &Mechanism::AesKeyWrapPad,
        kek,
        &dek,
        &[
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(Kind::AES),
            Attribute::Token(false),
            Attribute::Extractable(true),
        ],
    );
    let readable =
        implicit.is_ok_and(|dek| !session.get_attributes(dek, &[AttributeType::Value]).unwrap().is_empty());
    assert!(!readable, "left to the module's defaults");
    assert!(session.decrypt(&Mechanism::AesKeyWrapPad, kek, &dek).is_err(), "the KEK does not decrypt");
    assert!(session.wrap_key(&Mechanism::AesKeyWrap, kek, allowed).is_err(), "another mechanism");
    println!("tried everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_and_macs_verify_in_software() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let messages: Vec<Vec<u8>> = (0..300u16).map(|n| n.to_be_bytes().repeat(n.into())).collect();

    let ca = ObjectId::SubCa(tenant(), 1);
    assert_eq!(hsm.public_key(&ca).await.unwrap(), None);
    let spki = hsm.create_key_pair(&ca, SignatureAlgorithm::EcdsaP256Sha256).await.unwrap();
    assert_eq!(hsm.public_key(&ca).await.unwrap(), Some(spki.clone()));
    let signatures =
        hsm.sign(Lane::Bulk, &ca, SignatureAlgorithm::EcdsaP256Sha256, messages.clone()).await.unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &spki[spki.len() - 65..]);
    assert_eq!(signatures.len(), messages.len());
    for (message, signature) in messages.iter().zip(&signatures) {
        public.verify(message, signature).unwrap();
    }

    let audit = ObjectId::Audit(1);
    let algorithm = hsm.status().audit_algorithm;
    // kryoptic has Ed25519 only with a newer OpenSSL than Debian 12's.
    let (expected, verifies): (_, &dyn VerificationAlgorithm) = match kryoptic() {
        true => (SignatureAlgorithm::EcdsaP256Sha256, &ECDSA_P256_SHA256_ASN1),
        false => (SignatureAlgorithm::Ed25519, &ED25519),
    };
    assert_eq!(algorithm, expected);
    let spki = hsm.create_key_pair(&audit, algorithm).await.unwrap();
    let point = if kryoptic() { 65 } else { 32 };
    let genuine = |signature: Vec<u8>| {
        UnparsedPublicKey::new(verifies, &spki[spki.len() - point..]).verify(b"head", &signature).unwrap();
    };
    genuine(hsm.sign_blocking(&audit, algorithm, b"head").unwrap());

    let (elsewhere, id) = (hsm.clone(), audit.clone());
    let sign = move || elsewhere.sign_blocking(&id, algorithm, b"head");
    // Outside of any runtime.
    genuine(std::thread::spawn(sign.clone()).join().unwrap().unwrap());
    let single = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { sign() })
    });
    assert!(matches!(single.join().unwrap(), Err(HsmError::Refused(_))), "it would block the only thread");

    let key = ObjectId::TokenMac(tenant());
    assert!(matches!(hsm.mac(&key, b"token").await, Err(HsmError::NotFound(_))));
    hsm.create_mac_key(&key).await.unwrap();
    let mac = hsm.mac(&key, b"token").await.unwrap();
    assert_eq!(mac, hsm.mac(&key, b"token").await.unwrap());
    assert_ne!(mac, hsm.mac(&key, b"other").await.unwrap());
    assert_eq!(mac.len(), hmac::HMAC_SHA256.digest_algorithm().output_len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_object_is_never_overwritten_and_a_wrong_name_is_refused() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let root = ObjectId::Root(1);
    let algorithm = SignatureAlgorithm::EcdsaP256Sha256;
    let spki = hsm.create_key_pair(&root, algorithm).await.unwrap();
    let again = hsm.create_key_pair(&root, algorithm).await;
    assert!(matches!(&again, Err(HsmError::Refused(text)) if text.contains("exists already")), "{again:?}");
    assert_eq!(hsm.public_key(&root).await.unwrap(), Some(spki));
    assert!(hsm.object_exists(&root).await.unwrap());
    let epoch = epoch(&hsm).await;
    assert!(matches!(hsm.create_kek(&tenant(), &epoch).await, Err(HsmError::Refused(_))));
    let kek = ObjectId::Kek(tenant(), epoch);
    assert!(matches!(hsm.create_key_pair(&kek, algorithm).await, Err(HsmError::Refused(_))));
    assert!(matches!(hsm.create_mac_key(&root).await, Err(HsmError::Refused(_))));
    let unknown = hsm.sign_blocking(&ObjectId::Tls(9), algorithm, b"");
    assert!(matches!(unknown, Err(HsmError::NotFound(ObjectId::Tls(9)))), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_reports_what_a_crash_leaves_behind() {
    if kryoptic() {
        println!(
            "SKIPPED: kryoptic keeps its objects in a database that a killed process cannot leave half written"
        );
        return;
    }
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    hsm.create_key_pair(&ObjectId::Root(1), SignatureAlgorithm::EcdsaP256Sha256).await.unwrap();
    hsm.shutdown().await;
    let token = std::fs::read_dir(fixture.directory.path().join("tokens")).unwrap().next().unwrap().unwrap();
    let object = std::fs::read_dir(token.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.extension().is_some_and(|e| e == "object") && path.file_name().unwrap() != "token.object"
        })
        .unwrap();
    std::fs::write(object, b"").unwrap();
    let hsm = fixture.start().await;
    let inventory = hsm.inventory().await.unwrap();
    let problems: Vec<_> = inventory.iter().flat_map(|object| &object.problems).collect();
    assert!(problems.iter().any(|problem| problem.contains("missing")), "{inventory:#?}");
}
