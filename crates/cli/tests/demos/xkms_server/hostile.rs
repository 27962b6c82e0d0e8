//! What must be refused, by name; and what must not get in the others' way.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use model::Secret;
use xkms::{
    client::sign_order,
    dsig::{Curve, Signer, SigningKey},
    message::*,
    xml::{Document, Limits},
};

use super::life::Registered;
use crate::{
    checks::Checks,
    server::{Server, result, secret},
};

/// First phases in the flood.
const FLOOD: usize = 2000;

/// Each attempt is one line in the audit log, by this name.
pub const PROVOKED: &[&str] = &[
    "xml-doctype",
    "xml-malformed",
    "xml-too-deep",
    "soap-envelope",
    "message-unknown",
    "service-uri",
    "request-too-large",
    "response-id-unknown",
    "nonce-foreign",
    "nonce-used",
    "possession-missing",
    "signature-value",
    "signature-digest",
    "authorization-used",
    "revocation-code-wrong",
];

/// Bytes that are no request.
pub fn bytes(server: &Server<'_>, checks: &mut Checks) {
    let deep = format!("{}{}", "<a>".repeat(60), "</a>".repeat(60));
    let bomb = "<!DOCTYPE a [<!ENTITY b 'bbbbbbbb'><!ENTITY c '&b;&b;&b;&b;'>]><a>&c;</a>";
    let elsewhere = Request {
        head: RequestHead::new("I1", "http://somewhere.else.test/xkms"),
        body: RequestBody::Locate(QueryKeyBinding::default()),
    };
    let elsewhere = elsewhere.to_element().to_xml();
    for (what, body, status) in [
        ("an entity bomb", bomb, 500),
        ("no XML", "<", 500),
        ("elements in elements without end", deep.as_str(), 500),
        ("an envelope of another age", "<Envelope/>", 500),
        ("another message", "<x/>", 200),
        ("a request to another service", elsewhere.as_str(), 200),
    ] {
        let (seen, _) = server.post("/xkms", body.as_bytes());
        checks.check(&format!("{what} is refused"), seen == status, seen);
    }
    let (seen, _) = server.post("/xkms", &vec![b' '; 400 << 10]);
    checks.check("more than a request may have is refused", seen == 413, seen);
    let body = RequestBody::Status { response_id: "nothing".to_owned() };
    let head = RequestHead { original_request_id: Some("never".to_owned()), ..server.head() };
    let answer = server.ask(Request { head, body });
    checks.check(
        "Status of nothing: UnknownResponseId",
        result(&answer) == "Sender UnknownResponseId",
        result(&answer),
    );
}

/// Orders that must not be carried out.
pub fn orders(server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    let key = SigningKey::generate_ec(Curve::P256).expect("a key");
    let other = SigningKey::generate_ec(Curve::P256).expect("a key");
    let again = server.ask(server.register(&known.name, &known.phrase, Some(&key)));
    checks.check(
        "a pass phrase that was used is refused",
        result(&again) == "Sender NoAuthentication",
        result(&again),
    );
    let Ok(phrase) = server.pass_phrase("tried") else { return };
    let wrong = server.ask(server.register("tried", "wrong-phrase-altogether", Some(&key)));
    checks.check(
        "a wrong pass phrase is refused",
        result(&wrong) == "Sender NoAuthentication",
        result(&wrong),
    );
    let mut bare = server.register("tried", &phrase, Some(&key));
    if let RequestBody::Register { possession, .. } = &mut bare.body {
        *possession = None;
    }
    let bare = server.ask(bare);
    checks.check(
        "without proof of possession: ProofOfPossessionRequired",
        result(&bare) == "Sender ProofOfPossessionRequired",
        result(&bare),
    );
    let mut theirs = server.register("tried", &phrase, Some(&key));
    let mac = SigningKey::mac(&secret(&phrase).authentication_key());
    sign_order(&mut theirs.body, &mac, Some(&other as &dyn Signer)).expect("a signature");
    let theirs = server.ask(theirs);
    checks.check(
        "with proof of another key: ProofOfPossessionRequired",
        result(&theirs) == "Sender ProofOfPossessionRequired",
        result(&theirs),
    );
    let mut changed = server.register("tried", &phrase, Some(&key));
    if let RequestBody::Register { prototype, .. } = &mut changed.body {
        prototype.binding.usage = vec![KeyUsage::Encryption];
    }
    let changed = server.ask(changed);
    checks.check(
        "a binding that was changed after it was signed is refused",
        result(&changed) == "Sender NoAuthentication",
        result(&changed),
    );
    let renamed = server.ask(server.register("somebody-else", &phrase, Some(&key)));
    checks.check(
        "a pass phrase for another name is refused",
        result(&renamed) == "Sender NoAuthentication",
        result(&renamed),
    );
    nonces(server, checks, &phrase, &key);
}

fn first_phase(server: &Server<'_>, phrase: &str, key: &SigningKey) -> Request {
    let mut request = server.register("tried", phrase, Some(key));
    request.head.mechanisms = vec![Mechanism::Represent];
    request
}

/// The answer to a document as it stands.
fn raw(server: &Server<'_>, request: &Request) -> Result<Answer, String> {
    let (_, body) = server.post("/xkms", request.to_element().to_xml().as_bytes());
    let document = Document::parse(&body, &Limits::MESSAGE).map_err(|error| error.to_string())?;
    Answer::read(document.root()).map_err(|error| error.to_string())
}

fn nonces(server: &Server<'_>, checks: &mut Checks, phrase: &str, key: &SigningKey) {
    let request = first_phase(server, phrase, key);
    let first = raw(server, &request);
    let nonce = first.as_ref().ok().and_then(|answer| answer.head.nonce.clone());
    checks.check(
        "the first of two phases: Represent, with a nonce",
        nonce.is_some(),
        result(&first),
    );
    let mut second = request.clone();
    second.head.original_request_id = Some(request.head.id.clone());
    second.head.id = server.id();
    second.head.nonce = Some(vec![9; 56]);
    let forged = raw(server, &second);
    checks.check(
        "an invented nonce is refused",
        result(&forged) == "Sender Refused",
        result(&forged),
    );
    second.head.nonce = nonce;
    let good = raw(server, &second);
    checks.check("the right one is taken", result(&good) == "Success", result(&good));
    let replayed = raw(server, &second);
    checks.check("and once", result(&replayed) == "Sender Refused", result(&replayed));
}

/// A flood of first phases: nothing is kept of them, and others are served meanwhile.
pub fn flood(server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    let key = SigningKey::generate_ec(Curve::P256).expect("a key");
    let mac = SigningKey::mac(&Secret::new(vec![1; 20]));
    let mut request = first_phase(server, "not-a-pass-phrase", &key);
    sign_order(&mut request.body, &mac, Some(&key as &dyn Signer)).expect("a signature");
    let text = request.to_element().to_xml();
    let rss = || server.reader().map_or(0, resident_kib) + resident_kib(server.keeper());
    for _ in 0..50 {
        server.post("/xkms", text.as_bytes());
    }
    let before = rss();
    let address = server.address().to_owned();
    let passing = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&passing);
    let flooding = std::thread::spawn(move || {
        let answers = (0..FLOOD).filter(|_| {
            let said = crate::server::exchange(&address, "/xkms", ("text/xml", text.as_bytes()));
            counts.fetch_add(1, Ordering::Relaxed);
            said.is_ok_and(|(_, body)| body.windows(10).any(|part| part == b"#Represent"))
        });
        answers.count()
    });
    // Counted in turns of the flood: how long a turn takes is for the machine to say.
    let mut slowest = 0;
    let mut served = 0;
    while !flooding.is_finished() {
        let before = passing.load(Ordering::Relaxed);
        served += u32::from(server.status_of(&known.key).is_some());
        slowest = slowest.max(passing.load(Ordering::Relaxed) - before);
    }
    let represented = flooding.join().unwrap_or(0);
    let grown = rss().saturating_sub(before);
    checks.check(
        "each of 2000 first phases is told to come again",
        represented == FLOOD,
        represented,
    );
    checks.check("memory stays flat under them", grown < 8 << 10, format!("{grown} KiB more"));
    let seen = format!("{served} served; most of the flood that one let pass: {slowest}");
    checks.check("others are served meanwhile", served > 20 && slowest < FLOOD / 10, seen);
}

/// Resident memory of a process.
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
