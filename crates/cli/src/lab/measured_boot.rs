//! The firmware stand-in of a lab host: measures what the host is made of into its software TPM and
//! writes the genuine TCG2 log of it; and the reference values that endorse exactly that.

use attest::{
    envelope::{Envelope, Kind, Sign},
    eventlog::{Builder, EventLog, EventType},
};
use model::{Digest, HashAlg};
use tpm::{Actor, TpmError};

use super::components::Component;
use crate::{
    output::Failure,
    reference::{self, COMPONENTS_PCR},
};

/// What the stand-in says of itself.
const FIRMWARE: &[u8] = b"vouchsafe lab firmware";

type Extends = Vec<(u8, Vec<Digest>)>;

fn log_of(components: &[Component]) -> Result<(Vec<u8>, Extends), Failure> {
    let mut builder = Builder::new(&[HashAlg::Sha256]);
    let mut extends = Extends::new();
    extends.push((0, builder.measure(0, EventType::S_CRTM_VERSION, FIRMWARE, FIRMWARE)?));
    for component in components {
        let name = component.event_name();
        let digests = vec![component.digest];
        builder.event(COMPONENTS_PCR, EventType::IPL, &digests, name.as_bytes())?;
        extends.push((COMPONENTS_PCR, digests));
    }
    for pcr in 0..8 {
        extends.push((pcr, builder.measure(pcr, EventType::SEPARATOR, &[0; 4], &[0; 4])?));
    }
    Ok((builder.finish(), extends))
}

/// Measures the host into its TPM, which has just been powered on, and returns the log.
///
/// # Errors
/// [`Failure`] if the TPM refuses.
pub fn measure(tpm: &Actor, components: &[Component]) -> Result<Vec<u8>, Failure> {
    let (log, extends) = log_of(components)?;
    tpm.run(move |tpm| {
        for (pcr, digests) in &extends {
            tpm.pcr_extend(*pcr, digests)?;
        }
        Ok::<_, TpmError>(())
    })?;
    Ok(log)
}

/// Signed reference values for hosts made of these components.
///
/// # Errors
/// [`Failure`] if they cannot be signed.
pub fn endorse(
    components: &[Component],
    endorser: &dyn Sign,
    now: u64,
) -> Result<Envelope, Failure> {
    let (log, _) = log_of(components)?;
    let logs = [EventLog::parse(&log)?];
    let values = reference::from_logs("lab host", now, &logs, &reference::usual_pcrs(&logs));
    Ok(Envelope::sign(Kind::ReferenceValues, &values, &[endorser])?)
}
