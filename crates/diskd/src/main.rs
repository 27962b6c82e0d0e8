//! `vouchsafe-disk`: makes a VM's encrypted volume, or serves it over NBD or vhost-user-blk, one
//! process per VM.
//!
//! ```text
//!   create: harden -> key from its descriptor -> encrypt -> Done on stdout
//!   serve:  harden -> key from its descriptor -> open -> export's socket, control socket
//!           -> SIGTERM or Shutdown -> drain -> flush -> exit 0
//! ```
//!
//! **Invariants.** The key comes by a descriptor and is never in an argument, the environment or a
//! log. A refusal is a line on stdout with its name, and exit status 3. Killed at any moment, the
//! process leaves nothing that hinders the next one.

mod args;
mod control;
mod create;
mod export;
mod keys;
mod report;
mod serve_cmd;

use std::process::ExitCode;

use serve::{exit::Exit, shell};

use self::args::{Args, Command};

fn main() -> ExitCode {
    shell::main(run, report::failure)
}

fn run(args: Args) -> anyhow::Result<Exit> {
    shell::prepare()?;
    match args.command {
        Command::Create(args) => create::run(&args),
        Command::Serve(args) => serve_cmd::run(&args),
    }
}
