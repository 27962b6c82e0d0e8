//! Orders that wait for an operator: remembered durably under their receipts, decided once.
//!
//! ```text
//! waiting ── approved ─► done (with the binding, in one transaction)
//!    └────── refused, or not possible any more ─► failed
//! ```

use model::keys::{
    admin::ListedOrder,
    order::{Counts, KeyFailure, KeyOutcome, Order, Receipt},
    rpc::Collected,
};
use serve::random;
use store::{
    typed::{Versioned, Write},
    wait,
};

use super::{
    Keeper,
    authorize::{Granted, check_operator},
    owner::Guard,
    record::{
        self, Authorization, Entry, EntryId, OrderRecord, OrderState, ReceiptRecord, UsedFor,
        Wanted,
    },
    refusal::{Fault, Refusal, Why},
    retried,
};

/// Orders in a list.
const MAX_LISTED: usize = 1000;
/// Longest parts of a receipt.
const MAX_ID: usize = 256;

impl Keeper {
    /// Remembers an order under its receipt, and uses up what authorized it.
    pub(super) fn put_off(
        &self,
        order: &Order,
        (name, wanted): (&str, Wanted),
        by: Option<(&Granted, [u8; 32])>,
    ) -> Result<KeyOutcome, Why> {
        if !order.may_wait || order.receipt.response_id.is_empty() {
            return Err(Refusal::ApprovalNeeded.into());
        }
        let operation = wanted.operation();
        let (id, write) = self.on_record(order, (name, wanted), by, OrderState::Waiting)?;
        if !self.library.commit(write)? {
            return Err(Fault::Contended.into());
        }
        let (event, subject) = ("key-order-waits", format!("key:{name}"));
        let detail = format!("{} order {id}", operation.name());
        self.journal.done(&super::actor(order), event, &subject, &detail)?;
        Ok(KeyOutcome::Later)
    }

    /// What puts an order on record, under its receipt if its client can wait, and uses up what
    /// authorized it: to be committed.
    pub(super) fn on_record(
        &self,
        order: &Order,
        (name, wanted): (&str, Wanted),
        by: Option<(&Granted, [u8; 32])>,
        state: OrderState,
    ) -> Result<(EntryId, Write), Why> {
        let owner = match (&wanted, by) {
            (Wanted::Reissue(id) | Wanted::Revoke(id), _) => {
                self.library.entry(*id)?.and_then(|entry| entry.value.owner)
            }
            (Wanted::Register(_), Some((granted, _))) => granted.held.value.owner.clone(),
            (Wanted::Register(_), None) => None,
        };
        let id = EntryId(random::bytes().map_err(Fault::key)?);
        let at = self.now();
        let held = OrderRecord {
            wanted,
            name: name.to_owned(),
            authorization: by.map(|(granted, _)| granted.id),
            at,
            state,
            owner,
        };
        let guard = self.guard(held.owner.as_deref())?;
        let write = guard.owning(Write::new(), &record::order(id)?)?;
        let mut write = write.put(record::order(id)?, &held, 0)?;
        if order.may_wait && !order.receipt.response_id.is_empty() {
            let (receipt, noted) = (receipt_of(&order.receipt)?, ReceiptRecord { order: id, at });
            write = guard.also(write, &receipt)?.put(receipt, &noted, 0)?;
        }
        if let Some((granted, digest)) = by {
            write = granted.spend(write, digest, UsedFor::Order(id))?;
        }
        Ok((id, write))
    }

    /// Adds the order to have an entry's certificate revoked at the PKI, remembered for `order`'s
    /// client.
    pub(super) fn to_be_revoked(
        &self,
        write: Write,
        (entry, of): (EntryId, &Entry),
        order: Option<&Order>,
        guard: &Guard,
    ) -> Result<(EntryId, Write), Why> {
        let id = EntryId(random::bytes().map_err(Fault::key)?);
        let (wanted, at) = (Wanted::Revoke(entry), self.now());
        let (name, owner, state) = (of.name.clone(), of.owner.clone(), OrderState::Ordered);
        let held = OrderRecord { wanted, name, authorization: None, at, state, owner };
        let mut write = guard.also(write, &record::order(id)?)?;
        write = write.put(record::order(id)?, &held, 0)?;
        if let Some(order) = order.filter(|order| order.may_wait) {
            let (receipt, noted) = (receipt_of(&order.receipt)?, ReceiptRecord { order: id, at });
            write = guard.also(write, &receipt)?.put(receipt, &noted, 0)?;
        }
        Ok((id, write))
    }

    /// One more receipt for an order that waits.
    pub(super) fn note_receipt(&self, receipt: &Receipt, order: EntryId) -> Result<(), Why> {
        if self.library.get(&receipt_of(receipt)?)?.is_some() {
            return Ok(());
        }
        let noted = ReceiptRecord { order, at: self.now() };
        let owner = self.library.get(&record::order(order)?)?.and_then(|order| order.value.owner);
        let write = self.guard(owner.as_deref())?.owning(Write::new(), &receipt_of(receipt)?)?;
        let write = write.put(receipt_of(receipt)?, &noted, 0)?;
        if self.library.commit(write)? { Ok(()) } else { Err(Fault::Contended.into()) }
    }

    fn of_receipt(&self, receipt: &Receipt) -> Result<Option<Versioned<OrderRecord>>, Why> {
        let known = self.library.get(&receipt_of(receipt)?)?;
        let Some(known) = known else { return Ok(None) };
        Ok(self.library.get(&record::order(known.value.order)?)?)
    }

    /// What became of the order under a receipt.
    pub(super) fn collect(&self, receipt: &Receipt) -> Result<Option<Collected>, Why> {
        let Some(order) = self.of_receipt(receipt)? else { return Ok(None) };
        Ok(Some(match order.value.state {
            OrderState::Waiting | OrderState::Ordered => Collected::Outcome(KeyOutcome::Later),
            OrderState::Failed(failure) => Collected::Failed(failure),
            OrderState::Done(id) => {
                let authorization = self.authorization_of(&order.value)?;
                let operation = order.value.wanted.operation();
                let authorization = authorization.map(|held| held.value);
                Collected::Outcome(self.done(operation, id, authorization.as_ref())?)
            }
        }))
    }

    /// How far the order under a receipt is.
    pub(super) fn progress(&self, receipt: &Receipt) -> Result<Option<Counts>, Why> {
        let none = Counts::default();
        Ok(self.of_receipt(receipt)?.map(|order| match order.value.state {
            OrderState::Waiting | OrderState::Ordered => Counts { pending: 1, ..none },
            OrderState::Done(_) => Counts { success: 1, ..none },
            OrderState::Failed(_) => Counts { failure: 1, ..none },
        }))
    }

    fn authorization_of(
        &self,
        order: &OrderRecord,
    ) -> Result<Option<Versioned<Authorization>>, Why> {
        let Some(id) = order.authorization else { return Ok(None) };
        Ok(self.library.get(&record::authorization(&order.name, id)?)?)
    }

    /// An operator's decision. The name of the refusal, if the order was not carried out.
    pub(super) fn decide(
        &self,
        id: EntryId,
        operator: &str,
        approve: bool,
    ) -> Result<Option<Refusal>, Why> {
        check_operator(operator)?;
        let by = format!("operator:{operator}");
        let outcome = if approve {
            retried(|| self.carry_out(id))
        } else {
            self.waiting(id)?;
            Err(Refusal::OperatorRefused.into())
        };
        let refusal = match outcome {
            Ok(name) => {
                let detail = format!("order {id}");
                let subject = format!("key:{name}");
                self.journal.done(&by, "key-order-approved", &subject, &detail)?;
                return Ok(None);
            }
            Err(Why::Refused(Refusal::OrderUnknown)) => return Err(Refusal::OrderUnknown.into()),
            Err(Why::Refused(refusal)) => refusal,
            Err(fault) => return Err(fault),
        };
        let name = retried(|| self.fail(id, refusal.failure()))?;
        self.journal.refused(&by, "key-order", &format!("key:{name}"), refusal)?;
        Ok(Some(refusal))
    }

    fn waiting(&self, id: EntryId) -> Result<Versioned<OrderRecord>, Why> {
        let held = self.library.get(&record::order(id)?)?;
        let held = held.filter(|held| held.value.state == OrderState::Waiting);
        held.ok_or_else(|| Refusal::OrderUnknown.into())
    }

    fn carry_out(&self, id: EntryId) -> Result<String, Why> {
        let held = self.waiting(id)?;
        let order = held.value.clone();
        if let Some(line) = self.issuer.line() {
            let mut value = held.value;
            value.state = OrderState::Ordered;
            let guard = self.guard(value.owner.as_deref())?;
            let write = guard.on(Write::new()).put(record::order(id)?, &value, held.version)?;
            if !self.library.commit(write)? {
                return Err(Fault::Contended.into());
            }
            line.run(id);
            return Ok(order.name);
        }
        let close = move |write: Write, entry: EntryId| {
            let mut value = held.value;
            value.state = OrderState::Done(entry);
            Ok(write.put(record::order(id)?, &value, held.version)?)
        };
        match &order.wanted {
            Wanted::Register(asked) => {
                let authorization = self.authorization_of(&order)?;
                let authorization = authorization.ok_or(Refusal::AuthorizationUnknown)?.value;
                let entry = self.bind(asked, &authorization, close)?;
                self.registered(entry, asked, &format!("order {id}"))?;
            }
            Wanted::Reissue(old) => {
                let entry = self.library.entry(*old)?.ok_or(Refusal::BindingUnknown)?;
                self.check_alive(*old, &entry.value)?;
                self.renew(*old, entry, close)?;
            }
            // Nothing that ends waits for an operator.
            Wanted::Revoke(_) => return Err(Refusal::OrderUnknown.into()),
        }
        Ok(order.name)
    }

    fn fail(&self, id: EntryId, failure: KeyFailure) -> Result<String, Why> {
        let held = self.waiting(id)?;
        let mut value = held.value;
        value.state = OrderState::Failed(failure);
        let write = self.guard(value.owner.as_deref())?.on(Write::new()).put(
            record::order(id)?,
            &value,
            held.version,
        )?;
        if self.library.commit(write)? { Ok(value.name) } else { Err(Fault::Contended.into()) }
    }

    /// Orders that wait.
    pub(super) fn waiting_orders(&self) -> Result<Vec<ListedOrder>, Why> {
        let records = self.library.records();
        let all = wait(records.page::<OrderRecord>(record::ORDERS, None, MAX_LISTED))?.0;
        let waiting = all.into_iter().filter(|(_, one)| one.value.state == OrderState::Waiting);
        Ok(waiting
            .map(|(key, one)| ListedOrder {
                order: key.as_str().trim_start_matches(record::ORDERS).to_owned(),
                operation: one.value.wanted.operation(),
                name: one.value.name,
                at: one.value.at,
            })
            .collect())
    }
}

fn receipt_of(receipt: &Receipt) -> Result<store::typed::Place<ReceiptRecord>, Why> {
    if receipt.response_id.len() > MAX_ID || receipt.request_id.len() > MAX_ID {
        return Err(Refusal::OrderUnknown.into());
    }
    Ok(record::receipt(receipt)?)
}
