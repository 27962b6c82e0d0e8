//! Hosts as operators see and approve them.

use axum::extract::State;
use model::{
    HostId, VmId,
    api::{
        audit::Reason,
        enrol::{ApproveRequest, HostView},
        policy::Trace,
    },
};

use super::{
    Route, Who,
    enrol::subject_of,
    gate::{Answer, Body, Named, Outcome},
    shape::Shape,
};
use crate::{
    app::App,
    audit::Done,
    caller::Operator,
    exposure,
    failure::Failure,
    record::{
        host::{HostRecord, HostRejection, Standing},
        vm::VmRecord,
    },
    records::{self, Write},
    trace,
};

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/hosts",
            (Who::Operator, "host-list"),
            "List hosts",
            Shape::list::<HostView>(),
            list,
        ),
        Route::get(
            "/v1/hosts/{host}",
            (Who::Operator, "host-show"),
            "Show a host",
            Shape::of::<HostView>(),
            show,
        ),
        Route::post(
            "/v1/hosts/{host}/approve",
            (Who::Operator, "host-approval"),
            "Approve a host, or change its mode",
            Shape::of::<HostView>(),
            approve,
        )
        .takes(Shape::of::<ApproveRequest>()),
        Route::post(
            "/v1/hosts/{host}/revoke",
            (Who::Operator, "host-revocation"),
            "Revoke a host for good",
            Shape::of::<HostView>(),
            revoke,
        )
        .takes(Shape::of::<Reason>()),
        Route::get(
            "/v1/hosts/{host}/trace",
            (Who::Operator, "host-trace"),
            "Say which rule decides whether a host gets keys",
            Shape::of::<Trace>(),
            trace,
        ),
    ]
}

async fn trace(
    State(app): State<App>,
    _operator: Operator,
    Named(name): Named<HostId>,
) -> Outcome<Trace> {
    let host = app.host(&name).await?.value;
    Ok(Answer(trace::host(&app, &host)?))
}

pub(super) fn view(app: &App, host: &HostRecord, vms: &[VmRecord]) -> HostView {
    let standing = host.standing.as_ref();
    HostView {
        name: host.name.clone(),
        mode: host.mode,
        ek_fingerprint: host.identity.ek_fingerprint.clone(),
        ek_issuer: host.identity.ek_issuer.clone(),
        ak_name: host.identity.ak_name.clone(),
        verdict: standing.and_then(Standing::verdict).cloned(),
        trusted: host.trusted(app.now()).is_ok(),
        draining: host.draining,
        refusal: standing.and_then(|s| s.refused.as_ref()).map(crate::refusal::Refusal::to_wire),
        last_seen: app.heard(host),
        vms: host.homed(vms).map(|vm| vm.spec.name.clone()).collect::<Vec<VmId>>(),
    }
}

async fn list(State(app): State<App>, _operator: Operator) -> Outcome<Vec<HostView>> {
    let (hosts, vms) = (app.records.hosts().await?, app.records.vms().await?);
    Ok(Answer(hosts.iter().map(|host| view(&app, host, &vms)).collect()))
}

async fn show(
    State(app): State<App>,
    _operator: Operator,
    Named(name): Named<HostId>,
) -> Outcome<HostView> {
    let host = app.host(&name).await?.value;
    Ok(Answer(view(&app, &host, &app.records.vms().await?)))
}

pub(super) async fn change(
    app: &App,
    name: &HostId,
    change: impl Fn(HostRecord) -> Result<HostRecord, HostRejection>,
) -> Result<HostView, Failure> {
    loop {
        let host = app.host(name).await?;
        let after = change(host.value)?;
        let write = Write::new().put(records::host(name)?, &after, host.version)?;
        if app.records.commit(write).await? {
            return Ok(view(app, &after, &app.records.vms().await?));
        }
    }
}

async fn approve(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<HostId>,
    Body(request): Body<ApproveRequest>,
) -> Outcome<HostView> {
    let host = change(&app, &name, |host| host.approved(request.audit_only)).await?;
    let mode = if request.audit_only { "audit-only" } else { "enforcing" };
    let done = Done::new("host-approved", subject_of(&name)).detail(mode);
    app.audit.done(&operator.actor(), done).await?;
    app.anchor.now().await?;
    Ok(Answer(host))
}

async fn revoke(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<HostId>,
    Body(reason): Body<Reason>,
) -> Outcome<HostView> {
    let before = app.records.get(&records::host(&name)?).await?;
    let since = before.as_ref().and_then(|host| exposure::last_good(&host.value));
    let host = change(&app, &name, |host| Ok(host.revoked(app.now()))).await?;
    if let Some(since) = since {
        exposure::mark(&app, &name, since, "host-revoked").await?;
    }
    let done = Done::new("host-revoked", subject_of(&name)).detail(reason.reason);
    app.audit.done(&operator.actor(), done).await?;
    // A revocation that is answered cannot be taken back by putting an older store in its place.
    app.anchor.now().await?;
    Ok(Answer(host))
}
