//! How many signed questions one thread answers in a second, and what the parts cost.
//!
//! `cargo bench -p xkms`; prints one line a part.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures time and prints it"
)]

use std::time::{Duration, Instant};

use model::Secret;
use time::OffsetDateTime;
use xkms::{
    c14n::{Context, Method, canonicalize},
    client::{Client, Exchange, ServiceTrust},
    dsig::{Curve, SignaturePolicy, Signer, SigningKey},
    message::*,
    nonce::NonceBook,
    responder::{AnswerKey, Circumstances, Responder, ResponderPolicy},
    service::{AuthenticationKey, Failure, Found, KeyService, Order, Outcome, Query, Receipt},
    soap::Version,
    xml::{Document, Limits},
};

const SERVICE: &str = "https://trust.example.test/xkms";

/// Answers every Validate with one binding.
struct One {
    client: AuthenticationKey,
    binding: KeyBinding,
}

impl KeyService for One {
    fn locate(&mut self, _: &Query<'_>) -> Result<Found<UnverifiedKeyBinding>, Failure> {
        Err(Failure::NotSupported)
    }
    fn validate(&mut self, _: &Query<'_>) -> Result<Found<KeyBinding>, Failure> {
        Ok(Found { bindings: vec![self.binding.clone()], more: false, knowledge: None })
    }
    fn authentication_keys(
        &mut self,
        _: Operation,
        _: &Binding,
    ) -> Result<Vec<(String, AuthenticationKey)>, Failure> {
        Ok(Vec::new())
    }
    fn authentication_failed(&mut self, _: Operation, _: &Binding) {}
    fn message_key(&mut self, _: Option<&KeyInfo>) -> Option<AuthenticationKey> {
        Some(self.client.clone())
    }
    fn register(&mut self, _: &Order<'_>, _: &PrototypeKeyBinding) -> Result<Outcome, Failure> {
        Err(Failure::NotSupported)
    }
    fn reissue(&mut self, _: &Order<'_>, _: &KeyBinding) -> Result<Outcome, Failure> {
        Err(Failure::NotSupported)
    }
    fn revoke(&mut self, _: &Order<'_>, _: &KeyBinding) -> Result<Outcome, Failure> {
        Err(Failure::NotSupported)
    }
    fn recover(&mut self, _: &Order<'_>, _: &KeyBinding) -> Result<Outcome, Failure> {
        Err(Failure::NotSupported)
    }
    fn collect(&mut self, _: &Receipt<'_>) -> Option<Result<Outcome, Failure>> {
        None
    }
    fn progress(&mut self, _: &Receipt<'_>) -> Option<Counts> {
        None
    }
}

fn measure(name: &str, mut work: impl FnMut()) {
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < Duration::from_secs(2) {
        work();
        count += 1;
    }
    println!("{name}: {:.0}/s", f64::from(count) / start.elapsed().as_secs_f64());
}

fn service(client: &SigningKey) -> One {
    let items = vec![X509Item::Certificate(vec![0x30; 500])];
    let key_info = Some(KeyInfo { items: vec![KeyInfoItem::X509(items)] });
    let binding = Binding { key_info, usage: vec![KeyUsage::Signature], ..Binding::default() };
    let status = Status::judged(Reason::ALL.to_vec(), vec![], vec![]);
    One {
        client: AuthenticationKey::Public(client.public_key().unwrap()),
        binding: KeyBinding { binding, validity: None, status },
    }
}

fn main() {
    let (signer, server) = (
        SigningKey::generate_ec(Curve::P256).unwrap(),
        SigningKey::generate_ec(Curve::P256).unwrap(),
    );
    let mut service = service(&signer);
    let client = |signer| Client {
        service: SERVICE.to_owned(),
        version: Version::V11,
        signer,
        trust: ServiceTrust::UnsignedAnswersAccepted,
        signatures: SignaturePolicy::default(),
    };
    let query = QueryKeyBinding { binding: service.binding.binding.clone(), time: None };
    let request =
        Request { head: RequestHead::new("I1", SERVICE), body: RequestBody::Validate(query) };
    let (signing, plain) = (client(Some(&signer as &dyn Signer)), client(None));
    let (_, signed) = Exchange::begin(&signing, request.clone()).unwrap();
    let (_, unsigned) = Exchange::begin(&plain, request.clone()).unwrap();
    println!("request: {} octets signed, {} not", signed.len(), unsigned.len());

    let nonces = NonceBook::new(&Secret::new(vec![1; 32]), time::Duration::MINUTE, 1000);
    let responder = Responder::new(
        ResponderPolicy::new(SERVICE),
        nonces,
        Some(AnswerKey::bare(Box::new(server))),
    );
    let at = Circumstances {
        now: OffsetDateTime::UNIX_EPOCH,
        requester: b"",
        confidential: false,
        proven: false,
        under_load: false,
    };
    let document = Document::parse(signed.as_bytes(), &Limits::MESSAGE).unwrap();
    measure("read", || drop(Document::parse(signed.as_bytes(), &Limits::MESSAGE)));
    measure("canonicalise", || {
        drop(canonicalize(document.root(), None, &Method::EXCLUSIVE, Context::InPlace));
    });
    measure("sign only", || drop(signer.sign(signed.as_bytes())));
    for (name, text) in
        [("signed Validate answered, signed", &signed), ("Validate answered, signed", &unsigned)]
    {
        measure(name, || {
            let reply = responder.respond(&mut service, text.as_bytes(), at, &mut || [7; 16]);
            assert!(reply.refusal.is_none());
        });
    }
}
