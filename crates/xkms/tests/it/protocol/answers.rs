//! Answers: what they carry, and which of them a client takes.

use super::*;

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
    assert!(answer.head.knowledge.is_some());
    let unasked = RequestHead { wants_knowledge: false, ..plain("L0") };
    assert_eq!(ask(&mut world, unasked, None).head.knowledge, None);
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
        world_with(ResponderPolicy { signed_questions: true, ..ResponderPolicy::new(SERVICE) });
    let unsigned = Request { head: RequestHead::new("I1", SERVICE), body: query };
    let refusal = (Major::Sender, Some(Minor::NoAuthentication), Some("signature-missing"));
    assert_eq!(world.refused(&unsigned), refusal);
    // Where the channel has proven who asks, nothing else has to.
    world.proven = true;
    assert_eq!(world.refused(&unsigned).0, Major::Success);
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

    client.trust = ServiceTrust::UnsignedAnswersAccepted;
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
    let (mut exchange, _) = Exchange::begin(&client, request(vec![])).unwrap();
    let empty =
        "<s:Envelope xmlns:s='http://www.w3.org/2003/05/soap-envelope'><s:Body/></s:Envelope>";
    assert_eq!(exchange.receive(empty.as_bytes(), "x").unwrap_err().code(), "answer-soap");
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
    // The same binding twice in one document: its Id names the first only.
    assert!(
        matches!(&answers[1].body, AnswerBody::Register(found, _) if found[0].binding.id.is_some())
    );
    assert!(
        matches!(&answers[4].body, AnswerBody::Validate(found) if found.len() == 1 && found[0].binding.id.is_none())
    );
}
