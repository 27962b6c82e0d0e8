//! Why the keeper does not do what it is asked: a rule said no ([`Refusal`]), or it could not be
//! decided ([`Fault`]). The client learns a [`KeyFailure`] only; the audit log has the name.

use anchor::{AnchorFault, StateError};
use model::keys::order::KeyFailure;
use store::typed::RecordError;
use thiserror::Error;

journal::refusals! {
    /// What the client is told.
    failure: KeyFailure;

    /// An operator must agree, and the client cannot wait.
    ApprovalNeeded, "approval-needed", NotSynchronous, "an operator must agree and the client cannot wait", "the client must offer #Pending, or set `keeper.approval = \"none\"`";
    /// None of the keys that may authenticate the order verified.
    AuthenticationFailed, "authentication-failed", NoAuthentication, "the authentication verified under no key that may order this", "`vouchsafe key authorize` makes a new pass phrase";
    /// Authenticated in a way that this order does not take.
    AuthenticationKind, "authentication-kind", NoAuthentication, "this order is not taken with this kind of authentication", "use the pass phrase or the key's own signature";
    /// The pass phrase is over after too many wrong tries.
    AuthorizationExhausted, "authorization-exhausted", NoAuthentication, "the pass phrase ended after too many wrong tries", "`vouchsafe key authorize` makes a new one";
    /// The pass phrase's time is over.
    AuthorizationExpired, "authorization-expired", NoAuthentication, "the pass phrase has expired", "`vouchsafe key authorize` makes a new one";
    /// No such pass phrase.
    AuthorizationUnknown, "authorization-unknown", NoAuthentication, "there is no such authorization", "`vouchsafe key authorize` makes one";
    /// The pass phrase was used for another order.
    AuthorizationUsed, "authorization-used", NoAuthentication, "the pass phrase was used before", "`vouchsafe key authorize` makes a new one";
    /// More than one binding is like the example.
    BindingAmbiguous, "binding-ambiguous", Refused, "more than one binding is like the example", "name the key or the certificate";
    /// The binding's interval is over.
    BindingExpired, "binding-expired", Refused, "the binding has expired", "register the key anew";
    /// The binding was revoked.
    BindingRevoked, "binding-revoked", Refused, "the binding was revoked", "register another key";
    /// No binding is like the example.
    BindingUnknown, "binding-unknown", NotAuthoritative, "no binding is like the example", "`vouchsafe key list` shows those that are";
    /// The centre is away.
    CentreAway, "centre-away", Busy, "the key-management centre is away, and the library has no answer", "ask again later; `vouchsafe key status` shows since when";
    /// The centre, or the line to it, has too much to do.
    CentreBusy, "centre-busy", Busy, "too much is being asked of the key-management centre", "ask again later";
    /// The centre said no.
    CentreRefused, "centre-refused", Refused, "the key-management centre refused it", "its audit log, and ours, have the name";
    /// What the centre handed over is not what was ordered.
    CertificateUnfit, "certificate-unfit", Internal, "the certificate is not for the key that was ordered, or leads to no anchor", "the centre's PKI must be the one that was configured";
    /// No CRL came from the centre yet.
    CrlNotThere, "crl-not-there", NotSupported, "no revocation list has come from the PKI yet", "ask again later, or ask the PKI itself";
    /// The example says nothing by which a key can be found.
    ExampleEmpty, "example-empty", TooMany, "the example says nothing by which a key can be found", "give a name, a key, a certificate or an application";
    /// An epoch that no honest service can have reached.
    EpochAhead, "epoch-ahead", Refused, "the migration's epoch is zero or ahead of the clock", "compare the clocks of both machines";
    /// No escrow here.
    EscrowOff, "escrow-off", NotSupported, "no keys are in escrow here", "`keeper.escrow` chooses it for keys made from then on";
    /// Too many foreign chains are being judged.
    ForeignBusy, "foreign-busy", Busy, "too many foreign certificates are being judged", "ask again later";
    /// A foreign certificate that cannot be read.
    ForeignUnreadable, "foreign-unreadable", Refused, "the certificate cannot be read", "send one X.509 certificate in DER";
    /// An operator ended the migration.
    MigrationCancelled, "migration-cancelled", Refused, "an operator ended the migration", "`vouchsafe key migrate` begins another";
    /// The migration is older than what is known of the owner.
    MigrationStale, "migration-stale", Refused, "the migration is older than what this service knows of the owner", "`vouchsafe key migrate` begins another";
    /// Nobody announced that these keys come from there.
    MigrationUnexpected, "migration-unexpected", Refused, "nobody announced here that this owner's keys come from that host", "`vouchsafe key expect --owner NAME --from HOST` on the target";
    /// No such migration here.
    MigrationUnknown, "migration-unknown", Refused, "this service knows of no such migration", "`vouchsafe key migrate` begins one";
    /// A question about a key of a higher grade than the asker's.
    GradeTooLow, "grade-too-low", Refused, "the key has a higher grade than whoever asks", "`vouchsafe key allow` allows it; questions count as the key's that signed them";
    /// Authenticated by the key of another binding.
    HolderOther, "holder-other", NoAuthentication, "authenticated by another key than that of the binding", "sign with the binding's own key";
    /// An import where there is no CA.
    ImportElsewhere, "import-elsewhere", NotSupported, "many bindings at once are certified by a CA of the service's own; here the centre's PKI certifies, one order after the other", "import at a service with `keeper.manner = \"full\"`, or order each by `vouchsafe key authorize` and Register";
    /// An instant before there was this service.
    InstantBeforeService, "instant-before-service", TimeInstantOutOfRange, "the instant lies before this service began", "ask about a later instant";
    /// The interval that was asked for is empty.
    IntervalEmpty, "interval-empty", Refused, "the interval that was asked for is empty or over", "ask for a later end";
    /// Another PKI certifies and publishes.
    IssuedElsewhere, "issued-elsewhere", NotSupported, "certificates are issued by the key-management centre's PKI", "`keeper.manner = \"full\"` has a CA here";
    /// No keys are made here.
    KeyGenerationOff, "key-generation-off", NotSupported, "no keys are made here", "`keeper.generate_keys` chooses it, or send a key";
    /// The target's parent is not in the TPM that the target enrolled.
    KeyParentForeign, "key-parent-foreign", Refused, "the parent for the owner's key is not in the TPM that the target's host enrolled", "compare the target's agent with what `vouchsafe host show NAME` has";
    /// The target has no TPM for the owner's key.
    KeyParentMissing, "key-parent-missing", Refused, "the owner's key lives in a TPM, and the target named no parent for it", "the target's agent must answer; see docs/protocols/key-migration.md";
    /// The host's TPM cannot be asked.
    KeyTpmAway, "key-tpm-away", Busy, "the host's TPM, where the owner's key lives, cannot be asked now", "the agent must run and answer on `agent_socket`";
    /// A key that the CA does not certify.
    KeyNotCertifiable, "key-not-certifiable", Refused, "the key is too weak, malformed, or fits none of the uses", "P-256, P-384, or RSA from 2048 bits";
    /// A binding of this key was revoked.
    KeyRevoked, "key-revoked", Refused, "a binding of this key was revoked", "register another key";
    /// No name, or one that cannot be certified.
    NameInvalid, "name-invalid", Refused, "the key's name is missing or cannot be certified", "1 to 64 printable characters";
    /// The private key is not in escrow.
    NotEscrowed, "not-escrowed", Refused, "the private key is not in escrow", "only keys that were made here with escrow are";
    /// No order that waits has this name.
    OrderUnknown, "order-unknown", Refused, "no order that waits has this name", "`vouchsafe key list` shows those that do";
    /// The order is with the centre, and the client cannot wait.
    OrderUnderWay, "order-under-way", NotSynchronous, "the order is with the key-management centre, and the client cannot wait", "the same order again gets the answer; or offer #Pending";
    /// An operator said no.
    OperatorRefused, "operator-refused", Refused, "an operator refused the order", "ask the operator";
    /// The operator's name is not one.
    OperatorInvalid, "operator-invalid", Refused, "the operator's name is missing or too long", "1 to 64 printable characters";
    /// The owner's name is not a VM's.
    OwnerInvalid, "owner-invalid", Refused, "the owner's name is not that of a VM", "lower-case letters, digits and inner hyphens, at most 40";
    /// The owner's keys are being moved.
    OwnerMigrating, "owner-migrating", Busy, "the owner's keys are being moved", "`vouchsafe key migration --owner NAME` says how far it is";
    /// The owner's keys were moved away.
    OwnerMoved, "owner-moved", NotAuthoritative, "the owner's keys were moved to another trust service", "ask the trust service of the VM's present server";
    /// The target has keys of this owner.
    OwnerPresent, "owner-present", Refused, "the target has keys of this owner already", "two VMs have the same name, or the keys were moved before";
    /// The owner has more than moves at once.
    OwnerTooLarge, "owner-too-large", Refused, "the owner has more records than can be moved at once", "revoke what is not used any more";
    /// The owner has no keys here.
    OwnerUnknown, "owner-unknown", Refused, "the owner has no keys here", "`vouchsafe key authorize --owner NAME` makes the first";
    /// The parcel is not the one that was agreed on.
    ParcelUnfit, "parcel-unfit", Refused, "the parcel is not the one that was agreed on", "`vouchsafe key migrate` begins another";
    /// The other trust service is not to be trusted now.
    PeerUntrusted, "peer-untrusted", Refused, "the other trust service is not to be trusted now", "`vouchsafe host show NAME` has its host's verdict";
    /// It is another trust service's.
    PeerWrong, "peer-wrong", Refused, "the migration is with another trust service", "compare host and address";
    /// No other trust services are spoken to.
    PeersOff, "peers-off", NotSupported, "this trust service speaks to no others", "the table `[peer]` of its configuration turns it on";
    /// Pass phrases are off.
    PassPhrasesOff, "pass-phrases-off", Refused, "pass phrases are off", "`keeper.pass_phrases = true` allows them";
    /// Possession was not proven.
    PossessionMissing, "possession-missing", PossessionRequired, "possession of the key was not proven", "sign the binding with the key itself";
    /// Possession of another key was proven.
    PossessionOther, "possession-other", PossessionRequired, "possession of another key was proven", "sign the binding with the key itself";
    /// Recovery was not approved by enough operators.
    RecoveryNotApproved, "recovery-not-approved", NoAuthentication, "the recovery was not approved, or its phrase is over", "`vouchsafe key approve-recovery`, by two operators";
    /// Too many certificates of one binding are alive.
    ReissuedTooOften, "reissued-too-often", Refused, "too many certificates of this binding are still valid", "wait until older ones have expired";
    /// The binding has no revocation code.
    RevocationCodeNone, "revocation-code-none", NoAuthentication, "the binding was registered without a revocation code", "revoke by signature, or `vouchsafe key revoke`";
    /// Too many wrong codes for this binding.
    RevocationCodeThrottled, "revocation-code-throttled", NoAuthentication, "too many wrong revocation codes for this binding", "`vouchsafe key revoke` ends it at once";
    /// A wrong revocation code.
    RevocationCodeWrong, "revocation-code-wrong", NoAuthentication, "the revocation code is wrong", "`vouchsafe key revoke` ends it";
    /// One operator twice.
    SameOperator, "same-operator", Refused, "this operator approved before; another one must", "a second operator must approve";
    /// A certificate that moved here leads to no CA that this service knows.
    IssuerUnknown, "issuer-unknown", Refused, "a certificate of the parcel leads to no CA that the target was told of", "`vouchsafe key expect --owner NAME --from HOST --ca FILE` on the target, with the source's `ca.pem`";
    /// A use that the pass phrase does not allow.
    UseNotAuthorized, "use-not-authorized", Refused, "the pass phrase does not allow this use", "`vouchsafe key authorize --uses ...`";
    /// The certificate is of another CA than this service has.
    IssuerElsewhere, "issuer-elsewhere", Refused, "the binding moved here; its CA is another trust service's, which alone can renew it", "register the key anew here";
    /// An application's name that cannot be certified.
    UseWithInvalid, "use-with-invalid", Refused, "a name does not have the form of its application", "see docs/protocols/trust.md";
    /// An application that the pass phrase does not allow.
    UseWithNotAuthorized, "use-with-not-authorized", Refused, "the pass phrase does not allow this application or name", "`vouchsafe key authorize --use-with APPLICATION=NAME`";
}

impl From<pki::names::UseWithInvalid> for Refusal {
    fn from(_: pki::names::UseWithInvalid) -> Self {
        Self::UseWithInvalid
    }
}

/// It could not be decided.
#[derive(Debug, Error)]
pub enum Fault {
    /// The store is not the newest there is, or cannot be anchored.
    #[error("the library cannot be anchored")]
    Anchor(#[from] AnchorFault),
    /// The audit log.
    #[error("the audit log cannot be written")]
    Audit(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The CA.
    #[error("the CA cannot do it")]
    Ca(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Others changed the same records again and again.
    #[error("the records changed meanwhile")]
    Contended,
    /// Key material.
    #[error("a key cannot be made or used")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The records.
    #[error("the library cannot be used")]
    Records(#[from] RecordError),
    /// The state directory.
    #[error("the state cannot be opened")]
    State(#[from] StateError),
}

impl From<serve::config::SecretError> for Fault {
    fn from(error: serve::config::SecretError) -> Self {
        Self::key(error)
    }
}

impl Fault {
    pub(crate) fn ca(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Ca(Box::new(error))
    }

    pub(crate) fn key(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Key(Box::new(error))
    }

    pub(crate) fn audit(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Audit(Box::new(error))
    }
}

impl From<pki::names::UseWithInvalid> for Why {
    fn from(invalid: pki::names::UseWithInvalid) -> Self {
        Self::Refused(invalid.into())
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
}

impl From<RecordError> for Why {
    fn from(error: RecordError) -> Self {
        Self::Fault(error.into())
    }
}

impl Why {
    /// What the client is told.
    #[must_use]
    pub const fn failure(&self) -> KeyFailure {
        match self {
            Self::Fault(Fault::Contended) => KeyFailure::Busy,
            Self::Fault(_) => KeyFailure::Internal,
            Self::Refused(refusal) => refusal.failure(),
        }
    }
}
