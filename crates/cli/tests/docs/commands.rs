//! Each command of ours that a document shows is one that can be typed.

use std::{path::PathBuf, process::Command};

use clap::{Parser as _, error::ErrorKind};
use cli::args::Cli;

use crate::text::code;

/// Our programs whose arguments only they know; each is asked by the command with `--help` behind it.
const PROGRAMS: [&str; 7] = [
    "vouchsafe-authority",
    "vouchsafe-centre",
    "vouchsafe-disk",
    "vouchsafe-guest",
    "vouchsafe-host",
    "vouchsafe-trust",
    "vouchsafe-vtpm",
];

/// The words of a command, up to a comment, a pipe or a redirection. Brackets around what may be left
/// out are taken away.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), None, false);
    let mut before = ' ';
    for c in line.chars() {
        match (c, quoted) {
            (_, Some(quote)) if c == quote => quoted = None,
            (_, Some(_)) => word.push(c),
            ('"' | '\'', None) => (quoted, any) = (Some(c), true),
            ('[' | ']', None) => {}
            ('#', None) if before == ' ' => break,
            ('|' | '>' | '<' | ';' | '&' | '(', None) => break,
            (' ', None) => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (_, None) => word.push(c),
        }
        before = c;
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words.into_iter().map(filled).collect()
}

/// What stands for something that the reader has: `NAME`, `ID`, `FILE`. The same serves as each.
fn filled(word: String) -> String {
    let stands = !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase());
    if stands { "a".repeat(32) } else { word }
}

/// A line of a block that is one of our commands, after the prompt.
fn typed(line: &str) -> Option<Vec<String>> {
    let line = line.trim();
    let command = match line.split_once("$ ") {
        Some((who, command)) if who.chars().all(|c| c.is_ascii_lowercase()) => command.trim(),
        _ => line,
    };
    Some(words(command)).filter(|words| ours(words))
}

fn ours(words: &[String]) -> bool {
    let Some(first) = words.first().filter(|_| words.len() > 1) else { return false };
    // A drawing of processes is no command.
    let drawn = words.iter().any(|word| !word.is_ascii());
    !drawn && (first == "vouchsafe" || PROGRAMS.contains(&first.as_str()))
}

/// A command in running text may leave out what every such command needs.
fn parses(words: &[String], whole: bool) -> Result<(), String> {
    let Err(error) = Cli::try_parse_from(words) else { return Ok(()) };
    let short = matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelp
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if short && !whole { Ok(()) } else { Err(error.to_string()) }
}

fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("this test has a path");
    this.ancestors().nth(2).expect("it is in target/PROFILE/deps").join(name)
}

fn is_known(words: &[String]) -> Result<(), String> {
    let (name, rest) = words.split_first().expect("a command has words");
    let program = program(name);
    if !program.exists() {
        println!("Skipped: {} is not built", program.display());
        return Ok(());
    }
    let output = Command::new(program).args(rest).arg("--help").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn every_command_in_the_documents_can_be_typed() {
    let (mut wrong, mut looked) = (Vec::new(), 0);
    for code in code() {
        let typed = code.lines.iter().filter_map(|line| typed(line)).map(|words| (words, true));
        let spans = code.spans.iter().map(|span| words(span)).filter(|words| ours(words));
        for (words, whole) in typed.chain(spans.map(|words| (words, false))) {
            looked += 1;
            let shell = words.first().is_some_and(|word| word == "vouchsafe");
            let result = if shell { parses(&words, whole) } else { is_known(&words) };
            if let Err(why) = result {
                wrong.push(format!("{}: {}\n    {why}", code.document, words.join(" ")));
            }
        }
    }
    assert!(looked > 100, "only {looked} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
