//! Hosts report what the vault volumes of their VMs count.

use axum::extract::State;
use model::{VmId, api::anchor::AnchorReport};

use super::{
    Route, Who,
    gate::{Answer, Body, Named, Outcome},
    shape::Shape,
    vms::subject_of,
};
use crate::{
    app::App,
    audit::Done,
    caller::HostSession,
    records::{self, Write},
};

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/vms/{vm}/anchor",
            (Who::Host, "volume-count"),
            "Say what a vault volume counts; a lower count than the record's is refused",
            Shape::any(),
            report,
        )
        .takes(Shape::of::<AnchorReport>()),
    ]
}

async fn report(
    State(app): State<App>,
    session: HostSession,
    Named(name): Named<VmId>,
    Body(report): Body<AnchorReport>,
) -> Outcome<()> {
    loop {
        let host = app.enrolled(session.name()).await?;
        // The last word of a host that is not trusted any more is nobody's beginning.
        host.value.may_hold_keys(app.now())?;
        let vm = app.vm(&name).await?;
        let (after, moved) = vm.value.counted(&host.value, &report, app.now())?;
        if after == vm.value {
            return Ok(Answer(()));
        }
        let write = Write::new()
            .put(records::vm(&name)?, &after, vm.version)?
            .only_if(records::host(session.name())?, host.version);
        if app.records.commit(write).await? {
            if let Some(moved) = moved {
                let detail = format!("volume {:?}: {}", report.volume, moved.detail);
                let done = Done::new(moved.event, subject_of(&name)).detail(detail);
                app.audit.done(&session.actor(), done).await?;
            }
            return Ok(Answer(()));
        }
    }
}
