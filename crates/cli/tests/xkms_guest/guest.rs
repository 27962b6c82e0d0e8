//! The operations from inside a guest, driven over its control port; each is answered on its console.

use std::{
    cell::Cell,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    checks::Checks,
    world::{World, eventually, programs, run},
};

/// How long a guest's boot, or an answer of its client, may take under emulation.
const BOOT: Duration = Duration::from_secs(180);
const ANSWER: Duration = Duration::from_secs(60);

/// A VM with the client.
struct Guest<'w> {
    world: &'w World,
    count: Cell<u32>,
}

impl Guest<'_> {
    fn tell(&self, line: &str) {
        let port = self.world.path("run/a/v1/control.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(port).expect("the control port");
        stream.write_all(format!("{line}\n").as_bytes()).expect("the line is sent");
    }

    /// What the client says to these words.
    fn client(&self, words: &str) -> Value {
        let number = self.count.get() + 1;
        self.count.set(number);
        self.tell(&format!("xkms {number} {words}"));
        let begin = format!("vouchsafe-guest: xkms-{number} ");
        // The serial console is slow: a line counts once its end is there.
        let said = eventually(ANSWER, || {
            let console = self.world.console("v1");
            let (_, rest) = console.rsplit_once(&begin)?;
            Some(rest.split_once('\n')?.0.trim().to_owned())
        });
        let said = said.unwrap_or_else(|| "no answer".to_owned());
        serde_json::from_str(&said).unwrap_or(Value::String(said))
    }

    /// Puts a word into a file of the guest.
    fn put(&self, name: &str, word: &str) {
        self.tell(&format!("xkms-put {name} {word}"));
        self.world.guest_says("v1", &format!("xkms-put {name}"), ANSWER);
    }

    /// An operation: its two words, and whether `more` holds of the bindings.
    fn operation(
        &self,
        checks: &mut Checks,
        what: &str,
        words: &str,
        more: impl Fn(&Value) -> bool,
    ) {
        let said = self.client(words);
        let answer = &said["answer"];
        let good = answer["success"] == true && more(&answer["bindings"]);
        let seen = answer["result"].as_str().map_or_else(|| said.to_string(), str::to_owned);
        checks.check(what, good, seen);
    }
}

/// Everything that a guest with a client does.
pub fn from_inside(world: &World, checks: &mut Checks, image: &Path) {
    if let Err(said) = prepare(world, image) {
        checks.check("the trust service knows which software may run in guests", false, said);
        return;
    }
    let Some(guest) = start(world, checks) else { return };
    checks.part("trusted proof, then the six operations from inside");
    let said = guest.client("attest");
    let admitted = said["admitted"]["vm"] == "v1";
    checks.check("the client proves VM and itself; it is admitted as v1", admitted, said);
    let none = |bindings: &Value| bindings.as_array().is_some_and(Vec::is_empty);
    let one = |bindings: &Value| bindings.as_array().is_some_and(|all| all.len() == 1);
    let status = |wanted: &'static str| move |bindings: &Value| bindings[0]["status"] == wanted;
    guest.operation(checks, "Locate of what is not there", "locate --name alice", none);
    let said = world.vouchsafe(&["key", "authorize", "--name", "alice"]);
    guest.put("other", said.json()["pass_phrase"].as_str().unwrap_or("none"));
    let order = "register --name alice --phrase-file /tmp/other --key-file /tmp/key";
    let said = guest.client(order);
    let result = said["answer"]["result"].as_str().unwrap_or_default().to_owned();
    let refused = result == "Sender Refused" && noted(world, "owner-other");
    checks.check("Register with a phrase that is not the VM's: `owner-other`", refused, said);
    authorize(world, &guest, "alice");
    let order = "register --name alice --phrase-file /tmp/phrase --key-file /tmp/key";
    guest.operation(checks, "Register of a key that was made in the guest", order, one);
    guest.operation(checks, "Locate finds it", "locate --name alice", one);
    guest.operation(checks, "Validate: Valid", "validate --name alice", status("Valid"));
    let order = "reissue --name alice --key-file /tmp/key";
    guest.operation(checks, "Reissue, by the key itself", order, one);
    let order = "revoke --name alice --key-file /tmp/key";
    guest.operation(checks, "Revoke, by the key itself", order, |_| true);
    guest.operation(checks, "Validate: Invalid", "validate --name alice", status("Invalid"));
    recovered(world, checks, &guest);
    checks.part("either side begins again");
    kill_reader(world);
    let what = "the reader was killed: the client proves itself to the next one";
    guest.operation(checks, what, "locate --name alice", |_| true);
    checks.part("a changed client");
    guest.tell("xkms-tamper");
    world.guest_says("v1", "xkms-tampered", ANSWER);
    let said = guest.client("locate --name alice");
    let seen = said["refused"]["refused"].as_str().map_or(said.to_string(), str::to_owned);
    checks.check(
        "one byte more in the client: `client-tampered`",
        seen == "client-tampered",
        &seen,
    );
    checks.check("the trust service's audit log has it", noted(world, "client-tampered"), "");
    let said = world.vouchsafe(&["vm", "attest", "v1"]);
    let what = "the authority's verdict leaves PCR 10 to the trust service";
    checks.check(what, said.code == 0, said.complaint());
}

/// Escrow is on: the service makes a key, two operators give it back.
fn recovered(world: &World, checks: &mut Checks, guest: &Guest<'_>) {
    authorize(world, guest, "escrowed");
    let order =
        "register --name escrowed --phrase-file /tmp/phrase --key-file /tmp/made --generate";
    let said = guest.client(order);
    let id = said["answer"]["bindings"][0]["id"].as_str().unwrap_or_default().to_owned();
    checks.check(
        "Register of a key that the service makes",
        !id.is_empty(),
        &said["answer"]["result"],
    );
    let mut phrase = Value::Null;
    for operator in ["alice", "bob"] {
        let said = world.vouchsafe(&["key", "approve-recovery", &id, "--operator", operator]);
        phrase = said.json()["pass_phrase"].clone();
    }
    guest.put("phrase", phrase.as_str().unwrap_or("none"));
    let order = "recover --name escrowed --phrase-file /tmp/phrase --key-file /tmp/back";
    guest.operation(checks, "Recover, with the phrase of two operators", order, |_| true);
}

/// The owner's trust anchor goes onto the disk, the approved digests to the trust service.
fn prepare(world: &World, image: &Path) -> Result<(), String> {
    let own = image_of(world);
    fs::copy(image, &own).map_err(|error| error.to_string())?;
    let ca = world.record()["authority"]["ca_file"].as_str().unwrap_or_default().to_owned();
    let partition = format!("{}@@1M", own.display());
    for (program, args) in [
        ("mmd", vec!["-i", &partition, "::/vouchsafe"]),
        ("mcopy", vec!["-i", &partition, &ca, "::/vouchsafe/ca.pem"]),
    ] {
        let said = run(program, &args);
        if said.code != 0 {
            return Err(said.complaint());
        }
    }
    let list = fs::read(image.with_file_name("xkms.json")).map_err(|error| error.to_string())?;
    let list: Value = serde_json::from_slice(&list).map_err(|error| error.to_string())?;
    let agent = world.record()["hosts"][0]["agent_socket"].as_str().unwrap_or_default().to_owned();
    let text = format!(
        "[keeper]\ngenerate_keys = true\nescrow = true\n\
         [guest]\nagent_socket = {}\nclients = [{}]\nsoftware = {}\n",
        json!(agent),
        list["client"],
        list["software"]
    );
    let folder = world.path("hosts/a/trust/trust.d");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    fs::write(folder.join("guest.toml"), text).map_err(|error| error.to_string())?;
    let pid = keeper(world);
    run("kill", &["-TERM", &pid.to_string()]);
    let gone = || (!Path::new("/proc").join(pid.to_string()).join("exe").exists()).then_some(());
    eventually(Duration::from_secs(15), gone);
    let said = world.lab_up(&["--hosts", "1"]);
    if said.code == 0 { Ok(()) } else { Err(said.complaint()) }
}

fn image_of(world: &World) -> PathBuf {
    world.path("v1.img")
}

/// Creates and starts the VM. Its reference leaves PCR 10 to the trust service.
fn start<'w>(world: &'w World, checks: &mut Checks) -> Option<Guest<'w>> {
    let image = image_of(world);
    let image = image.to_str().expect("a plain path");
    let measured = run(programs().join("vouchsafe"), &["image", "measure", "--json", image]);
    let mut reference = measured.json();
    let open = json!({"pcr": 10, "reason": "IMA: appraised by the trust service"});
    reference["unpredicted"].as_array_mut()?.push(open);
    let file = world.path("reference.json");
    fs::write(&file, reference.to_string()).expect("a file");
    let file = file.to_str().expect("a plain path");
    let said = world.vouchsafe(&["vm", "create", "v1", "--image", image, "--reference", file]);
    checks.check(
        "v1 is created with its own trust anchor on its disk",
        said.code == 0,
        said.complaint(),
    );
    let said = world.vouchsafe(&["vm", "start", "v1", "--host", "a"]);
    checks.check("v1 starts and is affirmed", said.code == 0, said.complaint());
    let ready = world.guest_says("v1", "xkms-ready", BOOT).is_some();
    let console = if ready { String::new() } else { world.console("v1") };
    checks.check("the client finds its trust anchor", ready, console);
    ready.then_some(Guest { world, count: Cell::new(0) })
}

fn authorize(world: &World, guest: &Guest<'_>, name: &str) {
    let said = world.vouchsafe(&["key", "authorize", "--name", name, "--owner", "v1"]);
    guest.put("phrase", said.json()["pass_phrase"].as_str().unwrap_or("none"));
}

/// Whether the trust service's audit log has this name.
fn noted(world: &World, name: &str) -> bool {
    let log = world.path("hosts/a/trust/state/audit");
    run("grep", &["-rqa", name, log.to_str().expect("a plain path")]).code == 0
}

fn keeper(world: &World) -> u64 {
    let text = fs::read_to_string(world.path("processes.json")).unwrap_or_default();
    let all: Value = serde_json::from_str(&text).unwrap_or_default();
    all["trust-a"]["pid"].as_u64().unwrap_or(0)
}

fn kill_reader(world: &World) {
    run("pkill", &["-KILL", "-P", &keeper(world).to_string()]);
    std::thread::sleep(Duration::from_millis(500));
}
