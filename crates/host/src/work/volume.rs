//! Volumes: made by a child that streams, served by a child that stays.

use std::io::{BufRead as _, BufReader, Read as _};

use model::{api::vm::VolumeFormat, child::disk};
use serve::process::{ProcessId, Signal, Spawn};
use tokio::sync::mpsc;

use super::{ANSWER, READY, Worker, remove_all};
use crate::{
    anchors::{self, Next, Party},
    child,
    plan::{self, Role, Volume},
    process,
    trouble::Trouble,
    vm::{record::Record, step::Result as Found},
};

/// The longest line of progress.
const LINE: u64 = 64 << 10;

/// Kills the child when the step is dropped.
struct CutOnDrop(ProcessId);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        // Gone already in the good case.
        let _ = self.0.kill();
    }
}

impl Worker {
    /// Makes a volume. What an earlier try left is removed: only the record says that it is whole.
    /// The child dies with the agent, so that it cannot finish behind the back of the next one; the
    /// runtime's worker threads, one of which starts it, live as long as the agent.
    pub(super) async fn create_volume(
        &mut self,
        record: &Record,
        volume: Volume,
    ) -> Result<Found, Trouble> {
        let older = self.reanchored.contains(&volume);
        if let Some(start) = self.recorded.get(&volume).filter(|_| !older) {
            let name = anchors::name(&self.vm, record.epoch, volume);
            return Err(anchors::made_anew(&name, start.count));
        }
        remove_all(&self.paths.image(volume))?;
        let args = plan::create_volume(&self.paths, &record.spec, volume, &record.kmi);
        let spawn = Spawn::new(self.host.config.binaries.disk())
            .args(args)
            .secret_arg("--key-fd", self.key_of(volume)?)?
            .log_file(self.paths.log(Role::Disk(volume)))
            .die_with_parent(Signal::KILL);
        let (process, stdout) = spawn.spawn_piped()?;
        let _cut = CutOnDrop(process);
        let (lines, mut told) = mpsc::channel(16);
        let reader = tokio::task::spawn_blocking(move || {
            let mut from = BufReader::new(stdout);
            let mut line = Vec::new();
            loop {
                line.clear();
                match (&mut from).take(LINE).read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                if let Ok(progress) = serde_json::from_slice::<disk::Progress>(&line)
                    && lines.blocking_send(progress).is_err()
                {
                    return;
                }
            }
        });
        let mut result = Err(Trouble::failed(format!(
            "vouchsafe-disk ended without a result; see {}",
            self.paths.log(Role::Disk(volume)).display()
        )));
        while let Some(progress) = told.recv().await {
            match progress {
                disk::Progress::Started { .. } => {}
                disk::Progress::Written { done, total } => {
                    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
                    self.progress.percent(u8::try_from(percent).ok());
                }
                disk::Progress::Done { .. } => result = self.anchor_new(record, volume).await,
                disk::Progress::Refused { code, detail } => {
                    result = Err(Trouble::refused(code, detail, ""));
                }
                disk::Progress::Failed { detail } => result = Err(Trouble::failed(detail)),
            }
        }
        reader.abort();
        process::end(process, ANSWER).await;
        result
    }

    /// A volume that was just made counts from nothing.
    async fn anchor_new(&self, record: &Record, volume: Volume) -> Result<Found, Trouble> {
        if record.spec.format == VolumeFormat::Vault {
            let key = self.host.guard.host_key().await?;
            let name = anchors::name(&self.vm, record.epoch, volume);
            self.host.anchors.begin(&key, &name, 0).await?;
        }
        Ok(Found::Done)
    }

    /// The last advance of a volume, before its disk process ends.
    pub(super) async fn detach(&self, record: &Record, volume: Volume) -> Result<(), Trouble> {
        let name = anchors::name(&self.vm, record.epoch, volume);
        let mut party = self.host.anchors.hold(&name, self.paths.disk_control(volume)).await;
        self.take_on(&mut party, Next::Detach).await
    }

    /// Takes one volume on.
    pub(super) async fn take_on(&self, party: &mut Party, next: Next) -> Result<(), Trouble> {
        self.take_on_from(party, next, 0).await
    }

    /// As that; one that may be older counts on from at least `recorded`.
    async fn take_on_from(
        &self,
        party: &mut Party,
        next: Next,
        recorded: u64,
    ) -> Result<(), Trouble> {
        let key = self.host.guard.host_key().await?;
        let status = child::ask_disk(&party.control, disk::Request::Status {}, ANSWER).await?;
        let status = if let disk::Reply::Status(status) = status { Some(status) } else { None };
        let count = status.and_then(|status| status.anchor_count);
        let header = count.ok_or_else(|| Trouble::failed("the disk process serves no vault"))?;
        party.header = match next {
            Next::AttachOlder => {
                let count = header.max(recorded);
                self.host.anchors.begin_again(&key, &party.name, count).await?
            }
            Next::Attach | Next::Advance | Next::Detach => header,
        };
        let parties = std::slice::from_mut(party);
        let results = self.host.anchors.take_on(&key, parties, next, READY).await;
        results.into_iter().next().unwrap_or(Ok(()))
    }

    /// Serves a volume. A vault is opened only if it is the latest one, and advances twice before
    /// its guest writes: the copies that an interrupted advance left are dead then, too. One that two
    /// operators want opened though it is older counts on from the highest count that it ever had, so
    /// that all other copies of it are dead from then on.
    pub(super) async fn spawn_disk(
        &mut self,
        record: &Record,
        volume: Volume,
    ) -> Result<Found, Trouble> {
        let role = Role::Disk(volume);
        let key = self.key_of(volume)?.to_vec();
        let program = self.host.config.binaries.disk();
        let mut args = plan::serve_volume(&self.paths, &record.spec, volume);
        let mut vault = None;
        let older = self.reanchored.contains(&volume);
        let recorded = self.recorded.get(&volume).copied();
        if record.spec.format == VolumeFormat::Vault {
            let own = self.host.guard.host_key().await?;
            let name = anchors::name(&self.vm, record.epoch, volume);
            let party = self.host.anchors.hold(&name, self.paths.disk_control(volume)).await;
            if !older {
                let count = self.host.anchors.opening(&own, &name, recorded).await?;
                args.extend(["--anchor-count".into(), count.to_string().into()]);
            }
            vault = Some(party);
        }
        let key = model::Secret::new(key);
        let said = self.log_length(role);
        let (process, new) = process::start(&self.paths, role, || {
            Spawn::new(program).args(args).secret_arg("--key-fd", key.expose())
        })
        .await?;
        self.watch(role, process);
        let control = self.paths.disk_control(volume);
        let ready = process::ready(role, process, READY, async || {
            child::ask_disk(&control, disk::Request::Status {}, ANSWER).await.ok()
        })
        .await;
        let mut well = match ready {
            Ok(_) => Ok(()),
            Err(error) => Err(self.last_words(role, said).unwrap_or_else(|| error.into())),
        };
        if let (Ok(()), true, Some(party)) = (&well, new, &mut vault) {
            let next = if older { Next::AttachOlder } else { Next::Attach };
            let recorded = recorded.map_or(0, |recorded| recorded.count);
            well = self.take_on_from(party, next, recorded).await;
        }
        if let Err(trouble) = well {
            process::cut(process).await;
            return Err(trouble);
        }
        Ok(Found::Runs(role, process))
    }
}
