//! The observed list: every extend that the vTPM proxy saw, replayed and given its meaning.

use model::{
    Digest, HashAlg,
    api::vm::ObservedExtend,
    child::vtpm::{Entry, Measured},
};

use super::GuestPolicy;
use crate::{
    Rejection,
    appraised::Rejections,
    eventlog::Sha256Replay,
    predict::{Extend, Prediction},
};

const MAX_REJECTIONS: usize = 32;

/// The prediction's name for the digest of the kernel that runs.
const KERNEL: (u8, &str) = (4, "kernel");

/// Turns a vTPM proxy's list into the form that is sent as evidence: extends only. A reset of the
/// debug and application PCRs (16, 23) drops what was extended into them before, since nothing of it
/// is left in the PCR.
///
/// # Errors
/// Why the list cannot be given in this form (`GuestEvidence::unobservable`): a start from another
/// locality, a measured launch, a resume, a reset of another PCR.
pub fn observed_extends(entries: &[Entry]) -> Result<Vec<ObservedExtend>, &'static str> {
    let mut extends: Vec<ObservedExtend> = Vec::with_capacity(entries.len());
    for entry in entries {
        match &entry.measured {
            Measured::Startup {} if entry.locality == 0 => {}
            Measured::Startup {} => return Err("the vTPM was started from another locality"),
            Measured::Extend { pcr, digests } => {
                extends.push(ObservedExtend { pcr: *pcr, digests: digests.clone() });
            }
            Measured::Reset { pcr: pcr @ (16 | 23) } => extends.retain(|e| e.pcr != *pcr),
            Measured::Reset { .. } => return Err("a PCR of a measured launch was reset"),
            Measured::Resume {} => return Err("the vTPM was resumed"),
            Measured::Crtm { .. } | Measured::Drtm { .. } => return Err("a measured launch"),
        }
    }
    Ok(extends)
}

/// PCRs 0 to 15 of the SHA-256 bank after the list.
///
/// # Errors
/// As for [`observed_extends`].
pub fn observed_pcrs(entries: &[Entry]) -> Result<Vec<(u8, Digest)>, &'static str> {
    let extends = observed_extends(entries)?;
    let replay = replay(&extends).map_err(|_| "an extend of a PCR that no PC has")?;
    Ok((0..16).map(|pcr| (pcr, Digest::sha256(replay.value(pcr)))).collect())
}

fn sha256(extend: &ObservedExtend) -> Option<[u8; 32]> {
    let digest = extend.digests.iter().find(|digest| digest.alg() == HashAlg::Sha256)?;
    digest.as_bytes().try_into().ok()
}

/// PCR values after the list. Extends of other banks alone leave the SHA-256 bank as it is.
///
/// # Errors
/// [`Rejection::LogUnobservable`]: an extend of a PCR that no PC has.
pub fn replay(observed: &[ObservedExtend]) -> Result<Sha256Replay, Rejection> {
    let mut replay = Sha256Replay::new(0);
    for extend in observed {
        if extend.pcr >= tpm::PCR_COUNT {
            return Err(Rejection::LogUnobservable(format!("an extend of PCR {}", extend.pcr)));
        }
        if let Some(digest) = sha256(extend) {
            replay.extend(extend.pcr, &digest);
        }
    }
    Ok(replay)
}

/// The list of the SHA-256 bank.
pub(super) fn sha256_extends(observed: &[ObservedExtend]) -> Vec<Extend> {
    let of = |extend: &ObservedExtend| Some(Extend { pcr: extend.pcr, digest: sha256(extend)? });
    observed.iter().filter_map(of).collect()
}

/// That the prediction leaves no PCR open that policy wants predicted.
pub(super) fn check_open_pcrs(policy: &GuestPolicy<'_>) -> Result<(), Rejection> {
    for open in &policy.prediction.unpredicted {
        if !policy.may_be_unpredicted.contains(&open.pcr) {
            let reason = open.reason.chars().take(160).collect();
            return Err(Rejection::PcrUnpredicted { pcr: open.pcr, reason });
        }
    }
    Ok(())
}

/// Compares with the prediction: the kernel's digest and how many extends were predicted, or all
/// that was not, unknown extends first.
pub(super) fn compare(
    extends: &[Extend],
    prediction: &Prediction,
    descriptions: &[Option<String>],
) -> Result<(Digest, usize), Rejections> {
    let comparison = prediction.compare(extends);
    let unknown = comparison.unexpected.into_iter().map(|found| Rejection::GuestEventUnknown {
        position: found.index,
        pcr: found.pcr,
        digest: found.digest,
        instead_of: found.instead_of,
        description: descriptions.get(found.index).cloned().flatten(),
    });
    let missing = comparison
        .missing
        .into_iter()
        .map(|missing| Rejection::GuestEventMissing { pcr: missing.pcr, name: missing.name });
    let found = unknown.take(MAX_REJECTIONS).chain(missing.take(MAX_REJECTIONS)).collect();
    if let Some(rejections) = Rejections::of(found) {
        return Err(rejections);
    }
    let kernel = comparison.matched.iter().find_map(|matched| {
        let extend = extends.get(matched.index)?;
        let found = (extend.pcr, matched.name.as_str()) == KERNEL;
        found.then(|| Digest::sha256(extend.digest))
    });
    // A prediction without a kernel says nothing about what runs.
    let (pcr, name) = KERNEL;
    let kernel =
        kernel.ok_or_else(|| Rejection::GuestEventMissing { pcr, name: name.to_owned() })?;
    Ok((kernel, comparison.matched.len()))
}
