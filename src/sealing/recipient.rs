//! The recipient's ephemeral key pair, and its public point as the broker sees it.

use aws_lc_rs::agreement::{ECDH_P256, ParsedPublicKey, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use std::fmt;
use zeroize::Zeroizing;

/// A validated public key of a recipient: on P-256, not the point at infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipientPoint([u8; 65]);

/// Why bytes are no [`RecipientPoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPoint {
    /// Not 65 bytes.
    #[error("the recipient's point has {0} bytes: give the uncompressed P-256 point, 65 bytes (SEC 1 2.3.3)")]
    Length(usize),
    /// Another first byte than 4.
    #[error("the recipient's point begins with {0:#04x}: give it uncompressed, beginning with 0x04")]
    Form(u8),
    /// No point of the curve.
    #[error("the recipient's point is not on the curve P-256")]
    NotOnCurve,
}

impl RecipientPoint {
    /// Reads an uncompressed P-256 point (SEC 1 2.3.3): 0x04, X, Y; 65 bytes.
    ///
    /// # Errors
    /// [`InvalidPoint`] says which rule is broken. The point at infinity has no such form.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidPoint> {
        let point: [u8; 65] = bytes.try_into().map_err(|_| InvalidPoint::Length(bytes.len()))?;
        if point[0] != 4 {
            return Err(InvalidPoint::Form(point[0]));
        }
        ParsedPublicKey::try_from(UnparsedPublicKey::new(&ECDH_P256, &point))
            .map_err(|_| InvalidPoint::NotOnCurve)?;
        Ok(Self(point))
    }

    /// The uncompressed point, 65 bytes.
    pub fn as_bytes(&self) -> &[u8; 65] {
        &self.0
    }
}

/// Stored bytes that are no private key of P-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the recipient key is not a P-256 private key of 32 bytes")]
pub struct InvalidRecipientKey;

/// A VNFCI's ephemeral P-256 key pair: made and stored (0600) before its claim, so that a repeated claim is
/// sealed to the same key.
pub struct RecipientKey {
    private: PrivateKey,
    point: RecipientPoint,
}

impl RecipientKey {
    /// A new key pair.
    ///
    /// # Errors
    /// [`InvalidRecipientKey`] if the system's random generator fails.
    pub fn generate() -> Result<Self, InvalidRecipientKey> {
        Self::of(PrivateKey::generate(&ECDH_P256).map_err(|_| InvalidRecipientKey)?)
    }

    /// From [`Self::to_bytes`].
    ///
    /// # Errors
    /// [`InvalidRecipientKey`] if it is not 32 bytes, zero, or not below the group's order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecipientKey> {
        Self::of(PrivateKey::from_private_key(&ECDH_P256, bytes).map_err(|_| InvalidRecipientKey)?)
    }

    /// The private key for storing: big-endian, 32 bytes.
    ///
    /// # Errors
    /// [`InvalidRecipientKey`] if it cannot be exported.
    pub fn to_bytes(&self) -> Result<Zeroizing<[u8; 32]>, InvalidRecipientKey> {
        let bytes: EcPrivateKeyBin<'_> = self.private.as_be_bytes().map_err(|_| InvalidRecipientKey)?;
        Ok(Zeroizing::new(bytes.as_ref().try_into().map_err(|_| InvalidRecipientKey)?))
    }

    /// The public half, as it is sent in a claim.
    pub fn public_point(&self) -> RecipientPoint {
        self.point
    }

    /// Z, the ECDH shared secret with `peer` (X coordinate, 32 bytes).
    pub(super) fn shared_secret(&self, peer: &RecipientPoint) -> Option<Zeroizing<[u8; 32]>> {
        agree(&self.private, UnparsedPublicKey::new(&ECDH_P256, &peer.0[..]), (), |secret| {
            Ok(Zeroizing::new(secret.try_into().map_err(|_| ())?))
        })
        .ok()
    }

    fn of(private: PrivateKey) -> Result<Self, InvalidRecipientKey> {
        let public = private.compute_public_key().map_err(|_| InvalidRecipientKey)?;
        let point = RecipientPoint::parse(public.as_ref()).map_err(|_| InvalidRecipientKey)?;
        Ok(Self { private, point })
    }
}

impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecipientKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_point_is_refused_with_what_is_wrong() {
        let good = *RecipientKey::generate().unwrap().public_point().as_bytes();
        assert!(RecipientPoint::parse(&good).is_ok());
        assert_eq!(RecipientPoint::parse(&good[1..]), Err(InvalidPoint::Length(64)));
        assert_eq!(RecipientPoint::parse(&[0]), Err(InvalidPoint::Length(1)), "the point at infinity");
        let mut compressed_prefix = good;
        compressed_prefix[0] = 2;
        assert_eq!(RecipientPoint::parse(&compressed_prefix), Err(InvalidPoint::Form(2)));
        let mut off_curve = good;
        off_curve[64] ^= 1;
        assert_eq!(RecipientPoint::parse(&off_curve), Err(InvalidPoint::NotOnCurve));
        let mut zero = [0; 65];
        zero[0] = 4;
        assert_eq!(RecipientPoint::parse(&zero), Err(InvalidPoint::NotOnCurve));
    }

    #[test]
    fn a_stored_key_is_the_same_key() {
        let key = RecipientKey::generate().unwrap();
        let again = RecipientKey::from_bytes(&key.to_bytes().unwrap()[..]).unwrap();
        assert_eq!(again.public_point(), key.public_point());
        assert!(RecipientKey::from_bytes(&[0; 32]).is_err());
        assert!(RecipientKey::from_bytes(&[0xff; 32]).is_err());
    }
}
