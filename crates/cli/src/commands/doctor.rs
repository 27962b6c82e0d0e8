//! `vouchsafe doctor`: what this machine lacks. Exit status 1 if a lab could not run.

mod kvm;

use std::path::Path;

use serde::Serialize;
use serve::exit::Exit;

use crate::{
    lab::components::{OVMF_CODE, OVMF_VARS, Programs, on_path},
    output::{Failure, Printer},
};

/// One thing looked for.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    /// Whether a lab can run without it.
    needed: bool,
    detail: String,
    /// How to get it; empty if it is there.
    hint: String,
}

pub(super) fn run(printer: Printer) -> Result<Exit, Failure> {
    let mut findings = vec![
        program("qemu-system-x86_64", true, "apt-get install qemu-system-x86"),
        program("swtpm", true, "apt-get install swtpm"),
        file("OVMF code", OVMF_CODE, "apt-get install ovmf"),
        file("OVMF variables", OVMF_VARS, "apt-get install ovmf"),
        ours(),
        kvm_works(),
        program("tpm2_checkquote", false, "apt-get install tpm2-tools"),
        program("cryptsetup", false, "apt-get install cryptsetup-bin"),
        host_tpm(),
    ];
    findings.extend(exposures());
    let ready = findings.iter().all(|f| f.ok || !f.needed);
    let mut text = String::new();
    for finding in &findings {
        let mark = match (finding.ok, finding.needed) {
            (true, _) => "ok     ",
            (false, true) => "MISSING",
            (false, false) => "note   ",
        };
        text.push_str(&format!("{mark} {}: {}\n", finding.what, finding.detail));
        if !finding.ok {
            text.push_str(&format!("        -> {}\n", finding.hint));
        }
    }
    text.push_str(if ready { "a lab can run here" } else { "a lab cannot run here yet" });
    printer.result(&serde_json::json!({"ready": ready, "findings": findings}), &text)?;
    Ok(if ready { Exit::Done } else { Exit::Failed })
}

fn program(what: &'static str, needed: bool, hint: &str) -> Finding {
    let found = on_path(what);
    Finding {
        what,
        ok: found.is_some(),
        needed,
        detail: found.map_or_else(|| "not on the PATH".to_owned(), |p| p.display().to_string()),
        hint: hint.to_owned(),
    }
}

fn file(what: &'static str, path: &str, hint: &str) -> Finding {
    let ok = Path::new(path).is_file();
    Finding { what, ok, needed: true, detail: path.to_owned(), hint: hint.to_owned() }
}

fn ours() -> Finding {
    let found = Programs::beside_this();
    let detail = match &found {
        Ok(_) => "all are beside this program".to_owned(),
        Err(Failure::Error { message, .. }) => message.clone(),
        Err(_) => "they cannot be looked for".to_owned(),
    };
    Finding {
        what: "Vouchsafe's services",
        ok: found.is_ok(),
        needed: true,
        detail,
        hint: "cargo build --release --workspace".to_owned(),
    }
}

fn kvm_works() -> Finding {
    let probed = kvm::probe(on_path("qemu-system-x86_64").as_deref(), Path::new(OVMF_CODE));
    Finding {
        what: "KVM",
        ok: probed.is_ok(),
        needed: false,
        detail: match probed {
            Ok(()) => "a machine runs by it".to_owned(),
            Err(why) => why,
        },
        hint: "without KVM guests are emulated (TCG): for labs only".to_owned(),
    }
}

fn host_tpm() -> Finding {
    let ok = Path::new("/dev/tpmrm0").exists();
    Finding {
        what: "host TPM",
        ok,
        needed: false,
        detail: if ok { "/dev/tpmrm0" } else { "no /dev/tpmrm0" }.to_owned(),
        hint: "a lab uses software TPMs; a production host needs a TPM 2.0".to_owned(),
    }
}

/// Places where a guest's memory could reach a disk.
fn exposures() -> Vec<Finding> {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swap = swaps.lines().skip(1).any(|line| !line.contains("zram"));
    let kdump = std::fs::read_to_string("/sys/kernel/kexec_crash_loaded").unwrap_or_default();
    vec![
        Finding {
            what: "swap",
            ok: !swap,
            needed: false,
            detail: if swap { "swap is on" } else { "no swap" }.to_owned(),
            hint: "guest memory could be written to it: swapoff -a, or encrypt it".to_owned(),
        },
        Finding {
            what: "kdump",
            ok: kdump.trim() != "1",
            needed: false,
            detail: if kdump.trim() == "1" { "a crash kernel is loaded" } else { "not loaded" }
                .to_owned(),
            hint: "a crash would dump guest memory: disable kdump".to_owned(),
        },
    ]
}
