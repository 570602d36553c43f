//! Unit tests of the face: what needs no broker.

use super::path::{Operation, Route, vnfci};
use super::{BrokerError, failed, text};
use crate::broker::enrol::Label;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{StatusCode, Uri};
use proptest::prelude::*;
use std::time::Duration;

fn route(path: &str) -> Option<Route> {
    Route::of(&path.parse::<Uri>().unwrap())
}

#[test]
fn a_label_is_a_profile_or_a_tenant_and_a_profile() {
    let label = |tenant: Option<&str>, profile: Option<&str>| Label {
        tenant: tenant.map(|name| name.parse().unwrap()),
        profile: profile.map(|name| name.parse().unwrap()),
    };
    for (path, expected) in [
        ("/.well-known/est/cacerts", label(None, None)),
        ("/.well-known/est/vnf-om/cacerts", label(None, Some("vnf-om"))),
        ("/.well-known/est/blue/vnf-om/cacerts", label(Some("blue"), Some("vnf-om"))),
        ("/vnf-om/.well-known/est/cacerts", label(None, Some("vnf-om"))),
        ("/blue/vnf-om/.well-known/est/cacerts", label(Some("blue"), Some("vnf-om"))),
    ] {
        assert_eq!(route(path), Some(Route { label: expected, operation: Operation::CaCerts }), "{path}");
    }
    for path in [
        "/",
        "/cacerts",
        "/.well-known/est/",
        "/.well-known/est/other",
        "/.well-known/est/a/b/c/cacerts",
        "/a/.well-known/est/b/cacerts",
        "/.well-known/est//cacerts/",
        "/.well-known/est/..%2f/cacerts",
    ] {
        assert_eq!(route(path), None, "{path}");
    }
}

#[test]
fn an_agent_names_its_vnfci_in_the_query() {
    let of = |uri: &str| vnfci(&uri.parse::<Uri>().unwrap());
    assert_eq!(of("/x?vnfci=amf%2F0001&y=1"), Some("amf/0001".to_owned()));
    assert_eq!(of("/x?y=1"), None);
    assert_eq!(of("/x"), None);
}

#[test]
fn a_refusal_does_not_say_why_and_an_error_of_ours_not_what() {
    let refused = |code| failed(&BrokerError::refused(code, "secret reason")).1;
    assert_eq!(refused("SPENT").status(), StatusCode::FORBIDDEN);
    let (_, internal) = failed(&BrokerError::Internal("secret".into()));
    assert_eq!(internal.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let retry_after = Duration::from_millis(10);
    let away = BrokerError::Unavailable { code: "HSM_UNAVAILABLE", reason: "x".into(), retry_after };
    assert_eq!(failed(&away).1.headers()[RETRY_AFTER], "1");
    assert_eq!(text(StatusCode::OK, "x").headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
}

proptest! {
    #[test]
    fn no_path_makes_the_router_panic(path in "/[!-~]{0,80}", inside in "[!-~]{0,40}") {
        for text in [path, format!("/.well-known/est/{inside}"), format!("/{inside}/.well-known/est/cacerts")] {
            if let Ok(uri) = text.parse::<Uri>() {
                let _ = (Route::of(&uri), vnfci(&uri));
            }
        }
    }
}
