//! One call at a time for a request: two threads that ask under one id must not both begin it.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use super::RequestId;

/// The requests that are being worked on.
#[derive(Debug, Default)]
pub(super) struct Busy(Mutex<BTreeSet<RequestId>>);

/// Ends the work on a request when it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Busy, RequestId);

impl Busy {
    /// `None` while another call has the request.
    pub(super) fn take(&self, id: RequestId) -> Option<Turn<'_>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id).then(|| Turn(self, id))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}
