//! Where time comes in. Everything below `serve` takes `now` as an argument; binaries hold a
//! [`SharedClock`] and pass what it says.

use std::{fmt, sync::Arc, time::Duration};

use time::OffsetDateTime;

/// A source of wall-clock and monotonic time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Wall-clock time, UTC. Can jump.
    fn now(&self) -> OffsetDateTime;

    /// Time since an arbitrary fixed point of this boot, counting suspension; never goes back.
    fn monotonic(&self) -> Duration;

    /// Wall-clock time in milliseconds since 1970; 0 before it.
    fn unix_ms(&self) -> u64 {
        u64::try_from(self.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
    }
}

/// A clock that parts of a process share.
pub type SharedClock = Arc<dyn Clock>;

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The system's clocks, shareable.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn monotonic(&self) -> Duration {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(at.tv_nsec).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_and_date_agree() {
        let clock = SystemClock;
        let (date, ms) = (clock.now().unix_timestamp(), clock.unix_ms());
        assert!(ms.abs_diff(u64::try_from(date).unwrap() * 1000) < 5_000);
        assert!(clock.monotonic() <= clock.monotonic());
    }
}
