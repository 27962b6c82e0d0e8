//! Client and responder against each other, and against clients that do not keep to the protocol.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use model::Secret;
use time::{Duration, OffsetDateTime};
use xkms::{
    client::{Client, ClientRejection, Exchange, Step, sign_order},
    dsig::{Curve, SignaturePolicy, Signer, SigningKey},
    message::*,
    nonce::NonceBook,
    passphrase::revocation_code_identifier,
    responder::{Circumstances, Reply, Responder, ResponderPolicy},
    service::AuthenticationKey,
    soap::Version,
    xenc::{EncryptionPolicy, RsaKeyPair},
    xml::{Document, Limits},
};

use crate::{
    fake::{Fake, phrase, wrong},
    samples::{SERVICE, head},
};

struct World {
    responder: Responder,
    fake: Fake,
    key: xkms::dsig::PublicKey,
    now: OffsetDateTime,
    counter: u8,
    confidential: bool,
}

fn world() -> World {
    world_with(ResponderPolicy::new(SERVICE))
}

fn world_with(policy: ResponderPolicy) -> World {
    let signer = SigningKey::generate_ec(Curve::P256).unwrap();
    let key = signer.public_key().unwrap();
    let nonces = NonceBook::new(&Secret::new(vec![5; 32]), Duration::minutes(2), 1000);
    let responder = Responder::new(policy, nonces, Some(Box::new(signer)));
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    World { responder, fake: Fake::new(phrase()), key, now, counter: 0, confidential: true }
}

impl World {
    fn reply(&mut self, text: &str) -> Reply {
        let circumstances =
            Circumstances { now: self.now, requester: b"peer", confidential: self.confidential };
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
            service_key: Some(AuthenticationKey::Public(self.key.clone())),
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

#[test]
fn orders_without_right_or_key_are_refused_by_name() {
    let mut world = without_nonce();
    let (key, other) = (ec(), ec());
    let none = (Minor::NoAuthentication, "authentication-missing");
    let mut bare = register(&key, &mac(), &key);
    if let RequestBody::Register { authentication, .. } = &mut bare.body {
        *authentication = Authentication::default();
    }
    let mut unproven = register(&key, &mac(), &key);
    if let RequestBody::Register { possession, .. } = &mut unproven.body {
        *possession = None;
    }
    let mut changed = register(&key, &mac(), &key);
    if let RequestBody::Register { prototype, .. } = &mut changed.body {
        prototype.binding.use_with[0].identifier = "CN=somebody else".into();
    }
    let mut token = bare.clone();
    if let RequestBody::Register { authentication, .. } = &mut token.body {
        authentication.not_bound =
            Some(NotBoundAuthentication { protocol: "urn:p".into(), value: vec![1] });
    }
    let foreign = SigningKey::mac(&wrong());
    for (request, (minor, code)) in [
        (bare, none),
        (unproven, (Minor::ProofOfPossessionRequired, "possession-missing")),
        (changed, (Minor::NoAuthentication, "signature-digest")),
        (register(&key, &foreign, &key), (Minor::NoAuthentication, "signature-value")),
        (register(&key, &mac(), &other), (Minor::ProofOfPossessionRequired, "signature-value")),
    ] {
        assert_eq!(world.refused(&request), (Major::Sender, Some(minor), Some(code)));
    }
    assert_eq!(world.fake.failed, 2);
    world.confidential = false;
    let refusal = (Major::Sender, Some(Minor::NoAuthentication), Some("authentication-channel"));
    assert_eq!(world.refused(&token), refusal);
    assert_eq!(world.fake.orders, 0);
    world.confidential = true;
    assert_eq!(world.refused(&token).0, Major::Success);

    let code = |code: Vec<u8>| Request {
        head: patient("K1"),
        body: RequestBody::Revoke { binding: about(&key), proof: RevokeProof::Code(code) },
    };
    let refusal = (Major::Sender, Some(Minor::NoAuthentication), Some("service-no-authentication"));
    assert_eq!(world.refused(&code(vec![0; 20])), refusal);
    let identifier = revocation_code_identifier(phrase().revocation_code().expose());
    assert_eq!(world.refused(&code(identifier)), refusal);
}

#[test]
fn two_phases_take_each_nonce_once_and_only_where_offered() {
    let mut world = world();
    let key = ec();
    let mut request = register(&key, &mac(), &key);
    request.head.mechanisms = vec![];
    let required = (Major::Sender, Some(Minor::RepresentRequired), Some("nonce-missing"));
    assert_eq!(world.refused(&request), required);

    request.head.mechanisms = vec![Mechanism::Represent];
    let reply = world.reply(&request.to_element().to_xml());
    let document = Document::parse(reply.body.as_bytes(), &Limits::MESSAGE).unwrap();
    let answer = Answer::read(document.root()).unwrap();
    assert_eq!((&answer.head.major, world.fake.orders), (&Major::Represent, 0));
    let mut second = request.clone();
    second.head.id = "R2".into();
    second.head.nonce.clone_from(&answer.head.nonce);
    second.head.original_request_id = Some("R1".into());

    let refused = |code| (Major::Sender, Some(Minor::Refused), Some(code));
    let mut foreign = second.clone();
    foreign.head.original_request_id = Some("R9".into());
    assert_eq!(world.refused(&foreign), refused("nonce-foreign"));
    let mut forged = second.clone();
    forged.head.nonce.as_mut().unwrap()[30] ^= 1;
    assert_eq!(world.refused(&forged), refused("nonce-foreign"));
    let other = ec();
    let mut swapped = register(&other, &mac(), &other);
    swapped.head = second.head.clone();
    assert_eq!(world.refused(&swapped), refused("nonce-foreign"));
    world.now += Duration::minutes(5);
    assert_eq!(world.refused(&second).0, Major::Represent);
    world.now -= Duration::minutes(5);
    assert_eq!(world.refused(&second), (Major::Success, None, None));
    assert_eq!(world.refused(&second), refused("nonce-used"));
    assert_eq!(world.fake.orders, 1);
}

#[test]
fn what_is_put_off_is_collected_by_its_receipt_only() {
    let mut world = without_nonce();
    world.fake.slow = true;
    let key = ec();
    let mut hasty = register(&key, &mac(), &key);
    hasty.head.mechanisms = vec![];
    let refusal = (Major::Receiver, Some(Minor::NotSynchronous), Some("service-not-synchronous"));
    assert_eq!(world.refused(&hasty), refusal);

    let client = world.client(Version::V12, None);
    let (mut exchange, document) = Exchange::begin(&client, register(&key, &mac(), &key)).unwrap();
    let reply = world.reply(&document);
    assert_eq!(exchange.receive(reply.body.as_bytes(), "x"), Ok(Step::Wait));
    let status = exchange.status_request("T1").unwrap();
    let mut unknown = status.clone();
    unknown.head.original_request_id = Some("R9".into());
    let refusal = (Major::Sender, Some(Minor::UnknownResponseId), Some("response-id-unknown"));
    assert_eq!(world.refused(&unknown), refusal);
    let answer = world.ask(status);
    let counts = Counts { success: Some(0), failure: Some(0), pending: Some(1) };
    assert_eq!(answer.body, AnswerBody::Status(counts));
    for _ in 0..2 {
        let document = exchange.poll("P1").unwrap();
        let reply = world.reply(&document);
        if let Step::Done(answer) = exchange.receive(reply.body.as_bytes(), "x").unwrap() {
            assert!(matches!(answer.body, AnswerBody::Register(found, None) if found.len() == 1));
            return;
        }
    }
    panic!("it is not done after it was asked for twice");
}

#[test]
fn one_failure_in_a_compound_leaves_the_others_alone() {
    let mut world = world();
    let key = ec();
    let query = QueryKeyBinding::default();
    let inner = |id: &str, body| Request { head: RequestHead::new(id, SERVICE), body };
    let mut wrong_service = inner("i4", RequestBody::Locate(query.clone()));
    wrong_service.head.service = "urn:other".into();
    let good = register(&key, &mac(), &key);
    let mut bad = register(&key, &mac(), &key);
    bad.head.id = "i3".into();
    if let RequestBody::Register { prototype, .. } = &mut bad.body {
        prototype.binding.id = Some("B3".into());
    }
    let all = vec![
        inner("i1", RequestBody::Locate(query.clone())),
        good,
        bad,
        wrong_service,
        inner("i5", RequestBody::Validate(query)),
    ];
    let answer = world.ask(Request { head: patient("C1"), body: RequestBody::Compound(all) });
    let AnswerBody::Compound(answers) = answer.body else { panic!() };
    let told: Vec<_> =
        answers.iter().map(|a| (a.head.request_id.as_deref().unwrap(), &a.head.major)).collect();
    let expected = [
        ("i1", &Major::Success),
        ("R1", &Major::Success),
        ("i3", &Major::Sender),
        ("i4", &Major::Sender),
        ("i5", &Major::Success),
    ];
    assert_eq!(told, expected);
    assert!(matches!(&answers[4].body, AnswerBody::Validate(found) if found.len() == 1));
}

#[test]
fn limits_instants_and_respond_with_are_obeyed() {
    let mut world = without_nonce();
    for _ in 0..3 {
        let key = ec();
        world.ask(register(&key, &mac(), &key));
    }
    let ask = |world: &mut World, head: RequestHead, time| {
        let query = QueryKeyBinding { binding: Binding::default(), time };
        world.ask(Request { head, body: RequestBody::Locate(query) })
    };
    let plain = |id: &str| RequestHead { response_limit: None, ..patient(id) };
    let count = |answer: &Answer| {
        if let AnswerBody::Locate(found) = &answer.body { found.len() } else { 99 }
    };
    let answer = ask(&mut world, plain("L1"), None);
    assert_eq!((count(&answer), &answer.head.minor), (3, &None));
    let answer = ask(&mut world, RequestHead { response_limit: Some(2), ..plain("L2") }, None);
    assert_eq!((count(&answer), &answer.head.minor), (2, &Some(Minor::TooManyResponses)));
    let answer = ask(
        &mut world,
        RequestHead { respond_with: vec![RespondWith::KeyName], ..plain("L3") },
        None,
    );
    let AnswerBody::Locate(found) = &answer.body else { panic!() };
    assert_eq!(found[0].binding.key_info, Some(KeyInfo::named("certified")));
    let answer = ask(
        &mut world,
        RequestHead { respond_with: vec![RespondWith::X509Cert], ..plain("L4") },
        None,
    );
    assert_eq!(answer.head.minor, Some(Minor::Incomplete));
    let now = world.now;
    let answer = ask(&mut world, plain("L5"), Some(now));
    assert_eq!(answer.head.minor, Some(Minor::TimeInstantNotSupported));
    let with = UseKeyWith { application: "urn:x".into(), identifier: "nobody".into() };
    let query = QueryKeyBinding {
        binding: Binding { use_with: vec![with], ..Binding::default() },
        time: None,
    };
    let answer = world.ask(Request { head: plain("L6"), body: RequestBody::Locate(query) });
    assert_eq!((answer.head.major, answer.head.minor), (Major::Success, Some(Minor::NoMatch)));
}

#[test]
fn what_is_no_request_to_this_service_is_answered_as_such() {
    let mut world = world();
    let query = RequestBody::Locate(QueryKeyBinding::default());
    let elsewhere = Request { head: RequestHead::new("I1", "urn:other"), body: query.clone() };
    assert_eq!(
        world.refused(&elsewhere),
        (Major::Sender, Some(Minor::Failure), Some("service-uri"))
    );
    for (text, status, code) in [
        ("<", 500, "xml-malformed"),
        ("<!DOCTYPE x><x/>", 500, "xml-doctype"),
        ("<Envelope/>", 500, "soap-envelope"),
        (
            "<s:Envelope xmlns:s='http://www.w3.org/2003/05/soap-envelope'><s:Body/></s:Envelope>",
            400,
            "soap-body",
        ),
        ("<x/>", 200, "message-unknown"),
        (
            "<FooRequest xmlns='http://www.w3.org/2002/03/xkms#' Id='a' Service='b'/>",
            200,
            "message-unknown",
        ),
        (
            "<LocateRequest xmlns='http://www.w3.org/2002/03/xkms#' Id='a' Service='b'/>",
            200,
            "message-element",
        ),
    ] {
        let reply = world.reply(text);
        assert_eq!((reply.status, reply.refusal), (status, Some(code)), "{text}");
    }
    let mut world =
        world_with(ResponderPolicy { signed_requests: true, ..ResponderPolicy::new(SERVICE) });
    let unsigned = Request { head: RequestHead::new("I1", SERVICE), body: query };
    let refusal = (Major::Sender, Some(Minor::NoAuthentication), Some("signature-missing"));
    assert_eq!(world.refused(&unsigned), refusal);
}

#[test]
fn answers_that_do_not_fit_are_refused_by_name() {
    let mut world = world();
    let signer = ec();
    world.fake.known = signer.public_key();
    let request = |mechanisms| Request {
        head: RequestHead { mechanisms, ..patient("I1") },
        body: RequestBody::Locate(QueryKeyBinding::default()),
    };
    let mut client = world.client(Version::Bare, Some(&signer));
    let (mut exchange, document) =
        Exchange::begin(&client, request(vec![Mechanism::RequestSignatureValue])).unwrap();
    let body = world.reply(&document).body;
    let forged = body.replace("NoMatch", "Failure");
    let refused = exchange.receive(forged.as_bytes(), "x").unwrap_err();
    assert_eq!(refused.code(), "answer-signature");
    assert_eq!(exchange.receive(body.as_bytes(), "x"), Err(ClientRejection::Finished));

    client.service_key = None;
    for (from, to, code) in [
        ("RequestId=\"I1\"", "RequestId=\"I2\"", "answer-request-id"),
        (SERVICE, "urn:other", "answer-service"),
        ("LocateResult", "ValidateResult", "answer-kind"),
        ("LocateResult", "LocateRequest", "answer-message"),
        ("xkms#Success", "xkms#Represent", "answer-not-offered"),
        ("xkms#Success", "xkms#Pending", "answer-not-offered"),
        ("YWJj", "YWJk", "answer-opaque"),
        (
            "<RequestSignatureValue>",
            "<RequestSignatureValue>AAAA",
            "answer-request-signature-value",
        ),
        ("<LocateResult", "<!DOCTYPE x><LocateResult", "answer-xml"),
    ] {
        let (mut exchange, document) =
            Exchange::begin(&client, request(vec![Mechanism::RequestSignatureValue])).unwrap();
        let body = world.reply(&document).body;
        assert!(body.contains(from), "{from}");
        let refused = exchange.receive(body.replace(from, to).as_bytes(), "x").unwrap_err();
        assert_eq!(refused.code(), code);
    }
    let (mut exchange, _) = Exchange::begin(&client, request(vec![Mechanism::Represent])).unwrap();
    let represent = format!(
        "<Result xmlns='http://www.w3.org/2002/03/xkms#' Id='a' Service='{SERVICE}' RequestId='I1' Nonce='AAAA' ResultMajor='http://www.w3.org/2002/03/xkms#Represent'/>"
    );
    assert!(matches!(exchange.receive(represent.as_bytes(), "I3"), Ok(Step::Send(_))));
    let again = represent.replace("I1", "I3");
    assert_eq!(exchange.receive(again.as_bytes(), "I4"), Err(ClientRejection::RepresentTwice));
    let (mut exchange, _) = Exchange::begin(&client, request(vec![])).unwrap();
    let fault = world.reply("<").body;
    assert_eq!(exchange.receive(fault.as_bytes(), "x").unwrap_err().code(), "answer-fault");
}

#[test]
fn a_flood_of_first_phases_costs_no_memory_and_the_others_are_served() {
    let mut world = world();
    let key = ec();
    let request = register(&key, &mac(), &key);
    let text = request.to_element().to_xml();
    for _ in 0..2000 {
        assert!(world.reply(&text).body.contains("#Represent"));
    }
    // The window of used nonces holds 1000: the flood has taken nothing of it.
    let answer = world.ask(request);
    assert_eq!(answer.head.major, Major::Success);
    assert_eq!((world.fake.orders, world.fake.failed), (1, 0));
}
