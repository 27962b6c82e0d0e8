//! Why a host or guest gets keys or does not: every rule that is asked, in order, and what it says.
//! It decides nothing: it reads the same records, policy and signed verdicts as the decisions do.

use attest::{
    envelope::{Envelope, Kind},
    result::{AttestationResult, Claim},
};
use model::api::{
    enrol::HostMode,
    policy::{OnBadGuest, Trace, TracedRule},
};

use crate::{
    app::App,
    failure::Failure,
    grant,
    record::{
        host::{HostRecord, Standing},
        vm::VmRecord,
    },
    refusal::Rejection,
};

/// The rules as they are asked.
#[derive(Default)]
struct Rules(Vec<TracedRule>);

impl Rules {
    fn ask(&mut self, rule: &str, passed: bool, rests_on: impl Into<String>, why: &str) {
        let (rests_on, reason) = (rests_on.into(), why.to_owned());
        self.0.push(TracedRule { rule: rule.to_owned(), passed, rests_on, reason });
    }

    /// A rule that is a rejection if it says no.
    fn answer<R: Rejection>(
        &mut self,
        rule: &str,
        rests_on: impl Into<String>,
        says: Result<(), R>,
    ) {
        match says {
            Ok(()) => self.ask(rule, true, rests_on, "yes"),
            Err(no) => self.ask(no.name(), false, rests_on, &no.to_string()),
        }
    }

    fn claims(&mut self, result: &AttestationResult) {
        let rests_on = format!("reference values and prediction {}", result.policy);
        for Claim { name, passed, reason } in &result.claims {
            self.ask(name, *passed, rests_on.clone(), reason);
        }
    }

    fn into_trace(self, app: &App, subject: String, appraised_at: Option<u64>) -> Trace {
        let decided_by = self.0.iter().find(|rule| !rule.passed).map(|rule| rule.rule.clone());
        Trace {
            subject,
            allowed: decided_by.is_none(),
            decided_by,
            appraised_at,
            generation: app.policy_view().generation,
            rules: self.0,
        }
    }
}

/// What decides whether a host gets keys now.
///
/// # Errors
/// [`Failure`] if a stored verdict is not one that this authority signed.
pub(crate) fn host(app: &App, host: &HostRecord) -> Result<Trace, Failure> {
    let mut rules = Rules::default();
    host_rules(app, host, &mut rules)?;
    rules.answer("not-draining", "`host drain` (new starts only)", host.takes_starts());
    let at = host.standing.as_ref().map(|standing| standing.at);
    Ok(rules.into_trace(app, crate::routes::enrol::subject_of(&host.name), at))
}

fn host_rules(app: &App, host: &HostRecord, rules: &mut Rules) -> Result<(), Failure> {
    let (now, policy) = (app.now(), app.policy());
    rules.answer("approved", "`host approve`", host.may_attest());
    let enforcing = host.mode != HostMode::AuditOnly;
    let why = if enforcing { "yes" } else { "it gets verdicts, never keys" };
    let name = if enforcing { "enforcing" } else { "host-audit-only" };
    rules.ask(name, enforcing, "`host approve`", why);
    match host.standing.as_ref().and_then(Standing::verdict) {
        Some(verdict) => rules.claims(&verified(app, verdict)?),
        None => rules.ask("host-not-trusted", false, "evidence", "it has not attested yet"),
    }
    if let Some(good) = host.standing.as_ref().and_then(|standing| standing.good.as_ref()) {
        let left = good.fresh_until.saturating_sub(now) / 1000;
        let fresh = now < good.fresh_until;
        let why =
            if fresh { format!("for {left} s more") } else { "the verdict is too old".to_owned() };
        let name = if fresh { "verdict-fresh" } else { "host-not-trusted" };
        rules.ask(name, fresh, format!("session_life_s = {}", policy.session_life_s), &why);
    }
    let quiet = grant::leases_have_ended(app.restored, now);
    rules.answer("old-leases-ended", "`authority restore`", quiet);
    Ok(())
}

/// What decides whether a guest gets its data volume now.
///
/// # Errors
/// [`Failure`] if a stored verdict is not one that this authority signed.
pub(crate) fn guest(app: &App, vm: &VmRecord, home: Option<&HostRecord>) -> Result<Trace, Failure> {
    let (now, policy) = (app.now(), app.policy());
    let mut rules = Rules::default();
    rules.answer("not-retired", "`vm delete`, `vm revoke`", vm.is_live());
    match home {
        Some(home) => {
            let says = home.may_hold_keys(now).map(|_| ());
            let rests_on = format!("`policy trace host {}`", home.name);
            rules.answer("home-may-hold-keys", rests_on, says);
        }
        None => rules.ask("vm-not-running", false, "`vm start`", "it has no home"),
    }
    let Some(guest) = &vm.guest else {
        rules.ask("guest-not-trusted", false, "evidence", "the guest was not appraised");
        return Ok(rules.into_trace(app, crate::routes::vms::subject_of(&vm.spec.name), None));
    };
    rules.claims(&verified(app, &guest.verdict)?);
    let same = guest.epoch == vm.epoch;
    let why = format!("the verdict is of epoch {}, the VM is in {}", guest.epoch.0, vm.epoch.0);
    rules.ask(if same { "epoch" } else { "guest-not-trusted" }, same, "the VM's epoch", &why);
    let age = now.saturating_sub(guest.at) / 1000;
    let fresh = age <= policy.guest_verdict_life_s;
    let rests_on = format!("guest_verdict_life_s = {}", policy.guest_verdict_life_s);
    let name = if fresh { "verdict-fresh" } else { "guest-not-trusted" };
    rules.ask(name, fresh, rests_on, &format!("it is {age} s old"));
    if guest.refused.is_some() {
        let action = vm.spec.on_bad_guest.unwrap_or(policy.on_bad_guest);
        let why = match action {
            OnBadGuest::Pause => "a bad verdict pauses the VM",
            OnBadGuest::Report => "a bad verdict is reported; the VM goes on",
            OnBadGuest::Stop => "a bad verdict ends the VM",
        };
        rules.ask("on-bad-guest", action == OnBadGuest::Report, "on_bad_guest", why);
    }
    Ok(rules.into_trace(app, crate::routes::vms::subject_of(&vm.spec.name), Some(guest.at)))
}

fn verified(app: &App, verdict: &serde_json::Value) -> Result<AttestationResult, Failure> {
    let envelope = Envelope::from_value(verdict)?;
    Ok(envelope.verify::<AttestationResult>(&app.keys.own, Kind::Verdict, 1)?.into_inner())
}
