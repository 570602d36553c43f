//! Production: key pairs that leave the token wrapped only, and the re-wrap of their data keys.

use super::fault::Fault;
use super::public_key::pool_public_key;
use super::seal::unwrap_dek;
use super::templates::{self, KekTemplate, Life, PairTemplate, Use, secret_key};
use super::token::{Half, Token};
use super::{HsmError, ObjectId, Produced, ProducedKey, RequestTemplate, WrappedKey, quirks};
use crate::crash::{self, Point};
use crate::credential::KeyType;
use crate::nfv::{EpochId, TenantId};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{self, Attribute, ObjectHandle};
use cryptoki::session::Session;
use std::time::Instant;

/// Key pairs of one call at most; a larger batch would keep a worker busy for too long.
const LARGEST_BATCH: u32 = 64;

impl Token {
    /// Makes `count` key pairs, each private key wrapped under a DEK of its own and the DEK under the epoch's KEK.
    pub(super) fn produce(
        &mut self,
        tenant: TenantId,
        epoch: EpochId,
        key_type: KeyType,
        count: u32,
        requests: &[RequestTemplate],
    ) -> Result<Produced, Fault> {
        if count > LARGEST_BATCH {
            return Err(HsmError::Refused(format!("at most {LARGEST_BATCH} keys in one call")).into());
        }
        if !requests.is_empty() && requests.len() != count as usize {
            return Err(HsmError::Refused("one certificate request for each key, or none".into()).into());
        }
        let started = Instant::now();
        let kek = ObjectId::Kek(tenant, epoch);
        let mut keys = Vec::new();
        for place in 0..count as usize {
            let request = requests.get(place);
            keys.push(
                self.with_object(&kek, Half::Secret, |session, kek| {
                    produce(session, kek, key_type, request)
                })?,
            );
            self.objects_made += 3;
        }
        let generation = match key_type {
            KeyType::EcP256 | KeyType::EcP384 => "CKM_EC_KEY_PAIR_GEN",
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => "CKM_RSA_PKCS_KEY_PAIR_GEN",
        };
        let mut mechanisms = [generation, "CKM_AES_KEY_GEN", quirks::KWP_NAME].map(str::to_owned).to_vec();
        if !requests.is_empty() {
            mechanisms.push(super::request::mechanism_name(key_type).to_owned());
        }
        Ok(Produced { keys, mechanisms, duration: started.elapsed() })
    }

    /// Each DEK from under one epoch's KEK to under another's, inside the token, in the same order.
    pub(super) fn rewrap(
        &mut self,
        tenant: &TenantId,
        from: EpochId,
        to: EpochId,
        dek_blobs: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let (from, to) = (ObjectId::Kek(tenant.clone(), from), ObjectId::Kek(tenant.clone(), to));
        let mut blobs = Vec::with_capacity(dek_blobs.len());
        for blob in dek_blobs {
            let wrapped = WrappedKey::ciphertext(blob)?;
            let dek =
                self.with_object(&from, Half::Secret, |session, kek| unwrap_dek(session, kek, wrapped))?;
            self.objects_made += 1;
            crash::reached(Point::WorkerRewrapping);
            let again = self.with_object(&to, Half::Secret, |session, kek| {
                Ok(session.wrap_key(&quirks::KWP, kek, dek)?)
            })?;
            self.session()?.destroy_object(dek)?;
            blobs.push(WrappedKey::blob(&again));
        }
        Ok(blobs)
    }
}

/// One key pair, wrapped for the KEK behind `kek`.
/// With a `request`, the key signs it first: the only signature that it ever makes here.
pub(super) fn produce(
    session: &Session,
    kek: ObjectHandle,
    key_type: KeyType,
    request: Option<&RequestTemplate>,
) -> Result<ProducedKey, Fault> {
    let uses: &[Use] = if request.is_some() { &[Use::Sign] } else { &[] };
    let (public, private) = generate_pair(session, key_type, uses)?;
    crash::reached(Point::WorkerGenerated);
    let public_key_der = pool_public_key(session, public, key_type)?;
    let request_der = request
        .map(|request| super::request::signed(session, private, key_type, &public_key_der, request))
        .transpose()?;
    let template = secret_key(object::KeyType::AES, Some(32), Life::Session, &[Use::Wrap], true);
    let dek = session.generate_key(&Mechanism::AesKeyGen, &template)?;
    let key_blob = WrappedKey::blob(&session.wrap_key(&quirks::KWP, dek, private)?);
    let dek_blob = WrappedKey::blob(&session.wrap_key(&quirks::KWP, kek, dek)?);
    for object in [public, private, dek] {
        session.destroy_object(object)?;
    }
    Ok(ProducedKey { public_key_der, wrapped: WrappedKey { key_blob, dek_blob }, request_der })
}

/// A KEK as a session object, for the self-test.
pub(super) fn session_kek(session: &Session) -> Result<ObjectHandle, Fault> {
    Ok(session.generate_key(&Mechanism::AesKeyGen, KekTemplate::new(Life::Session).attributes())?)
}

/// A key pair for the pool: its private half may be wrapped, and used as `uses` says.
fn generate_pair(
    session: &Session,
    key_type: KeyType,
    uses: &[Use],
) -> Result<(ObjectHandle, ObjectHandle), Fault> {
    let curve = |oid: &[u8]| vec![Attribute::EcParams(oid.to_vec())];
    let rsa = |bits: u32| {
        vec![
            Attribute::ModulusBits(std::ffi::c_ulong::from(bits).into()),
            Attribute::PublicExponent(vec![1, 0, 1]),
        ]
    };
    let (mechanism, kind, parameters) = match key_type {
        KeyType::EcP256 => (Mechanism::EccKeyPairGen, object::KeyType::EC, curve(&templates::P256)),
        KeyType::EcP384 => (Mechanism::EccKeyPairGen, object::KeyType::EC, curve(&templates::P384)),
        KeyType::Rsa2048 => (Mechanism::RsaPkcsKeyPairGen, object::KeyType::RSA, rsa(2048)),
        KeyType::Rsa3072 => (Mechanism::RsaPkcsKeyPairGen, object::KeyType::RSA, rsa(3072)),
        KeyType::Rsa4096 => (Mechanism::RsaPkcsKeyPairGen, object::KeyType::RSA, rsa(4096)),
    };
    let template = PairTemplate::new(kind, &parameters, Life::Session, uses, true);
    Ok(session.generate_key_pair(&mechanism, &template.public, &template.private)?)
}
