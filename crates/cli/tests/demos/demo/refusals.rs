//! What must be refused, attempt by attempt, and the names by which it is. The demonstration makes
//! each of them on real processes; the audit log is then asked for every name.

use crate::checks::Checks;

/// Attempts and the names of their refusals.
pub const ALL: [(&str, &[&str]); 27] = [
    ("unapproved host", &["host-not-approved"]),
    ("AK that is not the enrolled one", &["ak-not-enrolled"]),
    ("AK with the wrong attributes", &["ak-wrong-attributes"]),
    ("replayed quote", &["nonce-used"]),
    ("quote over another session key", &["quote-not-bound"]),
    ("quote made for another purpose", &["quote-wrong-purpose"]),
    ("host with an unknown measurement", &["event-unknown"]),
    ("host whose event log was edited", &["event-log-mismatch"]),
    ("audit-only host asking for a grant", &["host-audit-only"]),
    ("start on a second host", &["vm-homed-elsewhere"]),
    ("home taken away while it speaks", &["vm-home-alive"]),
    ("grant used twice", &["grant-used"]),
    ("grant after the epoch moved", &["grant-epoch-moved"]),
    ("volume opened without a grant", &["grant-missing"]),
    ("vTPM state copied to the other host", &["vtpm-state-foreign"]),
    ("vTPM EK certificate of another VM", &["vtpm-ek-other-vm"]),
    ("one bit of a volume flipped", &["sector-damaged"]),
    ("yesterday's copy of a volume", &["rolled-back"]),
    ("a volume in the place of another VM's", &["wrong-key"]),
    ("guest with another kernel", &["guest-event-unknown"]),
    ("guest's own log cut short or altered", &["guest-log-truncated", "guest-log-disagrees"]),
    ("extend flood", &["log-overflow"]),
    ("expired session certificate", &["session-expired"]),
    ("clock skew beyond the limit", &["clock-skew"]),
    ("lease ended while the centre is away", &["lease-ended"]),
    ("store rolled back", &["store-rolled-back"]),
    ("unknown fields, oversize", &["request-invalid", "request-too-large"]),
];

/// Whether the demonstration has provoked each of them.
pub fn all_made(checks: &mut Checks) {
    let made = checks.refusals();
    let lacking = ALL.iter().filter(|(_, names)| !names.iter().all(|name| made.contains(*name)));
    let lacking: Vec<_> = lacking.map(|(attempt, _)| *attempt).collect();
    let shown = if lacking.is_empty() {
        format!("{} attempts", ALL.len())
    } else {
        format!("not made: {}", lacking.join("; "))
    };
    checks.check("all that must be refused was tried", lacking.is_empty(), shown);
}
