//! `vouchsafe key ...`: what can be typed about the keys of a trust service.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use model::{HostId, keys::KeyUse};

/// Verbs of the keys that a trust service answers for. They speak with it on this machine, as its
/// own user; `--config` names its configuration [default: /etc/vouchsafe/trust.toml].
#[derive(Debug, Args)]
pub struct Key {
    /// Which host's trust service, in a lab [default: the first].
    #[arg(long, global = true, value_name = "HOST")]
    pub host: Option<HostId>,
    /// Who you are, for the audit log [default: your user id].
    #[arg(long, global = true, value_name = "NAME")]
    pub operator: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub verb: KeyVerb,
}

/// What is done about keys.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Make a pass phrase for one order about a key of this name; it is shown once.
    Authorize {
        /// The key's name.
        #[arg(long)]
        name: String,
        /// Uses that may be asked for [default: any].
        #[arg(long, value_enum, value_delimiter = ',')]
        uses: Vec<UseArg>,
        /// An application's URI and the name in it that may be asked for; may be repeated.
        #[arg(long, value_name = "APPLICATION=NAME")]
        use_with: Vec<String>,
        /// How long the phrase stands, seconds [default: as configured].
        #[arg(long, value_name = "SECONDS")]
        life: Option<u64>,
        /// The VM that the key will be of: it moves with it.
        #[arg(long, value_name = "VM")]
        owner: Option<String>,
    },
    /// Move everything of a VM to the trust service of another host, and wait until it is there. The
    /// target must expect it (`key expect`); in a lab it is told.
    Migrate {
        /// The VM.
        #[arg(long, value_name = "VM")]
        owner: String,
        /// The host whose trust service has the keys, in a lab [default: as --host].
        #[arg(long, value_name = "HOST")]
        from: Option<HostId>,
        /// The host whose trust service is to have them.
        #[arg(long, value_name = "HOST")]
        to: HostId,
        /// Where that trust service listens for others: https://HOST:PORT [default: as in the lab].
        #[arg(long)]
        url: Option<String>,
        /// How long to wait, seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u64,
    },
    /// Announce, at the target, that a VM's keys come from another host's trust service.
    Expect {
        /// The VM.
        #[arg(long, value_name = "VM")]
        owner: String,
        /// The host whose trust service has them.
        #[arg(long, value_name = "HOST")]
        from: HostId,
        /// A CA (PEM) whose certificates are taken with them, besides those that are configured.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
    },
    /// Say where a VM's keys are.
    Migration {
        /// The VM.
        #[arg(long, value_name = "VM")]
        owner: String,
        /// Give up a migration that has not let go of the keys.
        #[arg(long)]
        cancel: bool,
    },
    /// Give one of a VM's identities a grade: who asks about its key must have that grade too.
    Grade {
        /// The VM.
        #[arg(long, value_name = "VM")]
        owner: String,
        /// The identity: a key's name.
        #[arg(long)]
        name: String,
        /// Its grade; 0 takes it away.
        #[arg(long)]
        grade: u8,
    },
    /// Let a VM's identities of a lower grade ask about its keys of a higher one; with neither
    /// --locate nor --validate that is taken back.
    Allow {
        /// The VM.
        #[arg(long, value_name = "VM")]
        owner: String,
        /// The lowest grade that may ask; 0: anyone.
        #[arg(long, value_name = "GRADE")]
        from: u8,
        /// The highest grade that may be asked about.
        #[arg(long, value_name = "GRADE")]
        to: u8,
        /// They may be located.
        #[arg(long)]
        locate: bool,
        /// They may be validated.
        #[arg(long)]
        validate: bool,
    },
    /// Say which grades a VM's identities have, and what is allowed between them.
    Grades {
        /// The VM.
        #[arg(long, value_name = "VM")]
        owner: String,
    },
    /// Certify and record bindings from a file, without pass phrases; what is bound already is left
    /// as it is, so an import that was cut short is repeated.
    Import {
        /// One JSON object a line: name, key (SubjectPublicKeyInfo in base64), and, if wanted, uses,
        /// use_with, not_before, not_on_or_after; `-` is standard input.
        file: PathBuf,
    },
    /// List bindings and orders that wait.
    List,
    /// End a binding at once.
    Revoke {
        /// The binding's id.
        id: String,
    },
    /// Decide an order that waits.
    Approve {
        /// The order.
        order: String,
        /// Refuse it.
        #[arg(long)]
        refuse: bool,
    },
    /// Agree that a private key in escrow is given back; different operators must.
    ApproveRecovery {
        /// The binding's id.
        id: String,
    },
    /// Say how the trust service stands.
    Status,
    /// Write the trust service's audit log and its checkpoint for `vouchsafe audit verify`.
    ExportAudit {
        /// Directory for `audit.jsonl`, `audit.checkpoint` and `audit-key.pem`.
        dir: PathBuf,
    },
}

/// A use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UseArg {
    /// Encrypting.
    Encryption,
    /// Agreeing on keys.
    Exchange,
    /// Signing.
    Signature,
}

impl From<UseArg> for KeyUse {
    fn from(arg: UseArg) -> Self {
        match arg {
            UseArg::Encryption => Self::Encryption,
            UseArg::Exchange => Self::Exchange,
            UseArg::Signature => Self::Signature,
        }
    }
}
