//! Nonces of the two-phase protocol: nothing is stored for the first phase, and a bounded window of
//! what was used for the second.
//!
//! A nonce is `expiry (8) || random (16) || MAC (32)`; the MAC covers expiry, random, the requester
//! and the first request's Id and content. **Invariant:** memory is bounded by the capacity of the
//! window; when that is full, nonces are refused, never forgotten before they expire.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::hmac;
use model::Secret;
use thiserror::Error;
use time::{Duration, OffsetDateTime};

/// Why a nonce does not count. Alphabetical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NonceRejection {
    /// Too old.
    #[error("the nonce has expired")]
    Expired,
    /// Not given by this service to this requester for this request.
    #[error("the nonce was not given for this request")]
    Foreign,
    /// Used before.
    #[error("the nonce was used before")]
    Used,
    /// Too many nonces were used of late.
    #[error("too many requests were presented of late")]
    WindowFull,
}

impl NonceRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Expired => "nonce-expired",
            Self::Foreign => "nonce-foreign",
            Self::Used => "nonce-used",
            Self::WindowFull => "nonce-window-full",
        }
    }
}

/// What a nonce is bound to.
#[derive(Clone, Copy, Debug)]
pub struct FirstRequest<'a> {
    /// Its Id.
    pub id: &'a str,
    /// A digest of what it asks for.
    pub content: &'a [u8],
    /// Who sent it, as far as the channel says.
    pub requester: &'a [u8],
}

/// Gives nonces, and takes each back once. Many threads may use one book.
#[derive(Debug)]
pub struct NonceBook {
    key: hmac::Key,
    lifetime: Duration,
    capacity: usize,
    /// Expiry and random part of what was used.
    used: Mutex<BTreeSet<(i64, [u8; 16])>>,
}

impl NonceBook {
    /// A book whose nonces live for `lifetime`, and of which at most `capacity` are taken in that
    /// time.
    #[must_use]
    pub fn new(key: &Secret<Vec<u8>>, lifetime: Duration, capacity: usize) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        Self { key, lifetime, capacity, used: Mutex::new(BTreeSet::new()) }
    }

    /// A nonce for `first`.
    #[must_use]
    pub fn issue(
        &self,
        first: &FirstRequest<'_>,
        now: OffsetDateTime,
        random: [u8; 16],
    ) -> Vec<u8> {
        let expiry = now.saturating_add(self.lifetime).unix_timestamp().to_be_bytes();
        let mac = self.mac(&expiry, &random, first);
        [expiry.as_slice(), &random, mac.as_ref()].concat()
    }

    /// Takes a nonce that was given for `first`.
    pub fn redeem(
        &self,
        nonce: &[u8],
        first: &FirstRequest<'_>,
        now: OffsetDateTime,
    ) -> Result<(), NonceRejection> {
        let (expiry, rest) = nonce.split_first_chunk::<8>().ok_or(NonceRejection::Foreign)?;
        let (random, tag) = rest.split_first_chunk::<16>().ok_or(NonceRejection::Foreign)?;
        let text = self.text(expiry, random, first);
        hmac::verify(&self.key, &text, tag).map_err(|_| NonceRejection::Foreign)?;
        let now = now.unix_timestamp();
        let expiry = i64::from_be_bytes(*expiry);
        if expiry <= now {
            return Err(NonceRejection::Expired);
        }
        // A set that a thread left in the middle of an insertion is still a set.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while used.first().is_some_and(|(oldest, _)| *oldest < now) {
            used.pop_first();
        }
        if used.contains(&(expiry, *random)) {
            return Err(NonceRejection::Used);
        }
        if used.len() >= self.capacity {
            return Err(NonceRejection::WindowFull);
        }
        used.insert((expiry, *random));
        Ok(())
    }

    fn mac(&self, expiry: &[u8; 8], random: &[u8; 16], first: &FirstRequest<'_>) -> hmac::Tag {
        hmac::sign(&self.key, &self.text(expiry, random, first))
    }

    #[expect(clippy::unused_self, reason = "what the MAC covers belongs to the book")]
    fn text(&self, expiry: &[u8; 8], random: &[u8; 16], first: &FirstRequest<'_>) -> Vec<u8> {
        let mut text = b"vouchsafe:xkms:nonce:v1".to_vec();
        for part in [expiry.as_slice(), random, first.id.as_bytes(), first.content, first.requester]
        {
            text.extend_from_slice(&part.len().to_be_bytes());
            text.extend_from_slice(part);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: FirstRequest<'_> = FirstRequest { id: "I1", content: b"c", requester: b"r" };

    fn book(capacity: usize) -> NonceBook {
        NonceBook::new(&Secret::new(vec![1; 32]), Duration::minutes(2), capacity)
    }

    #[test]
    fn a_nonce_counts_once_for_its_own_request_and_time() {
        let book = book(10);
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(1);
        let nonce = book.issue(&FIRST, now, [1; 16]);
        for other in [
            FirstRequest { id: "I2", ..FIRST },
            FirstRequest { content: b"d", ..FIRST },
            FirstRequest { requester: b"s", ..FIRST },
            FirstRequest { id: "I", content: b"1c", requester: b"r" },
        ] {
            assert_eq!(book.redeem(&nonce, &other, now), Err(NonceRejection::Foreign));
        }
        for wrong in [&[][..], &nonce[1..], &nonce[..nonce.len() - 1]] {
            assert_eq!(book.redeem(wrong, &FIRST, now), Err(NonceRejection::Foreign));
        }
        let late = now + Duration::minutes(2);
        assert_eq!(book.redeem(&nonce, &FIRST, late), Err(NonceRejection::Expired));
        assert_eq!(book.redeem(&nonce, &FIRST, now), Ok(()));
        assert_eq!(book.redeem(&nonce, &FIRST, now), Err(NonceRejection::Used));
        assert_eq!(NonceRejection::Used.code(), "nonce-used");
    }

    #[test]
    fn the_window_is_bounded_and_forgets_only_what_expired() {
        let book = book(100);
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(1);
        let nonce = |book: &NonceBook, n: u8, now| book.issue(&FIRST, now, [n; 16]);
        for n in 0..100 {
            let nonce = nonce(&book, n, now);
            assert_eq!(book.redeem(&nonce, &FIRST, now), Ok(()));
        }
        let one_more = nonce(&book, 200, now);
        assert_eq!(book.redeem(&one_more, &FIRST, now), Err(NonceRejection::WindowFull));
        assert_eq!(book.redeem(&nonce(&book, 0, now), &FIRST, now), Err(NonceRejection::Used));
        let later = now + Duration::minutes(3);
        let fresh = nonce(&book, 201, later);
        assert_eq!(book.redeem(&fresh, &FIRST, later), Ok(()));
        assert_eq!(book.used.lock().unwrap().len(), 1);
    }
}
