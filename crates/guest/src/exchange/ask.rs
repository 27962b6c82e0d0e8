//! What an application asks and is answered: orders, and questions with the marks by which a key is
//! looked for and as whom it is asked.

use std::path::{Path, PathBuf};

use model::{
    VmId,
    keys::{KeyUse, UseWith},
};
use serde::{Deserialize, Serialize};
use xkms::{
    dsig::PublicKey,
    message::{Binding, KeyInfo, KeyInfoItem, KeyUsage, QueryKeyBinding, UseKeyWith, X509Item},
};

use super::ExchangeError;
use crate::{
    algorithms::{blocks, from_pem},
    config::read_bounded,
    messages::Read,
};

/// Longest file with a key or certificates, bytes.
const BROUGHT: u64 = 64 << 10;

/// What an application asks. Secrets are in files: they stand in no argument and no message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Prove the VM, and nothing else.
    Attest {},
    /// Which keys fit?
    Locate(Question),
    /// Which keys fit, and what is known of them?
    Validate(Question),
    /// Bind a key to a name.
    Register {
        /// The name.
        name: String,
        /// File with the one-time pass phrase.
        phrase_file: PathBuf,
        /// The key's file; made if it is not there. Or where the key is put that the service makes.
        key_file: PathBuf,
        /// Whether the service is to make the key.
        #[serde(default)]
        generate: bool,
        /// What it is for; none: signing.
        #[serde(default)]
        uses: Vec<KeyUse>,
        /// With which applications, under which names.
        #[serde(default)]
        use_with: Vec<UseWith>,
    },
    /// A new certificate for a key.
    Reissue {
        /// Its name.
        name: String,
        /// Its file.
        key_file: PathBuf,
    },
    /// End a binding: by the key, or by the pass phrase that it was registered with.
    Revoke {
        /// Its name.
        name: String,
        /// The key's file.
        #[serde(default)]
        key_file: Option<PathBuf>,
        /// File with the pass phrase.
        #[serde(default)]
        phrase_file: Option<PathBuf>,
    },
    /// Have a private key back.
    Recover {
        /// Its name.
        name: String,
        /// File with the phrase that two operators' approval gave.
        phrase_file: PathBuf,
        /// Where the key is put; must not be there.
        key_file: PathBuf,
    },
}

/// What an application is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The proof was accepted.
    Admitted {
        /// As which VM.
        vm: VmId,
        /// Until when, Unix milliseconds.
        until: u64,
    },
    /// An answer of the service.
    Answer(Read),
    /// A rule said no, here or there.
    Refused {
        /// Its name.
        refused: String,
        /// In words.
        detail: String,
    },
    /// The service does not serve now, by what is seen or said on the port before TLS: nothing is
    /// proven by it. Ask again later.
    NotNow {
        /// Its name.
        seen: String,
        /// In words.
        detail: String,
    },
    /// It could not be done.
    Failed {
        /// In words.
        detail: String,
    },
}

/// Which keys are asked about; all that is given must fit, and something must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// The key's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// File with the public key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// File with its certificate (PEM); others that follow may help to validate it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Uses, all of which it must allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<KeyUse>,
    /// Applications and names, all of which it must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub use_with: Vec<UseWith>,
    /// File of the key that the question is signed with: it is then asked as the identity which that
    /// key is bound to, and answered as its grade allows.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub asker: Option<PathBuf>,
}

impl Question {
    /// About a name, as nobody in particular.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::default() }
    }

    /// The question as a message has it.
    pub(super) fn body(&self) -> Result<QueryKeyBinding, ExchangeError> {
        let mut items: Vec<_> = self.name.iter().cloned().map(KeyInfoItem::KeyName).collect();
        if let Some(path) = &self.key {
            items.push(KeyInfoItem::KeyValue(public_key(path)?));
        }
        if let Some(path) = &self.certificate {
            items.push(KeyInfoItem::X509(certificates(path)?));
        }
        if items.is_empty() && self.use_with.is_empty() {
            return Err(ExchangeError::Missing("a name, key, certificate or use must be given"));
        }
        let binding = Binding {
            id: None,
            key_info: (!items.is_empty()).then_some(KeyInfo { items }),
            usage: usages(&self.uses),
            use_with: used_with(&self.use_with),
        };
        Ok(QueryKeyBinding { binding, time: None })
    }
}

fn public_key(path: &Path) -> Result<PublicKey, ExchangeError> {
    let text = read_bounded(path, BROUGHT)?;
    let key = from_pem(&text).and_then(|der| PublicKey::from_spki(&der));
    key.ok_or(ExchangeError::Missing("the file holds no public key (PEM) that can be asked about"))
}

fn certificates(path: &Path) -> Result<Vec<X509Item>, ExchangeError> {
    let all = blocks(&read_bounded(path, BROUGHT)?);
    if all.is_empty() {
        return Err(ExchangeError::Missing("the file holds no certificate (PEM)"));
    }
    Ok(all.iter().map(|der| X509Item::Certificate(der.to_vec())).collect())
}

/// Uses in the protocol's words.
pub(crate) fn usages(uses: &[KeyUse]) -> Vec<KeyUsage> {
    let usage = |one: &KeyUse| match one {
        KeyUse::Encryption => KeyUsage::Encryption,
        KeyUse::Exchange => KeyUsage::Exchange,
        KeyUse::Signature => KeyUsage::Signature,
    };
    uses.iter().map(usage).collect()
}

/// Applications and names in the protocol's form.
pub(crate) fn used_with(all: &[UseWith]) -> Vec<UseKeyWith> {
    let one = |UseWith { application, identifier }: &UseWith| UseKeyWith {
        application: application.clone(),
        identifier: identifier.clone(),
    };
    all.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_about_nothing_is_none() {
        assert!(matches!(Question::default().body(), Err(ExchangeError::Missing(_))));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, "no PEM").unwrap();
        for question in [
            Question { key: Some(path.clone()), ..Question::default() },
            Question { certificate: Some(path), ..Question::default() },
        ] {
            assert!(matches!(question.body(), Err(ExchangeError::Missing(_))));
        }
    }

    #[test]
    fn all_that_is_given_stands_in_the_question() {
        let web = UseWith { application: "urn:x".to_owned(), identifier: "web".to_owned() };
        let question = Question {
            uses: vec![KeyUse::Encryption],
            use_with: vec![web],
            ..Question::named("alice")
        };
        let binding = question.body().unwrap().binding;
        assert_eq!(binding.key_info.unwrap().key_name(), Some("alice"));
        assert_eq!(binding.usage, [KeyUsage::Encryption]);
        assert_eq!(binding.use_with[0].identifier, "web");
        let text = serde_json::to_string(&question).unwrap();
        assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
        assert!(serde_json::from_str::<Question>(r#"{"nam": "x"}"#).is_err());
    }
}
