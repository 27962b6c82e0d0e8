//! The peer: the same machine, swtpm and image without any of ours.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    FIRST_LINE, LIMIT, LOOK,
    world::{World, run},
};

/// A process that ends with the measurement.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn spawn(program: &str, args: &[String]) -> Running {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().expect("it starts"))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Seconds from the start of swtpm to the kernel's first line.
pub fn launch(world: &World, image: &Path) -> f64 {
    let dir = world.path("plain");
    let _fresh = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(dir.join("tpm")).expect("a directory");
    let (disk, vars) = (dir.join("disk.img"), dir.join("vars.fd"));
    std::fs::copy(image, &disk).expect("a copy");
    std::fs::copy(cli::lab::components::OVMF_VARS, &vars).expect("a copy");
    let at = |name: &str| dir.join(name).display().to_string();
    let (disk, vars) = (disk.display(), vars.display());
    // The same bank as ours has, before the clock starts.
    let banks = format!("--tpm2 --tpmstate {} --pcr-banks sha256", at("tpm"));
    let banks: Vec<_> = banks.split(' ').collect();
    let prepared = run("swtpm_setup", &banks);
    assert!(prepared.code == 0, "{}", prepared.complaint());
    let since = Instant::now();
    let swtpm = words(&format!(
        "socket --tpm2 --terminate --tpmstate dir={} --ctrl type=unixio,path={}",
        at("tpm"),
        at("tpm.sock")
    ));
    let _swtpm = spawn("swtpm", &swtpm);
    while !dir.join("tpm.sock").exists() {
        assert!(since.elapsed() < LIMIT, "swtpm does not start");
        std::thread::sleep(Duration::from_millis(1));
    }
    let qemu = words(&format!(
        "-accel tcg -machine q35,smm=off -cpu max -m 512 -smp 1 -nodefaults -no-user-config \
         -display none -drive if=pflash,format=raw,unit=0,readonly=on,file={code} \
         -drive if=pflash,format=raw,unit=1,file={vars} \
         -chardev socket,id=t,path={tpm} -tpmdev emulator,id=tpm0,chardev=t \
         -device tpm-crb,tpmdev=tpm0 -blockdev driver=file,node-name=f,filename={disk} \
         -blockdev driver=raw,node-name=d,file=f -device virtio-blk-pci,drive=d,bootindex=1 \
         -chardev file,id=s,path={serial} -serial chardev:s",
        code = cli::lab::components::OVMF_CODE,
        tpm = at("tpm.sock"),
        serial = at("serial"),
    ));
    let _qemu = spawn("qemu-system-x86_64", &qemu);
    loop {
        let said = std::fs::read(dir.join("serial")).unwrap_or_default();
        if String::from_utf8_lossy(&said).contains(FIRST_LINE) {
            return since.elapsed().as_secs_f64();
        }
        assert!(since.elapsed() < LIMIT, "the plain guest does not boot");
        std::thread::sleep(LOOK);
    }
}
