//! Challenges under way. Pure: the random nonce and `now` come in.
//!
//! ```text
//! issue ─► open ─► take ─► used ─► forgotten
//!            └── life ends ─► expired ─► forgotten
//! ```
//! **Invariants:** a nonce is taken once, by the host and for the purpose it was issued to, within
//! its life. Memory is bounded: a flood of anonymous requests pushes out anonymous nonces of the
//! same host only, never those that a session asked for.
//! Deliberately absent: persistence. After a restart every nonce is unknown and hosts ask again.

use std::collections::{HashMap, VecDeque};

use attest::Challenge;
use http::StatusCode;
use model::{HostId, Nonce, api::enrol::ChallengePurpose};
use thiserror::Error;

use crate::refusal::Rejection;

/// Nonces that one shelf holds; the oldest goes first.
const PER_SHELF: usize = 32;
/// Shelves there are; the one that was least recently used goes first.
const SHELVES: usize = 16_384;

/// Whether a session asked for the nonce or anyone did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// A caller without a certificate.
    Anyone,
    /// The host itself, by its session.
    Session,
}

/// Why evidence is refused for its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum NonceRejection {
    /// Its life is over.
    #[error("the nonce has expired")]
    Expired,
    /// It was issued for another purpose.
    #[error("the nonce was issued for another purpose")]
    OtherPurpose,
    /// Not issued to this host, or forgotten.
    #[error("this nonce was not issued to this host")]
    Unknown,
    /// Evidence came with it before.
    #[error("the nonce was used before: this is a replay")]
    Used,
}

impl Rejection for NonceRejection {
    fn name(&self) -> &'static str {
        match self {
            Self::Expired => "nonce-expired",
            Self::OtherPurpose => "quote-wrong-purpose",
            Self::Unknown => "nonce-unknown",
            Self::Used => "nonce-used",
        }
    }

    fn hint(&self) -> &'static str {
        "the host asks for a new challenge and quotes again"
    }

    fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }
}

#[derive(Debug)]
struct Entry {
    nonce: Nonce,
    purpose: ChallengePurpose,
    expires_at: u64,
    used: bool,
}

#[derive(Debug, Default)]
struct Shelf {
    entries: VecDeque<Entry>,
    touched: u64,
}

/// All nonces under way.
#[derive(Debug, Default)]
pub(crate) struct NonceBook {
    shelves: HashMap<(HostId, Asker), Shelf>,
}

impl NonceBook {
    /// Puts a new nonce on the host's shelf.
    pub(crate) fn issue(
        &mut self,
        host: &HostId,
        asker: Asker,
        purpose: ChallengePurpose,
        nonce: Nonce,
        expires_at: u64,
        now: u64,
    ) {
        let key = (host.clone(), asker);
        if !self.shelves.contains_key(&key) && self.shelves.len() >= SHELVES {
            self.drop_least_recent();
        }
        let shelf = self.shelves.entry(key).or_default();
        shelf.touched = now;
        if shelf.entries.len() >= PER_SHELF {
            shelf.entries.pop_front();
        }
        shelf.entries.push_back(Entry { nonce, purpose, expires_at, used: false });
    }

    /// Takes a nonce. Whatever the answer is, the nonce is spent.
    ///
    /// # Errors
    /// [`NonceRejection`] says why the evidence that came with it is refused.
    pub(crate) fn take(
        &mut self,
        host: &HostId,
        nonce: &Nonce,
        purpose: ChallengePurpose,
        now: u64,
    ) -> Result<Challenge, NonceRejection> {
        let shelves = [Asker::Session, Asker::Anyone].map(|asker| (host.clone(), asker));
        for key in shelves {
            let Some(shelf) = self.shelves.get_mut(&key) else { continue };
            let Some(entry) = shelf.entries.iter_mut().find(|e| e.nonce == *nonce) else {
                continue;
            };
            let used = std::mem::replace(&mut entry.used, true);
            if used {
                return Err(NonceRejection::Used);
            }
            if now >= entry.expires_at {
                return Err(NonceRejection::Expired);
            }
            if entry.purpose != purpose {
                return Err(NonceRejection::OtherPurpose);
            }
            return Ok(Challenge { nonce: *nonce, expires_at: entry.expires_at });
        }
        Err(NonceRejection::Unknown)
    }

    fn drop_least_recent(&mut self) {
        let oldest = self.shelves.iter().min_by_key(|(_, shelf)| shelf.touched);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.shelves.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostId {
        name.parse().unwrap()
    }

    #[test]
    fn a_nonce_serves_once_for_its_host_and_purpose_within_its_life() {
        use ChallengePurpose::{GuestAttest, HostAttest};
        let mut book = NonceBook::default();
        for n in 0..4 {
            book.issue(&host("a"), Asker::Anyone, HostAttest, Nonce([n; 32]), 100, 0);
        }
        let mut take =
            |h: &str, n: u8, purpose, now| book.take(&host(h), &Nonce([n; 32]), purpose, now);
        assert_eq!(take("b", 0, HostAttest, 1), Err(NonceRejection::Unknown));
        assert_eq!(take("a", 9, HostAttest, 1), Err(NonceRejection::Unknown));
        assert_eq!(take("a", 0, HostAttest, 1).map(|c| c.expires_at), Ok(100));
        assert_eq!(take("a", 0, HostAttest, 1), Err(NonceRejection::Used));
        assert_eq!(take("a", 1, GuestAttest, 1), Err(NonceRejection::OtherPurpose));
        assert_eq!(take("a", 1, HostAttest, 1), Err(NonceRejection::Used));
        assert_eq!(take("a", 2, HostAttest, 100), Err(NonceRejection::Expired));
    }

    #[test]
    fn a_flood_of_anonymous_requests_is_bounded_and_spares_the_session() {
        let mut book = NonceBook::default();
        let purpose = ChallengePurpose::HostAttest;
        book.issue(&host("a"), Asker::Session, purpose, Nonce([255; 32]), 100, 0);
        for n in 0..1000_u32 {
            let mut nonce = [0; 32];
            nonce[..4].copy_from_slice(&n.to_be_bytes());
            book.issue(&host("a"), Asker::Anyone, purpose, Nonce(nonce), 100, 0);
        }
        assert!(book.shelves.values().all(|shelf| shelf.entries.len() <= PER_SHELF));
        assert!(book.take(&host("a"), &Nonce([255; 32]), purpose, 1).is_ok());
    }

    #[test]
    fn the_number_of_shelves_is_bounded() {
        let mut book = NonceBook::default();
        for n in 0..SHELVES + 3 {
            let name = host(&format!("h{n}"));
            let now = u64::try_from(n).unwrap();
            let purpose = ChallengePurpose::HostAttest;
            book.issue(&name, Asker::Anyone, purpose, Nonce([0; 32]), u64::MAX, now);
        }
        assert_eq!(book.shelves.len(), SHELVES);
    }
}
