//! Drives a request to its end: bookkeeping without a clock or a socket.
//!
//! ```text
//! new --submit--> accepted --poll--> done
//!  |  unavailable    |  unavailable or pending: again later, twice as late each time
//!  +-----------------+--> refused (for good) | timed out
//! ```

use std::time::Duration;

use time::OffsetDateTime;

use super::{Ask, Outcome, Progress, Provider, ProviderError, RequestId};

/// How long to wait for a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// In all.
    pub total: Duration,
    /// Before the second try; each further wait is twice as long.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
}

/// What to do next about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is done.
    Done(Outcome),
    /// Call again then.
    Wait(OffsetDateTime),
}

/// A request on its way: bookkeeping without a clock or a socket. After a restart a new job with
/// the same id and request takes it up where it was.
#[derive(Clone, Debug)]
pub struct Job {
    id: RequestId,
    patience: Patience,
    deadline: OffsetDateTime,
    wait: Duration,
    accepted: bool,
}

impl Job {
    /// A job that begins at `now`.
    #[must_use]
    pub fn new(id: RequestId, patience: Patience, now: OffsetDateTime) -> Self {
        let deadline = later(now, patience.total);
        Self { id, patience, deadline, wait: patience.first, accepted: false }
    }

    /// Submits the request, or asks what became of it.
    ///
    /// # Errors
    /// [`ProviderError`] ends the job, [`ProviderError::TimedOut`] if the time is over.
    pub fn advance(
        &mut self,
        provider: &dyn Provider,
        ask: &Ask,
        now: OffsetDateTime,
    ) -> Result<Step, ProviderError> {
        if now > self.deadline {
            return Err(ProviderError::TimedOut);
        }
        let progress = if self.accepted {
            provider.poll(self.id, now)
        } else {
            provider.submit(self.id, ask, now)
        };
        match progress {
            Ok(Progress::Done(outcome)) => return Ok(Step::Done(outcome)),
            Ok(Progress::Pending) => self.accepted = true,
            Err(ProviderError::Unavailable(_)) => {}
            // It lost what it had accepted: the same id makes it the same request.
            Err(ProviderError::UnknownRequest) if self.accepted => self.accepted = false,
            Err(error) => return Err(error),
        }
        let at = later(now, self.wait).min(self.deadline);
        self.wait = self.wait.saturating_mul(2).min(self.patience.most);
        Ok(Step::Wait(at))
    }
}

fn later(now: OffsetDateTime, wait: Duration) -> OffsetDateTime {
    now.saturating_add(time::Duration::try_from(wait).unwrap_or(time::Duration::MAX))
}
