//! Our own CA as a provider: one certificate a request, whatever is lost on the way.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use pki::{
    Ask, Ca, CaSigner, Enrolment, Job, KeyUses, Ledger, LedgerEntry, LedgerError, Outcome, OwnCa,
    Patience, Profile, Progress, Provider, ProviderError, Renewal, RequestId, Revocation,
    RevocationAsk, RevocationReason, Step, UserCert, UserName,
};
use time::OffsetDateTime;

use crate::support::{DAY, NOW, Pki, day, must, p256, rsa, spec, write_pem};

/// A ledger in memory that can be made to fail before or after it writes, once.
#[derive(Default)]
struct Memory {
    entries: RefCell<HashMap<RequestId, LedgerEntry>>,
    fail: RefCell<Option<(usize, bool)>>,
}

impl Ledger for Memory {
    fn find(&self, id: RequestId) -> Result<Option<LedgerEntry>, LedgerError> {
        Ok(self.entries.borrow().get(&id).cloned())
    }

    fn record(&self, id: RequestId, entry: &LedgerEntry) -> Result<(), LedgerError> {
        let mut fail = self.fail.borrow_mut();
        let crash = match fail.as_mut() {
            Some((0, written)) => Some(*written),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if crash != Some(false) {
            self.entries.borrow_mut().insert(id, entry.clone());
        }
        if crash.is_some() {
            *fail = None;
            return Err(LedgerError("power cut".into()));
        }
        Ok(())
    }

    fn revocation(&self, serial: &[u8; 16]) -> Result<Option<Revocation>, LedgerError> {
        let entries = self.entries.borrow();
        Ok(entries.values().find_map(|entry| match entry {
            LedgerEntry::Revoked { revocation, .. } if revocation.serial == *serial => {
                Some(*revocation)
            }
            _ => None,
        }))
    }
}

fn user(uses: KeyUses) -> Profile {
    Profile::User(UserCert {
        name: "alice".to_owned(),
        organization: Some("Example".to_owned()),
        names: vec![UserName::Email("alice@example.org".to_owned())],
        uses,
        crl_url: Some("http://localhost/ca.crl".to_owned()),
        ocsp_url: Some("http://localhost/ocsp".to_owned()),
    })
}

const SIGN: KeyUses = KeyUses { signature: true, encryption: false, exchange: false };

fn ask() -> Ask {
    enrolment(p256())
}

fn enrolment(spki: Vec<u8>) -> Ask {
    Ask::Enrol(Enrolment { profile: user(SIGN), spki, validity: day(), request: None })
}

fn renewal(certificate: Vec<u8>) -> Ask {
    let (profile, validity) = (user(SIGN), day());
    Ask::Renew(Renewal { certificate, profile, validity, request: None })
}

fn provider() -> OwnCa<Memory> {
    let pki = Pki::new();
    let chain = vec![pki.sub.certificate().to_vec()];
    OwnCa::new(pki.sub, chain, Memory::default()).unwrap()
}

fn issued(progress: Progress) -> Vec<u8> {
    match progress {
        Progress::Done(Outcome::Issued { certificate, .. }) => certificate,
        other => panic!("{other:?}"),
    }
}

fn serial(certificate: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    write_pem(dir.path(), "c.pem", "CERTIFICATE", certificate);
    must(dir.path(), &["x509", "-in", "c.pem", "-noout", "-serial"])
}

const ID: RequestId = RequestId([1; 16]);

#[test]
fn a_repeated_request_is_answered_by_the_same_certificate_and_another_is_refused() {
    let provider = provider();
    let ask = ask();
    let first = issued(provider.submit(ID, &ask, NOW).unwrap());
    assert_eq!(issued(provider.submit(ID, &ask, NOW + DAY).unwrap()), first);
    assert_eq!(issued(provider.poll(ID, NOW).unwrap()), first);
    let refused = provider.submit(ID, &enrolment(p256()), NOW).unwrap_err();
    assert_eq!(refused.code(), "provider-id-reused");
    let unknown = provider.poll(RequestId([2; 16]), NOW).unwrap_err();
    assert_eq!(unknown.code(), "provider-unknown-request");
}

#[test]
fn a_crash_at_each_write_leads_to_one_serial_number_only() {
    for (write, written) in [(0, false), (0, true), (1, false), (1, true)] {
        let provider = provider();
        let ask = ask();
        *provider.ledger().fail.borrow_mut() = Some((write, written));
        let lost = provider.submit(ID, &ask, NOW).unwrap_err();
        assert_eq!(lost.code(), "provider-unavailable");
        let reserved = match provider.ledger().find(ID).unwrap() {
            Some(LedgerEntry::Issuing { serial, .. } | LedgerEntry::Issued { serial, .. }) => {
                Some(serial)
            }
            _ => None,
        };
        let certificate = issued(provider.submit(ID, &ask, NOW).unwrap());
        if let Some(reserved) = reserved {
            let hex: String = reserved.iter().map(|byte| format!("{byte:02X}")).collect();
            assert!(serial(&certificate).contains(&hex));
        }
        assert_eq!(issued(provider.submit(ID, &ask, NOW).unwrap()), certificate);
    }
}

#[test]
fn a_renewal_keeps_the_key_and_a_revoked_or_foreign_certificate_is_not_renewed() {
    let provider = provider();
    let old = issued(provider.submit(ID, &ask(), NOW).unwrap());
    let again = renewal(old.clone());
    let new = issued(provider.submit(RequestId([2; 16]), &again, NOW).unwrap());
    assert_ne!(serial(&new), serial(&old));
    let late = provider.submit(RequestId([9; 16]), &again, NOW + 2 * DAY).unwrap_err();
    assert_eq!(late.code(), "provider-not-ours");
    let reason = RevocationReason::KeyCompromise;
    let revoke = Ask::Revoke(RevocationAsk { certificate: old, reason });
    let when = |progress| match progress {
        Progress::Done(Outcome::Revoked(at)) => at,
        other => panic!("{other:?}"),
    };
    assert_eq!(when(provider.submit(RequestId([3; 16]), &revoke, NOW).unwrap()), NOW);
    // Again, later, under the same id and under another: it stays revoked since then.
    for id in [3, 4] {
        let at = when(provider.submit(RequestId([id; 16]), &revoke, NOW + DAY).unwrap());
        assert_eq!(at, NOW);
    }
    let refused = provider.submit(RequestId([5; 16]), &again, NOW).unwrap_err();
    assert_eq!(refused.code(), "provider-revoked");
    // The one that was answered before is answered again.
    assert_eq!(issued(provider.submit(RequestId([2; 16]), &again, NOW).unwrap()), new);
    let foreign = Pki::new().sub.issue(&user(SIGN), &p256(), day()).unwrap().der;
    let refused = provider.submit(RequestId([6; 16]), &renewal(foreign), NOW).unwrap_err();
    assert_eq!(refused.code(), "provider-not-ours");
    let junk = Ask::Revoke(RevocationAsk { certificate: vec![1], reason });
    assert_eq!(
        provider.submit(RequestId([7; 16]), &junk, NOW).unwrap_err().code(),
        "provider-not-ours"
    );
}

#[test]
fn a_user_certificate_says_what_was_asked_and_what_its_key_can_do() {
    let pki = Pki::new();
    let all = KeyUses { signature: true, encryption: true, exchange: true };
    let dir = tempfile::tempdir().unwrap();
    for (spki, usage) in [
        (p256(), "Digital Signature, Key Agreement"),
        (rsa(), "Digital Signature, Key Encipherment, Data Encipherment"),
    ] {
        let der = pki.sub.issue(&user(all), &spki, day()).unwrap().der;
        write_pem(dir.path(), "c.pem", "CERTIFICATE", &der);
        let text = must(dir.path(), &["x509", "-in", "c.pem", "-noout", "-text"]);
        for part in [
            usage,
            "email:alice@example.org",
            "URI:http://localhost/ca.crl",
            "OCSP - URI:http://localhost/ocsp",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
    let only = KeyUses { encryption: true, ..KeyUses::default() };
    assert!(pki.sub.issue(&user(only), &p256(), day()).is_err());
}

/// A provider that is not there, or not done, as often as it is told.
struct Slow {
    unavailable: RefCell<usize>,
    pending: RefCell<usize>,
    forgets: bool,
    inner: OwnCa<Memory>,
    submitted: RefCell<usize>,
}

impl Slow {
    fn delay(&self) -> Option<Result<Progress, ProviderError>> {
        for (left, answer) in [(&self.unavailable, false), (&self.pending, true)] {
            let mut left = left.borrow_mut();
            if *left > 0 {
                *left -= 1;
                let away = || ProviderError::Unavailable("away".into());
                return Some(if answer { Ok(Progress::Pending) } else { Err(away()) });
            }
        }
        None
    }
}

impl Provider for Slow {
    fn submit(
        &self,
        id: RequestId,
        ask: &Ask,
        now: OffsetDateTime,
    ) -> Result<Progress, ProviderError> {
        *self.submitted.borrow_mut() += 1;
        self.delay().unwrap_or_else(|| self.inner.submit(id, ask, now))
    }

    fn poll(&self, id: RequestId, now: OffsetDateTime) -> Result<Progress, ProviderError> {
        if self.forgets {
            return Err(ProviderError::UnknownRequest);
        }
        // Somebody on its side did the work meanwhile.
        self.delay().unwrap_or_else(|| self.inner.submit(id, &ASK.with(Clone::clone), now))
    }
}

thread_local! {
    static ASK: Ask = ask();
}

fn slow(unavailable: usize, pending: usize, forgets: bool) -> Slow {
    let (unavailable, pending) = (RefCell::new(unavailable), RefCell::new(pending));
    Slow { unavailable, pending, forgets, inner: provider(), submitted: RefCell::default() }
}

const PATIENCE: Patience = Patience {
    total: Duration::from_secs(100),
    first: Duration::from_secs(1),
    most: Duration::from_secs(8),
};

/// Drives a job to its end; the waits in seconds, and the end.
fn drive(provider: &Slow) -> (Vec<i64>, Result<Outcome, ProviderError>) {
    let (mut now, mut waits) = (NOW, Vec::new());
    let mut job = Job::new(ID, PATIENCE, now);
    loop {
        match job.advance(provider, &ASK.with(Clone::clone), now) {
            Ok(Step::Done(outcome)) => return (waits, Ok(outcome)),
            Ok(Step::Wait(until)) => {
                waits.push((until - now).whole_seconds());
                // The call itself takes a moment.
                now = until + Duration::from_millis(10);
            }
            Err(error) => return (waits, Err(error)),
        }
    }
}

#[test]
fn a_job_waits_longer_each_time_submits_once_what_was_accepted_and_gives_up_in_time() {
    let late = slow(3, 2, false);
    let (waits, end) = drive(&late);
    assert!(end.is_ok());
    assert_eq!(waits, [1, 2, 4, 8, 8]);
    assert_eq!(*late.submitted.borrow(), 4);
    let away = slow(1000, 0, false);
    let (waits, end) = drive(&away);
    assert_eq!(end.unwrap_err().code(), "provider-timed-out");
    assert!(waits.iter().sum::<i64>() <= 100);
    // One that forgets what it accepted is asked again under the same id.
    let forgetful = slow(0, 1, true);
    let (_, end) = drive(&forgetful);
    assert!(end.is_ok());
    assert_eq!(*forgetful.submitted.borrow(), 2);
}

/// A key elsewhere that fails, then signs something else, then signs.
#[derive(Debug)]
struct Moody {
    pair: rcgen::KeyPair,
    spki: Vec<u8>,
    tries: AtomicUsize,
}

impl CaSigner for Moody {
    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        use rcgen::SigningKey as _;
        match self.tries.fetch_add(1, Ordering::Relaxed) {
            // The certificate of the CA itself.
            0 => {}
            1 => return Err("no token".into()),
            2 => return Ok(self.pair.sign(b"something else")?),
            _ => {}
        }
        Ok(self.pair.sign(message)?)
    }
}

#[test]
fn a_key_elsewhere_that_does_not_sign_is_tried_again_for_the_same_serial_number() {
    use rcgen::PublicKeyData as _;
    let pair = rcgen::KeyPair::generate().unwrap();
    let spki = pair.subject_public_key_info();
    let signer = Moody { pair, spki, tries: AtomicUsize::new(0) };
    let ca = Ca::create_root_for(&spec("Elsewhere", 0), Box::new(signer)).unwrap();
    let provider = OwnCa::new(ca, Vec::new(), Memory::default()).unwrap();
    let ask = ask();
    let mut serials = Vec::new();
    for _ in 0..2 {
        let refused = provider.submit(ID, &ask, NOW).unwrap_err();
        assert_eq!(refused.code(), "provider-unavailable");
        match provider.ledger().find(ID).unwrap() {
            Some(LedgerEntry::Issuing { serial, .. }) => serials.push(serial),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(serials[0], serials[1]);
    let certificate = issued(provider.submit(ID, &ask, NOW).unwrap());
    let hex: String = serials[0].iter().map(|byte| format!("{byte:02X}")).collect();
    assert!(serial(&certificate).contains(&hex));
}
