//! Grades: one owner may hold several identities, each a key name, of different grade.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The grades of one owner's identities, and what lower ones may ask about higher ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grades {
    /// Whose: a VM's name.
    pub owner: String,
    /// Key names above grade 0, with their grades.
    pub names: BTreeMap<String, u8>,
    /// What is allowed besides.
    pub allowed: Vec<Allowance>,
}

/// That identities of a lower grade may ask about keys of a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// Who asks must have this grade at least; 0: anyone, also without a key of the owner.
    pub from: u8,
    /// The highest grade that may be asked about.
    pub to: u8,
    /// Whether keys may be located.
    pub locate: bool,
    /// Whether keys may be validated.
    pub validate: bool,
}

impl Grades {
    /// Nothing was set of this owner.
    #[must_use]
    pub fn none(owner: &str) -> Self {
        Self { owner: owner.to_owned(), ..Self::default() }
    }

    /// The grade of a key name.
    #[must_use]
    pub fn of(&self, name: &str) -> u8 {
        self.names.get(name).copied().unwrap_or(0)
    }

    /// Whether an identity of grade `asker` may ask about a key of this name; `validate`: also what
    /// is known of it.
    #[must_use]
    pub fn allow(&self, asker: u8, name: &str, validate: bool) -> bool {
        let grade = self.of(name);
        let allows = |one: &Allowance| {
            let kind = if validate { one.validate } else { one.locate };
            kind && one.from <= asker && grade <= one.to
        };
        asker >= grade || self.allowed.iter().any(allows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_upwards_unless_it_was_allowed() {
        let mut grades = Grades::none("v1");
        assert!(grades.allow(0, "web", true));
        grades.names.insert("bank".to_owned(), 3);
        for asker in 0..6 {
            assert_eq!(grades.allow(asker, "bank", true), asker >= 3);
        }
        grades.allowed.push(Allowance { from: 1, to: 3, locate: false, validate: true });
        assert!(!grades.allow(0, "bank", true));
        assert!(grades.allow(1, "bank", true));
        assert!(!grades.allow(1, "bank", false));
        grades.names.insert("root".to_owned(), 4);
        assert!(!grades.allow(2, "root", true));
    }
}
