//! Starts the process and speaks to it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{ChildStdout, Command},
    thread,
    time::Duration,
};

use model::child::{
    self,
    disk::{Progress, Reply, Request, Status},
};
use serve::process::{Exit, ProcessId, Signal, Spawn};
use tempfile::TempDir;

/// How long anything may take that comes sooner or later, on a disk that may stall.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const KEY: &[u8] = b"a key of exactly thirty-two byte";
pub(crate) const KMI: &str = concat!(
    r#"{"vm":"web-01","key_id":"sha256:"#,
    "0000000000000000000000000000000000000000000000000000000000000001",
    r#"","version":1,"epoch":1}"#
);

/// A running process, killed when the test ends.
pub(crate) struct Disk {
    pub(crate) id: ProcessId,
    pub(crate) stdout: BufReader<ChildStdout>,
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.id.kill();
    }
}

impl Disk {
    /// Starts `vouchsafe-disk` with `args` and a key; its log goes to `log` in `dir`.
    pub(crate) fn start(dir: &Path, key: &[u8], args: &[&str]) -> Self {
        let (id, stdout) = Spawn::new(env!("CARGO_BIN_EXE_vouchsafe-disk"))
            .dir(dir)
            .log_file(dir.join("log"))
            .args(args)
            .secret_arg("--key-fd", key)
            .unwrap()
            .spawn_piped()
            .unwrap();
        Self { id, stdout: BufReader::new(stdout) }
    }

    /// Serves `v.luks` on `s.sock` and `c.sock` and waits until it answers.
    pub(crate) fn serve(dir: &Path, more: &[&str]) -> Self {
        let disk = Self::start_serving(dir, KEY, more);
        for _ in 0..4800 {
            if UnixStream::connect(dir.join("c.sock")).is_ok() {
                return disk;
            }
            thread::sleep(Duration::from_millis(25));
        }
        panic!("not serving: {}", fs::read_to_string(dir.join("log")).unwrap());
    }

    pub(crate) fn start_serving(dir: &Path, key: &[u8], more: &[&str]) -> Self {
        let args = ["serve", "--image", "v.luks", "--socket", "s.sock", "--control", "c.sock"];
        Self::start(dir, key, &[&args, more].concat())
    }

    /// Everything that it still prints, and its exit status (-1 for a signal).
    pub(crate) fn end(mut self) -> (Vec<Progress>, i32) {
        let mut lines = Vec::new();
        for line in self.stdout.by_ref().lines() {
            lines.push(serde_json::from_str(&line.unwrap()).unwrap());
        }
        let exit = self.id.wait_exit_blocking(PATIENCE).unwrap();
        let status = match exit.expect("it must end") {
            Exit::Code(code) => code,
            Exit::Signal(_) | Exit::Unknown => -1,
        };
        (lines, status)
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn terminate(self) -> i32 {
        self.id.signal(Signal::TERM).unwrap();
        self.end().1
    }

    /// kill -9, and wait until it is gone.
    pub(crate) fn kill(self) {
        self.id.kill().unwrap();
        self.id.wait_exit_blocking(PATIENCE).unwrap();
    }
}

pub(crate) fn ask(dir: &Path, request: &Request) -> Reply {
    let mut stream = UnixStream::connect(dir.join("c.sock")).unwrap();
    child::send(&mut stream, request).unwrap();
    child::receive(&mut stream).unwrap().unwrap()
}

pub(crate) fn status(dir: &Path) -> Status {
    let reply = ask(dir, &Request::Status {});
    let Reply::Status(status) = reply else { panic!("{reply:?}") };
    *status
}

/// A directory with a volume `v.luks` of the content of `source.raw`.
pub(crate) fn with_volume(content: &[u8]) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("source.raw"), content).unwrap();
    let args = ["create", "--image", "v.luks", "--source", "source.raw", "--kmi", KMI];
    let (lines, exit) = Disk::start(dir.path(), KEY, &args).end();
    assert_eq!(exit, 0, "{lines:?}");
    dir
}

/// A directory with a vault `v.luks` of `size` bytes of the content of `source.raw`.
pub(crate) fn with_vault(size: usize) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("source.raw"), pattern(size)).unwrap();
    let args = ["create", "--image", "v.luks", "--source", "source.raw", "--kmi", KMI];
    let made = Disk::start(dir.path(), KEY, &[&args[..], &["--format", "vault"]].concat());
    let (lines, exit) = made.end();
    assert_eq!(exit, 0, "{lines:?}");
    let Some(Progress::Done { size: done, source, .. }) = lines.last() else { panic!("{lines:?}") };
    assert_eq!((usize::try_from(*done).unwrap(), source.is_some()), (size, true));
    dir
}

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A command of an outside tool, or nothing, said aloud, if it is not installed.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let dirs = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"];
    let found: Option<PathBuf> =
        dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
    if found.is_none() {
        eprintln!("Skipped: {name} is not installed");
    }
    found.map(Command::new)
}

pub(crate) fn uri(dir: &Path) -> String {
    format!("nbd+unix:///?socket={}", dir.join("s.sock").display())
}
