//! The host's TPM through its agent, on the agent's unix socket.

use std::{io, path::Path};

use model::{
    HostId, MigrationId, Secret,
    agent::resident::{Agreed, Agreement, Departure, ParentFor, ResidentKey, Travelling},
    api::{Bytes, duplication::StorageParent},
};
use serde::{Serialize, de::DeserializeOwned};
use serve::{
    client::{Call, Client, ClientLimits},
    exit::chain,
};
use tokio::runtime::{Builder, Runtime};

use super::{HostKeyError, HostKeys};

/// The agent on its socket.
#[derive(Debug)]
pub struct AgentKeys {
    client: Client,
    /// Taken out only at the end.
    runtime: Option<Runtime>,
}

impl AgentKeys {
    /// The agent that listens on `socket`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn at(socket: &Path) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("host-keys").enable_all().build()?;
        let limits = ClientLimits { attempts: 1, ..ClientLimits::default() };
        Ok(Self { client: Client::unix(socket, limits), runtime: Some(runtime) })
    }

    fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, HostKeyError> {
        let over = || HostKeyError::Away("it is over".to_owned());
        let runtime = self.runtime.as_ref().ok_or_else(over)?;
        let call = Call::post(path).json(body);
        let answer = call.and_then(|call| runtime.block_on(self.client.call(call)));
        answer.map_err(|error| match error.refusal() {
            Some(name) => HostKeyError::Refused(name.to_owned()),
            None => HostKeyError::Away(chain(&error).to_string()),
        })
    }
}

impl Drop for AgentKeys {
    fn drop(&mut self) {
        // It may be dropped where nothing may block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl HostKeys for AgentKeys {
    fn make(&self) -> Result<ResidentKey, HostKeyError> {
        self.post("/v1/keys", &serde_json::json!({}))
    }

    fn agree(&self, blob: &Bytes, point: &Bytes) -> Result<Secret<Vec<u8>>, HostKeyError> {
        let asked = Agreement { blob: blob.clone(), point: point.clone() };
        let agreed: Agreed = self.post("/v1/keys/agree", &asked)?;
        Ok(agreed.secret.0)
    }

    fn parent(&self, id: MigrationId, source: &HostId) -> Result<StorageParent, HostKeyError> {
        let asked = ParentFor { migration: id, source: source.clone() };
        self.post("/v1/keys/parent", &asked)
    }

    fn depart(&self, departure: &Departure) -> Result<Travelling, HostKeyError> {
        self.post("/v1/keys/duplicate", departure)
    }

    fn arrive(&self, came: &Travelling) -> Result<ResidentKey, HostKeyError> {
        self.post("/v1/keys/import", came)
    }
}
