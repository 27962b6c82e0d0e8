//! `vouchsafe policy ...`.

use http::Method;
use model::api::policy::Trace;
use serde::Serialize;
use serve::client::Call;

use crate::{
    args::{Policy, Traced},
    client::Target,
    output::{Failure, Printer},
};

/// Longest policy file, bytes.
const LONGEST: usize = 1 << 20;

/// What each line of the policy decides.
const MEANINGS: [(&str, &str); 8] = [
    ("clock_skew_s", "a host whose clock is further off is refused as `clock-skew`"),
    ("nonce_life_s", "evidence that comes later is refused as `nonce-expired`"),
    ("session_life_s", "a host's good verdict and session end then: `host-not-trusted`"),
    ("lease_s", "a host may use cached keys alone until then: `lease-ended`"),
    ("grant_life_s", "a host must open a grant within it: `grant-expired`"),
    ("token_life_s", "an enrolment token ends then: `token-unknown`"),
    ("guest_verdict_life_s", "an older guest verdict opens no data volume: `guest-not-trusted`"),
    ("on_bad_guest", "what a host does with a VM whose guest verdict is bad"),
];

/// One line of the policy.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    value: serde_json::Value,
    decides: &'static str,
}

pub(super) async fn run(verb: &Policy, target: &Target, printer: Printer) -> Result<(), Failure> {
    let client = target.authority()?;
    let policy: serde_json::Value = match verb {
        Policy::List => return list(target, printer).await,
        Policy::Trace(traced) => return trace(traced, target, printer).await,
        Policy::Show => client.get("/v1/policy").await?,
        Policy::Set { file } => {
            let text = serve::fsfile::read_limited(file, LONGEST)?;
            let wanted: serde_json::Value = serde_json::from_slice(&text).map_err(|error| {
                Failure::error(
                    format!("{}: {error}", file.display()),
                    "start from the output of `vouchsafe policy show --json`",
                )
            })?;
            client.call(Call::new(Method::PUT, "/v1/policy").json(&wanted)?).await?
        }
    };
    let text = serde_json::to_string_pretty(&policy)?;
    printer.result(&policy, &text)
}

async fn list(target: &Target, printer: Printer) -> Result<(), Failure> {
    let policy: serde_json::Value = target.authority()?.get("/v1/policy").await?;
    let fields = policy.get("policy").and_then(|policy| policy.as_object());
    let mut table = crate::output::table(["LINE", "VALUE", "DECIDES"]);
    let mut lines = Vec::new();
    for (name, value) in fields.into_iter().flatten() {
        let known = MEANINGS.iter().find(|(known, _)| known == name);
        let decides = known.map_or("", |(_, decides)| *decides);
        table.add_row([name.clone(), value.to_string(), decides.to_owned()]);
        lines.push(Line { name: name.clone(), value: value.clone(), decides });
    }
    printer.list(&lines, &table.to_string())
}

async fn trace(traced: &Traced, target: &Target, printer: Printer) -> Result<(), Failure> {
    let path = match traced {
        Traced::Host { name } => format!("/v1/hosts/{name}/trace"),
        Traced::Vm { name } => format!("/v1/vms/{name}/trace"),
    };
    let trace: Trace = target.authority()?.get(&path).await?;
    let mut table = crate::output::table(["", "RULE", "RESTS ON", "WHY"]);
    for rule in &trace.rules {
        let mark = if rule.passed { "ok" } else { "REFUSED" };
        table.add_row([mark, &rule.rule, &rule.rests_on, &rule.reason]);
    }
    let outcome = match &trace.decided_by {
        None => "every rule says yes".to_owned(),
        Some(rule) => format!("decided by {rule}"),
    };
    let text = format!("{table}\n{}: {outcome} (policy {})", trace.subject, trace.generation);
    printer.result(&trace, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_policy_says_what_it_decides() {
        let policy = serde_json::to_value(model::api::policy::Policy::default()).unwrap();
        for name in policy.as_object().unwrap().keys() {
            assert!(MEANINGS.iter().any(|(known, _)| known == name), "{name}");
        }
    }
}
