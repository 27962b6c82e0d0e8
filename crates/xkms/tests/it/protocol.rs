//! Client and responder against each other, and against clients that do not keep to the protocol.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use model::Secret;
use time::{Duration, OffsetDateTime};
use xkms::{
    client::{Client, ClientRejection, Exchange, ServiceTrust, Step, sign_order},
    dsig::{Curve, SignaturePolicy, Signer, SigningKey},
    message::*,
    nonce::NonceBook,
    passphrase::revocation_code_identifier,
    responder::{AnswerKey, Circumstances, Reply, Responder, ResponderPolicy, TwoPhase},
    service::AuthenticationKey,
    soap::Version,
    xenc::{EncryptionPolicy, RsaKeyPair},
    xml::{Document, Limits},
};

use crate::{
    fake::{Fake, phrase, wrong},
    samples::{SERVICE, head},
};

mod answers;
mod orders;

struct World {
    responder: Responder,
    fake: Fake,
    key: xkms::dsig::PublicKey,
    now: OffsetDateTime,
    counter: u8,
    confidential: bool,
    proven: bool,
    under_load: bool,
}

fn world() -> World {
    world_with(ResponderPolicy::new(SERVICE))
}

fn world_with(policy: ResponderPolicy) -> World {
    let signer = SigningKey::generate_ec(Curve::P256).unwrap();
    let key = signer.public_key().unwrap();
    let nonces = NonceBook::new(&Secret::new(vec![5; 32]), Duration::minutes(2), 1000);
    let responder = Responder::new(policy, nonces, Some(AnswerKey::bare(Box::new(signer))));
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    World {
        responder,
        fake: Fake::new(phrase()),
        key,
        now,
        counter: 0,
        confidential: true,
        proven: false,
        under_load: false,
    }
}

impl World {
    fn reply(&mut self, text: &str) -> Reply {
        let circumstances = Circumstances {
            now: self.now,
            requester: b"peer",
            confidential: self.confidential,
            proven: self.proven,
            under_load: self.under_load,
        };
        let counter = &mut self.counter;
        let mut random = || {
            *counter = counter.wrapping_add(1);
            [*counter; 16]
        };
        self.responder.respond(&mut self.fake, text.as_bytes(), circumstances, &mut random)
    }

    fn client<'k>(&self, version: Version, signer: Option<&'k dyn Signer>) -> Client<'k> {
        Client {
            service: SERVICE.to_owned(),
            version,
            signer,
            trust: ServiceTrust::Key(AuthenticationKey::Public(self.key.clone())),
            signatures: SignaturePolicy::default(),
        }
    }

    /// Runs one request to its end.
    fn run(&mut self, client: &Client<'_>, request: Request) -> Result<Answer, ClientRejection> {
        let (mut exchange, mut document) = Exchange::begin(client, request)?;
        for n in 0..10 {
            let reply = self.reply(&document);
            document = match exchange.receive(reply.body.as_bytes(), &format!("again{n}"))? {
                Step::Send(document) => document,
                Step::Wait => exchange.poll(&format!("poll{n}"))?,
                Step::Done(answer) => return Ok(*answer),
            };
        }
        panic!("the exchange does not end");
    }

    /// Runs one request without a signature over the whole.
    fn ask(&mut self, request: Request) -> Answer {
        let client = self.client(Version::V11, None);
        self.run(&client, request).unwrap()
    }

    /// The result of one document, and the name of its refusal.
    fn refused(&mut self, request: &Request) -> (Major, Option<Minor>, Option<&'static str>) {
        let reply = self.reply(&request.to_element().to_xml());
        let document = Document::parse(reply.body.as_bytes(), &Limits::MESSAGE).unwrap();
        let answer = Answer::read(document.root()).unwrap();
        assert_eq!(answer.head.request_id.as_deref(), Some(request.head.id.as_str()));
        (answer.head.major, answer.head.minor, reply.refusal)
    }
}

fn patient(id: &str) -> RequestHead {
    RequestHead {
        nonce: None,
        original_request_id: None,
        notification: None,
        respond_with: vec![],
        ..head(id)
    }
}

fn key_prototype(key: &SigningKey) -> PrototypeKeyBinding {
    let code = phrase().revocation_code();
    PrototypeKeyBinding {
        binding: Binding {
            id: Some("B1".into()),
            key_info: key.public_key().map(KeyInfo::key),
            ..crate::samples::binding("B1")
        },
        validity: None,
        revocation_code_identifier: Some(revocation_code_identifier(code.expose())),
    }
}

fn register(key: &SigningKey, mac: &SigningKey, possessed: &SigningKey) -> Request {
    let mut body = RequestBody::Register {
        prototype: key_prototype(key),
        authentication: Authentication::default(),
        possession: None,
    };
    sign_order(&mut body, mac, Some(possessed)).unwrap();
    Request { head: patient("R1"), body }
}

fn about(key: &SigningKey) -> KeyBinding {
    KeyBinding { binding: key_prototype(key).binding, validity: None, status: Status::unknown() }
}

fn mac() -> SigningKey {
    SigningKey::mac(&phrase().authentication_key())
}

fn ec() -> SigningKey {
    SigningKey::generate_ec(Curve::P256).unwrap()
}

fn without_nonce() -> World {
    world_with(ResponderPolicy { two_phase: vec![], ..ResponderPolicy::new(SERVICE) })
}

#[test]
fn a_key_lives_from_register_to_revoke() {
    for version in [Version::Bare, Version::V11, Version::V12] {
        for slow in [false, true] {
            let mut world = world();
            world.fake.slow = slow;
            let (key, signer) = (ec(), ec());
            world.fake.known = signer.public_key();
            let client = world.client(version, Some(&signer));
            let answer = world.run(&client, register(&key, &mac(), &key)).unwrap();
            assert_eq!(answer.head.major, Major::Success);
            assert_eq!(answer.head.opaque, patient("x").opaque);
            let query = QueryKeyBinding {
                binding: Binding {
                    key_info: key.public_key().map(KeyInfo::key),
                    ..Binding::default()
                },
                time: None,
            };
            let request =
                Request { head: patient("V1"), body: RequestBody::Validate(query.clone()) };
            let answer = world.run(&client, request).unwrap();
            assert!(answer.head.request_signature.is_some());
            let AnswerBody::Validate(found) = answer.body else { panic!() };
            assert_eq!(found[0].status.value, StatusValue::Valid);
            assert_eq!(found[0].binding.use_with.len(), 2);

            let mut body = RequestBody::Reissue {
                binding: about(&key),
                authentication: Authentication::default(),
                possession: None,
            };
            sign_order(&mut body, &mac(), Some(&key)).unwrap();
            let answer = world.run(&client, Request { head: patient("S1"), body }).unwrap();
            assert!(matches!(answer.body, AnswerBody::Reissue(found) if found.len() == 1));

            let code = phrase().revocation_code().expose().clone();
            let body = RequestBody::Revoke { binding: about(&key), proof: RevokeProof::Code(code) };
            let answer = world.run(&client, Request { head: patient("K1"), body }).unwrap();
            assert!(
                matches!(answer.body, AnswerBody::Revoke(found) if found[0].status.value == StatusValue::Invalid)
            );
            let request = Request { head: patient("V2"), body: RequestBody::Validate(query) };
            let AnswerBody::Validate(found) = world.run(&client, request).unwrap().body else {
                panic!()
            };
            assert_eq!(found[0].status.value, StatusValue::Invalid);
        }
    }
}

#[test]
fn a_key_made_by_the_service_is_delivered_to_who_has_the_phrase() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let mut world = world();
    world.fake.escrow = RsaKeyPair::from_pkcs8(pkcs8.as_ref());
    let prototype = PrototypeKeyBinding {
        binding: Binding { id: Some("B1".into()), ..Binding::default() },
        ..PrototypeKeyBinding::default()
    };
    let mut body = RequestBody::Register {
        prototype,
        authentication: Authentication::default(),
        possession: None,
    };
    sign_order(&mut body, &mac(), None).unwrap();
    let answer = world.ask(Request { head: patient("R1"), body });
    let AnswerBody::Register(_, Some(data)) = answer.body else { panic!("no key") };
    let opened = data.open(&phrase().private_key_key(32), EncryptionPolicy::default()).unwrap();
    let key = RsaKeyPair::from_xml(&opened).unwrap();
    assert!(KeyPair::from_der(key.to_pkcs1().expose()).is_ok());

    let binding = KeyBinding {
        binding: Binding { id: Some("B1".into()), ..Binding::default() },
        validity: None,
        status: Status::unknown(),
    };
    let mut body = RequestBody::Recover { binding, authentication: Authentication::default() };
    sign_order(&mut body, &mac(), None).unwrap();
    let answer = world.ask(Request { head: patient("R2"), body });
    assert!(matches!(answer.body, AnswerBody::Recover(_, Some(_))));
}
