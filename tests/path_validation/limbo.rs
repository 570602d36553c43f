//! C2SP x509-limbo, its cases that are not about the web: `../shared/testdata/x509-limbo/limbo.json` beside the
//! repository. Without that folder there is nothing to judge, and the test says so.

use keybroker::ca::path::{
    Certificate, Conformance, Crl, PathError, Purpose, Revocation, Rules, ServerName, ValidPath, Work,
    validate,
};
use keybroker::ca::{certificates_from_pem, crls_from_pem};
use keybroker::clock::Timestamp;
use serde::Deserialize;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// Cases that are not judged as the suite expects, and why.
const SKIPPED: &[(&str, &str)] = &[];

#[derive(Deserialize)]
struct Limbo {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    validation_kind: String,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    validation_time: Option<String>,
    expected_result: String,
    expected_peer_name: Option<Name>,
    max_chain_depth: Option<u32>,
    #[serde(default)]
    crls: Vec<String>,
}

#[derive(Deserialize)]
struct Name {
    kind: String,
    value: String,
}

impl Case {
    fn purpose(&self) -> Purpose {
        match (self.validation_kind.as_str(), &self.expected_peer_name) {
            ("CLIENT", _) => Purpose::TlsClient,
            ("SERVER", Some(name)) if name.kind == "DNS" => {
                Purpose::TlsServer(ServerName::Dns(name.value.clone()))
            }
            ("SERVER", Some(name)) if name.kind == "IP" => {
                Purpose::TlsServer(ServerName::Ip(name.value.parse().unwrap()))
            }
            // Cases about directory names have no server.
            ("SERVER", None) => Purpose::Any,
            (kind, _) => panic!("{}: {kind}", self.id),
        }
    }

    fn judge(&self) -> Result<ValidPath, PathError> {
        let read = |pem: &String| Certificate::from_der(&certificates_from_pem(pem.as_bytes()).unwrap()[0]);
        let now = match &self.validation_time {
            Some(text) => text.parse::<Time>().unwrap().0,
            // The suite: the time of the test.
            None => Timestamp::from_unix_seconds(1_780_000_000),
        };
        let rules = Rules {
            max_intermediates: self.max_chain_depth.unwrap_or(10),
            revocation: if self.crls.is_empty() { Revocation::Off } else { Revocation::Require },
            conformance: Conformance::Strict,
            ..Rules::new(self.purpose(), now)
        };
        let leaf = read(&self.peer_certificate)?;
        let pool: Vec<_> = self.untrusted_intermediates.iter().filter_map(|pem| read(pem).ok()).collect();
        let mut crls = Vec::new();
        for pem in &self.crls {
            for der in crls_from_pem(pem.as_bytes()).unwrap() {
                crls.push(Arc::new(Crl::from_der(&der)?));
            }
        }
        let work = Work::default();
        let mut last = Err(PathError::Empty);
        for anchor in self.trusted_certs.iter().map(read) {
            last = anchor.and_then(|anchor| validate(&leaf, &pool, &anchor, &crls, &rules, &work));
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

/// RFC 3339, whole seconds and fractions.
struct Time(Timestamp);

impl std::str::FromStr for Time {
    type Err = time::error::Parse;
    fn from_str(text: &str) -> Result<Self, time::error::Parse> {
        let parsed = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)?;
        let micros = i64::try_from(parsed.unix_timestamp_nanos() / 1_000).unwrap();
        Ok(Self(Timestamp::from_unix_micros(micros)))
    }
}

#[test]
fn every_case_of_limbo_is_judged_as_the_suite_says() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/testdata/x509-limbo/limbo.json");
    if !file.exists() {
        eprintln!("SKIPPED: {} is not there, no case of x509-limbo was judged", file.display());
        return;
    }
    let limbo: Limbo = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let (mut judged, mut wrong) = (0, Vec::new());
    for case in &limbo.testcases {
        if SKIPPED.iter().any(|(id, _)| *id == case.id) {
            continue;
        }
        judged += 1;
        let outcome = case.judge();
        if outcome.is_ok() != (case.expected_result == "SUCCESS") {
            wrong.push(format!("{}: expected {}, {outcome:?}", case.id, case.expected_result));
        }
    }
    assert!(wrong.is_empty(), "{} of {judged} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(judged + SKIPPED.len(), limbo.testcases.len());
}
