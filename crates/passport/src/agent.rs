//! Where passports come from: the agent of this host.

use std::{fmt::Debug, path::Path};

use futures_util::future::BoxFuture;
use model::{
    HostId,
    api::{
        Bytes,
        service::{Certified, HostStanding, Service, ServiceKey},
    },
};
use serve::client::{CallError, Client, ClientLimits};

/// What a [`Certifier`] gives: a passport, once it is there.
pub type Certifying<'a, T> = BoxFuture<'a, Result<T, CallError>>;

/// Certifies keys of this host's services, and knows how other hosts stand.
pub trait Certifier: Debug + Send + Sync {
    /// A passport for the key (SubjectPublicKeyInfo, DER).
    fn certify<'a>(&'a self, service: Service, spki: &'a [u8]) -> Certifying<'a, Certified>;

    /// Whether the services of a host are to be trusted now.
    fn standing<'a>(&'a self, host: &'a HostId) -> Certifying<'a, HostStanding>;
}

/// The agent of this host, on its unix socket.
#[derive(Clone, Debug)]
pub struct Agent {
    client: Client,
}

impl Agent {
    /// The agent that listens on `socket`.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self { client: Client::unix(socket, ClientLimits::default()) }
    }
}

impl Certifier for Agent {
    fn certify<'a>(&'a self, service: Service, spki: &'a [u8]) -> Certifying<'a, Certified> {
        Box::pin(async move {
            let key = ServiceKey { spki: Bytes(spki.to_vec()) };
            self.client.post(&format!("/v1/services/{service}/certify"), &key).await
        })
    }

    fn standing<'a>(&'a self, host: &'a HostId) -> Certifying<'a, HostStanding> {
        Box::pin(async move { self.client.get(&format!("/v1/standing/{host}")).await })
    }
}
