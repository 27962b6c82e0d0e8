//! Message construct and parse: what applications ask becomes XKMS requests, and answers become what
//! applications read.

use std::{thread, time::Duration};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use model::{api::Bytes, keys::Knowledge};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xkms::{
    client::{Client, ClientRejection, Exchange, Step},
    dsig::{KeyError, PublicKey},
    message::{
        Answer, AnswerBody, Authentication, Binding, KeyBinding, KeyInfo, KeyInfoItem, KeyUsage,
        Major, Mechanism, Minor, PrototypeKeyBinding, Request, RequestBody, RequestHead,
        RespondWith, RevokeProof, Status, UseKeyWith,
    },
    xenc::EncryptedData,
};

use crate::{
    algorithms::{KeyFile, Phrase},
    signature::{self, Authorizer},
};

/// How often an answer that was put off is asked for.
const POLL: Duration = Duration::from_millis(500);

/// Why there is no answer that can be read.
#[derive(Debug, Error)]
pub enum MessageError<E: std::error::Error + 'static> {
    /// The answer is not taken.
    #[error("the answer is not taken: {0}")]
    Answer(#[from] ClientRejection),
    /// The request cannot be signed.
    #[error("the request cannot be signed")]
    Key(#[from] KeyError),
    /// No Id can be made.
    #[error("no randomness")]
    Random,
    /// The answer was put off for longer than the client waits.
    #[error("the answer was put off; ask again later")]
    Waits,
    /// It could not be sent.
    #[error(transparent)]
    Sent(E),
}

/// A binding as applications read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What the service knows it by.
    pub id: Option<String>,
    /// The key's name.
    pub name: Option<String>,
    /// The key (SubjectPublicKeyInfo, DER).
    pub key: Option<Bytes>,
    /// Its certificate and those above it, DER.
    pub certificates: Vec<Bytes>,
    /// `Valid`, `Invalid` or `Indeterminate`; none where the service vouches for nothing.
    pub status: Option<String>,
}

/// An answer as applications read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Whether it was done.
    pub success: bool,
    /// The protocol's two words for it.
    pub result: String,
    /// What was found or done.
    pub bindings: Vec<Found>,
    /// What the answer rests on, where the service says it.
    pub knowledge: Option<Knowledge>,
}

/// What came in an answer.
#[derive(Debug)]
pub struct Parsed {
    /// For applications.
    pub read: Read,
    /// A private key.
    pub private: Option<EncryptedData>,
    /// Revocation lists, DER; nothing of them was verified.
    pub crls: Vec<Vec<u8>>,
}

/// How a request is run.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Longest wait for an answer that was put off.
    pub patience: Duration,
    /// Whether revocation lists are to come with it.
    pub crls: bool,
}

fn info(name: &str, key: Option<&KeyFile>) -> KeyInfo {
    let mut info = KeyInfo::named(name);
    info.items.extend(key.and_then(KeyFile::public).map(KeyInfoItem::KeyValue));
    info
}

fn about(name: &str, key: Option<&KeyFile>) -> KeyBinding {
    let binding = Binding {
        id: Some("B1".to_owned()),
        key_info: Some(info(name, key)),
        ..Binding::default()
    };
    KeyBinding { binding, validity: None, status: Status::unknown() }
}

/// Register: `key` under `name`, for the uses and applications in `wanted` (no uses: signing);
/// without a key the service makes one, if it does that.
///
/// # Errors
/// [`KeyError`].
pub fn register(
    name: &str,
    phrase: &Phrase,
    key: Option<&KeyFile>,
    (usage, use_with): (Vec<KeyUsage>, Vec<UseKeyWith>),
) -> Result<RequestBody, KeyError> {
    let mut binding = about(name, key).binding;
    let signing = || key.map(|_| KeyUsage::Signature).into_iter().collect();
    binding.usage = if usage.is_empty() { signing() } else { usage };
    binding.use_with = use_with;
    let mut body = RequestBody::Register {
        prototype: PrototypeKeyBinding {
            binding,
            validity: None,
            revocation_code_identifier: Some(phrase.revocation_identifier()),
        },
        authentication: Authentication::default(),
        possession: None,
    };
    signature::order(&mut body, &Authorizer::Phrase(phrase), key)?;
    Ok(body)
}

/// Reissue, by the key itself.
///
/// # Errors
/// [`KeyError`].
pub fn reissue(name: &str, key: &KeyFile) -> Result<RequestBody, KeyError> {
    let mut body = RequestBody::Reissue {
        binding: about(name, Some(key)),
        authentication: Authentication::default(),
        possession: None,
    };
    signature::order(&mut body, &Authorizer::Key(key), Some(key))?;
    Ok(body)
}

/// Revoke, by the key itself or by the code that follows from the phrase of its registration.
///
/// # Errors
/// [`KeyError`].
pub fn revoke(name: &str, by: &Authorizer<'_>) -> Result<RequestBody, KeyError> {
    match by {
        Authorizer::Phrase(phrase) => Ok(RequestBody::Revoke {
            binding: about(name, None),
            proof: RevokeProof::Code(phrase.revocation_code().expose().clone()),
        }),
        Authorizer::Key(key) => {
            let proof = RevokeProof::Authentication(Authentication::default());
            let mut body = RequestBody::Revoke { binding: about(name, Some(key)), proof };
            signature::order(&mut body, by, None)?;
            Ok(body)
        }
    }
}

/// Recover, by the phrase that the operators' approval gave.
///
/// # Errors
/// [`KeyError`].
pub fn recover(name: &str, phrase: &Phrase) -> Result<RequestBody, KeyError> {
    let mut body = RequestBody::Recover {
        binding: about(name, None),
        authentication: Authentication::default(),
    };
    signature::order(&mut body, &Authorizer::Phrase(phrase), None)?;
    Ok(body)
}

fn id<E: std::error::Error>() -> Result<String, MessageError<E>> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| MessageError::Random)?;
    Ok(format!("I{}", hex::encode(bytes)))
}

/// Runs one request to its end over `send`: presents it again if the service wants that, and asks
/// again while the answer is put off, for as long as the terms allow.
///
/// At first the client does not say that it can wait: a service that has to ask others is then as
/// quick as they are, where it would else put the answer off. Only when it says that this takes longer
/// is it told that the client waits.
///
/// # Errors
/// [`MessageError`].
pub fn run<E: std::error::Error>(
    client: &Client<'_>,
    body: RequestBody,
    terms: Terms,
    send: &mut impl FnMut(&str) -> Result<Vec<u8>, E>,
) -> Result<Answer, MessageError<E>> {
    let answer = once(client, body.clone(), (vec![Mechanism::Represent], terms), send)?;
    if answer.head.minor != Some(Minor::NotSynchronous) {
        return Ok(answer);
    }
    once(client, body, (vec![Mechanism::Represent, Mechanism::Pending], terms), send)
}

fn once<E: std::error::Error>(
    client: &Client<'_>,
    body: RequestBody,
    (mechanisms, Terms { patience, crls }): (Vec<Mechanism>, Terms),
    send: &mut impl FnMut(&str) -> Result<Vec<u8>, E>,
) -> Result<Answer, MessageError<E>> {
    let mut respond_with =
        vec![RespondWith::KeyName, RespondWith::KeyValue, RespondWith::X509Chain];
    respond_with.extend(crls.then_some(RespondWith::X509Crl));
    let head = RequestHead {
        mechanisms,
        respond_with,
        wants_knowledge: true,
        ..RequestHead::new(&id()?, &client.service)
    };
    let (mut exchange, mut document) = Exchange::begin(client, Request { head, body })?;
    let mut waited = Duration::ZERO;
    loop {
        let answer = send(&document).map_err(MessageError::Sent)?;
        document = match exchange.receive(&answer, &id()?)? {
            Step::Send(document) => document,
            Step::Done(answer) => return Ok(*answer),
            Step::Wait if waited >= patience => return Err(MessageError::Waits),
            Step::Wait => {
                thread::sleep(POLL);
                waited = waited.saturating_add(POLL);
                exchange.poll(&id()?)?
            }
        };
    }
}

/// What applications read of an answer, and what else is in it.
#[must_use]
pub fn read(answer: Answer) -> Parsed {
    let mut crls = Vec::new();
    let minor = answer.head.minor.as_ref().map(|minor| format!(" {minor:?}"));
    let result = format!("{:?}{}", answer.head.major, minor.unwrap_or_default());
    let mut judged = |found: Vec<KeyBinding>| -> Vec<Found> {
        let judged = found.into_iter().map(|one| {
            let lists = one.binding.key_info.iter().flat_map(KeyInfo::crls);
            crls.extend(lists.map(<[u8]>::to_vec));
            let status = Some(format!("{:?}", one.status.value));
            Found { status, ..binding(one.binding) }
        });
        judged.collect()
    };
    let (bindings, private) = match answer.body {
        AnswerBody::Locate(found) => {
            (found.into_iter().map(|one| binding(one.binding)).collect(), None)
        }
        AnswerBody::Register(found, private) | AnswerBody::Recover(found, private) => {
            (judged(found), private)
        }
        AnswerBody::Validate(found) | AnswerBody::Reissue(found) | AnswerBody::Revoke(found) => {
            (judged(found), None)
        }
        AnswerBody::Result | AnswerBody::Compound(_) | AnswerBody::Status(_) => (Vec::new(), None),
    };
    let success = answer.head.major == Major::Success;
    let read = Read { success, result, bindings, knowledge: answer.head.knowledge };
    Parsed { read, private, crls }
}

fn binding(of: Binding) -> Found {
    let info = of.key_info.unwrap_or_default();
    Found {
        id: of.id,
        name: info.key_name().map(str::to_owned),
        key: info.key_value().map(PublicKey::to_spki).map(Bytes),
        certificates: info.certificates().map(|der| Bytes(der.to_vec())).collect(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use xkms::{
        client::ServiceTrust, dsig::SignaturePolicy, message::QueryKeyBinding, soap::Version,
    };

    use super::*;

    #[test]
    fn a_service_is_told_that_the_client_waits_only_if_it_cannot_answer_at_once() {
        let client = Client {
            service: "http://a/xkms".to_owned(),
            version: Version::Bare,
            signer: None,
            trust: ServiceTrust::UnsignedAnswersAccepted,
            signatures: SignaturePolicy::default(),
        };
        let mut told = Vec::new();
        let mut send = |document: &str| {
            let waits = document.contains("#Pending");
            told.push(waits);
            let id =
                document.split(" Id=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            let xkms = "http://www.w3.org/2002/03/xkms#";
            let result =
                if waits { ("Success", "NoMatch") } else { ("Receiver", "NotSynchronous") };
            Ok::<_, std::io::Error>(
                format!(
                    "<LocateResult xmlns=\"{xkms}\" Id=\"R{}\" RequestId=\"{id}\" \
                     ResultMajor=\"{xkms}{}\" ResultMinor=\"{xkms}{}\" Service=\"http://a/xkms\"/>",
                    told.len(),
                    result.0,
                    result.1
                )
                .into_bytes(),
            )
        };
        let binding = Binding { key_info: Some(KeyInfo::named("alice")), ..Binding::default() };
        let body = RequestBody::Locate(QueryKeyBinding { binding, time: None });
        let terms = Terms { patience: Duration::ZERO, crls: false };
        let answer = run(&client, body, terms, &mut send).unwrap();
        assert_eq!(answer.head.major, Major::Success);
        assert_eq!(told, [false, true]);
    }
}
