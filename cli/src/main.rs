//! The otherix command line client: parses the command line, carries out one command, and exits with its code.

mod access;
mod admin;
mod audit;
mod client;
mod command;
mod completion;
mod context;
mod duration;
mod events;
mod exit;
mod failure;
mod image;
mod live;
mod man;
mod manifest;
mod moment;
mod network;
mod node;
mod number;
mod offline;
mod output;
#[cfg(test)]
mod reference;
mod resource;
mod schema;
mod status;
mod trace;
mod usage;
mod user;
mod vm;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use otherix_schemas::error::ErrorCode;
use tokio::runtime::Runtime;

use command::Cli;
use exit::Exit;
use failure::Failure;
use output::Printer;

fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let json = usage::is_json(&matches);
        Cli::from_arg_matches(&matches).map(|cli| (cli, json))
    });
    let (mut printer, result) = match parsed {
        Ok((cli, json)) => {
            let mut printer = Printer::new(json);
            let result = run(cli, &mut printer);
            (printer, result)
        }
        Err(error) => {
            let mut printer = Printer::new(usage::requests_json(std::env::args_os().skip(1)));
            let result = match usage::classify(&error, Cli::command()) {
                usage::EarlyExit::Help(text) => printer.text(&text),
                usage::EarlyExit::Error(failure) => Err(failure),
            };
            (printer, result)
        }
    };
    let exit = match result {
        Ok(()) => Exit::Success,
        Err(failure) => printer.failure(&failure),
    };
    ExitCode::from(exit.code())
}

fn run(cli: Cli, printer: &mut Printer) -> Result<(), Failure> {
    runtime()?.block_on(cli.command.run(&cli.global, printer))
}

/// A single thread: a command makes a request or two, and more threads would take longer to start than they save.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("cannot start the async runtime: {error}"))
    })
}
