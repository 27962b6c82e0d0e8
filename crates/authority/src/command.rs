//! The command line. Data on stdout, words on stderr; exit 0 done, 1 could not, 2 usage, 3 refused.

use std::{
    error::Error,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};
use serde::Serialize;
use serve::{
    clock::{SharedClock, SystemClock},
    exit::{self, Exit},
    fsfile, sandbox, shell, telemetry,
};
use zeroize::Zeroize as _;

use crate::{
    backup::{self, BackupError},
    config::Config,
    ground::{self, GroundError},
    init::{self, Report},
    keyring,
    paths::Paths,
    reference::{self, ReferenceError},
    refused_starts::RefusedStarts,
    restore::{self, RestoreError, Source},
    root::RootKey,
    server::{self, ServerError},
    tpmlink::TpmLink,
};

/// Longest input on stdin.
const MAX_INPUT: u64 = 64 << 10;

/// Enrols hosts, appraises evidence, grants VM keys.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe-authority", version)]
pub(crate) struct Cli {
    /// Configuration file (TOML).
    #[arg(long, global = true, default_value = "/etc/vouchsafe/authority.toml")]
    config: PathBuf,
    /// Check the configuration and what it names, then exit.
    #[arg(long)]
    check_config: bool,
    /// Print results and refusals as JSON on stdout.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make the state directory: keys, CA, store. Prints the recovery shares, once.
    Init,
    /// Issue a client certificate for another operator.
    Operator {
        /// The operator's name.
        #[arg(long)]
        name: String,
        /// Directory for NAME.pem and NAME.key; made if it is missing.
        #[arg(long)]
        out: PathBuf,
    },
    /// Verify signed reference values by the endorsers' keys of the configuration, and put them in
    /// the place of the present ones. A server that runs appraises by them from then on.
    Reference {
        /// The signed document.
        document: PathBuf,
    },
    /// Bring the root key back from shares on stdin, one a line, and seal it to the present TPM.
    Recover,
    /// Back everything up into a new file under a key of its own, while the server does not run.
    /// Prints the shares of that key, once.
    Backup {
        /// The file to make.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make an authority valid again on the present TPM, as a new incarnation that grants nothing
    /// until the old leases have ended. The lost one must be off for good. Shares come on stdin,
    /// one a line: the backup's or, without a backup, those that `init` showed.
    Restore {
        /// The backup; without it the state directory is restored as it lies.
        #[arg(long, value_name = "FILE")]
        backup: Option<PathBuf>,
        /// The longest lease that the lost authority may have given, seconds, if that was longer
        /// than the restored policy says.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        longest_lease: u64,
    },
}

/// A refusal as it is printed.
#[derive(Serialize)]
struct Refused<'a> {
    refused: &'a str,
    detail: String,
    hint: &'a str,
}

type Failed = Box<dyn Error>;

/// How a command ended, if not well.
enum Ended {
    Refused { name: &'static str, hint: &'static str, cause: Failed },
    Usage(Failed),
    Failed(Failed),
}

impl<E: Error + 'static> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> Exit {
        let json = self.json;
        match self.try_run() {
            Ok(()) => Exit::Done,
            Err(Ended::Usage(error)) => shell::unusable(exit::chain(&*error)),
            Err(Ended::Failed(error)) => {
                complain(&*error, None);
                Exit::Failed
            }
            Err(Ended::Refused { name, hint, cause }) => {
                complain(&*cause, Some((name, hint)));
                if json {
                    let detail = exit::chain(&*cause);
                    // Nobody is left to tell if stdout is closed; the status says it all.
                    let _ = print(&Refused { refused: name, detail, hint });
                }
                Exit::Refused
            }
        }
    }

    fn try_run(self) -> Result<(), Ended> {
        let usage = |error| Ended::Usage(Box::new(error));
        let config = Config::load(&self.config).map_err(usage)?;
        if self.check_config {
            config.must_be_there().map_err(usage)?;
            server::check(&config)?;
            return Ok(());
        }
        match self.command {
            None => {
                quiet(&config)?;
                serve(config)
            }
            Some(command) => command.run(&config, self.json),
        }
    }
}

impl Command {
    fn run(self, config: &Config, json: bool) -> Result<(), Ended> {
        let clock = SystemClock::shared();
        match self {
            // It opens no state and knows no secret.
            Self::Reference { document } => {
                let installed = reference::install(config, &document).map_err(ended)?;
                Ok(say(&installed, json)?)
            }
            Self::Init => alone(config, async {
                let tell = |report: &Report| say(report, json);
                init::init(config, &clock, tell).await.map_err(ended)
            }),
            Self::Operator { name, out } => alone(config, async {
                let made = operator(config, &clock, &name, &out).await?;
                Ok::<_, Ended>(say(&made, json)?)
            }),
            Self::Recover => alone(config, recover(config)),
            Self::Backup { out } => alone(config, async {
                let made = backup::make(config, &clock, &out).await.map_err(ended)?;
                Ok::<_, Ended>(say(&made, json)?)
            }),
            Self::Restore { backup, longest_lease } => {
                alone(config, restore(config, &clock, backup, longest_lease))
            }
        }
    }
}

/// What every use of the state begins with: the log, and no core dumps.
fn quiet(config: &Config) -> Result<(), Ended> {
    telemetry::init(&config.log)?;
    Ok(sandbox::harden()?)
}

/// Runs a command that uses the state while no server does.
fn alone(config: &Config, job: impl Future<Output = Result<(), Ended>>) -> Result<(), Ended> {
    quiet(config)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(job)
}

/// Serves until SIGTERM; a start that is refused is noted for the next good one.
fn serve(config: Config) -> Result<(), Ended> {
    ground::must_exist(&config.state_dir).map_err(ended)?;
    let mut refused = RefusedStarts::beside(&config.state_dir)?;
    confine(&config, refused.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clock = SystemClock::shared();
    runtime.block_on(server::serve(config, clock.clone(), &refused)).map_err(|error| {
        if let Some((name, hint)) = error.refusal() {
            refused.note(clock.unix_ms(), name, exit::chain(&error), hint);
        }
        ended(error)
    })
}

/// The server touches its state, what the configuration names, and nothing else. Threads inherit
/// this, so it comes before there are any.
fn confine(config: &Config, refused_starts: &Path) -> Result<(), Ended> {
    let parent = |path: &PathBuf| path.parent().map(Path::to_path_buf);
    let mut write = vec![config.state_dir.clone(), refused_starts.to_owned()];
    write.extend(config.address_file.iter().filter_map(parent));
    write.extend(config.witness.iter().filter_map(parent));
    if let tpm::Address::Device(device) = config.tpm_address()? {
        write.push(device);
    }
    let mut read: Vec<PathBuf> = parent(&config.reference_values).into_iter().collect();
    read.extend(config.ek_roots.iter().chain(&config.endorsers.keys).cloned());
    let files = sandbox::restrict_files(&paths(&read), &paths(&write))?;
    let memory = sandbox::lock_memory();
    tracing::info!(files = files.as_str(), ?memory, "confined");
    Ok(())
}

fn paths(list: &[PathBuf]) -> Vec<&Path> {
    list.iter().map(PathBuf::as_path).collect()
}

/// An error that may be a rule's "no".
trait MayRefuse: Error + Sized + 'static {
    fn refused(&self) -> Option<(&'static str, &'static str)>;
}

macro_rules! may_refuse {
    ($($error:ty),* $(,)?) => {
        $(impl MayRefuse for $error {
            fn refused(&self) -> Option<(&'static str, &'static str)> {
                self.refusal()
            }
        })*
    };
}

may_refuse!(BackupError, GroundError, ReferenceError, RestoreError, ServerError);

fn ended(error: impl MayRefuse) -> Ended {
    match error.refused() {
        Some((name, hint)) => Ended::Refused { name, hint, cause: Box::new(error) },
        None => Ended::Failed(Box::new(error)),
    }
}

async fn operator(
    config: &Config,
    clock: &SharedClock,
    name: &str,
    out: &Path,
) -> Result<Operator, Ended> {
    if !out.exists() {
        fsfile::create_private_dir(out)?;
    }
    let paths = Paths::new(&config.state_dir);
    let tpm = TpmLink::new(config.tpm_address()?)?;
    let root = ground::open_root(&paths, &tpm).await.map_err(ended)?;
    let ca = keyring::load_ca(&root, &paths.ca(), &paths.ca_key())?;
    let name: model::HostId = name.parse()?;
    let client_cert = out.join(format!("{name}.pem"));
    let client_key = out.join(format!("{name}.key"));
    keyring::issue_operator(&ca, name.as_str(), &client_cert, &client_key, clock.now())?;
    Ok(Operator { client_cert, client_key })
}

/// Shares, one a line.
fn shares() -> Result<Vec<String>, Ended> {
    let mut input = String::new();
    io::stdin().take(MAX_INPUT).read_to_string(&mut input)?;
    let shares = input.split_whitespace().map(str::to_owned).collect();
    input.zeroize();
    Ok(shares)
}

async fn restore(
    config: &Config,
    clock: &SharedClock,
    backup: Option<PathBuf>,
    longest_lease: u64,
) -> Result<(), Ended> {
    let source = backup.map_or(Source::InPlace, Source::Backup);
    let restored = restore::restore(config, clock, &source, &shares()?, longest_lease).await;
    Ok(print(&restored.map_err(ended)?)?)
}

async fn recover(config: &Config) -> Result<(), Ended> {
    let shares = shares()?;
    let paths = Paths::new(&config.state_dir);
    let tpm = TpmLink::new(config.tpm_address()?)?;
    let threshold = config.recovery.threshold;
    RootKey::recover(&paths.root(), &tpm, &config.seal_pcrs, &shares, threshold).await?;
    Ok(())
}

/// What a command tells of what it made.
pub(crate) trait Told: Serialize {
    /// For people.
    fn in_words(&self) -> String;
}

/// Files of an operator.
#[derive(Debug, Serialize)]
struct Operator {
    client_cert: PathBuf,
    client_key: PathBuf,
}

impl Told for Operator {
    fn in_words(&self) -> String {
        format!(
            "certificate: {}\nkey:         {}\nnext: give both to that operator, and no copy to \
             anybody; they are `client_cert` and `client_key` of client.toml",
            self.client_cert.display(),
            self.client_key.display(),
        )
    }
}

fn say(value: &impl Told, json: bool) -> io::Result<()> {
    if json {
        return print(value);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", value.in_words())?;
    out.flush()
}

fn print(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn complain(error: &(dyn Error + 'static), refusal: Option<(&str, &str)>) {
    let mut out = io::stderr().lock();
    let chain = exit::chain(error);
    // As above: if stderr is closed there is nobody to tell.
    let _ = match refusal {
        Some((name, hint)) => writeln!(out, "refused ({name}): {chain}\nhint: {hint}"),
        None => writeln!(out, "error: {chain}"),
    };
}
