//! One session with a token: found by label, logged in, with its key pair.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::UserType,
    slot::Slot,
    types::AuthPin,
};
use der::{
    Decode as _, Encode as _, Sequence,
    asn1::{OctetStringRef, Uint},
};
use model::Secret;

use crate::{TokenConfig, TokenError};

/// The curve P-256 (prime256v1), DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Before the point in the SubjectPublicKeyInfo of a P-256 key.
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The modules that were loaded: each once a process, and never unloaded.
static MODULES: LazyLock<Mutex<HashMap<PathBuf, Pkcs11>>> = LazyLock::new(Mutex::default);

/// ECDSA-Sig-Value.
#[derive(Sequence)]
struct Signature {
    r: Uint,
    s: Uint,
}

/// A key of a token, ready to sign.
pub(crate) struct Session {
    config: TokenConfig,
    pin: AuthPin,
    spki: Vec<u8>,
    open: Option<(cryptoki::session::Session, ObjectHandle)>,
    /// The PIN was refused: it is not tried again.
    locked: bool,
}

impl Session {
    pub(crate) fn open(
        config: TokenConfig,
        pin: Secret<Vec<u8>>,
        new: bool,
    ) -> Result<Self, TokenError> {
        // As it stands in a file, with or without the end of its line.
        let text = std::str::from_utf8(pin.expose()).map_err(|_| TokenError::Pin)?;
        let pin = AuthPin::new(text.trim_end_matches(['\r', '\n']).into());
        let mut session = Self { config, pin, spki: Vec::new(), open: None, locked: false };
        let token = session.login()?;
        if new {
            generate(&token, &session.config.key)?;
        }
        let (key, spki) = find(&token, &session.config.key)?;
        session.spki = spki;
        session.open = Some((token, key));
        Ok(session)
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Signs a digest. What the token forgot, by a reset or a removal, is opened once again.
    pub(crate) fn sign(&mut self, digest: &[u8; 32]) -> Result<Vec<u8>, TokenError> {
        let first = match self.open.as_ref() {
            Some((token, key)) => token.sign(&Mechanism::Ecdsa, *key, digest),
            None => return self.again(digest),
        };
        match first {
            Ok(raw) => encode(&raw),
            Err(_) => {
                self.open = None;
                self.again(digest)
            }
        }
    }

    fn again(&mut self, digest: &[u8; 32]) -> Result<Vec<u8>, TokenError> {
        let token = self.login()?;
        let (key, spki) = find(&token, &self.config.key)?;
        if spki != self.spki {
            return Err(TokenError::KeyMissing);
        }
        let raw = token.sign(&Mechanism::Ecdsa, key, digest).map_err(TokenError::Device)?;
        self.open = Some((token, key));
        encode(&raw)
    }

    fn login(&mut self) -> Result<cryptoki::session::Session, TokenError> {
        if self.locked {
            return Err(TokenError::Pin);
        }
        let module = module(&self.config.module)?;
        let slot = slot(&module, &self.config.token)?;
        let token = module.open_rw_session(slot).map_err(TokenError::Device)?;
        match token.login(UserType::User, Some(&self.pin)) {
            // Another session of this process did.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(token),
            Err(Error::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked,
                _,
            )) => {
                self.locked = true;
                Err(TokenError::Pin)
            }
            Err(error) => Err(TokenError::Device(error)),
        }
    }
}

fn module(path: &Path) -> Result<Pkcs11, TokenError> {
    let mut all = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = all.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path).map_err(TokenError::Module)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(TokenError::Module(error)),
    }
    all.insert(path.to_owned(), module.clone());
    Ok(module)
}

fn slot(module: &Pkcs11, label: &str) -> Result<Slot, TokenError> {
    let slots = module.get_slots_with_initialized_token().map_err(TokenError::Device)?;
    let is = |slot: &Slot| module.get_token_info(*slot).is_ok_and(|info| info.label() == label);
    one(slots.into_iter().filter(is)).ok_or(TokenError::TokenMissing)
}

fn one<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next();
    if all.next().is_some() { None } else { first }
}

fn halves(label: &str) -> [Vec<Attribute>; 2] {
    [ObjectClass::PUBLIC_KEY, ObjectClass::PRIVATE_KEY].map(|class| {
        let label = label.as_bytes().to_vec();
        vec![Attribute::Class(class), Attribute::KeyType(KeyType::EC), Attribute::Label(label)]
    })
}

fn generate(token: &cryptoki::session::Session, label: &str) -> Result<(), TokenError> {
    for half in halves(label) {
        if !token.find_objects(&half).map_err(TokenError::Device)?.is_empty() {
            return Err(TokenError::KeyExists);
        }
    }
    let label = label.as_bytes().to_vec();
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(P256.to_vec()),
        Attribute::Label(label.clone()),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Label(label),
    ];
    let made = token.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private);
    made.map(drop).map_err(TokenError::Device)
}

/// The private key, and the public one as SubjectPublicKeyInfo.
fn find(
    token: &cryptoki::session::Session,
    label: &str,
) -> Result<(ObjectHandle, Vec<u8>), TokenError> {
    let mut found = Vec::new();
    for half in halves(label) {
        let all = token.find_objects(&half).map_err(TokenError::Device)?;
        found.push(one(all.into_iter()).ok_or(TokenError::KeyMissing)?);
    }
    let [public, private] = found.as_slice() else { return Err(TokenError::KeyMissing) };
    let guards = [AttributeType::Sensitive, AttributeType::Extractable];
    let guards = token.get_attributes(*private, &guards).map_err(TokenError::Device)?;
    let kept = guards.contains(&Attribute::Sensitive(true))
        && guards.contains(&Attribute::Extractable(false));
    if !kept {
        return Err(TokenError::KeyExtractable);
    }
    let facts = [AttributeType::EcParams, AttributeType::EcPoint];
    let facts = token.get_attributes(*public, &facts).map_err(TokenError::Device)?;
    if !facts.contains(&Attribute::EcParams(P256.to_vec())) {
        return Err(TokenError::KeyKind);
    }
    let point = facts.iter().find_map(|fact| {
        if let Attribute::EcPoint(point) = fact { Some(point.as_slice()) } else { None }
    });
    let point = point.and_then(|der| <&OctetStringRef>::from_der(der).ok());
    let point = point.filter(|point| point.as_bytes().len() == 65).ok_or(TokenError::KeyKind)?;
    Ok((*private, [SPKI.as_slice(), point.as_bytes()].concat()))
}

/// The two halves of a raw signature as ECDSA-Sig-Value.
fn encode(raw: &[u8]) -> Result<Vec<u8>, TokenError> {
    let (r, s) =
        raw.split_at_checked(32).filter(|(_, s)| s.len() == 32).ok_or(TokenError::KeyKind)?;
    let build = || Signature { r: Uint::new(r)?, s: Uint::new(s)? }.to_der();
    build().map_err(|_| TokenError::KeyKind)
}
