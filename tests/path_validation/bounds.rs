//! What is cut, changed or made up is refused without a panic, and no more is done for it than is allowed.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use keybroker::ca::path::{Certificate, Crl, PathError, Purpose, Revocation, Rules, Work, validate};
use keybroker::ca::{CrlEntry, SigningCa, assemble, crl, issue};
use keybroker::clock::Timestamp;
use keybroker::credential::RevocationReason;
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000)
}

fn key() -> (EcdsaKeyPair, Vec<u8>) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let spki = key.public_key().as_der().unwrap().as_ref().to_vec();
    (key, spki)
}

/// A CA, a client certificate and a CRL, valid.
struct Site {
    anchor: Vec<u8>,
    leaf: Vec<u8>,
    crl: Vec<u8>,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let (ca_key, spki) = key();
    let tbs = issue::root("bounds", &spki, YEAR, now(), &mut rand::rng()).unwrap();
    let sign = |der: &[u8]| ca_key.sign(&SystemRandom::new(), der).unwrap().as_ref().to_vec();
    let anchor = assemble(&tbs.der, tbs.algorithm, &sign(&tbs.der));
    let ca = SigningCa::new(&anchor, "http://example.org/crl").unwrap();
    let tbs = ca.client("client", "vnfci", &key().1, YEAR / 2, now(), &mut rand::rng()).unwrap();
    let leaf = assemble(&tbs.der, tbs.algorithm, &sign(&tbs.der));
    let entry = CrlEntry { serial: [7; 16], revoked_at: now(), reason: RevocationReason::Superseded };
    let tbs = crl(&ca, None, 1, now(), now().plus(YEAR / 12), &[entry]);
    let crl = tbs.assemble(&sign(&tbs.der));
    Site { anchor, leaf, crl }
});

fn rules() -> Rules {
    Rules { revocation: Revocation::Require, ..Rules::new(Purpose::TlsClient, now()) }
}

fn judge(anchor: &[u8], leaf: &[u8], pool: &[Vec<u8>], crl: &[u8]) -> Result<(), PathError> {
    let pool: Vec<_> = pool.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    let (anchor, leaf) = (Certificate::from_der(anchor)?, Certificate::from_der(leaf)?);
    let crl = Arc::new(Crl::from_der(crl)?);
    validate(&leaf, &pool, &anchor, &[crl], &rules(), &Work::default()).map(|_| ())
}

#[test]
fn what_is_not_changed_is_valid() {
    judge(&SITE.anchor, &SITE.leaf, &[], &SITE.crl).unwrap();
}

#[test]
fn no_certificate_is_cut_anywhere_and_still_read() {
    for end in 0..SITE.leaf.len() {
        assert!(Certificate::from_der(&SITE.leaf[..end]).is_err());
    }
    for end in 0..SITE.crl.len() {
        assert!(Crl::from_der(&SITE.crl[..end]).is_err());
    }
}

/// Hundreds of CAs of one name that all seem to have issued each other: without bounds a search of factorial cost.
#[test]
fn a_thicket_of_cross_certificates_is_given_up() {
    let template = Certificate::from_der(&SITE.anchor).unwrap();
    let cas: Vec<(EcdsaKeyPair, Vec<u8>)> = (0..12).map(|_| key()).collect();
    let mut pool = Vec::new();
    for (_, spki) in &cas {
        for (signer, _) in &cas {
            let tbs = issue::root("thicket", spki, YEAR, now(), &mut rand::rng()).unwrap();
            let signature = signer.sign(&SystemRandom::new(), &tbs.der).unwrap();
            let der = assemble(&tbs.der, tbs.algorithm, signature.as_ref());
            pool.push(Certificate::from_der(&der).unwrap());
        }
    }
    let leaf = pool.pop().unwrap();
    let outcome = validate(&leaf, &pool, &template, &[], &rules(), &Work::default());
    assert!(
        matches!(
            outcome,
            Err(PathError::TooMuchWork(_) | PathError::UnknownIssuer(_) | PathError::Signature(_))
        ),
        "{outcome:?}"
    );
}

proptest! {
    #[test]
    fn no_changed_octet_makes_a_panic_or_a_valid_leaf(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut leaf = SITE.leaf.clone();
        let at = at.index(leaf.len());
        prop_assume!(leaf[at] != octet);
        leaf[at] = octet;
        prop_assert!(judge(&SITE.anchor, &leaf, std::slice::from_ref(&SITE.leaf), &SITE.crl).is_err());
    }

    #[test]
    fn no_changed_octet_makes_a_panic_or_a_current_crl(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut crl = SITE.crl.clone();
        let at = at.index(crl.len());
        prop_assume!(crl[at] != octet);
        crl[at] = octet;
        prop_assert!(judge(&SITE.anchor, &SITE.leaf, &[], &crl).is_err());
    }

    #[test]
    fn no_changed_anchor_makes_a_panic(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut anchor = SITE.anchor.clone();
        let at = at.index(anchor.len());
        anchor[at] = octet;
        let _ = judge(&anchor, &SITE.leaf, std::slice::from_ref(&SITE.anchor), &SITE.crl);
    }

    #[test]
    fn no_octets_make_a_panic(mut octets in prop::collection::vec(any::<u8>(), 1..600)) {
        octets[0] = 0x30;
        prop_assert!(judge(&SITE.anchor, &octets, &[octets.clone()], &SITE.crl).is_err());
        prop_assert!(judge(&SITE.anchor, &SITE.leaf, &[], &octets).is_err());
    }
}
