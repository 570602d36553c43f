//! The CAs of an enrolment server outside are judged by the same path validation as everyone: signatures that chain are not
//! enough.

use keybroker::ca::issuers::{ExternalCas, IssuerError};
use keybroker::ca::path::Purpose;
use keybroker::clock::{Clock, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints,
};

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
}

fn params(name: &str, path_length: BasicConstraints, usages: &[KeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(path_length);
    params.key_usages = usages.to_vec();
    params
}

fn root(params: CertificateParams) -> Ca {
    let key = KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().to_vec();
    Ca { params, key, der }
}

fn below(above: &Ca, params: CertificateParams) -> Ca {
    let key = KeyPair::generate().unwrap();
    let der = params.signed_by(&key, &Issuer::from_params(&above.params, &above.key)).unwrap().der().to_vec();
    Ca { params, key, der }
}

fn verify(root: &Ca, cas: &[&Ca]) -> Result<ExternalCas, IssuerError> {
    let ders: Vec<Vec<u8>> = cas.iter().map(|ca| ca.der.clone()).collect();
    ExternalCas::verify(&root.der, &ders, SystemClock.now())
}

/// Whether a certificate that `above` issues leads to the root by what the server sent.
fn lead(root: &Ca, cas: &[&Ca], above: &Ca) -> bool {
    let leaf = below(above, CertificateParams::new(Vec::new()).unwrap());
    let now = SystemClock.now();
    verify(root, cas).is_ok_and(|cas| cas.chain_of(&leaf.der, &[Purpose::Any], now).is_ok())
}

#[test]
fn the_cas_of_an_enrolment_server_are_judged_by_path_validation() {
    let ca = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let any = BasicConstraints::Unconstrained;
    let top = root(params("root", any, &ca));
    let (sub, other) = (below(&top, params("sub", any, &ca)), root(params("root", any, &ca)));
    let deep = below(&sub, params("deep", any, &ca));
    // The root may be among them, and the order does not matter.
    verify(&top, &[&deep, &top, &sub]).unwrap();
    for (what, root, cas) in [
        ("nothing was sent", &top, vec![]),
        ("signed by another key of the same name", &other, vec![&sub]),
        ("its own CA is missing", &top, vec![&deep]),
    ] {
        let refused = verify(root, &cas);
        assert!(matches!(refused, Err(IssuerError::UntrustedChain(_))), "{what}: {refused:?}");
    }
    assert!(lead(&top, &[&deep, &sub], &deep) && lead(&top, &[&deep, &sub, &other], &deep));
    assert!(!lead(&top, &[&sub, &other], &other), "a stranger's is left out");

    let short = root(params("short", BasicConstraints::Constrained(1), &ca));
    let first = below(&short, params("first", any, &ca));
    let second = below(&first, params("second", any, &ca));
    assert!(lead(&short, &[&first, &second], &first));
    assert!(!lead(&short, &[&first, &second], &second), "its root's path length");

    // It has the bit of a CA, and may not sign certificates.
    let lists = below(&top, params("lists", any, &[KeyUsagePurpose::CrlSign]));
    let under = below(&lists, params("under", any, &ca));
    assert!(!lead(&top, &[&lists, &under], &under), "its CA's key usage");

    let mut narrow = params("narrow", any, &ca);
    narrow.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("operator.example".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let narrow = below(&top, narrow);
    let mut outside = params("outside", any, &ca);
    outside.subject_alt_names = vec![rcgen::SanType::DnsName("stranger.example".try_into().unwrap())];
    let outside = below(&narrow, outside);
    assert!(!lead(&top, &[&narrow, &outside], &outside), "name constraints");
}
