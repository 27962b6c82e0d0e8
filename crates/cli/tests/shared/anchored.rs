//! Services that are anchored in a software TPM, as real processes: their state directories are put
//! back, and a start is refused. Tests of the trust service and of the centre include this file.

#![expect(clippy::disallowed_methods, reason = "the tests wait for real processes")]

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A child that ends with its test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

impl Running {
    /// Ends it by this signal.
    pub(crate) fn end(mut self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
        self.0.wait().unwrap();
    }

    /// Its exit status, once it ends by itself.
    pub(crate) fn ended(&mut self, otherwise: &str) -> Option<i32> {
        until(otherwise, || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code()
    }
}

/// Waits until it is so.
pub(crate) fn until(otherwise: &str, mut so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !so() {
        assert!(since.elapsed() < PATIENCE, "{otherwise}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A directory with software TPMs.
pub(crate) struct Tpms {
    dir: tempfile::TempDir,
    _running: Vec<Running>,
}

impl Tpms {
    /// Nothing, and that is said, if there is no `swtpm` here.
    pub(crate) fn start(names: &[&str]) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("va").tempdir_in("/tmp").unwrap();
        let mut running = Vec::new();
        for name in names {
            let state = dir.path().join(format!("tpm-{name}"));
            fs::create_dir(&state).unwrap();
            let socket = dir.path().join(name);
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
            running.push(Running(child));
            until("swtpm does not come up", || socket.exists());
        }
        Some(Self { dir, _running: running })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The table `[anchor]` of a service that is anchored in this TPM.
    pub(crate) fn by(&self, tpm: &str) -> String {
        let socket = self.path(tpm);
        format!("by = 'tpm', tpm = 'unix:{}', every_s = 1, rest_s = 0", socket.display())
    }

    /// Puts a copy of one directory in the place of another.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        let _ = fs::remove_dir_all(self.path(to));
        let mut copy = Command::new("cp");
        let status = copy.arg("-a").arg(self.path(from)).arg(self.path(to)).status().unwrap();
        assert!(status.success());
    }

    /// What is in the audit log of `state`, as it stands in its files.
    pub(crate) fn audited(&self) -> String {
        let files = fs::read_dir(self.path("state/audit")).unwrap();
        let all = files.filter_map(|file| fs::read(file.unwrap().path()).ok());
        String::from_utf8_lossy(&all.flatten().collect::<Vec<u8>>()).into_owned()
    }
}

/// The name by which a start is refused, with exit status 3.
pub(crate) fn refused(mut service: Command) -> String {
    let mut child = Running(service.stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!(child.ended("it runs, though its state was put back"), Some(3));
    let mut said = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let line: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(line["event"], "refused");
    line["code"].as_str().unwrap().to_owned()
}

/// Has an operator take the state for the newest.
pub(crate) fn restore(mut service: Command, operator: &str) {
    assert!(service.args(["restore", "--operator", operator]).status().unwrap().success());
}

/// The service `program` with the configuration in `file`.
pub(crate) fn service(program: &str, file: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--config").arg(file);
    command
}
