//! The CA's ledger, in the library. A certificate becomes a binding in the very transaction that
//! records it: what is to be written with it is staged under its request before it is asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use pki::{Ledger, LedgerEntry, LedgerError, RequestId, Revocation, RevocationReason};
use store::typed::{RecordError, Write};
use time::OffsetDateTime;

use super::{
    library::Library,
    record::{self, EntryId, Issuing, Revoked},
    refusal::Why,
};

/// Adds to a write what belongs to a certificate (DER) that was just made.
type Staged = Box<dyn FnOnce(Write, EntryId, &[u8]) -> Result<Write, Why> + Send>;

/// The ledger.
#[derive(Clone)]
pub(crate) struct StoreLedger {
    library: Arc<Library>,
    staged: Arc<Mutex<HashMap<RequestId, Staged>>>,
}

impl std::fmt::Debug for StoreLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreLedger").finish_non_exhaustive()
    }
}

impl StoreLedger {
    /// The ledger in a library.
    pub(crate) fn new(library: Arc<Library>) -> Self {
        Self { library, staged: Arc::default() }
    }

    /// Has this written with the certificate of `request`.
    pub(crate) fn stage(
        &self,
        request: RequestId,
        with: impl FnOnce(Write, EntryId, &[u8]) -> Result<Write, Why> + Send + 'static,
    ) {
        self.staged().insert(request, Box::new(with));
    }

    /// Forgets what was staged; what is left if nothing was written.
    pub(crate) fn unstage(&self, request: RequestId) {
        self.staged().remove(&request);
    }

    fn staged(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, Staged>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issued(&self, request: RequestId, entry: &LedgerEntry) -> Result<(), Why> {
        let (ask, serial, certificate) = match entry {
            LedgerEntry::Issuing { ask, serial } => (*ask, EntryId(*serial), None),
            LedgerEntry::Issued { ask, serial, certificate } => {
                (*ask, EntryId(*serial), Some(certificate))
            }
            LedgerEntry::Revoked { revocation, .. } => return self.revoke(revocation),
        };
        let place = record::ledger(EntryId(request.0))?;
        let version = self.library.get(&place)?.map_or(0, |known| known.version);
        let issued = certificate.is_some();
        let mut write = Write::new().put(place, &Issuing { ask, serial, issued }, version)?;
        if let Some(certificate) = certificate
            && let Some(with) = self.staged().remove(&request)
        {
            write = with(write, serial, certificate)?;
        }
        if self.library.commit(write)? {
            Ok(())
        } else {
            Err(super::refusal::Fault::Contended.into())
        }
    }

    fn revoke(&self, revocation: &Revocation) -> Result<(), Why> {
        let id = EntryId(revocation.serial);
        let place = record::revoked(id)?;
        if self.library.get(&place)?.is_some() {
            return Ok(());
        }
        let ends = self.library.entry(id)?.map_or(i64::MAX, |entry| entry.value.not_on_or_after);
        let at = u64::try_from(revocation.at.unix_timestamp()).unwrap_or(0).saturating_mul(1000);
        let write = Write::new().put(place, &Revoked { at, not_on_or_after: ends }, 0)?;
        if self.library.commit(write)? {
            Ok(())
        } else {
            Err(super::refusal::Fault::Contended.into())
        }
    }
}

impl Ledger for StoreLedger {
    fn find(&self, id: RequestId) -> Result<Option<LedgerEntry>, LedgerError> {
        let find = || -> Result<Option<LedgerEntry>, RecordError> {
            let known = self.library.get(&record::ledger(EntryId(id.0))?)?;
            let Some(Issuing { ask, serial, issued }) = known.map(|known| known.value) else {
                return Ok(None);
            };
            let entry = if issued { self.library.entry(serial)? } else { None };
            Ok(Some(match entry {
                Some(entry) => {
                    let certificate = entry.value.certificate.0;
                    LedgerEntry::Issued { ask, serial: serial.0, certificate }
                }
                None => LedgerEntry::Issuing { ask, serial: serial.0 },
            }))
        };
        find().map_err(|error| LedgerError(Box::new(error)))
    }

    fn record(&self, id: RequestId, entry: &LedgerEntry) -> Result<(), LedgerError> {
        self.issued(id, entry).map_err(|error| LedgerError(Box::new(error)))
    }

    fn revocation(&self, serial: &[u8; 16]) -> Result<Option<Revocation>, LedgerError> {
        let find = || self.library.get(&record::revoked(EntryId(*serial))?);
        let found = find().map_err(|error| LedgerError(Box::new(error)))?;
        Ok(found.map(|found| revocation(EntryId(*serial), &found.value)))
    }
}

/// As it goes on a CRL.
pub(crate) fn revocation(id: EntryId, revoked: &Revoked) -> Revocation {
    let at = i64::try_from(revoked.at / 1000).unwrap_or(0);
    Revocation {
        serial: id.0,
        at: OffsetDateTime::from_unix_timestamp(at).unwrap_or(OffsetDateTime::UNIX_EPOCH),
        reason: RevocationReason::Unspecified,
    }
}
