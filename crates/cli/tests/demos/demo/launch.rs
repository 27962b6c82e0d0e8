//! A VM from its creation to its restart.

use std::{collections::BTreeSet, path::Path, time::Duration};

use crate::{
    checks::Checks,
    world::{World, run},
};

/// How long a guest may take under emulation.
pub const BOOT: Duration = Duration::from_secs(120);

pub fn first(world: &World, checks: &mut Checks, image: &Path) {
    checks.part("a VM is created, and launched from its own encrypted disk");
    let image = image.to_str().expect("a plain path");
    let said = world.vouchsafe(&["vm", "create", "v1", "--image", image]);
    checks.check(
        "vm create takes the image and its predicted measurements",
        said.code == 0,
        said.complaint(),
    );
    let said = world.vouchsafe(&["vm", "start", "v1", "--host", "a"]);
    let timings = said.json()["timings"].to_string();
    checks.check(
        "vm start ends in a good verdict on host and guest",
        said.code == 0,
        said.complaint(),
    );
    println!("          times of the steps (ms): {timings}");
    let marker = world.guest_says("v1", "marker-written", BOOT);
    checks.check(
        "the guest wrote a marker to its disk",
        marker.is_some(),
        marker.as_deref().unwrap_or("nothing on the console"),
    );
    let data = world.guest_says("v1", "data-volume-open", BOOT);
    checks.check(
        "the data volume opened after the guest's verdict",
        data.is_some(),
        data.as_deref().unwrap_or("not opened"),
    );
}

pub fn attested(world: &World, checks: &mut Checks) {
    checks.part("the guest's verdict, and what stock tools say of the evidence");
    let dir = world.path("evidence");
    let export = dir.to_str().expect("a plain path");
    let said = world.vouchsafe(&["vm", "attest", "v1", "--export", export]);
    let verdict = said.json();
    let roles: Vec<_> = verdict["chain"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|l| l["role"].as_str())
        .collect();
    checks.check(
        "a fresh verdict names the whole chain",
        roles == ["host-tpm-ek", "host-ak", "vtpm-ek", "vtpm-ak", "kernel"],
        format!("{}{}", roles.join(" -> "), said.complaint()),
    );
    for link in verdict["chain"].as_array().into_iter().flatten() {
        println!(
            "          {:<12} {}",
            link["role"].as_str().unwrap_or(""),
            link["subject"].as_str().unwrap_or("")
        );
    }
    stock_tools(&dir, checks);
}

/// The banks in which a guest's firmware measured, by the log that a fresh verdict exports.
pub fn banks_of(world: &World, vm: &str) -> Vec<String> {
    let dir = world.path(&format!("evidence-{vm}"));
    let export = dir.to_str().expect("a plain path");
    let _verdict = world.vouchsafe(&["vm", "attest", vm, "--export", export]);
    banks_in(&run("tpm2_eventlog", &[&format!("{export}/guest-event-log.bin")]).stdout)
}

/// The algorithms that `tpm2_eventlog` names, each once.
fn banks_in(log: &str) -> Vec<String> {
    let named = log.lines().filter_map(|line| line.trim().split_once("AlgorithmId: "));
    let banks: BTreeSet<_> = named.map(|(_, name)| name.trim_matches('"').to_owned()).collect();
    banks.into_iter().collect()
}

/// The exported evidence, judged by tools that are not ours.
fn stock_tools(dir: &Path, checks: &mut Checks) {
    let file = |name: &str| dir.join(name).to_str().expect("a plain path").to_owned();
    let nonce = std::fs::read_to_string(file("qualifying-data.hex")).unwrap_or_default();
    let said = run(
        "tpm2_checkquote",
        &[
            "-u",
            &file("vtpm-ak.pem"),
            "-m",
            &file("quote.msg"),
            "-s",
            &file("quote.sig"),
            "-q",
            &nonce,
            "-g",
            "sha256",
        ],
    );
    checks.check("tpm2_checkquote accepts the exported quote", said.code == 0, said.complaint());
    let said = run(
        "openssl",
        &[
            "verify",
            "-CAfile",
            &file("ca.pem"),
            "-untrusted",
            &file("vtpm-ca.pem"),
            &file("vtpm-ek-cert.pem"),
            &file("vtpm-ak-cert.pem"),
        ],
    );
    checks.check(
        "openssl verifies the vTPM's EK and AK certificates",
        said.code == 0,
        said.complaint(),
    );
    let said = run("tpm2_eventlog", &[&file("guest-event-log.bin")]);
    checks.check(
        "tpm2_eventlog reads the guest's own log",
        said.stdout.contains("EV_EFI_BOOT_SERVICES_APPLICATION"),
        "",
    );
    let banks = banks_in(&said.stdout);
    checks.check("firmware measured in SHA-256 alone", banks == ["sha256"], banks.join(" "));
}

/// One VM, one home.
pub fn homed(world: &World, checks: &mut Checks) {
    checks.part("one home at a time");
    let said = world.vouchsafe(&["vm", "start", "v1", "--host", "b"]);
    let what = "a second host may not start the running VM";
    checks.refused(what, "vm-homed-elsewhere", &said.refusal(), &said.detail());
}

pub fn restarted(world: &World, checks: &mut Checks) {
    checks.part("the VM is stopped and started again");
    let said = world.vouchsafe(&["vm", "stop", "v1"]);
    checks.check("vm stop ends cleanly", said.code == 0, said.complaint());
    let said = world.vouchsafe(&["vm", "start", "v1", "--host", "b"]);
    let what = "stopped, it still has its home";
    checks.refused(what, "vm-homed-elsewhere", &said.refusal(), &said.detail());
    let before = super::disk::marker();
    let said = world.vouchsafe(&["vm", "start", "v1", "--host", "a"]);
    checks.check("vm start again", said.code == 0, said.complaint());
    let found = world.guest_says("v1", "marker-found", BOOT);
    checks.check(
        "the guest reads its marker back",
        found.is_some() && (before.is_empty() || found.as_deref() == Some(before.as_str())),
        found.as_deref().unwrap_or("nothing on the console"),
    );
}
