//! QEMU's arguments. The order of devices is part of what the guest's firmware measures, so it
//! changes only together with the reference values.

use std::{ffi::OsString, path::Path};

use model::api::vm::{Transport, VmSpec};
use serde_json::{Value, json};

use super::{Ability, PlanError, VmPaths, Volume};
use crate::config::Config;

/// Bytes of console text that QEMU keeps in memory; a power of two.
pub(crate) const CONSOLE_RING: u32 = 256 << 10;

/// How long requests wait for a disk process that is gone, seconds; then they fail.
const RECONNECT: u32 = 300;

/// The most queues of one volume over vhost-user-blk; each has a thread while the guest uses it.
const QUEUES: u32 = 4;

pub(super) fn arguments(
    config: &Config,
    spec: &VmSpec,
    paths: &VmPaths,
    ability: Ability,
) -> Result<Vec<OsString>, PlanError> {
    let mut args = Arguments(Vec::new());
    args.pair("-name", format!("guest=vouchsafe-{},debug-threads=on", spec.name));
    machine(&mut args, spec, ability);
    // A guest that resets is launched anew: its next boot earns its own verdict before the data
    // volume opens again.
    args.pair("-action", "reboot=shutdown");
    if ability.seccomp {
        args.pair(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
    }
    let code = option(&config.firmware.code)?;
    args.pair("-drive", format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"));
    let variables = option(&paths.variables())?;
    args.pair("-drive", format!("if=pflash,format=raw,unit=1,file={variables}"));
    let vtpm = option(&paths.vtpm_qemu())?;
    args.pair("-chardev", format!("socket,id=chrtpm,path={vtpm}"));
    args.pair("-tpmdev", "emulator,id=tpm0,chardev=chrtpm");
    args.pair("-device", "tpm-crb,tpmdev=tpm0");
    boot_disk(&mut args, spec, paths)?;
    args.pair("-device", "pcie-root-port,id=rp1,chassis=1,slot=1");
    args.pair("-device", "virtio-serial-pci,id=vser0");
    port(&mut args, "evidence", &paths.evidence())?;
    port(&mut args, "control", &paths.control())?;
    port(&mut args, "xkms", &paths.xkms())?;
    args.pair("-chardev", format!("ringbuf,id=console,size={CONSOLE_RING}"));
    args.pair("-serial", "chardev:console");
    args.pair("-qmp", format!("unix:{},server=on,wait=off", option(&paths.qmp())?));
    Ok(args.0)
}

fn machine(args: &mut Arguments, spec: &VmSpec, ability: Ability) {
    let shared = spec.transport == Transport::VhostUser;
    args.pair("-machine", if shared { "q35,smm=off,memory-backend=ram" } else { "q35,smm=off" });
    if shared {
        let size = spec.memory_mib;
        args.pair("-object", format!("memory-backend-memfd,id=ram,size={size}M,share=on"));
    }
    args.pair("-accel", ability.accel.as_str());
    args.pair("-cpu", "max");
    args.pair("-smp", spec.cpus.to_string());
    args.pair("-m", format!("{}M", spec.memory_mib));
    args.0.extend(["-nodefaults".into(), "-no-user-config".into()]);
    args.pair("-display", "none");
}

/// A virtio-serial port on a socket where the agent, or for `xkms` the trust service, is the client,
/// one at a time.
fn port(args: &mut Arguments, name: &str, socket: &Path) -> Result<(), PlanError> {
    let path = option(socket)?;
    args.pair("-chardev", format!("socket,id={name},path={path},server=on,wait=off"));
    args.pair(
        "-device",
        format!("virtserialport,bus=vser0.0,chardev={name},name=org.vouchsafe.{name}.0"),
    );
    Ok(())
}

/// The disk that the guest boots from. A sector that is not authentic is an error that the guest
/// sees; over NBD a write that failed stops it.
fn boot_disk(args: &mut Arguments, spec: &VmSpec, paths: &VmPaths) -> Result<(), PlanError> {
    let socket = option(&paths.disk(Volume::Boot))?;
    match spec.transport {
        Transport::Nbd => {
            args.pair(
                "-blockdev",
                format!(
                    "driver=nbd,node-name=disk0,server.type=unix,server.path={socket},export=,\
                     reconnect-delay={RECONNECT},cache.direct=on"
                ),
            );
            args.pair(
                "-device",
                "virtio-blk-pci,drive=disk0,bootindex=1,rerror=report,werror=stop",
            );
        }
        Transport::VhostUser => {
            args.pair("-chardev", format!("socket,id=disk0,path={socket},reconnect=1"));
            let queues = queues(spec);
            args.pair(
                "-device",
                format!("vhost-user-blk-pci,chardev=disk0,bootindex=1,num-queues={queues}"),
            );
        }
    }
    Ok(())
}

/// Queues of a volume over vhost-user-blk.
pub(super) fn queues(spec: &VmSpec) -> u32 {
    spec.cpus.clamp(1, QUEUES)
}

/// The two commands that plug the data volume in.
pub(crate) fn hot_plug(spec: &VmSpec, paths: &VmPaths) -> [(&'static str, Value); 2] {
    let socket = paths.disk(Volume::Data).to_string_lossy().into_owned();
    match spec.transport {
        Transport::Nbd => [
            (
                "blockdev-add",
                json!({"driver": "nbd", "node-name": "data0",
                       "server": {"type": "unix", "path": socket}, "export": "",
                       "reconnect-delay": RECONNECT, "cache": {"direct": true}}),
            ),
            (
                "device_add",
                json!({"driver": "virtio-blk-pci", "id": "data-disk0", "drive": "data0",
                       "bus": "rp1", "rerror": "report", "werror": "stop"}),
            ),
        ],
        Transport::VhostUser => [
            (
                "chardev-add",
                json!({"id": "data0", "backend": {"type": "socket", "data": {
                    "addr": {"type": "unix", "data": {"path": socket}},
                    "server": false, "reconnect": 1}}}),
            ),
            (
                "device_add",
                json!({"driver": "vhost-user-blk-pci", "id": "data-disk0", "chardev": "data0",
                       "bus": "rp1", "num-queues": queues(spec)}),
            ),
        ],
    }
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn pair(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.push(flag.into());
        self.0.push(value.into());
    }
}

/// A path inside a comma-separated option.
fn option(path: &Path) -> Result<String, PlanError> {
    let text = path.to_str().filter(|p| !p.contains(','));
    text.map(str::to_owned).ok_or_else(|| PlanError::Path(path.to_owned()))
}
