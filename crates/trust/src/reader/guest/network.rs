//! Guests that come over a network: connections are bounded, and a client that says nothing does not
//! keep one.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};

use super::{
    Guests,
    routes::{self, Whose},
};

/// How long to wait when the kernel has no connection to give, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

impl Guests {
    /// Hears guests on `listener`, at most `most` at once, until the process ends.
    pub(in crate::reader) fn hear(self, listener: StdListener, most: usize) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let places = Arc::new(Semaphore::new(most));
        tokio::spawn(async move {
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                let accepted = tokio::select! {
                    () = self.shutdown.requested() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, from)) = accepted else {
                    sleep(PAUSE).await;
                    continue;
                };
                let guests = self.clone();
                tokio::spawn(async move {
                    // It fails on a connection that is gone already.
                    let _ = stream.set_nodelay(true);
                    if let Err(error) = guests.serve(from, stream).await {
                        tracing::info!(%from, %error, "a guest's connection failed");
                    }
                    drop(place);
                });
            }
        });
        Ok(())
    }

    async fn serve(&self, from: SocketAddr, stream: TcpStream) -> io::Result<()> {
        let tls = self.tls().await.map_err(io::Error::other)?;
        routes::serve(tls, self, Whose::Claimed(from), stream).await
    }
}
