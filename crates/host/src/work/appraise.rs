//! Evidence of the guest: the vTPM's quote and the observed list first, then the guest's own log
//! (a log that is older than the list would count as cut short), then the authority's verdict.

use std::time::Duration;

use model::{
    HashAlg,
    api::{
        enrol::{Challenge, ChallengePurpose, ChallengeRequest},
        vm::{GuestEvidence, GuestVerdict},
    },
    child::vtpm::{Fault, Measured, Quoted, Reply, Request, Unobservable},
};
use serve::client::Call;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::{ANSWER, Worker};
use crate::{
    child::{AskError, ask_vtpm},
    evidence::{Frames, Logs},
    trouble::Trouble,
    vm::{
        phase::Verdict,
        record::{Job, Record, VtpmStage},
        step::{Reason, Result as Found},
    },
};

/// How long a guest may take to send its logs once it is asked.
const LOGS: Duration = Duration::from_secs(20);

/// The guest's event log ends with this when the firmware has handed over (SHA-256 of
/// `Exit Boot Services Returned with Success`).
const HANDED_OVER: &str = "b54f7542cbd872a81a9d9dea839b2b8d747c7ebd5ea6615c40f42f44a6dbeba0";

/// How long after the firmware has handed over a guest without an evidence port counts as booted.
const WITHOUT_PORT: Duration = Duration::from_secs(90);

impl Worker {
    /// Waits until the guest sends its logs, or long enough after its firmware has handed over.
    /// On the way it notes when the kernel's first line appears.
    pub(super) async fn await_boot(&mut self) -> Result<Found, Trouble> {
        let patience = Duration::from_secs(self.host.config.limits.boot_seconds);
        let begun = self.host.clock.monotonic();
        let mut frames = Frames::default();
        let mut first_line = self.vtpm_started;
        let mut handed_over: Option<Duration> = None;
        let mut round = 0_u32;
        loop {
            if let Some(since) = first_line {
                self.console.take().await?;
                if self.console.holds(b"Linux version") {
                    self.progress.measured("first-line", self.elapsed_ms(since));
                    first_line = None;
                }
            }
            if self.frame(&mut frames, Duration::from_millis(40)).await.is_some() {
                return Ok(Found::Done);
            }
            let now = self.host.clock.monotonic();
            round = round.wrapping_add(1);
            if handed_over.is_none()
                && round.is_multiple_of(50)
                && self.firmware_handed_over().await
            {
                handed_over = Some(now);
            }
            let late = handed_over.is_some_and(|at| now.saturating_sub(at) > WITHOUT_PORT);
            if late || now.saturating_sub(begun) > patience {
                tracing::warn!(vm.id = %self.vm, "the guest sends no logs; appraised without them");
                return Ok(Found::Done);
            }
        }
    }

    async fn firmware_handed_over(&self) -> bool {
        let request = Request::Observed { from: 0 };
        let observed = ask_vtpm(&self.paths.vtpm_control(), request, ANSWER).await;
        let Ok(Reply::Observed(observed)) = observed else { return false };
        observed.entries.iter().any(|entry| {
            let Measured::Extend { pcr: 5, digests } = &entry.measured else { return false };
            digests.iter().any(|d| d.hex() == HANDED_OVER)
        })
    }

    /// Reads from the evidence port until a whole frame is there, at most `patience`.
    async fn frame(&mut self, frames: &mut Frames, patience: Duration) -> Option<Logs> {
        if self.evidence.is_none() {
            self.evidence = UnixStream::connect(self.paths.evidence()).await.ok();
        }
        let Some(port) = self.evidence.as_mut() else {
            tokio::time::sleep(patience).await;
            return None;
        };
        let mut buffer = vec![0; 64 << 10];
        let read = async {
            loop {
                let count = port.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
                if let Some(logs) = frames.push(buffer.get(..count).unwrap_or_default()) {
                    return Some(logs);
                }
            }
        };
        match tokio::time::timeout(patience, read).await {
            Ok(Some(logs)) => Some(logs),
            Ok(None) => {
                self.evidence = None;
                tokio::time::sleep(patience).await;
                None
            }
            Err(_elapsed) => None,
        }
    }

    /// The guest's logs of now. Frames that it sent unasked may be older, so they are passed over.
    pub(super) async fn fresh_logs(&mut self) -> Option<Logs> {
        let mut frames = Frames::default();
        for _ in 0..16 {
            if self.frame(&mut frames, Duration::from_millis(20)).await.is_none() {
                break;
            }
        }
        self.evidence.as_mut()?.write_all(b"evidence\n").await.ok()?;
        self.frame(&mut frames, LOGS).await
    }

    /// Takes evidence and asks for the verdict.
    pub(super) async fn appraise(&mut self, record: &Record) -> Result<Found, Trouble> {
        let VtpmStage::Certified { ak, ek } = &record.made.vtpm else {
            return Err(Trouble::failed("the vTPM has no certificates"));
        };
        let session = self.host.link.session()?;
        let ask = ChallengeRequest {
            host: self.host.config.name.clone(),
            purpose: ChallengePurpose::GuestAttest,
            now: self.host.clock.unix_ms(),
        };
        let challenge: Challenge = self.noted(session.client.post("/v1/challenges", &ask).await)?;
        let quoted = self.quote(record, &challenge).await?;
        let logs = self.fresh_logs().await;
        let entries = quoted.observed.total;
        let ordered = record.job.as_ref().is_some_and(Job::is_open);
        let unobservable = quoted.observed.unobservable.map(word);
        let (observed, unobservable) =
            match attest::guest::observed_extends(&quoted.observed.entries) {
                Ok(extends) => (extends, unobservable),
                Err(why) => (Vec::new(), Some(unobservable.unwrap_or_else(|| why.to_owned()))),
            };
        let evidence = GuestEvidence {
            nonce: challenge.nonce,
            epoch: record.epoch,
            ak_certificate: ak.clone(),
            ek_certificate: ek.clone(),
            quote: quoted.attest.into(),
            signature: quoted.signature.into(),
            observed,
            overflowed: quoted.observed.overflowed,
            unobservable,
            guest_log: logs.as_ref().map(|l| l.bios.clone().into()),
            ima_log: logs.filter(|l| !l.ima.is_empty()).map(|l| l.ima.into()),
        };
        let call = Call::post(format!("/v1/vms/{}/evidence", self.vm)).json(&evidence)?;
        let answer = self.noted(session.client.call::<GuestVerdict>(call).await);
        let verdict = match answer {
            Ok(verdict) => judged(&verdict, entries),
            // The asking was refused, not the guest: that ends an operation, and says nothing new
            // about a guest that runs on.
            Err(trouble) if ordered && trouble.reason.refused.is_some() && !trouble.away => {
                Verdict { trusted: false, reason: Some(trouble.reason), act: None, entries }
            }
            Err(trouble) => return Err(trouble),
        };
        tracing::info!(vm.id = %self.vm, trusted = verdict.trusted, "guest appraised");
        Ok(Found::Verdict(verdict))
    }

    /// Quote and list of one moment. The guest may be in the middle of a reset, or measuring.
    async fn quote(&self, record: &Record, challenge: &Challenge) -> Result<Quoted, Trouble> {
        let control = self.paths.vtpm_control();
        // What a guest's boot measures, whatever else the challenge names.
        let mut pcrs: Vec<u8> = (0..=15).chain(challenge.pcrs.iter().copied()).collect();
        pcrs.sort_unstable();
        pcrs.dedup();
        let mut left = 20_u32;
        let mut quoted = loop {
            let request = Request::Quote {
                nonce: challenge.nonce,
                vm: self.vm.clone(),
                epoch: record.epoch,
                pcrs: [(HashAlg::Sha256, pcrs.clone())].into(),
                from: 0,
            };
            left = left.saturating_sub(1);
            match ask_vtpm(&control, request, ANSWER).await {
                Ok(Reply::Quote(quoted)) => break *quoted,
                Ok(_) => return Err(Trouble::failed("the vTPM process answered something else")),
                Err(AskError::Vtpm {
                    fault: Fault::Resetting | Fault::SlotsTaken | Fault::Unstable,
                    ..
                }) if left > 0 => tokio::time::sleep(Duration::from_millis(250)).await,
                Err(error) => return Err(error.into()),
            }
        };
        let total = usize::try_from(quoted.observed.total).unwrap_or(usize::MAX);
        while quoted.observed.entries.len() < total {
            let from = u64::try_from(quoted.observed.entries.len()).unwrap_or(u64::MAX);
            let more = ask_vtpm(&control, Request::Observed { from }, ANSWER).await?;
            let Reply::Observed(more) = more else {
                return Err(Trouble::failed("the vTPM process answered something else"));
            };
            if more.generation != quoted.observed.generation || more.entries.is_empty() {
                return Err(Trouble::failed("the guest was reset while its list was read"));
            }
            quoted.observed.entries.extend(more.entries);
        }
        quoted.observed.entries.truncate(total);
        Ok(quoted)
    }
}

/// The word on the wire for why a list is not whole.
fn word(why: Unobservable) -> String {
    let value = serde_json::to_value(why).ok();
    value.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_else(|| "unknown".to_owned())
}

fn judged(verdict: &GuestVerdict, entries: u64) -> Verdict {
    let act = verdict.on_bad_guest;
    if verdict.trusted {
        return Verdict { trusted: true, reason: None, act, entries };
    }
    let reason = match &verdict.refusal {
        Some(refusal) => {
            Reason::refused(refusal.name.clone(), refusal.detail.clone(), refusal.hint.clone())
        }
        None => Reason::refused("guest-not-trusted", "the guest's verdict is bad", ""),
    };
    Verdict { trusted: false, reason: Some(reason), act, entries }
}
