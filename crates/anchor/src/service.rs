//! What a service does with its anchor: opens its store at a start, if it is the newest there is,
//! and after an operator put a backup back, makes that one the newest.
//!
//! ```text
//!   record in the store, or head │ counter │ at a start
//!   neither                      │ unused  │ anchored for the first time, then the record
//!   one of them                  │ there   │ store::head::check: the newest, or refused
//!   one of them                  │ none    │ store-anchor-missing
//! ```
//!
//! **Invariant:** the record in the store says that it was anchored, so that neither a removed head
//! nor a changed configuration makes a new store of an old one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{AuditEvent, Incarnation, agent::RefusedStore, api::service::Service};
use serde::{Deserialize, Serialize};
use serve::{clock::SharedClock, exit::chain, fsfile};
use store::{
    Revision, StoreId,
    audit::AuditLog,
    typed::{Place, Records, Write},
};
use tpm::Actor;

use crate::{
    agent::AgentCounter,
    anchored::Anchored,
    counter::{Counter, CounterError, TpmCounter},
    fault::AnchorFault,
    follow::{Anchoring, Following},
    ground::{Ground, Signing},
    settings::Bound,
};

/// Where the record is.
const RECORD: &str = "anchored";
/// The head, in the state directory.
const HEAD: &str = "head.json";
/// How long a start waits for who keeps the counter, and between two tries.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(250));

/// That the store was anchored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Counts the explicit restores, from 1.
    incarnation: Incarnation,
}

/// What a service's anchor stands on.
#[derive(Debug)]
pub struct Stand {
    /// Which service.
    service: Service,
    /// Its records.
    records: Records,
    /// Its audit log.
    log: Arc<AuditLog>,
    /// Signs heads.
    signing: Signing,
    /// Stamps them.
    clock: SharedClock,
    /// The state directory.
    dir: PathBuf,
    /// Where to anchor, and when.
    anchoring: Anchoring,
}

/// What an operator made the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The store.
    pub store: StoreId,
    /// Its last commit.
    pub revision: Revision,
    /// What began with the restore.
    pub incarnation: Incarnation,
}

/// The counter of one store.
enum Counts {
    Agent(Arc<AgentCounter>),
    Tpm(Arc<TpmCounter>),
}

impl Counts {
    fn counter(&self) -> Arc<dyn Counter> {
        match self {
            Self::Agent(counter) => Arc::clone(counter) as Arc<dyn Counter>,
            Self::Tpm(counter) => Arc::clone(counter) as Arc<dyn Counter>,
        }
    }
}

impl Stand {
    /// The anchor of a service whose state is in `dir`.
    #[must_use]
    pub fn new(
        service: Service,
        (records, log): (&Records, Arc<AuditLog>),
        signing: Signing,
        (dir, clock): (&Path, &SharedClock),
        anchoring: Anchoring,
    ) -> Self {
        let (records, clock, dir) = (records.clone(), clock.clone(), dir.to_owned());
        Self { service, records, log, signing, clock, dir, anchoring }
    }

    /// Opens the store, if it is the newest there is; a refusal is in the audit log of this state
    /// and, through the agent, in that of the authority.
    ///
    /// # Errors
    /// [`AnchorFault`]; if [`AnchorFault::refusal`] has a name, the service must not start.
    pub async fn open(self) -> Result<Following, AnchorFault> {
        let store = self.store().await?;
        let counts = self.counts(store)?;
        let opened = self.anchored(counts.as_ref()).await;
        match opened {
            Ok(Some(anchored)) => {
                let Anchoring { pace, shutdown, .. } = self.anchoring;
                Ok(Following::new(anchored.spawn(pace, shutdown)))
            }
            Ok(None) => {
                tracing::warn!("the store is not anchored: an older copy of it is not noticed");
                Ok(Following::nobody())
            }
            Err(fault) => {
                self.tell(&fault, counts.as_ref()).await;
                Err(fault)
            }
        }
    }

    /// Makes the store as it is the newest: after an operator put a backup back, or the TPM was
    /// replaced. What else must be done first is for the service to do.
    ///
    /// # Errors
    /// [`AnchorFault`].
    pub async fn restore(self, operator: &str) -> Result<Restored, AnchorFault> {
        let store = self.store().await?;
        let counts = self.counts(store)?;
        let held = self.records.get(&place()?).await?;
        let known = held.as_ref().map_or(Incarnation(0), |held| held.value.incarnation);
        // A head that is not ours, or damaged, says nothing about incarnations.
        let said = match &counts {
            Some(counts) => self.ground(counts, known).newest_incarnation(),
            None => Ok(known),
        };
        let incarnation = Incarnation(known.max(said.unwrap_or(known)).0.saturating_add(1));
        let version = held.map_or(0, |held| held.version);
        let write = Write::new().put(place()?, &Record { incarnation }, version)?;
        self.records.commit(write).await?;
        let detail = format!("incarnation {}", incarnation.0);
        self.note(
            AuditEvent::done(
                self.clock.unix_ms(),
                format!("operator:{operator}"),
                "store-restored",
                self.service.as_str(),
            )
            .detail(detail),
        )
        .await?;
        match &counts {
            Some(counts) => {
                let mut anchored = Anchored::first(self.ground(counts, incarnation)).await?;
                anchored.advance().await?;
            }
            None => self.forget().await?,
        }
        let revision = self.records.sealed().store().state().await?.revision;
        Ok(Restored { store, revision, incarnation })
    }

    async fn store(&self) -> Result<StoreId, AnchorFault> {
        Ok(self.records.sealed().store().state().await?.id)
    }

    fn counts(&self, store: StoreId) -> Result<Option<Counts>, AnchorFault> {
        Ok(match &self.anchoring.bound {
            Bound::None => None,
            Bound::Agent(socket) => {
                Some(Counts::Agent(Arc::new(AgentCounter::new(socket, self.service, store))))
            }
            Bound::Tpm(address, index) => {
                let actor = Actor::start(address.clone());
                let actor = actor.map_err(|e| CounterError::Failed(Box::new(e)))?;
                Some(Counts::Tpm(Arc::new(TpmCounter::new(actor, *index))))
            }
        })
    }

    fn ground(&self, counts: &Counts, incarnation: Incarnation) -> Ground {
        Ground {
            store: Arc::clone(self.records.sealed().store()),
            log: Arc::clone(&self.log),
            counter: counts.counter(),
            signing: self.signing.clone(),
            clock: self.clock.clone(),
            head: self.dir.join(HEAD),
            witness: self.anchoring.witness.clone(),
            incarnation,
        }
    }

    async fn anchored(&self, counts: Option<&Counts>) -> Result<Option<Anchored>, AnchorFault> {
        let record = self.records.get(&place()?).await?;
        let used = record.is_some() || self.dir.join(HEAD).exists();
        let Some(counts) = counts else {
            return if used { Err(AnchorFault::Unanchored) } else { Ok(None) };
        };
        let incarnation = record.as_ref().map_or(Incarnation(1), |held| held.value.incarnation);
        let began = self.clock.monotonic();
        let anchored = loop {
            let ground = self.ground(counts, incarnation);
            let opened =
                if used { Anchored::resume(ground).await } else { Anchored::unused(ground).await };
            let waited = self.clock.monotonic().saturating_sub(began);
            match opened {
                Err(fault) if fault.is_away() && waited < PATIENCE.0 => {
                    tracing::info!(error = chain(&fault), "waiting for the store's counter");
                    tokio::time::sleep(PATIENCE.1).await;
                }
                other => break other?,
            }
        };
        if record.is_none() {
            let write = Write::new().put(place()?, &Record { incarnation }, 0)?;
            self.records.commit(write).await?;
        }
        Ok(Some(anchored))
    }

    /// The store is not anchored any more, as an operator chose.
    async fn forget(&self) -> Result<(), AnchorFault> {
        if let Some(held) = self.records.get(&place()?).await? {
            self.records.commit(Write::new().delete(place()?, held.version)).await?;
        }
        Ok(fsfile::remove(&self.dir.join(HEAD))?)
    }

    /// Has a refusal audited, here and at the agent.
    async fn tell(&self, fault: &AnchorFault, counts: Option<&Counts>) {
        let Some((name, hint)) = fault.refusal() else { return };
        let (service, detail) = (self.service.as_str(), chain(fault).to_string());
        let event = format!("{service}-start");
        let at = self.clock.unix_ms();
        let event = AuditEvent::refused(at, service, event, service, name);
        if let Err(error) = self.note(event.detail(detail.clone()).hint(hint)).await {
            tracing::error!(error = chain(&error), "the refusal is not in the audit log");
        }
        if let Some(Counts::Agent(agent)) = counts {
            let refused = RefusedStore { refused: name.to_owned(), detail };
            if let Err(error) = agent.tell_refused(&refused).await {
                tracing::error!(error = chain(&error), "the agent was not told of the refusal");
            }
        }
    }

    async fn note(&self, event: AuditEvent) -> Result<(), AnchorFault> {
        let event = event.bounded().map_err(|e| AnchorFault::Audit(Box::new(e)))?;
        self.log.append(event).await.map(drop).map_err(|e| AnchorFault::Audit(Box::new(e)))
    }
}

fn place() -> Result<Place<Record>, AnchorFault> {
    Ok(Place::at(RECORD)?)
}
