//! The search for a path: from the leaf upwards, shortest first, with everything bounded.
//!
//! Only names from which an anchor can be reached at all are followed, in the order of their
//! distance from one, then of the certificates' bytes. Each signature is verified once a search.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{Anchors, Effort, Pool, Terms, Usage, names::Constraints, policy::Policies};
use crate::{
    CertRejection, CrlMark, Evidence, Finding, Refusal, cert::Cert, path::Oid, revocation,
};

/// What a validation rests on.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) anchors: &'a Anchors,
    pub(crate) evidence: Option<&'a Evidence>,
    pub(crate) terms: &'a Terms,
}

/// A path that holds, but for what `revocation` says.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// Leaf first, anchor last.
    pub(crate) path: Vec<&'a Cert>,
    pub(crate) policies: BTreeSet<Oid>,
    pub(crate) revocation: Finding,
}

/// The certificates of one subject.
#[derive(Default)]
struct Group<'a> {
    anchors: Vec<&'a Cert>,
    members: Vec<&'a Cert>,
    /// CAs from here to the nearest anchor, both included, going by names.
    distance: Option<usize>,
}

/// Everything that outlives a single search of one validation: effort and verified signatures.
pub(crate) struct Search<'a, 'c> {
    context: &'c Context<'a>,
    effort: Effort,
    verified: HashMap<(*const Cert, *const Cert), Result<(), CertRejection>>,
    late: Option<CertRejection>,
    /// Certificates whose status is being asked, innermost last.
    pub(crate) asked: Vec<*const Cert>,
    /// The CRLs that were proven.
    pub(crate) marks: Vec<CrlMark>,
}

/// One search.
struct Run<'a, 's, 'c> {
    search: &'s mut Search<'a, 'c>,
    groups: HashMap<&'a [u8], Group<'a>>,
    usage: Usage,
    strict: bool,
    /// The failure of the path that came furthest, and how far that was.
    failed: (usize, CertRejection),
    found: Option<Found<'a>>,
}

impl<'a, 'c> Search<'a, 'c> {
    pub(crate) fn new(context: &'c Context<'a>) -> Self {
        let (effort, late) = (Effort::default(), None);
        let verified = HashMap::new();
        Self { context, effort, verified, late, asked: Vec::new(), marks: Vec::new() }
    }

    pub(crate) const fn context(&self) -> &'c Context<'a> {
        self.context
    }

    pub(crate) const fn effort(&self) -> Effort {
        self.effort
    }

    /// The first certificate that was left out for its dates.
    pub(crate) const fn late(&self) -> Option<CertRejection> {
        self.late
    }

    /// A path from `leaf` to an anchor; `strict`: all valid at the moment that is asked for.
    pub(crate) fn run(
        &mut self,
        leaf: &'a Cert,
        usage: Usage,
        strict: bool,
    ) -> Result<Found<'a>, CertRejection> {
        if leaf.ext().unknown_critical {
            return Err(CertRejection::ExtensionUnknown);
        }
        if let Err(late) = leaf.check_time(self.context.terms.at) {
            self.late = Some(late);
            if strict {
                return Err(late);
            }
        }
        let failed = (0, CertRejection::IssuerUnknown);
        let groups = HashMap::new();
        let mut run = Run { search: self, groups, usage, strict, failed, found: None };
        run.explore(leaf)?;
        let ended = run.extend(&mut vec![leaf]);
        match (run.found, ended) {
            (Some(found), _) => Ok(found),
            (None, Err(rejection)) => Err(rejection),
            (None, Ok(_)) => Err(run.failed.1),
        }
    }

    /// A path for another certificate, met on the way.
    pub(crate) fn aside(
        &mut self,
        cert: &'a Cert,
        usage: Usage,
    ) -> Result<Found<'a>, CertRejection> {
        let late = self.late;
        let found = self.run(cert, usage, true);
        self.late = late;
        found
    }

    pub(crate) fn step(&mut self) -> Result<(), CertRejection> {
        self.effort.steps = self.effort.steps.saturating_add(1);
        if self.effort.steps > self.context.terms.limits.steps {
            return Err(CertRejection::SearchTooLong);
        }
        Ok(())
    }

    /// Counts one more signature.
    pub(crate) fn sign(&mut self) -> Result<(), CertRejection> {
        self.effort.signatures = self.effort.signatures.saturating_add(1);
        if self.effort.signatures > self.context.terms.limits.signatures {
            return Err(CertRejection::SearchTooLong);
        }
        Ok(())
    }

    pub(crate) fn signed_by(&mut self, cert: &Cert, issuer: &Cert) -> Result<(), CertRejection> {
        let edge = (std::ptr::from_ref(cert), std::ptr::from_ref(issuer));
        if let Some(known) = self.verified.get(&edge) {
            return *known;
        }
        self.sign()?;
        let result = cert.verify_signature(issuer);
        self.verified.insert(edge, result);
        result
    }
}

impl<'a> Run<'a, '_, '_> {
    /// Collects everything above `leaf` by name, and how far each name is from an anchor.
    fn explore(&mut self, leaf: &'a Cert) -> Result<(), CertRejection> {
        let (pool, anchors) = (self.search.context.pool, self.search.context.anchors);
        let mut queue = VecDeque::from([leaf.issuer_key()]);
        let mut below: HashMap<&[u8], Vec<&'a [u8]>> = HashMap::new();
        let mut near = VecDeque::new();
        while let Some(name) = queue.pop_front() {
            if self.groups.contains_key(name) {
                continue;
            }
            let mut group = Group::default();
            group.anchors.extend(anchors.with_subject(name));
            for member in pool.with_subject(name) {
                self.search.step()?;
                queue.push_back(member.issuer_key());
                below.entry(member.issuer_key()).or_default().push(name);
                group.members.push(member);
            }
            if !group.anchors.is_empty() {
                group.distance = Some(1);
                near.push_back((name, 1));
            }
            self.groups.insert(name, group);
        }
        while let Some((name, distance)) = near.pop_front() {
            for lower in below.remove(name).unwrap_or_default() {
                let Some(group) = self.groups.get_mut(lower) else { continue };
                if group.distance.is_none() {
                    group.distance = Some(distance + 1);
                    near.push_back((lower, distance + 1));
                }
            }
        }
        self.sort();
        Ok(())
    }

    /// Members nearest to an anchor first; the rest cannot be on any path.
    fn sort(&mut self) {
        let distances: HashMap<&[u8], usize> =
            self.groups.iter().filter_map(|(name, group)| Some((*name, group.distance?))).collect();
        for group in self.groups.values_mut() {
            group.members.retain(|member| distances.contains_key(member.issuer_key()));
            group.members.sort_by_key(|member| distances.get(member.issuer_key()).copied());
        }
    }

    fn distance(&self, name: &[u8]) -> usize {
        self.groups.get(name).and_then(|group| group.distance).unwrap_or(usize::MAX)
    }

    /// Extends `path` to anchors until one path is as good as can be. The error ends the search.
    fn extend(&mut self, path: &mut Vec<&'a Cert>) -> Result<bool, CertRejection> {
        let Some(last) = path.last().copied() else { return Ok(false) };
        let Some(group) = self.groups.get(last.issuer_key()) else { return Ok(false) };
        let (anchors, members) = (group.anchors.clone(), group.members.clone());
        for anchor in anchors.into_iter().filter(|anchor| last.fits_key_of(anchor)) {
            if !self.climb(path, last, anchor)? {
                continue;
            }
            path.push(anchor);
            let done = self.complete(path);
            path.pop();
            if done? {
                return Ok(true);
            }
        }
        let most = self.search.context.terms.limits.cas;
        for issuer in members {
            self.search.step()?;
            if !last.fits_key_of(issuer) || is_on(path, issuer) {
                continue;
            }
            // The CAs so far, this one, and those above it.
            if path.len().saturating_add(self.distance(issuer.issuer_key())) > most {
                self.fail(path.len(), CertRejection::PathTooLong);
                continue;
            }
            if self.climb(path, last, issuer)? {
                path.push(issuer);
                let done = self.extend(path);
                path.pop();
                if done? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn fail(&mut self, depth: usize, rejection: CertRejection) {
        if depth > self.failed.0 {
            self.failed = (depth, rejection);
        }
    }

    /// Whether `issuer` may stand above `last`, the end of `path`. The error ends the search.
    fn climb(
        &mut self,
        path: &[&'a Cert],
        last: &'a Cert,
        issuer: &'a Cert,
    ) -> Result<bool, CertRejection> {
        match self.check(path, last, issuer) {
            Ok(()) => Ok(true),
            Err(CertRejection::SearchTooLong) => Err(CertRejection::SearchTooLong),
            Err(rejection) => {
                self.fail(path.len(), rejection);
                Ok(false)
            }
        }
    }

    fn check(
        &mut self,
        path: &[&'a Cert],
        last: &'a Cert,
        issuer: &'a Cert,
    ) -> Result<(), CertRejection> {
        let limit = issuer.issuing()?;
        let below = path.iter().skip(1).filter(|cert| !cert.is_self_issued()).count();
        let most = self.search.context.terms.limits.cas;
        if limit.is_some_and(|limit| below > usize::from(limit)) || path.len() > most {
            return Err(CertRejection::PathTooLong);
        }
        if let Err(late) = issuer.check_time(self.search.context.terms.at) {
            self.search.late.get_or_insert(late);
            if self.strict {
                return Err(late);
            }
        }
        self.usage.check_issuer(issuer)?;
        self.search.signed_by(last, issuer)
    }

    /// Validates a path that reached an anchor; true if no other can be better.
    fn complete(&mut self, path: &[&'a Cert]) -> Result<bool, CertRejection> {
        let effort = &mut self.search.effort;
        effort.paths = effort.paths.saturating_add(1);
        if effort.paths > self.search.context.terms.limits.paths {
            return Err(CertRejection::SearchTooLong);
        }
        let terms = self.search.context.terms;
        // No policy is asked of the signer of a CRL.
        let plain = (!self.search.asked.is_empty()).then(|| Terms::new(terms.at, self.usage));
        let policies = match rules(plain.as_ref().unwrap_or(terms), path) {
            Ok(policies) => policies,
            Err(rejection) => {
                self.fail(path.len(), rejection);
                return Ok(false);
            }
        };
        let revocation = match self.search.context.evidence {
            Some(_) => revocation::of_path(self.search, path),
            None => Finding::Open(Refusal::NotChecked),
        };
        let best = match &revocation {
            Finding::Good(_) | Finding::Open(Refusal::NotChecked) => true,
            Finding::Bad(Refusal::Revoked(revoked)) => revoked.depth == 0,
            Finding::Bad(_) | Finding::Open(_) => false,
        };
        let open = matches!(revocation, Finding::Open(_));
        let better = self
            .found
            .as_ref()
            .is_none_or(|found| best || open && matches!(found.revocation, Finding::Bad(_)));
        if better {
            self.found = Some(Found { path: path.to_vec(), policies, revocation });
        }
        Ok(best)
    }
}

/// A CA may be on a path once: the same name with another key is a roll-over and no loop.
fn is_on(path: &[&Cert], cert: &Cert) -> bool {
    path.iter().any(|one| one.subject_key() == cert.subject_key() && one.spki() == cert.spki())
}

/// What is checked from the anchor downwards: name constraints and policies.
fn rules(terms: &Terms, path: &[&Cert]) -> Result<BTreeSet<Oid>, CertRejection> {
    let Some((anchor, below)) = path.split_last() else {
        return Err(CertRejection::IssuerUnknown);
    };
    let mut constraints = Constraints::default();
    constraints.add(anchor)?;
    let mut policies = Policies::new(terms, below.len());
    for (depth, cert) in below.iter().enumerate().rev() {
        let last = depth == 0;
        if last || !cert.is_self_issued() {
            constraints.check(cert, last)?;
        }
        policies.enter(cert, last)?;
        if last {
            return policies.finish(cert, &terms.policies);
        }
        policies.leave(cert)?;
        constraints.add(cert)?;
    }
    Err(CertRejection::IssuerUnknown)
}
