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
