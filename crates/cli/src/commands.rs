//! What each noun and verb does. One file a noun.

mod audit;
mod authority;
mod doctor;
mod host;
mod image;
mod key;
mod policy;
mod verdict;
mod vm;
mod volume;
mod wait;

use serve::exit::Exit;

use crate::{
    args::{Cli, Lab, Noun},
    client::Target,
    lab,
    output::{Failure, Printer},
};

/// Does what was typed.
///
/// # Errors
/// [`Failure`], with the exit status it stands for.
pub async fn run(cli: Cli, printer: &Printer) -> Result<Exit, Failure> {
    let printer = *printer;
    let target = || Target::find(cli.scope.lab.as_deref(), cli.scope.config.as_deref());
    match cli.noun {
        Noun::Lab(Lab::Up { dir, hosts, accel, lease, manner }) => {
            let wish = lab::up::Wish { hosts, accel, lease_seconds: lease, manner };
            lab::up::run(&dir, &wish, printer).await?;
        }
        Noun::Lab(Lab::Status { dir }) => return lab::status::run(&dir, printer).await,
        Noun::Lab(Lab::Down { dir }) => lab::down::run(&dir, printer).await?,
        Noun::Doctor => return doctor::run(printer),
        Noun::Key(key) => key::run(*key, &cli.scope, printer)?,
        Noun::Volume(verb) => return volume::run(verb, printer).await,
        Noun::Image(verb) => image::run(&verb, printer)?,
        Noun::Authority(verb) => return authority::run(&verb, target, printer).await,
        Noun::Host(verb) => host::run(&verb, &target()?, printer).await?,
        Noun::Vm(verb) => vm::run(verb, &target()?, printer).await?,
        Noun::Policy(verb) => policy::run(&verb, &target()?, printer).await?,
        Noun::Audit(verb) => audit::run(&verb, target, printer).await?,
    }
    Ok(Exit::Done)
}
