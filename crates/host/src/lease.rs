//! The lease: renewed with each session, ended by the clock. VMs are told of both.
//!
//! **Invariant:** what stands because a lease ended goes on only when the authority has taken the
//! VM's report ([`crate::report`]): while the host could not be heard, the VM may have been given
//! another home.

use std::{sync::Arc, time::Duration};

use model::api::vm::VmState;
use serve::shutdown::Shutdown;

use crate::{host::Host, registry::Registry, vm::step::Event};

/// Follows sessions and the clock until `shutdown`.
pub(crate) async fn follow(host: Arc<Host>, registry: Arc<Registry>, shutdown: Shutdown) {
    let mut sessions = host.link.watch();
    let mut sealed_at = 0;
    let mut told: Option<bool> = None;
    loop {
        let session = sessions.borrow_and_update().session.clone();
        if let Some(session) = session.filter(|s| s.view.issued_at != sealed_at) {
            sealed_at = session.view.issued_at;
            if let Err(trouble) = host.guard.renewed(&session).await {
                tracing::warn!(%trouble, "keys cannot be cached");
            }
            registry.tell_all(|| Event::Retry).await;
        }
        let refused = host.link.refusal().and_then(|trouble| trouble.reason.refused);
        if refused.as_deref() == Some("host-revoked")
            && let Err(trouble) = host.guard.revoke().await
        {
            tracing::error!(%trouble, "the cached keys cannot be removed");
        }
        let ended = host.guard.lease_ended();
        let before = told.replace(ended);
        if before != Some(ended) {
            tracing::info!(ended, "lease");
        }
        registry.tell(|state| hears(state, before, ended), || Event::Lease { ended }).await;
        let until = *host.guard.lease().borrow();
        let left = until.saturating_sub(host.clock.unix_ms());
        // The wall clock may jump, so it is looked at again within a minute in any case.
        let pause = if ended { 60_000 } else { left.saturating_add(20).min(60_000) };
        tokio::select! {
            () = shutdown.requested() => return,
            _ = sessions.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
        }
    }
}

/// Whether a VM is told how the lease stands, which all were told was over (or not) `before`.
fn hears(state: VmState, before: Option<bool>, ended: bool) -> bool {
    // That it is over is said again: a report that was taken at the last moment may have said otherwise.
    ended || (before != Some(ended) && state != VmState::Paused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_lease_is_for_all_and_its_renewal_for_none_that_stands() {
        for state in [VmState::Running, VmState::Paused, VmState::Busy, VmState::Stopped] {
            assert!(hears(state, None, true) && hears(state, Some(false), true));
            assert!(hears(state, Some(true), true));
            assert_eq!(hears(state, Some(true), false), state != VmState::Paused);
            assert_eq!(hears(state, None, false), state != VmState::Paused);
            assert!(!hears(state, Some(false), false));
        }
    }
}
