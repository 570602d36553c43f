//! NIST PKITS 1.0.1 from the package `cryptography-vectors` (`make tools` installs it): every end entity certificate of
//! the suite is judged, with **all** other certificates and CRLs of the suite at hand, as from a directory.
//!
//! The names say what is expected with the suite's default settings; the cases of sections 4.8, 4.10 and 4.12 that have
//! settings of their own are in [`SETTINGS`], from the suite's document.

use keybroker::ca::path::{
    Certificate, Crl, PathError, PolicyRules, PolicySet, Purpose, Revocation, Rules, Work, validate,
};
use keybroker::clock::Timestamp;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// Certificates of the suite that are no case's end entity end otherwise.
const END_ENTITY: &str = "EE";

/// Cases that are not judged as the suite expects, and why.
const SKIPPED: &[(&str, &str)] = &[
    ("ValidDSASignaturesTest4", "DSA and SHA-1 are refused here: withdrawn by FIPS 186-5 and SP 800-131A"),
    (
        "ValidDSAParameterInheritanceTest5",
        "DSA and SHA-1 are refused here: withdrawn by FIPS 186-5 and SP 800-131A",
    ),
];

/// Initial settings of a case, and whether it is valid with them.
struct Setting {
    /// Numbers of NIST test policies; empty: any policy.
    acceptable: &'static [u32],
    explicit: bool,
    inhibit_mapping: bool,
    inhibit_any: bool,
    valid: bool,
}

const fn set(acceptable: &'static [u32], valid: bool) -> Setting {
    // The suite sets initial-explicit-policy wherever it gives an initial-policy-set.
    let explicit = !acceptable.is_empty();
    Setting { acceptable, explicit, inhibit_mapping: false, inhibit_any: false, valid }
}

const fn explicit(acceptable: &'static [u32], valid: bool) -> Setting {
    Setting { explicit: true, ..set(acceptable, valid) }
}

const DEFAULT_VALID: Setting = set(&[], true);
const DEFAULT_INVALID: Setting = set(&[], false);

/// PKITS 4.8, 4.10, 4.12.3.
const SETTINGS: &[(&str, &[Setting])] = &[
    (
        "ValidCertificatePathTest1",
        &[
            DEFAULT_VALID,
            explicit(&[], true),
            explicit(&[1], true),
            explicit(&[2], false),
            explicit(&[1, 2], true),
        ],
    ),
    ("AllCertificatesNoPoliciesTest2", &[DEFAULT_VALID, explicit(&[], false)]),
    ("DifferentPoliciesTest3", &[DEFAULT_VALID, explicit(&[], false), explicit(&[1, 2], false)]),
    ("DifferentPoliciesTest4", &[DEFAULT_INVALID]),
    ("DifferentPoliciesTest5", &[DEFAULT_INVALID]),
    ("OverlappingPoliciesTest6", &[DEFAULT_VALID, set(&[1], true), set(&[2], false)]),
    ("DifferentPoliciesTest7", &[DEFAULT_INVALID]),
    ("DifferentPoliciesTest8", &[DEFAULT_INVALID]),
    ("DifferentPoliciesTest9", &[DEFAULT_INVALID]),
    ("AllCertificatesSamePoliciesTest10", &[DEFAULT_VALID, set(&[1], true), set(&[2], true)]),
    ("AllCertificatesanyPolicyTest11", &[DEFAULT_VALID, set(&[1], true)]),
    ("DifferentPoliciesTest12", &[DEFAULT_INVALID]),
    ("AllCertificatesSamePoliciesTest13", &[set(&[1], true), set(&[2], true), set(&[3], true)]),
    ("AnyPolicyTest14", &[set(&[1], true), set(&[2], false)]),
    ("UserNoticeQualifierTest15", &[DEFAULT_VALID]),
    ("UserNoticeQualifierTest16", &[DEFAULT_VALID]),
    ("UserNoticeQualifierTest17", &[DEFAULT_VALID]),
    ("UserNoticeQualifierTest18", &[set(&[1], true), set(&[2], true)]),
    ("UserNoticeQualifierTest19", &[DEFAULT_VALID]),
    ("CPSPointerQualifierTest20", &[DEFAULT_VALID]),
    (
        "ValidPolicyMappingTest1",
        &[set(&[1], true), set(&[2], false), Setting { inhibit_mapping: true, ..DEFAULT_INVALID }],
    ),
    ("InvalidPolicyMappingTest2", &[DEFAULT_INVALID, Setting { inhibit_mapping: true, ..DEFAULT_INVALID }]),
    ("ValidPolicyMappingTest3", &[set(&[1], false), set(&[2], true)]),
    ("ValidPolicyMappingTest5", &[set(&[1], true), set(&[6], false)]),
    ("ValidPolicyMappingTest6", &[set(&[1], true), set(&[6], false)]),
    ("ValidPolicyMappingTest12", &[set(&[1], true), set(&[2], true)]),
    ("ValidPolicyMappingTest13", &[DEFAULT_VALID, set(&[1], true), set(&[2], false)]),
    ("inhibitAnyPolicyTest3", &[DEFAULT_VALID, Setting { inhibit_any: true, ..DEFAULT_INVALID }]),
];

impl Setting {
    fn rules(&self) -> Rules {
        let policy = |number: &u32| format!("2.16.840.1.101.3.2.1.48.{number}").parse().unwrap();
        let acceptable: PolicySet = self.acceptable.iter().map(policy).collect();
        let policies = PolicyRules {
            acceptable: (!acceptable.is_empty()).then_some(acceptable),
            require_explicit: self.explicit,
            inhibit_mapping: self.inhibit_mapping,
            inhibit_any: self.inhibit_any,
        };
        // All of the suite is of 2010 and lasts until 2030.
        let now = Timestamp::from_unix_seconds(1_400_000_000);
        Rules { policies, revocation: Revocation::Require, ..Rules::new(Purpose::Any, now) }
    }

    fn shown(&self) -> String {
        format!(
            "policies {:?}, explicit {}, inhibit mapping {}, inhibit any {}",
            self.acceptable, self.explicit, self.inhibit_mapping, self.inhibit_any
        )
    }
}

/// The suite's files of one folder, by name without ending.
fn files(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let libraries = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/python/lib");
    let suite = fs::read_dir(&libraries)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("site-packages/cryptography_vectors/x509/PKITS_data"))
        .find(|suite| suite.exists());
    let Some(suite) = suite else {
        panic!("no PKITS in {}: run `make tools`", libraries.display());
    };
    fs::read_dir(suite.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect()
}

fn settings(case: &str) -> &'static [Setting] {
    match SETTINGS.iter().find(|(name, _)| *name == case) {
        Some((_, settings)) => settings,
        None if case.starts_with("Valid") => &[DEFAULT_VALID],
        None if case.starts_with("Invalid") => &[DEFAULT_INVALID],
        None => panic!("{case} is a new case: what is expected?"),
    }
}

#[test]
fn every_case_of_pkits_is_judged_as_nist_says() {
    let certificates: BTreeMap<String, Certificate> = files("certs")
        .into_iter()
        .map(|(name, der)| {
            let parsed = Certificate::from_der(&der).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, parsed)
        })
        .collect();
    // CRLs with critical extensions that are unknown must not be used; that is what their cases are about.
    let crls: Vec<Arc<Crl>> = files("crls")
        .into_iter()
        .filter_map(|(name, der)| match Crl::from_der(&der) {
            Ok(crl) => Some(Arc::new(crl)),
            Err(PathError::CriticalExtension(_)) if name.starts_with("UnknownCRL") => None,
            Err(error) => panic!("{name}: {error}"),
        })
        .collect();
    let anchor = &certificates["TrustAnchorRootCertificate"];
    let pool: Vec<Certificate> = certificates.values().cloned().collect();
    let (mut judged, mut skipped, mut wrong) = (0, 0, Vec::new());
    let cases = certificates.iter().filter_map(|(name, leaf)| Some((name.strip_suffix(END_ENTITY)?, leaf)));
    for (case, leaf) in cases {
        if SKIPPED.iter().any(|(name, _)| *name == case) {
            skipped += 1;
            continue;
        }
        for setting in settings(case) {
            judged += 1;
            let outcome = validate(leaf, &pool, anchor, &crls, &setting.rules(), &Work::default());
            // A bound that is reached is no judgement.
            let bounded = matches!(outcome, Err(PathError::TooMuchWork(_)));
            if outcome.is_ok() != setting.valid || bounded {
                wrong.push(format!("{case} with {}: {outcome:?}", setting.shown()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {judged} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((judged, skipped), (247, SKIPPED.len()), "the suite has other cases now");
}
