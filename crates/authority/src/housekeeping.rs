//! Checkpoints of the audit log; and what is of no use any more goes: tokens that expired, grant ids and operations of a month ago,
//! and the store's history beyond what a poll may ask for.
//!
//! **Invariant:** a grant id is forgotten only long after its grant has expired; nothing open is
//! forgotten.

use std::time::Duration;

use model::api::{operate::Operation, vm::VmState};
use serve::fsfile;

use crate::{
    app::App,
    failure::Failure,
    record::token::TokenRecord,
    records::{self, GrantRecord, Kept},
};

/// How often is tidied up.
const EVERY: Duration = Duration::from_secs(3600);
/// How long ended operations and used grant ids are kept, milliseconds.
const MONTH: u64 = 30 * 86_400_000;
/// Revisions of history that are kept.
const HISTORY: u64 = 10_000;

/// Tidies up, and signs a checkpoint of the audit log when it has grown, until the process is to end.
pub(crate) async fn run(app: App) {
    let mut signed = None;
    let mut tidied = None;
    loop {
        let size = app.audit.log().tree_head().size;
        if signed != Some(size) {
            match app.audit.checkpoint(&app.keys.signer).await {
                Ok(_) => signed = Some(size),
                Err(error) => tracing::warn!(%error, "no checkpoint was signed"),
            }
        }
        let now = app.clock.monotonic();
        if tidied.is_none_or(|at| now.saturating_sub(at) >= EVERY) {
            tidied = Some(now);
            if let Err(failure) = tidy(&app).await {
                tracing::warn!(?failure, "housekeeping failed; it is tried again later");
            }
        }
        tokio::select! {
            () = app.shutdown.requested() => return,
            () = tokio::time::sleep(Duration::from_secs(app.config.limits.checkpoint_s)) => {}
        }
    }
}

async fn tidy(app: &App) -> Result<(), Failure> {
    let now = app.now();
    let old = |at: u64| now.saturating_sub(at) > MONTH;
    let records = &app.records;
    let tokens = records
        .forget(Kept::Tokens, |token: &TokenRecord| {
            now >= token.expires_at && old(token.expires_at)
        })
        .await?;
    let grants = records.forget(Kept::Grants, |grant: &GrantRecord| old(grant.at)).await?;
    let over = |operation: &Operation| operation.outcome.is_some() && old(operation.accepted_at);
    let operations = records.forget(Kept::Operations, over).await?;
    let store = records.sealed().store();
    let state = store.state().await?;
    if let Some(until) = state.compaction(HISTORY) {
        store.compact(until).await?;
    }
    forget_evidence(app).await?;
    tracing::debug!(tokens, grants, operations, "tidied up");
    Ok(())
}

/// Evidence of VMs that are gone.
async fn forget_evidence(app: &App) -> Result<(), Failure> {
    for file in std::fs::read_dir(app.paths.evidence())?.flatten() {
        let path = file.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).and_then(|s| s.parse().ok());
        let Some(name) = name else { continue };
        let vm = app.records.get(&records::vm(&name)?).await?;
        if vm.is_none_or(|vm| vm.value.state == VmState::Retired) {
            fsfile::remove(&path)?;
        }
    }
    Ok(())
}
