//! Fuzz targets: one function per parser of bytes that somebody else chose. They are run by the suite below over seeds and
//! their mutations, on any toolchain, and by `fuzz/` under libFuzzer.
//!
//! A target never panics, whatever the bytes. Where a parser accepts, the target holds what it accepted against what it
//! promises: that it is written as it was read, that it goes on to work in what comes next.

use crate::audit::history::Tracker;
use crate::audit::{AuditPublicKey, ChainedEntry, SignedHead, SignedReceipt, next_hash};
use crate::ca::path::{self, Certificate, Conformance, Crl, PolicySet, Purpose, Revocation, Rules, Work};
use crate::ca::{CertificateFacts, NameValues, Profile, SigningCa, certificates_from_pem};
use crate::clock::{HumaneDuration, Timestamp};
use crate::config::Config;
use crate::credential::KeyType;
use crate::hsm::ObjectId;
use crate::identity::token::{ProofFields, Token};
use crate::identity::{CertificateName, confirm, x509};
use crate::nfv::{
    AnchorName, ClaimId, CredentialId, IdentityName, PoolName, ProfileName, RequestId, Sha256Hash, SlotName,
    TenantId, VduId, VnfInstanceId, VnfciId,
};
use crate::sealing::{Binding, Envelope, RecipientKey, RecipientPublicKey, Suite, matches_public_key, open};
use der::{Reader, SliceReader};
use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use uuid::Uuid;

/// A target: its name, which is also that of its seeds' folder and of its libFuzzer binary, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("recipient", recipient),
    ("certificate", certificate),
    ("crl", crl),
    ("signature", signature),
    ("token", token),
    ("audit_log", audit_log),
    ("audit_signed", audit_signed),
    ("config", config),
    ("profile", profile),
    ("frames", crate::hsm::fuzz::frames),
    ("envelope", envelope),
    ("http_path", http_path),
    ("request", crate::api::fuzz::request),
    ("names", names),
    ("csr", csr),
    ("cms", cms),
    ("ocsp", ocsp),
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, or the target found something.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = target else { panic!("no target {name}") };
    target(data);
}

/// A claim's public key, of either kind, and the stored key of a VNFCI.
fn recipient(data: &[u8]) {
    for suite in Suite::ALL.iter().copied() {
        if let Ok(key) = RecipientPublicKey::parse(suite, data) {
            assert!(key.takes(suite));
            assert_eq!(key.as_bytes(), data);
        }
    }
    if let Ok(key) = RecipientKey::from_bytes(data) {
        let public = key.public_key();
        for suite in public.suites() {
            assert!(RecipientPublicKey::parse(suite, public.as_bytes()).is_ok());
        }
    }
}

/// An OCSP request, and what is answered to it.
fn ocsp(data: &[u8]) {
    use crate::ca::ocsp::{CERTIFICATES_MAX, CertStatus, OcspRequest, ResponseData, Unanswered};
    match OcspRequest::parse(data) {
        Err(unanswered) => assert_eq!(unanswered, Unanswered::MalformedRequest),
        Ok(request) => {
            assert!((1..=CERTIFICATES_MAX).contains(&request.certificates.len()));
            assert!(request.nonce.as_ref().is_none_or(|nonce| (1..=128).contains(&nonce.len())));
            let answers: Vec<_> = request
                .certificates
                .iter()
                .map(|asked| (asked.id_der.as_slice(), CertStatus::Unknown))
                .collect();
            let (this_update, next_update) =
                (Timestamp::from_unix_seconds(0), Timestamp::from_unix_seconds(1));
            let responder = [7; 20];
            let nonce = request.nonce.as_deref();
            let der = ResponseData { answers: &answers, responder, this_update, next_update, nonce }.der();
            // What was asked goes back as it came.
            assert!(answers.iter().all(|(id, _)| der.windows(id.len()).any(|found| found == *id)));
        }
    }
    // The same bytes as a request for a CA.
    let _ = crate::ca::request::CaRequest::parse(data);
}

/// An enrolment's PKCS#10, in base64 or DER.
fn csr(data: &[u8]) {
    let decoded = crate::ca::cms::from_base64(data);
    let der = decoded.as_deref().unwrap_or(data);
    if let Ok(request) = crate::ca::CertificationRequest::parse(der) {
        let _ = (request.key_type(), request.subject(), request.identifiers(), request.asks_for_names());
        assert!(confirm::verify_signature(request.public_key_der(), b"", b"").is_err());
    }
    if let Ok(request) = crate::ca::KeyRequest::parse(der) {
        let _ = (request.identifiers(), request.asks_for_names());
    }
    if let Ok(names) = crate::ca::csr::names_of(der) {
        assert_eq!(crate::ca::csr::names_of(der), Ok(names));
    }
}

/// What an enrolment server says: a certs-only message, and what it wants in requests.
fn cms(data: &[u8]) {
    if let Ok(certificates) = crate::ca::cms::certificates(data) {
        let mut sorted = certificates.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(crate::ca::cms::certificates(&crate::ca::cms::certs_only(&certificates)), Ok(sorted));
    }
    if let Ok(wanted) = crate::ca::issuers::RequestAttributes::parse(data) {
        assert_eq!(wanted.hash(), Sha256Hash::of(data));
        for key_type in KeyType::ALL {
            let _ = wanted.check(*key_type);
        }
    }
}

/// Paths and queries of the plain HTTP listener and of EST.
fn http_path(data: &[u8]) {
    crate::server::fuzz_path(data);
    crate::est::fuzz_path(data);
}

/// A client's chain, an anchor, a CA certificate: DER and PEM.
fn certificate(data: &[u8]) {
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    if let Ok(facts) = CertificateFacts::parse(data) {
        assert_eq!(facts.fingerprint, Sha256Hash::of(data));
        let _ = facts.rsa_bits();
        let _ = SigningCa::new(data, "http://127.0.0.1/crl");
        let names = facts.dns_names.iter().map(|name| CertificateName::dns(name));
        let names = names.chain(facts.uris.iter().map(|uri| CertificateName::uri(uri)));
        for name in names.chain(facts.common_names.iter().map(|text| CertificateName::common_name(text))) {
            let _ = name.as_str().parse::<CertificateName>();
        }
    }
    // Certificates end to end: the first is the anchor of the others.
    if let [anchor, ref chain @ ..] = elements(data)[..]
        && let Ok(certificate) = Certificate::from_der(anchor)
    {
        let rules = Rules { conformance: Conformance::Strict, ..Rules::new(Purpose::TlsClient, now) };
        let _ = path::check_anchor(&certificate, &rules);
        let anchor = x509::Anchor {
            tenant: tenant(),
            // Unwrap safety: it is a name by its form.
            #[allow(clippy::unwrap_used)]
            name: "anchor".parse().unwrap(),
            certificate: Arc::new(certificate),
            issuers: Vec::new(),
            crls: Vec::new(),
            revocation: Revocation::Off,
            policies: PolicySet::new(),
            conformance: Conformance::Processing,
        };
        let _ = x509::verify(chain, std::slice::from_ref(&anchor), now);
        let _ = x509::verify(&[data], &[anchor], now);
    }
    if let Ok(blocks) = certificates_from_pem(data) {
        assert!(!blocks.is_empty());
    }
}

/// A CRL of an operator's CA; or after a CA's certificate and one to be judged, asked about it.
fn crl(data: &[u8]) {
    let _ = Crl::from_der(data);
    let [anchor, leaf, crl] = elements(data)[..] else { return };
    if let (Ok(anchor), Ok(leaf), Ok(crl)) =
        (Certificate::from_der(anchor), Certificate::from_der(leaf), Crl::from_der(crl))
    {
        assert!(!crl.is_older_than(&crl) && crl.replaces(&crl));
        let _ = crl.verify(&anchor);
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let rules = Rules { revocation: Revocation::Require, ..Rules::new(Purpose::Any, now) };
        let _ = path::validate(&leaf, &[], &anchor, &[Arc::new(crl)], &rules, &Work::default());
    }
}

/// A confirmation's signature, its key's SubjectPublicKeyInfo, and a VNFCI's PKCS#8.
fn signature(data: &[u8]) {
    let (spki, signature) = split(data);
    let _ = confirm::verify_signature(spki, b"message", signature);
    if let Ok(made) = confirm::sign(data, b"message") {
        assert!(!made.is_empty());
    }
    let _ = matches_public_key(spki, signature);
}

/// A token file.
fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(token) = text.parse::<Token>() else { return };
    assert_eq!(token.to_text().as_str(), text.trim());
    let fields = ProofFields {
        exporter: [1; 32],
        client_key: Sha256Hash([2; 32]),
        request: RequestId(Uuid::nil()),
        recipient_key: Sha256Hash([3; 32]),
    };
    assert_eq!(token.prove(&fields).len(), 32);
    assert!(!format!("{token:?}").contains(token.to_text().rsplit('.').next().unwrap_or("kb1")));
}

/// The rows of an exported log.
fn audit_log(data: &[u8]) {
    let key = audit_key();
    let mut tracker = Tracker::new(Sha256Hash([0x11; 32]));
    let mut hash = crate::audit::genesis("fuzz");
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(entry) = serde_json::from_slice::<ChainedEntry>(line) else { continue };
        hash = next_hash(hash, &entry.event);
        if let Some(key) = &key {
            tracker.row(&entry, key);
        }
        // A row is hashed as it was read: written and read again it is the same one.
        let written = serde_json::to_vec(&entry).ok();
        let again = written.and_then(|text| serde_json::from_slice::<ChainedEntry>(&text).ok());
        assert_eq!(again.map(|again| again.event.bytes()), Some(entry.event.bytes()));
    }
    let _ = tracker.end();
}

/// Signed heads, receipts, and the file `audit.pub`.
fn audit_signed(data: &[u8]) {
    let keys = [audit_key(), AuditPublicKey::from_pem(data).ok(), AuditPublicKey::from_spki(data).ok()];
    for key in keys.iter().flatten() {
        if let Ok(head) = serde_json::from_slice::<SignedHead>(data) {
            let _ = head.verify(key);
        }
        if let Ok(receipt) = serde_json::from_slice::<SignedReceipt>(data) {
            let _ = receipt.verify(key);
        }
    }
}

/// `keybroker.toml`.
fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = Config::parse(Path::new("/etc/keybroker/keybroker.toml"), text) {
        let _ = config.http_url();
        let _ = config.hsm(Path::new("/usr/bin/keybroker"));
    }
}

/// A profile, and the names that it makes.
fn profile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Unwrap safety: names by their form.
    #[allow(clippy::unwrap_used)]
    let (name, vnf, vdu, vnfci) =
        ("fuzz".parse().unwrap(), "amf-1".parse().unwrap(), "a/b:c-1".parse().unwrap(), "i-1");
    let Ok(profile) = Profile::parse(name, text) else { return };
    for vnfci in [None, vnfci.parse().ok()] {
        let values = NameValues {
            tenant: tenant(),
            vnf_instance: VnfInstanceId::clone(&vnf),
            vdu: VduId::clone(&vdu),
            credential: CredentialId(Uuid::nil()),
            vnfci,
        };
        let _ = profile.names(&values);
    }
    assert!(profile.min_remaining_at_claim() <= profile.validity());
}

/// What a broker's answer makes a VNFCI open.
fn envelope(data: &[u8]) {
    // Any scalar below the order.
    let Ok(key) = RecipientKey::from_bytes(&[1; 32]) else { return };
    let (point, rest) = split(data);
    let (wrapped_dek, wrapped_key) = split(rest);
    for suite in Suite::ALL.iter().copied() {
        let envelope = Envelope {
            suite,
            hsm_point: point.to_vec(),
            oaep_hash: None,
            wrapped_dek: wrapped_dek.to_vec(),
            wrapped_key: wrapped_key.to_vec(),
        };
        let binding = Binding {
            tenant: tenant(),
            request: RequestId(Uuid::nil()),
            credential: CredentialId(Uuid::nil()),
            certificate: Sha256Hash([4; 32]),
        };
        assert!(open(&key, &envelope, &binding).is_err(), "bytes that no HSM made were opened");
    }
}

/// Every name, identifier and duration that comes as text.
fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    same::<TenantId>(text);
    same::<VnfInstanceId>(text);
    same::<VduId>(text);
    same::<VnfciId>(text);
    same::<PoolName>(text);
    same::<ProfileName>(text);
    same::<SlotName>(text);
    same::<AnchorName>(text);
    same::<IdentityName>(text);
    same::<ObjectId>(text);
    same::<Suite>(text);
    stable::<ClaimId>(text);
    stable::<RequestId>(text);
    stable::<Sha256Hash>(text);
    stable::<HumaneDuration>(text);
    let _ = text.parse::<CertificateName>();
}

/// What is accepted is written as it was read: two texts never name the same thing.
fn same<T: FromStr + Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text);
    }
}

/// What is accepted is written in a form that is accepted, as the same.
fn stable<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().ok(), Some(value));
    }
}

/// The first byte says how long the first part is, in sixteenths of the whole.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((first, rest)) = data.split_first() else { return (&[], &[]) };
    rest.split_at(rest.len() * usize::from(first % 17) / 16)
}

/// DER values end to end; what follows the last whole one is left out.
fn elements(data: &[u8]) -> Vec<&[u8]> {
    let mut elements = Vec::new();
    if let Ok(mut reader) = SliceReader::new(data) {
        while let Ok(element) = reader.tlv_bytes() {
            elements.push(element);
        }
    }
    elements
}

fn tenant() -> TenantId {
    // Unwrap safety: it is a tenant by its form.
    #[allow(clippy::unwrap_used)]
    "default".parse().unwrap()
}

/// A P-256 key: the generator of the curve.
fn audit_key() -> Option<AuditPublicKey> {
    AuditPublicKey::from_pem(
        b"-----BEGIN PUBLIC KEY-----\n\
          MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n\
          6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n\
          -----END PUBLIC KEY-----\n",
    )
    .ok()
}

#[cfg(test)]
mod tests {
    //! Seeds from `fuzz/seeds/TARGET` as they are and mutated, a bounded number of times, from a seed that a failure
    //! shows. KEYBROKER_FUZZ_RUNS and KEYBROKER_FUZZ_SEED change them.

    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use std::panic::catch_unwind;

    const RUNS: usize = 1_000;
    const LONGEST: usize = 16 * 1024;

    fn setting(name: &str, default: u64) -> u64 {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    }

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} has no seed", folder.display());
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    /// One to eight changes: bits, bytes, lengths, pieces cut, doubled and taken from another seed.
    fn mutate(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
        let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
        for _ in 0..random.random_range(1..=8) {
            let at = random.random_range(0..=bytes.len());
            let end = random.random_range(at..=bytes.len().min(at + 64));
            let exists = at < bytes.len();
            match random.random_range(0..9) {
                0 if exists => bytes[at] ^= 1 << random.random_range(0..8),
                1 if exists => bytes[at] = random.random(),
                2 if exists => {
                    bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b'{'][random.random_range(0..8)]
                }
                3 if exists => bytes[at] = bytes[at].wrapping_add([1, 255][random.random_range(0..2)]),
                4 => drop(bytes.drain(at..end)),
                5 => {
                    let piece = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
                6 => bytes.truncate(at),
                7 => bytes.insert(at, random.random()),
                _ => {
                    let other = &seeds[random.random_range(0..seeds.len())];
                    let from = random.random_range(0..=other.len());
                    let to = random.random_range(from..=other.len().min(from + 200));
                    drop(bytes.splice(at..end, other[from..to].iter().copied()));
                }
            }
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn attempt(name: &str, target: fn(&[u8]), bytes: &[u8], seed: u64, number: usize) {
        if catch_unwind(|| target(bytes)).is_err() {
            panic!("{name}, KEYBROKER_FUZZ_SEED={seed}, run {number}: panics on {}", hex::encode(bytes));
        }
    }

    #[test]
    fn no_bytes_make_a_parser_panic_or_accept_what_it_does_not_keep() {
        let (runs, seed) = (setting("KEYBROKER_FUZZ_RUNS", RUNS as u64), setting("KEYBROKER_FUZZ_SEED", 1));
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            let mut random = StdRng::seed_from_u64(seed);
            for (number, bytes) in seeds.iter().enumerate() {
                attempt(name, *target, bytes, seed, number);
            }
            attempt(name, *target, &[], seed, 0);
            for number in 0..usize::try_from(runs).unwrap() {
                attempt(name, *target, &mutate(&seeds, &mut random), seed, number);
            }
        }
        eprintln!("{} targets, {runs} runs each, KEYBROKER_FUZZ_SEED={seed}", TARGETS.len());
    }

    #[test]
    fn every_target_has_a_binary_for_libfuzzer() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml");
        let manifest = std::fs::read_to_string(manifest).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    }
}
