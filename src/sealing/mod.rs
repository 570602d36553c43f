//! The envelope that carries a private key from the HSM to its VNFCI: suites, the context, and the VNFCI's
//! side. The format is `docs/envelope.md`.
//!
//! An envelope is `{suite, hsm_point, KWP(W, DEK), KWP(DEK, PKCS#8)}`. W is agreed between the HSM's
//! sealing key and the VNFCI's ephemeral key and depends on the [`context()`]: an envelope is good for one
//! claim. KWP (RFC 5649) authenticates but has no associated data, so the recipient also checks that the
//! unsealed key belongs to the certificate ([`matches_public_key`]).
//!
//! The opt-in suite `RSA_AES_KEY_WRAP` has neither point nor W nor context: `{suite, OAEP(DEK), KWP(DEK, PKCS#8)}`.

mod open;
mod recipient;
mod rsa;

pub use open::{Envelope, OpenError, matches_public_key, open};
pub use recipient::{
    InvalidPoint, InvalidRecipient, InvalidRecipientKey, RecipientKey, RecipientPoint, RecipientPublicKey,
};
pub use rsa::{InvalidRsaKey, RsaPublicKey};

use crate::credential::named;
use crate::nfv::{CredentialId, RequestId, Sha256Hash, TenantId, labelled_fields};

named!(
    /// How the data key gets from the HSM to the recipient.
    Suite, "sealing suite" {
        /// W by ECDH on P-256 with the X9.63 KDF (SHA-256), the context as shared info.
        EcdhP256X963Sha256Kwp = "ECDH_P256_X963SHA256_KWP",
        /// W as AES-256-CBC (IV 0) of the 32-byte context under the ECDH shared secret. For SoftHSM 2.6, which
        /// has no KDF; not a NIST-approved KDF.
        EcdhP256CbcencKwpV1 = "ECDH_P256_CBCENC_KWP_V1",
        /// The data key under the recipient's RSA key by OAEP: the layout of PKCS#11's CKM_RSA_AES_KEY_WRAP, which
        /// HSMs, TPM tools and clouds import. Carries no context: used only where it is configured and asked for.
        RsaAesKeyWrap = "RSA_AES_KEY_WRAP",
    }
);

impl Suite {
    /// What may be used where nothing is configured, preferred first: the suites that bind an envelope to its claim.
    pub const DEFAULT: [Self; 2] = [Self::EcdhP256X963Sha256Kwp, Self::EcdhP256CbcencKwpV1];
}

named!(
    /// The hash of RSA-OAEP and of its MGF1; the label is empty.
    OaepHash, "OAEP hash" {
        /// Preferred.
        Sha256 = "SHA-256",
        /// For modules that have no other, as SoftHSM 2.6. OAEP does not need collision resistance.
        Sha1 = "SHA-1",
    }
);

/// What an envelope is bound to, beside the suite and the two public points.
#[derive(Debug, Clone)]
pub struct Binding {
    /// Whose key it is.
    pub tenant: TenantId,
    /// The claim's request.
    pub request: RequestId,
    /// The credential.
    pub credential: CredentialId,
    /// SHA-256 of the certificate's DER.
    pub certificate: Sha256Hash,
}

/// The context of one envelope: SHA-256 over the label `keybroker-envelope-v1` and, each with its length
/// (4 bytes, big-endian) before it: suite (text), tenant (text), request id (hyphenated lower-case text),
/// credential id (likewise), the certificate's SHA-256 (32 bytes), the recipient's point and the HSM's point
/// (uncompressed P-256, 65 bytes each).
pub fn context(suite: Suite, binding: &Binding, recipient_point: &[u8], hsm_point: &[u8]) -> [u8; 32] {
    let fields = labelled_fields(
        "keybroker-envelope-v1",
        &[
            suite.as_str().as_bytes(),
            binding.tenant.as_str().as_bytes(),
            binding.request.to_string().as_bytes(),
            binding.credential.to_string().as_bytes(),
            &binding.certificate.0,
            recipient_point,
            hsm_point,
        ],
    );
    Sha256Hash::of(&fields).0
}
