//! Starting a child: detached from our terminal and session, its words in a log file, its secrets
//! in sealed memory files.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
};

use model::Secret;
use rustix::{
    fs::{MemfdFlags, SealFlags},
    process::Signal,
};
use thiserror::Error;

use super::{ProcessId, TakeFdError, raw};

/// Variables of our environment that a child gets; all others are left out.
const KEPT_ENVIRONMENT: [&str; 7] =
    ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR"];

/// A child could not be started, or a descriptor for or from it not be used.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The program could not be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The child's log file could not be opened.
    #[error("cannot open the log file {}", path.display())]
    Log {
        /// The log file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It ended before its start time could be read.
    #[error("{} ended at once", .0.display())]
    Vanished(PathBuf),
    /// A memory file for a secret could not be made or read.
    #[error("cannot pass a secret by descriptor")]
    Secret(#[source] io::Error),
    /// The descriptor named in the arguments was not inherited.
    #[error(transparent)]
    Take(#[from] TakeFdError),
    /// The secret is empty or longer than allowed.
    #[error("the secret read from a descriptor is empty or too long")]
    SecretLength,
}

/// A child to be started.
///
/// Defaults: own session, stdin and stdout from and to `/dev/null`, stderr too, environment reduced
/// to a few harmless variables, no descriptor inherited but those given here.
#[derive(Debug)]
pub struct Spawn {
    program: PathBuf,
    args: Vec<OsString>,
    extra_env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    log: Option<PathBuf>,
    share_stderr: bool,
    inherit: Vec<OwnedFd>,
    session: bool,
    death_signal: Option<Signal>,
}

impl Spawn {
    /// A child running `program`, searched in `PATH` if it has no slash.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            extra_env: Vec::new(),
            dir: None,
            log: None,
            share_stderr: false,
            inherit: Vec::new(),
            session: true,
            death_signal: None,
        }
    }

    /// Adds an argument. Never a secret: arguments are public.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the child's environment. Never a secret.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.extra_env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The child's working directory; `/` if none is set.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Appends stderr (and stdout, unless piped) to this file, created with mode 0600.
    #[must_use]
    pub fn log_file(mut self, path: impl AsRef<Path>) -> Self {
        self.log = Some(path.as_ref().to_owned());
        self
    }

    /// Lets the child write to our own stderr, so that its words stand among ours.
    #[must_use]
    pub const fn share_stderr(mut self) -> Self {
        self.share_stderr = true;
        self
    }

    /// Kills the child with `signal` when the spawning thread ends. Spawn it from the main thread
    /// or one that lives as long as the process: a worker thread that is retired would kill it.
    #[must_use]
    pub fn die_with_parent(mut self, signal: Signal) -> Self {
        self.death_signal = Some(signal);
        self
    }

    /// Stays in our session and process group (foreground helpers; default is a new session).
    #[must_use]
    pub fn same_session(mut self) -> Self {
        self.session = false;
        self
    }

    /// Leaves `fd` open in the child, under the number that is returned.
    pub fn inherit(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.inherit.push(fd);
        number
    }

    /// Leaves `fd` open in the child and adds the arguments `flag NUMBER`.
    #[must_use]
    pub fn fd_arg(mut self, flag: &str, fd: OwnedFd) -> Self {
        let number = self.inherit(fd);
        self.arg(flag).arg(number.to_string())
    }

    /// Passes `secret` in a sealed memory file and adds the arguments `flag NUMBER`; the child
    /// reads it with [`read_secret_fd`].
    ///
    /// # Errors
    /// [`SpawnError::Secret`] if the memory file cannot be made.
    pub fn secret_arg(self, flag: &str, secret: &[u8]) -> Result<Self, SpawnError> {
        let fd = sealed_memfd(secret).map_err(SpawnError::Secret)?;
        Ok(self.fd_arg(flag, fd))
    }

    /// Starts the child.
    ///
    /// # Errors
    /// [`SpawnError`] if it cannot be started.
    pub fn spawn(self) -> Result<ProcessId, SpawnError> {
        self.start(false).map(|(id, _)| id)
    }

    /// Starts the child with its stdout as a pipe to us.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn spawn_piped(self) -> Result<(ProcessId, ChildStdout), SpawnError> {
        let program = self.program.clone();
        match self.start(true)? {
            (id, Some(stdout)) => Ok((id, stdout)),
            (_, None) => Err(SpawnError::Vanished(program)),
        }
    }

    fn start(self, piped: bool) -> Result<(ProcessId, Option<ChildStdout>), SpawnError> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().stdin(Stdio::null());
        command.current_dir(self.dir.as_deref().unwrap_or(Path::new("/")));
        for name in KEPT_ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.extra_env);
        let (out, err) = log_streams(self.log.as_deref())?;
        let err = if self.share_stderr { Stdio::inherit() } else { err };
        command.stdout(if piped { Stdio::piped() } else { out }).stderr(err);
        raw::before_exec(&mut command, self.inherit, self.session, self.death_signal);
        let mut child = command
            .spawn()
            .map_err(|source| SpawnError::Start { program: self.program.clone(), source })?;
        // As long as nobody waits for it, a child that already ended is a zombie and keeps its
        // entry, so the start time can be read without a race.
        let pid =
            i32::try_from(child.id()).map_err(|_| SpawnError::Vanished(self.program.clone()))?;
        let start_time =
            super::identity::start_time(pid).ok_or(SpawnError::Vanished(self.program))?;
        Ok((ProcessId { pid, start_time }, child.stdout.take()))
    }
}

fn log_streams(log: Option<&Path>) -> Result<(Stdio, Stdio), SpawnError> {
    let Some(path) = log else { return Ok((Stdio::null(), Stdio::null())) };
    let failed = |source| SpawnError::Log { path: path.to_owned(), source };
    let file =
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    let copy = file.try_clone().map_err(failed)?;
    Ok((file.into(), copy.into()))
}

/// A memory file that holds `content` and can no longer be changed. It is close-on-exec here;
/// hand it to a child with [`Spawn::fd_arg`].
///
/// # Errors
/// What the kernel says.
pub fn sealed_memfd(content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("vouchsafe", flags)?);
    file.write_all(content)?;
    io::Seek::rewind(&mut file)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Takes over inherited descriptor `number` and reads a secret of 1 to `limit` bytes from it to its
/// end, then closes it. For memory files, pipes and plain files.
///
/// # Errors
/// [`SpawnError`] if the descriptor was not inherited, cannot be read, or the length is wrong.
pub fn read_secret_fd(number: RawFd, limit: usize) -> Result<Secret<Vec<u8>>, SpawnError> {
    let mut file = File::from(raw::take_inherited_fd(number)?);
    // One buffer of the final size: growing would leave copies behind.
    let mut secret = Secret::new(vec![0; limit.saturating_add(1)]);
    let mut filled = 0;
    while let Some(rest) = secret.expose_mut().get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SpawnError::Secret(error)),
        }
    }
    if filled == 0 || filled > limit {
        return Err(SpawnError::SecretLength);
    }
    secret.expose_mut().truncate(filled);
    Ok(secret)
}
