//! A real QEMU with real firmware: OVMF measures, resets and is observed. With the SHA-256 bank
//! alone, which firmware is done with soonest.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

use model::HashAlg;
use serve::process::{ProcessId, Spawn};

use crate::{
    programs::have,
    replay::assert_agrees,
    support::{Agent, Process, manufactured_with},
};

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

const BANKS: &[HashAlg] = &[HashAlg::Sha256];

struct Machine {
    id: ProcessId,
    qmp: BufReader<UnixStream>,
}

impl Machine {
    fn start(home: &Path, process: &Process) -> Self {
        std::fs::copy(VARS, home.join("vars")).unwrap();
        let qmp = home.join("qmp");
        let at = |name: &str| home.join(name).display().to_string();
        let id = Spawn::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-machine", "q35,smm=off", "-cpu", "max", "-m", "256"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-drive"])
            .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={CODE}"))
            .args(["-drive", &format!("if=pflash,format=raw,unit=1,file={}", at("vars"))])
            .arg("-chardev")
            .arg(format!("socket,id=t,path={}", process.qemu_socket().display()))
            .args(["-tpmdev", "emulator,id=tpm0,chardev=t", "-device", "tpm-crb,tpmdev=tpm0"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", at("qmp"))])
            .log_file(home.join("qemu.log"))
            .spawn()
            .unwrap();
        let stream = (0..6000).find_map(|_| {
            thread::sleep(Duration::from_millis(20));
            UnixStream::connect(&qmp).ok()
        });
        let log = std::fs::read_to_string(home.join("qemu.log")).unwrap_or_default();
        let stream = stream.unwrap_or_else(|| panic!("no QMP: {log}"));
        let mut machine = Self { id, qmp: BufReader::new(stream) };
        machine.line();
        machine.execute("qmp_capabilities");
        machine
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.qmp.read_line(&mut line).unwrap();
        line
    }

    fn execute(&mut self, command: &str) {
        let request = format!("{{\"execute\":\"{command}\"}}\n");
        self.qmp.get_mut().write_all(request.as_bytes()).unwrap();
        while !self.line().contains("\"return\"") {}
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.id.kill();
        let _ = self.id.wait_exit_blocking(Duration::from_secs(5));
    }
}

/// Waits until the firmware of this boot has measured and is quiet.
fn wait_for_firmware(agent: &mut Agent, generation: u64) {
    let mut last = 0;
    let mut quiet = 0;
    for _ in 0..1800 {
        thread::sleep(Duration::from_millis(200));
        let status = agent.status();
        let same = status.generation == generation && status.entries == last;
        quiet = if same && last > 15 { quiet + 1 } else { 0 };
        last = status.entries;
        if quiet == 10 {
            return;
        }
    }
    panic!("the firmware did not get anywhere: {:?}", agent.status());
}

#[test]
fn firmware_in_a_real_machine_is_observed_over_a_reset_and_a_restart() {
    if !have("qemu-system-x86_64") || !Path::new(CODE).exists() {
        eprintln!("SKIPPED: QEMU or OVMF is not installed");
        return;
    }
    let Some((home, process, _)) = manufactured_with(BANKS) else { return };
    let mut agent = process.agent();
    let mut machine = Machine::start(home.path(), &process);
    wait_for_firmware(&mut agent, 1);
    let first = agent.quote(1, BANKS);
    assert_agrees(&first, &first.observed.entries);
    machine.execute("system_reset");
    wait_for_firmware(&mut agent, 2);
    let second = agent.quote(2, BANKS);
    assert_agrees(&second, &second.observed.entries);
    assert_eq!(first.observed.entries.len(), second.observed.entries.len());
    machine.execute("quit");
    drop(machine);
    while agent.status().qemu_connected {
        thread::sleep(Duration::from_millis(20));
    }
    let machine = Machine::start(home.path(), &process);
    wait_for_firmware(&mut agent, 3);
    let third = agent.quote(3, BANKS);
    assert_agrees(&third, &third.observed.entries);
    drop(machine);
    println!("{} entries a boot", third.observed.total);
}
