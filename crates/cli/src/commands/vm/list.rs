//! `vm list`: the VMs that are there.

use model::api::vm::{VmState, VmView};

use super::{state, trusted};
use crate::{
    client::Target,
    output::{Failure, Printer},
};

pub(super) async fn run(all: bool, target: &Target, printer: Printer) -> Result<(), Failure> {
    let vms: Vec<VmView> = target.authority()?.get("/v1/vms").await?;
    let vms = listed(vms, all);
    let mut table = crate::output::table(["NAME", "STATE", "HOME", "TRUSTED", "EPOCH", "DETAIL"]);
    for vm in &vms {
        table.add_row([
            vm.spec.name.to_string(),
            state(vm.state).to_owned(),
            vm.home.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            trusted(vm.trusted).to_owned(),
            vm.epoch.0.to_string(),
            vm.detail.clone(),
        ]);
    }
    printer.list(&vms, &table.to_string())
}

/// Without what is gone, unless `all` is wanted; what is gone has no home and says nothing any more.
/// Reference values are long and `vm show` has them.
fn listed(vms: Vec<VmView>, all: bool) -> Vec<VmView> {
    let mut listed = Vec::new();
    for mut vm in vms {
        vm.spec.reference = serde_json::Value::Null;
        if vm.state == VmState::Retired {
            if !all {
                continue;
            }
            vm.home = None;
            vm.detail = "deleted: its keys are destroyed".to_owned();
        }
        listed.push(vm);
    }
    listed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vm(name: &str, state: &str) -> VmView {
        let digest = format!("sha256:{}", "0".repeat(64));
        serde_json::from_value(json!({
            "spec": {
                "name": name, "image": {"path": "/i", "sha256": digest, "size": 512},
                "memory_mib": 64, "cpus": 1, "data_mib": 0, "guard": "tpm", "origin": "console",
                "format": "vault", "on_lease_end": "pause", "reference": {"entries": []},
            },
            "state": state, "home": "a", "epoch": 1,
            "kmi": {"vm": name, "key_id": digest, "version": 1, "epoch": 1},
            "trusted": null, "detail": "an old error",
        }))
        .unwrap()
    }

    #[test]
    fn what_is_deleted_is_listed_only_if_it_is_asked_for() {
        let there = || vec![vm("v1", "running"), vm("v9", "retired")];
        let names =
            |vms: &[VmView]| vms.iter().map(|vm| vm.spec.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&listed(there(), false)), ["v1"]);
        let all = listed(there(), true);
        assert_eq!(names(&all), ["v1", "v9"]);
        let gone = all.last().unwrap();
        assert!(gone.home.is_none() && !gone.detail.contains("error"));
    }

    #[test]
    fn reference_values_are_left_to_show() {
        assert!(listed(vec![vm("v1", "running")], false)[0].spec.reference.is_null());
    }
}
