//! What foreign CAs answer: CMP messages, and the JSON and PEM of ACME.

#![no_main]

use std::{cell::RefCell, sync::LazyLock, time::Duration};

use pki::{
    Acme, AcmeConfig, Ask, Ca, CaSpec, Challenge, ChallengeKind, Challenger, Cmp, CmpConfig,
    CmpCredential, HttpAnswer, HttpRequest, Journal, LedgerError, LostAnswer, Provider as _,
    RequestId, RevocationAsk, RevocationReason, Transport, TransportError,
};

/// A certificate and a P-256 key.
static WORLD: LazyLock<(Vec<u8>, Vec<u8>, time::OffsetDateTime)> = LazyLock::new(|| {
    let now = time::OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap();
    let validity = pki::Validity::new(now, Duration::from_secs(86_400));
    let spec = CaSpec { common_name: "Root".to_owned(), path_length: 0, validity };
    let (root, key) = Ca::create_root(&spec).unwrap();
    (root.certificate().to_vec(), key.expose().clone(), now)
});

/// A CA that answers with the next piece of what it was given.
struct Answers<'a>(RefCell<Vec<&'a [u8]>>);

impl Transport for Answers<'_> {
    fn exchange(&self, _request: &HttpRequest<'_>) -> Result<HttpAnswer, TransportError> {
        let body = self.0.borrow_mut().pop().unwrap_or_default().to_vec();
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = vec![
            field("content-type", "application/pkixcmp"),
            field("replay-nonce", "nonce"),
            field("location", "https://ca/1"),
        ];
        Ok(HttpAnswer { status: 200, headers, body })
    }
}

#[derive(Default)]
struct Memory(RefCell<Option<Vec<u8>>>);

impl Journal for Memory {
    fn load(&self, _id: RequestId) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(self.0.borrow().clone())
    }

    fn save(&self, _id: RequestId, record: &[u8]) -> Result<(), LedgerError> {
        *self.0.borrow_mut() = Some(record.to_vec());
        Ok(())
    }
}

struct Nobody;

impl Challenger for Nobody {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::Http01
    }

    fn publish(&self, _: &Challenge) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }

    fn withdraw(&self, _name: &str) {}
}

/// An order on its way, as a provider would have recorded it.
const ORDERED: &str = r#"{"ask":"0000000000000000000000000000000000000000000000000000000000000000",
"standing":{"open":{"ordered":{"url":"https://ca/1","wanted":{"names":[{"type":"dns",
"value":"a.example"}],"spki":"00","request":"00"},"not_before":0}}}}"#;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (certificate, key, now) = &*WORLD;
    let mut pieces: Vec<&[u8]> = data.split(|byte| *byte == 0xff).collect();
    pieces.reverse();
    let answers = || Answers(RefCell::new(pieces.clone()));
    let timeout = Duration::from_secs(1);
    let secret = model::Secret::new(b"secret".to_vec());
    let credential = CmpCredential::Secret { reference: Vec::new(), secret };
    let (url, lost_answer) = ("https://ca/".to_owned(), LostAnswer::Repeat);
    let config = CmpConfig { url, credential, recipient: None, timeout, lost_answer };
    let whole = Answers(RefCell::new(vec![data]));
    let cmp = Cmp::new(config, whole, Memory::default()).unwrap();
    let reason = RevocationReason::Superseded;
    let ask = Ask::Revoke(RevocationAsk { certificate: certificate.clone(), reason });
    let _ = cmp.submit(RequestId([1; 16]), &ask, *now);
    let config = AcmeConfig {
        directory: "https://ca/dir".to_owned(),
        account_key: model::Secret::new(key.clone()),
        contact: Vec::new(),
        terms_agreed: true,
        timeout,
    };
    let memory = Memory(RefCell::new(Some(ORDERED.as_bytes().to_vec())));
    let acme = Acme::new(config, answers(), memory, Nobody).unwrap();
    let _ = acme.poll(RequestId([1; 16]), *now);
});
