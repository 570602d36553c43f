//! Judges one path whose signatures are verified and whose names chain (RFC 5280 6.1.2 to 6.1.5, with RFC 9618).

use super::build::Search;
use super::certificate::Certificate;
use super::constraints::Constraints;
use super::policies::PolicyGraph;
use super::{Conformance, PathError, Purpose, Revocation, Rules, ValidPath};
use super::{host, revocation, signature};
use const_oid::db::rfc5280::{ANY_EXTENDED_KEY_USAGE, ANY_POLICY, ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::KeyUsage;

/// Judges `path` (leaf first, the anchor not in it).
pub(super) fn judge(search: &Search<'_>, path: &[&Certificate]) -> Result<ValidPath, PathError> {
    let (rules, anchor) = (search.rules, search.anchor);
    let Some(leaf) = path.first() else { return Err(PathError::Empty) };
    let mut state = State::new(rules, anchor, path.len())?;
    for (below, certificate) in path.iter().enumerate().rev() {
        state.basic(certificate, below > 0, search)?;
        if below > 0 {
            state.prepare_for_next(certificate)?;
        }
    }
    let policies = state.wrap_up(leaf)?;
    used_for(leaf, &rules.purpose)?;
    if rules.revocation != Revocation::Off {
        let issuers = path.iter().skip(1).copied().chain([anchor]);
        for (certificate, issuer) in path.iter().copied().zip(issuers).collect::<Vec<_>>().into_iter().rev() {
            revocation::check(search, certificate, issuer)?;
        }
    }
    Ok(ValidPath { certificates: path.iter().map(|certificate| certificate.fingerprint).collect(), policies })
}

/// Judges an end entity's certificate by itself, as 6.1.5 does. That it may be a CA as well is nothing against it: `openssl req
/// -x509` says so of every certificate; one whose key only signs certificates has no digitalSignature.
pub(super) fn check_end_entity(leaf: &Certificate, rules: &Rules) -> Result<(), PathError> {
    acceptable(rules, leaf)?;
    used_for(leaf, &rules.purpose)?;
    signature::check_algorithm(&leaf.signed.algorithm).map_err(PathError::Signature)
}

/// Judges an anchor by itself.
pub(super) fn check_anchor(anchor: &Certificate, rules: &Rules) -> Result<(), PathError> {
    State::new(rules, anchor, 0).map(|_| ())
}

/// The variables of RFC 5280 6.1.2.
struct State<'a> {
    rules: &'a Rules,
    graph: PolicyGraph,
    constraints: Constraints,
    explicit_policy: u32,
    policy_mapping: u32,
    inhibit_any_policy: u32,
    max_path_length: u32,
}

impl<'a> State<'a> {
    /// Initial values, with what the anchor's certificate says (RFC 5937 4).
    fn new(rules: &'a Rules, anchor: &Certificate, length: usize) -> Result<Self, PathError> {
        let after_all = u32::try_from(length).unwrap_or(u32::MAX).saturating_add(1);
        let initial = |inhibited: bool| if inhibited { 0 } else { after_all };
        let mut state = Self {
            rules,
            graph: PolicyGraph::new(),
            constraints: Constraints::default(),
            explicit_policy: initial(rules.policies.require_explicit),
            policy_mapping: initial(rules.policies.inhibit_mapping),
            inhibit_any_policy: initial(rules.policies.inhibit_any),
            max_path_length: rules.max_intermediates,
        };
        acceptable(rules, anchor)?;
        state.ca(anchor)?;
        Ok(state)
    }

    /// 6.1.3 without the signature; `is_issuer`: it is not the last of the path.
    fn basic(
        &mut self,
        certificate: &Certificate,
        is_issuer: bool,
        search: &Search<'_>,
    ) -> Result<(), PathError> {
        acceptable(self.rules, certificate)?;
        let self_issued = certificate.is_self_issued() && is_issuer;
        if !self_issued {
            self.constraints.check(certificate, search.work)?;
        }
        let any_counts = self.inhibit_any_policy > 0 || self_issued;
        self.graph.add_certificate(certificate.extensions.policies.as_ref(), any_counts);
        self.demand_policy(certificate)
    }

    /// 6.1.4: an intermediate certificate.
    fn prepare_for_next(&mut self, issuer: &Certificate) -> Result<(), PathError> {
        let mappings = &issuer.extensions.policy_mappings;
        if mappings.iter().any(|(from, to)| *from == ANY_POLICY || *to == ANY_POLICY) {
            return Err(PathError::Policy(format!("{} maps anyPolicy", issuer.shown())));
        }
        self.graph.map(mappings, self.policy_mapping > 0);
        if !issuer.is_self_issued() {
            for counter in [&mut self.explicit_policy, &mut self.policy_mapping, &mut self.inhibit_any_policy]
            {
                *counter = counter.saturating_sub(1);
            }
        }
        if let Some(constraints) = &issuer.extensions.policy_constraints {
            lower(&mut self.explicit_policy, constraints.require_explicit_policy);
            lower(&mut self.policy_mapping, constraints.inhibit_policy_mapping);
        }
        lower(&mut self.inhibit_any_policy, issuer.extensions.inhibit_any_policy);
        if !issuer.is_self_issued() {
            self.max_path_length = self.max_path_length.checked_sub(1).ok_or_else(|| {
                PathError::NotCa(format!("more CAs below than allowed, at {}", issuer.shown()))
            })?;
        }
        self.ca(issuer)
    }

    /// 6.1.4 g, k, m and n: what makes a certificate a CA's, and what it limits.
    fn ca(&mut self, issuer: &Certificate) -> Result<(), PathError> {
        if let Some(constraints) = &issuer.extensions.name_constraints {
            self.constraints.add(constraints, issuer)?;
        }
        let Some(basic) = issuer.extensions.basic_constraints.filter(|basic| basic.ca) else {
            return Err(PathError::NotCa(format!("{}: basicConstraints does not say cA", issuer.shown())));
        };
        lower(&mut self.max_path_length, basic.path_length);
        if !issuer.may_sign(true) {
            return Err(PathError::NotCa(format!("{}: keyUsage has no keyCertSign", issuer.shown())));
        }
        if issuer.subject.is_empty() {
            return Err(PathError::NotCa("a CA without a name".to_owned()));
        }
        // Not in RFC 5280, but what relying parties do: a CA for mail makes no TLS certificates.
        match self.rules.purpose.key_purpose() {
            Some(purpose) => has_purpose(issuer, purpose),
            None => Ok(()),
        }
    }

    /// 6.1.3 f.
    fn demand_policy(&self, certificate: &Certificate) -> Result<(), PathError> {
        if self.explicit_policy == 0 && self.graph.is_null() {
            return Err(PathError::Policy(format!(
                "a policy is demanded and none is left at {}",
                certificate.shown()
            )));
        }
        Ok(())
    }

    /// 6.1.5 a, b and g.
    fn wrap_up(mut self, leaf: &Certificate) -> Result<super::PolicySet, PathError> {
        self.explicit_policy = self.explicit_policy.saturating_sub(1);
        let constraints = &leaf.extensions.policy_constraints;
        if constraints.as_ref().is_some_and(|constraints| constraints.require_explicit_policy == Some(0)) {
            self.explicit_policy = 0;
        }
        let policies = self.graph.constrained_to(self.rules.policies.acceptable.as_ref());
        if self.explicit_policy == 0 && policies.is_empty() {
            let what = format!("{} is valid for no acceptable policy", leaf.shown());
            return Err(PathError::Policy(what));
        }
        Ok(policies)
    }
}

/// What is demanded of every certificate, the anchor's too: validity (a 2), known critical extensions (6.1.4 o,
/// 6.1.5 f), the profile if strict.
fn acceptable(rules: &Rules, certificate: &Certificate) -> Result<(), PathError> {
    let now = rules.now.unix_seconds();
    let shown = || certificate.shown();
    if now < certificate.not_before.unix_seconds() {
        return Err(PathError::NotYetValid(format!("{} before {}", shown(), certificate.not_before)));
    }
    if now > certificate.not_after.unix_seconds() {
        return Err(PathError::Expired(format!("{} at {}", shown(), certificate.not_after)));
    }
    if let Some(unknown) = certificate.extensions.unknown_critical {
        return Err(PathError::CriticalExtension(format!("{unknown} in {} is not known", shown())));
    }
    if rules.conformance == Conformance::Strict {
        super::check_conformance(certificate)?;
    }
    Ok(())
}

/// Takes the smaller of a counter and what a certificate says.
fn lower(counter: &mut u32, to: Option<u32>) {
    *counter = to.map_or(*counter, |to| to.min(*counter));
}

impl Purpose {
    fn key_purpose(&self) -> Option<ObjectIdentifier> {
        match self {
            Self::Any => None,
            Self::TlsClient => Some(ID_KP_CLIENT_AUTH),
            Self::TlsServer(_) | Self::TlsServerOfAnyName => Some(ID_KP_SERVER_AUTH),
        }
    }
}

/// The leaf's usages, and its name if it is a server's.
fn used_for(leaf: &Certificate, purpose: &Purpose) -> Result<(), PathError> {
    let Some(key_purpose) = purpose.key_purpose() else { return Ok(()) };
    has_purpose(leaf, key_purpose)?;
    match purpose {
        // A client always signs.
        Purpose::TlsClient if leaf.extensions.key_usage.is_some_and(|usage| !usage.digital_signature()) => {
            Err(PathError::WrongUsage(format!("{}: keyUsage has no digitalSignature", leaf.shown())))
        }
        Purpose::TlsServer(_) | Purpose::TlsServerOfAnyName
            if !leaf.is_ca() && leaf.extensions.key_usage.is_some_and(|usage| !serves(usage)) =>
        {
            let what = "keyUsage has none of digitalSignature, keyEncipherment and keyAgreement";
            Err(PathError::WrongUsage(format!("{}: {what}", leaf.shown())))
        }
        Purpose::TlsServer(name) if !host::matches(leaf, name) => {
            Err(PathError::WrongServer(name.to_string()))
        }
        _ => Ok(()),
    }
}

/// RFC 5280 4.2.1.12: what goes with serverAuth. A server of TLS 1.2 may have a key for encipherment. It is not demanded of a CA
/// that serves by its own certificate, which x509-limbo (`rfc5280::ca-as-leaf`) has accepted with keyCertSign only.
fn serves(usage: KeyUsage) -> bool {
    usage.digital_signature() || usage.key_encipherment() || usage.key_agreement()
}

fn has_purpose(certificate: &Certificate, purpose: ObjectIdentifier) -> Result<(), PathError> {
    match &certificate.extensions.extended_key_usage {
        Some(purposes) if !purposes.contains(&purpose) && !purposes.contains(&ANY_EXTENDED_KEY_USAGE) => {
            Err(PathError::WrongUsage(format!("{} is not for {}", certificate.shown(), named(purpose))))
        }
        _ => Ok(()),
    }
}

fn named(purpose: ObjectIdentifier) -> &'static str {
    if purpose == ID_KP_CLIENT_AUTH { "TLS client authentication" } else { "TLS server authentication" }
}
