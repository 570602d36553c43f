//! The recipient's ephemeral key pair, and its public half as the broker sees it.

use super::rsa::{InvalidRsaKey, RsaPrivateKey, RsaPublicKey};
use super::{OaepHash, Suite};
use crate::nfv::Sha256Hash;
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

/// The public key that a claim is bound to, validated. Which suites can seal to it follows from its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientPublicKey {
    /// For the ECDH suites.
    P256(RecipientPoint),
    /// For `RSA_AES_KEY_WRAP`.
    Rsa(RsaPublicKey),
}

/// Why bytes are no [`RecipientPublicKey`] for a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecipient {
    /// No P-256 point.
    #[error(transparent)]
    Point(#[from] InvalidPoint),
    /// No RSA key.
    #[error(transparent)]
    Rsa(#[from] InvalidRsaKey),
}

impl RecipientPublicKey {
    /// Reads the kind of key that `suite` seals to, as [`Self::as_bytes`] gives it.
    ///
    /// # Errors
    /// [`InvalidRecipient`] says which rule is broken.
    pub fn parse(suite: Suite, bytes: &[u8]) -> Result<Self, InvalidRecipient> {
        Ok(match suite {
            Suite::EcdhP256X963Sha256Kwp | Suite::EcdhP256CbcencKwpV1 => {
                Self::P256(RecipientPoint::parse(bytes)?)
            }
            Suite::RsaAesKeyWrap => Self::Rsa(RsaPublicKey::parse(bytes)?),
        })
    }

    /// What is sent, and what is hashed: the uncompressed P-256 point (65 bytes), or the RSA key's
    /// SubjectPublicKeyInfo (DER).
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::P256(point) => point.as_bytes(),
            Self::Rsa(key) => key.as_der(),
        }
    }

    /// SHA-256 of [`Self::as_bytes`]: what claims are bound to, and confirmations and token proofs sign.
    pub fn hash(&self) -> Sha256Hash {
        Sha256Hash::of(self.as_bytes())
    }

    /// Whether `suite` can seal to this kind of key.
    pub fn takes(&self, suite: Suite) -> bool {
        match suite {
            Suite::EcdhP256X963Sha256Kwp | Suite::EcdhP256CbcencKwpV1 => matches!(self, Self::P256(_)),
            Suite::RsaAesKeyWrap => matches!(self, Self::Rsa(_)),
        }
    }

    /// The suites that can seal to this kind of key, preferred first: what its holder offers.
    pub fn suites(&self) -> impl Iterator<Item = Suite> {
        Suite::ALL.iter().copied().filter(|&suite| self.takes(suite))
    }
}

/// Stored bytes that are no private key of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the recipient key is neither a P-256 private key of 32 bytes nor an RSA private key (PKCS#8, DER) of 2048 to 4096 bits"
)]
pub struct InvalidRecipientKey;

/// A VNFCI's ephemeral key pair: made and stored (0600) before its claim, so that a repeated claim is
/// sealed to the same key.
pub struct RecipientKey {
    private: Private,
    public: RecipientPublicKey,
}

enum Private {
    P256(PrivateKey),
    Rsa(RsaPrivateKey),
}

impl RecipientKey {
    /// A new P-256 key pair, for the ECDH suites.
    ///
    /// # Errors
    /// [`InvalidRecipientKey`] if the system's random generator fails.
    pub fn generate() -> Result<Self, InvalidRecipientKey> {
        Self::p256(PrivateKey::generate(&ECDH_P256).map_err(|_| InvalidRecipientKey)?)
    }

    /// A new RSA key pair of 3072 bits, for `RSA_AES_KEY_WRAP`. Takes some hundred milliseconds.
    ///
    /// # Errors
    /// [`InvalidRecipientKey`] if the system's random generator fails.
    pub fn generate_rsa() -> Result<Self, InvalidRecipientKey> {
        RsaPrivateKey::generate().map(Self::rsa)
    }

    /// From [`Self::to_bytes`].
    ///
    /// # Errors
    /// [`InvalidRecipientKey`] if it is neither a scalar of 32 bytes from 1 to below the group's order, nor an RSA
    /// key that [`RsaPublicKey`] allows.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecipientKey> {
        match bytes.len() {
            32 => {
                Self::p256(PrivateKey::from_private_key(&ECDH_P256, bytes).map_err(|_| InvalidRecipientKey)?)
            }
            _ => RsaPrivateKey::from_pkcs8(bytes).map(Self::rsa),
        }
    }

    /// The private key for storing: P-256 as 32 bytes, big-endian; RSA as PKCS#8 (RFC 5958), DER.
    ///
    /// # Errors
    /// [`InvalidRecipientKey`] if it cannot be exported.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, InvalidRecipientKey> {
        match &self.private {
            Private::P256(key) => {
                let bytes: EcPrivateKeyBin<'_> = key.as_be_bytes().map_err(|_| InvalidRecipientKey)?;
                Ok(Zeroizing::new(bytes.as_ref().to_vec()))
            }
            Private::Rsa(key) => key.to_pkcs8(),
        }
    }

    /// The public half, as it is sent in a claim.
    pub fn public_key(&self) -> &RecipientPublicKey {
        &self.public
    }

    /// Z, the ECDH shared secret with `peer` (X coordinate, 32 bytes). None if this is an RSA key.
    pub(super) fn shared_secret(&self, peer: &RecipientPoint) -> Option<Zeroizing<[u8; 32]>> {
        let Private::P256(key) = &self.private else { return None };
        agree(key, UnparsedPublicKey::new(&ECDH_P256, &peer.0[..]), (), |secret| {
            Ok(Zeroizing::new(secret.try_into().map_err(|_| ())?))
        })
        .ok()
    }

    /// RSAES-OAEP decryption. None if it fails, or if this is no RSA key.
    pub(super) fn decrypt(&self, hash: OaepHash, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match &self.private {
            Private::P256(_) => None,
            Private::Rsa(key) => key.decrypt(hash, ciphertext),
        }
    }

    fn p256(private: PrivateKey) -> Result<Self, InvalidRecipientKey> {
        let public = private.compute_public_key().map_err(|_| InvalidRecipientKey)?;
        let point = RecipientPoint::parse(public.as_ref()).map_err(|_| InvalidRecipientKey)?;
        Ok(Self { private: Private::P256(private), public: RecipientPublicKey::P256(point) })
    }

    fn rsa(private: RsaPrivateKey) -> Self {
        let public = RecipientPublicKey::Rsa(private.public().clone());
        Self { private: Private::Rsa(private), public }
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
        let key = RecipientKey::generate().unwrap();
        let good: [u8; 65] = key.public_key().as_bytes().try_into().unwrap();
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
        for key in [RecipientKey::generate().unwrap(), RecipientKey::generate_rsa().unwrap()] {
            let again = RecipientKey::from_bytes(&key.to_bytes().unwrap()).unwrap();
            assert_eq!(again.public_key(), key.public_key());
        }
        assert!(RecipientKey::from_bytes(&[0; 32]).is_err());
        assert!(RecipientKey::from_bytes(&[0xff; 32]).is_err());
        assert!(RecipientKey::from_bytes(&[]).is_err());
        assert!(RecipientKey::from_bytes(&[0x30; 1200]).is_err());
    }

    #[test]
    fn each_kind_of_key_offers_its_own_suites_only() {
        let p256 = RecipientKey::generate().unwrap();
        let of_p256: Vec<_> = p256.public_key().suites().collect();
        assert_eq!(of_p256, [Suite::EcdhP256X963Sha256Kwp, Suite::EcdhP256CbcencKwpV1]);
        let rsa = RecipientKey::generate_rsa().unwrap();
        assert_eq!(rsa.public_key().suites().collect::<Vec<_>>(), [Suite::RsaAesKeyWrap]);
    }
}
