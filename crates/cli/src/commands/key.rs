//! `vouchsafe key ...`: on the operators' socket of a trust service.

mod grade;
mod import;
mod migrate;

use std::{fs, path::Path, time::Duration};

use model::{
    HostId,
    api::vm::VmView,
    keys::{
        Allowance, KeyUse, StatusValue, UseWith,
        admin::{AdminReply, AdminRequest, Authorize, ListedBinding, ListedOrder, SOCKET},
        order::SecretBytes,
    },
};
use serde_json::json;

use super::service::{self, Asked};
use crate::{
    args::{Key, KeyVerb, Scope, UseArg},
    client::Target,
    output::{Failure, Printer},
};

/// Bindings asked for at once.
const PAGE: u32 = 500;

pub(super) async fn run(key: Key, scope: &Scope, printer: Printer) -> Result<(), Failure> {
    let host = host_of(&key, scope).await?;
    let ask_at = |host: Option<&HostId>, request: &AdminRequest| -> Result<AdminReply, Failure> {
        let at = Asked::Trust(host);
        service::ask(at, &at.state(scope)?.join(SOCKET), request)
    };
    let ask = |request: &AdminRequest| ask_at(host.as_ref(), request);
    let own = || format!("uid-{}", rustix::process::getuid().as_raw());
    let operator = key.operator.unwrap_or_else(own);
    match key.verb {
        KeyVerb::Authorize { name, uses, use_with, life, owner } => {
            let (uses, use_with) = uses_of(uses, &use_with)?;
            let asked = Authorize { name, uses, use_with, life_s: life, owner, operator };
            authorized(ask(&AdminRequest::Authorize(asked))?, printer)
        }
        KeyVerb::Expect { owner, from, ca } => {
            let ca = ca.as_deref().map(migrate::ca).transpose()?;
            let asked = AdminRequest::Expect { owner, from, ca, operator };
            migrate::expected(ask(&asked)?, printer)
        }
        KeyVerb::Migrate { owner, from, to, url, wait } => {
            let from = from.or_else(|| key.host.clone());
            if let Some(expect) = migrate::announcement(scope, &owner, from, &operator)? {
                migrate::expected_at(ask_at(Some(&to), &expect)?)?;
            }
            let url = url.map_or_else(|| migrate::peer_url(scope, &to), Ok)?;
            let begun = ask(&AdminRequest::Migrate { owner, host: to, url, operator })?;
            migrate::follow(ask, begun, Duration::from_secs(wait), printer)
        }
        KeyVerb::Migration { owner, cancel: false } => {
            migrate::show(&migrate::view_of(ask(&AdminRequest::Migration { owner })?)?, printer)
        }
        KeyVerb::Migration { owner, cancel: true } => {
            let asked = AdminRequest::CancelMigration { owner, operator };
            migrate::show(&migrate::view_of(ask(&asked)?)?, printer)
        }
        KeyVerb::Grade { owner, name, grade } => {
            grade::show(ask(&AdminRequest::Grade { owner, name, grade, operator })?, printer)
        }
        KeyVerb::Allow { owner, from, to, locate, validate } => {
            let allowance = Allowance { from, to, locate, validate };
            grade::show(ask(&AdminRequest::Allow { owner, allowance, operator })?, printer)
        }
        KeyVerb::Grades { owner } => grade::show(ask(&AdminRequest::Grades { owner })?, printer),
        KeyVerb::Import { file } => import::run(ask, &file, &operator, printer),
        KeyVerb::List => list(ask, printer),
        KeyVerb::Revoke { id } => revoked(ask(&AdminRequest::Revoke { id, operator })?, printer),
        KeyVerb::Approve { order, refuse } => {
            decided(ask(&AdminRequest::Approve { order, operator, approve: !refuse })?, printer)
        }
        KeyVerb::ApproveRecovery { id } => {
            recovery(ask(&AdminRequest::ApproveRecovery { id, operator })?, printer)
        }
        KeyVerb::Status => standing(ask(&AdminRequest::Status)?, printer),
        KeyVerb::ExportAudit { dir } => export(ask(&AdminRequest::ExportAudit)?, &dir, printer),
    }
}

fn export(reply: AdminReply, to: &Path, printer: Printer) -> Result<(), Failure> {
    let AdminReply::AuditExported { dir, entries } = reply else { return Err(unexpected(reply)) };
    fs::create_dir_all(to)?;
    for name in ["audit.jsonl", "audit.checkpoint", "audit-key.pem"] {
        fs::copy(Path::new(&dir).join(name), to.join(name))?;
    }
    let shown = json!({"exported": to, "entries": entries});
    printer.result(&shown, &format!("wrote {entries} entries to {}", to.display()))
}

fn revoked(reply: AdminReply, printer: Printer) -> Result<(), Failure> {
    let AdminReply::Revoked { id, at } = reply else { return Err(unexpected(reply)) };
    printer.result(&json!({"id": id, "revoked_at": at}), &format!("{id} is revoked"))
}

fn decided(reply: AdminReply, printer: Printer) -> Result<(), Failure> {
    let AdminReply::Decided { order, refused } = reply else { return Err(unexpected(reply)) };
    let shown = json!({"order": order, "refused": refused});
    let text = refused.map_or("carried out".to_owned(), |name| format!("not carried out ({name})"));
    printer.result(&shown, &format!("{order}: {text}"))
}

fn standing(reply: AdminReply, printer: Printer) -> Result<(), Failure> {
    let AdminReply::Status(status) = reply else { return Err(unexpected(reply)) };
    let text = format!(
        "process {}, CRL number {}, {} audit entries",
        status.pid, status.crl_number, status.audit_entries
    );
    let centre = status.centre.as_ref().map(|centre| {
        let away = if centre.away { ", away" } else { "" };
        format!(
            "\ncentre ({}{away}): {} orders under way; {} answers from the library, {} remembered, {} \
             of the centre",
            centre.manner, centre.outstanding, centre.local, centre.cached, centre.forwarded
        )
    });
    printer.result(&status, &format!("{text}{}", centre.unwrap_or_default()))
}

fn authorized(reply: AdminReply, printer: Printer) -> Result<(), Failure> {
    let AdminReply::Authorized { pass_phrase, name, expires_at } = reply else {
        return Err(unexpected(reply));
    };
    let phrase = phrase(&pass_phrase)?;
    let shown = json!({"pass_phrase": phrase, "name": name, "expires_at": expires_at});
    printer.result(&shown, phrase)
}

fn recovery(reply: AdminReply, printer: Printer) -> Result<(), Failure> {
    let AdminReply::RecoveryApproved { id, missing, pass_phrase } = reply else {
        return Err(unexpected(reply));
    };
    let phrase = pass_phrase.as_ref().map(phrase).transpose()?;
    let shown = json!({"id": id, "missing": missing, "pass_phrase": phrase});
    let text = phrase.map_or_else(|| format!("{missing} more must approve"), str::to_owned);
    printer.result(&shown, &text)
}

fn list(
    ask: impl Fn(&AdminRequest) -> Result<AdminReply, Failure>,
    printer: Printer,
) -> Result<(), Failure> {
    let (mut all, mut after) = (Vec::<ListedBinding>::new(), None);
    let orders = loop {
        let reply = ask(&AdminRequest::List { after, limit: PAGE })?;
        let AdminReply::Listed { bindings, more, orders } = reply else {
            return Err(unexpected(reply));
        };
        after = bindings.last().map(|one| one.binding.id.clone());
        all.extend(bindings);
        if !more || after.is_none() {
            break orders;
        }
    };
    let shown = json!({"bindings": all, "orders": orders});
    printer.result(&shown, &table(&all, &orders))
}

fn table(bindings: &[ListedBinding], orders: &[ListedOrder]) -> String {
    let mut table = crate::output::table(["ID", "NAME", "STATUS", "ESCROW"]);
    for one in bindings {
        let status = match one.binding.status.as_ref().map(|status| status.value) {
            Some(StatusValue::Valid) => "valid",
            Some(StatusValue::Invalid) => "invalid",
            Some(StatusValue::Indeterminate) | None => "indeterminate",
        };
        let name = one.binding.name.clone().unwrap_or_default();
        let escrow = if one.escrowed { "yes" } else { "" };
        table.add_row([one.binding.id.clone(), name, status.to_owned(), escrow.to_owned()]);
    }
    for one in orders {
        let waits = format!("{} order waits", one.operation.name());
        table.add_row([one.order.clone(), one.name.clone(), waits, String::new()]);
    }
    table.to_string()
}

fn phrase(secret: &SecretBytes) -> Result<&str, Failure> {
    Ok(std::str::from_utf8(secret.0.expose())?)
}

fn uses_of(uses: Vec<UseArg>, use_with: &[String]) -> Result<(Vec<KeyUse>, Vec<UseWith>), Failure> {
    let hint = "for example --use-with urn:ietf:rfc:2818=web.example.org";
    let parsed = |text: &String| UseWith::parse(text).map_err(|words| Failure::error(words, hint));
    let use_with = use_with.iter().map(parsed).collect::<Result<_, _>>()?;
    Ok((uses.into_iter().map(Into::into).collect(), use_with))
}

pub(super) fn unexpected(reply: AdminReply) -> Failure {
    match reply {
        AdminReply::Refused { name, detail, hint } => Failure::refused(name, detail, hint),
        AdminReply::Failed { detail } => Failure::error(detail, "see the trust service's log"),
        AdminReply::Authorized { .. }
        | AdminReply::Listed { .. }
        | AdminReply::Revoked { .. }
        | AdminReply::Decided { .. }
        | AdminReply::RecoveryApproved { .. }
        | AdminReply::AuditExported { .. }
        | AdminReply::Migration(_)
        | AdminReply::Grades(_)
        | AdminReply::Expected { .. }
        | AdminReply::Imported { .. }
        | AdminReply::Unfit { .. }
        | AdminReply::Status(_) => {
            Failure::error("the trust service gave another kind of reply", "is it this version?")
        }
    }
}

/// Whose trust service is asked. Without a word a phrase for one of a VM's keys is made, in a lab, at
/// the VM's home: there its client will ask.
async fn host_of(key: &Key, scope: &Scope) -> Result<Option<HostId>, Failure> {
    if let KeyVerb::Migrate { from: Some(from), .. } = &key.verb {
        return Ok(Some(from.clone()));
    }
    let KeyVerb::Authorize { owner: Some(owner), .. } = &key.verb else {
        return Ok(key.host.clone());
    };
    if key.host.is_some() || scope.lab.is_none() {
        return Ok(key.host.clone());
    }
    let target = Target::find(scope.lab.as_deref(), None)?;
    let vms: Vec<VmView> = target.authority()?.get("/v1/vms").await.map_err(|error| {
        Failure::error(
            format!("which host is the home of {owner}? {}", serve::exit::chain(&error)),
            "say it: --host NAME",
        )
    })?;
    Ok(vms.into_iter().find(|vm| vm.spec.name.as_str() == owner).and_then(|vm| vm.home))
}
