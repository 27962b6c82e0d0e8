//! A CA's key in a PKCS #11 token: it signs there and never leaves.
//!
//! ```text
//! Token --message--> its thread: session, login, key --C_Sign--> token
//!       <--signature or TokenError, at the latest when the time is over--
//! ```
//! **Invariants:** the key is sensitive and cannot be extracted, or it is not used; a PIN that the
//! token refused is not tried again, for that locks tokens; one thread talks to the token, and a
//! token that hangs makes signing fail in time. No clock, no socket; the module is loaded by path.
//! Deliberately absent: keys other than P-256, and creating or administering tokens. [`TokenSettings`] is
//! what configurations say, and the CA with it.

mod error;
mod session;
mod settings;

use std::{
    error::Error,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use model::Secret;
use pki::CaSigner;

pub use error::TokenError;
use session::Session;
pub use settings::{TokenCaError, TokenSettings, create_root, load};

/// Most messages that wait to be signed.
const QUEUE: usize = 256;

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// The module's shared library.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The label of the key pair.
    pub key: String,
    /// How long one answer of the token may take.
    pub timeout: Duration,
}

/// What the thread is asked: the digest, and where the signature goes.
type Job = ([u8; 32], SyncSender<Result<Vec<u8>, TokenError>>);

/// A P-256 key in a token.
#[derive(Debug)]
pub struct Token {
    spki: Vec<u8>,
    timeout: Duration,
    jobs: SyncSender<Job>,
}

impl Token {
    /// The key that is there.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn open(config: TokenConfig, pin: Secret<Vec<u8>>) -> Result<Self, TokenError> {
        Self::start(config, pin, false)
    }

    /// A new key, made in the token; refused if there is one of this name.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn generate(config: TokenConfig, pin: Secret<Vec<u8>>) -> Result<Self, TokenError> {
        Self::start(config, pin, true)
    }

    fn start(config: TokenConfig, pin: Secret<Vec<u8>>, new: bool) -> Result<Self, TokenError> {
        let timeout = config.timeout;
        let (ready, opened) = sync_channel(1);
        let (jobs, queue) = sync_channel(QUEUE);
        let work = move || match Session::open(config, pin, new) {
            Ok(session) => {
                if ready.send(Ok(session.spki().to_vec())).is_ok() {
                    serve(session, &queue);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("token".to_owned()).spawn(work);
        thread.map_err(TokenError::Thread)?;
        let spki = opened.recv_timeout(timeout).map_err(late)??;
        Ok(Self { spki, timeout, jobs })
    }
}

/// Signs until nobody asks any more.
fn serve(mut session: Session, queue: &Receiver<Job>) {
    while let Ok((digest, answer)) = queue.recv() {
        // One that waited too long is gone.
        drop(answer.send(session.sign(&digest)));
    }
}

const fn late(error: RecvTimeoutError) -> TokenError {
    match error {
        RecvTimeoutError::Timeout => TokenError::TimedOut,
        RecvTimeoutError::Disconnected => TokenError::Ended,
    }
}

impl CaSigner for Token {
    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(digest(&SHA256, message).as_ref()) {
            *to = *from;
        }
        let (answer, signed) = sync_channel(1);
        self.jobs.try_send((hash, answer)).map_err(|error| match error {
            TrySendError::Full(_) => TokenError::Busy,
            TrySendError::Disconnected(_) => TokenError::Ended,
        })?;
        Ok(signed.recv_timeout(self.timeout).map_err(late)??)
    }
}
