//! Attestation results for people.

use attest::{
    envelope::Envelope,
    result::{Assurance, AttestationResult, Status},
};

/// A verdict in lines: status, assurance, then each claim. The signature is not checked here: the
/// shell got it from the authority that signed it, over a channel that the authority's CA vouches
/// for.
pub(super) fn shown(envelope: &serde_json::Value) -> String {
    let result = Envelope::from_value(envelope)
        .ok()
        .and_then(|e| serde_json::from_slice::<AttestationResult>(&e.payload.0).ok());
    let Some(result) = result else { return "a verdict of a form that is not known".to_owned() };
    let status = match result.status {
        Status::Affirming => "affirming",
        Status::Contraindicated => "contraindicated",
    };
    let assurance = match result.assurance {
        Assurance::Hardware => "hardware",
        Assurance::Software => "software (lab mode: proves nothing against root on the host)",
    };
    let mut text = format!("{status}, assurance: {assurance}");
    for claim in &result.claims {
        let mark = if claim.passed { "ok     " } else { "REFUSED" };
        text.push_str(&format!("\n  {mark} {}: {}", claim.name, claim.reason));
    }
    text
}
