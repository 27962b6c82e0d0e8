//! `vouchsafe policy ...`.

use http::Method;
use serve::client::Call;

use crate::{
    args::Policy,
    client::Target,
    output::{Failure, Printer},
};

/// Longest policy file, bytes.
const LONGEST: usize = 1 << 20;

pub(super) async fn run(verb: &Policy, target: &Target, printer: Printer) -> Result<(), Failure> {
    let client = target.authority()?;
    let policy: serde_json::Value = match verb {
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
