//! Reissue: a new certificate for the key of a binding. The old one stays good until it ends or the
//! binding is revoked, but only its own bytes lead to it any more.

use model::keys::{
    KeyExample,
    order::{KeyOperation, KeyOutcome, Order},
};
use store::typed::Versioned;

use super::{
    Approval, Holder, Keeper,
    authorize::Granted,
    issue::{For, Plan},
    library::Library,
    record::{self, Entry, EntryId, UsedFor, Wanted, order_digest},
    refusal::{Refusal, Why},
};

/// Certificates of one binding that may be alive at once.
pub(super) const MAX_ALIVE: usize = 8;

impl Keeper {
    /// Gives new credentials.
    pub(super) fn reissue(&self, order: &Order, example: &KeyExample) -> Result<KeyOutcome, Why> {
        let holder = Holder::of(order).ok_or(Refusal::AuthenticationKind)?;
        let digest = order_digest(KeyOperation::Reissue, example);
        let (id, entry) = self.one(example, Some(holder))?;
        let granted = self.reissuer(holder, order, (id, &entry.value))?;
        if let Some(granted) = &granted
            && let Some(spent) = granted.spent(&digest)?
        {
            return self.again(order, granted, spent, KeyOperation::Reissue);
        }
        self.check_alive(id, &entry.value)?;
        if self.settings.approval == Approval::Operator {
            let (name, wanted) = (entry.value.name.as_str(), Wanted::Reissue(id));
            let by = granted.as_ref().map(|granted| (granted, digest));
            return self.put_off(order, (name, wanted), by);
        }
        if let Some(line) = self.issuer.line() {
            let (name, wanted) = (entry.value.name.as_str(), Wanted::Reissue(id));
            let by = granted.as_ref().map(|granted| (granted, digest));
            return self.send(line, order, (name, wanted), by);
        }
        let new = self.renew(id, entry, move |write, new| match granted {
            Some(granted) => granted.spend(write, digest, UsedFor::Entry(new)),
            None => Ok(write),
        })?;
        self.done(KeyOperation::Reissue, new, None)
    }

    /// Who may: the binding's own key, or a pass phrase for its name with the key's possession.
    fn reissuer(
        &self,
        holder: Holder,
        order: &Order,
        (id, entry): (EntryId, &Entry),
    ) -> Result<Option<Granted>, Why> {
        match holder {
            Holder::Binding(signer) if signer == id => Ok(None),
            Holder::Binding(_) => Err(Refusal::HolderOther.into()),
            Holder::Authorization(_) => {
                let granted = self.granted(holder, &entry.name)?;
                match &order.possessed {
                    None => Err(Refusal::PossessionMissing.into()),
                    Some(proven) if *proven != entry.key => Err(Refusal::PossessionOther.into()),
                    Some(_) => Ok(Some(granted)),
                }
            }
            Holder::Recovery(_) => Err(Refusal::AuthenticationKind.into()),
        }
    }

    pub(super) fn check_alive(&self, id: EntryId, entry: &Entry) -> Result<(), Why> {
        let now = i64::try_from(self.now()).unwrap_or(i64::MAX);
        if entry.revoked_at.is_some() {
            return Err(Refusal::BindingRevoked.into());
        }
        if now >= entry.not_on_or_after {
            return Err(Refusal::BindingExpired.into());
        }
        if self.alive(id)?.len() >= MAX_ALIVE {
            return Err(Refusal::ReissuedTooOften.into());
        }
        Ok(())
    }

    /// The entry and those whose place it took, newest first, as long as they are neither expired
    /// nor revoked.
    pub(super) fn alive(&self, id: EntryId) -> Result<Vec<(EntryId, Versioned<Entry>)>, Why> {
        let now = i64::try_from(self.now()).unwrap_or(i64::MAX);
        let (mut all, mut next) = (Vec::new(), Some(id));
        while let Some(id) = next.filter(|_| all.len() <= MAX_ALIVE) {
            let Some(entry) = self.library.entry(id)? else { break };
            next = entry.value.replaces;
            if entry.value.revoked_at.is_none() && now < entry.value.not_on_or_after {
                all.push((id, entry));
            }
        }
        Ok(all)
    }

    /// Issues the new certificate; what `with` adds is written in the same transaction.
    pub(super) fn renew(
        &self,
        id: EntryId,
        entry: Versioned<Entry>,
        with: impl FnOnce(store::typed::Write, EntryId) -> Result<store::typed::Write, Why>
        + Send
        + 'static,
    ) -> Result<EntryId, Why> {
        let sealed = self.library.get(&record::escrow(id)?)?;
        let private = match (&sealed, entry.value.escrowed) {
            (Some(sealed), true) => {
                Some((self.open_key(entry.value.owner.as_deref(), id, &sealed.value)?, 0))
            }
            (Some(_) | None, _) => None,
        };
        let old = entry.value.clone();
        let plan = Plan {
            name: old.name.clone(),
            uses: old.uses,
            use_with: old.use_with,
            validity: self.interval(None, None)?,
            revocation_code: old.revocation_code,
            replaces: Some(id),
            private,
            owner: old.owner,
        };
        let ask = For::Certificate(&old.certificate.0);
        let new = self.issue(
            &ask,
            plan,
            Box::new(move |write, new| {
                let mut entry = entry;
                entry.value.replaced_by = Some(new);
                let mut write = Library::retire(write, id, &entry)?;
                if let Some(sealed) = sealed {
                    write = write.delete(record::escrow(id)?, sealed.version);
                }
                with(write, new)
            }),
        )?;
        let detail = format!("{} in place of {}", new.public(), id.public());
        self.journal.done("trust", "key-reissued", &format!("key:{}", old.name), &detail)?;
        Ok(new)
    }

    /// The one binding that an example is like; the requester's own, if there are several.
    pub(super) fn one(
        &self,
        example: &KeyExample,
        holder: Option<Holder>,
    ) -> Result<(EntryId, Versioned<Entry>), Why> {
        let mut found = self.library.find(example, 16)?.entries;
        if let Some(Holder::Binding(signer) | Holder::Recovery(signer)) = holder
            && let Some(own) = found.iter().position(|(id, _)| *id == signer)
        {
            return Ok(found.swap_remove(own));
        }
        if found.len() > 1 {
            found.retain(|(_, entry)| entry.value.revoked_at.is_none());
        }
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(Refusal::BindingAmbiguous.into()),
            (None, _) => {
                self.moved_away(example)?;
                Err(Refusal::BindingUnknown.into())
            }
        }
    }
}
