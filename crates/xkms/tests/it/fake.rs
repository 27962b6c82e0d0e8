//! A key service in memory, for the tests of the protocol: it knows one shared secret, and keeps
//! what is registered.

use std::collections::BTreeMap;

use model::{
    Secret,
    keys::{Anchor, Knowledge},
};
use xkms::{
    dsig::PublicKey,
    message::{
        Binding, Counts, KeyBinding, KeyInfo, KeyInfoItem, Operation, PrototypeKeyBinding, Reason,
        Status, UnverifiedKeyBinding,
    },
    passphrase::{SharedSecret, revocation_code_matches},
    service::{
        AuthenticationKey, Delivery, Done, Failure, Found, KeyService, Order, Outcome, Query,
        Receipt, Requester,
    },
    xenc::RsaKeyPair,
};

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) binding: KeyBinding,
    pub(crate) code: Option<Vec<u8>>,
}

/// The service.
pub(crate) struct Fake {
    pub(crate) secret: SharedSecret,
    pub(crate) entries: Vec<Entry>,
    /// Whether orders are put off until the second time they are collected.
    pub(crate) slow: bool,
    pub(crate) later: BTreeMap<String, (String, u32, Done)>,
    pub(crate) failed: u32,
    pub(crate) orders: u32,
    pub(crate) known: Option<PublicKey>,
    /// Whether what is ordered about is another service's now.
    pub(crate) elsewhere: bool,
    /// Whether no key at all may order anything.
    pub(crate) keyless: bool,
    pub(crate) escrow: Option<RsaKeyPair>,
}

impl Fake {
    pub(crate) fn new(secret: SharedSecret) -> Self {
        Self {
            secret,
            entries: Vec::new(),
            slow: false,
            later: BTreeMap::new(),
            failed: 0,
            orders: 0,
            known: None,
            elsewhere: false,
            keyless: false,
            escrow: None,
        }
    }

    fn matching(&self, binding: &Binding) -> impl Iterator<Item = &Entry> {
        let key = binding.key_info.as_ref().and_then(KeyInfo::key_value).cloned();
        let with = binding.use_with.clone();
        self.entries.iter().filter(move |entry| {
            let theirs = &entry.binding.binding;
            let same = key.as_ref().is_none_or(|key| {
                theirs.key_info.as_ref().and_then(KeyInfo::key_value) == Some(key)
            });
            same && with.iter().all(|w| theirs.use_with.contains(w))
        })
    }

    fn outcome(&mut self, order: &Order<'_>, done: Done) -> Result<Outcome, Failure> {
        self.orders += 1;
        if !self.slow {
            return Ok(Outcome::Done(done));
        }
        if !order.may_wait {
            return Err(Failure::NotSynchronous);
        }
        let Receipt { response_id, request_id } = order.receipt;
        self.later.insert(response_id.to_owned(), (request_id.to_owned(), 0, done));
        Ok(Outcome::Later)
    }

    fn find(&mut self, binding: &KeyBinding) -> Result<usize, Failure> {
        let wanted = self.matching(&binding.binding).next().ok_or(Failure::NotAuthoritative)?;
        let at = self.entries.iter().position(|entry| std::ptr::eq(entry, wanted));
        at.ok_or(Failure::Internal)
    }
}

impl KeyService for Fake {
    fn locate(&mut self, query: &Query<'_>) -> Result<Found<UnverifiedKeyBinding>, Failure> {
        if query.instant.is_some() {
            return Err(Failure::TimeInstantNotSupported);
        }
        let all = self.matching(query.binding).map(|entry| UnverifiedKeyBinding {
            binding: entry.binding.binding.clone(),
            validity: entry.binding.validity,
        });
        let mut bindings: Vec<_> = all.take(query.limit + 1).collect();
        let more = bindings.len() > query.limit;
        bindings.truncate(query.limit);
        let knowledge = Knowledge { anchor: Anchor::TrustService, as_of: 1, pki_calls: 0 };
        Ok(Found { bindings, more, knowledge: Some(knowledge) })
    }

    fn validate(&mut self, query: &Query<'_>) -> Result<Found<KeyBinding>, Failure> {
        let bindings = self.matching(query.binding).map(|entry| entry.binding.clone()).collect();
        Ok(Found { bindings, more: false, knowledge: None })
    }

    fn authentication_keys(
        &mut self,
        _: Operation,
        _: &Binding,
    ) -> Result<Vec<(String, AuthenticationKey)>, Failure> {
        if self.elsewhere {
            return Err(Failure::NotAuthoritative);
        }
        if self.keyless {
            return Ok(Vec::new());
        }
        let mut keys =
            vec![("phrase".to_owned(), AuthenticationKey::Mac(self.secret.authentication_key()))];
        keys.extend(
            self.known.clone().map(|key| ("known".to_owned(), AuthenticationKey::Public(key))),
        );
        Ok(keys)
    }

    fn authentication_failed(&mut self, _: Operation, _: &Binding) {
        self.failed += 1;
    }

    fn message_key(&mut self, _: Option<&KeyInfo>) -> Option<AuthenticationKey> {
        self.known.clone().map(AuthenticationKey::Public)
    }

    fn register(
        &mut self,
        order: &Order<'_>,
        asked: &PrototypeKeyBinding,
    ) -> Result<Outcome, Failure> {
        assert!(matches!(order.requester, Requester::Key(_) | Requester::NotBound { .. }));
        let mut binding = asked.binding.clone();
        binding.id = Some(format!("k{}", self.entries.len()));
        let info = binding.key_info.get_or_insert_default();
        info.items.insert(0, KeyInfoItem::KeyName("certified".into()));
        let status = Status::judged(Reason::ALL.to_vec(), vec![], vec![]);
        let binding = KeyBinding { binding, validity: asked.validity, status };
        self.entries.push(Entry {
            binding: binding.clone(),
            code: asked.revocation_code_identifier.clone(),
        });
        let private_key = self
            .escrow
            .clone()
            .filter(|_| order.possessed.is_none())
            .map(|key| Delivery { key, under: self.secret.private_key_key(32), name: None });
        self.outcome(
            order,
            Done { operation: Operation::Register, bindings: vec![binding], private_key },
        )
    }

    fn reissue(&mut self, order: &Order<'_>, binding: &KeyBinding) -> Result<Outcome, Failure> {
        let at = self.find(binding)?;
        let bindings = vec![self.entries[at].binding.clone()];
        self.outcome(order, Done { operation: Operation::Reissue, bindings, private_key: None })
    }

    fn revoke(&mut self, order: &Order<'_>, binding: &KeyBinding) -> Result<Outcome, Failure> {
        let at = self.find(binding)?;
        let entry = &mut self.entries[at];
        if let Requester::RevocationCode(code) = order.requester {
            let identifier = entry.code.as_deref().ok_or(Failure::Refused)?;
            if !revocation_code_matches(code, identifier) {
                return Err(Failure::NoAuthentication);
            }
        }
        entry.binding.status = Status::judged(vec![], vec![], vec![Reason::RevocationStatus]);
        let bindings = vec![entry.binding.clone()];
        self.outcome(order, Done { operation: Operation::Revoke, bindings, private_key: None })
    }

    fn recover(&mut self, order: &Order<'_>, binding: &KeyBinding) -> Result<Outcome, Failure> {
        let at = self.find(binding)?;
        let bindings = vec![self.entries[at].binding.clone()];
        let key = self.escrow.clone().ok_or(Failure::Refused)?;
        let private_key =
            Some(Delivery { key, under: self.secret.private_key_key(32), name: None });
        self.outcome(order, Done { operation: Operation::Recover, bindings, private_key })
    }

    fn collect(&mut self, receipt: &Receipt<'_>) -> Option<Result<Outcome, Failure>> {
        let (request, asked, done) = self.later.get_mut(receipt.response_id)?;
        if request != receipt.request_id {
            return None;
        }
        *asked += 1;
        if *asked < 2 {
            return Some(Ok(Outcome::Later));
        }
        let done = done.clone();
        self.later.remove(receipt.response_id);
        Some(Ok(Outcome::Done(done)))
    }

    fn progress(&mut self, receipt: &Receipt<'_>) -> Option<Counts> {
        self.later
            .get(receipt.response_id)
            .filter(|(request, ..)| request == receipt.request_id)?;
        Some(Counts { success: Some(0), failure: Some(0), pending: Some(1) })
    }
}

/// A shared secret.
pub(crate) fn phrase() -> SharedSecret {
    SharedSecret::new("correct horse battery staple", xkms::passphrase::Preparation::Saslprep)
        .unwrap()
}

/// A secret that nobody knows.
pub(crate) fn wrong() -> Secret<Vec<u8>> {
    Secret::new(vec![1; 20])
}
