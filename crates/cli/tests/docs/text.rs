//! The documents and the sources as text.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The repository's folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("crates/cli has a grandparent").to_owned()
}

/// Files below `folder` with this extension.
pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file's text.
pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a document has in code: lines of its blocks, and spans in its running text.
#[derive(Debug)]
pub(crate) struct Code {
    /// Where it is, for messages.
    pub(crate) document: String,
    /// Lines of blocks, those that end in `\` joined.
    pub(crate) lines: Vec<String>,
    /// Spans between back-ticks, white space made single.
    pub(crate) spans: Vec<String>,
}

/// The documents that say how things are; the changelog says how they were.
pub(crate) fn documents() -> Vec<PathBuf> {
    let root = root();
    let top = ["README.md", "ARCHITECTURE.md", "SPECIFICATION.md"];
    let top = top.into_iter().map(|name| root.join(name));
    top.chain(files(&root.join("docs"), "md")).collect()
}

/// The code in all documents.
pub(crate) fn code() -> Vec<Code> {
    documents().iter().map(|path| code_of(path)).collect()
}

fn code_of(path: &Path) -> Code {
    let document = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    let (mut lines, mut running) = (Vec::new(), String::new());
    let text = read(path);
    for (index, part) in text.split("```").enumerate() {
        if index % 2 == 1 {
            // The first line names the language.
            let block = part.split_once('\n').map_or("", |(_, block)| block);
            lines.extend(block.replace("\\\n", " ").lines().map(str::to_owned));
        } else {
            running.push_str(part);
        }
    }
    let spans = running.split('`').skip(1).step_by(2);
    let spans = spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    Code { document, lines, spans }
}
