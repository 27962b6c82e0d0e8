//! How the keys of one owner move from one trust service to another, as a pure transition. Both
//! services run this very function, each with one [`Place`] for each owner; it is stored in the
//! transaction that changes the keys, so that a crash at any point leaves a state that goes on.
//!
//! ```text
//! source                                           target
//! Here ─Begin─► Offering ────────── Offer ──────────► Absent ─► Ready     (a key for the parcel)
//!    ▲             │ ◄───────────── Ready ────────────────┘
//!    │             ▼
//!    │          Sending ─────────── Parcel ─────────► Ready ──► Held      (stored, inactive)
//!    │             │ ◄───────────── Receipt ──────────────┘
//!    │ Cancel,     ▼
//!    │ Refused, Released ────────── Activate ───────► Held ───► Here      (it answers)
//!    │ bad peer    │ ◄───────────── Activated ────────────┘
//!    │             ▼
//!    │          Absent
//! Withdrawing ───────────────────── Discard ────────► Ready, Held ─► Absent
//!    └◄──────────────────────────── Discarded ────────────┘
//! ```
//!
//! The source alone decides: before [`Place::Released`] it has the keys and may withdraw, from then
//! on it has none and goes on telling the target to activate. The target never decides by itself.
//!
//! **Invariants** (model-checked in `tests/migration.rs` on this very function, with messages that
//! are lost, repeated and reordered, crashes between every two steps and services that turn bad):
//! at most one service answers for the keys; they are always somewhere; once faults end, exactly one
//! service has them; they are sent to, and released to, only a service that is trusted at that
//! moment; an owner takes part in one migration at a time. **Deliberately absent:** clocks, keys,
//! transport.

mod place;
mod rejection;
mod wire;

pub use place::{Move, Place};
pub use rejection::Rejection;
pub use wire::{Body, Signed, Statement, info};

use crate::{HostId, MigrationId};

/// What happened. `trusted` says how the other service stands at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Source: the keys are to move to the service of `peer`. `least` is a lower bound of the epoch
    /// (a clock's reading: an owner that begins anew under an old name comes after the old one).
    Begin {
        /// Which migration it will be.
        id: MigrationId,
        /// Where to.
        peer: HostId,
        /// Its epoch is at least this.
        least: u64,
    },
    /// Source: an operator wants an end of it.
    Cancel {
        /// Which.
        id: MigrationId,
    },
    /// Source: an answer is overdue, or the process has just started.
    Again,
    /// Source, from the target: it is ready.
    Ready {
        /// For which.
        id: MigrationId,
        /// Whether it is to be trusted now.
        trusted: bool,
    },
    /// Source, from the target: it holds a parcel.
    Receipt {
        /// Of which.
        id: MigrationId,
        /// Whether it is the parcel that was sent.
        whole: bool,
        /// Whether it is to be trusted now.
        trusted: bool,
    },
    /// Source, from the target: it answers for the keys.
    Activated {
        /// In which.
        id: MigrationId,
    },
    /// Source, from the target: it has nothing of them.
    Discarded {
        /// In which.
        id: MigrationId,
    },
    /// Source, from the target: it does not take them.
    Refused {
        /// In which.
        id: MigrationId,
        /// Why.
        why: Rejection,
    },
    /// Target, from the source: keys are to come.
    Offer {
        /// The migration, with the source as peer.
        of: Move,
        /// Whether it is to be trusted now.
        trusted: bool,
    },
    /// Target, from the source: the keys.
    Parcel {
        /// The migration.
        of: Move,
        /// Why it is not taken: it did not open, say, or is not for this migration.
        unfit: Option<Rejection>,
    },
    /// Target, from the source: it has let go of them.
    Activate {
        /// The migration.
        of: Move,
    },
    /// Target, from the source: it keeps them.
    Discard {
        /// The migration.
        of: Move,
    },
}

/// What is changed in the transaction that stores the new [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Target: make the key that the parcel is sealed to.
    MakeKey,
    /// Target: store what was in the parcel, inactive.
    Hold,
    /// Target: what is held becomes what is answered for.
    Take,
    /// Target: drop the key and what is held.
    Drop,
    /// Source: delete the owner's keys.
    Delete,
}

/// What is said to the other service once that transaction is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Say {
    /// To the target.
    Offer,
    /// To the target.
    Parcel,
    /// To the target.
    Activate,
    /// To the target.
    Discard,
    /// To the source.
    Ready,
    /// To the source.
    Receipt,
    /// To the source.
    Activated,
    /// To the source.
    Discarded,
}

/// What comes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where the keys are now.
    pub place: Place,
    /// What changes with it.
    pub change: Option<Change>,
    /// What is said after it.
    pub say: Option<Say>,
}

const fn to(place: Place, change: Option<Change>, say: Option<Say>) -> Step {
    Step { place, change, say }
}

/// The transition. What comes too late changes nothing; what must not be is refused, and changes
/// nothing either.
///
/// # Errors
/// [`Rejection`].
pub fn step(place: &Place, event: Event) -> Result<Step, Rejection> {
    match event {
        Event::Begin { id, peer, least } => begin(place, id, peer, least),
        Event::Cancel { id } => {
            if let Place::Offering(one) | Place::Sending(one) = place
                && one.id == id
            {
                return Ok(withdraw(one, Rejection::MigrationCancelled));
            }
            Err(Rejection::MigrationUnknown)
        }
        Event::Again => Ok(again(place)),
        Event::Ready { .. }
        | Event::Receipt { .. }
        | Event::Activated { .. }
        | Event::Discarded { .. }
        | Event::Refused { .. } => Ok(answered(place, &event)),
        Event::Offer { of, trusted } => offered(place, of, trusted),
        Event::Parcel { of, unfit } => parcelled(place, &of, unfit),
        Event::Activate { of } => activated(place, &of),
        Event::Discard { of } => discarded(place, &of),
    }
}

fn begin(place: &Place, id: MigrationId, peer: HostId, least: u64) -> Result<Step, Rejection> {
    match place {
        Place::Here { epoch } => Ok(offer(*epoch, id, peer, least)),
        // To the same target this one is the later word: what it had is dropped with the offer.
        Place::Withdrawing(one, _) if one.peer == peer => Ok(offer(one.epoch, id, peer, least)),
        Place::Absent { epoch: 0 } => Err(Rejection::OwnerUnknown),
        Place::Absent { .. } | Place::Released(_) => Err(Rejection::OwnerMoved),
        Place::Offering(_)
        | Place::Sending(_)
        | Place::Withdrawing(..)
        | Place::Ready(_)
        | Place::Held(_) => Err(Rejection::OwnerMigrating),
    }
}

fn offer(last: u64, id: MigrationId, peer: HostId, least: u64) -> Step {
    let epoch = last.saturating_add(1).max(least);
    to(Place::Offering(Move { id, peer, epoch }), None, Some(Say::Offer))
}

fn withdraw(one: &Move, why: Rejection) -> Step {
    to(Place::Withdrawing(one.clone(), why), None, Some(Say::Discard))
}

fn again(place: &Place) -> Step {
    let say = match place {
        Place::Offering(_) => Some(Say::Offer),
        Place::Sending(_) => Some(Say::Parcel),
        Place::Released(_) => Some(Say::Activate),
        Place::Withdrawing(..) => Some(Say::Discard),
        Place::Absent { .. } | Place::Here { .. } | Place::Ready(_) | Place::Held(_) => None,
    };
    to(place.clone(), None, say)
}

/// The source hears from the target.
fn answered(place: &Place, event: &Event) -> Step {
    let late = || to(place.clone(), None, None);
    match (place, event) {
        (Place::Offering(one), Event::Ready { id, trusted }) if one.id == *id => {
            if *trusted {
                to(Place::Sending(one.clone()), None, Some(Say::Parcel))
            } else {
                withdraw(one, Rejection::PeerUntrusted)
            }
        }
        (Place::Sending(one), Event::Receipt { id, whole, trusted }) if one.id == *id => {
            match (whole, trusted) {
                (true, true) => {
                    to(Place::Released(one.clone()), Some(Change::Delete), Some(Say::Activate))
                }
                (false, _) => withdraw(one, Rejection::ParcelUnfit),
                (true, false) => withdraw(one, Rejection::PeerUntrusted),
            }
        }
        (Place::Offering(one) | Place::Sending(one), Event::Refused { id, why })
            if one.id == *id =>
        {
            withdraw(one, *why)
        }
        (Place::Released(one), Event::Activated { id }) if one.id == *id => {
            to(Place::Absent { epoch: one.epoch }, None, None)
        }
        (Place::Withdrawing(one, _), Event::Discarded { id }) if one.id == *id => {
            to(Place::Here { epoch: one.epoch }, None, None)
        }
        _ => late(),
    }
}

/// The target is asked.
fn offered(place: &Place, of: Move, trusted: bool) -> Result<Step, Rejection> {
    if !trusted {
        return Err(Rejection::PeerUntrusted);
    }
    match place {
        Place::Ready(one) | Place::Held(one) if one.id == of.id => {
            if *one == of {
                Ok(to(place.clone(), None, Some(Say::Ready)))
            } else {
                Err(Rejection::PeerWrong)
            }
        }
        // The source has begun anew: what it offered before is dropped.
        Place::Ready(one) | Place::Held(one) if one.peer == of.peer && one.epoch < of.epoch => {
            Ok(to(Place::Ready(of), Some(Change::MakeKey), Some(Say::Ready)))
        }
        Place::Absent { epoch } if *epoch < of.epoch => {
            Ok(to(Place::Ready(of), Some(Change::MakeKey), Some(Say::Ready)))
        }
        Place::Absent { .. } => Err(Rejection::MigrationStale),
        Place::Here { epoch } if *epoch >= of.epoch => Err(Rejection::MigrationStale),
        Place::Here { .. } => Err(Rejection::OwnerPresent),
        Place::Offering(_)
        | Place::Sending(_)
        | Place::Withdrawing(..)
        | Place::Released(_)
        | Place::Ready(_)
        | Place::Held(_) => Err(Rejection::OwnerMigrating),
    }
}

fn parcelled(place: &Place, of: &Move, unfit: Option<Rejection>) -> Result<Step, Rejection> {
    let (Place::Ready(one) | Place::Held(one)) = place else {
        return Err(Rejection::MigrationUnknown);
    };
    if one != of {
        return Err(if one.id == of.id {
            Rejection::PeerWrong
        } else {
            Rejection::MigrationUnknown
        });
    }
    if matches!(place, Place::Held(_)) {
        return Ok(to(place.clone(), None, Some(Say::Receipt)));
    }
    match unfit {
        None => Ok(to(Place::Held(one.clone()), Some(Change::Hold), Some(Say::Receipt))),
        Some(why) => Err(why),
    }
}

fn activated(place: &Place, of: &Move) -> Result<Step, Rejection> {
    if let Place::Ready(one) | Place::Held(one) = place
        && one.id == of.id
    {
        if matches!(place, Place::Ready(_)) || one != of {
            return Err(Rejection::PeerWrong);
        }
        let here = Place::Here { epoch: one.epoch };
        return Ok(to(here, Some(Change::Take), Some(Say::Activated)));
    }
    // It did so before, and the answer was lost: the keys may have moved on meanwhile.
    if place.epoch() >= of.epoch {
        return Ok(to(place.clone(), None, Some(Say::Activated)));
    }
    Err(Rejection::MigrationUnknown)
}

fn discarded(place: &Place, of: &Move) -> Result<Step, Rejection> {
    // What is remembered is that an offer of it that is still on its way comes too late.
    // A later word of the same source covers what it began before.
    let next = if let Place::Ready(one) | Place::Held(one) = place
        && (one == of || one.peer == of.peer && one.epoch < of.epoch)
    {
        let absent = Place::Absent { epoch: of.epoch };
        return Ok(to(absent, Some(Change::Drop), Some(Say::Discarded)));
    } else if let Place::Absent { epoch } = place {
        Place::Absent { epoch: of.epoch.max(*epoch) }
    } else if let Place::Here { epoch } = place {
        Place::Here { epoch: of.epoch.max(*epoch) }
    } else if place.epoch() >= of.epoch {
        place.clone()
    } else {
        return Err(Rejection::OwnerMigrating);
    };
    Ok(to(next, None, Some(Say::Discarded)))
}
