//! A state directory that is put back from earlier, against the real processes: the service and a TPM.

#![expect(clippy::disallowed_methods, reason = "the test waits for real processes")]

use std::{
    fs,
    io::{BufReader, Read as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use model::{
    api::Bytes,
    child,
    keys::{
        admin::{AdminReply, AdminRequest, KeeperStatus, ListedBinding, SOCKET},
        order::Prototype,
    },
};
use serve::keys::SigningKey;

const PATIENCE: Duration = Duration::from_secs(60);

/// A child that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

impl Running {
    fn end(mut self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
        self.0.wait().unwrap();
    }
}

/// One trust service and the TPMs that it may be anchored in.
struct Site {
    dir: tempfile::TempDir,
    tpms: Vec<Running>,
}

impl Site {
    /// Nothing if there is no `swtpm` here.
    fn new() -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("va").tempdir_in("/tmp").unwrap();
        let mut site = Self { dir, tpms: Vec::new() };
        for name in ["one", "two"] {
            let state = site.path(&format!("tpm-{name}"));
            fs::create_dir(&state).unwrap();
            let socket = site.path(name);
            let child = Command::new("swtpm")
                .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
                .arg("--tpmstate")
                .arg(format!("dir={}", state.display()))
                .arg("--server")
                .arg(format!("type=unixio,path={}", socket.display()))
                .spawn();
            let Ok(child) = child else {
                println!("Skipped: swtpm cannot be started");
                return None;
            };
            site.tpms.push(Running(child));
            let since = Instant::now();
            while !socket.exists() {
                assert!(since.elapsed() < PATIENCE, "swtpm does not come up");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Some(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Anchored in this TPM.
    fn by(&self, tpm: &str) -> String {
        let socket = self.path(tpm);
        format!("by = 'tpm', tpm = 'unix:{}', every_s = 1, rest_s = 0", socket.display())
    }

    fn command(&self, anchor: &str) -> Command {
        let text = format!(
            "state_dir = 'state'\nlisten = '127.0.0.1:0'\naddress_file = 'address'\n\
             anchor = {{ {anchor} }}\n[front]\nopen_queries = true\n[log]\nfilter = 'warn'\n"
        );
        let config = self.path("trust.toml");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vouchsafe-trust"));
        command.arg("--config").arg(config);
        command
    }

    /// Has it run until it answers operators.
    fn start(&self) -> Running {
        let child = self.command(&self.by("one")).stdout(Stdio::null()).spawn().unwrap();
        let running = Running(child);
        let since = Instant::now();
        while UnixStream::connect(self.path("state").join(SOCKET)).is_err() {
            assert!(since.elapsed() < PATIENCE, "it does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }

    /// The name by which a start is refused.
    fn refused(&self, anchor: &str) -> String {
        let mut child = Running(self.command(anchor).stdout(Stdio::piped()).spawn().unwrap());
        let since = Instant::now();
        while child.0.try_wait().unwrap().is_none() {
            assert!(since.elapsed() < PATIENCE, "it runs, though its state was put back");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(child.0.wait().unwrap().code(), Some(3));
        let mut said = String::new();
        child.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let line: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
        assert_eq!(line["event"], "refused");
        line["code"].as_str().unwrap().to_owned()
    }

    fn restore(&self, anchor: &str) {
        let mut command = self.command(anchor);
        let status = command.args(["restore", "--operator", "alice"]).status().unwrap();
        assert!(status.success());
    }

    fn ask(&self, request: &AdminRequest) -> AdminReply {
        let stream = UnixStream::connect(self.path("state").join(SOCKET)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        child::send(&mut &stream, request).unwrap();
        child::receive(&mut BufReader::new(&stream)).unwrap().unwrap()
    }

    fn status(&self) -> KeeperStatus {
        let reply = self.ask(&AdminRequest::Status);
        let AdminReply::Status(status) = reply else { panic!("{reply:?}") };
        status
    }

    /// The only binding.
    fn binding(&self) -> ListedBinding {
        let reply = self.ask(&AdminRequest::List { after: None, limit: 2 });
        let AdminReply::Listed { mut bindings, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(bindings.len(), 1);
        bindings.remove(0)
    }

    fn audited(&self) -> String {
        let files = fs::read_dir(self.path("state/audit")).unwrap();
        let all = files.filter_map(|file| fs::read(file.unwrap().path()).ok());
        String::from_utf8_lossy(&all.flatten().collect::<Vec<u8>>()).into_owned()
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// A service with one binding, which ran and ended, and the copy that was made then.
fn with_yesterday() -> Option<Site> {
    let site = Site::new()?;
    let running = site.start();
    let key = Some(Bytes(SigningKey::generate().unwrap().spki().to_vec()));
    let bindings = vec![Prototype { key, name: Some("k".to_owned()), ..Prototype::default() }];
    let import = AdminRequest::Import { bindings, operator: "alice".to_owned() };
    assert!(matches!(site.ask(&import), AdminReply::Imported { made: 1, .. }));
    running.end(rustix::process::Signal::TERM);
    copy(&site.path("state"), &site.path("yesterday"));
    Some(site)
}

fn revoke(site: &Site) {
    let id = site.binding().binding.id;
    let revoke = AdminRequest::Revoke { id, operator: "alice".to_owned() };
    assert!(matches!(site.ask(&revoke), AdminReply::Revoked { .. }));
}

#[test]
fn yesterdays_state_is_refused_audited_and_valid_only_after_a_restore() {
    let Some(site) = with_yesterday() else { return };
    let running = site.start();
    revoke(&site);
    let numbered = site.status().crl_number;
    // What was revoked is anchored before it is answered: nothing else moves the counter here.
    running.end(rustix::process::Signal::KILL);
    copy(&site.path("state"), &site.path("today"));

    copy(&site.path("yesterday"), &site.path("state"));
    assert_eq!(site.refused(&site.by("one")), "store-rolled-back");
    let audited = site.audited();
    assert!(audited.contains("store-rolled-back") && audited.contains("trust-start"), "{audited}");

    // The store alone, beside today's head and log.
    copy(&site.path("today"), &site.path("state"));
    fs::copy(site.path("yesterday/store.redb"), site.path("state/store.redb")).unwrap();
    assert_eq!(site.refused(&site.by("one")), "store-rolled-back");
    // Without its head, or said to have no anchor, it is not a new store.
    copy(&site.path("yesterday"), &site.path("state"));
    fs::remove_file(site.path("state/head.json")).unwrap();
    assert_eq!(site.refused(&site.by("one")), "store-head-missing");
    assert_eq!(site.refused("by = 'none'"), "store-anchor-missing");

    // Today's goes on, though it was killed; the key is revoked.
    copy(&site.path("today"), &site.path("state"));
    let running = site.start();
    assert!(site.binding().revoked_at.is_some());
    running.end(rustix::process::Signal::TERM);

    // An operator takes yesterday's for the newest: that is said, and CRLs are numbered anew.
    copy(&site.path("yesterday"), &site.path("state"));
    site.restore(&site.by("one"));
    let running = site.start();
    assert!(site.binding().revoked_at.is_none());
    assert!(site.status().crl_number > numbered.max(1_700_000_000));
    running.end(rustix::process::Signal::TERM);
    assert!(site.audited().contains("store-restored"));
    // And today's is the old one now.
    copy(&site.path("today"), &site.path("state"));
    assert_eq!(site.refused(&site.by("one")), "store-rolled-back");
}

#[test]
fn a_state_does_not_start_at_another_tpm_nor_two_copies_at_one() {
    let Some(site) = with_yesterday() else { return };
    assert_eq!(site.refused(&site.by("two")), "store-anchor-missing");
    site.restore(&site.by("two"));
    let mut running = site.command(&site.by("two")).stdout(Stdio::null()).spawn().map(Running);
    let since = Instant::now();
    while UnixStream::connect(site.path("state").join(SOCKET)).is_err() {
        assert!(since.elapsed() < PATIENCE, "it does not come up at its new TPM");
        std::thread::sleep(Duration::from_millis(50));
    }
    let running = running.as_mut().unwrap();
    // The counter moves without it: as if a copy of it ran elsewhere.
    copy(&site.path("state"), &site.path("twin"));
    let text = fs::read_to_string(site.path("trust.toml")).unwrap();
    let text = text.replace("'state'", "'twin'").replace("'address'", "'twin-address'");
    fs::write(site.path("twin.toml"), text).unwrap();
    let twin = Command::new(env!("CARGO_BIN_EXE_vouchsafe-trust"))
        .arg("--config")
        .arg(site.path("twin.toml"))
        .args(["restore", "--operator", "mallory"])
        .status()
        .unwrap();
    assert!(twin.success());
    try_revoke(&site);
    let since = Instant::now();
    let running = &mut running.0;
    while running.try_wait().unwrap().is_none() {
        assert!(since.elapsed() < PATIENCE, "it goes on beside a copy of itself");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(running.wait().unwrap().code(), Some(3));
    assert!(!site.path("state/head.json").exists(), "its head is out of use");
}

/// Something that is audited; the service may end before it answers.
fn try_revoke(site: &Site) {
    let Ok(stream) = UnixStream::connect(site.path("state").join(SOCKET)) else { return };
    let unknown = AdminRequest::Revoke { id: "00".to_owned(), operator: "alice".to_owned() };
    let _ = child::send(&mut &stream, &unknown);
}
