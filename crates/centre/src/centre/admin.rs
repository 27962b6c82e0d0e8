//! The administrators' socket in the state directory. Whoever runs as the centre's own user is one;
//! which one is what they say, and it is written down. The cloud's operators are not among them.

use std::{io, os::unix::net::UnixListener, path::PathBuf, sync::Arc};

use model::{
    centre::{CentreCommand, CentreReply, CentreStatus, SOCKET},
    child::FrameError,
};
use serve::{control, exit::chain, fsfile};

use super::{Centre, refusal::Why};

/// Most orders in one list.
const MAX_LISTED: u32 = 500;

/// The centre behind its socket.
struct Administrators {
    centre: Arc<Centre>,
    listener: UnixListener,
}

impl Centre {
    /// Listens for administrators in threads of its own.
    pub(super) fn listen(self: &Arc<Self>) -> io::Result<()> {
        let path = self.socket();
        fsfile::remove(&path).map_err(io::Error::other)?;
        let listener = UnixListener::bind(&path)?;
        let administrators = Administrators { centre: Arc::clone(self), listener };
        control::start(administrators, self.stop.clone())
    }

    /// Where administrators reach this centre.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }

    /// Does what an administrator asks.
    #[must_use]
    pub fn administer(&self, command: CentreCommand) -> CentreReply {
        let (event, by, subject) = about(&command);
        let failed =
            |error: &dyn std::error::Error| CentreReply::Failed { detail: error.to_string() };
        match self.administered(command) {
            Ok(reply) => reply,
            Err(why) => match (self.note(&by, event, &subject, &why), why.refusal()) {
                (Err(fault), _) => failed(&fault),
                (Ok(()), None) => CentreReply::Failed { detail: chain(&why).to_string() },
                (Ok(()), Some(refusal)) => CentreReply::Refused {
                    name: refusal.name().to_owned(),
                    detail: refusal.to_string(),
                    hint: refusal.hint().to_owned(),
                },
            },
        }
    }

    fn administered(&self, command: CentreCommand) -> Result<CentreReply, Why> {
        Ok(match command {
            CentreCommand::Status => CentreReply::Status(self.status()?),
            CentreCommand::Queue { limit } => self.queue(limit),
            CentreCommand::Migrate { owner, from, to, operator } => {
                CentreReply::Migrating(self.migrate(&owner, (&from, &to), &operator)?)
            }
            CentreCommand::Migration { id } => self.migration(id)?,
            CentreCommand::Cancel { id, operator } => self.cancel(id, &operator)?,
            CentreCommand::ExportAudit => {
                let dir = self.dir.join("audit-export");
                let entries = self.journal.export(&dir)?;
                CentreReply::AuditExported { directory: dir.display().to_string(), entries }
            }
        })
    }

    /// How the centre stands.
    ///
    /// # Errors
    /// [`super::Fault`] if the store does not answer.
    pub fn status(&self) -> Result<CentreStatus, Why> {
        self.healthy()?;
        let pkis = || self.pkis.iter();
        Ok(CentreStatus {
            domains: pkis().map(|pki| pki.lane.status(&pki.domain)).collect(),
            tenants: pkis().flat_map(|pki| pki.lane.tenants(&pki.domain)).collect(),
            services: self.services()?,
            newest: self.feed.state().newest,
            audit_entries: self.journal.size(),
        })
    }

    fn queue(&self, limit: u32) -> CentreReply {
        let mut orders: Vec<_> = self.pkis.iter().flat_map(|pki| pki.lane.listed()).collect();
        let total = u64::try_from(orders.len()).unwrap_or(u64::MAX);
        orders.sort_by_key(|one| (one.at, one.id));
        orders.truncate(usize::try_from(limit.min(MAX_LISTED)).unwrap_or(0));
        CentreReply::Queue { orders, total }
    }
}

/// Event, actor and subject of a command, for the audit log.
fn about(command: &CentreCommand) -> (&'static str, String, String) {
    let (event, subject) = match command {
        CentreCommand::Migrate { owner, operator, .. } => {
            let by = format!("operator:{operator}");
            return ("key-migration", by, format!("vm:{owner}"));
        }
        CentreCommand::Cancel { id, operator } => {
            let by = format!("operator:{operator}");
            return ("key-migration-cancelled", by, format!("migration:{id}"));
        }
        CentreCommand::Status => ("centre-status", "centre".to_owned()),
        CentreCommand::Queue { .. } => ("centre-queue", "centre".to_owned()),
        CentreCommand::Migration { id } => ("key-migration", format!("migration:{id}")),
        CentreCommand::ExportAudit => ("audit-export", "centre".to_owned()),
    };
    (event, "administrator".to_owned(), subject)
}

impl control::Service for Administrators {
    type Request = CentreCommand;
    type Reply = CentreReply;

    fn listener(&self) -> &UnixListener {
        &self.listener
    }

    fn answer(&self, request: CentreCommand) -> CentreReply {
        self.centre.administer(request)
    }

    fn malformed(&self, error: &FrameError) -> CentreReply {
        CentreReply::Failed { detail: chain(error).to_string() }
    }

    fn ends(_: &CentreCommand) -> bool {
        false
    }
}
