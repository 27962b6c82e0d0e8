//! Register: a key becomes a binding, by a pass phrase and the proof of its possession.

use model::{
    Secret,
    api::Bytes,
    keys::{
        KeyExample,
        order::{Delivery, Done, KeyOperation, KeyOutcome, Order, Prototype, SecretBytes},
    },
};
use pki::names;

use super::{
    Approval, Holder, Keeper,
    authorize::{Granted, check_name},
    issue::{For, Plan, make_key},
    owner::revoked_key,
    record::{
        self, Authorization, Entry, EntryId, OrderState, UsedFor, Wanted, long_digest, order_digest,
    },
    refusal::{Refusal, Why},
    status,
};

/// Bindings of one key that are looked at for a revoked one.
const MAX_OF_KEY: usize = 64;

impl Keeper {
    /// Binds a key.
    pub(super) fn register(&self, order: &Order, asked: &Prototype) -> Result<KeyOutcome, Why> {
        let name = check_name(asked.name.as_deref())?;
        let holder = Holder::of(order).ok_or(Refusal::AuthenticationKind)?;
        let granted = self.granted(holder, name)?;
        let digest = order_digest(KeyOperation::Register, asked);
        if let Some(spent) = granted.spent(&digest)? {
            return self.again(order, &granted, spent, KeyOperation::Register);
        }
        self.check(asked, &granted.held.value)?;
        check_possession(order, asked)?;
        if self.settings.approval == Approval::Operator {
            let wanted = resolved(asked, &granted.held.value);
            return self.put_off(order, (name, wanted), Some((&granted, digest)));
        }
        if let Some(line) = self.issuer.line() {
            let wanted = resolved(asked, &granted.held.value);
            return self.send(line, order, (name, wanted), Some((&granted, digest)));
        }
        let spent = granted.clone();
        let id = self.bind(asked, &granted.held.value, move |write, id| {
            spent.spend(write, digest, UsedFor::Entry(id))
        })?;
        self.registered(id, asked, &format!("authorization {}", granted.id))?;
        self.done(KeyOperation::Register, id, Some(&granted.held.value))
    }

    /// Whether what is asked is allowed and possible.
    fn check(&self, asked: &Prototype, allowed: &Authorization) -> Result<(), Why> {
        let uses = &allowed.uses;
        // Asking for no use asks for all that are allowed; see `bind`.
        if !uses.is_empty() && asked.uses.iter().any(|one| !uses.contains(one)) {
            return Err(Refusal::UseNotAuthorized.into());
        }
        names::certified(&asked.use_with)?;
        let free = allowed.use_with.is_empty() && self.settings.any_use_with;
        let granted = |one| free || allowed.use_with.iter().any(|other| names::same(one, other));
        if !asked.use_with.iter().all(granted) {
            return Err(Refusal::UseWithNotAuthorized.into());
        }
        self.interval(asked.not_before, asked.not_on_or_after)?;
        match &asked.key {
            Some(key) => self.check_key(key),
            None if self.settings.generate_keys => Ok(()),
            None => Err(Refusal::KeyGenerationOff.into()),
        }
    }

    /// A key that was revoked once is never bound again.
    pub(super) fn check_key(&self, key: &Bytes) -> Result<(), Why> {
        let example = KeyExample { key: Some(key.clone()), ..KeyExample::default() };
        let found = self.library.find(&example, MAX_OF_KEY)?;
        let gone = self.library.holds(&revoked_key(&key.0)?)?;
        let revoked =
            gone || found.entries.iter().any(|(_, entry)| entry.value.revoked_at.is_some());
        if revoked { Err(Refusal::KeyRevoked.into()) } else { Ok(()) }
    }

    /// Certifies the key, or makes one; what `with` adds is written in the same transaction.
    pub(super) fn bind(
        &self,
        asked: &Prototype,
        allowed: &Authorization,
        with: impl FnOnce(store::typed::Write, EntryId) -> Result<store::typed::Write, Why>
        + Send
        + 'static,
    ) -> Result<EntryId, Why> {
        let (spki, private) = match &asked.key {
            Some(key) => (key.0.clone(), None),
            None => {
                let (private, spki) = make_key()?;
                let life = self.settings.order_life_s.saturating_mul(1000);
                let until = if self.settings.escrow { 0 } else { self.now().saturating_add(life) };
                (spki, Some((private, until)))
            }
        };
        let code = asked.revocation_code_identifier.as_ref();
        let plan = Plan {
            name: allowed.name.clone(),
            uses: if asked.uses.is_empty() { allowed.uses.clone() } else { asked.uses.clone() },
            use_with: asked.use_with.clone(),
            validity: self.interval(asked.not_before, asked.not_on_or_after)?,
            revocation_code: code.map(|code| Bytes(long_digest(&[&code.0]).to_vec())),
            replaces: None,
            private,
            owner: allowed.owner.clone(),
        };
        self.issue(&For::Key(&spki), plan, Box::new(with))
    }

    pub(super) fn registered(&self, id: EntryId, asked: &Prototype, by: &str) -> Result<(), Why> {
        let subject = format!("key:{}", asked.name.as_deref().unwrap_or_default());
        let made = if asked.key.is_none() { ", key made here" } else { "" };
        let detail = format!("{}, {by}{made}", id.public());
        Ok(self.journal.done("trust", "key-registered", &subject, &detail)?)
    }

    /// The same order once more: the same answer.
    pub(super) fn again(
        &self,
        order: &Order,
        granted: &Granted,
        spent: UsedFor,
        operation: KeyOperation,
    ) -> Result<KeyOutcome, Why> {
        let waits = match spent {
            UsedFor::Entry(id) => return self.done(operation, id, Some(&granted.held.value)),
            UsedFor::Order(id) => id,
        };
        let held = self.library.get(&record::order(waits)?)?.ok_or(Refusal::OrderUnknown)?;
        match held.value.state {
            OrderState::Done(id) => self.done(operation, id, Some(&granted.held.value)),
            OrderState::Failed(_) if self.issuer.line().is_some() => {
                Err(Refusal::CentreRefused.into())
            }
            OrderState::Failed(_) => Err(Refusal::OperatorRefused.into()),
            OrderState::Waiting if order.may_wait => {
                self.note_receipt(&order.receipt, waits)?;
                Ok(KeyOutcome::Later)
            }
            OrderState::Ordered if order.may_wait => {
                self.note_receipt(&order.receipt, waits)?;
                Ok(KeyOutcome::Later)
            }
            OrderState::Ordered => {
                let line = self.issuer.line().ok_or(Refusal::OrderUnknown)?;
                self.await_end(line, order, waits)
            }
            OrderState::Waiting => Err(Refusal::ApprovalNeeded.into()),
        }
    }

    /// The answer: the binding as it is now, and the private key if it was made here.
    pub(super) fn done(
        &self,
        operation: KeyOperation,
        id: EntryId,
        authorization: Option<&Authorization>,
    ) -> Result<KeyOutcome, Why> {
        let entry = self.library.entry(id)?.ok_or(Refusal::BindingUnknown)?.value;
        let private_key = match (operation, authorization) {
            (KeyOperation::Register, Some(authorization)) => {
                let under = Secret::new(authorization.delivery.0.clone());
                self.private_key(id, &entry, under)?
            }
            _ => None,
        };
        let now = self.now();
        let instant = i64::try_from(now).unwrap_or(i64::MAX);
        let until = self.issuer.knowledge(now).until;
        let known = status::of_entry(&entry, instant, now, until);
        let binding = status::answered(id, entry, self.ca_certificate(), Some(known));
        Ok(KeyOutcome::Done(Done { operation, bindings: vec![binding], private_key }))
    }

    /// The private key of a binding whose key was made here, if it is still kept.
    pub(super) fn private_key(
        &self,
        id: EntryId,
        entry: &Entry,
        under: Secret<Vec<u8>>,
    ) -> Result<Option<Delivery>, Why> {
        let sealed = match self.library.get(&record::escrow(id)?)? {
            Some(sealed) => Some(sealed),
            None => self.library.get(&record::made(id)?)?,
        };
        let Some(sealed) = sealed else { return Ok(None) };
        let key = self.open_key(entry.owner.as_deref(), id, &sealed.value)?;
        Ok(Some(Delivery {
            key: SecretBytes::new(key),
            under: SecretBytes::new(under),
            name: Some(entry.name.clone()),
        }))
    }
}

/// What is asked for, with everything in it that the authorization leaves to us.
fn resolved(asked: &Prototype, allowed: &Authorization) -> Wanted {
    let mut asked = asked.clone();
    if asked.uses.is_empty() {
        asked.uses.clone_from(&allowed.uses);
    }
    asked.name = Some(allowed.name.clone());
    Wanted::Register(asked)
}

/// A key that is brought must have been proven by itself.
fn check_possession(order: &Order, asked: &Prototype) -> Result<(), Refusal> {
    match (&asked.key, &order.possessed) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Refusal::PossessionMissing),
        (Some(key), Some(proven)) if key == proven => Ok(()),
        (Some(_), Some(_)) => Err(Refusal::PossessionOther),
    }
}
