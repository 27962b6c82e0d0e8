//! The record of a volume's count at the authority: what a host is held to whose own table could
//! have been set back with the whole machine, and what another holder of the volume begins from.
//! Pure; the authority keeps [`Entry`], a host runs [`begin`].
//!
//! ```text
//!            grant to H                report by H           report by H, at rest and idle
//!   at rest ────────────► in use by H ─────────────► in use by H ────────────────► at rest
//!      ▲                       │  grant to another: not-handed-over, unless operators insist
//!      └── nothing came of it ─┘
//! ```
//!
//! **Invariants** (model-checked in this module's tests): while every run begins with a grant, no
//! holder opens a volume that lacks what a completed advance of any holder covered, whatever is lost,
//! crashes or is put back, holders with their counters included; a count never goes back.

use thiserror::Error;

use crate::Digest;

/// What is known of one volume. `H`: whoever has a table of counts, that is a host with its TPM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry<H> {
    /// The highest count that was reported.
    pub count: u64,
    /// SHA-256 of the header with that count.
    pub head: Digest,
    /// Who reported it.
    pub holder: H,
    /// Who may have the volume in use, and has not reported the end of it.
    pub run: Option<H>,
}

/// What a holder says of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// Its count.
    pub count: u64,
    /// SHA-256 of the header with that count.
    pub head: Digest,
    /// The volume was detached: nothing is written to it until it is opened again.
    pub rest: bool,
}

/// What a holder is told when it gets the volume's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    /// The count of the record.
    pub count: u64,
    /// The count is another holder's last word: the volume is opened at it.
    pub handed_over: bool,
}

/// Why a report, a grant or a volume is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The same count was reported with another header.
    #[error("another header with this count was reported: two copies of the volume were in use")]
    Forked,
    /// Somebody else may have it in use.
    #[error("its last holder has not reported how it left the volume")]
    NotHandedOver,
    /// The count is lower than the record's.
    #[error("it counts less than the authority's record")]
    RolledBack,
}

impl Rejection {
    /// The name of the refusal, in kebab-case.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Forked => "volume-forked",
            Self::NotHandedOver => "volume-not-handed-over",
            Self::RolledBack => "rolled-back",
        }
    }
}

/// The record after a report by `by`. `idle`: nothing is under way that a grant was made for, and the
/// holder said so. A volume at rest ends the run only then: before, it may be the one of an earlier
/// run that is reported late.
///
/// # Errors
/// [`Rejection`].
pub fn reported<H: Clone + Eq>(
    before: Option<&Entry<H>>,
    by: &H,
    report: &Report,
    idle: bool,
) -> Result<Entry<H>, Rejection> {
    let Report { count, head, rest } = *report;
    let ends = rest && idle;
    let run = (!ends).then(|| by.clone());
    let after = Entry { count, head, holder: by.clone(), run };
    let Some(before) = before else { return Ok(after) };
    if before.run.as_ref().unwrap_or(&before.holder) != by {
        return Err(Rejection::NotHandedOver);
    }
    if count < before.count {
        return Err(Rejection::RolledBack);
    }
    if count > before.count {
        return Ok(after);
    }
    if head != before.head {
        return Err(Rejection::Forked);
    }
    let run = if ends && before.holder == *by { None } else { before.run.clone() };
    Ok(Entry { run, ..before.clone() })
}

/// The record after the volume's key is granted to `to`, and what `to` is told. `insisted`: two
/// operators want the volume opened whatever it counts.
///
/// # Errors
/// [`Rejection::NotHandedOver`].
pub fn granted<H: Clone + Eq>(
    before: &Entry<H>,
    to: &H,
    insisted: bool,
) -> Result<(Entry<H>, Start), Rejection> {
    let free = before.run.as_ref().is_none_or(|run| run == to);
    if !free && !insisted {
        return Err(Rejection::NotHandedOver);
    }
    let start = Start { count: before.count, handed_over: before.holder != *to };
    Ok((Entry { run: Some(to.clone()), ..before.clone() }, start))
}

/// The count that a holder opens the volume with: `own` is what its table says. `None`: it knows
/// nothing of the volume, and is not handed it.
///
/// # Errors
/// [`Rejection::RolledBack`]: the table is older than the record.
pub fn begin(told: Option<Start>, own: Option<u64>) -> Result<Option<u64>, Rejection> {
    match (told, own) {
        (Some(Start { count, handed_over: true }), own) => {
            Ok(Some(own.unwrap_or_default().max(count)))
        }
        (Some(Start { count, .. }), Some(own)) if own < count => Err(Rejection::RolledBack),
        (_, own) => Ok(own),
    }
}

#[cfg(test)]
mod checked;
#[cfg(test)]
mod tests;
