//! What differs between PKCS#11 modules, in one place. What can be found out by trying is in
//! [`Capabilities`], which the prober's self-test fills in; nothing is assumed from a module's name.

use crate::sealing::{OaepHash, Suite};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use serde::{Deserialize, Serialize};

/// What passed the self-test on this token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Capabilities {
    /// Suites that sealed a key which then opened, preferred first.
    pub(super) suites: Vec<Suite>,
    /// The hash that worked with OAEP, if `RSA_AES_KEY_WRAP` was tried: SHA-256, or else SHA-1. SoftHSM 2.6 takes no
    /// other than SHA-1.
    pub(super) oaep_hash: Option<OaepHash>,
    /// Ed25519 keys can be made and sign.
    pub(super) ed25519: bool,
    /// What failed and why, for people.
    pub(super) missing: Vec<String>,
}

/// KWP (RFC 5649) is CKM_AES_KEY_WRAP_PAD, 0x210A, on SoftHSM and most modules. PKCS#11 3.0 gave it the new
/// number 0x210B (CKM_AES_KEY_WRAP_KWP), and a few modules, e.g. kryoptic, have it under that only: the
/// cryptoki crate cannot express 0x210B without unsafe code, so there the self-test fails and says so.
pub(super) const KWP: Mechanism<'static> = Mechanism::AesKeyWrapPad;

/// The name of [`KWP`], for the audit event.
pub(super) const KWP_NAME: &str = "CKM_AES_KEY_WRAP_PAD";

/// RSA-OAEP with MGF1 of the same hash and an empty label: what importers of CKM_RSA_AES_KEY_WRAP expect.
pub(super) fn oaep(hash: OaepHash) -> Mechanism<'static> {
    let (hash, mgf) = match hash {
        OaepHash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        OaepHash::Sha1 => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
    };
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mgf, PkcsOaepSource::empty()))
}

/// CKA_EC_POINT should be the DER OCTET STRING of the point (PKCS#11 3.1 6.3.3); some modules give the bare
/// point, or a BIT STRING. The OCTET STRING's tag and the uncompressed point's prefix are both 0x04, so the form is told
/// by the length: `length` is the bare point's.
pub(super) fn ec_point(attribute: &[u8], length: usize) -> Option<&[u8]> {
    let short = u8::try_from(length).ok().filter(|&short| short < 0x7f)?;
    match attribute {
        bare if bare.len() == length => Some(bare),
        [0x04, announced, point @ ..] if *announced == short && point.len() == length => Some(point),
        [0x03, announced, 0x00, point @ ..] if *announced == short + 1 && point.len() == length => {
            Some(point)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_found_in_every_form_that_modules_give() {
        let point = [4; 65];
        assert_eq!(ec_point(&point, 65), Some(&point[..]));
        assert_eq!(ec_point(&[&[4, 65][..], &point].concat(), 65), Some(&point[..]));
        assert_eq!(ec_point(&[&[3, 66, 0][..], &point].concat(), 65), Some(&point[..]));
        assert_eq!(ec_point(&[4; 66], 65), None);
        assert_eq!(ec_point(&[], 65), None);
    }
}
