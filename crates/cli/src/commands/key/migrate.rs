//! `vouchsafe key migrate`: begins a migration and waits until the keys are at one place.

use std::{path::Path, thread, time::Duration};

use model::{
    HostId,
    api::Bytes,
    keys::admin::{AdminReply, AdminRequest, OwnerView},
    migration::{Place, Rejection},
};
use serde_json::json;

use super::unexpected;
use crate::{
    args::Scope,
    lab::layout::Layout,
    output::{Failure, Printer},
};

/// How often it is asked how far it is.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the trust service of a lab's host listens for others.
pub(super) fn peer_url(scope: &Scope, host: &HostId) -> Result<String, Failure> {
    let missing = || Failure::error("where does the target listen?", "--url https://HOST:PORT");
    let dir = scope.lab.as_ref().ok_or_else(missing)?;
    let file = Layout::open(dir)?.trust(host).join("peer-address");
    let address = std::fs::read_to_string(file).map_err(|_| missing())?;
    Ok(format!("https://{}", address.trim()))
}

/// A CA's certificate from a PEM file.
pub(super) fn ca(file: &Path) -> Result<Bytes, Failure> {
    let all = serve::pem::read_certificates(file)?;
    let first = all.into_iter().next();
    first.map(Bytes).ok_or_else(|| Failure::error("the CA's file is empty", "--ca FILE"))
}

/// In a lab, where one person is the operator of both: what the target is told before.
pub(super) fn announcement(
    scope: &Scope,
    owner: &str,
    from: Option<HostId>,
    operator: &str,
) -> Result<Option<AdminRequest>, Failure> {
    let Some(dir) = &scope.lab else { return Ok(None) };
    let from = from.map_or_else(|| "a".parse(), Ok)?;
    let file = Layout::open(dir)?.trust(&from).join("state/ca.pem");
    let ca = file.exists().then(|| ca(&file)).transpose()?;
    let (owner, operator) = (owner.to_owned(), operator.to_owned());
    Ok(Some(AdminRequest::Expect { owner, from, ca, operator }))
}

/// Whether it is expected.
pub(super) fn expected_at(reply: AdminReply) -> Result<(), Failure> {
    if let AdminReply::Expected { .. } = reply { Ok(()) } else { Err(unexpected(reply)) }
}

/// Shows what is expected.
pub(super) fn expected(reply: AdminReply, printer: Printer) -> Result<(), Failure> {
    let AdminReply::Expected { owner, from, until } = reply else { return Err(unexpected(reply)) };
    let shown = json!({"owner": owner, "from": from, "until": until});
    printer.result(&shown, &format!("{owner} may come from {from}"))
}

/// Waits for the end of what `begun` says was begun.
pub(super) fn follow(
    ask: impl Fn(&AdminRequest) -> Result<AdminReply, Failure>,
    begun: AdminReply,
    patience: Duration,
    printer: Printer,
) -> Result<(), Failure> {
    let mut left = patience;
    let mut view = view_of(begun)?;
    while view.place.moving().is_some() && !matches!(view.place, Place::Withdrawing(..)) {
        if left.is_zero() {
            let text = format!("the migration goes on ({})", view.place.name());
            return Err(Failure::error(text, "`vouchsafe key migration` says how far it is"));
        }
        thread::sleep(PAUSE);
        left = left.saturating_sub(PAUSE);
        view = view_of(ask(&AdminRequest::Migration { owner: view.owner.clone() })?)?;
    }
    if let Some(name) = &view.refused {
        let said = Rejection::from_code(name).map_or_else(String::new, |why| why.to_string());
        let hint = "the keys stay where they are; `vouchsafe key migrate` tries again";
        return Err(Failure::refused(name.clone(), said, hint));
    }
    show(&view, printer)
}

/// Shows where an owner's keys are.
pub(super) fn show(view: &OwnerView, printer: Printer) -> Result<(), Failure> {
    let OwnerView { owner, place, refused } = view;
    let shown = json!({"owner": owner, "place": place.name(), "epoch": place.epoch(),
        "peer": place.moving().map(|one| &one.peer), "refused": refused});
    printer.result(&shown, &format!("{owner}: {}", place.name()))
}

/// The view in a reply.
pub(super) fn view_of(reply: AdminReply) -> Result<OwnerView, Failure> {
    if let AdminReply::Migration(view) = reply { Ok(view) } else { Err(unexpected(reply)) }
}
