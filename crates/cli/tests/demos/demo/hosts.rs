//! Hosts: two that are trusted, and one that tries everything.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use model::{
    GrantId, OperationId,
    api::grant::{GrantAnswer, GrantPurpose, GrantRequest},
};
use serve::clock::{Clock as _, SystemClock};
use tpm::Purpose;

use crate::{
    checks::Checks,
    rogue::{INVENTED, Rogue, SessionKeys},
    world::{PATIENCE, World, eventually, programs, run},
};

pub fn trusted(world: &World, checks: &mut Checks) {
    for host in ["a", "b"] {
        let said = world.vouchsafe(&["host", "show", host]);
        let shown = said.json();
        let payload = shown["verdict"]["payload"].as_str().unwrap_or_default();
        let software = attested_by_software(payload);
        checks.check(
            &format!("host {host} enrolled by credential activation and is trusted"),
            shown["trusted"] == true && shown["mode"] == "enforcing" && software,
            format!(
                "AK {}, assurance: software{}",
                &shown["ak_name"].as_str().unwrap_or("")
                    [..20.min(shown["ak_name"].as_str().unwrap_or("").len())],
                said.complaint()
            ),
        );
    }
}

fn attested_by_software(payload: &str) -> bool {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(payload).unwrap_or_default();
    let result: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    result["assurance"] == "software" && result["status"] == "affirming"
}

/// What an attempt came to: the refusal's name.
fn outcome<T>(result: Result<T, String>) -> String {
    result.err().unwrap_or_else(|| "allowed".to_owned())
}

pub fn expect<T>(checks: &mut Checks, what: &str, name: &str, result: Result<T, String>) {
    checks.refused(what, name, &outcome(result), "");
}

pub fn rogue(world: &World, checks: &mut Checks) {
    checks.part("a third machine with a genuine TPM tries what it can");
    let mut c = Rogue::new(world, "c");
    enrolment(world, checks, &c);
    quotes(checks, &c);
    grants(world, checks, &c);
    super::home::of_vms(world, checks, &c);
    old_session(world, checks, &c);
    let honest = c.log.clone();
    c.measure(14, b"vouchsafe:implant", true);
    let keys = SessionKeys::new();
    let evidence = c.challenge().map(|ch| c.evidence(&ch, &keys));
    expect(
        checks,
        "a component that nobody endorsed",
        "event-unknown",
        evidence.and_then(|e| c.attest(&e)),
    );
    let said = world.vouchsafe(&["policy", "trace", "host", "c"]);
    let decided = said.json()["decided_by"].as_str().unwrap_or_default().to_owned();
    let what = "policy trace says which rule decided";
    checks.check(what, decided == "event-unknown", decided);
    c.log = honest;
    let evidence = c.challenge().map(|ch| c.evidence(&ch, &keys));
    expect(
        checks,
        "the same, edited out of the event log",
        "event-log-mismatch",
        evidence.and_then(|e| c.attest(&e)),
    );
}

fn enrolment(world: &World, checks: &mut Checks, c: &Rogue) {
    expect(
        checks,
        "enrolment with an invented token",
        "token-unknown",
        c.enrol(&c.enrol_request(&"0".repeat(64))),
    );
    let token = world.vouchsafe(&["host", "token", "c"]).json()["token"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let mut wrong = c.enrol_request(&token);
    wrong.ak_public = c.ek().as_bytes().to_vec().into();
    let what = "enrolment of a key that is no attestation key";
    expect(checks, what, "ak-wrong-attributes", c.enrol(&wrong));
    let enrolled = c.enrol(&c.enrol_request(&token));
    checks.check("it enrols with its own token", enrolled.is_ok(), outcome(enrolled));
    let keys = SessionKeys::new();
    let unapproved = c.challenge().and_then(|ch| c.attest(&c.evidence(&ch, &keys)));
    expect(checks, "before it is approved it gets no verdict", "host-not-approved", unapproved);
    let said = world.vouchsafe(&["host", "approve", "c", "--audit-only"]);
    checks.check("an operator approves it, audit-only", said.code == 0, said.complaint());
}

fn quotes(checks: &mut Checks, c: &Rogue) {
    let keys = SessionKeys::new();
    let hour = 3_600_000;
    expect(
        checks,
        "a clock an hour ahead",
        "clock-skew",
        c.challenge_at(SystemClock.unix_ms() + hour),
    );
    let challenge = c.challenge().expect("a challenge");
    let evidence = c.evidence(&challenge, &keys);
    let mut relayed = evidence.clone();
    relayed.session_key = SessionKeys::new().tls.spki().to_vec().into();
    expect(
        checks,
        "its quote over another session key (relay)",
        "quote-not-bound",
        c.attest(&relayed),
    );
    let challenge = c.challenge().expect("a challenge");
    let evidence = c.evidence(&challenge, &keys);
    let good = c.attest(&evidence);
    checks.check("an honest quote earns a session", good.is_ok(), outcome(good));
    expect(checks, "the same quote again (replay)", "nonce-used", c.attest(&evidence));
    let mut invented = evidence;
    invented.nonce = INVENTED;
    expect(checks, "a nonce that nobody gave out", "nonce-unknown", c.attest(&invented));
    let challenge = c.challenge().expect("a challenge");
    let enrol = c.evidence_for(Purpose::Enrol, &challenge, &keys);
    expect(checks, "a quote made for another purpose", "quote-wrong-purpose", c.attest(&enrol));
    let challenge = c.challenge().expect("a challenge");
    let mut other = c.evidence(&challenge, &keys);
    other.ak_public = c.other_ak().into();
    expect(checks, "an AK that was not enrolled", "ak-not-enrolled", c.attest(&other));
}

fn grants(world: &World, checks: &mut Checks, c: &Rogue) {
    let epoch =
        model::Epoch(world.vouchsafe(&["vm", "show", "v1"]).json()["epoch"].as_u64().unwrap_or(0));
    let request = GrantRequest {
        operation: OperationId([0; 16]),
        request: GrantId([7; 16]),
        purpose: GrantPurpose::Boot,
        epoch,
    };
    let Ok((session, _)) = c.session() else {
        checks.check("an audit-only host has a session", false, "");
        return;
    };
    let asked: Result<GrantAnswer, _> = c.post_as(&session, "/v1/vms/v1/grant", &request);
    expect(checks, "an audit-only host asks for a grant", "host-audit-only", asked);
    let asked: Result<GrantAnswer, _> = c.post("/v1/vms/v1/grant", &request);
    expect(checks, "nobody asks for a grant", "session-missing", asked);
    let said = world.vouchsafe(&["host", "approve", "c"]);
    checks.check("an operator makes it enforcing", said.code == 0, said.complaint());
    let asked: Result<GrantAnswer, _> =
        c.session().and_then(|(s, _)| c.post_as(&s, "/v1/vms/v1/grant", &request));
    expect(checks, "a trusted host asks for another's VM", "vm-homed-elsewhere", asked);
    let mut unknown = serde_json::to_value(&request).expect("JSON");
    unknown["force"] = true.into();
    let asked: Result<GrantAnswer, _> =
        c.session().and_then(|(s, _)| c.post_as(&s, "/v1/vms/v1/grant", &unknown));
    expect(checks, "a request with an unknown field", "request-invalid", asked);
    let large = serde_json::json!({"reason": "x".repeat(4 << 20)});
    let seen = c.post::<_, serde_json::Value>("/v1/challenges", &large);
    expect(checks, "a request of 4 MiB", "request-too-large", seen);
}

/// A session certificate is good for as long as the verdict behind it.
fn old_session(world: &World, checks: &mut Checks, c: &Rogue) {
    super::guest::policy(world, checks, "session_life_s", 2.into());
    let session = c.session();
    super::guest::policy(world, checks, "session_life_s", 600.into());
    std::thread::sleep(Duration::from_millis(2100));
    let asked = session.and_then(|(s, _)| {
        c.post_as::<_, serde_json::Value>(&s, "/v1/audit", &serde_json::json!({"events": []}))
    });
    expect(checks, "a session certificate that has expired", "session-expired", asked);
}

/// An agent whose machine's clock is an hour ahead: the real program under `faketime`.
pub fn wrong_clock(world: &World, checks: &mut Checks) {
    checks.part("an agent on a machine whose clock is wrong");
    super::keeping::kill_9(super::keeping::pid_of(world, "host-b"));
    let config = world.path("hosts/b/host.toml");
    let log = world.path("hosts/b/wrong-clock.log");
    // The library of `faketime`, without its wrapper, so that the agent is our own child.
    let mut agent = Command::new(programs().join("vouchsafe-host"))
        .env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1")
        .env("FAKETIME", "+3600s")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .arg("--config")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("its log"))
        .spawn()
        .expect("the agent starts");
    let socket = world.path("run/b.agent");
    let socket = socket.to_str().expect("a plain path");
    let refused = eventually(PATIENCE, || {
        let said = run("curl", &["-s", "--unix-socket", socket, "http://agent/v1/status"]);
        let status = said.json();
        let name = status["session_refused"].as_str()?.to_owned();
        Some((name, status["session_error"].as_str().unwrap_or_default().to_owned()))
    });
    let (name, detail) = refused.unwrap_or_else(|| {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        (String::new(), said.lines().next_back().unwrap_or("its log is empty").to_owned())
    });
    checks.refused("its agent gets no session, and is told why", "clock-skew", &name, &detail);
    let _killed = agent.kill();
    let _ended = agent.wait();
    let noted = world
        .audit()
        .into_iter()
        .any(|entry| entry["subject"] == "host:b" && entry["outcome"]["refused"] == "clock-skew");
    checks.check("the audit log says so of that host", noted, "host:b");
    let said = world.lab_up(&[]);
    checks.check("with the right clock it is trusted again", said.code == 0, said.complaint());
}
