//! Outside programs that tests need; the tests of the vTPM process include this file too.

/// Whether a program is installed; says aloud that a test is skipped if not.
pub(crate) fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}
