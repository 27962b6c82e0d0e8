//! What the documents name is there: tests, targets of the Makefile, files.

use std::path::Path;

use crate::text::{code, documents, files, read, root};

/// `cargo test -p CRATE.. [--test NAME] [FILTER]`, taken apart.
#[derive(Debug, Default)]
struct Tests<'a> {
    crates: Vec<&'a str>,
    target: Option<&'a str>,
    filter: Option<&'a str>,
}

fn tests(command: &str) -> Option<Tests<'_>> {
    let mut words = command.strip_prefix("cargo test ")?.split(' ');
    let mut tests = Tests::default();
    while let Some(word) = words.next() {
        match word {
            "-p" => tests.crates.extend(words.next()),
            "--test" => tests.target = words.next(),
            "--" => break,
            flag if flag.starts_with('-') => {}
            filter => tests.filter = Some(filter),
        }
    }
    // `cargo test -p CRATE` says what such a command looks like.
    Some(tests).filter(|tests| tests.crates != ["CRATE"])
}

/// Whether a module or a test of the file is called so.
fn has(file: &Path, folder: &Path, filter: &str) -> bool {
    let module = file.strip_prefix(folder).unwrap_or(file).with_extension("");
    let module = module.components().map(|part| part.as_os_str().to_string_lossy());
    let called = |line: &str| {
        line.trim_start()
            .trim_start_matches("async ")
            .strip_prefix("fn ")
            .is_some_and(|line| line.split('(').next().is_some_and(|name| name.contains(filter)))
    };
    module.collect::<Vec<_>>().join("::").contains(filter) || read(file).lines().any(called)
}

fn missing(tests: &Tests<'_>) -> Option<String> {
    let mut found = tests.filter.is_none();
    for name in &tests.crates {
        let folder = root().join("crates").join(name);
        if !folder.join("Cargo.toml").exists() {
            return Some(format!("there is no crate {name}"));
        }
        let target = tests.target.map(|target| folder.join("tests").join(target));
        let there =
            |path: &Path| path.with_extension("rs").exists() || path.join("main.rs").exists();
        if target.as_deref().is_some_and(|path| !there(path)) {
            return Some(format!("{name} has no test {:?}", tests.target));
        }
        let filter = tests.filter.unwrap_or_default();
        let (below, single) = match target {
            Some(path) => (files(&path, "rs"), Some(path.with_extension("rs"))),
            None => (files(&folder, "rs"), None),
        };
        let mut all = below.iter().chain(single.iter().filter(|path| path.exists()));
        found |= all.any(|file| has(file, &folder, filter));
    }
    (!found).then(|| format!("no test is called like {:?}", tests.filter))
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let (mut wrong, mut looked) = (Vec::new(), 0);
    for code in code() {
        for span in &code.spans {
            let Some(tests) = tests(span) else { continue };
            looked += 1;
            if let Some(why) = missing(&tests) {
                wrong.push(format!("{}: {span}: {why}", code.document));
            }
        }
    }
    assert!(looked > 20, "only {looked} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_target_that_a_document_names_is_there() {
    let makefile = read(&root().join("Makefile"));
    let mut wrong = Vec::new();
    for code in code() {
        let lines = code.lines.iter().map(|line| line.trim_start_matches("$ "));
        for said in code.spans.iter().map(String::as_str).chain(lines) {
            let Some(target) = said.strip_prefix("make ").and_then(|rest| rest.split(' ').next())
            else {
                continue;
            };
            if !makefile.lines().any(|line| line.starts_with(&format!("{target}:"))) {
                wrong.push(format!("{}: {said}", code.document));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let mut wrong = Vec::new();
    for code in code() {
        for span in &code.spans {
            if let Some((file, test)) = span.split_once(".rs: ") {
                // `FILE: TEST`, where a test is named.
                let file = root().join(format!("{file}.rs"));
                let there = file.exists() && read(&file).contains(&format!("fn {test}("));
                if !there {
                    wrong.push(format!("{}: {span}", code.document));
                }
                continue;
            }
            let ours = ["crates/", "docs/", "scripts/", "vectors/", "fuzz/fuzz_targets"];
            let plain = !span.contains([' ', '*', '{', '<', 'N']);
            if plain && ours.iter().any(|folder| span.starts_with(folder)) {
                let path = span.split(':').next().unwrap_or(span);
                if !root().join(path).exists() {
                    wrong.push(format!("{}: {span}", code.document));
                }
            }
        }
    }
    for document in documents() {
        let folder = document.parent().expect("a document is in a folder");
        for link in read(&document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or(link);
            let elsewhere = path.contains("://") || path.is_empty();
            if !elsewhere && !folder.join(path).exists() {
                wrong.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
