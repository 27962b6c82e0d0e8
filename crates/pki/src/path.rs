//! Path building and validation (RFC 5280, section 6, with RFC 9618 for policies).
//!
//! ```text
//! leaf -> issuers by name and key identifier -> ... -> anchor     search (bounded, backs up)
//!         each step: CA, path length, key usage, purpose, dates, loop, signature
//! anchor -> ... -> leaf                                           policies, name constraints
//! each certificate below the anchor                               revocation
//! ```
//! A path that fails anywhere is given up for the next one, so the answer does not depend on the
//! order of the pool. Stricter than the RFC: an anchor's dates, path length and name constraints
//! count, and so do a CA's extended key usages.

mod names;
mod policy;
mod pool;
mod search;

use std::collections::BTreeSet;

use time::OffsetDateTime;
use x509_cert::ext::pkix::KeyUsage;

pub use der::asn1::ObjectIdentifier as Oid;
pub use pool::{Anchors, Pool};
pub(crate) use search::{Context, Found, Search};

use crate::{
    CertRejection, CrlMark, Evidence, Finding, Ground, Purpose, Refusal, Status, Verdict,
    cert::Cert, verify::any_usage,
};

/// What the leaf is to be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Anything; a CA's certificate too.
    Any,
    /// One of our own purposes.
    For(Purpose),
    /// An extended key usage; a certificate without any serves for all.
    Extended(Oid),
    /// Signing CRLs.
    CrlSigning,
}

impl Usage {
    fn check_leaf(self, leaf: &Cert) -> Result<(), CertRejection> {
        match self {
            Self::Any => Ok(()),
            Self::For(purpose) => purpose.check_leaf(leaf),
            Self::Extended(oid) => extended(leaf, oid),
            Self::CrlSigning if leaf.ext().key_usage.is_none_or(|u: KeyUsage| u.crl_sign()) => {
                Ok(())
            }
            Self::CrlSigning => Err(CertRejection::KeyUsage),
        }
    }

    fn check_issuer(self, issuer: &Cert) -> Result<(), CertRejection> {
        match self {
            Self::Any | Self::CrlSigning => Ok(()),
            Self::For(purpose) => extended(issuer, purpose.usage()),
            Self::Extended(oid) => extended(issuer, oid),
        }
    }
}

fn extended(cert: &Cert, wanted: Oid) -> Result<(), CertRejection> {
    let has = |usages: &Vec<Oid>| usages.iter().any(|one| *one == wanted || *one == any_usage());
    if cert.ext().extended_usage.as_ref().is_none_or(has) {
        Ok(())
    } else {
        Err(CertRejection::Purpose)
    }
}

/// How much one validation may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CAs on a path, the anchor included.
    pub cas: usize,
    /// Signatures that are verified.
    pub signatures: u32,
    /// Certificates that are looked at.
    pub steps: u32,
    /// Complete paths that are validated.
    pub paths: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cas: 12, signatures: 512, steps: 100_000, paths: 256 }
    }
}

/// What is asked of a path: the inputs of RFC 5280, section 6.1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The moment for which the question is asked.
    pub at: OffsetDateTime,
    /// What the leaf is to be good for.
    pub usage: Usage,
    /// user-initial-policy-set; empty for any policy.
    pub policies: BTreeSet<Oid>,
    /// initial-explicit-policy: the path must be valid for one of `policies`.
    pub require_policy: bool,
    /// initial-policy-mapping-inhibit.
    pub inhibit_mapping: bool,
    /// initial-any-policy-inhibit.
    pub inhibit_any: bool,
    /// Bounds.
    pub limits: Limits,
}

impl Terms {
    /// Any policy, the usual bounds.
    #[must_use]
    pub fn new(at: OffsetDateTime, usage: Usage) -> Self {
        Self {
            at,
            usage,
            policies: BTreeSet::new(),
            require_policy: false,
            inhibit_mapping: false,
            inhibit_any: false,
            limits: Limits::default(),
        }
    }
}

/// What one validation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Signatures verified.
    pub signatures: u32,
    /// Certificates looked at.
    pub steps: u32,
    /// Complete paths validated.
    pub paths: u32,
}

/// The answer of [`validate`].
#[derive(Clone, Debug)]
pub struct Validation {
    status: Status,
    path: Vec<Vec<u8>>,
    subjects: Vec<String>,
    policies: BTreeSet<Oid>,
    effort: Effort,
    marks: Vec<CrlMark>,
}

impl Validation {
    /// Aspect by aspect.
    #[must_use]
    pub const fn status(&self) -> &Status {
        &self.status
    }

    /// The sum.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.status.verdict()
    }

    /// Why it is not valid.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.status.refusal()
    }

    /// The path from leaf to anchor, DER; empty if there is none.
    #[must_use]
    pub fn path(&self) -> &[Vec<u8>] {
        &self.path
    }

    /// The subjects along the path, leaf first, RFC 4514 text.
    #[must_use]
    pub fn subjects(&self) -> &[String] {
        &self.subjects
    }

    /// The policies under which the path is valid for the caller (2.5.29.32.0: any); empty if it
    /// is under none, which is no fault unless one was required.
    #[must_use]
    pub const fn policies(&self) -> &BTreeSet<Oid> {
        &self.policies
    }

    /// How far the series of the CRLs that were proven have come: to be remembered, so that none
    /// goes back ([`Evidence::remember`]).
    #[must_use]
    pub fn crl_marks(&self) -> &[CrlMark] {
        &self.marks
    }

    /// What the search took.
    #[must_use]
    pub const fn effort(&self) -> Effort {
        self.effort
    }
}

/// Validates `leaf` (DER): builds a path over `pool` to one of `anchors` and says, aspect by
/// aspect, what was found. Without `evidence` revocation stays open, and so the verdict is never
/// valid.
///
/// # Errors
/// [`CertRejection`] if the leaf is not a certificate that can be read.
pub fn validate(
    leaf: &[u8],
    pool: &Pool,
    anchors: &Anchors,
    evidence: Option<&Evidence>,
    terms: &Terms,
) -> Result<Validation, CertRejection> {
    let leaf = Cert::parse(leaf)?;
    let context = Context { pool, anchors, evidence, terms };
    let mut search = Search::new(&context);
    let found = find(&mut search, &leaf, terms.usage);
    let (effort, marks) = (search.effort(), std::mem::take(&mut search.marks));
    let validation = match found {
        Ok((found, time)) => Validation {
            status: status(&found, time, terms.at),
            path: found.path.iter().map(|cert| cert.der().to_vec()).collect(),
            subjects: found.path.iter().map(|cert| cert.subject_text()).collect(),
            policies: found.policies,
            effort,
            marks,
        },
        Err(rejection) => Validation {
            status: Status::without_path(rejection, leaf.check_time(terms.at).err()),
            path: Vec::new(),
            subjects: Vec::new(),
            policies: BTreeSet::new(),
            effort,
            marks,
        },
    };
    Ok(validation)
}

/// A path that is good now; else, so that it can be told what else is known, one that would be
/// good if it were not for the dates.
fn find<'a>(
    search: &mut Search<'a, '_>,
    leaf: &'a Cert,
    usage: Usage,
) -> Result<(Found<'a>, Option<CertRejection>), CertRejection> {
    usage.check_leaf(leaf)?;
    match search.run(leaf, usage, true) {
        Ok(found) => Ok((found, None)),
        Err(rejection) => match search.late() {
            Some(time) => match search.run(leaf, usage, false) {
                Ok(found) => Ok((found, Some(time))),
                Err(_) => Err(rejection),
            },
            None => Err(rejection),
        },
    }
}

fn status(found: &Found<'_>, time: Option<CertRejection>, at: OffsetDateTime) -> Status {
    let length = found.path.len();
    let late = time.map(Refusal::Certificate);
    let revocation = match (&found.revocation, late) {
        // CRLs forget what has expired.
        (Finding::Good(_), Some(late)) => Finding::Open(late),
        (finding, _) => finding.clone(),
    };
    Status {
        issuer_trust: Finding::Good(Ground::Path(length)),
        revocation,
        validity: late.map_or(Finding::Good(Ground::At(at)), Finding::Bad),
        signature: Finding::Good(Ground::Signatures(length.saturating_sub(1))),
    }
}
