//! Our vTPM, driven as the agent and QEMU drive it.

use std::{
    collections::BTreeMap,
    io::{IoSlice, Read as _, Write as _},
    mem::MaybeUninit,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
    thread,
    time::Duration,
};

use model::{
    Epoch, HashAlg, Nonce, PcrBanks,
    child::{
        self,
        vtpm::{Identity, Reply, Request, VERSION},
    },
};
use pki::{Ca, CaSpec, Profile, Validity, tcg::TpmModel};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serve::process::{ProcessId, Spawn};
use time::OffsetDateTime;
use tpm::{Public, StreamTransport, Tpm};

/// The authority's vTPM CA.
pub struct Issuer(Ca);

impl Issuer {
    /// A fresh one.
    pub fn new() -> Self {
        let lifetime = Duration::from_secs(86_400 * 365);
        let spec = CaSpec {
            common_name: "bench vTPM CA".to_owned(),
            path_length: 0,
            validity: Validity::new(OffsetDateTime::now_utc(), lifetime),
        };
        Self(Ca::create_root(&spec).expect("a CA").0)
    }

    fn ek(&self, public: &[u8]) -> Vec<u8> {
        if public.is_empty() {
            return Vec::new();
        }
        let spki = Public::parse(public).expect("a public area").spki_der().expect("a key");
        let tpm = TpmModel {
            manufacturer: "id:00001014".to_owned(),
            model: "swtpm".to_owned(),
            version: "id:20191023".to_owned(),
        };
        let profile = Profile::VtpmEk { tpm, vm: "bench".parse().expect("a name") };
        let lifetime = Duration::from_secs(86_400 * 30);
        let validity = Validity::new(OffsetDateTime::now_utc(), lifetime);
        self.0.issue(&profile, &spki, validity).expect("a certificate").der
    }
}

/// A running `vouchsafe-vtpm`.
pub struct Vtpm {
    id: ProcessId,
    agent: UnixStream,
    swtpm_pid: u32,
    /// Entries of the list that were read.
    seen: u64,
    home: tempfile::TempDir,
}

impl Vtpm {
    /// Starts one in a fresh directory, makes its keys and installs its certificates.
    pub fn manufactured(issuer: &Issuer, rsa: bool) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let program = Path::new(env!("CARGO_BIN_EXE_vouchsafe")).with_file_name("vouchsafe-vtpm");
        let at = |name: &str| home.path().join(name);
        let id = Spawn::new(program)
            .args(["run", "--dir"])
            .arg(at("state"))
            .arg("--control")
            .arg(at("control"))
            .arg("--qemu")
            .arg(at("qemu"))
            .secret_arg("--keys-fd", &[7; 96])
            .expect("a memory file")
            .spawn()
            .expect("it starts");
        let agent = (0..5000).find_map(|_| {
            thread::sleep(Duration::from_millis(1));
            UnixStream::connect(at("control")).ok()
        });
        let agent = agent.expect("it serves");
        let mut vtpm = Self { id, agent, swtpm_pid: 0, seen: 0, home };
        let Reply::Hello { swtpm_pid, .. } = vtpm.ask(&Request::Hello { version: VERSION }) else {
            panic!("no hello")
        };
        vtpm.swtpm_pid = swtpm_pid;
        let banks = PcrBanks::default();
        let Reply::Manufactured(identity) = vtpm.ask(&Request::Manufacture { rsa, banks }) else {
            panic!("not manufactured")
        };
        let Identity { ek_p256, ek_rsa, .. } = identity;
        let (ek_p256, ek_rsa) = (issuer.ek(&ek_p256), issuer.ek(&ek_rsa));
        let done = vtpm.ask(&Request::InstallCertificates { ek_p256, ek_rsa });
        assert_eq!(done, Reply::Done {});
        vtpm
    }

    fn ask(&mut self, request: &Request) -> Reply {
        child::send(&mut self.agent, request).expect("sent");
        child::receive(&mut self.agent).expect("received").expect("a reply")
    }

    /// Connects as QEMU and starts the TPM up, as firmware does.
    pub fn boot(&mut self) -> (UnixStream, Tpm) {
        let mut control =
            UnixStream::connect(self.home.path().join("qemu")).expect("QEMU's socket");
        let (data, theirs) = UnixStream::pair().expect("a pair");
        let fds = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let parts = [IoSlice::new(&[0, 0, 0, 0x10])];
        let flags = SendFlags::empty();
        rustix::net::sendmsg(&control, &parts, &mut ancillary, flags).expect("sent");
        let mut answer = [0; 64];
        let _done = control.read(&mut answer).expect("an answer");
        control.write_all(&[0, 0, 0, 2, 0, 0, 0, 0]).expect("sent");
        let _done = control.read(&mut answer).expect("an answer");
        let mut guest = Tpm::new(Box::new(StreamTransport::new(data)));
        guest.startup().expect("started");
        for pcr in 0..10 {
            guest.pcr_extend(pcr, &[model::Digest::sha256([pcr; 32])]).expect("extended");
        }
        (control, guest)
    }

    /// One quote of 24 PCRs with what was measured since the last one.
    pub fn quote(&mut self) {
        let request = Request::Quote {
            nonce: Nonce([1; 32]),
            vm: "bench".parse().expect("a name"),
            epoch: Epoch(1),
            pcrs: BTreeMap::from([(HashAlg::Sha256, (0..24).collect())]),
            from: self.seen,
        };
        let Reply::Quote(quoted) = self.ask(&request) else { panic!("no quote") };
        self.seen = quoted.observed.total;
    }

    /// Proxy and swtpm.
    pub fn pids(&self) -> [u32; 2] {
        [u32::try_from(self.id.pid).expect("a pid"), self.swtpm_pid]
    }

    /// The swtpm alone.
    pub fn swtpm_pid(&self) -> u32 {
        self.swtpm_pid
    }
}

impl Drop for Vtpm {
    fn drop(&mut self) {
        let _gone = self.id.kill();
        let _reaped = self.id.wait_exit_blocking(Duration::from_secs(5));
    }
}
