//! What a head is anchored in: a counter that only goes up. [`TpmCounter`] is an NV index of a TPM.

use std::fmt::Debug;

use futures_util::future::BoxFuture;
use thiserror::Error;
use tpm::{Actor, Auth, AuthValue, Hierarchy, NvAttributes, NvPublic, Tpm, TpmError};

/// What a [`Counter`] gives, once it is there.
pub type Counting<'a, T> = BoxFuture<'a, Result<T, CounterError>>;

/// The counter did not do what it was asked.
#[derive(Debug, Error)]
pub enum CounterError {
    /// It cannot be asked now, or did not answer.
    #[error("the counter cannot be used now")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is none.
    #[error("there is no counter for this store: was the TPM cleared or replaced?")]
    Missing,
    /// Whoever keeps it refused.
    #[error("whoever keeps the counter refused: {name}")]
    Refused {
        /// The refusal's name.
        name: String,
        /// What was answered.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<TpmError> for CounterError {
    fn from(error: TpmError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// A counter that was defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its value.
    pub value: u64,
    /// No head can have been anchored in it yet.
    pub fresh: bool,
}

/// A counter of one store. Only that store moves it.
pub trait Counter: Debug + Send + Sync {
    /// Defines it if it is not there, and reads it.
    fn define(&self) -> Counting<'_, Begun>;

    /// Its value; [`CounterError::Missing`] if it is not defined.
    fn read(&self) -> Counting<'_, u64>;

    /// Increments it from `from` and reads it back. It may have moved though this failed.
    fn increment(&self, from: u64) -> Counting<'_, u64>;
}

/// An NV index of a TPM.
#[derive(Clone, Debug)]
pub struct TpmCounter {
    actor: Actor,
    index: u32,
}

impl TpmCounter {
    /// The NV index `index`, in the owner's range.
    #[must_use]
    pub const fn new(actor: Actor, index: u32) -> Self {
        Self { actor, index }
    }

    fn job<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Tpm, u32) -> Result<R, CounterError> + Send + 'static,
    ) -> Counting<'_, R> {
        let (actor, index) = (self.actor.clone(), self.index);
        Box::pin(async move {
            let run = move || actor.run(move |tpm| job(tpm, index));
            let done = tokio::task::spawn_blocking(run).await;
            done.unwrap_or_else(|error| Err(CounterError::Failed(Box::new(error))))
        })
    }
}

impl Counter for TpmCounter {
    fn define(&self) -> Counting<'_, Begun> {
        self.job(|tpm, index| {
            let defined = tpm.nv_public(index)?;
            if defined.is_none() {
                let attributes = NvAttributes::OWNER_COUNTER;
                let public = NvPublic { index, attributes, policy: Vec::new(), size: 8 };
                tpm.nv_define(Hierarchy::Owner, Auth::none(), &public, &AuthValue::empty())?;
            }
            let written = defined.is_some_and(|p| p.attributes.contains(NvAttributes::WRITTEN));
            if !written {
                tpm.nv_increment(Some(Hierarchy::Owner), Auth::none(), index)?;
            }
            Ok(Begun { value: value(tpm, index)?, fresh: !written })
        })
    }

    fn read(&self) -> Counting<'_, u64> {
        self.job(|tpm, index| match tpm.nv_public(index)? {
            Some(_) => value(tpm, index),
            None => Err(CounterError::Missing),
        })
    }

    fn increment(&self, _from: u64) -> Counting<'_, u64> {
        self.job(|tpm, index| {
            tpm.nv_increment(Some(Hierarchy::Owner), Auth::none(), index)?;
            value(tpm, index)
        })
    }
}

fn value(tpm: &mut Tpm, index: u32) -> Result<u64, CounterError> {
    Ok(tpm.nv_read_counter(Some(Hierarchy::Owner), &mut Auth::none(), index)?)
}
