//! Many bindings at once, on the operator's word: how a library moves in. Neither pass phrases nor
//! proofs of possession are asked for, so nothing that strangers reach leads here.
//!
//! ```text
//! batch ─► what is bound already is left out ─► certificates, on all processors
//!       ─► sixteen or so bindings a transaction, thousands a sync ─► audit entry ─► answer
//! ```
//!
//! **Invariant:** the same import again makes nothing twice, so one that was cut short is repeated.

use std::{
    collections::HashSet,
    num::NonZero,
    sync::PoisonError,
    thread::{self, available_parallelism},
};

use futures_util::future::join_all;
use model::{api::Bytes, keys::order::Prototype};
use pki::{ProviderError, names};
use serve::random;
use store::{MAX_TXN_OPS, typed::Write, wait};

use super::{
    Keeper,
    authorize::check_name,
    issue::{Plan, entry_of, why},
    library::{Library, rows_of},
    owner::revoked_key,
    record::{Entry, EntryId, long_digest},
    refusal::{Fault, Refusal, Why},
    retried,
};

/// Bindings that are worked on, and audited, together.
const BATCH: usize = 8192;
/// Changes in one transaction: each also names the version it replaces.
const CHANGES: usize = MAX_TXN_OPS / 2;
/// Octets of a serial number that rise with time.
const RISING: usize = 6;

/// What came of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Imported {
    /// Bindings that were made.
    pub(super) made: u64,
    /// Bindings that were there before.
    pub(super) present: u64,
}

/// One of a batch that cannot be, so that none of it was made.
#[derive(Debug)]
pub(super) struct Unfit {
    /// Which.
    pub(super) at: usize,
    /// Why.
    pub(super) refusal: Refusal,
}

impl Keeper {
    /// Certifies and records what is asked for, as an operator's bulk load. One audit entry for
    /// each 8192; how many were made.
    ///
    /// # Errors
    /// [`Fault`]; what was counted by the audit log before is recorded. A prototype that cannot be
    /// certified as it is ends the import.
    pub fn import(&self, asked: impl Iterator<Item = Prototype>) -> Result<u64, Fault> {
        let mut count = 0_u64;
        let mut asked = asked.peekable();
        while asked.peek().is_some() {
            let batch: Vec<Prototype> = asked.by_ref().take(BATCH).collect();
            let done = match self.imported(&batch, "operator") {
                Ok(done) => done.map_err(|unfit| Fault::ca(unfit.refusal))?,
                Err(Why::Fault(fault)) => return Err(fault),
                Err(Why::Refused(refusal)) => return Err(Fault::ca(refusal)),
            };
            count = count.saturating_add(done.made);
        }
        Ok(count)
    }

    /// One batch: all that is not there yet, or, if one cannot be made, nothing; but if a key is
    /// revoked while it is made, what was made until then stays.
    pub(super) fn imported(
        &self,
        asked: &[Prototype],
        actor: &str,
    ) -> Result<Result<Imported, Unfit>, Why> {
        retried(|| self.import_once(asked, actor))
    }

    fn import_once(
        &self,
        asked: &[Prototype],
        actor: &str,
    ) -> Result<Result<Imported, Unfit>, Why> {
        self.issuer.own().map_err(|_| Refusal::ImportElsewhere)?;
        // A panic ends the process, so nobody leaves the lock behind.
        let _one_at_a_time = self.importing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plans = Vec::with_capacity(asked.len());
        let mut seen = Seen::default();
        for (at, one) in asked.iter().enumerate() {
            match self.to_import(one, &mut seen) {
                Ok(wanted) => plans.extend(wanted.map(|plan| (at, plan))),
                Err(Why::Refused(refusal)) => return Ok(Err(Unfit { at, refusal })),
                Err(fault) => return Err(fault),
            }
        }
        let entries = match self.certified(&plans) {
            Ok(entries) => entries,
            Err((at, Why::Refused(refusal))) => return Ok(Err(Unfit { at, refusal })),
            Err((_, fault)) => return Err(fault),
        };
        let made = self.recorded(&entries)?;
        let whole = made == entries.len();
        let made = u64::try_from(made).unwrap_or(u64::MAX);
        let all = u64::try_from(asked.len()).unwrap_or(u64::MAX);
        let done = Imported { made, present: all.saturating_sub(made) };
        let detail = format!("{made} bindings made, {} there before", done.present);
        self.journal.done(actor, "keys-imported", "library", &detail)?;
        if whole { Ok(Ok(done)) } else { Err(Fault::Contended.into()) }
    }

    /// What is to be made; none if it is there, or is asked for twice.
    fn to_import<'a>(
        &self,
        asked: &'a Prototype,
        seen: &mut Seen<'a>,
    ) -> Result<Option<Asked<'a>>, Why> {
        let name = check_name(asked.name.as_deref())?;
        let spki = asked.key.as_ref().ok_or(Refusal::KeyNotCertifiable)?;
        let key = &spki.0;
        names::certified(&asked.use_with)?;
        let mut parts = vec![key.as_slice(), name.as_bytes()];
        for one in &asked.use_with {
            parts.extend([one.application.as_bytes(), one.identifier.as_bytes()]);
        }
        let bound = |entry: &Entry| {
            entry.key.0 == *key
                && entry.use_with == asked.use_with
                && entry.not_on_or_after > i64::try_from(self.now()).unwrap_or(i64::MAX)
        };
        if !seen.bindings.insert(long_digest(&parts)) || self.library.names(name, bound)? {
            return Ok(None);
        }
        if seen.keys.insert(key) {
            self.check_key(spki)?;
        }
        let code = asked.revocation_code_identifier.as_ref();
        let plan = Plan {
            name: name.to_owned(),
            uses: asked.uses.clone(),
            use_with: asked.use_with.clone(),
            validity: self.interval(asked.not_before, asked.not_on_or_after)?,
            revocation_code: code.map(|code| Bytes(long_digest(&[&code.0]).to_vec())),
            replaces: None,
            private: None,
            owner: None,
        };
        Ok(Some(Asked { key, plan }))
    }

    /// The entries of new certificates, in the order of their serial numbers; or which one cannot be
    /// certified.
    fn certified(
        &self,
        plans: &[(usize, Asked<'_>)],
    ) -> Result<Vec<(EntryId, Entry)>, (usize, Why)> {
        let serials = serials(plans.len(), self.now()).map_err(|fault| (0, fault.into()))?;
        let numbered: Vec<_> = plans.iter().zip(serials).collect();
        let each = available_parallelism().map_or(1, NonZero::get);
        let share = numbered.len().div_ceil(each).max(1);
        let certify = |((at, asked), serial): &(&(usize, Asked<'_>), [u8; 16])| {
            self.certify(asked, *serial).map_err(|why| (*at, why))
        };
        thread::scope(|scope| {
            let shares = numbered.chunks(share);
            let work = shares.map(|share| {
                scope.spawn(move || share.iter().map(certify).collect::<Result<Vec<_>, _>>())
            });
            let work: Vec<_> = work.collect();
            let mut entries = Vec::with_capacity(numbered.len());
            for part in work {
                // A panic ends the process.
                let part = part.join().map_err(|_| (0, Fault::Contended.into()))?;
                entries.extend(part?);
            }
            Ok(entries)
        })
    }

    fn certify(&self, asked: &Asked<'_>, serial: [u8; 16]) -> Result<(EntryId, Entry), Why> {
        let Asked { key, plan } = asked;
        let profile = self.profile(plan)?;
        let ca = self.issuer.own()?.ca.ca();
        let issued = ca.issue_as(serial, &profile, key, plan.validity);
        let issued = issued.map_err(|error| why(ProviderError::Issue(error)))?;
        Ok((EntryId(serial), entry_of(plan, &issued.der)?))
    }

    /// Makes the entries durable, many to a transaction; how many. Those of a transaction with a key
    /// that was revoked meanwhile are not made.
    fn recorded(&self, entries: &[(EntryId, Entry)]) -> Result<usize, Why> {
        let mut writes = Vec::new();
        let (mut write, mut changes, mut within) = (Write::new(), 0_usize, 0_usize);
        for (id, entry) in entries {
            let more = rows_of(*id, entry)?.len().saturating_add(2);
            if changes.saturating_add(more) > CHANGES && changes > 0 {
                writes.push((std::mem::take(&mut write), within));
                (changes, within) = (0, 0);
            }
            // A key that is revoked meanwhile, also by a binding of this import, is bound no more.
            let standing = revoked_key(&entry.key.0)?;
            write = Library::add(write, *id, entry)?.only_if(standing, 0);
            changes = changes.saturating_add(more);
            within = within.saturating_add(1);
        }
        writes.extend((within > 0).then_some((write, within)));
        let records = self.library.records();
        let commits = writes.into_iter().map(|(write, within)| async move {
            records.commit(write).await.map(|done| if done { within } else { 0 })
        });
        let mut made: usize = 0;
        for some in wait(join_all(commits)) {
            made = made.saturating_add(some.map_err(Fault::from)?);
        }
        Ok(made)
    }
}

/// What came before in the same batch.
#[derive(Default)]
struct Seen<'a> {
    bindings: HashSet<[u8; 32]>,
    /// Keys that were never revoked.
    keys: HashSet<&'a [u8]>,
}

/// A key and what is to be certified for it.
struct Asked<'a> {
    key: &'a [u8],
    plan: Plan,
}

/// So many serial numbers, rising: what is made together is stored together. They begin with the
/// time, which a certificate says anyway; 80 bits are random (RFC 5280 asks for a number used once).
fn serials(count: usize, now: u64) -> Result<Vec<[u8; 16]>, Fault> {
    let mut serials = Vec::with_capacity(count);
    let time = now.to_be_bytes();
    for _ in 0..count {
        let mut serial: [u8; 16] = random::bytes().map_err(Fault::key)?;
        for (to, from) in serial.iter_mut().zip(time.iter().skip(time.len() - RISING)) {
            *to = *from;
        }
        if let Some(first) = serial.first_mut() {
            *first = *first & 0x3f | 0x40;
        }
        serials.push(serial);
    }
    serials.sort_unstable();
    Ok(serials)
}

#[cfg(test)]
mod tests {
    use model::keys::KeyExample;
    use serve::{clock::SystemClock, keys::SigningKey};

    use super::*;
    use crate::keeper::Settings;

    #[test]
    fn a_key_that_is_revoked_while_it_is_imported_is_not_bound_again() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::open(Settings::default(), dir.path(), SystemClock::shared()).unwrap();
        let key = Bytes(SigningKey::generate().unwrap().spki().to_vec());
        let asked = |name: &str| Prototype {
            key: Some(key.clone()),
            name: Some(name.to_owned()),
            ..Prototype::default()
        };
        let named = |name: &str| {
            let example = KeyExample { name: Some(name.to_owned()), ..KeyExample::default() };
            keeper.library.find(&example, 2).unwrap().entries
        };
        assert_eq!(keeper.import([asked("first")].into_iter()).unwrap(), 1);
        let next = asked("next");
        let wanted = keeper.to_import(&next, &mut Seen::default()).unwrap().unwrap();
        let Ok(entries) = keeper.certified(&[(0, wanted)]) else { panic!("it is not certified") };
        keeper.revoke_by_operator(named("first")[0].0, "alice").unwrap();
        assert_eq!(keeper.recorded(&entries).unwrap(), 0);
        assert!(named("next").is_empty());
        let again = keeper.imported(&[next], "operator:alice").unwrap().unwrap_err();
        assert_eq!((again.at, again.refusal), (0, Refusal::KeyRevoked));
    }

    #[test]
    fn serial_numbers_rise_and_are_positive_and_of_one_length() {
        let now = 1_763_800_000_000;
        let (first, next) = (serials(1000, now).unwrap(), serials(1000, now + 1).unwrap());
        let all: Vec<_> = first.into_iter().chain(next).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(all.iter().all(|serial| serial[0] & 0xc0 == 0x40));
    }
}
