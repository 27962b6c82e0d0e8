//! Appraisal of a guest, bottom-up: its host's verdict, then the vTPM's binding to this VM and
//! epoch, then the vTPM's quote against the list of extends that the host observed, then the
//! meaning of each extend by prediction from the image. The guest's co-operation is not needed; its
//! own logs only describe, and must agree.
//!
//! ```text
//! host affirmed -> list complete -> nonce -> vTPM certificates -> signature -> purpose, VM, epoch
//!   -> list replays to the quoted digest -> every extend is predicted, none is missing
//!   -> the guest's own logs, if sent, agree entry by entry
//! ```

mod observed;
mod own_log;
mod vtpm;

use aws_lc_rs::digest;
use model::{
    Digest, Epoch, VmId,
    api::{
        Bytes,
        vm::{ChainLink, GuestEvidence},
    },
};
use pki::Anchors;
use tpm::Purpose;

pub use self::observed::{observed_extends, observed_pcrs, replay};
use crate::{
    Appraised, Challenge, Guest, Host, Rejected, Rejection,
    appraised::Rejections,
    binding,
    envelope::sha256,
    predict::Prediction,
    quote,
    result::{AttestationResult, Claim, Status, Subject},
};

/// What the authority recorded when it certified the VM's vTPM. Never taken from the evidence.
#[derive(Clone, Copy, Debug)]
pub struct VtpmBinding<'a> {
    /// The VM.
    pub vm: &'a VmId,
    /// Its present epoch.
    pub epoch: Epoch,
    /// The EK certificate that was issued for its vTPM, DER.
    pub ek_certificate: &'a [u8],
    /// The virtual AK certificate that was issued in this epoch, DER.
    pub ak_certificate: &'a [u8],
    /// The vTPM CA.
    pub vtpm_ca: &'a Anchors,
}

/// What a guest's evidence is appraised against.
#[derive(Clone, Copy, Debug)]
pub struct GuestPolicy<'a> {
    /// What the guest's image measures.
    pub prediction: &'a Prediction,
    /// PCRs that the prediction may leave open.
    pub may_be_unpredicted: &'a [u8],
    /// PCRs that must be quoted, besides those that are predicted or were extended.
    pub pcrs: &'a [u8],
    /// How long a verdict counts, milliseconds.
    pub lifetime_ms: u64,
}

/// Appraises a guest's evidence. `challenge` comes from the verifier's own records.
///
/// # Errors
/// [`Rejected`] with all that was found and a contraindicated result.
pub fn appraise_guest(
    host: &Appraised<Host>,
    vtpm: &VtpmBinding<'_>,
    evidence: &GuestEvidence,
    policy: &GuestPolicy<'_>,
    challenge: &Challenge,
    now: u64,
) -> Result<Appraised<Guest>, Box<Rejected>> {
    let facts = Guest {
        vm: vtpm.vm.clone(),
        epoch: vtpm.epoch,
        host: host.facts().host.clone(),
        host_verdict: host.verdict_digest(),
    };
    let mut result = AttestationResult {
        subject: Subject::Guest {
            vm: facts.vm.clone(),
            epoch: facts.epoch,
            host: facts.host.clone(),
            host_verdict: facts.host_verdict,
        },
        status: Status::Affirming,
        assurance: host.result().assurance,
        issued_at: now,
        // A guest is never better than its host, nor for longer.
        expires_at: now.saturating_add(policy.lifetime_ms).min(host.expires_at()),
        nonce: challenge.nonce,
        policy: policy_digest(policy),
        evidence: evidence_digest(evidence),
        claims: Vec::with_capacity(10),
        chain: Vec::new(),
    };
    let examination = Examination { host, vtpm, evidence, policy, challenge, now };
    match examination.run(&mut result.claims) {
        Ok(links) => {
            result.chain = [host.result().chain.clone(), links].concat();
            Ok(Appraised::new(facts, result))
        }
        Err(rejections) => Err(Rejected::new(rejections, result)),
    }
}

struct Examination<'a> {
    host: &'a Appraised<Host>,
    vtpm: &'a VtpmBinding<'a>,
    evidence: &'a GuestEvidence,
    policy: &'a GuestPolicy<'a>,
    challenge: &'a Challenge,
    now: u64,
}

impl Examination<'_> {
    fn run(&self, claims: &mut Vec<Claim>) -> Result<Vec<ChainLink>, Rejections> {
        if !self.host.result().is_good_at(self.now) {
            return Err(Rejection::HostNotTrusted("its verdict has expired").into());
        }
        claims.push(Claim::passed("host", format!("host {} is affirmed", self.host.facts().host)));
        if self.evidence.overflowed {
            return Err(Rejection::LogOverflow.into());
        }
        if let Some(reason) = &self.evidence.unobservable {
            let reason = reason.chars().take(160).collect();
            return Err(Rejection::LogUnobservable(reason).into());
        }
        self.challenge.check(&self.evidence.nonce, self.now)?;
        claims.push(Claim::passed("nonce", "the challenge was answered in time"));
        let keys = vtpm::check(self.vtpm, self.evidence, self.now)?;
        claims.push(Claim::passed("vtpm-binding", "the vTPM is that of this VM and epoch"));
        self.check_quote(&keys, claims)?;
        let kernel = self.check_events(claims)?;
        Ok(self.links(&keys, kernel))
    }

    fn check_quote(&self, keys: &vtpm::Keys, claims: &mut Vec<Claim>) -> Result<(), Rejections> {
        let quote = quote::verify(&keys.ak, &self.evidence.quote.0, &self.evidence.signature.0)?;
        claims.push(Claim::passed("quote-signature", "the virtual AK signed the quote"));
        let (vm, epoch) = (self.vtpm.vm.as_str().as_bytes(), self.vtpm.epoch.0.to_be_bytes());
        let (purpose, nonce) = (Purpose::GuestAttest, &self.challenge.nonce);
        binding::check(&quote.attest, purpose, nonce, &[vm, &epoch])?;
        claims.push(Claim::passed("binding", "made for this purpose, nonce, VM and epoch"));
        quote.check_covers(&self.required_pcrs())?;
        let replayed = replay(&self.evidence.observed)?.quote_digest(quote.pcrs());
        let replayed = Digest::sha256(replayed);
        if replayed != quote.pcr_digest {
            let quoted = quote.pcr_digest;
            return Err(Rejection::ObservedListMismatch { quoted, replayed }.into());
        }
        let reason =
            format!("{} observed extends lead to the quoted PCRs", self.evidence.observed.len());
        claims.push(Claim::passed("observed-list", reason));
        Ok(())
    }

    /// What was extended or predicted counts only if it is quoted.
    fn required_pcrs(&self) -> Vec<u8> {
        let predicted = self.policy.prediction.entries.iter().map(|entry| entry.pcr);
        let observed = self.evidence.observed.iter().map(|extend| extend.pcr);
        let mut pcrs: Vec<u8> =
            self.policy.pcrs.iter().copied().chain(predicted).chain(observed).collect();
        pcrs.sort_unstable();
        pcrs.dedup();
        pcrs
    }

    /// Meaning: prediction first, then what the guest says itself. Gives the kernel's digest.
    fn check_events(&self, claims: &mut Vec<Claim>) -> Result<Digest, Rejections> {
        let extends = observed::sha256_extends(&self.evidence.observed);
        let own = own_log::compare(&extends, self.policy, self.evidence);
        let open = observed::check_open_pcrs(self.policy);
        let compared = observed::compare(&extends, self.policy.prediction, &own.descriptions);
        let more = open.err().into_iter().chain(own.rejections);
        let (kernel, matched) = match compared {
            Ok(matched) => matched,
            Err(rejections) => return Err(rejections.and(more)),
        };
        claims.push(Claim::passed("events", format!("{matched} extends were predicted")));
        if let Some(rejections) = Rejections::of(more.collect()) {
            return Err(rejections);
        }
        claims.push(Claim::passed("own-log", own.summary));
        Ok(kernel)
    }

    fn links(&self, keys: &vtpm::Keys, kernel: Digest) -> Vec<ChainLink> {
        let vm = self.vtpm.vm;
        let link = |role: &str, subject: String, fingerprint: Digest, by: &str| ChainLink {
            role: role.to_owned(),
            subject,
            fingerprint: fingerprint.to_string(),
            vouched_by: by.to_owned(),
        };
        vec![
            link(
                "vtpm-ek",
                format!("vTPM of VM {vm}"),
                sha256(self.vtpm.ek_certificate),
                "vTPM CA, for a vTPM made on the attested host",
            ),
            link(
                "vtpm-ak",
                format!("VM {vm}, epoch {}, certificate of {}", self.vtpm.epoch.0, keys.since),
                sha256(self.vtpm.ak_certificate),
                "vTPM CA, for a key that the attested host holds",
            ),
            link(
                "kernel",
                "the kernel of the VM's image".to_owned(),
                kernel,
                "vtpm-ak, by a quote over the observed measurements",
            ),
        ]
    }
}

fn policy_digest(policy: &GuestPolicy<'_>) -> Digest {
    let lists = (policy.prediction, policy.may_be_unpredicted, policy.pcrs);
    sha256(
        &[&b"vouchsafe:guest-policy:v1\n"[..], &serde_json::to_vec(&lists).unwrap_or_default()]
            .concat(),
    )
}

/// Over quote, signature, observed list and the guest's logs, each after its length.
fn evidence_digest(evidence: &GuestEvidence) -> Digest {
    let mut list = Vec::with_capacity(evidence.observed.len().saturating_mul(34));
    for extend in &evidence.observed {
        list.push(extend.pcr);
        list.push(u8::try_from(extend.digests.len()).unwrap_or(u8::MAX));
        for digest in &extend.digests {
            list.extend_from_slice(&digest.alg().tpm_id().to_be_bytes());
            list.extend_from_slice(digest.as_bytes());
        }
    }
    let (log, ima) = (bytes(evidence.guest_log.as_ref()), bytes(evidence.ima_log.as_ref()));
    let parts: [&[u8]; 5] = [&evidence.quote.0, &evidence.signature.0, &list, log, ima];
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    Digest::sha256(out)
}

fn bytes(log: Option<&Bytes>) -> &[u8] {
    log.map_or(&[], |log| &log.0)
}
