//! `vouchsafe-trust`: answers for keys over XKMS 2.0 and JSON, with a CA of its own or a centre's PKI.
//!
//! ```text
//!   client --HTTP--> [reader] --frames of model::keys--> [keeper]
//!                    XML, message signatures             CA key, library, audit
//! ```
//!
//! The keeper is the process that was started; the reader is its child, confined, and started again
//! when it dies. **Invariants:** the process that parses strangers' bytes holds neither the CA's key
//! nor the library; the process that holds those never sees XML.

#![forbid(unsafe_code)]

mod args;
mod config;
mod process;
mod reader;
mod start;

use std::process::ExitCode;

use serve::{exit::Exit, sandbox, shell, telemetry};

use self::{
    args::{Args, Command},
    config::Config,
};

fn main() -> ExitCode {
    shell::main(start, |error: &anyhow::Error| {
        shell::failure(error.as_ref(), anchor::refused(error.chain()).as_ref())
    })
}

fn start(args: Args) -> anyhow::Result<Exit> {
    if let Some(Command::Reader(args)) = &args.command {
        shell::prepare()?;
        return reader::run(args);
    }
    let config = Config::load(&args.config)?;
    if args.check_config {
        return Ok(Exit::Done);
    }
    telemetry::init(&config.log)?;
    sandbox::harden()?;
    shell::lock_memory();
    match args.command {
        Some(Command::Restore { operator }) => process::restore(&config, &operator),
        Some(Command::Reader(_)) | None => process::run(&config),
    }
}
