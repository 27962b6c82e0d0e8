//! Chain verification for our own purposes: from a leaf over at most four CAs to an anchor of the
//! caller's, by the engine of [`crate::path`], without revocation (the caller has a [`crate::Crl`]).
//!
//! On the leaf, besides: no CA, key usage and purpose.

mod rejection;

use std::sync::Arc;

use model::{Digest, Epoch, HostId, VmId, api::service::ServiceName};
use time::OffsetDateTime;
use x509_cert::ext::pkix::{KeyUsage, name::GeneralName};

pub use rejection::CertRejection;

use crate::{
    Anchors, Identity, Pool,
    cert::Cert,
    path::{Context, Limits, Oid, Search, Terms, Usage},
    tcg,
    tcg::TpmModel,
};

/// Most intermediates that a caller may offer.
const MAX_OFFERED: usize = 16;
const LIMITS: Limits = Limits { cas: 5, signatures: 32, steps: 1_000, paths: 32 };

const SERVER_AUTH: Oid = Oid::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: Oid = Oid::new_unwrap("1.3.6.1.5.5.7.3.2");
const ANY_USAGE: Oid = Oid::new_unwrap("2.5.29.37.0");

const OCSP_SIGNING: Oid = Oid::new_unwrap("1.3.6.1.5.5.7.3.9");

pub(crate) const fn ocsp_signing() -> Oid {
    OCSP_SIGNING
}

pub(crate) const fn any_usage() -> Oid {
    ANY_USAGE
}

/// What a leaf is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A TPM's endorsement key. Old vendor certificates have no extended key usage; that is
    /// accepted, because the anchors issue nothing but EK certificates.
    EndorsementKey,
    /// A TPM's attestation key.
    AttestationKey,
    /// A TLS client: operator or host session.
    TlsClient,
    /// A TLS server.
    TlsServer,
}

impl Purpose {
    pub(crate) const fn usage(self) -> Oid {
        match self {
            Self::EndorsementKey => tcg::EK_CERTIFICATE,
            Self::AttestationKey => tcg::AK_CERTIFICATE,
            Self::TlsClient => CLIENT_AUTH,
            Self::TlsServer => SERVER_AUTH,
        }
    }

    pub(crate) fn check_leaf(self, leaf: &Cert) -> Result<(), CertRejection> {
        if leaf.is_ca() {
            return Err(CertRejection::LeafIsCa);
        }
        let fits = |usage: KeyUsage| match self {
            Self::EndorsementKey => usage.key_encipherment() || usage.key_agreement(),
            Self::AttestationKey | Self::TlsClient | Self::TlsServer => usage.digital_signature(),
        };
        if leaf.ext().key_usage.is_some_and(|usage| !fits(usage)) {
            return Err(CertRejection::KeyUsage);
        }
        match &leaf.ext().extended_usage {
            Some(usages) if usages.contains(&self.usage()) => Ok(()),
            None if self == Self::EndorsementKey => Ok(()),
            Some(_) | None => Err(CertRejection::Purpose),
        }
    }
}

/// A certificate whose chain was verified: **the proof**, made by [`verify_chain`] alone.
#[derive(Clone, Debug)]
pub struct Verified {
    leaf: Arc<Cert>,
    chain: Vec<Vec<u8>>,
    uris: Vec<String>,
    tpm: Option<TpmModel>,
}

impl Verified {
    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.leaf.der()
    }

    /// The certified key: SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        self.leaf.spki()
    }

    /// Serial number, big-endian.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        self.leaf.serial()
    }

    /// Subject, RFC 4514 text.
    #[must_use]
    pub fn subject(&self) -> String {
        self.leaf.subject_text()
    }

    /// Issuer, RFC 4514 text.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.leaf.issuer_text()
    }

    /// Start of the validity.
    #[must_use]
    pub fn not_before(&self) -> OffsetDateTime {
        self.leaf.not_before()
    }

    /// End of the validity.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.leaf.not_after()
    }

    /// The verified path from leaf to anchor, each DER.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The URIs of the subject alternative name.
    #[must_use]
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// The TPM's manufacturer, model and version, if the certificate names them.
    #[must_use]
    pub const fn tpm(&self) -> Option<&TpmModel> {
        self.tpm.as_ref()
    }

    /// The identities of ours among the URIs. They mean something only if the anchors were ours.
    pub fn identities(&self) -> impl Iterator<Item = Identity> + '_ {
        self.uris.iter().filter_map(|uri| uri.parse().ok())
    }

    /// The host that the certificate names.
    #[must_use]
    pub fn host(&self) -> Option<HostId> {
        self.first(|identity| if let Identity::Host(host) = identity { Some(host) } else { None })
    }

    /// The service that the certificate is the passport of.
    #[must_use]
    pub fn service(&self) -> Option<ServiceName> {
        self.first(
            |identity| if let Identity::Service(name) = identity { Some(name) } else { None },
        )
    }

    /// The operator that the certificate names.
    #[must_use]
    pub fn operator(&self) -> Option<String> {
        self.first(
            |identity| if let Identity::Operator(name) = identity { Some(name) } else { None },
        )
    }

    /// The digest of the verdict on which a host's session or a service's passport rests.
    #[must_use]
    pub fn verdict(&self) -> Option<Digest> {
        self.first(|identity| if let Identity::Verdict(of) = identity { Some(of) } else { None })
    }

    /// The VM that the certificate names, with its epoch if it is bound to one.
    #[must_use]
    pub fn vm(&self) -> Option<(VmId, Option<Epoch>)> {
        self.first(
            |identity| {
                if let Identity::Vm(vm, epoch) = identity { Some((vm, epoch)) } else { None }
            },
        )
    }

    fn first<T>(&self, of: impl FnMut(Identity) -> Option<T>) -> Option<T> {
        self.identities().find_map(of)
    }
}

/// Verifies that `leaf` (DER) was issued, through some of `intermediates` (DER, any order), by one
/// of `anchors`, that all are valid at `now`, and that the leaf is good for `purpose`.
///
/// # Errors
/// [`CertRejection`] says which rule said no.
pub fn verify_chain<C: AsRef<[u8]>>(
    leaf: &[u8],
    intermediates: &[C],
    anchors: &Anchors,
    now: OffsetDateTime,
    purpose: Purpose,
) -> Result<Verified, CertRejection> {
    if intermediates.len() > MAX_OFFERED {
        return Err(CertRejection::TooMany);
    }
    let leaf = Cert::parse(leaf)?;
    leaf.check_time(now)?;
    purpose.check_leaf(&leaf)?;
    let (uris, tpm) = names(&leaf);
    // One that cannot be parsed, or used, may be of no concern to this chain.
    let pool = Pool::new(intermediates)?;
    let usage = Usage::For(purpose);
    let terms = Terms { limits: LIMITS, ..Terms::new(now, usage) };
    let context = Context { pool: &pool, anchors, evidence: None, terms: &terms };
    let found = Search::new(&context).run(&leaf, usage, true)?;
    let chain = found.path.iter().map(|cert| cert.der().to_vec()).collect();
    Ok(Verified { leaf: Arc::new(leaf), chain, uris, tpm })
}

fn names(leaf: &Cert) -> (Vec<String>, Option<TpmModel>) {
    let (mut uris, mut tpm) = (Vec::new(), None);
    for name in leaf.alternative_names() {
        if let GeneralName::UniformResourceIdentifier(uri) = name {
            uris.push(uri.to_string());
        } else if let GeneralName::DirectoryName(name) = name {
            tpm = tpm.or_else(|| TpmModel::from_name(name));
        }
    }
    (uris, tpm)
}
