//! Why keys do not move.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a step of a migration is refused, or a migration was given up.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Rejection {
    /// A certificate leads to no CA that the target knows.
    #[error("a certificate leads to no CA that the target was told of")]
    IssuerUnknown,
    /// The place for the owner's key is in no TPM that the target's host enrolled.
    #[error("the parent for the owner's key is not in the TPM that the target's host enrolled")]
    KeyParentForeign,
    /// The owner's key lives in a TPM, and the target has no place for it.
    #[error("the owner's key lives in a TPM, and the target named no parent for it")]
    KeyParentMissing,
    /// An operator ended it.
    #[error("an operator ended the migration")]
    MigrationCancelled,
    /// It is older than what was seen of the owner.
    #[error("the migration is older than what this service knows of the owner")]
    MigrationStale,
    /// Nobody announced it at the target.
    #[error("nobody announced at the target that this owner's keys come from here")]
    MigrationUnexpected,
    /// There is no such migration here.
    #[error("this service knows of no such migration")]
    MigrationUnknown,
    /// The owner takes part in another migration.
    #[error("the owner's keys are being moved already")]
    OwnerMigrating,
    /// The owner's keys were moved away.
    #[error("the owner's keys were moved to another trust service")]
    OwnerMoved,
    /// The target has keys of that owner.
    #[error("the target has keys of this owner already")]
    OwnerPresent,
    /// The owner has no keys here.
    #[error("the owner has no keys here")]
    OwnerUnknown,
    /// The parcel is not what was agreed.
    #[error("the parcel is not the one that was agreed on")]
    ParcelUnfit,
    /// The other service's host is not trusted now.
    #[error("the other trust service is not to be trusted now")]
    PeerUntrusted,
    /// The other service is not the one of this migration.
    #[error("the migration is with another trust service")]
    PeerWrong,
}

impl Rejection {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::IssuerUnknown,
        Self::KeyParentForeign,
        Self::KeyParentMissing,
        Self::MigrationCancelled,
        Self::MigrationStale,
        Self::MigrationUnexpected,
        Self::MigrationUnknown,
        Self::OwnerMigrating,
        Self::OwnerMoved,
        Self::OwnerPresent,
        Self::OwnerUnknown,
        Self::ParcelUnfit,
        Self::PeerUntrusted,
        Self::PeerWrong,
    ];

    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::IssuerUnknown => "issuer-unknown",
            Self::KeyParentForeign => "key-parent-foreign",
            Self::KeyParentMissing => "key-parent-missing",
            Self::MigrationCancelled => "migration-cancelled",
            Self::MigrationStale => "migration-stale",
            Self::MigrationUnexpected => "migration-unexpected",
            Self::MigrationUnknown => "migration-unknown",
            Self::OwnerMigrating => "owner-migrating",
            Self::OwnerMoved => "owner-moved",
            Self::OwnerPresent => "owner-present",
            Self::OwnerUnknown => "owner-unknown",
            Self::ParcelUnfit => "parcel-unfit",
            Self::PeerUntrusted => "peer-untrusted",
            Self::PeerWrong => "peer-wrong",
        }
    }

    /// From its name.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.code() == code)
    }
}
