//! Certificates that a path may be built from, found by subject. What is found does not depend on
//! the order in which they came.

use std::{collections::HashMap, sync::Arc};

use crate::{cert::Cert, verify::CertRejection};

/// Most certificates in a pool, and most anchors.
const MAX_POOL: usize = 100_000;
const MAX_ANCHORS: usize = 256;

/// Certificates without duplicates, sorted by their bytes, and found by subject.
#[derive(Clone, Debug, Default)]
struct Index {
    certs: Vec<Arc<Cert>>,
    by_subject: HashMap<Vec<u8>, Vec<usize>>,
}

impl Index {
    fn new(mut certs: Vec<Arc<Cert>>) -> Self {
        certs.sort_by(|a, b| a.der().cmp(b.der()));
        certs.dedup_by(|a, b| a.der() == b.der());
        let mut by_subject: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, cert) in certs.iter().enumerate() {
            by_subject.entry(cert.subject_key().to_vec()).or_default().push(at);
        }
        Self { certs, by_subject }
    }

    fn with_subject(&self, subject: &[u8]) -> impl Iterator<Item = &Cert> {
        let at = self.by_subject.get(subject).map(Vec::as_slice).unwrap_or_default();
        at.iter().filter_map(|at| self.certs.get(*at).map(AsRef::as_ref))
    }
}

/// Trust anchors: CA certificates that the caller's configuration names.
#[derive(Clone, Debug)]
pub struct Anchors(Index);

impl Anchors {
    /// Anchors from CA certificates (DER); at least one.
    ///
    /// # Errors
    /// [`CertRejection`] if there is none, one is malformed or no CA, or there are too many.
    pub fn new<C: AsRef<[u8]>>(certificates: &[C]) -> Result<Self, CertRejection> {
        if certificates.is_empty() {
            return Err(CertRejection::IssuerUnknown);
        }
        if certificates.len() > MAX_ANCHORS {
            return Err(CertRejection::TooMany);
        }
        let mut anchors = Vec::new();
        for der in certificates {
            let anchor = Cert::parse(der.as_ref())?;
            anchor.issuing()?;
            anchors.push(Arc::new(anchor));
        }
        Ok(Self(Index::new(anchors)))
    }

    pub(crate) fn with_subject(&self, subject: &[u8]) -> impl Iterator<Item = &Cert> {
        self.0.with_subject(subject)
    }
}

/// Certificates of CAs, cross-certificates, signers of CRLs: what paths are built from. None of
/// them is trusted for being here.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    index: Index,
    unusable: usize,
}

impl Pool {
    /// A pool of certificates (DER), in any order. One that cannot be parsed is of no use to any
    /// path, and is counted.
    ///
    /// # Errors
    /// [`CertRejection::TooMany`] beyond 100,000.
    pub fn new<C: AsRef<[u8]>>(
        certificates: impl IntoIterator<Item = C>,
    ) -> Result<Self, CertRejection> {
        let (mut certs, mut unusable) = (Vec::new(), 0_usize);
        for der in certificates {
            match Cert::parse(der.as_ref()) {
                Ok(cert) => certs.push(Arc::new(cert)),
                Err(_) => unusable = unusable.saturating_add(1),
            }
            if certs.len().saturating_add(unusable) > MAX_POOL {
                return Err(CertRejection::TooMany);
            }
        }
        Ok(Self { index: Index::new(certs), unusable })
    }

    /// How many certificates it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.certs.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.certs.is_empty()
    }

    /// How many of the certificates that were offered could not be parsed.
    #[must_use]
    pub const fn unusable(&self) -> usize {
        self.unusable
    }

    pub(crate) fn with_subject(&self, subject: &[u8]) -> impl Iterator<Item = &Cert> {
        self.index.with_subject(subject)
    }
}
