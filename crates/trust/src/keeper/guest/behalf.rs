//! Requests of guests, once they are admitted: answered as the VM that they come from. Questions are
//! answered as to anyone; an order must be about the VM's own: the pass phrase was made for it
//! (`key authorize --owner VM`), the binding is its.

use model::{
    VmId,
    guest::GuestLine,
    keys::{
        KeyExample,
        order::{KeyFailure, KeyOperation, Order},
        rpc::{KeyAnswer, KeyRequest},
    },
};

use super::{
    super::{Holder, Keeper, Why, record},
    Guests, place,
};

/// An order, and what it is about.
struct Ordered<'r> {
    operation: KeyOperation,
    order: &'r Order,
    name: Option<&'r str>,
    binding: Option<&'r KeyExample>,
}

fn ordered(request: &KeyRequest) -> Option<Ordered<'_>> {
    let (operation, about) = match request {
        KeyRequest::Register { order, asked } => {
            let name = asked.name.as_deref();
            let operation = KeyOperation::Register;
            return Some(Ordered { operation, order, name, binding: None });
        }
        KeyRequest::Reissue(about) => (KeyOperation::Reissue, about),
        KeyRequest::Revoke(about) => (KeyOperation::Revoke, about),
        KeyRequest::Recover(about) => (KeyOperation::Recover, about),
        KeyRequest::Locate(_)
        | KeyRequest::Validate(_)
        | KeyRequest::AskedBy { .. }
        | KeyRequest::AuthenticationKeys { .. }
        | KeyRequest::AuthenticationFailed { .. }
        | KeyRequest::MessageKey(_)
        | KeyRequest::Collect(_)
        | KeyRequest::Progress(_)
        | KeyRequest::CaCertificate
        | KeyRequest::Crl
        | KeyRequest::DeltaCrl
        | KeyRequest::Ocsp(_)
        | KeyRequest::Refused { .. }
        | KeyRequest::Health
        | KeyRequest::Guest(_) => return None,
    };
    let name = about.binding.name.as_deref();
    Some(Ordered { operation, order: &about.order, name, binding: Some(&about.binding) })
}

const HINT: &str = "`vouchsafe key authorize --owner VM` makes a phrase for a VM's keys";

impl Guests {
    /// Answers `request` as the VM, or refuses by name.
    pub(super) fn on_behalf(
        &self,
        keeper: &Keeper,
        line: &GuestLine,
        request: KeyRequest,
    ) -> KeyAnswer {
        let vm = &line.vm;
        let admitted = self.admitted().get(&place(line)).copied();
        let until = admitted.filter(|(on, _)| *on == line.channel).map(|(_, until)| until);
        let refused = match until {
            None => Some(("guest-not-proven", "the client must prove itself first")),
            Some(until) if self.clock.unix_ms() >= until => {
                Some(("guest-proof-over", "the client proves itself anew"))
            }
            Some(_) => None,
        };
        if let Some(why) = refused {
            return refuse(keeper, line, "guest-ask", why);
        }
        if matches!(request, KeyRequest::Guest(_)) {
            return KeyAnswer::Failed(KeyFailure::NotSupported);
        }
        let Some(order) = ordered(&request) else { return keeper.serve(request) };
        let event = format!("guest-{}", order.operation.name());
        match keeper.is_own(vm, &order) {
            Ok(true) => {}
            Ok(false) => return refuse(keeper, line, &event, ("owner-other", HINT)),
            Err(why) => return KeyAnswer::Failed(why.failure()),
        }
        let subject = order.name.unwrap_or_default().to_owned();
        let answer = keeper.serve(request);
        let outcome = if matches!(answer, KeyAnswer::Failed(_)) { "not done" } else { "done" };
        let actor = format!("vm:{vm}");
        match keeper.journal.done(&actor, &event, &format!("key:{subject}"), outcome) {
            Ok(()) => answer,
            Err(_) => KeyAnswer::Failed(KeyFailure::Internal),
        }
    }
}

fn refuse(keeper: &Keeper, line: &GuestLine, event: &str, (name, hint): (&str, &str)) -> KeyAnswer {
    match keeper.guest_refused(line, event, (name, "", hint)) {
        Ok(()) => KeyAnswer::Failed(KeyFailure::Refused),
        Err(_) => KeyAnswer::Failed(KeyFailure::Internal),
    }
}

impl Keeper {
    /// Whether all that the order stands on and is about is the VM's. What is not there is nobody's:
    /// the order itself says so.
    fn is_own(&self, vm: &VmId, of: &Ordered<'_>) -> Result<bool, Why> {
        let own = |owner: &Option<String>| owner.as_deref() == Some(vm.as_str());
        let stands = match Holder::of(of.order) {
            Some(Holder::Authorization(id)) => {
                let Some(name) = of.name else { return Ok(false) };
                let held = self.library.get(&record::authorization(name, id)?)?;
                held.is_none_or(|held| own(&held.value.owner))
            }
            Some(Holder::Binding(id) | Holder::Recovery(id)) => {
                self.library.entry(id)?.is_none_or(|entry| own(&entry.value.owner))
            }
            None => true,
        };
        let Some(binding) = of.binding.filter(|_| stands) else { return Ok(stands) };
        if binding.is_empty() {
            return Ok(true);
        }
        let hits = self.library.find(binding, 16)?;
        Ok(!hits.more && hits.entries.iter().all(|(_, entry)| own(&entry.value.owner)))
    }
}
