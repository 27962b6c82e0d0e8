//! The order loop: a long poll that brings what the authority wants done here.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{
    HostId,
    api::{
        Bytes,
        operate::{OperationUpdate, Order},
    },
};
use serde::Deserialize;
use serde_json::Value;
use serve::{
    client::{Call, CallError},
    shutdown::Shutdown,
};

use crate::{
    host::Host,
    registry::Registry,
    vm::{
        record::{Job, NewKeys},
        step::{Ordered, View},
    },
};

/// How long the authority may wait with its answer, seconds.
const WAIT: u64 = 20;

/// `model::api::operate::Orders` with each order still unread: one that this agent cannot read must
/// not keep the others from it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unread {
    revision: u64,
    orders: Vec<Value>,
    deposit_key: Bytes,
}

/// Orders that this agent cannot read, by the ids of their operations.
#[derive(Debug, Default)]
struct Unreadable(BTreeSet<String>);

impl Unreadable {
    /// Reads `orders`: those that can be read, and of the others those that are new, with what is
    /// wrong. What is no longer ordered is forgotten.
    fn read(&mut self, orders: Vec<Value>) -> (Vec<Order>, Vec<(String, String)>) {
        let (mut readable, mut news, mut present) = (Vec::new(), Vec::new(), BTreeSet::new());
        for order in orders {
            let id = order.pointer("/operation/id").and_then(Value::as_str).unwrap_or("?");
            let id = id.to_owned();
            match serde_json::from_value(order) {
                Ok(order) => readable.push(order),
                Err(error) => {
                    if !self.0.contains(&id) {
                        news.push((id.clone(), error.to_string()));
                    }
                    present.insert(id);
                }
            }
        }
        self.0 = present;
        (readable, news)
    }
}

/// Takes orders until `shutdown`.
pub(crate) async fn take(host: Arc<Host>, registry: Arc<Registry>, shutdown: Shutdown) {
    let mut after = 0;
    let mut sessions = host.link.watch();
    let mut unreadable = Unreadable::default();
    loop {
        let polled = tokio::select! {
            () = shutdown.requested() => return,
            polled = poll(&host, after) => polled,
        };
        match polled {
            Ok(orders) => {
                after = orders.revision;
                host.deposit_key.send_replace(Some(orders.deposit_key.0));
                let (readable, news) = unreadable.read(orders.orders);
                for (id, error) in news {
                    tracing::warn!(operation.id = id, error, "an order cannot be read");
                }
                for order in readable {
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

async fn poll(host: &Host, after: u64) -> Result<Unread, String> {
    let session = host.link.session().map_err(|trouble| trouble.to_string())?;
    let call = Call::get(format!("/v1/orders?after={after}&wait={WAIT}"))
        .answer_within(Duration::from_secs(WAIT + 10));
    session.client.call::<Unread>(call).await.map_err(|error| {
        if let CallError::Malformed { .. } = &error {
            tracing::warn!(error = serve::exit::chain(&error), "the list of orders cannot be read");
        }
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
        keys: NewKeys::default(),
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
            && let Err(error) = session.client.post::<_, Value>(&path, &update).await
        {
            tracing::warn!(vm.id = %name, %error, "cannot decline an order");
        }
    }
}

fn is_ours(us: &HostId, ordered: &HostId) -> bool {
    us == ordered
}

#[cfg(test)]
mod tests {
    use model::{Epoch, OperationId};
    use serde_json::json;

    use super::*;
    use crate::plan::tests::{kmi, spec};

    fn order(id: u8) -> Value {
        json!({
            "operation": {"id": OperationId([id; 16]), "vm": "v1", "host": "a", "action": "start",
                          "accepted_at": 1, "phase": "", "percent": null, "timings": [],
                          "outcome": null},
            "vm": {"spec": spec("v1"), "state": "defined", "home": null, "epoch": Epoch(1),
                   "kmi": kmi("v1"), "trusted": null, "detail": ""},
            "deposit": false,
        })
    }

    #[test]
    fn an_order_that_cannot_be_read_is_told_of_once_and_keeps_no_other_back() {
        let mut unreadable = Unreadable::default();
        let mut newer = order(2);
        newer["gravity"] = json!("low");
        let all = vec![order(1), newer, order(3)];
        let (readable, news) = unreadable.read(all.clone());
        assert_eq!(
            readable.iter().map(|order| order.operation.id.0[0]).collect::<Vec<_>>(),
            [1, 3]
        );
        assert_eq!(news.len(), 1);
        assert_eq!(news[0].0, OperationId([2; 16]).to_string());
        assert!(news[0].1.contains("gravity"), "{}", news[0].1);
        assert!(unreadable.read(all.clone()).1.is_empty());
        // Withdrawn and ordered again, it is news again.
        assert!(unreadable.read(Vec::new()).1.is_empty());
        assert_eq!(unreadable.read(all).1.len(), 1);
    }
}
