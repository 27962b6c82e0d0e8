//! `vm create`: the image is read, its measurements predicted, and both sent as one record.

use std::path::Path;

use attest::predict::{Machine, Prediction};
use model::{
    Guard, KeyOrigin, KmiOrigin,
    api::{
        policy::OnBadGuest,
        vm::{self, ImageRef, OnLeaseEnd, VmSpec, VmView, VolumeFormat},
    },
};

use crate::{
    args::{BadGuest, Create, Format, GuardBy, KmiBy, Origin, Transport},
    client::Target,
    commands::image::prediction,
    image::{self, ImageError},
    lab::components::digest_file,
    output::{Failure, Printer},
};

/// Longest file of reference values, bytes.
const MAX_REFERENCE: usize = 4 << 20;

pub(super) async fn run(wish: &Create, target: &Target, printer: Printer) -> Result<(), Failure> {
    let bar = printer.progress("reading the image and predicting its measurements");
    if target.lab_dir().is_some() {
        fits_this_machine(wish.memory)?;
    }
    let spec = spec(wish)?;
    bar.phase("creating");
    let vm: VmView = target.authority()?.post("/v1/vms", &spec).await?;
    bar.finish_and_clear();
    let text = format!(
        "{} is defined (image {})\nnext: {}",
        vm.spec.name,
        vm.spec.image.sha256,
        printer.command(&format!("vm start {} --host HOST", vm.spec.name)),
    );
    printer.result(&vm, &text)
}

/// A lab's hosts are this machine.
fn fits_this_machine(memory_mib: u32) -> Result<(), Failure> {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return Ok(()) };
    match total_mib(&text) {
        Some(total) if u64::from(memory_mib) > total => Err(Failure::Usage(format!(
            "--memory {memory_mib}M: the lab's hosts are this machine, which has {total}M"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// The memory of a machine in MiB, by its `/proc/meminfo`.
fn total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

fn unbootable(path: &Path, error: &ImageError) -> Failure {
    Failure::error(
        format!("{}: {}", path.display(), serve::exit::chain(error)),
        "--image takes a raw disk image (GPT) with a unified kernel image at EFI/BOOT/BOOTX64.EFI \
         of its EFI system partition; `make guest-image` builds one to try",
    )
}

/// A prediction that was made before.
fn predicted(file: &Path) -> Result<Prediction, Failure> {
    let text = serve::fsfile::read_limited(file, MAX_REFERENCE)?;
    serde_json::from_slice(&text).map_err(|error| {
        Failure::error(
            format!("{}: {error}", file.display()),
            "make it with `vouchsafe image measure --json`",
        )
    })
}

fn spec(wish: &Create) -> Result<VmSpec, Failure> {
    let path = wish.image.canonicalize().map_err(|error| {
        Failure::error(
            format!("{}: {error}", wish.image.display()),
            "`make guest-image` builds one to try",
        )
    })?;
    let boot = image::read(&path).map_err(|error| unbootable(&path, &error))?;
    if !boot.size.is_multiple_of(512) {
        return Err(Failure::Usage(format!(
            "{}: a disk image is a whole number of 512-byte sectors",
            path.display()
        )));
    }
    let machine =
        Machine { memory_mib: u64::from(wish.memory), cpus: wish.cpus, max_cpus: wish.cpus };
    let reference = match &wish.reference {
        None => prediction(&boot, wish.firmware.as_deref(), machine)?,
        Some(file) => predicted(file)?,
    };
    let text = path.to_str().ok_or_else(|| Failure::error("the path is not UTF-8", ""))?;
    Ok(VmSpec {
        name: wish.name.clone(),
        image: ImageRef { path: text.to_owned(), sha256: digest_file(&path)?, size: boot.size },
        memory_mib: wish.memory,
        cpus: wish.cpus,
        data_mib: wish.data,
        guard: match wish.guard {
            GuardBy::Tpm => Guard::Tpm,
            GuardBy::Tcb => Guard::Tcb,
        },
        origin: match wish.origin {
            Origin::Console => KeyOrigin::Console,
            Origin::Tcb => KeyOrigin::Tcb,
            Origin::Tpm => KeyOrigin::Tpm,
        },
        kmi_origin: match wish.kmi_origin {
            KmiBy::Console => KmiOrigin::Console,
            KmiBy::Tcb => KmiOrigin::Tcb,
            KmiBy::Tpm => KmiOrigin::Tpm,
            KmiBy::VmId => KmiOrigin::VmId,
        },
        format: wish.format.into(),
        transport: wish.transport.into(),
        on_lease_end: if wish.continue_after_lease {
            OnLeaseEnd::Continue
        } else {
            OnLeaseEnd::Pause
        },
        vtpm_rsa_ek: wish.vtpm_rsa_ek,
        pcr_banks: wish.pcr_banks.clone(),
        on_bad_guest: wish.on_bad_guest.map(|wish| match wish {
            BadGuest::Pause => OnBadGuest::Pause,
            BadGuest::Report => OnBadGuest::Report,
            BadGuest::Stop => OnBadGuest::Stop,
        }),
        reference: serde_json::to_value(&reference)?,
    })
}

impl From<Transport> for vm::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Nbd => Self::Nbd,
            Transport::VhostUser => Self::VhostUser,
        }
    }
}

impl From<Format> for VolumeFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Luks2 => Self::Luks2,
            Format::Vault => Self::Vault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_machine_is_read() {
        assert_eq!(total_mib("MemTotal:        8025124 kB\nMemFree: 1 kB\n"), Some(7837));
        assert_eq!(total_mib("nothing"), None);
    }

    #[test]
    fn what_is_no_image_is_named_with_a_next_step() {
        let path = Path::new("/etc/passwd");
        let error = image::read(path).unwrap_err();
        let Failure::Error { message, hint } = unbootable(path, &error) else { panic!() };
        assert!(message.contains("/etc/passwd") && message.contains("GPT"), "{message}");
        assert!(hint.contains("make guest-image"));
    }
}
