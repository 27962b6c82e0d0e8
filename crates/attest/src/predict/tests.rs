//! Predictions against the logs of a real boot (`vectors/guest-boot`, see its README): OVMF,
//! systemd-stub and Linux under QEMU wrote them, the prediction was made from the files alone.

use std::{fs, path::PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use model::Digest;
use proptest::prelude::*;

use super::{
    Extend, FirmwareError, Inputs, Machine, PartitionTable, PeError, PredictError, Prediction,
    UkiError, predict,
};
use crate::{eventlog::EventLog, ima::ImaList};

/// The machine of the recorded boot.
const MACHINE: Machine = Machine { memory_mib: 256, cpus: 1, max_cpus: 1 };
/// Debian's ovmf package, and the SHA-256 of the file in the version of the recorded boot.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const FIRMWARE_SHA256: &str = "b157d97b1f69729514feb7f201d2cbe4957f23ab77920e361fe9f822ba49ca4c";

fn vector(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/guest-boot").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn prediction() -> Prediction {
    serde_json::from_slice(&vector("prediction.json")).unwrap()
}

/// All extends of the boot, as the proxy would have observed them.
fn observed() -> Vec<Extend> {
    let bios = vector("bios.bin");
    let ima = vector("ima.bin");
    let log = EventLog::parse(&bios).unwrap();
    let firmware =
        log.extends().map(|event| Extend { pcr: event.pcr, digest: *event.sha256().unwrap() });
    let list = ImaList::parse(&ima).unwrap();
    let kernel = list.entries.iter().map(|e| Extend { pcr: e.pcr, digest: e.extended });
    firmware.chain(kernel).collect()
}

/// The observed list's index of what the prediction calls `name`.
fn index_of(name: &str) -> usize {
    let matched = prediction().compare(&observed()).matched;
    matched.iter().find(|matched| matched.name == name).unwrap().index
}

/// The firmware of the recorded boot, if this machine has it.
fn firmware() -> Option<Vec<u8>> {
    let Ok(code) = fs::read(FIRMWARE) else {
        println!("skipped: no {FIRMWARE}");
        return None;
    };
    if hex::encode(digest(&SHA256, &code)) != FIRMWARE_SHA256 {
        println!("skipped: {FIRMWARE} is of another version than the recorded boot's");
        return None;
    }
    Some(code)
}

#[test]
fn every_extend_of_a_real_boot_was_predicted_but_the_boot_variables() {
    let result = prediction().compare(&observed());
    assert!(result.is_complete(), "{result:#?}");
    assert_eq!(result.matched.len(), 33);
    let boot_variables: Vec<u8> =
        result.tolerated.iter().map(|&index| observed()[index].pcr).collect();
    assert_eq!(boot_variables, [1, 1, 1, 1]);
    assert_eq!(prediction().unpredicted.len(), 1);
}

#[test]
fn the_firmware_on_this_machine_gives_the_recorded_predictions() {
    let Some(code) = firmware() else { return };
    let measured = super::firmware::measured(&code, MACHINE).unwrap();
    assert_eq!(measured.entries, prediction().entries[..3]);
    assert!(measured.unpredicted.is_empty());
}

#[test]
fn memory_and_processors_change_the_firmware_volume_and_odd_machines_are_unpredicted() {
    let Some(code) = firmware() else { return };
    let volume = |machine| super::firmware::measured(&code, machine).unwrap();
    let usual = volume(MACHINE).entries[1].clone();
    for other in [
        Machine { memory_mib: 512, ..MACHINE },
        Machine { cpus: 2, max_cpus: 2, ..MACHINE },
        Machine { max_cpus: 2, ..MACHINE },
    ] {
        let entry = volume(other).entries[1].clone();
        assert!(entry.digests.iter().all(|digest| !usual.digests.contains(digest)));
    }
    for odd in [
        Machine { memory_mib: 32, ..MACHINE },
        Machine { memory_mib: 65536, ..MACHINE },
        Machine { cpus: 0, ..MACHINE },
        Machine { cpus: 2, ..MACHINE },
        Machine { cpus: 300, max_cpus: 300, ..MACHINE },
    ] {
        let measured = volume(odd);
        assert_eq!(measured.entries.len(), 2, "{odd:?}");
        assert_eq!(measured.unpredicted[0].pcr, 0, "{odd:?}");
    }
}

#[test]
fn another_kernel_is_named() {
    let mut extends = observed();
    extends[index_of("kernel")].digest = [7; 32];
    let result = prediction().compare(&extends);
    let unexpected: Vec<_> = result.unexpected.iter().map(|u| (u.pcr, u.digest)).collect();
    // IMA's aggregate covers PCR 4, so it no longer fits either.
    assert_eq!(unexpected[0], (4, Digest::sha256([7; 32])));
    assert_eq!(result.unexpected[0].instead_of.as_deref(), Some("kernel"));
    assert_eq!(result.unexpected[1].instead_of.as_deref(), Some("IMA boot aggregate"));
    assert!(result.missing.iter().any(|missing| missing.name == "kernel"));
}

#[test]
fn a_boot_that_has_not_got_to_the_end_misses_the_rest_and_nothing_is_unexpected() {
    let extends = observed();
    let result = prediction().compare(&extends[..index_of("section .cmdline")]);
    assert_eq!(result.unexpected, []);
    let missing: Vec<_> = result.missing.iter().map(|missing| missing.name.as_str()).collect();
    for name in ["kernel", "initrd", "section .initrd", "boot services left", "IMA boot aggregate"]
    {
        assert!(missing.contains(&name), "{name}");
    }
    assert!(!missing.contains(&"unified kernel image"));
    assert!(prediction().compare(&[]).missing.len() > 30);
}

#[test]
fn extends_in_another_order_or_twice_are_unexpected() {
    let mut swapped = observed();
    swapped.swap(index_of("section .osrel name"), index_of("section .osrel"));
    assert!(!prediction().compare(&swapped).is_complete());
    let mut twice = observed();
    twice.insert(index_of("initrd"), twice[index_of("initrd")]);
    assert!(!prediction().compare(&twice).is_complete());
}

#[test]
fn extends_of_other_pcrs_and_after_the_boot_are_unexpected() {
    for pcr in [0, 2, 8, 10, 11, 12, 16, 23] {
        let mut extends = observed();
        extends.push(Extend { pcr, digest: [1; 32] });
        let result = prediction().compare(&extends);
        assert_eq!(result.unexpected.len(), 1, "PCR {pcr}");
        assert_eq!(result.unexpected[0].instead_of, None);
        assert_eq!(result.missing, []);
    }
}

#[test]
fn a_second_attempt_to_leave_the_boot_services_is_allowed() {
    let mut extends = observed();
    let at = index_of("exit boot services");
    let failure = digest(&SHA256, b"Exit Boot Services Returned with Failure");
    let failure = Extend { pcr: 5, digest: failure.as_ref().try_into().unwrap() };
    extends.splice(at + 1..at + 1, [failure, extends[at]]);
    let result = prediction().compare(&extends);
    assert_eq!(result.unexpected.len(), 1, "only IMA's aggregate of the recorded boot: {result:?}");
    assert_eq!(result.unexpected[0].pcr, 10);
}

#[test]
fn the_json_form_refuses_unknown_fields() {
    let mut value: serde_json::Value = serde_json::from_slice(&vector("prediction.json")).unwrap();
    assert!(serde_json::from_value::<Prediction>(value.clone()).is_ok());
    value["skip-check"] = true.into();
    assert!(serde_json::from_value::<Prediction>(value).is_err());
}

#[test]
fn an_image_is_refused_by_name_when_it_cannot_be_predicted() {
    let kernel = pe(&[(".text", b"kernel")]);
    let whole = |cmdline: &'static [u8]| {
        pe(&[(".cmdline", cmdline), (".linux", &kernel), (".initrd", b"initrd")])
    };
    assert!(uki(&whole(b"console=ttyS0")).is_ok());
    assert!(matches!(uki(b""), Err(UkiError::Pe(PeError::NotPe))));
    assert!(matches!(uki(&whole(b"a\nb")), Err(UkiError::CommandLine)));
    assert!(matches!(uki(&whole(b"a ")), Err(UkiError::CommandLine)));
    let without = pe(&[(".cmdline", b"a"), (".linux", &kernel)]);
    assert!(matches!(uki(&without), Err(UkiError::NoSection(".initrd"))));
    let not_a_kernel = pe(&[(".cmdline", b"a"), (".linux", b"MZ"), (".initrd", b"b")]);
    assert!(matches!(uki(&not_a_kernel), Err(UkiError::Kernel(PeError::NotPe))));
    let mut short = whole(b"a");
    short[0x98 + 240 + 8..][..4].copy_from_slice(&0x1000_u32.to_le_bytes());
    assert!(matches!(uki(&short), Err(UkiError::ShortSection(".cmdline"))));
}

#[test]
fn a_pe_image_is_refused_by_name() {
    let good = pe(&[(".text", b"code"), (".data", b"data")]);
    let changed = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        super::pe::Pe::parse(&image).and_then(|pe| pe.authenticode()).err()
    };
    assert_eq!(changed(0x98 + 64, &[9; 4]), None, "the checksum is not measured");
    assert_eq!(changed(0x98, &[0x0b, 0x01]), Some(PeError::NotPe32Plus));
    assert_eq!(changed(0x80 + 6, &[97, 0]), Some(PeError::TooManySections));
    assert_eq!(changed(0x98 + 60, &[0xff; 4]), Some(PeError::OutOfBounds));
    assert_eq!(changed(0x98 + 112 + 36, &[8, 0, 0, 0]), Some(PeError::Certificates));
    let second = 0x98 + 240 + 40 + 20;
    assert_eq!(changed(second, &0x400_u32.to_le_bytes()), Some(PeError::Overlap));
}

#[test]
fn firmware_and_table_are_refused_by_name() {
    let firmware = |code: &[u8]| super::firmware::measured(code, MACHINE).err();
    assert!(matches!(firmware(&[]), Some(FirmwareError::OutOfBounds)));
    assert!(matches!(firmware(&vec![0; (16 << 20) + 1]), Some(FirmwareError::TooLarge)));
    let table = PartitionTable { header: vec![0; 91], entries: vec![vec![0; 128]] };
    let inputs = Inputs { uki: &[], table: &table, firmware: &[], machine: MACHINE };
    assert!(matches!(predict(&inputs), Err(PredictError::Table)));
    if let Some(mut code) = self::firmware() {
        let stream = code.windows(13).position(|w| w.starts_with(&[0x5d, 0, 0, 0, 1])).unwrap();
        code[stream + 1000] ^= 1;
        assert!(matches!(firmware(&code), Some(FirmwareError::Unpack)), "damaged");
        code[stream - 24..stream - 8].fill(0);
        assert!(matches!(firmware(&code), Some(FirmwareError::NoCompressedSection)), "no LZMA");
    }
}

proptest! {
    #[test]
    fn damaged_images_and_firmware_never_panic(
        at in 0_usize..0x800, bytes in proptest::collection::vec(any::<u8>(), 1..24),
    ) {
        let kernel = pe(&[(".text", b"kernel")]);
        let mut image = pe(&[(".cmdline", b"a"), (".linux", &kernel), (".initrd", b"i")]);
        let end = image.len();
        let at = at.min(end - bytes.len());
        image[at..at + bytes.len()].copy_from_slice(&bytes);
        let _ = uki(&image);
        let mut volume = vec![0; 0x100];
        volume[32] = 0xff;
        volume[40..44].copy_from_slice(b"_FVH");
        volume[48] = 72;
        let at = at % (0x100 - bytes.len());
        volume[at..at + bytes.len()].copy_from_slice(&bytes);
        let _ = super::firmware::measured(&volume, MACHINE);
    }
}

fn uki(file: &[u8]) -> Result<Vec<super::Predicted>, UkiError> {
    super::uki::measured(file)
}

/// The smallest PE32+ image with these sections: headers of 0x400 bytes, alignment 0x200.
fn pe(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x80;
    image[0x80..0x84].copy_from_slice(b"PE\0\0");
    image[0x86] = u8::try_from(sections.len()).unwrap();
    image[0x94] = 240;
    image[0x98..0x9a].copy_from_slice(&[0x0b, 0x02]);
    image[0x98 + 60..][..4].copy_from_slice(&0x400_u32.to_le_bytes());
    image[0x98 + 108] = 16;
    for (index, (name, data)) in sections.iter().enumerate() {
        let header = 0x98 + 240 + index * 40;
        let raw = data.len().next_multiple_of(0x200);
        let word = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
        image[header..header + name.len()].copy_from_slice(name.as_bytes());
        let (size, offset) = (word(data.len()), word(image.len()));
        image[header + 8..header + 12].copy_from_slice(&size);
        image[header + 16..header + 20].copy_from_slice(&word(raw));
        image[header + 20..header + 24].copy_from_slice(&offset);
        let end = image.len() + raw;
        image.extend_from_slice(data);
        image.resize(end, 0);
    }
    image
}
