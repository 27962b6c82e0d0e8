//! Recover: a private key that is in escrow is given back, after enough operators agreed, to whoever
//! has the phrase that came of that; then the binding is revoked.

use model::{
    Secret,
    keys::{
        KeyExample,
        order::{KeyOperation, KeyOutcome, Order, SecretBytes},
    },
};
use store::typed::Write;

use super::{
    Holder, Keeper,
    authorize::{Phrase, check_operator},
    record::{self, EntryId, Recovery},
    refusal::{Fault, Refusal, Why},
};

impl Keeper {
    /// Gives a private key back.
    pub(super) fn recover(&self, order: &Order, example: &KeyExample) -> Result<KeyOutcome, Why> {
        if !self.settings.escrow {
            return Err(Refusal::EscrowOff.into());
        }
        let holder = Holder::of(order).ok_or(Refusal::AuthenticationKind)?;
        let Holder::Recovery(allowed) = holder else {
            return Err(Refusal::AuthenticationKind.into());
        };
        let (id, entry) = self.one(example, Some(holder))?;
        if id != allowed {
            return Err(Refusal::HolderOther.into());
        }
        if !entry.value.escrowed {
            return Err(Refusal::NotEscrowed.into());
        }
        let held = self.library.get(&record::recovery(id)?)?;
        let request = &order.receipt.request_id;
        let held = held.filter(|held| {
            let again = held.value.used.as_ref().is_none_or(|used| used == request);
            again && self.is_open(&held.value)
        });
        let held = held.ok_or(Refusal::RecoveryNotApproved)?;
        let under = held.value.delivery.clone().ok_or(Refusal::RecoveryNotApproved)?;
        let name = entry.value.name.clone();
        if held.value.used.is_none() {
            let (mut value, version) = (held.value, held.version);
            value.used = Some(request.clone());
            let by = super::actor(order);
            self.end(id, &entry.value, &by, None, |write: Write, _| {
                Ok(write.put(record::recovery(id)?, &value, version)?)
            })?;
            let detail = format!("{}, approved by {}", id.public(), value.operators.join(", "));
            self.journal.done(&by, "key-recovered", &format!("key:{name}"), &detail)?;
        }
        let delivery = self.private_key(id, &entry.value, Secret::new(under.0))?;
        let mut outcome = self.done(KeyOperation::Recover, id, None)?;
        if let KeyOutcome::Done(done) = &mut outcome {
            done.private_key = delivery;
        }
        Ok(outcome)
    }

    /// Whether its phrase may still be used, or was used and may be repeated.
    fn is_open(&self, recovery: &Recovery) -> bool {
        recovery.mac.is_some()
            && recovery.tries < self.settings.phrase_tries
            && self.now() < recovery.expires_at
    }

    /// One operator's approval: how many are missing, and the phrase when none is.
    pub(super) fn approve_recovery(
        &self,
        id: EntryId,
        operator: &str,
    ) -> Result<(u32, Option<SecretBytes>), Why> {
        check_operator(operator)?;
        if !self.settings.escrow {
            return Err(Refusal::EscrowOff.into());
        }
        let entry = self.library.entry(id)?.ok_or(Refusal::BindingUnknown)?.value;
        if !entry.escrowed {
            return Err(Refusal::NotEscrowed.into());
        }
        let held = self.library.get(&record::recovery(id)?)?;
        let version = held.as_ref().map_or(0, |held| held.version);
        // One that came to its end, in whatever way, begins anew.
        let going = held
            .map(|held| held.value)
            .filter(|recovery| self.now() < recovery.expires_at && recovery.mac.is_none());
        let mut recovery = going.unwrap_or_default();
        if recovery.operators.iter().any(|one| one == operator) {
            return Err(Refusal::SameOperator.into());
        }
        recovery.operators.push(operator.to_owned());
        let life = self.settings.phrase_life_s.saturating_mul(1000);
        recovery.expires_at = self.now().saturating_add(life);
        let have = u32::try_from(recovery.operators.len()).unwrap_or(u32::MAX);
        let missing = self.settings.recovery_operators.saturating_sub(have);
        let mut shown = None;
        if missing == 0 {
            let phrase = Phrase::random()?;
            shown = Some(SecretBytes::new(Secret::new(phrase.text.expose().as_bytes().to_vec())));
            recovery.mac = Some(phrase.mac);
            recovery.delivery = Some(phrase.delivery);
        }
        let guard = self.guard(entry.owner.as_deref())?;
        let write = guard.on(Write::new()).put(record::recovery(id)?, &recovery, version)?;
        if !self.library.commit(write)? {
            return Err(Fault::Contended.into());
        }
        let detail = format!("{}, {missing} more must approve", id.public());
        let subject = format!("key:{}", entry.name);
        let by = format!("operator:{operator}");
        self.journal.done(&by, "key-recovery-approved", &subject, &detail)?;
        Ok((missing, shown))
    }
}
