//! Which host AKs are revoked, for relying parties that check an exported chain.

use std::time::Duration;

use axum::extract::State;
use model::api::{
    Bytes,
    enrol::{HostMode, RevocationList},
};
use pki::{Purpose, Revocation, RevocationReason, Validity, verify_chain};
use time::OffsetDateTime;

use super::{
    Route, Who,
    gate::{Answer, Outcome},
    shape::Shape,
};
use crate::{app::App, caller::Anyone, failure::Failure, keyring::KeyringError};

/// How long a list is good.
const LIFE: Duration = Duration::from_secs(86_400);

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![Route::get(
        "/v1/crl",
        (Who::Anyone, "crl"),
        "List the AK certificates of revoked hosts",
        Shape::of::<RevocationList>(),
        list,
    )]
}

async fn list(State(app): State<App>, _anyone: Anyone) -> Outcome<RevocationList> {
    let now = app.date();
    let none: [&[u8]; 0] = [];
    let mut revoked = Vec::new();
    let mut over = Vec::new();
    for host in app.records.hosts().await? {
        over.extend(host.former.iter().map(|(der, at)| (der.clone(), Some(*at))));
        if host.mode == HostMode::Revoked {
            over.push((host.identity.ak_certificate, host.revoked_at));
        }
    }
    for (der, since) in over {
        // One that has expired meanwhile needs no entry.
        let anchors = &app.keys.anchors;
        let Ok(ak) = verify_chain(&der.0, &none, anchors, now, Purpose::AttestationKey) else {
            continue;
        };
        let serial = ak.serial().try_into().map_err(|_| Failure::broken("a serial number"))?;
        let at = since.and_then(date).unwrap_or(now);
        revoked.push(Revocation { serial, at, reason: RevocationReason::PrivilegeWithdrawn });
    }
    let number = app.records.sealed().store().state().await?.revision;
    let validity = Validity::new(now, LIFE);
    let crl = app.keys.ca.issue_crl(number, validity, &revoked).map_err(KeyringError::from)?;
    Ok(Answer(RevocationList { crl: Bytes(crl) }))
}

fn date(ms: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(ms / 1000).ok()?).ok()
}
