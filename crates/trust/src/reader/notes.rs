//! What the reader refuses by itself goes into the keeper's audit log: one by one while it is
//! little, counted by name when it is much, so that a flood cannot fill the log.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use model::keys::rpc::KeyRequest;

use super::{caller::Caller, link::Link, load::Rate, turn::Turn};

/// The notes.
#[derive(Debug)]
pub(super) struct Notes {
    rate: Rate,
    /// Refusals that were only counted, by name.
    counted: Mutex<BTreeMap<&'static str, u64>>,
}

impl Notes {
    /// At most `per_second` are noted one by one.
    pub(super) const fn new(per_second: u32) -> Self {
        Self { rate: Rate::new(per_second), counted: Mutex::new(BTreeMap::new()) }
    }

    /// Notes that `event` was refused as `refusal`; returns once it is in the log, or counted.
    pub(super) fn refused(
        &self,
        link: &Link,
        (event, refusal): (&str, &'static str),
        from: &Caller,
        second: i64,
    ) {
        if self.rate.note(second) {
            link.ask(&request(event, refusal, from.actor()), &Turn::aside());
        } else {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counted.entry(refusal).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Notes what was counted.
    pub(super) fn flush(&self, link: &Link) {
        let counted =
            std::mem::take(&mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner));
        for (refusal, count) in counted {
            link.ask(&request("xkms-flood", refusal, format!("{count} requests")), &Turn::aside());
        }
    }
}

fn request(event: &str, refusal: &str, actor: String) -> KeyRequest {
    KeyRequest::Refused { event: event.to_owned(), refusal: refusal.to_owned(), actor }
}
