//! Promise: a key is made in the HSM, leaves it wrapped only, and opens for its one recipient only.
//!
//! Method: a fresh SoftHSM2 token, real worker processes, and the VNFCI's own code for opening.

mod hsm_support;

use hsm_support::{Fixture, SUITE, binding, envelope, epoch, one_key, seal, tenant};
use keybroker::credential::KeyType;
use keybroker::hsm::HsmError;
use keybroker::nfv::{CredentialId, EpochId, RequestId, Sha256Hash, TenantId};
use keybroker::sealing::{Binding, OpenError, RecipientKey, matches_public_key, open};
use proptest::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_key_of_every_type_opens_and_matches_its_public_key() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    assert_eq!(hsm.status().suites, [SUITE], "SoftHSM 2.6 has no X9.63 KDF");
    let epoch = epoch(&hsm).await;
    for &key_type in KeyType::ALL {
        let key = one_key(&hsm, epoch, key_type).await;
        let recipient = RecipientKey::generate().unwrap();
        let binding = binding();
        let sealed = seal(&hsm, epoch, &key.wrapped.dek_blob, &binding, &recipient).await.unwrap();
        let private = open(&recipient, &envelope(&key, sealed), &binding).unwrap();
        assert!(matches_public_key(&private, &key.public_key_der), "{key_type}");
    }
    hsm.shutdown().await;
}
