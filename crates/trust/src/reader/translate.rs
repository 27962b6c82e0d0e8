//! Between the messages of XKMS and the neutral words of `model::keys`. What has no neutral form is
//! left out of a question and refused in an order.

use model::{
    api::Bytes,
    keys::{
        self, KeyExample, KeyFinding, KeyUse, UseWith,
        order::{self, KeyOperation, Prototype, SecretBytes},
    },
};
use time::OffsetDateTime;
use xkms::{
    dsig::PublicKey,
    message::{
        Binding, Counts, KeyBinding, KeyInfo, KeyInfoItem, KeyUsage, Operation,
        PrototypeKeyBinding, Reason, RespondWith, Status, UnverifiedKeyBinding, UseKeyWith,
        ValidityInterval, X509Item,
    },
    service::{AuthenticationKey, Delivery, Done, Failure, Outcome, Requester},
    xenc::RsaKeyPair,
};

use super::decimal;

/// The operation, if it is one about keys.
pub(super) const fn operation(of: Operation) -> Option<KeyOperation> {
    match of {
        Operation::Locate => Some(KeyOperation::Locate),
        Operation::Validate => Some(KeyOperation::Validate),
        Operation::Register => Some(KeyOperation::Register),
        Operation::Reissue => Some(KeyOperation::Reissue),
        Operation::Revoke => Some(KeyOperation::Revoke),
        Operation::Recover => Some(KeyOperation::Recover),
        Operation::Compound | Operation::Pending | Operation::Status => None,
    }
}

const fn operation_back(of: KeyOperation) -> Operation {
    match of {
        KeyOperation::Locate => Operation::Locate,
        KeyOperation::Validate => Operation::Validate,
        KeyOperation::Register => Operation::Register,
        KeyOperation::Reissue => Operation::Reissue,
        KeyOperation::Revoke => Operation::Revoke,
        KeyOperation::Recover => Operation::Recover,
    }
}

/// A name for logs, kebab-case.
pub(super) const fn operation_name(of: Operation) -> &'static str {
    match of {
        Operation::Locate => KeyOperation::Locate.name(),
        Operation::Validate => KeyOperation::Validate.name(),
        Operation::Register => KeyOperation::Register.name(),
        Operation::Reissue => KeyOperation::Reissue.name(),
        Operation::Revoke => KeyOperation::Revoke.name(),
        Operation::Recover => KeyOperation::Recover.name(),
        Operation::Compound => "compound",
        Operation::Pending => "pending",
        Operation::Status => "status",
    }
}

const fn key_use(of: KeyUsage) -> KeyUse {
    match of {
        KeyUsage::Encryption => KeyUse::Encryption,
        KeyUsage::Signature => KeyUse::Signature,
        KeyUsage::Exchange => KeyUse::Exchange,
    }
}

const fn key_use_back(of: &KeyUse) -> KeyUsage {
    match of {
        KeyUse::Encryption => KeyUsage::Encryption,
        KeyUse::Signature => KeyUsage::Signature,
        KeyUse::Exchange => KeyUsage::Exchange,
    }
}

fn use_with(all: &[UseKeyWith]) -> Vec<UseWith> {
    let one = |u: &UseKeyWith| UseWith {
        application: u.application.clone(),
        identifier: u.identifier.clone(),
    };
    all.iter().map(one).collect()
}

/// What `info` says of a key, as an example.
pub(super) fn example_of(info: &KeyInfo) -> KeyExample {
    let mut example = KeyExample {
        key: info.key_value().map(|key| Bytes(key.to_spki())),
        name: info.key_name().map(str::to_owned),
        certificates: info.certificates().map(|der| Bytes(der.to_vec())).collect(),
        ..KeyExample::default()
    };
    let items = info
        .items
        .iter()
        .filter_map(|item| if let KeyInfoItem::X509(items) = item { Some(items) } else { None });
    for item in items.flatten() {
        match item {
            X509Item::Crl(der) => example.crls.push(Bytes(der.clone())),
            X509Item::IssuerSerial { issuer, serial } => {
                example.issuer_serial = decimal::to_octets(serial).map(|serial| {
                    keys::IssuerSerial { issuer: issuer.clone(), serial: Bytes(serial) }
                });
            }
            X509Item::Certificate(_) | X509Item::Ski(_) | X509Item::SubjectName(_) => {}
        }
    }
    example
}

/// The binding of a request, as an example.
pub(super) fn example(binding: &Binding) -> KeyExample {
    KeyExample {
        uses: binding.usage.iter().map(|usage| key_use(*usage)).collect(),
        use_with: use_with(&binding.use_with),
        ..binding.key_info.as_ref().map(example_of).unwrap_or_default()
    }
}

/// The binding of a question, as an example.
///
/// # Errors
/// [`Failure::OptionalElement`] if it tells a key by nothing but what no key is found by here: a subject,
/// a key identifier, an address.
pub(super) fn sought(binding: &Binding) -> Result<KeyExample, Failure> {
    let example = example(binding);
    let told = binding.key_info.as_ref().is_some_and(|info| !info.items.is_empty());
    if example.is_empty() && told { Err(Failure::OptionalElement) } else { Ok(example) }
}

/// Unix milliseconds.
pub(super) fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn instant(ms: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()
}

/// What is asked for by a register order.
pub(super) fn prototype(asked: &PrototypeKeyBinding) -> Prototype {
    let info = asked.binding.key_info.as_ref();
    Prototype {
        key: info.and_then(KeyInfo::key_value).map(|key| Bytes(key.to_spki())),
        name: info.and_then(KeyInfo::key_name).map(str::to_owned),
        uses: asked.binding.usage.iter().map(|usage| key_use(*usage)).collect(),
        use_with: use_with(&asked.binding.use_with),
        not_before: asked.validity.and_then(|v| v.not_before).map(millis),
        not_on_or_after: asked.validity.and_then(|v| v.not_on_or_after).map(millis),
        revocation_code_identifier: asked.revocation_code_identifier.clone().map(Bytes),
    }
}

pub(super) fn requester(of: Requester<'_>) -> order::Requester {
    let secret = |bytes: &[u8]| SecretBytes::new(model::Secret::new(bytes.to_vec()));
    match of {
        Requester::Key(holder) => order::Requester::Key(holder.to_owned()),
        Requester::NotBound { protocol, value } => {
            order::Requester::NotBound { protocol: protocol.to_owned(), value: secret(value) }
        }
        Requester::RevocationCode(code) => order::Requester::RevocationCode(secret(code)),
    }
}

/// A key that authenticates; `None` if it is of a kind that signs no message.
pub(super) fn authentication_key(key: order::AuthenticationKey) -> Option<AuthenticationKey> {
    match key {
        order::AuthenticationKey::Public(spki) => {
            PublicKey::from_spki(&spki.0).map(AuthenticationKey::Public)
        }
        order::AuthenticationKey::Mac(secret) => Some(AuthenticationKey::Mac(secret.0)),
    }
}

/// Which parts of a key an answer shall carry.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'a> {
    kinds: &'a [RespondWith],
    crl: Option<Vec<u8>>,
}

impl<'a> Wanted<'a> {
    /// What `kinds` says; without any, name, key and certificate.
    pub(super) fn new(kinds: &'a [RespondWith], crl: Option<Vec<u8>>) -> Self {
        Self { kinds, crl }
    }

    fn wants(&self, kind: &RespondWith, default: bool) -> bool {
        if self.kinds.is_empty() { default } else { self.kinds.contains(kind) }
    }

    fn key_info(&self, mut binding: keys::KeyBinding) -> Option<KeyInfo> {
        let mut items = Vec::with_capacity(3);
        if self.wants(&RespondWith::KeyName, true) {
            items.extend(binding.name.take().map(KeyInfoItem::KeyName));
        }
        if self.wants(&RespondWith::KeyValue, true) {
            items.extend(PublicKey::from_spki(&binding.key.0).map(KeyInfoItem::KeyValue));
        }
        let chain = self.wants(&RespondWith::X509Chain, false);
        let leaf = chain || self.wants(&RespondWith::X509Cert, true);
        let count = if chain { usize::MAX } else { usize::from(leaf) };
        let certificates = binding.certificates.into_iter().take(count);
        let mut x509: Vec<X509Item> =
            certificates.map(|der| X509Item::Certificate(der.0)).collect();
        if self.wants(&RespondWith::X509Crl, false) {
            x509.extend(self.crl.clone().map(X509Item::Crl));
        }
        if !x509.is_empty() {
            items.push(KeyInfoItem::X509(x509));
        }
        (!items.is_empty()).then_some(KeyInfo { items })
    }

    fn binding(&self, mut of: keys::KeyBinding) -> (Binding, Option<ValidityInterval>) {
        let validity = ValidityInterval {
            not_before: instant(of.not_before),
            not_on_or_after: instant(of.not_on_or_after),
        };
        let one = |u: UseWith| UseKeyWith { application: u.application, identifier: u.identifier };
        let id = std::mem::take(&mut of.id);
        let usage = of.uses.iter().map(key_use_back).collect();
        let use_with = std::mem::take(&mut of.use_with).into_iter().map(one).collect();
        let binding = Binding { id: Some(id), key_info: self.key_info(of), usage, use_with };
        (binding, Some(validity))
    }

    /// An answer that vouches for nothing.
    pub(super) fn unverified(&self, of: keys::KeyBinding) -> UnverifiedKeyBinding {
        let (binding, validity) = self.binding(of);
        UnverifiedKeyBinding { binding, validity }
    }

    /// An answer with what is known.
    pub(super) fn verified(&self, mut of: keys::KeyBinding) -> KeyBinding {
        let status = of.status.take().map_or_else(Status::unknown, |status| judged(&status));
        let (binding, validity) = self.binding(of);
        KeyBinding { binding, validity, status }
    }

    /// What came of an order.
    pub(super) fn outcome(&self, of: order::KeyOutcome) -> Result<Outcome, Failure> {
        let done = match of {
            order::KeyOutcome::Later => return Ok(Outcome::Later),
            order::KeyOutcome::Done(done) => done,
        };
        let private_key = done.private_key.map(delivery).transpose()?;
        Ok(Outcome::Done(Done {
            operation: operation_back(done.operation),
            bindings: done.bindings.into_iter().map(|binding| self.verified(binding)).collect(),
            private_key,
        }))
    }
}

fn delivery(of: order::Delivery) -> Result<Delivery, Failure> {
    let key = RsaKeyPair::from_pkcs8(of.key.0.expose()).ok_or(Failure::Internal)?;
    Ok(Delivery { key, under: of.under.0, name: of.name })
}

fn judged(status: &keys::KeyStatus) -> Status {
    let keys::KeyAspects { issuer_trust, revocation_status, validity_interval, signature } =
        status.aspects;
    let all = [
        (Reason::IssuerTrust, issuer_trust),
        (Reason::RevocationStatus, revocation_status),
        (Reason::ValidityInterval, validity_interval),
        (Reason::Signature, signature),
    ];
    let those = |finding| {
        let mut reasons = Vec::new();
        reasons.extend(all.iter().filter(|(_, f)| *f == finding).map(|(r, _)| r.clone()));
        reasons
    };
    Status::judged(those(KeyFinding::Good), those(KeyFinding::Open), those(KeyFinding::Bad))
}

pub(super) fn counts(of: order::Counts) -> Counts {
    let count = |n: u32| Some(n.into());
    Counts { success: count(of.success), failure: count(of.failure), pending: count(of.pending) }
}
