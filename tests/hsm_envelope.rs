//! Promise: a key is made in the HSM, leaves it wrapped only, and opens for its one recipient only.
//!
//! Method: a fresh SoftHSM2 token, real worker processes, and the VNFCI's own code for opening.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod hsm_support;

use hsm_support::{Fixture, binding, envelope, epoch, kryoptic, one_key, seal, suite, tenant};
use keybroker::credential::KeyType;
use keybroker::hsm::{Hsm, HsmConfig, HsmError, SealItem, SealRequest};
use keybroker::nfv::{CredentialId, EpochId, RequestId, Sha256Hash, TenantId};
use keybroker::sealing::{
    Binding, Envelope, OaepHash, OpenError, RecipientKey, Suite, matches_public_key, open,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::time::Duration;

/// On a busy machine an RSA-4096 key may take longer than a call usually may.
fn patient(fixture: &Fixture) -> HsmConfig {
    HsmConfig { call_deadline: Duration::from_secs(120), ..fixture.config() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_key_of_every_type_opens_and_matches_its_public_key() {
    let fixture = Fixture::new();
    let hsm = Hsm::start(patient(&fixture)).await.unwrap();
    // SoftHSM 2.6 has no X9.63 KDF.
    let suites = if kryoptic() { Suite::DEFAULT.to_vec() } else { vec![Suite::EcdhP256CbcencKwpV1] };
    assert_eq!(hsm.status().suites, suites);
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

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_recipient_opens_a_key_of_every_type_and_no_other_recipient_does() {
    let fixture = Fixture::new();
    let sealing = vec![Suite::RsaAesKeyWrap, suite()];
    let hsm = Hsm::start(HsmConfig { sealing: sealing.clone(), ..patient(&fixture) }).await.unwrap();
    let status = hsm.status();
    let oaep = if kryoptic() { OaepHash::Sha256 } else { OaepHash::Sha1 };
    assert_eq!((status.suites, status.oaep_hash), (sealing, Some(oaep)));
    let epoch = epoch(&hsm).await;
    let (recipient, other) = (RecipientKey::generate_rsa().unwrap(), RecipientKey::generate_rsa().unwrap());
    let p256 = RecipientKey::generate().unwrap();
    for &key_type in KeyType::ALL {
        let key = one_key(&hsm, epoch, key_type).await;
        let binding = binding();
        let request = |recipient: &RecipientKey| SealRequest {
            tenant: tenant(),
            request: binding.request,
            suite: Suite::RsaAesKeyWrap,
            recipient: recipient.public_key().as_bytes().to_vec(),
            items: vec![SealItem {
                credential: binding.credential,
                certificate: binding.certificate,
                epoch,
                dek_blob: key.wrapped.dek_blob.clone(),
            }],
        };
        let sealed = hsm.seal(request(&recipient)).await.unwrap().remove(0);
        assert_eq!((sealed.hsm_point.len(), sealed.wrapped_dek.len()), (0, 3072 / 8));
        let envelope = Envelope { suite: Suite::RsaAesKeyWrap, ..envelope(&key, sealed) };
        let private = open(&recipient, &envelope, &binding).unwrap();
        assert!(matches_public_key(&private, &key.public_key_der), "{key_type}");
        for wrong in [&other, &p256] {
            assert_eq!(open(wrong, &envelope, &binding).unwrap_err(), OpenError::NotForUs);
        }
        let refused = hsm.seal(request(&p256)).await;
        assert!(matches!(&refused, Err(HsmError::Refused(_))), "{refused:?}");
    }
    assert_eq!(hsm.status().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_large_batch_is_new_and_opens() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let epoch = epoch(&hsm).await;
    let produced = hsm.produce(&tenant(), epoch, KeyType::EcP256, 130).await.unwrap();
    assert_eq!(produced.keys.len(), 130);
    assert!(produced.mechanisms.contains(&"CKM_EC_KEY_PAIR_GEN".to_owned()));
    let mut public: Vec<_> = produced.keys.iter().map(|key| &key.public_key_der).collect();
    public.sort();
    public.dedup();
    assert_eq!(public.len(), 130);
    let (recipient, binding) = (RecipientKey::generate().unwrap(), binding());
    for key in &produced.keys {
        let sealed = seal(&hsm, epoch, &key.wrapped.dek_blob, &binding, &recipient).await.unwrap();
        let private = open(&recipient, &envelope(key, sealed), &binding).unwrap();
        assert!(matches_public_key(&private, &key.public_key_der));
        let other = public.iter().find(|public| ***public != key.public_key_der).unwrap();
        assert!(!matches_public_key(&private, other));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_of_another_tenant_is_not_found() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let epoch = epoch(&hsm).await;
    let key = one_key(&hsm, epoch, KeyType::EcP256).await;
    let stranger: TenantId = "stranger".parse().unwrap();
    let recipient = RecipientKey::generate().unwrap();
    let stolen = Binding { tenant: stranger.clone(), ..binding() };
    let sealed = seal(&hsm, epoch, &key.wrapped.dek_blob, &stolen, &recipient).await;
    assert!(matches!(sealed, Err(HsmError::NotFound(_))), "{sealed:?}");
    let produced = hsm.produce(&stranger, epoch, KeyType::EcP256, 1).await;
    assert!(matches!(produced, Err(HsmError::NotFound(_))), "{produced:?}");
    // With a KEK of its own the stranger still cannot unwrap the other tenant's DEK, nor re-wrap it.
    let own = EpochId::generate();
    hsm.create_kek(&stranger, &own).await.unwrap();
    let sealed = seal(&hsm, own, &key.wrapped.dek_blob, &stolen, &recipient).await;
    assert!(matches!(sealed, Err(HsmError::Module { .. })), "{sealed:?}");
    let rewrapped = hsm.rewrap(&stranger, own, own, vec![key.wrapped.dek_blob.clone()]).await;
    assert!(matches!(rewrapped, Err(HsmError::Module { .. })), "{rewrapped:?}");
    // A tampered or foreign blob is the caller's matter: the worker stays.
    assert_eq!(hsm.status().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_recipient_or_another_claim_cannot_open_it_nor_can_a_changed_one_be_opened() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let epoch = epoch(&hsm).await;
    let key = one_key(&hsm, epoch, KeyType::EcP256).await;
    let (recipient, binding) = (RecipientKey::generate().unwrap(), binding());
    let sealed = seal(&hsm, epoch, &key.wrapped.dek_blob, &binding, &recipient).await.unwrap();
    let envelope = envelope(&key, sealed);
    assert!(open(&recipient, &envelope, &binding).is_ok());

    let other = RecipientKey::generate().unwrap();
    assert_eq!(open(&other, &envelope, &binding).unwrap_err(), OpenError::NotForUs);
    for elsewhere in [
        Binding { tenant: "other".parse().unwrap(), ..binding.clone() },
        Binding { request: RequestId::generate(), ..binding.clone() },
        Binding { credential: CredentialId::generate(), ..binding.clone() },
        Binding { certificate: Sha256Hash::of(b"another"), ..binding.clone() },
    ] {
        assert_eq!(open(&recipient, &envelope, &elsewhere).unwrap_err(), OpenError::NotForUs);
    }
    let mut other_suite = envelope.clone();
    other_suite.suite =
        Suite::DEFAULT.into_iter().find(|other| *other != suite()).expect("two suites are on by default");
    assert_eq!(open(&recipient, &other_suite, &binding).unwrap_err(), OpenError::NotForUs);

    let fields = (0..3usize, any::<prop::sample::Index>(), 0..8u32);
    let flipped = |(field, byte, bit): (usize, prop::sample::Index, u32)| {
        let mut changed = envelope.clone();
        let bytes = [&mut changed.hsm_point, &mut changed.wrapped_dek, &mut changed.wrapped_key]
            .into_iter()
            .nth(field);
        let bytes = bytes.unwrap();
        let index = byte.index(bytes.len());
        bytes[index] ^= 1 << bit;
        prop_assert!(open(&recipient, &changed, &binding).is_err(), "field {} byte {}", field, index);
        Ok(())
    };
    TestRunner::default().run(&fields, flipped).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_recipient_point_or_blob_is_refused_before_the_token_sees_it() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let epoch = epoch(&hsm).await;
    let key = one_key(&hsm, epoch, KeyType::EcP256).await;
    let recipient = RecipientKey::generate().unwrap();
    for blob in [vec![], vec![2; 41]] {
        let refused = seal(&hsm, epoch, &blob, &binding(), &recipient).await;
        assert!(matches!(refused, Err(HsmError::Refused(_))), "{refused:?}");
    }
    let mut off_curve = recipient.public_key().as_bytes().to_vec();
    off_curve[40] ^= 1;
    let request = keybroker::hsm::SealRequest {
        tenant: tenant(),
        request: RequestId::generate(),
        suite: suite(),
        recipient: off_curve,
        items: Vec::new(),
    };
    let refused = hsm.seal(request.clone()).await;
    assert!(
        matches!(&refused, Err(HsmError::Refused(text)) if text.contains("not on the curve")),
        "{refused:?}"
    );
    let not_probed = keybroker::hsm::SealRequest {
        suite: Suite::RsaAesKeyWrap,
        recipient: recipient.public_key().as_bytes().to_vec(),
        ..request
    };
    assert!(matches!(hsm.seal(not_probed).await, Err(HsmError::Refused(_))));
    assert!(matches!(
        seal(&hsm, epoch, &key.wrapped.dek_blob[..20], &binding(), &recipient).await,
        Err(HsmError::Module { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrapped_key_opens_under_its_new_epoch_only_and_a_destroyed_epoch_is_unreadable() {
    let fixture = Fixture::new();
    let hsm = fixture.start().await;
    let (old, new) = (epoch(&hsm).await, epoch(&hsm).await);
    let keys = hsm.produce(&tenant(), old, KeyType::EcP256, 5).await.unwrap().keys;
    let blobs: Vec<_> = keys.iter().map(|key| key.wrapped.dek_blob.clone()).collect();
    let (recipient, binding) = (RecipientKey::generate().unwrap(), binding());
    // The interactive worker has both KEKs' handles in its cache before one is destroyed in another process.
    seal(&hsm, old, &blobs[0], &binding, &recipient).await.unwrap();

    let rewrapped = hsm.rewrap(&tenant(), old, new, blobs.clone()).await.unwrap();
    let kek = keybroker::hsm::ObjectId::Kek(tenant(), old);
    let still = hsm.verify_destroyed(vec![kek.clone()]).await;
    assert!(matches!(&still, Err(HsmError::StillThere(found)) if *found == [kek.clone()]), "{still:?}");
    hsm.destroy_kek(&tenant(), old).await.unwrap();
    hsm.destroy_kek(&tenant(), old).await.unwrap();
    let gone = hsm.verify_destroyed(vec![kek.clone()]).await.unwrap();
    assert_eq!(gone.objects, std::slice::from_ref(&kek));
    assert_eq!(gone.token_serial, hsm.status().token_serial);

    for (key, blob) in keys.iter().zip(&rewrapped) {
        let sealed = seal(&hsm, new, blob, &binding, &recipient).await.unwrap();
        let private = open(&recipient, &envelope(key, sealed), &binding).unwrap();
        assert!(matches_public_key(&private, &key.public_key_der));
    }
    for blob in &blobs {
        let under_old = seal(&hsm, old, blob, &binding, &recipient).await;
        assert!(matches!(&under_old, Err(HsmError::NotFound(id)) if *id == kek), "{under_old:?}");
        assert!(seal(&hsm, new, blob, &binding, &recipient).await.is_err());
    }
    assert_eq!(hsm.status().restarts, 0);
}
