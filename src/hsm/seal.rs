//! Sealing: a DEK from under its epoch's KEK to under a key agreed with the recipient, inside the token.

use super::fault::Fault;
use super::public_key::p256_point;
use super::templates::{self, Life, PairTemplate, Use, secret_key};
use super::token::{Half, Token};
use super::{HsmError, ObjectId, SealRequest, SealedKey, WrappedKey, quirks};
use crate::sealing::{Binding, RecipientPoint, Suite, context};
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
        let recipient = RecipientPoint::parse(&request.recipient_point)
            .map_err(|invalid| HsmError::Refused(invalid.to_string()))?;
        let (private, hsm_point) = self.fresh_sealing_key()?;
        let agreement = Agreement::new(self.session()?, request.suite, private, hsm_point, recipient)?;
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
                agreement.seal(session, kek, wrapped, &binding)
            })?);
            self.objects_made += 2;
        }
        agreement.end(self.session()?)?;
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

/// The agreement with one recipient, for all keys of one claim.
struct Agreement {
    suite: Suite,
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
        let base = match suite {
            Suite::EcdhP256X963Sha256Kwp => private,
            Suite::EcdhP256CbcencKwpV1 => {
                let parameters = Ecdh1DeriveParams::new(EcKdf::null(), recipient.as_bytes());
                let template = secret_key(KeyType::AES, Some(32), Life::Session, &[Use::Derive], false);
                session.derive_key(&Mechanism::Ecdh1Derive(parameters), private, &template)?
            }
        };
        Ok(Self { suite, recipient, hsm_point, base })
    }

    fn seal(
        &self,
        session: &Session,
        kek: ObjectHandle,
        wrapped: &[u8],
        binding: &Binding,
    ) -> Result<SealedKey, Fault> {
        let dek = unwrap_dek(session, kek, wrapped)?;
        let context = context(self.suite, binding, self.recipient.as_bytes(), &self.hsm_point);
        let mechanism = match self.suite {
            Suite::EcdhP256X963Sha256Kwp => Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(
                EcKdf::sha256(&context),
                self.recipient.as_bytes(),
            )),
            Suite::EcdhP256CbcencKwpV1 => {
                Mechanism::AesCbcEncryptData(AesCbcDeriveParams::new([0; 16], &context))
            }
        };
        let template = secret_key(KeyType::AES, Some(32), Life::Session, &[Use::Wrap], false);
        let wrapping_key = session.derive_key(&mechanism, self.base, &template)?;
        let mut wrapped_dek = session.wrap_key(&quirks::KWP, wrapping_key, dek)?;
        // The crate gives the announced length, which a module may round up.
        wrapped_dek.truncate(WRAPPED_DEK);
        session.destroy_object(wrapping_key)?;
        session.destroy_object(dek)?;
        Ok(SealedKey { hsm_point: self.hsm_point.clone(), wrapped_dek })
    }

    /// Destroys Z.
    fn end(self, session: &Session) -> Result<(), Fault> {
        match self.suite {
            Suite::EcdhP256X963Sha256Kwp => Ok(()),
            Suite::EcdhP256CbcencKwpV1 => Ok(session.destroy_object(self.base)?),
        }
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

/// One key sealed with a sealing key made for it, for the self-test.
pub(super) fn seal_once(
    session: &Session,
    kek: ObjectHandle,
    wrapped: &[u8],
    suite: Suite,
    recipient: RecipientPoint,
    binding: &Binding,
) -> Result<SealedKey, Fault> {
    let key = SealingKey::generate(session)?;
    let agreement = Agreement::new(session, suite, key.private, key.point, recipient)?;
    agreement.seal(session, kek, wrapped, binding)
}
