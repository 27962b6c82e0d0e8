//! The local API on the agent's unix socket; see [`model::agent`] for its routes.

mod counters;
mod keys;
mod measured;
mod services;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use http::StatusCode;
use model::{
    VmId,
    agent::{AgentSession, AgentStatus, AgentVm, Console},
    api::operate::Action,
};
use serve::{
    problem::{Json, Problem},
    process::ProcessId,
    random,
};

use crate::{
    host::Host,
    registry::{Handle, Registry},
    trouble::Trouble,
    vm::{
        record::{Job, NewKeys},
        step::Ordered,
    },
};

/// What the handlers need.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// The agent.
    pub(crate) host: Arc<Host>,
    /// Its VMs.
    pub(crate) registry: Arc<Registry>,
}

/// The routes.
pub(crate) fn router(local: Local) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/vms/{vm}", get(show))
        .route("/v1/vms/{vm}/start", post(start))
        .route("/v1/vms/{vm}/stop", post(stop))
        .route("/v1/vms/{vm}/console", get(console))
        .route("/v1/vms/{vm}/measured", get(measured::measured))
        .route("/v1/services/{service}/certify", post(services::certify))
        .route("/v1/standing/{host}", get(services::standing))
        .route("/v1/counters/{service}/{store}", get(counters::read))
        .route("/v1/counters/{service}/{store}/begin", post(counters::begin))
        .route("/v1/counters/{service}/{store}/advance", post(counters::advance))
        .route("/v1/counters/{service}/{store}/refused", post(counters::refused))
        .route("/v1/keys", post(keys::make))
        .route("/v1/keys/agree", post(keys::agree))
        .route("/v1/keys/parent", post(keys::parent))
        .route("/v1/keys/duplicate", post(keys::duplicate))
        .route("/v1/keys/import", post(keys::import))
        .route("/v1/reattest", post(reattest))
        .fallback(serve::problem::not_found)
        .method_not_allowed_fallback(serve::problem::method_not_allowed)
        .with_state(local)
}

async fn status(State(local): State<Local>) -> Json<AgentStatus> {
    let host = &local.host;
    let state = host.link.state();
    let now = host.clock.unix_ms();
    let vms = local.registry.all().into_iter().map(|(_, h)| h.shown.borrow().vm.clone()).collect();
    Json(AgentStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host.config.name.clone(),
        pid: ProcessId::current().map_or(0, |p| p.pid),
        accel: host.known_ability().map(|a| a.accel.as_str().to_owned()),
        assurance: if host.tpm.is_software() { "software" } else { "hardware" }.to_owned(),
        mode: state.mode(),
        session: state.session.filter(|s| s.view.expires_at > now).map(|s| s.view.clone()),
        session_error: state.trouble.as_ref().map(ToString::to_string),
        // Waiting for approval is a mode and no refusal of anything.
        session_refused: state
            .trouble
            .and_then(|t| t.reason.refused)
            .filter(|name| name != "host-not-approved"),
        lease_until: *host.guard.lease().borrow(),
        spooled: host.spool.len(),
        vms,
    })
}

fn find(local: &Local, vm: &str) -> Result<(VmId, Handle), Problem> {
    let unknown = || {
        let title = "there is no such VM on this host";
        Problem::error(StatusCode::NOT_FOUND, "vm-unknown", title)
    };
    let vm: VmId = vm.parse().map_err(|_| unknown())?;
    let handle = local.registry.find(&vm).ok_or_else(unknown)?;
    Ok((vm, handle))
}

async fn show(
    State(local): State<Local>,
    Path(vm): Path<String>,
) -> Result<Json<AgentVm>, Problem> {
    let (_, handle) = find(&local, &vm)?;
    let shown = handle.shown.borrow().vm.clone();
    Ok(Json(shown))
}

async fn start(
    State(local): State<Local>,
    Path(vm): Path<String>,
) -> Result<Json<AgentVm>, Problem> {
    operate(&local, &vm, Action::Start).await
}

async fn stop(
    State(local): State<Local>,
    Path(vm): Path<String>,
) -> Result<Json<AgentVm>, Problem> {
    operate(&local, &vm, Action::Stop).await
}

async fn operate(local: &Local, vm: &str, action: Action) -> Result<Json<AgentVm>, Problem> {
    let (vm, mut handle) = find(local, vm)?;
    let open = |shown: &crate::vm::driver::Shown| {
        shown.vm.last.as_ref().is_some_and(|last| last.outcome.is_none())
    };
    if open(&handle.shown.borrow()) && action == Action::Start {
        let title = "an operation on this VM is under way";
        return Err(Problem::refusal("vm-busy", title).status(StatusCode::CONFLICT));
    }
    let id = random::operation_id().map_err(|_| Problem::internal())?;
    let job = Job {
        id,
        action,
        local: true,
        deposit: false,
        keys: NewKeys::default(),
        timings: Vec::new(),
        outcome: None,
        delivered: true,
    };
    local
        .registry
        .order(&vm, Ordered { job, view: None })
        .await
        .map_err(|trouble| problem(&trouble))?;
    let taken = handle.shown.wait_for(|s| s.vm.last.as_ref().is_some_and(|last| last.id == id));
    // In a moment, or later: the answer says which.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), taken).await.is_ok();
    let shown = handle.shown.borrow().vm.clone();
    Ok(Json(shown))
}

async fn console(
    State(local): State<Local>,
    Path(vm): Path<String>,
) -> Result<Json<Console>, Problem> {
    let (_, handle) = find(&local, &vm)?;
    if let Err(error) = handle.console.take().await {
        tracing::debug!(%error, "the console shows what was taken earlier");
    }
    Ok(Json(Console { text: handle.console.text() }))
}

async fn reattest(State(local): State<Local>) -> Result<Json<AgentSession>, Problem> {
    let session = local.host.link.renew().await.map_err(|trouble| problem(&trouble))?;
    Ok(Json(session.view.clone()))
}

/// Callers are of the agent's own user, so they may know all.
fn problem(trouble: &Trouble) -> Problem {
    let problem = match &trouble.reason.refused {
        Some(name) => Problem::refusal(name.clone(), "a rule said no"),
        None if trouble.away => {
            let title = "the authority cannot be asked now";
            Problem::error(StatusCode::SERVICE_UNAVAILABLE, "authority-away", title)
        }
        None => Problem::error(StatusCode::INTERNAL_SERVER_ERROR, "failed", "it could not be done"),
    };
    problem.detail(trouble.reason.detail.clone()).hint(trouble.reason.hint.clone())
}
