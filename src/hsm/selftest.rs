//! The prober's self-test: what this token really does, found out by doing it with session objects.

use super::fault::Fault;
use super::objects::{generate_signing_pair, sign};
use super::produce::{produce, session_kek};
use super::public_key::subject_public_key_info;
use super::quirks::Capabilities;
use super::seal::seal_once;
use super::templates::Life;
use super::{HsmError, ProducedKey, SignatureAlgorithm, WrappedKey};
use crate::credential::KeyType;
use crate::nfv::{CredentialId, RequestId, Sha256Hash};
use crate::sealing::{Binding, Envelope, OaepHash, RecipientKey, Suite, matches_public_key, open};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use std::ops::ControlFlow;

/// Tries every suite in `configured` from production to opening, and Ed25519.
///
/// # Errors
/// If keys cannot be generated and wrapped by KWP: without that nothing works. A suite that fails is only left out.
pub(super) fn run(session: &Session, configured: &[Suite]) -> Result<Capabilities, Fault> {
    let kek = session_kek(session)?;
    let key = produce(session, kek, KeyType::EcP256, None).map_err(|fault| {
        HsmError::Unavailable(format!(
            "the token cannot wrap a key by AES-KWP as mechanism 0x210A (CKM_AES_KEY_WRAP_PAD): {}",
            HsmError::from(fault)
        ))
    })?;
    let mut capabilities = Capabilities::default();
    for &suite in configured {
        let passed = match suite {
            Suite::EcdhP256X963Sha256Kwp | Suite::EcdhP256CbcencKwpV1 => {
                seals(session, kek, &key, suite, None).map_err(|fault| HsmError::from(fault).to_string())
            }
            // The first hash that works.
            Suite::RsaAesKeyWrap => OaepHash::ALL
                .iter()
                .try_for_each(|&hash| match seals(session, kek, &key, suite, Some(hash)) {
                    Ok(()) => {
                        capabilities.oaep_hash = Some(hash);
                        ControlFlow::Break(())
                    }
                    Err(fault) => {
                        let error = HsmError::from(fault);
                        capabilities.missing.push(format!("OAEP with {hash}: {error}"));
                        ControlFlow::Continue(())
                    }
                })
                .break_value()
                .ok_or_else(|| "no OAEP".to_owned()),
        };
        match passed {
            Ok(()) => capabilities.suites.push(suite),
            Err(error) => capabilities.missing.push(format!("{suite}: {error}")),
        }
    }
    match ed25519(session) {
        Ok(()) => capabilities.ed25519 = true,
        Err(fault) => capabilities.missing.push(format!("Ed25519: {}", HsmError::from(fault))),
    }
    session.destroy_object(kek)?;
    Ok(capabilities)
}

/// From the KEK to the opened private key, as a claim goes. `oaep_hash` for an RSA suite only.
fn seals(
    session: &Session,
    kek: ObjectHandle,
    key: &ProducedKey,
    suite: Suite,
    oaep_hash: Option<OaepHash>,
) -> Result<(), Fault> {
    let recipient = match oaep_hash {
        None => RecipientKey::generate(),
        Some(_) => RecipientKey::generate_rsa(),
    };
    let recipient = recipient.map_err(|_| failed("no recipient key can be made"))?;
    let binding = Binding {
        tenant: "self-test".parse().map_err(|_| failed("tenant"))?,
        request: RequestId::generate(),
        credential: CredentialId::generate(),
        certificate: Sha256Hash::of(b"self-test"),
    };
    let dek = WrappedKey::ciphertext(&key.wrapped.dek_blob)?;
    let sealed = seal_once(session, kek, dek, suite, oaep_hash, recipient.public_key(), &binding)?;
    let envelope = Envelope {
        suite,
        hsm_point: sealed.hsm_point,
        oaep_hash: sealed.oaep_hash,
        wrapped_dek: sealed.wrapped_dek,
        wrapped_key: WrappedKey::ciphertext(&key.wrapped.key_blob)?.to_vec(),
    };
    let private = open(&recipient, &envelope, &binding).map_err(|error| failed(&error.to_string()))?;
    if matches_public_key(&private, &key.public_key_der) {
        Ok(())
    } else {
        Err(failed("what was sealed is not the private key that was made"))
    }
}

fn ed25519(session: &Session) -> Result<(), Fault> {
    let (public, private) = generate_signing_pair(session, SignatureAlgorithm::Ed25519, Life::Session)?;
    let spki = subject_public_key_info(session, public)?;
    let signature = sign(session, private, SignatureAlgorithm::Ed25519, b"self-test")?;
    // The last 32 bytes of the SubjectPublicKeyInfo are the key.
    let key = UnparsedPublicKey::new(&ED25519, spki.get(spki.len() - 32..).unwrap_or_default());
    key.verify(b"self-test", &signature).map_err(|_| failed("its signature does not verify"))
}

fn failed(what: &str) -> Fault {
    HsmError::Refused(what.to_owned()).into()
}
