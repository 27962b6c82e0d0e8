//! One message of every kind, with everything in it that the schema has.

use std::sync::OnceLock;

use model::{
    Secret,
    keys::{Anchor, Knowledge},
};
use time::{Duration, OffsetDateTime};
use xkms::{
    dsig::{Curve, Signer, SigningKey, detached_signature},
    message::*,
    xenc::{Cipher, EncryptedData},
    xml::Element,
};

pub(crate) const SERVICE: &str = "https://trust.example.test/xkms";

pub(crate) fn head(id: &str) -> RequestHead {
    RequestHead {
        nonce: Some(vec![1, 2, 3]),
        opaque: Some(vec![b"abc".to_vec(), vec![]]),
        mechanisms: Mechanism::ALL.to_vec(),
        respond_with: [RespondWith::ALL.to_vec(), vec![RespondWith::Other("urn:x".into())]]
            .concat(),
        wants_knowledge: true,
        notification: Some(PendingNotification {
            mechanism: "urn:ietf:rfc:822".into(),
            identifier: "mailto:a@example.test".into(),
        }),
        original_request_id: Some("first".into()),
        response_limit: Some(5),
        ..RequestHead::new(id, SERVICE)
    }
}

fn result_head(id: &str) -> ResultHead {
    ResultHead {
        nonce: Some(vec![9; 32]),
        knowledge: Some(knowledge(id)),
        opaque: Some(vec![b"abc".to_vec()]),
        request_signature: Some(vec![7; 64]),
        request_id: Some("I1".into()),
        ..ResultHead::new(id, SERVICE, Major::Success, Some(Minor::Incomplete))
    }
}

/// Each kind of anchor, by the Id.
fn knowledge(id: &str) -> Knowledge {
    let name = |name: &str| name.to_owned();
    let anchor = match id.len() % 3 {
        0 => Anchor::TrustService,
        1 => Anchor::Ca(name("CN=CA <A>")),
        _ => Anchor::Bridge { path: vec![name("CA-B"), name("Bridge"), name("CA-A")] },
    };
    Knowledge { anchor, as_of: 1_800_000_000_007, pki_calls: 1 }
}

fn key_info() -> KeyInfo {
    static KEY_INFO: OnceLock<KeyInfo> = OnceLock::new();
    KEY_INFO.get_or_init(make_key_info).clone()
}

fn make_key_info() -> KeyInfo {
    let key = SigningKey::generate_ec(Curve::P384).unwrap().public_key().unwrap();
    let rsa = SigningKey::generate_rsa().unwrap().public_key().unwrap();
    KeyInfo {
        items: vec![
            KeyInfoItem::KeyName("node <17> & \"co\"".into()),
            KeyInfoItem::KeyValue(key),
            KeyInfoItem::KeyValue(rsa),
            KeyInfoItem::RetrievalMethod { uri: Some("https://a.test/".into()), kind: None },
            KeyInfoItem::X509(vec![
                X509Item::IssuerSerial {
                    issuer: "CN=CA,O=Example".into(),
                    serial: "123456789012345678901".into(),
                },
                X509Item::Ski(vec![1; 20]),
                X509Item::SubjectName("CN=node".into()),
                X509Item::Certificate(vec![0x30, 0]),
                X509Item::Crl(vec![0x30, 0]),
            ]),
            KeyInfoItem::Pgp { key_id: Some(vec![1; 8]), packet: Some(vec![2; 9]) },
            KeyInfoItem::Spki(vec![vec![1], vec![2]]),
            KeyInfoItem::Foreign(Element::new("urn:example", "Extra").with("a", "1").text("x")),
        ],
    }
}

pub(crate) fn binding(id: &str) -> Binding {
    let with = |application: &str, identifier: &str| UseKeyWith {
        application: application.into(),
        identifier: identifier.into(),
    };
    Binding {
        id: Some(id.into()),
        key_info: Some(key_info()),
        usage: KeyUsage::ALL.to_vec(),
        use_with: vec![
            with("urn:ietf:rfc:2459", "CN=node,O=Example"),
            with("urn:ietf:rfc:2818", "node.test"),
        ],
    }
}

fn validity() -> Option<ValidityInterval> {
    let start = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    Some(ValidityInterval { not_before: Some(start), not_on_or_after: Some(start + Duration::DAY) })
}

pub(crate) fn key_binding(id: &str) -> KeyBinding {
    let status = Status::judged(
        vec![Reason::IssuerTrust, Reason::Signature],
        vec![Reason::RevocationStatus],
        vec![Reason::ValidityInterval, Reason::Other("urn:x".into())],
    );
    KeyBinding { binding: binding(id), validity: validity(), status }
}

pub(crate) fn prototype(id: &str) -> PrototypeKeyBinding {
    PrototypeKeyBinding {
        binding: binding(id),
        validity: validity(),
        revocation_code_identifier: Some(vec![3; 20]),
    }
}

fn authentication(target: &Element) -> Authentication {
    let mac = SigningKey::mac(&Secret::new(vec![4; 20]));
    Authentication {
        key_binding: Some(detached_signature(target, &mac, None).unwrap()),
        not_bound: Some(NotBoundAuthentication {
            protocol: "urn:example:otp".into(),
            value: vec![1],
        }),
    }
}

fn request(id: &str, body: RequestBody) -> Request {
    Request { head: head(id), body }
}

/// The six requests that may stand in a compound.
fn simple(tag: &str) -> Vec<Request> {
    let id = |name: &str| format!("{tag}{name}");
    let query = |name: &str| QueryKeyBinding {
        binding: binding(&id(name)),
        time: Some(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()),
    };
    let key = SigningKey::generate_ec(Curve::P256).unwrap();
    let asked = prototype(&id("p"));
    let possession = |target: &Element| Some(detached_signature(target, &key, None).unwrap());
    let old = |name: &str| key_binding(&id(name));
    let (again, ended, lost) = (old("b1"), old("b2"), old("b3"));
    let again_element = again.to_element("ReissueKeyBinding");
    vec![
        request(&id("1"), RequestBody::Locate(query("q1"))),
        request(&id("2"), RequestBody::Validate(query("q2"))),
        request(
            &id("3"),
            RequestBody::Register {
                authentication: authentication(&asked.to_element()),
                possession: possession(&asked.to_element()),
                prototype: asked,
            },
        ),
        request(
            &id("4"),
            RequestBody::Reissue {
                authentication: authentication(&again_element),
                possession: possession(&again_element),
                binding: again,
            },
        ),
        request(
            &id("5"),
            RequestBody::Revoke { binding: old("b4"), proof: RevokeProof::Code(vec![5; 20]) },
        ),
        request(
            &id("6"),
            RequestBody::Revoke {
                proof: RevokeProof::Authentication(authentication(
                    &ended.to_element("RevokeKeyBinding"),
                )),
                binding: ended,
            },
        ),
        request(
            &id("7"),
            RequestBody::Recover {
                authentication: authentication(&lost.to_element("RecoverKeyBinding")),
                binding: lost,
            },
        ),
    ]
}

pub(crate) fn requests() -> Vec<Request> {
    let mut all = simple("s");
    all.push(request("c", RequestBody::Compound(simple("i"))));
    all.push(request("w", RequestBody::Pending { response_id: "r1".into() }));
    all.push(request("h", RequestBody::Status { response_id: "r1".into() }));
    all
}

fn simple_answers(tag: &str) -> Vec<Answer> {
    let id = |name: &str| format!("{tag}{name}");
    let secret = Secret::new(b"<a/>".to_vec());
    let key = Secret::new(vec![8; 32]);
    let sealed =
        |wrap| EncryptedData::seal(&secret, &key, Cipher::Aes256Gcm, wrap, Some("k")).unwrap();
    let unverified = UnverifiedKeyBinding { binding: binding(&id("u")), validity: validity() };
    let bodies = [
        AnswerBody::Locate(vec![unverified]),
        AnswerBody::Validate(vec![key_binding(&id("k1")), key_binding(&id("k2"))]),
        AnswerBody::Register(vec![key_binding(&id("k3"))], Some(sealed(false))),
        AnswerBody::Reissue(vec![key_binding(&id("k4"))]),
        AnswerBody::Revoke(vec![key_binding(&id("k5"))]),
        AnswerBody::Recover(vec![key_binding(&id("k6"))], Some(sealed(true))),
    ];
    let answers = bodies.into_iter().enumerate();
    answers.map(|(n, body)| Answer { head: result_head(&id(&format!("a{n}"))), body }).collect()
}

pub(crate) fn answers() -> Vec<Answer> {
    let mut all = simple_answers("s");
    let counts = Counts { success: Some(3), failure: Some(1), pending: Some(2) };
    for (id, body) in [
        ("x", AnswerBody::Result),
        ("y", AnswerBody::Status(counts)),
        ("z", AnswerBody::Compound(simple_answers("i"))),
    ] {
        all.push(Answer { head: result_head(id), body });
    }
    for (n, minor) in Minor::ALL.iter().enumerate() {
        let major = Major::ALL[n % Major::ALL.len()].clone();
        let head = ResultHead::new(&format!("m{n}"), SERVICE, major, Some(minor.clone()));
        all.push(Answer { head, body: AnswerBody::Result });
    }
    all
}
