//! What a home host asks and tells while it works: its orders, how an operation goes, how a VM
//! stands, and what it did alone.

use std::time::Duration;

use axum::extract::State;
use model::{
    AuditEvent, OperationId, VmId,
    api::{
        Bytes,
        operate::{
            HostEvent, HostEvents, Operation, OperationUpdate, Order, Orders, Outcome as Ended,
        },
        vm::{VmReport, VmView},
    },
};
use serde::Deserialize;

use super::{
    Route, Who,
    gate::{Answer, Asked, Body, Named, Outcome},
    shape::Shape,
    vms::subject_of,
};
use crate::{
    app::App,
    audit::Done,
    caller::HostSession,
    failure::Failure,
    operations,
    record::{
        host::HostRecord,
        vm::{KeyState, VmRecord},
    },
    records,
    refusal::Refusal,
};

/// Most events in one spool.
const MAX_EVENTS: usize = 256;

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/orders",
            (Who::Host, "orders"),
            "Wait for a change in what this host is to do, then list it",
            Shape::of::<Orders>(),
            orders,
        )
        .asks(&[
            ("after", "revision of the last answer; 0 or none: answer at once"),
            ("wait", "longest wait, seconds"),
        ]),
        Route::post(
            "/v1/operations/{operation}",
            (Who::Host, "operation-report"),
            "Say how an operation goes, last its outcome",
            Shape::of::<Operation>(),
            update,
        )
        .takes(Shape::of::<OperationUpdate>()),
        Route::post(
            "/v1/vms/{vm}/report",
            (Who::Host, "vm-report"),
            "Say how a VM stands",
            Shape::of::<VmView>(),
            report,
        )
        .takes(Shape::of::<VmReport>()),
        Route::post(
            "/v1/audit",
            (Who::Host, "host-events"),
            "Hand over what the host did alone; each sequence number is taken once",
            Shape::any(),
            events,
        )
        .takes(Shape::of::<HostEvents>()),
    ]
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wait {
    after: u64,
    wait: u64,
}

async fn orders(
    State(app): State<App>,
    session: HostSession,
    Asked(asked): Asked<Wait>,
) -> Outcome<Orders> {
    if asked.after > 0 {
        let limit = Duration::from_secs(asked.wait.min(app.config.limits.poll_s));
        tokio::select! {
            changed = app.records.orders_changed(session.name(), asked.after) => changed?,
            () = tokio::time::sleep(limit) => {}
            () = app.shutdown.requested() => {}
        }
    }
    let (ids, revision) = app.records.orders(session.name()).await?;
    let mut orders = Vec::with_capacity(ids.len());
    for id in ids {
        let operation = operations::get(&app, id).await?.value;
        let Some(vm) = app.records.get(&records::vm(&operation.vm)?).await? else { continue };
        let deposit = vm.value.key == KeyState::Awaited;
        let on_bad_guest = app.policy().on_bad_guest;
        orders.push(Order { operation, vm: vm.value.view(), deposit, on_bad_guest });
    }
    let deposit_key = Bytes(app.keys.deposit_public.0.clone());
    Ok(Answer(Orders { revision, orders, deposit_key }))
}

async fn update(
    State(app): State<App>,
    session: HostSession,
    Named(id): Named<OperationId>,
    Body(update): Body<OperationUpdate>,
) -> Outcome<Operation> {
    let (operation, ended) = operations::report(&app, session.name(), id, update).await?;
    if ended {
        note_outcome(&app, &session, &operation).await?;
    }
    Ok(Answer(operation))
}

async fn note_outcome(
    app: &App,
    session: &HostSession,
    operation: &Operation,
) -> Result<(), Failure> {
    let (actor, subject) = (session.actor(), subject_of(&operation.vm));
    let action = match operation.action {
        model::api::operate::Action::Start => "vm-started",
        model::api::operate::Action::Stop => "vm-stopped",
        model::api::operate::Action::Attest => "vm-attested",
        model::api::operate::Action::Rekey => "vm-rekeyed",
        model::api::operate::Action::Delete => "vm-deleted",
    };
    let id = operation.id;
    match &operation.outcome {
        Some(Ended::Done) | None => {
            let done = Done::new(action, subject).detail(format!("operation {id}"));
            app.audit.done(&actor, done).await?;
        }
        Some(Ended::Refused { name, detail, hint }) => {
            let known = AuditEvent::refused(0, "", action, "", name.clone()).bounded().is_ok();
            let name = if known { name.clone() } else { "unnamed".to_owned() };
            let detail = format!("operation {id}: {detail}");
            let refusal = Refusal { name, detail, hint: hint.clone(), status: 403 };
            app.audit.refused(&actor, action, &subject, &refusal).await?;
        }
        Some(Ended::Failed { detail, .. }) => {
            let detail = format!("operation {id}: {detail}");
            app.audit
                .done(&actor, Done::new("vm-operation-failed", subject).detail(detail))
                .await?;
        }
    }
    Ok(())
}

async fn report(
    State(app): State<App>,
    session: HostSession,
    Named(name): Named<VmId>,
    Body(report): Body<VmReport>,
) -> Outcome<VmView> {
    let reported = |vm: &VmRecord| vm.reported(session.name(), report.clone());
    let (before, after) = app.change_vm(&name, reported).await?;
    if after.state != before.state {
        let detail = format!("{:?}: {}", after.state, after.detail);
        let done = Done::new("vm-state-changed", subject_of(&name)).detail(detail);
        app.audit.done(&session.actor(), done).await?;
    }
    Ok(Answer(after.view()))
}

async fn events(
    State(app): State<App>,
    session: HostSession,
    Body(spool): Body<HostEvents>,
) -> Outcome<()> {
    if spool.events.len() > MAX_EVENTS {
        return Err(Failure::refused(Refusal::invalid("at most 256 events at once")));
    }
    let mut entries = Vec::with_capacity(spool.events.len());
    for event in spool.events {
        entries.push((event.seq, entry(&session, event)?));
    }
    // One spool at a time, so that a number is looked at and moved on by one request only.
    let _turn = app.spool.lock().await;
    let mut next = app.enrolled(session.name()).await?.value.spool_next;
    for (seq, entry) in entries {
        if seq >= next {
            app.audit.append(entry).await?;
            next = seq.saturating_add(1);
        }
    }
    let taken = |host: &HostRecord| {
        Ok(HostRecord { spool_next: host.spool_next.max(next), ..host.clone() })
    };
    app.change_enrolled(session.name(), taken).await?;
    Ok(Answer(()))
}

fn entry(session: &HostSession, event: HostEvent) -> Result<AuditEvent, Failure> {
    let HostEvent { seq, at, vm, event, refused, detail } = event;
    let actor = session.actor().0;
    let subject = vm.map_or_else(|| actor.clone(), |vm| subject_of(&vm));
    let entry = match refused {
        None => AuditEvent::done(at, actor, event, subject),
        Some(name) => AuditEvent::refused(at, actor, event, subject, name),
    };
    entry
        .detail(format!("spool {seq}: {detail}"))
        .bounded()
        .map_err(|error| Failure::refused(Refusal::invalid(error.to_string())))
}
