//! What may run in a guest: the client at its place, and other programs, by digest. Everything that
//! IMA measured before the quote must be one or the other.

use model::{Digest, HashAlg};

use super::ChannelRejection;
use crate::ima::ImaEntry;

/// IMA's own first entry, which the boot's appraisal predicts.
const BOOT_AGGREGATE: &[u8] = b"boot_aggregate";

/// Which programs may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftwarePolicy {
    /// Where the client is in the guest.
    pub client_path: String,
    /// SHA-256 of approved clients.
    pub clients: Vec<Digest>,
    /// SHA-256 of everything else that may run: programs, libraries, kernel modules.
    pub software: Vec<Digest>,
}

impl SoftwarePolicy {
    /// Judges all entries; the client's digest.
    pub(super) fn check(&self, entries: &[ImaEntry<'_>]) -> Result<Digest, ChannelRejection> {
        let mut client = None;
        for (index, entry) in entries.iter().enumerate() {
            if index == 0 && entry.path == BOOT_AGGREGATE {
                continue;
            }
            let digest = entry.digest().filter(|digest| {
                !entry.violation
                    && digest.alg() == HashAlg::Sha256
                    && *digest != Digest::zero(HashAlg::Sha256)
            });
            if entry.path == self.client_path.as_bytes() {
                let approved = digest.filter(|digest| self.clients.contains(digest));
                let tampered = ChannelRejection::ClientTampered { found: digest };
                client = Some(approved.ok_or(tampered)?);
                continue;
            }
            let known = digest.is_some_and(|digest| {
                self.software.contains(&digest) || self.clients.contains(&digest)
            });
            if !known {
                let found = digest.map_or_else(
                    || "it was written to while it was measured".to_owned(),
                    |digest| digest.to_string(),
                );
                return Err(ChannelRejection::SoftwareUnknown { path: entry.description(), found });
            }
        }
        client.ok_or(ChannelRejection::ClientTampered { found: None })
    }
}
