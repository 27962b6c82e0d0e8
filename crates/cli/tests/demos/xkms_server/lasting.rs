//! What a killed server still knows, and what its log says.

use std::fs;

use super::life::{self, Registered};
use crate::{
    checks::Checks,
    server::Server,
    world::{PATIENCE, eventually, is_gone, kill_9, run},
};

/// The reader dies, then everything dies.
pub fn killed(server: &Server<'_>, checks: &mut Checks, alive: &Registered, dead: &Registered) {
    let valid = |key: &xkms::dsig::SigningKey| {
        let status = server.status_of(key);
        status.is_some_and(|s| s.value == xkms::message::StatusValue::Valid)
    };
    let before = server.reader();
    kill_9(&before.map(|pid| pid.to_string()).into_iter().collect::<Vec<_>>());
    let after = eventually(PATIENCE, || server.reader().filter(|pid| Some(*pid) != before));
    checks.check(
        "kill -9 of the reader: another one is started",
        after.is_some(),
        format!("{before:?} -> {after:?}"),
    );
    checks.check("and answers", valid(&alive.key), "");
    let last = life::register(server, checks, "last-before-the-kill", false);
    server.signal("-KILL");
    let orphan = after.filter(|pid| {
        let pid = pid.to_string();
        eventually(PATIENCE, || is_gone(&pid).then_some(())).is_none()
    });
    checks.check(
        "kill -9 of the keeper: its reader dies with it",
        orphan.is_none(),
        format!("{orphan:?}"),
    );
    let up = server.up_again();
    checks.check(
        "`lab up` starts it again, at the same address",
        up.is_ok(),
        up.err().unwrap_or_default(),
    );
    checks.check("a key that was registered before is Valid", valid(&alive.key), "");
    let last = last.is_some_and(|last| valid(&last.key));
    checks.check("so is the one that was acknowledged just before the kill", last, "");
    life::revoked(server, checks, dead);
}

/// Names of the refusals in the log, newest last.
pub fn audited(server: &Server<'_>) -> Vec<String> {
    let mut names = Vec::new();
    let folder = server.dir.join("state/audit");
    let mut files: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        for line in fs::read_to_string(file).unwrap_or_default().lines() {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            names.extend(entry["outcome"]["refused"].as_str().map(str::to_owned));
        }
    }
    names
}

/// Every refusal that was provoked is in the log, as operators list it.
pub fn logged(server: &Server<'_>, checks: &mut Checks, provoked: &[&str]) {
    let ask = |verb: &str| {
        server.world.vouchsafe(&["audit", verb, "--service", "trust", "--host", &server.host])
    };
    let said = ask("verify");
    let good = said.code == 0 && said.json()["verified"] == true;
    checks.check("`audit verify --service trust`", good, said.complaint());
    let listed = ask("list").stdout;
    let entries = listed.lines().filter_map(|line| serde_json::from_str(line).ok());
    let names: Vec<String> = entries
        .filter_map(|entry: serde_json::Value| {
            entry["outcome"]["refused"].as_str().map(str::to_owned)
        })
        .collect();
    let same = names == audited(server);
    checks.check("`audit list --service trust` has what is in its files", same, names.len());
    for name in provoked {
        let count = names.iter().filter(|seen| seen == name).count();
        checks.check(&format!("the audit log has `{name}`"), count > 0, "");
    }
}

/// The end of the lab leaves nothing.
pub fn down(server: &Server<'_>, checks: &mut Checks) {
    let pids = [Some(server.keeper()), server.reader()];
    let dir = server.world.dir().to_str().expect("a path");
    let said = run(env!("CARGO_BIN_EXE_vouchsafe"), &["lab", "down", "--dir", dir]);
    let left = pids.iter().flatten().filter(|pid| !is_gone(&pid.to_string())).count();
    checks.check("`lab down` ends both processes", said.code == 0 && left == 0, said.complaint());
}
