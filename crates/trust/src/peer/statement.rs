//! Statements: signed with the passport of the moment, believed only with the passport of the host
//! that they name.

use model::{
    HostId,
    api::{Bytes, service::Service},
    migration::{Signed, Statement},
};
use passport::{Current, Passport};
use pki::{Anchors, PassportRejection, Purpose, Wanted, check_passport};
use serve::keys::{self, KeyError};
use thiserror::Error;
use time::OffsetDateTime;

use crate::keeper::Own;

/// Why a statement is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum StatementRejection {
    /// It is no statement.
    #[error("the statement cannot be read")]
    Malformed,
    /// Its passport will not do.
    #[error(transparent)]
    Passport(#[from] PassportRejection),
    /// Not signed by the key of its passport.
    #[error("the statement's signature does not verify")]
    Signature,
    /// It names another verdict than its passport.
    #[error("the statement and its passport name different verdicts")]
    Verdict,
}

impl StatementRejection {
    /// Kebab-case name.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "statement-malformed",
            Self::Passport(rejection) => rejection.code(),
            Self::Signature => "statement-signature",
            Self::Verdict => "statement-verdict",
        }
    }
}

/// This service, by its passport.
pub(super) fn own(current: &Current) -> Own {
    Own { host: current.host.clone(), verdict: current.verdict }
}

/// Signs a statement with a passport's key.
pub(super) fn sign(current: &Current, statement: &Statement) -> Result<Signed, KeyError> {
    let json = serde_json::to_vec(statement).map_err(|_| KeyError::Encode)?;
    let signature = current.key.sign(&Signed::covered(&json))?;
    let passport = current.chain.first().cloned().unwrap_or_default();
    Ok(Signed { statement: Bytes(json), signature: Bytes(signature), passport: Bytes(passport) })
}

/// A statement of the trust service on `host`.
pub(super) fn verify(
    signed: &Signed,
    host: &HostId,
    anchors: &Anchors,
    now: OffsetDateTime,
) -> Result<Statement, StatementRejection> {
    let none: [&[u8]; 0] = [];
    let wanted = Wanted::of(Service::Trust, host.clone());
    let at = (now, Purpose::TlsClient);
    let passport = check_passport(&signed.passport.0, &none, anchors, at, &wanted)?;
    keys::verify(passport.spki(), &Signed::covered(&signed.statement.0), &signed.signature.0)
        .map_err(|_| StatementRejection::Signature)?;
    let statement: Statement =
        serde_json::from_slice(&signed.statement.0).map_err(|_| StatementRejection::Malformed)?;
    if statement.verdict != passport.verdict() {
        return Err(StatementRejection::Verdict);
    }
    Ok(statement)
}

/// Whether the trust service on `host` is to be trusted at this moment; `None`: nobody knows.
pub(super) async fn trusted(passport: &Passport, host: &HostId) -> Option<bool> {
    match passport.standing(host).await {
        Ok(standing) => Some(standing.trusted && standing.services.contains(&Service::Trust)),
        // A host that the authority does not know is not one that it trusts.
        Err(error) if error.refusal().is_some() => Some(false),
        Err(error) => {
            tracing::warn!(error = serve::exit::chain(&error), "a peer's standing is not known");
            None
        }
    }
}
