//! The order loop: a long poll that brings what the authority wants done here.

use std::{sync::Arc, time::Duration};

use model::{
    HostId,
    api::operate::{OperationUpdate, Order, Orders},
};
use serve::{client::Call, shutdown::Shutdown};

use crate::{
    host::Host,
    registry::Registry,
    vm::{
        record::Job,
        step::{Ordered, View},
    },
};

/// How long the authority may wait with its answer, seconds.
const WAIT: u64 = 20;

/// Takes orders until `shutdown`.
pub(crate) async fn take(host: Arc<Host>, registry: Arc<Registry>, shutdown: Shutdown) {
    let mut after = 0;
    let mut sessions = host.link.watch();
    loop {
        let polled = tokio::select! {
            () = shutdown.requested() => return,
            polled = poll(&host, after) => polled,
        };
        match polled {
            Ok(orders) => {
                after = orders.revision;
                host.deposit_key.send_replace(Some(orders.deposit_key.0));
                for order in orders.orders {
                    hand_over(&host, &registry, order).await;
                }
            }
            Err(error) => {
                tracing::debug!(error, "no orders");
                // After a restart of the authority revisions may count anew.
                after = 0;
                tokio::select! {
                    () = shutdown.requested() => return,
                    _ = sessions.changed() => {}
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        }
    }
}

async fn poll(host: &Host, after: u64) -> Result<Orders, String> {
    let session = host.link.session().map_err(|trouble| trouble.to_string())?;
    let call = Call::get(format!("/v1/orders?after={after}&wait={WAIT}"))
        .answer_within(Duration::from_secs(WAIT + 10));
    session.client.call::<Orders>(call).await.map_err(|error| {
        if matches!(error.refusal(), Some("session-expired" | "session-missing")) {
            host.link.doubt();
        }
        serve::exit::chain(&error)
    })
}

async fn hand_over(host: &Arc<Host>, registry: &Arc<Registry>, order: Order) {
    let Order { operation, vm, deposit, on_bad_guest } = order;
    if !is_ours(&host.config.name, &operation.host) || operation.outcome.is_some() {
        return;
    }
    let job = Job {
        id: operation.id,
        action: operation.action,
        local: false,
        deposit,
        timings: Vec::new(),
        outcome: None,
        delivered: false,
    };
    let view = View { spec: vm.spec, epoch: vm.epoch, kmi: vm.kmi, on_bad_guest };
    let name = operation.vm;
    if view.spec.name != name {
        tracing::error!(vm.id = %name, "an order names two VMs");
        return;
    }
    if let Err(trouble) = registry.order(&name, Ordered { job, view: Some(view) }).await {
        let update = OperationUpdate {
            phase: String::new(),
            percent: None,
            timings: Vec::new(),
            outcome: Some(trouble.reason.outcome()),
        };
        let path = format!("/v1/operations/{}", operation.id);
        if let Ok(session) = host.link.session()
            && let Err(error) = session.client.post::<_, serde_json::Value>(&path, &update).await
        {
            tracing::warn!(vm.id = %name, %error, "cannot decline an order");
        }
    }
}

fn is_ours(us: &HostId, ordered: &HostId) -> bool {
    us == ordered
}
