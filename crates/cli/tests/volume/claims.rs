//! `docs/patent-claims.md` names a test for each claim: they must exist.

use std::{fs, path::Path};

#[test]
fn every_claim_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/patent-claims.md")).unwrap();
    let named: Vec<(&str, &str)> = page
        .split('`')
        .filter_map(|word| word.split_once(".rs: "))
        .filter(|(path, _)| path.starts_with("crates/"))
        .collect();
    assert!(named.len() >= 15, "only {}", named.len());
    for (path, test) in named {
        let source = fs::read_to_string(root.join(format!("{path}.rs"))).unwrap();
        assert!(source.contains(&format!("fn {test}(")), "{path}.rs has no test {test}");
    }
    for claim in (1..=11).chain(14..=19) {
        assert!(page.contains(&format!("\n| {claim} |")), "claim {claim}");
    }
}
