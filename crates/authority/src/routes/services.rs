//! Passports for services of attested hosts, and how a host stands, for the services of others.
//!
//! **Invariants:** a passport is issued only to a host that may hold keys at this moment, only for a
//! service whose program its endorsed event log names, and ends with the verdict it rests on.

use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use model::{
    HostId,
    api::{
        Bytes,
        service::{Certified, CertifyRequest, HostStanding, Service},
    },
};
use pki::Profile;
use thiserror::Error;

use super::{
    Route, Who,
    enrol::subject_of,
    gate::{Answer, Body, Named, Outcome},
    shape::Shape,
};
use crate::{
    app::App,
    audit::Done,
    caller::HostSession,
    failure::Failure,
    record::host::HostRejection,
    refusal::{Refusal, Rejection},
};

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/services/certify",
            (Who::Host, "service-certification"),
            "Certify a service of this host for as long as the host's verdict counts",
            Shape::of::<Certified>(),
            certify,
        )
        .takes(Shape::of::<CertifyRequest>()),
        Route::get(
            "/v1/hosts/{host}/standing",
            (Who::Host, "host-standing"),
            "Say whether the services of a host are to be trusted now",
            Shape::of::<HostStanding>(),
            standing,
        ),
    ]
}

/// The service's program is not among what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the host's event log has no endorsed {}", .0.component())]
struct Unmeasured(Service);

impl Rejection for Unmeasured {
    fn name(&self) -> &'static str {
        "service-unmeasured"
    }

    fn hint(&self) -> &'static str {
        "measure the service's program at boot and endorse it in the reference values"
    }

    fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }
}

/// The services among a host's endorsed components.
pub(crate) fn measured(components: &[String]) -> Vec<Service> {
    let named = |service: &Service| components.iter().any(|name| name == service.component());
    Service::ALL.into_iter().filter(named).collect()
}

async fn certify(
    State(app): State<App>,
    session: HostSession,
    Body(request): Body<CertifyRequest>,
) -> Outcome<Certified> {
    let (service, host) = (request.service, session.name().clone());
    let subject = format!("service:{service}:{host}");
    let issued = issue(&app, &session, &request).map_err(|failure| failure.about(&subject))?;
    let done = Done::new("service-certified", subject).detail(format!("until {}", issued.1));
    app.audit.done(&session.actor(), done).await?;
    let (certificate, expires_at) = issued;
    let anchors = vec![Bytes(app.keys.ca.certificate().to_vec())];
    Ok(Answer(Certified { certificate: Bytes(certificate), expires_at, anchors }))
}

/// The certificate and its end.
fn issue(
    app: &App,
    session: &HostSession,
    request: &CertifyRequest,
) -> Result<(Vec<u8>, u64), Failure> {
    let (now, service) = (app.now(), request.service);
    let host = &session.record().value;
    let good = host.may_hold_keys(now)?;
    if !good.services.contains(&service) {
        return Err(Unmeasured(service).into());
    }
    let profile = Profile::Service { service, host: host.name.clone(), verdict: good.digest };
    let lifetime = Duration::from_millis(good.fresh_until.saturating_sub(now));
    let issued = app.keys.session(&profile, &request.spki.0, app.date(), lifetime);
    let certificate = issued.map_err(|_| {
        Failure::refused(Refusal::invalid("spki is not a P-256 SubjectPublicKeyInfo"))
    })?;
    Ok((certificate, good.fresh_until))
}

async fn standing(
    State(app): State<App>,
    _session: HostSession,
    Named(name): Named<HostId>,
) -> Outcome<HostStanding> {
    let host = app.enrolled(&name).await.map_err(|failure| failure.about(subject_of(&name)))?;
    let good: Result<_, HostRejection> = host.value.may_hold_keys(app.now());
    let (verdict, services) = match good {
        Ok(good) => (Some(good.digest), good.services.clone()),
        Err(_) => (None, Vec::new()),
    };
    Ok(Answer(HostStanding { host: name, trusted: verdict.is_some(), verdict, services }))
}
