//! Boots: what is measured is observed, in all banks, over resets, resumes and odd channels.

use model::{
    Digest, HashAlg, Nonce,
    child::vtpm::{Measured, Unobservable},
};
use tpm::{Attest, Public, Purpose, QualifyingData, Signature};

use crate::{
    replay::{assert_agrees, replay},
    support::{Agent, HASH_DATA, HASH_END, HASH_START, Qemu, command, manufactured},
};

fn digests(byte: u8) -> Vec<Digest> {
    HashAlg::ALL.map(|alg| Digest::new(alg, &vec![byte; alg.size()]).unwrap()).to_vec()
}

/// Measures in every way that a guest has.
fn measure_everything(qemu: &mut Qemu) {
    let mut guest = qemu.tpm();
    for pcr in 0..16 {
        guest.pcr_extend(pcr, &digests(pcr)).unwrap();
    }
    guest.pcr_extend(10, &digests(9)[1..2]).unwrap();
    guest.pcr_extend(16, &digests(16)).unwrap();
    guest.pcr_reset(16).unwrap();
    guest.pcr_extend(23, &digests(23)).unwrap();
    // TPM2_PCR_Event, also with no PCR.
    let event = [&[0, 5][..], b"event"].concat();
    qemu.raw_ok(&command(0x13c, &[7], 1, &event));
    qemu.raw_ok(&command(0x13c, &[0x4000_0007], 1, &event));
    // HashSequenceStart with TPM_ALG_NULL, SequenceUpdate, EventSequenceComplete.
    let started = qemu.raw_ok(&command(0x186, &[], 0, &[0, 0, 0, 0x10]));
    let sequence = u32::from_be_bytes(started[10..14].try_into().unwrap());
    qemu.raw_ok(&command(0x15c, &[sequence], 1, &event));
    qemu.raw_ok(&command(0x185, &[5, sequence], 2, &event));
    // Refused: PCR 17 at locality 0; and taken at locality 3, where PCR 20 can be reset too.
    assert!(guest.pcr_extend(17, &digests(1)).is_err());
    qemu.set_locality(3);
    guest.pcr_extend(18, &digests(18)).unwrap();
    qemu.set_locality(2);
    guest.pcr_extend(20, &digests(20)).unwrap();
    guest.pcr_reset(20).unwrap();
    guest.pcr_extend(21, &digests(21)).unwrap();
    qemu.set_locality(0);
}

#[test]
fn the_observed_list_replays_to_the_quoted_pcrs_in_all_banks() {
    let Some((_home, process, identity)) = manufactured() else { return };
    let mut agent = process.agent();
    let mut qemu = process.qemu();
    qemu.boot();
    measure_everything(&mut qemu);
    let quoted = agent.quote(5, &HashAlg::ALL);
    assert_agrees(&quoted, &quoted.observed.entries);
    assert_eq!(quoted.pcrs.len(), 96);
    assert_eq!(quoted.banks, HashAlg::ALL);
    let ak = Public::parse(&identity.ak).unwrap();
    let signature = Signature::parse(&quoted.signature).unwrap();
    signature.verify(&ak.verifying_key().unwrap(), &quoted.attest).unwrap();
    let parts: [&[u8]; 2] = [b"v1", &1_u64.to_be_bytes()];
    let purpose = QualifyingData::bind(Purpose::GuestAttest, &Nonce([5; 32]), &parts);
    assert!(Attest::parse(&quoted.attest).unwrap().is_for(&purpose));
    assert_eq!(agent.observed(3).entries, quoted.observed.entries[3..]);
}

#[test]
fn a_reset_begins_a_new_generation() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut agent = process.agent();
    let mut qemu = process.qemu();
    qemu.boot();
    measure_everything(&mut qemu);
    qemu.power_on();
    let fault = agent.fault(&Agent::quote_request(1, &[HashAlg::Sha256]));
    assert_eq!(fault.name(), "vtpm-resetting");
    qemu.tpm().startup().unwrap();
    qemu.tpm().pcr_extend(4, &digests(4)).unwrap();
    let quoted = agent.quote(6, &HashAlg::ALL);
    assert_agrees(&quoted, &quoted.observed.entries);
    assert_eq!((quoted.observed.generation, quoted.observed.total), (2, 2));
}

#[test]
fn a_resume_goes_on_with_the_list() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut agent = process.agent();
    let mut qemu = process.qemu();
    qemu.boot();
    measure_everything(&mut qemu);
    qemu.raw_ok(&command(0x145, &[], 0, &[0, 1]));
    qemu.power_on();
    qemu.raw_ok(&command(0x144, &[], 0, &[0, 1]));
    qemu.tpm().pcr_extend(10, &digests(10)).unwrap();
    let quoted = agent.quote(7, &HashAlg::ALL);
    assert_agrees(&quoted, &quoted.observed.entries);
    assert_eq!(quoted.observed.generation, 1);
    // A resume that is refused changes nothing, and the startup after it begins afresh.
    qemu.power_on();
    let refused = qemu.raw(&command(0x144, &[], 0, &[0, 1]));
    assert_ne!(refused[6..10], [0; 4]);
    qemu.tpm().startup().unwrap();
    let quoted = agent.quote(8, &HashAlg::ALL);
    assert_agrees(&quoted, &quoted.observed.entries);
    assert_eq!(quoted.observed.generation, 2);
}

#[test]
fn a_resume_from_before_this_process_is_said_to_be_unobservable() {
    let Some((home, process, _)) = manufactured() else { return };
    let mut qemu = process.qemu();
    qemu.boot();
    measure_everything(&mut qemu);
    qemu.raw_ok(&command(0x145, &[], 0, &[0, 1]));
    drop((qemu, process));
    let process = crate::support::Process::start(home.path(), &crate::support::keys(1), 100);
    let mut qemu = process.qemu();
    qemu.power_on();
    qemu.raw_ok(&command(0x144, &[], 0, &[0, 1]));
    let quoted = process.agent().quote(1, &[HashAlg::Sha256]);
    assert_eq!(quoted.observed.unobservable, Some(Unobservable::StoredState));
}

fn hash_sequence(qemu: &mut Qemu, data: &[u8]) {
    qemu.control(HASH_START, &[]);
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    qemu.control(HASH_DATA, &[&length[..], data].concat());
    qemu.control(HASH_END, &[]);
}

#[test]
fn measurements_by_the_control_channel_are_observed() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut agent = process.agent();
    let mut qemu = process.qemu();
    qemu.power_on();
    hash_sequence(&mut qemu, b"code of the root of trust");
    qemu.tpm().startup().unwrap();
    qemu.tpm().pcr_extend(0, &digests(1)).unwrap();
    let quoted = agent.quote(1, &HashAlg::ALL);
    assert!(matches!(quoted.observed.entries[0].measured, Measured::Crtm { .. }));
    assert_agrees(&quoted, &quoted.observed.entries);
    hash_sequence(&mut qemu, &[7; 3000]);
    qemu.set_locality(2);
    qemu.tpm().pcr_extend(18, &digests(2)).unwrap();
    let quoted = agent.quote(2, &HashAlg::ALL);
    assert!(quoted.observed.entries.iter().any(|e| matches!(e.measured, Measured::Drtm { .. })));
    assert_agrees(&quoted, &quoted.observed.entries);
}

#[test]
fn startup_at_another_locality_shows_in_pcr_0() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut qemu = process.qemu();
    qemu.power_on();
    qemu.set_locality(3);
    qemu.tpm().startup().unwrap();
    let quoted = process.agent().quote(1, &HashAlg::ALL);
    assert_agrees(&quoted, &quoted.observed.entries);
}

#[test]
fn banks_can_be_taken_away_and_the_rest_still_agrees() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut agent = process.agent();
    let mut qemu = process.qemu();
    qemu.boot();
    // TPM2_PCR_Allocate: SHA-256 only.
    let mut banks = vec![0, 0, 0, 4];
    for (alg, byte) in [(4, 0), (0xb, 0xff), (0xc, 0), (0xd, 0)] {
        banks.extend([0, alg, 3, byte, byte, byte]);
    }
    qemu.raw_ok(&command(0x12b, &[0x4000_000c], 1, &banks));
    qemu.boot();
    let event = [&[0, 5][..], b"event"].concat();
    qemu.raw_ok(&command(0x13c, &[7], 1, &event));
    qemu.tpm().pcr_extend(8, &digests(8)).unwrap();
    let fault = agent.fault(&Agent::quote_request(1, &HashAlg::ALL));
    assert_eq!(fault.name(), "vtpm-bad-request");
    let quoted = agent.quote(1, &[HashAlg::Sha256]);
    assert_eq!(quoted.banks, [HashAlg::Sha256]);
    assert_agrees(&quoted, &quoted.observed.entries);
}

#[test]
fn a_flood_of_extends_is_told_and_never_a_short_list() {
    if !crate::programs::have("swtpm") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let process = crate::support::Process::start(home.path(), &crate::support::keys(1), 50);
    let mut agent = process.agent();
    agent.manufacture(false);
    let mut qemu = process.qemu();
    let mut guest = qemu.boot();
    for n in 0..60 {
        guest.pcr_extend(10, &digests(n)).unwrap();
    }
    let quoted = agent.quote(1, &[HashAlg::Sha256]);
    assert!(quoted.observed.overflowed);
    assert_eq!(quoted.observed.total, 50);
    assert!(agent.status().overflowed);
    let replayed = replay(&quoted.observed.entries);
    let pcr = quoted.pcrs.iter().find(|value| value.pcr == 10).unwrap();
    assert_ne!(pcr.value, replayed[&(HashAlg::Sha256, 10)]);
    qemu.boot();
    assert!(!agent.status().overflowed);
}

#[test]
fn a_long_list_comes_in_parts_that_fit_together() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut agent = process.agent();
    let mut qemu = process.qemu();
    let mut guest = qemu.boot();
    for n in 0..4500_u32 {
        guest.pcr_extend(10, &digests(n.to_be_bytes()[3])).unwrap();
    }
    let quoted = agent.quote(1, &HashAlg::ALL);
    assert_eq!((quoted.observed.total, quoted.observed.entries.len()), (4501, 4000));
    guest.pcr_extend(10, &digests(1)).unwrap();
    let rest = agent.observed(4000);
    assert_eq!((rest.generation, rest.total), (quoted.observed.generation, 4502));
    let mut entries = quoted.observed.entries.clone();
    entries.extend(rest.entries);
    entries.truncate(4501);
    assert_agrees(&quoted, &entries);
}
