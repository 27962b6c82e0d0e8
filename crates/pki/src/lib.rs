//! X.509: issuing certificates by named profiles, revoking them, and verifying chains.
//!
//! [`Ca`] issues by [`Profile`]; [`verify_chain`] turns bytes into [`Verified`], whose constructor
//! is private: a value of it is the proof that a chain led to one of the caller's [`Anchors`].
//! [`validate`] is the general question: any PKI, bridges and cross-certificates, policies, name
//! constraints, revocation by CRLs and OCSP; its [`Status`] says aspect by aspect what was checked.
//!
//! **Invariants:** no clock here, `now` comes in; every certificate that goes in is bounded in size,
//! number and search effort; what a certificate says (names, keys) is only readable after it was
//! verified; a verdict is valid only if every aspect was checked. Deliberately absent: sockets
//! (CRLs and OCSP answers come in as bytes, foreign CAs are reached through the caller's
//! [`Transport`]), signatures other than ECDSA P-256/P-384 and RSA from
//! 2048 bits, attribute certificates.

pub mod binding;
mod ca;
mod cert;
mod crl;
mod dn;
mod facts;
mod identity;
pub mod names;
mod ocsp;
mod passport;
mod path;
mod profile;
mod provider;
mod revocation;
mod status;
pub mod tcg;
mod verify;

pub use ca::{Ca, CaSigner, CaSpec, IssueError, Issued, Validity};
pub use crl::{Crl, CrlEntry, CrlPlan, CrlRejection, CrlSubjects, Revocation, RevocationReason};
pub use facts::CertFacts;
pub use identity::Identity;
pub use ocsp::{OcspRejection, OcspReply, OcspStatus, Responder, ocsp_request};
pub use passport::{PassportRejection, ServicePassport, Wanted, check_passport};
pub use path::{Anchors, Effort, Limits, Oid, Pool, Terms, Usage, Validation, validate};
pub use profile::{KeyUses, Profile, UserCert, UserName};
pub use provider::{
    Acme, AcmeConfig, AnswerRejection, Ask, Challenge, ChallengeKind, Challenger, Cmp, CmpConfig,
    CmpCredential, Enrolment, HttpAnswer, HttpRequest, Job, Journal, Ledger, LedgerEntry,
    LedgerError, LostAnswer, Method, Outcome, OwnCa, Patience, Progress, Provider, ProviderError,
    Renewal, RequestId, RevocationAsk, Step, Transport, TransportError,
};
pub use revocation::{CrlMark, CrlMarks, Evidence};
pub use status::{Aspect, Finding, Ground, Refusal, RevocationGround, Revoked, Status, Verdict};
pub use verify::{CertRejection, Purpose, Verified, verify_chain};
