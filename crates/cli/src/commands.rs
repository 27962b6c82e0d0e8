//! What each noun and verb does. One file a noun.

mod audit;
mod authority;
mod doctor;
mod host;
mod image;
mod key;
mod policy;
mod reference;
mod service;
mod verdict;
mod vm;
mod volume;
mod wait;

use std::path::{Path, PathBuf};

use serve::exit::Exit;

use crate::{
    args::{Cli, Lab, Noun},
    client::Target,
    lab,
    output::{Failure, Place, Printer},
};

/// Does what was typed.
///
/// # Errors
/// [`Failure`], with the exit status it stands for.
pub async fn run(cli: Cli, printer: &Printer) -> Result<Exit, Failure> {
    let printer = *printer;
    let target = || Target::find(cli.scope.lab.as_deref(), cli.scope.config.as_deref());
    match cli.noun {
        Noun::Lab(verb) => return on_lab(verb, cli.scope.lab, printer).await,
        Noun::Doctor => return doctor::run(printer),
        Noun::Key(key) => key::run(*key, &cli.scope, printer).await?,
        Noun::Volume(verb) => return volume::run(verb, printer).await,
        Noun::Image(verb) => image::run(&verb, printer)?,
        Noun::Authority(verb) => return authority::run(&verb, target, printer).await,
        Noun::Host(verb) => host::run(&verb, &target()?, printer).await?,
        Noun::Vm(verb) => vm::run(verb, &target()?, printer).await?,
        Noun::Policy(verb) => policy::run(&verb, &target()?, printer).await?,
        Noun::Reference(verb) => return reference::run(&verb, printer),
        Noun::Audit(verb) => audit::run(&verb, (&cli.scope, target), printer).await?,
    }
    Ok(Exit::Done)
}

/// Makes a folder that results go to.
fn folder(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|error| unwritable(dir, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::error(
        format!("{}: {error}", path.display()),
        "choose a directory that this user may make and write to",
    )
}

async fn on_lab(verb: Lab, said: Option<PathBuf>, printer: Printer) -> Result<Exit, Failure> {
    let (Lab::Up { dir, .. } | Lab::Status { dir } | Lab::Down { dir }) = &verb;
    let dir = match (dir, said) {
        (Some(dir), Some(said)) if *dir != said => {
            return Err(Failure::Usage("--dir and --lab name different labs".to_owned()));
        }
        (Some(dir), _) => dir.clone(),
        (None, Some(said)) => said,
        (None, None) => return Err(Failure::Usage("say which lab: --dir DIR".to_owned())),
    };
    let printer = printer.at(Place::typed(Some(&dir), None));
    match verb {
        Lab::Up { hosts, accel, lease, manner, .. } => {
            let wish = lab::up::Wish { hosts, accel, lease_seconds: lease, manner };
            lab::up::run(&dir, &wish, printer).await?;
        }
        Lab::Status { .. } => return lab::status::run(&dir, printer).await,
        Lab::Down { .. } => lab::down::run(&dir, printer).await?,
    }
    Ok(Exit::Done)
}
