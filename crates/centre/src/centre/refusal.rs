//! Why the centre does not do what it is asked: a rule said no ([`Refusal`]), or it could not be
//! decided ([`Fault`]).

use anchor::{AnchorFault, StateError};
use http::StatusCode;
use serve::problem::Problem;
use store::typed::RecordError;
use thiserror::Error;

journal::refusals! {
    /// The status of the answer.
    status: StatusCode;

    /// A certificate that the tenant did not order here.
    CertificateForeign, "certificate-foreign", FORBIDDEN, "the tenant did not order this certificate here", "renew and revoke where, and as whom, it was ordered";
    /// A certificate that cannot be read.
    CertificateUnreadable, "certificate-unreadable", BAD_REQUEST, "the certificate cannot be read", "send one X.509 certificate in DER";
    /// The tenant may not order from this PKI.
    DomainNotAllowed, "domain-not-allowed", FORBIDDEN, "the tenant may not order from this PKI", "add the PKI to `domains` of the tenant in the centre's configuration";
    /// No PKI has this name.
    DomainUnknown, "domain-unknown", FORBIDDEN, "the centre has no PKI of this name", "`[[domain]]` in the centre's configuration lists them";
    /// The example says nothing by which a key can be found.
    ExampleEmpty, "example-empty", BAD_REQUEST, "the example says nothing by which a key can be found", "give a name, a key, a certificate or an application";
    /// The tenant's orders do not come from this server.
    HostNotAllowed, "host-not-allowed", FORBIDDEN, "the tenant is not on this server", "add the server to `hosts` of the tenant in the centre's configuration";
    /// The interval that was asked for is empty.
    IntervalEmpty, "interval-empty", BAD_REQUEST, "the interval that was asked for is empty or over", "ask for a later end";
    /// No key to certify.
    KeyMissing, "key-missing", BAD_REQUEST, "the order has no key to certify", "the centre makes no keys: send the public key";
    /// The report of a service that the migration does not concern.
    MigrationForeign, "migration-foreign", FORBIDDEN, "the migration concerns other trust services", "only its source and its target report on it";
    /// The migration is at its end.
    MigrationOver, "migration-over", CONFLICT, "the migration is at its end", "order another one";
    /// No migration has this id.
    MigrationUnknown, "migration-unknown", NOT_FOUND, "there is no migration with this id", "the id is in the answer of `migrate`";
    /// No name.
    NameInvalid, "name-invalid", BAD_REQUEST, "the key's name is missing or cannot be certified", "1 to 64 printable characters";
    /// Another order was given under this id.
    OrderReused, "order-reused", CONFLICT, "another order was given under this id", "choose a new id for each order";
    /// No order has this id.
    OrderUnknown, "order-unknown", NOT_FOUND, "there is no order with this id", "send the order again: the same id makes it the same order";
    /// The owner's keys are under way already.
    OwnerMoving, "owner-moving", CONFLICT, "the owner's keys are under way already", "wait until that migration is at its end";
    /// Larger than an order is.
    OrderTooLarge, "order-too-large", BAD_REQUEST, "the order is larger than 64 KiB", "leave out names that are not needed";
    /// An owner's name that is not one.
    OwnerInvalid, "owner-invalid", BAD_REQUEST, "the owner is not the name of a VM", "lower-case letters, digits and inner hyphens, 1 to 40";
    /// A place where nobody can be reached.
    PeerUrlInvalid, "peer-url-invalid", BAD_REQUEST, "the place is not of the form https://HOST:PORT", "say where other trust services reach this one";
    /// Too many questions are being answered.
    QuestionBusy, "question-busy", TOO_MANY_REQUESTS, "too many questions are being answered", "ask again later";
    /// No room for another order.
    QueueFull, "queue-full", TOO_MANY_REQUESTS, "the tenant, or all together, have as many open orders as there is room for", "send it again after the time in Retry-After, under the same id";
    /// The PKI wants the subject's own request.
    RequestMissing, "request-missing", BAD_REQUEST, "this PKI certifies only by the subject's own request (PKCS #10)", "send the request along";
    /// Source and target are the same.
    SameService, "same-service", BAD_REQUEST, "source and target are the same trust service", "name another server as the target";
    /// A trust service that never said hello.
    ServiceUnknown, "service-unknown", NOT_FOUND, "no trust service of this server said hello", "its `[keeper.centre]` must name this centre";
    /// No tenant has this name.
    TenantUnknown, "tenant-unknown", FORBIDDEN, "the centre has no tenant of this name", "`[[tenant]]` in the centre's configuration lists them";
    /// An application's name that cannot be certified.
    UseWithInvalid, "use-with-invalid", BAD_REQUEST, "a name does not have the form of its application", "see docs/protocols/trust.md";
}

/// It could not be decided.
#[derive(Debug, Error)]
pub enum Fault {
    /// The store is not the newest there is, or cannot be anchored.
    #[error("the store cannot be anchored")]
    Anchor(#[from] AnchorFault),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] journal::JournalError),
    /// Others changed the same records again and again.
    #[error("the records changed meanwhile")]
    Contended,
    /// A file of the centre.
    #[error("a file of the centre cannot be used")]
    File(#[from] serve::fsfile::FileError),
    /// Key material.
    #[error("a key cannot be made or used")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A PKI.
    #[error("the PKI {domain} cannot be used")]
    Pki {
        /// Its name.
        domain: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The records.
    #[error("the store cannot be used")]
    Records(#[from] RecordError),
    /// The state directory.
    #[error("the state cannot be opened")]
    State(#[from] StateError),
}

impl Fault {
    pub(crate) fn key(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Key(Box::new(error))
    }

    pub(crate) fn pki(
        domain: &model::Domain,
    ) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> Self + use<> {
        let domain = domain.to_string();
        move |source| Self::Pki { domain: domain.clone(), source }
    }
}

impl From<serve::config::SecretError> for Fault {
    fn from(error: serve::config::SecretError) -> Self {
        Self::key(error)
    }
}

/// Why not.
#[derive(Debug, Error)]
pub enum Why {
    /// It could not be decided.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A rule said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no room; so many seconds later there may be.
    #[error("there is no room for another order")]
    Full {
        /// Seconds.
        retry_after: u64,
    },
}

impl From<RecordError> for Why {
    fn from(error: RecordError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<journal::JournalError> for Why {
    fn from(error: journal::JournalError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<pki::names::UseWithInvalid> for Why {
    fn from(_: pki::names::UseWithInvalid) -> Self {
        Self::Refused(Refusal::UseWithInvalid)
    }
}

impl Why {
    /// The rule, if one said no.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Fault(_) => None,
            Self::Refused(refusal) => Some(*refusal),
            Self::Full { .. } => Some(Refusal::QueueFull),
        }
    }

    /// What the trust service is told. The cause of a fault goes to the log only.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let Some(refusal) = self.refusal() else { return Problem::internal() };
        let problem = Problem::refusal(refusal.name(), refusal.to_string())
            .status(refusal.status())
            .hint(refusal.hint());
        match self {
            Self::Full { retry_after } => problem.detail(format!("again after {retry_after} s")),
            Self::Fault(_) | Self::Refused(_) => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_rule_has_a_name_of_its_own_and_a_hint() {
        let names: BTreeSet<&str> = Refusal::ALL.iter().map(|one| one.name()).collect();
        assert_eq!(names.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            assert!(!refusal.hint().is_empty() && refusal.status().is_client_error());
        }
    }
}
