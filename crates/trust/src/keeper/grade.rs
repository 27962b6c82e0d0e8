//! Access between levels: one VM may hold several identities, and what one of a lower grade may ask
//! about keys of a higher one is nothing, unless an operator allowed it.
//!
//! ```text
//! question, signed by ─► binding in force ─► its name's grade, if it is the same owner's; else 0
//!                                                  │ at least the grade of each key that was found?
//!                                                  ├─ yes, or allowed ─► answered
//!                                                  └─ no ─► `grade-too-low`, in the audit log
//! ```
//! An identity is an owner's key name; what was set of an owner moves with it. **Invariants:** who
//! signed nothing has grade 0, and so has everybody in front of another owner's keys; one key of a
//! higher grade among those that were found is enough to refuse the question. Orders need no grades:
//! they are taken from the key itself, or by a pass phrase for its very name.

use std::collections::{BTreeMap, btree_map::Entry as Slot};

use model::{
    api::Bytes,
    keys::{Allowance, Grades, KeyExample},
};
use store::typed::{Place, RecordError, Versioned, Write};

use super::{
    Keeper,
    authorize::{check_name, check_operator, check_owner},
    library::Hits,
    record::short_digest,
    refusal::{Fault, Refusal, Why},
    retried,
};

/// Most names with a grade, and most allowances, of one owner.
const MOST: usize = 256;
/// Bindings of one key that are looked at for who signed.
pub(super) const MAX_OF_KEY: usize = 16;

/// Who asks: an owner and one of its key names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    owner: Option<String>,
    name: String,
}

/// Where what was set of an owner is.
pub(super) fn place(owner: &str) -> Result<Place<Grades>, RecordError> {
    Place::at(format!("grade/{}", short_digest(&[owner.as_bytes()])))
}

impl Keeper {
    /// What was set of an owner.
    pub(super) fn grades(&self, owner: &str) -> Result<Grades, Why> {
        check_owner(owner)?;
        Ok(self.held_grades(owner)?.value)
    }

    fn held_grades(&self, owner: &str) -> Result<Versioned<Grades>, Why> {
        let known = self.library.get(&place(owner)?)?;
        Ok(known.unwrap_or_else(|| Versioned { value: Grades::none(owner), version: 0 }))
    }

    /// Gives an identity a grade; 0 takes it away.
    pub(super) fn grade(
        &self,
        (owner, operator): (&str, &str),
        name: &str,
        grade: u8,
    ) -> Result<Grades, Why> {
        check_name(Some(name))?;
        let detail = format!("{name}: {grade}");
        self.set_grades((owner, operator), "key-graded", &detail, |set| {
            if grade == 0 {
                set.names.remove(name);
            } else {
                set.names.insert(name.to_owned(), grade);
            }
        })
    }

    /// Allows identities of a grade to ask about keys of a higher one; nothing of it takes that away.
    pub(super) fn allow(
        &self,
        (owner, operator): (&str, &str),
        one: Allowance,
    ) -> Result<Grades, Why> {
        let Allowance { from, to, locate, validate } = one;
        let detail = format!("from {from} to {to}: locate {locate}, validate {validate}");
        self.set_grades((owner, operator), "key-grade-allowed", &detail, |set| {
            set.allowed.retain(|other| (other.from, other.to) != (from, to));
            set.allowed.extend((locate || validate).then_some(one));
        })
    }

    fn set_grades(
        &self,
        (owner, operator): (&str, &str),
        event: &str,
        detail: &str,
        change: impl Fn(&mut Grades),
    ) -> Result<Grades, Why> {
        check_operator(operator)?;
        check_owner(owner)?;
        let set = retried(|| {
            let Versioned { mut value, version } = self.held_grades(owner)?;
            change(&mut value);
            if value.names.len().max(value.allowed.len()) > MOST {
                return Err(Refusal::OwnerTooLarge.into());
            }
            let (guard, place) = (self.guard(Some(owner))?, place(owner)?);
            let write = if version == 0 {
                guard.owning(Write::new(), &place)?
            } else {
                guard.on(Write::new())
            };
            let write = write.put(place, &value, version)?;
            if self.library.commit(write)? { Ok(value) } else { Err(Fault::Contended.into()) }
        })?;
        let subject = format!("owner:{owner}");
        self.journal.done(&format!("operator:{operator}"), event, &subject, detail)?;
        self.anchor.soon();
        Ok(set)
    }

    /// Refuses a question whose asker, by the key that signed it, has too low a grade for one of the
    /// keys that were found.
    pub(super) fn check_grades(
        &self,
        found: &Hits,
        signer: Option<&Bytes>,
        validate: bool,
    ) -> Result<(), Why> {
        let mut known: BTreeMap<&str, Grades> = BTreeMap::new();
        let mut asker = None;
        for (_, entry) in &found.entries {
            let Some(owner) = entry.value.owner.as_deref() else { continue };
            let grades = match known.entry(owner) {
                Slot::Occupied(grades) => grades.into_mut(),
                Slot::Vacant(slot) => slot.insert(self.held_grades(owner)?.value),
            };
            if grades.of(&entry.value.name) == 0 {
                continue;
            }
            if asker.is_none() {
                asker = Some(self.identities(signer)?);
            }
            let own = asker.iter().flatten().filter(|one| one.owner.as_deref() == Some(owner));
            let grade = own.map(|one| grades.of(&one.name)).max().unwrap_or(0);
            if !grades.allow(grade, &entry.value.name, validate) {
                return Err(Refusal::GradeTooLow.into());
            }
        }
        Ok(())
    }

    /// Whose the key is that signed a question: bindings in force only.
    fn identities(&self, signer: Option<&Bytes>) -> Result<Vec<Identity>, Why> {
        let Some(key) = signer else { return Ok(Vec::new()) };
        let example = KeyExample { key: Some(key.clone()), ..KeyExample::default() };
        let found = self.library.find(&example, MAX_OF_KEY)?;
        let signs = found.entries.into_iter().filter(|(_, entry)| self.signs_now(&entry.value));
        let identity =
            |entry: super::record::Entry| Identity { owner: entry.owner, name: entry.name };
        Ok(signs.map(|(_, entry)| identity(entry.value)).collect())
    }
}
