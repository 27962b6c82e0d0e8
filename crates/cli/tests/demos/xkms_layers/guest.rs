//! VMs with the key-management client, driven over their control ports; each answer is a line on the
//! console.

use std::{cell::Cell, fs, io::Write as _, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    checks::Checks,
    server::Server,
    world::{World, eventually, programs, run},
};

/// How long a guest's boot, or an answer of its client, may take under emulation on a busy machine.
const BOOT: Duration = Duration::from_secs(600);
const ANSWER: Duration = Duration::from_secs(180);

/// A VM with the client.
pub struct Guest<'w> {
    pub world: &'w World,
    pub vm: &'static str,
    pub host: &'static str,
    count: Cell<u32>,
}

impl<'w> Guest<'w> {
    /// Starts a VM that was created, and waits until its client can be used.
    pub fn start(world: &'w World, vm: &'static str, host: &'static str) -> Result<Self, String> {
        let said = world.vouchsafe(&["vm", "start", vm, "--host", host]);
        if said.code != 0 {
            return Err(said.complaint());
        }
        let ready = world.guest_says(vm, "xkms-ready", BOOT);
        ready.ok_or_else(|| world.console(vm))?;
        let guest = Self { world, vm, host, count: Cell::new(0) };
        guest.tell("xkms-serve /tmp/client");
        let serves = world.guest_says(vm, "xkms-serves /tmp/client", ANSWER);
        serves.ok_or_else(|| world.console(vm))?;
        Ok(guest)
    }

    /// Writes a line to its control port.
    pub fn tell(&self, line: &str) {
        let port = self.world.path(&format!("run/{}/{}/control.sock", self.host, self.vm));
        let mut stream = std::os::unix::net::UnixStream::connect(port).expect("the control port");
        stream.write_all(format!("{line}\n").as_bytes()).expect("the line is sent");
    }

    /// What the client that serves applications says to these words, over its socket.
    pub fn client(&self, words: &str) -> Value {
        self.alone(&format!("--socket /tmp/client {words}"))
    }

    /// What a client that is started for these words says: it proves itself anew.
    pub fn alone(&self, words: &str) -> Value {
        let number = self.count.get() + 1;
        self.count.set(number);
        self.tell(&format!("xkms {number} {words}"));
        let begin = format!("vouchsafe-guest: xkms-{number} ");
        // The serial console is slow: a line counts once its end is there.
        let said = eventually(ANSWER, || {
            let console = self.console();
            let (_, rest) = console.rsplit_once(&begin)?;
            Some(rest.split_once('\n')?.0.trim().to_owned())
        });
        let said = said.unwrap_or_else(|| "no answer".to_owned());
        serde_json::from_str(&said).unwrap_or(Value::String(said))
    }

    /// Its console, from the agent itself: by the operator's command it goes over the authority, which
    /// may be away.
    fn console(&self) -> String {
        let record = self.world.record();
        let hosts = record["hosts"].as_array();
        let own = hosts.and_then(|all| all.iter().find(|one| one["name"] == self.host));
        let socket = own.and_then(|one| one["agent_socket"].as_str()).unwrap_or_default();
        let url = format!("http://agent/v1/vms/{}/console", self.vm);
        let said = run("curl", &["-s", "--unix-socket", socket, &url]);
        said.json()["text"].as_str().unwrap_or_default().to_owned()
    }

    /// Puts a word into a file of the guest.
    pub fn put(&self, name: &str, word: &str) {
        self.tell(&format!("xkms-put {name} {word}"));
        self.world.guest_says(self.vm, &format!("xkms-put {name}"), ANSWER);
    }

    /// One byte more in the client: it is refused, and no other can be run.
    pub fn tampered(&self, checks: &mut Checks) {
        self.tell("xkms-tamper");
        self.world.guest_says(self.vm, "xkms-tampered", ANSWER);
        let (said, name) = (self.alone("attest"), "client-tampered");
        self.named(checks, "one byte more in the client", &said, (name, true));
    }

    /// The client proves VM and itself, on a new connection.
    pub fn admitted(&self, checks: &mut Checks, what: &str) {
        let said = self.client("attest");
        let admitted = said["admitted"]["vm"] == self.vm;
        checks.check(&format!("{}: {what}", self.vm), admitted, said);
    }

    /// Has an operator authorize a key of the VM's, and puts the phrase into the guest. Which host it
    /// is on is not said: a phrase of another host's trust service would not be taken.
    pub fn authorize(&self, name: &str) {
        let words = ["key", "authorize", "--name", name, "--owner", self.vm];
        let said = self.world.vouchsafe(&words);
        self.put("phrase", said.json()["pass_phrase"].as_str().unwrap_or("none"));
    }

    /// Registers a key that the guest makes.
    pub fn register(&self, checks: &mut Checks, what: &str, name: &str) {
        self.authorize(name);
        let key = format!("--phrase-file /tmp/phrase --key-file /tmp/{name}");
        self.operation(checks, what, &format!("register --name {name} {key}"), one);
    }

    /// An operation: its words, and whether `more` holds of the bindings.
    pub fn operation(
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
        checks.check(&format!("{}: {what}", self.vm), good, seen);
    }

    /// Validates a name: its status, and what the answer rests on, which is printed.
    pub fn rests_on(
        &self,
        checks: &mut Checks,
        what: &str,
        (name, status): (&str, &str),
        (anchor, calls): (&Value, u64),
    ) {
        let said = self.client(&format!("validate --name {name}"));
        let answer = &said["answer"];
        let (found, knowledge) = (&answer["bindings"][0]["status"], &answer["knowledge"]);
        let good = *found == status
            && knowledge["anchor"] == *anchor
            && knowledge["pki_calls"] == calls
            && knowledge["as_of"].as_u64().is_some();
        let seen = format!(
            "{found}, anchor {}, {} calls to a PKI, as of {}; {}",
            knowledge["anchor"], knowledge["pki_calls"], knowledge["as_of"], answer["result"]
        );
        checks.check(&format!("{}: {what}", self.vm), good, seen);
    }

    /// The client is refused, on either side, by this name; what the trust service refused is in its
    /// audit log.
    pub fn refused(&self, checks: &mut Checks, what: &str, name: &str, audited: bool) {
        self.named(checks, what, &self.client("attest"), (name, audited));
    }

    /// What the client said is this refusal.
    fn named(&self, checks: &mut Checks, what: &str, said: &Value, (name, audited): (&str, bool)) {
        let seen = said["refused"]["refused"].as_str().map_or(said.to_string(), str::to_owned);
        let logged = !audited || noted(self.world, self.host, name);
        let good = seen == name && logged;
        let detail = said["refused"]["detail"].as_str().unwrap_or_default();
        checks.check(&format!("{}: {what}: `{name}`", self.vm), good, format!("{seen}: {detail}"));
    }
}

/// No binding; one.
pub fn none(bindings: &Value) -> bool {
    bindings.as_array().is_some_and(Vec::is_empty)
}

pub fn one(bindings: &Value) -> bool {
    bindings.as_array().is_some_and(|all| all.len() == 1)
}

/// Whether a trust service's audit log has this name.
pub fn noted(world: &World, host: &str, name: &str) -> bool {
    let log = world.path(&format!("hosts/{host}/trust/state/audit"));
    run("grep", &["-rqa", name, log.to_str().expect("a plain path")]).code == 0
}

/// Says which software may run in guests, to the trust services of hosts that are not up yet.
pub fn approve_software(dir: &Path) {
    let Some(image) = crate::world::image("guest-xkms.img") else { return };
    let list = fs::read(image.with_file_name("xkms.json")).unwrap_or_default();
    let list: Value = serde_json::from_slice(&list).unwrap_or_default();
    for host in super::HOSTS {
        let (client, software) = (&list["client"], &list["software"]);
        let text = format!("[guest]\nclients = [{client}]\nsoftware = {software}\n");
        let folder = dir.join(format!("hosts/{host}/trust/trust.d"));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("guest.toml"), text).expect("a file");
    }
}

/// Creates the VMs: the owner's trust anchor is on their disks. Their reference leaves PCR 10 to the
/// trust service.
pub fn create(world: &World, checks: &mut Checks, image: &Path, vms: &[&str]) -> bool {
    let own = world.path("guest.img");
    let created = copy_with_anchor(world, image, &own).and_then(|()| {
        let own = own.to_str().expect("a plain path");
        let measured = run(programs().join("vouchsafe"), &["image", "measure", "--json", own]);
        let mut reference = measured.json();
        let open = json!({"pcr": 10, "reason": "IMA: appraised by the trust service"});
        let unpredicted = reference["unpredicted"].as_array_mut();
        unpredicted.ok_or_else(|| measured.complaint())?.push(open);
        let file = world.path("reference.json");
        fs::write(&file, reference.to_string()).map_err(|error| error.to_string())?;
        let file = file.to_str().expect("a plain path");
        for vm in vms {
            let words = ["vm", "create", vm, "--image", own, "--reference", file];
            let said = world.vouchsafe(&words);
            if said.code != 0 {
                return Err(said.complaint());
            }
        }
        Ok(())
    });
    let what = "VMs are created, with their owner's trust anchor on their disks";
    checks.check(what, created.is_ok(), created.as_ref().err().map_or("", |said| said));
    created.is_ok()
}

fn copy_with_anchor(world: &World, image: &Path, own: &Path) -> Result<(), String> {
    fs::copy(image, own).map_err(|error| error.to_string())?;
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
    Ok(())
}

/// Starts a trust service again in another manner or state: it ends in order first.
pub fn restarted(
    server: &Server<'_>,
    lab: &[&str],
    meanwhile: impl FnOnce(),
) -> Result<(), String> {
    server.signal("-TERM");
    meanwhile();
    let said = server.world.lab_up(lab);
    if said.code == 0 { Ok(()) } else { Err(said.complaint()) }
}
