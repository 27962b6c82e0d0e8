//! Backups, and the explicit restore that makes one valid on another TPM.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
    time::Duration,
};

use model::{
    KeyOrigin,
    api::{enrol::HostView, operate::AuthorityStatus, vm::VmView},
};
use serde_json::{Value, json};
use serve::clock::{Clock as _, SystemClock};

use crate::{
    launch::{fails, spec},
    support::{Centre, Settings, SoftwareTpm},
};

/// Leases of some seconds, so that a test can wait for their end, and does something before it though
/// the disk stalls.
fn settings() -> Settings {
    let policy = "lease_s = 12\nsession_life_s = 12\nclock_skew_s = 1".to_owned();
    Settings { policy, ..Settings::default() }
}

fn strings(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn backup(centre: &Centre, name: &str) -> Value {
    let file = centre.path(name);
    let output = centre.command(&["backup", "--json", "--out", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn restore(centre: &Centre, arguments: &[&str], shares: &[String]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vouchsafe-authority"))
        .args(["restore", "--json", "--config"])
        .arg(centre.path("authority.toml"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(shares.join("\n").as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said["refused"].as_str().unwrap().to_owned()
}

/// The machine burns down: state directory and TPM are gone; credentials are elsewhere.
fn lose_everything(centre: &mut Centre) {
    let credentials = ["operator.pem", "operator.key", "ca.pem"];
    for name in credentials {
        std::fs::copy(centre.state(name), centre.path(name)).unwrap();
    }
    std::fs::remove_dir_all(centre.path("state")).unwrap();
    centre.tpm = SoftwareTpm::start(centre.dir.path(), "replacement");
    centre.configure(&settings());
}

fn bring_credentials(centre: &Centre) {
    std::fs::copy(centre.path("operator.key"), centre.state("operator.key")).unwrap();
}

#[test]
fn a_backup_on_another_tpm_begins_an_incarnation_and_grants_nothing_until_old_leases_end() {
    let mut centre = Centre::with(&settings());
    let mut host = centre.host("a");
    host.session().unwrap();
    let _: VmView = centre.operator().post("/v1/vms", &spec("v1", KeyOrigin::Console)).unwrap();
    assert_eq!(centre.command(&["backup", "--out", "/nonexistent/x"]).status.code(), Some(1));
    assert_eq!(centre.stop(), 0);
    let made = backup(&centre, "all.backup");
    assert!(made["audit_entries"].as_u64().unwrap() > 3);
    let shares = strings(&made["backup_shares"]);
    assert_eq!(shares.len(), 5);
    lose_everything(&mut centre);
    let file = centre.path("all.backup");
    let from = ["--backup", file.to_str().unwrap()];
    assert_eq!(refused(&restore(&centre, &from, &shares[..2])), "shares-wrong");
    let init_shares = strings(&centre.init["recovery_shares"]);
    assert_eq!(refused(&restore(&centre, &from, &init_shares[..3])), "backup-altered");
    let output = restore(&centre, &from, &shares[1..4]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["incarnation"], &report["hosts"]), (&json!(2), &json!(["a"])));
    assert_eq!(refused(&restore(&centre, &from, &shares[..3])), "state-in-use");
    bring_credentials(&centre);
    centre.run();
    let operator = centre.operator();
    let status: AuthorityStatus = operator.get("/v1/status").unwrap();
    assert_eq!((status.incarnation, status.vms), (2, 1));
    // A revocation since the backup is not known, so nobody is trusted unseen.
    let view: HostView = operator.get("/v1/hosts/a").unwrap();
    assert!(!view.trusted);
    host.moved(&centre.url());
    assert_eq!(host.session().err().unwrap(), "host-not-approved");
    centre.approve("a", false);
    host.session().unwrap();
    let start = || operator.post::<Value>("/v1/vms/v1/start", &json!({ "host": "a" }));
    assert_eq!(start().err().unwrap(), "leases-not-ended");
    let until = report["quiet_until"].as_u64().unwrap();
    assert!(status.quiet_until == Some(until) || status.quiet_until.is_none());
    let now = SystemClock.unix_ms();
    std::thread::sleep(Duration::from_millis(until.saturating_sub(now) + 1000));
    let session = host.session().unwrap();
    let started = start().unwrap();
    fails(&session, serde_json::from_value(started["id"].clone()).unwrap());
    // New epochs are above all that the lost authority can have given out.
    let fenced: VmView = operator.post("/v1/vms/v1/fence", &json!({ "reason": "test" })).unwrap();
    assert!(fenced.epoch.0 > 1_000_000_000_000);
    assert!(centre.audited_events().contains(&"authority-restored".to_owned()));
    assert!(centre.audited_events().contains(&"authority-backed-up".to_owned()));
    assert!(centre.audited_refusals().contains(&"leases-not-ended".to_owned()));
}

#[test]
fn a_store_that_was_rolled_back_is_made_valid_only_by_shares_and_its_refusal_is_audited() {
    let mut centre = Centre::with(&settings());
    centre.token("a");
    assert_eq!(centre.stop(), 0);
    let copy = |from: &str, to: &str| {
        let _ = std::fs::remove_dir_all(centre.path(to));
        let (from, to) = (centre.path(from), centre.path(to));
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    copy("state", "older");
    centre.run();
    centre.token("b");
    assert_eq!(centre.stop(), 0);
    let copy = |from: &str, to: &str| {
        let _ = std::fs::remove_dir_all(centre.path(to));
        let (from, to) = (centre.path(from), centre.path(to));
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    copy("older", "state");
    let output = centre.command(&["--json"]);
    assert_eq!(refused(&output), "store-rolled-back");
    let shares = strings(&centre.init["recovery_shares"]);
    assert_eq!(refused(&restore(&centre, &[], &shares[..2])), "shares-wrong");
    assert!(restore(&centre, &[], &shares[2..]).status.success());
    centre.run();
    let status: AuthorityStatus = centre.operator().get("/v1/status").unwrap();
    assert_eq!(status.incarnation, 2);
    assert!(centre.audited_refusals().contains(&"store-rolled-back".to_owned()));
}
