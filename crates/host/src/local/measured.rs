//! What the agent itself saw of a guest, for the trust service of this server.

use std::time::Duration;

use axum::extract::{Path, State};
use http::StatusCode;
use model::{
    child::vtpm::{Entry, Reply, Request},
    guest::{Measured, PcrValue},
};
use serve::problem::{Json, Problem};

use super::{Local, find};
use crate::{
    child::{AskError, ask_vtpm},
    plan::VmPaths,
};

/// How long the vTPM process may take.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) async fn measured(
    State(local): State<Local>,
    Path(vm): Path<String>,
) -> Result<Json<Measured>, Problem> {
    let (vm, handle) = find(&local, &vm)?;
    let paths = VmPaths::new(&local.host.config, &vm);
    let entries = observed(&paths).await.map_err(|error| {
        tracing::warn!(vm.id = %vm, %error, "its vTPM cannot be asked");
        let title = "the VM does not run, or its vTPM gives no answer";
        Problem::error(StatusCode::CONFLICT, "vm-not-measured", title)
    })?;
    let shown = handle.shown.borrow().clone();
    // A list that is not whole says nothing about PCRs, and what was measured after the verdict is
    // none of what was affirmed.
    let judged = shown.judged.and_then(|length| usize::try_from(length).ok());
    let affirmed = entries
        .zip(judged)
        .and_then(|(entries, length)| attest::guest::observed_pcrs(entries.get(..length)?).ok());
    let pcrs = affirmed.unwrap_or_default().into_iter().map(|(pcr, value)| PcrValue { pcr, value });
    Ok(Json(Measured {
        vm,
        epoch: shown.vm.epoch,
        trusted: shown.vm.trusted,
        ek_certificate: shown.ek,
        pcrs: pcrs.collect(),
        port: paths.xkms().to_string_lossy().into_owned(),
    }))
}

/// The whole list of now; none if it was cut short or could not be observed.
async fn observed(paths: &VmPaths) -> Result<Option<Vec<Entry>>, AskError> {
    let control = paths.vtpm_control();
    let mut entries: Vec<Entry> = Vec::new();
    let mut generation = None;
    loop {
        let from = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        let Reply::Observed(part) = ask_vtpm(&control, Request::Observed { from }, ANSWER).await?
        else {
            return Err(AskError::Unanswered(control));
        };
        if part.overflowed || part.unobservable.is_some() {
            return Ok(None);
        }
        if *generation.get_or_insert(part.generation) != part.generation {
            return Err(AskError::Unanswered(control));
        }
        let done = part.entries.is_empty();
        entries.extend(part.entries);
        if done || u64::try_from(entries.len()).is_ok_and(|have| have >= part.total) {
            return Ok(Some(entries));
        }
    }
}
