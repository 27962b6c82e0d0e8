//! One vTPM: swtpm's two channels, what was observed on them, and the host's own commands.
//!
//! ```text
//!   QEMU control --+-------------------> Control ---> swtpm
//!   QEMU data -----+--> Turns<Machine> --> data ----> swtpm
//!   agent ---------+        |
//!                           +-- Recorder (observed list)
//! ```
//! One turn is one TPM command with its response and its entry in the list, or one request of the
//! host with all its commands: so a quote and the list's position belong to the same moment.
//!
//! **Invariant:** the guest finds locality, transient objects and sessions as it left them.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::{HashAlg, child::vtpm::Unobservable};
use thiserror::Error;
use tpm::{Object, StreamTransport, Tpm};

use crate::{
    control::{Code, Control, number_at},
    keys::Keys,
    listed,
    observed::{Power, Recorder, carried::Carried},
    turn::Turns,
};

/// swtpm's file of persistent state.
const STATE: &str = "tpm2-00.permall";

/// A file that says that the keys were made; only a hint for status.
const MARKER: &str = "manufactured";

/// The longest command or response.
pub(crate) const MAX_COMMAND: usize = 4096;

/// The slowest command of a software TPM (RSA key generation) takes seconds.
const COMMAND_WAIT: Duration = Duration::from_secs(120);

/// TPM2_PCR_Read of nothing: refused with TPM_RC_INITIALIZE unless the vTPM is started.
const PROBE: [u8; 14] = [0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x7e, 0, 0, 0, 0];

/// swtpm could not be used.
#[derive(Debug, Error)]
pub(crate) enum MachineError {
    /// A channel to swtpm broke.
    #[error("the channel to swtpm broke")]
    Channel(#[from] io::Error),
    /// swtpm refused a control request.
    #[error("swtpm refused {code:?}: 0x{result:x}")]
    Refused {
        /// The request.
        code: Code,
        /// Its result.
        result: u32,
    },
}

/// What is used in turns.
#[derive(Debug)]
pub(crate) struct Machine {
    control: Arc<Control>,
    data: UnixStream,
    tpm: Tpm,
    pub(crate) recorder: Recorder,
    locality: u8,
    loaded_state: bool,
    /// On for the host's own work, without a guest.
    ours: bool,
    /// What quotes need again while the vTPM is on.
    pub(crate) known: Option<Known>,
}

/// The host's AK, the banks that are allocated, and what the PCRs held at the last quote.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) ak: Object,
    pub(crate) banks: Vec<HashAlg>,
    pub(crate) pcrs: Option<Carried>,
}

/// The vTPM, shared by all threads.
#[derive(Debug)]
pub(crate) struct Vtpm {
    pub(crate) turns: Turns<Machine>,
    pub(crate) control: Arc<Control>,
    pub(crate) qemu_connected: AtomicBool,
    pub(crate) keys: Keys,
    pub(crate) swtpm_pid: u32,
    /// Holds swtpm's state and our marks.
    pub(crate) dir: PathBuf,
}

impl Vtpm {
    /// Whether QEMU is connected now.
    pub(crate) fn has_qemu(&self) -> bool {
        self.qemu_connected.load(Ordering::SeqCst)
    }

    /// Whether the keys were made.
    pub(crate) fn is_manufactured(&self) -> bool {
        self.dir.join(MARKER).exists()
    }

    /// Notes that the keys were made.
    pub(crate) fn mark_manufactured(&self) -> io::Result<()> {
        File::create(self.dir.join(MARKER))?.sync_all()?;
        self.sync()
    }

    /// Makes swtpm's state durable; swtpm itself only writes and renames it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match File::open(self.dir.join(STATE)) {
            Ok(state) => state.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        File::open(&self.dir)?.sync_all()
    }
}

impl Machine {
    /// Connects to a fresh swtpm: `control` is its control channel; the data channel is made here.
    pub(crate) fn new(control: Arc<Control>, limit: usize) -> Result<Self, MachineError> {
        let (data, theirs) = UnixStream::pair()?;
        let result = control.set_data_fd(theirs.as_fd())?;
        if result != 0 {
            return Err(MachineError::Refused { code: Code::SetDataFd, result });
        }
        data.set_read_timeout(Some(COMMAND_WAIT))?;
        let tpm = Tpm::new(Box::new(StreamTransport::new(data.try_clone()?)));
        let recorder = Recorder::new(limit);
        Ok(Self {
            control,
            data,
            tpm,
            recorder,
            locality: 0,
            loaded_state: false,
            ours: false,
            known: None,
        })
    }

    fn control(&self, code: Code, body: &[u8]) -> Result<(), MachineError> {
        match self.control.request(code, body)? {
            0 => Ok(()),
            result => Err(MachineError::Refused { code, result }),
        }
    }

    /// Runs `job` on the vTPM while the guest is not there, powering it on first if it is off. It
    /// stays on for further work until [`Self::leave`]. Nothing of this is a boot of the guest.
    pub(crate) fn alone<R, E: From<tpm::TpmError> + From<MachineError>>(
        &mut self,
        job: impl FnOnce(&mut Tpm) -> Result<R, E>,
    ) -> Result<R, E> {
        if !self.ours {
            self.open()?;
        }
        self.tpm.startup()?;
        self.tpm.scoped(job)
    }

    /// INIT for the host's own work: does swtpm accept its state under the given key?
    pub(crate) fn open(&mut self) -> Result<(), MachineError> {
        self.control(Code::Init, &[0; 4])?;
        self.ours = true;
        Ok(())
    }

    /// Ends the host's own work: an orderly shutdown, and power off.
    pub(crate) fn leave(&mut self) -> Result<(), MachineError> {
        if self.ours {
            self.ours = false;
            // Refused if the TPM was not started for any work; then there is nothing to save.
            if let Err(error) = self.tpm.shutdown() {
                tracing::debug!(%error, "no orderly shutdown");
            }
            self.control(Code::Stop, &[])?;
        }
        Ok(())
    }

    /// Runs the host's commands on the started TPM, between two of the guest's and at locality 0.
    pub(crate) fn inject<R, E: From<MachineError> + From<tpm::TpmError>>(
        &mut self,
        job: impl FnOnce(&mut Tpm) -> Result<R, E>,
    ) -> Result<R, E> {
        if self.locality != 0 {
            self.control(Code::SetLocality, &[0; 4])?;
        }
        let worked = self.tpm.scoped(job);
        if self.locality != 0 {
            self.control(Code::SetLocality, &[self.locality, 0, 0, 0])?;
        }
        worked
    }

    /// One command of the guest, and its entry in the list.
    pub(crate) fn guest_command(&mut self, command: &[u8]) -> Result<Vec<u8>, MachineError> {
        if self.recorder.power() == Power::Off {
            // swtpm does not read commands then, and we would wait for it with everybody behind us.
            return Ok(refusal(RC_FAILURE));
        }
        let response = self.exchange(command).inspect_err(|_| self.recorder.interrupted())?;
        self.recorder.command(self.locality, command, &response);
        Ok(listed::response(command, response))
    }

    fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.data.write_all(command)?;
        match read_frame(&mut self.data)? {
            Some(response) => Ok(response),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// A control request of QEMU, complete; its answer. What it does to the TPM is noted.
    pub(crate) fn guest_control(
        &mut self,
        code: Code,
        request: &[u8],
    ) -> Result<Vec<u8>, MachineError> {
        let answer = self.control.forward(code, request)?;
        if answer.first_chunk::<4>() == Some(&[0; 4]) {
            self.note(code, request)?;
        }
        Ok(answer)
    }

    fn note(&mut self, code: Code, request: &[u8]) -> Result<(), MachineError> {
        match code {
            Code::Init => self.note_init()?,
            Code::Stop | Code::Shutdown => self.recorder.stopped(),
            Code::SetLocality => self.locality = request.get(4).copied().unwrap_or(0),
            Code::HashStart => self.recorder.hash_start(),
            Code::HashData => self.recorder.hash_data(request.get(8..).unwrap_or_default()),
            Code::HashEnd => self.recorder.hash_end(),
            Code::SetStateBlob => self.loaded_state = true,
            Code::GetCapability
            | Code::GetEstablished
            | Code::Cancel
            | Code::StoreVolatile
            | Code::ResetEstablished
            | Code::GetStateBlob
            | Code::GetConfig
            | Code::SetDataFd
            | Code::SetBufferSize
            | Code::GetInfo => {}
        }
        Ok(())
    }

    /// After INIT a TPM waits for startup; one that came up running has PCRs nobody saw here.
    fn note_init(&mut self) -> Result<(), MachineError> {
        self.locality = 0;
        self.known = None;
        let probed = self.exchange(&PROBE)?;
        if probed.get(6..10) == Some(&[0, 0, 1, 0]) {
            self.recorder.initialized();
        } else {
            let loaded = self.loaded_state;
            let why = if loaded { Unobservable::LoadedState } else { Unobservable::StoredState };
            self.recorder.initialized_running(why);
        }
        self.loaded_state = false;
        Ok(())
    }

    /// Lets swtpm store its state and end.
    pub(crate) fn shut_down(&mut self) -> Result<(), MachineError> {
        self.leave()?;
        self.recorder.stopped();
        self.control(Code::Shutdown, &[])
    }

    /// Powers the vTPM off after QEMU left, if it did not do so itself. Its persistent state is
    /// stored already.
    pub(crate) fn power_off(&mut self) -> Result<(), MachineError> {
        if self.recorder.power() != Power::Off {
            self.control(Code::Stop, &[])?;
            self.recorder.stopped();
        }
        self.locality = 0;
        Ok(())
    }
}

/// TPM_RC_FAILURE.
const RC_FAILURE: u32 = 0x101;
/// TPM_RC_COMMAND_SIZE.
pub(crate) const RC_COMMAND_SIZE: u32 = 0x142;

/// A response without parameters.
pub(crate) fn refusal(code: u32) -> Vec<u8> {
    [&[0x80, 0x01, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
}

/// Reads one response, whose header says how long it is; `None` if the stream ended before it.
fn read_frame(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut frame = vec![0; MAX_COMMAND];
    let mut have = 0;
    let mut wanted = 10;
    while have < wanted {
        let space = frame.get_mut(have..wanted).ok_or(io::ErrorKind::InvalidData)?;
        match stream.read(space) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if have == 10 && wanted == 10 {
            wanted = announced(&frame).ok_or(io::ErrorKind::InvalidData)?;
        }
    }
    frame.truncate(wanted);
    Ok(Some(frame))
}

/// The length that a header announces, if it is a possible one.
pub(crate) fn announced(frame: &[u8]) -> Option<usize> {
    let size = usize::try_from(number_at(frame, 2)?).ok()?;
    (10..=MAX_COMMAND).contains(&size).then_some(size)
}
