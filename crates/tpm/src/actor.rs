//! One thread per TPM. It owns the way to the TPM; everybody else holds a cloneable handle and
//! sends jobs, which run one after the other, each on a connection of its own.
//!
//! A job gets a [`Tpm`] whose transient objects and sessions are flushed when it returns, and the
//! connection is closed after it, so that other programs can use a software TPM in between.

use std::{sync::mpsc, thread};

use thiserror::Error;

use crate::{
    client::Tpm,
    error::{TpmError, TransportError},
    transport::Connect,
};

type Job = Box<dyn FnOnce(Result<&mut Tpm, TransportError>) + Send>;

/// Why a job has no result.
#[derive(Debug, Error)]
pub enum ActorError {
    /// The actor's thread has ended (a job panicked).
    #[error("the TPM's actor is gone")]
    Gone,
    /// The thread could not be started.
    #[error("cannot start the TPM's actor")]
    Start(#[source] std::io::Error),
}

/// A handle to a TPM's thread. The thread ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Actor {
    jobs: mpsc::Sender<Job>,
}

impl Actor {
    /// Starts the thread of the TPM at `place` (an [`crate::Address`], or another [`Connect`]).
    /// Nothing is opened until the first job.
    ///
    /// # Errors
    /// [`ActorError::Start`].
    pub fn start(place: impl Connect + 'static) -> Result<Self, ActorError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || serve(place, &queue))
            .map_err(ActorError::Start)?;
        Ok(Self { jobs })
    }

    /// Runs a job and waits for it. Blocking: from async code, call it in `spawn_blocking`, or use
    /// [`Self::submit`].
    ///
    /// # Errors
    /// What the job returns, or a [`TpmError`] if the TPM cannot be reached or the actor is gone.
    pub fn run<R, E, F>(&self, job: F) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<TpmError> + Send + 'static,
        F: FnOnce(&mut Tpm) -> Result<R, E> + Send + 'static,
    {
        let gone = || {
            let error = std::io::Error::other(ActorError::Gone);
            E::from(TpmError::Transport(TransportError::Io(error)))
        };
        self.submit(job).map_err(|_| gone())?.recv().map_err(|_| gone())?
    }

    /// Queues a job; its result arrives on the channel.
    ///
    /// # Errors
    /// [`ActorError::Gone`].
    pub fn submit<R, E, F>(&self, job: F) -> Result<mpsc::Receiver<Result<R, E>>, ActorError>
    where
        R: Send + 'static,
        E: From<TpmError> + Send + 'static,
        F: FnOnce(&mut Tpm) -> Result<R, E> + Send + 'static,
    {
        let (answer, answers) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |tpm| {
            let result = match tpm {
                Ok(tpm) => tpm.scoped(job),
                Err(error) => Err(E::from(TpmError::Transport(error))),
            };
            // The one who asked may have stopped waiting.
            let _ = answer.send(result);
        });
        self.jobs.send(job).map_err(|_| ActorError::Gone)?;
        Ok(answers)
    }
}

fn serve(mut place: impl Connect, queue: &mpsc::Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        match place.connect() {
            Ok(transport) => job(Ok(&mut Tpm::new(transport))),
            Err(error) => {
                tracing::warn!(%error, "the TPM cannot be reached");
                job(Err(error));
            }
        }
    }
}
