//! Event logs: what is built is parsed; replay follows the specification; defects have names.

use proptest::prelude::*;

use super::*;

fn small() -> Builder {
    let mut log = Builder::new(&HashAlg::ALL);
    log.measure(0, EventType::S_CRTM_VERSION, b"v1", b"v1").unwrap();
    log.measure(4, EventType::SEPARATOR, &[0; 4], &[0; 4]).unwrap();
    log.measure(14, EventType::IPL, b"binary", b"vouchsafe:qemu").unwrap();
    log
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    crate::envelope::sha256(&parts.concat()).as_bytes().try_into().unwrap()
}

#[test]
fn what_is_built_is_parsed() {
    let bytes = small().finish();
    let log = EventLog::parse(&bytes).unwrap();
    assert!(log.banks().eq(HashAlg::ALL));
    let names: Vec<_> =
        log.events().iter().map(|e| (e.pcr, e.kind.to_string(), e.description())).collect();
    assert_eq!(names[0], (0, "EV_S_CRTM_VERSION".to_owned(), "v1".to_owned()));
    assert_eq!(names[1], (4, "EV_SEPARATOR".to_owned(), "separator".to_owned()));
    assert_eq!(names[2], (14, "EV_IPL".to_owned(), "vouchsafe:qemu".to_owned()));
    assert!(log.events()[0].data_is_measured());
    assert!(!log.events()[2].data_is_measured());
    assert_eq!(log.events()[2].sha256(), Some(&sha256(&[b"binary"])));
    assert_eq!(log.events()[2].digests().count(), 4);
}

#[test]
fn each_bank_is_replayed_with_its_own_digests() {
    let bytes = small().finish();
    let log = EventLog::parse(&bytes).unwrap();
    let expected = sha256(&[&[0; 32], &sha256(&[b"binary"])]);
    let replay = log.replay(HashAlg::Sha256).unwrap();
    assert_eq!(replay.value(14).unwrap().as_bytes(), expected);
    assert_eq!(log.replay_sha256().unwrap().value(14), expected);
    assert!(replay.is_extended(14) && !replay.is_extended(15) && !replay.is_extended(200));
    assert_eq!(log.replay(HashAlg::Sha384).unwrap().value(14).unwrap().as_bytes().len(), 48);
    assert_eq!(replay.to_values().len(), 24);
}

#[test]
fn dynamic_pcrs_start_with_ones_and_locality_starts_pcr_0() {
    let mut log = Builder::new(&[HashAlg::Sha256]);
    log.startup_locality(3).unwrap();
    let bytes = log.finish();
    let log = EventLog::parse(&bytes).unwrap();
    assert_eq!(log.startup_locality(), 3);
    let replay = log.replay(HashAlg::Sha256).unwrap();
    let fast = log.replay_sha256().unwrap();
    for pcr in 0..24 {
        let first = if (17..=22).contains(&pcr) { 0xff } else { 0 };
        let last = if pcr == 0 { 3 } else { first };
        let value = fast.value(pcr);
        assert_eq!((value[0], value[31]), (first, last), "PCR {pcr}");
        assert_eq!(replay.value(pcr).unwrap().as_bytes(), value);
    }
}

#[test]
fn a_late_or_second_startup_locality_is_refused() {
    let mut late = small();
    late.startup_locality(3).unwrap();
    let bytes = late.finish();
    assert_eq!(EventLog::parse(&bytes).unwrap_err(), LogMalformed::Locality { event: 3 });
    let mut twice = Builder::new(&[HashAlg::Sha256]);
    twice.startup_locality(3).unwrap();
    twice.startup_locality(3).unwrap();
    let bytes = twice.finish();
    assert_eq!(EventLog::parse(&bytes).unwrap_err(), LogMalformed::Locality { event: 1 });
    let mut none = Builder::new(&[HashAlg::Sha256]);
    none.startup_locality(1).unwrap();
    let bytes = none.finish();
    assert_eq!(EventLog::parse(&bytes).unwrap_err(), LogMalformed::Locality { event: 0 });
}

#[test]
fn no_action_events_do_not_extend() {
    let mut log = small();
    let before = EventLog::parse(log.as_bytes()).unwrap().replay_sha256().unwrap().value(14);
    log.measure(14, EventType::NO_ACTION, b"x", b"x").unwrap();
    let bytes = log.finish();
    let parsed = EventLog::parse(&bytes).unwrap();
    assert_eq!(parsed.replay_sha256().unwrap().value(14), before);
    assert_eq!((parsed.events().len(), parsed.extends().count()), (4, 3));
}

#[test]
fn each_defect_has_its_name() {
    let bytes = small().finish();
    let parse = |bytes: &[u8]| EventLog::parse(bytes).unwrap_err();
    assert_eq!(parse(&[]), LogMalformed::Header);
    assert_eq!(parse(&bytes[..bytes.len() - 1]), LogMalformed::Truncated { event: 2 });
    let header = Builder::new(&HashAlg::ALL).finish().len();
    let mut pcr = bytes.clone();
    pcr[header] = 24;
    assert_eq!(parse(&pcr), LogMalformed::Pcr { event: 0, pcr: 24 });
    let mut digests = bytes.clone();
    digests[header + 12] = 0x12; // an algorithm that the header does not have
    assert_eq!(parse(&digests), LogMalformed::Digests { event: 0 });
    let mut twice = Builder::new(&[HashAlg::Sha256, HashAlg::Sha256]);
    twice.startup_locality(0).unwrap();
    assert_eq!(parse(twice.as_bytes()), LogMalformed::Header);
    assert_eq!(parse(&vec![0; MAX_LOG + 1]), LogMalformed::TooLarge);
}

#[test]
fn the_builder_refuses_what_the_parser_would() {
    let mut log = Builder::new(&[HashAlg::Sha256]);
    assert_eq!(log.measure(24, EventType::IPL, b"", b""), Err(BuildError::Pcr(24)));
    let wrong = [Digest::zero(HashAlg::Sha1)];
    assert_eq!(log.event(0, EventType::IPL, &wrong, b""), Err(BuildError::Digests));
    assert_eq!(log.measure(0, EventType::IPL, b"", &vec![0; MAX_LOG]), Err(BuildError::Full));
}

#[test]
fn descriptions_are_harmless_and_bounded() {
    let mut log = Builder::new(&[HashAlg::Sha256]);
    log.measure(4, EventType::IPL, b"", "a\u{1b}[2J\u{202e}b".as_bytes()).unwrap();
    log.measure(4, EventType::IPL, b"", &[b'a'; 1000]).unwrap();
    log.measure(4, EventType::IPL, b"", b".\0l\0i\0n\0u\0x\0\0\0").unwrap();
    log.measure(4, EventType::IPL, b"", &[0xc3, 0x28, 1]).unwrap();
    let bytes = log.finish();
    let log = EventLog::parse(&bytes).unwrap();
    let texts: Vec<_> = log.events().iter().map(Event::description).collect();
    assert_eq!(texts[0], "a?[2J?b");
    assert_eq!(texts[1].len(), MAX_DESCRIPTION);
    assert_eq!(texts[2], ".linux");
    assert_eq!(texts[3], "c32801");
}

proptest! {
    #[test]
    fn no_mutation_makes_the_parser_panic(
        flips in prop::collection::vec((0_usize..4096, any::<u8>()), 0..8),
        cut in 0_usize..300,
    ) {
        let mut bytes = small().finish();
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(log) = EventLog::parse(&bytes) {
            for event in log.events() {
                prop_assert!(event.description().chars().count() <= MAX_DESCRIPTION);
                let _ = event.data_is_measured();
            }
            let _ = log.replay(HashAlg::Sha512);
            let _ = log.replay_sha256();
        }
    }
}
