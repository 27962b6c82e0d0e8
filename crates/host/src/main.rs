//! `vouchsafe-host`: the agent of one server. It proves the host to the authority, guards the keys
//! that it is granted, and runs virtual machines.
//!
//! ```text
//!   main -> harden -> configuration -> TPM, guard, ledger, spool
//!        -> adopt VMs that run -> { session, orders, lease, spool, local API } -> SIGTERM -> end
//! ```
//!
//! **Invariants:** a VM's processes outlive the agent, and the next agent finds them; keys are in
//! the agent's memory, sealed by the TPM, or nowhere; nothing a VM did is lost by killing the agent.

#![forbid(unsafe_code)]

mod accel;
mod anchors;
mod aside;
mod child;
mod config;
mod console;
mod evidence;
mod grant;
mod guard;
mod host;
mod hosttpm;
mod identity;
mod lease;
mod local;
mod orders;
mod plan;
mod process;
mod qmp;
mod registry;
mod report;
mod run;
mod spool;
mod trouble;
mod vm;
mod watching;
mod work;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use serve::{
    exit::{Exit, chain},
    sandbox, shell, telemetry,
};

use self::config::Config;

/// Runs trusted virtual machines on this server.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe-host", version)]
struct Args {
    /// The configuration.
    #[arg(long, default_value = "/etc/vouchsafe/host.toml")]
    config: PathBuf,
    /// Check the configuration and end.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    shell::main(begin, |error: &anyhow::Error| {
        let error: &(dyn std::error::Error + 'static) = error.as_ref();
        tracing::error!(error = chain(error), "vouchsafe-host ends");
        Exit::Failed
    })
}

fn begin(args: Args) -> anyhow::Result<Exit> {
    let config: Config = match serve::config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return Ok(shell::unusable(chain(&error))),
    };
    if let Err(trouble) = config.check() {
        return Ok(shell::unusable(trouble));
    }
    if args.check_config {
        return Ok(Exit::Done);
    }
    telemetry::init(&config.log)?;
    sandbox::harden()?;
    run::restrict(&config)?;
    shell::lock_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(run::run(config));
    runtime.shutdown_background();
    ended
}
