//! Administrators' verbs: asked of a running centre over its socket, as its own user; the reply is
//! one line of JSON.

use std::{io::BufReader, os::unix::net::UnixStream, time::Duration};

use anyhow::Context as _;
use clap::Subcommand;
use model::{
    HostId, MigrationId,
    centre::{CentreCommand, CentreReply, SOCKET},
    child,
};
use serve::{exit::Exit, shell};

use crate::config::Config;

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an administrator asks of a running centre.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// How the centre stands: its PKIs, tenants and trust services.
    Status,
    /// The orders that are not at their end, oldest first.
    Queue {
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Have everything of a VM moved from one trust service to another.
    Migrate {
        /// The VM.
        #[arg(long, value_name = "VM")]
        owner: String,
        /// The server whose trust service has the keys.
        #[arg(long, value_name = "HOST")]
        from: HostId,
        /// The server whose trust service is to have them.
        #[arg(long, value_name = "HOST")]
        to: HostId,
        /// Who you are, for the audit log.
        #[arg(long, value_name = "NAME")]
        operator: String,
    },
    /// How far a migration is.
    Migration {
        /// Its id.
        id: MigrationId,
    },
    /// Give a migration up at the centre, so that its owner may be moved anew.
    Cancel {
        /// Its id.
        id: MigrationId,
        /// Who you are, for the audit log.
        #[arg(long, value_name = "NAME")]
        operator: String,
    },
    /// Sign a checkpoint of the audit log, and write both out.
    ExportAudit,
}

impl Verb {
    fn command(self) -> CentreCommand {
        match self {
            Self::Status => CentreCommand::Status,
            Self::Queue { limit } => CentreCommand::Queue { limit },
            Self::Migrate { owner, from, to, operator } => {
                CentreCommand::Migrate { owner, from, to, operator }
            }
            Self::Migration { id } => CentreCommand::Migration { id },
            Self::Cancel { id, operator } => CentreCommand::Cancel { id, operator },
            Self::ExportAudit => CentreCommand::ExportAudit,
        }
    }
}

/// Asks, and prints the reply.
pub(crate) fn run(verb: Verb, config: &Config) -> anyhow::Result<Exit> {
    let socket = config.state_dir.join(SOCKET);
    let stream = UnixStream::connect(&socket).with_context(|| {
        format!("{}: is vouchsafe-centre running, and are you its user?", socket.display())
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    child::send(&mut &stream, &verb.command())?;
    let reply = child::receive::<CentreReply>(&mut BufReader::new(&stream))?;
    let reply = reply.context("the centre closed the connection; see its log")?;
    shell::line(&reply);
    Ok(match reply {
        CentreReply::Refused { .. } => Exit::Refused,
        CentreReply::Failed { .. } => Exit::Failed,
        CentreReply::Status(_)
        | CentreReply::Queue { .. }
        | CentreReply::Migrating(_)
        | CentreReply::Migration { .. }
        | CentreReply::AuditExported { .. } => Exit::Done,
    })
}
