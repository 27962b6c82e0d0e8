//! `vouchsafe-guest`: the key-management client of a VM, by the command line.
//!
//! Data goes to stdout as one line of JSON, words to stderr. Exit status: 0 done, 1 could not,
//! 2 usage, 3 refused.

#![forbid(unsafe_code)]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use model::keys::{KeyUse, UseWith};
use vouchsafe_guest::{
    config::Config,
    exchange::{Ask, Client, Question, Reply, chain, socket},
};

/// Proves this VM to the trust service of its server and asks it for keys.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe-guest", version)]
struct Args {
    /// Configuration file (TOML); without it, everything has its default.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Ask a client that serves on this socket, instead of the trust service itself.
    #[arg(long)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prove this VM, and nothing else.
    Attest,
    /// Which keys fit?
    Locate(About),
    /// Which keys fit, and what is known of them?
    Validate(About),
    /// Bind a key to a name.
    Register {
        #[command(flatten)]
        by: Phrased,
        /// Let the service make the key.
        #[arg(long)]
        generate: bool,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// A new certificate for a key.
    Reissue {
        #[command(flatten)]
        name: Name,
        /// The key's file.
        #[arg(long)]
        key_file: PathBuf,
    },
    /// End a binding, by the key or by the pass phrase that it was registered with.
    Revoke {
        #[command(flatten)]
        name: Name,
        /// The key's file.
        #[arg(long)]
        key_file: Option<PathBuf>,
        /// File with the pass phrase.
        #[arg(long)]
        phrase_file: Option<PathBuf>,
    },
    /// Have a private key back.
    Recover(Phrased),
    /// Answer applications on a local socket.
    Serve {
        /// The socket.
        path: PathBuf,
    },
}

/// What a key is for.
#[derive(Debug, clap::Args)]
struct Wanted {
    /// A use: encryption, exchange, signature. May be given several times.
    #[arg(long = "use", value_name = "USE", value_parser = usage)]
    uses: Vec<KeyUse>,
    /// An application's URI and the owner's name in it. May be given several times.
    #[arg(long, value_name = "APPLICATION=NAME", value_parser = UseWith::parse)]
    use_with: Vec<UseWith>,
}

/// Which keys are meant: all that is given must fit.
#[derive(Debug, clap::Args)]
struct About {
    /// The key's name.
    #[arg(long)]
    name: Option<String>,
    /// File with the public key (PEM).
    #[arg(long)]
    key: Option<PathBuf>,
    /// File with its certificate (PEM); others that follow may help to validate it.
    #[arg(long)]
    certificate: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    /// Ask as the identity that the key in this file is bound to.
    #[arg(long = "as", value_name = "KEY_FILE")]
    asker: Option<PathBuf>,
}

impl From<About> for Question {
    fn from(about: About) -> Self {
        let About { name, key, certificate, wanted: Wanted { uses, use_with }, asker } = about;
        Self { name, key, certificate, uses, use_with, asker }
    }
}

/// The words of the wire.
fn usage(text: &str) -> Result<KeyUse, serde_json::Error> {
    serde_json::from_value(text.into())
}

#[derive(Debug, clap::Args)]
struct Name {
    /// The key's name.
    #[arg(long)]
    name: String,
}

/// A key whose order a one-time pass phrase allows.
#[derive(Debug, clap::Args)]
struct Phrased {
    /// The key's name.
    #[arg(long)]
    name: String,
    /// File with the one-time pass phrase: an operator's, or that of a recovery's approval.
    #[arg(long)]
    phrase_file: PathBuf,
    /// The key's file: read, or made if it is not there. Where the key is put that the service makes
    /// or gives back.
    #[arg(long)]
    key_file: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(code) => code,
        Err(words) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "vouchsafe-guest: {words}");
            ExitCode::from(1)
        }
    }
}

fn run(args: Args) -> Result<ExitCode, String> {
    let ask = match args.command {
        Command::Serve { path } => {
            let mut client = client(args.config.as_deref())?;
            socket::serve(&mut client, &path).map_err(|error| error.to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Attest => Ask::Attest {},
        Command::Locate(about) => Ask::Locate(about.into()),
        Command::Validate(about) => Ask::Validate(about.into()),
        Command::Register { by, generate, wanted: Wanted { uses, use_with } } => {
            let Phrased { name, phrase_file, key_file } = by;
            Ask::Register { name, phrase_file, key_file, generate, uses, use_with }
        }
        Command::Reissue { name: Name { name }, key_file } => Ask::Reissue { name, key_file },
        Command::Revoke { name: Name { name }, key_file, phrase_file } => {
            Ask::Revoke { name, key_file, phrase_file }
        }
        Command::Recover(Phrased { name, phrase_file, key_file }) => {
            Ask::Recover { name, phrase_file, key_file }
        }
    };
    let reply = match &args.socket {
        Some(path) => socket::ask(path, &ask).map_err(|error| chain(&error))?,
        None => client(args.config.as_deref())?.ask(&ask),
    };
    let line = serde_json::to_string(&reply).map_err(|error| error.to_string())?;
    writeln!(std::io::stdout(), "{line}").map_err(|error| error.to_string())?;
    Ok(ExitCode::from(match reply {
        Reply::Admitted { .. } => 0,
        Reply::Answer(read) if read.success => 0,
        Reply::Answer(_) | Reply::Refused { .. } => 3,
        Reply::NotNow { .. } | Reply::Failed { .. } => 1,
    }))
}

fn client(config: Option<&Path>) -> Result<Client, String> {
    let config = config.map_or_else(|| Ok(Config::default()), Config::load);
    let config = config.map_err(|error| chain(&error))?;
    Client::new(config).map_err(|error| chain(&error))
}
