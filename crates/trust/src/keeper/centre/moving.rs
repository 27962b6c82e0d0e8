//! Migrations that the centre orders: on record before the news are taken as read, begun once under
//! the centre's own id, and what became of them reported.

use model::{
    centre::{MigrationOrder, MigrationReport, MigrationStage},
    migration::Place,
};
use serde::{Deserialize, Serialize};
use store::typed::{Place as Record, RecordError, Versioned, Write};
use store::wait;

use super::{CentreError, Line};
use crate::keeper::{
    Keeper,
    refusal::{Fault, Refusal, Why},
    retried,
};

/// Beginning of the keys of these records.
pub(in crate::keeper) const MIGRATIONS: &str = "centre/migration/";

/// A migration that the centre ordered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::keeper) struct MovingRecord {
    order: MigrationOrder,
    /// When it was heard of.
    pub(in crate::keeper) at: u64,
    begun: bool,
    /// What the centre was told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<MigrationStage>,
}

impl MovingRecord {
    /// Whether there is nothing more to say about it.
    pub(in crate::keeper) const fn is_over(&self) -> bool {
        matches!(self.told, Some(MigrationStage::Active | MigrationStage::Refused))
    }
}

fn place(order: &MigrationOrder) -> Result<Record<MovingRecord>, RecordError> {
    Record::at(format!("{MIGRATIONS}{}", order.id))
}

impl Keeper {
    /// Puts a migration from here on record, and expects one that comes here; said twice, it is the
    /// same.
    pub(super) fn take_migration(&self, line: &Line, order: MigrationOrder) -> Result<(), Fault> {
        let ours = line.centre.host();
        if ours.as_ref() == Some(&order.to.host) {
            return self.expect_ordered(&order);
        }
        if ours.as_ref() != Some(&order.from.host) {
            return Ok(());
        }
        let at = place(&order)?;
        if self.library.get(&at)?.is_some() {
            return Ok(());
        }
        let heard = MovingRecord { order, at: self.now(), begun: false, told: None };
        let write = Write::new().put(at, &heard, 0)?;
        if self.library.commit(write)? { Ok(()) } else { Err(Fault::Contended) }
    }

    /// Keys are to come here: their offer is taken.
    fn expect_ordered(&self, order: &MigrationOrder) -> Result<(), Fault> {
        let who = (order.owner.as_str(), "centre");
        match retried(|| self.expect(who, &order.from.host, None)) {
            Ok(_) => Ok(()),
            Err(Why::Fault(fault)) => Err(fault),
            Err(Why::Refused(refusal)) => {
                let subject = format!("owner:{}", order.owner);
                self.journal.refused("centre", "key-migration", &subject, refusal)
            }
        }
    }

    /// Begins what is on record, and reports what became of it; whether something is still open.
    pub(super) fn see_to_migrations(&self, line: &Line) -> Result<bool, Fault> {
        let records = self.library.records();
        let all = wait(records.all::<MovingRecord>(MIGRATIONS))?;
        let mut open = false;
        for (_, one) in all.into_iter().filter(|(_, one)| !one.is_over()) {
            open = true;
            let known = self.library.get(&place(&one.order)?)?;
            let Some(Versioned { mut value, version }) = known else { continue };
            let before = (value.begun, value.told);
            let report = if value.begun {
                self.stage(&value.order)?
            } else {
                let begun = self.begin_ordered(&value.order)?;
                value.begun = begun.is_some();
                begun.flatten()
            };
            match report.filter(|report| value.told != Some(report.stage)) {
                None => {}
                Some(report) => match line.call(|centre| centre.report(value.order.id, &report)) {
                    Ok(()) => value.told = Some(report.stage),
                    // It knows nothing of it any more: there is nobody to tell.
                    Err(CentreError::Refused(name)) => {
                        tracing::warn!(name, "a report about a migration was refused");
                        value.told = Some(report.stage);
                    }
                    Err(CentreError::Away(_) | CentreError::Busy) => {}
                },
            }
            if (value.begun, value.told) == before {
                continue;
            }
            let write = Write::new().put(place(&value.order)?, &value, version)?;
            if !self.library.commit(write)? {
                return Err(Fault::Contended);
            }
        }
        Ok(open)
    }

    /// Begins it: `None` if that is not possible yet, else what to report of it at once.
    fn begin_ordered(
        &self,
        order: &MigrationOrder,
    ) -> Result<Option<Option<MigrationReport>>, Fault> {
        let who = (order.owner.as_str(), "centre");
        let (host, url) = (&order.to.host, order.to.peer_url.as_str());
        match retried(|| self.begin(who, host, url, Some(order.id))) {
            Ok(_) => Ok(Some(None)),
            Err(Why::Refused(Refusal::PeersOff)) => Ok(None),
            Err(Why::Fault(fault)) => Err(fault),
            Err(Why::Refused(refusal)) => {
                let subject = format!("owner:{}", order.owner);
                self.journal.refused("centre", "key-migration", &subject, refusal)?;
                Ok(Some(Some(refused(Some(refusal.name())))))
            }
        }
    }

    /// What to report of one that was begun.
    fn stage(&self, order: &MigrationOrder) -> Result<Option<MigrationReport>, Fault> {
        let record = self.owner_record(&order.owner).map_err(|why| match why {
            Why::Fault(fault) => fault,
            Why::Refused(refusal) => Fault::ca(refusal),
        })?;
        let record = record.value;
        let plain = |stage| Some(MigrationReport { stage, refusal: None });
        Ok(match &record.place {
            Place::Released(of) if of.id == order.id => plain(MigrationStage::Gone),
            Place::Absent { .. } => plain(MigrationStage::Active),
            Place::Here { .. } => Some(refused(record.refused.map(|why| why.code()))),
            Place::Offering(_)
            | Place::Sending(_)
            | Place::Withdrawing(..)
            | Place::Released(_)
            | Place::Ready(_)
            | Place::Held(_) => None,
        })
    }
}

fn refused(name: Option<&str>) -> MigrationReport {
    MigrationReport { stage: MigrationStage::Refused, refusal: name.map(str::to_owned) }
}
