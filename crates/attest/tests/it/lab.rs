//! A host of the lab: its log, and the PCRs that are quoted of it.

use attest::eventlog::{Builder, EventType};
use model::HashAlg;

use crate::support::TestHost;

pub(crate) const PCRS: [u8; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 14];

/// A host's log as the lab writes it.
pub(crate) fn lab_log() -> Builder {
    let mut log = Builder::new(&[HashAlg::Sha256]);
    log.measure(0, EventType::S_CRTM_VERSION, b"vouchsafe lab firmware", b"vouchsafe lab firmware")
        .unwrap();
    for pcr in 0..8 {
        log.measure(pcr, EventType::SEPARATOR, &[0; 4], &[0; 4]).unwrap();
    }
    for role in ["kernel", "host", "vtpm", "disk", "qemu", "swtpm"] {
        let name = format!("vouchsafe:{role}");
        log.measure(14, EventType::IPL, role.as_bytes(), name.as_bytes()).unwrap();
    }
    log
}

impl TestHost {
    /// A host with the lab's log.
    pub(crate) fn new() -> Self {
        Self::with_log(lab_log().finish(), &PCRS)
    }
}
