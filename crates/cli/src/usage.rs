//! A command line that cannot be read: for people as clap says it, with `--json` as one object.

use std::ffi::OsString;

use clap::error::ErrorKind;
use serve::exit::Exit;

use crate::output::{Failure, Printer};

/// Prints it and gives the exit status: help and version are no errors.
pub fn report(error: &clap::Error, words: impl Iterator<Item = OsString>) -> Exit {
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if help || !wants_json(words) {
        // A reader that went away is no error.
        let _gone = error.print();
        return if help { Exit::Done } else { Exit::Usage };
    }
    Printer::new(true).failure(&failure(error))
}

/// Whether `--json` is among the options.
fn wants_json(words: impl Iterator<Item = OsString>) -> bool {
    words.take_while(|word| word != "--").any(|word| word == "--json")
}

/// In one line, without the lines that only people need.
fn failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).take_while(|line| {
        !line.starts_with("Usage:") && !line.starts_with("For more information")
    });
    let words: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    let message = words.join(" ");
    Failure::Usage(message.strip_prefix("error: ").unwrap_or(&message).to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn said(words: &[&str]) -> String {
        let Failure::Usage(message) = failure(&Cli::try_parse_from(words).unwrap_err()) else {
            panic!("not a usage error")
        };
        message
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let message = said(&["vouchsafe", "vm", "start", "v1", "--json"]);
        assert!(message.starts_with("the following required arguments"), "{message}");
        assert!(message.contains("--host") && !message.contains("Usage"), "{message}");
        let message = said(&["vouchsafe", "lab", "up", "--dir", "/x", "--hosts", "99", "--json"]);
        assert!(message.ends_with("99 is not in 1..=26"), "{message}");
    }

    #[test]
    fn json_is_wanted_only_before_the_end_of_options() {
        let words = |list: &[&str]| wants_json(list.iter().map(|word| OsString::from(*word)));
        assert!(words(&["vouchsafe", "vm", "--json"]));
        assert!(!words(&["vouchsafe", "vm", "--", "--json"]));
    }
}
