//! Revoke: a binding ends, with all its certificates that are still alive.

use std::{collections::BTreeSet, sync::PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use model::keys::{
    KeyExample,
    order::{KeyOperation, KeyOutcome, Order, Requester},
};
use serve::flood::Passage;
use store::typed::{Versioned, Write};
use xkms::passphrase::revocation_code_identifier;

use super::{
    Holder, Keeper,
    authorize::{Granted, check_operator},
    owner::revoked_key,
    record::{self, Entry, EntryId, Revoked, UsedFor, long_digest, order_digest},
    refusal::{Fault, Refusal, Why},
    retried,
};

/// A binding that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Since when.
    pub(super) at: u64,
    /// The first of the orders to the centre.
    pub(super) first: Option<EntryId>,
}

impl Keeper {
    /// Ends a binding. One that has ended stays so, and says it again.
    pub(super) fn revoke(&self, order: &Order, example: &KeyExample) -> Result<KeyOutcome, Why> {
        let holder = Holder::of(order);
        let digest = order_digest(KeyOperation::Revoke, example);
        let (id, entry) = match &order.requester {
            Requester::RevocationCode(code) => self.by_code(example, code.0.expose())?,
            Requester::Key(_) | Requester::NotBound { .. } => self.one(example, holder)?,
        };
        let granted = match (&order.requester, holder) {
            (Requester::RevocationCode(_), _) => None,
            (_, Some(Holder::Binding(signer))) if signer == id => None,
            (_, Some(Holder::Binding(_))) => return Err(Refusal::HolderOther.into()),
            (_, Some(holder @ Holder::Authorization(_))) => {
                let granted = self.granted(holder, &entry.value.name)?;
                match granted.spent(&digest)? {
                    None => {}
                    Some(UsedFor::Entry(_)) => return self.done(KeyOperation::Revoke, id, None),
                    Some(spent @ UsedFor::Order(_)) => {
                        return self.again(order, &granted, spent, KeyOperation::Revoke);
                    }
                }
                Some(granted)
            }
            (_, Some(Holder::Recovery(_)) | None) => return Err(Refusal::AuthenticationKind.into()),
        };
        let by = super::actor(order);
        let ended = self.end(id, &entry.value, &by, Some(order), |write: Write, first| {
            let used = first.map_or(UsedFor::Entry(id), UsedFor::Order);
            match &granted {
                Some(granted) => Granted::spend(granted, write, digest, used),
                None => Ok(write),
            }
        })?;
        match (self.issuer.line(), ended.first) {
            (Some(line), Some(first)) => self.await_end(line, order, first),
            _ => self.done(KeyOperation::Revoke, id, None),
        }
    }

    /// Ends a binding because an operator says so; since when it is revoked.
    pub(super) fn revoke_by_operator(&self, id: EntryId, operator: &str) -> Result<u64, Why> {
        check_operator(operator)?;
        retried(|| {
            let Some(entry) = self.library.entry(id)? else {
                return self.end_moved(id, operator);
            };
            let by = format!("operator:{operator}");
            self.end(id, &entry.value, &by, None, |write, _| Ok(write)).map(|ended| ended.at)
        })
    }

    /// Ends, on our CRL, a certificate of ours whose binding moved to another trust service: only
    /// our CA can.
    fn end_moved(&self, id: EntryId, operator: &str) -> Result<u64, Why> {
        let gone = self.library.get(&super::owner::moved(id)?)?;
        let gone = gone.filter(|gone| gone.value.ours).ok_or(Refusal::BindingUnknown)?;
        if let Some(known) = self.library.get(&record::revoked(id)?)? {
            return Ok(known.value.at);
        }
        let at = self.now();
        let revoked = Revoked { at, not_on_or_after: gone.value.not_on_or_after };
        if !self.library.commit(Write::new().put(record::revoked(id)?, &revoked, 0)?)? {
            return Err(Fault::Contended.into());
        }
        self.issuer.outdated();
        let (by, detail) = (format!("operator:{operator}"), "its binding moved away");
        self.journal.done(&by, "key-revoked", &format!("key:{}", id.public()), detail)?;
        self.anchor.soon();
        Ok(at)
    }

    /// Revokes every certificate of the binding that is alive, in one transaction; in it are the
    /// orders to the centre, of which `order` is remembered for the first, if there is a centre.
    pub(super) fn end(
        &self,
        id: EntryId,
        entry: &Entry,
        by: &str,
        order: Option<&Order>,
        with: impl FnOnce(Write, Option<EntryId>) -> Result<Write, Why>,
    ) -> Result<Ended, Why> {
        let now = self.now();
        let alive = self.alive(self.newest(id, entry)?)?;
        let guard = self.guard(entry.owner.as_deref())?;
        let mut orders = Vec::new();
        let mut write = guard.on(Write::new());
        if self.issuer.line().is_some() {
            for (id, _) in &alive {
                let receipt = order.filter(|_| orders.is_empty());
                let ordered;
                (ordered, write) = self.to_be_revoked(write, (*id, entry), receipt, &guard)?;
                orders.push(ordered);
            }
        }
        let first = orders.first().copied();
        write = with(write, first)?;
        let keys: BTreeSet<&[u8]> =
            alive.iter().map(|(_, held)| held.value.key.0.as_slice()).collect();
        for key in keys {
            let place = revoked_key(key)?;
            if !self.library.holds(&place)? {
                write = write.put(place, &(), 0)?;
            }
        }
        let mut ended = Vec::new();
        for (id, held) in alive {
            let mut value = held.value;
            value.revoked_at = Some(now);
            let revoked = Revoked { at: now, not_on_or_after: value.not_on_or_after };
            write = write.put(record::entry(id)?, &value, held.version)?.put(
                record::revoked(id)?,
                &revoked,
                0,
            )?;
            ended.push(id.public());
        }
        if !self.library.commit(write)? {
            return Err(Fault::Contended.into());
        }
        self.issuer.outdated();
        let detail = if ended.is_empty() {
            format!("{} was revoked or over before", id.public())
        } else {
            ended.join(", ")
        };
        self.journal.done(by, "key-revoked", &format!("key:{}", entry.name), &detail)?;
        if let Some(line) = self.issuer.line() {
            orders.into_iter().for_each(|id| line.run(id));
        }
        self.anchor.soon();
        Ok(Ended { at: entry.revoked_at.unwrap_or(now), first })
    }

    /// The newest certificate of a binding, from any of its certificates.
    fn newest(&self, id: EntryId, entry: &Entry) -> Result<EntryId, Why> {
        let (mut id, mut next) = (id, entry.replaced_by);
        // As many as can be alive behind an entry that is alive, and then some.
        for _ in 0..64 {
            let Some(newer) = next else { break };
            id = newer;
            next = self.library.entry(newer)?.and_then(|entry| entry.value.replaced_by);
        }
        Ok(id)
    }

    /// The binding whose revocation code this is. Tries are counted for each binding.
    fn by_code(
        &self,
        example: &KeyExample,
        code: &[u8],
    ) -> Result<(EntryId, Versioned<Entry>), Why> {
        let found = self.library.find(example, 16)?.entries;
        if found.is_empty() {
            return Err(Refusal::BindingUnknown.into());
        }
        let given = long_digest(&[&revocation_code_identifier(code)]);
        let (mut refusal, mut right) = (Refusal::RevocationCodeNone, None);
        for (id, entry) in found {
            let Some(known) = &entry.value.revocation_code else { continue };
            let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
            if codes.pass(id, self.now()) != Passage::Free {
                refusal = Refusal::RevocationCodeThrottled;
                continue;
            }
            drop(codes);
            if refusal == Refusal::RevocationCodeNone {
                refusal = Refusal::RevocationCodeWrong;
            }
            if right.is_none() && verify_slices_are_equal(&known.0, &given).is_ok() {
                right = Some((id, entry));
            }
        }
        right.ok_or_else(|| refusal.into())
    }
}
