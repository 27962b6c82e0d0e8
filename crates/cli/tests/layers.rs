//! The crate graph is stated once, here; an edge that is not in the table fails this test. Change
//! the table together with `ARCHITECTURE.md` and an ADR that says why.

#![expect(
    clippy::tests_outside_test_module,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "an integration test is a test module"
)]

use std::{collections::BTreeMap, process::Command};

/// Crate, layer, and what it may import. Development dependencies count too.
const TABLE: &[(&str, u8, &[&str])] = &[
    ("model", 0, &[]),
    ("tpm", 1, &["model"]),
    ("pki", 1, &["model"]),
    ("disk", 1, &["model"]),
    ("qcow2", 1, &[]),
    ("store", 1, &["model"]),
    ("xkms", 1, &["model"]),
    ("serve", 1, &["model"]),
    ("token", 2, &["model", "pki", "serve"]),
    ("attest", 2, &["model", "tpm", "pki"]),
    ("passport", 2, &["model", "pki", "serve"]),
    ("journal", 2, &["model", "store", "serve"]),
    ("anchor", 2, &["model", "tpm", "store", "serve"]),
    ("authority", 3, &["model", "tpm", "pki", "attest", "anchor", "store", "serve"]),
    ("host", 3, &["model", "tpm", "attest", "serve"]),
    ("vtpm", 3, &["model", "tpm", "serve"]),
    ("diskd", 3, &["model", "disk", "serve"]),
    (
        "trust",
        3,
        &[
            "model", "pki", "attest", "passport", "journal", "token", "anchor", "xkms", "store",
            "serve",
        ],
    ),
    (
        "centre",
        3,
        &["model", "pki", "attest", "passport", "journal", "token", "anchor", "store", "serve"],
    ),
    ("guest", 3, &["model", "tpm", "pki", "xkms"]),
    ("cli", 4, &["model", "tpm", "pki", "xkms", "attest", "disk", "qcow2", "store", "serve"]),
];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Workspace crates with the workspace crates that they import.
fn edges() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("a list of packages");
    packages
        .iter()
        .map(|package| {
            let imports = package["dependencies"].as_array().expect("a list of dependencies");
            let ours = imports.iter().filter(|d| d["path"].is_string());
            (
                package["name"].as_str().expect("a name").to_owned(),
                ours.map(|d| d["name"].as_str().expect("a name").to_owned()).collect(),
            )
        })
        .collect()
}

#[test]
fn no_crate_imports_what_the_table_does_not_allow() {
    let mut wrong = Vec::new();
    for (name, imports) in edges() {
        let Some((_, _, allowed)) = TABLE.iter().find(|(n, ..)| *n == name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        wrong.extend(
            imports
                .iter()
                .filter(|i| !allowed.contains(&i.as_str()))
                .map(|i| format!("{name} must not import {i}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_has_no_crate_that_is_gone_and_no_edge_upwards() {
    let edges = edges();
    for (name, layer, allowed) in TABLE {
        assert!(edges.contains_key(*name), "{name} is in the table only");
        for import in *allowed {
            let below = TABLE.iter().find(|(n, ..)| n == import).map(|(_, l, _)| l);
            assert!(below.is_some_and(|l| l < layer), "{name} -> {import} does not go down");
        }
    }
}
