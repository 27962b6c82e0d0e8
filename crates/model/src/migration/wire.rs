//! What two trust services say to each other: one statement each way in every exchange, signed by
//! the key of its sender's passport.
//!
//! `POST /v1/migrations` takes a [`Signed`] of the source and answers one of the target, or a
//! problem with the name of a [`super::Rejection`].

use serde::{Deserialize, Serialize};

use crate::{
    Digest, HostId, MigrationId,
    api::{Bytes, duplication::StorageParent},
};

/// A statement with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// [`Statement`], JSON: the very bytes that were signed.
    pub statement: Bytes,
    /// ECDSA P-256 with SHA-256 over [`Signed::covered`], DER, by the key of the passport.
    pub signature: Bytes,
    /// The sender's passport, DER.
    pub passport: Bytes,
}

impl Signed {
    /// What a signature covers: a tag, so that it never serves for anything else, and the bytes.
    #[must_use]
    pub fn covered(statement: &[u8]) -> Vec<u8> {
        [b"vouchsafe:key-migration:statement:v1\0".as_slice(), statement].concat()
    }
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Which migration.
    pub id: MigrationId,
    /// Whose keys: a VM's name.
    pub owner: String,
    /// The epoch of the keys at the target.
    pub epoch: u64,
    /// The host whose trust service has them.
    pub source: HostId,
    /// The host whose trust service is to have them.
    pub target: HostId,
    /// The verdict that the sender's passport rests on.
    pub verdict: Digest,
    /// What.
    pub body: Body,
}

/// What a statement says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Body {
    /// Source: keys are to come.
    Offer,
    /// Source: the keys, sealed to the target's key (HPKE, RFC 9180) with [`info`].
    Parcel {
        /// The encapsulated key.
        enc: Bytes,
        /// The sealed content.
        ciphertext: Bytes,
    },
    /// Source: they are yours, and mine no more.
    Activate,
    /// Source: they stay mine.
    Discard,
    /// Target: seal them to this.
    Ready {
        /// An HPKE public key that was made for this migration.
        key: Bytes,
        /// Where a key that lives in the source's TPM may come to, if this host has such a place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<StorageParent>,
    },
    /// Target: they are stored, inactive.
    Receipt {
        /// SHA-256 of the content.
        content: Digest,
    },
    /// Target: they are answered for.
    Activated,
    /// Target: there is nothing of them.
    Discarded,
}

/// What the parcel's encryption is bound to: migration, owner, epoch, both hosts and both verdicts.
#[must_use]
pub fn info(of: &Statement, source_verdict: &Digest, target_verdict: &Digest) -> Vec<u8> {
    let parts = (
        "vouchsafe:key-migration:parcel:v1",
        (&of.id, &of.owner, of.epoch),
        (&of.source, source_verdict),
        (&of.target, target_verdict),
    );
    serde_json::to_vec(&parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_of_a_migration_changes_what_its_parcel_is_bound_to() {
        let of = Statement {
            id: MigrationId([1; 16]),
            owner: "v1".to_owned(),
            epoch: 2,
            source: "a".parse().unwrap(),
            target: "b".parse().unwrap(),
            verdict: Digest::sha256([3; 32]),
            body: Body::Offer,
        };
        let (a, b) = (Digest::sha256([4; 32]), Digest::sha256([5; 32]));
        let plain = info(&of, &a, &b);
        let altered = [
            info(&Statement { id: MigrationId([9; 16]), ..of.clone() }, &a, &b),
            info(&Statement { owner: "v2".to_owned(), ..of.clone() }, &a, &b),
            info(&Statement { epoch: 3, ..of.clone() }, &a, &b),
            info(&Statement { source: "c".parse().unwrap(), ..of.clone() }, &a, &b),
            info(&Statement { target: "c".parse().unwrap(), ..of.clone() }, &a, &b),
            info(&of, &b, &a),
        ];
        assert!(altered.iter().all(|other| *other != plain));
        assert_ne!(Signed::covered(b"x"), b"x");
    }
}
