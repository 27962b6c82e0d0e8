//! `vouchsafe-centre`: the key-management centre of a cloud, with keys, store, audit log and
//! administrators of its own.
//!
//! ```text
//!   trust services ══ HTTPS, passports both ways ══► [centre] ──► own CA, CMP, ACME
//!   administrators ── admin.sock ──────────────────►    │
//!   this server's agent ◄── passport ──────────────────┘
//! ```

#![forbid(unsafe_code)]

mod ask;
mod config;
mod server;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use serve::{exit::Exit, sandbox, shell, telemetry};

use self::{ask::Verb, config::Config};

/// Orders certificates from PKIs for the trust services of a cloud.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe-centre", version)]
struct Args {
    /// Configuration file (TOML).
    #[arg(long, default_value = "/etc/vouchsafe/centre.toml")]
    config: PathBuf,
    /// Check the configuration, then exit.
    #[arg(long)]
    check_config: bool,
    /// Ask a running centre, instead of being one.
    #[command(subcommand)]
    verb: Option<Verb>,
}

fn main() -> ExitCode {
    shell::main(start, |error: &anyhow::Error| shell::failure(error.as_ref(), None))
}

fn start(args: Args) -> anyhow::Result<Exit> {
    let config = Config::load(&args.config)?;
    if args.check_config {
        return Ok(Exit::Done);
    }
    if let Some(verb) = args.verb {
        return ask::run(verb, &config);
    }
    telemetry::init(&config.log)?;
    sandbox::harden()?;
    shell::lock_memory();
    server::run(&config)
}
