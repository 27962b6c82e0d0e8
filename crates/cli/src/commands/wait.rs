//! Following an operation to its outcome.
//!
//! A host that no longer speaks to its authority is noticed: after [`NOTICE`] the shell says so, and
//! after [`SILENCE`] without a word it gives up. Both are measured by this machine alone, by whether
//! the authority hears anything new of the host, so that clocks need not agree.

use std::time::Duration;

use model::{
    HostId,
    api::{
        enrol::HostView,
        operate::{Operation, Outcome},
    },
};
use serve::clock::{Clock as _, SystemClock};

use crate::{
    client::Target,
    output::{Failure, Printer, Progress},
};

/// The phase of an operation that its host has not taken yet.
const ACCEPTED: &str = "accepted";
/// How long an operation is followed before the shell gives up; the operation itself goes on.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Between two looks at the operation.
const LOOK: Duration = Duration::from_millis(150);
/// Between two looks at the host; a live one asks for its orders every 20 s at least.
const LOOK_AT_HOST: Duration = Duration::from_secs(5);
/// From when on a silent host is spoken of that has not taken its order, which a live one does at once.
const NOTICE: Duration = Duration::from_secs(15);
/// From when on nothing is expected of it any more.
const SILENCE: Duration = Duration::from_secs(60);

/// Waits for the outcome of `operation`, showing its phase.
///
/// # Errors
/// What the outcome says, that the host is silent, or that the authority can no longer be asked.
pub(super) async fn outcome(
    target: &Target,
    operation: Operation,
    printer: Printer,
) -> Result<Operation, Failure> {
    let bar = printer.progress(&phase(&operation));
    let id = operation.id;
    let ended = tokio::time::timeout(PATIENCE, follow(target, operation, &bar, printer)).await;
    bar.finish_and_clear();
    let operation = ended.map_err(|_| {
        Failure::error(
            format!("operation {id} has not ended after {} minutes", PATIENCE.as_secs() / 60),
            "it goes on; `vouchsafe vm list` says how it stands",
        )
    })??;
    match &operation.outcome {
        Some(Outcome::Refused { name, detail, hint }) => Err(Failure::refused(name, detail, hint)),
        Some(Outcome::Failed { detail, hint }) => Err(failed(detail, hint, &operation)),
        Some(Outcome::Done) | None => Ok(operation),
    }
}

async fn follow(
    target: &Target,
    mut operation: Operation,
    bar: &Progress,
    printer: Printer,
) -> Result<Operation, Failure> {
    let client = target.authority()?;
    let path = format!("/v1/operations/{}", operation.id);
    let clock = SystemClock;
    let mut watch = Watch::begin(clock.monotonic());
    let mut looked = clock.monotonic();
    loop {
        if operation.outcome.is_some() {
            return Ok(operation);
        }
        tokio::time::sleep(LOOK).await;
        let before = (operation.phase.clone(), operation.percent);
        operation = client.get(&path).await?;
        bar.phase(phase(&operation));
        bar.set_message(shown(&operation));
        let now = clock.monotonic();
        if before != (operation.phase.clone(), operation.percent) {
            watch.sign_of_life(now);
        }
        if now.saturating_sub(looked) < LOOK_AT_HOST {
            continue;
        }
        looked = now;
        let hosts: Vec<HostView> = client.get("/v1/hosts").await?;
        let seen = hosts.iter().find(|host| host.name == operation.host).map(|h| h.last_seen);
        match watch.look(now, seen.flatten(), operation.phase != ACCEPTED) {
            Heard::Lately => {}
            Heard::NotLately => {
                let word = silent(&operation.host, seen.flatten(), clock.unix_ms());
                if printer.is_json() {
                    printer.say(&word);
                } else {
                    bar.remark(&word);
                }
            }
            Heard::Nothing => return Err(gave_up(target, &operation, seen.flatten())),
        }
    }
}

/// Whether a host was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Lately,
    /// For [`NOTICE`] it was not; said once.
    NotLately,
    /// For [`SILENCE`] it was not.
    Nothing,
}

/// What was heard of a host since we look.
#[derive(Clone, Copy, Debug)]
struct Watch {
    /// When something new was heard last, by our clock.
    heard: Duration,
    /// What the authority says of when it heard of it, by its clock.
    seen: Option<u64>,
    noticed: bool,
}

impl Watch {
    const fn begin(now: Duration) -> Self {
        Self { heard: now, seen: None, noticed: false }
    }

    const fn sign_of_life(&mut self, now: Duration) {
        self.heard = now;
        self.noticed = false;
    }

    /// `taken`: whether the host has taken its order. Then it may say nothing new for as long as it
    /// waits for the next.
    fn look(&mut self, now: Duration, seen: Option<u64>, taken: bool) -> Heard {
        // The first look only says what was known before.
        if self.seen.is_some() && self.seen != seen {
            self.sign_of_life(now);
        }
        self.seen = seen;
        let silent = now.saturating_sub(self.heard);
        if silent >= SILENCE {
            return Heard::Nothing;
        }
        if silent >= NOTICE && !taken && !self.noticed {
            self.noticed = true;
            return Heard::NotLately;
        }
        Heard::Lately
    }
}

fn silent(host: &HostId, seen: Option<u64>, now: u64) -> String {
    format!("host {host} has not taken its order yet; {}", heard(seen, now))
}

/// When the authority heard of a host, as a clause.
fn heard(seen: Option<u64>, now: u64) -> String {
    match seen {
        Some(_) => format!("the authority heard of it {}", ago(seen, now)),
        None => "the authority has not heard of it since it was started".to_owned(),
    }
}

/// `N s ago`, `N min ago`, ... or `never`.
pub(super) fn ago(seen: Option<u64>, now: u64) -> String {
    let Some(seen) = seen else { return "never".to_owned() };
    match now.saturating_sub(seen) / 1000 {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

fn gave_up(target: &Target, operation: &Operation, seen: Option<u64>) -> Failure {
    let host = &operation.host;
    let start = match target.lab_dir() {
        Some(dir) => format!("`vouchsafe lab up --dir {}`", crate::output::quoted(dir)),
        None => "on that machine: `systemctl status vouchsafe-host`".to_owned(),
    };
    Failure::error(
        format!("the agent of host {host} is silent: {}", heard(seen, SystemClock.unix_ms())),
        format!(
            "start it ({start}); the order for {} stays and is carried out then; if the machine is \
             lost and off: `vouchsafe vm fence {} --powered-off --reason WHY`",
            operation.vm, operation.vm
        ),
    )
}

/// What a host could not do; one that says no next step gets one.
fn failed(detail: &str, hint: &str, operation: &Operation) -> Failure {
    if !hint.is_empty() {
        return Failure::error(detail, hint);
    }
    let (vm, host) = (&operation.vm, &operation.host);
    if detail.contains("Cannot allocate memory") {
        let hint = format!(
            "host {host} has less free memory than {vm} wants (`vouchsafe vm show {vm}`): start it \
             on another host, or `vouchsafe vm delete {vm}` and create it with less --memory"
        );
        return Failure::error(detail, hint);
    }
    Failure::error(detail, format!("`vouchsafe vm show {vm}`, and the log of host {host}'s agent"))
}

fn phase(operation: &Operation) -> String {
    let phase = operation.phase.as_str();
    let phase = if phase.is_empty() { "waiting for the host" } else { phase };
    format!("{} on {}: {phase}", operation.vm, operation.host)
}

/// What is done, and how far it is.
pub(super) fn shown(operation: &Operation) -> String {
    let percent = operation.percent.map(|p| format!(" {p} %")).unwrap_or_default();
    format!("{}{percent}", phase(operation))
}

/// The phases with their times, for people.
pub(super) fn timings(operation: &Operation) -> String {
    let parts: Vec<_> =
        operation.timings.iter().map(|(phase, ms)| format!("{phase} {ms} ms")).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_silent_host_is_noticed_once_and_then_given_up() {
        let mut watch = Watch::begin(s(100));
        assert_eq!(watch.look(s(105), Some(7), false), Heard::Lately);
        assert_eq!(watch.look(s(115), Some(7), false), Heard::NotLately);
        assert_eq!(watch.look(s(120), Some(7), false), Heard::Lately);
        assert_eq!(watch.look(s(160), Some(7), false), Heard::Nothing);
    }

    #[test]
    fn a_host_that_took_its_order_may_be_at_it_for_long() {
        let mut watch = Watch::begin(s(0));
        assert_eq!(watch.look(s(5), Some(7), true), Heard::Lately);
        assert_eq!(watch.look(s(20), Some(7), true), Heard::Lately);
        assert_eq!(watch.look(s(60), Some(7), true), Heard::Nothing);
    }

    #[test]
    fn a_host_that_speaks_is_waited_for() {
        let mut watch = Watch::begin(s(0));
        for (at, seen) in [(5, 1), (20, 2), (39, 3), (58, 4), (77, 5)] {
            assert_ne!(watch.look(s(at), Some(seen), false), Heard::Nothing, "{at}");
        }
        watch.sign_of_life(s(130));
        assert_eq!(watch.look(s(140), Some(5), false), Heard::Lately);
        assert_eq!(watch.look(s(191), Some(5), false), Heard::Nothing);
    }

    #[test]
    fn how_long_ago_is_said_in_fitting_units() {
        assert_eq!(ago(None, 5), "never");
        assert_eq!(ago(Some(1_000), 91_000), "90 s ago");
        assert_eq!(ago(Some(0), 600_000), "10 min ago");
        assert_eq!(ago(Some(9), 1), "0 s ago");
        assert_eq!(heard(Some(9), 1), "the authority heard of it 0 s ago");
        assert!(!heard(None, 1).contains("never"));
    }
}
