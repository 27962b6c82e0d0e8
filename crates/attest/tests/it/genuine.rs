//! Logs that OVMF, systemd-stub and Linux really wrote (vectors/tcg), against tpm2-tools.

use std::{collections::BTreeMap, process::Command};

use attest::{
    eventlog::{Event, EventLog, EventType},
    ima::ImaList,
};
use aws_lc_rs::digest::{SHA256, digest};
use model::HashAlg;

const OVMF: &[u8] = include_bytes!("../../vectors/tcg/ovmf-guest.bin");
const PCRS: &str = include_str!("../../vectors/tcg/ovmf-guest.pcrs.yaml");
const IMA: &[u8] = include_bytes!("../../vectors/tcg/ima-boot-aggregate.bin");

/// The `pcrs:` part of tpm2_eventlog's output: bank -> PCR -> hexadecimal.
fn golden(text: &str) -> BTreeMap<(String, u8), String> {
    let mut bank = String::new();
    let mut values = BTreeMap::new();
    for line in text.lines().skip_while(|line| *line != "pcrs:").skip(1) {
        let (key, value) = line.split_once(':').unwrap();
        match value.trim().strip_prefix("0x") {
            Some(hex) => {
                values.insert((bank.clone(), key.trim().parse().unwrap()), hex.to_owned());
            }
            None => bank = key.trim().to_owned(),
        }
    }
    values
}

fn check_against(text: &str) {
    let log = EventLog::parse(OVMF).unwrap();
    let golden = golden(text);
    assert!(golden.len() >= 40);
    for alg in HashAlg::ALL {
        let replay = log.replay(alg).unwrap();
        for pcr in 0..24_u8 {
            match golden.get(&(alg.name().to_owned(), pcr)) {
                Some(value) => {
                    assert_eq!(&replay.value(pcr).unwrap().hex(), value, "{alg:?} {pcr}")
                }
                None => assert!(!replay.is_extended(pcr)),
            }
        }
    }
    let fast = log.replay_sha256().unwrap();
    for ((bank, pcr), value) in golden {
        if bank == "sha256" {
            assert_eq!(hex::encode(fast.value(pcr)), value);
        }
    }
}

#[test]
fn ovmfs_log_replays_to_the_recorded_values_in_all_four_banks() {
    check_against(PCRS);
}

#[test]
fn ovmfs_log_replays_as_tpm2_eventlog_does_now() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/tcg/ovmf-guest.bin");
    let Ok(output) = Command::new("tpm2_eventlog").arg(file).output() else {
        println!("SKIPPED: tpm2_eventlog is not installed");
        return;
    };
    check_against(&String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_boot_aggregate_is_that_of_the_replayed_pcrs() {
    let replay = EventLog::parse(OVMF).unwrap().replay_sha256().unwrap();
    let pcrs: Vec<u8> = (0..10).flat_map(|pcr| replay.value(pcr)).collect();
    let list = ImaList::parse(IMA).unwrap();
    assert_eq!(list.entries.len(), 1);
    let entry = &list.entries[0];
    assert_eq!((entry.pcr, entry.description().as_str()), (10, "boot_aggregate"));
    assert_eq!(entry.file_digest, digest(&SHA256, &pcrs).as_ref());
}

#[test]
fn each_event_of_a_real_boot_has_words() {
    let log = EventLog::parse(OVMF).unwrap();
    let lines: Vec<String> = log
        .events()
        .iter()
        .map(|e| format!("{} {} {}", e.pcr, e.kind, e.description()).trim_end().to_owned())
        .collect();
    let text = lines.join("\n");
    for line in [
        "0 EV_S_CRTM_VERSION",
        "7 EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot",
        "7 EV_SEPARATOR separator",
        "4 EV_EFI_ACTION Calling EFI Application from Boot Option",
        "5 EV_EFI_GPT_EVENT GPT",
        "5 EV_EFI_ACTION Exit Boot Services Invocation",
    ] {
        assert!(lines.iter().any(|l| l == line), "no `{line}` in\n{text}");
    }
    assert!(text.contains("EV_EFI_BOOT_SERVICES_APPLICATION \\EFI\\BOOT\\BOOTX64.EFI"), "{text}");
    assert!(text.contains(".linux"), "{text}");
    let separators: Vec<&Event<'_>> =
        log.events().iter().filter(|e| e.kind == EventType::SEPARATOR).collect();
    assert!(separators.len() >= 7 && separators.iter().all(|e| e.data_is_measured()));
}

#[test]
fn a_host_with_a_real_log_is_appraised() {
    let host = crate::support::TestHost::with_log(OVMF.to_vec(), &[0, 1, 2, 3, 4, 5, 6, 7, 9, 11]);
    let now = crate::support::NOW;
    let appraised =
        attest::host::appraise_host(&host.evidence(), &host.policy, &host.challenge, now).unwrap();
    assert_eq!(appraised.result().claims.last().unwrap().reason, "36 named events are approved");
}
