//! A swtpm in a directory of its own, ended on drop.

use std::{
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use tpm::{Address, Connect as _, Tpm};

use crate::programs::have;

/// A running software TPM.
pub(crate) struct Swtpm {
    child: Child,
    dir: tempfile::TempDir,
}

impl Swtpm {
    /// Starts one, or says why the test is skipped.
    pub(crate) fn start() -> Option<Self> {
        if !have("swtpm") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", dir.path().display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", dir.path().join("tpm").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let tpm = Self { child, dir };
        for _ in 0..12_000 {
            // The socket is there a moment before anybody listens on it.
            if UnixStream::connect(tpm.socket()).is_ok() {
                return Some(tpm);
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("swtpm did not open its socket");
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("tpm")
    }

    pub(crate) fn address(&self) -> Address {
        Address::Unix(self.socket())
    }

    pub(crate) fn open(&self) -> Tpm {
        Tpm::new(self.address().connect().unwrap())
    }

    /// Runs a tpm2-tools program on this TPM, in its directory. No other client may be connected.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(self.dir.path())
            .env("TPM2TOOLS_TCTI", format!("cmd:socat - UNIX-CONNECT:{}", self.socket().display()))
            .output()
            .unwrap()
    }

    /// As [`Self::tool`], and it must succeed; returns its standard output.
    pub(crate) fn tool_ok(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.tool(program, arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {words}");
        output.stdout
    }

    pub(crate) fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.dir.path().join(name), bytes).unwrap();
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
