//! Where commands act, as the next commands that are printed have to say it.

use std::path::Path;

/// Nouns whose commands act on an authority or a lab.
const PLACED: [&str; 7] = ["audit", "authority", "host", "key", "lab", "policy", "vm"];
/// How a command begins within a sentence.
const BEGIN: &str = "`vouchsafe ";

/// What was said of the place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nothing: the default configuration.
    #[default]
    Default,
    /// `--lab DIR`, ready to be typed.
    Lab(&'static str),
    /// `--config FILE`, ready to be typed.
    Config(&'static str),
}

impl Place {
    /// As typed. The words are kept for the life of the process: there is one place in it.
    #[must_use]
    pub fn typed(lab: Option<&Path>, config: Option<&Path>) -> Self {
        match (lab, config) {
            (Some(dir), _) => Self::Lab(format!("--lab {}", quoted(dir)).leak()),
            (None, Some(file)) => Self::Config(format!("--config {}", quoted(file)).leak()),
            (None, None) => Self::Default,
        }
    }

    /// `vouchsafe WORDS`, followed by where.
    #[must_use]
    pub fn command(self, words: &str) -> String {
        let place = match self {
            Self::Lab(place) | Self::Config(place) => place,
            Self::Default => "",
        };
        let noun = words.split(' ').next().unwrap_or_default();
        let own = ["authority init", "authority backup", "authority restore"];
        let placed = PLACED.contains(&noun) && !own.iter().any(|verb| words.starts_with(verb));
        let said = ["--lab", "--config", "--dir"].iter().any(|option| words.contains(option));
        let lab_elsewhere = noun == "lab" && !matches!(self, Self::Lab(_));
        if place.is_empty() || !placed || said || lab_elsewhere {
            return format!("vouchsafe {words}");
        }
        format!("vouchsafe {words} {place}")
    }

    /// A sentence whose commands (in backticks) say where.
    #[must_use]
    pub fn complete(self, sentence: &str) -> String {
        let mut complete = String::with_capacity(sentence.len());
        let mut rest = sentence;
        while let Some((before, after)) = rest.split_once(BEGIN) {
            let Some((words, after)) = after.split_once('`') else { break };
            complete.push_str(&format!("{before}`{}`", self.command(words)));
            rest = after;
        }
        complete.push_str(rest);
        complete
    }
}

/// A path as a shell takes it.
#[must_use]
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_a_sentence_say_where() {
        let lab = Place::typed(Some(Path::new("/tmp/lab")), None);
        assert_eq!(
            lab.complete("`vouchsafe vm show v1`, then `vouchsafe lab status`; or `make demo`"),
            "`vouchsafe vm show v1 --lab /tmp/lab`, then `vouchsafe lab status --lab /tmp/lab`; or \
             `make demo`"
        );
        assert_eq!(Place::Default.complete("`vouchsafe vm list`"), "`vouchsafe vm list`");
    }

    #[test]
    fn a_command_that_says_where_or_acts_nowhere_stays() {
        let lab = Place::typed(Some(Path::new("/tmp/lab")), None);
        for words in ["doctor", "image measure F", "lab up --dir /x", "vm list --config f"] {
            assert_eq!(lab.command(words), format!("vouchsafe {words}"));
        }
        let file = Place::typed(None, Some(Path::new("my file.toml")));
        assert_eq!(file.command("lab status"), "vouchsafe lab status");
        assert_eq!(file.command("host list"), "vouchsafe host list --config 'my file.toml'");
    }

    #[test]
    fn an_open_backtick_changes_nothing() {
        let lab = Place::typed(Some(Path::new("/l")), None);
        assert_eq!(lab.complete("say `vouchsafe vm list"), "say `vouchsafe vm list");
    }
}
