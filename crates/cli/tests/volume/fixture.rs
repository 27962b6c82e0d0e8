//! A directory, the program, a served volume, outside tools.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// The key of most volumes here.
pub(crate) const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

pub(crate) struct Dir(TempDir);

impl Dir {
    /// With `key` in it.
    pub(crate) fn new() -> Self {
        let dir = Self(TempDir::new().unwrap());
        dir.file("key", KEY);
        dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// `vouchsafe volume ...` in this directory.
    pub(crate) fn volume(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vouchsafe"));
        command.arg("volume").args(line.split_whitespace()).current_dir(self.0.path());
        command
    }

    /// Exit status and standard output of a command that is let end.
    pub(crate) fn run(&self, line: &str) -> (i32, String) {
        let output = self.volume(line).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), if said.is_empty() { words } else { said })
    }

    /// Runs a command that must succeed; its JSON.
    pub(crate) fn done(&self, line: &str) -> Value {
        let (code, said) = self.run(&format!("{line} --json"));
        assert_eq!(code, 0, "{line}: {said}");
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    /// The name of the refusal that a command must meet.
    pub(crate) fn refused(&self, line: &str) -> String {
        self.refusal(line)["refused"].as_str().unwrap().to_owned()
    }

    /// The refusal that a command must meet.
    pub(crate) fn refusal(&self, line: &str) -> Value {
        let (code, said) = self.run(&format!("{line} --json"));
        assert_eq!(code, 3, "{line}: {said}");
        let said: Value = serde_json::from_str(&said).unwrap();
        assert!(said["hint"].is_string() && said["detail"].is_string(), "{said}");
        said
    }

    /// Serves a volume until the value is dropped or [`Served::stop`]ped.
    pub(crate) fn serve(&self, line: &str) -> Served {
        let socket = self.path("s.sock");
        let child = self
            .volume(&format!("serve --socket s.sock {line}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.path("serve.log")).unwrap())
            .spawn()
            .unwrap();
        let mut served = Served { child, socket };
        for _ in 0..6000 {
            if served.socket.exists() {
                return served;
            }
            let log = || String::from_utf8_lossy(&self.read("serve.log")).into_owned();
            assert!(served.child.try_wait().unwrap().is_none(), "{line}: {}", log());
            sleep(Duration::from_millis(10));
        }
        panic!("{line}: no socket after a minute")
    }
}

pub(crate) struct Served {
    child: Child,
    socket: PathBuf,
}

impl Served {
    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// SIGTERM; it must end in good order and take its socket with it.
    pub(crate) fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert!(!self.socket.exists());
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        fs::remove_file(&self.socket).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A command of an outside tool, or nothing, said aloud, if it is not installed.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let dirs = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"];
    let found = dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
    if found.is_none() {
        eprintln!("Skipped: {name} is not installed");
    }
    found.map(Command::new)
}

/// Runs a tool that must succeed; `None`, said aloud, if it is not installed.
pub(crate) fn outside(name: &str, args: &[&str]) -> Option<Output> {
    let output = tool(name)?.args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {args:?}: {said}");
    Some(output)
}

/// `length` bytes without pattern, with runs of zeros.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let zero = (out.len() / 65536) % 4 == 1;
        out.extend(if zero { 0 } else { state ^ (state >> 31) }.to_le_bytes());
    }
    out.truncate(length);
    out
}
