//! From what was asked ([`VmSpec`]) to what will run: the files, sockets and arguments of one VM's
//! processes. Pure: nothing is opened here.
//!
//! **Invariant:** no argument holds a secret; keys travel by descriptor, which the argument names.

mod paths;
mod qemu;

use std::{ffi::OsString, path::PathBuf};

use model::{
    Kmi,
    api::vm::{Transport, VmSpec, VolumeFormat},
};
use thiserror::Error;

pub(crate) use self::{
    paths::{Role, VmPaths, Volume},
    qemu::{CONSOLE_RING, hot_plug},
};
use crate::config::Config;

/// Smallest and largest memory of a VM, MiB.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 64..=1_048_576;

/// Smallest and largest number of virtual CPUs.
const CPUS: std::ops::RangeInclusive<u32> = 1..=512;

/// Longest path of a unix socket, its terminating zero included.
const SOCKET_PATH: usize = 108;

/// Why nothing can be planned for a specification.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum PlanError {
    /// Memory or CPUs outside of what is supported.
    #[error("{what} is {value}, allowed are {least} to {most}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u32,
        /// Smallest allowed.
        least: u32,
        /// Largest allowed.
        most: u32,
    },
    /// A socket's path is longer than the kernel takes.
    #[error("the socket path {} is too long; choose a shorter run_dir", .0.display())]
    SocketPath(PathBuf),
    /// A path holds a comma, which separates QEMU's options.
    #[error("{} holds a comma or is not text", .0.display())]
    Path(PathBuf),
}

/// How the CPU is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    /// By the hardware.
    Kvm,
    /// By translation.
    Tcg,
}

impl Accel {
    /// QEMU's name for it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What this machine's QEMU can do, found by trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ability {
    /// The accelerator to use.
    pub(crate) accel: Accel,
    /// `-sandbox on` works.
    pub(crate) seccomp: bool,
}

/// Everything that is decided about a VM's processes before the first one starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaunchPlan {
    /// Files and sockets.
    pub(crate) paths: VmPaths,
    /// Arguments of `vouchsafe-vtpm`, without the keys' descriptor.
    pub(crate) vtpm: Vec<OsString>,
    /// Arguments of QEMU.
    pub(crate) qemu: Vec<OsString>,
}

impl LaunchPlan {
    /// Decides.
    ///
    /// # Errors
    /// [`PlanError`].
    pub(crate) fn new(config: &Config, spec: &VmSpec, ability: Ability) -> Result<Self, PlanError> {
        within("memory_mib", spec.memory_mib, &MEMORY_MIB)?;
        within("cpus", spec.cpus, &CPUS)?;
        let paths = VmPaths::new(config, &spec.name);
        for socket in paths.sockets() {
            if socket.as_os_str().len() >= SOCKET_PATH {
                return Err(PlanError::SocketPath(socket));
            }
        }
        let mut vtpm: Vec<OsString> = vec![
            "run".into(),
            "--dir".into(),
            paths.vtpm_dir().into(),
            "--control".into(),
            paths.vtpm_control().into(),
            "--qemu".into(),
            paths.vtpm_qemu().into(),
            "--max-extends".into(),
            config.limits.max_extends.to_string().into(),
        ];
        if let Some(swtpm) = &config.binaries.swtpm {
            vtpm.extend(["--swtpm".into(), swtpm.into()]);
        }
        let qemu = qemu::arguments(config, spec, &paths, ability)?;
        Ok(Self { paths, vtpm, qemu })
    }
}

/// Arguments of `vouchsafe-disk create`, without the key's descriptor.
pub(crate) fn create_volume(
    paths: &VmPaths,
    spec: &VmSpec,
    volume: Volume,
    kmi: &Kmi,
) -> Vec<OsString> {
    let mut args: Vec<OsString> =
        vec!["create".into(), "--image".into(), paths.image(volume).into()];
    match volume {
        Volume::Boot => args.extend([
            "--source".into(),
            spec.image.path.clone().into(),
            "--source-sha256".into(),
            spec.image.sha256.hex().into(),
        ]),
        Volume::Data => {
            let bytes = u64::from(spec.data_mib).saturating_mul(1 << 20);
            args.extend(["--size".into(), bytes.to_string().into()]);
        }
    }
    let format = match spec.format {
        VolumeFormat::Luks2 => "luks2",
        VolumeFormat::Vault => "vault",
    };
    args.extend(["--format".into(), format.into()]);
    if let Ok(kmi) = serde_json::to_string(kmi) {
        args.extend(["--kmi".into(), kmi.into()]);
    }
    args
}

/// Arguments of `vouchsafe-disk serve`, without the key's descriptor.
pub(crate) fn serve_volume(paths: &VmPaths, spec: &VmSpec, volume: Volume) -> Vec<OsString> {
    let mut args = vec![
        "serve".into(),
        "--image".into(),
        paths.image(volume).into(),
        "--socket".into(),
        paths.disk(volume).into(),
        "--control".into(),
        paths.disk_control(volume).into(),
    ];
    if spec.transport == Transport::VhostUser {
        let queues = qemu::queues(spec).to_string();
        args.extend(["--vhost-user".into(), "--queues".into(), queues.into()]);
    }
    if spec.format == VolumeFormat::Vault {
        // The process may die and be replaced while the guest lives on.
        args.push("--write-through".into());
    }
    args
}

fn within(
    what: &'static str,
    value: u32,
    allowed: &std::ops::RangeInclusive<u32>,
) -> Result<(), PlanError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(PlanError::OutOfRange { what, value, least: *allowed.start(), most: *allowed.end() })
}

#[cfg(test)]
pub(crate) mod tests {
    use model::{Digest, Epoch, Guard, KeyOrigin, api::vm::ImageRef};

    use super::*;

    pub(crate) fn spec(name: &str) -> VmSpec {
        serde_json::from_value(serde_json::json!({
            "name": name,
            "image": serde_json::to_value(ImageRef {
                path: "/images/guest.img".to_owned(),
                sha256: Digest::sha256([7; 32]),
                size: 40 << 20,
            }).unwrap(),
            "memory_mib": 256, "cpus": 1, "data_mib": 16,
            "guard": Guard::Tpm, "origin": KeyOrigin::Console,
            "format": "luks2", "on_lease_end": "pause", "reference": {},
        }))
        .unwrap()
    }

    pub(crate) fn kmi(name: &str) -> Kmi {
        Kmi {
            vm: name.parse().unwrap(),
            key_id: Digest::sha256([1; 32]),
            version: 1,
            epoch: Epoch(1),
        }
    }

    fn words(args: &[OsString]) -> String {
        args.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    const TCG: Ability = Ability { accel: Accel::Tcg, seccomp: true };

    #[test]
    fn the_arguments_of_qemu_are_these() {
        let plan = LaunchPlan::new(&Config::example("/s", "/r"), &spec("v1"), TCG).unwrap();
        let expected = "-name guest=vouchsafe-v1,debug-threads=on \
            -machine q35,smm=off -accel tcg -cpu max -smp 1 -m 256M \
            -nodefaults -no-user-config -display none -action reboot=shutdown \
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
            -drive if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \
            -drive if=pflash,format=raw,unit=1,file=/s/vms/v1/OVMF_VARS.fd \
            -chardev socket,id=chrtpm,path=/r/v1/vtpm-qemu.sock -tpmdev emulator,id=tpm0,chardev=chrtpm \
            -device tpm-crb,tpmdev=tpm0 \
            -blockdev driver=nbd,node-name=disk0,server.type=unix,server.path=/r/v1/disk-boot.sock,export=,reconnect-delay=300,cache.direct=on \
            -device virtio-blk-pci,drive=disk0,bootindex=1,rerror=report,werror=stop \
            -device pcie-root-port,id=rp1,chassis=1,slot=1 -device virtio-serial-pci,id=vser0 \
            -chardev socket,id=evidence,path=/r/v1/evidence.sock,server=on,wait=off \
            -device virtserialport,bus=vser0.0,chardev=evidence,name=org.vouchsafe.evidence.0 \
            -chardev socket,id=control,path=/r/v1/control.sock,server=on,wait=off \
            -device virtserialport,bus=vser0.0,chardev=control,name=org.vouchsafe.control.0 \
            -chardev socket,id=xkms,path=/r/v1/xkms.sock,server=on,wait=off \
            -device virtserialport,bus=vser0.0,chardev=xkms,name=org.vouchsafe.xkms.0 \
            -chardev ringbuf,id=console,size=262144 -serial chardev:console \
            -qmp unix:/r/v1/qmp.sock,server=on,wait=off";
        assert_eq!(words(&plan.qemu), expected.split_whitespace().collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn the_arguments_of_the_other_processes_are_these() {
        let plan = LaunchPlan::new(&Config::example("/s", "/r"), &spec("v1"), TCG).unwrap();
        assert_eq!(
            words(&plan.vtpm),
            "run --dir /s/vms/v1/vtpm --control /r/v1/vtpm-control.sock \
             --qemu /r/v1/vtpm-qemu.sock --max-extends 20000"
        );
        assert_eq!(
            words(&serve_volume(&plan.paths, &spec("v1"), Volume::Data)),
            "serve --image /s/vms/v1/data.img --socket /r/v1/disk-data.sock \
             --control /r/v1/disk-data-control.sock"
        );
        let create = words(&create_volume(&plan.paths, &spec("v1"), Volume::Boot, &kmi("v1")));
        assert!(create.starts_with(&format!(
            "create --image /s/vms/v1/boot.img --source /images/guest.img --source-sha256 {} \
             --format luks2 --kmi ",
            "07".repeat(32)
        )));
        let vault = VmSpec { format: VolumeFormat::Vault, ..spec("v1") };
        let serve = words(&serve_volume(&plan.paths, &vault, Volume::Data));
        assert!(serve.ends_with(" --write-through"), "{serve}");
        let create = words(&create_volume(&plan.paths, &vault, Volume::Data, &kmi("v1")));
        let begin = "create --image /s/vms/v1/data.img --size 16777216 --format vault --kmi ";
        assert!(create.starts_with(begin), "{create}");
    }

    #[test]
    fn over_vhost_user_the_disk_process_shares_the_guests_memory() {
        let spec = VmSpec { transport: Transport::VhostUser, ..spec("v1") };
        let plan = LaunchPlan::new(&Config::example("/s", "/r"), &spec, TCG).unwrap();
        let said = words(&plan.qemu);
        for part in [
            "-machine q35,smm=off,memory-backend=ram",
            "-object memory-backend-memfd,id=ram,size=256M,share=on",
            "-chardev socket,id=disk0,path=/r/v1/disk-boot.sock,reconnect=1",
            "-device vhost-user-blk-pci,chardev=disk0,bootindex=1,num-queues=1",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let serve = words(&serve_volume(&plan.paths, &spec, Volume::Boot));
        assert!(serve.ends_with("--vhost-user --queues 1"), "{serve}");
    }

    #[test]
    fn what_cannot_run_is_not_planned() {
        let config = Config::example("/s", "/r");
        let small = VmSpec { memory_mib: 8, ..spec("v1") };
        assert!(matches!(
            LaunchPlan::new(&config, &small, TCG),
            Err(PlanError::OutOfRange { what: "memory_mib", value: 8, .. })
        ));
        let deep = Config::example("/s", &format!("/{}", "r".repeat(90)));
        assert!(matches!(LaunchPlan::new(&deep, &spec("v1"), TCG), Err(PlanError::SocketPath(_))));
        let comma = Config::example("/a,b", "/r");
        assert!(matches!(LaunchPlan::new(&comma, &spec("v1"), TCG), Err(PlanError::Path(_))));
    }
}
