//! The operators' socket in the state directory. Whoever runs as the service's own user is an
//! operator; which one is what they say, and it is written down.

use std::{io, os::unix::net::UnixListener, path::PathBuf, sync::Arc};

use model::{
    api::Bytes,
    child::FrameError,
    keys::admin::{AdminReply, AdminRequest, KeeperStatus, ListedBinding, SOCKET},
};
use serve::{control, exit::chain, fsfile, shutdown::Shutdown};
use store::{Key, typed::RecordError, wait};

use super::{
    Keeper,
    authorize::check_operator,
    import::{Imported, Unfit},
    record::{Entry, EntryId},
    refusal::{Refusal, Why},
    retried, status,
};

/// Most bindings in one list.
const MAX_LISTED: u32 = 500;

/// The keeper behind its socket.
struct Operators {
    keeper: Arc<Keeper>,
    listener: UnixListener,
}

impl Keeper {
    /// Listens for operators, and keeps house, in threads of their own until `stop` is raised.
    ///
    /// # Errors
    /// If the socket cannot be made or no thread be started.
    pub fn start(self: &Arc<Self>, stop: &Shutdown) -> io::Result<()> {
        let path = self.socket();
        fsfile::remove(&path).map_err(io::Error::other)?;
        let listener = UnixListener::bind(&path)?;
        let operators = Operators { keeper: Arc::clone(self), listener };
        control::start(operators, stop.clone())?;
        self.attend_centre(stop)?;
        self.keep_house(stop.clone())
    }

    /// Where operators reach this keeper.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }

    /// Does what an operator asks.
    #[must_use]
    pub fn administer(&self, request: AdminRequest) -> AdminReply {
        let (event, by, subject) = about(&request);
        match self.administered(request) {
            Ok(reply) => reply,
            Err(Why::Refused(refusal)) => {
                match self.journal.refused(&by, event, &subject, refusal) {
                    Ok(()) => refused(refusal),
                    Err(fault) => AdminReply::Failed { detail: chain(&fault) },
                }
            }
            Err(Why::Fault(fault)) => AdminReply::Failed { detail: chain(&fault) },
        }
    }

    fn administered(&self, request: AdminRequest) -> Result<AdminReply, Why> {
        Ok(match request {
            AdminRequest::Authorize(asked) => {
                let (pass_phrase, expires_at) = retried(|| self.authorize(&asked))?;
                AdminReply::Authorized { pass_phrase, name: asked.name, expires_at }
            }
            AdminRequest::List { after, limit } => self.list(after.as_deref(), limit)?,
            AdminRequest::Revoke { id, operator } => {
                let entry = EntryId::from_public(&id).ok_or(Refusal::BindingUnknown)?;
                let at = self.revoke_by_operator(entry, &operator)?;
                AdminReply::Revoked { id, at }
            }
            AdminRequest::Approve { order, operator, approve } => {
                let id = EntryId::from_hex(&order).ok_or(Refusal::OrderUnknown)?;
                let refused = self.decide(id, &operator, approve)?;
                let refused = refused.map(|refusal| refusal.name().to_owned());
                AdminReply::Decided { order, refused }
            }
            AdminRequest::ApproveRecovery { id, operator } => {
                let entry = EntryId::from_public(&id).ok_or(Refusal::BindingUnknown)?;
                let (missing, pass_phrase) = retried(|| self.approve_recovery(entry, &operator))?;
                AdminReply::RecoveryApproved { id, missing, pass_phrase }
            }
            AdminRequest::Migrate { owner, host, url, operator } => {
                AdminReply::Migration(self.begin((&owner, &operator), &host, &url, None)?)
            }
            AdminRequest::Expect { owner, from, ca, operator } => {
                let until = self.expect((&owner, &operator), &from, ca)?;
                AdminReply::Expected { owner, from, until }
            }
            AdminRequest::Grade { owner, name, grade, operator } => {
                AdminReply::Grades(self.grade((&owner, &operator), &name, grade)?)
            }
            AdminRequest::Allow { owner, allowance, operator } => {
                AdminReply::Grades(self.allow((&owner, &operator), allowance)?)
            }
            AdminRequest::Grades { owner } => AdminReply::Grades(self.grades(&owner)?),
            AdminRequest::Migration { owner } => AdminReply::Migration(self.whereabouts(&owner)?),
            AdminRequest::CancelMigration { owner, operator } => {
                AdminReply::Migration(self.cancel(&owner, &operator)?)
            }
            AdminRequest::Import { bindings, operator } => {
                let by = format!("operator:{}", check_operator(&operator)?);
                match self.imported(&bindings, &by)? {
                    Ok(Imported { made, present }) => AdminReply::Imported { made, present },
                    Err(Unfit { at, refusal }) => AdminReply::Unfit {
                        at: u32::try_from(at).unwrap_or(u32::MAX),
                        name: refusal.name().to_owned(),
                        detail: refusal.to_string(),
                        hint: refusal.hint().to_owned(),
                    },
                }
            }
            AdminRequest::Status => AdminReply::Status(self.standing()?),
            AdminRequest::ExportAudit => {
                let dir = self.dir.join("audit-export");
                let entries = self.journal.export(&dir)?;
                AdminReply::AuditExported { dir: dir.display().to_string(), entries }
            }
        })
    }

    fn standing(&self) -> Result<KeeperStatus, Why> {
        let store = self.library.records().sealed().store();
        Ok(KeeperStatus {
            pid: std::process::id(),
            ca: Bytes(self.ca_certificate().to_vec()),
            crl_number: self.crl_number()?,
            audit_entries: self.journal.size(),
            revision: wait(store.state()).map_err(RecordError::from)?.revision,
            centre: self.issuer.line().map(|line| line.standing()),
        })
    }

    fn list(&self, after: Option<&str>, limit: u32) -> Result<AdminReply, Why> {
        let limit = usize::try_from(limit.clamp(1, MAX_LISTED)).unwrap_or(1);
        let after = after.map(|id| EntryId::from_public(id).ok_or(Refusal::BindingUnknown));
        let after = after.transpose()?.map(|id| Key::new(format!("entry/{id}")));
        let after = after.transpose().map_err(RecordError::from)?;
        let page = wait(self.library.records().page::<Entry>("entry/", after, limit));
        let (page, more) = page?;
        let now = self.now();
        let instant = i64::try_from(now).unwrap_or(i64::MAX);
        let until = self.issuer.knowledge(now).until;
        let listed = page.into_iter().filter_map(|(key, entry)| {
            let id = EntryId::from_hex(key.as_str().strip_prefix("entry/")?)?;
            if !self.library.shows(&entry.value).unwrap_or(false) {
                return None;
            }
            let (entry, ca) = (entry.value, self.ca_certificate());
            let (revoked_at, escrowed) = (entry.revoked_at, entry.escrowed);
            let known = status::of_entry(&entry, instant, now, until);
            let binding = status::answered(id, entry, ca, Some(known));
            Some(ListedBinding { binding, revoked_at, escrowed })
        });
        Ok(AdminReply::Listed { bindings: listed.collect(), more, orders: self.waiting_orders()? })
    }
}

/// Event, actor and subject of a request, for the audit log.
fn about(request: &AdminRequest) -> (&'static str, String, String) {
    let by = |operator: &str| format!("operator:{operator}");
    match request {
        AdminRequest::Authorize(asked) => {
            ("key-authorize", by(&asked.operator), format!("key:{}", asked.name))
        }
        AdminRequest::List { .. } => ("key-list", by(""), "trust".to_owned()),
        AdminRequest::Revoke { id, operator } => ("key-revoke", by(operator), format!("key:{id}")),
        AdminRequest::Approve { order, operator, .. } => {
            ("key-order", by(operator), format!("order:{order}"))
        }
        AdminRequest::ApproveRecovery { id, operator } => {
            ("key-recovery", by(operator), format!("key:{id}"))
        }
        AdminRequest::Migrate { owner, operator, .. }
        | AdminRequest::Expect { owner, operator, .. }
        | AdminRequest::CancelMigration { owner, operator } => {
            ("key-migration", by(operator), format!("owner:{owner}"))
        }
        AdminRequest::Grade { owner, operator, .. }
        | AdminRequest::Allow { owner, operator, .. } => {
            ("key-grade", by(operator), format!("owner:{owner}"))
        }
        AdminRequest::Grades { owner } => ("key-grade", by(""), format!("owner:{owner}")),
        AdminRequest::Migration { owner } => ("key-migration", by(""), format!("owner:{owner}")),
        AdminRequest::Import { operator, .. } => {
            ("keys-import", by(operator), "library".to_owned())
        }
        AdminRequest::Status => ("trust-status", by(""), "trust".to_owned()),
        AdminRequest::ExportAudit => ("audit-export", by(""), "trust".to_owned()),
    }
}

fn refused(refusal: Refusal) -> AdminReply {
    AdminReply::Refused {
        name: refusal.name().to_owned(),
        detail: refusal.to_string(),
        hint: refusal.hint().to_owned(),
    }
}

impl control::Service for Operators {
    type Request = AdminRequest;
    type Reply = AdminReply;

    fn listener(&self) -> &UnixListener {
        &self.listener
    }

    fn answer(&self, request: AdminRequest) -> AdminReply {
        self.keeper.administer(request)
    }

    fn malformed(&self, error: &FrameError) -> AdminReply {
        AdminReply::Failed { detail: chain(error) }
    }

    fn ends(_: &AdminRequest) -> bool {
        false
    }
}
