//! Promise: an envelope is opened as its format says, not only as our own sealing makes it.
//!
//! Method: vectors made by another implementation (`vectors/make_envelope.py`), every suite.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use keybroker::sealing::{
    Binding, Envelope, OaepHash, OpenError, RecipientKey, Suite, context, matches_public_key, open,
};
use serde_json::Value;

#[test]
fn every_vector_opens_to_its_key() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("vectors/envelope.json")).unwrap();
    let mut suites: Vec<_> = vectors.iter().map(|vector| vector["suite"].as_str().unwrap()).collect();
    // RSA_AES_KEY_WRAP with each hash.
    suites.dedup();
    assert_eq!(suites, Suite::ALL.iter().map(|suite| suite.as_str()).collect::<Vec<_>>());
    let hashes: Vec<_> = vectors.iter().filter_map(|vector| vector["oaep_hash"].as_str()).collect();
    assert_eq!(hashes, OaepHash::ALL.iter().map(|hash| hash.as_str()).collect::<Vec<_>>());
    for vector in &vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let bytes = |name: &str| hex::decode(text(name)).unwrap();
        let binding = Binding {
            tenant: text("tenant").parse().unwrap(),
            request: text("request").parse().unwrap(),
            credential: text("credential").parse().unwrap(),
            certificate: text("certificate_sha256").parse().unwrap(),
        };
        let suite: Suite = text("suite").parse().unwrap();
        let recipient = RecipientKey::from_bytes(&bytes("recipient_private_key")).unwrap();
        let oaep_hash = vector["oaep_hash"].as_str().map(|hash| hash.parse().unwrap());
        let hsm_point = if oaep_hash.is_some() {
            assert_eq!(recipient.public_key().as_bytes(), bytes("recipient_public_key"));
            Vec::new()
        } else {
            assert_eq!(recipient.public_key().as_bytes(), bytes("recipient_point"));
            let context = context(suite, &binding, &bytes("recipient_point"), &bytes("hsm_point"));
            assert_eq!(context[..], bytes("context"));
            bytes("hsm_point")
        };
        let envelope = Envelope {
            suite,
            hsm_point,
            oaep_hash,
            wrapped_dek: bytes("wrapped_dek"),
            wrapped_key: bytes("wrapped_key"),
        };
        let private = open(&recipient, &envelope, &binding).unwrap();
        assert_eq!(private[..], bytes("pkcs8"));
        assert!(matches_public_key(&private, &bytes("subject_public_key_info")));
        // Not with another hash than the broker named.
        let other_hash = match oaep_hash {
            Some(OaepHash::Sha256) => Some(OaepHash::Sha1),
            Some(OaepHash::Sha1) => Some(OaepHash::Sha256),
            None => continue,
        };
        for oaep_hash in [other_hash, None] {
            let changed = Envelope { oaep_hash, ..envelope.clone() };
            assert_eq!(open(&recipient, &changed, &binding).unwrap_err(), OpenError::NotForUs);
        }
    }
}
