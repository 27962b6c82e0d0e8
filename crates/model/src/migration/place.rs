//! Where an owner's keys are.

use serde::{Deserialize, Serialize};

use super::Rejection;
use crate::{HostId, MigrationId};

/// One migration, as one of its two services sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Which.
    pub id: MigrationId,
    /// The host of the other service.
    pub peer: HostId,
    /// Counts the moves of the owner's keys: each is greater than all before it.
    pub epoch: u64,
}

/// Where an owner's keys are, as one service knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Place {
    /// Not here.
    Absent {
        /// The greatest epoch that was seen; 0: the owner was never here.
        epoch: u64,
    },
    /// Here, and answered for.
    Here {
        /// The greatest epoch that was seen.
        epoch: u64,
    },
    /// Source: the target is asked whether it takes them.
    Offering(Move),
    /// Source: they are on their way, and do not change meanwhile.
    Sending(Move),
    /// Source: given up; the target is told until it says that it has dropped what it had.
    Withdrawing(Move, Rejection),
    /// Source: gone from here; the target is told until it says that it answers.
    Released(Move),
    /// Target: a key for the parcel is there.
    Ready(Move),
    /// Target: stored, inactive.
    Held(Move),
}

impl Place {
    /// The migration under way.
    #[must_use]
    pub const fn moving(&self) -> Option<&Move> {
        match self {
            Self::Absent { .. } | Self::Here { .. } => None,
            Self::Offering(one)
            | Self::Sending(one)
            | Self::Withdrawing(one, _)
            | Self::Released(one)
            | Self::Ready(one)
            | Self::Held(one) => Some(one),
        }
    }

    /// The greatest epoch that was seen.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        match self {
            Self::Absent { epoch } | Self::Here { epoch } => *epoch,
            Self::Offering(one)
            | Self::Sending(one)
            | Self::Withdrawing(one, _)
            | Self::Released(one)
            | Self::Ready(one)
            | Self::Held(one) => one.epoch,
        }
    }

    /// Whether questions about the keys are answered here.
    #[must_use]
    pub const fn answers(&self) -> bool {
        match self {
            Self::Here { .. } | Self::Offering(_) | Self::Sending(_) | Self::Withdrawing(..) => {
                true
            }
            Self::Absent { .. } | Self::Released(_) | Self::Ready(_) | Self::Held(_) => false,
        }
    }

    /// Whether the keys may be changed here.
    ///
    /// # Errors
    /// [`Rejection::OwnerMigrating`], [`Rejection::OwnerMoved`].
    pub const fn takes_orders(&self) -> Result<(), Rejection> {
        match self {
            Self::Here { .. } | Self::Offering(_) | Self::Withdrawing(..) => Ok(()),
            Self::Absent { epoch: 0 } => Ok(()),
            Self::Absent { .. } | Self::Released(_) => Err(Rejection::OwnerMoved),
            Self::Sending(_) | Self::Ready(_) | Self::Held(_) => Err(Rejection::OwnerMigrating),
        }
    }

    /// Kebab-case name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "absent",
            Self::Here { .. } => "here",
            Self::Offering(_) => "offering",
            Self::Sending(_) => "sending",
            Self::Withdrawing(..) => "withdrawing",
            Self::Released(_) => "released",
            Self::Ready(_) => "ready",
            Self::Held(_) => "held",
        }
    }
}
