//! Reading the log back when a volume is opened (`docs/formats/vault.md`, "Log").
//!
//! ```text
//!   record authentic? -- yes -> its items -> next slot
//!                     \- no  -> end of the row; nothing of this header's may follow
//!   last record: do all of its sectors open? -- no -> drop it: a flush that was never acknowledged
//! ```

use std::io;

use super::{
    header::{Header, LOG_SLOT, SLOT_BYTES},
    keyring::Keyring,
    log::{self, Item, RecordHead},
    medium::Medium,
    page::{byte_of, refused},
    refs::Ref,
    seal::Unit,
};
use crate::Rejection;

/// What the log says.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// In the order in which they were written.
    pub(crate) items: Vec<Item>,
    /// Number of the next record.
    pub(crate) number: u64,
    /// Slots of the log that authentic records take.
    pub(crate) position: u64,
    /// Greatest sequence number in it.
    pub(crate) sequence: u64,
}

/// An authentic record: its head, what is in it, its tag.
type Record<T> = (RecordHead, T, [u8; 16]);

struct Reader<'a> {
    medium: &'a dyn Medium,
    ring: &'a Keyring,
    header: &'a Header,
}

/// Reads the records that follow `header`.
///
/// # Errors
/// [`Rejection::HeaderStale`], [`Rejection::LogDamaged`], [`Rejection::MetadataMalformed`] in it, or
/// the medium's error.
pub(crate) fn replay(medium: &dyn Medium, ring: &Keyring, header: &Header) -> io::Result<Replayed> {
    let reader = Reader { medium, ring, header };
    let mut found = Replayed { number: header.log_number, ..Replayed::default() };
    reader.check_stale()?;
    let mut chain = header.chain_salt;
    let mut last: Vec<Item> = Vec::new();
    while let Some((head, items, tag)) = reader.record(found.position, found.number, &chain)? {
        chain = tag;
        found.items.append(&mut last);
        last = items;
        found.number = found.number.saturating_add(1);
        found.position = found.position.saturating_add(head.slots());
        found.sequence = found.sequence.max(head.sequence);
    }
    reader.nothing_follows(&found)?;
    if header.clean && found.position > 0 {
        return Err(refused(Rejection::LogDamaged));
    }
    let whole = reader.all_open(&last)?;
    for name in last.iter().chain(&found.items).flat_map(names) {
        found.sequence = found.sequence.max(name.sequence);
    }
    if whole {
        found.items.append(&mut last);
    } else {
        tracing::warn!(log.record = found.number, "a flush that a crash cut off was dropped");
    }
    Ok(found)
}

fn names(item: &Item) -> &[Ref] {
    match item {
        Item::Refs(_, names) => names,
        Item::Null(..) => &[],
    }
}

impl Reader<'_> {
    fn slot(&self, position: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; SLOT_BYTES];
        match self.medium.read_at(byte_of(LOG_SLOT.saturating_add(position)), &mut bytes) {
            Ok(()) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads and opens the record at `position` if it is authentic under `chain`.
    fn open_at(
        &self,
        position: u64,
        wanted: impl Fn(&RecordHead) -> bool,
        chain: &[u8; 16],
    ) -> io::Result<Option<Record<Vec<u8>>>> {
        let log_slots = u64::from(self.header.log_slots);
        if position >= log_slots {
            return Ok(None);
        }
        let Some(first) = self.slot(position)? else { return Ok(None) };
        let Some((head, tag)) = RecordHead::decode(&first) else { return Ok(None) };
        let inside = position.saturating_add(head.slots()) <= log_slots;
        if !inside || head.session != self.header.session.id || !wanted(&head) {
            return Ok(None);
        }
        let slots = usize::try_from(head.slots()).map_err(io::Error::other)?;
        let mut record = vec![0; slots * SLOT_BYTES];
        match self.medium.read_at(byte_of(LOG_SLOT.saturating_add(position)), &mut record) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        let length = usize::try_from(head.length).map_err(io::Error::other)?;
        let mut body = record.split_off(log::HEAD_BYTES.min(record.len()));
        let rest = body.split_off(length.min(body.len()));
        let about = head.about(self.ring.uuid(), chain);
        let opened =
            self.ring.open_record(head.session, head.sequence, &about, &mut body, &tag).is_ok();
        let whole = opened && rest.iter().all(|&b| b == 0);
        Ok(whole.then_some((head, body, tag)))
    }

    fn record(
        &self,
        position: u64,
        number: u64,
        chain: &[u8; 16],
    ) -> io::Result<Option<Record<Vec<Item>>>> {
        let generation = self.header.generation;
        let wanted = |head: &RecordHead| head.number == number && head.generation == generation;
        let Some((head, body, tag)) = self.open_at(position, wanted, chain)? else {
            return Ok(None);
        };
        let sectors = self.header.size.div_ceil(4096);
        let items = log::decode_body(&body, self.header.data_slot(), sectors).map_err(refused)?;
        let known = |name: &Ref| name.is_null() || self.ring.epoch_of(name.session).is_some();
        if !items.iter().flat_map(names).all(known) {
            return Err(refused(Rejection::malformed("a log record of an unknown session")));
        }
        Ok(Some((head, items, tag)))
    }

    /// A record that follows a later header says that this is not the last one.
    fn check_stale(&self) -> io::Result<()> {
        let generation = self.header.generation;
        let later = |head: &RecordHead| head.generation > generation;
        match self.open_at(0, later, &self.header.chain_salt)? {
            Some(_) => Err(refused(Rejection::HeaderStale)),
            None => Ok(()),
        }
    }

    /// No crash leaves a later record of this header's behind a gap.
    fn nothing_follows(&self, found: &Replayed) -> io::Result<()> {
        for position in found.position..u64::from(self.header.log_slots) {
            let Some(bytes) = self.slot(position)? else { return Ok(()) };
            let Some((head, _)) = RecordHead::decode(&bytes) else { continue };
            if head.generation == self.header.generation
                && head.session == self.header.session.id
                && head.number > found.number
            {
                return Err(refused(Rejection::LogDamaged));
            }
        }
        Ok(())
    }

    fn all_open(&self, items: &[Item]) -> io::Result<bool> {
        let mut bytes = vec![0; SLOT_BYTES];
        for item in items {
            let Item::Refs(first, names) = item else { continue };
            for (sector, name) in (*first..).zip(names) {
                match self.medium.read_at(byte_of(name.slot()), &mut bytes) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                    Err(e) => return Err(e),
                }
                if self.ring.open(name, Unit::Sector(sector), &mut bytes).is_err() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
