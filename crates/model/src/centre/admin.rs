//! What an administrator asks of a running centre, on the unix socket in its state directory: the
//! frames of [`crate::child`], a request and its reply in turn. Who may ask is decided by the
//! socket: processes of the centre's own user. Operators of the cloud are not among them.

use serde::{Deserialize, Serialize};

use super::{MigrationOrder, MigrationStage, ServiceEntry};
use crate::{
    HostId,
    id::{Domain, MigrationId, OrderId, Tenant},
};

/// Name of the socket in the state directory.
pub const SOCKET: &str = "admin.sock";

/// What an administrator asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CentreCommand {
    /// How it stands: [`CentreReply::Status`].
    Status,
    /// The orders that are not at their end: [`CentreReply::Queue`].
    Queue {
        /// At most so many.
        limit: u32,
    },
    /// Has everything of an owner moved to another trust service: [`CentreReply::Migrating`].
    Migrate {
        /// Whose keys: a VM's name.
        owner: String,
        /// From this server.
        from: HostId,
        /// To this one.
        to: HostId,
        /// Who says so.
        operator: String,
    },
    /// How far a migration is: [`CentreReply::Migration`].
    Migration {
        /// Which.
        id: MigrationId,
    },
    /// Gives a migration up, at the centre; what trust services began, their operators end:
    /// [`CentreReply::Migration`].
    Cancel {
        /// Which.
        id: MigrationId,
        /// Who says so.
        operator: String,
    },
    /// Signs a checkpoint of the audit log and writes both out: [`CentreReply::AuditExported`].
    ExportAudit,
}

/// What it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CentreReply {
    /// How it stands.
    Status(CentreStatus),
    /// Orders, oldest first.
    Queue {
        /// At most as many as were asked for.
        orders: Vec<ListedOrder>,
        /// How many there are.
        total: u64,
    },
    /// The two trust services will learn of it.
    Migrating(MigrationOrder),
    /// How far it is.
    Migration {
        /// The order.
        order: MigrationOrder,
        /// Where it is.
        stage: MigrationStage,
        /// Name of the rule that ended it.
        refusal: Option<String>,
    },
    /// The log is written out.
    AuditExported {
        /// Where.
        directory: String,
        /// How many entries.
        entries: u64,
    },
    /// A rule said no.
    Refused {
        /// Its name.
        name: String,
        /// In words.
        detail: String,
        /// What to do.
        hint: String,
    },
    /// It went wrong.
    Failed {
        /// What did.
        detail: String,
    },
}

/// How the centre stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CentreStatus {
    /// The PKIs.
    pub domains: Vec<DomainStatus>,
    /// Tenants with open orders.
    pub tenants: Vec<TenantStatus>,
    /// Trust services that said hello.
    pub services: Vec<ServiceEntry>,
    /// Number of the newest feed item.
    pub newest: u64,
    /// Entries in the audit log.
    pub audit_entries: u64,
}

/// How a PKI stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainStatus {
    /// Its name.
    pub domain: Domain,
    /// `own`, `cmp` or `acme`.
    pub provider: String,
    /// Orders that wait for their turn or their next try.
    pub queued: u32,
    /// Orders that it works on.
    pub working: u32,
    /// Orders at their end since the centre started.
    pub ended: u64,
    /// Tries that failed and were put off since the centre started.
    pub put_off: u64,
}

/// How a tenant stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantStatus {
    /// Its name.
    pub tenant: Tenant,
    /// The PKI.
    pub domain: Domain,
    /// Its orders that wait for their turn.
    pub queued: u32,
    /// Its orders that were refused for want of room since the centre started.
    pub turned_away: u64,
}

/// An order in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedOrder {
    /// Its id.
    pub id: OrderId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The PKI.
    pub domain: Domain,
    /// `enrol`, `renew` or `revoke`.
    pub work: String,
    /// Since when it is here.
    pub at: u64,
    /// The server whose trust service gave it.
    pub host: HostId,
}
