//! `vouchsafe host ...`.

use model::{
    HostId, VmId,
    agent::{AgentSession, AgentStatus},
    api::{
        audit::Reason,
        enrol::{
            ApproveRequest, DrainAnswer, DrainRequest, HostMode, HostView, TokenAnswer,
            TokenRequest,
        },
    },
};
use serve::clock::{Clock as _, SystemClock};

use crate::{
    args::Host,
    client::Target,
    commands::{verdict, wait},
    output::{Failure, Printer},
};

pub(super) async fn run(verb: &Host, target: &Target, printer: Printer) -> Result<(), Failure> {
    let client = target.authority()?;
    match verb {
        Host::List => {
            let hosts: Vec<HostView> = client.get("/v1/hosts").await?;
            printer.list(&hosts, &table(&hosts))
        }
        Host::Show { name } => {
            let host: HostView = client.get(&format!("/v1/hosts/{name}")).await?;
            let mut value = verdict::beside(&host)?;
            let accel = accelerator(target, name).await;
            if let (Some(fields), Some(accel)) = (value.as_object_mut(), &accel) {
                fields.insert("accel".to_owned(), accel.clone().into());
            }
            printer.result(&value, &shown(&host, accel.as_deref()))
        }
        Host::Attest { name } => {
            let nothing = serde_json::json!({});
            let session: AgentSession = target.agent(name)?.post("/v1/reattest", &nothing).await?;
            printer.result(&session, &format!("{name} has a fresh good verdict"))
        }
        Host::Token { name } => {
            let request = TokenRequest { host: name.clone() };
            let answer: TokenAnswer = client.post("/v1/tokens", &request).await?;
            printer.result(&answer, &answer.token)
        }
        Host::Approve { name, audit_only } => {
            let request = ApproveRequest { audit_only: *audit_only };
            let host: HostView =
                client.post(&format!("/v1/hosts/{name}/approve"), &request).await?;
            printer.result(&host, &format!("{name} is {}", mode(host.mode)))
        }
        Host::Revoke { name } => {
            let nothing = serde_json::json!({});
            let host: HostView = client.post(&format!("/v1/hosts/{name}/revoke"), &nothing).await?;
            printer.result(&host, &format!("{name} is {}", mode(host.mode)))
        }
        Host::Drain { name, stop, end } => {
            drain(name, DrainRequest { stop: *stop, end: *end }, target, printer).await
        }
        Host::Retire { name, reason } => {
            let reason = Reason { reason: reason.clone() };
            let host: HostView = client.post(&format!("/v1/hosts/{name}/retire"), &reason).await?;
            printer.result(&host, &format!("{name} is {}", mode(host.mode)))
        }
        Host::Replace { name, reason } => {
            let reason = Reason { reason: reason.clone() };
            let path = format!("/v1/hosts/{name}/replace");
            let answer: TokenAnswer = client.post(&path, &reason).await?;
            printer.say(&format!(
                "put this token into the new host's token file, then `vouchsafe host approve {name}`"
            ));
            printer.result(&answer, &answer.token)
        }
    }
}

/// Drains; waits for the stops that were ordered.
async fn drain(
    name: &HostId,
    request: DrainRequest,
    target: &Target,
    printer: Printer,
) -> Result<(), Failure> {
    let client = target.authority()?;
    let path = format!("/v1/hosts/{name}/drain");
    let mut answer: DrainAnswer = client.post(&path, &request).await?;
    for stop in answer.stops.clone() {
        wait::outcome(target, stop, printer).await?;
    }
    if !answer.stops.is_empty() {
        let still: DrainAnswer = client.post(&path, &DrainRequest::default()).await?;
        answer.running = still.running;
        answer.host = still.host;
    }
    let names = |list: &[VmId]| list.iter().map(VmId::as_str).collect::<Vec<_>>().join(", ");
    let text = match (answer.host.draining, answer.running.is_empty()) {
        (false, _) => format!("{name} takes starts again"),
        (true, true) => {
            format!("nothing runs on {name}; it is the home of {} VMs", answer.host.vms.len())
        }
        (true, false) => {
            format!("{name} takes no new starts; there run: {}", names(&answer.running))
        }
    };
    printer.result(&answer, &text)
}

const fn mode(mode: HostMode) -> &'static str {
    match mode {
        HostMode::Pending => "pending (approve it)",
        HostMode::Enforcing => "enforcing",
        HostMode::AuditOnly => "audit-only",
        HostMode::Revoked => "revoked",
    }
}

fn table(hosts: &[HostView]) -> String {
    let mut table = crate::output::table(["NAME", "MODE", "TRUSTED", "HEARD", "VMS", "EK"]);
    for host in hosts {
        let vms: Vec<_> = host.vms.iter().map(ToString::to_string).collect();
        let ek: String = host.ek_fingerprint.chars().take(16).collect();
        let trusted = if host.trusted { "yes" } else { "no" };
        let heard = heard(host);
        let name = host.name.as_str();
        table.add_row([name, mode(host.mode), trusted, &heard, &vms.join(" "), &ek]);
    }
    table.to_string()
}

/// What runs a lab host's guests, by its agent; `None` if that cannot be asked.
async fn accelerator(target: &Target, name: &HostId) -> Option<String> {
    target.lab_dir()?;
    target.agent(name).ok()?.get::<AgentStatus>("/v1/status").await.ok()?.accel
}

/// When the authority heard of it last.
fn heard(host: &HostView) -> String {
    wait::ago(host.last_seen, SystemClock.unix_ms())
}

fn shown(host: &HostView, accel: Option<&str>) -> String {
    let verdict = host.verdict.as_ref().map_or_else(|| "none yet".to_owned(), verdict::shown);
    let accel = match accel {
        Some("tcg") => "\nguests run by tcg (emulation: for labs only)".to_owned(),
        Some(accel) => format!("\nguests run by {accel}"),
        None => String::new(),
    };
    format!(
        "{}: {}, {}{}\nheard of {}{accel}\nEK {} (issued by {})\nAK name {}\nverdict: {verdict}",
        host.name,
        mode(host.mode),
        if host.trusted { "trusted" } else { "not trusted" },
        if host.draining { ", draining" } else { "" },
        heard(host),
        host.ek_fingerprint,
        host.ek_issuer,
        host.ak_name,
    )
}
