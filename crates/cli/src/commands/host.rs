//! `vouchsafe host ...`.

use model::{
    agent::AgentSession,
    api::enrol::{ApproveRequest, HostMode, HostView, TokenAnswer, TokenRequest},
};

use crate::{
    args::Host,
    client::Target,
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
            printer.result(&host, &shown(&host))
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
    }
}

const fn mode(mode: HostMode) -> &'static str {
    match mode {
        HostMode::Pending => "pending: approve it with `vouchsafe host approve`",
        HostMode::Enforcing => "enforcing",
        HostMode::AuditOnly => "audit-only",
        HostMode::Revoked => "revoked",
    }
}

fn table(hosts: &[HostView]) -> String {
    let mut table = crate::output::table(["NAME", "MODE", "TRUSTED", "VMS", "EK"]);
    for host in hosts {
        let vms: Vec<_> = host.vms.iter().map(ToString::to_string).collect();
        let ek: String = host.ek_fingerprint.chars().take(16).collect();
        let trusted = if host.trusted { "yes" } else { "no" };
        table.add_row([host.name.as_str(), mode(host.mode), trusted, &vms.join(" "), &ek]);
    }
    table.to_string()
}

fn shown(host: &HostView) -> String {
    let verdict =
        host.verdict.as_ref().map_or_else(|| "none yet".to_owned(), super::verdict::shown);
    format!(
        "{}: {}, {}\nEK {} (issued by {})\nAK name {}\nverdict: {verdict}",
        host.name,
        mode(host.mode),
        if host.trusted { "trusted" } else { "not trusted" },
        host.ek_fingerprint,
        host.ek_issuer,
        host.ak_name,
    )
}
