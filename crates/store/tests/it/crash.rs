//! `kill -9` of a process that writes: what it acknowledged is there. The writer is this test
//! binary again, running an ignored test that prints each acknowledgement.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use model::AuditEvent;
use store::{Key, LocalStore, Prefix, Range, Store, Txn, audit::AuditLog};

const DIR: &str = "STORE_CRASH_DIR";
const WRITERS: usize = 4;

fn child(test: &str, dir: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads `count` acknowledgements, kills the child, then reads what is left in the pipe.
fn kill_after(mut child: Child, count: usize) -> Vec<String> {
    let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
    let mut lines = lines.map(|line| String::from_utf8(line.unwrap()).unwrap());
    let mut acknowledged = Vec::new();
    while acknowledged.len() < count {
        let line = lines.next().expect("the child ended by itself");
        acknowledged.extend(line.strip_prefix("ack ").map(str::to_owned));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // A line cut by the kill was not acknowledged: it lacks its end.
    let rest = lines.filter_map(|line| Some(line.strip_prefix("ack ")?.to_owned()));
    acknowledged.extend(rest.filter(|line| line.ends_with('.')));
    acknowledged
}

fn acknowledge(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ack {text}.").unwrap();
    out.flush().unwrap();
}

fn child_dir() -> PathBuf {
    env::var_os(DIR).expect("run by another test").into()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

#[test]
#[ignore = "the writing process of another test"]
fn child_puts() {
    let store = LocalStore::open(&child_dir().join("store.redb")).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let writer = async |store: Arc<dyn Store>, writer: usize| {
        let begin = store.state().await.unwrap().revision;
        for n in 0..u64::MAX {
            let key = Key::new(format!("w{writer}/{}", n % 50)).unwrap();
            let value = format!("{begin}:{n}");
            let reply = store.txn(Txn::put(key.clone(), value.clone())).await.unwrap();
            acknowledge(&format!("{key} {} {value}", reply.revision));
        }
    };
    runtime().block_on(async {
        let tasks: Vec<_> =
            (0..WRITERS).map(|n| tokio::spawn(writer(Arc::clone(&store), n))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn every_acknowledged_put_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut newest: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for round in 0..6 {
        let acknowledged = kill_after(child("crash::child_puts", dir.path()), 40 + 97 * round);
        for line in acknowledged {
            let mut words = line.trim_end_matches('.').split(' ');
            let (key, revision, value) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            let entry = (revision.parse().unwrap(), value.to_owned());
            newest
                .entry(key.to_owned())
                .and_modify(|e| *e = entry.clone().max(e.clone()))
                .or_insert(entry);
        }
        let store = LocalStore::open(&dir.path().join("store.redb")).unwrap();
        runtime().block_on(async {
            store.scrub().await.unwrap();
            let all = store.range(Range::prefix(Prefix::all())).await.unwrap();
            let found: BTreeMap<_, _> =
                all.entries.into_iter().map(|e| (e.key.to_string(), e)).collect();
            for (key, (revision, value)) in &newest {
                let entry = &found[key];
                // A later put may have been made and not yet acknowledged.
                assert!(entry.mod_revision >= *revision, "{key} lost revision {revision}");
                if entry.mod_revision == *revision {
                    assert_eq!(entry.value, value.as_bytes());
                }
            }
        });
    }
}

#[test]
#[ignore = "the writing process of another test"]
fn child_audits() {
    let (log, _) = AuditLog::open(&child_dir().join("audit"), 1).unwrap();
    let log = Arc::new(log);
    let writer = async |log: Arc<AuditLog>, writer: usize| {
        for n in 0..u64::MAX {
            let event =
                AuditEvent::done(n, format!("writer:{writer}"), "vm-start", format!("vm:{n}"));
            let entry = log.append(event).await.unwrap();
            acknowledge(&entry.to_line().unwrap());
        }
    };
    runtime().block_on(async {
        let tasks: Vec<_> =
            (0..WRITERS).map(|n| tokio::spawn(writer(Arc::clone(&log), n))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn every_acknowledged_audit_entry_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorded: BTreeMap<u64, String> = BTreeMap::new();
    for round in 0..6 {
        let acknowledged = kill_after(child("crash::child_audits", dir.path()), 30 + 83 * round);
        for line in acknowledged {
            let line = line.trim_end_matches('.').to_owned();
            let entry = model::AuditEntry::from_line(&line).unwrap();
            assert!(recorded.insert(entry.seq, line).is_none(), "{} was given twice", entry.seq);
        }
        let (log, recovery) = AuditLog::open(&dir.path().join("audit"), 9).unwrap();
        let entries = log.read(0, usize::MAX).unwrap();
        assert!(u64::try_from(entries.len()).unwrap() >= recovery.entries);
        for (seq, line) in &recorded {
            let entry = &entries[usize::try_from(*seq).unwrap()];
            assert_eq!(entry.to_line().unwrap(), *line);
        }
        drop(log);
        let leaves = fs::metadata(dir.path().join("audit/leaves.bin")).unwrap();
        assert!(leaves.len().is_multiple_of(32));
    }
}
