//! Certificate policies: the valid policy graph of RFC 9618, which replaces the tree of RFC 5280 6.1 and gives the same
//! answers in polynomial size: one node per policy and depth, whatever the mappings.

use const_oid::db::rfc5280::ANY_POLICY;
use der::asn1::ObjectIdentifier;
use std::collections::{BTreeMap, BTreeSet};

/// Policies by their object identifiers.
pub type PolicySet = BTreeSet<ObjectIdentifier>;

/// `valid_policy_graph`; empty levels say that it is NULL.
#[derive(Debug)]
pub(super) struct PolicyGraph {
    levels: Vec<BTreeMap<ObjectIdentifier, Node>>,
}

#[derive(Debug, Default)]
struct Node {
    expected: PolicySet,
    /// Policies of the nodes one level up.
    parents: PolicySet,
}

impl PolicyGraph {
    /// One node of depth 0: any policy.
    pub(super) fn new() -> Self {
        let root = Node { expected: [ANY_POLICY].into(), parents: PolicySet::new() };
        Self { levels: vec![[(ANY_POLICY, root)].into()] }
    }

    pub(super) fn is_null(&self) -> bool {
        self.levels.is_empty()
    }

    /// RFC 9618 5.4 (d) and (e): the policies of the next certificate. `any_counts`: its anyPolicy is processed.
    pub(super) fn add_certificate(&mut self, policies: Option<&PolicySet>, any_counts: bool) {
        let Some(policies) = policies else {
            self.levels.clear();
            return;
        };
        let Some(above) = self.levels.last() else { return };
        let mut expecting: BTreeMap<ObjectIdentifier, PolicySet> = BTreeMap::new();
        for (policy, node) in above {
            for &expected in &node.expected {
                expecting.entry(expected).or_default().insert(*policy);
            }
        }
        let mut level = BTreeMap::new();
        for &policy in policies.iter().filter(|policy| **policy != ANY_POLICY) {
            let parents = match expecting.get(&policy) {
                Some(parents) => parents.clone(),
                None if above.contains_key(&ANY_POLICY) => [ANY_POLICY].into(),
                None => continue,
            };
            level.insert(policy, Node { expected: [policy].into(), parents });
        }
        if any_counts && policies.contains(&ANY_POLICY) {
            for (policy, parents) in expecting {
                level.entry(policy).or_insert_with(|| Node { expected: [policy].into(), parents });
            }
        }
        self.levels.push(level);
        self.prune();
    }

    /// RFC 9618 5.5 (b): the mappings of an intermediate certificate. Not allowed: what is mapped is deleted.
    pub(super) fn map(&mut self, mappings: &[(ObjectIdentifier, ObjectIdentifier)], allowed: bool) {
        let Some(level) = self.levels.last_mut() else { return };
        let mut by_issuer: BTreeMap<ObjectIdentifier, PolicySet> = BTreeMap::new();
        for &(issuer, subject) in mappings {
            by_issuer.entry(issuer).or_default().insert(subject);
        }
        for (policy, subjects) in by_issuer {
            if !allowed {
                level.remove(&policy);
            } else if let Some(node) = level.get_mut(&policy) {
                node.expected = subjects;
            } else if level.contains_key(&ANY_POLICY) {
                level.insert(policy, Node { expected: subjects, parents: [ANY_POLICY].into() });
            }
        }
        self.prune();
    }

    /// RFC 9618 5.6 (g): which of the acceptable policies the path is valid for; none given: all are acceptable.
    pub(super) fn constrained_to(&self, acceptable: Option<&PolicySet>) -> PolicySet {
        let mut authority = PolicySet::new();
        for level in self.levels.iter().skip(1) {
            for (policy, node) in level {
                if *policy != ANY_POLICY && node.parents.contains(&ANY_POLICY) {
                    authority.insert(*policy);
                }
            }
        }
        if self.levels.last().is_some_and(|level| level.contains_key(&ANY_POLICY)) {
            authority.insert(ANY_POLICY);
        }
        match acceptable {
            None => authority,
            Some(acceptable) if authority.contains(&ANY_POLICY) => acceptable.clone(),
            Some(acceptable) => authority.intersection(acceptable).copied().collect(),
        }
    }

    /// Deletes nodes without children above the last level; a graph without nodes there is NULL.
    fn prune(&mut self) {
        let Some(mut below) = self.levels.len().checked_sub(1) else { return };
        while below > 0 {
            let used: PolicySet =
                self.levels[below].values().flat_map(|node| node.parents.iter().copied()).collect();
            self.levels[below - 1].retain(|policy, _| used.contains(policy));
            below -= 1;
        }
        if self.levels.last().is_none_or(BTreeMap::is_empty) {
            self.levels.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(number: u32) -> ObjectIdentifier {
        ObjectIdentifier::new(&format!("1.3.6.1.4.1.32473.{number}")).unwrap()
    }

    fn set(numbers: &[u32]) -> PolicySet {
        numbers.iter().map(|&number| oid(number)).collect()
    }

    #[test]
    fn mappings_of_everything_to_everything_stay_small() {
        // The construction of RFC 9618 section 3.1: a tree would have 10^32 leaves.
        let policies: Vec<u32> = (1..=10).collect();
        let all: Vec<_> =
            policies.iter().flat_map(|&a| policies.iter().map(move |&b| (oid(a), oid(b)))).collect();
        let mut graph = PolicyGraph::new();
        for _ in 0..32 {
            graph.add_certificate(Some(&set(&policies)), true);
            graph.map(&all, true);
        }
        assert!(graph.levels.iter().map(BTreeMap::len).sum::<usize>() <= 33 * 10);
        assert_eq!(graph.constrained_to(Some(&set(&[3, 77]))), set(&[3]));
    }

    #[test]
    fn a_policy_must_be_in_every_certificate() {
        let mut graph = PolicyGraph::new();
        graph.add_certificate(Some(&set(&[1, 2])), true);
        graph.add_certificate(Some(&set(&[2, 3])), true);
        assert_eq!(graph.constrained_to(None), set(&[2]));
        graph.add_certificate(Some(&set(&[3])), true);
        assert!(graph.is_null());
        assert_eq!(graph.constrained_to(None), PolicySet::new());
    }

    #[test]
    fn a_mapped_policy_is_the_issuers_for_the_relying_party() {
        let mut graph = PolicyGraph::new();
        graph.add_certificate(Some(&set(&[1])), true);
        graph.map(&[(oid(1), oid(2))], true);
        graph.add_certificate(Some(&set(&[2])), true);
        assert_eq!(graph.constrained_to(None), set(&[1]));
        assert_eq!(graph.constrained_to(Some(&set(&[2]))), PolicySet::new());
    }

    #[test]
    fn any_policy_is_valid_for_whatever_is_acceptable() {
        let mut graph = PolicyGraph::new();
        graph.add_certificate(Some(&[ANY_POLICY].into()), true);
        assert_eq!(graph.constrained_to(Some(&set(&[7]))), set(&[7]));
        graph.add_certificate(Some(&[ANY_POLICY].into()), false);
        assert!(graph.is_null());
    }
}
