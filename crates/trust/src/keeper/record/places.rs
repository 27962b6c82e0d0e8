//! Where each record is: its key in the store.

use model::keys::order::Receipt;
use store::typed::{Place, RecordError};

use super::{
    Authorization, CrlState, Entry, EntryId, Escrowed, Issuing, OrderRecord, OwnKey, ReceiptRecord,
    Recovery, Revoked, long_digest, short_digest,
};

/// Where an entry is.
pub(crate) fn entry(id: EntryId) -> Result<Place<Entry>, RecordError> {
    Place::at(format!("entry/{id}"))
}

/// Where it says that an entry is revoked.
pub(crate) fn revoked(id: EntryId) -> Result<Place<Revoked>, RecordError> {
    Place::at(format!("{REVOKED}{id}"))
}

/// Beginning of the keys of revoked entries.
pub(crate) const REVOKED: &str = "revoked/";

/// Beginning of the keys of all authorizations for a name.
pub(crate) fn authorizations(name: &str) -> String {
    format!("auth/{}/", short_digest(&[name.as_bytes()]))
}

/// Where an authorization is.
pub(crate) fn authorization(name: &str, id: EntryId) -> Result<Place<Authorization>, RecordError> {
    Place::at(format!("{}{id}", authorizations(name)))
}

/// Where a reserved serial number is.
pub(crate) fn ledger(request: EntryId) -> Result<Place<Issuing>, RecordError> {
    Place::at(format!("ledger/{request}"))
}

/// Beginning of the keys of orders.
pub(crate) const ORDERS: &str = "order/";

/// Where an order that was put off is.
pub(crate) fn order(id: EntryId) -> Result<Place<OrderRecord>, RecordError> {
    Place::at(format!("{ORDERS}{id}"))
}

/// Where a receipt is.
pub(crate) fn receipt(receipt: &Receipt) -> Result<Place<ReceiptRecord>, RecordError> {
    let parts = [receipt.response_id.as_bytes(), receipt.request_id.as_bytes()];
    Place::at(format!("receipt/{}", hex::encode(long_digest(&parts))))
}

/// Where an escrowed private key is.
pub(crate) fn escrow(id: EntryId) -> Result<Place<Escrowed>, RecordError> {
    Place::at(format!("escrow/{id}"))
}

/// Where a private key is that its owner may not have got yet.
pub(crate) fn made(id: EntryId) -> Result<Place<Escrowed>, RecordError> {
    Place::at(format!("made/{id}"))
}

/// Where a recovery is.
pub(crate) fn recovery(id: EntryId) -> Result<Place<Recovery>, RecordError> {
    Place::at(format!("recovery/{id}"))
}

/// Where the state of the CRLs is.
pub(crate) fn crl_state() -> Result<Place<CrlState>, RecordError> {
    Place::at("crl")
}

/// Where a key of the keeper's own is.
pub(crate) fn own_key(name: &str) -> Result<Place<OwnKey>, RecordError> {
    Place::at(format!("secret/{name}"))
}
