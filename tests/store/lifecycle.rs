//! Termination, revocation, CRLs, expiry.

use super::fixture::{DAY, Fixture, MINUTE, audited, end, request, silent, unaudited, vnfci_id};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::credential::{CertificateState, HolderCopy, KeyState, RevocationReason};
use keybroker::nfv::{IssuerId, RequestId};
use keybroker::store::records::{
    ClaimOutcome, ClaimState, ConfirmOutcome, CrlHead, CrlRecord, CustodyEnd, InitialCredentialState,
    IssuerRecord, OcspResponder, RevokeOutcome, TerminateOutcome, TerminatedVnf, VnfciState,
};
use keybroker::store::{Mutation, StoreError};

promises![
    termination_revokes_every_unexpired_certificate_confirmed_or_not,
    termination_answers_per_item_in_order,
    a_vnf_instance_ends_whole_if_the_count_is_right,
    a_wrong_count_leaves_a_vnf_instance_untouched,
    a_termination_of_thousands_is_one_change,
    a_terminated_claim_is_not_confirmed_or_released,
    termination_leaves_the_pool_alone,
    revocation_answers_per_item_and_within_its_tenant,
    a_crl_lists_pending_and_revoked_until_they_expire,
    a_crls_number_only_grows,
    a_certificates_status_is_found_by_issuer_and_serial,
    an_issuer_has_one_ocsp_responder_the_latest,
    expired_certificates_are_marked_and_no_longer_revoked,
    what_nobody_can_publish_as_revoked_is_pending_until_it_expires,
];

fn terminated() -> CustodyEnd {
    end(DestructionReason::Terminated, HolderCopy::WipedPerMano)
}

async fn termination_revokes_every_unexpired_certificate_confirmed_or_not(f: Fixture) {
    f.fill(4).await;
    let confirmed = f.deliver("confirmed", &["s", "t"]).await;
    let initial = f.register("waiting", &["s"]).await;
    let open = f.claim(initial.id, 1).await;
    let redrawn = match f.try_claim(initial.id, 2).await {
        ClaimOutcome::Reserved { claim, .. } => claim,
        other => panic!("{other:?}"),
    };
    f.clock.advance(MINUTE);
    let items = vec![(vnfci_id("confirmed"), None), (vnfci_id("waiting"), None)];
    let outcomes = f.store.terminate_vnfcis(&f.tenant, items, terminated(), audited()).await.unwrap();
    let [TerminateOutcome::Terminated(first), TerminateOutcome::Terminated(second)] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    assert_eq!((first.keys.len(), first.revoked.len()), (2, 2));
    assert_eq!((second.keys.len(), second.revoked.len()), (1, 1), "what was redrawn had ended before");
    assert_eq!(f.store.pending_revocations(f.issuer).await.unwrap(), 4);

    let custody = async |claim: &keybroker::store::records::ClaimRecord| {
        f.store.custody(Some(&f.tenant), claim.credentials[0].credential.id).await.unwrap()
    };
    let delivered = custody(&confirmed).await;
    assert_eq!((delivered.key_state, delivered.ended), (KeyState::Delivered, Some((terminated(), f.now()))));
    let unconfirmed = custody(&redrawn).await;
    assert_eq!((unconfirmed.key_state, unconfirmed.erased_at), (KeyState::Destroyed, Some(f.now())));
    assert_eq!(custody(&open).await.ended.unwrap().0.reason, DestructionReason::NewRecipient);
    assert_eq!(f.store.claim(redrawn.id).await.unwrap().unwrap().state, ClaimState::Destroyed);
    let vnfci = f.store.vnfci(&f.tenant, &vnfci_id("waiting")).await.unwrap();
    assert_eq!(vnfci.state, VnfciState::Terminated);
    assert_eq!(vnfci.initial_credential.state, InitialCredentialState::Void);
    let epoch = f.store.epochs(None, keybroker::credential::EpochState::ALL).await.unwrap().remove(0);
    assert_eq!(epoch.live, 0);
}

async fn termination_answers_per_item_in_order(f: Fixture) {
    f.register("a", &["s"]).await;
    f.register("b", &["s"]).await;
    let items = vec![
        (vnfci_id("ghost"), None),
        (vnfci_id("a"), Some("vnf-1".parse().unwrap())),
        (vnfci_id("b"), Some("vnf-2".parse().unwrap())),
        (vnfci_id("a"), None),
    ];
    let outcomes = f.store.terminate_vnfcis(&f.tenant, items, terminated(), audited()).await.unwrap();
    assert_eq!(outcomes[0], TerminateOutcome::NotFound);
    assert!(matches!(&outcomes[1], TerminateOutcome::Terminated(keys) if keys.keys.is_empty()));
    assert_eq!(outcomes[2], TerminateOutcome::NotFound, "of another VNF instance");
    assert_eq!(outcomes[3], TerminateOutcome::AlreadyTerminated, "named twice, ended once");
    assert_eq!(f.store.vnfci(&f.tenant, &vnfci_id("b")).await.unwrap().state, VnfciState::Registered);
    let other = f.add_tenant("other").await;
    let items = vec![(vnfci_id("b"), None)];
    let outcomes = f.store.terminate_vnfcis(&other, items, terminated(), silent()).await.unwrap();
    assert_eq!(outcomes, [TerminateOutcome::NotFound]);
}

async fn a_vnf_instance_ends_whole_if_the_count_is_right(f: Fixture) {
    f.fill(4).await;
    let active = f.deliver("active", &["s", "t"]).await;
    f.register("registered", &["s"]).await;
    f.register("ended", &["s"]).await;
    let items = vec![(vnfci_id("ended"), None)];
    f.store.terminate_vnfcis(&f.tenant, items, terminated(), silent()).await.unwrap();
    let id = RequestId::generate();
    let ask = || {
        let events = |outcome: &TerminatedVnf| {
            assert_eq!(outcome.ended.len(), 2, "a repetition makes no events");
            Vec::new()
        };
        let mutation = Mutation::new(events).request(request("nfvo:default/n", id, "terminate"));
        f.store.terminate_vnf(&f.tenant, &f.pool.vnf_instance, 2, terminated(), mutation)
    };
    let first = ask().await.unwrap();
    assert_eq!((first.vnfcis, first.certificates), (2, 2));
    let (ended, keys) = &first.ended[0];
    assert_eq!((ended, keys.keys.len()), (&active.vnfci, 2));
    let again = ask().await.unwrap();
    assert_eq!((again.vnfcis, again.certificates), (2, 2));
    for id in ["active", "registered"] {
        let vnfci = f.store.vnfci(&f.tenant, &vnfci_id(id)).await.unwrap();
        assert_eq!(vnfci.state, VnfciState::Terminated);
    }
}

async fn a_wrong_count_leaves_a_vnf_instance_untouched(f: Fixture) {
    f.fill(1).await;
    f.deliver("a", &["s"]).await;
    f.register("b", &["s"]).await;
    let other = f.add_tenant("other").await;
    for (tenant, expected, live) in [(&f.tenant, 1, 2), (&f.tenant, 3, 2), (&other, 2, 0)] {
        let error = f
            .store
            .terminate_vnf(tenant, &f.pool.vnf_instance, expected, terminated(), unaudited())
            .await
            .unwrap_err();
        let StoreError::Conflict(text) = error else { panic!("{error}") };
        let numbers = format!("{live} live VNFCIs, {expected} were expected");
        assert!(text.contains(&numbers), "{text}");
    }
    assert_eq!(f.store.vnfci(&f.tenant, &vnfci_id("a")).await.unwrap().state, VnfciState::Active);
    assert_eq!(f.store.vnfci(&f.tenant, &vnfci_id("b")).await.unwrap().state, VnfciState::Registered);
    assert_eq!(f.store.pending_revocations(f.issuer).await.unwrap(), 0);
}

async fn a_termination_of_thousands_is_one_change(f: Fixture) {
    f.fill(1).await;
    let drawn = f.deliver("v-0000", &["s"]).await;
    f.register_all((1..2_001).map(|n| f.vnfci(&format!("v-{n:04}"), &["s"])).collect()).await;
    let ids: Vec<_> = (0..2_002).map(|n| vnfci_id(&format!("v-{n:04}"))).collect();
    let known = f.store.vnf_instances(&f.tenant, &ids).await.unwrap();
    assert_eq!(known.len(), 2_001, "one does not exist");
    let outcome = f.store.terminate_vnf(&f.tenant, &f.pool.vnf_instance, 2_001, terminated(), audited());
    let outcome = outcome.await.unwrap();
    assert_eq!((outcome.vnfcis, outcome.certificates), (2_001, 1));
    assert_eq!(outcome.ended[0].1.keys, [drawn.credentials[0].credential.clone()]);
    assert_eq!(f.events().await, 1);
}

async fn a_terminated_claim_is_not_confirmed_or_released(f: Fixture) {
    f.fill(2).await;
    let initial = f.register("open", &["s"]).await;
    let open = f.claim(initial.id, 1).await;
    let confirmed = f.deliver("confirmed", &["s"]).await;
    let items = vec![(vnfci_id("open"), None), (vnfci_id("confirmed"), None)];
    f.store.terminate_vnfcis(&f.tenant, items, terminated(), silent()).await.unwrap();
    assert_eq!(f.confirm(open.id).await, ConfirmOutcome::TooLate);
    assert_eq!(f.confirm(confirmed.id).await, ConfirmOutcome::AlreadyConfirmed);
    let released = end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    let outcome = f.store.release_claim(confirmed.id, released, silent()).await.unwrap();
    assert!(outcome.keys.is_empty() && outcome.revoked.is_empty(), "all that had ended before");
    let vnfci = f.store.vnfci(&f.tenant, &vnfci_id("confirmed")).await.unwrap();
    assert_eq!(vnfci.state, VnfciState::Terminated, "terminated is final");
    let custody = f.store.custody(Some(&f.tenant), confirmed.credentials[0].credential.id).await.unwrap();
    assert_eq!(custody.ended.unwrap().0, terminated());
}

async fn termination_leaves_the_pool_alone(f: Fixture) {
    f.fill(3).await;
    f.register("a", &["s"]).await;
    let items = vec![(vnfci_id("a"), None)];
    f.store.terminate_vnfcis(&f.tenant, items, terminated(), silent()).await.unwrap();
    assert_eq!(f.store.pool_levels(f.pool.id).await.unwrap().available, 3);
}

async fn revocation_answers_per_item_and_within_its_tenant(f: Fixture) {
    let ids = f.fill(2).await;
    let claim = f.deliver("a", &["s"]).await;
    let named = |n: usize| (f.issuer, ids[n].0.as_bytes().to_vec());
    let revoke = async |tenant, certificates, mutation| {
        let reason = RevocationReason::KeyCompromise;
        f.store.revoke_certificates(tenant, certificates, reason, mutation).await.unwrap()
    };
    let other = f.add_tenant("other").await;
    assert_eq!(revoke(&other, vec![named(0)], silent()).await, [RevokeOutcome::NotFound]);
    let ghost = (IssuerId::generate(), ids[0].0.as_bytes().to_vec());
    let outcomes = revoke(&f.tenant, vec![ghost, named(0), named(0)], audited()).await;
    let pending = RevokeOutcome::Pending(claim.credentials[0].credential.clone());
    assert_eq!(outcomes, [RevokeOutcome::NotFound, pending, RevokeOutcome::AlreadyRevoked]);
    assert_eq!(f.store.pending_revocations(f.issuer).await.unwrap(), 1);
    let entry = f.store.crl_entries(f.issuer, f.now()).await.unwrap().remove(0);
    assert_eq!((entry.revoked_at, entry.reason), (f.now(), RevocationReason::KeyCompromise));
    f.clock.advance(7 * DAY);
    assert_eq!(revoke(&f.tenant, vec![named(1)], silent()).await, [RevokeOutcome::Expired]);
}

fn crl(f: &Fixture, shard: u32, number: u64) -> CrlRecord {
    let (this_update, next_update) = (f.now(), f.now().plus(DAY));
    let head = CrlHead { shard, number, entries: number, this_update, next_update };
    CrlRecord { head, der: number.to_be_bytes().to_vec() }
}

async fn a_crl_lists_pending_and_revoked_until_they_expire(f: Fixture) {
    f.fill(2).await;
    let first = f.deliver("a", &["s"]).await;
    f.clock.advance(MINUTE);
    let second = f.deliver("b", &["s"]).await;
    let serial = |claim: &keybroker::store::records::ClaimRecord| {
        claim.credentials[0].credential.id.0.as_bytes().to_vec()
    };
    let items = vec![(vnfci_id("a"), None)];
    f.store.terminate_vnfcis(&f.tenant, items, terminated(), silent()).await.unwrap();
    // The second is signed into the list without being withdrawn: recording marks pending ones only.
    let listed = vec![serial(&first), serial(&second)];
    assert_eq!(f.store.record_crls(f.issuer, vec![crl(&f, 0, 1)], listed, audited()).await.unwrap(), 1);
    assert_eq!(f.store.pending_revocations(f.issuer).await.unwrap(), 0);
    assert_eq!(f.listed_serials().await, [hex::encode(serial(&first))], "revoked ones stay listed");
    let items = vec![(vnfci_id("b"), None)];
    f.store.terminate_vnfcis(&f.tenant, items, terminated(), silent()).await.unwrap();
    assert_eq!(f.listed_serials().await, [hex::encode(serial(&first)), hex::encode(serial(&second))]);
    f.clock.advance(7 * DAY);
    // What no list has had yet is listed once although it has expired.
    assert_eq!(f.listed_serials().await, [hex::encode(serial(&second))]);
    f.store.record_crls(f.issuer, vec![crl(&f, 0, 2)], vec![serial(&second)], silent()).await.unwrap();
    assert!(f.listed_serials().await.is_empty());
}

async fn a_crls_number_only_grows(f: Fixture) {
    assert_eq!(f.store.latest_crl(f.issuer, 0).await.unwrap(), None);
    let record = async |crls: Vec<CrlRecord>, mutation| {
        f.store.record_crls(f.issuer, crls, Vec::new(), mutation).await
    };
    record(vec![crl(&f, 0, 7), crl(&f, 3, 7)], silent()).await.unwrap();
    for number in [7, 6] {
        // All or none: the shard's would have been accepted.
        let error = record(vec![crl(&f, 3, 8), crl(&f, 0, number)], unaudited()).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    }
    assert_eq!(f.store.latest_crl(f.issuer, 0).await.unwrap(), Some(crl(&f, 0, 7)));
    record(vec![crl(&f, 0, 9)], silent()).await.unwrap();
    let heads = f.store.crl_heads(f.issuer).await.unwrap();
    assert_eq!(heads, [crl(&f, 0, 9).head, crl(&f, 3, 7).head]);
    let foreign = IssuerId::generate();
    let error = f.store.record_crls(foreign, vec![crl(&f, 0, 1)], Vec::new(), unaudited()).await.unwrap_err();
    assert!(matches!(&error, StoreError::NotFound(text) if text.starts_with("issuer")), "{error}");
}

async fn a_certificates_status_is_found_by_issuer_and_serial(f: Fixture) {
    f.fill(1).await;
    let claim = f.deliver("a", &["s"]).await;
    let serial = claim.credentials[0].credential.id.0.as_bytes().to_vec();
    let status = f.store.certificate_status(f.issuer, &serial).await.unwrap().unwrap();
    assert_eq!((status.state, status.revoked), (CertificateState::Valid, None));
    let items = vec![(f.issuer, serial.clone())];
    let reason = RevocationReason::KeyCompromise;
    f.store.revoke_certificates(&f.tenant, items, reason, silent()).await.unwrap();
    let status = f.store.certificate_status(f.issuer, &serial).await.unwrap().unwrap();
    assert_eq!(status.state, CertificateState::RevocationPending, "known before any CRL is signed");
    assert_eq!(status.revoked, Some((f.now(), reason)));
    assert_eq!(f.store.certificate_status(f.issuer, b"never issued").await.unwrap(), None);
    assert_eq!(f.store.certificate_status(IssuerId::generate(), &serial).await.unwrap(), None);
}

async fn an_issuer_has_one_ocsp_responder_the_latest(f: Fixture) {
    let responder = |certificate: &[u8]| OcspResponder {
        issuer: f.issuer,
        key: "keybroker:ocsp:t:1".to_owned(),
        certificate_der: certificate.to_vec(),
        created_at: f.now(),
    };
    f.store.record_ocsp_responder(responder(b"first"), audited()).await.unwrap();
    f.store.record_ocsp_responder(responder(b"second"), audited()).await.unwrap();
    assert_eq!(f.store.ocsp_responders().await.unwrap(), [responder(b"second")]);
}

async fn expired_certificates_are_marked_and_no_longer_revoked(f: Fixture) {
    f.fill(3).await;
    let claim = f.deliver("a", &["s", "t", "u"]).await;
    assert_eq!(f.store.expire_certificates(f.now(), 10).await.unwrap(), 0);
    f.clock.advance(7 * DAY);
    assert_eq!(f.store.expire_certificates(f.now(), 2).await.unwrap(), 2);
    assert_eq!(f.store.expire_certificates(f.now(), 2).await.unwrap(), 1);
    let custody = f.store.custody(Some(&f.tenant), claim.credentials[0].credential.id).await.unwrap();
    assert_eq!(custody.certificate_state, Some(CertificateState::Expired));
    let items = vec![(vnfci_id("a"), None)];
    let outcomes = f.store.terminate_vnfcis(&f.tenant, items, terminated(), silent()).await.unwrap();
    let TerminateOutcome::Terminated(keys) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!((keys.keys.len(), keys.revoked.len()), (3, 0));
}

async fn what_nobody_can_publish_as_revoked_is_pending_until_it_expires(f: Fixture) {
    let outside = IssuerId::generate();
    let record = IssuerRecord {
        id: outside,
        tenant: Some(f.tenant.clone()),
        name: "operator-pki".parse().unwrap(),
        external: Some("operator-pki".parse().unwrap()),
        generation: 1,
        key: String::new(),
        certificate_der: vec![0x30, 3],
        chain_der: Vec::new(),
        created_at: f.now(),
    };
    f.store.add_issuer(record, silent()).await.unwrap();
    let mut produced = f.produce(2);
    for (credential, issuer) in produced.iter_mut().zip([f.issuer, outside]) {
        credential.certificate.as_mut().unwrap().issuer = issuer;
    }
    let [ours, theirs] = [0, 1].map(|n| produced[n].id);
    f.store.insert_credentials(produced, silent()).await.unwrap();
    f.deliver("a", &["s", "t"]).await;
    let items = vec![(vnfci_id("a"), None)];
    f.store.terminate_vnfcis(&f.tenant, items, terminated(), silent()).await.unwrap();
    let state = async |credential| {
        f.store.custody(Some(&f.tenant), credential).await.unwrap().certificate_state.unwrap()
    };
    assert_eq!(f.store.expire_certificates(f.now(), 10).await.unwrap(), 0);
    assert_eq!(state(theirs).await, CertificateState::RevocationPending);
    f.clock.advance(7 * DAY);
    assert_eq!(f.store.expire_certificates(f.now(), 10).await.unwrap(), 1);
    assert_eq!(state(theirs).await, CertificateState::Expired);
    // Our own CA's is on a list first, however late.
    assert_eq!(state(ours).await, CertificateState::RevocationPending);
    assert_eq!(f.store.crl_entries(f.issuer, f.now()).await.unwrap().len(), 1);
}
