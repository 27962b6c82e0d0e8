//! The process shell of every binary: what it gives up, what it starts, how it is configured,
//! how it is reached and how it ends.
//!
//! **Invariants:** time and randomness enter a binary here and nowhere else ([`clock`],
//! [`random`]); no secret is in an argument, an environment variable or a log line.

pub mod clock;
pub mod exit;
pub mod fsfile;
pub mod process;
pub mod random;
pub mod sandbox;
pub mod telemetry;
