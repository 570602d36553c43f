//! Paths and queries of EST (RFC 7030 3.2.2).

use crate::broker::enrol::Label;
use http::{Method, Uri};

const PREFIX: &str = "/.well-known/est/";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    CaCerts,
    CsrAttrs,
    SimpleEnroll,
    SimpleReenroll,
    ServerKeygen,
    FullCmc,
}

impl Operation {
    const ALL: [Self; 6] = [
        Self::CaCerts,
        Self::CsrAttrs,
        Self::SimpleEnroll,
        Self::SimpleReenroll,
        Self::ServerKeygen,
        Self::FullCmc,
    ];

    /// The last segment of its path.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::CaCerts => "cacerts",
            Self::CsrAttrs => "csrattrs",
            Self::SimpleEnroll => "simpleenroll",
            Self::SimpleReenroll => "simplereenroll",
            Self::ServerKeygen => "serverkeygen",
            Self::FullCmc => "fullcmc",
        }
    }

    pub(super) const fn method(self) -> Method {
        match self {
            Self::CaCerts | Self::CsrAttrs => Method::GET,
            _ => Method::POST,
        }
    }

    /// The same as text, for `Allow`.
    pub(super) const fn allow(self) -> &'static str {
        match self {
            Self::CaCerts | Self::CsrAttrs => "GET, HEAD",
            _ => "POST",
        }
    }
}

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) label: Label,
    pub(super) operation: Operation,
}

impl Route {
    /// `/.well-known/est/[[TENANT/]PROFILE/]OPERATION`; or the label before it, `/[TENANT/]PROFILE/.well-known/est/OPERATION`,
    /// as clients make it that take a base URL (strongSwan). None for any other path.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let (before, after) = uri.path().split_once(PREFIX)?;
        let (inside, operation) = after.rsplit_once('/').unwrap_or(("", after));
        let operation = Operation::ALL.into_iter().find(|known| known.as_str() == operation)?;
        let before = before.strip_prefix('/').unwrap_or(before);
        let label = match (before, inside) {
            ("", label) | (label, "") => label,
            _ => return None,
        };
        let label = match label.split_once('/') {
            None if label.is_empty() => Label::default(),
            None => Label { tenant: None, profile: Some(label.parse().ok()?) },
            Some((tenant, profile)) => {
                Label { tenant: Some(tenant.parse().ok()?), profile: Some(profile.parse().ok()?) }
            }
        };
        Some(Self { label, operation })
    }
}

/// `?vnfci=ID`, percent-decoded: for whom an agent asks.
pub(super) fn vnfci(uri: &Uri) -> Option<String> {
    let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    query.0.into_iter().find(|(name, _)| name == "vnfci").map(|(_, id)| id)
}

/// Fuzzing of what EST clients ask for: a path and a query.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_path(data: &[u8]) {
    let Ok(uri) = Uri::try_from(data) else { return };
    if let Some(route) = Route::of(&uri) {
        assert!(uri.path().ends_with(route.operation.as_str()));
        assert!(route.label.tenant.is_none() || route.label.profile.is_some());
    }
    if let Some(named) = vnfci(&uri) {
        let _ = named.parse::<crate::nfv::VnfciId>();
    }
}
