//! One connection: requests of one caller, until it leaves, idles too long or the process ends.

use std::{convert::Infallible, pin::pin};

use axum::{Router, body::Body, extract::DefaultBodyLimit};
use http::Request;
use http_body_util::Limited;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt as _;

use super::{Limits, Peer};
use crate::{problem, shutdown::Shutdown};

/// The application as every connection of a server sees it.
pub(super) fn prepare(router: Router) -> Router {
    router
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        // The limit is put on the body itself below, where no handler can miss it.
        .layer(DefaultBodyLimit::disable())
}

pub(super) async fn serve<I>(io: I, peer: Peer, router: Router, limits: Limits, shutdown: Shutdown)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let body_limit = limits.body;
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| Body::new(Limited::new(body, body_limit)));
        request.extensions_mut().insert(peer.clone());
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|e| match e {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = crate::exit::chain(&error), "connection ended early");
    }
}
