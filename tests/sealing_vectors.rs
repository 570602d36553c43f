//! Promise: an envelope is opened as its format says, not only as our own sealing makes it.
//!
//! Method: vectors made by another implementation (`vectors/make_envelope.py`), both suites.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use keybroker::sealing::{Binding, Envelope, RecipientKey, Suite, context, matches_public_key, open};
use serde_json::Value;

#[test]
fn every_vector_opens_to_its_key() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("vectors/envelope.json")).unwrap();
    let suites: Vec<_> = vectors.iter().map(|vector| vector["suite"].as_str().unwrap()).collect();
    assert_eq!(suites, Suite::ALL.iter().map(|suite| suite.as_str()).collect::<Vec<_>>());
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
        assert_eq!(recipient.public_point().as_bytes()[..], bytes("recipient_point"));
        assert_eq!(
            context(suite, &binding, &bytes("recipient_point"), &bytes("hsm_point"))[..],
            bytes("context")
        );
        let envelope = Envelope {
            suite,
            hsm_point: bytes("hsm_point"),
            wrapped_dek: bytes("wrapped_dek"),
            wrapped_key: bytes("wrapped_key"),
        };
        let private = open(&recipient, &envelope, &binding).unwrap();
        assert_eq!(private[..], bytes("pkcs8"));
        assert!(matches_public_key(&private, &bytes("subject_public_key_info")));
    }
}
