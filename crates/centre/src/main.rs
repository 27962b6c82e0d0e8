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

use clap::{Parser, Subcommand};
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
    /// Ask a running centre, or restore one, instead of being one.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the state as it is the newest, after a backup was put back or the TPM was replaced: what
    /// was done since is lost, revocations too. The centre must not run.
    Restore {
        /// Who decided it, for the audit log.
        #[arg(long, value_name = "NAME")]
        operator: String,
    },
    #[command(flatten)]
    Ask(Verb),
}

fn main() -> ExitCode {
    shell::main(start, |error: &anyhow::Error| {
        let causes = || error.chain();
        shell::failure(error.as_ref(), anchor::refused(causes()).as_ref())
    })
}

fn start(args: Args) -> anyhow::Result<Exit> {
    let config = Config::load(&args.config)?;
    if args.check_config {
        return Ok(Exit::Done);
    }
    let operator = match args.command {
        Some(Command::Ask(verb)) => return ask::run(verb, &config),
        Some(Command::Restore { operator }) => Some(operator),
        None => None,
    };
    telemetry::init(&config.log)?;
    sandbox::harden()?;
    shell::lock_memory();
    match operator {
        Some(operator) => server::restore(&config, &operator),
        None => server::run(&config),
    }
}
