//! A CA whose key is in softhsm2, and what must be refused.

use std::{cell::RefCell, collections::HashMap, fs, path::PathBuf, time::Duration};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::Attribute,
    session::UserType,
};
use model::Secret;
use pki::{
    Anchors, Ask, Ca, CaSigner as _, CaSpec, Enrolment, IssueError, Ledger, LedgerEntry,
    LedgerError, Outcome, OwnCa, Profile, Progress, Provider as _, Purpose, RequestId, Revocation,
    Validity, verify_chain,
};
use time::{OffsetDateTime, macros::datetime};
use token::{Token, TokenConfig, TokenError};

use crate::hsm::{MODULE, PIN, make, run};

const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);

/// Runs one of the tests that are ignored below, with a token of its own.
fn inside(test: &str) {
    let dir = tempfile::tempdir().unwrap();
    if !make(dir.path(), test) {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let name = format!("softhsm::{test}");
    run(this.to_str().unwrap(), &["--exact", &name, "--ignored", "--nocapture"], dir.path());
}

fn config(key: &str) -> TokenConfig {
    let (module, token) = (PathBuf::from(MODULE), "ca".to_owned());
    TokenConfig { module, token, key: key.to_owned(), timeout: Duration::from_secs(120) }
}

fn pin(text: &str) -> Secret<Vec<u8>> {
    Secret::new(text.as_bytes().to_vec())
}

fn spec(name: &str) -> CaSpec {
    let validity = Validity::new(NOW, Duration::from_secs(86_400 * 365));
    CaSpec { common_name: name.to_owned(), path_length: 0, validity }
}

/// A ledger in memory.
#[derive(Default)]
struct Memory(RefCell<HashMap<RequestId, LedgerEntry>>);

impl Ledger for &Memory {
    fn find(&self, id: RequestId) -> Result<Option<LedgerEntry>, LedgerError> {
        Ok(self.0.borrow().get(&id).cloned())
    }

    fn record(&self, id: RequestId, entry: &LedgerEntry) -> Result<(), LedgerError> {
        self.0.borrow_mut().insert(id, entry.clone());
        Ok(())
    }

    fn revocation(&self, _serial: &[u8; 16]) -> Result<Option<Revocation>, LedgerError> {
        Ok(None)
    }
}

fn ask(spki: &[u8]) -> Ask {
    Ask::Enrol(Enrolment {
        profile: Profile::Client { operator: "alice".to_owned() },
        spki: spki.to_vec(),
        validity: Validity::new(NOW, Duration::from_secs(86_400)),
        request: None,
    })
}

fn issued(progress: Progress) -> Vec<u8> {
    let Progress::Done(Outcome::Issued { certificate, .. }) = progress else {
        panic!("{progress:?}")
    };
    certificate
}

#[test]
fn a_ca_issues_with_a_key_that_stays_in_its_token() {
    inside("issue_by_token");
}

#[test]
#[ignore = "runs in a child process with a token of its own"]
fn issue_by_token() {
    let made = Token::generate(config("issuing"), pin(PIN)).unwrap();
    let spki = made.spki().to_vec();
    let root = Ca::create_root_for(&spec("Root"), Box::new(made)).unwrap();
    // A restart: the certificate from a file, the key from the token.
    let certificate = root.certificate().to_vec();
    drop(root);
    let found = Token::open(config("issuing"), pin(&format!("{PIN}\n"))).unwrap();
    assert_eq!(found.spki(), spki);
    let root = Ca::load_for(certificate.clone(), Box::new(found)).unwrap();
    let subject = Token::generate(config("subject"), pin(PIN)).unwrap();
    let ledger = Memory::default();
    let provider = OwnCa::new(root, Vec::new(), &ledger).unwrap();
    let id = RequestId([1; 16]);
    let leaf = issued(provider.submit(id, &ask(subject.spki()), NOW).unwrap());
    assert_eq!(issued(provider.submit(id, &ask(subject.spki()), NOW).unwrap()), leaf);
    let anchors = Anchors::new(&[&certificate]).unwrap();
    let none: [&[u8]; 0] = [];
    verify_chain(&leaf, &none, &anchors, NOW, Purpose::TlsClient).unwrap();
    // openssl agrees, also about a CRL.
    let crl = provider.ca().issue_crl(1, spec("").validity, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, kind, der) in
        [("root", "x509", &certificate), ("leaf", "x509", &leaf), ("crl", "crl", &crl)]
    {
        fs::write(dir.path().join("in.der"), der).unwrap();
        let out = format!("{name}.pem");
        run("openssl", &[kind, "-inform", "DER", "-in", "in.der", "-out", &out], dir.path());
    }
    let at = NOW.unix_timestamp().to_string();
    let verify = ["verify", "-attime", &at, "-CAfile", "root.pem", "-crl_check", "-CRLfile"];
    run("openssl", &[verify.as_slice(), &["crl.pem", "leaf.pem"]].concat(), dir.path());
    // Another CA's certificate does not go with this key.
    let other = Token::open(config("subject"), pin(PIN)).unwrap();
    let mismatch = Ca::load_for(certificate, Box::new(other)).unwrap_err();
    assert!(matches!(mismatch, IssueError::CaMismatch), "{mismatch}");
}

#[test]
fn what_a_token_refuses_has_a_name() {
    inside("refusals");
}

#[test]
#[ignore = "runs in a child process with a token of its own"]
fn refusals() {
    fn code(result: Result<Token, TokenError>) -> &'static str {
        result.unwrap_err().code()
    }
    // Before anything logs in, for a process is logged in once for all of its sessions.
    assert_eq!(code(Token::open(config("key"), pin("wrong"))), "token-pin");
    assert_eq!(code(Token::open(config("key"), pin(PIN))), "token-key-missing");
    let _key = Token::generate(config("key"), pin(PIN)).unwrap();
    assert_eq!(code(Token::generate(config("key"), pin(PIN))), "token-key-exists");
    let nobody = TokenConfig { token: "nobody".to_owned(), ..config("key") };
    assert_eq!(code(Token::open(nobody, pin(PIN))), "token-missing");
    let nowhere = TokenConfig { module: "/nowhere.so".into(), ..config("key") };
    assert_eq!(code(Token::open(nowhere, pin(PIN))), "token-module");
    let hurried = TokenConfig { timeout: Duration::ZERO, ..config("key") };
    assert_eq!(code(Token::open(hurried, pin(PIN))), "token-timed-out");
    // A key that may be taken out, and one of another curve.
    foreign_key("loose", P256, true);
    assert_eq!(code(Token::open(config("loose"), pin(PIN))), "token-key-extractable");
    foreign_key("p384", P384, false);
    assert_eq!(code(Token::open(config("p384"), pin(PIN))), "token-key-kind");
    // A token to which nobody has given a PIN yet.
    let module = module();
    let free = module
        .get_slots_with_token()
        .unwrap()
        .into_iter()
        .find(|slot| module.get_token_info(*slot).is_ok_and(|info| !info.token_initialized()));
    module.init_token(free.unwrap(), &"12345678".to_owned().into(), "bare").unwrap();
    let bare = TokenConfig { token: "bare".to_owned(), ..config("key") };
    assert_eq!(code(Token::open(bare, pin(PIN))), "token-device");
}

#[test]
fn without_a_thread_for_it_no_token_is_opened() {
    let this = std::env::current_exe().unwrap();
    let args = ["--exact", "softhsm::no_thread", "--ignored", "--test-threads=1"];
    // No machine has memory for such a stack.
    let mut child = std::process::Command::new(this);
    let output =
        child.args(args).env("RUST_MIN_STACK", (1_u64 << 50).to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "runs in a child process that can start no thread"]
fn no_thread() {
    assert_eq!(Token::open(config("key"), pin(PIN)).unwrap_err().code(), "token-thread");
}

/// Names of curves, DER.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

fn module() -> Pkcs11 {
    let module = Pkcs11::new(MODULE).unwrap();
    let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    module
}

/// Makes a key that is not as those are that we make.
fn foreign_key(label: &str, curve: &[u8], extractable: bool) {
    let module = module();
    let slots = module.get_slots_with_initialized_token().unwrap();
    let session = module.open_rw_session(slots[0]).unwrap();
    let _ = session.login(UserType::User, Some(&PIN.to_owned().into()));
    let label = Attribute::Label(label.as_bytes().to_vec());
    let public = [Attribute::Token(true), Attribute::EcParams(curve.to_vec()), label.clone()];
    let guards = [Attribute::Sensitive(!extractable), Attribute::Extractable(extractable)];
    let private = [&[Attribute::Token(true), label][..], &guards].concat();
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
}
