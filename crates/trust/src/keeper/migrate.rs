//! Key migration as the keeper runs it: [`model::migration::step`] over records that are durable
//! before anything is said. What goes over the wire is in [`crate::peer`].
//!
//! ```text
//! operator ─► begin ─┐            ┌─► outgoing: what is to be said next, from the record alone
//!                    ▼            │
//!                OwnerRecord ─────┘◄─ heard: what the target answered   (source)
//!                OwnerRecord ◄─────── incoming: what the source says    (target)
//! ```
//!
//! **Invariants:** the record and the changes that it stands for are durable before the next word;
//! a source deletes before it tells the target to answer; what was begun goes on after a restart.

mod incoming;

use model::{
    Digest, HostId, MigrationId,
    api::Bytes,
    keys::admin::OwnerView,
    migration::{self, Body, Event, Move, Place, Rejection, Say, Statement, Step},
};
use serve::{
    hpke::{self, HpkePublic},
    random,
};
use std::sync::Arc;
use store::{
    typed::{Versioned, Write},
    wait,
};
use tokio::sync::Notify;

use super::{
    Keeper, TRIES,
    authorize::{check_operator, check_owner},
    owner::{self, OWNERS, OwnerRecord, refusal},
    parcel::Standing,
    refusal::{Fault, Refusal, Why},
};

/// What the audit log calls steps of a migration that were refused.
const EVENT: &str = "key-migration";

/// Who this service is, by its passport of the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its host.
    pub host: HostId,
    /// The verdict on it.
    pub verdict: Digest,
}

/// What is to be said to a target.
#[derive(Debug)]
pub struct Outgoing {
    /// Where it listens.
    pub url: String,
    /// Its host.
    pub peer: HostId,
    /// What.
    pub statement: Statement,
}

impl Keeper {
    /// Lets `movers` know of migrations that begin: until this was called, none does.
    pub fn moves(&self, movers: Arc<Notify>) {
        // Told twice, the first stays.
        let _ = self.movers.set(movers);
    }

    /// Begins to move an owner's keys; one that was `ordered` under an id, once.
    pub(super) fn begin(
        &self,
        (owner, operator): (&str, &str),
        host: &HostId,
        url: &str,
        ordered: Option<MigrationId>,
    ) -> Result<OwnerView, Why> {
        check_operator(operator)?;
        check_owner(owner)?;
        let movers = self.movers.get().ok_or(Refusal::PeersOff)?;
        let known = self.owner_record(owner)?.value;
        if ordered.is_some() && known.place.moving().map(|of| of.id) == ordered {
            return Ok(view(&known));
        }
        let id = match ordered {
            Some(id) => id,
            None => MigrationId(random::bytes().map_err(Fault::key)?),
        };
        let event = Event::Begin { id, peer: host.clone(), least: self.now() };
        let (record, _) = self.happened(owner, &event, |record, _| {
            record.at_rest();
            record.url = Some(url.to_owned());
            record.refused = None;
            Ok(())
        })?;
        // Before anything can fail: nobody else says that something is under way.
        movers.notify_one();
        let detail = format!("migration {id} to {host} at {url}");
        let subject = format!("owner:{owner}");
        self.journal.done(
            &format!("operator:{operator}"),
            "key-migration-begun",
            &subject,
            &detail,
        )?;
        Ok(view(&record))
    }

    /// Gives up a migration that has not let go of the keys.
    pub(super) fn cancel(&self, owner: &str, operator: &str) -> Result<OwnerView, Why> {
        check_operator(operator)?;
        let known = self.owner_record(owner)?.value;
        let of = known.place.moving().ok_or(Refusal::MigrationUnknown)?.clone();
        // Where keys were only expected, the offer is dropped; a source that comes again is late.
        let event = if matches!(known.place, Place::Ready(_)) {
            Event::Discard { of: of.clone() }
        } else {
            Event::Cancel { id: of.id }
        };
        let (record, _) = self.happened(owner, &event, |_, _| Ok(()))?;
        if let Some(movers) = self.movers.get() {
            movers.notify_one();
        }
        let (by, subject) = (format!("operator:{operator}"), format!("owner:{owner}"));
        let detail = format!("migration {}, with {}", of.id, of.peer);
        self.journal.done(&by, "key-migration-cancelled", &subject, &detail)?;
        Ok(view(&record))
    }

    /// Where an owner's keys are.
    pub(super) fn whereabouts(&self, owner: &str) -> Result<OwnerView, Why> {
        check_owner(owner)?;
        Ok(view(&self.owner_record(owner)?.value))
    }

    /// Owners whose keys are on the way from here.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn leaving(&self) -> Result<Vec<String>, Fault> {
        let records = self.library.records();
        let all = wait(records.all::<OwnerRecord>(OWNERS))?;
        let goes = |place: &Place| {
            matches!(
                place,
                Place::Offering(_)
                    | Place::Sending(_)
                    | Place::Released(_)
                    | Place::Withdrawing(..)
            )
        };
        Ok(all.into_iter().filter(|(_, one)| goes(&one.place)).map(|(_, one)| one.owner).collect())
    }

    /// What is to be said next about an owner's keys, if anything.
    ///
    /// # Errors
    /// [`Why`].
    pub fn outgoing(&self, owner: &str, own: &Own) -> Result<Option<Outgoing>, Why> {
        let (record, say) = self.happened(owner, &Event::Again, |_, _| Ok(()))?;
        let (Some(say), Some(of), Some(url)) = (say, record.place.moving().cloned(), &record.url)
        else {
            return Ok(None);
        };
        let mut statement = Statement {
            id: of.id,
            owner: owner.to_owned(),
            epoch: of.epoch,
            source: own.host.clone(),
            target: of.peer.clone(),
            verdict: own.verdict,
            body: Body::Offer,
        };
        statement.body = match say {
            Say::Offer => Body::Offer,
            Say::Parcel => match self.pack(&record, &statement) {
                Ok(body) => body,
                Err(why) => {
                    if let Some(end) = ended_by(&why) {
                        self.heard_refusal(owner, of.id, end)?;
                    }
                    return Err(why);
                }
            },
            Say::Activate => {
                self.clear(&self.standing_of(owner, &record.place)?, true)?;
                Body::Activate
            }
            Say::Discard => Body::Discard,
            Say::Ready | Say::Receipt | Say::Activated | Say::Discarded => return Ok(None),
        };
        Ok(Some(Outgoing { url: url.clone(), peer: of.peer, statement }))
    }

    /// The parcel, sealed for the target; its digest is in the record before it leaves.
    fn pack(&self, record: &OwnerRecord, statement: &Statement) -> Result<Body, Why> {
        let travelling = self.departing(record, statement)?;
        let content = self.gather(&record.owner, travelling.as_ref())?;
        if record.content != Some(content.digest) {
            self.happened(&record.owner, &Event::Again, |record, _| {
                record.content = Some(content.digest);
                record.travelling.clone_from(&travelling);
                Ok(())
            })?;
        }
        let (Some(key), Some(verdict)) = (&record.key, &record.target_verdict) else {
            return Err(Refusal::MigrationUnknown.into());
        };
        let info = migration::info(statement, &statement.verdict, verdict);
        let key = HpkePublic(key.0.clone());
        let sealed = hpke::seal(&key, &info, b"", content.bytes.expose()).map_err(Fault::key)?;
        Ok(Body::Parcel { enc: Bytes(sealed.enc), ciphertext: Bytes(sealed.ciphertext) })
    }

    /// What the target answered. `trusted`: how its host stands now.
    ///
    /// # Errors
    /// [`Why`].
    pub fn heard(&self, owner: &str, said: &Statement, trusted: bool) -> Result<(), Why> {
        let known = self.owner_record(owner)?.value;
        let of = known.place.moving().ok_or(Refusal::MigrationUnknown)?;
        if of.id != said.id || of.epoch != said.epoch || of.peer != said.target {
            return Err(Refusal::PeerWrong.into());
        }
        let id = said.id;
        let event = match &said.body {
            Body::Ready { .. } => Event::Ready { id, trusted },
            Body::Receipt { content } => {
                Event::Receipt { id, whole: known.content == Some(*content), trusted }
            }
            Body::Activated => Event::Activated { id },
            Body::Discarded => Event::Discarded { id },
            Body::Offer | Body::Parcel { .. } | Body::Activate | Body::Discard => {
                return Err(Refusal::PeerWrong.into());
            }
        };
        let (record, _) = self.happened(owner, &event, |record, _| {
            if let Body::Ready { key, parent } = &said.body {
                record.key = Some(key.clone());
                record.parent.clone_from(parent);
                record.target_verdict = Some(said.verdict);
            }
            Ok(())
        })?;
        if matches!(record.place, Place::Released(_)) {
            self.clear(&self.standing_of(owner, &record.place)?, true)?;
        }
        Ok(())
    }

    /// The target does not take them.
    ///
    /// # Errors
    /// [`Why`].
    pub fn heard_refusal(&self, owner: &str, id: MigrationId, why: Rejection) -> Result<(), Why> {
        self.happened(owner, &Event::Refused { id, why }, |_, _| Ok(())).map(drop)
    }

    /// Writes down that another service was refused before it was heard.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn note_refusal(&self, actor: &str, event: &str, name: &str) -> Result<(), Fault> {
        self.journal.named(actor, event, "peer", (name, ""))
    }

    /// The owner's record as long as it says this.
    fn standing_of(&self, owner: &str, place: &Place) -> Result<Standing, Why> {
        let Versioned { value, version } = self.owner_record(owner)?;
        if value.place == *place {
            Ok(Standing { owner: owner.to_owned(), version })
        } else {
            Err(Fault::Contended.into())
        }
    }

    /// Lets something happen: the step, what changes with it, and the record, in one transaction;
    /// then the audit entry.
    fn happened(
        &self,
        owner: &str,
        event: &Event,
        edit: impl Fn(&mut OwnerRecord, &Step) -> Result<(), Why>,
    ) -> Result<(OwnerRecord, Option<Say>), Why> {
        for _ in 0..TRIES {
            let Versioned { value: before, version } = self.owner_record(owner)?;
            let step = migration::step(&before.place, event.clone()).map_err(refusal)?;
            let mut record = before.clone();
            record.place = step.place.clone();
            edit(&mut record, &step)?;
            if let Place::Withdrawing(_, why) = &record.place {
                record.refused = Some(*why);
            }
            if matches!(record.place, Place::Released(_)) {
                record.travelling = None;
            }
            if record.place.moving().is_none() && before.place.moving().is_some() {
                record.at_rest();
            }
            let same = record.place == before.place && record.content == before.content;
            if same && record.key == before.key {
                return Ok((record, step.say));
            }
            let write = Write::new().put(owner::place(owner)?, &record, version)?;
            if !self.library.commit(write)? {
                continue;
            }
            if record.place != before.place {
                self.moved(&record, before.place.moving())?;
            }
            return Ok((record, step.say));
        }
        Err(Fault::Contended.into())
    }

    /// Writes down where the keys are now.
    fn moved(&self, record: &OwnerRecord, before: Option<&Move>) -> Result<(), Why> {
        let subject = format!("owner:{}", record.owner);
        let of = record.place.moving().or(before);
        let detail = of.map_or_else(String::new, |of| {
            format!("migration {}, with {}, epoch {}", of.id, of.peer, of.epoch)
        });
        let event = format!("key-migration-{}", record.place.name());
        self.journal.done("trust", &event, &subject, &detail)?;
        self.anchor.later();
        if let Place::Withdrawing(_, why) = &record.place {
            self.journal.refused("trust", EVENT, &subject, refusal(*why))?;
        }
        Ok(())
    }
}

/// What a migration ends with if its parcel cannot be made for this reason.
const fn ended_by(why: &Why) -> Option<Rejection> {
    match why {
        Why::Refused(Refusal::OwnerTooLarge) => Some(Rejection::ParcelUnfit),
        Why::Refused(Refusal::KeyParentForeign) => Some(Rejection::KeyParentForeign),
        Why::Refused(Refusal::KeyParentMissing) => Some(Rejection::KeyParentMissing),
        Why::Refused(Refusal::ParcelUnfit) => Some(Rejection::ParcelUnfit),
        Why::Refused(Refusal::PeerUntrusted) => Some(Rejection::PeerUntrusted),
        Why::Refused(_) | Why::Fault(_) => None,
    }
}

fn view(record: &OwnerRecord) -> OwnerView {
    OwnerView {
        owner: record.owner.clone(),
        place: record.place.clone(),
        refused: record.refused.map(|why| why.code().to_owned()),
    }
}
