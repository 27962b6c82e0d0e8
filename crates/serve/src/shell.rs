//! How a binary begins and how it tells that it could not: arguments, logs, what the process gives
//! up, and at the end one JSON line on stdout for the caller and an exit status.

use std::{error::Error, fmt::Display, io::Write as _, process::ExitCode};

use clap::Parser;
use serde::Serialize;
use thiserror::Error;

use crate::{
    exit::{Exit, chain},
    sandbox::{self, MemoryLock, SandboxError},
    telemetry::{self, Log, TelemetryError},
};

/// A process could not be prepared; it must not go on.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// It could not give up what it must.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Logging could not start.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

/// Parses the arguments; prints help, version or what is wrong with them, and then gives the exit
/// status.
///
/// # Errors
/// [`Exit::Done`] after help or version, [`Exit::Usage`] for wrong arguments.
pub fn arguments<A: Parser>() -> Result<A, Exit> {
    A::try_parse().map_err(|error| {
        let wrong = error.use_stderr();
        // The stream is closed: there is nobody to tell.
        let _ = error.print();
        if wrong { Exit::Usage } else { Exit::Done }
    })
}

/// A whole `main`: `run` with the arguments, and `failure` to tell why it could not.
pub fn main<A: Parser, E>(
    run: impl FnOnce(A) -> Result<Exit, E>,
    failure: impl FnOnce(&E) -> Exit,
) -> ExitCode {
    let exit = match arguments() {
        Ok(args) => run(args).unwrap_or_else(|error| failure(&error)),
        Err(exit) => exit,
    };
    exit.into()
}

/// What a process without a configuration does before it touches a secret: logs as by default,
/// hardens itself, locks its memory if it may.
///
/// # Errors
/// [`PrepareError`].
pub fn prepare() -> Result<(), PrepareError> {
    telemetry::init(&Log::default())?;
    sandbox::harden()?;
    lock_memory();
    Ok(())
}

/// Tells the person who started the program that its configuration cannot be used. Gives the exit
/// status.
pub fn unusable(why: impl Display) -> Exit {
    let _ = writeln!(std::io::stderr(), "error: {why}");
    Exit::Usage
}

/// Locks the process's memory, and says aloud if that is not allowed.
pub fn lock_memory() {
    if sandbox::lock_memory() == MemoryLock::Limited {
        tracing::warn!("memory is not locked; swap must be off or encrypted");
    }
}

/// Prints one line of JSON on stdout. A reader that went away is no reason to stop the work.
pub fn line(event: &impl Serialize) {
    if let Ok(mut text) = serde_json::to_vec(event) {
        text.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }
}

/// The rule that said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name in kebab-case.
    pub code: &'static str,
    /// In words, without causes.
    pub detail: String,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Ending<'a> {
    Refused { code: &'a str, detail: &'a str },
    Failed { detail: &'a str },
}

/// Tells a failure, or the refusal that it is: to the log with all causes, and as a line on stdout,
/// `{"event":"refused","code":..,"detail":..}` or `{"event":"failed","detail":..}`. Gives the exit
/// status.
pub fn failure(error: &(dyn Error + 'static), refused: Option<&Refused>) -> Exit {
    let detail = chain(error);
    match refused {
        Some(Refused { code, detail: words }) => {
            tracing::error!(rejection = code, detail, "refused");
            line(&Ending::Refused { code, detail: words });
            Exit::Refused
        }
        None => {
            tracing::error!(detail, "failed");
            line(&Ending::Failed { detail: &detail });
            Exit::Failed
        }
    }
}
