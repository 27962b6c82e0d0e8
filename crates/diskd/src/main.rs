//! `vouchsafe-disk`: makes a VM's encrypted volume, or serves it over NBD, one process per VM.
//!
//! ```text
//!   create: harden -> key from its descriptor -> encrypt -> Done on stdout
//!   serve:  harden -> key from its descriptor -> open -> NBD socket, control socket
//!           -> SIGTERM or Shutdown -> drain -> flush -> exit 0
//! ```
//!
//! **Invariants.** The key comes by a descriptor and is never in an argument, the environment or a
//! log. A refusal is a line on stdout with its name, and exit status 3. Killed at any moment, the
//! process leaves nothing that hinders the next one.

mod args;
mod control;
mod create;
mod report;
mod serve_cmd;

use std::process::ExitCode;

use clap::Parser as _;
use serve::{exit::Exit, sandbox, telemetry};

use self::args::{Args, Command};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let wrong = error.use_stderr();
            // The stream is closed: there is nobody to tell.
            let _ = error.print();
            return if wrong { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    run(args).unwrap_or_else(|error| report::failure(&error)).into()
}

fn run(args: Args) -> anyhow::Result<Exit> {
    telemetry::init(&telemetry::Log::default())?;
    sandbox::harden()?;
    if sandbox::lock_memory() == sandbox::MemoryLock::Limited {
        tracing::warn!("memory is not locked; swap must be off or encrypted");
    }
    match args.command {
        Command::Create(args) => create::run(&args),
        Command::Serve(args) => serve_cmd::run(&args),
    }
}
