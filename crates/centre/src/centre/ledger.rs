//! Where providers record their requests: in the centre's sealed store, by PKI and order.
//!
//! **Invariant:** what was recorded is durable when the call returns, so that the same order asked
//! again after a crash is the same request at the PKI.

use model::{Domain, OrderId, api::Bytes, centre::EndReason};
use pki::{Journal, Ledger, LedgerEntry, LedgerError, RequestId, Revocation, RevocationReason};
use serde::{Serialize, de::DeserializeOwned};
use store::{
    typed::{RecordError, Records, Write},
    wait,
};
use time::OffsetDateTime;

use super::record::{self, LedgerRecord, RevokedRecord};

/// The records of one PKI.
#[derive(Clone, Debug)]
pub(crate) struct Asks {
    records: Records,
    domain: Domain,
}

/// Others changed the same record meanwhile.
#[derive(Debug, thiserror::Error)]
#[error("the record changed meanwhile")]
struct Moved;

impl Asks {
    /// The records of `domain`.
    pub(crate) const fn new(records: Records, domain: Domain) -> Self {
        Self { records, domain }
    }

    fn find<T: DeserializeOwned>(&self, id: RequestId) -> Result<Option<T>, LedgerError> {
        let find = || wait(self.records.get::<T>(&record::ask(&self.domain, OrderId(id.0))?));
        Ok(find().map_err(failed)?.map(|found| found.value))
    }

    /// Puts what is now known of a request in place of what was.
    fn put<T: Serialize + DeserializeOwned>(
        &self,
        id: RequestId,
        value: &T,
        with: impl FnOnce(Write) -> Result<Write, RecordError>,
    ) -> Result<(), LedgerError> {
        let put = || -> Result<bool, RecordError> {
            let place = record::ask::<T>(&self.domain, OrderId(id.0))?;
            let version = wait(self.records.get(&place))?.map_or(0, |known| known.version);
            wait(self.records.commit(with(Write::new().put(place, value, version)?)?))
        };
        if put().map_err(failed)? { Ok(()) } else { Err(failed(Moved)) }
    }

    /// Every revocation of our own CA in this PKI.
    pub(crate) fn revocations(&self) -> Result<Vec<Revocation>, RecordError> {
        let prefix = record::all_revoked(&self.domain);
        let all = wait(self.records.all::<RevokedRecord>(&prefix))?;
        let one = |(key, record): (store::Key, RevokedRecord)| {
            let mut serial = [0; 16];
            hex::decode_to_slice(key.as_str().strip_prefix(&prefix)?, &mut serial).ok()?;
            Some(revocation(serial, &record))
        };
        Ok(all.into_iter().filter_map(one).collect())
    }
}

impl Ledger for Asks {
    fn find(&self, id: RequestId) -> Result<Option<LedgerEntry>, LedgerError> {
        let found: Option<LedgerRecord> = self.find(id)?;
        Ok(found.map(|LedgerRecord { ask, serial, certificate, revoked }| {
            match (certificate, revoked) {
                (_, Some(revoked)) => {
                    LedgerEntry::Revoked { ask, revocation: revocation(serial, &revoked) }
                }
                (Some(certificate), None) => {
                    LedgerEntry::Issued { ask, serial, certificate: certificate.0 }
                }
                (None, None) => LedgerEntry::Issuing { ask, serial },
            }
        }))
    }

    fn record(&self, id: RequestId, entry: &LedgerEntry) -> Result<(), LedgerError> {
        let new = |ask: &[u8; 32], serial: &[u8; 16]| LedgerRecord {
            ask: *ask,
            serial: *serial,
            certificate: None,
            revoked: None,
        };
        match entry {
            LedgerEntry::Issuing { ask, serial } => self.put(id, &new(ask, serial), Ok),
            LedgerEntry::Issued { ask, serial, certificate } => {
                let certificate = Some(Bytes(certificate.clone()));
                self.put(id, &LedgerRecord { certificate, ..new(ask, serial) }, Ok)
            }
            LedgerEntry::Revoked { ask, revocation } => {
                let revoked = RevokedRecord {
                    at: revocation.at.unix_timestamp(),
                    reason: end_reason(revocation.reason),
                };
                let place = record::revoked(&self.domain, &revocation.serial).map_err(failed)?;
                let listed = wait(self.records.get(&place)).map_err(failed)?.is_some();
                let value = LedgerRecord { revoked: Some(revoked), ..new(ask, &revocation.serial) };
                self.put(id, &value, |write| {
                    // The first date stays.
                    if listed { Ok(write) } else { write.put(place, &revoked, 0) }
                })
            }
        }
    }

    fn revocation(&self, serial: &[u8; 16]) -> Result<Option<Revocation>, LedgerError> {
        let find = || wait(self.records.get(&record::revoked(&self.domain, serial)?));
        let found = find().map_err(failed)?;
        Ok(found.map(|found| revocation(*serial, &found.value)))
    }
}

impl Journal for Asks {
    fn load(&self, id: RequestId) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(self.find::<Bytes>(id)?.map(|bytes| bytes.0))
    }

    fn save(&self, id: RequestId, record: &[u8]) -> Result<(), LedgerError> {
        self.put(id, &Bytes(record.to_vec()), Ok)
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> LedgerError {
    LedgerError(Box::new(error))
}

fn revocation(serial: [u8; 16], record: &RevokedRecord) -> Revocation {
    Revocation {
        serial,
        at: OffsetDateTime::from_unix_timestamp(record.at).unwrap_or(OffsetDateTime::UNIX_EPOCH),
        reason: reason(record.reason),
    }
}

/// In the words of the PKI.
pub(crate) const fn reason(reason: EndReason) -> RevocationReason {
    match reason {
        EndReason::Unspecified => RevocationReason::Unspecified,
        EndReason::KeyCompromise => RevocationReason::KeyCompromise,
        EndReason::AffiliationChanged => RevocationReason::AffiliationChanged,
        EndReason::Superseded => RevocationReason::Superseded,
        EndReason::CessationOfOperation => RevocationReason::CessationOfOperation,
    }
}

/// In the words of the wire; what those do not have is not said.
const fn end_reason(reason: RevocationReason) -> EndReason {
    match reason {
        RevocationReason::KeyCompromise => EndReason::KeyCompromise,
        RevocationReason::AffiliationChanged => EndReason::AffiliationChanged,
        RevocationReason::Superseded => EndReason::Superseded,
        RevocationReason::CessationOfOperation => EndReason::CessationOfOperation,
        RevocationReason::Unspecified
        | RevocationReason::CaCompromise
        | RevocationReason::CertificateHold
        | RevocationReason::RemoveFromCrl
        | RevocationReason::PrivilegeWithdrawn
        | RevocationReason::AaCompromise => EndReason::Unspecified,
    }
}
