//! Getting keys: the VM's master key made here and deposited, keys by grant, keys from the guard.

use model::{
    Digest, Guard, KeyOrigin, KmiOrigin, Secret,
    api::grant::{DepositedKey, GrantAnswer, GrantPurpose, GrantRequest, KeyDeposit},
};
use serve::{
    client::Call,
    hpke::{self, HpkePublic},
    random,
};

use super::Worker;
use crate::{
    grant::{self, Expected},
    plan::Volume,
    trouble::Trouble,
    vm::{
        phase::Phase,
        record::{Job, Record},
        step::Result as Found,
    },
};

/// Whether the running guest has this volume already, or no operation stands for a grant.
fn prefers_guard(record: &Record, volume: Volume) -> bool {
    let Phase::Live(live) = &record.phase else { return false };
    let ordered = record.job.as_ref().is_some_and(Job::earns_keys);
    volume == Volume::Boot || live.plugged || !ordered
}

impl Worker {
    /// Makes the master key's KMI by the origin that the VM asks for: random, so that it tells
    /// nothing of the key.
    pub(super) async fn name_key(&self, record: &Record) -> Result<Found, Trouble> {
        let mut key_id = [0; 32];
        match record.spec.kmi_origin {
            KmiOrigin::Tpm => {
                let drawn = self.host.tpm.random_key().await?;
                for (to, from) in key_id.iter_mut().zip(drawn.expose()) {
                    *to = *from;
                }
            }
            KmiOrigin::Tcb | KmiOrigin::Console | KmiOrigin::VmId => {
                key_id = random::bytes::<32>()?;
            }
        }
        Ok(Found::KeyId(Digest::sha256(key_id)))
    }

    /// Deposits what the VM's origins leave to this host: the master key, generated now and sealed,
    /// and the KMI that the record has. A key that was deposited earlier (the agent died before it
    /// could note that) is as good.
    pub(super) async fn deposit(&mut self, record: &Record) -> Result<Found, Trouble> {
        let key = match record.spec.origin {
            KeyOrigin::Tpm => Some(self.host.tpm.random_key().await?),
            KeyOrigin::Tcb => Some(Secret::new(random::secret::<32>()?.expose().to_vec())),
            KeyOrigin::Console => None,
        };
        let key = key.map(|key| self.sealed_for_deposit(&key)).transpose()?;
        let key_id = record.spec.kmi_origin.is_host().then_some(record.kmi.key_id);
        let job = record.job.as_ref().ok_or_else(|| Trouble::failed("there is no operation"))?;
        let body = KeyDeposit { operation: job.id, key, key_id };
        let path = format!("/v1/vms/{}/key", self.vm);
        let session = self.host.link.session()?;
        match session.client.post::<_, serde_json::Value>(&path, &body).await {
            Err(error) if error.refusal() == Some("key-already-deposited") => {}
            other => drop(self.noted(other)?),
        }
        Ok(Found::Done)
    }

    fn sealed_for_deposit(&self, key: &Secret<Vec<u8>>) -> Result<DepositedKey, Trouble> {
        let to = self.host.deposit_key.borrow().clone();
        let to = HpkePublic(to.ok_or_else(|| Trouble::away("the deposit key is not known yet"))?);
        let info = format!("vouchsafe:vmk-deposit:v1:{}", self.vm);
        let sealed = hpke::seal(&to, info.as_bytes(), b"", key.expose())?;
        Ok(DepositedKey { enc: sealed.enc.into(), sealed: sealed.ciphertext.into() })
    }

    /// Keys by grant if the authority can be reached, else from the guard. A local request never
    /// asks the authority: it is meant for when it is away. A volume of a running VM whose process
    /// has died is repaired from the guard first, and so is a data volume that a good verdict opens
    /// outside of any operation, for which the authority would make no grant.
    pub(super) async fn obtain_keys(
        &mut self,
        record: &Record,
        volume: Volume,
    ) -> Result<Found, Trouble> {
        let local = record.job.as_ref().is_some_and(|job| job.local && job.is_open());
        self.reanchored.retain(|other| *other != volume);
        self.recorded.remove(&volume);
        let keys = if local {
            self.guarded(record, volume).await?
        } else if prefers_guard(record, volume)
            && let Ok(keys) = self.guarded(record, volume).await
        {
            keys
        } else {
            match self.granted(record, volume).await {
                Err(away) if away.away => match self.guarded(record, volume).await {
                    Err(cached) if cached.reason.refused.is_none() => return Err(away),
                    other => other?,
                },
                other => other?,
            }
        };
        match volume {
            Volume::Boot => self.boot_keys = Some(keys),
            Volume::Data => self.data_key = Some(keys),
        }
        Ok(Found::Done)
    }

    /// Keys that this host caches, unless the authority refuses the host.
    async fn guarded(&self, record: &Record, volume: Volume) -> Result<Secret<Vec<u8>>, Trouble> {
        if let Some(refused) = self.host.link.refusal() {
            return Err(refused);
        }
        if record.spec.guard == Guard::Tcb {
            return Err(Trouble::refused(
                "grant-missing",
                "guard = \"tcb\" keeps no keys on the host, and no grant was made for this start",
                "start it when the authority can be reached",
            ));
        }
        self.host.guard.fetch(&self.paths, &self.vm, record.epoch, volume).await
    }

    async fn granted(
        &mut self,
        record: &Record,
        volume: Volume,
    ) -> Result<Secret<Vec<u8>>, Trouble> {
        let session = self.host.link.session()?;
        let enrolment = self.host.link.enrolment()?;
        let operation = record.job.as_ref().filter(|job| job.earns_keys());
        let operation = operation.map(|job| job.id).or(record.launched_by);
        let operation = operation.ok_or_else(|| Trouble::failed("no operation stands for this"))?;
        let purpose = GrantPurpose::from(volume);
        let request = random::grant_id()?;
        let body = GrantRequest { operation, request, purpose, epoch: record.epoch };
        let path = format!("/v1/vms/{}/grant", self.vm);
        let answer: GrantAnswer =
            self.noted(session.client.call(Call::post(path).json(&body)?).await)?;
        let expected = Expected {
            host: &self.host.config.name,
            vm: &self.vm,
            epoch: record.epoch,
            kmi: &record.kmi,
            purpose,
            request,
            now: self.host.clock.unix_ms(),
        };
        let opened = grant::open(
            &answer.grant,
            &enrolment.signing_key.0,
            &session.grant_key,
            &expected,
            &self.host.ledger,
        )
        .map_err(|rejection| {
            let detail = serve::exit::chain(&rejection);
            Trouble::refused(rejection.name(), detail, "start the VM again for a new grant")
        })?;
        if record.spec.guard == Guard::Tpm {
            let kept =
                self.host.guard.keep(&self.paths, &self.vm, record.epoch, volume, &opened.keys);
            if let Err(trouble) = kept.await {
                tracing::warn!(vm.id = %self.vm, %trouble, "the keys are not cached");
            }
        }
        if opened.info.reanchor {
            self.reanchored.push(volume);
        }
        if let Some(start) = opened.info.anchor {
            self.recorded.insert(volume, start);
        }
        tracing::info!(vm.id = %self.vm, grant.id = %opened.info.id, purpose = ?purpose, "grant opened");
        Ok(opened.keys)
    }

    /// A session that the authority does not take any more is renewed for the next try.
    pub(super) fn noted<T>(
        &self,
        result: Result<T, serve::client::CallError>,
    ) -> Result<T, Trouble> {
        result.map_err(|error| {
            let mut trouble = Trouble::from(error);
            let lost = matches!(
                trouble.reason.refused.as_deref(),
                Some("session-expired" | "session-missing")
            );
            if lost {
                self.host.link.doubt();
                trouble.away = true;
            }
            trouble
        })
    }
}
