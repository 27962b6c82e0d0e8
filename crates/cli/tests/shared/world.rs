//! A lab of real processes in a directory of its own, taken down and removed when it is dropped.

#[path = "logs.rs"]
pub mod logs;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;
use serve::process::ProcessId;

use logs::Logs;

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// stdout as one JSON value; `Null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or(Value::Null)
    }

    /// Name of the refusal, or a description of what came instead.
    pub fn refusal(&self) -> String {
        match (self.code, self.json()["refused"].as_str()) {
            (3, Some(name)) => name.to_owned(),
            _ => format!("exit {}: {} {}", self.code, self.stdout.trim(), self.stderr.trim()),
        }
    }

    /// Detail of the refusal.
    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap_or_default().to_owned()
    }

    /// Empty if it went well, else everything it said.
    pub fn complaint(&self) -> String {
        if self.code == 0 {
            return String::new();
        }
        format!("exit {}: {} {}", self.code, self.stdout.trim(), self.stderr.trim())
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The folder of the built programs.
pub fn programs() -> PathBuf {
    let vouchsafe = Path::new(env!("CARGO_BIN_EXE_vouchsafe"));
    vouchsafe.parent().expect("a program is in a folder").to_owned()
}

/// Runs any program to its end.
pub fn run(program: impl AsRef<Path>, args: &[&str]) -> Said {
    let program = program.as_ref();
    // No tool may hang the whole run: `timeout` ends it.
    match Command::new("timeout").arg("900").arg(program).args(args).output() {
        Ok(output) => output.into(),
        Err(error) => {
            Said { code: -1, stdout: String::new(), stderr: format!("{program:?}: {error}") }
        }
    }
}

/// The guest images, built by `make guest-image`; `None` (said aloud) if they are not there.
pub fn image(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("target/guest-image").join(name).canonicalize().ok();
    if path.is_none() {
        println!("Skipped: {name} is not there; `make guest-image` builds it");
    }
    path
}

/// Tries `what` until it is `Some` or the time is over.
pub fn eventually<T>(limit: Duration, mut what: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = what() {
            return Some(value);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How long anything may take that comes sooner or later: a disk may stall for seconds, and waiting
/// costs nothing when it comes at once.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Kills processes as nothing can be caught, and waits until each is dead: one that was told to die in
/// the middle of a write lives on until the disk has it, and holds its files and sockets until then.
pub fn kill_9(pids: &[impl AsRef<str>]) {
    let pids: Vec<&str> = pids.iter().flat_map(|pid| pid.as_ref().split_whitespace()).collect();
    let all = pids.iter().filter_map(|pid| ProcessId::find(pid.parse().ok()?));
    let all: Vec<ProcessId> = all.collect();
    for process in &all {
        process.kill().expect("it may be killed");
    }
    for process in all {
        let ended = process.wait_exit_blocking(PATIENCE).expect("it can be watched");
        assert!(ended.is_some(), "process {} outlives kill -9", process.pid);
    }
}

/// Whether a process has ended with all of its threads; one that nobody has waited for yet has.
pub fn is_gone(pid: &str) -> bool {
    pid.parse().ok().and_then(ProcessId::find).is_none()
}

/// A running lab.
#[derive(Debug)]
pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Starts one; `extra` goes to `lab up`.
    pub fn up(extra: &[&str]) -> Result<Self, Said> {
        Self::prepared(extra, |_| ())
    }

    /// As [`Self::up`]; `prepare` first puts refinements of configurations into its directory.
    pub fn prepared(extra: &[&str], prepare: impl FnOnce(&Path)) -> Result<Self, Said> {
        let dir = tempfile::Builder::new().prefix("vs").tempdir_in("/tmp").expect("a directory");
        prepare(dir.path());
        let world = Self { dir };
        let mut said = world.lab_up(extra);
        if said.code == 0 {
            return Ok(world);
        }
        // Its directory is about to go.
        said.stderr.extend(Logs::of(world.dir()).grown().iter().map(|line| format!("\n| {line}")));
        Err(said)
    }

    /// `lab up` (again).
    pub fn lab_up(&self, extra: &[&str]) -> Said {
        let dir = self.dir().to_str().expect("a plain path");
        let mut args = vec!["lab", "up", "--dir", dir, "--accel", "tcg", "--json"];
        args.extend(extra);
        run(env!("CARGO_BIN_EXE_vouchsafe"), &args)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir().join(below)
    }

    /// `vouchsafe ARGS --lab D --json`.
    pub fn vouchsafe(&self, args: &[&str]) -> Said {
        let mut all = args.to_vec();
        all.extend(["--json", "--lab", self.dir().to_str().expect("a plain path")]);
        run(env!("CARGO_BIN_EXE_vouchsafe"), &all)
    }

    /// As [`Self::vouchsafe`], with the certificate of another operator, who is made if need be.
    pub fn as_operator(&self, name: &str, args: &[&str]) -> Said {
        let (dir, client) = (self.path("operators"), self.path(&format!("{name}.toml")));
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        if !client.exists() {
            std::fs::create_dir_all(&dir).expect("a directory");
            let authority = Path::new(env!("CARGO_BIN_EXE_vouchsafe"));
            let authority = text(&authority.with_file_name("vouchsafe-authority"));
            let config = text(&self.path("authority/authority.toml"));
            let said = run(
                &authority,
                &["--config", &config, "operator", "--name", name, "--out", &text(&dir)],
            );
            assert_eq!(said.code, 0, "{}", said.complaint());
            let record = self.record();
            let of = |field: &str| record["authority"][field].as_str().expect("text").to_owned();
            let lines = [
                ("url", of("url")),
                ("ca_file", of("ca_file")),
                ("client_cert", text(&dir.join(format!("{name}.pem")))),
                ("client_key", text(&dir.join(format!("{name}.key")))),
            ];
            let lines = lines.map(|(key, value)| format!("{key} = \"{value}\"\n"));
            std::fs::write(&client, lines.concat()).expect("written");
        }
        let mut all = args.to_vec();
        let client = text(&client);
        all.extend(["--json", "--config", &client]);
        run(env!("CARGO_BIN_EXE_vouchsafe"), &all)
    }

    /// `lab.json`.
    pub fn record(&self) -> Value {
        let text = std::fs::read_to_string(self.path("lab.json")).expect("lab.json");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The processes that `lab up` started.
    pub fn processes(&self) -> Value {
        let text = std::fs::read_to_string(self.path("processes.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// What the guest printed so far.
    pub fn console(&self, vm: &str) -> String {
        let said = self.vouchsafe(&["vm", "console", vm]);
        said.json()["text"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits for a line of the guest that begins with `vouchsafe-guest: ` and `word`; gives the
    /// rest of it.
    pub fn guest_says(&self, vm: &str, word: &str, limit: Duration) -> Option<String> {
        let wanted = format!("vouchsafe-guest: {word}");
        eventually(limit, || {
            let console = self.console(vm);
            let at = console.rfind(&wanted)?;
            let rest = console.get(at + wanted.len()..)?;
            Some(rest.lines().next()?.trim().to_owned())
        })
    }

    /// The audit log's entries, newest last.
    pub fn audit(&self) -> Vec<Value> {
        let said = self.vouchsafe(&["audit", "list"]);
        said.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Names of the refusals in the audit log, newest last.
    pub fn audited_refusals(&self) -> Vec<String> {
        let entries = self.audit();
        let names = entries.iter().filter_map(|entry| entry["outcome"]["refused"].as_str());
        names.map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let dir = self.dir().to_str().expect("a plain path").to_owned();
        let said = run(env!("CARGO_BIN_EXE_vouchsafe"), &["lab", "down", "--dir", &dir]);
        if said.code != 0 {
            eprintln!("lab down: {}", said.complaint());
        }
    }
}
