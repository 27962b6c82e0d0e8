//! `vouchsafe volume inspect`: what the header says to anyone. Without a key nothing of it can be
//! verified, and the output says so.

use std::{fs::File, io::Read as _, os::unix::fs::FileExt as _, path::Path};

use anyhow::Context as _;
use disk::Format;
use serde_json::{Value, json};

use super::failure;
use crate::output::{Failure, Printer};

/// LUKS2: bytes of a binary header.
const LUKS2_BINARY: u64 = 4096;
/// LUKS2: longest JSON area that is read.
const JSON_MAX: u64 = 4 << 20;

/// Prints the header.
///
/// # Errors
/// `format-unknown`, another refusal, or the system's error.
pub(super) fn run(path: &Path, printer: Printer) -> Result<(), Failure> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let shown = match disk::recognise(&file).map_err(failure::at(path))? {
        Some(Format::Vault) => super::vault::inspect(path)?,
        Some(Format::Luks2) => luks2(&file)?,
        Some(Format::Luks1) => luks1(&file)?,
        Some(Format::Raw) | None => return Err(failure::unknown(path)),
    };
    printer.result(&shown, &lines(&shown, ""))
}

/// An object as `name: value` lines.
fn lines(value: &Value, indent: &str) -> String {
    let Some(object) = value.as_object() else { return format!("{indent}{value}") };
    let mut out = Vec::new();
    for (name, value) in object {
        match value {
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for item in items {
                    out.push(format!("{indent}{name}:"));
                    out.push(lines(item, &format!("{indent}  ")));
                }
            }
            Value::Object(_) => {
                out.push(format!("{indent}{name}:"));
                out.push(lines(value, &format!("{indent}  ")));
            }
            Value::String(text) => out.push(format!("{indent}{name}: {text}")),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                out.push(format!("{indent}{name}: {value}"));
            }
        }
    }
    out.join("\n")
}

/// A text that ends at its first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// The layout is in `docs/formats/luks2.md`.
fn luks2(file: &File) -> Result<Value, Failure> {
    let mut binary = [0; 512];
    file.read_exact_at(&mut binary, 0)?;
    let field = |at: usize, length: usize| text(binary.get(at..at + length).unwrap_or_default());
    let size = binary.get(8..16).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    let json_length = size.saturating_sub(LUKS2_BINARY).min(JSON_MAX);
    let mut area = vec![0; usize::try_from(json_length)?];
    let metadata: Value = match file.read_exact_at(&mut area, LUKS2_BINARY) {
        Ok(()) => serde_json::from_str(&text(&area)).unwrap_or(Value::Null),
        Err(_) => Value::Null,
    };
    let count = |name: &str| metadata.get(name).and_then(Value::as_object).map_or(0, |o| o.len());
    Ok(json!({
        "format": "luks2", "verified": false, "uuid": field(168, 40), "label": field(24, 48),
        "key_slots": count("keyslots"), "tokens": metadata.get("tokens"),
        "segments": metadata.get("segments"),
    }))
}

/// The layout is in the LUKS On-Disk Format Specification 1.2.3.
fn luks1(file: &File) -> Result<Value, Failure> {
    const ENABLED: [u8; 4] = [0x00, 0xac, 0x71, 0xf3];
    let mut header = Vec::with_capacity(592);
    file.take(592).read_to_end(&mut header)?;
    let field = |at: usize, length: usize| text(header.get(at..at + length).unwrap_or_default());
    let used = |slot: usize| header.get(208 + 48 * slot..212 + 48 * slot) == Some(&ENABLED);
    Ok(json!({
        "format": "luks1", "verified": false, "uuid": field(168, 40),
        "cipher": format!("{}-{}", field(8, 32), field(40, 32)), "hash": field(72, 32),
        "key_slots": (0..8).filter(|slot| used(*slot)).count(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_lines() {
        let shown = json!({"a": 1, "b": [{"c": "x"}], "d": {"e": null}});
        assert_eq!(lines(&shown, ""), "a: 1\nb:\n  c: x\nd:\n  e: null");
    }
}
