//! `otherixd`, the control plane: the write side, the read side and a supervised `nats-server`, wired together.

mod accounts_command;
mod args;
mod backup;
mod control_plane;
mod decision_key;
mod error;
mod event_store;
mod first_admin;
mod given_up;
mod hints;
mod journal_events;
mod local_context;
mod log_key;
mod nats;
mod nats_links;
mod nats_watchdog;
mod observed;
mod offline;
mod own_nats_args;
mod read_side;
mod rebuild;
mod recover;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use otherix_schemas::error::Causes;

use args::{JournalCommand, OtherixdArgs, OtherixdCommand};
use own_nats_args::AccountsCommand;

/// Allocation is a third of the work of a command. This allocator costs less than glibc's, most of all when one thread
/// frees what another has allocated, as batches on their way to SQLite's threads do.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = OtherixdArgs::parse();
    args.log.start("info,async_nats=warn");
    // One thread: the work is mostly waiting, SQLite has separate threads, and passing tasks between threads costs more
    // than it gains.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match (runtime, args.command) {
        (Ok(runtime), OtherixdCommand::Run(run)) => runtime.block_on(control_plane::run(*run)),
        (Ok(runtime), OtherixdCommand::Backup(args)) => runtime.block_on(backup::backup(&args)),
        (Ok(runtime), OtherixdCommand::Restore(args)) => match &args.from {
            Some(file) => runtime.block_on(backup::restore(file, &args)),
            None => runtime.block_on(recover::restore(&args)),
        },
        (Ok(runtime), OtherixdCommand::Accounts { command }) => match command {
            AccountsCommand::Print(args) => runtime.block_on(accounts_command::print(&args)),
            AccountsCommand::Push(args) => runtime.block_on(accounts_command::push(&args)),
        },
        (Ok(runtime), OtherixdCommand::Journal { command }) => match command {
            JournalCommand::Verify(args) => runtime.block_on(verify::verify(&args)),
            JournalCommand::Adopt(args) => runtime.block_on(recover::adopt(&args)),
        },
        (Ok(runtime), OtherixdCommand::RotateDecisionKey(state)) => {
            runtime.block_on(decision_key::rotate(&state)).map(|(old, new)| {
                tracing::info!(%old, %new, "the key that signs decisions was rotated; it is used from the next start");
            })
        }
        (Ok(runtime), OtherixdCommand::Rebuild(state)) => {
            runtime.block_on(rebuild::rebuild(&state)).map_err(Into::into)
        }
        (Err(error), _) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %Causes(error.as_ref()), "otherixd ends");
            if let Some(hint) = hints::hint(error.as_ref()) {
                tracing::error!(hint);
            }
            ExitCode::FAILURE
        }
    }
}
