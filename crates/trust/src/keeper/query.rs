//! Questions: which keys are like an example, what is known of them, and with which keys an order
//! about them may be authenticated. Reads only.

use model::Secret;
use model::api::Bytes;
use model::keys::{
    Found, KeyExample, KeyUse, Knowledge, Query, StatusValue,
    order::{AuthenticationKey, KeyFailure, KeyOperation, NamedKey, SecretBytes},
    rpc::{KeyAnswer, KeyRequest},
};
use time::OffsetDateTime;

use super::{
    Holder, Keeper,
    grade::MAX_OF_KEY,
    library::Hits,
    record::{self, Authorization, Entry, EntryId},
    refusal::{Refusal, Why},
    status,
};
use store::{typed::Versioned, wait};

/// Most bindings in an answer.
const MAX_ANSWERS: usize = 64;
/// Keys that may authenticate one order.
const MAX_KEYS: usize = 4;
/// Authorizations of one name that are looked at.
pub(super) const MAX_AUTHORIZATIONS: usize = 16;

impl Keeper {
    /// The answer to a question, with an audit entry if a rule says no. `signer`: the key that signed
    /// it, if one did.
    pub(super) fn question(
        &self,
        operation: KeyOperation,
        query: &Query,
        signer: Option<&Bytes>,
    ) -> Result<KeyAnswer, Why> {
        let found = if operation == KeyOperation::Locate {
            self.locate(query, signer)
        } else {
            self.validate(query, signer)
        };
        let noted = || {
            let by = signer.map(|key| format!("key:{}", record::short_digest(&[&key.0])));
            let event = format!("key-{}", operation.name());
            let subject = format!("key:{}", super::subject(&query.binding));
            (by.unwrap_or_else(|| "anyone".to_owned()), event, subject)
        };
        match &found {
            Ok(found) => {
                let status = found.bindings.iter().filter_map(|one| one.status.as_ref());
                for wrong in status.filter_map(|status| status.refusal.as_deref()) {
                    let (by, event, subject) = noted();
                    self.journal.judged(&by, &event, &subject, wrong)?;
                }
            }
            Err(Why::Refused(refusal)) => {
                let (by, event, subject) = noted();
                self.journal.refused(&by, &event, &subject, *refusal)?;
            }
            Err(Why::Fault(_)) => {}
        }
        found.map(KeyAnswer::Found)
    }

    /// The same, in a signed message.
    pub(super) fn signed(&self, signer: &Bytes, question: KeyRequest) -> Result<KeyAnswer, Why> {
        if let KeyRequest::Locate(query) = &question {
            self.question(KeyOperation::Locate, query, Some(signer))
        } else if let KeyRequest::Validate(query) = &question {
            self.question(KeyOperation::Validate, query, Some(signer))
        } else {
            Ok(KeyAnswer::Failed(KeyFailure::NotSupported))
        }
    }

    /// Keys like this one that are in force; nothing is said of them.
    fn locate(&self, query: &Query, signer: Option<&Bytes>) -> Result<Found, Why> {
        let instant = self.instant(query)?;
        let found = self.library.find(&query.binding, limit(query))?;
        self.check_grades(&found, signer, false)?;
        if let Some(found) = self.elsewhere(query, instant, (&found, false))? {
            return self.graded(found, signer, false);
        }
        let moment = u64::try_from(instant).unwrap_or(0);
        let in_force = |entry: &Entry| {
            let inside = entry.not_before <= instant && instant < entry.not_on_or_after;
            inside && entry.revoked_at.is_none_or(|at| at > moment)
        };
        let all = found.entries.into_iter().filter(|(_, entry)| in_force(&entry.value));
        let ca = self.ca_certificate();
        let bindings = all.map(|(id, entry)| status::answered(id, entry.value, ca, None));
        let knowledge = Some(self.own_knowledge());
        Ok(Found { bindings: bindings.collect(), more: found.more, knowledge })
    }

    /// Keys like this one and what is known of them.
    fn validate(&self, query: &Query, signer: Option<&Bytes>) -> Result<Found, Why> {
        let instant = self.instant(query)?;
        let found = self.library.find(&query.binding, limit(query))?;
        self.check_grades(&found, signer, true)?;
        if let Some(found) = self.elsewhere(query, instant, (&found, true))? {
            return self.graded(found, signer, true);
        }
        let (now, ca) = (self.now(), self.ca_certificate());
        let until = self.issuer.knowledge(now).until;
        let bindings = found.entries.into_iter().map(|(id, entry)| {
            let known = status::of_entry(&entry.value, instant, now, until);
            status::answered(id, entry.value, ca, Some(known))
        });
        let knowledge = Some(self.own_knowledge());
        Ok(Found { bindings: bindings.collect(), more: found.more, knowledge })
    }

    /// What came from elsewhere may be about keys of the library all the same: their grades count.
    fn graded(&self, found: Found, signer: Option<&Bytes>, validate: bool) -> Result<Found, Why> {
        for one in &found.bindings {
            let example = KeyExample { key: Some(one.key.clone()), ..KeyExample::default() };
            let known = self.library.find(&example, MAX_OF_KEY)?;
            self.check_grades(&known, signer, validate)?;
        }
        Ok(found)
    }

    /// The answer, if it does not come from the library: of the centre, or our own judgement of a
    /// certificate of others.
    fn elsewhere(
        &self,
        query: &Query,
        instant: i64,
        (found, validate): (&Hits, bool),
    ) -> Result<Option<Found>, Why> {
        let brought = !query.binding.certificates.is_empty();
        let Some(line) = self.issuer.line() else {
            let foreign = found.entries.is_empty() && brought;
            return foreign.then(|| self.foreign(query, instant, validate)).transpose();
        };
        if !found.entries.is_empty() && !line.relays() {
            line.answered_here();
            return Ok(None);
        }
        let limit = u32::try_from(limit(query)).unwrap_or(u32::MAX);
        match line.forward(&Query { limit, ..query.clone() }, validate) {
            Ok(found) => Ok(Some(found)),
            // What it says of itself can be judged without the centre; of its revocation nothing.
            Err(Refusal::CentreAway) if brought && !line.relays() => {
                self.foreign(query, instant, validate).map(Some)
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn own_knowledge(&self) -> Knowledge {
        Knowledge::own(self.issuer.knowledge(self.now()).as_of)
    }

    fn foreign(&self, query: &Query, instant: i64, wanted: bool) -> Result<Found, Why> {
        let at = OffsetDateTime::from_unix_timestamp(instant.div_euclid(1000))
            .map_err(|_| Refusal::InstantBeforeService)?;
        let mut knowledge = self.own_knowledge();
        let judged = self.foreign.judge(&query.binding, at, wanted)?;
        let bindings = judged.map(|judged| {
            knowledge.anchor = judged.anchor;
            judged.binding
        });
        let bindings = bindings.into_iter().collect();
        Ok(Found { bindings, more: false, knowledge: Some(knowledge) })
    }

    /// The instant asked about: the library knows nothing of what was before the CA.
    fn instant(&self, query: &Query) -> Result<i64, Refusal> {
        let now = i64::try_from(self.now()).unwrap_or(i64::MAX);
        let began = pki::binding::millis(self.issuer.began());
        match query.instant {
            Some(instant) if instant < began => Err(Refusal::InstantBeforeService),
            Some(instant) => Ok(instant),
            None => Ok(now),
        }
    }

    /// The keys that may authenticate an order, at most four.
    pub(super) fn authentication_keys(
        &self,
        operation: KeyOperation,
        binding: &KeyExample,
    ) -> Result<Vec<NamedKey>, Why> {
        let mut keys = Vec::new();
        match operation {
            KeyOperation::Register => {
                if let Some(name) = &binding.name {
                    keys.extend(self.phrases(name)?);
                }
            }
            KeyOperation::Reissue | KeyOperation::Revoke => {
                let found = self.library.find(binding, 2)?.entries;
                for (id, entry) in &found {
                    if entry.value.uses.contains(&KeyUse::Signature) {
                        let key = AuthenticationKey::Public(entry.value.key.clone());
                        keys.push(NamedKey { holder: Holder::Binding(*id).text(), key });
                    }
                }
                if let Some((_, entry)) = found.first() {
                    keys.extend(self.phrases(&entry.value.name)?);
                }
            }
            KeyOperation::Recover => {
                for (id, _) in self.library.find(binding, 2)?.entries {
                    keys.extend(self.recovery_key(id)?);
                }
            }
            KeyOperation::Locate | KeyOperation::Validate => {}
        }
        if keys.is_empty() {
            self.moved_away(binding)?;
        }
        keys.truncate(MAX_KEYS);
        Ok(keys)
    }

    fn phrases(&self, name: &str) -> Result<impl Iterator<Item = NamedKey> + use<>, Why> {
        let now = self.now();
        let tries = self.settings.phrase_tries;
        let all = self.authorizations(name)?.into_iter();
        let open = all.filter(move |(_, one)| {
            let one = &one.value;
            now < one.expires_at && one.tries < tries
        });
        Ok(open.map(|(id, one)| NamedKey {
            holder: Holder::Authorization(id).text(),
            key: mac(one.value.mac.0),
        }))
    }

    fn recovery_key(&self, id: EntryId) -> Result<Option<NamedKey>, Why> {
        let recovery = self.library.get(&record::recovery(id)?)?.map(|known| known.value);
        let open = recovery.filter(|recovery| {
            self.now() < recovery.expires_at && recovery.tries < self.settings.phrase_tries
        });
        let holder = Holder::Recovery(id).text();
        Ok(open.and_then(|one| one.mac).map(|key| NamedKey { holder, key: mac(key.0) }))
    }

    /// Authorizations of a name, used ones too.
    pub(super) fn authorizations(
        &self,
        name: &str,
    ) -> Result<Vec<(EntryId, Versioned<Authorization>)>, Why> {
        let prefix = record::authorizations(name);
        let records = self.library.records();
        let (page, _) = wait(records.page::<Authorization>(&prefix, None, MAX_AUTHORIZATIONS))?;
        let id = |key: &store::Key| EntryId::from_hex(key.as_str().get(prefix.len()..)?);
        let all = page.into_iter().filter_map(|(key, one)| id(&key).map(|id| (id, one)));
        Ok(all.collect())
    }

    /// The key of whoever signed a whole message: that of a binding in force that may sign.
    pub(super) fn message_key(&self, hint: &KeyExample) -> Result<Option<AuthenticationKey>, Why> {
        if hint.is_empty() {
            return Ok(None);
        }
        let found = self.library.find(hint, MAX_KEYS)?;
        let mut all = found.entries.into_iter().map(|(_, entry)| entry.value);
        let good = all.find(|entry| self.signs_now(entry));
        Ok(good.map(|entry| AuthenticationKey::Public(entry.key)))
    }

    /// Whether a binding is in force and its key may sign.
    pub(super) fn signs_now(&self, entry: &Entry) -> bool {
        let now = self.now();
        let until = self.issuer.knowledge(now).until;
        let instant = i64::try_from(now).unwrap_or(i64::MAX);
        let status = status::of_entry(entry, instant, now, until);
        status.value == StatusValue::Valid && entry.uses.contains(&KeyUse::Signature)
    }
}

fn limit(query: &Query) -> usize {
    usize::try_from(query.limit).unwrap_or(MAX_ANSWERS).clamp(1, MAX_ANSWERS)
}

fn mac(key: Vec<u8>) -> AuthenticationKey {
    AuthenticationKey::Mac(SecretBytes::new(Secret::new(key)))
}
