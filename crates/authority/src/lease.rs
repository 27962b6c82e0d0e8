//! Leases on what hosts cache: the appraised state of a host, approved until the lease ends.
//!
//! **Invariants:** PCRs, clock and reset count are those of the quote that was just appraised, never
//! what a host says of itself. Whenever the policy or the reference values are others than at the
//! host's last approval, the counter moves on: approvals of before die once the host has moved it,
//! and without moving it the host gets no use out of the new one.

use attest::envelope::{Sign as _, SoftwareKey};
use model::{
    Digest, HashAlg, HostId,
    api::enrol::{GuardApproval, HostEvidence},
};
use serde::{Deserialize, Serialize};
use tpm::{Attest, Attested, PcrSelection, lease::Lease};

use crate::failure::Failure;

/// How far the TPM's clock may run ahead of the host's within one lease, milliseconds.
const CLOCK_SLACK: u64 = 5_000;

/// What a host's approvals stand on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuardRecord {
    /// Value of its policy counter that approvals name.
    pub(crate) counter: u64,
    /// The policy's generation.
    pub(crate) generation: u64,
    /// The reference values.
    pub(crate) reference: Digest,
}

impl GuardRecord {
    /// What the next approval stands on, after `before`, for a host that tells `counter`.
    pub(crate) fn next(
        before: Option<&Self>,
        counter: u64,
        generation: u64,
        reference: Digest,
    ) -> Self {
        let at_least = before.map_or(counter, |before| before.counter.max(counter));
        let same =
            before.is_some_and(|held| held.generation == generation && held.reference == reference);
        let moved = u64::from(!same && before.is_some());
        Self { counter: at_least.saturating_add(moved), generation, reference }
    }
}

/// Approves the state that `evidence` was appraised in until `left` milliseconds from now; `None`
/// if its quote covers anything but PCRs of the SHA-256 bank.
///
/// # Errors
/// [`Failure`] if nothing can be signed.
pub(crate) fn approve(
    signer: &SoftwareKey,
    host: &HostId,
    evidence: &HostEvidence,
    record: &GuardRecord,
    left: u64,
) -> Result<Option<GuardApproval>, Failure> {
    let quote = Attest::parse(&evidence.quote.0)
        .map_err(|_| Failure::broken("an appraised quote cannot be read"))?;
    let Attested::Quote { selection, pcr_digest } = quote.attested else { return Ok(None) };
    let pcrs: Vec<u8> =
        selection.iter().filter(|(alg, _)| *alg == HashAlg::Sha256).map(|(_, pcr)| pcr).collect();
    if selection != PcrSelection::sha256(&pcrs) {
        return Ok(None);
    }
    let lease = Lease {
        pcrs,
        pcr_digest,
        counter: record.counter,
        clock_until: quote.clock.clock.saturating_add(left).saturating_add(CLOCK_SLACK),
        reset_count: quote.clock.reset_count,
    };
    let message = lease.message(host);
    let message = message.map_err(|_| Failure::broken("a quote that cannot be approved"))?;
    let signature = signer.sign(&message)?;
    Ok(Some(GuardApproval {
        pcrs: lease.pcrs,
        pcr_digest: lease.pcr_digest,
        counter: lease.counter,
        clock_until: lease.clock_until,
        reset_count: lease.reset_count,
        signature: signature.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(before: Option<&GuardRecord>, counter: u64, generation: u64) -> GuardRecord {
        GuardRecord::next(before, counter, generation, Digest::sha256([0; 32]))
    }

    #[test]
    fn the_counter_moves_with_policy_and_reference_values_and_never_back() {
        let first = next(None, 41, 1);
        assert_eq!(first.counter, 41);
        assert_eq!(next(Some(&first), 41, 1), first);
        let second = next(Some(&first), 41, 2);
        assert_eq!(second.counter, 42);
        // The answer was lost: the host still tells 41, and is told 42 again.
        assert_eq!(next(Some(&second), 41, 2), second);
        // The host has moved it for its own reasons, say its revocation.
        assert_eq!(next(Some(&second), 50, 2).counter, 50);
        let other = Digest::sha256([1; 32]);
        assert_eq!(GuardRecord::next(Some(&second), 42, 2, other).counter, 43);
    }
}
