//! Keys that the host may use while the authority is away (guard `tpm`). One cache key for the
//! host, sealed in its TPM; the keys of each VM wrapped under it.
//!
//! ```text
//!   session -> lease_until -> seal(cache key || lease_until) under
//!                             PolicyPCR(now) and clock <= end of lease and reset count = now
//!   grant   -> AES-256-GCM(cache key, VM keys; AAD = VM, epoch, volume) -> cached-<volume>.bin
//!   start without the authority: lease not over -> [unseal once per life of the agent] -> unwrap
//! ```
//!
//! **Invariants:** the end of the lease that counts comes out of the seal, so an edited or older
//! file can only shorten it; no key is used after it, by the host's clock and by the TPM's; a key
//! of guard `tcb` never comes here. One TPM operation per session or life of the agent, none per
//! start.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use model::{Digest, Epoch, Secret, VmId};
use serde::{Deserialize, Serialize};
use serve::{clock::SharedClock, fsfile, random};
use tokio::sync::{Mutex, watch};
use tpm::{Comparison, KeyBlob, PcrSelection, PcrValues, Policy};

use crate::{
    hosttpm::HostTpm,
    identity::Session,
    plan::{VmPaths, Volume},
    trouble::Trouble,
};

const LIMIT: usize = 64 << 10;

/// How far the TPM's clock may run ahead of the host's within one lease, milliseconds.
const CLOCK_SLACK: u64 = 5_000;

/// The seal, as it is stored. Not secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealFile {
    /// For the reader; the one that counts is sealed.
    lease_until: u64,
    tpm_clock_until: u64,
    reset_count: u32,
    pcrs: Vec<(u8, Digest)>,
    #[serde(with = "hex")]
    sealed: Vec<u8>,
}

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
}

/// The guard of this host.
#[derive(Debug)]
pub(crate) struct Guard {
    tpm: HostTpm,
    clock: SharedClock,
    file: PathBuf,
    opened: Mutex<Option<Opened>>,
    lease: watch::Sender<u64>,
}

impl Guard {
    /// The guard; its key is unsealed now if there is one and the lease is not over.
    pub(crate) async fn open(tpm: HostTpm, clock: SharedClock, state_dir: &Path) -> Self {
        let guard = Self {
            tpm,
            clock,
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

    /// Until when cached keys may be used, Unix milliseconds; follows every renewal.
    pub(crate) fn lease(&self) -> watch::Receiver<u64> {
        self.lease.subscribe()
    }

    /// Whether the lease is over.
    pub(crate) fn lease_ended(&self) -> bool {
        self.clock.unix_ms() >= *self.lease.borrow()
    }

    /// A new session brings a new lease: the cache key is sealed anew.
    ///
    /// # Errors
    /// [`Trouble`]; the lease of the session counts all the same, for VMs that run.
    pub(crate) async fn renewed(&self, session: &Session) -> Result<(), Trouble> {
        self.renew(session.view.lease_until, &session.pcrs).await
    }

    async fn renew(&self, lease_until: u64, pcrs: &[u8]) -> Result<(), Trouble> {
        let mut opened = self.opened.lock().await;
        let cache_key = match opened.take() {
            Some(known) => known.cache_key,
            None => match self.unseal().await {
                Ok(known) => known.cache_key,
                Err(_) => Secret::new(random::secret::<32>()?.expose().to_vec()),
            },
        };
        self.lease.send_replace(lease_until);
        let sealed = self.seal(&cache_key, lease_until, pcrs).await;
        *opened = Some(Opened { cache_key, lease_until });
        sealed
    }

    async fn seal(
        &self,
        cache_key: &Secret<Vec<u8>>,
        lease_until: u64,
        pcrs: &[u8],
    ) -> Result<(), Trouble> {
        let left = lease_until.saturating_sub(self.clock.unix_ms());
        let (time, _, values) = self.tpm.state(pcrs.to_vec()).await?;
        let mut file = SealFile {
            lease_until,
            tpm_clock_until: time.clock.clock.saturating_add(left).saturating_add(CLOCK_SLACK),
            reset_count: time.clock.reset_count,
            pcrs: values.iter().map(|(pcr, digest)| (pcr, *digest)).collect(),
            sealed: Vec::new(),
        };
        let mut payload = cache_key.clone();
        payload.expose_mut().extend_from_slice(&lease_until.to_be_bytes());
        let blob = self.tpm.seal(file.policy()?.digest(), payload).await?;
        file.sealed = blob.to_bytes()?;
        Ok(fsfile::write_atomic(&self.file, &serde_json::to_vec(&file)?, 0o600)?)
    }

    async fn unseal(&self) -> Result<Opened, Trouble> {
        let bytes = match fsfile::read_limited(&self.file, LIMIT) {
            Err(error) if error.is_missing() => return Err(Trouble::failed("nothing is cached")),
            other => other?,
        };
        let file: SealFile = serde_json::from_slice(&bytes)?;
        let blob = KeyBlob::parse(&file.sealed)
            .map_err(|error| Trouble::failed(serve::exit::chain(&error)))?;
        let mut payload = match self.tpm.unseal(blob, file.policy()?).await {
            Err(error) if error.is_policy_refusal() => {
                return Err(Trouble::refused(
                    "lease-ended",
                    "the host TPM does not open the cached keys any more: the lease is over, the \
                     host was restarted, or its state has changed",
                    "start again when the authority can be reached",
                ));
            }
            other => other?,
        };
        let (lease_until, at) = match payload.expose().split_at_checked(32) {
            Some((_, end)) => (end.try_into().map(u64::from_be_bytes).ok(), 32),
            None => (None, 0),
        };
        let lease_until =
            lease_until.ok_or_else(|| Trouble::failed("the sealed cache key is malformed"))?;
        payload.expose_mut().truncate(at);
        if self.clock.unix_ms() >= lease_until {
            return Err(ended(lease_until));
        }
        Ok(Opened { cache_key: payload, lease_until })
    }

    /// The authority has revoked this host: nothing cached may be used any more.
    ///
    /// # Errors
    /// [`Trouble`] if the seal cannot be removed.
    pub(crate) async fn revoke(&self) -> Result<(), Trouble> {
        *self.opened.lock().await = None;
        self.lease.send_replace(0);
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

impl SealFile {
    fn policy(&self) -> Result<Policy, Trouble> {
        let indices: Vec<u8> = self.pcrs.iter().map(|(pcr, _)| *pcr).collect();
        let values: PcrValues = self.pcrs.iter().copied().collect();
        let policy = Policy::new()
            .pcr(&PcrSelection::sha256(&indices), &values)
            .ok_or_else(|| Trouble::failed("the seal's PCRs are malformed"))?;
        Ok(policy
            .clock(Comparison::AtMost, self.tpm_clock_until)
            .reset_count(Comparison::Equal, self.reset_count))
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
