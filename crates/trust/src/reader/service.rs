//! The keeper as the key service that the XKMS responder speaks to.

use model::{
    api::Bytes,
    keys::{
        Query as NeutralQuery,
        order::{AboutBinding, NamedKey, Order as NeutralOrder, Receipt as NeutralReceipt},
        rpc::{Collected, KeyAnswer, KeyRequest},
    },
};
use xkms::{
    message::{
        Binding, Counts, KeyBinding, KeyInfo, Operation, PrototypeKeyBinding, RespondWith,
        UnverifiedKeyBinding,
    },
    service::{AuthenticationKey, Failure, Found, KeyService, Order, Outcome, Query, Receipt},
};

use super::{
    caller::Caller,
    expected,
    link::Link,
    translate::{self, Wanted},
    turn::Turn,
};

/// Everything that an answer to a collected order may carry.
const WHOLE: [RespondWith; 3] =
    [RespondWith::KeyName, RespondWith::KeyValue, RespondWith::X509Chain];

/// The keeper, for one request.
#[derive(Debug)]
pub(super) struct Kept<'l> {
    link: &'l Link,
    caller: &'l Caller,
    turn: &'l Turn,
    /// The key of whoever signed the message: only with a good signature is anything asked of it.
    signer: Option<Bytes>,
}

impl<'l> Kept<'l> {
    pub(super) const fn new(link: &'l Link, caller: &'l Caller, turn: &'l Turn) -> Self {
        Self { link, caller, turn, signer: None }
    }

    fn ask(&self, request: KeyRequest) -> KeyAnswer {
        self.link.ask(&self.caller.asks(request), self.turn)
    }

    /// What an answer shall carry; the list of revocations is fetched only where it is asked for.
    fn wanted<'a>(&self, kinds: &'a [RespondWith]) -> Wanted<'a> {
        let crl = kinds
            .contains(&RespondWith::X509Crl)
            .then(|| expected::published(self.ask(KeyRequest::Crl)).ok().map(|der| der.0));
        Wanted::new(kinds, crl.flatten())
    }

    /// A question as that of whoever signed it.
    fn signed(&self, question: KeyRequest) -> KeyRequest {
        match &self.signer {
            Some(signer) => {
                KeyRequest::AskedBy { signer: signer.clone(), question: Box::new(question) }
            }
            None => question,
        }
    }

    fn found(&self, request: KeyRequest) -> Result<model::keys::Found, Failure> {
        expected::found(self.ask(request))
    }

    fn outcome(&self, request: KeyRequest, kinds: &[RespondWith]) -> Result<Outcome, Failure> {
        let outcome = expected::outcome(self.ask(request))?;
        self.wanted(kinds).outcome(outcome)
    }
}

fn query(of: &Query<'_>) -> Result<NeutralQuery, Failure> {
    Ok(NeutralQuery {
        binding: translate::sought(of.binding)?,
        instant: of.instant.map(translate::millis),
        limit: u32::try_from(of.limit).unwrap_or(u32::MAX),
    })
}

fn receipt(of: &Receipt<'_>) -> NeutralReceipt {
    NeutralReceipt { response_id: of.response_id.to_owned(), request_id: of.request_id.to_owned() }
}

fn order(of: &Order<'_>) -> NeutralOrder {
    NeutralOrder {
        requester: translate::requester(of.requester),
        possessed: of.possessed.map(|key| Bytes(key.to_spki())),
        receipt: receipt(&of.receipt),
        may_wait: of.may_wait,
    }
}

fn about(of: &Order<'_>, binding: &KeyBinding) -> AboutBinding {
    AboutBinding { order: order(of), binding: translate::example(&binding.binding) }
}

impl KeyService for Kept<'_> {
    fn locate(&mut self, of: &Query<'_>) -> Result<Found<UnverifiedKeyBinding>, Failure> {
        let found = self.found(self.signed(KeyRequest::Locate(query(of)?)))?;
        let wanted = self.wanted(of.respond_with);
        let bindings = found.bindings.into_iter().map(|binding| wanted.unverified(binding));
        let (more, knowledge) = (found.more, found.knowledge);
        Ok(Found { bindings: bindings.collect(), more, knowledge })
    }

    fn validate(&mut self, of: &Query<'_>) -> Result<Found<KeyBinding>, Failure> {
        let found = self.found(self.signed(KeyRequest::Validate(query(of)?)))?;
        let wanted = self.wanted(of.respond_with);
        let bindings = found.bindings.into_iter().map(|binding| wanted.verified(binding));
        let (more, knowledge) = (found.more, found.knowledge);
        Ok(Found { bindings: bindings.collect(), more, knowledge })
    }

    fn authentication_keys(
        &mut self,
        of: Operation,
        binding: &Binding,
    ) -> Result<Vec<(String, AuthenticationKey)>, Failure> {
        let Some(operation) = translate::operation(of) else { return Ok(Vec::new()) };
        let binding = translate::example(binding);
        let answer = self.ask(KeyRequest::AuthenticationKeys { operation, binding });
        let key = |named: NamedKey| Some((named.holder, translate::authentication_key(named.key)?));
        Ok(expected::keys(answer)?.into_iter().filter_map(key).collect())
    }

    fn authentication_failed(&mut self, of: Operation, binding: &Binding) {
        let Some(operation) = translate::operation(of) else { return };
        let binding = translate::example(binding);
        let request = KeyRequest::AuthenticationFailed { operation, binding };
        if expected::noted(&self.ask(request)).is_err() {
            tracing::error!("a failed authentication could not be counted");
        }
    }

    fn message_key(&mut self, hint: Option<&KeyInfo>) -> Option<AuthenticationKey> {
        let example = translate::example_of(hint?);
        let answer = self.ask(KeyRequest::MessageKey(example));
        let key = expected::key(answer).ok().flatten()?;
        if let model::keys::order::AuthenticationKey::Public(spki) = &key {
            self.signer = Some(spki.clone());
        }
        translate::authentication_key(key)
    }

    fn register(
        &mut self,
        of: &Order<'_>,
        asked: &PrototypeKeyBinding,
    ) -> Result<Outcome, Failure> {
        let request = KeyRequest::Register { order: order(of), asked: translate::prototype(asked) };
        self.outcome(request, of.respond_with)
    }

    fn reissue(&mut self, of: &Order<'_>, binding: &KeyBinding) -> Result<Outcome, Failure> {
        self.outcome(KeyRequest::Reissue(about(of, binding)), of.respond_with)
    }

    fn revoke(&mut self, of: &Order<'_>, binding: &KeyBinding) -> Result<Outcome, Failure> {
        self.outcome(KeyRequest::Revoke(about(of, binding)), of.respond_with)
    }

    fn recover(&mut self, of: &Order<'_>, binding: &KeyBinding) -> Result<Outcome, Failure> {
        self.outcome(KeyRequest::Recover(about(of, binding)), of.respond_with)
    }

    fn collect(&mut self, of: &Receipt<'_>) -> Option<Result<Outcome, Failure>> {
        match expected::collected(self.ask(KeyRequest::Collect(receipt(of)))) {
            Ok(None) => None,
            // What of it the client wants, the responder selects.
            Ok(Some(Collected::Outcome(outcome))) => Some(self.wanted(&WHOLE).outcome(outcome)),
            Ok(Some(Collected::Failed(failed))) | Err(failed) => Some(Err(failed)),
        }
    }

    fn progress(&mut self, of: &Receipt<'_>) -> Option<Counts> {
        let answer = self.ask(KeyRequest::Progress(receipt(of)));
        expected::progress(answer).ok().flatten().map(translate::counts)
    }
}
