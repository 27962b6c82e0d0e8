//! The vTPM and QEMU.

use model::{
    api::vm::{VtpmCertificates, VtpmPublics},
    child::vtpm::{Fault, Reply, Request},
};
use serve::{client::Call, fsfile, process::Spawn};

use super::{ANSWER, READY, Worker, remove_all};
use crate::{
    child::{AskError, ask_vtpm},
    plan::{self, Role},
    process,
    qmp::{Qmp, QmpError, RunState},
    trouble::Trouble,
    vm::{
        record::{Record, VtpmStage},
        step::Result as Found,
    },
};

impl Worker {
    /// Starts the vTPM process. A vTPM whose manufacture was not finished begins from nothing.
    pub(super) async fn spawn_vtpm(&mut self, record: &Record) -> Result<Found, Trouble> {
        if record.made.vtpm == VtpmStage::None {
            remove_all(&self.paths.vtpm_dir())?;
        }
        fsfile::create_private_dir(&self.paths.vtpm_dir())?;
        let plan = self.plan(record).await?;
        let keys = self.boot_keys.as_ref().and_then(|keys| keys.expose().get(32..128));
        let keys = keys.ok_or_else(|| Trouble::failed("the vTPM's keys are not in memory"))?;
        let program = self.host.config.binaries.vtpm();
        self.vtpm_started = Some(self.host.clock.monotonic());
        let said = self.log_length(Role::Vtpm);
        let (process, _new) = process::start(&self.paths, Role::Vtpm, || {
            Spawn::new(program).args(plan.vtpm).secret_arg("--keys-fd", keys)
        })
        .await?;
        self.watch(Role::Vtpm, process);
        let control = self.paths.vtpm_control();
        let ready = process::ready(Role::Vtpm, process, READY, async || {
            match ask_vtpm(&control, Request::Status {}, ANSWER).await {
                Ok(status) => Some(Ok(status)),
                Err(AskError::Vtpm { fault, detail }) => {
                    Some(Err(AskError::Vtpm { fault, detail }))
                }
                Err(_) => None,
            }
        });
        let well = match ready.await {
            Ok(Ok(Reply::Status(status))) => {
                let expected = record.made.vtpm != VtpmStage::None;
                if status.manufactured == expected { Ok(()) } else { Err(foreign()) }
            }
            Ok(Ok(_)) => Err(unasked()),
            Ok(Err(AskError::Vtpm { fault: Fault::NotManufactured, .. })) => Err(foreign()),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(self.last_words(Role::Vtpm, said).unwrap_or_else(|| error.into())),
        };
        if let Err(trouble) = well {
            process::cut(process).await;
            return Err(trouble);
        }
        Ok(Found::Runs(Role::Vtpm, process))
    }

    /// Makes the vTPM's keys.
    pub(super) async fn manufacture(&mut self, record: &Record) -> Result<Found, Trouble> {
        let rsa = record.spec.vtpm_rsa_ek;
        // An RSA key is found by luck; the process answers when it has one.
        let patience = if rsa { READY } else { ANSWER };
        let banks = record.spec.pcr_banks.clone();
        let request = Request::Manufacture { rsa, banks };
        let reply = ask_vtpm(&self.paths.vtpm_control(), request, patience).await?;
        let Reply::Manufactured(identity) = reply else { return Err(unasked()) };
        Ok(Found::Publics(VtpmPublics {
            epoch: record.epoch,
            ek_public: identity.ek_p256.into(),
            ek_rsa_public: Some(identity.ek_rsa).filter(|k| !k.is_empty()).map(Into::into),
            ak_public: identity.ak.into(),
        }))
    }

    /// Has the vTPM's keys certified, and the certificates installed.
    pub(super) async fn certify(&mut self, record: &Record) -> Result<Found, Trouble> {
        let VtpmStage::Manufactured(publics) = &record.made.vtpm else {
            return Err(Trouble::failed("the vTPM has no keys yet"));
        };
        let session = self.host.link.session()?;
        let call = Call::post(format!("/v1/vms/{}/vtpm", self.vm)).json(publics)?;
        let certificates: VtpmCertificates =
            self.noted(session.client.call(call.idempotent()).await)?;
        let install = Request::InstallCertificates {
            ek_p256: certificates.ek_certificate.0.clone(),
            ek_rsa: certificates.ek_rsa_certificate.map(|c| c.0).unwrap_or_default(),
        };
        let reply = ask_vtpm(&self.paths.vtpm_control(), install, ANSWER).await?;
        let Reply::Done {} = reply else { return Err(unasked()) };
        Ok(Found::Certificates { ak: certificates.ak_certificate, ek: certificates.ek_certificate })
    }

    /// Starts QEMU, or finds it running, and connects.
    pub(super) async fn spawn_qemu(&mut self, record: &Record) -> Result<Found, Trouble> {
        let plan = self.plan(record).await?;
        let variables = self.paths.variables();
        if !variables.exists() {
            let empty = fsfile::read_limited(&self.host.config.firmware.vars, 64 << 20)?;
            fsfile::write_atomic(&variables, &empty, 0o600)?;
        }
        let program = self.host.config.binaries.qemu();
        let said = self.log_length(Role::Qemu);
        let (process, new) =
            process::start(&self.paths, Role::Qemu, || Ok(Spawn::new(program).args(plan.qemu)))
                .await?;
        self.watch(Role::Qemu, process);
        let socket = self.paths.qmp();
        let connected = process::ready(Role::Qemu, process, READY, async || {
            Qmp::connect(&socket, ANSWER).await.ok()
        });
        let (qmp, events) = match connected.await {
            Ok(connected) => connected,
            Err(error) => {
                process::cut(process).await;
                return Err(self.why_qemu_ended(said).unwrap_or_else(|| error.into()));
            }
        };
        self.console.attach(qmp.clone(), new);
        self.listen(&qmp, events);
        self.qmp = Some(qmp);
        Ok(Found::Runs(Role::Qemu, process))
    }

    fn why_qemu_ended(&self, since: usize) -> Option<Trouble> {
        let text = self.log_since(Role::Qemu, since)?;
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(Trouble::failed(format!("QEMU ended: {}", line.trim())))
    }

    /// Connects to the QEMU that runs.
    pub(super) async fn attach(&mut self, record: &Record) -> Result<Found, Trouble> {
        let Some(process) = record.running.get(Role::Qemu) else {
            return Err(Trouble::failed("QEMU does not run"));
        };
        let socket = self.paths.qmp();
        let (qmp, events) = process::ready(Role::Qemu, process, READY, async || {
            Qmp::connect(&socket, ANSWER).await.ok()
        })
        .await?;
        let state = qmp.run_state().await?;
        self.console.attach(qmp.clone(), false);
        self.listen(&qmp, events);
        self.qmp = Some(qmp);
        Ok(Found::Attached(state))
    }

    /// Stops the CPUs or lets them run.
    pub(super) async fn command(&mut self, command: &str) -> Result<Found, Trouble> {
        let qmp = self.qmp()?;
        qmp.execute(command, serde_json::Value::Null).await?;
        let state = qmp.run_state().await?;
        let meant = if command == "cont" { RunState::Running } else { RunState::Paused };
        if state == meant { Ok(Found::Done) } else { Ok(Found::Attached(state)) }
    }

    /// Plugs the data volume in. What an earlier try did is found as a duplicate.
    pub(super) async fn plug(&mut self, record: &Record) -> Result<Found, Trouble> {
        let qmp = self.qmp()?;
        for (command, arguments) in plan::hot_plug(&record.spec, &self.paths) {
            match qmp.execute(command, arguments).await {
                Err(QmpError::Refused { description, .. })
                    if description.contains("uplicate") || description.contains("already") => {}
                other => drop(other?),
            }
        }
        Ok(Found::Done)
    }

    pub(super) fn qmp(&self) -> Result<Qmp, Trouble> {
        self.qmp.clone().ok_or_else(|| Trouble::failed("there is no connection to QEMU"))
    }
}

fn foreign() -> Trouble {
    Trouble::refused(
        "vtpm-state-foreign",
        "the vTPM's state is not that of this VM in this epoch on this host",
        "a VM's vTPM moves only with the VM; restore this host's own copy",
    )
}

fn unasked() -> Trouble {
    Trouble::failed("the vTPM process answered something else")
}
