//! CMP against the server of `openssl cmp`: our requests are read by it, its answers by us.

use std::{cell::RefCell, process::Command, time::Duration};

use model::Secret;
use pki::{
    Anchors, Ask, Ca, Cmp, CmpConfig, CmpCredential, Enrolment, HttpAnswer, HttpRequest, Journal,
    KeyUses, LedgerError, LostAnswer, Outcome, Profile, Progress, Provider as _, ProviderError,
    Renewal, RequestId, RevocationAsk, RevocationReason, Transport, TransportError, UserCert,
    UserName, Validity,
};

use crate::{
    http::{Fault, Loopback, Records, Server, line_with},
    support::{DAY, NOW, day, key_pair, must, p256, spec, write_pem},
};

const ID: RequestId = RequestId([7; 16]);
const REFERENCE: &str = "vouchsafe";
const SECRET: &str = "a secret that both know";

/// A CA behind `openssl cmp`, which certifies one key.
struct World {
    dir: tempfile::TempDir,
    ca: Ca,
    spki: Vec<u8>,
    certificate: Vec<u8>,
}

fn profile() -> Profile {
    Profile::User(UserCert {
        name: "alice".to_owned(),
        names: vec![UserName::Email("alice@example.org".to_owned())],
        uses: KeyUses { signature: true, ..KeyUses::default() },
        ..UserCert::default()
    })
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (root, _) = Ca::create_root(&spec("Foreign Root", 1)).unwrap();
        let (ca, _) = root.create_sub(&spec("Foreign CA", 0)).unwrap();
        let spki = p256();
        let certificate = ca.issue(&profile(), &spki, day()).unwrap().der;
        write_pem(dir.path(), "rsp.pem", "CERTIFICATE", &certificate);
        write_pem(dir.path(), "ca.pem", "CERTIFICATE", ca.certificate());
        write_pem(dir.path(), "root.pem", "CERTIFICATE", root.certificate());
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        Self { dir, ca, spki, certificate }
    }

    fn ask(&self) -> Ask {
        let (profile, spki, validity) = (profile(), self.spki.clone(), day());
        Ask::Enrol(Enrolment { profile, spki, validity, request: None })
    }

    /// Starts the server with these flags besides; its URL.
    fn serve(&self, more: &[&str]) -> (Server, String) {
        let common = ["cmp", "-config", "", "-port", "0", "-rsp_cert", "rsp.pem"];
        let further = ["-rsp_extracerts", "ca.pem", "-accept_raverified"];
        let mut command = Command::new("openssl");
        command.args(common).args(further).args(more).current_dir(self.dir.path());
        let (server, stdout, stderr) = Server::start(&mut command);
        std::thread::spawn(move || std::io::copy(&mut { stderr }, &mut std::io::stderr()));
        let line = line_with(stdout, "ACCEPT");
        let port = line.split(' ').nth(1).unwrap().rsplit(':').next().unwrap().to_owned();
        (server, format!("http://127.0.0.1:{port}/pkix/"))
    }

    /// The same, protected by a secret.
    fn serve_secret(&self, more: &[&str]) -> (Server, String) {
        let secret = ["-srv_ref", REFERENCE, "-srv_secret", "file:secret"];
        self.serve(&[secret.as_slice(), more].concat())
    }
}

fn by_secret(secret: &str) -> CmpCredential {
    let secret = Secret::new(secret.as_bytes().to_vec());
    CmpCredential::Secret { reference: REFERENCE.as_bytes().to_vec(), secret }
}

fn config(url: &str, credential: CmpCredential) -> CmpConfig {
    let (timeout, lost_answer) = (Duration::from_secs(120), LostAnswer::Refuse);
    CmpConfig { url: url.to_owned(), credential, recipient: None, timeout, lost_answer }
}

fn provider<'a>(
    url: &str,
    net: &'a Loopback,
    records: &'a Records,
) -> Cmp<&'a Loopback, &'a Records> {
    Cmp::new(config(url, by_secret(SECRET)), net, records).unwrap()
}

fn issued(progress: Result<Progress, ProviderError>) -> (Vec<u8>, Vec<Vec<u8>>) {
    match progress {
        Ok(Progress::Done(Outcome::Issued { certificate, chain })) => (certificate, chain),
        other => panic!("{other:?}"),
    }
}

fn code(progress: Result<Progress, ProviderError>) -> &'static str {
    progress.unwrap_err().code()
}

#[test]
fn a_certificate_is_asked_for_confirmed_and_answered_again_without_a_message() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let (_server, url) = world.serve_secret(&[]);
    let cmp = provider(&url, &net, &records);
    let (certificate, chain) = issued(cmp.submit(ID, &world.ask(), NOW));
    assert_eq!(certificate, world.certificate);
    assert_eq!(chain, [world.ca.certificate().to_vec()]);
    // The request and its confirmation.
    assert_eq!(*net.exchanges.borrow(), 2);
    assert_eq!(issued(cmp.submit(ID, &world.ask(), NOW)).0, certificate);
    assert_eq!(issued(cmp.poll(ID, NOW)).0, certificate);
    assert_eq!(*net.exchanges.borrow(), 2);
    let other =
        Ask::Enrol(Enrolment { profile: profile(), spki: p256(), validity: day(), request: None });
    assert_eq!(code(cmp.submit(ID, &other, NOW)), "provider-id-reused");
    assert_eq!(code(cmp.poll(RequestId([8; 16]), NOW)), "provider-unknown-request");
    // What we sent says what we asked for.
    let dir = world.dir.path();
    std::fs::write(dir.join("ir.der"), &net.sent.borrow()[0]).unwrap();
    let text = must(dir, &["asn1parse", "-inform", "DER", "-in", "ir.der"]);
    assert!(text.contains("alice") && text.contains("password based MAC"), "{text}");
}

/// What was on record whenever something left, and how often it was written.
struct Recorded<'a> {
    net: &'a Loopback,
    records: &'a &'a Records,
    saves: RefCell<Vec<String>>,
    left: RefCell<Vec<usize>>,
}

impl Transport for &Recorded<'_> {
    fn exchange(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, TransportError> {
        self.left.borrow_mut().push(self.saves.borrow().len());
        self.net.exchange(request)
    }
}

impl Journal for &Recorded<'_> {
    fn load(&self, id: RequestId) -> Result<Option<Vec<u8>>, LedgerError> {
        self.records.load(id)
    }

    fn save(&self, id: RequestId, record: &[u8]) -> Result<(), LedgerError> {
        self.saves.borrow_mut().push(String::from_utf8_lossy(record).into_owned());
        self.records.save(id, record)
    }
}

#[test]
fn each_message_is_on_record_before_it_leaves_and_each_record_is_written_once() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let (_server, url) = world.serve_secret(&[]);
    let (saves, left) = (RefCell::default(), RefCell::default());
    let all = Recorded { net: &net, records: &&records, saves, left };
    let cmp = Cmp::new(config(&url, by_secret(SECRET)), &all, &all).unwrap();
    issued(cmp.submit(ID, &world.ask(), NOW));
    let saves = all.saves.borrow();
    let words: Vec<bool> = [("sent", 0), ("confirming", 1), ("ended", 2)]
        .iter()
        .map(|(word, at)| saves[*at].contains(&format!("\"{word}\"")))
        .collect();
    assert_eq!((words, saves.len()), (vec![true; 3], 3), "{saves:?}");
    assert_eq!(*all.left.borrow(), [1, 2], "records when the two messages left");
}

#[test]
fn a_ca_that_lets_us_wait_is_asked_again_when_it_said() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let (_server, url) = world.serve_secret(&["-poll_count", "3", "-check_after", "30"]);
    let cmp = provider(&url, &net, &records);
    assert_eq!(cmp.submit(ID, &world.ask(), NOW).unwrap(), Progress::Pending);
    let said = *net.exchanges.borrow();
    // Too early: nothing is sent.
    assert_eq!(cmp.poll(ID, NOW + Duration::from_secs(29)).unwrap(), Progress::Pending);
    assert_eq!(*net.exchanges.borrow(), said);
    assert_eq!(cmp.poll(ID, NOW + Duration::from_secs(31)).unwrap(), Progress::Pending);
    // A restart comes between.
    let again = provider(&url, &net, &records);
    let late = NOW + Duration::from_secs(62);
    assert_eq!(issued(again.submit(ID, &world.ask(), late)).0, world.certificate);
}

#[test]
fn a_renewal_and_a_revocation_are_asked_for_once() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let (_server, url) = world.serve_secret(&[]);
    let cmp = provider(&url, &net, &records);
    let old = world.certificate.clone();
    let (profile, validity, request) = (profile(), day(), None);
    let certificate = old.clone();
    let renewal = Ask::Renew(Renewal { certificate, profile, validity, request });
    assert_eq!(issued(cmp.submit(ID, &renewal, NOW)).0, old);
    let reason = RevocationReason::KeyCompromise;
    let revoke = Ask::Revoke(RevocationAsk { certificate: old, reason });
    let id = RequestId([9; 16]);
    let when = NOW;
    // Its answer is lost: to ask again does no harm.
    net.fail(0, Fault::Lost);
    assert_eq!(code(cmp.submit(id, &revoke, when)), "provider-unavailable");
    let revoked = cmp.submit(id, &revoke, when).unwrap();
    assert_eq!(revoked, Progress::Done(Outcome::Revoked(when)));
    let count = *net.exchanges.borrow();
    assert_eq!(cmp.poll(id, when + Duration::from_secs(9)).unwrap(), revoked);
    assert_eq!(*net.exchanges.borrow(), count);
}

#[test]
fn messages_are_signed_and_the_signer_of_the_answers_leads_to_an_anchor() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let dir = world.dir.path();
    let (root, _) = Ca::create_root(&spec("Registration", 0)).unwrap();
    let certify = |spki: &[u8], name: &str| {
        let profile = Profile::Client { operator: name.to_owned() };
        root.issue(&profile, spki, Validity::new(NOW, DAY)).unwrap().der
    };
    key_pair(dir, "srv", |spki| certify(spki, "cmp-server"));
    let ours = key_pair(dir, "ra", |spki| certify(spki, "ra"));
    write_pem(dir, "anchor.pem", "CERTIFICATE", root.certificate());
    let signed = ["-srv_cert", "srv.pem", "-srv_key", "srv.key", "-srv_trusted", "anchor.pem"];
    let at = NOW.unix_timestamp().to_string();
    let (_server, url) = world.serve(&[signed.as_slice(), &["-attime", &at]].concat());
    let key = |anchors| CmpCredential::Key {
        certificate: ours.0.clone(),
        chain: Vec::new(),
        key: Secret::new(ours.1.clone()),
        anchors,
    };
    let anchors = Anchors::new(&[root.certificate()]).unwrap();
    let cmp = Cmp::new(config(&url, key(anchors)), &net, &records).unwrap();
    assert_eq!(issued(cmp.submit(ID, &world.ask(), NOW)).0, world.certificate);
    // Anchors to which it does not lead.
    let (foreign, _) = Ca::create_root(&spec("Nobody", 0)).unwrap();
    let anchors = Anchors::new(&[foreign.certificate()]).unwrap();
    let cmp = Cmp::new(config(&url, key(anchors)), &net, &records).unwrap();
    let refused = cmp.submit(RequestId([1; 16]), &world.ask(), NOW);
    assert_eq!(code(refused), "provider-answer-signer");
}

#[test]
fn a_lost_answer_is_a_clear_failure_or_by_choice_the_same_message_again() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let (_server, url) = world.serve_secret(&[]);
    let cmp = provider(&url, &net, &records);
    // Nothing left: it is sent when somebody is there.
    net.fail(0, Fault::NotSent);
    assert_eq!(code(cmp.submit(ID, &world.ask(), NOW)), "provider-unavailable");
    // It arrived, and the process ended before the answer came.
    net.fail(0, Fault::Lost);
    assert_eq!(code(cmp.submit(ID, &world.ask(), NOW)), "provider-unavailable");
    let count = *net.exchanges.borrow();
    let restarted = provider(&url, &net, &records);
    for _ in 0..2 {
        let refused = restarted.submit(ID, &world.ask(), NOW);
        assert_eq!(code(refused), "provider-outcome-unknown");
        assert_eq!(code(restarted.poll(ID, NOW)), "provider-outcome-unknown");
    }
    assert_eq!(*net.exchanges.borrow(), count);
    let mut chosen = config(&url, by_secret(SECRET));
    chosen.lost_answer = LostAnswer::Repeat;
    let chosen = Cmp::new(chosen, &net, &records).unwrap();
    assert_eq!(issued(chosen.submit(ID, &world.ask(), NOW)).0, world.certificate);
    let sent = net.sent.borrow();
    assert_eq!(sent[0], sent[1]);
}

#[test]
fn a_confirmation_that_was_lost_leads_to_the_same_certificate_or_a_clear_failure() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let (_server, url) = world.serve_secret(&[]);
    let cmp = provider(&url, &net, &records);
    // The confirmation does not leave.
    net.fail(1, Fault::NotSent);
    assert_eq!(code(cmp.submit(ID, &world.ask(), NOW)), "provider-unavailable");
    let restarted = provider(&url, &net, &records);
    assert_eq!(issued(restarted.poll(ID, NOW)).0, world.certificate);
    // The answer to it is lost: this server forgets a transaction that is confirmed.
    let id = RequestId([3; 16]);
    net.fail(1, Fault::Lost);
    assert_eq!(code(cmp.submit(id, &world.ask(), NOW)), "provider-unavailable");
    assert_eq!(code(restarted.poll(id, NOW)), "provider-outcome-unknown");
    // Never is the request itself sent again.
    assert_eq!(net.sent.borrow().iter().filter(|body| is_request(body)).count(), 2);
}

/// Whether a message is an initialisation request: it has a template with our subject.
fn is_request(body: &[u8]) -> bool {
    body.windows(5).any(|five| five == b"alice")
}

#[test]
fn an_answer_that_was_altered_or_is_by_somebody_else_says_nothing() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let (_server, url) = world.serve_secret(&[]);
    // Another secret: the server refuses, and we cannot read what it says.
    let config = |secret| config(&url, by_secret(secret));
    let stranger = Cmp::new(config("another secret"), &net, &records).unwrap();
    let refused = stranger.submit(RequestId([1; 16]), &world.ask(), NOW);
    assert_eq!(code(refused), "provider-answer-protection");
    for (number, at) in [(2, 30), (3, 120), (4, 400), (5, 600)] {
        net.fail(0, Fault::Altered(at));
        let cmp = Cmp::new(config(SECRET), &net, &records).unwrap();
        let refused = code(cmp.submit(RequestId([number; 16]), &world.ask(), NOW));
        let named = ["provider-answer-protection", "provider-answer-malformed"];
        assert!(named.contains(&refused), "{at}: {refused}");
    }
}

#[test]
fn a_certificate_for_another_key_is_refused_and_the_ca_is_told() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let (_server, url) = world.serve_secret(&[]);
    let cmp = provider(&url, &net, &records);
    let other =
        Ask::Enrol(Enrolment { profile: profile(), spki: p256(), validity: day(), request: None });
    for _ in 0..2 {
        assert_eq!(code(cmp.submit(ID, &other, NOW)), "provider-answer-certificate");
    }
    // The request and the word that its answer is not accepted.
    assert_eq!(*net.exchanges.borrow(), 2);
}

#[test]
fn what_the_ca_refuses_is_refused_for_good_and_what_it_cannot_do_now_is_not() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let refusing = ["-pkistatus", "2", "-failure", "9", "-statusstring", "not today"];
    let (_server, url) = world.serve_secret(&refusing);
    let cmp = provider(&url, &net, &records);
    for _ in 0..2 {
        let refused = cmp.submit(ID, &world.ask(), NOW).unwrap_err();
        assert_eq!(refused.code(), "provider-refused");
        assert!(refused.to_string().contains("not today"), "{refused}");
    }
    assert_eq!(*net.exchanges.borrow(), 1);
    let (_server, url) = world.serve_secret(&["-pkistatus", "2", "-failure", "24"]);
    let cmp = provider(&url, &net, &records);
    for _ in 0..2 {
        let refused = cmp.submit(RequestId([2; 16]), &world.ask(), NOW);
        assert_eq!(code(refused), "provider-unavailable");
    }
    let (_server, url) = world.serve_secret(&["-send_error", "-send_unprotected"]);
    let cmp = provider(&url, &net, &records);
    let refused = cmp.submit(RequestId([4; 16]), &world.ask(), NOW);
    assert_eq!(code(refused), "provider-answer-protection");
}

/// Says what was said before, whatever is asked.
struct Parrot(Vec<u8>);

impl Transport for Parrot {
    fn exchange(&self, _request: &HttpRequest<'_>) -> Result<HttpAnswer, TransportError> {
        let kind = ("content-type".to_owned(), "application/pkixcmp".to_owned());
        Ok(HttpAnswer { status: 200, headers: vec![kind], body: self.0.clone() })
    }
}

#[test]
fn an_answer_to_another_message_is_refused_though_it_is_truly_the_ca_s() {
    let (world, net, records) = (World::new(), Loopback::default(), Records::default());
    let (_server, url) = world.serve_secret(&[]);
    issued(provider(&url, &net, &records).submit(ID, &world.ask(), NOW));
    let asked = |answer: Vec<u8>, id: RequestId| {
        let records = Records::default();
        let cmp = Cmp::new(config(&url, by_secret(SECRET)), Parrot(answer), &records).unwrap();
        code(cmp.submit(id, &world.ask(), NOW))
    };
    let answer = net.answers.borrow()[0].clone();
    assert_eq!(asked(answer.clone(), RequestId([2; 16])), "provider-answer-transaction");
    assert_eq!(asked(answer, ID), "provider-answer-nonce");
    assert_eq!(asked(vec![0x30; 300_000], ID), "provider-answer-too-large");
    assert_eq!(asked(b"x".to_vec(), ID), "provider-answer-malformed");
}
