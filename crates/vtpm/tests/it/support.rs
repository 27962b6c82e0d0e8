//! The process under test, and clients in the places of the agent and of QEMU.

use std::{
    collections::BTreeMap,
    io::{IoSlice, Read as _, Write as _},
    mem::MaybeUninit,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use model::{
    Epoch, HashAlg, Nonce,
    child::{
        self,
        vtpm::{Fault, Identity, Observed, Quoted, Reply, Request, Status, VERSION},
    },
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serve::process::{Exit, ProcessId, Spawn};
use tpm::{StreamTransport, Tpm};

use crate::programs::have;

/// The keys of a test VM.
pub(crate) fn keys(state: u8) -> Vec<u8> {
    [[state; 32], [0x22; 32], [0x33; 32]].concat()
}

/// A running `vouchsafe-vtpm`.
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pub(crate) dir: PathBuf,
    sockets: PathBuf,
}

impl Process {
    /// Starts one on `home/state`, and waits until it serves.
    pub(crate) fn start(home: &Path, keys: &[u8], limit: u32) -> Self {
        let process = Self::spawn(home, keys, limit);
        for _ in 0..12_000 {
            if UnixStream::connect(process.control()).is_ok() {
                return process;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("not serving: {}", process.log());
    }

    /// Starts one and does not wait.
    pub(crate) fn spawn(home: &Path, keys: &[u8], limit: u32) -> Self {
        let dir = home.join("state");
        let id = Spawn::new(env!("CARGO_BIN_EXE_vouchsafe-vtpm"))
            .args(["run", "--max-extends", &limit.to_string(), "--dir"])
            .arg(&dir)
            .arg("--control")
            .arg(home.join("control"))
            .arg("--qemu")
            .arg(home.join("qemu"))
            .secret_arg("--keys-fd", keys)
            .unwrap()
            .log_file(home.join("log"))
            .spawn()
            .unwrap();
        Self { id, dir, sockets: home.to_owned() }
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.sockets.join("control")
    }

    pub(crate) fn qemu_socket(&self) -> PathBuf {
        self.sockets.join("qemu")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.sockets.join("log")).unwrap_or_default()
    }

    pub(crate) fn agent(&self) -> Agent {
        let mut agent = Agent(UnixStream::connect(self.control()).unwrap());
        let hello = agent.ask(&Request::Hello { version: VERSION });
        assert!(matches!(hello, Reply::Hello { version: VERSION, .. }));
        agent
    }

    pub(crate) fn qemu(&self) -> Qemu {
        Qemu::connect(&self.qemu_socket())
    }

    pub(crate) fn wait(&self) -> Exit {
        self.id.wait_exit_blocking(Duration::from_secs(120)).unwrap().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.id.kill();
        let _ = self.id.wait_exit_blocking(Duration::from_secs(5));
    }
}

/// A fresh VM's home and a vTPM in it, manufactured with all banks.
pub(crate) fn manufactured() -> Option<(tempfile::TempDir, Process, Identity)> {
    manufactured_with(&HashAlg::ALL)
}

/// A fresh VM's home and a vTPM in it, manufactured with these banks.
pub(crate) fn manufactured_with(
    banks: &[HashAlg],
) -> Option<(tempfile::TempDir, Process, Identity)> {
    if !have("swtpm") {
        return None;
    }
    let home = tempfile::tempdir().unwrap();
    let process = Process::start(home.path(), &keys(1), 20_000);
    let identity = process.agent().identity(&manufacture(false, banks));
    Some((home, process, identity))
}

/// A request for keys and banks.
pub(crate) fn manufacture(rsa: bool, banks: &[HashAlg]) -> Request {
    Request::Manufacture { rsa, banks: banks.to_vec().try_into().unwrap() }
}

/// The agent's end of the control socket.
pub(crate) struct Agent(UnixStream);

impl Agent {
    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        child::send(&mut self.0, request).unwrap();
        child::receive(&mut self.0).unwrap().unwrap()
    }

    pub(crate) fn fault(&mut self, request: &Request) -> Fault {
        let reply = self.ask(request);
        let Reply::Failed { fault, .. } = reply else { panic!("not Failed") };
        fault
    }

    pub(crate) fn manufacture(&mut self, rsa: bool) -> Identity {
        self.identity(&manufacture(rsa, &HashAlg::ALL))
    }

    /// What a request for keys is answered with.
    pub(crate) fn identity(&mut self, request: &Request) -> Identity {
        let reply = self.ask(request);
        let Reply::Manufactured(identity) = reply else { panic!("not Manufactured") };
        identity
    }

    pub(crate) fn status(&mut self) -> Status {
        let reply = self.ask(&Request::Status {});
        let Reply::Status(status) = reply else { panic!("not Status") };
        status
    }

    pub(crate) fn observed(&mut self, from: u64) -> Observed {
        let reply = self.ask(&Request::Observed { from });
        let Reply::Observed(observed) = reply else { panic!("not Observed") };
        observed
    }

    pub(crate) fn quote_request(nonce: u8, banks: &[HashAlg]) -> Request {
        let pcrs: BTreeMap<HashAlg, Vec<u8>> =
            banks.iter().map(|alg| (*alg, (0..24).collect())).collect();
        let vm = "v1".parse().unwrap();
        Request::Quote { nonce: Nonce([nonce; 32]), vm, epoch: Epoch(1), pcrs, from: 0 }
    }

    pub(crate) fn quote(&mut self, nonce: u8, banks: &[HashAlg]) -> Quoted {
        let reply = self.ask(&Self::quote_request(nonce, banks));
        let Reply::Quote(quoted) = reply else { panic!("not Quote") };
        *quoted
    }
}

pub(crate) const INIT: u32 = 2;
pub(crate) const SHUTDOWN: u32 = 3;
pub(crate) const SET_LOCALITY: u32 = 5;
pub(crate) const HASH_START: u32 = 6;
pub(crate) const HASH_DATA: u32 = 7;
pub(crate) const HASH_END: u32 = 8;
pub(crate) const CANCEL: u32 = 9;
pub(crate) const STOP: u32 = 0xe;
const SET_DATAFD: u32 = 0x10;

/// QEMU's end: control connection and data channel.
pub(crate) struct Qemu {
    control: UnixStream,
    pub(crate) data: UnixStream,
}

impl Qemu {
    pub(crate) fn connect(path: &Path) -> Self {
        let control = UnixStream::connect(path).unwrap();
        let (data, theirs) = UnixStream::pair().unwrap();
        let fds = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let request = SET_DATAFD.to_be_bytes();
        let parts = [IoSlice::new(&request)];
        rustix::net::sendmsg(&control, &parts, &mut ancillary, SendFlags::empty()).unwrap();
        let mut qemu = Self { control, data };
        assert_eq!(qemu.answer(), [0; 4]);
        qemu
    }

    fn answer(&mut self) -> Vec<u8> {
        let mut answer = vec![0; 8192];
        let length = self.control.read(&mut answer).unwrap();
        answer.truncate(length);
        answer
    }

    /// A control request; its whole answer, whose result must be 0.
    pub(crate) fn control(&mut self, code: u32, body: &[u8]) -> Vec<u8> {
        self.control.write_all(&[&code.to_be_bytes()[..], body].concat()).unwrap();
        let answer = self.answer();
        assert_eq!(answer.get(..4), Some(&[0; 4][..]), "request {code}: {answer:?}");
        answer
    }

    /// As QEMU powers a TPM on: STOP, INIT. TPM2_Startup is the firmware's.
    pub(crate) fn power_on(&mut self) {
        self.control(STOP, &[]);
        self.control(INIT, &[0; 4]);
    }

    pub(crate) fn set_locality(&mut self, locality: u8) {
        self.control(SET_LOCALITY, &[locality, 0, 0, 0]);
    }

    /// Powers on and starts up, as firmware does.
    pub(crate) fn boot(&mut self) -> Tpm {
        self.power_on();
        let mut tpm = self.tpm();
        tpm.startup().unwrap();
        tpm
    }

    /// The guest's TPM driver.
    pub(crate) fn tpm(&self) -> Tpm {
        Tpm::new(Box::new(StreamTransport::new(self.data.try_clone().unwrap())))
    }

    /// One raw command; its response.
    pub(crate) fn raw(&mut self, command: &[u8]) -> Vec<u8> {
        self.data.write_all(command).unwrap();
        let mut response = vec![0; 4096];
        let length = self.data.read(&mut response).unwrap();
        response.truncate(length);
        response
    }

    /// One raw command that must succeed.
    pub(crate) fn raw_ok(&mut self, command: &[u8]) -> Vec<u8> {
        let response = self.raw(command);
        assert_eq!(response.get(6..10), Some(&[0; 4][..]), "{command:02x?}: {response:02x?}");
        response
    }
}

/// A command with `passwords` empty password authorizations.
pub(crate) fn command(code: u32, handles: &[u32], passwords: usize, parameters: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    handles.iter().for_each(|handle| body.extend(handle.to_be_bytes()));
    if passwords > 0 {
        body.extend(u32::try_from(passwords * 9).unwrap().to_be_bytes());
        (0..passwords).for_each(|_| body.extend([0x40, 0, 0, 9, 0, 0, 1, 0, 0]));
    }
    body.extend(parameters);
    let tag: u16 = if passwords > 0 { 0x8002 } else { 0x8001 };
    let size = u32::try_from(body.len() + 10).unwrap();
    [&tag.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), &body].concat()
}

/// The process's children.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}
