//! Replays an observed list, as a verifier does.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use model::{
    Digest, HashAlg,
    child::vtpm::{Entry, Measured, Quoted},
};

fn hash(alg: HashAlg, parts: &[&[u8]]) -> Digest {
    let algorithm = match alg {
        HashAlg::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        HashAlg::Sha256 => &digest::SHA256,
        HashAlg::Sha384 => &digest::SHA384,
        HashAlg::Sha512 => &digest::SHA512,
    };
    Digest::new(alg, digest::digest(algorithm, &parts.concat()).as_ref()).unwrap()
}

fn value(alg: HashAlg, byte: u8, last: u8) -> Digest {
    let mut bytes = vec![byte; alg.size()];
    *bytes.last_mut().unwrap() |= last;
    Digest::new(alg, &bytes).unwrap()
}

/// PCR values of all banks after `entries`.
pub(crate) fn replay(entries: &[Entry]) -> BTreeMap<(HashAlg, u8), Digest> {
    let mut pcrs = BTreeMap::new();
    let mut crtm: Option<Vec<Digest>> = None;
    for entry in entries {
        let extend = |pcrs: &mut BTreeMap<(HashAlg, u8), Digest>, pcr: u8, digests: &[Digest]| {
            for digest in digests {
                let old = pcrs[&(digest.alg(), pcr)];
                let new = hash(digest.alg(), &[old.as_bytes(), digest.as_bytes()]);
                pcrs.insert((digest.alg(), pcr), new);
            }
        };
        match &entry.measured {
            Measured::Crtm { digests } => crtm = Some(digests.clone()),
            Measured::Startup {} | Measured::Resume {} => {
                let resumed = matches!(entry.measured, Measured::Resume {});
                for alg in HashAlg::ALL {
                    for pcr in if resumed { 16..24 } else { 0..24 } {
                        let ones = (17..23).contains(&pcr);
                        pcrs.insert((alg, pcr), value(alg, if ones { 0xff } else { 0 }, 0));
                    }
                    if !resumed {
                        let locality = if crtm.is_some() { 4 } else { entry.locality };
                        pcrs.insert((alg, 0), value(alg, 0, locality));
                    }
                }
                if let Some(digests) = crtm.take() {
                    extend(&mut pcrs, 0, &digests);
                }
            }
            Measured::Extend { pcr, digests } => extend(&mut pcrs, *pcr, digests),
            Measured::Reset { pcr } => {
                HashAlg::ALL.iter().for_each(|alg| {
                    pcrs.insert((*alg, *pcr), Digest::zero(*alg));
                });
            }
            Measured::Drtm { digests } => {
                for alg in HashAlg::ALL {
                    (17..23).for_each(|pcr| {
                        pcrs.insert((alg, pcr), Digest::zero(alg));
                    });
                }
                extend(&mut pcrs, 17, digests);
            }
        }
    }
    pcrs
}

/// The quoted values are those that the list gives.
pub(crate) fn assert_agrees(quoted: &Quoted, entries: &[Entry]) {
    assert_eq!((quoted.observed.overflowed, quoted.observed.unobservable), (false, None));
    let replayed = replay(entries);
    assert!(!quoted.pcrs.is_empty());
    for quoted in &quoted.pcrs {
        let expected = replayed[&(quoted.value.alg(), quoted.pcr)];
        assert_eq!(quoted.value, expected, "PCR {} {}", quoted.pcr, quoted.value.alg().name());
    }
}
