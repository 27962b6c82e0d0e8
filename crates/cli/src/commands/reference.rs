//! `vouchsafe reference ...`: from good machines to a signed document that an authority uses.

use std::path::Path;

use attest::{eventlog::EventLog, reference::ReferenceValues};
use serde::Serialize;
use serve::{
    clock::{Clock as _, SystemClock},
    exit::Exit,
    fsfile,
};

use super::authority;
use crate::{
    args::{AddComponent, FromLog, Reference},
    lab::components::digest_file,
    output::{Failure, Printer, quoted, table},
    reference::{self, Document, Endorsed},
};

/// Longest event log, bytes.
const MAX_LOG: usize = 16 << 20;

/// A document as `--json` shows it.
#[derive(Debug, Serialize)]
struct View<'a> {
    #[serde(flatten)]
    values: &'a ReferenceValues,
    /// Who signed, by SHA-256 of their SubjectPublicKeyInfo.
    signatures: Vec<String>,
    /// Those of them that were verified; absent if no endorser was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Vec<String>>,
}

pub(super) fn run(verb: &Reference, printer: Printer) -> Result<Exit, Failure> {
    match verb {
        Reference::Key { out, name } => make_key(out, name, printer)?,
        Reference::FromLog(wish) => from_log(wish, printer)?,
        Reference::AddComponent(wish) => add_component(wish, printer)?,
        Reference::Show { file, endorsers, needed } => {
            let document = Document::read(file)?;
            let verified = match (&document.envelope, endorsers.as_slice()) {
                (_, []) => None,
                (None, _) => return Err(unsigned(file)),
                (Some(envelope), files) => {
                    let signed = reference::verify(envelope, &reference::trusted(files)?, *needed)?;
                    Some(signed.signers().iter().map(ToString::to_string).collect())
                }
            };
            show(&document, verified, printer)?;
        }
        Reference::Sign { key, document, out } => sign(key, document, out, printer)?,
        Reference::Install { authority_config, document } => {
            let words = [document.as_os_str()];
            return authority::local(authority_config, "reference", &words, printer);
        }
    }
    Ok(Exit::Done)
}

fn unsigned(file: &Path) -> Failure {
    Failure::refused(
        "envelope-too-few-signers",
        format!("{} is a draft: nobody has signed it", file.display()),
        format!("`vouchsafe reference sign --key FILE {} OUT`", quoted(file)),
    )
}

fn make_key(out: &Path, name: &str, printer: Printer) -> Result<(), Failure> {
    use attest::envelope::Sign as _;

    if !out.exists() {
        fsfile::create_private_dir(out)?;
    }
    let (key, public) = (out.join(format!("{name}.key")), out.join(format!("{name}.pub")));
    let made = reference::make_key(&key, &public)?;
    let id = made.key_id().to_string();
    let json = serde_json::json!({"key": key, "public_key": public, "key_id": id});
    let text = format!(
        "endorser's key: {} (keep it off the authority and the hosts)\npublic key:     {}\n\
         key id:         {id}\nnext: name {} in `endorsers.keys` of authority.toml",
        key.display(),
        public.display(),
        public.display(),
    );
    printer.result(&json, &text)
}

fn from_log(wish: &FromLog, printer: Printer) -> Result<(), Failure> {
    let mut files = Vec::new();
    for path in &wish.logs {
        files.push((path, fsfile::read_limited(path, MAX_LOG)?));
    }
    let mut logs = Vec::new();
    for (path, bytes) in &files {
        logs.push(EventLog::parse(bytes).map_err(|error| {
            Failure::error(
                format!("{}: {error}", path.display()),
                "give a TCG2 event log, as the kernel shows it in \
                 /sys/kernel/security/tpm0/binary_bios_measurements",
            )
        })?);
    }
    let usual = || reference::usual_pcrs(&logs);
    let pcrs = wish.pcrs.as_ref().map_or_else(usual, |list| list.0.clone());
    let values = reference::from_logs(&wish.name, SystemClock.unix_ms(), &logs, &pcrs);
    if values.events.is_empty() {
        return Err(Failure::error(
            format!("no SHA-256 event of PCRs {pcrs:?} is in these logs"),
            "`tpm2_eventlog FILE` shows what a log has; the SHA-256 bank must be switched on",
        ));
    }
    drafted(values, &wish.out, "", printer)
}

fn add_component(wish: &AddComponent, printer: Printer) -> Result<(), Failure> {
    let document = Document::read(&wish.document)?;
    let out = wish.out.as_ref().unwrap_or(&wish.document);
    if document.envelope.is_some() && out == &wish.document {
        return Err(Failure::Usage(format!(
            "{} is signed, and a change voids its signatures: write the new draft to --out FILE",
            wish.document.display()
        )));
    }
    let mut digests = Vec::new();
    for file in &wish.files {
        digests.push(digest_file(file)?);
    }
    let mut values = document.values;
    values.issued = SystemClock.unix_ms();
    let name = &wish.name;
    let said = match reference::endorse_component(&mut values, name, &digests, wish.replace) {
        Endorsed::Named => format!("{name} is endorsed; every host must have measured it\n"),
        Endorsed::Joined => format!(
            "{name} is endorsed besides the versions that were; when no host runs these any more, \
             use --replace\n"
        ),
        Endorsed::Replaced => format!("{name} is endorsed in place of the versions that were\n"),
    };
    drafted(values, out, &said, printer)
}

/// Writes a draft and says what to do with it.
fn drafted(
    values: ReferenceValues,
    out: &Path,
    said: &str,
    printer: Printer,
) -> Result<(), Failure> {
    let text = format!(
        "{said}draft of {} events in PCRs {:?}: {}\nnext: vouchsafe reference show {}, then \
         vouchsafe reference sign --key FILE {} SIGNED",
        values.events.len(),
        values.pcrs,
        out.display(),
        quoted(out),
        quoted(out),
    );
    let json = serde_json::json!({
        "document": out,
        "events": values.events.len(),
        "pcrs": values.pcrs,
    });
    Document::draft(values).write(out)?;
    printer.result(&json, &text)
}

fn sign(key: &Path, document: &Path, out: &Path, printer: Printer) -> Result<(), Failure> {
    let key = reference::open_key(key)?;
    let mut signed = Document::read(document)?;
    signed.sign(&key, key.spki())?;
    signed.write(out)?;
    let count = signed.envelope.as_ref().map_or(0, |envelope| envelope.signatures.len());
    let json = serde_json::json!({"document": out, "signatures": count});
    let text = format!(
        "{} ({:?}, {} events) has {count} signatures\nnext: vouchsafe reference install \
         --authority-config FILE {}, on the authority's machine; or another endorser signs first",
        out.display(),
        signed.values.name,
        signed.values.events.len(),
        quoted(out),
    );
    printer.result(&json, &text)
}

fn show(
    document: &Document,
    verified: Option<Vec<String>>,
    printer: Printer,
) -> Result<(), Failure> {
    let values = &document.values;
    let mut rows = table(["PCR", "TYPE", "NAME", "", "GOOD DIGESTS (SHA-256)"]);
    for event in &values.events {
        let digests: Vec<String> = event.digests.iter().map(|digest| digest.hex()).collect();
        rows.add_row([
            event.pcr.to_string(),
            attest::eventlog::EventType(event.kind).to_string(),
            event.name.clone(),
            if event.optional { "optional".to_owned() } else { String::new() },
            digests.join("\n"),
        ]);
    }
    let signatures: Vec<String> = document
        .envelope
        .iter()
        .flat_map(|envelope| &envelope.signatures)
        .map(|signature| signature.keyid.to_string())
        .collect();
    let signers = match (&verified, signatures.as_slice()) {
        (_, []) => "a draft: nobody has signed it".to_owned(),
        (None, keys) => format!("signed by (not verified: give --endorser) {}", keys.join(", ")),
        (Some(keys), _) => format!("verified: signed by {}", keys.join(", ")),
    };
    let text = format!(
        "{:?}, PCRs {:?}, made at {} (Unix milliseconds)\n{rows}\n{signers}",
        values.name, values.pcrs, values.issued
    );
    printer.result(&View { values, signatures, verified }, &text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_that_was_there_stays_open_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        make_key(dir.path(), "ann", Printer::new(true)).unwrap();
        assert_eq!(mode(dir.path()), 0o755);
        assert_eq!(mode(&dir.path().join("ann.key")), 0o600);
        let fresh = dir.path().join("fresh");
        make_key(&fresh, "ann", Printer::new(true)).unwrap();
        assert_eq!(mode(&fresh), 0o700);
    }
}
