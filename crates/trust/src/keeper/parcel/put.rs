//! What came in a parcel is written, and what is an owner's deleted, as long as the owner's record stays
//! as it was.

use futures_util::future::join_all;
use serde::Serialize;
use store::{
    typed::{Place, Write},
    wait,
};

use super::{
    super::{
        Keeper, grade,
        library::rows_of,
        owner::{self, Gone, moved, moved_name, owned, revoked_key},
        record::{self, EntryId, Escrowed},
        refusal::{Fault, Why},
        resident, retried,
    },
    BATCH, Item, Standing, Unpacked,
};

impl Keeper {
    /// Writes what came in a parcel, over what is there of an earlier try, as long as the owner's
    /// record stays as it is: `standing`. Nobody sees it yet: that record says so.
    pub(in crate::keeper) fn put(
        &self,
        owner: &str,
        unpacked: &Unpacked,
        standing: &Standing,
    ) -> Result<(), Why> {
        for batch in unpacked.items.chunks(BATCH) {
            self.each(batch, standing, |item| self.put_one(owner, item))?;
        }
        self.each(unpacked.resident.as_slice(), standing, |key| {
            let place = resident::place(owner)?;
            let write = self.owning(owner, Write::new(), &place)?;
            self.upsert(write, place, key)
        })
    }

    fn put_one(&self, owner: &str, item: &Item) -> Result<Write, Why> {
        let write = Write::new();
        Ok(match item {
            Item::Entry(id, entry) => {
                let place = record::entry(*id)?;
                let mut write = self.owning(owner, write, &place)?;
                write = self.upsert(write, place, &**entry)?;
                if entry.replaced_by.is_none() {
                    for row in rows_of(*id, entry)? {
                        write = self.upsert(write, row, &())?;
                    }
                }
                write = self.without(write, moved(*id)?)?;
                self.without(write, moved_name(&entry.name)?)?
            }
            Item::Authorization(id, one) => {
                let place = record::authorization(&one.name, *id)?;
                let write = self.owning(owner, write, &place)?;
                let write = self.upsert(write, place, one)?;
                self.without(write, moved_name(&one.name)?)?
            }
            Item::Order(id, order) => {
                let place = record::order(*id)?;
                let write = self.owning(owner, write, &place)?;
                self.upsert(write, place, &**order)?
            }
            Item::Receipt(digest, receipt) => {
                let place = Place::at(format!("receipt/{digest}"))?;
                let write = self.owning(owner, write, &place)?;
                self.upsert(write, place, receipt)?
            }
            Item::Grades(set) => {
                let place = grade::place(owner)?;
                let write = self.owning(owner, write, &place)?;
                self.upsert(write, place, set)?
            }
            Item::Wrapped(id, sealed) => {
                let at_rest = sealed.until == 0;
                let place = if at_rest { record::escrow(*id)? } else { record::made(*id)? };
                self.upsert(write, place, sealed)?
            }
            // It is written as what this host's TPM made of it.
            Item::Travelling(_) => write,
            Item::Recovery(id, recovery) => self.upsert(write, record::recovery(*id)?, recovery)?,
            Item::Private(id, key, until) => {
                let place = if *until == 0 { record::escrow(*id)? } else { record::made(*id)? };
                let sealed = self.escrow.seal(*id, key.0.expose(), *until)?;
                self.upsert::<Escrowed>(write, place, &sealed)?
            }
        })
    }

    fn owning<T>(&self, owner: &str, write: Write, place: &Place<T>) -> Result<Write, Why> {
        let row: Place<()> = Place::at(format!("{}{}", owned(owner), place.key()))?;
        self.upsert(write, row, &())
    }

    fn upsert<T: Serialize + serde::de::DeserializeOwned>(
        &self,
        write: Write,
        place: Place<T>,
        value: &T,
    ) -> Result<Write, Why> {
        let version = self.library.get(&place)?.map_or(0, |known| known.version);
        Ok(write.put(place, value, version)?)
    }

    fn without<T: serde::de::DeserializeOwned>(
        &self,
        write: Write,
        place: Place<T>,
    ) -> Result<Write, Why> {
        Ok(match self.library.get(&place)? {
            Some(known) => write.delete(place, known.version),
            None => write,
        })
    }

    /// Makes a write of each and commits them together; those whose records another one of them
    /// changed (a name that several have) once more, alone.
    fn each<T>(
        &self,
        all: &[T],
        standing: &Standing,
        make: impl Fn(&T) -> Result<Write, Why>,
    ) -> Result<(), Why> {
        let guarded = |one: &T| -> Result<Write, Why> {
            Ok(make(one)?.only_if(owner::place(&standing.owner)?, standing.version))
        };
        let records = self.library.records();
        let writes = all.iter().map(&guarded).collect::<Result<Vec<_>, Why>>()?;
        let done = wait(join_all(writes.into_iter().map(|write| records.commit(write))));
        for (one, done) in all.iter().zip(done) {
            if !done? {
                retried(|| {
                    let again = self.library.commit(guarded(one)?)?;
                    if again { Ok(()) } else { Err(Fault::Contended.into()) }
                })?;
            }
        }
        Ok(())
    }

    /// Deletes everything of an owner whose keys are not here any more; `moved`: and remembers their
    /// names, so that orders about them are told so. Goes on where a crash interrupted it.
    pub(in crate::keeper) fn clear(&self, standing: &Standing, moved: bool) -> Result<(), Why> {
        let owner = standing.owner.as_str();
        loop {
            let keys = self.owned_keys(owner, BATCH)?;
            if keys.is_empty() {
                return Ok(());
            }
            self.each(&keys, standing, |key| self.clear_one(owner, key, moved))?;
        }
    }

    fn clear_one(&self, owner: &str, key: &str, remember: bool) -> Result<Write, Why> {
        let row: Place<()> = Place::at(format!("{}{key}", owned(owner)))?;
        let mut write = self.without(Write::new(), row)?;
        let (kind, rest) = key.split_once('/').unwrap_or((key, ""));
        let id = EntryId::from_hex(rest.rsplit('/').next().unwrap_or(rest));
        let anything: Place<serde_json::Value> = Place::at(key)?;
        let Some(id) = id.filter(|_| kind == "entry") else {
            return self.without(write, anything);
        };
        let Some(entry) = self.library.get(&record::entry(id)?)? else { return Ok(write) };
        if entry.value.replaced_by.is_none() {
            for row in rows_of(id, &entry.value)? {
                write = self.without(write, row)?;
            }
        }
        write = self.without(write, record::escrow(id)?)?;
        write = self.without(write, record::made(id)?)?;
        write = self.without(write, record::recovery(id)?)?;
        if remember {
            let gone = Gone {
                not_on_or_after: entry.value.not_on_or_after,
                ours: entry.value.chain.is_empty(),
            };
            write = self.upsert(write, moved(id)?, &gone)?;
            if entry.value.revoked_at.is_some() {
                write = self.upsert(write, revoked_key(&entry.value.key.0)?, &())?;
            }
            write = self.upsert(write, moved_name(&entry.value.name)?, &())?;
        }
        Ok(write.delete(record::entry(id)?, entry.version))
    }
}
