//! Tenants, anchors, identities, issuers, pools.

use super::fixture::{Fixture, end, page, pool_named, silent, unaudited};
use super::promises;
use keybroker::audit::receipt::DestructionReason;
use keybroker::authorisation::Role;
use keybroker::credential::HolderCopy;
use keybroker::identity::CertificateName;
use keybroker::nfv::{IssuerId, Sha256Hash, TenantId};
use keybroker::store::records::{
    AnchorUpdate, CaKeyRequest, Identity, IdentityRenewal, InitialCredentialKind, InitialCredentialState,
    IssuerRecord, Page, PoolFilter, Quotas, RegisterOutcome, Revocation, Tenant,
};
use keybroker::store::{IDENTITY_CERTIFICATES_MAX, StoreError};
use std::time::Duration;

promises![
    a_tenants_name_is_never_reused,
    a_tenant_with_pools_or_vnfcis_stays,
    an_anchor_belongs_to_one_tenant,
    removing_an_anchor_voids_what_depends_on_it,
    crls_are_kept_with_their_anchor,
    an_identity_is_found_by_its_certificate_until_it_is_removed,
    a_renewed_identity_is_found_by_all_its_certificates_and_by_none_once_it_is_removed,
    a_name_and_a_certificate_register_one_identity,
    an_issuers_generation_is_unique_and_roots_come_first,
    a_requested_ca_key_is_kept_for_its_ca_until_that_requests_another,
    a_pools_name_is_free_again_once_it_is_deleted,
    a_pool_that_serves_a_vnfci_stays,
    pools_are_listed_by_page_and_filter,
    what_is_missing_is_named,
];

async fn a_tenants_name_is_never_reused(f: Fixture) {
    let acme = f.add_tenant("acme").await;
    let names = |tenants: Vec<Tenant>| tenants.into_iter().map(|t| t.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(f.store.tenants().await.unwrap()), ["acme", "default"]);
    f.store.remove_tenant(&acme, silent()).await.unwrap();
    assert_eq!(names(f.store.tenants().await.unwrap()), ["default"]);
    let again = Tenant { id: acme.clone(), created_at: f.now() };
    let error = f.store.add_tenant(again, unaudited()).await.unwrap_err();
    assert_eq!(error, StoreError::AlreadyExists("tenant acme".into()));
    assert_eq!(
        f.store.remove_tenant(&acme, unaudited()).await,
        Err(StoreError::NotFound("tenant acme".into()))
    );
}

async fn a_tenant_with_pools_or_vnfcis_stays(f: Fixture) {
    let conflict = |error: StoreError, of: &str| {
        assert!(matches!(&error, StoreError::Conflict(text) if text.contains(of)), "{error}");
    };
    let initial = f.register("a", &["s"]).await;
    conflict(f.store.remove_tenant(&f.tenant, unaudited()).await.unwrap_err(), "1 pools and 1 VNFCIs");
    let items = vec![(initial.vnfci, None)];
    let ended = end(DestructionReason::Terminated, HolderCopy::Unknown);
    f.store.terminate_vnfcis(&f.tenant, items, ended, silent()).await.unwrap();
    conflict(f.store.remove_tenant(&f.tenant, unaudited()).await.unwrap_err(), "1 pools and 0 VNFCIs");
    f.store.delete_pool(&f.tenant, &f.pool.name, silent()).await.unwrap();
    f.store.remove_tenant(&f.tenant, silent()).await.unwrap();
}

async fn an_anchor_belongs_to_one_tenant(f: Fixture) {
    let other = f.add_tenant("other").await;
    f.store.add_anchor(f.anchor(&f.tenant, "oem", b"ca", b"key"), silent()).await.unwrap();
    let same_name = f.store.add_anchor(f.anchor(&f.tenant, "oem", b"x", b"x"), unaudited()).await;
    assert!(matches!(same_name, Err(StoreError::AlreadyExists(_))), "{same_name:?}");
    for anchor in [
        f.anchor(&other, "oem", b"ca", b"another key"),
        f.anchor(&other, "oem", b"another ca", b"key"),
        f.anchor(&f.tenant, "again", b"another ca", b"key"),
    ] {
        let error = f.store.add_anchor(anchor, unaudited()).await.unwrap_err();
        let helpful =
            matches!(&error, StoreError::Conflict(text) if text.contains("anchor oem of tenant default"));
        assert!(helpful, "{error}");
    }
    let error = f.store.add_anchor(f.anchor(&"no".parse().unwrap(), "a", b"b", b"c"), unaudited()).await;
    assert_eq!(error, Err(StoreError::NotFound("tenant no".into())));
    f.store.add_anchor(f.anchor(&other, "oem", b"own ca", b"own key"), silent()).await.unwrap();
    assert_eq!(f.store.anchors(None).await.unwrap().len(), 2);
    let own = f.store.anchors(Some(&other)).await.unwrap();
    assert_eq!(own, [f.anchor(&other, "oem", b"own ca", b"own key")]);
}

async fn crls_are_kept_with_their_anchor(f: Fixture) {
    f.store.add_anchor(f.anchor(&f.tenant, "oem", b"ca", b"key"), silent()).await.unwrap();
    let update = |name: &str, revocation, added: &[&[u8]], removed: &[&[u8]]| AnchorUpdate {
        tenant: f.tenant.clone(),
        name: name.parse().unwrap(),
        revocation,
        issuers_der: None,
        added: added.iter().map(|der| der.to_vec()).collect(),
        removed: removed.iter().map(|der| Sha256Hash::of(der)).collect(),
    };
    let missing = f.store.update_anchor(update("no", None, &[b"crl"], &[]), unaudited()).await;
    assert_eq!(missing, Err(StoreError::NotFound("anchor no of tenant default".into())));
    f.store.update_anchor(update("oem", None, &[b"old", &b"other"[..]], &[]), silent()).await.unwrap();
    let off = Some(Revocation::Off);
    f.store.update_anchor(update("oem", off, &[b"new", &b"other"[..]], &[b"old"]), silent()).await.unwrap();
    assert_eq!(f.store.anchors(None).await.unwrap()[0].revocation, Revocation::Off);
    let listed = f.store.anchor_crls().await.unwrap();
    let mut listed: Vec<_> =
        listed.into_iter().map(|crl| (crl.anchor.to_string(), crl.fingerprint)).collect();
    let mut expected: Vec<_> =
        [&b"new"[..], b"other"].map(|der| ("oem".to_owned(), Sha256Hash::of(der))).into();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    assert_eq!(f.store.anchor_crl(Sha256Hash::of(b"new")).await.unwrap(), Some(b"new".to_vec()));
    assert_eq!(f.store.anchor_crl(Sha256Hash::of(b"old")).await.unwrap(), None);
    f.store.remove_anchor(&f.tenant, &"oem".parse().unwrap(), silent()).await.unwrap();
    assert_eq!(f.store.anchor_crls().await.unwrap(), []);
}

async fn removing_an_anchor_voids_what_depends_on_it(f: Fixture) {
    let (oem, other) = ("oem".parse().unwrap(), "other".parse().unwrap());
    f.store.add_anchor(f.anchor(&f.tenant, "oem", b"ca", b"key"), silent()).await.unwrap();
    f.store.add_anchor(f.anchor(&f.tenant, "other", b"ca2", b"key2"), silent()).await.unwrap();
    let name = CertificateName::dns("amf-1.example");
    let mut vnfcis = [f.vnfci("name", &["s"]), f.vnfci("other", &["s"]), f.vnfci("token", &["s"])];
    vnfcis[0].kind = InitialCredentialKind::X509Name { anchor: oem, name: name.clone() };
    vnfcis[1].kind =
        InitialCredentialKind::X509Fingerprint { anchor: other, fingerprint: Sha256Hash::of(b"leaf") };
    let ids: Vec<_> = vnfcis.iter().map(|v| v.initial_credential).collect();
    let outcomes = f.register_all(vnfcis.to_vec()).await;
    assert!(outcomes.iter().all(|o| matches!(o, RegisterOutcome::Registered(_))), "{outcomes:?}");
    let oem = "oem".parse().unwrap();
    f.store.remove_anchor(&f.tenant, &oem, silent()).await.unwrap();
    let mut states = Vec::new();
    for id in ids {
        states.push(f.store.initial_credential(id).await.unwrap().unwrap().state);
    }
    use InitialCredentialState::{Open, Void};
    assert_eq!(states, [Void, Open, Open]);
    let error = f.store.remove_anchor(&f.tenant, &oem, unaudited()).await.unwrap_err();
    assert_eq!(error, StoreError::NotFound("anchor oem of tenant default".into()));
}

fn identity(f: &Fixture, name: &str, certificate: &[u8]) -> Identity {
    Identity {
        name: name.parse().unwrap(),
        role: Role::Vnfm,
        tenant: Some(f.tenant.clone()),
        granted_vnfs: vec!["vnf-1".parse().unwrap(), "vnf-2".parse().unwrap()],
        certificate_der: certificate.to_vec(),
        fingerprint: Sha256Hash::of(certificate),
        created_at: f.now(),
    }
}

async fn an_identity_is_found_by_its_certificate_until_it_is_removed(f: Fixture) {
    let vnfm = identity(&f, "vnfm-1", b"certificate");
    f.store.add_identity(vnfm.clone(), silent()).await.unwrap();
    let operator = Identity { tenant: None, role: Role::Operator, ..identity(&f, "op", b"operator") };
    f.store.add_identity(operator.clone(), silent()).await.unwrap();
    assert_eq!(f.store.identities().await.unwrap(), [operator, vnfm.clone()]);
    let found = f.store.identity_by_fingerprint(vnfm.fingerprint).await.unwrap();
    assert_eq!(found, Some(vnfm.clone()));
    f.store.remove_identity(&vnfm.name, silent()).await.unwrap();
    assert_eq!(f.store.identity_by_fingerprint(vnfm.fingerprint).await.unwrap(), None);
    let error = f.store.remove_identity(&vnfm.name, unaudited()).await.unwrap_err();
    assert_eq!(error, StoreError::NotFound("identity vnfm-1".into()));
}

async fn a_renewed_identity_is_found_by_all_its_certificates_and_by_none_once_it_is_removed(f: Fixture) {
    let first = identity(&f, "ra", b"certificate 0");
    f.store.add_identity(first.clone(), silent()).await.unwrap();
    let renewal = |number: u32| IdentityRenewal {
        name: "ra".parse().unwrap(),
        follows: Sha256Hash::of(format!("certificate {number}").as_bytes()),
        followed_until: f.now().plus(Duration::from_secs(60)),
        certificate_der: format!("certificate {}", number + 1).into_bytes(),
    };
    for number in 0..IDENTITY_CERTIFICATES_MAX {
        f.store.renew_identity(renewal(number), silent()).await.unwrap();
    }
    let latest = renewal(IDENTITY_CERTIFICATES_MAX - 1).certificate_der;
    let expected = Identity { fingerprint: Sha256Hash::of(&latest), certificate_der: latest, ..first };
    for number in 0..=IDENTITY_CERTIFICATES_MAX {
        let found = f.store.identity_by_fingerprint(renewal(number).follows).await.unwrap();
        assert_eq!(found.as_ref(), Some(&expected), "{number}");
    }
    // What it had before is nobody else's, and only the present one is followed.
    let taken = f.store.add_identity(identity(&f, "other", b"certificate 0"), unaudited()).await;
    assert_eq!(taken, Err(StoreError::AlreadyExists("identity ra with the same certificate".into())));
    let followed = f.store.renew_identity(renewal(0), unaudited()).await.unwrap_err();
    assert!(matches!(followed, StoreError::Conflict(_)), "{followed:?}");
    // Not too many at a time; those that have ended do not count.
    let next = renewal(IDENTITY_CERTIFICATES_MAX);
    let many = f.store.renew_identity(next.clone(), unaudited()).await.unwrap_err();
    assert!(matches!(many, StoreError::Conflict(_)), "{many:?}");
    f.clock.advance(Duration::from_secs(120));
    f.store.renew_identity(next, silent()).await.unwrap();
    f.store.remove_identity(&expected.name, silent()).await.unwrap();
    for number in 0..=IDENTITY_CERTIFICATES_MAX + 1 {
        assert_eq!(f.store.identity_by_fingerprint(renewal(number).follows).await.unwrap(), None, "{number}");
    }
}

async fn a_name_and_a_certificate_register_one_identity(f: Fixture) {
    f.store.add_identity(identity(&f, "vnfm-1", b"certificate"), silent()).await.unwrap();
    let same_name = f.store.add_identity(identity(&f, "vnfm-1", b"another"), unaudited()).await;
    assert_eq!(same_name, Err(StoreError::AlreadyExists("identity vnfm-1".into())));
    let same_certificate = f.store.add_identity(identity(&f, "vnfm-2", b"certificate"), unaudited()).await;
    assert_eq!(
        same_certificate,
        Err(StoreError::AlreadyExists("identity vnfm-1 with the same certificate".into()))
    );
}

async fn an_issuers_generation_is_unique_and_roots_come_first(f: Fixture) {
    let issuer = |tenant: Option<&TenantId>, generation| IssuerRecord {
        id: IssuerId::generate(),
        tenant: tenant.cloned(),
        name: "main".parse().unwrap(),
        external: None,
        generation,
        key: "keybroker:root:1".into(),
        certificate_der: vec![1],
        chain_der: if tenant.is_some() { vec![vec![2, 3], vec![4]] } else { Vec::new() },
        created_at: f.now(),
    };
    let root = issuer(None, 1);
    f.store.add_issuer(root.clone(), silent()).await.unwrap();
    let second = issuer(Some(&f.tenant), 2);
    f.store.add_issuer(second.clone(), silent()).await.unwrap();
    let listed = f.store.issuers().await.unwrap();
    assert_eq!((&listed[0], listed[1].id, &listed[2]), (&root, f.issuer, &second));
    for twice in [issuer(None, 1), issuer(Some(&f.tenant), 2), root] {
        let error = f.store.add_issuer(twice, unaudited()).await.unwrap_err();
        assert!(matches!(error, StoreError::AlreadyExists(_)), "{error}");
    }
}

async fn a_requested_ca_key_is_kept_for_its_ca_until_that_requests_another(f: Fixture) {
    let acme = f.add_tenant("acme").await;
    let key = |tenant: &TenantId, name: &str, generation| CaKeyRequest {
        tenant: tenant.clone(),
        name: name.parse().unwrap(),
        generation,
        created_at: f.now(),
    };
    let [main, inner, of_acme] =
        [key(&f.tenant, "main", 2), key(&f.tenant, "inner", 3), key(&acme, "main", 2)];
    for request in [&main, &inner, &of_acme, &main] {
        f.store.request_ca(request.clone(), silent()).await.unwrap();
    }
    assert_eq!(f.store.ca_requests(&f.tenant).await.unwrap(), [inner.clone(), main]);
    let error = f.store.request_ca(key(&f.tenant, "outer", 3), unaudited()).await.unwrap_err();
    assert_eq!(error, StoreError::AlreadyExists("a request for the same CA key".into()));
    let next = key(&f.tenant, "main", 4);
    f.store.request_ca(next.clone(), silent()).await.unwrap();
    assert_eq!(f.store.ca_requests(&f.tenant).await.unwrap(), [inner, next]);
    assert_eq!(f.store.ca_requests(&acme).await.unwrap(), [of_acme]);
}

async fn a_pools_name_is_free_again_once_it_is_deleted(f: Fixture) {
    let again = || pool_named(&f.tenant, "workers", "vnf-1", f.now());
    let error = f.store.create_pool(again(), &Quotas::default(), unaudited()).await.unwrap_err();
    assert_eq!(error, StoreError::AlreadyExists("pool workers of tenant default".into()));
    let deleted = f.store.delete_pool(&f.tenant, &f.pool.name, silent()).await.unwrap();
    assert_eq!(deleted, f.pool);
    let error = f.store.pool(&f.tenant, &f.pool.name).await.unwrap_err();
    assert_eq!(error, StoreError::NotFound("pool workers of tenant default".into()));
    let error = f.store.delete_pool(&f.tenant, &f.pool.name, unaudited()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
    let new = f.store.create_pool(again(), &Quotas::default(), silent()).await.unwrap();
    assert_eq!(f.store.pool(&f.tenant, &f.pool.name).await.unwrap(), new);
    assert_ne!(new.id, f.pool.id);
}

async fn a_pool_that_serves_a_vnfci_stays(f: Fixture) {
    f.fill(1).await;
    let claim = f.deliver("a", &["s"]).await;
    let error = f.store.delete_pool(&f.tenant, &f.pool.name, unaudited()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(text) if text.contains("VNFCI a")), "{error}");
    let released = end(DestructionReason::Released, HolderCopy::ReleasedSigned);
    f.store.release_claim(claim.id, released, silent()).await.unwrap();
    f.store.delete_pool(&f.tenant, &f.pool.name, silent()).await.unwrap();
}

async fn pools_are_listed_by_page_and_filter(f: Fixture) {
    let other = f.add_tenant("another").await;
    for (tenant, name, vnf) in
        [(&other, "workers", "vnf-9"), (&f.tenant, "a", "vnf-2"), (&f.tenant, "z", "vnf-1")]
    {
        f.store
            .create_pool(pool_named(tenant, name, vnf, f.now()), &Quotas::default(), silent())
            .await
            .unwrap();
    }
    let names = async |filter: PoolFilter, page: Page| -> Vec<String> {
        let pools = f.store.pools(&filter, &page).await.unwrap();
        pools.into_iter().map(|p| format!("{}/{}", p.tenant, p.name)).collect()
    };
    let all = names(PoolFilter::default(), page(10)).await;
    assert_eq!(all, ["another/workers", "default/a", "default/workers", "default/z"]);
    let mut after = None;
    for expected in &all {
        let one = names(PoolFilter::default(), Page { after, limit: 1 }).await;
        assert_eq!(one, std::slice::from_ref(expected));
        after = Some(expected.clone());
    }
    assert!(names(PoolFilter::default(), Page { after, limit: 1 }).await.is_empty());
    let of_vnf = PoolFilter {
        tenant: Some(f.tenant.clone()),
        vnf_instances: Some(vec!["vnf-1".parse().unwrap(), "vnf-9".parse().unwrap()]),
    };
    assert_eq!(names(of_vnf, page(10)).await, ["default/workers", "default/z"]);
    let of_none = PoolFilter { tenant: None, vnf_instances: Some(Vec::new()) };
    assert!(names(of_none, page(10)).await.is_empty(), "granted nothing: sees nothing");
}

async fn what_is_missing_is_named(f: Fixture) {
    let no: TenantId = "no".parse().unwrap();
    let error = f
        .store
        .create_pool(pool_named(&no, "p", "v", f.now()), &Quotas::default(), unaudited())
        .await
        .unwrap_err();
    assert_eq!(error, StoreError::NotFound("tenant no".into()));
    let error = f.store.vnfci(&f.tenant, &"ghost".parse().unwrap()).await.unwrap_err();
    assert_eq!(error, StoreError::NotFound("VNFCI ghost of tenant default".into()));
    assert_eq!(error.to_string(), "VNFCI ghost of tenant default does not exist");
}
