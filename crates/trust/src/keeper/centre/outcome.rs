//! What the centre hands over becomes the end of an order: looked at first, then in the library and
//! in the order's record in one transaction.

use std::sync::MutexGuard;

use model::{api::Bytes, centre::CentreOutcome, keys::order::KeyOperation};
use pki::{CertFacts, Pool, Terms, Usage, validate};
use store::typed::{Versioned, Write};

use super::{Line, foreign_id, held};
use crate::keeper::{
    Keeper,
    issue::{Plan, entry_of},
    library::Library,
    record::{self, EntryId, OrderRecord, OrderState, Wanted, long_digest},
    refusal::{Fault, Refusal, Why},
    retried,
};

impl Line {
    /// Until it is dropped, nobody else ends this order.
    fn ending(&self, id: EntryId) -> Option<MutexGuard<'_, ()>> {
        let [first, ..] = id.0;
        self.ending.get(usize::from(first) % self.ending.len()).map(held)
    }

    /// Whether a certificate of the centre is for this key and leads to the PKI's anchors; the path.
    fn path_of(
        &self,
        certificate: &[u8],
        above: &[Bytes],
        key: &Bytes,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let unfit = |_| Refusal::CertificateUnfit;
        let facts = CertFacts::read(certificate).map_err(unfit)?;
        let above = above.iter().map(|der| der.0.as_slice());
        let above: Vec<&[u8]> = above.chain(self.domain.above.iter().map(Vec::as_slice)).collect();
        let pool = Pool::new(above).map_err(unfit)?;
        let terms = Terms::new(self.clock.now(), Usage::Any);
        let validation =
            validate(certificate, &pool, &self.anchors, None, &terms).map_err(unfit)?;
        let leads = pki::binding::status(validation.status()).aspects.leads();
        if leads && facts.spki == key.0 {
            Ok(validation.path().to_vec())
        } else {
            Err(Refusal::CertificateUnfit)
        }
    }
}

impl Keeper {
    /// What the centre did becomes the order's end; whatever else heard of it may have been faster.
    /// `false`: not now, because the owner's keys are on their way.
    pub(super) fn end_order(
        &self,
        line: &Line,
        id: EntryId,
        outcome: CentreOutcome,
    ) -> Result<bool, Fault> {
        // The feed and the answer to the errand bring it at the same moment.
        let _one = line.ending(id);
        let refusal = match retried(|| self.take_outcome(line, id, &outcome)) {
            Ok(()) => return Ok(true),
            Err(Why::Refused(Refusal::OwnerMigrating | Refusal::OwnerMoved)) => return Ok(false),
            Err(Why::Refused(refusal)) => refusal,
            Err(Why::Fault(fault)) => return Err(fault),
        };
        self.journal.refused("centre", "key-order", &format!("order:{id}"), refusal)?;
        self.close_order(id, OrderState::Failed(refusal.failure()))
    }

    fn take_outcome(&self, line: &Line, id: EntryId, outcome: &CentreOutcome) -> Result<(), Why> {
        let held = self.library.get(&record::order(id)?)?;
        let Some(held) = held.filter(|held| held.value.state == OrderState::Ordered) else {
            return Ok(());
        };
        match (&held.value.wanted, outcome) {
            (Wanted::Revoke(entry), CentreOutcome::Revoked { .. }) => {
                let (entry, name) = (*entry, held.value.name.clone());
                self.ordered_done(Write::new(), id, held, entry)?;
                let subject = format!("key:{name}");
                let detail = format!("{} at the PKI, order {id}", entry.public());
                Ok(self.journal.done("centre", "key-revoked", &subject, &detail)?)
            }
            (
                Wanted::Register(_) | Wanted::Reissue(_),
                CentreOutcome::Certified { certificate, chain },
            ) => self.take_certificate(line, (id, held), certificate, chain),
            _ => Err(Refusal::CertificateUnfit.into()),
        }
    }

    fn take_certificate(
        &self,
        line: &Line,
        (id, held): (EntryId, Versioned<OrderRecord>),
        certificate: &Bytes,
        above: &[Bytes],
    ) -> Result<(), Why> {
        let (plan, key, old) = self.planned(&held.value)?;
        let path = line.path_of(&certificate.0, above, &key)?;
        let facts = CertFacts::read(&certificate.0).map_err(Fault::ca)?;
        let new = foreign_id(&facts.issuer, &facts.serial);
        let mut entry = entry_of(&plan, &certificate.0)?;
        entry.chain = path.into_iter().skip(1).map(Bytes).collect();
        let (name, operation) = (plan.name, held.value.wanted.operation());
        let mut write = Write::new();
        if self.library.entry(new)?.is_none() {
            let guard = self.guard(entry.owner.as_deref())?;
            write = Library::add(guard.owning(write, &record::entry(new)?)?, new, &entry)?;
            if let Some((old, mut entry)) = old {
                entry.value.replaced_by = Some(new);
                write = Library::retire(write, old, &entry)?;
            }
        }
        self.ordered_done(write, id, held, new)?;
        let renewed = operation == KeyOperation::Reissue;
        let event = if renewed { "key-reissued" } else { "key-registered" };
        let detail = format!("{}, order {id}", new.public());
        Ok(self.journal.done("centre", event, &format!("key:{name}"), &detail)?)
    }

    /// What the binding of an order will be, its key, and the entry whose place it takes.
    #[expect(clippy::type_complexity, reason = "three things that are used once, together")]
    fn planned(
        &self,
        order: &OrderRecord,
    ) -> Result<(Plan, Bytes, Option<(EntryId, Versioned<record::Entry>)>), Why> {
        let validity = self.interval(None, None)?;
        match &order.wanted {
            Wanted::Register(asked) => {
                let code = asked.revocation_code_identifier.as_ref();
                let plan = Plan {
                    name: order.name.clone(),
                    uses: asked.uses.clone(),
                    use_with: asked.use_with.clone(),
                    validity,
                    revocation_code: code.map(|code| Bytes(long_digest(&[&code.0]).to_vec())),
                    replaces: None,
                    private: None,
                    owner: order.owner.clone(),
                };
                let key = asked.key.clone().ok_or(Refusal::KeyGenerationOff)?;
                Ok((plan, key, None))
            }
            Wanted::Reissue(old) | Wanted::Revoke(old) => {
                let entry = self.library.entry(*old)?.ok_or(Refusal::BindingUnknown)?;
                let value = entry.value.clone();
                let plan = Plan {
                    name: value.name,
                    uses: value.uses,
                    use_with: value.use_with,
                    validity,
                    revocation_code: value.revocation_code,
                    replaces: Some(*old),
                    private: None,
                    owner: value.owner,
                };
                Ok((plan, value.key, Some((*old, entry))))
            }
        }
    }

    fn ordered_done(
        &self,
        write: Write,
        id: EntryId,
        held: Versioned<OrderRecord>,
        entry: EntryId,
    ) -> Result<(), Why> {
        let mut value = held.value;
        value.state = OrderState::Done(entry);
        let guard = self.guard(value.owner.as_deref())?;
        let write = guard.on(write).put(record::order(id)?, &value, held.version)?;
        if self.library.commit(write)? { Ok(()) } else { Err(Fault::Contended.into()) }
    }

    /// `false`: not now, because the owner's keys are on their way.
    pub(super) fn close_order(&self, id: EntryId, state: OrderState) -> Result<bool, Fault> {
        let closed = retried(|| {
            let held = self.library.get(&record::order(id)?)?;
            let Some(held) = held.filter(|held| held.value.state == OrderState::Ordered) else {
                return Ok(());
            };
            let mut value = held.value;
            value.state = state;
            let guard = self.guard(value.owner.as_deref())?;
            let write = guard.on(Write::new()).put(record::order(id)?, &value, held.version)?;
            if self.library.commit(write)? { Ok(()) } else { Err(Fault::Contended.into()) }
        });
        match closed {
            Ok(()) => Ok(true),
            Err(Why::Refused(_)) => Ok(false),
            Err(Why::Fault(fault)) => Err(fault),
        }
    }
}
