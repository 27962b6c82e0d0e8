//! Pass phrases: handed out by operators, each for one order about one name.
//!
//! ```text
//! open ── used by an order, in its transaction ──► used: the same order again gets the same answer
//!   ├── its time is over ─► expired
//!   └── wrong tries ──────► exhausted
//! ```
//! The phrase is 130 random bits in base 32; only keys that derive from it are stored.

use model::{
    Secret,
    api::Bytes,
    keys::{
        KeyExample,
        admin::Authorize,
        order::{KeyOperation, SecretBytes},
    },
};
use pki::names;
use serve::random;
use store::typed::{Versioned, Write};
use xkms::passphrase::{Preparation, SharedSecret};

use super::{
    Holder, Keeper,
    record::{self, Authorization, EntryId, Used, UsedFor},
    refusal::{Fault, Refusal, Why},
    retried,
};

/// Base 32 without letters that are mistaken for others.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Characters of a phrase, five bits each, and of a group.
const CHARACTERS: usize = 26;
const GROUP: usize = 5;
/// Octets of the key that private keys are delivered under.
const DELIVERY: usize = 32;

/// A new pass phrase and the keys that derive from it.
pub(super) struct Phrase {
    pub(super) text: Secret<String>,
    pub(super) mac: Bytes,
    pub(super) delivery: Bytes,
}

impl Phrase {
    /// A random one: SASLprep and the older form leave it as it is.
    pub(super) fn random() -> Result<Self, Fault> {
        let random = random::secret::<CHARACTERS>().map_err(Fault::key)?;
        let mut text = Secret::new(String::with_capacity(CHARACTERS + CHARACTERS / GROUP));
        for (at, octet) in random.expose().iter().enumerate() {
            if at > 0 && at.is_multiple_of(GROUP) {
                text.expose_mut().push('-');
            }
            let letter = ALPHABET.get(usize::from(octet & 31)).copied().unwrap_or(b'a');
            text.expose_mut().push(char::from(letter));
        }
        let secret = SharedSecret::new(text.expose(), Preparation::Saslprep).map_err(Fault::key)?;
        Ok(Self {
            mac: Bytes(secret.authentication_key().expose().clone()),
            delivery: Bytes(secret.private_key_key(DELIVERY).expose().clone()),
            text,
        })
    }
}

/// An authorization as it was read, for the transaction that uses it up.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    pub(super) id: EntryId,
    pub(super) held: Versioned<Authorization>,
}

impl Granted {
    /// Uses it up for the order of this digest.
    pub(super) fn spend(
        &self,
        write: Write,
        order: [u8; 32],
        outcome: UsedFor,
    ) -> Result<Write, Why> {
        let mut value = self.held.value.clone();
        value.used = Some(Used { order: Bytes(order.to_vec()), outcome });
        let place = record::authorization(&value.name, self.id)?;
        Ok(write.put(place, &value, self.held.version)?)
    }

    /// What it was used for, if that was the order of this digest.
    pub(super) fn spent(&self, order: &[u8; 32]) -> Result<Option<UsedFor>, Refusal> {
        match &self.held.value.used {
            None => Ok(None),
            Some(used) if used.order.0 == order => Ok(Some(used.outcome)),
            Some(_) => Err(Refusal::AuthorizationUsed),
        }
    }
}

impl Keeper {
    /// A pass phrase for one order about one name.
    pub(super) fn authorize(&self, asked: &Authorize) -> Result<(SecretBytes, u64), Why> {
        if !self.settings.pass_phrases {
            return Err(Refusal::PassPhrasesOff.into());
        }
        check_operator(&asked.operator)?;
        check_name(Some(&asked.name))?;
        names::certified(&asked.use_with)?;
        asked.owner.as_deref().map(check_owner).transpose()?;
        let life = asked.life_s.unwrap_or(self.settings.phrase_life_s);
        let life = life.clamp(1, 30 * 86_400).saturating_mul(1000);
        let expires_at = self.now().saturating_add(life);
        let phrase = Phrase::random()?;
        let id = EntryId(random::bytes().map_err(Fault::key)?);
        let authorization = Authorization {
            name: asked.name.clone(),
            uses: asked.uses.clone(),
            use_with: asked.use_with.clone(),
            expires_at,
            tries: 0,
            mac: phrase.mac,
            delivery: phrase.delivery,
            operator: asked.operator.clone(),
            owner: asked.owner.clone(),
            used: None,
        };
        let guard = self.guard(asked.owner.as_deref())?;
        let place = record::authorization(&asked.name, id)?;
        let write = guard.owning(Write::new(), &place)?.put(place, &authorization, 0)?;
        if !self.library.commit(write)? {
            return Err(Fault::Contended.into());
        }
        let detail = format!("authorization {id}, until {expires_at}");
        let subject = format!("key:{}", asked.name);
        let actor = format!("operator:{}", asked.operator);
        self.journal.done(&actor, "key-authorized", &subject, &detail)?;
        let text = phrase.text.expose().as_bytes().to_vec();
        Ok((SecretBytes::new(Secret::new(text)), expires_at))
    }

    /// The authorization of an authenticated requester, if it is one for this name and stands. One
    /// that was used stands for the order that used it.
    pub(super) fn granted(&self, holder: Holder, name: &str) -> Result<Granted, Why> {
        let Holder::Authorization(id) = holder else {
            return Err(Refusal::AuthenticationKind.into());
        };
        let held = self.library.get(&record::authorization(name, id)?)?;
        let held = held.ok_or(Refusal::AuthorizationUnknown)?;
        if self.now() >= held.value.expires_at {
            return Err(Refusal::AuthorizationExpired.into());
        }
        if held.value.tries >= self.settings.phrase_tries {
            return Err(Refusal::AuthorizationExhausted.into());
        }
        Ok(Granted { id, held })
    }

    /// Counts a wrong try against every phrase that may have been meant, durably.
    pub(super) fn authentication_failed(
        &self,
        operation: KeyOperation,
        binding: &KeyExample,
    ) -> Result<(), Why> {
        let subject = format!("key:{}", super::subject(binding));
        let event = format!("key-{}", operation.name());
        // There was nothing to try: the keys are elsewhere, and the log says so.
        if let Err(Why::Refused(moved)) = self.authentication_keys(operation, binding) {
            return Ok(self.journal.refused("anyone", &event, &subject, moved)?);
        }
        let mut ended = Vec::new();
        match operation {
            KeyOperation::Recover => {
                for (id, _) in self.library.find(binding, 2)?.entries {
                    ended.extend(retried(|| self.count_recovery(id))?);
                }
            }
            KeyOperation::Register | KeyOperation::Reissue | KeyOperation::Revoke => {
                let name = match &binding.name {
                    Some(name) => Some(name.clone()),
                    None => {
                        let found = self.library.find(binding, 1)?.entries.into_iter().next();
                        found.map(|(_, entry)| entry.value.name)
                    }
                };
                if let Some(name) = name {
                    ended.extend(retried(|| self.count_phrases(&name))?);
                }
            }
            KeyOperation::Locate | KeyOperation::Validate => {}
        }
        self.journal.refused("anyone", &event, &subject, Refusal::AuthenticationFailed)?;
        for id in ended {
            let subject = format!("authorization:{id}");
            self.journal.refused("anyone", &event, &subject, Refusal::AuthorizationExhausted)?;
        }
        Ok(())
    }

    /// One try more for each open phrase of a name; those that ended with it.
    fn count_phrases(&self, name: &str) -> Result<Vec<EntryId>, Why> {
        let (now, most) = (self.now(), self.settings.phrase_tries);
        let (mut write, mut ended, mut some) = (Write::new(), Vec::new(), false);
        for (id, held) in self.authorizations(name)? {
            let mut value = held.value;
            if value.used.is_some() || now >= value.expires_at || value.tries >= most {
                continue;
            }
            // A phrase whose owner's keys are on their way opens nothing here meanwhile.
            let Some(guard) = self.guard_now(value.owner.as_deref())? else { continue };
            value.tries = value.tries.saturating_add(1);
            if value.tries >= most {
                ended.push(id);
            }
            write = guard.on(write).put(record::authorization(name, id)?, &value, held.version)?;
            some = true;
        }
        if some && !self.library.commit(write)? {
            return Err(Fault::Contended.into());
        }
        Ok(ended)
    }

    fn count_recovery(&self, id: EntryId) -> Result<Option<EntryId>, Why> {
        let Some(held) = self.library.get(&record::recovery(id)?)? else { return Ok(None) };
        let mut value = held.value;
        if value.mac.is_none() || value.used.is_some() || value.tries >= self.settings.phrase_tries
        {
            return Ok(None);
        }
        value.tries = value.tries.saturating_add(1);
        let ended = value.tries >= self.settings.phrase_tries;
        // So with a recovery: what is on its way is counted where it arrives.
        let owner = self.library.get(&record::entry(id)?)?.and_then(|entry| entry.value.owner);
        let Some(guard) = self.guard_now(owner.as_deref())? else { return Ok(None) };
        let write = guard.on(Write::new()).put(record::recovery(id)?, &value, held.version)?;
        if !self.library.commit(write)? {
            return Err(Fault::Contended.into());
        }
        Ok(ended.then_some(id))
    }
}

/// A key's name: 1 to 64 characters that can be shown and certified.
pub(super) fn check_name(name: Option<&str>) -> Result<&str, Refusal> {
    let name = name.ok_or(Refusal::NameInvalid)?;
    let fits = !name.trim().is_empty() && name.chars().count() <= 64;
    if fits && !name.chars().any(char::is_control) { Ok(name) } else { Err(Refusal::NameInvalid) }
}

/// An owner's name: that of a VM.
pub(super) fn check_owner(name: &str) -> Result<&str, Refusal> {
    name.parse::<model::VmId>().map(|_| name).map_err(|_| Refusal::OwnerInvalid)
}

/// An operator's name.
pub(super) fn check_operator(name: &str) -> Result<&str, Refusal> {
    check_name(Some(name)).map_err(|_| Refusal::OperatorInvalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_the_same_in_both_preparations() {
        let phrase = Phrase::random().unwrap();
        let text = phrase.text.expose();
        assert_eq!(text.len(), CHARACTERS + 5, "{text}");
        for preparation in [Preparation::Saslprep, Preparation::Legacy] {
            let secret = SharedSecret::new(text, preparation).unwrap();
            assert_eq!(secret.authentication_key().expose(), &phrase.mac.0);
        }
        assert_ne!(text, Phrase::random().unwrap().text.expose());
    }
}
