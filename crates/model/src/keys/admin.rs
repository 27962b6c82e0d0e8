//! What an operator asks of a running trust service, on the unix socket in its state directory:
//! the frames of [`crate::child`], a request and its reply in turn. Who may ask is decided by the
//! socket: processes of the service's own user.

use serde::{Deserialize, Serialize};

use super::{
    Allowance, Grades, KeyBinding, KeyUse, UseWith,
    order::{KeyOperation, Prototype, SecretBytes},
};
use crate::{HostId, api::Bytes, migration::Place};

/// Name of the socket in the state directory.
pub const SOCKET: &str = "admin.sock";

/// What an operator asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminRequest {
    /// A pass phrase for one registration: [`AdminReply::Authorized`].
    Authorize(Authorize),
    /// Bindings, orders and authorizations: [`AdminReply::Listed`].
    List {
        /// Only bindings whose id is after this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// At most so many bindings.
        limit: u32,
    },
    /// Ends a binding: [`AdminReply::Revoked`].
    Revoke {
        /// Which.
        id: String,
        /// Who says so.
        operator: String,
    },
    /// Decides an order that waits: [`AdminReply::Decided`].
    Approve {
        /// Which.
        order: String,
        /// Who says so.
        operator: String,
        /// Yes or no.
        approve: bool,
    },
    /// Approves that an escrowed key is given back: [`AdminReply::RecoveryApproved`].
    ApproveRecovery {
        /// Id of the binding.
        id: String,
        /// Who says so; two different operators must.
        operator: String,
    },
    /// Moves everything of an owner to the trust service of another host:
    /// [`AdminReply::Migration`], at once; ask [`AdminRequest::Migration`] how far it is.
    Migrate {
        /// Whose keys: a VM's name.
        owner: String,
        /// The other host.
        host: HostId,
        /// Where its trust service listens for others: `https://HOST:PORT`.
        url: String,
        /// Who says so.
        operator: String,
    },
    /// Announces, at the target, that an owner's keys come from a host: without it they are not
    /// taken. [`AdminReply::Expected`].
    Expect {
        /// Whose keys: a VM's name.
        owner: String,
        /// The host whose trust service has them.
        from: HostId,
        /// A CA's certificate (DER) whose certificates are taken with them, besides those that are
        /// configured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<Bytes>,
        /// Who says so.
        operator: String,
    },
    /// Where an owner's keys are: [`AdminReply::Migration`].
    Migration {
        /// Whose keys.
        owner: String,
    },
    /// Gives up a migration that has not let go of the keys: [`AdminReply::Migration`].
    CancelMigration {
        /// Whose keys.
        owner: String,
        /// Who says so.
        operator: String,
    },
    /// Certifies and records many bindings at once; those that are there already are left as they
    /// are: [`AdminReply::Imported`], or [`AdminReply::Unfit`].
    Import {
        /// The bindings, each with a key and a name.
        bindings: Vec<Prototype>,
        /// Who says so.
        operator: String,
    },
    /// Gives an owner's identity a grade: [`AdminReply::Grades`].
    Grade {
        /// Whose: a VM's name.
        owner: String,
        /// The identity: a key name, whether there is such a key or not yet.
        name: String,
        /// Its grade; 0 takes it away.
        grade: u8,
        /// Who says so.
        operator: String,
    },
    /// Allows an owner's identities of a lower grade to ask about its keys of a higher one, or takes
    /// that back: [`AdminReply::Grades`].
    Allow {
        /// Whose: a VM's name.
        owner: String,
        /// What is allowed; neither to locate nor to validate takes it back.
        allowance: Allowance,
        /// Who says so.
        operator: String,
    },
    /// What was set of an owner's identities: [`AdminReply::Grades`].
    Grades {
        /// Whose.
        owner: String,
    },
    /// How it stands: [`AdminReply::Status`].
    Status,
    /// Signs a checkpoint of the audit log and writes both out: [`AdminReply::AuditExported`].
    ExportAudit,
}

/// What a pass phrase is to allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorize {
    /// The only key name that may be registered with it.
    pub name: String,
    /// The uses that may be asked for; none leaves them to the service.
    #[serde(default)]
    pub uses: Vec<KeyUse>,
    /// The applications and names that may be asked for.
    #[serde(default)]
    pub use_with: Vec<UseWith>,
    /// How long it stands, seconds; none is the configured life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_s: Option<u64>,
    /// Whose the key will be: a VM's name. It moves with that VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Who allows it.
    pub operator: String,
}

/// A binding in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedBinding {
    /// The binding, with its status now.
    pub binding: KeyBinding,
    /// Since when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
    /// Whether its private key is in escrow.
    pub escrowed: bool,
}

/// An order that waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedOrder {
    /// What it is known by here.
    pub order: String,
    /// What is to be done.
    pub operation: KeyOperation,
    /// The key's name.
    pub name: String,
    /// When it was put off.
    pub at: u64,
}

/// The replies.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminReply {
    /// To [`AdminRequest::Authorize`].
    Authorized {
        /// The pass phrase: shown once, kept nowhere in clear.
        pass_phrase: SecretBytes,
        /// The key name it is for.
        name: String,
        /// When it ends.
        expires_at: u64,
    },
    /// To [`AdminRequest::List`].
    Listed {
        /// Bindings by id.
        bindings: Vec<ListedBinding>,
        /// Whether there are more.
        more: bool,
        /// Orders that wait, at most 1000.
        orders: Vec<ListedOrder>,
    },
    /// To [`AdminRequest::Revoke`].
    Revoked {
        /// Which.
        id: String,
        /// Since when.
        at: u64,
    },
    /// To [`AdminRequest::Approve`].
    Decided {
        /// Which.
        order: String,
        /// Name of the refusal, if it was not carried out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    /// To [`AdminRequest::ApproveRecovery`].
    RecoveryApproved {
        /// Which binding.
        id: String,
        /// How many operators are missing.
        missing: u32,
        /// The pass phrase that recovers, once: shown to the operator whose approval was the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pass_phrase: Option<SecretBytes>,
    },
    /// To [`AdminRequest::Expect`].
    Expected {
        /// Whose keys.
        owner: String,
        /// From where.
        from: HostId,
        /// Until when.
        until: u64,
    },
    /// To [`AdminRequest::Migrate`] and the like.
    Migration(OwnerView),
    /// To [`AdminRequest::Import`].
    Imported {
        /// Bindings that were made.
        made: u64,
        /// Bindings that were there before.
        present: u64,
    },
    /// To [`AdminRequest::Import`]: one cannot be made, and nothing was.
    Unfit {
        /// Which, from 0.
        at: u32,
        /// Name of the rule that says no.
        name: String,
        /// What it says.
        detail: String,
        /// What the operator can do next.
        hint: String,
    },
    /// To [`AdminRequest::Grade`] and the like.
    Grades(Grades),
    /// To [`AdminRequest::Status`].
    Status(KeeperStatus),
    /// To [`AdminRequest::ExportAudit`].
    AuditExported {
        /// Where the files are: `audit.jsonl`, `audit.checkpoint` and `audit-key.pem`.
        dir: String,
        /// How many entries.
        entries: u64,
    },
    /// A rule said no.
    Refused {
        /// Its name.
        name: String,
        /// What it says.
        detail: String,
        /// What the operator can do next.
        hint: String,
    },
    /// It could not be decided.
    Failed {
        /// In words, without secrets.
        detail: String,
    },
}

/// Where an owner's keys are, as one trust service knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerView {
    /// Whose keys.
    pub owner: String,
    /// Where they are: `here`, `absent`, or how far the migration is.
    pub place: Place,
    /// Why the last migration from here was given up, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// How a keeper stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeeperStatus {
    /// Its process id.
    pub pid: u32,
    /// The CA's certificate, DER.
    pub ca: Bytes,
    /// Number of the newest full CRL.
    pub crl_number: u64,
    /// Entries of the audit log.
    pub audit_entries: u64,
    /// The store's revision.
    pub revision: u64,
    /// The line to the key-management centre, in the manners that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centre: Option<CentreStanding>,
}

/// How a trust service stands with its key-management centre.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CentreStanding {
    /// `hybrid` or `proxy`.
    pub manner: String,
    /// When the library was complete, Unix milliseconds.
    pub as_of: u64,
    /// Whether the centre was found away a moment ago.
    pub away: bool,
    /// Orders that the centre is not done with.
    pub outstanding: u64,
    /// Questions answered from the library since the start.
    pub local: u64,
    /// Questions answered as the centre answered them before.
    pub cached: u64,
    /// Questions that the centre answered.
    pub forwarded: u64,
}
