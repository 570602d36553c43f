//! Registration and look-up of VNFCIs and their initial credentials.

use super::fixture::{Fixture, audited, end, page, pool_named, silent, unaudited, vnfci_id};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::clock::Clock;
use keybroker::credential::HolderCopy;
use keybroker::identity::CertificateName;
use keybroker::nfv::{InitialCredentialId, Sha256Hash};
use keybroker::store::StoreError;
use keybroker::store::records::{
    InitialCredentialKind, InitialCredentialState, NewVnfci, Page, Quotas, RegisterOutcome, Slot,
    VnfciFilter, VnfciState,
};
use std::time::Duration;

promises![
    a_registered_vnfci_is_read_back,
    refused_items_leave_the_others_untouched,
    one_certificate_stands_for_one_vnfci,
    a_name_is_free_again_once_its_vnfci_ended,
    x509_initial_credentials_are_found_by_certificate_or_name,
    a_vnfci_lists_what_it_was_ever_drawn_newest_first,
    vnfcis_are_listed_by_page_and_filter,
    a_large_scale_out_is_one_registration,
];

fn refusal(outcome: &RegisterOutcome) -> &str {
    match outcome {
        RegisterOutcome::Refused(why) => why,
        RegisterOutcome::Registered(credential) => panic!("{} was registered", credential.vnfci),
    }
}

fn pinned(mut vnfci: NewVnfci, leaf: &[u8]) -> NewVnfci {
    let anchor = "oem".parse().unwrap();
    vnfci.kind = InitialCredentialKind::X509Fingerprint { anchor, fingerprint: Sha256Hash::of(leaf) };
    vnfci
}

fn named(mut vnfci: NewVnfci, name: &str) -> NewVnfci {
    let anchor = "oem".parse().unwrap();
    vnfci.kind = InitialCredentialKind::X509Name { anchor, name: CertificateName::dns(name) };
    vnfci
}

async fn add_anchor(f: &Fixture) {
    f.store.add_anchor(f.anchor(&f.tenant, "oem", b"ca", b"key"), silent()).await.unwrap();
}

async fn a_registered_vnfci_is_read_back(f: Fixture) {
    let new = f.vnfci("amf/1", &["om", "transport"]);
    let outcomes =
        f.store.register_vnfcis(&f.tenant, vec![new.clone()], &Quotas::default(), audited()).await.unwrap();
    let RegisterOutcome::Registered(credential) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!((credential.id, credential.generation), (new.initial_credential, 1));
    assert_eq!((credential.state, credential.expires_at), (InitialCredentialState::Open, new.expires_at));
    let read = f.store.vnfci(&f.tenant, &new.id).await.unwrap();
    assert_eq!((&read.id, &read.vdu, &read.vnf_instance), (&new.id, &new.vdu, &new.vnf_instance));
    assert_eq!((read.state, read.redraws, read.registered_at), (VnfciState::Registered, 0, f.now()));
    assert_eq!((&read.slots, &read.initial_credential), (&new.slots, credential));
    assert!(read.credentials.is_empty());
    assert_eq!(f.store.initial_credential(credential.id).await.unwrap().as_ref(), Some(credential));
    assert_eq!(f.store.initial_credential(InitialCredentialId::generate()).await.unwrap(), None);
    assert_eq!(f.events().await, 1);
    let nowhere =
        f.store.register_vnfcis(&"no".parse().unwrap(), vec![new], &Quotas::default(), unaudited()).await;
    assert_eq!(nowhere, Err(StoreError::NotFound("tenant no".into())));
}

async fn refused_items_leave_the_others_untouched(f: Fixture) {
    add_anchor(&f).await;
    f.store
        .create_pool(pool_named(&f.tenant, "foreign", "vnf-2", f.now()), &Quotas::default(), silent())
        .await
        .unwrap();
    f.register("there", &["s"]).await;
    let with_pool = |id: &str, pool: &str| {
        let mut vnfci = f.vnfci(id, &["s"]);
        vnfci.slots[0].pool = pool.parse().unwrap();
        vnfci
    };
    let mut twice_named = f.vnfci("slots", &["s"]);
    twice_named.slots.push(Slot { name: "s".parse().unwrap(), pool: f.pool.name.clone() });
    let mut no_anchor = pinned(f.vnfci("anchor", &["s"]), b"leaf");
    no_anchor.kind = InitialCredentialKind::X509Fingerprint {
        anchor: "ghost".parse().unwrap(),
        fingerprint: Sha256Hash::of(b"leaf"),
    };
    let items = vec![
        f.vnfci("good-1", &["s"]),
        f.vnfci("there", &["s"]),
        with_pool("pool", "ghost"),
        with_pool("vnf", "foreign"),
        no_anchor,
        f.vnfci("empty", &[]),
        twice_named,
        f.vnfci("good-1", &["s"]),
        f.vnfci("good-2", &["s"]),
    ];
    let outcomes = f.register_all(items).await;
    for (place, why) in [
        (1, "VNFCI there exists already"),
        (2, "pool ghost of slot s does not exist"),
        (3, "pool foreign belongs to VNF instance vnf-2"),
        (4, "anchor ghost does not exist"),
        (5, "no slot"),
        (6, "slot s is named twice"),
        (7, "VNFCI good-1 exists already"),
    ] {
        let text = refusal(&outcomes[place]);
        assert!(text.contains(why), "{text:?} does not say {why:?}");
    }
    for id in ["good-1", "good-2"] {
        f.store.vnfci(&f.tenant, &vnfci_id(id)).await.unwrap();
    }
    assert_eq!(f.store.vnfcis(&VnfciFilter::default(), &page(100)).await.unwrap().len(), 3);
}

async fn one_certificate_stands_for_one_vnfci(f: Fixture) {
    add_anchor(&f).await;
    let first = vec![
        pinned(f.vnfci("a", &["s"]), b"leaf"),
        pinned(f.vnfci("b", &["s"]), b"leaf"),
        named(f.vnfci("c", &["s"]), "amf-1.example"),
        named(f.vnfci("d", &["s"]), "AMF-1.example"),
    ];
    let outcomes = f.register_all(first).await;
    assert!(refusal(&outcomes[1]).contains("VNFCI a"), "within a batch");
    assert!(refusal(&outcomes[3]).contains("VNFCI c"), "names of hosts ignore case");
    let second = vec![pinned(f.vnfci("e", &["s"]), b"leaf"), named(f.vnfci("g", &["s"]), "amf-1.example")];
    let outcomes = f.register_all(second).await;
    assert!(refusal(&outcomes[0]).contains("VNFCI a") && refusal(&outcomes[1]).contains("VNFCI c"));

    // Once used, a certificate stays used, even when its VNFCI has ended.
    f.fill(1).await;
    let VnfciState::Registered = f.store.vnfci(&f.tenant, &vnfci_id("a")).await.unwrap().state else {
        panic!("not registered");
    };
    let initial = f.store.vnfci(&f.tenant, &vnfci_id("a")).await.unwrap().initial_credential;
    let claim = f.claim(initial.id, 1).await;
    f.confirm(claim.id).await;
    let ended = end(DestructionReason::Terminated, HolderCopy::Unknown);
    f.store.terminate_vnfcis(&f.tenant, vec![(vnfci_id("a"), None)], ended, silent()).await.unwrap();
    let outcomes = f.register_all(vec![pinned(f.vnfci("h", &["s"]), b"leaf")]).await;
    assert!(refusal(&outcomes[0]).contains("VNFCI a"));
}

async fn a_name_is_free_again_once_its_vnfci_ended(f: Fixture) {
    add_anchor(&f).await;
    f.register_all(vec![named(f.vnfci("a", &["s"]), "amf-1.example")]).await;
    let ended = end(DestructionReason::Terminated, HolderCopy::Unknown);
    f.store.terminate_vnfcis(&f.tenant, vec![(vnfci_id("a"), None)], ended, silent()).await.unwrap();
    let outcomes = f.register_all(vec![named(f.vnfci("b", &["s"]), "amf-1.example")]).await;
    assert!(matches!(outcomes[0], RegisterOutcome::Registered(_)), "{outcomes:?}");
}

async fn x509_initial_credentials_are_found_by_certificate_or_name(f: Fixture) {
    add_anchor(&f).await;
    f.register_all(vec![named(f.vnfci("old", &["s"]), "amf-1.example")]).await;
    let ended = end(DestructionReason::Terminated, HolderCopy::Unknown);
    f.store.terminate_vnfcis(&f.tenant, vec![(vnfci_id("old"), None)], ended, silent()).await.unwrap();
    f.clock.advance(Duration::from_secs(1));
    f.register_all(vec![named(f.vnfci("named", &["s"]), "amf-1.example")]).await;
    f.clock.advance(Duration::from_secs(1));
    f.register_all(vec![pinned(f.vnfci("pinned", &["s"]), b"leaf"), f.vnfci("token", &["s"])]).await;
    let find = async |anchor: &str, leaf: &[u8], names: &[&str]| -> Vec<String> {
        let names: Vec<_> = names.iter().map(|name| CertificateName::dns(name).to_string()).collect();
        let anchor = anchor.parse().unwrap();
        let found = f.store.initial_credentials_x509(&f.tenant, &anchor, Sha256Hash::of(leaf), &names).await;
        found.unwrap().into_iter().map(|credential| credential.vnfci.to_string()).collect()
    };
    assert_eq!(find("oem", b"leaf", &["amf-1.example", "x"]).await, ["pinned", "named", "old"]);
    assert_eq!(find("oem", b"other leaf", &["amf-1.example"]).await, ["named", "old"]);
    assert_eq!(find("oem", b"leaf", &[]).await, ["pinned"]);
    assert!(find("other", b"leaf", &["amf-1.example"]).await.is_empty());
}

async fn a_vnfci_lists_what_it_was_ever_drawn_newest_first(f: Fixture) {
    f.fill(4).await;
    let initial = f.register("a", &["s", "t"]).await;
    let first = f.claim(initial.id, 1).await;
    f.clock.advance(Duration::from_secs(1));
    let second = f.claim(initial.id, 2).await;
    let vnfci = f.store.vnfci(&f.tenant, &initial.vnfci).await.unwrap();
    let drawn: Vec<_> = vnfci.credentials.iter().map(|c| c.credential.id).collect();
    let expected: Vec<_> =
        second.credentials.iter().chain(&first.credentials).map(|c| c.credential.id).collect();
    assert_eq!(drawn, expected);
    assert_eq!(vnfci.credentials[0].slot.as_ref().unwrap().as_str(), "s");
}

async fn vnfcis_are_listed_by_page_and_filter(f: Fixture) {
    let other = f.add_tenant("other").await;
    f.store
        .create_pool(pool_named(&other, "workers", "vnf-1", f.now()), &Quotas::default(), silent())
        .await
        .unwrap();
    f.store
        .create_pool(pool_named(&f.tenant, "second", "vnf-2", f.now()), &Quotas::default(), silent())
        .await
        .unwrap();
    f.register_all(vec![f.vnfci("b", &["s"]), f.vnfci("a/1", &["s", "t"])]).await;
    let mut of_second = f.vnfci("c", &["s"]);
    of_second.vnf_instance = "vnf-2".parse().unwrap();
    of_second.slots[0].pool = "second".parse().unwrap();
    f.register_all(vec![of_second]).await;
    f.store.register_vnfcis(&other, vec![f.vnfci("a", &["s"])], &Quotas::default(), silent()).await.unwrap();

    let list = async |filter: VnfciFilter, page: Page| f.store.vnfcis(&filter, &page).await.unwrap();
    let all = list(VnfciFilter::default(), page(10)).await;
    let keys: Vec<_> = all.iter().map(|v| format!("{}/{}", v.tenant, v.id)).collect();
    assert_eq!(keys, ["default/a/1", "default/b", "default/c", "other/a"]);
    assert_eq!(all[0].slots.len(), 2);
    assert!(all.iter().all(|v| !v.slots.is_empty() && v.credentials.is_empty()));
    let mut after = None;
    for expected in &all {
        let one = list(VnfciFilter::default(), Page { after, limit: 1 }).await;
        assert_eq!(one, std::slice::from_ref(expected));
        after = Some(format!("{}/{}", expected.tenant, expected.id));
    }
    assert!(list(VnfciFilter::default(), Page { after, limit: 1 }).await.is_empty());
    let filter =
        VnfciFilter { tenant: Some(f.tenant.clone()), vnf_instances: Some(vec!["vnf-2".parse().unwrap()]) };
    assert_eq!(list(filter, page(10)).await, all[2..3]);
    let nothing = VnfciFilter { tenant: None, vnf_instances: Some(Vec::new()) };
    assert!(list(nothing, page(10)).await.is_empty());
}

async fn a_large_scale_out_is_one_registration(f: Fixture) {
    add_anchor(&f).await;
    let item = |n: u32| pinned(f.vnfci(&format!("v-{n:04}"), &["a", "b"]), &n.to_be_bytes());
    let outcomes = f.register_all((0..1_201).map(item).collect()).await;
    assert!(outcomes.iter().all(|o| matches!(o, RegisterOutcome::Registered(_))));
    let listed = f.store.vnfcis(&VnfciFilter::default(), &page(2_000)).await.unwrap();
    assert_eq!(listed.len(), 1_201);
    assert!(listed.iter().all(|v| v.slots.len() == 2 && v.registered_at == f.clock.now()));
    let items = listed.iter().map(|v| (v.id.clone(), None)).collect();
    let ended = end(DestructionReason::Terminated, HolderCopy::Unknown);
    let outcomes = f.store.terminate_vnfcis(&f.tenant, items, ended, silent()).await.unwrap();
    assert_eq!(outcomes.len(), 1_201);
}
