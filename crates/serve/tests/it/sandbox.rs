//! The sandbox, tried on a child so that the test process keeps its rights.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use serve::sandbox::{self, FileRestriction};

/// Runs only in the child that the tests below start.
#[test]
#[ignore = "run by another test in a process of its own"]
fn in_a_hardened_child() {
    let allowed = std::path::PathBuf::from(fs::read_to_string("/proc/self/cwd/where").unwrap());
    sandbox::harden().unwrap();
    let _ = sandbox::lock_memory();
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"));
    fs::write(allowed.join("private"), b"x").unwrap();
    let mode = fs::metadata(allowed.join("private")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let missing = allowed.join("missing");
    assert!(sandbox::restrict_files(&[], &[&missing]).is_err());
    let kind = sandbox::restrict_files(&["/usr".as_ref()], &[&allowed]).unwrap();
    println!("restriction={}", kind.as_str());
    fs::write(allowed.join("after"), b"x").unwrap();
    if kind == FileRestriction::Absent {
        return;
    }
    assert!(fs::read("/etc/passwd").is_err());
    assert!(fs::write("/usr/vouchsafe-test", b"x").is_err());
    assert!(fs::read_dir("/usr").is_ok());
    assert!(fs::write("/dev/null", b"x").is_ok());
}

#[test]
fn a_hardened_child_has_no_core_dumps_no_new_privileges_and_only_its_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("where"), dir.path().to_str().unwrap()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "sandbox::in_a_hardened_child", "--nocapture"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    if said.contains("restriction=absent") {
        println!("skipped: this kernel has no landlock, file rules were not enforced");
    }
}

/// Runs only in the child that the test below starts.
#[test]
#[ignore = "run by another test in a process of its own"]
fn a_thread_of_a_hardened_child_panics() {
    sandbox::harden().unwrap();
    let lost = std::thread::spawn(|| assert!(fs::read("/nowhere").is_ok(), "a thread is lost"));
    let _ = lost.join();
    println!("went on");
}

#[test]
fn a_panic_of_any_thread_ends_the_process() {
    use std::os::unix::process::ExitStatusExt as _;
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "sandbox::a_thread_of_a_hardened_child_panics"])
        .arg("--nocapture")
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(6), "ended by SIGABRT");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("went on"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a thread is lost"));
}
