//! The sealed cache key with the approvals that open it (`guard.json`). Nothing in it is secret.

use aws_lc_rs::aead::{Aad, Nonce};
use model::{HostId, Secret, api::enrol::GuardApproval};
use serde::{Deserialize, Serialize};
use serve::random;
use tpm::{
    KeyBlob,
    lease::{self, Approver, Lease},
};

use super::cipher;
use crate::{hosttpm::HostTpm, trouble::Trouble};

/// How many states are kept approved at once: the present one, and those of updates.
const STATES: usize = 8;

/// The seal, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SealFile {
    /// The key whose approvals count, SubjectPublicKeyInfo. The seal names it too.
    #[serde(with = "hex")]
    approver: Vec<u8>,
    #[serde(with = "hex")]
    sealed: Vec<u8>,
    /// Newest first, one a state.
    approvals: Vec<Approved>,
}

/// An approval with the end of its lease by the wall clock, marked with the cache key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approved {
    lease_until: u64,
    approval: GuardApproval,
    #[serde(with = "hex")]
    nonce: Vec<u8>,
    #[serde(with = "hex")]
    tag: Vec<u8>,
}

impl SealFile {
    /// Seals a cache key to whatever the approver approves for this host.
    pub(super) async fn make(
        tpm: &HostTpm,
        host: &HostId,
        approver: &[u8],
        cache_key: &Secret<Vec<u8>>,
    ) -> Result<Self, Trouble> {
        let policy = lease::sealed_to(&key(approver)?, host);
        let sealed = tpm.seal(policy.digest(), cache_key.clone()).await?.to_bytes()?;
        Ok(Self { approver: approver.to_vec(), sealed, approvals: Vec::new() })
    }

    /// Whether this approver's word opens it.
    pub(super) fn is_for(&self, approver: &[u8]) -> bool {
        self.approver == approver
    }

    /// With another approval. Those that it takes the place of go, and those that have died.
    pub(super) fn with(
        mut self,
        approval: &GuardApproval,
        lease_until: u64,
        now: u64,
        cache_key: &Secret<Vec<u8>>,
    ) -> Result<Self, Trouble> {
        let nonce = random::bytes::<12>()?;
        let tag = cipher(cache_key)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound(approval, lease_until)?),
                &mut [],
            )
            .map_err(|_| Trouble::failed("cannot mark the approval"))?;
        let tag = tag.as_ref().to_vec();
        self.approvals.retain(|held| {
            held.lease_until > now
                && held.approval.counter == approval.counter
                && held.approval.reset_count == approval.reset_count
                && held.approval.pcr_digest != approval.pcr_digest
        });
        let newest = Approved { lease_until, approval: approval.clone(), nonce: nonce.into(), tag };
        self.approvals.insert(0, newest);
        self.approvals.truncate(STATES);
        Ok(self)
    }

    /// Opens it by the approval of the host's present state; also says when the lease ends.
    pub(super) async fn open(
        &self,
        tpm: &HostTpm,
        host: &HostId,
    ) -> Result<(Secret<Vec<u8>>, u64), Trouble> {
        for held in &self.approvals {
            let now = tpm.pcr_digest(held.approval.pcrs.clone()).await?;
            if now != held.approval.pcr_digest {
                continue;
            }
            let cache_key = self.open_with(tpm, host, &held.approval).await?;
            held.check(&cache_key)?;
            return Ok((cache_key, held.lease_until));
        }
        Err(closed("the host's state is none that was approved"))
    }

    /// Opens it by this approval.
    pub(super) async fn open_with(
        &self,
        tpm: &HostTpm,
        host: &HostId,
        approval: &GuardApproval,
    ) -> Result<Secret<Vec<u8>>, Trouble> {
        let lease = Lease {
            pcrs: approval.pcrs.clone(),
            pcr_digest: approval.pcr_digest,
            counter: approval.counter,
            clock_until: approval.clock_until,
            reset_count: approval.reset_count,
        };
        let policy = lease
            .opening(&key(&self.approver)?, host, &approval.signature.0)
            .map_err(|_| Trouble::failed("an approval is malformed"))?;
        let blob = KeyBlob::parse(&self.sealed)
            .map_err(|error| Trouble::failed(serve::exit::chain(&error)))?;
        match tpm.unseal(blob, policy).await {
            Err(error) if error.is_policy_refusal() => Err(closed(
                "the lease is over, the host was restarted, its state has changed, or the approval \
                 has died",
            )),
            other => Ok(other?),
        }
    }
}

impl Approved {
    /// That the end of the lease is the one that came with the approval.
    fn check(&self, cache_key: &Secret<Vec<u8>>) -> Result<(), Trouble> {
        let failed = || Trouble::failed("the end of the lease was altered");
        let nonce = Nonce::try_assume_unique_for_key(&self.nonce).map_err(|_| failed())?;
        let bound = Aad::from(bound(&self.approval, self.lease_until)?);
        let mut tag = self.tag.clone();
        let opened = cipher(cache_key)?.open_in_place(nonce, bound, &mut tag);
        opened.map(|_| ()).map_err(|_| failed())
    }
}

fn bound(approval: &GuardApproval, lease_until: u64) -> Result<Vec<u8>, Trouble> {
    Ok(serde_json::to_vec(&("vouchsafe:lease:v1", lease_until, approval))?)
}

fn key(spki: &[u8]) -> Result<Approver, Trouble> {
    Approver::from_spki(spki).map_err(|_| Trouble::failed("the approver's key is malformed"))
}

fn closed(why: &str) -> Trouble {
    Trouble::refused(
        "lease-ended",
        format!("the host TPM does not open the cached keys any more: {why}"),
        "start again when the authority can be reached",
    )
}
