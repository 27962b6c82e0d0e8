//! Hosts that go, or get another TPM: drain, retire, replace.

use axum::extract::State;
use model::{
    HostId,
    api::{
        audit::Reason,
        enrol::{DrainAnswer, DrainRequest, HostView, TokenAnswer},
    },
};

use super::{
    Route, Who,
    enrol::{new_token, subject_of},
    gate::{Answer, Body, Named, Outcome},
    hosts::change,
    shape::Shape,
    vms::subject_of as vm_subject,
};
use crate::{
    app::App,
    audit::Done,
    caller::Operator,
    operations::{self, Wish},
};

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/hosts/{host}/drain",
            (Who::Operator, "host-drain"),
            "Start nothing new on a host, and stop what runs there if asked to",
            Shape::of::<DrainAnswer>(),
            drain,
        )
        .takes(Shape::of::<DrainRequest>()),
        Route::post(
            "/v1/hosts/{host}/retire",
            (Who::Operator, "host-retirement"),
            "Revoke a drained host that is nobody's home, for good",
            Shape::of::<HostView>(),
            retire,
        )
        .takes(Shape::of::<Reason>()),
        Route::post(
            "/v1/hosts/{host}/replace",
            (Who::Operator, "host-replacement"),
            "Issue a token that admits another TPM in the place of the host's own",
            Shape::of::<TokenAnswer>(),
            replace,
        )
        .takes(Shape::of::<Reason>()),
    ]
}

async fn drain(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<HostId>,
    Body(request): Body<DrainRequest>,
) -> Outcome<DrainAnswer> {
    let host = change(&app, &name, |host| host.drained(!request.end)).await?;
    let event = if request.end { "host-drain-ended" } else { "host-draining" };
    app.audit.done(&operator.actor(), Done::new(event, subject_of(&name))).await?;
    let record = app.host(&name).await?.value;
    let mut stops = Vec::new();
    // From here on no start is accepted there, so that this finds all of them.
    let running = record.at_work(&app.records.vms().await?);
    if request.stop && !request.end {
        for vm in &running {
            // One that ended meanwhile, or is being deleted, needs no stop.
            let Ok(Some(stop)) = operations::accept(&app, vm, Wish::Stop).await else { continue };
            let detail = format!("operation {} on {name}, which is drained", stop.id);
            let done = Done::new(Wish::Stop.event(), vm_subject(vm)).detail(detail);
            app.audit.done(&operator.actor(), done).await?;
            stops.push(stop);
        }
    }
    Ok(Answer(DrainAnswer { host, stops, running }))
}

async fn retire(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<HostId>,
    Body(reason): Body<Reason>,
) -> Outcome<HostView> {
    let vms = app.records.vms().await?;
    let host = change(&app, &name, |host| host.retired(&vms, app.now())).await?;
    let done = Done::new("host-retired", subject_of(&name)).detail(reason.reason);
    app.audit.done(&operator.actor(), done).await?;
    app.anchor.now().await?;
    Ok(Answer(host))
}

async fn replace(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<HostId>,
    Body(reason): Body<Reason>,
) -> Outcome<TokenAnswer> {
    app.host(&name).await?.value.may_be_replaced()?;
    let answer = new_token(&app, &name, true).await?;
    let done = Done::new("replacement-token-issued", subject_of(&name)).detail(reason.reason);
    app.audit.done(&operator.actor(), done).await?;
    Ok(Answer(answer))
}
