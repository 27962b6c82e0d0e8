//! Two operators have a VM's older volumes taken for the newest.

use axum::extract::State;
use model::{
    VmId,
    api::{audit::Reason, vm::VmView},
};

use super::{
    Route, Who,
    gate::{Answer, Body, Named, Outcome},
    shape::Shape,
    vms::subject_of,
};
use crate::{app::App, audit::Done, caller::Operator, record::vm::VmRecord};

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/vms/{vm}/reanchor",
            (Who::Operator, "vm-reanchoring"),
            "Propose, or approve what another operator proposed: older volumes of a stopped VM count",
            Shape::of::<VmView>(),
            reanchor,
        )
        .takes(Shape::of::<Reason>()),
    ]
}

async fn reanchor(
    State(app): State<App>,
    operator: Operator,
    Named(name): Named<VmId>,
    Body(request): Body<Reason>,
) -> Outcome<VmView> {
    let reanchored = |vm: &VmRecord| vm.reanchored(operator.name(), &request.reason, app.now());
    let (_, after) = app.change_vm(&name, reanchored).await?;
    let view = after.view();
    let approved = view.reanchor.as_ref().is_some_and(|of| of.approved_by.is_some());
    let event = if approved { "vm-reanchor-approved" } else { "vm-reanchor-proposed" };
    let done = Done::new(event, subject_of(&name)).detail(request.reason);
    app.audit.done(&operator.actor(), done).await?;
    app.anchor.now().await?;
    Ok(Answer(view))
}
