//! What the guest says itself of its boot: it may say less, and nothing else than was observed.

use attest::{Rejection, eventlog::EventLog};
use model::api::vm::GuestEvidence;

use super::bench::{OVMF, TestGuest};

#[test]
fn the_guests_log_may_not_be_shorter_than_what_was_observed() {
    let guest = TestGuest::new();
    let log = EventLog::parse(OVMF).unwrap();
    let last = log.events().last().unwrap();
    let cut =
        4 * 4 + last.digests().map(|d| 2 + d.as_bytes().len()).sum::<usize>() + last.data.len();
    let mut evidence = guest.evidence();
    evidence.guest_log = Some(OVMF[..OVMF.len() - cut].to_vec().into());
    let refused = guest.appraise(&evidence).unwrap_err();
    let (log, entries, observed) = ("event log", 35, 36);
    assert_eq!(*refused.first(), Rejection::GuestLogTruncated { log, entries, observed });
    assert_eq!(refused.code(), "guest-log-truncated");
    let mut evidence = guest.evidence();
    evidence.ima_log = Some(vec![].into());
    assert_eq!(guest.code(&evidence), "guest-log-truncated");
}

#[test]
fn the_guests_log_must_agree_with_what_was_observed() {
    let guest = TestGuest::new();
    let log = EventLog::parse(OVMF).unwrap();
    let third = log.extends().nth(3).unwrap().sha256().unwrap().as_slice();
    let at = OVMF.windows(32).position(|window| window == third).unwrap();
    let mut evidence = guest.evidence();
    evidence.guest_log.as_mut().unwrap().0[at] ^= 1;
    let refused = guest.appraise(&evidence).unwrap_err();
    let rejection = Rejection::GuestLogDisagrees { log: "event log", entry: 3 };
    assert_eq!(*refused.first(), rejection);
    assert_eq!(refused.code(), "guest-log-disagrees");
    let mut evidence = guest.evidence();
    let end = evidence.ima_log.as_mut().unwrap();
    let at = end.0.windows(8).position(|window| window == b"sha256:\0").unwrap();
    end.0[at + 10] ^= 1;
    assert_eq!(guest.code(&evidence), "guest-log-disagrees");
    // A log with more than was observed lies as well.
    let mut longer = guest.evidence();
    let log = longer.guest_log.as_mut().unwrap();
    let header = 4 + 4 + 20 + 4 + usize::from(OVMF[28]);
    let first = OVMF[header..].to_vec();
    log.0.extend_from_slice(&first);
    assert_eq!(guest.code(&longer), "guest-log-disagrees");
}

#[test]
fn the_guests_log_must_be_one() {
    let guest = TestGuest::new();
    let evidence = GuestEvidence { guest_log: Some(vec![1].into()), ..guest.evidence() };
    assert_eq!(guest.code(&evidence), "guest-log-malformed");
    let mut evidence = guest.evidence();
    evidence.ima_log.as_mut().unwrap().0[0] = 24;
    assert_eq!(guest.code(&evidence), "guest-log-malformed");
    let evidence = GuestEvidence { ima_log: Some(vec![1].into()), ..guest.evidence() };
    assert_eq!(guest.code(&evidence), "guest-log-truncated");
    let mut evidence = guest.evidence();
    let log = evidence.guest_log.as_mut().unwrap();
    log.0.pop();
    assert_eq!(guest.code(&evidence), "guest-log-truncated");
}
