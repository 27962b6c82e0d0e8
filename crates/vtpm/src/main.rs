//! `vouchsafe-vtpm`: the virtual TPM of one VM.
//!
//! ```text
//!   run: harden -> keys from their descriptor -> confine -> swtpm (dies with us) -> state opens?
//!        -> sockets for QEMU and agent -> SIGTERM, Shutdown or swtpm's end
//! ```
//!
//! It is the parent of the VM's swtpm and stands on both its channels: QEMU's commands pass through
//! and are recorded, the host's are put between them. It outlives the agent; QEMU may come and go.
//!
//! **Invariants.** Keys come by a descriptor and are never in an argument, the environment or a
//! log. A dead process takes its swtpm with it, and the other way round, so that no extend ever
//! goes unseen. Deliberately absent: any decision about what was measured.

#![forbid(unsafe_code)]

mod agent;
mod args;
mod control;
mod keys;
mod listed;
mod manufacture;
mod observed;
mod qemu;
mod report;
mod run;
mod sockets;
mod swtpm;
mod turn;
mod vtpm;

use std::process::ExitCode;

use serve::{exit::Exit, shell};

use self::args::{Args, Command};

fn main() -> ExitCode {
    shell::main(start, report::failure)
}

fn start(args: Args) -> anyhow::Result<Exit> {
    shell::prepare()?;
    match args.command {
        Command::Run(args) => run::run(args),
    }
}
