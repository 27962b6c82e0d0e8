//! `vouchsafe vm ...`.

mod create;
mod export;
mod list;

use http::Method;
use model::{
    HostId, VmId,
    agent::{AgentVm, Console},
    api::{
        anchor::Anchor,
        audit::Reason,
        grant::GrantPurpose,
        operate::{Operation, Outcome},
        vm::{FenceRequest, GuestVerdict, StartRequest, VmState, VmView},
    },
};
use serde::Serialize;
use serve::client::Call;

use crate::{
    args::Vm,
    client::Target,
    commands::{verdict, wait},
    output::{Failure, Printer},
};

pub(super) async fn run(verb: Vm, target: &Target, printer: Printer) -> Result<(), Failure> {
    match verb {
        Vm::Create(wish) => create::run(&wish, target, printer).await,
        Vm::List { all } => list::run(all, target, printer).await,
        Vm::Show { name } => {
            let vm = view(target, &name).await?;
            let mut text = shown(&vm, printer);
            if let Some(id) = vm.operation {
                let of: Operation =
                    target.authority()?.get(&format!("/v1/operations/{id}")).await?;
                text.push_str(&format!("\nunder way: {}", wait::shown(&of)));
            }
            printer.result(&vm, &text)
        }
        Vm::Start { name, host, offline: true } => offline(target, &name, &host, printer).await,
        Vm::Start { name, host, offline: false } => {
            let ended = operate(target, &name, "start", &StartRequest { host }, printer).await?;
            let times = wait::timings(&ended);
            printer.result(&ended, &format!("{name} runs on {} ({times})", ended.host))
        }
        Vm::Stop { name } => {
            let ended = operate(target, &name, "stop", &serde_json::json!({}), printer).await?;
            printer.result(&ended, &format!("{name} is stopped"))
        }
        Vm::Attest { name, export } => attest(target, &name, export.as_deref(), printer).await,
        Vm::Rekey { name, wait } => rekey(target, &name, wait, printer).await,
        Vm::Console { name } => console(target, &name, printer).await,
        Vm::Fence { name, reason, powered_off } => {
            fence(target, &name, FenceRequest { reason, powered_off }, printer).await
        }
        Vm::Reanchor { name, reason } => {
            let path = format!("/v1/vms/{name}/reanchor");
            let vm: VmView = target.authority()?.post(&path, &Reason { reason }).await?;
            let approved = vm.reanchor.as_ref().and_then(|of| of.approved_by.as_deref());
            let said = match approved {
                Some(by) => format!(
                    "approved by {by}: the next start of {name} takes its volumes as they are"
                ),
                None => format!(
                    "proposed: {name} waits for another operator to repeat this within an hour"
                ),
            };
            printer.result(&vm, &said)
        }
        Vm::Revoke { name, reason } => revoke(target, &name, reason, printer).await,
        Vm::Delete { name } => delete(target, &name, printer).await,
    }
}

async fn view(target: &Target, name: &VmId) -> Result<VmView, Failure> {
    Ok(target.authority()?.get(&format!("/v1/vms/{name}")).await?)
}

async fn operate(
    target: &Target,
    name: &VmId,
    verb: &str,
    request: &(impl Serialize + Sync),
    printer: Printer,
) -> Result<Operation, Failure> {
    let path = format!("/v1/vms/{name}/{verb}");
    let operation: Operation = target.authority()?.post(&path, request).await?;
    wait::outcome(target, operation, printer).await
}

async fn fence(
    target: &Target,
    name: &VmId,
    request: FenceRequest,
    printer: Printer,
) -> Result<(), Failure> {
    let path = format!("/v1/vms/{name}/fence");
    let vm: VmView = target.authority()?.post(&path, &request).await?;
    let said = format!(
        "{name} has no home; its epoch is {}. Its next start makes it anew from its image: \
         what its guest wrote stays behind",
        vm.epoch.0
    );
    printer.result(&vm, &said)
}

async fn revoke(
    target: &Target,
    name: &VmId,
    reason: String,
    printer: Printer,
) -> Result<(), Failure> {
    let path = format!("/v1/vms/{name}/revoke");
    let vm: VmView = target.authority()?.post(&path, &Reason { reason }).await?;
    let said = match &vm.home {
        Some(home) => format!(
            "{name} is revoked: its keys are gone; host {home} ends it and destroys its \
             copies"
        ),
        None => format!("{name} is revoked: its keys are gone"),
    };
    printer.result(&vm, &said)
}

async fn delete(target: &Target, name: &VmId, printer: Printer) -> Result<(), Failure> {
    let path = format!("/v1/vms/{name}");
    let operation: Option<Operation> =
        target.authority()?.call(Call::new(Method::DELETE, &path)).await?;
    if let Some(operation) = operation {
        wait::outcome(target, operation, printer).await?;
    }
    printer.result(&serde_json::json!({"deleted": name}), &format!("{name} is gone"))
}

fn shown(vm: &VmView, printer: Printer) -> String {
    let exposed = vm.exposed.as_ref().map_or_else(String::new, |exposed| {
        format!(
            "\nEXPOSED: its keys were on host {}, which was last good at {} and turned out bad at {} \
             ({})\n  `{}` makes it anew under other keys",
            exposed.host,
            exposed.since,
            exposed.at,
            exposed.reason,
            printer.command(&format!("vm fence {} --reason WHY", vm.spec.name)),
        )
    });
    let volumes: String = vm.anchors.iter().map(counted).collect();
    format!(
        "{}: {} {}\nhome {}, epoch {}, key {} version {}\nguest {}\nimage {} ({}){volumes}{exposed}",
        vm.spec.name,
        state(vm.state),
        vm.detail,
        vm.home.as_ref().map_or("none", HostId::as_str),
        vm.epoch.0,
        vm.kmi.key_id,
        vm.kmi.version,
        trusted(vm.trusted),
        vm.spec.image.path,
        vm.spec.image.sha256,
    )
}

/// What a volume counts by the authority's record.
fn counted(anchor: &Anchor) -> String {
    let volume = match anchor.volume {
        GrantPurpose::Boot => "boot",
        GrantPurpose::Data => "data",
    };
    let how = match &anchor.in_use {
        Some(host) => format!("in use on {host}"),
        None => "at rest".to_owned(),
    };
    format!("\n{volume} volume counts {} by {}, {how}", anchor.count, anchor.host)
}

const fn state(state: VmState) -> &'static str {
    match state {
        VmState::Defined => "defined",
        VmState::Busy => "busy",
        VmState::Running => "running",
        VmState::Paused => "paused",
        VmState::Stopped => "stopped",
        VmState::Retired => "retired",
    }
}

const fn trusted(verdict: Option<bool>) -> &'static str {
    match verdict {
        None => "not yet appraised",
        Some(true) => "trusted",
        Some(false) => "not trusted",
    }
}

/// Fresh evidence, fresh verdict; a bad one is a refusal that names the failing event.
async fn attest(
    target: &Target,
    name: &VmId,
    export: Option<&std::path::Path>,
    printer: Printer,
) -> Result<(), Failure> {
    operate(target, name, "attest", &serde_json::json!({}), printer).await?;
    let client = target.authority()?;
    let verdict: GuestVerdict = client.get(&format!("/v1/vms/{name}/verdict")).await?;
    if let Some(dir) = export {
        let evidence = client.get(&format!("/v1/vms/{name}/evidence")).await?;
        export::write(dir, &evidence)?;
        printer.say(&format!("evidence and commands that verify it: {}", dir.display()));
    }
    let mut text = verdict::shown(&verdict.verdict);
    for link in &verdict.chain {
        text.push_str(&format!(
            "\n  {:<12} {}  [{}]  vouched for by {}",
            link.role, link.subject, link.fingerprint, link.vouched_by
        ));
    }
    printer.result(&verdict::beside(&verdict)?, &text)
}

async fn rekey(target: &Target, name: &VmId, wait: bool, printer: Printer) -> Result<(), Failure> {
    let path = format!("/v1/vms/{name}/rekey");
    let ordered: Operation = target.authority()?.post(&path, &serde_json::json!({})).await?;
    if !wait {
        let host = &ordered.host;
        let show = printer.command(&format!("vm show {name}"));
        let said = format!("ordered: host {host} re-keys {name}; `{show}` says how far it is");
        return printer.result(&ordered, &said);
    }
    let ended = wait::outcome(target, ordered, printer).await?;
    printer.result(&ended, &format!("all data of {name} are under new keys"))
}

async fn console(target: &Target, name: &VmId, printer: Printer) -> Result<(), Failure> {
    let vm = view(target, name).await?;
    let home = vm.home.ok_or_else(|| {
        Failure::error(
            format!("{name} has no home"),
            format!("start it: `vouchsafe vm start {name} --host HOST`"),
        )
    })?;
    let console: Console = target.agent(&home)?.get(&format!("/v1/vms/{name}/console")).await?;
    printer.result(&console, console.text.trim_end())
}

/// A start without the authority, by the host's own cached keys.
async fn offline(
    target: &Target,
    name: &VmId,
    host: &HostId,
    printer: Printer,
) -> Result<(), Failure> {
    let agent = target.agent(host)?;
    let path = format!("/v1/vms/{name}");
    let started: AgentVm = agent.post(&format!("{path}/start"), &serde_json::json!({})).await?;
    let id = started.last.as_ref().map(|last| last.id);
    let bar = printer.progress(&format!("{name} on {host}: offline start"));
    let outcome = loop {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        let vm: AgentVm = agent.get(&path).await?;
        let ours = vm.last.as_ref().filter(|last| Some(last.id) == id);
        if let Some(outcome) = ours.and_then(|last| last.outcome.clone()) {
            break outcome;
        }
    };
    bar.finish_and_clear();
    match outcome {
        Outcome::Done => printer.result(&started, &format!("{name} runs on {host}")),
        Outcome::Refused { name, detail, hint } => Err(Failure::refused(name, detail, hint)),
        Outcome::Failed { detail, hint } => Err(Failure::error(detail, hint)),
    }
}
