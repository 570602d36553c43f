//! Opening an envelope: the VNFCI's side.

use super::{Binding, OaepHash, RecipientKey, RecipientPoint, Suite, context};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::key_wrap::{self, AesKek, KeyWrapPadded};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// One sealed private key as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// How the data key is wrapped.
    pub suite: Suite,
    /// The HSM's side of the agreement: uncompressed P-256 point, 65 bytes; empty with `RSA_AES_KEY_WRAP`.
    pub hsm_point: Vec<u8>,
    /// With `RSA_AES_KEY_WRAP` only.
    pub oaep_hash: Option<OaepHash>,
    /// KWP (RFC 5649) of the 32-byte data key under W: 40 bytes. With `RSA_AES_KEY_WRAP` RSAES-OAEP (RFC 8017 7.1) of
    /// it, as long as the recipient's modulus.
    pub wrapped_dek: Vec<u8>,
    /// KWP of the PKCS#8 (RFC 5958, DER, possibly followed by zeros) under the data key; no version byte.
    pub wrapped_key: Vec<u8>,
}

/// Why an envelope did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The HSM's point is none.
    #[error("the envelope's HSM point is not a point of P-256")]
    Point,
    /// The data key does not unwrap: another recipient key, another claim, or a changed envelope.
    #[error("the envelope is not for this recipient key and claim, or was changed")]
    NotForUs,
    /// The data key does not unwrap the private key.
    #[error("the envelope's private key was changed")]
    Changed,
    /// What was unwrapped is no PKCS#8.
    #[error("the envelope's content is not a PKCS#8 private key")]
    Content,
}

/// Opens `envelope` with the recipient's key; `binding` is what the recipient knows of its claim.
/// Gives the private key as PKCS#8 v1 (RFC 5958), DER, trimmed to its length; SoftHSM's has no public key inside.
///
/// # Errors
/// [`OpenError`]. Nothing is told about how far a wrong W came.
pub fn open(
    key: &RecipientKey,
    envelope: &Envelope,
    binding: &Binding,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    if !key.public_key().takes(envelope.suite) {
        return Err(OpenError::NotForUs);
    }
    let dek = match envelope.suite {
        Suite::EcdhP256X963Sha256Kwp => by_agreement(key, envelope, binding, x963)?,
        Suite::EcdhP256CbcencKwpV1 => by_agreement(key, envelope, binding, cbcenc)?,
        // No context: that this is our claim's key is shown by the certificate only.
        Suite::RsaAesKeyWrap => envelope
            .oaep_hash
            .and_then(|hash| key.decrypt(hash, &envelope.wrapped_dek))
            .ok_or(OpenError::NotForUs)?,
    };
    let mut private_key = unwrap(&dek, &envelope.wrapped_key).ok_or(OpenError::Changed)?;
    let length = trimmed_length(&private_key).ok_or(OpenError::Content)?;
    private_key.truncate(length);
    Ok(private_key)
}

/// Whether `pkcs8` (DER) is the private key of `public_key`, a certificate's SubjectPublicKeyInfo (DER). The
/// public key is computed from the private one: P-256, P-384 and RSA.
pub fn matches_public_key(pkcs8: &[u8], public_key: &[u8]) -> bool {
    let ec = [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING]
        .into_iter()
        .find_map(|curve| EcdsaKeyPair::from_pkcs8(curve, pkcs8).ok());
    let computed: Option<PublicKeyX509Der<'_>> = match ec {
        Some(pair) => pair.public_key().as_der().ok(),
        None => RsaKeyPair::from_pkcs8(pkcs8).ok().and_then(|pair| pair.public_key().as_der().ok()),
    };
    computed.is_some_and(|computed| computed.as_ref() == public_key)
}

/// W of Z and the context.
type Derive = fn(&[u8; 32], &[u8; 32]) -> Option<Zeroizing<[u8; 32]>>;

/// The data key under W, which `derive` makes of Z and the context.
fn by_agreement(
    key: &RecipientKey,
    envelope: &Envelope,
    binding: &Binding,
    derive: Derive,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let hsm_point = RecipientPoint::parse(&envelope.hsm_point).map_err(|_| OpenError::Point)?;
    let context = context(envelope.suite, binding, key.public_key().as_bytes(), hsm_point.as_bytes());
    let secret = key.shared_secret(&hsm_point).ok_or(OpenError::Point)?;
    let wrapping_key = derive(&secret, &context).ok_or(OpenError::NotForUs)?;
    unwrap(&wrapping_key[..], &envelope.wrapped_dek).ok_or(OpenError::NotForUs)
}

/// ANSI X9.63 KDF, first block: Hash(Z || counter || SharedInfo).
fn x963(secret: &[u8; 32], context: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let digest = Sha256::new().chain_update(secret).chain_update([0, 0, 0, 1]).chain_update(context);
    Some(Zeroizing::new(digest.finalize().into()))
}

/// The context encrypted under Z by AES-256-CBC with an IV of zeros.
fn cbcenc(secret: &[u8; 32], context: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let mut block = Zeroizing::new(*context);
    let key = UnboundCipherKey::new(&cipher::AES_256, secret).ok()?;
    EncryptingKey::cbc(key)
        .ok()?
        .less_safe_encrypt(&mut block[..], EncryptionContext::Iv128(FixedLength::from([0; 16])))
        .ok()?;
    Some(block)
}

fn unwrap(key: &[u8], wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut output = Zeroizing::new(vec![0; wrapped.len()]);
    let kek = AesKek::new(&key_wrap::AES_256, key).ok()?;
    let length = kek.unwrap_with_padding(wrapped, &mut output).ok()?.len();
    output.truncate(length);
    Some(output)
}

/// Length of the outer DER SEQUENCE. SoftHSM fills the PKCS#8 with zeros to a multiple of eight before it
/// wraps: at most seven zeros may follow, and nothing else.
fn trimmed_length(der: &[u8]) -> Option<usize> {
    let (header, length) = match *der {
        [0x30, short, ..] if short < 0x80 => (2, usize::from(short)),
        [0x30, 0x81, length, ..] => (3, usize::from(length)),
        [0x30, 0x82, high, low, ..] => (4, usize::from(high) << 8 | usize::from(low)),
        _ => return None,
    };
    let end = header + length;
    let padding = der.get(end..)?;
    (padding.len() < 8 && padding.iter().all(|&byte| byte == 0)).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zeros_of_one_block_are_trimmed() {
        assert_eq!(trimmed_length(&[0x30, 1, 5]), Some(3));
        assert_eq!(trimmed_length(&[0x30, 1, 5, 0, 0]), Some(3));
        assert_eq!(trimmed_length(&[0x30, 1, 5, 1]), None);
        assert_eq!(trimmed_length(&[0x30, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(trimmed_length(&[0x30, 2, 5]), None);
        assert_eq!(trimmed_length(&[]), None);
    }
}
