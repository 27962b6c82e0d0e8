//! Where things are in a lab's directory. Sockets are short (`run/...`), because a unix socket's
//! path has at most 107 bytes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::HostId;

use crate::output::{Failure, quoted};

/// Longest path of a lab's directory, so that the longest socket below it still fits.
const LONGEST_DIR: usize = 52;

/// The paths of one lab.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The lab's directory, absolute.
    pub dir: PathBuf,
}

impl Layout {
    /// The lab in `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// [`Failure::Error`] if the directory cannot be made or its path is too long for sockets.
    pub fn create(dir: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(dir).map_err(|error| {
            Failure::error(
                format!("{}: {error}", dir.display()),
                "choose a directory that this user may make, such as /tmp/lab",
            )
        })?;
        Self::open(dir)
    }

    /// The lab that was started in `dir` before, whether it is up or down.
    ///
    /// # Errors
    /// [`Failure::Error`] if there is none; nothing is written.
    pub fn existing(dir: &Path) -> Result<Self, Failure> {
        let layout = Self::open(dir)?;
        if layout.processes().is_file() || layout.lab_json().is_file() {
            return Ok(layout);
        }
        Err(Failure::error(
            format!("{} is no lab: none was ever started there", layout.dir.display()),
            format!("start one: `vouchsafe lab up --dir {}`", quoted(dir)),
        ))
    }

    /// The lab in `dir`, which exists.
    ///
    /// # Errors
    /// [`Failure::Error`] if it does not.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let dir = dir.canonicalize().map_err(|error| {
            Failure::error(
                format!("{}: {error}", dir.display()),
                format!("start a lab there: `vouchsafe lab up --dir {}`", quoted(dir)),
            )
        })?;
        if dir.as_os_str().len() > LONGEST_DIR {
            return Err(Failure::error(
                format!("{}: longer than {LONGEST_DIR} bytes", dir.display()),
                "sockets need short paths: choose a directory such as /tmp/lab",
            ));
        }
        Ok(Self { dir })
    }

    /// What outside tools read.
    #[must_use]
    pub fn lab_json(&self) -> PathBuf {
        self.dir.join("lab.json")
    }

    /// How the lab was wished.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.dir.join("settings.json")
    }

    /// The processes that were started.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.dir.join("processes.json")
    }

    /// Held while the lab changes.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Sockets.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Logs.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.log"))
    }

    /// The authority's files.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir.join("authority")
    }

    /// The lab's own keys: EK CA and endorser.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// A host's files.
    #[must_use]
    pub fn host(&self, host: &HostId) -> PathBuf {
        self.dir.join("hosts").join(host.as_str())
    }

    /// The key-management centre's files.
    #[must_use]
    pub fn centre(&self) -> PathBuf {
        self.dir.join("centre")
    }

    /// The files of a host's trust service.
    #[must_use]
    pub fn trust(&self, host: &HostId) -> PathBuf {
        self.host(host).join("trust")
    }

    /// The agent's local API.
    #[must_use]
    pub fn agent_socket(&self, host: &HostId) -> PathBuf {
        self.run().join(format!("{host}.agent"))
    }

    /// The data socket of a software TPM.
    #[must_use]
    pub fn tpm_socket(&self, owner: &str) -> PathBuf {
        self.run().join(format!("{owner}.tpm"))
    }
}
