//! The authority's own state: made once, never older than its TPM says, brought back from shares.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use model::{
    KeyOrigin,
    api::{operate::AuthorityStatus, vm::VmView},
};
use serde_json::Value;

use crate::{
    launch::spec,
    support::{Centre, Settings, SoftwareTpm},
};

/// The NV index that the authority defines.
const COUNTER: u32 = 0x0180_5601;

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Starts the server and expects it to refuse; the name of the refusal.
fn refuses(centre: &Centre) -> String {
    let output = centre.command(&["--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said["refused"].as_str().unwrap().to_owned()
}

#[test]
fn init_is_repeatable_and_shows_the_shares_once() {
    let centre = Centre::start();
    assert_eq!(centre.init["recovery_shares"].as_array().unwrap().len(), 5);
    assert_eq!(centre.init["threshold"], 3);
    let ca = std::fs::read(centre.state("ca.pem")).unwrap();
    let again = centre.command(&["init", "--json"]);
    assert!(again.status.success());
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert!(again.get("recovery_shares").is_none());
    assert_eq!(std::fs::read(centre.state("ca.pem")).unwrap(), ca);
    // No share is in any file.
    let share = centre.init["recovery_shares"][0].as_str().unwrap();
    let found = Command::new("grep").arg("-rl").arg(share).arg(centre.dir.path()).output().unwrap();
    assert!(found.stdout.is_empty());
}

#[test]
fn an_older_store_does_not_start() {
    let mut centre = Centre::start();
    assert_eq!(centre.stop(), 0);
    let (state, older) = (centre.path("state"), centre.path("older"));
    copy(&state, &older);
    centre.run();
    centre.token("a");
    assert_eq!(centre.stop(), 0);
    let newest = centre.path("newest");
    copy(&state, &newest);
    copy(&older, &state);
    assert_eq!(refuses(&centre), "store-rolled-back");
    // Mixing old and new is no way around.
    std::fs::copy(newest.join("head.json"), state.join("head.json")).unwrap();
    assert_eq!(refuses(&centre), "store-rolled-back");
    std::fs::remove_file(state.join("head.json")).unwrap();
    assert_eq!(refuses(&centre), "store-head-missing");
    copy(&newest, &state);
    centre.run();
}

#[test]
fn a_head_or_a_sealed_file_that_was_altered_does_not_start() {
    let mut centre = Centre::start();
    assert_eq!(centre.stop(), 0);
    let (state, good) = (centre.path("state"), centre.path("good"));
    copy(&state, &good);
    // Another head: a byte of what is signed, and what is no head at all.
    let head = std::fs::read_to_string(state.join("head.json")).unwrap();
    let mut envelope: Value = serde_json::from_str(&head).unwrap();
    let payload = envelope["payload"].as_str().unwrap();
    let first = if payload.starts_with('f') { "e" } else { "f" };
    envelope["payload"] = format!("{first}{}", &payload[1..]).into();
    for altered in [envelope.to_string(), "{}".to_owned()] {
        std::fs::write(state.join("head.json"), altered).unwrap();
        assert_eq!(refuses(&centre), "store-head-invalid");
    }
    copy(&good, &state);
    // Each of the keys' files, with one bit turned over.
    let mut sealed = 0;
    for entry in std::fs::read_dir(&good).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".sealed") {
            continue;
        }
        let mut bytes = std::fs::read(good.join(&name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(state.join(&name), bytes).unwrap();
        assert_eq!(refuses(&centre), "key-file-altered", "{name}");
        std::fs::copy(good.join(&name), state.join(&name)).unwrap();
        sealed += 1;
    }
    assert!(sealed > 0);
    centre.run();
}

#[test]
fn an_authority_whose_counter_another_copy_moves_ends() {
    let limits = "anchor_ms = 300".to_owned();
    let mut centre = Centre::with(&Settings { limits, ..Settings::default() });
    let moved = centre
        .tpm
        .actor
        .run(|tpm| tpm.nv_increment(Some(tpm::Hierarchy::Owner), tpm::Auth::none(), COUNTER));
    moved.map_err(|error: tpm::TpmError| error).unwrap();
    let approval = serde_json::json!({ "host": "a" });
    // Something is written; it may end before it has answered.
    let _answered = centre.operator().post::<Value>("/v1/tokens", &approval);
    assert_eq!(centre.wait(), 3);
    assert_eq!(refuses(&centre), "store-head-missing");
}

#[test]
fn a_killed_authority_starts_again_with_all_that_it_acknowledged() {
    let mut centre = Centre::start();
    for round in 0..3 {
        let host = centre.host(&format!("h{round}"));
        host.session().unwrap();
        centre.kill();
        centre.run();
        let status: AuthorityStatus = centre.operator().get("/v1/status").unwrap();
        assert_eq!(status.hosts, round + 1);
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let mut centre = Centre::start();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..4_u64 {
        let operator = centre.operator();
        let (told, first) = std::sync::mpsc::channel();
        let defining = std::thread::spawn(move || {
            let mut done = Vec::new();
            for n in 0..10_000 {
                let name = format!("v{round}-{n}");
                let body = spec(&name, KeyOrigin::Console);
                match operator.post::<Value>("/v1/vms", &body) {
                    Ok(_) => {
                        done.push(name);
                        let _ = told.send(());
                    }
                    Err(_) => break,
                }
            }
            done
        });
        // At some time after the second: how long one takes is for the disk to say.
        first.iter().take(2).for_each(drop);
        std::thread::sleep(Duration::from_millis(70 * round));
        centre.kill();
        acknowledged.extend(defining.join().unwrap());
        centre.run();
    }
    assert!(acknowledged.len() > 4, "only {} were acknowledged", acknowledged.len());
    let vms: Vec<VmView> = centre.operator().get("/v1/vms").unwrap();
    let entries = centre.operator().get::<Value>("/v1/audit/export").unwrap();
    let entries = entries["entries"].as_str().unwrap();
    for name in acknowledged {
        assert!(vms.iter().any(|vm| vm.spec.name.as_str() == name), "{name} is lost");
        assert!(entries.contains(&format!("\"vm:{name}\"")), "{name} is not in the audit log");
    }
}

#[test]
fn an_altered_audit_log_does_not_start() {
    let mut centre = Centre::start();
    centre.token("a");
    assert_eq!(centre.stop(), 0);
    let log = std::fs::read_dir(centre.state("audit")).unwrap();
    let segment = log
        .map(|file| file.unwrap().path())
        .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("token-issued")));
    let segment = segment.expect("a segment has the entry");
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replace("host:a", "host:b")).unwrap();
    let name = refuses(&centre);
    assert!(name == "entry-altered" || name == "audit-forked", "{name}");
}

#[test]
fn another_tpm_opens_nothing_until_the_shares_bring_the_root_key_back() {
    let mut centre = Centre::start();
    centre.token("a");
    assert_eq!(centre.stop(), 0);
    centre.tpm = SoftwareTpm::start(centre.dir.path(), "replacement");
    centre.configure(&Settings::default());
    let output = centre.command(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let recover = |shares: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vouchsafe-authority"))
            .args(["recover", "--config"])
            .arg(centre.path("authority.toml"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(shares.join("\n").as_bytes()).unwrap();
        drop(input);
        child.wait().unwrap().code()
    };
    let shares: Vec<&str> = centre.init["recovery_shares"]
        .as_array()
        .unwrap()
        .iter()
        .map(|share| share.as_str().unwrap())
        .collect();
    assert_eq!(recover(&shares[..2]), Some(1));
    assert_eq!(recover(&shares[1..4]), Some(0));
    // The key is back, but this TPM has never counted this store.
    assert_eq!(refuses(&centre), "store-anchor-missing");
}

#[test]
fn a_configuration_is_checked_before_anything_is_touched() {
    let centre = Centre::prepare(&Settings::default());
    assert_eq!(centre.command(&["--check-config"]).status.code(), Some(0));
    centre.configure(&Settings { top: "surprise = 1".to_owned(), ..Settings::default() });
    assert_eq!(centre.command(&["--check-config"]).status.code(), Some(2));
    centre.configure(&Settings::default());
    std::fs::write(centre.path("reference.json"), "{}").unwrap();
    assert_eq!(centre.command(&["--check-config"]).status.code(), Some(1));
    assert_eq!(centre.command(&["--nonsense"]).status.code(), Some(2));
}

#[test]
fn an_older_store_with_an_older_tpm_is_betrayed_by_the_witness() {
    let top = "witness = 'elsewhere/head.json'".to_owned();
    let settings = Settings { top, ..Settings::default() };
    // `init` writes the first head to both places.
    let mut centre = Centre::prepare(&Settings::default());
    std::fs::create_dir(centre.path("elsewhere")).unwrap();
    centre.configure(&settings);
    centre.run();
    assert_eq!(centre.stop(), 0);
    let (state, older) = (centre.path("state"), centre.path("older"));
    copy(&state, &older);
    centre.power_off();
    copy(&centre.path("authority.tpm"), &centre.path("older.tpm"));
    centre.power_on();
    centre.run();
    centre.token("a");
    assert_eq!(centre.stop(), 0);
    centre.power_off();
    copy(&older, &state);
    copy(&centre.path("older.tpm"), &centre.path("authority.tpm"));
    centre.power_on();
    assert_eq!(refuses(&centre), "store-rolled-back");
}
