//! The host's commands between the guest's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use model::{Digest, HashAlg};
use tpm::{Auth, AuthValue, Hierarchy, Tpm, template};

use crate::{
    replay::assert_agrees,
    support::{CANCEL, command, manufactured},
};

fn fill_slots(guest: &mut Tpm) -> Vec<(u32, tpm::Name)> {
    [template::ek_p256(), template::srk_p256(), template::ak_p256()]
        .iter()
        .map(|kind| {
            let empty = AuthValue::empty();
            let key = guest.create_primary(Hierarchy::Null, Auth::none(), kind, &empty).unwrap();
            (key.handle(), key.name().clone())
        })
        .collect()
}

#[test]
fn a_guest_that_holds_all_slots_is_quoted_and_finds_its_objects_untouched() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut agent = process.agent();
    let mut qemu = process.qemu();
    let mut guest = qemu.boot();
    let held = fill_slots(&mut guest);
    for round in 0..5 {
        let quoted = agent.quote(round, &HashAlg::ALL);
        assert_agrees(&quoted, &quoted.observed.entries);
        let now = guest.transient_handles().unwrap();
        assert_eq!(now, held.iter().map(|(handle, _)| *handle).collect::<Vec<_>>());
        for (handle, name) in &held {
            assert_eq!(guest.persistent(*handle).unwrap().unwrap().name(), name);
        }
    }
}

#[test]
fn a_hash_sequence_of_the_guest_survives_being_displaced() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut agent = process.agent();
    let mut qemu = process.qemu();
    qemu.boot();
    let data = [&[0, 4][..], b"part"].concat();
    let sequences: Vec<u32> = (0..3)
        .map(|_| {
            let started = qemu.raw_ok(&command(0x186, &[], 0, &[0, 0, 0, 0x10]));
            u32::from_be_bytes(started[10..14].try_into().unwrap())
        })
        .collect();
    sequences.iter().for_each(|s| drop(qemu.raw_ok(&command(0x15c, &[*s], 1, &data))));
    let quoted = agent.quote(1, &HashAlg::ALL);
    assert_agrees(&quoted, &quoted.observed.entries);
    for (pcr, sequence) in sequences.iter().enumerate() {
        let pcr = u32::try_from(pcr).unwrap() + 1;
        qemu.raw_ok(&command(0x185, &[pcr, *sequence], 2, &data));
    }
    let quoted = agent.quote(2, &HashAlg::ALL);
    assert_agrees(&quoted, &quoted.observed.entries);
    let bytes: Vec<_> = (1..4)
        .map(|pcr| {
            let find = |v: &&model::child::vtpm::PcrValue| {
                v.pcr == pcr && v.value.alg() == HashAlg::Sha256
            };
            quoted.pcrs.iter().find(find).unwrap().value
        })
        .collect();
    assert!(bytes.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn quotes_agree_with_the_list_while_the_guest_hammers() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut qemu = process.qemu();
    qemu.boot();
    qemu.set_locality(3);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut guest = qemu.tpm();
    let hammer = thread::spawn(move || {
        let mut count = 0_u32;
        while !stopped.load(Ordering::SeqCst) {
            let digest = Digest::sha256([count.to_be_bytes()[3]; 32]);
            // PCR 18 only takes extends at locality 3: it must be there whenever we are.
            guest.pcr_extend(18, &[digest]).unwrap();
            guest.pcr_extend(10, &[digest]).unwrap();
            count += 1;
            if count > 500 {
                // The list must not overflow on a fast machine.
                thread::sleep(Duration::from_millis(1));
            }
        }
        count
    });
    let agents: Vec<_> = (0..2)
        .map(|_| {
            let mut agent = process.agent();
            thread::spawn(move || {
                for round in 0..40 {
                    let quoted = agent.quote(round, &HashAlg::ALL);
                    let mut entries = quoted.observed.entries.clone();
                    while u64::try_from(entries.len()).unwrap() < quoted.observed.total {
                        let from = u64::try_from(entries.len()).unwrap();
                        entries.extend(agent.observed(from).entries);
                    }
                    entries.truncate(usize::try_from(quoted.observed.total).unwrap());
                    assert_agrees(&quoted, &entries);
                }
            })
        })
        .collect();
    agents.into_iter().for_each(|agent| agent.join().unwrap());
    stop.store(true, Ordering::SeqCst);
    let count = hammer.join().unwrap();
    assert!(count > 5, "the guest got only {count} turns");
}

#[test]
fn cancel_gets_through_while_a_command_runs() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut qemu = process.qemu();
    let mut guest = qemu.boot();
    let busy = thread::spawn(move || {
        let empty = AuthValue::empty();
        let kind = template::ek_rsa2048();
        // Fresh seeds each time: key generation takes a while.
        (0..3).for_each(|_| {
            let made = guest.create_primary(Hierarchy::Null, Auth::none(), &kind, &empty);
            if let Ok(key) = made {
                guest.flush(&key).unwrap();
            }
        });
        guest
    });
    for _ in 0..20 {
        qemu.control(CANCEL, &[]);
        thread::sleep(Duration::from_millis(2));
    }
    let mut guest = busy.join().unwrap();
    assert_eq!(guest.random(8).unwrap().len(), 8);
}

#[test]
fn a_command_with_a_false_size_is_refused_and_the_channel_goes_on() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut qemu = process.qemu();
    let random = command(0x17b, &[], 0, &[0, 8]);
    // Before power-on nothing is passed to a vTPM that would not answer.
    assert_eq!(qemu.raw(&random)[6..10], [0, 0, 1, 1]);
    qemu.boot();
    let too_long = [&random[..2], &[0, 0, 0x10, 1], &random[6..]].concat();
    let short = [&random[..2], &[0, 0, 0, 40], &random[6..]].concat();
    let tiny = [&random[..2], &[0, 0, 0, 5], &random[6..]].concat();
    for wrong in [too_long, short, tiny, vec![0x80, 1, 0]] {
        assert_eq!(qemu.raw(&wrong)[6..10], [0, 0, 1, 0x42], "{wrong:02x?}");
        qemu.raw_ok(&random);
    }
    assert_eq!(process.agent().observed(0).unobservable, None);
}
