//! A pass phrase that is typed: asked for on the terminal, which does not show it.
//!
//! It is asked of `/dev/tty`, so that standard input and output stay what they are.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use model::Secret;

use super::keys::KEY_MAX;
use crate::output::Failure;

/// The process's terminal.
const TERMINAL: &str = "/dev/tty";

/// Asks once.
///
/// # Errors
/// [`Failure::Usage`] without a terminal; `key-length`; or the terminal's error.
pub(super) fn ask() -> Result<Secret<Vec<u8>>, Failure> {
    Terminal::open()?.ask("Pass phrase: ")
}

/// Asks twice, for what is to be remembered.
///
/// # Errors
/// As for [`ask`]; or `passphrases-differ`.
pub(super) fn ask_new() -> Result<Secret<Vec<u8>>, Failure> {
    let mut terminal = Terminal::open()?;
    let phrase = terminal.ask("New pass phrase: ")?;
    let again = terminal.ask("Once more: ")?;
    if phrase.expose() == again.expose() {
        return Ok(phrase);
    }
    let detail = "the two pass phrases are not the same".to_owned();
    Err(Failure::refused("passphrases-differ", detail, "type it again"))
}

/// A terminal that shows nothing of what is typed until it is dropped.
struct Terminal(File);

impl Terminal {
    fn open() -> Result<Self, Failure> {
        let opened = File::options().read(true).write(true).open(TERMINAL);
        let tty = opened.map_err(|_| {
            let words = "there is no terminal to ask on; use --passphrase-file";
            Failure::Usage(words.to_owned())
        })?;
        let terminal = Self(tty);
        terminal.echo("-echo").context("switch the terminal's echo off")?;
        Ok(terminal)
    }

    fn echo(&self, how: &str) -> io::Result<()> {
        let mut command = Command::new("stty");
        let status = command.arg(how).stdin(Stdio::from(self.0.try_clone()?)).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("stty failed")) }
    }

    fn ask(&mut self, question: &str) -> Result<Secret<Vec<u8>>, Failure> {
        self.0.write_all(question.as_bytes()).context(TERMINAL)?;
        let mut phrase = Secret::new(Vec::with_capacity(KEY_MAX + 1));
        let mut byte = [0];
        while self.0.read(&mut byte).context(TERMINAL)? == 1 && byte != *b"\n" {
            // One more than allowed is kept, to be refused below.
            if phrase.expose().len() <= KEY_MAX {
                phrase.expose_mut().extend(byte);
            }
        }
        self.0.write_all(b"\n").context(TERMINAL)?;
        super::keys::judged(phrase, "what was typed")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If it fails there is nothing more to be done than `stty sane`.
        let _ = self.echo("echo");
    }
}
