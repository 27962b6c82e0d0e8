//! Questions that the library has no answer to: asked of the centre, each example once at a time,
//! and remembered for a bounded time, that there is nothing too.

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{
    api::Bytes,
    centre::CentreQuestion,
    keys::{Found, KeyExample, Query},
};

use super::{CentreError, Line, held};
use crate::keeper::{record::long_digest, refusal::Refusal, settings::AtCentre};

/// Answers that are remembered.
const MAX_KEPT: usize = 4096;
/// How long one waits for another's question about the same.
const FLIGHT: Duration = Duration::from_secs(10);

/// What is asked, as one value.
type Asked = [u8; 32];

/// An answer that is remembered.
#[derive(Debug)]
struct Kept {
    example: KeyExample,
    found: Found,
    until: Duration,
}

/// A question that is on its way.
#[derive(Debug, Default)]
struct Flight {
    landed: Mutex<Option<Result<Found, Refusal>>>,
    ready: Condvar,
}

/// Questions on their way, answers that are remembered, and how many there were.
#[derive(Debug)]
pub(super) struct Forwarded {
    at_once: usize,
    flights: Mutex<(usize, HashMap<Asked, Arc<Flight>>)>,
    kept: Mutex<HashMap<Asked, Kept>>,
    local: AtomicU64,
    cached: AtomicU64,
    forwarded: AtomicU64,
}

impl Forwarded {
    pub(super) fn new(at: &AtCentre) -> Self {
        Self {
            at_once: at.questions_at_once,
            flights: Mutex::default(),
            kept: Mutex::default(),
            local: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
        }
    }

    pub(super) fn count_local(&self) {
        self.local.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers from the library, from memory, and of the centre.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.local), read(&self.cached), read(&self.forwarded))
    }

    fn remembered(&self, asked: &Asked, now: Duration) -> Option<Found> {
        let mut found = held(&self.kept).get(asked).filter(|one| now < one.until)?.found.clone();
        if let Some(knowledge) = &mut found.knowledge {
            knowledge.pki_calls = 0;
        }
        self.cached.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    fn remember(&self, asked: Asked, one: Kept, now: Duration) {
        let mut kept = held(&self.kept);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, one| now < one.until);
        }
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(asked, one);
    }

    /// Forgets what a new certificate of this name may change.
    pub(super) fn bound(&self, name: Option<&str>) {
        // An example without a name may be like any key; one with a name only like its own.
        held(&self.kept)
            .retain(|_, one| one.example.name.as_deref().is_some_and(|n| Some(n) != name));
    }

    /// Forgets what was said of a certificate.
    pub(super) fn revoked(&self, certificate: &Bytes) {
        held(&self.kept).retain(|_, one| {
            let leaf = |binding: &model::keys::KeyBinding| binding.certificates.first().cloned();
            !one.found.bindings.iter().any(|binding| leaf(binding).as_ref() == Some(certificate))
        });
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        held(&self.kept).clear();
    }
}

impl Line {
    /// The centre's answer, or the one it gave a moment ago.
    ///
    /// # Errors
    /// [`Refusal::CentreAway`], [`Refusal::CentreBusy`], [`Refusal::CentreRefused`].
    pub(in crate::keeper) fn forward(
        &self,
        query: &Query,
        validate: bool,
    ) -> Result<Found, Refusal> {
        let json = serde_json::to_vec(query).unwrap_or_default();
        let asked = long_digest(&[&json, &[u8::from(validate)]]);
        let forwarded = &self.forwarded;
        let keeps = query.instant.is_none() && !self.relays();
        if keeps && let Some(found) = forwarded.remembered(&asked, self.clock.monotonic()) {
            return Ok(found);
        }
        let (flight, first) = {
            let mut flights = held(&forwarded.flights);
            if flights.0 >= forwarded.at_once {
                return Err(Refusal::CentreBusy);
            }
            flights.0 = flights.0.saturating_add(1);
            match flights.1.get(&asked) {
                Some(flight) => (Arc::clone(flight), false),
                None => {
                    let flight = Arc::new(Flight::default());
                    flights.1.insert(asked, Arc::clone(&flight));
                    (flight, true)
                }
            }
        };
        let answer = if first {
            let answer = self.ask_centre(query, validate);
            *held(&flight.landed) = Some(answer.clone());
            flight.ready.notify_all();
            held(&forwarded.flights).1.remove(&asked);
            if keeps && let Ok(found) = &answer {
                self.keep(asked, query, found);
            }
            answer
        } else {
            let landed = held(&flight.landed);
            let waited = flight.ready.wait_timeout_while(landed, FLIGHT, |one| one.is_none());
            let landed = waited.unwrap_or_else(PoisonError::into_inner).0.clone();
            landed.unwrap_or(Err(Refusal::CentreAway))
        };
        let mut flights = held(&forwarded.flights);
        flights.0 = flights.0.saturating_sub(1);
        answer
    }

    fn keep(&self, asked: Asked, query: &Query, found: &Found) {
        let age =
            if found.bindings.is_empty() { self.at.negative_age_s } else { self.at.max_age_s };
        let now = self.clock.monotonic();
        let until = now.saturating_add(Duration::from_secs(age));
        let one = Kept { example: query.binding.clone(), found: found.clone(), until };
        self.forwarded.remember(asked, one, now);
    }

    fn ask_centre(&self, query: &Query, validate: bool) -> Result<Found, Refusal> {
        let question = CentreQuestion {
            tenant: self.at.tenant.clone(),
            domain: self.at.domain.clone(),
            query: query.clone(),
            validate,
        };
        let mut found = self.call(|centre| centre.ask(&question)).map_err(|error| match error {
            CentreError::Away(_) => Refusal::CentreAway,
            CentreError::Busy => Refusal::CentreBusy,
            CentreError::Refused(name) => {
                tracing::warn!(name, "the centre refused a question");
                Refusal::CentreRefused
            }
        })?;
        self.forwarded.forwarded.fetch_add(1, Ordering::Relaxed);
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        found.more |= found.bindings.len() > limit;
        found.bindings.truncate(limit);
        if !validate {
            found.bindings.iter_mut().for_each(|binding| binding.status = None);
        }
        Ok(found)
    }
}
