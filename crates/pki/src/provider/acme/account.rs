//! The account at the CA: signed requests (RFC 8555, section 6), nonces, and where things are.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    super::{
        AnswerRejection, HttpAnswer, HttpRequest, Method, ProviderError, Transport, TransportError,
    },
    AcmeConfig,
    wire::{Directory, Problem},
};
use crate::IssueError;

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 256 << 10;
/// How often a request is signed anew because its nonce was refused.
const MAX_NONCES: usize = 8;
/// Most nonces that are kept, and the longest.
const KEPT_NONCES: usize = 8;
const MAX_NONCE: usize = 256;

/// A key at a CA.
pub(super) struct Account<T> {
    transport: T,
    directory: String,
    contact: Vec<String>,
    terms_agreed: bool,
    timeout: Duration,
    key: EcdsaKeyPair,
    place: Mutex<Option<Place>>,
    nonces: Mutex<Vec<String>>,
}

/// What the CA says of itself and of the account, once a process.
#[derive(Clone)]
struct Place {
    directory: Directory,
    account: String,
}

/// What of the CA an account talks to.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    NewOrder,
    RevokeCert,
    Url(&'a str),
}

/// Whose key a request is signed by: one that is sent along, or that of an account.
enum Signer<'a> {
    Key,
    Account(&'a str),
}

impl<T> fmt::Debug for Account<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// What an answer says when it says no.
pub(super) enum Refusal {
    Problem(Problem),
    Error(ProviderError),
}

impl From<ProviderError> for Refusal {
    fn from(error: ProviderError) -> Self {
        Self::Error(error)
    }
}

impl From<AnswerRejection> for Refusal {
    fn from(rejection: AnswerRejection) -> Self {
        Self::Error(rejection.into())
    }
}

impl From<Refusal> for ProviderError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Problem(problem) => Self::Refused(problem.words()),
            Refusal::Error(error) => error,
        }
    }
}

impl<T: Transport> Account<T> {
    pub(super) fn new(config: AcmeConfig, transport: T) -> Result<Self, IssueError> {
        let AcmeConfig { directory, account_key, contact, terms_agreed, timeout } = config;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, account_key.expose());
        let key = key.map_err(|_| IssueError::CaKey)?;
        let (place, nonces) = (Mutex::new(None), Mutex::new(Vec::new()));
        Ok(Self { transport, directory, contact, terms_agreed, timeout, key, place, nonces })
    }

    /// A signed request; without a payload it only asks.
    pub(super) fn post(
        &self,
        target: Target<'_>,
        payload: Option<&Value>,
    ) -> Result<HttpAnswer, Refusal> {
        let Place { directory, account } = self.place()?;
        let url = match target {
            Target::NewOrder => &directory.new_order,
            Target::RevokeCert => &directory.revoke_cert,
            Target::Url(url) => url,
        };
        self.signed(&directory, url, payload, &Signer::Account(&account))
    }

    /// As [`Account::post`], for an answer in JSON.
    pub(super) fn ask<A: DeserializeOwned>(
        &self,
        url: &str,
        payload: Option<&Value>,
    ) -> Result<(A, HttpAnswer), Refusal> {
        let answer = self.post(Target::Url(url), payload)?;
        Ok((read(&answer)?, answer))
    }

    /// What is published for a challenge: its token and who we are.
    pub(super) fn authorization(&self, token: &str) -> String {
        let Point { x, y } = self.point();
        // The members in the order of RFC 7638, without white space.
        let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        format!("{token}.{}", encode(digest(&SHA256, jwk.as_bytes()).as_ref()))
    }

    fn place(&self) -> Result<Place, Refusal> {
        let known = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(place) = known {
            return Ok(place);
        }
        let directory: Directory = read(&self.exchange(Method::Get, &self.directory, &[])?)?;
        // The same key leads to the same account, new or not.
        let payload =
            json!({"termsOfServiceAgreed": self.terms_agreed, "contact": self.contact.clone()});
        let url = directory.new_account.clone();
        let answer = self.signed(&directory, &url, Some(&payload), &Signer::Key)?;
        let account = location(&answer)?;
        let place = Place { directory, account };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
        Ok(place)
    }

    /// One request, signed again while the CA does not take its nonce.
    fn signed(
        &self,
        directory: &Directory,
        url: &str,
        payload: Option<&Value>,
        signer: &Signer<'_>,
    ) -> Result<HttpAnswer, Refusal> {
        for _ in 0..MAX_NONCES {
            let nonce = match self.nonces.lock().unwrap_or_else(PoisonError::into_inner).pop() {
                Some(nonce) => nonce,
                None => {
                    let answer = self.exchange(Method::Head, &directory.new_nonce, &[])?;
                    answer.header("replay-nonce").ok_or(AnswerRejection::Nonce)?.to_owned()
                }
            };
            let body = self.sign(url, &nonce, payload, signer)?;
            let answer = self.exchange(Method::Post, url, body.as_bytes())?;
            self.keep(&answer);
            if answer.status < 300 {
                return Ok(answer);
            }
            let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
            if problem.is("badNonce") {
                continue;
            }
            let later = answer.status == 429 || answer.status >= 500;
            return Err(if later {
                Refusal::Error(ProviderError::Unavailable(
                    format!("HTTP status {}, {}", answer.status, problem.words()).into(),
                ))
            } else {
                Refusal::Problem(problem)
            });
        }
        Err(ProviderError::Unavailable("the CA took no nonce".into()).into())
    }

    fn keep(&self, answer: &HttpAnswer) {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        let nonce = answer.header("replay-nonce").filter(|nonce| nonce.len() <= MAX_NONCE);
        if let Some(nonce) = nonce
            && nonces.len() < KEPT_NONCES
        {
            nonces.push(nonce.to_owned());
        }
    }

    fn sign(
        &self,
        url: &str,
        nonce: &str,
        payload: Option<&Value>,
        signer: &Signer<'_>,
    ) -> Result<String, ProviderError> {
        let mut header = json!({"alg": "ES256", "nonce": nonce, "url": url});
        let Point { x, y } = self.point();
        let (name, who) = match signer {
            Signer::Key => ("jwk", json!({"crv": "P-256", "kty": "EC", "x": x, "y": y})),
            Signer::Account(account) => ("kid", json!(account)),
        };
        if let Some(header) = header.as_object_mut() {
            header.insert(name.to_owned(), who);
        }
        let header = encode(header.to_string().as_bytes());
        let payload = payload.map(|payload| encode(payload.to_string().as_bytes()));
        let payload = payload.unwrap_or_default();
        let signature =
            self.key.sign(&SystemRandom::new(), format!("{header}.{payload}").as_bytes());
        let signature = signature.map_err(|_| ProviderError::Issue(IssueError::Random))?;
        let signature = encode(signature.as_ref());
        Ok(json!({"protected": header, "payload": payload, "signature": signature}).to_string())
    }

    fn point(&self) -> Point {
        // 4, then x and y, 32 bytes each.
        let (_, point) = self.key.public_key().as_ref().split_at_checked(1).unwrap_or_default();
        let (x, y) = point.split_at_checked(32).unwrap_or_default();
        Point { x: encode(x), y: encode(y) }
    }

    /// One exchange with the CA, and with nobody else: wherever it says that something is.
    fn exchange(
        &self,
        method: Method,
        url: &str,
        body: &[u8],
    ) -> Result<HttpAnswer, ProviderError> {
        if origin(url).is_none() || origin(url) != origin(&self.directory) {
            return Err(AnswerRejection::Unexpected.into());
        }
        let answer = self.transport.exchange(&HttpRequest {
            method,
            url,
            content_type: (method == Method::Post).then_some("application/jose+json"),
            body,
            most: MAX_ANSWER,
            timeout: self.timeout,
        })?;
        if answer.body.len() > MAX_ANSWER {
            return Err(AnswerRejection::TooLarge.into());
        }
        if method != Method::Post && answer.status >= 300 {
            let status = format!("HTTP status {}", answer.status);
            return Err(TransportError::Lost(status.into()).into());
        }
        Ok(answer)
    }
}

/// The coordinates of a public key, in base64url.
struct Point {
    x: String,
    y: String,
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<&str> {
    let host = url.find("://")?.checked_add(3)?;
    let rest = url.get(host..)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // Nobody else's name is hidden before an `@`.
    let authority = rest.get(..end).filter(|authority| !authority.contains('@'))?;
    url.get(..host.checked_add(authority.len())?)
}

pub(super) fn read<A: DeserializeOwned>(answer: &HttpAnswer) -> Result<A, AnswerRejection> {
    serde_json::from_slice(&answer.body).map_err(|_| AnswerRejection::Malformed)
}

/// Where the thing is that was made.
pub(super) fn location(answer: &HttpAnswer) -> Result<String, AnswerRejection> {
    answer.header("location").map(str::to_owned).ok_or(AnswerRejection::Malformed)
}
