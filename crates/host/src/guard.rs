//! Keys that the host may use while the authority is away (guard `tpm`). One cache key for the
//! host, sealed in its TPM once; the keys of each VM wrapped under it.
//!
//! ```text
//!   session -> approval of the appraised state until the lease ends, signed by the authority
//!   cache key -> sealed once under PolicyAuthorize(authority, host)       -> guard.json
//!   grant   -> AES-256-GCM(cache key, VM keys; AAD = VM, epoch, volume)   -> cached-<volume>.bin
//!   start without the authority: lease not over -> [unseal once per life of the agent] -> unwrap
//! ```
//!
//! **Invariants:** the bounds of the lease are in what the authority signed and the TPM compares:
//! PCRs, policy counter, clock, reset count ([`tpm::lease`]); its end by the wall clock is marked
//! with the cache key, so an edited or older file can only shorten it; no key is used after it; a
//! key of guard `tcb` never comes here. The TPM is used when a session begins and once per life of
//! the agent, never for a start.

mod seal;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use model::{Epoch, HostId, Secret, VmId, api::enrol::GuardApproval};
use serde::{Deserialize, Serialize};
use serve::{clock::SharedClock, fsfile, random};
use tokio::sync::{Mutex, watch};

use self::seal::SealFile;
use crate::{
    hosttpm::HostTpm,
    identity::Session,
    plan::{VmPaths, Volume},
    trouble::Trouble,
};

const LIMIT: usize = 64 << 10;

/// Keys of one volume, wrapped.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    epoch: Epoch,
    #[serde(with = "hex")]
    nonce: Vec<u8>,
    #[serde(with = "hex")]
    keys: Vec<u8>,
}

#[derive(Debug)]
struct Opened {
    cache_key: Secret<Vec<u8>>,
    lease_until: u64,
    /// The seal that this cache key is in, once it is in one.
    file: Option<SealFile>,
}

/// The guard of this host.
#[derive(Debug)]
pub(crate) struct Guard {
    tpm: HostTpm,
    clock: SharedClock,
    host: HostId,
    file: PathBuf,
    opened: Mutex<Option<Opened>>,
    lease: watch::Sender<u64>,
}

impl Guard {
    /// The guard; its key is unsealed now if there is one and the lease is not over.
    pub(crate) async fn open(
        tpm: HostTpm,
        clock: SharedClock,
        host: HostId,
        state_dir: &Path,
    ) -> Self {
        let guard = Self {
            tpm,
            clock,
            host,
            file: state_dir.join("guard.json"),
            opened: Mutex::new(None),
            lease: watch::Sender::new(0),
        };
        match guard.unseal().await {
            Ok(opened) => {
                guard.lease.send_replace(opened.lease_until);
                *guard.opened.lock().await = Some(opened);
            }
            Err(trouble) => tracing::info!(%trouble, "no cached keys can be used"),
        }
        guard
    }

    /// The key that this host authenticates its own files with: the cache key.
    ///
    /// # Errors
    /// [`Trouble`] if it is not known: there was no session yet, and no lease.
    pub(crate) async fn host_key(&self) -> Result<Secret<Vec<u8>>, Trouble> {
        let opened = self.opened.lock().await;
        let known = opened.as_ref().map(|opened| opened.cache_key.clone());
        known.ok_or_else(|| Trouble::away("this host's own key is not known yet"))
    }

    /// Until when cached keys may be used, Unix milliseconds; follows every renewal.
    pub(crate) fn lease(&self) -> watch::Receiver<u64> {
        self.lease.subscribe()
    }

    /// Whether the lease is over.
    pub(crate) fn lease_ended(&self) -> bool {
        self.clock.unix_ms() >= *self.lease.borrow()
    }

    /// A new session brings a new lease, and the approval that lets the TPM hold to it.
    ///
    /// # Errors
    /// [`Trouble`]; the lease of the session counts all the same, for VMs that run.
    pub(crate) async fn renewed(&self, session: &Session) -> Result<(), Trouble> {
        self.lease.send_replace(session.view.lease_until);
        match &session.approval {
            Some(approval) => {
                self.renew(session.view.lease_until, approval, &session.approver).await
            }
            None => Ok(()),
        }
    }

    async fn renew(
        &self,
        lease_until: u64,
        approval: &GuardApproval,
        approver: &[u8],
    ) -> Result<(), Trouble> {
        self.lease.send_replace(lease_until);
        let mut opened = self.opened.lock().await;
        self.tpm.raise_guard_counter(approval.counter).await?;
        let (cache_key, file) = match opened.take() {
            Some(known) => (known.cache_key, known.file),
            None => match self.reopen(approval, approver).await {
                Ok((cache_key, file)) => (cache_key, Some(file)),
                Err(_) => (Secret::new(random::secret::<32>()?.expose().to_vec()), None),
            },
        };
        let sealed = match file.filter(|file| file.is_for(approver)) {
            Some(file) => Ok(file),
            None => SealFile::make(&self.tpm, &self.host, approver, &cache_key).await,
        };
        let sealed = sealed.and_then(|file| {
            let now = self.clock.unix_ms();
            let file = file.with(approval, lease_until, now, &cache_key)?;
            fsfile::write_atomic(&self.file, &serde_json::to_vec(&file)?, 0o600)?;
            Ok(file)
        });
        let (file, result) = match sealed {
            Ok(file) => (Some(file), Ok(())),
            Err(trouble) => (None, Err(trouble)),
        };
        *opened = Some(Opened { cache_key, lease_until, file });
        result
    }

    /// The seal of an earlier life, opened by a new approval: the host was restarted or updated.
    async fn reopen(
        &self,
        approval: &GuardApproval,
        approver: &[u8],
    ) -> Result<(Secret<Vec<u8>>, SealFile), Trouble> {
        let file = self.read()?;
        if !file.is_for(approver) {
            return Err(Trouble::failed("the seal is for another authority"));
        }
        let cache_key = file.open_with(&self.tpm, &self.host, approval).await?;
        Ok((cache_key, file))
    }

    fn read(&self) -> Result<SealFile, Trouble> {
        match fsfile::read_limited(&self.file, LIMIT) {
            Err(error) if error.is_missing() => Err(Trouble::failed("nothing is cached")),
            other => Ok(serde_json::from_slice(&other?)?),
        }
    }

    async fn unseal(&self) -> Result<Opened, Trouble> {
        let file = self.read()?;
        let (cache_key, lease_until) = file.open(&self.tpm, &self.host).await?;
        if self.clock.unix_ms() >= lease_until {
            return Err(ended(lease_until));
        }
        Ok(Opened { cache_key, lease_until, file: Some(file) })
    }

    /// The authority has revoked this host: nothing cached may be used any more.
    ///
    /// # Errors
    /// [`Trouble`] if the seal cannot be removed.
    pub(crate) async fn revoke(&self) -> Result<(), Trouble> {
        *self.opened.lock().await = None;
        self.lease.send_replace(0);
        if !self.file.exists() {
            return Ok(());
        }
        // Copies of the file die with the counter that their approvals name.
        let counter = self.tpm.guard_counter().await;
        if let Ok(counter) = counter {
            self.tpm.raise_guard_counter(counter.saturating_add(1)).await?;
        }
        Ok(fsfile::remove(&self.file)?)
    }

    /// Keeps keys of a volume for later starts.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) async fn keep(
        &self,
        paths: &VmPaths,
        vm: &VmId,
        epoch: Epoch,
        volume: Volume,
        keys: &Secret<Vec<u8>>,
    ) -> Result<(), Trouble> {
        let opened = self.opened.lock().await;
        let Some(opened) = opened.as_ref() else {
            return Err(Trouble::failed("there is no cache key"));
        };
        let nonce = random::bytes::<12>()?;
        // In place: the plaintext's only copy here becomes the ciphertext.
        let mut sealed = keys.expose().clone();
        cipher(&opened.cache_key)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound(vm, epoch, volume)),
                &mut sealed,
            )
            .map_err(|_| Trouble::failed("cannot wrap the keys"))?;
        let file = Wrapped { epoch, nonce: nonce.to_vec(), keys: sealed };
        Ok(fsfile::write_atomic(&paths.cached(volume), &serde_json::to_vec(&file)?, 0o600)?)
    }

    /// The keys of a volume, if they are cached and the lease is not over.
    ///
    /// # Errors
    /// [`Trouble`], refused as `lease-ended` if it is.
    pub(crate) async fn fetch(
        &self,
        paths: &VmPaths,
        vm: &VmId,
        epoch: Epoch,
        volume: Volume,
    ) -> Result<Secret<Vec<u8>>, Trouble> {
        let mut guard = self.opened.lock().await;
        if let Some(until) = guard.as_ref().map(|o| o.lease_until)
            && self.clock.unix_ms() >= until
        {
            *guard = None;
            return Err(ended(until));
        }
        if guard.is_none() {
            *guard = Some(self.unseal().await?);
        }
        let Some(opened) = guard.as_ref() else { return Err(Trouble::failed("no cache key")) };
        let bytes = match fsfile::read_limited(&paths.cached(volume), LIMIT) {
            Err(error) if error.is_missing() => {
                return Err(Trouble::failed("this host has no cached keys for the VM"));
            }
            other => other?,
        };
        let mut file: Wrapped = serde_json::from_slice(&bytes)?;
        let failed = || Trouble::failed("the cached keys are not this VM's, or were altered");
        let nonce = Nonce::try_assume_unique_for_key(&file.nonce).map_err(|_| failed())?;
        let bound = Aad::from(bound(vm, epoch, volume));
        let length = cipher(&opened.cache_key)?
            .open_in_place(nonce, bound, &mut file.keys)
            .map_err(|_| failed())?
            .len();
        let mut keys = Secret::new(file.keys);
        keys.expose_mut().truncate(length);
        Ok(keys)
    }
}

fn ended(until: u64) -> Trouble {
    Trouble::refused(
        "lease-ended",
        format!("cached keys could be used until {until} (Unix milliseconds), which is past"),
        "start again when the authority can be reached",
    )
}

fn bound(vm: &VmId, epoch: Epoch, volume: Volume) -> Vec<u8> {
    format!("vouchsafe:cache:v1:{vm}:{}:{}", epoch.0, volume.word()).into_bytes()
}

fn cipher(key: &Secret<Vec<u8>>) -> Result<LessSafeKey, Trouble> {
    let key = UnboundKey::new(&AES_256_GCM, key.expose());
    key.map(LessSafeKey::new).map_err(|_| Trouble::failed("the cache key is malformed"))
}
