//! Attestation results for people.

use attest::{
    envelope::Envelope,
    result::{Assurance, AttestationResult, Status},
};
use serde::Serialize;
use serde_json::Value;

use crate::output::Failure;

/// `view`, which has a `verdict` (DSSE envelope), with that verdict's content beside it as `result`.
pub(super) fn beside(view: &impl Serialize) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(view)?;
    let result = value.get("verdict").and_then(opened);
    if let (Some(fields), Some(result)) = (value.as_object_mut(), result) {
        fields.insert("result".to_owned(), serde_json::to_value(result)?);
    }
    Ok(value)
}

fn opened(envelope: &Value) -> Option<AttestationResult> {
    let envelope = Envelope::from_value(envelope).ok()?;
    serde_json::from_slice(&envelope.payload.0).ok()
}

/// A verdict in lines: status, assurance, then each claim. The signature is not checked here: the
/// shell got it from the authority that signed it, over a channel that the authority's CA vouches
/// for.
pub(super) fn shown(envelope: &Value) -> String {
    let Some(result) = opened(envelope) else {
        return "a verdict of a form that is not known".to_owned();
    };
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_view_without_a_verdict_stays_as_it_is() {
        let view = json!({"name": "a", "verdict": null});
        assert_eq!(beside(&view).unwrap(), view);
        assert_eq!(beside(&json!({"name": "a"})).unwrap(), json!({"name": "a"}));
    }

    #[test]
    fn the_claims_stand_beside_the_envelope() {
        let result = json!({
            "subject": {"kind": "guest", "vm": "v1", "epoch": 1, "host": "a",
                "host_verdict": format!("sha256:{}", "0".repeat(64))},
            "status": "affirming", "assurance": "software", "issued_at": 1, "expires_at": 2,
            "nonce": "00".repeat(32), "policy": format!("sha256:{}", "0".repeat(64)),
            "evidence": format!("sha256:{}", "0".repeat(64)),
            "claims": [{"name": "pcr-values", "passed": true, "reason": "they fit"}], "chain": [],
        });
        let payload =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, result.to_string());
        let envelope = json!({"payloadType": "application/vnd.vouchsafe.verdict+json",
            "payload": payload, "signatures": []});
        let shown = beside(&json!({"verdict": envelope, "trusted": true})).unwrap();
        assert_eq!(shown["result"]["claims"][0]["name"], "pcr-values");
        assert_eq!(shown["verdict"]["payload"], payload);
    }
}
