//! Ending: the guest asked to power off, processes ended in order, copies destroyed.

use std::time::Duration;

use model::{
    api::vm::VolumeFormat,
    child::{disk, vtpm},
};
use serve::fsfile;
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::{ANSWER, Worker, remove_all};
use crate::{
    aside, child,
    plan::Role,
    process,
    qmp::RunState,
    trouble::Trouble,
    vm::{record::Record, step::Result as Found},
};

/// How long a process may take to end after it was asked.
const GRACE: Duration = Duration::from_secs(10);

impl Worker {
    /// Asks the guest to power off and waits until QEMU has ended, bounded. A guest whose CPUs
    /// stand still cannot answer, so it is not waited for.
    pub(super) async fn power_off(&mut self, record: &Record) -> Result<Found, Trouble> {
        let Some(process) = record.running.get(Role::Qemu) else { return Ok(Found::Done) };
        let qmp = self.qmp()?;
        match qmp.run_state().await? {
            RunState::Running => {}
            // Its disk is there again.
            RunState::IoError => drop(qmp.execute("cont", serde_json::Value::Null).await?),
            RunState::Paused | RunState::Shutdown | RunState::Other => return Ok(Found::Done),
        }
        let mut port = UnixStream::connect(self.paths.control()).await?;
        port.write_all(b"poweroff\n").await?;
        let patience = Duration::from_secs(self.host.config.limits.stop_seconds);
        if process.wait_exit(patience).await?.is_none() {
            tracing::warn!(vm.id = %self.vm, "the guest did not power off in time");
        }
        Ok(Found::Done)
    }

    /// Ends a process: asked on its control socket, waited for, then made to.
    pub(super) async fn end(&mut self, record: &Record, role: Role) -> Result<Found, Trouble> {
        let Some(process) = record.running.get(role) else { return Ok(Found::Done) };
        let ended = match role {
            Role::Qemu => {
                // Without its vTPM QEMU would wait for it.
                let whole = record.running.get(Role::Vtpm).is_some();
                if let Some(qmp) = self.qmp.as_ref().filter(|_| whole) {
                    // QEMU may end before it answers.
                    let _ = qmp.execute("quit", serde_json::Value::Null).await;
                    process::end(process, GRACE).await
                } else {
                    process::cut(process).await
                }
            }
            Role::Disk(volume) => {
                if record.spec.format == VolumeFormat::Vault
                    && let Err(trouble) = self.detach(record, volume).await
                {
                    tracing::warn!(vm.id = %self.vm, %trouble, "the volume keeps its last count");
                }
                let control = self.paths.disk_control(volume);
                // One that does not answer is made to end below.
                let _ = child::ask_disk(&control, disk::Request::Shutdown {}, ANSWER).await;
                process::end(process, GRACE).await
            }
            Role::Vtpm => {
                let control = self.paths.vtpm_control();
                let _ = child::ask_vtpm(&control, vtpm::Request::Shutdown {}, ANSWER).await;
                process::end(process, GRACE).await
            }
        };
        if !ended && process.is_alive() {
            return Err(Trouble::failed(format!("the {} process does not end", role.word())));
        }
        for socket in self.paths.made_by(role) {
            remove_all(&socket)?;
        }
        if role == Role::Qemu {
            self.qmp = None;
            self.evidence = None;
            self.console.detach();
        }
        Ok(Found::Done)
    }

    /// Destroys this host's copies. The record stays until the outcome is delivered.
    pub(super) async fn destroy(&mut self) -> Result<Found, Trouble> {
        self.boot_keys = None;
        self.data_key = None;
        let record = self.paths.record();
        for entry in std::fs::read_dir(&self.paths.state)? {
            let path = entry?.path();
            if path != record {
                remove_all(&path)?;
            }
        }
        fsfile::sync_parent(&record)?;
        remove_all(&self.paths.run)?;
        // A counter that stays does no harm: its volume is gone.
        if let Ok(key) = self.host.guard.host_key().await
            && let Err(trouble) = self.host.anchors.forget(&key, &self.vm).await
        {
            tracing::warn!(vm.id = %self.vm, %trouble, "the volumes' counters stay");
        }
        aside::forget(&self.host.config.state_dir, &self.vm);
        Ok(Found::Done)
    }

    /// Puts the volumes of an earlier epoch aside: their keys are no longer granted to this host,
    /// but an operator may still want them. vTPM state and cached keys of that epoch are destroyed.
    pub(super) fn set_aside(&mut self, record: &Record) -> Result<Found, Trouble> {
        let Some(epoch) = record.stale else { return Ok(Found::Done) };
        let aside = self.host.config.state_dir.join(aside::DIR);
        fsfile::create_private_dir(&aside)?;
        let kept = self.paths.record();
        for entry in std::fs::read_dir(&self.paths.state)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_some_and(|end| end == "img") {
                std::fs::rename(&path, aside.join(aside::name(&self.vm, epoch, &name)))?;
            } else if path != kept && path.extension().is_none_or(|end| end != "log") {
                remove_all(&path)?;
            }
        }
        fsfile::sync_parent(&kept)?;
        Ok(Found::Done)
    }
}
