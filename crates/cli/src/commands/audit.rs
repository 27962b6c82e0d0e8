//! `vouchsafe audit ...`.

use std::path::Path;

use attest::envelope::{Envelope, Kind, TrustedKeys};
use model::{
    AuditEntry, Outcome,
    api::audit::{AuditExport, AuditPage},
};
use serve::pem;
use store::audit::{self, AuditError, TreeHead, Verified};

use super::service::Asked;
use crate::{
    args::{Audit, Logging, Scope, Whose},
    client::Target,
    output::{Failure, Printer},
};

/// Entries asked for at once.
const PAGE: usize = 500;

/// Names of exported files.
const ENTRIES: &str = "audit.jsonl";
const CHECKPOINT: &str = "audit.checkpoint";
const KEY: &str = "audit-key.pem";

pub(super) async fn run(
    verb: &Audit,
    (scope, target): (&Scope, impl FnOnce() -> Result<Target, Failure>),
    printer: Printer,
) -> Result<(), Failure> {
    match verb {
        Audit::List { from, whose } => match asked(whose) {
            Some(service) => service_list(service, *from, scope, printer),
            None => list(*from, &target()?, printer).await,
        },
        Audit::Export { dir, whose } => {
            match asked(whose) {
                Some(service) => service_export(service, dir, scope)?,
                None => export(dir, &target()?).await?,
            }
            let text = format!("wrote {ENTRIES}, {CHECKPOINT} and {KEY} to {}", dir.display());
            printer.result(&serde_json::json!({"exported": dir}), &text)
        }
        Audit::Verify { file: Some(file), checkpoint: Some(checkpoint), key, .. } => {
            let beside = checkpoint.with_file_name(KEY);
            let key = key.as_deref().unwrap_or(&beside);
            offline(file, checkpoint, key, printer)
        }
        Audit::Verify { whose, .. } => match asked(whose) {
            Some(service) => service_verify(service, scope, printer),
            None => online(&target()?, printer).await,
        },
    }
}

/// The service whose log is meant, if it is not the authority's.
fn asked(whose: &Whose) -> Option<Asked<'_>> {
    whose.service.map(|service| match service {
        Logging::Trust => Asked::Trust(whose.host.as_ref()),
        Logging::Centre => Asked::Centre,
    })
}

fn service_list(
    service: Asked<'_>,
    from: u64,
    scope: &Scope,
    printer: Printer,
) -> Result<(), Failure> {
    let dir = service.export_audit(&service.state(scope)?)?;
    let text = std::fs::read_to_string(dir.join(ENTRIES))?;
    let entries = text.lines().map(AuditEntry::from_line).collect::<Result<Vec<_>, _>>()?;
    let wanted: Vec<AuditEntry> = entries.into_iter().filter(|entry| entry.seq >= from).collect();
    show(&wanted, printer)
}

fn service_export(service: Asked<'_>, to: &Path, scope: &Scope) -> Result<(), Failure> {
    let dir = service.export_audit(&service.state(scope)?)?;
    super::folder(to)?;
    for name in [ENTRIES, CHECKPOINT, KEY] {
        let path = to.join(name);
        std::fs::copy(dir.join(name), &path).map_err(|error| super::unwritable(&path, &error))?;
    }
    Ok(())
}

/// Where the log lies: it need not be closed, and the service need not run.
fn service_verify(service: Asked<'_>, scope: &Scope, printer: Printer) -> Result<(), Failure> {
    let state = service.state(scope)?;
    let key = state.join("signing.pub");
    let text = std::fs::read(&key).map_err(|error| {
        Failure::error(format!("{}: {error}", key.display()), "was the service ever started?")
    })?;
    report(audit::verify_dir(&state.join("audit"), &opener(&text)?), printer)
}

async fn list(from: u64, target: &Target, printer: Printer) -> Result<(), Failure> {
    let client = target.authority()?;
    let mut entries: Vec<AuditEntry> = Vec::new();
    let mut next = from;
    loop {
        let page: AuditPage = client.get(&format!("/v1/audit?from={next}&limit={PAGE}")).await?;
        let Some(last) = page.entries.last() else { break };
        next = last.seq.saturating_add(1);
        entries.extend(page.entries);
        if next >= page.size {
            break;
        }
    }
    show(&entries, printer)
}

fn show(entries: &[AuditEntry], printer: Printer) -> Result<(), Failure> {
    let mut table = crate::output::table(["SEQ", "WHO", "WHAT", "ABOUT", "OUTCOME", "DETAIL"]);
    for entry in entries {
        let outcome = match &entry.outcome {
            Outcome::Done => "done".to_owned(),
            Outcome::Refused(name) => format!("refused: {name}"),
        };
        let row = [&entry.actor, &entry.event, &entry.subject, &outcome, &entry.detail];
        table.add_row(std::iter::once(entry.seq.to_string()).chain(row.map(Clone::clone)));
    }
    printer.list(entries, &table.to_string())
}

async fn export(dir: &Path, target: &Target) -> Result<(), Failure> {
    let export: AuditExport = target.authority()?.get("/v1/audit/export").await?;
    let key = pem::encode("PUBLIC KEY", &export.signing_key.0)?;
    let files: [(&str, &[u8]); 3] = [
        (ENTRIES, export.entries.as_bytes()),
        (CHECKPOINT, export.checkpoint.as_bytes()),
        (KEY, key.as_bytes()),
    ];
    super::folder(dir)?;
    for (name, content) in files {
        let path = dir.join(name);
        std::fs::write(&path, content).map_err(|error| super::unwritable(&path, &error))?;
    }
    Ok(())
}

/// By way of an export; a lab's log is checked where it lies if its authority does not answer.
async fn online(target: &Target, printer: Printer) -> Result<(), Failure> {
    let dir = std::env::temp_dir().join(format!("vouchsafe-audit-{}", std::process::id()));
    if let Err(failure) = export(&dir, target).await {
        let Some(state) = target.lab_state() else { return Err(failure) };
        let key = std::fs::read(state.join("signing.pub"))?;
        return report(audit::verify_dir(&state.join("audit"), &opener(&key)?), printer);
    }
    let checked = offline(&dir.join(ENTRIES), &dir.join(CHECKPOINT), &dir.join(KEY), printer);
    std::fs::remove_dir_all(&dir)?;
    checked
}

fn offline(entries: &Path, checkpoint: &Path, key: &Path, printer: Printer) -> Result<(), Failure> {
    for file in [entries, checkpoint] {
        std::fs::File::open(file).map_err(|error| {
            Failure::error(
                format!("{}: {error}", file.display()),
                "`vouchsafe audit export DIR` writes entries, checkpoint and key",
            )
        })?;
    }
    let text = std::fs::read(key).map_err(|error| {
        Failure::error(
            format!("{}: {error}", key.display()),
            "give the authority's signing key with --key FILE",
        )
    })?;
    report(audit::verify_files(entries, checkpoint, &opener(&text)?), printer)
}

/// Verifies one signed checkpoint of the log and says what it covers.
fn opener(key_pem: &[u8]) -> Result<impl Fn(&str) -> Result<TreeHead, String>, Failure> {
    let spki = pem::parse_public_key(key_pem)
        .ok_or_else(|| Failure::error("no public key in the PEM file", ""))?;
    let keys = TrustedKeys::new([spki])?;
    Ok(move |envelope: &str| {
        let signed = Envelope::parse(envelope.as_bytes())
            .and_then(|envelope| envelope.verify_bytes(&keys, Kind::Checkpoint, 1))
            .map_err(|error| error.to_string())?;
        TreeHead::from_payload(&signed).map_err(|error| error.to_string())
    })
}

fn report(checked: Result<Verified, AuditError>, printer: Printer) -> Result<(), Failure> {
    match checked {
        Ok(verified) => {
            let signed = verified.signed();
            let shown = serde_json::json!({
                "verified": true, "entries": verified.entries(),
                "signed": signed.size, "root": signed.root,
                "hashes_damaged": verified.hashes_damaged(),
            });
            let text = format!(
                "{} entries, {} of them under a signed checkpoint ({})",
                verified.entries(),
                signed.size,
                signed.root
            );
            printer.result(&shown, &text)
        }
        Err(AuditError::Rejected(rejection)) => {
            let (name, detail) = (rejection.name().to_owned(), rejection.to_string());
            let index = rejection.first();
            let after = index.map_or("", |_| "; nothing after that entry can be relied on");
            let hint = format!("compare with an earlier export{after}");
            Err(Failure::Refused { name, detail, hint, index })
        }
        Err(error) => Err(error.into()),
    }
}
