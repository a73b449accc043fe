//! The otherix command line client. This file wires: arguments in, one command, exit code out.

mod args;
mod client;
mod completion;
mod duration;
mod exit;
mod failure;
mod man;
mod manifest;
mod network;
mod node;
mod number;
mod output;
#[cfg(test)]
mod reference;
mod thing;
mod usage;
mod vm;

use std::process::ExitCode;

use clap::Parser;
use otherix_schemas::error::ErrorCode;
use serde_json::json;
use tokio::runtime::Runtime;

use args::{Cli, Command, Format};
use exit::Exit;
use failure::Failure;
use manifest::Action;
use output::Printer;

fn main() -> ExitCode {
    let exit = match Cli::try_parse() {
        Ok(cli) => {
            let mut printer = Printer::new(cli.command.wants_json());
            let result = run(cli, &mut printer);
            finish(&mut printer, result)
        }
        Err(error) => {
            let mut printer = Printer::new(usage::asks_for_json(std::env::args_os().skip(1)));
            let result = match usage::sort(&error) {
                usage::Stop::Answer(text) => printer.text(&text),
                usage::Stop::Wrong(failure) => Err(failure),
            };
            finish(&mut printer, result)
        }
    };
    ExitCode::from(exit.code())
}

fn finish(printer: &mut Printer, result: Result<(), Failure>) -> Exit {
    match result {
        Ok(()) => Exit::Done,
        Err(failure) => printer.failure(&failure),
    }
}

fn run(cli: Cli, printer: &mut Printer) -> Result<(), Failure> {
    match cli.command {
        Command::Version { output } => version(output, printer),
        Command::Completion { shell } => printer.text(&completion::script(shell)),
        Command::Man { folder } => man::write(&folder, printer),
        Command::Create(args) => runtime()?.block_on(manifest::run(&cli.global, Action::Create, args, printer)),
        Command::Delete(args) => runtime()?.block_on(manifest::run(&cli.global, Action::Delete, args, printer)),
        Command::Network { command } => runtime()?.block_on(network::run(&cli.global, *command, printer)),
        Command::Vm { command } => runtime()?.block_on(vm::run(&cli.global, *command, printer)),
        Command::Node { command } => runtime()?.block_on(node::run(&cli.global, command, printer)),
    }
}

/// One thread: a command is a request or two, and threads cost more than they would save.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("cannot start: {error}")))
}

fn version(format: Format, printer: &mut Printer) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match format {
        Format::Text => printer.text(&format!("otherix {version}\n")),
        Format::Json => printer.data(&json!({ "version": version })),
    }
}
