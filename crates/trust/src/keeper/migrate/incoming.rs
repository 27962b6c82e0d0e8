//! The target's part: what a source says, and what it is answered.

use std::sync::PoisonError;

use model::{
    Digest, Secret,
    api::Bytes,
    keys::order::SecretBytes,
    migration::{self, Body, Change, Event, Move, Place, Rejection, Statement},
};
use serve::hpke::{self, HpkePrivate, Sealed};
use store::typed::Versioned;

use super::{
    super::{
        Keeper,
        authorize::check_owner,
        owner::OwnerRecord,
        parcel::{Standing, digest_of},
        refusal::{Fault, Refusal, Why},
    },
    EVENT, Own,
};

impl Keeper {
    /// What a source says; what it is answered. `trusted`: how its host stands now.
    ///
    /// # Errors
    /// [`Why`]; a refusal is in the audit log.
    pub fn incoming(&self, said: &Statement, own: &Own, trusted: bool) -> Result<Statement, Why> {
        let outcome = self.answered_to(said, own, trusted);
        if let Err(Why::Refused(refusal)) = &outcome {
            let subject = format!("owner:{}", said.owner);
            let actor = format!("service:trust:{}", said.source);
            self.journal.refused(&actor, EVENT, &subject, *refusal)?;
        }
        outcome
    }

    fn answered_to(&self, said: &Statement, own: &Own, trusted: bool) -> Result<Statement, Why> {
        check_owner(&said.owner)?;
        if said.target != own.host || said.source == own.host {
            return Err(Refusal::PeerWrong.into());
        }
        self.check_epoch(said.epoch)?;
        let of = Move { id: said.id, peer: said.source.clone(), epoch: said.epoch };
        let _one = self.migrating.lock().unwrap_or_else(PoisonError::into_inner);
        let body = match &said.body {
            Body::Offer => self.ready(&said.owner, of, own, trusted)?,
            Body::Parcel { enc, ciphertext } => {
                let sealed = Sealed { enc: enc.0.clone(), ciphertext: ciphertext.0.clone() };
                self.hold(said, of, &sealed)?
            }
            Body::Activate => {
                let (record, _) =
                    self.happened(&said.owner, &Event::Activate { of }, |record, step| {
                        if step.change == Some(Change::Take) {
                            record.at_rest();
                        }
                        Ok(())
                    })?;
                if matches!(record.place, Place::Here { .. }) {
                    self.arrived(&said.owner)?;
                }
                Body::Activated
            }
            Body::Discard => {
                self.discard(&said.owner, of)?;
                Body::Discarded
            }
            Body::Ready { .. } | Body::Receipt { .. } | Body::Activated | Body::Discarded => {
                return Err(Refusal::PeerWrong.into());
            }
        };
        Ok(Statement { verdict: own.verdict, body, ..said.clone() })
    }

    /// Drops what was offered here and is not to come. What was never announced leaves no trace.
    fn discard(&self, owner: &str, of: Move) -> Result<(), Why> {
        let known = self.owner_record(owner)?.value.place;
        let theirs = known.moving().is_some_and(|one| one.peer == of.peer);
        if !theirs && self.expected(owner, &of.peer)?.is_none() {
            return Ok(());
        }
        let (record, _) = self.happened(owner, &Event::Discard { of }, |_, _| Ok(()))?;
        if known.moving().is_some() && matches!(record.place, Place::Absent { .. }) {
            self.clear(&self.standing_of(owner, &record.place)?, false)?;
        }
        Ok(())
    }

    /// A key for the parcel: made once for each migration that was announced.
    fn ready(&self, owner: &str, of: Move, own: &Own, trusted: bool) -> Result<Body, Why> {
        let known = self.owner_record(owner)?.value.place;
        if known.moving() != Some(&of) && self.expected(owner, &of.peer)?.is_none() {
            return Err(Refusal::MigrationUnexpected.into());
        }
        let (id, source) = (of.id, of.peer.clone());
        let (record, _) = self.happened(owner, &Event::Offer { of, trusted }, |record, step| {
            if step.change == Some(Change::MakeKey) {
                let (private, public) = hpke::generate().map_err(Fault::key)?;
                record.private = Some(SecretBytes::new(private.secret().clone()));
                record.key = Some(Bytes(public.0));
                record.target_verdict = Some(own.verdict);
                record.content = None;
            }
            Ok(())
        })?;
        let key = record.key.ok_or(Refusal::MigrationUnknown)?;
        Ok(Body::Ready { key, parent: self.parent_for(id, &source)? })
    }

    /// Stores what is in a parcel; nobody is answered from it yet.
    fn hold(&self, said: &Statement, of: Move, sealed: &Sealed) -> Result<Body, Why> {
        let Versioned { value: record, version } = self.owner_record(&said.owner)?;
        let mut digest = record.content;
        let mut unfit = None;
        if matches!(&record.place, Place::Ready(one) if *one == of) {
            match self.put_down(&record, version, said, sealed) {
                Ok(content) => digest = Some(content),
                // Nothing is wrong with the parcel: the source says it again.
                Err(Why::Refused(Refusal::KeyTpmAway)) => return Err(Refusal::KeyTpmAway.into()),
                Err(Why::Refused(Refusal::IssuerUnknown)) => {
                    unfit = Some(Rejection::IssuerUnknown);
                }
                Err(Why::Refused(_)) => unfit = Some(Rejection::ParcelUnfit),
                Err(fault) => return Err(fault),
            }
        }
        let event = Event::Parcel { of, unfit };
        let (record, _) = self.happened(&said.owner, &event, |record, step| {
            if step.change == Some(Change::Hold) {
                record.content = digest;
                record.private = None;
            }
            Ok(())
        })?;
        let content = record.content.ok_or(Refusal::MigrationUnknown)?;
        Ok(Body::Receipt { content })
    }

    /// Opens a parcel, looks at all of it, and writes it in the place of what was left there.
    fn put_down(
        &self,
        record: &OwnerRecord,
        version: u64,
        said: &Statement,
        sealed: &Sealed,
    ) -> Result<Digest, Why> {
        let content = unsealed(record, said, sealed)?;
        let announced = self.expected(&said.owner, &said.source)?.and_then(|one| one.ca);
        let unpacked = self.unpack(&said.owner, &content, announced.as_ref())?;
        let standing = Standing { owner: said.owner.clone(), version };
        self.clear(&standing, false)?;
        self.put(&said.owner, &unpacked, &standing)?;
        if unpacked.dropped > 0 {
            let subject = format!("owner:{}", said.owner);
            let detail = format!("{} pass phrases and orders of no binding", unpacked.dropped);
            self.journal.done("trust", "key-migration-dropped", &subject, &detail)?;
        }
        Ok(digest_of(content.expose()))
    }
}

/// Opens a parcel with the key that was made for it.
fn unsealed(
    record: &OwnerRecord,
    said: &Statement,
    sealed: &Sealed,
) -> Result<Secret<Vec<u8>>, Refusal> {
    let (Some(private), Some(verdict)) = (&record.private, &record.target_verdict) else {
        return Err(Refusal::MigrationUnknown);
    };
    let info = migration::info(said, &said.verdict, verdict);
    let private = HpkePrivate::from_secret(private.0.clone());
    hpke::open(&private, sealed, &info, b"").map_err(|_| Refusal::ParcelUnfit)
}
