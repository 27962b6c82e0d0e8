//! `vouchsafe`: parse, do, report, exit with 0 (done), 1 (could not), 2 (usage) or 3 (refused).

use clap::Parser as _;
use cli::{
    args::Cli,
    commands,
    output::{Place, Printer},
    usage,
};
use serve::exit::Exit;

fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error, std::env::args_os()),
    };
    let place = Place::typed(cli.scope.lab.as_deref(), cli.scope.config.as_deref());
    let printer = Printer::new(cli.scope.json).at(place);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return printer.failure(&error.into()),
    };
    match runtime.block_on(commands::run(cli, &printer)) {
        Ok(exit) => exit,
        Err(failure) => printer.failure(&failure),
    }
}
