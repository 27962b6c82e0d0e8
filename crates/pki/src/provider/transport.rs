//! One HTTP exchange, done by the caller: `pki` opens no socket.

use std::{error::Error, time::Duration};

use thiserror::Error;

/// The methods that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
}

impl Method {
    /// As it stands in a request.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
        }
    }
}

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// The method.
    pub method: Method,
    /// The absolute URL, `http` or `https`. It may come from the provider; which hosts may be
    /// reached is for the transport to limit. Redirects are not followed.
    pub url: &'a str,
    /// The body's type; none without a body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: &'a [u8],
    /// The longest answer that is read, in bytes of its body.
    pub most: usize,
    /// How long the exchange may take, in all.
    pub timeout: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// The first header field with this name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }
}

/// An exchange failed.
#[derive(Debug, Error)]
pub enum TransportError {
    /// Nothing of the request left: it may be sent again without harm.
    #[error("the provider cannot be reached")]
    NotSent(#[source] Box<dyn Error + Send + Sync>),
    /// The request may have arrived, and the answer did not.
    #[error("the provider's answer was lost")]
    Lost(#[source] Box<dyn Error + Send + Sync>),
}

/// Does HTTP exchanges, with TLS where the URL says so.
pub trait Transport {
    /// One exchange. Any status is an answer.
    ///
    /// # Errors
    /// [`TransportError`], which must not be [`TransportError::NotSent`] once a byte of the request
    /// was written.
    fn exchange(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, TransportError>;
}

impl<T: Transport + ?Sized> Transport for &T {
    fn exchange(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, TransportError> {
        (**self).exchange(request)
    }
}
