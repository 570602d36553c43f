//! Sealing: a DEK from under its epoch's KEK to under a key of the recipient's, inside the token: one that is agreed
//! with it, or its RSA key.

use super::fault::Fault;
use super::public_key::p256_point;
use super::templates::{self, Life, PairTemplate, Use, rsa_wrapping_key, secret_key};
use super::token::{Half, Token};
use super::{HsmError, ObjectId, SealRequest, SealedKey, WrappedKey, quirks};
use crate::sealing::{Binding, OaepHash, RecipientPoint, RecipientPublicKey, RsaPublicKey, Suite, context};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::ekdf::AesCbcDeriveParams;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, KeyType, ObjectHandle};
use cryptoki::session::Session;
use std::time::{Duration, Instant};

/// Our side of the key agreement. With one that never changed, every captured envelope would be a copy that
/// no shredding covers.
const SEALING_KEY_LIFE: Duration = Duration::from_secs(60);

/// KWP of 32 bytes.
const WRAPPED_DEK: usize = 40;

/// A P-256 pair for ECDH, a session object.
pub(super) struct SealingKey {
    private: ObjectHandle,
    /// Uncompressed, 65 bytes.
    point: Vec<u8>,
    made: Instant,
}

impl Token {
    /// Seals every item to the recipient, in order. The KEK's name is derived from the request's tenant: an epoch
    /// of another tenant is not found.
    pub(super) fn seal(&mut self, request: &SealRequest) -> Result<Vec<SealedKey>, Fault> {
        if !self.capabilities.suites.contains(&request.suite) {
            return Err(HsmError::Refused(format!("the suite {} is not available", request.suite)).into());
        }
        let recipient = RecipientPublicKey::parse(request.suite, &request.recipient)
            .map_err(|invalid| HsmError::Refused(invalid.to_string()))?;
        let target = match recipient {
            RecipientPublicKey::P256(point) => {
                let (private, hsm_point) = self.fresh_sealing_key()?;
                let agreement = Agreement::new(self.session()?, request.suite, private, hsm_point, point)?;
                Target::Agreed(agreement)
            }
            RecipientPublicKey::Rsa(key) => {
                let hash = self.capabilities.oaep_hash;
                Target::Rsa(RsaTarget::new(self.session()?, &key, hash)?)
            }
        };
        self.objects_made += 1;
        let mut sealed = Vec::with_capacity(request.items.len());
        for item in &request.items {
            let kek = ObjectId::Kek(request.tenant.clone(), item.epoch);
            let wrapped = WrappedKey::ciphertext(&item.dek_blob)?;
            let binding = Binding {
                tenant: request.tenant.clone(),
                request: request.request,
                credential: item.credential,
                certificate: item.certificate,
            };
            sealed.push(self.with_object(&kek, Half::Secret, |session, kek| {
                target.seal(session, kek, wrapped, &binding)
            })?);
            self.objects_made += 2;
        }
        target.end(self.session()?)?;
        Ok(sealed)
    }

    fn fresh_sealing_key(&mut self) -> Result<(ObjectHandle, Vec<u8>), Fault> {
        if let Some(key) = &self.sealing_key {
            if key.made.elapsed() < SEALING_KEY_LIFE {
                return Ok((key.private, key.point.clone()));
            }
            let expired = key.private;
            self.sealing_key = None;
            self.permanent().destroy_object(expired)?;
        }
        // In the permanent session: it must outlive a working one that is thrown away.
        let key = SealingKey::generate(self.permanent())?;
        self.objects_made += 2;
        let answer = (key.private, key.point.clone());
        self.sealing_key = Some(key);
        Ok(answer)
    }
}

impl SealingKey {
    fn generate(session: &Session) -> Result<Self, Fault> {
        let curve = [Attribute::EcParams(templates::P256.to_vec())];
        let template = PairTemplate::new(KeyType::EC, &curve, Life::Session, &[Use::Derive], false);
        let (public, private) =
            session.generate_key_pair(&Mechanism::EccKeyPairGen, &template.public, &template.private)?;
        let point = p256_point(session, public)?;
        session.destroy_object(public)?;
        Ok(Self { private, point, made: Instant::now() })
    }
}

/// Under what the DEKs of one claim are wrapped.
enum Target {
    Agreed(Agreement),
    Rsa(RsaTarget),
}

impl Target {
    fn seal(
        &self,
        session: &Session,
        kek: ObjectHandle,
        wrapped: &[u8],
        binding: &Binding,
    ) -> Result<SealedKey, Fault> {
        let dek = unwrap_dek(session, kek, wrapped)?;
        let sealed = match self {
            Self::Agreed(agreement) => agreement.wrap(session, dek, binding)?,
            Self::Rsa(target) => target.wrap(session, dek)?,
        };
        session.destroy_object(dek)?;
        Ok(sealed)
    }

    /// Destroys what was made for this claim.
    fn end(self, session: &Session) -> Result<(), Fault> {
        match self {
            Self::Agreed(agreement) => agreement.end(session),
            Self::Rsa(target) => Ok(session.destroy_object(target.key)?),
        }
    }
}

/// How W is derived.
#[derive(Clone, Copy)]
enum Derivation {
    X963,
    Cbcenc,
}

/// The agreement with one recipient, for all keys of one claim.
struct Agreement {
    suite: Suite,
    derivation: Derivation,
    recipient: RecipientPoint,
    hsm_point: Vec<u8>,
    /// Our private key, or Z where the suite derives W from it by encryption.
    base: ObjectHandle,
}

impl Agreement {
    fn new(
        session: &Session,
        suite: Suite,
        private: ObjectHandle,
        hsm_point: Vec<u8>,
        recipient: RecipientPoint,
    ) -> Result<Self, Fault> {
        let derivation = match suite {
            Suite::EcdhP256X963Sha256Kwp => Derivation::X963,
            Suite::EcdhP256CbcencKwpV1 => Derivation::Cbcenc,
            Suite::RsaAesKeyWrap => {
                return Err(HsmError::Refused(format!("{suite} agrees on no key")).into());
            }
        };
        let base = match derivation {
            Derivation::X963 => private,
            Derivation::Cbcenc => {
                let parameters = Ecdh1DeriveParams::new(EcKdf::null(), recipient.as_bytes());
                let template = secret_key(KeyType::AES, Some(32), Life::Session, &[Use::Derive], false);
                session.derive_key(&Mechanism::Ecdh1Derive(parameters), private, &template)?
            }
        };
        Ok(Self { suite, derivation, recipient, hsm_point, base })
    }

    fn wrap(&self, session: &Session, dek: ObjectHandle, binding: &Binding) -> Result<SealedKey, Fault> {
        let context = context(self.suite, binding, self.recipient.as_bytes(), &self.hsm_point);
        let mechanism = match self.derivation {
            Derivation::X963 => Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(
                EcKdf::sha256(&context),
                self.recipient.as_bytes(),
            )),
            Derivation::Cbcenc => Mechanism::AesCbcEncryptData(AesCbcDeriveParams::new([0; 16], &context)),
        };
        let template = secret_key(KeyType::AES, Some(32), Life::Session, &[Use::Wrap], false);
        let wrapping_key = session.derive_key(&mechanism, self.base, &template)?;
        let mut wrapped_dek = session.wrap_key(&quirks::KWP, wrapping_key, dek)?;
        // The crate gives the announced length, which a module may round up.
        wrapped_dek.truncate(WRAPPED_DEK);
        session.destroy_object(wrapping_key)?;
        Ok(SealedKey { hsm_point: self.hsm_point.clone(), oaep_hash: None, wrapped_dek })
    }

    /// Destroys Z.
    fn end(self, session: &Session) -> Result<(), Fault> {
        match self.derivation {
            Derivation::X963 => Ok(()),
            Derivation::Cbcenc => Ok(session.destroy_object(self.base)?),
        }
    }
}

/// The recipient's RSA key in the token, a session object that may only wrap.
struct RsaTarget {
    key: ObjectHandle,
    hash: OaepHash,
    /// In bytes: that of every ciphertext.
    modulus_length: usize,
}

impl RsaTarget {
    fn new(session: &Session, key: &RsaPublicKey, hash: Option<OaepHash>) -> Result<Self, Fault> {
        let hash = hash.ok_or_else(|| HsmError::Refused("no hash is known to work with OAEP".to_owned()))?;
        let object = session.create_object(&rsa_wrapping_key(key.modulus(), key.exponent()))?;
        Ok(Self { key: object, hash, modulus_length: key.modulus().len() })
    }

    fn wrap(&self, session: &Session, dek: ObjectHandle) -> Result<SealedKey, Fault> {
        let mut wrapped_dek = session.wrap_key(&quirks::oaep(self.hash), self.key, dek)?;
        wrapped_dek.truncate(self.modulus_length);
        Ok(SealedKey { hsm_point: Vec::new(), oaep_hash: Some(self.hash), wrapped_dek })
    }
}

/// A DEK into the token, as a session object that may only be wrapped again.
pub(super) fn unwrap_dek(
    session: &Session,
    kek: ObjectHandle,
    wrapped: &[u8],
) -> Result<ObjectHandle, Fault> {
    let template = secret_key(KeyType::AES, None, Life::Session, &[], true);
    Ok(session.unwrap_key(&quirks::KWP, kek, wrapped, &template)?)
}

/// One key sealed with a sealing key made for it, for the self-test; `oaep_hash` for an RSA recipient.
pub(super) fn seal_once(
    session: &Session,
    kek: ObjectHandle,
    wrapped: &[u8],
    suite: Suite,
    oaep_hash: Option<OaepHash>,
    recipient: &RecipientPublicKey,
    binding: &Binding,
) -> Result<SealedKey, Fault> {
    let target = match recipient {
        RecipientPublicKey::P256(point) => {
            let key = SealingKey::generate(session)?;
            Target::Agreed(Agreement::new(session, suite, key.private, key.point, *point)?)
        }
        RecipientPublicKey::Rsa(key) => Target::Rsa(RsaTarget::new(session, key, oaep_hash)?),
    };
    target.seal(session, kek, wrapped, binding)
}
