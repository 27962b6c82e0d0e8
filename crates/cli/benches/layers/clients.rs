//! The clients, each operation a process of its own: `vouchsafe-guest` on one side, `openssl` on the
//! other. Keys are made before, on both sides.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    lab::Lab,
    provider::REFERENCE,
    world::{eventually, programs, run},
};

/// What an operation took.
#[derive(Clone, Debug, Default)]
pub struct Took {
    pub ms: f64,
    /// Peaks of the largest process, KiB: proportional set size, the part of it that is no file's,
    /// resident size.
    pub pss: f64,
    pub anon: f64,
    pub rss: f64,
    /// What it said.
    pub said: String,
}

impl Took {
    /// One after the other.
    fn then(self, next: Self) -> Self {
        Self {
            ms: self.ms + next.ms,
            pss: self.pss.max(next.pss),
            anon: self.anon.max(next.anon),
            rss: self.rss.max(next.rss),
            said: next.said,
        }
    }
}

/// Whether the memory of a process is watched: that costs a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    Memory,
    Nothing,
}

/// Runs a program to its good end.
fn took(command: &mut Command, watch: Watch) -> Took {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let since = Instant::now();
    let mut child = command.spawn().expect("the client starts");
    let (mut pss, mut anon, mut rss) = (0.0, 0.0, 0.0);
    if watch == Watch::Memory {
        let pid = child.id();
        while child.try_wait().expect("it is ours").is_none() {
            let sizes = file(pid, "smaps_rollup");
            pss = f64::max(pss, field(&sizes, "Pss:"));
            anon = f64::max(anon, field(&sizes, "Pss_Anon:"));
            rss = f64::max(rss, field(&file(pid, "status"), "VmHWM:"));
        }
    }
    let output = child.wait_with_output().expect("it ends");
    let ms = since.elapsed().as_secs_f64() * 1000.0;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said} {words}");
    Took { ms, pss, anon, rss, said }
}

fn file(pid: u32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

/// A number of KiB in a file of a process.
fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// The client's program: the static one, if it was built.
pub fn guest_program() -> (PathBuf, &'static str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let client = "target/guest-client/x86_64-unknown-linux-gnu/release/vouchsafe-guest";
    let found = std::env::var_os("GUEST_CLIENT").map_or_else(|| root.join(client), PathBuf::from);
    if found.exists() {
        return (found, "static, for size");
    }
    println!("no static client (`make guest-client`): the one of the workspace is measured");
    (programs().join("vouchsafe-guest"), "dynamic")
}

/// A client through the four layers.
#[derive(Debug)]
pub struct Ours {
    pub name: String,
    /// Its server.
    pub site: usize,
    dir: PathBuf,
    program: PathBuf,
}

impl Ours {
    /// With a configuration for each server, a pass phrase and a key.
    pub fn new(lab: &Lab, dir: &Path, program: &Path, name: &str, site: usize) -> Self {
        let dir = dir.join(name);
        fs::create_dir(&dir).expect("a folder");
        for one in &lab.sites {
            let text = format!(
                "url = '{}'\nca = '{}'\nmessage_certificate = '{}'\n",
                one.url(),
                lab.passport_ca().display(),
                one.message_certificate().display(),
            );
            fs::write(dir.join(format!("{}.toml", one.name)), text).expect("a file");
        }
        fs::write(dir.join("phrase"), lab.authorize(site, name)).expect("a file");
        make_key(&dir.join("key.pem"));
        Self { name: name.to_owned(), site, dir, program: program.to_owned() }
    }

    fn ask(&self, lab: &Lab, site: usize, words: &[&str], watch: Watch) -> Took {
        let mut command = Command::new(&self.program);
        let config = format!("{}.toml", lab.sites[site].name);
        took(command.current_dir(&self.dir).args(["--config", &config]).args(words), watch)
    }

    /// Registers its key.
    pub fn register(&self, lab: &Lab, watch: Watch) -> Took {
        let files = ["--phrase-file", "phrase", "--key-file", "key.pem"];
        let words = [["register", "--name", &self.name].as_slice(), &files].concat();
        self.ask(lab, self.site, &words, watch)
    }

    /// What its server knows of a key.
    pub fn query(&self, lab: &Lab, name: &str, watch: Watch) -> Took {
        self.validate(lab, self.site, name, watch)
    }

    fn validate(&self, lab: &Lab, site: usize, name: &str, watch: Watch) -> Took {
        let took = self.ask(lab, site, &["validate", "--name", name], watch);
        assert!(took.said.contains("\"status\":\"Valid\""), "{name}: {}", took.said);
        took
    }

    /// Goes on, for applications.
    pub fn serve(&self, lab: &Lab) -> Serving<'_> {
        let config = format!("{}.toml", lab.sites[self.site].name);
        let process = Command::new(&self.program)
            .current_dir(&self.dir)
            .args(["--config", &config, "serve", "s.sock"])
            .stdin(Stdio::null())
            .spawn()
            .expect("the client starts");
        let socket = self.dir.join("s.sock");
        eventually(Duration::from_secs(10), || socket.exists().then_some(())).expect("its socket");
        Serving { client: self, process }
    }

    /// Its keys move to the other server; it is done when the client has an answer from there.
    pub fn migrate(&self, lab: &Lab, watch: Watch) -> Took {
        let to = (self.site + 1) % lab.sites.len();
        let since = Instant::now();
        lab.migrate(&self.name, self.site, to);
        let ms = since.elapsed().as_secs_f64() * 1000.0;
        Took { ms, ..Took::default() }.then(self.validate(lab, to, &self.name, watch))
    }
}

/// A client that goes on and answers applications on a socket, until this value ends.
#[derive(Debug)]
pub struct Serving<'c> {
    client: &'c Ours,
    process: Child,
}

impl Serving<'_> {
    /// What its server knows of a key, asked as an application does.
    pub fn ask(&self, name: &str) -> Took {
        let mut command = Command::new(&self.client.program);
        let words = ["--socket", "s.sock", "validate", "--name", name];
        took(command.current_dir(&self.client.dir).args(words), Watch::Nothing)
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `openssl` with copies of its libraries that no other process of this machine has: as in a VM of its
/// own, where they are not shared with the lab's software TPMs.
pub fn own_openssl(dir: &Path) -> PathBuf {
    let dir = dir.join("openssl");
    fs::create_dir(&dir).expect("a folder");
    let program = run("sh", &["-c", "command -v openssl"]).stdout.trim().to_owned();
    let said = run("ldd", &[&program]).stdout;
    let libraries = said.lines().filter_map(|line| line.split("=> ").nth(1)?.split(' ').next());
    for file in libraries.chain([program.as_str()]).map(Path::new) {
        fs::copy(file, dir.join(file.file_name().expect("a name"))).expect("a copy");
    }
    dir
}

/// A client that speaks to the PKI.
#[derive(Debug)]
pub struct Theirs {
    dir: PathBuf,
    name: String,
    /// Where its program and libraries are, if not where all have theirs.
    pub own: Option<PathBuf>,
}

impl Theirs {
    /// With a key, and another for the day that it moves.
    pub fn new(lab: &Lab, dir: &Path, name: &str) -> Self {
        let dir = dir.join(name);
        fs::create_dir(&dir).expect("a folder");
        for key in ["key.pem", "next.pem"] {
            make_key(&dir.join(key));
        }
        fs::copy(lab.pki.file("ca.pem"), dir.join("ca.pem")).expect("a file");
        fs::copy(lab.pki.file("secret"), dir.join("secret")).expect("a file");
        Self { dir, name: name.to_owned(), own: None }
    }

    /// Its certificate.
    pub fn certificate(&self) -> String {
        self.dir.join("cert.pem").to_str().expect("a plain path").to_owned()
    }

    fn openssl(&self, words: &[&str], watch: Watch) -> Took {
        let own = self.own.as_ref();
        let mut command =
            Command::new(own.map_or_else(|| PathBuf::from("openssl"), |own| own.join("openssl")));
        own.map(|own| command.env("LD_LIBRARY_PATH", own));
        took(command.current_dir(&self.dir).args(words), watch)
    }

    fn cmp(&self, lab: &Lab, words: &[&str], watch: Watch) -> Took {
        let server = lab.direct.address.to_string();
        let common = ["cmp", "-config", "", "-server", &server, "-path", "cmp", "-ref", REFERENCE];
        let common = [common.as_slice(), &["-secret", "file:secret"], words].concat();
        self.openssl(&common, watch)
    }

    /// A certificate for a key.
    fn enrol(&self, lab: &Lab, key: &str, watch: Watch) -> Took {
        let subject = format!("/CN={}", self.name);
        let what = ["-cmd", "ir", "-newkey", key, "-subject", &subject, "-certout", "cert.pem"];
        self.cmp(lab, &what, watch)
    }

    /// Registers its key.
    pub fn register(&self, lab: &Lab, watch: Watch) -> Took {
        self.enrol(lab, "key.pem", watch)
    }

    /// Path and signature of somebody's certificate, then its status by OCSP.
    pub fn query_ocsp(&self, lab: &Lab, certificate: &str, watch: Watch) -> [Took; 2] {
        let path = self.openssl(&["verify", "-CAfile", "ca.pem", certificate], watch);
        let url = format!("http://{}/ocsp", lab.direct.address);
        let about = ["ocsp", "-issuer", "ca.pem", "-cert", certificate, "-CAfile", "ca.pem"];
        let status = self.openssl(&[about.as_slice(), &["-url", &url]].concat(), watch);
        assert!(status.said.contains(": good"), "{}", status.said);
        [path, status]
    }

    /// The same, with the newest CRL instead: one process fetches it and judges.
    pub fn query_crl(&self, lab: &Lab, certificate: &str, watch: Watch) -> Took {
        let _ = lab;
        let how = ["verify", "-CAfile", "ca.pem", "-crl_check", "-crl_download", certificate];
        self.openssl(&how, watch)
    }

    /// Revokes the old certificate and registers a new key.
    pub fn migrate(&self, lab: &Lab, watch: Watch) -> Took {
        let gone = self.cmp(lab, &["-cmd", "rr", "-oldcert", "cert.pem"], watch);
        gone.then(self.enrol(lab, "next.pem", watch))
    }
}

/// Both steps of a query as one.
pub fn both([path, status]: [Took; 2]) -> Took {
    path.then(status)
}

fn make_key(path: &Path) {
    let file = path.to_str().expect("a plain path");
    let said = run(
        "openssl",
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", file],
    );
    assert_eq!(said.code, 0, "{}", said.complaint());
}
