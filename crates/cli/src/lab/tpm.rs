//! A software TPM that stands in for a machine's own: starting it, and what its manufacturer does
//! once (EK and EK certificate at the TCG's places).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serve::process::{ProcessId, Spawn};
use tpm::{
    Actor, Address, Auth, AuthValue, Hierarchy, NvAttributes, NvPublic, Public, Tpm, TpmError,
    handle, template,
};

use crate::output::Failure;

/// How long a software TPM may take to listen.
const START_WAIT: Duration = Duration::from_secs(10);

/// A software TPM of the lab.
#[derive(Clone, Debug)]
pub struct LabTpm {
    socket: PathBuf,
    actor: Actor,
}

impl LabTpm {
    /// The TPM whose data socket is `socket`; it need not run yet.
    ///
    /// # Errors
    /// [`Failure`] if no thread can be started for it.
    pub fn at(socket: &Path) -> Result<Self, Failure> {
        let actor = Actor::start(Address::Unix(socket.to_owned()))?;
        Ok(Self { socket: socket.to_owned(), actor })
    }

    /// Its address as configurations write it.
    #[must_use]
    pub fn address(&self) -> String {
        Address::Unix(self.socket.clone()).to_string()
    }

    /// Its actor.
    #[must_use]
    pub const fn actor(&self) -> &Actor {
        &self.actor
    }

    /// "Power on": starts swtpm with its state in `state`, and TPM2_Startup(CLEAR).
    ///
    /// # Errors
    /// [`Failure`] if it does not come up; its log says why.
    pub fn power_on(&self, swtpm: &Path, state: &Path, log: &Path) -> Result<ProcessId, Failure> {
        serve::fsfile::create_private_dir(state)?;
        let control = self.socket.with_extension("ctrl");
        serve::fsfile::remove(&self.socket)?;
        serve::fsfile::remove(&control)?;
        let process = Spawn::new(swtpm)
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={},mode=0600", state.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={},mode=0600", self.socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={},mode=0600", control.display()))
            .args(["--flags", "not-need-init,startup-clear"])
            .log_file(log)
            .spawn()?;
        let mut waited = Duration::ZERO;
        while !self.socket.exists() {
            if waited > START_WAIT || !process.is_alive() {
                return Err(Failure::error(
                    format!("swtpm did not start in {}", state.display()),
                    format!("its log: {}", log.display()),
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
            waited = waited.saturating_add(Duration::from_millis(10));
        }
        Ok(process)
    }

    /// What a manufacturer does once: a persistent P-256 EK, and the certificate that `certify`
    /// issues for it in NV. Does nothing if it was done.
    ///
    /// # Errors
    /// [`Failure`] if the TPM or `certify` says so.
    pub fn manufacture(
        &self,
        certify: impl FnOnce(&Public) -> Result<Vec<u8>, Failure>,
    ) -> Result<(), Failure> {
        let found = self.actor.run(|tpm| Ok::<_, TpmError>((ek(tpm)?, certified(tpm)?)))?;
        let (ek, false) = found else { return Ok(()) };
        let certificate = certify(&ek)?;
        self.actor.run(move |tpm| store_certificate(tpm, &certificate))?;
        Ok(())
    }
}

/// The persistent EK, made if it is not there.
fn ek(tpm: &mut Tpm) -> Result<Public, TpmError> {
    if let Some(ek) = tpm.persistent(handle::EK)? {
        return Ok(ek.public().clone());
    }
    tpm.scoped(|tpm| {
        let ek = tpm.create_primary(
            Hierarchy::Endorsement,
            Auth::none(),
            &template::ek_p256(),
            &AuthValue::empty(),
        )?;
        let ek = tpm.persist(Hierarchy::Owner, Auth::none(), &ek, handle::EK)?;
        Ok(ek.public().clone())
    })
}

fn certified(tpm: &mut Tpm) -> Result<bool, TpmError> {
    let public = tpm.nv_public(handle::EK_CERT_P256)?;
    Ok(public.is_some_and(|p| p.attributes.contains(NvAttributes::WRITTEN)))
}

fn store_certificate(tpm: &mut Tpm, certificate: &[u8]) -> Result<(), TpmError> {
    let size = u16::try_from(certificate.len()).map_err(|_| TpmError::TooLong)?;
    let public = NvPublic {
        index: handle::EK_CERT_P256,
        attributes: NvAttributes::EK_CERTIFICATE,
        policy: Vec::new(),
        size,
    };
    if tpm.nv_public(public.index)?.is_some() {
        tpm.nv_undefine(Hierarchy::Platform, Auth::none(), public.index)?;
    }
    tpm.nv_define(Hierarchy::Platform, Auth::none(), &public, &AuthValue::empty())?;
    tpm.nv_write(Some(Hierarchy::Platform), &mut Auth::none(), public.index, certificate)
}
