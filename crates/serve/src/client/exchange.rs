//! Exchanges with servers of others, whose answers are theirs and not ours: any status, any body.
//! `http` or `https` as the URL says; redirects are not followed. Connections are kept for a moment, as
//! those of a [`super::Client`] are, and no exchange is made twice.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use rustls::{ClientConfig, client::Resumption};
use tokio::time::timeout;

use super::{CallError, ClientError, idle::Keeping, transport::Transport};
use crate::{
    clock::SharedClock,
    https::{self, ClockTime, TlsError},
};

/// Most origins that connections are kept to.
const MOST_ORIGINS: usize = 16;

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// The method.
    pub method: Method,
    /// The absolute URL.
    pub url: String,
    /// The body's type; none without a body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
    /// The longest answer that is read, in bytes of its body.
    pub most: usize,
    /// How long it may take, in all.
    pub within: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawAnswer {
    /// Status code.
    pub status: u16,
    /// Header fields, names in lower case; those that are not text are left out.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Makes such exchanges. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Exchange {
    tls: Option<Arc<ClientConfig>>,
    connect: Duration,
    origins: Arc<Mutex<HashMap<String, Arc<Transport>>>>,
}

impl Exchange {
    /// With TLS 1.2 or 1.3 to servers that one of `anchors` (CA certificates, DER) certifies;
    /// without anchors there is no TLS.
    ///
    /// # Errors
    /// [`ClientError`] if an anchor cannot be used.
    pub fn new(
        anchors: &[Vec<u8>],
        clock: SharedClock,
        connect: Duration,
    ) -> Result<Self, ClientError> {
        if anchors.is_empty() {
            return Ok(Self { tls: None, connect, origins: Arc::default() });
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(ClockTime(clock)))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Identity)?
            .with_root_certificates(https::anchors(anchors)?)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Some(Arc::new(config)), connect, origins: Arc::default() })
    }

    /// One exchange.
    ///
    /// # Errors
    /// [`CallError::Request`] and [`CallError::Unreachable`] if nothing was sent; after any other
    /// the request may have arrived.
    pub async fn run(&self, request: RawRequest) -> Result<RawAnswer, CallError> {
        let (most, within) = (request.most, request.within);
        let (transport, request) = self.prepare(request)?;
        let whole = async {
            let response = transport.send(request, false, self.connect.min(within)).await?;
            let (head, body) = response.into_parts();
            let text = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            };
            let body = Limited::new(body, most).collect().await.map_err(|error| {
                let detail = error.to_string();
                let to = transport.to().to_owned();
                CallError::Malformed { to, status: head.status, detail }
            })?;
            Ok(RawAnswer {
                status: head.status.as_u16(),
                headers: head.headers.iter().filter_map(text).collect(),
                body: body.to_bytes().to_vec(),
            })
        };
        match timeout(within, whole).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(CallError::TimedOut { to: transport.to().to_owned() }),
        }
    }

    fn prepare(&self, raw: RawRequest) -> Result<Prepared, CallError> {
        let wrong = |error: &dyn std::fmt::Display| CallError::Request(error.to_string());
        let uri: Uri = raw.url.parse().map_err(|error| wrong(&error))?;
        let transport = self.origin(&uri);
        let transport = transport.ok_or_else(|| wrong(&format!("{:?} is no URL", raw.url)))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut builder = Request::builder()
            .method(raw.method)
            .uri(path)
            .header(header::HOST, transport.host())
            .header(header::USER_AGENT, "vouchsafe");
        if let Some(kind) = raw.content_type {
            builder = builder.header(header::CONTENT_TYPE, kind);
        }
        let request = builder.body(Full::new(raw.body.into())).map_err(|error| wrong(&error))?;
        Ok((transport, request))
    }
    /// The connections to a URL's origin; none if it is no URL for us.
    fn origin(&self, uri: &Uri) -> Option<Arc<Transport>> {
        let made = Transport::origin(uri, self.tls.as_ref(), Keeping::Briefly)?;
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if origins.len() >= MOST_ORIGINS && !origins.contains_key(made.to()) {
            origins.clear();
        }
        let kept = origins.entry(made.to().to_owned());
        Some(Arc::clone(kept.or_insert_with(|| Arc::new(made))))
    }
}

/// Where to, and what.
type Prepared = (Arc<Transport>, Request<Full<Bytes>>);
