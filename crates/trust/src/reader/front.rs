//! One XKMS request, from its bytes to its answer: the responder in front of the keeper, what it
//! refuses noted, and how busy it is.

use model::Secret;
use serve::{
    clock::{Clock as _, SystemClock},
    random,
};
use thiserror::Error;
use time::Duration;
use xkms::{
    dsig::{Sha1, SignaturePolicy, SigningKey},
    message::{KeyInfo, KeyInfoItem, Operation, X509Item},
    nonce::NonceBook,
    responder::{self, AnswerKey, Circumstances, Reply, Responder, ResponderPolicy},
    xml::Limits,
};

use super::{
    caller::Caller, link::Link, load::Rate, notes::Notes, service::Kept, translate, turn::Turn,
};
use crate::{config, start::Start};

/// The reader cannot begin.
#[derive(Debug, Error)]
pub(crate) enum FrontError {
    /// The key that signs messages cannot be used.
    #[error("the key that signs messages cannot be used")]
    MessageKey(#[source] xkms::dsig::KeyError),
}

/// Everything that requests are worked on with; threads share it.
#[derive(Debug)]
pub(crate) struct Front {
    responder: Responder,
    pub(super) link: Link,
    notes: Notes,
    orders: Rate,
    /// Whether the channel to clients hides what is said on it.
    confidential: bool,
}

impl Front {
    /// In front of the keeper at the other end of `link`.
    ///
    /// # Errors
    /// [`FrontError`].
    pub(crate) fn new(start: &Start, link: Link) -> Result<Self, FrontError> {
        let front = &start.front;
        let signer = SigningKey::from_pkcs8(start.message.key.0.expose());
        let signer = signer.map_err(FrontError::MessageKey)?;
        let lifetime = Duration::seconds(front.nonce_s.into());
        let nonce_key: &Secret<Vec<u8>> = &start.nonce_key.0;
        let nonces = NonceBook::new(nonce_key, lifetime, front.nonces);
        let sha1 = if front.sha1_in_macs { Sha1::InMacs } else { Sha1::Refused };
        let policy = ResponderPolicy {
            signatures: SignaturePolicy { sha1 },
            signed_questions: !front.open_queries,
            when: match front.two_phase {
                config::TwoPhase::Always => responder::TwoPhase::Always,
                config::TwoPhase::UnderLoad => responder::TwoPhase::UnderLoad,
                config::TwoPhase::Never => responder::TwoPhase::Never,
            },
            result_limit: usize::try_from(front.answers).unwrap_or(usize::MAX),
            limits: Limits::MESSAGE,
            ..ResponderPolicy::new(&start.service)
        };
        // The root is what clients have already.
        let above = start.message.chain.len().saturating_sub(1).max(1);
        let chain = start.message.chain.iter().take(above);
        let chain = chain.map(|der| X509Item::Certificate(der.0.clone())).collect();
        let info = KeyInfo { items: vec![KeyInfoItem::X509(chain)] };
        let key = AnswerKey::vouched_for(Box::new(signer), &info);
        Ok(Self {
            responder: Responder::new(policy, nonces, Some(key)),
            link,
            notes: Notes::new(front.refusals_per_second),
            orders: Rate::new(front.orders_per_second),
            confidential: start.tls.is_some(),
        })
    }

    /// Answers one document, in its turn. Blocks while the keeper works.
    pub(super) fn answer(&self, bytes: &[u8], from: &Caller, turn: &Turn) -> Reply {
        let now = SystemClock.now();
        let second = now.unix_timestamp();
        let requester = from.requester();
        let circumstances = Circumstances {
            now,
            requester: requester.as_bytes(),
            confidential: self.confidential || from.is_guest(),
            proven: from.is_guest(),
            under_load: self.orders.is_exceeded(second),
        };
        let mut failed = false;
        let mut random = || {
            random::bytes().unwrap_or_else(|_| {
                failed = true;
                [0; 16]
            })
        };
        let mut service = Kept::new(&self.link, from, turn);
        let reply = self.responder.respond(&mut service, bytes, circumstances, &mut random);
        if failed {
            return unanswered();
        }
        if reply.operation.is_some_and(is_order) {
            self.orders.note(second);
        }
        if let Some(refusal) = reply.refusal.filter(|name| !is_the_keepers(name)) {
            let event = reply.operation.map_or("unread", translate::operation_name);
            let refused = (format!("xkms-{event}"), refusal);
            turn.wait(|| self.notes.refused(&self.link, (&refused.0, refused.1), from, second));
        }
        reply
    }

    /// Notes a request that was refused before it was read.
    pub(super) fn refused(&self, event: &str, refusal: &'static str, from: &Caller) {
        self.notes.refused(&self.link, (event, refusal), from, SystemClock.now().unix_timestamp());
    }

    /// What is to be done now and then.
    pub(super) fn tidy(&self) {
        self.notes.flush(&self.link);
    }
}

/// Without randomness no answer can be made.
fn unanswered() -> Reply {
    tracing::error!("the random generator failed");
    Reply {
        status: 500,
        content_type: "text/plain",
        body: String::new(),
        operation: None,
        refusal: None,
    }
}

const fn is_order(operation: Operation) -> bool {
    match operation {
        Operation::Register
        | Operation::Reissue
        | Operation::Revoke
        | Operation::Recover
        | Operation::Compound => true,
        Operation::Locate | Operation::Validate | Operation::Pending | Operation::Status => false,
    }
}

/// Whether the keeper refused, and so noted it itself.
fn is_the_keepers(refusal: &str) -> bool {
    refusal.starts_with("service-") && refusal != "service-uri"
}
