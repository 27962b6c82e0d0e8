//! The trust services of other servers: what they may ask of this one, and what this one says to
//! them. Both ends of every connection show passports; every statement is signed by one.
//!
//! ```text
//! source: mover ── Signed statement ──► target: listener ─► Keeper::incoming
//!                ◄── Signed statement ──
//! ```
//!
//! **Invariants:** a peer is a trust service of this authority, on the host that a statement names;
//! whether that host is trusted *now* is asked of the authority before keys are offered, taken, sent
//! or released. While the authority is away, nothing moves on, and nothing is given up.

mod listener;
mod mover;
mod statement;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use passport::Passport;
use serde::Deserialize;
use serve::{
    exit::chain,
    fsfile,
    https::{Limits, Server},
    shutdown::Shutdown,
};
use tokio::sync::Notify;

use crate::keeper::Keeper;

/// Longest request: a parcel in base 64, twice.
const BODY: usize = 24 << 20;

/// The table `[peer]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSettings {
    /// Where to listen for other trust services; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Where the bound address is written.
    #[serde(default)]
    pub address_file: Option<PathBuf>,
}

/// A listener that is bound, before anybody is let in.
#[derive(Debug)]
pub struct Peers {
    listener: TcpListener,
    address: SocketAddr,
}

impl Peers {
    /// Binds.
    ///
    /// # Errors
    /// If it cannot listen, or the address not be written.
    pub fn bind(settings: &PeerSettings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen)?;
        let address = listener.local_addr()?;
        if let Some(file) = &settings.address_file {
            fsfile::write_atomic(file, address.to_string().as_bytes(), 0o600)
                .map_err(io::Error::other)?;
        }
        Ok(Self { listener, address })
    }

    /// The address that was bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Speaks to other trust services until `shutdown`: listens once there is a passport, and goes
    /// on with migrations that are under way.
    pub async fn run(self, keeper: Arc<Keeper>, passport: Passport, shutdown: Shutdown) {
        let movers = Arc::new(Notify::new());
        keeper.moves(Arc::clone(&movers));
        let current = tokio::select! {
            () = shutdown.requested() => return,
            current = passport.ready() => current,
        };
        let moving = mover::run(Arc::clone(&keeper), passport.clone(), movers, shutdown.clone());
        let moving = tokio::spawn(moving);
        let limits = Limits { body: BODY, connections: 64, ..Limits::default() };
        let bound = passport.server_tls(&current).map_err(|error| chain(&error).to_string());
        let bound = bound.and_then(|tls| {
            Server::adopt(self.listener, Some(tls), limits).map_err(|e| chain(&e).to_string())
        });
        match bound {
            Ok(server) => server.run(listener::router(keeper, passport), shutdown).await,
            Err(error) => tracing::error!(error, "no other trust service is listened to"),
        }
        // It ends by itself: the same shutdown was raised.
        let _ = tokio::time::timeout(Duration::from_secs(5), moving).await;
    }
}
