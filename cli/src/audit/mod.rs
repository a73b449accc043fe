//! The transparency log: `otherix audit …`. Exporting asks the control plane; verifying and proving need nothing but an
//! export and the public key of the log, which comes from elsewhere.

mod attributes;
mod canonical;
mod compare;
mod export;
mod folder;
mod mirror;
mod prove;
mod replay;
mod sequence;
mod status;
mod tiles;
mod verify;
mod verify_command;
mod verify_proof;

#[cfg(test)]
mod tampering_tests;

use std::io;

use clap::Subcommand;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::log::{GetLog, LogView, NoConditions};
use otherix_tlog::VerifierKey;
use serde_json::json;

pub(crate) use self::replay::replayed_models;
use self::sequence::Fault;
use self::verify::VerifyError;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;

/// Export, prove and verify the history of the cluster
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum AuditSubcommand {
    /// Write the events, with all that is needed to verify them, to a folder
    #[command(after_help = export::HELP)]
    Export(export::ExportArgs),
    /// Verify an export, a proof, or the running control plane
    #[command(after_help = verify_command::HELP)]
    Verify(Box<verify_command::VerifyArgs>),
    /// Make read models of an export, to be queried without a control plane
    #[command(after_help = replay::HELP)]
    Replay(replay::ReplayArgs),
    /// Write the proof that an event is in the log
    #[command(after_help = prove::HELP)]
    Prove(prove::ProveArgs),
    /// Show the log, and what the nodes keep of it
    #[command(after_help = status::HELP)]
    Status(status::StatusArgs),
    /// Print the public key of the log, to be pinned
    #[command(after_help = KEY_HELP)]
    Key {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
}

const EXAMPLES: &str = "\
Examples:
  otherix audit key > log.vkey
  otherix audit export export-1
  otherix audit verify export-1 --key \"$(cat log.vkey)\"
  otherix audit replay export-1 --key \"$(cat log.vkey)\" --into replay-1
  otherix --offline replay-1 network list
  otherix audit status";

const KEY_HELP: &str = "\
As the control plane tells it: keep it from the first day on, and compare it with what others have. Each epoch has \
another name in it, and the same key.

Examples:
  otherix audit key > log.vkey";

/// Carries out a command.
pub(crate) async fn run(global: &GlobalArgs, command: AuditSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        AuditSubcommand::Export(args) => export::run(global, args, printer).await,
        AuditSubcommand::Verify(args) => verify_command::run(global, *args, printer).await,
        AuditSubcommand::Replay(args) => replay::run(args, printer).await,
        AuditSubcommand::Prove(args) => prove::run(global, args, printer).await,
        AuditSubcommand::Status(args) => status::run(global, args, printer).await,
        AuditSubcommand::Key { output } => {
            let mut client = ControlPlaneClient::connect(global).await?;
            let LogView { key, .. } = log(&mut client).await?;
            match output {
                Format::Text => printer.text(&format!("{}\n", clean(&key))),
                Format::Json => printer.data(&json!({ "key": key })),
            }
        }
    }
}

/// The state of the log, as the control plane tells it.
async fn log(client: &mut ControlPlaneClient) -> Result<LogView, Failure> {
    Ok(client.call::<GetLog>(&NoConditions {}).await?.data)
}

/// The newest checkpoint, with its key, as the control plane tells them.
async fn checkpoint(client: &mut ControlPlaneClient) -> Result<(LogView, String, VerifierKey), Failure> {
    let view = log(client).await?;
    let Some(note) = view.checkpoint.clone() else {
        let text = "the log has no checkpoint yet";
        return Err(Failure::new(Exit::Unreachable, ErrorCode::Unavailable, text));
    };
    let key = parse_key(&view.key)?;
    Ok((view, note, key))
}

fn parse_key(text: &str) -> Result<VerifierKey, Failure> {
    text.trim().parse().map_err(|error| {
        let text = format!("the key of the log is malformed: {error}");
        Failure::new(Exit::Usage, ErrorCode::ValidationFailed, text)
            .hint("a key is one line with name, id and key, as `otherix audit key` prints it")
    })
}

/// A file could not be read or written.
fn file(error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Unexpected };
    let code = if exit == Exit::NotFound { ErrorCode::NotFound } else { ErrorCode::Internal };
    Failure::new(exit, code, error.to_string())
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let Fault { position, text } = fault;
        let message = match position {
            Some(position) => format!("position {position}: {text}"),
            None => text,
        };
        let mut failure = Self::new(Exit::Unexpected, ErrorCode::Conflict, message);
        if let Some(position) = position {
            failure.body = Box::new(failure.body.with_detail("position", json!(position)));
        }
        failure
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Fault(fault) => fault.into(),
            VerifyError::Read(error) => file(&error),
        }
    }
}
