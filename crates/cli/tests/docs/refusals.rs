//! Refusals by name: those that the sources can give, and those that `docs/attacks.md` lists.

use std::collections::BTreeSet;

use crate::text::{files, read, root};

/// Functions that give a refusal's name.
const GIVERS: [&str; 3] = ["fn name(", "fn code(", "fn refusal("];
/// Calls whose first argument is a refusal's name.
const CALLS: [&str; 3] = ["refused(", "refusal(", "Refusal::new("];
/// Names that such functions give of other things.
const OTHERS: [&str; 20] = [
    // Ciphers and key slots of volumes.
    "aegis-256x4",
    "aes-256-gcm",
    "random-key",
    // Kinds of certificates.
    "host-ak",
    "host-ek",
    "host-session",
    "tls-server",
    "vtpm-ak",
    "vtpm-ek",
    // A table of the store.
    "lease-keys",
    // What a quote is for.
    "guest-attest",
    "guest-channel",
    "host-attest",
    "key-parent",
    "vtpm-binding",
    // An aspect of a path that nobody judged, and what the audit log calls what was refused.
    "not-checked",
    "key-migration",
    "key-order",
    "keys-query",
    "xkms-unread",
];

/// Whether it is written as names of refusals are: two words or more.
fn is_name(word: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    word.contains('-') && word.split('-').all(part)
}

/// The literals of a line that could be names.
fn literals(line: &str) -> impl Iterator<Item = String> + '_ {
    line.split('"').skip(1).step_by(2).filter(|word| is_name(word)).map(str::to_owned)
}

/// A source without its tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn sources() -> Vec<String> {
    let mut found = Vec::new();
    for path in files(&root().join("crates"), "rs") {
        let below = path.strip_prefix(root()).expect("it is below").display().to_string();
        let tests = below.contains("/tests") || below.contains("/benches/");
        if !tests && below.contains("/src/") {
            found.push(product(&read(&path)).to_owned());
        }
    }
    found
}

/// What a source can refuse with.
fn given(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut ends: Option<String> = None;
    for (index, line) in lines.iter().enumerate() {
        if let Some(end) = &ends {
            names.extend(literals(line));
            if *line == end {
                ends = None;
            }
            continue;
        }
        if GIVERS.iter().any(|giver| line.contains(giver)) && line.contains("str") {
            let indent = line.len() - line.trim_start().len();
            ends = line.ends_with('{').then(|| format!("{:indent$}}}", ""));
        }
        for call in CALLS {
            let Some((_, argument)) = line.split_once(call) else { continue };
            let next = lines.get(index + 1).copied().unwrap_or_default().trim();
            let argument = if argument.is_empty() { next } else { argument };
            if argument.starts_with('"') {
                names.extend(literals(argument).next());
            }
        }
    }
    names
}

/// The names in the second columns of the document's tables.
fn listed() -> BTreeSet<String> {
    let text = read(&root().join("docs/attacks.md"));
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    spans.filter(|span| is_name(span)).map(str::to_owned).collect()
}

#[test]
fn the_refusals_of_the_code_are_those_of_the_document() {
    let sources = sources();
    let mut code: BTreeSet<String> = sources.iter().flat_map(|text| given(text)).collect();
    assert!(code.len() > 300, "only {} names were found", code.len());
    for other in OTHERS {
        assert!(code.remove(other), "{other} is not given any more");
    }
    let listed = listed();
    let untold: Vec<_> = code.difference(&listed).collect();
    assert!(untold.is_empty(), "docs/attacks.md does not know {untold:#?}");
    let written: BTreeSet<String> = sources.iter().flat_map(|text| literals_of(text)).collect();
    let invented: Vec<_> = listed.difference(&written).collect();
    assert!(invented.is_empty(), "only docs/attacks.md knows {invented:#?}");
}

fn literals_of(text: &str) -> Vec<String> {
    text.lines().flat_map(literals).collect()
}
