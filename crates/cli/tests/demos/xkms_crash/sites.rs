//! The two servers' trust services and the centre: asked, killed, started again.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use xkms::{
    dsig::{Curve, SigningKey},
    message::*,
};

use crate::{
    server::{Server, exchange},
    world::{PATIENCE, Said, World, eventually, kill_9, programs},
};

/// The hosts' names.
pub const HOSTS: [&str; 2] = ["a", "b"];
/// The centre, among those that die.
pub const CENTRE: usize = 2;

/// Both trust services of a lab, and its centre.
pub struct Sites<'w> {
    pub world: &'w World,
    pub servers: [Server<'w>; 2],
    /// Whether there is a centre.
    pub has_centre: bool,
    /// Those that this test started, after it killed the lab's.
    started: [Option<Child>; 3],
}

/// What is killed, in words.
pub fn name_of(at: usize) -> &'static str {
    HOSTS.get(at).copied().unwrap_or("the centre")
}

impl<'w> Sites<'w> {
    pub fn of(world: &'w World, lab: &'static [&'static str]) -> Self {
        let server = |at| Server::at(world, lab, at).expect("lab.json has the trust service");
        let has_centre = world.record()["centre"].is_object();
        let servers = [server(0), server(1)];
        Self { world, servers, has_centre, started: [None, None, None] }
    }

    /// Its program, and its configuration.
    fn program(&self, at: usize) -> (&'static str, PathBuf) {
        match HOSTS.get(at) {
            Some(host) => {
                let config = self.world.path(&format!("hosts/{host}/trust/trust.toml"));
                ("vouchsafe-trust", config)
            }
            None => ("vouchsafe-centre", self.world.path("centre/centre.toml")),
        }
    }

    /// Whether it answers.
    fn is_up(&self, at: usize) -> bool {
        if at == CENTRE {
            let address = fs::read_to_string(self.world.path("centre/address"));
            return address.is_ok_and(|at| std::net::TcpStream::connect(at.trim()).is_ok());
        }
        self.key(at, &["status"]).code == 0
    }

    /// A `vouchsafe key` command on one of them.
    pub fn key(&self, at: usize, args: &[&str]) -> Said {
        self.world.vouchsafe(&[&["key"], args, &["--host", HOSTS[at]]].concat())
    }

    /// Kills one as nothing can be caught; its reader dies with it.
    pub fn kill(&mut self, at: usize) {
        match &mut self.started[at] {
            Some(child) => child.kill().expect("it is ours"),
            None => {
                let name =
                    HOSTS.get(at).map_or("centre".to_owned(), |host| format!("trust-{host}"));
                kill_9(&[self.world.processes()[name]["pid"].to_string()]);
            }
        }
        if let Some(mut child) = self.started[at].take() {
            child.wait().expect("it is ours");
        }
    }

    /// Starts one that was killed, and waits until it answers.
    pub fn start(&mut self, at: usize) -> bool {
        let (program, config) = self.program(at);
        let log = config.with_file_name("again.log");
        let log = fs::File::options().append(true).create(true).open(log);
        let started = eventually(PATIENCE, || {
            let child = Command::new(programs().join(program))
                .arg("--config")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log.as_ref().map_or_else(
                    |_| Stdio::null(),
                    |log| log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from),
                ))
                .spawn()
                .expect("the program starts");
            self.started[at] = Some(child);
            let up = eventually(PATIENCE, || {
                let ended = self.started[at]
                    .as_mut()
                    .is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()));
                // Its predecessor may still hold the address for a moment.
                if ended {
                    return Some(false);
                }
                self.is_up(at).then_some(true)
            });
            up.filter(|up| *up)
        });
        started.is_some()
    }

    /// Registers a new key of `owner` as `name`: whether that was acknowledged.
    pub fn register(&self, at: usize, name: &str, owner: &str) -> Result<(), String> {
        self.order(at, name, owner)?.carry_out()
    }

    /// An order to register a new key of `owner`, ready to be sent. Without a centre each second
    /// key is made by the service, which keeps it under a key in its server's TPM.
    pub fn order(&self, at: usize, name: &str, owner: &str) -> Result<Order, String> {
        let said = self.key(at, &["authorize", "--name", name, "--owner", owner]);
        let phrase = said.json()["pass_phrase"].as_str().map(str::to_owned);
        let phrase = phrase.ok_or_else(|| said.complaint())?;
        let made = !self.has_centre && name.ends_with(['0', '2', '4', '6', '8']);
        let key = (!made).then(|| SigningKey::generate_ec(Curve::P256).expect("a key"));
        let server = &self.servers[at];
        let text = server.register(name, &phrase, key.as_ref()).to_element().to_xml();
        Ok(Order { address: server.address().to_owned(), text: text.into_bytes() })
    }

    /// Whether one of them answers for a name; `None`: it did not answer at all.
    pub fn answers(&self, at: usize, name: &str) -> Option<bool> {
        let body = RequestBody::Locate(QueryKeyBinding {
            binding: crate::server::named(name),
            time: None,
        });
        let request = Request { head: self.servers[at].head(), body };
        match self.servers[at].ask(request) {
            Ok(Answer { body: AnswerBody::Locate(found), .. }) => Some(!found.is_empty()),
            Ok(_) => Some(false),
            Err(_) => None,
        }
    }

    /// Where an owner's keys are, by the word of one of them.
    pub fn place(&self, at: usize, owner: &str) -> String {
        let said = self.key(at, &["migration", "--owner", owner]);
        said.json()["place"].as_str().unwrap_or("?").to_owned()
    }

    /// Waits until an owner's keys rest: `here` at one, `absent` at the other; where they are.
    pub fn rest(&self, owner: &str) -> Option<usize> {
        eventually(PATIENCE, || match [self.place(0, owner), self.place(1, owner)] {
            [a, b] if a == "here" && b == "absent" => Some(0),
            [a, b] if a == "absent" && b == "here" => Some(1),
            _ => None,
        })
    }
}

/// An order on its way, which outlives the service that it is sent to.
pub struct Order {
    address: String,
    text: Vec<u8>,
}

impl Order {
    /// Sends it: whether it was acknowledged.
    pub fn carry_out(self) -> Result<(), String> {
        let answer = exchange(&self.address, "/xkms", ("text/xml", &self.text));
        let (status, body) = answer.map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&body);
        // `lab up` takes orders in one phase while it is calm.
        let done = said.contains("RegisterResult") && said.contains("#Success");
        if status == 200 && done { Ok(()) } else { Err(format!("{status} {said}")) }
    }
}

impl Drop for Sites<'_> {
    fn drop(&mut self) {
        for child in self.started.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
