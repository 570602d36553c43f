//! The prober's self-test: what this token really does, found out by doing it with session objects.

use super::HsmError;
use super::fault::Fault;
use super::objects::{generate_signing_pair, sign};
use super::produce::{produce, session_kek};
use super::public_key::subject_public_key_info;
use super::quirks::Capabilities;
use super::seal::seal_once;
use super::templates::Life;
use super::{SignatureAlgorithm, WrappedKey};
use crate::credential::KeyType;
use crate::nfv::{CredentialId, RequestId, Sha256Hash};
use crate::sealing::{Binding, Envelope, RecipientKey, Suite, matches_public_key, open};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use cryptoki::session::Session;

/// Tries every suite in `configured` from production to opening, and Ed25519.
///
/// # Errors
/// If keys cannot be generated and wrapped by KWP: without that nothing works. A suite that fails is only left out.
pub(super) fn run(session: &Session, configured: &[Suite]) -> Result<Capabilities, Fault> {
    let kek = session_kek(session)?;
    let key = produce(session, kek, KeyType::EcP256).map_err(|fault| {
        HsmError::Unavailable(format!(
            "the token cannot wrap a key by AES-KWP as mechanism 0x210A (CKM_AES_KEY_WRAP_PAD): {}",
            HsmError::from(fault)
        ))
    })?;
    let seals = |suite: &Suite| {
        let Ok(recipient) = RecipientKey::generate() else { return false };
        let Ok(tenant) = "self-test".parse() else { return false };
        let binding = Binding {
            tenant,
            request: RequestId::generate(),
            credential: CredentialId::generate(),
            certificate: Sha256Hash::of(b"self-test"),
        };
        let Ok(dek) = WrappedKey::ciphertext(&key.wrapped.dek_blob) else { return false };
        let sealed = match seal_once(session, kek, dek, *suite, recipient.public_point(), &binding) {
            Ok(sealed) => sealed,
            Err(fault) => {
                tracing::debug!(%suite, error = %HsmError::from(fault), "suite is not available");
                return false;
            }
        };
        let envelope = Envelope {
            suite: *suite,
            hsm_point: sealed.hsm_point,
            wrapped_dek: sealed.wrapped_dek,
            wrapped_key: key.wrapped.key_blob.get(1..).unwrap_or_default().to_vec(),
        };
        open(&recipient, &envelope, &binding)
            .is_ok_and(|private| matches_public_key(&private, &key.public_key_der))
    };
    let suites = configured.iter().filter(|suite| seals(suite)).copied().collect();
    let capabilities = Capabilities { suites, ed25519: ed25519(session).unwrap_or(false) };
    session.destroy_object(kek)?;
    Ok(capabilities)
}

fn ed25519(session: &Session) -> Result<bool, Fault> {
    let (public, private) = generate_signing_pair(session, SignatureAlgorithm::Ed25519, Life::Session)?;
    let spki = subject_public_key_info(session, public)?;
    let signature = sign(session, private, SignatureAlgorithm::Ed25519, b"self-test")?;
    // The last 32 bytes of the SubjectPublicKeyInfo are the key.
    let key = UnparsedPublicKey::new(&ED25519, spki.get(spki.len() - 32..).unwrap_or_default());
    Ok(key.verify(b"self-test", &signature).is_ok())
}
