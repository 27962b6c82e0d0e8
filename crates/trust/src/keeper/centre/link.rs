//! The centre over HTTPS, each side with its passport.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{
    HostId, MigrationId, OrderId,
    api::service::Service,
    centre::{CentreOrder, CentreProgress, CentreQuestion, Feed, Hello, MigrationReport, Welcome},
    keys::Found,
};
use passport::{Current, Passport};
use pki::Wanted;
use serde::{Serialize, de::DeserializeOwned};
use serve::{
    client::{Call, CallError, Client, ClientLimits},
    exit::chain,
};
use tokio::runtime::{Builder, Runtime};

use super::{Centre, CentreError, held};

/// How long the centre may take for an answer beyond what it was told to wait.
const ANSWER: Duration = Duration::from_secs(5);

/// The centre at a URL.
#[derive(Debug)]
pub struct CentreLink {
    url: String,
    /// Where other trust services reach us; empty if they do not.
    peer_url: String,
    passport: Passport,
    /// Taken out only at the end.
    runtime: Option<Runtime>,
    client: Mutex<Option<(u64, Client)>>,
}

impl CentreLink {
    /// The centre at `url` (`https://HOST:PORT`), to which `passport` is shown; other trust services
    /// reach this one at `peer_url`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn new(url: &str, peer_url: Option<String>, passport: Passport) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("centre").enable_all().build()?;
        let (url, client) = (url.to_owned(), Mutex::default());
        let peer_url = peer_url.unwrap_or_default();
        Ok(Self { url, peer_url, passport, runtime: Some(runtime), client })
    }

    /// The client with the newest passport.
    fn client(&self) -> Result<Client, CentreError> {
        let current = self.passport.current();
        let current: Arc<Current> = current.ok_or_else(|| {
            let why = self.passport.trouble().unwrap_or_else(|| "none was issued yet".to_owned());
            CentreError::Away(format!("no passport: {why}"))
        })?;
        let mut kept = held(&self.client);
        if let Some((generation, client)) = kept.as_ref()
            && *generation == current.generation
        {
            return Ok(client.clone());
        }
        let limits = ClientLimits { attempts: 1, answer: ANSWER, ..ClientLimits::default() };
        let wanted = Wanted::any(Service::Centre);
        let client = self.passport.client(&current, &self.url, wanted, limits);
        let client = client.map_err(|error| CentreError::Away(chain(&error).to_string()))?;
        *kept = Some((current.generation, client.clone()));
        Ok(client)
    }

    fn call<T: DeserializeOwned>(&self, call: Result<Call, CallError>) -> Result<T, CentreError> {
        let client = self.client()?;
        let runtime = self.runtime.as_ref();
        let runtime = runtime.ok_or_else(|| CentreError::Away("it is over".to_owned()))?;
        call.and_then(|call| runtime.block_on(client.call(call))).map_err(|error| {
            match (error.problem(), error.refusal()) {
                (Some(problem), _) if problem.status == 429 => CentreError::Busy,
                (_, Some(name)) => CentreError::Refused(name.to_owned()),
                (Some(problem), None) if problem.status < 500 => {
                    CentreError::Refused(problem.name.clone())
                }
                _ => CentreError::Away(chain(&error).to_string()),
            }
        })
    }

    /// Everything that is posted may come twice: orders and reports have ids.
    fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, CentreError> {
        self.call(Call::post(path).json(body).map(Call::idempotent))
    }
}

impl Drop for CentreLink {
    fn drop(&mut self) {
        // It may be dropped where nothing may block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Centre for CentreLink {
    fn host(&self) -> Option<HostId> {
        self.passport.current().map(|current| current.host.clone())
    }

    fn hello(&self) -> Result<Welcome, CentreError> {
        self.post("/v1/services/hello", &Hello { peer_url: self.peer_url.clone() })
    }

    fn submit(&self, order: &CentreOrder) -> Result<CentreProgress, CentreError> {
        self.post("/v1/orders", order)
    }

    fn progress(&self, id: OrderId, wait: Duration) -> Result<CentreProgress, CentreError> {
        let call = Call::get(format!("/v1/orders/{id}?wait_s={}", wait.as_secs()));
        self.call(Ok(call.answer_within(wait.saturating_add(ANSWER))))
    }

    fn ask(&self, question: &CentreQuestion) -> Result<Found, CentreError> {
        self.post("/v1/questions", question)
    }

    fn report(&self, id: MigrationId, report: &MigrationReport) -> Result<(), CentreError> {
        self.post(&format!("/v1/migrations/{id}/report"), report)
    }

    fn feed(&self, after: u64, wait: Duration) -> Result<Feed, CentreError> {
        let call = Call::get(format!("/v1/feed?after={after}&wait_s={}", wait.as_secs()));
        self.call(Ok(call.answer_within(wait.saturating_add(ANSWER))))
    }
}
