//! A fresh SoftHSM2 token for each test, in a directory that is removed afterwards.

#![allow(dead_code, reason = "each test program uses its part of this")]

use keybroker::credential::KeyType;
use keybroker::hsm::softhsm::SoftHsmToken;
use keybroker::hsm::{Hsm, HsmConfig, HsmError, ProducedKey, SealItem, SealRequest, SealedKey, WrappedKey};
use keybroker::nfv::{CredentialId, EpochId, RequestId, Sha256Hash, TenantId};
use keybroker::sealing::{Binding, Envelope, RecipientKey, Suite};
use std::path::Path;

#[path = "../fresh_token/mod.rs"]
mod fresh_token;
use fresh_token::fresh_token;

/// What the token prefers of the suites that are on by default.
pub(crate) fn suite() -> Suite {
    if kryoptic() { Suite::EcdhP256X963Sha256Kwp } else { Suite::EcdhP256CbcencKwpV1 }
}

/// Whether the tests run on kryoptic, in place of SoftHSM2.
pub(crate) fn kryoptic() -> bool {
    std::env::var_os("KEYBROKER_TEST_KRYOPTIC").is_some()
}

pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) token: SoftHsmToken,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token = fresh_token(directory.path(), worker_program());
        Self { directory, token }
    }

    pub(crate) fn config(&self) -> HsmConfig {
        self.token.config(worker_program())
    }

    pub(crate) async fn start(&self) -> Hsm {
        Hsm::start(self.config()).await.unwrap()
    }
}

pub(crate) fn worker_program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_keybroker"))
}

pub(crate) fn tenant() -> TenantId {
    "default".parse().unwrap()
}

pub(crate) async fn epoch(hsm: &Hsm) -> EpochId {
    let epoch = EpochId::generate();
    hsm.create_kek(&tenant(), &epoch).await.unwrap();
    epoch
}

pub(crate) async fn one_key(hsm: &Hsm, epoch: EpochId, key_type: KeyType) -> ProducedKey {
    hsm.produce(&tenant(), epoch, key_type, 1).await.unwrap().keys.remove(0)
}

pub(crate) fn binding() -> Binding {
    Binding {
        tenant: tenant(),
        request: RequestId::generate(),
        credential: CredentialId::generate(),
        certificate: Sha256Hash::of(b"a certificate"),
    }
}

/// Seals one key as the broker does it.
pub(crate) async fn seal(
    hsm: &Hsm,
    epoch: EpochId,
    dek_blob: &[u8],
    binding: &Binding,
    recipient: &RecipientKey,
) -> Result<SealedKey, HsmError> {
    let request = SealRequest {
        tenant: binding.tenant.clone(),
        request: binding.request,
        suite: suite(),
        recipient: recipient.public_key().as_bytes().to_vec(),
        items: vec![SealItem {
            credential: binding.credential,
            certificate: binding.certificate,
            epoch,
            dek_blob: dek_blob.to_vec(),
        }],
    };
    hsm.seal(request).await.map(|mut sealed| sealed.remove(0))
}

pub(crate) fn envelope(key: &ProducedKey, sealed: SealedKey) -> Envelope {
    Envelope {
        suite: suite(),
        hsm_point: sealed.hsm_point,
        oaep_hash: sealed.oaep_hash,
        wrapped_dek: sealed.wrapped_dek,
        wrapped_key: WrappedKey::ciphertext(&key.wrapped.key_blob).unwrap().to_vec(),
    }
}
