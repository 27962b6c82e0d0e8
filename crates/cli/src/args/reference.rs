//! `vouchsafe reference ...`: needs no authority.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Verbs of reference values.
#[derive(Debug, Subcommand)]
pub enum Reference {
    /// Make an endorser's key; the authority gets its public half only.
    Key {
        /// Directory for NAME.key and NAME.pub; made if it is missing.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Name of the files.
        #[arg(long, default_value = "endorser", value_parser = plain)]
        name: String,
    },
    /// Write a draft that endorses what machines in their good state measured.
    FromLog(FromLog),
    /// Endorse a program: it is good if it has the digest of one of these files.
    AddComponent(AddComponent),
    /// Say what a draft or a signed document endorses, and who signed it.
    Show {
        /// The document.
        file: PathBuf,
        /// An endorser's public key; with it the signatures are verified (exit status 3).
        #[arg(long = "endorser", value_name = "FILE")]
        endorsers: Vec<PathBuf>,
        /// How many of the endorsers must have signed.
        #[arg(long, default_value_t = 1, requires = "endorsers")]
        needed: usize,
    },
    /// Sign a draft, or add a signature to a document that has some.
    Sign {
        /// The endorser's key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The draft or signed document.
        document: PathBuf,
        /// Where to write the signed document; may be the same file.
        out: PathBuf,
    },
    /// Give a signed document to the authority of this machine. It is verified first; hosts are
    /// appraised by it from then on, without a restart.
    Install {
        /// Configuration of `vouchsafe-authority`.
        #[arg(long = "authority-config", value_name = "FILE")]
        authority_config: PathBuf,
        /// The signed document.
        document: PathBuf,
    },
}

/// From where a draft is made.
#[derive(Debug, Args)]
pub struct FromLog {
    /// What the document is for, in words.
    #[arg(long, default_value = "hosts", value_name = "TEXT")]
    pub name: String,
    /// PCRs to appraise, such as `0-7,9` [default: 0-7, and those of 8, 9, 11 to 14 that the logs
    /// extend].
    #[arg(long, value_name = "LIST", value_parser = pcrs)]
    pub pcrs: Option<Pcrs>,
    /// The draft to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Event logs of good machines. What is only in some of them is endorsed as optional.
    #[arg(
        required = true,
        value_name = "LOG",
        help = "Event logs of good machines, such as \
                /sys/kernel/security/tpm0/binary_bios_measurements; what is only in some of them \
                is optional"
    )]
    pub logs: Vec<PathBuf>,
}

/// Which program is endorsed.
#[derive(Debug, Args)]
pub struct AddComponent {
    /// The document to change. A signed one stays as it is: give --out.
    #[arg(long, value_name = "FILE")]
    pub document: PathBuf,
    /// The draft to write [default: the document itself].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// What was good for this component no longer is.
    #[arg(long)]
    pub replace: bool,
    /// Its role, such as `host`, `disk`, `qemu`: the event is `vouchsafe:NAME` in PCR 14.
    #[arg(value_parser = plain)]
    pub name: String,
    /// The program, in each version that is good.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// Indices of PCRs, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcrs(pub Vec<u8>);

fn plain(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 64 || !text.chars().all(good) {
        return Err("1 to 64 of the letters a to z, digits and `-`".to_owned());
    }
    Ok(text.to_owned())
}

fn pcrs(text: &str) -> Result<Pcrs, String> {
    let index = |text: &str| text.parse::<u8>().ok().filter(|pcr| *pcr < tpm::PCR_COUNT);
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (index(first), index(last)) else {
            return Err(format!("{part:?} is no PCR or range of PCRs"));
        };
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Ok(Pcrs(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_are_lists_of_ranges() {
        assert_eq!(pcrs("0-3,9,2"), Ok(Pcrs(vec![0, 1, 2, 3, 9])));
        assert!(pcrs("24").is_err());
        assert!(pcrs("").is_err());
        assert!(plain("../x").is_err());
    }
}
