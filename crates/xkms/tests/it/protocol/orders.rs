//! Orders: who may give them, in how many phases, and what is put off.

use super::*;

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
    // What it is about is another service's now: that is the answer, and it is counted.
    world.fake.elsewhere = true;
    let refusal = (Major::Receiver, Some(Minor::NoMatch), Some("service-not-authoritative"));
    assert_eq!(world.refused(&register(&key, &foreign, &key)), refusal);
    world.fake.elsewhere = false;
    assert_eq!(world.fake.failed, 3);
    // Nothing is known that could order it: neither phrase nor key.
    world.fake.keyless = true;
    let refusal =
        (Major::Sender, Some(Minor::NoAuthentication), Some("authentication-key-unknown"));
    assert_eq!(world.refused(&register(&key, &mac(), &key)), refusal);
    world.fake.keyless = false;
    assert_eq!(world.fake.failed, 4);
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

#[test]
fn under_load_even_who_offers_one_phase_only_is_asked_for_two() {
    let policy = ResponderPolicy { when: TwoPhase::UnderLoad, ..ResponderPolicy::new(SERVICE) };
    let mut world = world_with(policy);
    let key = ec();
    let mut plain = register(&key, &mac(), &key);
    let offering = plain.clone();
    plain.head.mechanisms = vec![];
    assert_eq!(world.refused(&plain).0, Major::Success);
    assert_eq!(world.refused(&offering).0, Major::Represent);
    world.under_load = true;
    let required = (Major::Sender, Some(Minor::RepresentRequired), Some("nonce-missing"));
    assert_eq!(world.refused(&plain), required);
}
