//! The protocol between the volumes' headers, which the disk processes write, and their entries in
//! the table. Several volumes go through it together: their headers are written at the same time,
//! and one change of the table increments all of their counts.

use std::{path::PathBuf, sync::Arc, time::Duration};

use model::{
    Digest, Secret,
    anchor::{Action, Event, State, step},
    child::disk::{Reply, Request},
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::JoinSet,
};

use super::{
    Anchors, stale,
    table::{Count, Head},
};
use crate::{child::ask_disk, trouble::Trouble};

/// Where the attachment of one volume stands. Whoever holds it is the only one that advances it.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    state: State,
    /// The last action failed; what it left is unknown.
    unknown: bool,
}

/// A volume that goes through the protocol.
#[derive(Debug)]
pub(crate) struct Party {
    /// What it is called in the table.
    pub(crate) name: String,
    /// Its disk process.
    pub(crate) control: PathBuf,
    /// The count of the header in force, as that process says.
    pub(crate) header: u64,
    /// SHA-256 of the header that it wrote last.
    head: Option<Digest>,
    attached: OwnedMutexGuard<Attached>,
}

/// A task that is done, and the header that it wrote.
type Done = (Event, Option<Digest>);

/// How an attachment goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A disk process was just started: the guest may write when this is done.
    Attach,
    /// As that, for a volume that two operators have taken for the newest although it may be older.
    AttachOlder,
    /// What was written by now cannot be put back afterwards.
    Advance,
    /// The guest is done.
    Detach,
}

impl Anchors {
    fn entry(&self, name: &str) -> Arc<Mutex<Attached>> {
        Arc::clone(self.entries().entry(name.to_owned()).or_default())
    }

    /// Takes hold of a volume, when nobody else advances it.
    pub(crate) async fn hold(&self, name: &str, control: PathBuf) -> Party {
        let attached = self.entry(name).lock_owned().await;
        Party { name: name.to_owned(), control, header: 0, head: None, attached }
    }

    /// Takes hold of a volume unless somebody else advances it just now.
    pub(crate) fn try_hold(&self, name: &str, control: PathBuf, header: u64) -> Option<Party> {
        let attached = self.entry(name).try_lock_owned().ok()?;
        Some(Party { name: name.to_owned(), control, header, head: None, attached })
    }

    /// Takes all of them on; gives what came of each, in their order.
    ///
    /// # Errors
    /// In each: `rolled-back` or `anchor-mismatch`, by which the guest must not write (any more);
    /// any other, by which the window stays open and a later call tries again.
    pub(crate) async fn take_on(
        &self,
        key: &Secret<Vec<u8>>,
        parties: &mut [Party],
        next: Next,
        patience: Duration,
    ) -> Vec<Result<(), Trouble>> {
        let mut results: Vec<_> = parties.iter().map(|_| Ok(())).collect();
        for settled in [false, true] {
            let mut events = Vec::new();
            for (index, (party, result)) in parties.iter_mut().zip(&mut results).enumerate() {
                match self.event(key, party, next, settled).await {
                    Ok(event) => events.extend(event.map(|event| (index, event))),
                    Err(trouble) => *result = Err(trouble),
                }
            }
            self.drive(key, parties, events, (&mut results, patience)).await;
        }
        results
    }

    /// What happens to a volume: first what is open is settled, then what is wanted, if that is
    /// not the same.
    async fn event(
        &self,
        key: &Secret<Vec<u8>>,
        party: &mut Party,
        next: Next,
        settled: bool,
    ) -> Result<Option<Event>, Trouble> {
        if matches!(next, Next::Attach | Next::AttachOlder) && !settled {
            *party.attached = Attached::default();
        }
        let counter = async || self.count(key, &party.name).await;
        Ok(match (party.attached.state, party.attached.unknown, settled) {
            // Nobody but this agent changes the table.
            (_, true, false) => Some(Event::Retried { counter: counter().await?, alone: true }),
            (State::Closed, _, false) => {
                Some(Event::Opened { counter: counter().await?, header: party.header })
            }
            (State::Attached { .. }, false, true) if next == Next::Detach => Some(Event::Detach),
            (State::Attached { .. }, false, false) if next == Next::Advance => Some(Event::Tick),
            _ => None,
        })
    }

    /// Runs the protocol until all rest or have failed.
    async fn drive(
        &self,
        key: &Secret<Vec<u8>>,
        parties: &mut [Party],
        mut events: Vec<(usize, Event)>,
        (results, patience): (&mut [Result<(), Trouble>], Duration),
    ) {
        while !events.is_empty() {
            let (mut headers, mut counts) = (JoinSet::new(), Vec::new());
            for (index, event) in events.drain(..) {
                let Some(party) = parties.get_mut(index) else { continue };
                match party.step(event) {
                    Ok(Action::Rest) => {}
                    Ok(Action::WriteHeader { count, .. }) => {
                        headers.spawn(write_header(index, party.control.clone(), count, patience));
                    }
                    Ok(Action::Increment { from }) => counts.push((index, party.count(from))),
                    Err(trouble) => note(results, index, trouble),
                }
            }
            let mut done = headers.join_all().await;
            done.extend(self.incremented(key, counts).await);
            for (index, done) in done {
                match (done, parties.get_mut(index)) {
                    (Ok((event, head)), Some(party)) => {
                        party.head = head.or(party.head);
                        events.push((index, event));
                    }
                    (Err(trouble), Some(party)) => {
                        party.attached.unknown = true;
                        note(results, index, trouble);
                    }
                    (Ok(_) | Err(_), None) => {}
                }
            }
        }
    }

    /// Increments counts, all in one change of the table.
    async fn incremented(
        &self,
        key: &Secret<Vec<u8>>,
        counts: Vec<(usize, Count)>,
    ) -> Vec<(usize, Result<Done, Trouble>)> {
        let (at, wanted): (Vec<_>, Vec<_>) = counts.into_iter().unzip();
        let moved = match self.increment(key, &wanted).await {
            Ok(moved) => moved.into_iter().map(Ok).collect(),
            Err(trouble) => vec![Err(trouble); wanted.len()],
        };
        let told = |moved| (if moved { Event::Incremented } else { Event::Moved }, None);
        at.into_iter().zip(moved.into_iter().map(|moved| moved.map(told))).collect()
    }
}

impl Party {
    /// The increment that covers the header it wrote last.
    fn count(&self, from: u64) -> Count {
        let rest = matches!(self.attached.state, State::Counting { last: true, .. });
        let head = self.head.map(|digest| Head { digest, rest });
        Count { name: self.name.clone(), from, head }
    }

    fn step(&mut self, event: Event) -> Result<Action, Trouble> {
        let (state, action) =
            step(self.attached.state, event).map_err(|why| stale(&self.name, why, self.header))?;
        (self.attached.state, self.attached.unknown) = (state, false);
        Ok(action)
    }
}

fn note(results: &mut [Result<(), Trouble>], index: usize, trouble: Trouble) {
    if let Some(result) = results.get_mut(index) {
        *result = Err(trouble);
    }
}

/// Has a disk process make everything durable under a header with this count.
async fn write_header(
    index: usize,
    control: PathBuf,
    count: u64,
    patience: Duration,
) -> (usize, Result<Done, Trouble>) {
    let written = match ask_disk(&control, Request::Advance { count }, patience).await {
        Ok(Reply::Advanced { count: now, head }) if now == count => {
            Ok((Event::HeaderDurable, Some(head)))
        }
        Ok(_) => Err(Trouble::failed("the disk process answered something else")),
        Err(error) => Err(error.into()),
    };
    (index, written)
}
