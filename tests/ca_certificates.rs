//! Goal: what the CA module encodes is what RFC 5280 asks for, in the eyes of others.
//! Method: a software key stands in for the HSM, for the signature's bytes only. Every kind of certificate and a CRL are
//! made and then judged by `openssl` (path, CRL, strict X.509) and by pkilint (`make tools` installs it).

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like the tests themselves")]

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use keybroker::ca::issue::root;
use keybroker::ca::path::{Conformance, Purpose, Revocation, Rules, ValidPath, validate_chain};
use keybroker::ca::profile::{INSTALLED, VNFCI_TRANSPORT};
use keybroker::ca::{
    CertificateFacts, CrlEntry, NameValues, PathError, Profile, SigningCa, Tbs, assemble, crl, pem,
};
use keybroker::clock::Timestamp;
use keybroker::credential::RevocationReason;
use keybroker::hsm::SignatureAlgorithm;
use keybroker::nfv::CredentialId;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);
const ROOT_CRL: &str = "http://broker.example.org/crl/root.crl";
const SUB_CRL: &str = "http://broker.example.org/crl/default-1.crl";

/// Any fixed time; openssl is told it with `-attime`.
fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000)
}

/// Stands in for a key on the token.
enum SoftwareKey {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SoftwareKey {
    fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn spki(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => {
                // SubjectPublicKeyInfo of RFC 8410 4.
                let mut spki = hex::decode("302a300506032b6570032100").unwrap();
                spki.extend(key.public_key().as_ref());
                spki
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    fn certify(&self, tbs: &Tbs) -> Vec<u8> {
        assemble(&tbs.der, tbs.algorithm, &self.sign(&tbs.der))
    }
}

/// A root, a sub-CA and one certificate of each kind below it.
struct Hierarchy {
    directory: TempDir,
    root_key: SoftwareKey,
    sub_key: SoftwareKey,
    root_der: Vec<u8>,
    sub_der: Vec<u8>,
    root_ca: SigningCa,
    sub_ca: SigningCa,
    leaf: Tbs,
    leaf_der: Vec<u8>,
    /// Of the profile that issues at the claim.
    named_der: Vec<u8>,
    server_der: Vec<u8>,
    client_der: Vec<u8>,
}

fn values() -> NameValues {
    NameValues {
        tenant: "default".parse().unwrap(),
        vnf_instance: "5c61d0b2-6f37-4a3c-9e0a-0d6b8b1c2e11".parse().unwrap(),
        vdu: "amf-worker".parse().unwrap(),
        credential: CredentialId::generate(),
        vnfci: None,
    }
}

fn transport() -> Profile {
    Profile::parse("vnfci-transport".parse().unwrap(), VNFCI_TRANSPORT).unwrap()
}

fn hierarchy(root_key: SoftwareKey) -> Hierarchy {
    let rng = &mut rand::rng();
    let sub_key = SoftwareKey::p256();
    let root_tbs = root("keybroker root 1", &root_key.spki(), DAY * 3650, now(), rng).unwrap();
    let root_der = root_key.certify(&root_tbs);
    let root_ca = SigningCa::new(&root_der, ROOT_CRL).unwrap();
    let sub_tbs = root_ca
        .sub_ca(&"default".parse().unwrap(), "main", 1, &sub_key.spki(), DAY * 1095, now(), rng)
        .unwrap();
    let sub_der = root_key.certify(&sub_tbs);
    let sub_ca = SigningCa::new(&sub_der, SUB_CRL).unwrap();
    let profile = transport();
    let names = profile.names(&values()).unwrap();
    let leaf = sub_ca.leaf(&profile, &names, &SoftwareKey::p256().spki(), now(), rng).unwrap();
    let (_, text) = INSTALLED.into_iter().find(|(name, _)| *name == "vnfci-named").unwrap();
    let named = Profile::parse("vnfci-named".parse().unwrap(), text).unwrap();
    let of_vnfci = NameValues { vnfci: Some("amf-0001".parse().unwrap()), ..values() };
    let names = named.names(&of_vnfci).unwrap();
    let named = sub_ca.leaf(&named, &names, &SoftwareKey::p256().spki(), now(), rng).unwrap();
    let (dns, ip) =
        (["broker.example.org".to_owned()], ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]);
    let server = sub_ca.tls_server(&dns, &ip, &SoftwareKey::p256().spki(), DAY * 90, now(), rng).unwrap();
    let client = sub_ca.client("vnfm-1", "vnfm", &SoftwareKey::p256().spki(), DAY * 90, now(), rng).unwrap();
    Hierarchy {
        directory: tempfile::tempdir().unwrap(),
        leaf_der: sub_key.certify(&leaf),
        named_der: sub_key.certify(&named),
        server_der: sub_key.certify(&server),
        client_der: sub_key.certify(&client),
        root_key,
        sub_key,
        root_der,
        sub_der,
        root_ca,
        sub_ca,
        leaf,
    }
}

impl Hierarchy {
    fn file(&self, name: &str, label: &str, der: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, pem(label, der)).unwrap();
        path
    }

    fn certificates(&self) -> [(&'static str, &[u8]); 6] {
        [
            ("root.pem", &self.root_der),
            ("sub.pem", &self.sub_der),
            ("leaf.pem", &self.leaf_der),
            ("named.pem", &self.named_der),
            ("server.pem", &self.server_der),
            ("client.pem", &self.client_der),
        ]
    }

    fn crl(&self, number: u64, entries: &[CrlEntry]) -> Vec<u8> {
        let tbs = crl(&self.sub_ca, None, number, now(), now().plus(DAY), entries);
        tbs.assemble(&self.sub_key.sign(&tbs.der))
    }

    fn root_crl(&self) -> Vec<u8> {
        let tbs = crl(&self.root_ca, None, 1, now(), now().plus(DAY * 30), &[]);
        tbs.assemble(&self.root_key.sign(&tbs.der))
    }

    /// `openssl verify` of one certificate as strictly as it can, CRLs of the whole path included.
    fn openssl_verify(&self, certificate: &Path, purpose: &str, crl_der: &[u8]) -> Output {
        let root = self.file("root.pem", "CERTIFICATE", &self.root_der);
        let sub = self.file("sub.pem", "CERTIFICATE", &self.sub_der);
        let crl = self.file("sub-crl.pem", "X509 CRL", crl_der);
        let root_crl = self.file("root-crl.pem", "X509 CRL", &self.root_crl());
        Command::new("openssl")
            .args(["verify", "-x509_strict", "-crl_check_all", "-policy_check", "-purpose", purpose])
            .args(["-attime", &now().unix_seconds().to_string()])
            .arg("-CAfile")
            .arg(root)
            .arg("-untrusted")
            .arg(sub)
            .arg("-CRLfile")
            .arg(crl)
            .arg("-CRLfile")
            .arg(root_crl)
            .arg(certificate)
            .output()
            .unwrap()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn openssl_accepts_every_kind_of_certificate_strictly() {
    let ca = hierarchy(SoftwareKey::p256());
    let crl = ca.crl(1, &[]);
    for (name, purpose, der) in [
        ("leaf.pem", "sslclient", &ca.leaf_der),
        ("leaf.pem", "sslserver", &ca.leaf_der),
        ("named.pem", "sslclient", &ca.named_der),
        ("named.pem", "sslserver", &ca.named_der),
        ("server.pem", "sslserver", &ca.server_der),
        ("client.pem", "sslclient", &ca.client_der),
    ] {
        let file = ca.file(name, "CERTIFICATE", der);
        let output = ca.openssl_verify(&file, purpose, &crl);
        assert!(output.status.success(), "{name} as {purpose}: {}", text(&output));
    }
    // And the purposes are really looked at: neither is good for the other.
    for (name, purpose, der) in
        [("server.pem", "sslclient", &ca.server_der), ("client.pem", "sslserver", &ca.client_der)]
    {
        let file = ca.file(name, "CERTIFICATE", der);
        assert!(!ca.openssl_verify(&file, purpose, &crl).status.success(), "{name} as {purpose}");
    }
}

#[test]
fn openssl_refuses_a_certificate_that_is_on_the_crl() {
    let ca = hierarchy(SoftwareKey::p256());
    let entries = [
        CrlEntry {
            serial: ca.leaf.serial,
            revoked_at: now(),
            reason: RevocationReason::CessationOfOperation,
        },
        CrlEntry { serial: [0x41; 16], revoked_at: now(), reason: RevocationReason::Unspecified },
    ];
    let crl = ca.crl(7, &entries);
    let leaf = ca.file("leaf.pem", "CERTIFICATE", &ca.leaf_der);
    let output = ca.openssl_verify(&leaf, "sslclient", &crl);
    assert!(!output.status.success());
    assert!(text(&output).contains("certificate revoked"), "{}", text(&output));

    let file = ca.file("sub-crl.pem", "X509 CRL", &crl);
    let sub = ca.file("sub.pem", "CERTIFICATE", &ca.sub_der);
    let output = Command::new("openssl")
        .args(["crl", "-noout", "-text", "-in"])
        .arg(file)
        .arg("-CAfile")
        .arg(sub)
        .output();
    let shown = text(&output.unwrap());
    for expected in
        ["verify OK", "X509v3 CRL Number: \n                7", "Cessation Of Operation", "Version 2"]
    {
        assert!(shown.contains(expected), "no {expected:?} in {shown}");
    }
    // One reason only: "unspecified" is left out.
    assert_eq!(shown.matches("X509v3 CRL Reason Code").count(), 1, "{shown}");
}

#[test]
fn a_root_with_an_ed25519_key_certifies_as_well() {
    let ca = hierarchy(SoftwareKey::Ed25519(Ed25519KeyPair::generate().unwrap()));
    assert_eq!(ca.root_ca.algorithm(), SignatureAlgorithm::Ed25519);
    let leaf = ca.file("leaf.pem", "CERTIFICATE", &ca.leaf_der);
    let output = ca.openssl_verify(&leaf, "sslclient", &ca.crl(1, &[]));
    assert!(output.status.success(), "{}", text(&output));
}

/// pkilint's verdict on one file.
fn lint(program: &str, arguments: &[&str], file: &Path) {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin");
    assert!(tools.join("lint_crl").exists(), "pkilint is not installed: run `make tools` once");
    let mut command = Command::new(tools.join(program));
    command.arg("lint").args(arguments).args(["-s", "WARNING", "-f", "JSON"]).arg(file);
    let output = command.output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{program}: {error}: {}", text(&output)));
    let results = report["results"].as_array().unwrap();
    let findings = results.iter().flat_map(|result| result["finding_descriptions"].as_array().unwrap());
    let wrong: Vec<_> = findings
        // pkilint takes a URI for a URL with an authority. A URN is one of RFC 5280 4.2.1.6 (a scheme and a
        // scheme-specific part), and 3GPP TS 33.310 6.1.3c asks for this very one.
        .filter(|finding| {
            finding["code"] != "pkix.invalid_uri_syntax"
                || !finding["message"].as_str().unwrap().contains("\"urn:uuid:")
        })
        // A critical SAN beside a subject is what RFC 5280 4.2.1.6 advises against and TS 33.310 6.1.3c demands.
        .filter(|finding| {
            finding["code"] != "pkix.san_extension_is_critical_non_empty_subject"
                || !file.ends_with("3gpp-nf.pem")
        })
        .collect();
    assert!(wrong.is_empty(), "{program} {}: {wrong:#?}", file.display());
}

#[test]
fn every_installed_profile_makes_certificates_that_others_find_right() {
    let ca = hierarchy(SoftwareKey::p256());
    let crl = ca.crl(1, &[]);
    for (name, toml) in INSTALLED {
        let profile = Profile::parse(name.parse().unwrap(), toml).unwrap();
        let values =
            NameValues { vnfci: Some(CredentialId::generate().to_string().parse().unwrap()), ..values() };
        let names = profile.names(&values).unwrap();
        let key = SoftwareKey::p256().spki();
        let tbs = ca.sub_ca.leaf(&profile, &names, &key, now(), &mut rand::rng()).unwrap();
        let file = ca.file(&format!("{name}.pem"), "CERTIFICATE", &ca.sub_key.certify(&tbs));
        lint("lint_pkix_cert", &[], &file);
        let shown =
            Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&file).output().unwrap();
        let shown = text(&shown);
        let purposes =
            [("sslclient", "TLS Web Client Authentication"), ("sslserver", "TLS Web Server Authentication")];
        for (purpose, usage) in purposes {
            let good = ca.openssl_verify(&file, purpose, &crl).status.success();
            assert_eq!(good, shown.contains(usage), "{name} as {purpose}");
        }
        // RFC 9608 4: a certificate without revocation names no place to ask at.
        let none = shown.contains("2.5.29.56") || shown.contains("No Revocation Available");
        assert_eq!(none, name == "short-lived", "{name}: {shown}");
        assert_eq!(shown.contains("X509v3 CRL Distribution Points"), !none, "{name}: {shown}");
        let critical = shown.contains("X509v3 Subject Alternative Name: critical");
        assert_eq!(critical, name == "3gpp-nf", "{name}: {shown}");
    }
}

#[test]
fn pkilint_finds_nothing_wrong_with_certificates_and_crls() {
    let ca = hierarchy(SoftwareKey::p256());
    for (name, der) in ca.certificates() {
        lint("lint_pkix_cert", &[], &ca.file(name, "CERTIFICATE", der));
    }
    let entries: Vec<_> = RevocationReason::ALL
        .iter()
        .zip(0x41..)
        .map(|(&reason, byte)| CrlEntry { serial: [byte; 16], revoked_at: now(), reason })
        .collect();
    for (name, crl) in
        [("full.pem", ca.crl(2, &entries)), ("empty.pem", ca.crl(3, &[])), ("root-crl.pem", ca.root_crl())]
    {
        lint("lint_crl", &["-t", "CRL", "-p", "PKIX"], &ca.file(name, "X509 CRL", &crl));
    }
}

#[test]
fn a_leaf_says_what_its_profile_says() {
    let ca = hierarchy(SoftwareKey::p256());
    let rng = &mut rand::rng();
    let (profile, key, values) = (transport(), SoftwareKey::p256(), values());
    let tbs = ca.sub_ca.leaf(&profile, &profile.names(&values).unwrap(), &key.spki(), now(), rng).unwrap();
    let facts = CertificateFacts::parse(&ca.sub_key.certify(&tbs)).unwrap();
    assert_eq!(facts.serial, tbs.serial);
    assert_eq!(facts.public_key_der, key.spki());
    assert_eq!((facts.not_before, facts.not_after), (tbs.not_before, tbs.not_after));
    assert_eq!(facts.common_names, ["amf-worker.5c61d0b2-6f37-4a3c-9e0a-0d6b8b1c2e11"]);
    assert_eq!(facts.subject, "CN=amf-worker.5c61d0b2-6f37-4a3c-9e0a-0d6b8b1c2e11,OU=default,O=keybroker");
    assert_eq!(facts.issuer, "CN=sub-CA 1,OU=default,O=keybroker");
    assert_eq!(facts.uris, [format!("urn:uuid:{}", values.credential)]);
    assert!(!facts.is_ca);
}

#[test]
fn the_subject_alternative_name_is_critical_when_the_subject_is_empty() {
    let ca = hierarchy(SoftwareKey::p256());
    let toml = "subject = \"\"\nsan = [\"uri:urn:uuid:{credential}\"]";
    let profile = Profile::parse("bare".parse().unwrap(), toml).unwrap();
    let names = profile.names(&values()).unwrap();
    let tbs = ca.sub_ca.leaf(&profile, &names, &SoftwareKey::p256().spki(), now(), &mut rand::rng()).unwrap();
    let file = ca.file("leaf.pem", "CERTIFICATE", &ca.sub_key.certify(&tbs));
    let output = ca.openssl_verify(&file, "sslclient", &ca.crl(1, &[]));
    assert!(output.status.success(), "{}", text(&output));
    let shown = Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(file).output().unwrap();
    assert!(text(&shown).contains("X509v3 Subject Alternative Name: critical"), "{}", text(&shown));
}

#[test]
fn a_leaf_never_outlives_its_issuer_and_is_refused_when_it_would_be_useless() {
    let ca = hierarchy(SoftwareKey::p256());
    let profile = transport();
    let names = profile.names(&values()).unwrap();
    let spki = SoftwareKey::p256().spki();
    let end = ca.sub_ca.not_after();
    let five_days_before =
        ca.sub_ca.leaf(&profile, &names, &spki, end.minus(DAY * 5), &mut rand::rng()).unwrap();
    assert_eq!(five_days_before.not_after, end);
    // Two thirds of seven days are more than four: it could never be given out.
    let four_days_before = ca.sub_ca.leaf(&profile, &names, &spki, end.minus(DAY * 4), &mut rand::rng());
    assert!(four_days_before.unwrap_err().to_string().contains("renew the CA"));
}

#[test]
fn a_pool_expires_spread_over_the_jitter_and_no_serial_number_repeats() {
    let ca = hierarchy(SoftwareKey::p256());
    let profile = transport();
    let (names, spki) = (profile.names(&values()).unwrap(), SoftwareKey::p256().spki());
    let rng = &mut rand::rng();
    let made: Vec<_> =
        (0..200).map(|_| ca.sub_ca.leaf(&profile, &names, &spki, now(), rng).unwrap()).collect();
    let earliest = now().plus(profile.validity()).minus(profile.validity_jitter());
    assert!(
        made.iter().all(|tbs| tbs.not_after >= earliest && tbs.not_after <= now().plus(profile.validity()))
    );
    assert!(made.iter().map(|tbs| tbs.not_after).collect::<HashSet<_>>().len() > 100);
    assert_eq!(made.iter().map(|tbs| tbs.serial).collect::<HashSet<_>>().len(), 200);
    assert!(made.iter().all(|tbs| (0x40..0x80).contains(&tbs.serial[0])));
}

/// What a strict relying party says of a chain (leaf first) as a TLS client's.
fn judged(chain: &[Vec<u8>], anchor: &[u8], now: Timestamp) -> Result<ValidPath, PathError> {
    let rules = Rules {
        conformance: Conformance::Strict,
        revocation: Revocation::Off,
        ..Rules::new(Purpose::TlsClient, now)
    };
    validate_chain(chain, anchor, &rules)
}

#[test]
fn a_client_path_is_judged_with_the_reason_for_the_auditor() {
    let ca = hierarchy(SoftwareKey::p256());
    let other = hierarchy(SoftwareKey::p256());
    let chain = [ca.client_der.clone(), ca.sub_der.clone()];
    let judge = |chain: &[Vec<u8>], now| judged(chain, &ca.root_der, now);
    assert_eq!(judge(&chain, now()).unwrap().length(), 2);
    // An operator may have configured the sub-CA: the path ends there.
    assert_eq!(judged(&chain, &ca.sub_der, now()).unwrap().length(), 1);
    assert!(matches!(judge(&chain, now().plus(DAY * 91)), Err(PathError::Expired(_))));
    assert!(matches!(judge(&chain, now().minus(DAY)), Err(PathError::NotYetValid(_))));
    let server = [ca.server_der.clone(), ca.sub_der.clone()];
    assert!(matches!(judge(&server, now()), Err(PathError::WrongUsage(_))));
    assert!(matches!(judged(&chain, &other.root_der, now()), Err(PathError::UnknownIssuer(_))));
    assert!(matches!(judge(&chain[..1], now()), Err(PathError::UnknownIssuer(_))), "without the sub-CA");
    let mut forged = ca.client_der.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(judge(&[forged, ca.sub_der.clone()], now()), Err(PathError::Signature(_))));
    let garbage = [vec![0x30, 0], ca.sub_der.clone()];
    assert!(matches!(judge(&garbage, now()), Err(PathError::Malformed(_))));
    // A CA's certificate is no client's.
    assert!(matches!(judge(&chain[1..], now()), Err(PathError::WrongUsage(_))));
}

#[test]
fn only_a_ca_certificate_issues() {
    let ca = hierarchy(SoftwareKey::p256());
    assert!(SigningCa::new(&ca.leaf_der, SUB_CRL).unwrap_err().to_string().contains("basicConstraints"));
    assert!(SigningCa::new(b"garbage", SUB_CRL).is_err());
}

#[test]
fn no_changed_byte_of_a_certificate_panics_a_reader_or_passes_validation() {
    let ca = hierarchy(SoftwareKey::p256());
    for place in 0..ca.client_der.len() {
        for change in [0x01, 0x20, 0x80] {
            let mut changed = ca.client_der.clone();
            changed[place] ^= change;
            let _ = CertificateFacts::parse(&changed);
            let _ = SigningCa::new(&changed, SUB_CRL);
            let chain = [changed, ca.sub_der.clone()];
            assert!(judged(&chain, &ca.root_der, now()).is_err(), "byte {place} changed by {change:#x}");
        }
    }
}
