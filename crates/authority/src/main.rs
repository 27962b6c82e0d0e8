//! `vouchsafe-authority`: the key-management centre and trusted coordinator of a cloud centre. It
//! enrols hosts, appraises evidence, and vouchsafes VM keys to those that prove themselves.
//!
//! ```text
//! config ─► ground (TPM, root key, store, audit log) ─► anchor ─► routes ─► serve ─► drain
//! ```
//!
//! **Invariants:** nothing is answered before it is durable and in the audit log; VM keys come out
//! of one function ([`grant::seal`]) that consumes the verdicts which earn them; a caller's right
//! comes from its certificate, read in one place ([`caller`]); an older store does not start.

mod app;
mod audit;
mod backup;
mod caller;
mod command;
mod config;
mod ekroots;
mod exposure;
mod failure;
mod flood;
mod grant;
mod ground;
mod housekeeping;
mod init;
mod keyring;
mod lease;
mod nonce;
mod operations;
mod paths;
mod record;
mod records;
mod reference;
mod refusal;
mod refused_starts;
mod restore;
mod root;
mod routes;
mod server;
mod shares;
mod tpmlink;
mod trace;
mod vmkey;

use clap::Parser as _;
use serve::exit::Exit;

fn main() -> Exit {
    command::Cli::parse().run()
}
