//! Certificate policies along a path: the graph of RFC 9618 (section 5), which gives the answers of
//! the tree of RFC 5280, section 6.1, in linear space.

use std::collections::{BTreeMap, BTreeSet};

use der::asn1::ObjectIdentifier as Oid;

use super::Terms;
use crate::{cert::Cert, verify::CertRejection};

pub(crate) const ANY: Oid = Oid::new_unwrap("2.5.29.32.0");

struct Node {
    expected: BTreeSet<Oid>,
    parents: BTreeSet<Oid>,
}

impl Node {
    fn new(policy: Oid, parents: BTreeSet<Oid>) -> Self {
        Self { expected: [policy].into(), parents }
    }
}

/// The state of the policy checks between two certificates of a path.
pub(super) struct Policies {
    /// One level a certificate, the first above all; a null graph is an empty last level.
    levels: Vec<BTreeMap<Oid, Node>>,
    explicit: usize,
    mapping: usize,
    inhibit_any: usize,
}

impl Policies {
    /// Before the first of `length` certificates (the anchor does not count).
    pub(super) fn new(terms: &Terms, length: usize) -> Self {
        let start = |set: bool| if set { 0 } else { length.saturating_add(1) };
        Self {
            levels: vec![[(ANY, Node::new(ANY, BTreeSet::new()))].into()],
            explicit: start(terms.require_policy),
            mapping: start(terms.inhibit_mapping),
            inhibit_any: start(terms.inhibit_any),
        }
    }

    /// RFC 5280, 6.1.3 (d)-(f), for one certificate.
    pub(super) fn enter(&mut self, cert: &Cert, last: bool) -> Result<(), CertRejection> {
        let any_counts = self.inhibit_any > 0 || (!last && cert.is_self_issued());
        let above = self.levels.last();
        let level = match (above, cert.policies()) {
            (Some(above), Some(policies)) => next_level(above, policies, any_counts),
            (None, _) | (_, None) => BTreeMap::new(),
        };
        self.levels.push(level);
        if self.explicit == 0 && self.is_null() {
            return Err(CertRejection::PolicyMissing);
        }
        Ok(())
    }

    /// RFC 5280, 6.1.4 (a), (b), (h)-(j): after a certificate that is not the last.
    pub(super) fn leave(&mut self, cert: &Cert) -> Result<(), CertRejection> {
        let mappings = cert.mappings();
        if mappings.iter().any(|(from, to)| *from == ANY || *to == ANY) {
            return Err(CertRejection::PolicyMapping);
        }
        self.map(mappings);
        if !cert.is_self_issued() {
            for count in [&mut self.explicit, &mut self.mapping, &mut self.inhibit_any] {
                *count = count.saturating_sub(1);
            }
        }
        let (require, inhibit) = cert.policy_constraints();
        lower(&mut self.explicit, require);
        lower(&mut self.mapping, inhibit);
        lower(&mut self.inhibit_any, cert.inhibit_any());
        Ok(())
    }

    fn map(&mut self, mappings: &[(Oid, Oid)]) {
        let allowed = self.mapping > 0;
        let Some(level) = self.levels.last_mut() else { return };
        let mut mapped: BTreeMap<Oid, BTreeSet<Oid>> = BTreeMap::new();
        for (from, to) in mappings {
            mapped.entry(*from).or_default().insert(*to);
        }
        for (from, to) in mapped {
            if !allowed {
                level.remove(&from);
            } else if let Some(node) = level.get_mut(&from) {
                node.expected = to;
            } else if level.contains_key(&ANY) {
                level.insert(from, Node { expected: to, parents: [ANY].into() });
            }
        }
    }

    /// RFC 5280, 6.1.5 (a), (b), (g) with RFC 9618: the policies under which the path is valid for
    /// the caller; [`ANY`] among them if any will do.
    pub(super) fn finish(
        mut self,
        last: &Cert,
        wanted: &BTreeSet<Oid>,
    ) -> Result<BTreeSet<Oid>, CertRejection> {
        self.explicit = self.explicit.saturating_sub(1);
        if last.policy_constraints().0 == Some(0) {
            self.explicit = 0;
        }
        let authority = self.authority_constrained();
        let any_wanted = wanted.is_empty() || wanted.contains(&ANY);
        let user: BTreeSet<Oid> = if any_wanted {
            authority
        } else if authority.contains(&ANY) {
            wanted.clone()
        } else {
            authority.intersection(wanted).copied().collect()
        };
        if self.explicit == 0 && user.is_empty() {
            return Err(CertRejection::PolicyMissing);
        }
        Ok(user)
    }

    /// The policies of nodes below anyPolicy from which the last level is reached.
    fn authority_constrained(&self) -> BTreeSet<Oid> {
        let mut found = BTreeSet::new();
        let Some(last) = self.levels.last() else { return found };
        if last.contains_key(&ANY) {
            found.insert(ANY);
        }
        let mut alive: BTreeSet<Oid> = last.keys().copied().collect();
        for level in self.levels.iter().skip(1).rev() {
            let mut parents = BTreeSet::new();
            for (policy, node) in level.iter().filter(|(policy, _)| alive.contains(*policy)) {
                if *policy != ANY && node.parents.contains(&ANY) {
                    found.insert(*policy);
                }
                parents.extend(node.parents.iter().copied());
            }
            alive = parents;
        }
        found
    }

    fn is_null(&self) -> bool {
        self.levels.last().is_none_or(BTreeMap::is_empty)
    }
}

fn next_level(
    above: &BTreeMap<Oid, Node>,
    policies: &[Oid],
    any_counts: bool,
) -> BTreeMap<Oid, Node> {
    let mut expecting: BTreeMap<Oid, BTreeSet<Oid>> = BTreeMap::new();
    for (policy, node) in above {
        for expected in &node.expected {
            expecting.entry(*expected).or_default().insert(*policy);
        }
    }
    let mut level = BTreeMap::new();
    for policy in policies.iter().copied().filter(|policy| *policy != ANY) {
        if let Some(parents) = expecting.get(&policy) {
            level.insert(policy, Node::new(policy, parents.clone()));
        } else if above.contains_key(&ANY) {
            level.insert(policy, Node::new(policy, [ANY].into()));
        }
    }
    if any_counts && policies.contains(&ANY) {
        for (policy, parents) in expecting {
            level.entry(policy).or_insert_with(|| Node::new(policy, parents));
        }
    }
    level
}

fn lower(count: &mut usize, to: Option<u32>) {
    if let Some(to) = to {
        *count = (*count).min(usize::try_from(to).unwrap_or(usize::MAX));
    }
}
