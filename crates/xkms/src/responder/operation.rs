//! The operations: from a typed request to what the service says.

use std::collections::BTreeSet;

use super::{
    Refused, Work,
    authenticate::{Authenticated, authenticate, possession},
    finish, refused, respond_with,
};
use crate::{
    message::{
        Answer, AnswerBody, Binding, Counts, KeyBinding, Major, Mechanism, Minor, Operation,
        QueryKeyBinding, Request, RequestBody, RequestHead, ResultHead, RevokeProof,
        UnverifiedKeyBinding,
    },
    service::{Done, Failure, Found, Order, Outcome, Query, Receipt, Requester},
    uri,
    xenc::{Cipher, EncryptedData},
    xml::ElementRef,
};

/// The result of `operation` with nothing in it.
pub(super) const fn empty(operation: Operation) -> AnswerBody {
    match operation {
        Operation::Locate => AnswerBody::Locate(Vec::new()),
        Operation::Validate => AnswerBody::Validate(Vec::new()),
        Operation::Register => AnswerBody::Register(Vec::new(), None),
        Operation::Reissue => AnswerBody::Reissue(Vec::new()),
        Operation::Revoke => AnswerBody::Revoke(Vec::new()),
        Operation::Recover => AnswerBody::Recover(Vec::new(), None),
        Operation::Compound => AnswerBody::Compound(Vec::new()),
        Operation::Pending => AnswerBody::Result,
        Operation::Status => {
            AnswerBody::Status(Counts { success: None, failure: None, pending: None })
        }
    }
}

/// Performs `request`, which stands at `element`; `outer` is the head of the message that it came
/// in.
pub(super) fn perform(
    element: ElementRef<'_>,
    request: &Request,
    outer: &RequestHead,
    work: &mut Work<'_>,
) -> Answer {
    let head = &request.head;
    let outcome = match &request.body {
        RequestBody::Locate(query) => locate(head, query, work),
        RequestBody::Validate(query) => validate(head, query, work),
        RequestBody::Compound(all) => compound(element, all, outer, work),
        RequestBody::Pending { response_id } => collect(head, response_id, work),
        RequestBody::Status { response_id } => status(head, response_id, work),
        RequestBody::Register { .. }
        | RequestBody::Reissue { .. }
        | RequestBody::Revoke { .. }
        | RequestBody::Recover { .. } => order(element, request, outer, work),
    };
    outcome.unwrap_or_else(|refusal| refused(work, refusal, empty(request.operation())))
}

fn success(work: &mut Work<'_>, minor: Option<Minor>, body: AnswerBody) -> Answer {
    let head = ResultHead::new(&work.fresh_id(), &work.policy.service, Major::Success, minor);
    Answer { head, body }
}

/// A binding of an answer.
trait Answered {
    fn binding(&mut self) -> &mut Binding;
}

impl Answered for KeyBinding {
    fn binding(&mut self) -> &mut Binding {
        &mut self.binding
    }
}

impl Answered for UnverifiedKeyBinding {
    fn binding(&mut self) -> &mut Binding {
        &mut self.binding
    }
}

/// Cuts answers down to what was asked for: how many, and what of each.
fn cut<T: Answered>(found: &mut Found<T>, limit: usize, head: &RequestHead) -> Option<Minor> {
    found.more |= found.bindings.len() > limit;
    found.bindings.truncate(limit);
    let mut missing = false;
    for answer in &mut found.bindings {
        missing |= respond_with::select(answer.binding(), &head.respond_with);
    }
    if found.bindings.is_empty() {
        Some(Minor::NoMatch)
    } else if found.more {
        Some(Minor::TooManyResponses)
    } else {
        missing.then_some(Minor::Incomplete)
    }
}

fn limit(head: &RequestHead, work: &Work<'_>) -> usize {
    let asked = head.response_limit.and_then(|limit| usize::try_from(limit).ok());
    asked.unwrap_or(usize::MAX).min(work.policy.result_limit)
}

fn question<'a>(head: &'a RequestHead, query: &'a QueryKeyBinding, work: &Work<'_>) -> Query<'a> {
    Query {
        binding: &query.binding,
        instant: query.time,
        now: work.circumstances.now,
        respond_with: &head.respond_with,
        limit: limit(head, work),
    }
}

fn locate(
    head: &RequestHead,
    query: &QueryKeyBinding,
    work: &mut Work<'_>,
) -> Result<Answer, Refused> {
    let question = question(head, query, work);
    let mut found = work.service.locate(&question)?;
    let minor = cut(&mut found, question.limit, head);
    let mut answer = success(work, minor, AnswerBody::Locate(found.bindings));
    answer.head.knowledge = found.knowledge.filter(|_| head.wants_knowledge);
    Ok(answer)
}

fn validate(
    head: &RequestHead,
    query: &QueryKeyBinding,
    work: &mut Work<'_>,
) -> Result<Answer, Refused> {
    let question = question(head, query, work);
    let mut found = work.service.validate(&question)?;
    let minor = cut(&mut found, question.limit, head);
    let mut answer = success(work, minor, AnswerBody::Validate(found.bindings));
    answer.head.knowledge = found.knowledge.filter(|_| head.wants_knowledge);
    Ok(answer)
}

/// Each request on its own: one that fails leaves the others alone, and they keep their order.
fn compound(
    element: ElementRef<'_>,
    all: &[Request],
    outer: &RequestHead,
    work: &mut Work<'_>,
) -> Result<Answer, Refused> {
    let elements = element.children().filter(|child| {
        let (namespace, local) = child.name();
        namespace == uri::XKMS && local.ends_with("Request")
    });
    let mut answers = Vec::with_capacity(all.len());
    let mut named = BTreeSet::new();
    for (element, request) in elements.zip(all) {
        let mut answer = if request.head.service == work.policy.service {
            perform(element, request, outer, work)
        } else {
            let refusal = Refused::sender(Minor::Failure, "service-uri");
            refused(work, refusal, empty(request.operation()))
        };
        finish(&mut answer, &request.head);
        name_once(&mut answer.body, &mut named);
        answers.push(answer);
    }
    Ok(success(work, None, AnswerBody::Compound(answers)))
}

/// An Id names one element of a document: a binding that was answered before goes without.
fn name_once(body: &mut AnswerBody, named: &mut BTreeSet<String>) {
    let mut once = |binding: &mut Binding| {
        binding.id = binding.id.take().filter(|id| named.insert(id.clone()));
    };
    match body {
        AnswerBody::Locate(all) => all.iter_mut().for_each(|one| once(&mut one.binding)),
        AnswerBody::Validate(all)
        | AnswerBody::Register(all, _)
        | AnswerBody::Reissue(all)
        | AnswerBody::Revoke(all)
        | AnswerBody::Recover(all, _) => all.iter_mut().for_each(|one| once(&mut one.binding)),
        AnswerBody::Compound(_) | AnswerBody::Result | AnswerBody::Status(_) => {}
    }
}

/// A register, reissue, revoke or recover order.
fn order(
    element: ElementRef<'_>,
    request: &Request,
    outer: &RequestHead,
    work: &mut Work<'_>,
) -> Result<Answer, Refused> {
    let operation = request.operation();
    let head = &request.head;
    let (binding, claim, proof) = match &request.body {
        RequestBody::Register { prototype, authentication, possession } => {
            (&prototype.binding, Some(authentication), possession.as_ref())
        }
        RequestBody::Reissue { binding, authentication, possession } => {
            (&binding.binding, Some(authentication), possession.as_ref())
        }
        RequestBody::Recover { binding, authentication } => {
            (&binding.binding, Some(authentication), None)
        }
        RequestBody::Revoke { binding, proof } => match proof {
            RevokeProof::Authentication(claim) => (&binding.binding, Some(claim), None),
            RevokeProof::Code(_) => (&binding.binding, None, None),
        },
        RequestBody::Locate(_)
        | RequestBody::Validate(_)
        | RequestBody::Compound(_)
        | RequestBody::Pending { .. }
        | RequestBody::Status { .. } => return Err(Failure::NotSupported.into()),
    };
    let who: Option<Authenticated> = match claim {
        Some(claim) => Some(authenticate(element, operation, binding, claim, work)?),
        None => None,
    };
    let proves = matches!(operation, Operation::Register | Operation::Reissue);
    let possessed = if proves { possession(element, binding, proof, work)? } else { None };
    let requester = match (&who, &request.body) {
        (Some(who), _) => who.requester(),
        (None, RequestBody::Revoke { proof: RevokeProof::Code(code), .. }) => {
            Requester::RevocationCode(code)
        }
        (None, _) => return Err(Failure::NoAuthentication.into()),
    };
    let response_id = work.fresh_id();
    let order = Order {
        requester,
        possessed,
        respond_with: &head.respond_with,
        now: work.circumstances.now,
        receipt: Receipt { response_id: &response_id, request_id: &head.id },
        may_wait: head.offers(&Mechanism::Pending) || outer.offers(&Mechanism::Pending),
    };
    let outcome = match &request.body {
        RequestBody::Register { prototype, .. } => work.service.register(&order, prototype),
        RequestBody::Reissue { binding, .. } => work.service.reissue(&order, binding),
        RequestBody::Revoke { binding, .. } => work.service.revoke(&order, binding),
        RequestBody::Recover { binding, .. } => work.service.recover(&order, binding),
        RequestBody::Locate(_)
        | RequestBody::Validate(_)
        | RequestBody::Compound(_)
        | RequestBody::Pending { .. }
        | RequestBody::Status { .. } => Err(Failure::NotSupported),
    };
    match outcome? {
        Outcome::Done(done) => finished(head, done, work),
        Outcome::Later if order.may_wait => Ok(later(&response_id, empty(operation), work)),
        Outcome::Later => Err(Failure::NotSynchronous.into()),
    }
}

fn later(response_id: &str, body: AnswerBody, work: &Work<'_>) -> Answer {
    let head = ResultHead::new(response_id, &work.policy.service, Major::Pending, None);
    Answer { head, body }
}

/// The result of an order that was carried out.
fn finished(head: &RequestHead, done: Done, work: &mut Work<'_>) -> Result<Answer, Refused> {
    let mut found = Found { bindings: done.bindings, more: false, knowledge: None };
    let minor = cut(&mut found, limit(head, work), head);
    let key = match done.private_key {
        None => None,
        Some(delivery) => {
            let name = delivery.name.as_deref();
            let plain = delivery.key.to_xml();
            let sealed =
                EncryptedData::seal(&plain, &delivery.under, Cipher::Aes256Gcm, false, name);
            Some(sealed.map_err(|_| Failure::Internal)?)
        }
    };
    let bindings = found.bindings;
    let body = match done.operation {
        Operation::Register => AnswerBody::Register(bindings, key),
        Operation::Reissue => AnswerBody::Reissue(bindings),
        Operation::Revoke => AnswerBody::Revoke(bindings),
        Operation::Recover => AnswerBody::Recover(bindings, key),
        Operation::Locate
        | Operation::Validate
        | Operation::Compound
        | Operation::Pending
        | Operation::Status => return Err(Failure::Internal.into()),
    };
    Ok(success(work, minor, body))
}

fn receipt<'a>(head: &'a RequestHead, response_id: &'a str) -> Result<Receipt<'a>, Refused> {
    let unknown = Refused::sender(Minor::UnknownResponseId, "response-id-unknown");
    let request_id = head.original_request_id.as_deref().ok_or(unknown)?;
    Ok(Receipt { response_id, request_id })
}

fn collect(head: &RequestHead, response_id: &str, work: &mut Work<'_>) -> Result<Answer, Refused> {
    let unknown = Refused::sender(Minor::UnknownResponseId, "response-id-unknown");
    let outcome = work.service.collect(&receipt(head, response_id)?).ok_or(unknown)?;
    match outcome? {
        Outcome::Done(done) => finished(head, done, work),
        Outcome::Later if head.offers(&Mechanism::Pending) => {
            Ok(later(response_id, AnswerBody::Result, work))
        }
        Outcome::Later => Err(Failure::NotSynchronous.into()),
    }
}

fn status(head: &RequestHead, response_id: &str, work: &mut Work<'_>) -> Result<Answer, Refused> {
    let unknown = Refused::sender(Minor::UnknownResponseId, "response-id-unknown");
    let counts = work.service.progress(&receipt(head, response_id)?).ok_or(unknown)?;
    Ok(success(work, None, AnswerBody::Status(counts)))
}
