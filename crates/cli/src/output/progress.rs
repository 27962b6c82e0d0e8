//! Progress on stderr: a spinner on a terminal, else a line at each change of phase.

use std::{
    cell::RefCell,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// One piece of work that is under way.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// Where stderr is no terminal: the phase that was printed last.
    printed: Option<RefCell<String>>,
}

impl Progress {
    /// Begins with the phase `what`; `shown` is false if nobody wants words.
    pub(super) fn begin(what: &str, shown: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if shown && terminal { spinner() } else { ProgressBar::hidden() };
        let lines = shown && !terminal;
        let progress = Self { bar, printed: lines.then(RefCell::default) };
        progress.phase(what);
        progress
    }

    /// Another phase has begun.
    pub fn phase(&self, what: impl Into<String>) {
        let what = what.into();
        if let Some(printed) = &self.printed {
            let before = printed.replace(what.clone());
            if before != what {
                let _gone = writeln!(std::io::stderr(), "{what}");
            }
        }
        self.bar.set_message(what);
    }

    /// How far the phase is: for terminals only.
    pub fn set_message(&self, what: String) {
        self.bar.set_message(what);
    }

    /// A remark that stays.
    pub fn remark(&self, what: &str) {
        self.bar.suspend(|| {
            let _gone = writeln!(std::io::stderr(), "{what}");
        });
    }

    /// The end; what was printed as lines stays.
    pub fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
