//! The vTPM's binding: that the EK in its NV and the AK that signs are those which the authority
//! certified for this VM in this epoch.

use aws_lc_rs::signature::ParsedPublicKey;
use model::api::vm::GuestEvidence;
use pki::{Purpose, Verified, verify_chain};
use time::OffsetDateTime;
use tpm::VerifyingKey;

use super::VtpmBinding;
use crate::{Rejection, quote};

/// What the certificates gave.
#[derive(Debug)]
pub(super) struct Keys {
    /// The virtual AK.
    pub(super) ak: ParsedPublicKey,
    /// Since when it is certified, in words.
    pub(super) since: String,
}

fn invalid(reason: impl Into<String>) -> Rejection {
    Rejection::VtpmBindingInvalid(reason.into())
}

/// Verifies both certificates.
pub(super) fn check(
    vtpm: &VtpmBinding<'_>,
    evidence: &GuestEvidence,
    now: u64,
) -> Result<Keys, Rejection> {
    if evidence.epoch != vtpm.epoch {
        let (theirs, ours) = (evidence.epoch.0, vtpm.epoch.0);
        return Err(invalid(format!("the evidence is of epoch {theirs}, the VM is in {ours}")));
    }
    let now = i64::try_from(now / 1000).ok();
    let now = now.and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
    let now = now.ok_or_else(|| invalid("the time is out of range"))?;
    check_ek(vtpm, &evidence.ek_certificate.0, now)?;
    if evidence.ak_certificate.0 != vtpm.ak_certificate {
        return Err(invalid("the AK certificate is not the one issued for this epoch"));
    }
    let ak = verify(vtpm, vtpm.ak_certificate, now, Purpose::AttestationKey, "AK")?;
    if ak.vm() != Some((vtpm.vm.clone(), Some(vtpm.epoch))) {
        return Err(invalid("the AK certificate is for another VM or epoch"));
    }
    let key = VerifyingKey::from_spki_der(ak.spki()).map_err(|e| invalid(e.to_string()))?;
    let key = quote::parse_key(&key).map_err(|e| invalid(e.to_string()))?;
    Ok(Keys { ak: key, since: ak.not_before().to_string() })
}

/// The EK certificate in the vTPM's NV: valid, for this VM, and the one that was recorded.
fn check_ek(vtpm: &VtpmBinding<'_>, found: &[u8], now: OffsetDateTime) -> Result<(), Rejection> {
    let ek = verify(vtpm, found, now, Purpose::EndorsementKey, "EK")?;
    match ek.vm() {
        Some((vm, _)) if vm == *vtpm.vm => {}
        Some((found, _)) => {
            return Err(Rejection::VtpmEkOtherVm { found, expected: vtpm.vm.clone() });
        }
        None => return Err(invalid("the EK certificate names no VM")),
    }
    if found != vtpm.ek_certificate {
        return Err(invalid("the EK certificate is an older one of this VM"));
    }
    Ok(())
}

fn verify(
    vtpm: &VtpmBinding<'_>,
    der: &[u8],
    now: OffsetDateTime,
    purpose: Purpose,
    what: &str,
) -> Result<Verified, Rejection> {
    verify_chain::<&[u8]>(der, &[], vtpm.vtpm_ca, now, purpose)
        .map_err(|rejection| invalid(format!("{what} certificate: {rejection}")))
}
