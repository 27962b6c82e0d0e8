//! The line to the key-management centre, in the manners `hybrid` and `proxy`.
//!
//! ```text
//! order ─► on record, its id chosen ─► errand: submit, ask again ─► certificate checked
//!                                                      └─► library, order done: one transaction
//! question ─► library ─► cache ─► one question at a time for the same example ─► centre
//! centre ─► feed: certificates, revocations, CRLs ─► library; how old our knowledge is
//! ```
//!
//! **Invariants:** an order is in the store, with its id, before the centre hears of it; what the
//! centre hands over is taken only if a path leads from it to the PKI's anchors and it is for the key
//! that was asked for; while the centre is away the library goes on answering, and says how old
//! its knowledge is.

mod errand;
mod forward;
mod link;
mod moving;
mod news;
mod opening;
mod outcome;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{
    HostId, MigrationId, OrderId,
    centre::{CentreOrder, CentreProgress, CentreQuestion, Feed, MigrationReport, Welcome},
    keys::{Found, admin::CentreStanding},
};
use pki::{Anchors, Crl};
use serve::clock::SharedClock;
use thiserror::Error;
use time::OffsetDateTime;

use self::forward::Forwarded;
pub use self::link::CentreLink;
pub(super) use self::{
    moving::{MIGRATIONS, MovingRecord},
    opening::{DomainRecord, has_centre, open},
};
use super::{
    issuer::Known,
    record::{self, EntryId},
    settings::{AtCentre, Manner},
};

/// The longest pause after the centre was found away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The first such pause; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Orders that can be ended at once, if their ids fall well.
const ENDING: usize = 16;

/// Why the centre did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CentreError {
    /// It cannot be reached, or did not answer in time.
    #[error("the key-management centre is away: {0}")]
    Away(String),
    /// It has too much to do.
    #[error("the key-management centre has too much to do")]
    Busy,
    /// It said no, by this name.
    #[error("the key-management centre refused: {0}")]
    Refused(String),
}

/// The key-management centre as its trust services see it. Calls block; any thread may call.
pub trait Centre: Debug + Send + Sync {
    /// This server, as the centre knows it.
    fn host(&self) -> Option<HostId>;

    /// Says that we are there, and where other trust services reach us.
    ///
    /// # Errors
    /// [`CentreError`].
    fn hello(&self) -> Result<Welcome, CentreError>;

    /// Gives an order; the same id is the same order.
    ///
    /// # Errors
    /// [`CentreError`].
    fn submit(&self, order: &CentreOrder) -> Result<CentreProgress, CentreError>;

    /// How far an order is, if that takes no longer than `wait` at its end.
    ///
    /// # Errors
    /// [`CentreError`].
    fn progress(&self, id: OrderId, wait: Duration) -> Result<CentreProgress, CentreError>;

    /// Asks about keys.
    ///
    /// # Errors
    /// [`CentreError`].
    fn ask(&self, question: &CentreQuestion) -> Result<Found, CentreError>;

    /// Says how far a migration is that it ordered.
    ///
    /// # Errors
    /// [`CentreError`].
    fn report(&self, id: MigrationId, report: &MigrationReport) -> Result<(), CentreError>;

    /// What is new after number `after`; waits for it at most `wait`.
    ///
    /// # Errors
    /// [`CentreError`].
    fn feed(&self, after: u64, wait: Duration) -> Result<Feed, CentreError>;
}

/// The line: the centre, what is known of its PKI, and what is under way.
#[derive(Debug)]
pub(super) struct Line {
    centre: Arc<dyn Centre>,
    clock: SharedClock,
    at: AtCentre,
    manner: Manner,
    domain: DomainRecord,
    anchors: Anchors,
    began: OffsetDateTime,
    /// Where CRLs are kept.
    dir: PathBuf,
    /// The newest CRL of each CA of the PKI, by what the CA is called: DER, and as it was verified.
    crls: Mutex<BTreeMap<String, (Vec<u8>, Crl)>>,
    /// When the library was complete, Unix milliseconds.
    as_of: AtomicU64,
    forwarded: Forwarded,
    /// Orders to be taken further: when, and how often that was tried.
    errands: Mutex<BTreeMap<(Duration, EntryId), u32>>,
    errand_added: Condvar,
    /// Counts orders that came to their end.
    ended: Mutex<u64>,
    order_ended: Condvar,
    /// Held by whoever ends an order, by its id: two ways lead there.
    ending: [Mutex<()>; ENDING],
    pause: Mutex<Pause>,
}

/// Until when the centre is left alone after it was found away.
#[derive(Debug, Default)]
struct Pause {
    until: Duration,
    length: Duration,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    /// The PKI's first trust anchor, DER.
    pub(super) fn anchor(&self) -> &[u8] {
        self.domain.anchors.first().map_or(&[], |der| der.0.as_slice())
    }

    /// CAs on the way to the anchors.
    pub(super) fn intermediates(&self) -> &[Vec<u8>] {
        &self.domain.above
    }

    pub(super) const fn began(&self) -> OffsetDateTime {
        self.began
    }

    /// Whether questions are passed on, and none answered from the library.
    pub(super) fn relays(&self) -> bool {
        self.manner == Manner::Proxy
    }

    pub(super) fn known(&self, now: u64) -> Known {
        let as_of = self.as_of.load(Ordering::Acquire).min(now);
        Known { as_of, until: as_of.saturating_add(self.at.max_age_s.saturating_mul(1000)) }
    }

    /// The CRL that stands longest, DER.
    pub(super) fn crl(&self) -> Option<Vec<u8>> {
        let crls = held(&self.crls);
        let newest = crls.values().max_by_key(|(_, crl)| crl.next_update());
        newest.map(|(der, _)| der.clone())
    }

    /// How the line stands.
    pub(super) fn standing(&self) -> CentreStanding {
        let (local, cached, forwarded) = self.forwarded.counts();
        CentreStanding {
            manner: self.manner.name().to_owned(),
            as_of: self.as_of.load(Ordering::Acquire),
            away: self.is_paused(),
            outstanding: u64::try_from(held(&self.errands).len()).unwrap_or(u64::MAX),
            local,
            cached,
            forwarded,
        }
    }

    /// The library answered.
    pub(super) fn answered_here(&self) {
        self.forwarded.count_local();
    }

    fn is_paused(&self) -> bool {
        self.clock.monotonic() < held(&self.pause).until
    }

    /// Calls the centre, unless it was found away a moment ago.
    fn call<T>(
        &self,
        call: impl FnOnce(&dyn Centre) -> Result<T, CentreError>,
    ) -> Result<T, CentreError> {
        if self.is_paused() {
            return Err(CentreError::Away("it was away a moment ago".to_owned()));
        }
        let answer = call(self.centre.as_ref());
        let mut pause = held(&self.pause);
        match &answer {
            Err(CentreError::Away(why)) => {
                pause.length = pause.length.saturating_mul(2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                pause.until = self.clock.monotonic().saturating_add(pause.length);
                tracing::warn!(why, pause_ms = pause.length.as_millis(), "the centre is away");
            }
            Ok(_) | Err(CentreError::Busy | CentreError::Refused(_)) => *pause = Pause::default(),
        }
        answer
    }

    /// Waits until an order ended, or `deadline` of the monotonic clock; `false` after it.
    fn wait_for_an_end(&self, seen: u64, deadline: Duration) -> bool {
        let left = deadline.saturating_sub(self.clock.monotonic());
        if left.is_zero() {
            return false;
        }
        let ended = held(&self.ended);
        let waited = self.order_ended.wait_timeout_while(ended, left, |ended| *ended == seen);
        drop(waited);
        true
    }

    fn note_end(&self) {
        let mut ended = held(&self.ended);
        *ended = ended.wrapping_add(1);
        self.order_ended.notify_all();
    }
}

/// What the order of a record is known by at the centre.
const fn order_id(id: EntryId) -> OrderId {
    OrderId(id.0)
}

/// By what a foreign certificate's binding is known: issuer and serial number.
pub(super) fn foreign_id(issuer: &str, serial: &[u8]) -> EntryId {
    let issuer = pki::names::canonical_dn(issuer);
    record::short_digest(&[b"certificate", issuer.as_bytes(), pki::binding::serial(serial)])
}
