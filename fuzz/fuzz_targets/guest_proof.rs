//! What a guest's client sends before its first request: read as JSON, then appraised against a
//! guest that is affirmed. Nothing that is not signed by a TPM may be proven.
#![no_main]

use attest::channel;
use libfuzzer_sys::fuzz_target;
use model::guest::{ChallengeAsk, ChannelEvidence, Measured};

fuzz_target!(|data: &[u8]| {
    if let Ok(mut ask) = serde_json::from_slice::<ChallengeAsk>(data) {
        let measured = Measured {
            vm: "v1".parse().expect("a name"),
            epoch: model::Epoch(1),
            trusted: Some(true),
            ek_certificate: Some(ask.ek_certificate.clone()),
            pcrs: Vec::new(),
            port: String::new(),
        };
        let _ = channel::open(&ask, &measured);
        ask.ek_certificate.0.push(0);
        assert!(channel::open(&ask, &measured).is_err());
    }
    if let Ok(evidence) = serde_json::from_slice::<ChannelEvidence>(data) {
        let _ = attest::ima::ImaList::parse(&evidence.ima_log.0);
        let _ = tpm::Attest::parse(&evidence.quote.0);
        let _ = tpm::Signature::parse(&evidence.signature.0);
    }
});
