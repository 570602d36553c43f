//! RSA keys of recipients that unwrap by `RSA_AES_KEY_WRAP`: an HSM, a TPM, a cloud's key management, or a VNFCI.

use super::OaepHash;
use super::recipient::InvalidRecipientKey;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use der::asn1::{AnyRef, UintRef};
use der::{Decode, Sequence};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use zeroize::Zeroizing;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Smallest modulus, in bits (NIST SP 800-131A).
const BITS_MIN: usize = 2048;
/// Largest modulus, in bits: what modules commonly take.
const BITS_MAX: usize = 4096;
/// Smallest public exponent (FIPS 186-5 5.1).
const EXPONENT_MIN: u64 = 65_537;

/// A validated RSA public key of a recipient: 2048 to 4096 bits, an odd exponent of 65537 or more (below 2^64).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RsaPublicKey {
    /// SubjectPublicKeyInfo, DER, as it was given.
    der: Vec<u8>,
    /// Big-endian, without leading zeros.
    modulus: Vec<u8>,
    /// Likewise.
    exponent: Vec<u8>,
}

/// Why bytes are no [`RsaPublicKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRsaKey {
    /// No SubjectPublicKeyInfo of an RSA key.
    #[error(
        "it is no SubjectPublicKeyInfo of an rsaEncryption key in DER (RFC 3279 2.3.1): give what `openssl pkey -pubout -outform DER` writes"
    )]
    Form,
    /// The modulus is too short or too long.
    #[error("the RSA key has {0} bits: give one of 2048 to 4096 bits")]
    Bits(usize),
    /// The modulus is even.
    #[error("the modulus of the RSA key is even, so it is none: make a new key")]
    EvenModulus,
    /// The public exponent is even, below 65537 or too large.
    #[error(
        "the public exponent of the RSA key is not an odd number from 65537 to 2^64 - 1: make a key with 65537"
    )]
    Exponent,
}

/// RSAPublicKey (RFC 8017 A.1.1).
#[derive(Sequence)]
struct Pkcs1PublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

impl RsaPublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280 4.1.2.7) with rsaEncryption and NULL parameters, DER.
    ///
    /// # Errors
    /// [`InvalidRsaKey`] says which rule is broken.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidRsaKey> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| InvalidRsaKey::Form)?;
        if info.algorithm.oid != RSA_ENCRYPTION || info.algorithm.parameters != Some(AnyRef::NULL) {
            return Err(InvalidRsaKey::Form);
        }
        let key = info.subject_public_key.as_bytes().ok_or(InvalidRsaKey::Form)?;
        let key = Pkcs1PublicKey::from_der(key).map_err(|_| InvalidRsaKey::Form)?;
        let (modulus, exponent) = (key.modulus.as_bytes(), key.public_exponent.as_bytes());
        let bits = bits(modulus);
        if !(BITS_MIN..=BITS_MAX).contains(&bits) {
            return Err(InvalidRsaKey::Bits(bits));
        }
        if !is_odd(modulus) {
            return Err(InvalidRsaKey::EvenModulus);
        }
        let value = exponent.iter().fold(0, |value: u64, &byte| value << 8 | u64::from(byte));
        if exponent.len() > size_of::<u64>() || value < EXPONENT_MIN || !is_odd(exponent) {
            return Err(InvalidRsaKey::Exponent);
        }
        Ok(Self { der: der.to_vec(), modulus: modulus.to_vec(), exponent: exponent.to_vec() })
    }

    /// SubjectPublicKeyInfo, DER, as it was given.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The modulus, big-endian without leading zeros.
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// The public exponent, likewise.
    pub fn exponent(&self) -> &[u8] {
        &self.exponent
    }
}

/// The private half, in software.
pub(super) struct RsaPrivateKey {
    private: PrivateDecryptingKey,
    public: RsaPublicKey,
}

impl RsaPrivateKey {
    /// 3072 bits: 128 bits of strength (NIST SP 800-57).
    pub(super) fn generate() -> Result<Self, InvalidRecipientKey> {
        Self::of(PrivateDecryptingKey::generate(KeySize::Rsa3072).map_err(|_| InvalidRecipientKey)?)
    }

    /// From PKCS#8, DER.
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, InvalidRecipientKey> {
        Self::of(PrivateDecryptingKey::from_pkcs8(der).map_err(|_| InvalidRecipientKey)?)
    }

    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, InvalidRecipientKey> {
        let der: Pkcs8V1Der<'_> = self.private.as_der().map_err(|_| InvalidRecipientKey)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    pub(super) fn public(&self) -> &RsaPublicKey {
        &self.public
    }

    /// RSAES-OAEP (RFC 8017 7.1.2) with MGF1 of the same hash and an empty label.
    pub(super) fn decrypt(&self, hash: OaepHash, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let algorithm = match hash {
            OaepHash::Sha256 => &OAEP_SHA256_MGF1SHA256,
            OaepHash::Sha1 => &OAEP_SHA1_MGF1SHA1,
        };
        let key = OaepPrivateDecryptingKey::new(self.private.clone()).ok()?;
        let mut plaintext = Zeroizing::new(vec![0; key.min_output_size()]);
        let length = key.decrypt(algorithm, ciphertext, &mut plaintext, None).ok()?.len();
        plaintext.truncate(length);
        Some(plaintext)
    }

    fn of(private: PrivateDecryptingKey) -> Result<Self, InvalidRecipientKey> {
        let der: PublicKeyX509Der<'_> = private.public_key().as_der().map_err(|_| InvalidRecipientKey)?;
        let public = RsaPublicKey::parse(der.as_ref()).map_err(|_| InvalidRecipientKey)?;
        Ok(Self { private, public })
    }
}

fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|last| last & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::Encode;
    use der::asn1::BitStringRef;
    use spki::AlgorithmIdentifierRef;

    fn info_of(oid: &str, parameters: Option<AnyRef<'_>>, modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        let key = Pkcs1PublicKey {
            modulus: UintRef::new(modulus).unwrap(),
            public_exponent: UintRef::new(exponent).unwrap(),
        };
        let key = key.to_der().unwrap();
        let algorithm = AlgorithmIdentifierRef { oid: oid.parse().unwrap(), parameters };
        let subject_public_key = BitStringRef::from_bytes(&key).unwrap();
        SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der().unwrap()
    }

    fn info(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        info_of("1.2.840.113549.1.1.1", Some(AnyRef::NULL), modulus, exponent)
    }

    const F4: [u8; 3] = [1, 0, 1];

    #[test]
    fn a_bad_key_is_refused_with_what_is_wrong() {
        let parse = |der: &[u8]| RsaPublicKey::parse(der).map(drop);
        for length in [256, 384, 512] {
            assert_eq!(parse(&info(&vec![0xff; length], &F4)), Ok(()));
        }
        assert_eq!(parse(&info(&[0xff; 128], &F4)), Err(InvalidRsaKey::Bits(1024)));
        let mut one_bit_less = [0xff; 256];
        one_bit_less[0] = 0x7f;
        assert_eq!(parse(&info(&one_bit_less, &F4)), Err(InvalidRsaKey::Bits(2047)));
        assert_eq!(parse(&info(&[0xff; 513], &F4)), Err(InvalidRsaKey::Bits(4104)));
        let mut even = [0xff; 256];
        even[255] = 0xfe;
        assert_eq!(parse(&info(&even, &F4)), Err(InvalidRsaKey::EvenModulus));
        for exponent in [&[3][..], &[1, 0, 0], &[1, 0, 2], &[0xff; 9]] {
            assert_eq!(parse(&info(&[0xff; 256], exponent)), Err(InvalidRsaKey::Exponent), "{exponent:?}");
        }
        assert_eq!(parse(&info(&[0xff; 256], &[1, 0, 3])), Ok(()));
    }

    #[test]
    fn what_is_no_rsa_encryption_key_in_der_is_refused() {
        let good = info(&[0xff; 256], &F4);
        let pss = info_of("1.2.840.113549.1.1.10", Some(AnyRef::NULL), &[0xff; 256], &F4);
        let without_parameters = info_of("1.2.840.113549.1.1.1", None, &[0xff; 256], &F4);
        let mut trailing = good.clone();
        trailing.push(0);
        for bad in
            [&[][..], &good[1..], &good[..good.len() - 1], &trailing, &pss, &without_parameters, &[4; 65]]
        {
            assert_eq!(RsaPublicKey::parse(bad).map(drop), Err(InvalidRsaKey::Form), "{bad:02x?}");
        }
    }
}
