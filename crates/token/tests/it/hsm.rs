//! A softhsm2 token of a test's own. Shared with the tests of the services whose CA's key is in one.

use std::{fs, path::Path, process::Command};

/// The module.
pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The PIN of every token.
pub(crate) const PIN: &str = "4711-0815";
/// What softhsm2 reads the place of its configuration from.
pub(crate) const CONFIG: &str = "SOFTHSM2_CONF";

/// Runs a program that knows the token in `dir`.
pub(crate) fn run(program: &str, args: &[&str], dir: &Path) {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env(CONFIG, dir.join("softhsm2.conf"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&said));
}

/// Makes the token `ca` in `dir`: `softhsm2.conf` and `tokens`; whether there is softhsm2.
pub(crate) fn make(dir: &Path, test: &str) -> bool {
    if !Path::new(MODULE).exists() {
        println!("SKIPPED: {test}: there is no softhsm2 (scripts/install-packages.sh test)");
        return false;
    }
    let tokens = dir.join("tokens");
    fs::create_dir(&tokens).unwrap();
    let config = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
    fs::write(dir.join("softhsm2.conf"), config).unwrap();
    let init = ["--init-token", "--free", "--label", "ca", "--so-pin", "12345678", "--pin", PIN];
    run("softhsm2-util", &init, dir);
    true
}
