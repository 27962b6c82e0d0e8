//! New data keys for the volumes of a running VM, which their disk processes make and use.
//!
//! ```text
//!   next_key: epoch of the data key, + 1 ─► written down
//!   rekey:    ask for that epoch ─► look how far it is ... ─► all data are under it
//!             ─► advance: a copy from before is refused from here on
//! ```
//!
//! **Invariant:** the agent never has a data key. A disk process that was killed goes on by itself
//! when it is started again, so what is repeated here only looks.

use std::time::Duration;

use model::child::disk;

use super::{ANSWER, Worker};
use crate::{
    anchors::{self, Next},
    child::{self, AskError},
    plan::Volume,
    trouble::Trouble,
    vm::{
        record::{NewKey, Record},
        step::Result as Found,
    },
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Looks in a row that a disk process may leave unanswered; its end is noticed long before.
const SILENT: u32 = 60;

impl Worker {
    /// Which data key comes next; one that is on its way is finished first.
    pub(super) async fn next_key(&self, volume: Volume) -> Result<Found, Trouble> {
        let status = self.disk_status(volume).await?;
        let now = status.epoch.ok_or_else(not_vault)?;
        let begun = status.rekeying.is_some_and(|rekeying| rekeying.begun);
        let next = if begun { now } else { now.saturating_add(1) };
        Ok(Found::NextKey(volume, next))
    }

    /// Has all data sealed under the data key that was decided on.
    pub(super) async fn rekey(&self, record: &Record, volume: Volume) -> Result<Found, Trouble> {
        let key = record.job.as_ref().map(|job| job.keys.get(volume));
        let Some(NewKey::Next(epoch)) = key else {
            return Err(Trouble::failed("no data key was decided on"));
        };
        let control = self.paths.disk_control(volume);
        let mut unanswered = 0_u32;
        loop {
            let asked = child::ask_disk(&control, disk::Request::Rekey { epoch }, ANSWER).await;
            let looked = match asked {
                Ok(_) => self.disk_status(volume).await,
                Err(error) => Err(error),
            };
            match looked {
                Ok(status) => {
                    unanswered = 0;
                    if self.is_rekeyed(&status, epoch)? {
                        break;
                    }
                }
                Err(AskError::Disk { code, detail }) => {
                    return Err(Trouble::refused(code, detail, ""));
                }
                Err(error) if unanswered >= SILENT => return Err(error.into()),
                Err(_) => unanswered = unanswered.saturating_add(1),
            }
            tokio::time::sleep(LOOK).await;
        }
        tracing::info!(vm.id = %self.vm, volume = volume.word(), epoch, "all data are under a new key");
        let name = anchors::name(&self.vm, record.epoch, volume);
        let mut party = self.host.anchors.hold(&name, control).await;
        self.take_on(&mut party, Next::Advance).await?;
        Ok(Found::Done)
    }

    /// Whether all data are under the data key of `epoch`; else says how far it is.
    fn is_rekeyed(&self, status: &disk::Status, epoch: u32) -> Result<bool, Trouble> {
        let reached = status.epoch == Some(epoch);
        let Some(rekeying) = &status.rekeying else { return Ok(reached) };
        if let Some(stopped) = &rekeying.stopped {
            if reached && !rekeying.begun {
                return Ok(true);
            }
            let detail = stopped.detail.clone();
            return Err(match &stopped.code {
                Some(code) => Trouble::refused(code, detail, hint(code)),
                None => Trouble::failed(detail),
            });
        }
        let percent = rekeying.done.saturating_mul(100).checked_div(rekeying.total).unwrap_or(0);
        self.progress.percent(u8::try_from(percent).ok());
        Ok(false)
    }

    pub(super) async fn disk_status(&self, volume: Volume) -> Result<disk::Status, AskError> {
        let control = self.paths.disk_control(volume);
        let reply = child::ask_disk(&control, disk::Request::Status {}, ANSWER).await?;
        let disk::Reply::Status(status) = reply else { return Err(AskError::Unanswered(control)) };
        Ok(*status)
    }
}

fn not_vault() -> Trouble {
    Trouble::refused("not-vault", "the volume is no vault: its data key stays", "")
}

fn hint(code: &str) -> &'static str {
    match code {
        "sector-damaged" | "page-damaged" => {
            "the guest has to write or trim what is damaged; then order it again, and it goes on"
        }
        _ => "order it again once that is mended, and it goes on",
    }
}
