//! Everything of one owner, as it goes from one trust service to another: gathered, put, cleared.
//!
//! **Invariants:** private keys leave the escrow only into a parcel, and go from it into the escrow
//! of the service that gets them; a parcel never touches a record of anybody else; what was put
//! twice is there once.

mod put;

use std::collections::BTreeSet;

use model::{
    Digest, Secret,
    agent::resident::Travelling,
    api::Bytes,
    keys::{Grades, order::SecretBytes},
    migration::Rejection,
};
use serde::{Deserialize, Serialize};
use store::typed::Place;

use super::{
    Keeper,
    owner::refusal,
    record::{self, Authorization, Entry, EntryId, Escrowed, OrderRecord, ReceiptRecord, Recovery},
    refusal::{Fault, Refusal, Why},
    resident::ResidentRecord,
};

/// Most records of one owner that move.
const MAX_RECORDS: usize = 4096;
/// Longest content.
const MAX_CONTENT: usize = 8 << 20;
/// Records that are made durable together.
const BATCH: usize = 64;

/// One record, with where it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Item {
    /// A binding.
    Entry(EntryId, Box<Entry>),
    /// A pass phrase.
    Authorization(EntryId, Authorization),
    /// An order that was put off.
    Order(EntryId, Box<OrderRecord>),
    /// A receipt for one.
    Receipt(String, ReceiptRecord),
    /// A recovery under way.
    Recovery(EntryId, Recovery),
    /// A private key, and until when it is kept; 0: in escrow.
    Private(EntryId, SecretBytes, u64),
    /// A private key as it is sealed to the owner's key in the TPM.
    Wrapped(EntryId, Escrowed),
    /// That key.
    Travelling(Travelling),
    /// The grades of the owner's identities.
    Grades(Grades),
}

impl Item {
    /// Whose it is, if that is in it.
    fn owner(&self) -> Option<Option<&str>> {
        match self {
            Self::Entry(_, entry) => Some(entry.owner.as_deref()),
            Self::Authorization(_, one) => Some(one.owner.as_deref()),
            Self::Order(_, order) => Some(order.owner.as_deref()),
            Self::Grades(set) => Some(Some(&set.owner)),
            Self::Receipt(..)
            | Self::Recovery(..)
            | Self::Private(..)
            | Self::Wrapped(..)
            | Self::Travelling(_) => None,
        }
    }
}

/// The owner's record as it was when something was found right: what is done about it is done only
/// as long as that stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// Whose.
    pub(super) owner: String,
    /// The record's version.
    pub(super) version: u64,
}

/// What is sent.
#[derive(Debug)]
pub(super) struct Content {
    /// JSON.
    pub(super) bytes: Secret<Vec<u8>>,
    /// SHA-256 of it.
    pub(super) digest: Digest,
}

/// The digest by which both services name a content.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::sha256(record::long_digest(&[b"vouchsafe:key-migration:content:v1", bytes]))
}

/// What a parcel held, parsed and checked.
#[derive(Debug)]
pub(super) struct Unpacked {
    items: Vec<Item>,
    /// Pass phrases and orders of names that no binding in the parcel has: they are not taken.
    pub(super) dropped: usize,
    /// The owner's key in this host's TPM, if one came.
    resident: Option<ResidentRecord>,
}

/// Whether an item's parts belong together, and to the owner.
fn belongs(
    owner: &str,
    item: &Item,
    entries: &BTreeSet<EntryId>,
    orders: &BTreeSet<EntryId>,
) -> bool {
    if item.owner().is_some_and(|named| named != Some(owner)) {
        return false;
    }
    match item {
        Item::Recovery(id, _) | Item::Private(id, ..) => entries.contains(id),
        Item::Wrapped(id, sealed) => entries.contains(id) && sealed.resident,
        Item::Receipt(digest, receipt) => {
            let plain = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
            plain && orders.contains(&receipt.order)
        }
        Item::Entry(..)
        | Item::Authorization(..)
        | Item::Order(..)
        | Item::Travelling(_)
        | Item::Grades(_) => true,
    }
}

/// The name that a pass phrase or an order is for.
fn name_of(item: &Item) -> Option<&str> {
    match item {
        Item::Authorization(_, one) => Some(&one.name),
        Item::Order(_, order) => Some(&order.name),
        Item::Entry(..)
        | Item::Receipt(..)
        | Item::Recovery(..)
        | Item::Private(..)
        | Item::Wrapped(..)
        | Item::Travelling(_)
        | Item::Grades(_) => None,
    }
}

impl Keeper {
    /// Parses a parcel's content: only records of this owner, only bindings that their certificates
    /// vouch for, nothing that is somebody else's here.
    ///
    /// # Errors
    /// [`Refusal::ParcelUnfit`].
    pub(super) fn unpack(
        &self,
        owner: &str,
        bytes: &Secret<Vec<u8>>,
        announced: Option<&Bytes>,
    ) -> Result<Unpacked, Why> {
        let unfit = || Why::from(refusal(Rejection::ParcelUnfit));
        let mut items: Vec<Item> = serde_json::from_slice(bytes.expose()).map_err(|_| unfit())?;
        let (mut entries, mut orders) = (BTreeSet::new(), BTreeSet::new());
        let mut known: BTreeSet<String> = BTreeSet::new();
        for item in &items {
            if let Item::Entry(id, entry) = item {
                self.check_vouched(*id, entry, announced).map_err(refusal)?;
                entries.insert(*id);
                known.insert(entry.name.clone());
            } else if let Item::Order(id, _) = item {
                orders.insert(*id);
            }
        }
        let fits = |item: &Item| belongs(owner, item, &entries, &orders);
        if items.len() > MAX_RECORDS || !items.iter().all(fits) {
            return Err(unfit());
        }
        let before = items.len();
        let centre = self.issuer.line().is_some();
        items.retain(|item| {
            name_of(item).is_none_or(|name| known.contains(name))
                || matches!(item, Item::Order(_, one) if centre && one.is_with_centre())
        });
        let kept: BTreeSet<EntryId> = items
            .iter()
            .filter_map(|one| if let Item::Order(id, _) = one { Some(*id) } else { None })
            .collect();
        items.retain(|item| !matches!(item, Item::Receipt(_, one) if !kept.contains(&one.order)));
        for item in &items {
            self.check_free(owner, item)?;
        }
        let dropped = before.saturating_sub(items.len());
        let resident = self.resident_of(owner, &items)?;
        Ok(Unpacked { items, dropped, resident })
    }

    /// The owner's key in the TPM, taken from the parcel into this host's.
    fn resident_of(&self, owner: &str, items: &[Item]) -> Result<Option<ResidentRecord>, Why> {
        let unfit = || Why::from(refusal(Rejection::ParcelUnfit));
        let mut wrapped = items.iter().filter_map(|item| {
            if let Item::Wrapped(id, sealed) = item { Some((*id, sealed)) } else { None }
        });
        let mut keys = items
            .iter()
            .filter_map(|item| if let Item::Travelling(key) = item { Some(key) } else { None });
        match (keys.next(), keys.next(), wrapped.next()) {
            (None, _, None) => Ok(None),
            (Some(key), None, first) => self.arriving(owner, key, first).map(Some),
            (None, _, Some(_)) | (Some(_), Some(_), _) => Err(unfit()),
        }
    }

    /// What is there already under an item's key must be this owner's.
    fn check_free(&self, owner: &str, item: &Item) -> Result<(), Why> {
        let whose = match item {
            Item::Entry(id, _)
            | Item::Recovery(id, _)
            | Item::Private(id, ..)
            | Item::Wrapped(id, _) => {
                self.library.get(&record::entry(*id)?)?.map(|known| known.value.owner)
            }
            Item::Authorization(id, one) => {
                let place = record::authorization(&one.name, *id)?;
                self.library.get(&place)?.map(|known| known.value.owner)
            }
            Item::Order(id, _) => {
                self.library.get(&record::order(*id)?)?.map(|known| known.value.owner)
            }
            Item::Receipt(digest, receipt) => {
                let place: Place<ReceiptRecord> = Place::at(format!("receipt/{digest}"))?;
                let known = self.library.get(&place)?;
                let other = known.is_some_and(|known| known.value.order != receipt.order);
                other.then_some(None)
            }
            Item::Travelling(_) | Item::Grades(_) => None,
        };
        match whose {
            Some(whose) if whose.as_deref() != Some(owner) => {
                Err(refusal(Rejection::ParcelUnfit).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Everything of the owner, in an order that is the same each time.
    pub(super) fn gather(
        &self,
        owner: &str,
        travelling: Option<&Travelling>,
    ) -> Result<Content, Why> {
        let keys = self.owned_keys(owner, MAX_RECORDS.saturating_add(1))?;
        let mut items = Vec::new();
        for key in &keys {
            self.gather_one(key, &mut items)?;
        }
        items.extend(travelling.cloned().map(Item::Travelling));
        if keys.len() > MAX_RECORDS || items.len() > MAX_RECORDS {
            return Err(Refusal::OwnerTooLarge.into());
        }
        let bytes = Secret::new(serde_json::to_vec(&items).map_err(Fault::key)?);
        if bytes.expose().len() > MAX_CONTENT {
            return Err(Refusal::OwnerTooLarge.into());
        }
        let digest = digest_of(bytes.expose());
        Ok(Content { bytes, digest })
    }

    fn gather_one(&self, key: &str, items: &mut Vec<Item>) -> Result<(), Why> {
        let (kind, rest) = key.split_once('/').unwrap_or((key, ""));
        let id = EntryId::from_hex(rest.rsplit('/').next().unwrap_or(rest));
        match (kind, id) {
            ("entry", Some(id)) => {
                let Some(entry) = self.library.get(&record::entry(id)?)? else { return Ok(()) };
                let mut entry = entry.value;
                if entry.chain.is_empty() {
                    entry.chain = vec![Bytes(self.ca_certificate().to_vec())];
                }
                items.push(Item::Entry(id, Box::new(entry)));
                if let Some(recovery) = self.library.get(&record::recovery(id)?)? {
                    items.push(Item::Recovery(id, recovery.value));
                }
                for place in [record::escrow(id)?, record::made(id)?] {
                    if let Some(sealed) = self.library.get(&place)? {
                        if sealed.value.resident {
                            items.push(Item::Wrapped(id, sealed.value));
                            continue;
                        }
                        let key = self.escrow.open_key(id, &sealed.value)?;
                        items.push(Item::Private(id, SecretBytes::new(key), sealed.value.until));
                    }
                }
            }
            ("auth", Some(id)) => {
                let one = self.library.get(&Place::<Authorization>::at(key)?)?;
                items.extend(one.map(|one| Item::Authorization(id, one.value)));
            }
            ("order", Some(id)) => {
                let one = self.library.get(&record::order(id)?)?;
                items.extend(one.map(|one| Item::Order(id, Box::new(one.value))));
            }
            ("grade", Some(_)) => {
                let one = self.library.get(&Place::<Grades>::at(key)?)?;
                items.extend(one.map(|one| Item::Grades(one.value)));
            }
            ("receipt", _) => {
                let one = self.library.get(&Place::<ReceiptRecord>::at(key)?)?;
                items.extend(one.map(|one| Item::Receipt(rest.to_owned(), one.value)));
            }
            _ => {}
        }
        Ok(())
    }
}
