//! What the enroller remembers of pools, issuers and keys, so that nobody is asked again too soon.

use crate::broker::enrol_pool::ExternalIssuers;
use crate::ca::issuers::IssuerError;
use crate::nfv::{CredentialId, IssuerName, PoolId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After the first failure of an issuer, doubled with each further one.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What the enroller remembers from round to round. Nothing of it has to survive a restart.
#[derive(Default)]
pub(super) struct Enrolments {
    /// Pools that have reached which target.
    pub(super) full: HashMap<PoolId, u32>,
    /// Issuers that failed: how often, and until when they are left alone.
    pub(super) resting: HashMap<IssuerName, (u32, Instant)>,
    /// Keys whose issuer said when to ask again.
    pub(super) pending: HashMap<CredentialId, Instant>,
    /// As the last round saw them.
    issuers: Arc<ExternalIssuers>,
}

impl Enrolments {
    /// A round begins. Issuers that were configured anew, or have a new client certificate, are asked at once: what was wrong
    /// may be repaired.
    pub(super) fn begin(&mut self, issuers: &Arc<ExternalIssuers>) {
        if !Arc::ptr_eq(&self.issuers, issuers) {
            self.issuers = Arc::clone(issuers);
            self.resting.clear();
        }
        let now = Instant::now();
        self.pending.retain(|_, until| *until > now);
    }

    /// Until somebody is to be asked again.
    pub(super) fn pause(&self) -> Option<Duration> {
        let now = Instant::now();
        let resting = self.resting.values().map(|(_, until)| *until).filter(|until| *until > now);
        let next = resting.chain(self.pending.values().copied()).min()?;
        Some(next.saturating_duration_since(now).max(Duration::from_millis(50)))
    }

    pub(super) fn rests(&self, issuer: &IssuerName) -> bool {
        self.resting.get(issuer).is_some_and(|(_, until)| *until > Instant::now())
    }

    pub(super) fn failed(&mut self, issuer: &IssuerName) {
        let failures = self.resting.get(issuer).map_or(0, |(failures, _)| *failures);
        let rest = FIRST_REST.saturating_mul(1 << failures.min(10)).min(LONGEST_REST);
        self.rest(issuer, failures + 1, rest);
    }

    /// An issuer may say itself for how long it is to be left alone.
    pub(super) fn heard(&mut self, issuer: &IssuerName, error: &IssuerError) {
        if let IssuerError::Busy { after, .. } = error {
            let failures = self.resting.get(issuer).map_or(0, |(failures, _)| *failures);
            self.rest(issuer, failures, *after);
        }
    }

    fn rest(&mut self, issuer: &IssuerName, failures: u32, rest: Duration) {
        let until = Instant::now() + rest;
        let known = self.resting.get(issuer).map_or(until, |(_, known)| *known);
        self.resting.insert(issuer.clone(), (failures, until.max(known)));
    }
}
