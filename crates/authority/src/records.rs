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

use model::{
    Digest, Epoch, GrantId, HostId, Incarnation, OperationId, VmId,
    api::{Bytes, grant::GrantPurpose, operate::Operation, policy::PolicyView},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
pub(crate) use store::typed::{Place, RecordError, Versioned, Write};
use store::{KeyError, Prefix, Range, SealedStore, StoreError, WatchError, typed};

use crate::{
    record::{host::HostRecord, token::TokenRecord, vm::VmRecord},
    restore::Restored,
};

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
pub(crate) struct Records(typed::Records);

impl Records {
    /// The records in `store`.
    pub(crate) const fn new(store: SealedStore) -> Self {
        Self(typed::Records::new(store))
    }

    /// The sealed store below.
    pub(crate) const fn sealed(&self) -> &SealedStore {
        self.0.sealed()
    }

    /// A record, if it is there.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        place: &Place<T>,
    ) -> Result<Option<Versioned<T>>, RecordError> {
        self.0.get(place).await
    }

    /// Writes all or, if a version has moved, nothing: `false`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) async fn commit(&self, write: Write) -> Result<bool, RecordError> {
        self.0.commit(write).await
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
        let answer = self.sealed().range(range).await?;
        let mut orders = Vec::with_capacity(answer.entries.len());
        for entry in &answer.entries {
            let order: OrderRecord = typed::parse(&entry.key, entry.value.expose())?;
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
        let watch = self.sealed().store().watch(order_prefix(host)?, from).await;
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
        self.0.forget(kind.prefix(), over).await
    }

    async fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, RecordError> {
        Ok(self.0.all(prefix).await?.into_iter().map(|(_, record)| record).collect())
    }
}

fn order_prefix(host: &HostId) -> Result<Prefix, KeyError> {
    Prefix::new(format!("order/{host}/"))
}
