//! Following an operation to its outcome.

use std::time::Duration;

use model::api::operate::{Operation, Outcome};

use crate::{
    client::Target,
    output::{Failure, Printer},
};

/// How long an operation is followed before the shell gives up; the operation itself goes on.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Waits for the outcome of `operation`, showing its phase.
///
/// # Errors
/// What the outcome says, or that the authority can no longer be asked.
pub(super) async fn outcome(
    target: &Target,
    operation: Operation,
    printer: Printer,
) -> Result<Operation, Failure> {
    let bar = printer.progress(&shown(&operation));
    let id = operation.id;
    let followed = async {
        let mut operation = operation;
        loop {
            if operation.outcome.is_some() {
                return Ok::<_, Failure>(operation);
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
            operation = target.authority()?.get(&format!("/v1/operations/{id}")).await?;
            bar.set_message(shown(&operation));
        }
    };
    let ended = tokio::time::timeout(PATIENCE, followed).await;
    bar.finish_and_clear();
    let operation = ended.map_err(|_| {
        Failure::error(
            format!("operation {id} has not ended after {} minutes", PATIENCE.as_secs() / 60),
            "it goes on; `vouchsafe vm show` says how it stands",
        )
    })??;
    match &operation.outcome {
        Some(Outcome::Refused { name, detail, hint }) => Err(Failure::refused(name, detail, hint)),
        Some(Outcome::Failed { detail, hint }) => Err(Failure::error(detail, hint)),
        Some(Outcome::Done) | None => Ok(operation),
    }
}

fn shown(operation: &Operation) -> String {
    let percent = operation.percent.map(|p| format!(" {p} %")).unwrap_or_default();
    format!("{} on {}: {}{percent}", operation.vm, operation.host, operation.phase)
}

/// The phases with their times, for people.
pub(super) fn timings(operation: &Operation) -> String {
    let parts: Vec<_> =
        operation.timings.iter().map(|(phase, ms)| format!("{phase} {ms} ms")).collect();
    parts.join(", ")
}
