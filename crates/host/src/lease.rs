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
        if told != Some(ended) {
            told = Some(ended);
            tracing::info!(ended, "lease");
            let stands = |state| state == VmState::Paused;
            registry.tell(|state| ended || !stands(state), || Event::Lease { ended }).await;
        } else if ended {
            // A report that was taken at the last moment may have said otherwise.
            registry.tell_all(|| Event::Lease { ended }).await;
        }
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
