//! `vouchsafe`: parse, do, report, exit with 0 (done), 1 (could not), 2 (usage) or 3 (refused).

use clap::Parser as _;
use cli::{args::Cli, commands, output::Printer};
use serve::exit::Exit;

fn main() -> Exit {
    let cli = Cli::parse();
    let printer = Printer::new(cli.scope.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return printer.failure(&error.into()),
    };
    match runtime.block_on(commands::run(cli, &printer)) {
        Ok(exit) => exit,
        Err(failure) => printer.failure(&failure),
    }
}
