//! The audit log as operators read and export it.

use axum::extract::State;
use model::api::{
    Bytes,
    audit::{AuditCheckpoint, AuditExport, AuditPage},
};
use serde::Deserialize;
use serve::{fsfile, random};

use super::{
    Route, Who,
    gate::{Answer, Asked, Outcome},
    shape::Shape,
};
use crate::{app::App, audit::AuditError, caller::Operator, failure::Failure};

/// Entries of a page, unless fewer are asked for.
const PAGE: usize = 1000;
/// Longest export over HTTP, in bytes; a longer log is copied from its directory.
const MAX_EXPORT: usize = 64 << 20;

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/audit",
            (Who::Operator, "audit-list"),
            "Read the audit log",
            Shape::of::<AuditPage>(),
            page,
        )
        .asks(&[("from", "number of the first entry"), ("limit", "most entries")]),
        Route::get(
            "/v1/audit/checkpoint",
            (Who::Operator, "audit-checkpoint"),
            "Sign the log's present head",
            Shape::of::<AuditCheckpoint>(),
            checkpoint,
        ),
        Route::get(
            "/v1/audit/export",
            (Who::Operator, "audit-export"),
            "Export the log with what verifies it offline",
            Shape::of::<AuditExport>(),
            export,
        ),
    ]
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Which {
    from: u64,
    limit: Option<usize>,
}

async fn page(
    State(app): State<App>,
    _operator: Operator,
    Asked(which): Asked<Which>,
) -> Outcome<AuditPage> {
    let reader = app.clone();
    let limit = which.limit.unwrap_or(PAGE).min(PAGE);
    let read = move || reader.audit.log().read(which.from, limit);
    let entries = tokio::task::spawn_blocking(read).await?.map_err(AuditError::log)?;
    Ok(Answer(AuditPage { entries, size: app.audit.log().tree_head().size }))
}

async fn checkpoint(State(app): State<App>, _operator: Operator) -> Outcome<AuditCheckpoint> {
    let checkpoint = app.audit.checkpoint(&app.keys.signer).await?.to_value();
    let signing_key = Bytes(app.keys.signer.spki().to_vec());
    Ok(Answer(AuditCheckpoint { checkpoint, signing_key }))
}

async fn export(State(app): State<App>, _operator: Operator) -> Outcome<AuditExport> {
    app.audit.checkpoint(&app.keys.signer).await?;
    let signing_key = Bytes(app.keys.signer.spki().to_vec());
    let (entries, checkpoint) = tokio::task::spawn_blocking(move || files(&app)).await??;
    Ok(Answer(AuditExport { entries, checkpoint, signing_key }))
}

/// The store writes exports to files; they are read back and removed.
fn files(app: &App) -> Result<(String, String), Failure> {
    let name = hex::encode(random::bytes::<8>()?);
    let at = |what: &str| app.paths.dir().join(format!("export-{name}.{what}"));
    let (entries, checkpoint) = (at("entries"), at("checkpoint"));
    let log = app.audit.log();
    let written = log.export(log.tree_head().size, &entries, &checkpoint);
    let read = |path: &std::path::Path| -> Result<String, Failure> {
        let bytes = fsfile::read_limited(path, MAX_EXPORT)?;
        String::from_utf8(bytes).map_err(|_| Failure::broken("the audit log is not text"))
    };
    let both = match written {
        Ok(()) => read(&entries).and_then(|lines| Ok((lines, read(&checkpoint)?))),
        Err(error) => Err(AuditError::log(error).into()),
    };
    for path in [&entries, &checkpoint] {
        fsfile::remove(path)?;
    }
    both
}
