//! IMA lists are parsed, recomputed, and refused by name.

use proptest::prelude::*;

use super::*;

fn sized_to(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
    out.extend_from_slice(data);
}

fn entry(template: &str, path: &str, violation: bool) -> Vec<u8> {
    let mut data = Vec::new();
    let digest = if violation { [0; 32] } else { [7; 32] };
    sized_to(&mut data, &[&b"sha256:\0"[..], &digest].concat());
    sized_to(&mut data, format!("{path}\0").as_bytes());
    if template == "ima-sig" {
        sized_to(&mut data, &[]);
    }
    let mut out = 10_u32.to_le_bytes().to_vec();
    out.extend_from_slice(&[u8::from(!violation); 20]);
    sized_to(&mut out, template.as_bytes());
    sized_to(&mut out, &data);
    out
}

#[test]
fn both_templates_are_read() {
    let bytes =
        [entry("ima-ng", "boot_aggregate", false), entry("ima-sig", "/bin/sh", false)].concat();
    let list = ImaList::parse(&bytes).unwrap();
    assert_eq!(list.entries.len(), 2);
    assert_eq!(list.entries[0].description(), "boot_aggregate");
    assert_eq!(list.entries[0].digest(), Some(Digest::sha256([7; 32])));
    assert_eq!(list.entries[1].path, b"/bin/sh");
    assert_ne!(list.replay_sha256(10), [0; 32]);
    assert_eq!(list.replay_sha256(11), [0; 32]);
}

#[test]
fn a_violation_extends_ones() {
    let bytes = entry("ima-ng", "/var/log/x", true);
    let list = ImaList::parse(&bytes).unwrap();
    assert!(list.entries[0].violation);
    assert_eq!(list.entries[0].extended, [0xff; 32]);
}

#[test]
fn each_defect_has_its_name() {
    let good = entry("ima-ng", "a", false);
    let cut = &good[..good.len() - 1];
    assert_eq!(ImaList::parse(cut), Err(ImaMalformed::Truncated { entry: 0 }));
    let odd = entry("ima-xx", "a", false);
    assert_eq!(ImaList::parse(&odd), Err(ImaMalformed::Template { entry: 0 }));
    let mut pcr = good.clone();
    pcr[0] = 24;
    assert_eq!(ImaList::parse(&pcr), Err(ImaMalformed::Pcr { entry: 0, pcr: 24 }));
    let mut no_nul = good.clone();
    *no_nul.last_mut().unwrap() = b'b';
    assert_eq!(ImaList::parse(&no_nul), Err(ImaMalformed::Data { entry: 0 }));
    assert_eq!(ImaList::parse(&vec![0; MAX_LIST + 1]), Err(ImaMalformed::TooLarge));
}

#[test]
fn a_path_cannot_write_on_the_operators_terminal() {
    let bytes = entry("ima-ng", "/tmp/\u{1b}[2J", false);
    assert_eq!(ImaList::parse(&bytes).unwrap().entries[0].description(), "/tmp/?[2J");
}

proptest! {
    #[test]
    fn no_mutation_makes_the_parser_panic(
        flips in prop::collection::vec((0_usize..4096, any::<u8>()), 0..8),
        cut in 0_usize..400,
    ) {
        let mut bytes = [entry("ima-ng", "/a", false), entry("ima-sig", "/b", true)].concat();
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(list) = ImaList::parse(&bytes) {
            prop_assert!(list.entries.len() <= bytes.len() / 32);
        }
    }
}
