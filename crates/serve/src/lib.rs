//! The process shell of every binary: what it gives up, what it starts, how it is configured,
//! how it is reached and how it ends.
//!
//! **Invariants:** time and randomness enter a binary here and nowhere else ([`clock`],
//! [`random`]); no secret is in an argument, an environment variable or a log line.

pub mod client;
pub mod clock;
pub mod config;
pub mod control;
pub mod exit;
pub mod flood;
pub mod fsfile;
pub mod hpke;
pub mod https;
pub mod keys;
pub mod pem;
pub mod problem;
pub mod process;
pub mod random;
pub mod sandbox;
pub mod shell;
pub mod shutdown;
pub mod telemetry;
