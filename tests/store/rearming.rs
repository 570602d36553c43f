//! New initial credentials for VNFCIs that lost what they had.

use super::fixture::{DAY, Fixture, audited, end, request, silent, unaudited, vnfci_id};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::{CertificateState, HolderCopy, KeyState};
use keybroker::identity::CertificateName;
use keybroker::nfv::{InitialCredentialId, RequestId, Sha256Hash, VnfciId};
use keybroker::store::Mutation;
use keybroker::store::records::{
    ClaimOutcome, ClaimRefusal, ClaimState, ConfirmOutcome, CustodyEnd, InitialCredential,
    InitialCredentialKind, InitialCredentialState, Quotas, RearmOutcome, Rearming, VnfciState,
};

promises![
    what_was_delivered_is_withdrawn_once_the_new_arming_is_confirmed,
    the_old_initial_credential_and_its_open_claim_are_void,
    a_released_vnfci_is_registered_again_and_a_terminated_one_is_refused,
    an_old_claims_release_does_not_end_a_rearmed_vnfci,
    a_certificate_arms_once_and_a_name_again_for_its_own_vnfci,
    refused_rearmings_leave_the_others_untouched,
    a_repeated_rearming_gives_the_same_initial_credentials,
    a_power_cut_of_a_thousand_is_one_rearming,
];

fn rearmed() -> CustodyEnd {
    end(DestructionReason::Rearmed, HolderCopy::Unknown)
}

fn rearming(f: &Fixture, id: &str) -> Rearming {
    Rearming {
        id: vnfci_id(id),
        vnf_instance: f.pool.vnf_instance.clone(),
        initial_credential: InitialCredentialId::generate(),
        kind: InitialCredentialKind::Token,
        expires_at: f.now().plus(DAY),
    }
}

fn pinned(f: &Fixture, id: &str, leaf: &[u8]) -> Rearming {
    let (anchor, fingerprint) = ("oem".parse().unwrap(), Sha256Hash::of(leaf));
    Rearming { kind: InitialCredentialKind::X509Fingerprint { anchor, fingerprint }, ..rearming(f, id) }
}

fn named(f: &Fixture, id: &str, name: &str) -> Rearming {
    let (anchor, name) = ("oem".parse().unwrap(), CertificateName::dns(name));
    Rearming { kind: InitialCredentialKind::X509Name { anchor, name }, ..rearming(f, id) }
}

async fn rearm(f: &Fixture, items: Vec<Rearming>) -> Vec<RearmOutcome> {
    f.store.rearm_vnfcis(&f.tenant, items, &Quotas::default(), rearmed(), audited()).await.unwrap()
}

/// Re-arms one VNFCI with a token.
async fn rearm_one(f: &Fixture, id: &VnfciId) -> InitialCredential {
    match rearm(f, vec![rearming(f, id.as_str())]).await.remove(0) {
        RearmOutcome::Rearmed { credential, .. } => credential,
        RearmOutcome::Refused(why) => panic!("{id} was refused: {why}"),
    }
}

fn refusal(outcome: &RearmOutcome) -> &str {
    match outcome {
        RearmOutcome::Refused(why) => why,
        RearmOutcome::Rearmed { credential, .. } => panic!("{} was re-armed", credential.vnfci),
    }
}

async fn what_was_delivered_is_withdrawn_once_the_new_arming_is_confirmed(f: Fixture) {
    f.fill(6).await;
    let before = f.deliver("a", &["s", "t"]).await;
    let armed = rearm_one(&f, &before.vnfci).await;
    assert_eq!((armed.generation, armed.state), (2, InitialCredentialState::Open));
    let vnfci = f.store.vnfci(&f.tenant, &before.vnfci).await.unwrap();
    assert_eq!((vnfci.state, vnfci.redraws), (VnfciState::Active, 0), "it goes on working meanwhile");
    assert_eq!(vnfci.initial_credential, armed);
    let claim = f.claim(armed.id, 2).await;
    assert_eq!(f.store.pending_revocations(f.issuer).await.unwrap(), 0, "nothing is withdrawn before");

    let ConfirmOutcome::Confirmed { superseded, .. } = f.confirm(claim.id).await else {
        panic!("not confirmed");
    };
    let old: Vec<_> = before.credentials.iter().map(|c| c.credential.clone()).collect();
    assert_eq!((&superseded.keys, superseded.revoked.len()), (&old, 2));
    assert_eq!(f.store.pending_revocations(f.issuer).await.unwrap(), 2);
    let custody = f.store.custody(Some(&f.tenant), old[0].id).await.unwrap();
    assert_eq!(custody.key_state, KeyState::Delivered);
    assert_eq!(custody.certificate_state, Some(CertificateState::RevocationPending));
    let (ended, _) = custody.ended.unwrap();
    assert_eq!((ended.reason, ended.holder_copy), (DestructionReason::Superseded, HolderCopy::Unknown));
    assert_eq!(f.store.claim(before.id).await.unwrap().unwrap().state, ClaimState::Superseded);
    let fresh = f.store.custody(Some(&f.tenant), claim.credentials[0].credential.id).await.unwrap();
    assert_eq!((fresh.ended, fresh.certificate_state), (None, Some(CertificateState::Valid)));
    assert_eq!(f.confirm(before.id).await, ConfirmOutcome::TooLate);
}

async fn the_old_initial_credential_and_its_open_claim_are_void(f: Fixture) {
    f.fill(3).await;
    let old = f.register("a", &["s"]).await;
    let open = f.claim(old.id, 1).await;
    let outcomes = rearm(&f, vec![rearming(&f, "a")]).await;
    let RearmOutcome::Rearmed { credential, destroyed } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(destroyed.keys, [open.credentials[0].credential.clone()]);
    assert_eq!(destroyed.revoked.len(), 1);
    assert_eq!(f.try_claim(old.id, 1).await, ClaimOutcome::Refused(ClaimRefusal::Void));
    assert_eq!(f.confirm(open.id).await, ConfirmOutcome::TooLate);
    let custody = f.store.custody(Some(&f.tenant), open.credentials[0].credential.id).await.unwrap();
    assert_eq!((custody.key_state, custody.ended.unwrap().0), (KeyState::Destroyed, rearmed()));
    let claim = f.claim(credential.id, 1).await;
    assert_ne!(claim.credentials[0].credential, open.credentials[0].credential);
    // Re-armed again before it claimed anything more: only the latest one is good.
    let third = rearm_one(&f, &vnfci_id("a")).await;
    assert_eq!(third.generation, 3);
    assert_eq!(f.try_claim(credential.id, 1).await, ClaimOutcome::Refused(ClaimRefusal::Void));
}

async fn a_released_vnfci_is_registered_again_and_a_terminated_one_is_refused(f: Fixture) {
    f.fill(2).await;
    let released = f.deliver("released", &["s"]).await;
    let end_of_release = end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    f.store.release_claim(released.id, end_of_release, silent()).await.unwrap();
    let armed = rearm_one(&f, &released.vnfci).await;
    let state = async || f.store.vnfci(&f.tenant, &released.vnfci).await.unwrap().state;
    assert_eq!(state().await, VnfciState::Registered);
    let claim = f.claim(armed.id, 2).await;
    let ConfirmOutcome::Confirmed { superseded, .. } = f.confirm(claim.id).await else { panic!("too late") };
    assert!(superseded.keys.is_empty(), "what was given back had ended before");
    assert_eq!(state().await, VnfciState::Active);

    let terminated = end(DestructionReason::Terminated, HolderCopy::Unknown);
    let items = vec![(released.vnfci.clone(), None)];
    f.store.terminate_vnfcis(&f.tenant, items, terminated, silent()).await.unwrap();
    let outcomes = rearm(&f, vec![rearming(&f, "released")]).await;
    assert!(refusal(&outcomes[0]).contains("was terminated"));
}

async fn an_old_claims_release_does_not_end_a_rearmed_vnfci(f: Fixture) {
    f.fill(2).await;
    let before = f.deliver("a", &["s"]).await;
    let armed = rearm_one(&f, &before.vnfci).await;
    let released = end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    f.store.release_claim(before.id, released, silent()).await.unwrap();
    assert_eq!(f.store.vnfci(&f.tenant, &before.vnfci).await.unwrap().state, VnfciState::Active);
    f.claim(armed.id, 2).await;
}

async fn a_certificate_arms_once_and_a_name_again_for_its_own_vnfci(f: Fixture) {
    f.store.add_anchor(f.anchor(&f.tenant, "oem", b"ca", b"key"), silent()).await.unwrap();
    for id in ["a", "b"] {
        f.register(id, &["s"]).await;
    }
    let first = vec![pinned(&f, "a", b"leaf-1"), named(&f, "b", "amf-1.example")];
    assert!(rearm(&f, first).await.iter().all(|o| matches!(o, RearmOutcome::Rearmed { .. })));
    let again = vec![pinned(&f, "a", b"leaf-1"), named(&f, "b", "AMF-1.example")];
    let outcomes = rearm(&f, again).await;
    assert!(refusal(&outcomes[0]).contains("was an initial credential before"));
    assert!(matches!(outcomes[1], RearmOutcome::Rearmed { .. }), "for a renewed certificate");
    let swapped = vec![pinned(&f, "b", b"leaf-1"), named(&f, "a", "amf-1.example")];
    let outcomes = rearm(&f, swapped).await;
    assert!(refusal(&outcomes[0]).contains("was an initial credential before"));
    assert!(refusal(&outcomes[1]).contains("another VNFCI"));
    // Withdrawn by a token meanwhile, the certificate is still not new.
    rearm_one(&f, &vnfci_id("a")).await;
    let outcomes = rearm(&f, vec![pinned(&f, "a", b"leaf-1")]).await;
    assert!(refusal(&outcomes[0]).contains("was an initial credential before"));
}

async fn refused_rearmings_leave_the_others_untouched(f: Fixture) {
    f.fill(1).await;
    f.register("a", &["s"]).await;
    f.register("b", &["s"]).await;
    let elsewhere = Rearming { vnf_instance: "vnf-2".parse().unwrap(), ..rearming(&f, "b") };
    let items = vec![
        rearming(&f, "ghost"),
        rearming(&f, "a"),
        elsewhere,
        rearming(&f, "a"),
        pinned(&f, "b", b"leaf"),
    ];
    let outcomes = rearm(&f, items).await;
    for (place, why) in
        [(0, "ghost does not exist"), (2, "b does not exist"), (3, "named twice"), (4, "anchor oem")]
    {
        let text = refusal(&outcomes[place]);
        assert!(text.contains(why), "{text:?} does not say {why:?}");
    }
    let RearmOutcome::Rearmed { credential, .. } = &outcomes[1] else { panic!("{outcomes:?}") };
    f.claim(credential.id, 1).await;
    let untouched = f.store.vnfci(&f.tenant, &vnfci_id("b")).await.unwrap().initial_credential;
    assert_eq!((untouched.generation, untouched.state), (1, InitialCredentialState::Open));
    let other = f.add_tenant("other").await;
    let foreign = f
        .store
        .rearm_vnfcis(&other, vec![rearming(&f, "b")], &Quotas::default(), rearmed(), silent())
        .await
        .unwrap();
    assert!(refusal(&foreign[0]).contains("does not exist"));
}

async fn a_repeated_rearming_gives_the_same_initial_credentials(f: Fixture) {
    f.register("a", &["s"]).await;
    let id = RequestId::generate();
    let ask = async |mutation: Mutation<Vec<RearmOutcome>>| {
        let mutation = mutation.request(request("nfvo:default/n", id, "rearm"));
        let items = vec![rearming(&f, "a")];
        f.store.rearm_vnfcis(&f.tenant, items, &Quotas::default(), rearmed(), mutation).await
    };
    let first = ask(audited()).await.unwrap();
    assert_eq!(ask(unaudited()).await.unwrap(), first);
}

async fn a_power_cut_of_a_thousand_is_one_rearming(f: Fixture) {
    let ids: Vec<String> = (0..1_000).map(|n| format!("v-{n:04}")).collect();
    f.register_all(ids.iter().map(|id| f.vnfci(id, &["s"])).collect()).await;
    let outcomes = rearm(&f, ids.iter().map(|id| rearming(&f, id)).collect()).await;
    assert_eq!(outcomes.len(), 1_000);
    assert!(outcomes.iter().all(|outcome| {
        matches!(outcome, RearmOutcome::Rearmed { credential, .. } if credential.generation == 2)
    }));
    assert_eq!(f.events().await, 1);
}
