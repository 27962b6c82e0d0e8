//! Records in the store: typed, sealed, written under compare-and-swap.
//!
//! | key | what |
//! |---|---|
//! | `host/<host>` | [`HostRecord`] |
//! | `token/<digest>` | [`TokenRecord`] |
//! | `vm/<vm>` | [`VmRecord`] |
//! | `vmkey/<vm>` | the wrapped master key ([`crate::vmkey`]) |
//! | `operation/<id>` | [`Operation`] |
//! | `order/<host>/<operation>` | an open operation of that host; watched by its polls |
//! | `grant/<id>` | [`GrantRecord`]: this id was used |
//! | `policy` | [`PolicyView`] |
//! | `incarnation` | counts the explicit restores |
//! | `restored` | what the last of them left ([`Restored`]) |

use std::marker::PhantomData;

use model::{
    Digest, Epoch, GrantId, HostId, Incarnation, OperationId, Secret, VmId,
    api::{Bytes, grant::GrantPurpose, operate::Operation, policy::PolicyView},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::{
    Compare, Key, KeyError, Prefix, Range, SealError, SealedStore, SealedTxn, StoreError,
    WatchError,
};
use thiserror::Error;

use crate::{
    record::{host::HostRecord, token::TokenRecord, vm::VmRecord},
    restore::Restored,
};

/// Records that are looked at, and at most deleted, in one transaction.
const FORGET_PAGE: usize = 40;

/// The store could not answer, or a record in it is not what it should be.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    /// A name does not make a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A record has another form.
    #[error("the record {key} is malformed")]
    Malformed {
        /// Where.
        key: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The sealed store.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// The store below.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A watch ended.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// That a grant id was used.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantRecord {
    /// For which VM.
    pub(crate) vm: VmId,
    /// By which host.
    pub(crate) host: HostId,
    /// In which epoch.
    pub(crate) epoch: Epoch,
    /// For which keys.
    pub(crate) purpose: GrantPurpose,
    /// For which operation.
    pub(crate) operation: OperationId,
    /// The verdict that earned it.
    pub(crate) verdict: Digest,
    /// When.
    pub(crate) at: u64,
}

/// An open operation, in its host's list. The list is in the order of acceptance.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderRecord {
    /// When it was accepted.
    pub(crate) accepted_at: u64,
}

/// Where a record of type `T` is.
#[derive(Debug)]
pub(crate) struct Place<T>(Key, PhantomData<fn() -> T>);

impl<T> Place<T> {
    fn at(key: String) -> Result<Self, RecordError> {
        Ok(Self(Key::new(key)?, PhantomData))
    }
}

/// Where a host's record is.
pub(crate) fn host(name: &HostId) -> Result<Place<HostRecord>, RecordError> {
    Place::at(format!("host/{name}"))
}

/// Where a token's record is, by the digest of its text.
pub(crate) fn token(digest: &str) -> Result<Place<TokenRecord>, RecordError> {
    Place::at(format!("token/{digest}"))
}

/// Where a VM's record is.
pub(crate) fn vm(name: &VmId) -> Result<Place<VmRecord>, RecordError> {
    Place::at(format!("vm/{name}"))
}

/// Where a VM's wrapped master key is.
pub(crate) fn vmkey(name: &VmId) -> Result<Place<Bytes>, RecordError> {
    Place::at(format!("vmkey/{name}"))
}

/// Where an operation is.
pub(crate) fn operation(id: OperationId) -> Result<Place<Operation>, RecordError> {
    Place::at(format!("operation/{id}"))
}

/// Where an open operation is in its host's list.
pub(crate) fn order(host: &HostId, id: OperationId) -> Result<Place<OrderRecord>, RecordError> {
    Place::at(format!("order/{host}/{id}"))
}

/// Where a used grant id is.
pub(crate) fn grant(id: GrantId) -> Result<Place<GrantRecord>, RecordError> {
    Place::at(format!("grant/{id}"))
}

/// Where the policy is.
pub(crate) fn policy() -> Result<Place<PolicyView>, RecordError> {
    Place::at("policy".to_owned())
}

/// Where the incarnation is.
pub(crate) fn incarnation() -> Result<Place<Incarnation>, RecordError> {
    Place::at("incarnation".to_owned())
}

/// Where the last explicit restore is.
pub(crate) fn restored() -> Result<Place<Restored>, RecordError> {
    Place::at("restored".to_owned())
}

/// A record and the version that a write must name.
#[derive(Clone, Debug)]
pub(crate) struct Versioned<T> {
    /// The record.
    pub(crate) value: T,
    /// Its version.
    pub(crate) version: u64,
}

/// What is written together.
#[derive(Debug, Default)]
pub(crate) struct Write(SealedTxn);

impl Write {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Puts a record in place of version `version`; 0: there is none.
    ///
    /// # Errors
    /// [`RecordError::Malformed`] if it has no JSON form.
    pub(crate) fn put<T: Serialize>(
        self,
        place: Place<T>,
        value: &T,
        version: u64,
    ) -> Result<Self, RecordError> {
        let key = place.0;
        let bytes = serde_json::to_vec(value)
            .map_err(|source| RecordError::Malformed { key: key.to_string(), source })?;
        Ok(Self(self.0.put(key, Secret::new(bytes), version)))
    }

    /// Deletes version `version` of a record.
    pub(crate) fn delete<T>(self, place: Place<T>, version: u64) -> Self {
        Self(self.0.delete(place.0, version))
    }

    /// Only if a record still has this version.
    pub(crate) fn only_if<T>(self, place: Place<T>, version: u64) -> Self {
        Self(self.0.when(Compare::Version(place.0, version)))
    }
}

/// Kinds of records that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Enrolment tokens.
    Tokens,
    /// Used grant ids.
    Grants,
    /// Operations.
    Operations,
    /// Open operations in their hosts' lists.
    Orders,
}

impl Kept {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Tokens => "token/",
            Self::Grants => "grant/",
            Self::Operations => "operation/",
            Self::Orders => "order/",
        }
    }
}

/// The records.
#[derive(Clone, Debug)]
pub(crate) struct Records(SealedStore);

impl Records {
    /// The records in `store`.
    pub(crate) const fn new(store: SealedStore) -> Self {
        Self(store)
    }

    /// The sealed store below.
    pub(crate) const fn sealed(&self) -> &SealedStore {
        &self.0
    }

    /// A record, if it is there.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        place: &Place<T>,
    ) -> Result<Option<Versioned<T>>, RecordError> {
        let Some(opened) = self.0.get(&place.0).await? else { return Ok(None) };
        let value = parse(&place.0, opened.value.expose())?;
        Ok(Some(Versioned { value, version: opened.version }))
    }

    /// Writes all or, if a version has moved, nothing: `false`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) async fn commit(&self, write: Write) -> Result<bool, RecordError> {
        Ok(self.0.txn(write.0).await?.succeeded)
    }

    /// All hosts.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) async fn hosts(&self) -> Result<Vec<HostRecord>, RecordError> {
        self.all("host/").await
    }

    /// All VMs.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) async fn vms(&self) -> Result<Vec<VmRecord>, RecordError> {
        self.all("vm/").await
    }

    /// The ids of a host's open operations, oldest first, and the revision of the answer.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) async fn orders(
        &self,
        host: &HostId,
    ) -> Result<(Vec<OperationId>, u64), RecordError> {
        let range = Range::prefix(order_prefix(host)?);
        let answer = self.0.range(range).await?;
        let mut orders = Vec::with_capacity(answer.entries.len());
        for entry in &answer.entries {
            let order: OrderRecord = parse(&entry.key, entry.value.expose())?;
            let id = entry.key.as_str().rsplit('/').next().and_then(|id| id.parse().ok());
            orders.extend(id.map(|id: OperationId| (order.accepted_at, id)));
        }
        orders.sort_unstable();
        Ok((orders.into_iter().map(|(_, id)| id).collect(), answer.revision))
    }

    /// Waits until a host's list of orders changes after `revision`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) async fn orders_changed(
        &self,
        host: &HostId,
        revision: u64,
    ) -> Result<(), RecordError> {
        let from = revision.saturating_add(1);
        let watch = self.0.store().watch(order_prefix(host)?, from).await;
        let mut watch = match watch {
            Ok(watch) => watch,
            // The caller's revision is too old or of another life of the store: look again.
            Err(WatchError::Compacted { .. }) => return Ok(()),
            Err(WatchError::Store(StoreError::Rejected(_))) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match watch.next().await {
            Ok(_) | Err(WatchError::Compacted { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what `over` says is over, in pages; how many.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) async fn forget<T: DeserializeOwned>(
        &self,
        kind: Kept,
        over: impl Fn(&T) -> bool + Send,
    ) -> Result<usize, RecordError> {
        let prefix = Prefix::new(kind.prefix())?;
        let mut range = Range::prefix(prefix.clone()).limit(FORGET_PAGE);
        let mut count: usize = 0;
        loop {
            let answer = self.0.range(range).await?;
            let mut gone = SealedTxn::new();
            let mut some: usize = 0;
            for entry in &answer.entries {
                if over(&parse::<T>(&entry.key, entry.value.expose())?) {
                    gone = gone.delete(entry.key.clone(), entry.version);
                    some = some.saturating_add(1);
                }
            }
            // If one of them moved meanwhile, the page is left for the next time.
            if some > 0 && self.0.txn(gone).await?.succeeded {
                count = count.saturating_add(some);
            }
            let Some(last) = answer.entries.last().filter(|_| answer.more) else {
                return Ok(count);
            };
            range = Range::prefix(prefix.clone()).limit(FORGET_PAGE).after(last.key.clone());
        }
    }

    async fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, RecordError> {
        let prefix = Prefix::new(prefix)?;
        let mut found = Vec::new();
        let mut range = Range::prefix(prefix.clone());
        loop {
            let answer = self.0.range(range).await?;
            for entry in &answer.entries {
                found.push(parse(&entry.key, entry.value.expose())?);
            }
            let Some(last) = answer.entries.last().filter(|_| answer.more) else {
                return Ok(found);
            };
            range = Range::prefix(prefix.clone()).at(answer.revision).after(last.key.clone());
        }
    }
}

fn order_prefix(host: &HostId) -> Result<Prefix, KeyError> {
    Prefix::new(format!("order/{host}/"))
}

fn parse<T: DeserializeOwned>(key: &Key, bytes: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(bytes)
        .map_err(|source| RecordError::Malformed { key: key.to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::{KeyId, LocalStore, SealKeys};

    use super::*;

    fn records() -> Records {
        let keys = SealKeys::new(KeyId(1), Secret::new([1; 32]));
        Records::new(SealedStore::new(Arc::new(LocalStore::memory().unwrap()), keys))
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten_and_the_rest_stays() {
        let records = records();
        for n in 0..100_u8 {
            let host = "a".parse().unwrap();
            let record =
                TokenRecord { host, expires_at: u64::from(n), used_by: None, replaces: false };
            let write = Write::new().put(token(&hex::encode([n])).unwrap(), &record, 0).unwrap();
            assert!(records.commit(write).await.unwrap());
        }
        let over = |token: &TokenRecord| token.expires_at < 90;
        assert_eq!(records.forget(Kept::Tokens, over).await.unwrap(), 90);
        assert_eq!(records.forget(Kept::Tokens, over).await.unwrap(), 0);
        let kept = records.get(&token(&hex::encode([95])).unwrap()).await.unwrap();
        assert_eq!(kept.unwrap().value.expires_at, 95);
    }

    #[tokio::test]
    async fn a_write_that_names_an_old_version_changes_nothing() {
        let records = records();
        let place = || incarnation().unwrap();
        let write = |value, version| Write::new().put(place(), &Incarnation(value), version);
        assert!(records.commit(write(1, 0).unwrap()).await.unwrap());
        assert!(!records.commit(write(2, 0).unwrap()).await.unwrap());
        assert!(records.commit(write(2, 1).unwrap()).await.unwrap());
        assert_eq!(records.get(&place()).await.unwrap().unwrap().value, Incarnation(2));
    }
}
