//! A counter that the host's agent keeps, in the table that its TPM anchors (ADR 0011).

use std::path::Path;

use model::{
    agent::{CounterAdvance, CounterValue, RefusedStore},
    api::service::Service,
};
use serve::client::{CallError, Client, ClientLimits};
use store::StoreId;

use crate::counter::{Begun, Counter, CounterError, Counting};

/// The counter of one store of one service of this host.
#[derive(Clone, Debug)]
pub struct AgentCounter {
    client: Client,
    path: String,
}

impl AgentCounter {
    /// At the agent that listens on `socket`.
    #[must_use]
    pub fn new(socket: &Path, service: Service, store: StoreId) -> Self {
        let path = format!("/v1/counters/{service}/{store}");
        Self { client: Client::unix(socket, ClientLimits::default()), path }
    }

    /// Has a refused start audited where the host's events go: what is in a state directory that
    /// was put back is put back with it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn tell_refused(&self, refused: &RefusedStore) -> Result<(), CallError> {
        self.client.post(&format!("{}/refused", self.path), refused).await
    }
}

impl Counter for AgentCounter {
    fn define(&self) -> Counting<'_, Begun> {
        Box::pin(async move {
            let begun: CounterValue =
                self.client.post(&format!("{}/begin", self.path), &()).await.map_err(failed)?;
            // The agent counts each store from zero: nothing was anchored there yet.
            Ok(Begun { value: begun.count, fresh: begun.count == 0 })
        })
    }

    fn read(&self) -> Counting<'_, u64> {
        Box::pin(async move {
            let value: CounterValue = self.client.get(&self.path).await.map_err(failed)?;
            Ok(value.count)
        })
    }

    fn increment(&self, from: u64) -> Counting<'_, u64> {
        Box::pin(async move {
            let advance = CounterAdvance { from };
            let path = format!("{}/advance", self.path);
            let value: CounterValue = self.client.post(&path, &advance).await.map_err(failed)?;
            Ok(value.count)
        })
    }
}

fn failed(error: CallError) -> CounterError {
    match error.refusal().map(str::to_owned) {
        Some(name) if name == "anchor-missing" => CounterError::Missing,
        Some(name) if name != "authority-away" => {
            CounterError::Refused { name, source: Box::new(error) }
        }
        _ => CounterError::Failed(Box::new(error)),
    }
}
