//! The other end: its passport is asked for and checked, in both directions.

use std::sync::Arc;

use http::StatusCode;
use pki::{Anchors, PassportRejection, Purpose, ServicePassport, Wanted, check_passport};
use serve::{
    client::{CallError, Client, ClientError, ClientLimits, ServerCheck},
    https::{Peer, PeerRejection, ServerTls, TlsError},
    problem::Problem,
};
use time::OffsetDateTime;

use crate::{Current, Passport};

/// What a peer is told whose passport will not do.
#[must_use]
pub fn problem(rejection: PassportRejection) -> Problem {
    let problem = Problem::refusal(rejection.code(), rejection.to_string()).hint(rejection.hint());
    match rejection {
        PassportRejection::Missing => problem.status(StatusCode::UNAUTHORIZED),
        PassportRejection::Expired
        | PassportRejection::Foreign(_)
        | PassportRejection::NotYetValid
        | PassportRejection::WrongHost
        | PassportRejection::WrongService => problem,
    }
}

/// A server must have this passport.
#[derive(Debug)]
struct Demand {
    anchors: Anchors,
    wanted: Wanted,
}

impl ServerCheck for Demand {
    fn check(
        &self,
        leaf: &[u8],
        intermediates: &[&[u8]],
        now: OffsetDateTime,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let at = (now, Purpose::TlsServer);
        let checked = check_passport(leaf, intermediates, &self.anchors, at, &self.wanted);
        checked.map(drop).map_err(Into::into)
    }
}

/// Why a call failed for the server's passport, if it did.
#[must_use]
pub fn rejection(error: &CallError) -> Option<PassportRejection> {
    error.server_rejection()?.downcast_ref().copied()
}

impl Passport {
    /// A client of the service at `url` that shows this passport and demands `wanted` of the
    /// server. Make another one when the passport was renewed ([`Current::generation`]).
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn client(
        &self,
        current: &Current,
        url: &str,
        wanted: Wanted,
        limits: ClientLimits,
    ) -> Result<Client, ClientError> {
        let identity = current.identity().map_err(|_| TlsError::Key)?;
        let check = Arc::new(Demand { anchors: current.trusted.clone(), wanted });
        Client::checked(url, check, Some(&identity), self.inner.clock.clone(), limits)
    }

    /// A server's side of TLS: shows the newest passport, and takes clients' certificates of the
    /// same CAs. Whom they belong to is for [`Passport::caller`] to say, request by request.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn server_tls(&self, current: &Current) -> Result<ServerTls, TlsError> {
        ServerTls::live(&self.inner.live, &current.anchors, self.inner.clock.clone())
    }

    /// Who calls, if that is whom this operation is for.
    ///
    /// # Errors
    /// [`PassportRejection`]; [`problem`] is the answer.
    pub fn caller(
        &self,
        peer: &Peer,
        wanted: &Wanted,
    ) -> Result<ServicePassport, PassportRejection> {
        let now = self.inner.clock.now();
        let certificate = peer.certificate(now).map_err(|rejection| match rejection {
            PeerRejection::CertificateMissing => PassportRejection::Missing,
            PeerRejection::ClockSkew => PassportRejection::NotYetValid,
            PeerRejection::SessionExpired => PassportRejection::Expired,
        })?;
        let current = self.current().ok_or(PassportRejection::Missing)?;
        let none: [&[u8]; 0] = [];
        let at = (now, Purpose::TlsClient);
        check_passport(&certificate.der, &none, &current.trusted, at, wanted)
    }
}
