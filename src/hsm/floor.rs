//! The floor that production is held against: the same PKCS#11 calls in a plain loop of one process, with no broker
//! around them. Only `keybroker bench` asks for it.

use super::child::read_pin;
use super::produce::produce;
use super::token::{Half, Token};
use super::{HsmConfig, HsmError, ObjectId, SignatureAlgorithm};
use crate::credential::KeyType;
use std::time::{Duration, Instant};

/// As long as a pool certificate's TBSCertificate, and none: its signature is good for nothing.
const MESSAGE: [u8; 600] = [b'-'; 600];

/// Makes P-256 key pairs as production does, with KEK and sub-CA key that it finds on the token: generate the pair, read
/// the point, generate a DEK, wrap the key under it and it under the KEK, destroy all three, sign once with the CA's
/// key. Gives how long each batch of `batch` keys took, after one batch that is not counted. Nothing is kept.
///
/// Loads the module into this process: to be called in a process that does nothing else.
///
/// # Errors
/// [`HsmError::Refused`] on a token without KEK or sub-CA, else as [`super::Hsm::start`].
pub fn production_floor(config: &HsmConfig, batches: u32, batch: u32) -> Result<Vec<Duration>, HsmError> {
    let mut token = Token::open(&config.module, &config.token, &read_pin(&config.pin_file)?)?;
    let objects = token.inventory().map_err(HsmError::from)?;
    let named = |wanted: fn(&ObjectId) -> bool| {
        let found = objects.iter().filter_map(|object| object.id.clone()).find(wanted);
        found.ok_or_else(|| {
            HsmError::Refused("the token has no KEK or no sub-CA: produce something first".into())
        })
    };
    let kek = named(|id| matches!(id, ObjectId::Kek(..)))?;
    let ca = named(|id| matches!(id, ObjectId::SubCa(..)))?;
    let message = [MESSAGE.to_vec()];
    let mut one_batch = || {
        let begun = Instant::now();
        for _ in 0..batch {
            token.with_object(&kek, Half::Secret, |session, kek| {
                produce(session, kek, KeyType::EcP256, None)
            })?;
            token.sign(&ca, SignatureAlgorithm::EcdsaP256Sha256, &message)?;
        }
        Ok(begun.elapsed())
    };
    one_batch().map_err(|fault: super::fault::Fault| HsmError::from(fault))?;
    (0..batches).map(|_| one_batch().map_err(HsmError::from)).collect()
}
