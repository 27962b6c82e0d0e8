//! Appraisal of a host: is it the enrolled one, does it speak now and for this session, and did it
//! measure what endorsers approved?
//!
//! ```text
//! AK enrolled -> nonce -> signature -> purpose and session -> PCRs covered
//!             -> log replays to the quoted digest -> every named event is known, none is missing
//! ```

use std::sync::Arc;

use aws_lc_rs::digest;
use model::{Digest, HostId, api::enrol::HostEvidence, api::vm::ChainLink};
use tpm::Purpose;

pub use crate::quote::{EnrolledAk, check_ak_attributes};
use crate::{
    Appraised, Rejected, Rejection,
    appraised::{Host, Rejections},
    binding::{self, Challenge},
    envelope::sha256,
    eventlog::EventLog,
    quote,
    reference::HostReference,
    result::{Assurance, AttestationResult, Claim, Status, Subject},
};

/// What the authority knows about a host's TPM from its enrolment, for the chain in verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoot {
    /// Subject of the EK certificate, in words.
    pub ek_subject: String,
    /// SHA-256 of the EK certificate.
    pub ek_fingerprint: Digest,
    /// Issuer of the EK certificate, in words.
    pub ek_issuer: String,
    /// SHA-256 of the AK certificate.
    pub ak_fingerprint: Digest,
    /// What the EK certificate is worth.
    pub assurance: Assurance,
}

/// What one host's evidence is appraised against. Made once, used for each appraisal.
#[derive(Debug)]
pub struct HostPolicy {
    /// The host.
    pub host: HostId,
    /// Its AK.
    pub ak: EnrolledAk,
    /// Its TPM's provenance.
    pub root: HostRoot,
    /// Reference values, shared by hosts.
    pub reference: Arc<HostReference>,
    /// How long a verdict counts, milliseconds.
    pub lifetime_ms: u64,
}

/// Appraises a host's evidence. `challenge` comes from the verifier's own records; the caller has
/// marked its nonce as used.
///
/// # Errors
/// [`Rejected`] with all that was found and a contraindicated result.
pub fn appraise_host(
    evidence: &HostEvidence,
    policy: &HostPolicy,
    challenge: &Challenge,
    now: u64,
) -> Result<Appraised<Host>, Box<Rejected>> {
    let session_key = sha256(&evidence.session_key.0);
    let mut result = AttestationResult {
        subject: Subject::Host {
            host: policy.host.clone(),
            session_key,
            grant_key: evidence.grant_key.clone(),
        },
        status: Status::Affirming,
        assurance: policy.root.assurance,
        issued_at: now,
        expires_at: now.saturating_add(policy.lifetime_ms),
        nonce: challenge.nonce,
        policy: policy.reference.digest(),
        evidence: evidence_digest(evidence),
        claims: Vec::with_capacity(8),
        chain: Vec::new(),
    };
    match examine(evidence, policy, challenge, now, &mut result.claims) {
        Ok(components) => {
            result.chain = chain(policy);
            let host = policy.host.clone();
            let grant_key = evidence.grant_key.0.clone();
            let facts = Host { host, session_key, grant_key, components };
            Ok(Appraised::new(facts, result))
        }
        Err(rejections) => Err(Rejected::new(rejections, result)),
    }
}

fn examine(
    evidence: &HostEvidence,
    policy: &HostPolicy,
    challenge: &Challenge,
    now: u64,
    claims: &mut Vec<Claim>,
) -> Result<Vec<String>, Rejections> {
    policy.ak.check_is(&evidence.ak_public.0)?;
    claims.push(Claim::passed("ak-enrolled", "the evidence names the enrolled AK"));
    challenge.check(&evidence.nonce, now)?;
    claims.push(Claim::passed("nonce", "the challenge was answered in time"));
    let quote = quote::verify(policy.ak.key(), &evidence.quote.0, &evidence.signature.0)?;
    claims.push(Claim::passed("quote-signature", "the enrolled AK signed the quote"));
    let parts: [&[u8]; 2] = [&evidence.session_key.0, &evidence.grant_key.0];
    binding::check(&quote.attest, Purpose::HostAttest, &challenge.nonce, &parts)?;
    claims.push(Claim::passed("binding", "made for this purpose, nonce and session"));
    quote.check_covers(policy.reference.pcrs())?;
    let log = EventLog::parse(&evidence.event_log.0).map_err(Rejection::EventLogMalformed)?;
    let replayed = log.replay_sha256().map(|replay| replay.quote_digest(quote.pcrs()));
    let replayed = Digest::sha256(replayed.unwrap_or_default());
    if replayed != quote.pcr_digest {
        return Err(Rejection::EventLogMismatch { quoted: quote.pcr_digest, replayed }.into());
    }
    claims.push(Claim::passed("event-log", "the event log leads to the quoted PCRs"));
    let matched = policy.reference.compare(&log)?;
    claims.push(Claim::passed("events", format!("{} named events are approved", matched.count)));
    Ok(matched.components)
}

/// Over quote, signature and log, each after its length.
fn evidence_digest(evidence: &HostEvidence) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [&evidence.quote.0, &evidence.signature.0, &evidence.event_log.0] {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    Digest::sha256(out)
}

fn chain(policy: &HostPolicy) -> Vec<ChainLink> {
    let vouched_by = match policy.root.assurance {
        Assurance::Hardware => policy.root.ek_issuer.clone(),
        Assurance::Software => format!("{} (software TPM)", policy.root.ek_issuer),
    };
    vec![
        ChainLink {
            role: "host-tpm-ek".to_owned(),
            subject: policy.root.ek_subject.clone(),
            fingerprint: policy.root.ek_fingerprint.to_string(),
            vouched_by,
        },
        ChainLink {
            role: "host-ak".to_owned(),
            subject: format!("host {}, AK {}", policy.host, policy.ak.name()),
            fingerprint: policy.root.ak_fingerprint.to_string(),
            vouched_by: "host-tpm-ek, by credential activation".to_owned(),
        },
    ]
}
