//! Watching running guests: each is appraised again on a clock, and soon after its vTPM has measured
//! more than was appraised. What a bad verdict does is the machine's to decide.
//!
//! ```text
//!   running, appraised up to entry n -- the list is longer, or it is time --> Reappraise
//! ```
//!
//! **Invariants:** a guest that measures all the time is appraised at most once in [`GAP`]; one whose
//! CPUs stand still is left alone, since it cannot have changed.

use std::{sync::Arc, time::Duration};

use model::{
    VmId,
    child::vtpm::{Reply, Request},
};
use tokio::sync::{mpsc, watch};

use crate::{
    child::ask_vtpm,
    host::Host,
    plan::VmPaths,
    vm::{driver::Shown, step::Event},
};

/// The least time between two appraisals because the list has grown.
const GAP: Duration = Duration::from_secs(30);

/// How long the vTPM process may take to say how long its list is.
const ANSWER: Duration = Duration::from_secs(5);

/// Watches one VM until its driver ends.
pub(crate) async fn follow(
    host: Arc<Host>,
    (vm, events, shown): (VmId, mpsc::Sender<Event>, watch::Receiver<Shown>),
) {
    let limits = &host.config.limits;
    let every = Duration::from_secs(limits.reappraise_seconds);
    let control = VmPaths::new(&host.config, &vm).vtpm_control();
    let mut schedule = Schedule { every, asked: None, since: host.clock.monotonic() };
    loop {
        tokio::time::sleep(Duration::from_secs(limits.watch_seconds)).await;
        if events.is_closed() {
            return;
        }
        let Some(appraised) = shown.borrow().appraised else {
            schedule.since = host.clock.monotonic();
            continue;
        };
        let entries = match ask_vtpm(&control, Request::Status {}, ANSWER).await {
            Ok(Reply::Status(status)) => status.entries,
            Ok(_) | Err(_) => continue,
        };
        let now = host.clock.monotonic();
        if let Some(why) = schedule.due(now, appraised, entries) {
            tracing::info!(vm.id = %vm, why, "the guest is appraised again");
            if events.send(Event::Reappraise).await.is_err() {
                return;
            }
        }
    }
}

/// When it is time.
#[derive(Debug)]
struct Schedule {
    every: Duration,
    /// When it was last asked for.
    asked: Option<Duration>,
    /// Since when the present verdict counts, at the latest.
    since: Duration,
}

impl Schedule {
    /// Why an appraisal is due now, if it is.
    fn due(&mut self, now: Duration, appraised: u64, entries: u64) -> Option<&'static str> {
        let grown =
            entries != appraised && self.asked.is_none_or(|asked| now.saturating_sub(asked) >= GAP);
        let why = if grown {
            "it has measured more"
        } else if now.saturating_sub(self.since) >= self.every {
            "it is time"
        } else {
            return None;
        };
        self.asked = Some(now);
        self.since = now;
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_longer_list_is_appraised_soon_and_a_growing_one_not_all_the_time() {
        let mut schedule = Schedule { every: at(300), asked: None, since: at(0) };
        assert_eq!(schedule.due(at(10), 90, 90), None);
        assert!(schedule.due(at(20), 90, 91).is_some());
        assert_eq!(schedule.due(at(30), 91, 92), None);
        assert_eq!(schedule.due(at(49), 91, 95), None);
        assert!(schedule.due(at(50), 91, 95).is_some());
    }

    #[test]
    fn a_quiet_guest_is_appraised_by_the_clock() {
        let mut schedule = Schedule { every: at(300), asked: None, since: at(0) };
        assert_eq!(schedule.due(at(299), 90, 90), None);
        assert!(schedule.due(at(300), 90, 90).is_some());
        assert_eq!(schedule.due(at(310), 90, 90), None);
        assert!(schedule.due(at(600), 90, 90).is_some());
    }
}
