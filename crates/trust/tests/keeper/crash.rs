//! `kill -9` of a process that runs the keeper: what was answered is there, and what was not is
//! either whole or not there; asked again, it has one answer.

use std::{
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use model::keys::{
    KeyBinding, StatusValue,
    admin::{AdminReply, AdminRequest},
    order::{KeyOperation, KeyOutcome, Prototype},
    rpc::{KeyAnswer, KeyRequest},
};
use serve::{
    clock::{Clock as _, SystemClock},
    keys::SigningKey,
};
use store::audit::{self, TreeHead};
use trust::keeper::Keeper;

use crate::support::{Rig, by_key, held, key, named, open_settings, order, prototype};

/// Where the child finds its state, and whether it dies between commit and answer.
const DIR: &str = "VOUCHSAFE_TEST_KEEPER";
const MUTE: &str = "VOUCHSAFE_TEST_MUTE";

/// The process that is killed: the keeper behind a socket, as the reader sees it.
#[test]
#[ignore = "started by the other tests of this file"]
fn keeper_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let keeper = Keeper::open(open_settings(), dir, SystemClock::shared()).unwrap();
    let mut stream = UnixStream::connect(dir.join("reader.sock")).unwrap();
    while let Some(request) = KeyRequest::receive(&mut stream).unwrap() {
        let answer = keeper.serve(request);
        if std::env::var_os(MUTE).is_some() {
            // Committed, and the answer never leaves.
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
        answer.send(&mut stream).unwrap();
    }
}

struct Process {
    child: Child,
    stream: UnixStream,
}

impl Process {
    fn start(dir: &Path, mute: bool) -> Self {
        let path = dir.join("reader.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["crash::keeper_process", "--exact", "--ignored"]).env(DIR, dir);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if mute {
            command.env(MUTE, "1");
        }
        let child = command.spawn().unwrap();
        let (stream, _) = listener.accept().unwrap();
        Self { child, stream }
    }

    fn ask(&mut self, request: &KeyRequest) -> Option<KeyAnswer> {
        request.send(&mut self.stream).ok()?;
        KeyAnswer::receive(&mut self.stream).ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A registration that only has to be sent.
struct Ready {
    phrase: String,
    pair: SigningKey,
    asked: Prototype,
    request: KeyRequest,
}

fn ready(rig: &Rig, name: &str) -> Ready {
    let (phrase, pair) = (rig.authorize(name), key());
    let asked = prototype(name, Some(&pair));
    let holder = rig.holder(KeyOperation::Register, &named(name), &phrase).unwrap();
    let order = order(holder, Some(&pair));
    let request = KeyRequest::Register { order, asked: asked.clone() };
    Ready { phrase, pair, asked, request }
}

fn binding(answer: KeyAnswer) -> KeyBinding {
    held!(answer, KeyAnswer::Outcome(KeyOutcome::Done(mut done)) => done.bindings.remove(0))
}

/// Closes the keeper of a rig, lets `with` use its directory, and opens it again.
fn aside(rig: Rig, with: impl FnOnce(&Path)) -> Rig {
    let dir = rig.dir.path().to_owned();
    rig.away(|| with(&dir))
}

#[test]
fn an_order_that_was_committed_and_not_answered_has_the_same_answer_later() {
    let rig = Rig::open();
    let one = ready(&rig, "bob");
    let rig = aside(rig, |dir| {
        let mut process = Process::start(dir, true);
        assert!(process.ask(&one.request).is_none());
    });
    let there = rig.validate(named("bob")).bindings;
    assert_eq!(there.len(), 1);
    let again = rig.register_by(&one.phrase, &one.asked, Some(&one.pair)).unwrap();
    assert_eq!(again.bindings[0].certificates, there[0].certificates);
    assert_eq!(rig.validate(by_key(&one.pair)).bindings.len(), 1);
    // A revocation that was not answered has happened.
    let about = rig.about(KeyOperation::Revoke, named("bob"), &one.pair);
    let rig = aside(rig, |dir| {
        assert!(Process::start(dir, true).ask(&KeyRequest::Revoke(about)).is_none());
    });
    assert_eq!(rig.verdict(named("bob")), StatusValue::Invalid);
    verify_audit(&rig);
}

#[test]
fn a_kill_at_any_moment_leaves_each_order_whole_or_undone() {
    let mut rig = Rig::open();
    for round in 0..6_u32 {
        let all: Vec<Ready> = (0..24).map(|n| ready(&rig, &format!("key-{round}-{n}"))).collect();
        let mut acknowledged = Vec::new();
        rig = aside(rig, |dir| {
            let mut process = Process::start(dir, false);
            let pid = i32::try_from(process.child.id()).unwrap();
            let after = Duration::from_millis(u64::from(7 + round * 23));
            let begun = SystemClock.monotonic();
            let kill = std::thread::spawn(move || {
                std::thread::sleep(after.saturating_sub(SystemClock.monotonic() - begun));
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            });
            for one in &all {
                match process.ask(&one.request) {
                    Some(answer) => acknowledged.push(binding(answer)),
                    None => break,
                }
            }
            kill.join().unwrap();
        });
        for (at, one) in all.iter().enumerate() {
            let there = rig.validate(by_key(&one.pair)).bindings;
            let made = rig.register_by(&one.phrase, &one.asked, Some(&one.pair)).unwrap();
            let certificates = &made.bindings[0].certificates;
            if let Some(known) = acknowledged.get(at) {
                assert_eq!(known.certificates, *certificates, "an answered order was lost");
            }
            if let Some(known) = there.first() {
                assert_eq!(known.certificates, *certificates);
            }
            assert_eq!(rig.validate(by_key(&one.pair)).bindings.len(), 1);
        }
    }
    verify_audit(&rig);
}

/// The log as it lies there and as it is exported, under the key in `signing.pub`.
fn verify_audit(rig: &Rig) {
    let exported = held!(rig.keeper.administer(AdminRequest::ExportAudit), AdminReply::AuditExported { dir, .. } => std::path::PathBuf::from(dir));
    let key = std::fs::read(rig.dir.path().join("signing.pub")).unwrap();
    let spki = serve::pem::parse_public_key(&key).unwrap();
    let keys = attest::envelope::TrustedKeys::new([spki]).unwrap();
    let open = |envelope: &str| {
        use attest::envelope::{Envelope, Kind};
        let envelope = Envelope::parse(envelope.as_bytes()).map_err(|e| e.to_string())?;
        let signed =
            envelope.verify_bytes(&keys, Kind::Checkpoint, 1).map_err(|e| e.to_string())?;
        TreeHead::from_payload(&signed).map_err(|e| e.to_string())
    };
    let verified = audit::verify_dir(&rig.dir.path().join("audit"), &open).unwrap();
    assert!(verified.entries() > 0);
    let (entries, heads) = (exported.join("audit.jsonl"), exported.join("audit.checkpoint"));
    let copied = audit::verify_files(&entries, &heads, &open).unwrap();
    assert_eq!(copied.signed().size, copied.entries());
}
