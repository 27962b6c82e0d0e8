//! The authority itself: status, policy, and the description of its operations.

use axum::extract::State;
use model::api::{operate::AuthorityStatus, policy::PolicyView, vm::VmState};

use super::{
    Route, Who,
    gate::{Answer, Body, Outcome},
    openapi,
    shape::Shape,
};
use crate::{
    app::App,
    audit::Done,
    caller::Operator,
    config,
    failure::Failure,
    records::{self, Write},
    refusal::{Refusal, Rejection},
};

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/status",
            (Who::Operator, "status"),
            "Say how the authority is",
            Shape::of::<AuthorityStatus>(),
            status,
        ),
        Route::get(
            "/v1/policy",
            (Who::Operator, "policy-show"),
            "Show the policy",
            Shape::of::<PolicyView>(),
            policy,
        ),
        Route::put(
            "/v1/policy",
            (Who::Operator, "policy-change"),
            "Replace the policy; names the generation that it replaces",
            Shape::of::<PolicyView>(),
            set_policy,
        )
        .takes(Shape::of::<PolicyView>()),
        Route::get(
            "/v1/openapi.json",
            (Who::Anyone, "openapi"),
            "This document",
            Shape::any(),
            openapi::serve_document,
        ),
    ]
}

async fn status(State(app): State<App>, _operator: Operator) -> Outcome<AuthorityStatus> {
    let (hosts, vms) = (app.records.hosts().await?, app.records.vms().await?);
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let assurance = if app.config.allow_software_tpm { "software" } else { "hardware" };
    Ok(Answer(AuthorityStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        incarnation: app.incarnation.0,
        revision: app.records.sealed().store().state().await?.revision,
        audit_entries: app.audit.log().tree_head().size,
        anchor: app.anchor.counter(),
        assurance: assurance.to_owned(),
        hosts: count(hosts.len()),
        quiet_until: Some(app.restored.quiet_until).filter(|until| *until > app.now()),
        vms: count(vms.iter().filter(|vm| vm.state != VmState::Retired).count()),
    }))
}

async fn policy(State(app): State<App>, _operator: Operator) -> Outcome<PolicyView> {
    Ok(Answer((*app.policy_view()).clone()))
}

/// Someone else changed the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy is at generation {now}; the change is of generation {asked}")]
struct PolicyMoved {
    now: u64,
    asked: u64,
}

impl Rejection for PolicyMoved {
    fn name(&self) -> &'static str {
        "policy-moved"
    }

    fn hint(&self) -> &'static str {
        "`vouchsafe policy show`, then change that"
    }

    fn status(&self) -> http::StatusCode {
        http::StatusCode::CONFLICT
    }
}

async fn set_policy(
    State(app): State<App>,
    operator: Operator,
    Body(request): Body<PolicyView>,
) -> Outcome<PolicyView> {
    if let Some((key, problem)) = config::check_policy(&request.policy) {
        return Err(Failure::refused(Refusal::invalid(format!("{key} {problem}"))));
    }
    let held = app.records.get(&records::policy()?).await?;
    let held = held.ok_or_else(|| Failure::broken("there is no policy"))?;
    let (now, asked) = (held.value.generation, request.generation);
    if now != asked {
        return Err(PolicyMoved { now, asked }.into());
    }
    if request.policy == held.value.policy {
        // Nothing changes, so nothing that was decided under it is out of date.
        return Ok(Answer(held.value));
    }
    let after = PolicyView { generation: now.saturating_add(1), policy: request.policy };
    let write = Write::new().put(records::policy()?, &after, held.version)?;
    if !app.records.commit(write).await? {
        return Err(PolicyMoved { now: now.saturating_add(1), asked }.into());
    }
    app.set_policy(after.clone());
    let detail =
        format!("generation {}: {}", after.generation, serde_json::to_string(&after.policy)?);
    app.audit
        .done(&operator.actor(), Done::new("policy-changed", "authority").detail(detail))
        .await?;
    app.anchor.now().await?;
    Ok(Answer(after))
}
