//! The VMs of this host: one driver each, found by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use model::{VmId, api::vm::VmState};
use tokio::sync::{mpsc, watch};

use crate::{
    console::Console,
    host::Host,
    plan::VmPaths,
    report,
    trouble::Trouble,
    vm::{
        driver::{Driver, Shown},
        record::Record,
        step::{Event, Ordered},
    },
    watching,
};

/// A VM's driver, from outside.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    /// Its inbox.
    pub(crate) events: mpsc::Sender<Event>,
    /// What it shows.
    pub(crate) shown: watch::Receiver<Shown>,
    /// The VM's console.
    pub(crate) console: Arc<Console>,
}

/// All VMs.
#[derive(Debug)]
pub(crate) struct Registry {
    host: Arc<Host>,
    vms: Mutex<BTreeMap<VmId, Handle>>,
}

impl Registry {
    /// No VMs yet.
    pub(crate) fn new(host: Arc<Host>) -> Arc<Self> {
        Arc::new(Self { host, vms: Mutex::default() })
    }

    /// Reads back every VM that has files here, and lets its driver find its processes. A record
    /// that cannot be read is left alone, and said.
    pub(crate) fn adopt_all(self: &Arc<Self>) {
        let Ok(entries) = std::fs::read_dir(self.host.config.state_dir.join("vms")) else { return };
        for entry in entries.flatten() {
            let Some(vm) = entry.file_name().to_str().and_then(|n| n.parse::<VmId>().ok()) else {
                continue;
            };
            match Record::load(&VmPaths::new(&self.host.config, &vm)) {
                Ok(record) => drop(self.add(record)),
                Err(error) => {
                    let error = serve::exit::chain(&error);
                    tracing::error!(vm.id = %vm, error, "the VM's record cannot be used");
                }
            }
        }
    }

    fn add(self: &Arc<Self>, record: Record) -> Handle {
        let mut vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = vms.get(&record.spec.name) {
            return known.clone();
        }
        let vm = record.spec.name.clone();
        let console = Arc::new(Console::default());
        let (driver, events, shown) =
            Driver::new(Arc::clone(&self.host), record, Arc::clone(&console));
        let handle = Handle { events: events.clone(), shown: shown.clone(), console };
        vms.insert(vm.clone(), handle.clone());
        let watched = (vm.clone(), events.clone(), shown.clone());
        tokio::spawn(watching::follow(Arc::clone(&self.host), watched));
        tokio::spawn(report::report(Arc::clone(&self.host), vm.clone(), events, shown));
        let registry = Arc::clone(self);
        tokio::spawn(async move {
            driver.run().await;
            registry.vms.lock().unwrap_or_else(PoisonError::into_inner).remove(&vm);
        });
        handle
    }

    /// One VM.
    pub(crate) fn find(&self, vm: &VmId) -> Option<Handle> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner).get(vm).cloned()
    }

    /// All VMs, by name.
    pub(crate) fn all(&self) -> Vec<(VmId, Handle)> {
        let vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        vms.iter().map(|(vm, handle)| (vm.clone(), handle.clone())).collect()
    }

    /// Hands an order to its VM's driver; makes one if the VM is new here.
    ///
    /// # Errors
    /// [`Trouble`] if this host has as many VMs as it may.
    pub(crate) async fn order(
        self: &Arc<Self>,
        vm: &VmId,
        ordered: Ordered,
    ) -> Result<(), Trouble> {
        let handle = match (self.find(vm), &ordered.view) {
            (Some(handle), _) => handle,
            (None, Some(view)) => {
                let most = self.host.config.limits.vms;
                if self.all().len() >= most {
                    return Err(Trouble::failed(format!("this host has {most} VMs, its limit")));
                }
                self.add(Record::new(view.spec.clone(), view.epoch, view.kmi.clone()))
            }
            (None, None) => return Err(Trouble::failed("there is no such VM on this host")),
        };
        let sent = handle.events.send(Event::Ordered(Box::new(ordered))).await;
        sent.map_err(|_| Trouble::failed("the VM is just being deleted"))
    }

    /// Tells every VM.
    pub(crate) async fn tell_all(&self, event: impl Fn() -> Event) {
        self.tell(|_| true, event).await;
    }

    /// Tells the VMs whose state is such.
    pub(crate) async fn tell(&self, such: impl Fn(VmState) -> bool, event: impl Fn() -> Event) {
        for (_, handle) in self.all() {
            let state = handle.shown.borrow().state;
            if !such(state) {
                continue;
            }
            // One that ends meanwhile need not know.
            let _ = handle.events.send(event()).await;
        }
    }
}
